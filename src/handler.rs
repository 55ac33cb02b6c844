//! One invocation: the order in which everything else is done.
//!
//! Owns that order, the division of the time, and the containment of panics.
//! It must not decide anything else.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use serde_json::value::RawValue;
use thiserror::Error;
use tokio::time::Instant;

use crate::answer::{self, Answer, Counts, Heading, Nameless, Report};
use crate::dead_letter::{self, NamedAsset, Source};
use crate::dispatch::dispatch;
use crate::event::{self, Event, Message, Origin, UnrecognizedEvent};
use crate::metrics::Metrics;
use crate::outcome::{Failure, code};
use crate::pace::Pace;
use crate::part;
use crate::plan::{Ask, distribute, plan};
use crate::queue::{Parcel, Queue};
use crate::request::{AssetId, DisassociateRequest, InvalidRequest};
use crate::settle::{
    Destination, Queues, Settlement, Subject, Worked, hold_back_fifo, redelivered, settle,
};
use crate::sitewise::SiteWise;
use crate::telemetry::{self, Traced};

/// Most time kept free before the deadline for dead letters and the answer; a
/// fifth of the time that an invocation has, where that is less.
pub const RESERVE: Duration = Duration::from_secs(3);

/// Least time kept free before the deadline for dead letters and the answer.
pub const LEAST_RESERVE: Duration = Duration::from_millis(300);

/// Time kept free for the answer alone.
pub const ANSWER_RESERVE: Duration = Duration::from_millis(100);

/// The function: everything that one cold start sets up.
#[derive(Clone, Debug)]
pub struct Function {
    /// The service to disassociate assets with.
    pub sitewise: SiteWise,
    /// Where dead letters go.
    pub dead_letter_queue: Option<Queue>,
    /// Where parts of large requests and unfinished work go.
    pub work_queue: Option<Queue>,
    /// The largest request worked off at once, if there is a work queue.
    pub fan_out_assets: usize,
    /// Calls in flight.
    pub call_concurrency: usize,
    /// The pace of the calls, kept between invocations.
    pub pace: Arc<Mutex<Pace>>,
    /// Tells the time of day.
    pub now: fn() -> SystemTime,
}

/// What Lambda tells of one invocation.
#[derive(Clone, Copy, Debug)]
pub struct Invocation<'a> {
    /// The request id: the same for Lambda's retries of one event.
    pub request_id: &'a str,
    /// When Lambda stops the function.
    pub deadline: Instant,
}

/// Time taken for granted where the runtime gives no real deadline.
const UNKNOWN_TIME_LEFT: Duration = Duration::from_secs(60);

/// A deadline that is past by more than this is none.
const OLDEST_DEADLINE: Duration = Duration::from_secs(3600);

/// Returns the time before a deadline, as the Lambda Runtime API gives it.
///
/// Lambda's own is never long past. `cargo lambda watch` gives one of 1970,
/// which would leave no time for anything.
pub fn time_left(deadline: SystemTime, now: SystemTime) -> Duration {
    match deadline.duration_since(now) {
        Ok(left) => left,
        Err(past) if past.duration() > OLDEST_DEADLINE => UNKNOWN_TIME_LEFT,
        Err(_) => Duration::ZERO,
    }
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
    NamelessRecord,
    /// Failures of an event that only Lambda can hold could not be put in a queue.
    #[error(
        "{count} assets or requests failed and are in no queue: the event is returned to Lambda's \
         own retries and dead-letter queue; the first has the code {first_code}"
    )]
    NotKept {
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
            Self::NamelessRecord => "NamelessRecord",
            Self::NotKept { .. } => "NotKept",
            Self::Panicked => "InternalError",
        }
    }
}

impl From<Nameless> for HandlerError {
    fn from(_: Nameless) -> Self {
        Self::NamelessRecord
    }
}

impl Function {
    /// Handles one event from its payload to its answer.
    ///
    /// # Errors
    ///
    /// Only where nothing else keeps the work safe; see [`HandlerError`].
    pub async fn handle(
        &self,
        payload: &RawValue,
        invocation: Invocation<'_>,
    ) -> Result<Answer, HandlerError> {
        let event = catch_unwind(AssertUnwindSafe(|| Ok(event::read(payload)?)))
            .unwrap_or(Err(HandlerError::Panicked))
            .inspect_err(|_| telemetry::report(&[], &[], Metrics::default()))?;
        let work = AssertUnwindSafe(self.work_off(&event, invocation)).catch_unwind();
        match work.await {
            Ok(answer) => answer,
            Err(_panic) => {
                self.tell_nothing_done(&event);
                nothing_done(&event, invocation)
            }
        }
    }

    async fn work_off(
        &self,
        event: &Event<'_>,
        invocation: Invocation<'_>,
    ) -> Result<Answer, HandlerError> {
        let times = Times::of(invocation.deadline);
        let messages = event.messages();
        let ids: Vec<Cow<'_, str>> = stable_ids(messages, invocation.request_id);
        let requests: Vec<Reading> = messages.iter().map(read).collect();
        let traced: Vec<Traced> = messages.iter().zip(&requests).map(trace).collect();
        telemetry::carries(&traced);

        let is_asked: Vec<bool> = requests
            .iter()
            .map(|reading| match reading {
                Reading::Valid(request) => !self.fans_out(request),
                Reading::Malformed(_) | Reading::Panicked => false,
            })
            .collect();
        let asks: Vec<Ask<'_>> = requests
            .iter()
            .zip(messages)
            .zip(&ids)
            .zip(&is_asked)
            .filter_map(
                |(((reading, message), message_id), is_asked)| match reading {
                    Reading::Valid(request) if *is_asked => Some(Ask {
                        request,
                        message_id,
                        receives: message.receives,
                    }),
                    _ => None,
                },
            )
            .collect();
        let batches = plan(&asks);
        let dispatched = dispatch(
            &self.sitewise,
            &self.pace,
            &batches,
            self.call_concurrency,
            times.stop_calls,
        )
        .await;
        let mut outcomes = distribute(&asks, &batches, &dispatched.outcomes).into_iter();

        let mut settlements: Vec<Settlement> = messages
            .iter()
            .zip(&requests)
            .zip(&is_asked)
            .map(|((message, reading), is_asked)| {
                let worked = match reading {
                    Reading::Valid(request) if *is_asked => {
                        Worked::Dispatched(request, outcomes.next().unwrap_or_default())
                    }
                    Reading::Valid(request) => Worked::FannedOut(request),
                    Reading::Malformed(error) => Worked::Malformed(error),
                    Reading::Panicked => Worked::Unread,
                };
                settle(message.origin, worked, self.queues())
            })
            .collect();
        let groups: Vec<Option<&str>> = messages
            .iter()
            .map(|message| message.fifo_group.as_deref())
            .collect();
        hold_back_fifo(&mut settlements, &groups);

        let write = Write {
            function: self,
            messages,
            ids: &ids,
            requests: &requests,
            invocation,
        };
        let stored = write.store(&mut settlements, times.stop_writes).await;
        let redelivered = match event {
            Event::Queue(_) => redelivered(&settlements, &groups),
            Event::Reported(_) => vec![false; messages.len()],
        };
        let assets = requests
            .iter()
            .zip(&settlements)
            .map(|(reading, settlement)| Counts::of(settlement, reading.duplicates()));
        let metrics = Metrics {
            messages: messages.len(),
            redelivered: redelivered.iter().filter(|is_so| **is_so).count(),
            assets: assets.sum(),
            calls: dispatched.calls,
            reads: dispatched.reads,
            attempts: self.sitewise.take_attempts(),
            dead_letters: stored.dead_letters,
            parts: stored.parts,
            not_stored: stored.failed,
            cold_start: false,
        };
        telemetry::report(&traced, &settlements, metrics);

        match event {
            Event::Queue(_) => {
                let names = messages
                    .iter()
                    .zip(redelivered)
                    .filter(|(_, is_redelivered)| *is_redelivered)
                    .map(|(message, _)| message.id.as_deref());
                Ok(Answer::PartialBatch(answer::partial_batch(names)?))
            }
            Event::Reported(_) => {
                let reports = messages
                    .iter()
                    .zip(&requests)
                    .zip(&settlements)
                    .map(|((_, reading), settlement)| {
                        let heading = reading.heading(invocation.request_id, dispatched.calls);
                        Report::new(heading, settlement)
                    })
                    .collect();
                reported(messages, &settlements, reports)
            }
        }
    }

    /// Tells of an invocation that panicked.
    fn tell_nothing_done(&self, event: &Event<'_>) {
        let messages = event.messages().len();
        let metrics = Metrics {
            messages,
            redelivered: match event {
                Event::Queue(_) => messages,
                Event::Reported(_) => 0,
            },
            attempts: self.sitewise.take_attempts(),
            ..Metrics::default()
        };
        telemetry::report(&[], &[], metrics);
    }

    fn queues(&self) -> Queues {
        match (&self.dead_letter_queue, &self.work_queue) {
            (None, _) => Queues::None,
            (Some(_), None) => Queues::DeadLetters,
            (Some(_), Some(_)) => Queues::Both,
        }
    }

    fn fans_out(&self, request: &DisassociateRequest) -> bool {
        self.work_queue.is_some() && !request.is_part && request.assets.len() > self.fan_out_assets
    }
}

/// How an invocation's time is divided.
struct Times {
    stop_calls: Instant,
    stop_writes: Instant,
}

impl Times {
    fn of(deadline: Instant) -> Self {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let before = |reserve| deadline.checked_sub(reserve).unwrap_or(now);
        Self {
            stop_calls: before((left / 5).clamp(LEAST_RESERVE, RESERVE)),
            stop_writes: before(ANSWER_RESERVE),
        }
    }
}

/// What reading a message gave.
enum Reading {
    Valid(DisassociateRequest),
    Malformed(InvalidRequest),
    Panicked,
}

impl Reading {
    fn heading<'a>(&self, request_id: &'a str, calls: usize) -> Heading<'a> {
        let project = match self {
            Self::Valid(request) => Some(request.project.to_string()),
            Self::Malformed(error) => error.project.clone(),
            Self::Panicked => None,
        };
        Heading {
            request_id,
            project,
            duplicates: self.duplicates(),
            calls,
        }
    }

    fn duplicates(&self) -> usize {
        match self {
            Self::Valid(request) => request.duplicates,
            Self::Malformed(_) | Self::Panicked => 0,
        }
    }
}

fn read(message: &Message<'_>) -> Reading {
    match catch_unwind(AssertUnwindSafe(|| message.request())) {
        Ok(Ok(request)) => Reading::Valid(request),
        Ok(Err(error)) => Reading::Malformed(error),
        Err(_panic) => Reading::Panicked,
    }
}

fn trace((message, reading): (&Message<'_>, &Reading)) -> Traced {
    Traced {
        message: message.id.as_deref().and_then(|id| id.parse().ok()),
        project: match reading {
            Reading::Valid(request) => Some(request.project),
            Reading::Malformed(_) | Reading::Panicked => None,
        },
    }
}

/// Gives each message an id that is the same at its every delivery: its own,
/// else the invocation's, which Lambda repeats when it retries an event.
fn stable_ids<'a>(messages: &'a [Message<'_>], request_id: &'a str) -> Vec<Cow<'a, str>> {
    messages
        .iter()
        .enumerate()
        .map(|(index, message)| match &message.id {
            Some(id) => Cow::Borrowed(id.as_ref()),
            None if messages.len() == 1 => Cow::Borrowed(request_id),
            None => Cow::Owned(format!("{request_id}/{index}")),
        })
        .collect()
}

/// Hands out the reports, or fails where only Lambda can keep what failed.
fn reported(
    messages: &[Message<'_>],
    settlements: &[Settlement],
    mut reports: Vec<Report>,
) -> Result<Answer, HandlerError> {
    let lost: Vec<&Option<Failure>> = messages
        .iter()
        .zip(settlements)
        .filter(|(message, _)| message.origin != Origin::Direct)
        .flat_map(|(_, settlement)| &settlement.rest)
        .filter(|rest| !rest.is_kept)
        .map(|rest| &rest.failure)
        .collect();
    if let Some(first) = lost.first() {
        return Err(HandlerError::NotKept {
            count: lost.len(),
            first_code: (*first).as_ref().map_or("", Failure::code).to_owned(),
        });
    }
    Ok(match reports.pop() {
        Some(report) if reports.is_empty() => Answer::Report(Box::new(report)),
        last => {
            reports.extend(last);
            Answer::Reports(reports)
        }
    })
}

/// The answer when the function failed in a way that leaves nothing certain.
fn nothing_done(event: &Event<'_>, invocation: Invocation<'_>) -> Result<Answer, HandlerError> {
    match event {
        Event::Queue(messages) => {
            let names = messages.iter().map(|message| message.id.as_deref());
            Ok(Answer::PartialBatch(answer::partial_batch(names)?))
        }
        Event::Reported(messages) => {
            let reports = messages
                .iter()
                .map(|message| {
                    let settlement = settle(message.origin, Worked::Unread, Queues::default());
                    let heading = Reading::Panicked.heading(invocation.request_id, 0);
                    Report::new(heading, &settlement)
                })
                .collect();
            match messages.first() {
                Some(message) if message.origin == Origin::Direct => {
                    reported(messages, &[], reports)
                }
                _ => Err(HandlerError::Panicked),
            }
        }
    }
}

/// Carries out what was settled.
struct Write<'a> {
    function: &'a Function,
    messages: &'a [Message<'a>],
    ids: &'a [Cow<'a, str>],
    requests: &'a [Reading],
    invocation: Invocation<'a>,
}

/// What one stored message keeps safe: of which message, which of its rest.
struct Covers {
    message: usize,
    rest: Vec<usize>,
}

/// How many messages SQS has confirmed, and how many it has not.
struct Stored {
    dead_letters: usize,
    parts: usize,
    failed: usize,
}

impl Write<'_> {
    /// Stores letters, and then parts of messages whose letters are all stored,
    /// and marks in `settlements` what is kept.
    ///
    /// They are written as they are sent: all at once could take many times the
    /// memory that the event does.
    async fn store(&self, settlements: &mut [Settlement], stop: Instant) -> Stored {
        let function = self.function;
        let now = (function.now)();
        let settled = settlements.iter().enumerate();
        let letters = settled.flat_map(|(index, one)| self.letters(index, one, now));
        let letters = send(function.dead_letter_queue.as_ref(), letters, stop).await;
        let (dead_letters, no_letters) = mark(settlements, Destination::DeadLetter, letters);
        settlements.iter_mut().for_each(Settlement::hold_back_parts);
        let settled = settlements.iter().enumerate();
        let parts = settled.flat_map(|(index, one)| self.parts(index, one));
        let parts = send(function.work_queue.as_ref(), parts, stop).await;
        let (parts, no_parts) = mark(settlements, Destination::WorkQueue, parts);
        Stored {
            dead_letters,
            parts,
            failed: no_letters + no_parts,
        }
    }

    /// Writes the letters for one message, each when it is asked for.
    fn letters<'b>(
        &'b self,
        message: usize,
        settlement: &'b Settlement,
        now: SystemTime,
    ) -> Box<dyn Iterator<Item = (Parcel, Covers)> + Send + 'b> {
        let source = Source {
            message: &self.messages[message],
            request_id: self.invocation.request_id,
            now,
        };
        let lettered = || {
            let rest = settlement.rest.iter().enumerate();
            rest.filter_map(|(place, rest)| match (rest.destination, &rest.failure) {
                (Destination::DeadLetter, Some(failure)) => Some((place, &rest.subject, failure)),
                _ => None,
            })
        };
        match &self.requests[message] {
            Reading::Valid(request) => {
                let named = lettered().map(|(_, subject, failure)| NamedAsset {
                    asset: subject.text(),
                    failure,
                });
                let letters = dead_letter::letters(source, request.project, named);
                let mut places = lettered().map(|(place, ..)| place);
                Box::new(letters.map(move |letter| {
                    let rest = places.by_ref().take(letter.names.len()).collect();
                    (letter.parcel, Covers { message, rest })
                }))
            }
            Reading::Malformed(error) => Box::new(lettered().map(move |(place, _, failure)| {
                let parcel = dead_letter::as_it_came(source, error.project.as_deref(), failure);
                let rest = vec![place];
                (parcel, Covers { message, rest })
            })),
            Reading::Panicked => Box::new(std::iter::empty()),
        }
    }

    fn parts(&self, index: usize, settlement: &Settlement) -> Vec<(Parcel, Covers)> {
        let Reading::Valid(request) = &self.requests[index] else {
            return Vec::new();
        };
        let (places, assets): (Vec<usize>, Vec<AssetId>) = settlement
            .rest
            .iter()
            .enumerate()
            .filter(|(_, rest)| rest.destination == Destination::WorkQueue)
            .filter_map(|(place, rest)| match rest.subject {
                Subject::Asset(asset) => Some((place, asset)),
                Subject::InvalidId(_) | Subject::Message => None,
            })
            .unzip();
        part::cut(
            &self.messages[index],
            &self.ids[index],
            request,
            &assets,
            self.function.fan_out_assets,
        )
        .into_iter()
        .map(|part| {
            let covers = Covers {
                message: index,
                rest: places[part.holds].to_vec(),
            };
            (part.parcel, covers)
        })
        .collect()
    }
}

async fn send(
    queue: Option<&Queue>,
    parcels: impl Iterator<Item = (Parcel, Covers)>,
    stop: Instant,
) -> Vec<(Covers, Result<(), Failure>)> {
    match queue {
        Some(queue) => queue.send(parcels, stop).await,
        None => Vec::new(),
    }
}

/// Notes what is kept of that which is for one queue, and returns how many
/// messages keep it, and how many do not.
fn mark(
    settlements: &mut [Settlement],
    destination: Destination,
    sent: Vec<(Covers, Result<(), Failure>)>,
) -> (usize, usize) {
    let mut stored = 0;
    let mut failed = 0;
    let mut written = 0;
    for (covers, result) in sent {
        written += covers.rest.len();
        match &result {
            Ok(()) => stored += 1,
            Err(failure) => {
                failed += 1;
                telemetry::not_stored(failure);
            }
        }
        for place in covers.rest {
            let rest = &mut settlements[covers.message].rest[place];
            match &result {
                Ok(()) => rest.is_kept = true,
                Err(failure) => {
                    rest.failure.get_or_insert_with(|| failure.clone());
                }
            }
        }
    }
    // Messages are written in the order of what they cover, while there is time:
    // what none covers is last. It counts as one message.
    let late = Failure::new(code::DEADLINE_REACHED, "not sent");
    let rest = settlements.iter_mut().flat_map(|one| &mut one.rest);
    let mut unwritten = rest
        .filter(|rest| rest.destination == destination)
        .skip(written)
        .peekable();
    if unwritten.peek().is_some() {
        failed += 1;
        telemetry::not_stored(&late);
    }
    for rest in unwritten {
        rest.failure.get_or_insert_with(|| late.clone());
    }
    (stored, failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_deadline_that_is_long_past_is_none() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_407_660);
        let second = Duration::from_secs(1);
        for (deadline, left) in [
            (now + 30 * second, 30 * second),
            (now, Duration::ZERO),
            (now - second, Duration::ZERO),
            (now - 3600 * second, Duration::ZERO),
            (now - 3601 * second, 60 * second),
            (SystemTime::UNIX_EPOCH + 600 * second, 60 * second),
        ] {
            assert_eq!(time_left(deadline, now), left);
        }
    }
}
