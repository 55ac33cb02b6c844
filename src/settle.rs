//! From outcomes to what becomes of each message.
//!
//! Owns the table of where each failure leads (contract, section 4). Pure: it
//! must not await; what it decides is carried out by `handler`.

use std::collections::HashSet;
use std::fmt;

use crate::event::Origin;
use crate::outcome::{Failure, Outcome, code};
use crate::request::{AssetId, DisassociateRequest, InvalidRequest};

/// What is known of a message when its work is over.
#[derive(Debug)]
pub enum Worked<'a> {
    /// It was read; its valid assets have outcomes.
    Dispatched(&'a DisassociateRequest, Vec<Outcome>),
    /// It was read, and is large enough to be cut into parts.
    FannedOut(&'a DisassociateRequest),
    /// It is no valid request.
    Malformed(&'a InvalidRequest),
    /// A defect of this function kept it from being read.
    Unread,
}

/// The queues that the function is configured with.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Available {
    /// there is a dead-letter queue
    pub dead_letter_queue: bool,
    /// there is a work queue
    pub work_queue: bool,
}

/// What becomes of one message.
#[derive(Debug, Eq, PartialEq)]
pub struct Settlement {
    /// How many of its assets are disassociated.
    pub disassociated: usize,
    /// Everything else.
    pub rest: Vec<Rest>,
}

/// Something of a message that is not done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rest {
    /// What it is.
    pub subject: Subject,
    /// Why it is not done; `None` for an asset that was never tried because
    /// its request is cut into parts.
    pub failure: Option<Failure>,
    /// Whether another try later may help.
    pub retryable: bool,
    /// Where it is to be kept.
    pub destination: Destination,
    /// Whether the queue has confirmed that it is.
    pub is_kept: bool,
}

/// What can fail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Subject {
    /// an asset
    Asset(AssetId),
    /// an asset id that the pattern refuses
    InvalidId(String),
    /// the message as a whole
    Message,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Asset(asset) => asset.fmt(f),
            Self::InvalidId(text) => f.write_str(text),
            Self::Message => Ok(()),
        }
    }
}

/// Where something that is not done is to be kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Destination {
    /// Where it came from: the record's own queue, Lambda's retries, the caller.
    Source,
    /// A dead letter.
    DeadLetter,
    /// A part in the work queue.
    WorkQueue,
}

impl Settlement {
    /// Tells whether something of the message is not safe elsewhere, so that
    /// its source must keep it.
    pub fn must_stay(&self) -> bool {
        self.rest.iter().any(|rest| !rest.is_kept)
    }

    /// Leaves everything where it came from.
    fn hold_back(&mut self) {
        for rest in &mut self.rest {
            rest.destination = Destination::Source;
        }
    }
}

/// Decides where everything of a message goes that is not done.
pub fn settle(origin: Origin, worked: Worked<'_>, available: Available) -> Settlement {
    let (rest, disassociated, may_queue) = match worked {
        Worked::Malformed(error) => (vec![malformed(error)], 0, false),
        Worked::Unread => (vec![unread()], 0, false),
        Worked::FannedOut(request) => {
            let untried = request.assets.iter().map(|asset| Rest {
                failure: None,
                ..unfinished(*asset, None)
            });
            (invalid_ids(request).chain(untried).collect(), 0, true)
        }
        Worked::Dispatched(request, outcomes) => {
            let mut rest: Vec<Rest> = invalid_ids(request).collect();
            let mut disassociated = 0;
            for (asset, outcome) in request.assets.iter().zip(outcomes) {
                match outcome {
                    Outcome::Disassociated => disassociated += 1,
                    Outcome::Rejected(failure) => {
                        rest.push(rejected(Subject::Asset(*asset), failure));
                    }
                    Outcome::Unfinished(failure) => rest.push(unfinished(*asset, Some(failure))),
                }
            }
            (rest, disassociated, !request.is_part)
        }
    };
    let mut settlement = Settlement {
        disassociated,
        rest,
    };
    let is_tried_and_unfinished = |rest: &Rest| rest.retryable && rest.failure.is_some();
    if origin == Origin::Sqs && settlement.rest.iter().any(is_tried_and_unfinished) {
        // Redelivered whole: nothing is written down twice.
        return settlement;
    }
    for rest in &mut settlement.rest {
        let is_defect = rest.subject == Subject::Message && rest.retryable;
        rest.destination = if is_defect {
            Destination::Source
        } else if rest.retryable && may_queue && available.work_queue {
            Destination::WorkQueue
        } else if available.dead_letter_queue {
            Destination::DeadLetter
        } else {
            Destination::Source
        };
    }
    settlement
}

/// Keeps the order of FIFO message groups: behind a message that stays, every
/// later one of its group stays too, and writes nothing. `settlements` and
/// `groups` go in the order of the records.
pub fn hold_back_fifo<G: AsRef<str>>(settlements: &mut [Settlement], groups: &[Option<G>]) {
    let stays: Vec<bool> = settlements
        .iter()
        .map(|settlement| {
            settlement
                .rest
                .iter()
                .any(|rest| rest.destination == Destination::Source)
        })
        .collect();
    for (settlement, is_held) in settlements.iter_mut().zip(behind(&stays, groups)) {
        if is_held {
            settlement.hold_back();
        }
    }
}

/// Tells, for each record, whether it must be redelivered: because something
/// of it stays, or because an earlier record of its FIFO group does.
pub fn redelivered<G: AsRef<str>>(settlements: &[Settlement], groups: &[Option<G>]) -> Vec<bool> {
    let stays: Vec<bool> = settlements.iter().map(Settlement::must_stay).collect();
    behind(&stays, groups)
}

/// Marks what stays, and whatever stands behind it in its group.
fn behind<G: AsRef<str>>(stays: &[bool], groups: &[Option<G>]) -> Vec<bool> {
    let mut blocked: HashSet<&str> = HashSet::new();
    stays
        .iter()
        .zip(groups)
        .map(|(stays, group)| {
            let Some(group) = group.as_ref().map(AsRef::as_ref) else {
                return *stays;
            };
            if *stays {
                blocked.insert(group);
            }
            blocked.contains(group)
        })
        .collect()
}

fn rejected(subject: Subject, failure: Failure) -> Rest {
    Rest {
        subject,
        failure: Some(failure),
        retryable: false,
        destination: Destination::Source,
        is_kept: false,
    }
}

fn unfinished(asset: AssetId, failure: Option<Failure>) -> Rest {
    Rest {
        subject: Subject::Asset(asset),
        failure,
        retryable: true,
        destination: Destination::Source,
        is_kept: false,
    }
}

fn invalid_ids(request: &DisassociateRequest) -> impl Iterator<Item = Rest> {
    request.invalid.iter().map(|error| {
        rejected(
            Subject::InvalidId(error.text().to_owned()),
            Failure::new(code::INVALID_ASSET_ID, error.to_string()),
        )
    })
}

fn malformed(error: &InvalidRequest) -> Rest {
    rejected(
        Subject::Message,
        Failure::new(code::INVALID_REQUEST, error.to_string()),
    )
}

fn unread() -> Rest {
    Rest {
        retryable: true,
        ..rejected(
            Subject::Message,
            Failure::new(
                code::INTERNAL_ERROR,
                "the function failed while it read this message",
            ),
        )
    }
}
