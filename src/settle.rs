//! From outcomes to what becomes of each message.
//!
//! Owns the table of where each failure leads (contract, section 4). Pure: it
//! must not await; what it decides is carried out by `handler`.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::event::Origin;
use crate::outcome::{Failure, Outcome, code};
use crate::request::{AssetId, DisassociateRequest, InvalidId, InvalidRequest};

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
    InvalidId(InvalidId),
    /// the message as a whole
    Message,
}

impl Subject {
    /// Returns the id, as it came; nothing for a message.
    pub fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Asset(asset) => Cow::Owned(asset.to_string()),
            Self::InvalidId(invalid) => Cow::Borrowed(invalid.text()),
            Self::Message => Cow::Borrowed(""),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
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

    /// Tells whether something of the message is to be kept by its source.
    fn stays(&self) -> bool {
        let mut destinations = self.rest.iter().map(|rest| rest.destination);
        destinations.any(|destination| destination == Destination::Source)
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
            let untried = request.assets.iter().map(|asset| unfinished(*asset, None));
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
    let stays: Vec<bool> = settlements.iter().map(Settlement::stays).collect();
    for (settlement, is_behind) in settlements.iter_mut().zip(behind(&stays, groups)) {
        if is_behind {
            settlement.hold_back();
        }
    }
}

/// Tells, for each record, whether it must be redelivered: because something
/// of it stays, or because an earlier record of its FIFO group does.
pub fn redelivered<G: AsRef<str>>(settlements: &[Settlement], groups: &[Option<G>]) -> Vec<bool> {
    let stays: Vec<bool> = settlements.iter().map(Settlement::must_stay).collect();
    stays
        .iter()
        .zip(behind(&stays, groups))
        .map(|(stays, is_behind)| *stays || is_behind)
        .collect()
}

/// Tells, for each record, whether an earlier one of its group stays.
fn behind<G: AsRef<str>>(stays: &[bool], groups: &[Option<G>]) -> Vec<bool> {
    let mut blocked: HashSet<&str> = HashSet::new();
    stays
        .iter()
        .zip(groups)
        .map(|(stays, group)| {
            let Some(group) = group.as_ref().map(AsRef::as_ref) else {
                return false;
            };
            let is_behind = blocked.contains(group);
            if *stays {
                blocked.insert(group);
            }
            is_behind
        })
        .collect()
}

/// Tells, for each record, whether it is to come back soon, rather than when
/// the visibility timeout of its queue is over.
///
/// That is one of which nothing else is wrong than that the time or the pace
/// did not suffice, in an invocation that finished another record. Where it
/// finished none, waiting is better: it may be an outage, or a service that is
/// too slow for the record, and each delivery is one of those after which SQS
/// gives a record up.
pub fn returns_soon(settlements: &[Settlement], redelivered: &[bool]) -> Vec<bool> {
    let is_refused_asset =
        |rest: &Rest| !rest.retryable && matches!(rest.subject, Subject::Asset(_));
    let is_worked_off = |settlement: &Settlement| {
        settlement.disassociated > 0 || settlement.rest.iter().any(is_refused_asset)
    };
    let has_finished = settlements
        .iter()
        .zip(redelivered)
        .any(|(settlement, is_redelivered)| !is_redelivered && is_worked_off(settlement));
    let is_of_pace = |rest: &Rest| {
        let failure = rest.failure.as_ref();
        // What belongs in a queue stays for that queue's sake.
        rest.destination == Destination::Source && failure.is_some_and(Failure::is_of_pace)
    };
    settlements
        .iter()
        .zip(redelivered)
        .map(|(settlement, is_redelivered)| {
            let mut unfinished = settlement
                .rest
                .iter()
                .filter(|rest| rest.retryable)
                .peekable();
            has_finished
                && *is_redelivered
                && unfinished.peek().is_some()
                && unfinished.all(is_of_pace)
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

/// Rejects the bad ids of a request. Those of one kind share one failure: a
/// message may carry some 175,000 of them.
fn invalid_ids(request: &DisassociateRequest) -> impl Iterator<Item = Rest> {
    let mut failures: HashMap<&str, Failure> = HashMap::new();
    request.invalid.iter().map(move |invalid| {
        let expected = invalid.expected();
        let failure = failures
            .entry(expected)
            .or_insert_with(|| Failure::new(code::INVALID_ASSET_ID, expected));
        rejected(Subject::InvalidId(invalid.clone()), failure.clone())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome::{Disassociated, Rejected, Unfinished};
    use Destination::{DeadLetter, Source, WorkQueue};
    use proptest::prelude::*;

    const ALL: Available = Available {
        dead_letter_queue: true,
        work_queue: true,
    };
    const NO_WORK_QUEUE: Available = Available {
        work_queue: false,
        ..ALL
    };
    const NO_DEAD_LETTER_QUEUE: Available = Available {
        dead_letter_queue: false,
        ..ALL
    };
    const NONE: Available = Available {
        dead_letter_queue: false,
        work_queue: false,
    };
    const ORIGINS: [Origin; 4] = [
        Origin::Sqs,
        Origin::EventBridge,
        Origin::Sns,
        Origin::Direct,
    ];

    fn request(assets: usize, invalid: &[&str]) -> DisassociateRequest {
        let mut ids: Vec<String> = (1..=assets)
            .map(|number| format!("\"00000000-0000-4000-8000-{number:012x}\""))
            .collect();
        ids.extend(invalid.iter().map(|id| format!("{id:?}")));
        DisassociateRequest::parse(&format!(
            r#"{{"projectId":"1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0","assetIds":[{}]}}"#,
            ids.join(",")
        ))
        .expect("a request")
    }

    fn failure() -> Failure {
        Failure::new("CODE", "message")
    }

    fn destinations(settlement: &Settlement) -> Vec<Destination> {
        settlement
            .rest
            .iter()
            .map(|rest| rest.destination)
            .collect()
    }

    #[test]
    fn a_finished_message_leaves_nothing() {
        for origin in ORIGINS {
            let settlement = settle(
                origin,
                Worked::Dispatched(&request(2, &[]), vec![Disassociated, Disassociated]),
                NONE,
            );
            assert_eq!(
                settlement,
                Settlement {
                    disassociated: 2,
                    rest: vec![]
                }
            );
            assert!(!settlement.must_stay());
        }
    }

    #[test]
    fn where_rejected_and_unfinished_assets_go() {
        let rejected = [Disassociated, Rejected(failure())];
        let unfinished = [Disassociated, Unfinished(failure())];
        let both = [Rejected(failure()), Unfinished(failure())];
        let reported = [Origin::EventBridge, Origin::Sns, Origin::Direct];
        for (available, outcomes, sqs, others) in [
            (ALL, &rejected, vec![DeadLetter], vec![DeadLetter]),
            (NO_WORK_QUEUE, &rejected, vec![DeadLetter], vec![DeadLetter]),
            (NO_DEAD_LETTER_QUEUE, &rejected, vec![Source], vec![Source]),
            (ALL, &unfinished, vec![Source], vec![WorkQueue]),
            (NO_WORK_QUEUE, &unfinished, vec![Source], vec![DeadLetter]),
            (
                NO_DEAD_LETTER_QUEUE,
                &unfinished,
                vec![Source],
                vec![WorkQueue],
            ),
            (NONE, &unfinished, vec![Source], vec![Source]),
            // an unfinished asset brings the whole record back: no letter yet
            (
                ALL,
                &both,
                vec![Source, Source],
                vec![DeadLetter, WorkQueue],
            ),
            (
                NO_WORK_QUEUE,
                &both,
                vec![Source, Source],
                vec![DeadLetter; 2],
            ),
            (
                NO_DEAD_LETTER_QUEUE,
                &both,
                vec![Source, Source],
                vec![Source, WorkQueue],
            ),
            (NONE, &both, vec![Source, Source], vec![Source; 2]),
        ] {
            let request = request(2, &[]);
            let to = |origin| {
                let worked = Worked::Dispatched(&request, outcomes.to_vec());
                destinations(&settle(origin, worked, available))
            };
            assert_eq!(to(Origin::Sqs), sqs, "{available:?} {outcomes:?}");
            for origin in reported {
                assert_eq!(to(origin), others, "{origin:?} {available:?} {outcomes:?}");
            }
        }
    }

    #[test]
    fn a_malformed_request_goes_whole_to_a_dead_letter() {
        let error = DisassociateRequest::parse("{}").expect_err("malformed");
        for origin in ORIGINS {
            for (available, destination) in [
                (ALL, DeadLetter),
                (NO_WORK_QUEUE, DeadLetter),
                (NO_DEAD_LETTER_QUEUE, Source),
            ] {
                assert_eq!(
                    settle(origin, Worked::Malformed(&error), available).rest,
                    [Rest {
                        subject: Subject::Message,
                        failure: Some(Failure::new(
                            "InvalidRequest",
                            "projectId: missing; assetIds: missing"
                        )),
                        retryable: false,
                        destination,
                        is_kept: false,
                    }]
                );
            }
        }
    }

    #[test]
    fn a_bad_id_goes_alone_to_a_dead_letter() {
        let settlement = settle(
            Origin::Sqs,
            Worked::Dispatched(&request(1, &["nope"]), vec![Disassociated]),
            ALL,
        );
        assert_eq!(settlement.disassociated, 1);
        assert_eq!(
            settlement.rest,
            [Rest {
                subject: Subject::InvalidId(InvalidId::Form("nope".into())),
                failure: Some(Failure::new(
                    "InvalidAssetId",
                    "expected a lowercase UUID such as 1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0"
                )),
                retryable: false,
                destination: DeadLetter,
                is_kept: false,
            }]
        );
    }

    #[test]
    fn a_large_request_goes_to_the_work_queue_and_its_bad_ids_to_a_letter() {
        for origin in ORIGINS {
            let settlement = settle(origin, Worked::FannedOut(&request(2, &["nope"])), ALL);
            assert_eq!(
                destinations(&settlement),
                [DeadLetter, WorkQueue, WorkQueue]
            );
            assert_eq!(settlement.rest[1].failure, None);
        }
    }

    #[test]
    fn a_part_is_never_put_in_the_work_queue_again() {
        let part = DisassociateRequest {
            is_part: true,
            ..request(1, &[])
        };
        for origin in [Origin::EventBridge, Origin::Sns, Origin::Direct] {
            let worked = Worked::Dispatched(&part, vec![Unfinished(failure())]);
            assert_eq!(destinations(&settle(origin, worked, ALL)), [DeadLetter]);
        }
    }

    #[test]
    fn a_message_that_a_defect_kept_from_being_read_stays() {
        for origin in ORIGINS {
            assert_eq!(destinations(&settle(origin, Worked::Unread, ALL)), [Source]);
        }
    }

    fn fifo(stays: bool) -> Settlement {
        let outcome = if stays {
            Unfinished(failure())
        } else {
            Rejected(failure())
        };
        settle(
            Origin::Sqs,
            Worked::Dispatched(&request(1, &[]), vec![outcome]),
            ALL,
        )
    }

    #[test]
    fn behind_a_record_that_stays_its_fifo_group_stays_too() {
        let groups = [Some("a"), Some("b"), Some("a"), Some("a"), None, Some("b")];
        let mut settlements = [false, false, true, false, true, false].map(fifo);
        hold_back_fifo(&mut settlements, &groups);
        let first: Vec<Destination> = settlements.iter().flat_map(destinations).collect();
        assert_eq!(
            first,
            [DeadLetter, DeadLetter, Source, Source, Source, DeadLetter]
        );
        for settlement in &mut settlements {
            for rest in &mut settlement.rest {
                rest.is_kept = rest.destination == DeadLetter;
            }
        }
        assert_eq!(
            redelivered(&settlements, &groups),
            [false, false, true, true, true, false]
        );
        // A letter that could not be stored holds its group back as well.
        settlements[1].rest[0].is_kept = false;
        assert_eq!(
            redelivered(&settlements, &groups),
            [false, true, true, true, true, true]
        );
    }

    #[test]
    fn what_stays_of_a_message_keeps_nothing_else_of_it() {
        for group in [None, Some("a")] {
            for (origin, worked) in [
                (Origin::Sqs, Worked::FannedOut(&request(1, &["nope"]))),
                (
                    Origin::Direct,
                    Worked::Dispatched(
                        &request(2, &[]),
                        vec![Rejected(failure()), Unfinished(failure())],
                    ),
                ),
            ] {
                let mut settlements = [settle(origin, worked, NO_DEAD_LETTER_QUEUE)];
                hold_back_fifo(&mut settlements, &[group]);
                assert_eq!(destinations(&settlements[0]), [Source, WorkQueue]);
            }
        }
    }

    #[test]
    fn only_what_lacked_time_or_pace_returns_soon_and_only_where_another_is_finished() {
        let late = || Unfinished(Failure::new(code::DEADLINE_REACHED, ""));
        let throttled = || Unfinished(Failure::of_pace("HTTP 429", ""));
        let record = |outcomes: &[Outcome], available| {
            let request = request(outcomes.len(), &[]);
            let worked = Worked::Dispatched(&request, outcomes.to_vec());
            settle(Origin::Sqs, worked, available)
        };
        let done = || record(&[Disassociated], ALL);
        let letter = || record(&[Rejected(failure())], ALL);
        for (reason, settlement, other, expected) in [
            ("late", record(&[late()], ALL), done(), true),
            ("throttled", record(&[throttled()], ALL), done(), true),
            ("both", record(&[late(), throttled()], ALL), done(), true),
            (
                "progress of its own",
                record(&[Disassociated, late()], ALL),
                settle(Origin::Sqs, Worked::FannedOut(&request(1, &[])), ALL),
                false,
            ),
            ("refused", record(&[late()], ALL), letter(), true),
            (
                "partly refused",
                record(&[Rejected(failure()), late()], ALL),
                done(),
                true,
            ),
            (
                "nothing finished",
                record(&[late()], ALL),
                record(&[throttled()], ALL),
                false,
            ),
            (
                "a bad id needs no service",
                record(&[late()], ALL),
                settle(Origin::Sqs, Worked::FannedOut(&request(0, &["bad"])), ALL),
                false,
            ),
            (
                "something else",
                record(&[late(), Unfinished(failure())], ALL),
                done(),
                false,
            ),
            (
                "no letter could be stored",
                record(&[Rejected(failure())], ALL),
                done(),
                false,
            ),
            (
                "a defect",
                settle(Origin::Sqs, Worked::Unread, ALL),
                done(),
                false,
            ),
        ] {
            let settlements = [settlement, other];
            let found = returns_soon(&settlements, &[true, false]);
            assert_eq!(found, [expected, false], "{reason}");
            let found = returns_soon(&settlements, &[false, false]);
            assert_eq!(found, [false, false], "{reason}: it is deleted");
        }
    }

    #[test]
    fn a_record_whose_parts_could_not_be_stored_takes_its_time() {
        let mut settlement = settle(Origin::Sqs, Worked::FannedOut(&request(1, &[])), ALL);
        settlement.rest[0].failure = Some(Failure::new(code::DEADLINE_REACHED, "not sent"));
        let done = settle(
            Origin::Sqs,
            Worked::Dispatched(&request(1, &[]), vec![Disassociated]),
            ALL,
        );
        let found = returns_soon(&[settlement, done], &[true, false]);
        assert_eq!(found, [false, false]);
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Disassociated),
            Just(Rejected(failure())),
            Just(Unfinished(failure())),
        ]
    }

    proptest! {
        #[test]
        fn every_id_of_a_request_ends_in_exactly_one_place(
            outcomes in proptest::collection::vec(any_outcome(), 0..20),
            invalid in 0..3_usize,
            origin in proptest::sample::select(&ORIGINS[..]),
            dead_letter_queue: bool,
            work_queue: bool,
            is_part: bool,
        ) {
            prop_assume!(!outcomes.is_empty() || invalid > 0);
            let bad: Vec<String> = (0..invalid).map(|number| format!("bad-{number}")).collect();
            let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
            let request = DisassociateRequest { is_part, ..request(outcomes.len(), &bad) };
            let available = Available { dead_letter_queue, work_queue };
            let settlement = settle(
                origin,
                Worked::Dispatched(&request, outcomes.clone()),
                available,
            );

            let done = outcomes.iter().filter(|outcome| **outcome == Disassociated).count();
            prop_assert_eq!(settlement.disassociated, done);
            let mut named: Vec<String> =
                settlement.rest.iter().map(|rest| rest.subject.to_string()).collect();
            let mut expected: Vec<String> = request
                .assets
                .iter()
                .zip(&outcomes)
                .filter(|(_, outcome)| **outcome != Disassociated)
                .map(|(asset, _)| asset.to_string())
                .chain(bad.iter().map(ToString::to_string))
                .collect();
            named.sort();
            expected.sort();
            prop_assert_eq!(named, expected, "named once each");

            let unfinished = outcomes.iter().any(|outcome| matches!(outcome, Unfinished(_)));
            for rest in &settlement.rest {
                prop_assert!(!rest.is_kept, "nothing is kept before a queue says so");
                match rest.destination {
                    DeadLetter => prop_assert!(dead_letter_queue),
                    WorkQueue => prop_assert!(work_queue && rest.retryable && !is_part),
                    Source => prop_assert!(
                        (origin == Origin::Sqs && unfinished) || !dead_letter_queue
                    ),
                }
            }
        }
    }
}
