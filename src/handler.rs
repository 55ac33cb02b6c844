//! One invocation: the order in which everything else is done.
//!
//! Owns that order, and the containment of panics. It must not decide anything
//! else.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use aws_config::SdkConfig;
use futures_util::FutureExt as _;
use serde_json::value::RawValue;
use thiserror::Error;
use tokio::time::Instant;

use crate::aws::sitewise::SiteWise;
use crate::aws::sqs::{Queue, Sqs};
use crate::config::FunctionConfig;
use crate::deadline::Stops;
use crate::dispatch::dispatch;
use crate::dispatch::rate_limiter::RateLimiter;
use crate::event::{self, Event, Keeper, Message, UnrecognizedEvent};
use crate::outcome::Failure;
use crate::output::outbox::Outbox;
use crate::output::response::{Counts, MissingMessageId, Report, Response, partial_batch};
use crate::plan::{PlanInput, plan, scatter};
use crate::settle::{
    Queues, ReadError, Received, Settlement, hold_back_groups, needs_redelivery, settle,
};
use crate::telemetry;
use crate::telemetry::metrics::Metrics;

/// The function: everything that one cold start sets up.
#[derive(Clone, Debug)]
pub struct Function {
    /// The service to disassociate assets with.
    pub sitewise: SiteWise,
    /// Where dead letters go.
    pub dead_letter_queue: Option<Queue>,
    /// Where parts of large requests and unfinished work go. Requires a
    /// dead-letter queue.
    pub work_queue: Option<Queue>,
    /// The largest request, in assets, that is processed at once where there is a
    /// work queue.
    pub fan_out_assets: usize,
    /// Requests to SiteWise in flight.
    pub call_concurrency: usize,
    /// Their rate limiter, kept between invocations.
    pub rate_limiter: Arc<Mutex<RateLimiter>>,
    /// The metrics' namespace; without one there are none.
    pub metrics_namespace: Option<String>,
    /// Returns the time of day.
    pub now: fn() -> SystemTime,
}

/// One invocation.
#[derive(Clone, Copy, Debug)]
pub struct Invocation<'a> {
    /// The request id: the same for Lambda's retries of one event.
    pub request_id: &'a str,
    /// When Lambda stops the function.
    pub deadline: Instant,
    /// Whether it is the process's first.
    pub is_cold_start: bool,
}

/// Reasons for which the invocation fails, so that the event's sender keeps it.
#[derive(Debug, Error)]
pub enum HandlerError {
    /// The payload is none of the events.
    #[error(transparent)]
    Unrecognized(#[from] UnrecognizedEvent),
    /// A record must be redelivered that has no `messageId` to name it by.
    #[error(
        "a record without messageId could not be settled: the whole batch is returned to its queue"
    )]
    MissingMessageId,
    /// Failures of an event that only Lambda can keep could not be put in a queue.
    #[error(
        "{count} assets or requests failed and are in no queue: the event is returned to Lambda's \
         own retries and dead-letter queue; the first has the code {first_code}"
    )]
    NotStored {
        /// how many
        count: usize,
        /// the first one's code; its message may quote the event, and this
        /// error is logged
        first_code: String,
    },
    /// A defect of this function.
    #[error("the function failed on this event: nothing of it counts as done")]
    Panicked,
}

impl HandlerError {
    /// Returns the name that Lambda shows as `errorType`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unrecognized(_) => "UnrecognizedEvent",
            Self::MissingMessageId => "MissingMessageId",
            Self::NotStored { .. } => "NotStored",
            Self::Panicked => "InternalError",
        }
    }
}

impl From<MissingMessageId> for HandlerError {
    fn from(_: MissingMessageId) -> Self {
        Self::MissingMessageId
    }
}

impl Function {
    /// Sets the function up.
    pub fn new(sdk: &SdkConfig, config: FunctionConfig, now: fn() -> SystemTime) -> Self {
        let sqs = Sqs::new(sdk);
        let queue = |url: Option<String>| url.map(|url| Queue::new(sqs.clone(), url));
        Self {
            sitewise: SiteWise::new(sdk),
            dead_letter_queue: queue(config.dead_letter_queue_url),
            work_queue: queue(config.work_queue_url),
            fan_out_assets: config.fan_out_assets,
            call_concurrency: config.call_concurrency,
            rate_limiter: Arc::default(),
            metrics_namespace: config.metrics_namespace,
            now,
        }
    }

    /// Handles one event from its payload to its response.
    ///
    /// # Errors
    ///
    /// Only where nothing else keeps the work safe; see [`HandlerError`].
    pub async fn handle(
        &self,
        payload: &RawValue,
        invocation: Invocation<'_>,
    ) -> Result<Response, HandlerError> {
        let event = catch_unwind(AssertUnwindSafe(|| Ok(event::read(payload)?)))
            .unwrap_or(Err(HandlerError::Panicked))
            .inspect_err(|_| {
                let metrics = Metrics {
                    cold_start: invocation.is_cold_start,
                    ..Metrics::default()
                };
                self.log_results(&[], &metrics);
            })?;
        let processed = AssertUnwindSafe(self.process(&event, invocation)).catch_unwind();
        match processed.await {
            Ok(response) => response,
            Err(_panic) => self.nothing_done(&event, invocation),
        }
    }

    async fn process(
        &self,
        event: &Event<'_>,
        invocation: Invocation<'_>,
    ) -> Result<Response, HandlerError> {
        let stops = Stops::before(invocation.deadline);
        let received = receive(event.messages(), invocation.request_id);
        telemetry::record_correlation_id(&received);

        let inputs: Vec<PlanInput<'_>> = received
            .iter()
            .filter_map(|received| self.plan_input(received))
            .collect();
        let batches = plan(&inputs);
        let dispatched = dispatch(
            &self.sitewise,
            &self.rate_limiter,
            &batches,
            self.call_concurrency,
            stops.requests,
        )
        .await;
        let mut outcomes = scatter(&inputs, &batches, &dispatched.outcomes).into_iter();
        let mut settlements: Vec<Settlement<'_>> = Vec::with_capacity(received.len());
        for received in received {
            let is_planned = self.plan_input(&received).is_some();
            let outcomes = is_planned.then(|| outcomes.next()).flatten();
            settlements.push(settle(received, outcomes, self.queues()));
        }
        hold_back_groups(&mut settlements);

        let outbox = Outbox {
            dead_letter_queue: self.dead_letter_queue.as_ref(),
            work_queue: self.work_queue.as_ref(),
            part_assets: self.fan_out_assets,
            request_id: invocation.request_id,
            now: (self.now)(),
            stop: stops.writes,
        };
        let stored = outbox.store(&mut settlements).await;
        let redelivered = match event {
            Event::Queue(_) => needs_redelivery(&settlements),
            Event::Reported(_) => vec![false; settlements.len()],
        };
        let metrics = Metrics {
            messages: settlements.len(),
            redelivered: redelivered.iter().filter(|is_so| **is_so).count(),
            assets: settlements.iter().map(Counts::of).sum(),
            calls: dispatched.calls,
            reads: dispatched.reads,
            attempts: self.sitewise.take_attempts(),
            dead_letters: stored.dead_letters,
            parts: stored.parts,
            not_stored: stored.failed,
            cold_start: invocation.is_cold_start,
        };
        self.log_results(&settlements, &metrics);

        match event {
            Event::Queue(messages) => {
                let redelivered = messages.iter().zip(redelivered);
                let ids = redelivered
                    .filter(|(_, is_redelivered)| *is_redelivered)
                    .map(|(message, _)| message.id.as_deref());
                Ok(Response::PartialBatch(partial_batch(ids)?))
            }
            Event::Reported(_) => reports(&settlements, invocation, dispatched.calls),
        }
    }

    /// Returns what is to be planned for a message: nothing where there is no
    /// valid request, or one that is cut into parts.
    fn plan_input<'a>(&self, received: &'a Received<'_>) -> Option<PlanInput<'a>> {
        let request = received.request.as_ref().ok()?;
        let is_cut = self.work_queue.is_some()
            && !request.is_part
            && request.assets.len() > self.fan_out_assets;
        (!is_cut).then_some(PlanInput {
            request,
            message_id: &received.id,
            receives: received.message.receives,
        })
    }

    fn log_results(&self, settlements: &[Settlement<'_>], metrics: &Metrics) {
        telemetry::log_results(settlements, metrics, self.metrics_namespace.as_deref());
    }

    fn queues(&self) -> Queues {
        match (&self.dead_letter_queue, &self.work_queue) {
            (None, _) => Queues::None,
            (Some(_), None) => Queues::DeadLetters,
            (Some(_), Some(_)) => Queues::Both,
        }
    }

    /// Responds to an event on which the function panicked: nothing is certain.
    fn nothing_done(
        &self,
        event: &Event<'_>,
        invocation: Invocation<'_>,
    ) -> Result<Response, HandlerError> {
        let messages = event.messages();
        let metrics = Metrics {
            messages: messages.len(),
            redelivered: match event {
                Event::Queue(_) => messages.len(),
                Event::Reported(_) => 0,
            },
            attempts: self.sitewise.take_attempts(),
            cold_start: invocation.is_cold_start,
            ..Metrics::default()
        };
        self.log_results(&[], &metrics);
        match event {
            Event::Queue(messages) => {
                let ids = messages.iter().map(|message| message.id.as_deref());
                Ok(Response::PartialBatch(partial_batch(ids)?))
            }
            Event::Reported(messages) => {
                let is_callers = |message: &Message<'_>| message.origin.keeper() == Keeper::Caller;
                if !messages.iter().all(is_callers) {
                    return Err(HandlerError::Panicked);
                }
                let settlements: Vec<Settlement<'_>> = messages
                    .iter()
                    .map(|message| {
                        let received = Received {
                            message,
                            id: invocation.request_id.into(),
                            request: Err(ReadError::Panicked),
                        };
                        settle(received, None, Queues::None)
                    })
                    .collect();
                reports(&settlements, invocation, 0)
            }
        }
    }
}

/// Reads the messages. Each gets an id that is the same at its every delivery:
/// its own, else one of the invocation's, which Lambda repeats when it retries an
/// event.
fn receive<'a>(messages: &'a [Message<'a>], request_id: &'a str) -> Vec<Received<'a>> {
    let read = |message: &Message<'_>| match catch_unwind(AssertUnwindSafe(|| message.request())) {
        Ok(request) => request.map_err(ReadError::Malformed),
        Err(_panic) => Err(ReadError::Panicked),
    };
    messages
        .iter()
        .enumerate()
        .map(|(index, message)| Received {
            message,
            id: match &message.id {
                Some(id) => Cow::Borrowed(id.as_ref()),
                None if messages.len() == 1 => Cow::Borrowed(request_id),
                None => Cow::Owned(format!("{request_id}/{index}")),
            },
            request: read(message),
        })
        .collect()
}

/// Reports what became of each message, or fails where only Lambda can keep what
/// failed.
fn reports(
    settlements: &[Settlement<'_>],
    invocation: Invocation<'_>,
    calls: usize,
) -> Result<Response, HandlerError> {
    let of_lambda = settlements
        .iter()
        .filter(|settlement| settlement.received.message.origin.keeper() == Keeper::Lambda);
    let not_stored: Vec<&Option<Failure>> = of_lambda
        .flat_map(|settlement| &settlement.unresolved)
        .filter(|one| !one.is_stored)
        .map(|one| &one.failure)
        .collect();
    if let Some(first) = not_stored.first() {
        return Err(HandlerError::NotStored {
            count: not_stored.len(),
            first_code: (*first).as_ref().map_or("", Failure::code).to_owned(),
        });
    }
    let reports = settlements
        .iter()
        .map(|settlement| Report::new(settlement, invocation.request_id, calls));
    let mut reports: Vec<Report> = reports.collect();
    Ok(match reports.pop() {
        Some(report) if reports.is_empty() => Response::Report(Box::new(report)),
        last => {
            reports.extend(last);
            Response::Reports(reports)
        }
    })
}
