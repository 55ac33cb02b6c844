//! What Lambda is given back: a partial batch response, or a report.
//!
//! Owns which of them it is, and what is counted (contract, section 3). It must not
//! decide what became of anything.

use std::collections::HashSet;

use aws_lambda_events::event::sqs::SqsBatchResponse;
use serde::Serialize;
use thiserror::Error;

use super::report::Report;
use crate::input::event::Keeper;
use crate::input::request::Request;
use crate::outcome::Failure;
use crate::settle::{Destination, Item, Settlement};

/// What is given back to Lambda.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Response {
    /// The records that SQS must deliver again.
    PartialBatch(SqsBatchResponse),
    /// What became of one request.
    Report(Box<Report>),
    /// What became of several; Lambda itself sends one SNS record an event.
    Reports(Vec<Report>),
}

/// Why no response would keep all work, so that the invocation must fail.
#[derive(Debug, Error)]
pub enum NoResponse {
    /// A record must be redelivered that has no `messageId` to name it by. An
    /// empty identifier would be worse: failing the whole invocation keeps every
    /// record.
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
}

impl NoResponse {
    /// Returns the name that Lambda shows as `errorType`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::MissingMessageId => "MissingMessageId",
            Self::NotStored { .. } => "NotStored",
        }
    }
}

/// Names the records to deliver again, each once.
pub fn partial_batch<'a>(
    redelivered: impl Iterator<Item = Option<&'a str>>,
) -> Result<SqsBatchResponse, NoResponse> {
    let mut response = SqsBatchResponse::default();
    let mut named = HashSet::new();
    for id in redelivered {
        let id = id.ok_or(NoResponse::MissingMessageId)?;
        if named.insert(id) {
            response.add_failure(id);
        }
    }
    Ok(response)
}

/// Reports what became of each message. `calls` are those of the whole
/// invocation.
pub fn reports(
    settlements: &[Settlement<'_>],
    request_id: &str,
    calls: usize,
) -> Result<Response, NoResponse> {
    let kept_by_lambda = settlements.iter().filter(|settlement| {
        let keeper = settlement.received.message.origin.keeper();
        keeper == Keeper::Lambda && !settlement.received.is_dry_run()
    });
    let mut not_stored = kept_by_lambda
        .flat_map(|settlement| &settlement.unresolved)
        .filter(|one| !one.is_stored)
        .peekable();
    if let Some(first) = not_stored.peek() {
        return Err(NoResponse::NotStored {
            first_code: first.failure.as_ref().map_or("", Failure::code).to_owned(),
            count: not_stored.count(),
        });
    }
    let reports = settlements.iter();
    let mut reports: Vec<Report> = reports
        .map(|settlement| Report::new(settlement, request_id, calls))
        .collect();
    Ok(match reports.pop() {
        Some(report) if reports.is_empty() => Response::Report(Box::new(report)),
        last => {
            reports.extend(last);
            Response::Reports(reports)
        }
    })
}

/// Returns how many requests are unfinished, or queued for that reason, of which
/// not even the assets are known.
pub fn requests_unfinished(settlements: &[Settlement<'_>]) -> usize {
    let is_unfinished = |settlement: &&Settlement<'_>| {
        let mut unresolved = settlement.unresolved.iter();
        let unknown = unresolved.find(|one| one.item == Item::Message);
        unknown.is_some_and(|one| one.retryable) && !settlement.received.is_dry_run()
    };
    settlements.iter().filter(is_unfinished).count()
}

/// How many assets, counted once each:
/// `requested = disassociated + absent + rejected + unfinished + queued`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Counts {
    /// distinct ids asked for
    pub requested: usize,
    /// ids that repeat an earlier one
    pub duplicates: usize,
    /// taken out of the project
    pub disassociated: usize,
    /// not listed by the project
    pub absent: usize,
    /// failed for good
    pub rejected: usize,
    /// worth another try
    pub unfinished: usize,
    /// in the work queue
    pub queued: usize,
}

impl Counts {
    /// Counts the assets of settlements that have been carried out, without dry runs.
    pub fn of(settlements: &[Settlement<'_>]) -> Self {
        let mut counts = Self::default();
        for settlement in settlements.iter().filter(|one| !one.received.is_dry_run()) {
            let request = settlement.received.request.as_ref().ok();
            let named = request.and_then(Request::named);
            counts.duplicates += named.map_or(0, |named| named.duplicates);
            counts.disassociated += settlement.disassociated;
            counts.absent += settlement.absent;
            for one in &settlement.unresolved {
                if one.item.asset_id().is_none() {
                    continue;
                }
                if one.is_stored_in(Destination::WorkQueue) {
                    counts.queued += 1;
                } else if one.retryable {
                    counts.unfinished += 1;
                } else {
                    counts.rejected += 1;
                }
            }
        }
        counts.requested = counts.disassociated
            + counts.absent
            + counts.rejected
            + counts.unfinished
            + counts.queued;
        counts
    }
}
