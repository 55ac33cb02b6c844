//! One invocation: the order in which everything else is done.
//!
//! Owns that order, and the containment of panics. It must not decide anything
//! else.

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
use crate::input::event::{self, Event, Message, UnrecognizedEvent};
use crate::input::received::{ReadError, Received, receive};
use crate::output::outbox::Outbox;
use crate::output::response::{NoResponse, Response, partial_batch, reports};
use crate::plan::{PlanInput, plan, scatter};
use crate::resolve::{self, Resolution, Resolver};
use crate::session::Session;
use crate::session::rate_limiter::RateLimiter;
use crate::settle::{Item, Queues, Settlement, needs_redelivery, settle, settle_all};
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
    /// No response would keep all work.
    #[error(transparent)]
    NoResponse(#[from] NoResponse),
    /// A defect of this function: reading the payload panicked.
    #[error("the function failed on this event: nothing of it counts as done")]
    Panicked,
}

impl HandlerError {
    /// Returns the name that Lambda shows as `errorType`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unrecognized(_) => "UnrecognizedEvent",
            Self::NoResponse(error) => error.name(),
            Self::Panicked => "InternalError",
        }
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
            .inspect_err(|_| self.log_results(&[], Metrics::default(), invocation))?;
        let received = receive(event.messages(), invocation.request_id);
        telemetry::record_correlation_id(&received);
        let processed = AssertUnwindSafe(self.process(received, invocation)).catch_unwind();
        let (settlements, mut metrics) = processed.await.unwrap_or_else(|_panic| {
            // Nothing is certain: every message counts as unread.
            let messages = event.messages().iter();
            let settlements = messages.map(|message| {
                let unread = Received::unread(message, invocation.request_id);
                let outcome = (Item::Message, resolve::unread(&ReadError::Panicked));
                settle(unread, [outcome], Queues::None)
            });
            (settlements.collect(), Metrics::default())
        });

        let redelivered = match event {
            Event::Queue(_) => needs_redelivery(&settlements),
            Event::Reported(_) => vec![false; settlements.len()],
        };
        metrics.count(&settlements, &redelivered, self.now);
        let calls = metrics.requests.calls;
        self.log_results(&settlements, metrics, invocation);
        match &event {
            Event::Queue(messages) => {
                let redelivered = messages.iter().zip(redelivered);
                let ids = redelivered
                    .filter(|(_, is_redelivered)| *is_redelivered)
                    .map(|(message, _)| message.id.as_deref());
                Ok(Response::PartialBatch(partial_batch(ids)?))
            }
            Event::Reported(_) => Ok(reports(&settlements, invocation.request_id, calls)?),
        }
    }

    /// Processes messages from their requests to what is stored of them.
    async fn process<'a>(
        &self,
        received: Vec<Received<'a>>,
        invocation: Invocation<'_>,
    ) -> (Vec<Settlement<'a>>, Metrics) {
        let stops = Stops::before(invocation.deadline);
        let session = Session::new(&self.sitewise, &self.rate_limiter, self.call_concurrency);
        let resolver = Resolver {
            session: &session,
            fan_out_assets: self.work_queue.as_ref().map(|_| self.fan_out_assets),
            stop: stops.lists,
        };
        let mut resolutions = resolver.resolve(&received).await;
        disassociate(&session, &received, &mut resolutions, stops.requests).await;
        let resolver = Resolver {
            stop: stops.requests,
            ..resolver
        };
        let removed = resolve::removed(&received, &resolutions);
        let lists = resolutions.iter_mut();
        let lists = lists.map(|one| resolver.list_again(one, &removed));
        session.run_all(lists).await;
        disassociate(&session, &received, &mut resolutions, stops.requests).await;
        let resolved = resolutions.into_iter();
        let resolved = resolved.map(|one| (one.outcomes, one.dry_run)).collect();
        let is_dead_letter = |message: &Message<'_>| {
            let queue = self.dead_letter_queue.as_ref();
            let arn = message.queue_arn.as_deref();
            queue
                .zip(arn)
                .is_some_and(|(queue, arn)| queue.has_arn(arn))
        };
        let mut settlements = settle_all(received, resolved, self.queues(), is_dead_letter);
        let outbox = Outbox {
            dead_letter_queue: self.dead_letter_queue.as_ref(),
            work_queue: self.work_queue.as_ref(),
            part_assets: self.fan_out_assets,
            request_id: invocation.request_id,
            now: (self.now)(),
            stop: stops.writes,
        };
        let stored = outbox.store(&mut settlements).await;
        let metrics = Metrics {
            requests: session.into_counts(),
            dead_letters: stored.dead_letters,
            parts: stored.parts,
            not_stored: stored.failed,
            ..Metrics::default()
        };
        (settlements, metrics)
    }

    fn log_results(
        &self,
        settlements: &[Settlement<'_>],
        mut metrics: Metrics,
        invocation: Invocation<'_>,
    ) {
        metrics.cold_start = invocation.is_cold_start;
        telemetry::log_results(settlements, &metrics, self.metrics_namespace.as_deref());
    }

    fn queues(&self) -> Queues {
        match (&self.dead_letter_queue, &self.work_queue) {
            (None, _) => Queues::None,
            (Some(_), None) => Queues::DeadLetters,
            (Some(_), Some(_)) => Queues::Both,
        }
    }
}

/// Disassociates the assets of all messages, and notes what became of them.
async fn disassociate(
    session: &Session<'_>,
    received: &[Received<'_>],
    resolutions: &mut [Resolution<'_>],
    stop: Instant,
) {
    let messages = received.iter().zip(&*resolutions).enumerate();
    let inputs = messages.filter_map(|(index, (received, resolution))| {
        Some((index, resolution.plan_input(received)?))
    });
    let (indices, inputs): (Vec<usize>, Vec<PlanInput<'_>>) = inputs.unzip();
    let outcomes = {
        let batches = plan(&inputs);
        let outcomes = dispatch(session, &batches, stop).await;
        scatter(&inputs, &batches, &outcomes)
    };
    for (index, outcomes) in indices.into_iter().zip(outcomes) {
        resolutions[index].conclude(outcomes);
    }
}
