//! What Lambda is given back: a partial batch response, or a report.
//!
//! Owns the forms of both (contract, section 3). It must not decide what
//! became of anything.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::slice;

use aws_lambda_events::event::sqs::SqsBatchResponse;
use serde::Serialize;
use thiserror::Error;

use crate::input::event::Keeper;
use crate::input::request::Request;
use crate::outcome::Failure;
use crate::settle::{Destination, Item, Settlement};

/// Largest response, in bytes: Lambda's limit is 6 MB for a synchronous
/// invocation (Lambda quotas), and a larger one would be an error instead.
const RESPONSE_LIMIT: usize = 6_000_000;

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
    let of_lambda = settlements
        .iter()
        .filter(|settlement| settlement.received.message.origin.keeper() == Keeper::Lambda);
    let mut not_stored = of_lambda
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

/// What became of one request.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The Lambda request id.
    pub request_id: String,
    /// The project, `null` where the request gives none.
    pub project_id: Option<String>,
    /// The whole in a word.
    pub status: Status,
    /// The counts.
    pub assets: Counts,
    /// Calls made, without the SDK's retries.
    pub calls: usize,
    /// Everything that failed, by reason.
    pub failures: Vec<ReportedFailure>,
}

/// The state of a request as a whole.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every asset is disassociated or absent.
    Succeeded,
    /// Nothing failed for good; some assets are in the work queue.
    Accepted,
    /// Some assets failed.
    Partial,
    /// Nothing was achieved.
    Failed,
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
    /// Counts the assets of settlements that have been carried out.
    pub fn of(settlements: &[Settlement<'_>]) -> Self {
        let mut counts = Self::default();
        for settlement in settlements {
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

/// Assets that failed for one reason.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportedFailure {
    /// the assets; none where the request failed as a whole
    pub asset_ids: Vec<String>,
    /// the service's code, or one of ours
    pub code: String,
    /// what the service said
    pub message: String,
    /// whether another try may help
    pub retryable: bool,
    /// whether the dead-letter queue has them
    pub dead_lettered: bool,
    /// whether the work queue has them
    pub queued: bool,
    /// how many more assets failed so, where the response has no room for them
    #[serde(skip_serializing_if = "Option::is_none")]
    pub omitted: Option<usize>,
}

impl Report {
    /// Reports a settlement that has been carried out. `calls` are those of the
    /// whole invocation.
    pub fn new(settlement: &Settlement<'_>, request_id: &str, calls: usize) -> Self {
        let counts = Counts::of(slice::from_ref(settlement));
        let mut report = Self {
            request_id: request_id.to_owned(),
            project_id: settlement.received.project(),
            status: status(&counts, settlement),
            assets: counts,
            calls,
            failures: failures(settlement, Failure::message),
        };
        if report.size() > RESPONSE_LIMIT {
            // Failures of one code share the message of the first.
            report.failures = failures(settlement, |_| "");
        }
        while report.size() > RESPONSE_LIMIT
            && let Some(largest) =
                (report.failures.iter_mut()).max_by_key(|failure| failure.asset_ids.len())
            && !largest.asset_ids.is_empty()
        {
            let left_out = largest.asset_ids.len().div_ceil(2);
            largest
                .asset_ids
                .truncate(largest.asset_ids.len() - left_out);
            *largest.omitted.get_or_insert_default() += left_out;
        }
        report
    }

    fn size(&self) -> usize {
        serde_json::to_vec(self).map_or(usize::MAX, |text| text.len())
    }
}

fn status(counts: &Counts, settlement: &Settlement<'_>) -> Status {
    let mut unresolved = settlement.unresolved.iter();
    let failed_whole = unresolved.any(|one| one.item == Item::Message);
    if failed_whole || counts.disassociated + counts.absent + counts.queued == 0 {
        Status::Failed
    } else if counts.rejected + counts.unfinished > 0 {
        Status::Partial
    } else if counts.queued > 0 {
        Status::Accepted
    } else {
        Status::Succeeded
    }
}

/// Groups what failed by its reason, in the order of first mention. `message`
/// returns what of a message makes it another reason.
fn failures(
    settlement: &Settlement<'_>,
    message: impl Fn(&Failure) -> &str,
) -> Vec<ReportedFailure> {
    let mut failures: Vec<ReportedFailure> = Vec::new();
    let mut indices = HashMap::new();
    for one in &settlement.unresolved {
        let Some(failure) = &one.failure else {
            continue;
        };
        let queued = one.is_stored_in(Destination::WorkQueue);
        let dead_lettered = one.is_stored_in(Destination::DeadLetterQueue);
        let reason = (failure.code(), message(failure));
        let index = *indices
            .entry((reason, one.retryable, dead_lettered, queued))
            .or_insert(failures.len());
        if index == failures.len() {
            failures.push(ReportedFailure {
                asset_ids: Vec::new(),
                code: failure.code().to_owned(),
                message: failure.message().to_owned(),
                retryable: one.retryable,
                dead_lettered,
                queued,
                omitted: None,
            });
        }
        let asset_id = one.item.asset_id().map(Cow::into_owned);
        failures[index].asset_ids.extend(asset_id);
    }
    failures
}
