//! Decides where everything goes that is not done.
//!
//! Owns the table of where each failure leads (contract, section 4). Pure: it
//! must not await; [`outbox`](crate::output::outbox) carries out what it decides.

mod fifo;

use std::borrow::Cow;
use std::collections::HashMap;

use crate::input::event::{Keeper, Message};
use crate::input::id::{AssetId, InvalidId, ProjectId};
use crate::input::received::{ReadError, Received};
use crate::input::request::Request;
use crate::outcome::{DryRun, Failure, Outcome, code};
use crate::telemetry;

use fifo::hold_back_groups;
pub use fifo::needs_redelivery;

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
#[derive(Debug)]
pub struct Settlement<'a> {
    /// The message.
    pub received: Received<'a>,
    /// How many of its assets are disassociated.
    pub disassociated: usize,
    /// How many its project does not list.
    pub absent: usize,
    /// Everything else.
    pub unresolved: Vec<Unresolved>,
    /// What a dry run found, if the request asked for one and it was read.
    pub dry_run: Option<DryRun>,
}

/// Something of a message that is not done.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unresolved {
    /// What it is.
    pub item: Item,
    /// Why it is not done; `None` for what was not tried because its request is
    /// cut into parts.
    pub failure: Option<Failure>,
    /// Whether another try later may help.
    pub retryable: bool,
    /// Where it is to be stored.
    pub destination: Destination,
    /// Whether the queue has confirmed that it is stored.
    pub is_stored: bool,
}

/// What became of the items of a message.
pub type ItemOutcomes = Vec<(Item, Outcome)>;

/// What can fail.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Item {
    /// an asset
    Asset(AssetId),
    /// an asset id that the pattern refuses
    InvalidId(InvalidId),
    /// a project of a portal
    Project(ProjectId),
    /// the message as a whole
    Message,
}

impl Item {
    /// Returns the asset id as it came; `None` for anything else.
    pub fn asset_id(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Asset(asset) => Some(Cow::Owned(asset.to_string())),
            Self::InvalidId(invalid) => Some(Cow::Borrowed(invalid.text())),
            Self::Project(_) | Self::Message => None,
        }
    }
}

/// Where something that is not done is to be stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Destination {
    /// Where it came from: the record's own queue, Lambda's retries, the caller.
    Source,
    /// Nowhere: a dry run only reports it.
    Report,
    /// The dead-letter queue, in a dead letter.
    DeadLetterQueue,
    /// The work queue, in a part.
    WorkQueue,
}

impl Unresolved {
    /// Returns whether it is stored in that queue.
    pub fn is_stored_in(&self, destination: Destination) -> bool {
        self.is_stored && self.destination == destination
    }
}

impl Settlement<'_> {
    /// Returns whether something of the message is not stored elsewhere, so that
    /// its source must keep it.
    pub fn must_be_kept(&self) -> bool {
        let mut unresolved = self.unresolved.iter();
        unresolved.any(|one| !one.is_stored && one.destination != Destination::Report)
    }

    /// Leaves a record of the dead-letter queue there, if any of it would become a
    /// dead letter: that would come back for ever.
    fn keep_dead_letters(&mut self) {
        let mut unresolved = self.unresolved.iter();
        if unresolved.any(|one| one.destination == Destination::DeadLetterQueue) {
            telemetry::log_dead_letter_kept();
            self.hold_back();
        }
    }

    /// Leaves where it came from what is not stored.
    fn hold_back(&mut self) {
        for one in &mut self.unresolved {
            if !one.is_stored {
                one.destination = Destination::Source;
            }
        }
    }

    /// Holds everything else back where a dead letter is not stored: else each
    /// delivery would store the message's parts again.
    fn hold_back_parts(&mut self) {
        let mut unresolved = self.unresolved.iter();
        let not_stored = unresolved
            .find(|one| one.destination == Destination::DeadLetterQueue && !one.is_stored);
        let Some(reason) = not_stored.and_then(|one| one.failure.clone()) else {
            return;
        };
        self.hold_back();
        for one in &mut self.unresolved {
            one.failure.get_or_insert_with(|| reason.clone());
        }
    }
}

/// Holds the parts of messages back of which a dead letter is not stored, and
/// what comes behind these in their groups.
pub fn hold_back_parts(settlements: &mut [Settlement<'_>]) {
    settlements.iter_mut().for_each(Settlement::hold_back_parts);
    hold_back_groups(settlements);
}

/// Settles all messages. `is_dead_letter` says which are records of the dead-letter
/// queue.
pub fn settle_all<'a>(
    received: Vec<Received<'a>>,
    resolved: Vec<(ItemOutcomes, Option<DryRun>)>,
    queues: Queues,
    is_dead_letter: impl Fn(&Message<'_>) -> bool,
) -> Vec<Settlement<'a>> {
    let settlements = received.into_iter().zip(resolved);
    let mut settlements: Vec<Settlement<'_>> = settlements
        .map(|(received, (outcomes, dry_run))| {
            let mut settlement = settle(received, outcomes, queues);
            settlement.dry_run = dry_run;
            if is_dead_letter(settlement.received.message) {
                settlement.keep_dead_letters();
            }
            settlement
        })
        .collect();
    hold_back_groups(&mut settlements);
    settlements
}

/// Rejects the bad ids of a request. Those of one kind share one failure: a
/// message may carry some 175,000 of them.
fn invalid_ids(request: Option<&Request>) -> impl Iterator<Item = (Item, Outcome)> {
    let mut failures: HashMap<&str, Failure> = HashMap::new();
    let named = request.and_then(Request::named).into_iter();
    named.flat_map(|named| &named.invalid).map(move |invalid| {
        let expected = invalid.expected();
        let failure = failures
            .entry(expected)
            .or_insert_with(|| Failure::new(code::INVALID_ASSET_ID, expected));
        let item = Item::InvalidId(invalid.clone());
        (item, Outcome::Rejected(failure.clone()))
    })
}

/// Decides where everything of a message goes that is not done. `outcomes` are
/// those of its items without bad ids, or of the message as a whole.
pub fn settle(
    received: Received<'_>,
    outcomes: impl IntoIterator<Item = (Item, Outcome)>,
    queues: Queues,
) -> Settlement<'_> {
    let (mut disassociated, mut absent, mut unresolved) = (0, 0, Vec::new());
    let invalid = invalid_ids(received.request.as_ref().ok());
    for (item, outcome) in invalid.chain(outcomes) {
        let (failure, retryable) = match outcome {
            Outcome::Disassociated => {
                disassociated += 1;
                continue;
            }
            Outcome::Absent => {
                absent += 1;
                continue;
            }
            Outcome::Rejected(failure) => (Some(failure), false),
            Outcome::Unfinished(failure) => (Some(failure), true),
            Outcome::Deferred => (None, true),
        };
        unresolved.push(Unresolved {
            item,
            failure,
            retryable,
            destination: Destination::Source,
            is_stored: false,
        });
    }
    let mut settlement = Settlement {
        received,
        disassociated,
        absent,
        unresolved,
        dry_run: None,
    };
    if settlement.received.is_dry_run() {
        for one in settlement
            .unresolved
            .iter_mut()
            .filter(|one| !one.retryable)
        {
            one.destination = Destination::Report;
        }
        return settlement;
    }
    let was_tried = |one: &Unresolved| one.retryable && one.failure.is_some();
    let keeper = settlement.received.message.origin.keeper();
    let is_redelivered = keeper == Keeper::Queue && settlement.unresolved.iter().any(was_tried);
    let (is_sent_again, is_defect) = match &settlement.received.request {
        // A part made of assets is never sent to the work queue again.
        Ok(request) => (!request.is_part || request.named().is_none(), false),
        Err(ReadError::Malformed(_)) => (false, false),
        Err(ReadError::Panicked) => (false, true),
    };
    if is_redelivered || is_defect {
        // It is kept whole: nothing is stored twice.
        return settlement;
    }
    for one in &mut settlement.unresolved {
        one.destination = match queues {
            Queues::Both if one.retryable && is_sent_again => Destination::WorkQueue,
            Queues::Both | Queues::DeadLetters => Destination::DeadLetterQueue,
            Queues::None => Destination::Source,
        };
    }
    settlement
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::event::{Origin, read};
    use crate::outcome::Outcome::{Absent, Deferred, Disassociated, Rejected, Unfinished};
    use crate::resolve::unread;
    use Destination::{DeadLetterQueue, Source, WorkQueue};
    use Queues::{Both, DeadLetters};
    use proptest::prelude::*;
    use serde_json::json;
    use serde_json::value::RawValue;

    const ORIGINS: [Origin; 4] = [
        Origin::Sqs,
        Origin::EventBridge,
        Origin::Sns,
        Origin::Direct,
    ];

    /// A message of an origin, or a record of a FIFO queue's message group.
    fn message(origin: Origin, group: Option<&str>) -> &'static Message<'static> {
        let event = match origin {
            Origin::Sqs => json!([{
                "eventSource": "aws:sqs", "body": "{}",
                "eventSourceARN": if group.is_some() { "arn:work.fifo" } else { "arn:work" },
                "attributes": {"MessageGroupId": group},
            }]),
            Origin::EventBridge => json!({"detail-type": "t", "source": "s", "detail": {}}),
            Origin::Sns => json!({"Records": [{"EventSource": "aws:sns"}]}),
            Origin::Direct => json!({"projectId": ""}),
        };
        let event = RawValue::from_string(event.to_string()).expect("JSON");
        let event = read(Box::leak(event)).expect("an event");
        &Box::leak(Box::new(event)).messages()[0]
    }

    fn request(assets: usize, invalid: &[&str]) -> Request {
        let mut ids: Vec<String> = (1..=assets)
            .map(|number| format!("\"00000000-0000-4000-8000-{number:012x}\""))
            .collect();
        ids.extend(invalid.iter().map(|id| format!("{id:?}")));
        Request::parse(&format!(
            r#"{{"projectId":"1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0","assetIds":[{}]}}"#,
            ids.join(",")
        ))
        .expect("a request")
    }

    fn received(origin: Origin, request: Result<Request, ReadError>) -> Received<'static> {
        Received {
            message: message(origin, None),
            id: "m".into(),
            request,
        }
    }

    /// Pairs the items of a request that names assets with their outcomes.
    fn outcomes_of(request: &Request, outcomes: &[Outcome]) -> Vec<(Item, Outcome)> {
        let named = request.named().expect("named assets");
        let assets = named.valid.iter().copied().map(Item::Asset);
        let outcomes = assets.zip(outcomes.iter().cloned());
        outcomes.collect()
    }

    fn settled(
        origin: Origin,
        request: Request,
        outcomes: &[Outcome],
        queues: Queues,
    ) -> Settlement<'static> {
        let outcomes = outcomes_of(&request, outcomes);
        settle(received(origin, Ok(request)), outcomes, queues)
    }

    fn failure() -> Failure {
        Failure::new("CODE", "message")
    }

    fn destinations(settlement: &Settlement<'_>) -> Vec<Destination> {
        let unresolved = settlement.unresolved.iter();
        unresolved.map(|one| one.destination).collect()
    }

    #[test]
    fn a_finished_message_leaves_nothing() {
        for origin in ORIGINS {
            let outcomes = [Disassociated, Absent, Disassociated];
            let settlement = settled(origin, request(3, &[]), &outcomes, Queues::None);
            assert_eq!((settlement.disassociated, settlement.absent), (2, 1));
            assert_eq!(settlement.unresolved, []);
            assert!(!settlement.must_be_kept());
        }
    }

    #[test]
    fn where_rejected_and_unfinished_assets_go() {
        let rejected = [Disassociated, Rejected(failure())];
        let unfinished = [Disassociated, Unfinished(failure())];
        let both = [Rejected(failure()), Unfinished(failure())];
        let reported = [Origin::EventBridge, Origin::Sns, Origin::Direct];
        for (queues, outcomes, sqs, others) in [
            (
                Both,
                &rejected,
                vec![DeadLetterQueue],
                vec![DeadLetterQueue],
            ),
            (
                DeadLetters,
                &rejected,
                vec![DeadLetterQueue],
                vec![DeadLetterQueue],
            ),
            (Queues::None, &rejected, vec![Source], vec![Source]),
            (Both, &unfinished, vec![Source], vec![WorkQueue]),
            (
                DeadLetters,
                &unfinished,
                vec![Source],
                vec![DeadLetterQueue],
            ),
            (Queues::None, &unfinished, vec![Source], vec![Source]),
            // an unfinished asset brings the whole record back: no letter yet
            (
                Both,
                &both,
                vec![Source, Source],
                vec![DeadLetterQueue, WorkQueue],
            ),
            (
                DeadLetters,
                &both,
                vec![Source, Source],
                vec![DeadLetterQueue; 2],
            ),
            (Queues::None, &both, vec![Source, Source], vec![Source; 2]),
        ] {
            let to = |origin| destinations(&settled(origin, request(2, &[]), outcomes, queues));
            assert_eq!(to(Origin::Sqs), sqs, "{queues:?} {outcomes:?}");
            for origin in reported {
                assert_eq!(to(origin), others, "{origin:?} {queues:?} {outcomes:?}");
            }
        }
    }

    #[test]
    fn a_malformed_request_goes_whole_to_a_dead_letter() {
        for origin in ORIGINS {
            for (queues, destination) in [
                (Both, DeadLetterQueue),
                (DeadLetters, DeadLetterQueue),
                (Queues::None, Source),
            ] {
                let error = Request::parse("{}").expect_err("malformed");
                let error = ReadError::Malformed(error);
                let outcome = (Item::Message, unread(&error));
                let malformed = received(origin, Err(error));
                assert_eq!(
                    settle(malformed, [outcome], queues).unresolved,
                    [Unresolved {
                        item: Item::Message,
                        failure: Some(Failure::new(
                            "InvalidRequest",
                            "projectId: missing; assetIds: missing"
                        )),
                        retryable: false,
                        destination,
                        is_stored: false,
                    }]
                );
            }
        }
    }

    #[test]
    fn a_bad_id_goes_alone_to_a_dead_letter() {
        let settlement = settled(Origin::Sqs, request(1, &["nope"]), &[Disassociated], Both);
        assert_eq!(settlement.disassociated, 1);
        assert_eq!(
            settlement.unresolved,
            [Unresolved {
                item: Item::InvalidId("nope".parse::<AssetId>().expect_err("not an id")),
                failure: Some(Failure::new(
                    "InvalidAssetId",
                    "expected a lowercase UUID such as 1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0"
                )),
                retryable: false,
                destination: DeadLetterQueue,
                is_stored: false,
            }]
        );
    }

    #[test]
    fn a_large_request_goes_to_the_work_queue_and_its_bad_ids_to_a_letter() {
        for origin in ORIGINS {
            let large = request(2, &["nope"]);
            let settlement = settled(origin, large, &[Deferred, Deferred], Both);
            assert_eq!(
                destinations(&settlement),
                [DeadLetterQueue, WorkQueue, WorkQueue]
            );
            assert_eq!(settlement.unresolved[1].failure, None);
        }
    }

    #[test]
    fn a_part_is_never_put_in_the_work_queue_again() {
        for origin in [Origin::EventBridge, Origin::Sns, Origin::Direct] {
            let part = Request {
                is_part: true,
                ..request(1, &[])
            };
            let settlement = settled(origin, part, &[Unfinished(failure())], Both);
            assert_eq!(destinations(&settlement), [DeadLetterQueue]);
        }
    }

    #[test]
    fn a_message_that_a_defect_kept_from_being_read_stays() {
        for origin in ORIGINS {
            let outcome = (Item::Message, unread(&ReadError::Panicked));
            let settlement = settle(received(origin, Err(ReadError::Panicked)), [outcome], Both);
            assert_eq!(destinations(&settlement), [Source]);
        }
    }

    #[test]
    fn behind_a_record_that_stays_its_fifo_group_stays_too() {
        let records = [
            (Some("a"), Rejected(failure())),
            (Some("b"), Rejected(failure())),
            (Some("a"), Unfinished(failure())),
            (Some("a"), Rejected(failure())),
            (None, Unfinished(failure())),
            (Some("b"), Rejected(failure())),
        ];
        let mut settlements: Vec<Settlement<'_>> = records
            .into_iter()
            .map(|(group, outcome)| {
                let received = Received {
                    message: message(Origin::Sqs, group),
                    id: "m".into(),
                    request: Ok(request(1, &[])),
                };
                let outcomes = outcomes_of(&request(1, &[]), &[outcome]);
                settle(received, outcomes, Both)
            })
            .collect();
        hold_back_groups(&mut settlements);
        let first: Vec<Destination> = settlements.iter().flat_map(destinations).collect();
        let letter = DeadLetterQueue;
        assert_eq!(first, [letter, letter, Source, Source, Source, letter]);
        for settlement in &mut settlements {
            for one in &mut settlement.unresolved {
                one.is_stored = one.destination == letter;
            }
        }
        assert_eq!(
            needs_redelivery(&settlements),
            [false, false, true, true, true, false]
        );
        // A letter that could not be stored holds its group back as well.
        settlements[1].unresolved[0].is_stored = false;
        assert_eq!(
            needs_redelivery(&settlements),
            [false, true, true, true, true, true]
        );
    }

    #[test]
    fn parts_are_sent_only_where_all_dead_letters_are_stored() {
        for (is_stored, expected) in [
            (true, [DeadLetterQueue, WorkQueue]),
            (false, [Source, Source]),
        ] {
            let large = request(1, &["nope"]);
            let mut settlement = settled(Origin::Sqs, large, &[Deferred], Both);
            settlement.unresolved[0].is_stored = is_stored;
            settlement.hold_back_parts();
            assert_eq!(destinations(&settlement), expected);
            let reason = settlement.unresolved[1].failure.as_ref().map(Failure::code);
            assert_eq!(reason, (!is_stored).then_some("InvalidAssetId"));
        }
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Disassociated),
            Just(Absent),
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
            let request = Request { is_part, ..request(outcomes.len(), &bad) };
            let assets = request.named().expect("named assets").valid.clone();
            let settlement = settled(origin, request, &outcomes, queues);

            let count = |wanted| outcomes.iter().filter(|outcome| **outcome == wanted).count();
            prop_assert_eq!(settlement.disassociated, count(Disassociated));
            prop_assert_eq!(settlement.absent, count(Absent));
            let mut named: Vec<String> = settlement
                .unresolved
                .iter()
                .map(|one| one.item.asset_id().expect("an asset").into_owned())
                .collect();
            let mut expected: Vec<String> = assets
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
            for one in &settlement.unresolved {
                prop_assert!(!one.is_stored, "nothing is stored before a queue says so");
                match one.destination {
                    DeadLetterQueue => prop_assert!(queues != Queues::None),
                    WorkQueue => prop_assert!(queues == Both && one.retryable && !is_part),
                    Destination::Report => prop_assert!(false, "nothing but a dry run is only reported"),
                    Source => prop_assert!(
                        (origin == Origin::Sqs && unfinished) || queues == Queues::None
                    ),
                }
            }
        }
    }
}
