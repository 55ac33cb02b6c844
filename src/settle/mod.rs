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

/// The queues that the function is configured with. A work queue requires a
/// dead-letter queue.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Queues {
    /// There is none.
    #[default]
    None,
    /// There is a dead-letter queue only.
    DeadLetters,
    /// There are a dead-letter queue and a work queue.
    Both,
}

/// What becomes of one message.
#[derive(Debug, Eq, PartialEq)]
pub struct Settlement {
    /// How many of its assets are disassociated.
    pub disassociated: usize,
    /// How many its project does not list.
    pub absent: usize,
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

    /// Leaves what belongs in the work queue where it came from, unless all its
    /// dead letters are stored. Otherwise each delivery would store it again.
    pub fn hold_back_parts(&mut self) {
        let mut letters = self.rest.iter();
        let unstored =
            letters.find(|rest| rest.destination == Destination::DeadLetter && !rest.is_kept);
        let Some(reason) = unstored.and_then(|rest| rest.failure.clone()) else {
            return;
        };
        for rest in &mut self.rest {
            if rest.destination == Destination::WorkQueue {
                rest.destination = Destination::Source;
                rest.failure.get_or_insert_with(|| reason.clone());
            }
        }
    }
}

/// Decides where everything of a message goes that is not done.
pub fn settle(origin: Origin, worked: Worked<'_>, queues: Queues) -> Settlement {
    let mut settlement = Settlement {
        disassociated: 0,
        absent: 0,
        rest: Vec::new(),
    };
    let may_queue = match worked {
        Worked::Malformed(error) => {
            settlement.rest.push(malformed(error));
            false
        }
        Worked::Unread => {
            settlement.rest.push(unread());
            false
        }
        Worked::FannedOut(request) => {
            let untried = request.assets.iter().map(|asset| unfinished(*asset, None));
            settlement.rest = invalid_ids(request).chain(untried).collect();
            true
        }
        Worked::Dispatched(request, outcomes) => {
            settlement.rest.extend(invalid_ids(request));
            for (asset, outcome) in request.assets.iter().zip(outcomes) {
                match outcome {
                    Outcome::Disassociated => settlement.disassociated += 1,
                    Outcome::Absent => settlement.absent += 1,
                    Outcome::Rejected(failure) => {
                        let rejected = rejected(Subject::Asset(*asset), failure);
                        settlement.rest.push(rejected);
                    }
                    Outcome::Unfinished(failure) => {
                        settlement.rest.push(unfinished(*asset, Some(failure)));
                    }
                }
            }
            !request.is_part
        }
    };
    let is_tried_and_unfinished = |rest: &Rest| rest.retryable && rest.failure.is_some();
    if origin == Origin::Sqs && settlement.rest.iter().any(is_tried_and_unfinished) {
        // Redelivered whole: nothing is written down twice.
        return settlement;
    }
    for rest in &mut settlement.rest {
        let is_defect = rest.subject == Subject::Message && rest.retryable;
        rest.destination = match queues {
            _ if is_defect => Destination::Source,
            Queues::Both if rest.retryable && may_queue => Destination::WorkQueue,
            Queues::Both | Queues::DeadLetters => Destination::DeadLetter,
            Queues::None => Destination::Source,
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
    use Queues::{Both, DeadLetters};
    use proptest::prelude::*;

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
                Queues::None,
            );
            assert_eq!(
                settlement,
                Settlement {
                    disassociated: 2,
                    absent: 0,
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
        for (queues, outcomes, sqs, others) in [
            (Both, &rejected, vec![DeadLetter], vec![DeadLetter]),
            (DeadLetters, &rejected, vec![DeadLetter], vec![DeadLetter]),
            (Both, &unfinished, vec![Source], vec![WorkQueue]),
            (DeadLetters, &unfinished, vec![Source], vec![DeadLetter]),
            (Queues::None, &unfinished, vec![Source], vec![Source]),
            // an unfinished asset brings the whole record back: no letter yet
            (
                Both,
                &both,
                vec![Source, Source],
                vec![DeadLetter, WorkQueue],
            ),
            (
                DeadLetters,
                &both,
                vec![Source, Source],
                vec![DeadLetter; 2],
            ),
            (Queues::None, &both, vec![Source, Source], vec![Source; 2]),
        ] {
            let request = request(2, &[]);
            let to = |origin| {
                let worked = Worked::Dispatched(&request, outcomes.to_vec());
                destinations(&settle(origin, worked, queues))
            };
            assert_eq!(to(Origin::Sqs), sqs, "{queues:?} {outcomes:?}");
            for origin in reported {
                assert_eq!(to(origin), others, "{origin:?} {queues:?} {outcomes:?}");
            }
        }
    }

    #[test]
    fn a_malformed_request_goes_whole_to_a_dead_letter() {
        let error = DisassociateRequest::parse("{}").expect_err("malformed");
        for origin in ORIGINS {
            for (queues, destination) in [
                (Both, DeadLetter),
                (DeadLetters, DeadLetter),
                (Queues::None, Source),
            ] {
                assert_eq!(
                    settle(origin, Worked::Malformed(&error), queues).rest,
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
            Both,
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
            let settlement = settle(origin, Worked::FannedOut(&request(2, &["nope"])), Both);
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
            assert_eq!(destinations(&settle(origin, worked, Both)), [DeadLetter]);
        }
    }

    #[test]
    fn a_message_that_a_defect_kept_from_being_read_stays() {
        for origin in ORIGINS {
            assert_eq!(
                destinations(&settle(origin, Worked::Unread, Both)),
                [Source]
            );
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
            Both,
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
    fn parts_are_sent_only_where_all_dead_letters_are_stored() {
        for (is_stored, expected) in [
            (true, [DeadLetter, WorkQueue]),
            (false, [DeadLetter, Source]),
        ] {
            let request = request(1, &["nope"]);
            let mut settlement = settle(Origin::Sqs, Worked::FannedOut(&request), Both);
            settlement.rest[0].is_kept = is_stored;
            settlement.hold_back_parts();
            assert_eq!(destinations(&settlement), expected);
            let reason = settlement.rest[1].failure.as_ref().map(Failure::code);
            assert_eq!(reason, (!is_stored).then_some("InvalidAssetId"));
        }
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Disassociated),
            Just(Outcome::Absent),
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
            queues in proptest::sample::select(&[Queues::None, DeadLetters, Both][..]),
            is_part: bool,
        ) {
            prop_assume!(!outcomes.is_empty() || invalid > 0);
            let bad: Vec<String> = (0..invalid).map(|number| format!("bad-{number}")).collect();
            let bad: Vec<&str> = bad.iter().map(String::as_str).collect();
            let request = DisassociateRequest { is_part, ..request(outcomes.len(), &bad) };
            let settlement = settle(
                origin,
                Worked::Dispatched(&request, outcomes.clone()),
                queues,
            );

            let done = outcomes.iter().filter(|outcome| **outcome == Disassociated).count();
            prop_assert_eq!(settlement.disassociated, done);
            let absent = outcomes.iter().filter(|outcome| **outcome == Outcome::Absent).count();
            prop_assert_eq!(settlement.absent, absent);
            let mut named: Vec<String> =
                settlement.rest.iter().map(|rest| rest.subject.to_string()).collect();
            let mut expected: Vec<String> = request
                .assets
                .iter()
                .zip(&outcomes)
                .filter(|(_, outcome)| matches!(outcome, Rejected(_) | Unfinished(_)))
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
                    DeadLetter => prop_assert!(queues != Queues::None),
                    WorkQueue => prop_assert!(queues == Both && rest.retryable && !is_part),
                    Source => prop_assert!(
                        (origin == Origin::Sqs && unfinished) || queues == Queues::None
                    ),
                }
            }
        }
    }
}
