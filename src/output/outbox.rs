//! Stores what is not done in the queues that it was settled for.
//!
//! Owns the order of storing: dead letters first, then parts. It must not decide
//! where anything goes.

use std::iter;
use std::ops::Range;
use std::ptr;
use std::time::SystemTime;

use tokio::time::Instant;

use super::dead_letter::Source;
use super::part::{as_it_came, part};
use crate::aws::sqs::{OutgoingMessage, Queue, is_maybe_too_large};
use crate::input::id::AssetId;
use crate::input::request::Request;
use crate::outcome::{Failure, code};
use crate::settle::{Destination, Item, Settlement, Unresolved, hold_back_parts};
use crate::telemetry;

/// Something to store, and what it belongs to.
type Pending<'a> = (&'a Settlement<'a>, &'a Unresolved);

/// The way to the queues in one invocation.
#[derive(Clone, Copy, Debug)]
pub struct Outbox<'a> {
    /// Where dead letters go.
    pub dead_letter_queue: Option<&'a Queue>,
    /// Where parts go.
    pub work_queue: Option<&'a Queue>,
    /// Most assets in a part.
    pub part_assets: usize,
    /// The Lambda request id.
    pub request_id: &'a str,
    /// The time of day.
    pub now: SystemTime,
    /// When the last request to a queue must be over.
    pub stop: Instant,
}

/// How many messages SQS has confirmed, and how many it has not.
#[derive(Clone, Copy, Debug)]
pub struct Stored {
    /// dead letters stored
    pub dead_letters: usize,
    /// parts stored
    pub parts: usize,
    /// messages not stored; all that there was no time to write count as one
    /// for each queue
    pub failed: usize,
}

impl Outbox<'_> {
    /// Stores dead letters, then the parts of messages whose dead letters are all
    /// stored, and marks in `settlements` what is stored.
    pub async fn store(&self, settlements: &mut [Settlement<'_>]) -> Stored {
        let dead_letters = Destination::DeadLetterQueue;
        let (dead_letters, not_stored) = self.store_in(dead_letters, settlements).await;
        hold_back_parts(settlements);
        let (parts, failed) = self.store_in(Destination::WorkQueue, settlements).await;
        Stored {
            dead_letters,
            parts,
            failed: not_stored + failed,
        }
    }

    /// Stores everything that is for one queue. Returns how many messages are
    /// stored, and how many are not.
    ///
    /// Messages are written as they are sent: all at once could take many times
    /// the memory that the event does.
    async fn store_in(
        &self,
        destination: Destination,
        settlements: &mut [Settlement<'_>],
    ) -> (usize, usize) {
        let queue = match destination {
            Destination::DeadLetterQueue => self.dead_letter_queue,
            Destination::WorkQueue => self.work_queue,
            Destination::Source | Destination::Report => None,
        };
        let Some(queue) = queue else {
            return (0, 0);
        };
        let not_sent = Failure::new(code::DEADLINE_REACHED, "not sent");
        let is_for_queue = |one: &&Unresolved| one.destination == destination;
        let items: Vec<Pending<'_>> = (settlements.iter())
            .flat_map(|settlement| {
                let items = settlement.unresolved.iter().filter(is_for_queue);
                items.map(move |one| (settlement, one))
            })
            .collect();
        let mut results = vec![None; items.len()];
        let (mut stored, mut failed) = (0, 0);
        // What is to be written: ranges of items, and most items in one message.
        let mut runs = Vec::new();
        let mut end = 0;
        for run in items.chunk_by(belong_together) {
            runs.push((end..end + run.len(), usize::MAX));
            end += run.len();
        }
        while !runs.is_empty() {
            let messages = (runs.iter())
                .flat_map(|(run, most)| self.messages(destination, &items, run.clone(), *most));
            let sent = queue.send(messages, self.stop).await;
            runs.clear();
            for (range, result) in sent {
                match &result {
                    Ok(()) => stored += 1,
                    // A dead letter of several assets is split: the queue may take the
                    // halves.
                    Err(failure)
                        if destination == Destination::DeadLetterQueue
                            && range.len() > 1
                            && is_maybe_too_large(failure) =>
                    {
                        let half = range.len().div_ceil(2);
                        runs.push((range, half));
                        continue;
                    }
                    Err(failure) => {
                        failed += 1;
                        telemetry::log_not_stored(failure);
                    }
                }
                results[range].fill(Some(result));
            }
        }
        if results.iter().any(Option::is_none) {
            // Time ran out before these were sent.
            failed += 1;
            telemetry::log_not_stored(&not_sent);
        }
        let unresolved = settlements.iter_mut().flat_map(|one| &mut one.unresolved);
        let items = unresolved.filter(|one| one.destination == destination);
        for (item, result) in items.zip(results) {
            match result.unwrap_or_else(|| Err(not_sent.clone())) {
                Ok(()) => item.is_stored = true,
                Err(failure) => _ = item.failure.get_or_insert(failure),
            }
        }
        (stored, failed)
    }

    /// Writes the messages that store a run of the items, each when it is asked for,
    /// and returns each with the items that it stores, at most `most`. Items for the
    /// dead-letter queue have a failure.
    fn messages<'b>(
        &'b self,
        destination: Destination,
        items: &'b [Pending<'b>],
        run: Range<usize>,
        most: usize,
    ) -> impl Iterator<Item = (OutgoingMessage, Range<usize>)> {
        let mut start = run.start;
        iter::from_fn(move || {
            let (settlement, first) = items[start..run.end].first()?;
            let received = &settlement.received;
            let project = received.request.as_ref().ok().and_then(Request::project);
            let dead_letter = Source {
                received,
                request_id: self.request_id,
                now: self.now,
            };
            let next = items[start..run.end].iter().take(most);
            let number = start - run.start;
            let (message, count) = match (destination, &first.item, project) {
                (Destination::WorkQueue, Item::Asset(_), Some(project)) => {
                    let size = self.part_assets;
                    let assets = next.take(size).filter_map(|(_, one)| match one.item {
                        Item::Asset(asset) => Some(asset),
                        _ => None,
                    });
                    let assets: Vec<AssetId> = assets.collect();
                    let number = (number / size + 1, run.len().div_ceil(size));
                    (part(received, project, Some(&assets), number), assets.len())
                }
                (Destination::WorkQueue, Item::Project(project), _) => {
                    (part(received, *project, None, (number + 1, run.len())), 1)
                }
                (Destination::WorkQueue, ..) => (as_it_came(received), 1),
                (_, Item::Asset(_) | Item::InvalidId(_), Some(project)) => {
                    let named = next
                        .filter_map(|(_, one)| Some((one.item.asset_id()?, one.failure.as_ref()?)));
                    dead_letter.of_assets(project, named)?
                }
                _ => {
                    let attributes = received.message.sender_attributes();
                    let failure = first.failure.as_ref()?;
                    (dead_letter.of_message(failure, attributes), 1)
                }
            };
            start += count;
            Some((message, start - count..start))
        })
    }
}

/// Returns whether one message may store both items.
fn belong_together((settlement, one): &Pending<'_>, (other, another): &Pending<'_>) -> bool {
    let kind = |one: &Unresolved| match one.item {
        Item::Asset(_) | Item::InvalidId(_) => 0,
        Item::Project(_) => 1,
        Item::Message => 2,
    };
    ptr::eq(*settlement, *other) && kind(one) == kind(another)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::request::Scope;
    use crate::output::fixtures::{
        self, BODY, asset, id, named_assets, portal, project, whole_project,
    };
    use Destination::{DeadLetterQueue, WorkQueue};
    use serde_json::{Value, json};
    use std::collections::BTreeSet;
    use std::time::Duration;

    const TOKEN: &str = "decommission-2026-11-23-press-line-1";

    fn settlement(
        (scope, own_token): (Scope, Option<&str>),
        items: impl IntoIterator<Item = (Item, Destination)>,
    ) -> Settlement<'static> {
        let mut settlement = fixtures::settlement(scope, items);
        let request = settlement.received.request.as_mut().expect("a request");
        request.client_token = own_token.map(|token| token.parse().expect("a token"));
        settlement
    }

    /// The messages for one queue, each with how many items it stores.
    fn messages(
        destination: Destination,
        settlement: &Settlement<'_>,
    ) -> Vec<(OutgoingMessage, usize)> {
        let outbox = Outbox {
            dead_letter_queue: None,
            work_queue: None,
            part_assets: 2,
            request_id: "r-1",
            now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_407_660),
            stop: Instant::now(),
        };
        let items = settlement.unresolved.iter();
        let items: Vec<Pending<'_>> = items
            .filter(|one| one.destination == destination)
            .map(|one| (settlement, one))
            .collect();
        (items.chunk_by(belong_together))
            .flat_map(|run| outbox.messages(destination, run, 0..run.len(), usize::MAX))
            .map(|(message, range)| (message, range.len()))
            .collect()
    }

    fn body(message: &OutgoingMessage) -> Value {
        serde_json::from_str(&message.body).expect("a JSON body")
    }

    #[test]
    fn each_project_of_a_portal_is_a_part_in_a_group_of_its_own() {
        let items = (1..=3).map(|number| (project(number), WorkQueue));
        let parts = messages(WorkQueue, &settlement((portal(), None), items));
        assert_eq!(parts.len(), 3);
        for ((part, count), number) in parts.iter().zip(1..) {
            assert_eq!(*count, 1);
            assert_eq!(
                body(part),
                json!({
                    "projectId": id(number),
                    "allAssets": true,
                    "clientToken": part.deduplication,
                    "sitewiseDisassociatorPart": {"of": "m-1", "number": number, "count": 3},
                })
            );
            assert_eq!(part.group, id(number));
            Request::parse(
                &json!({"projectId": id(number), "assetIds": [id(1)],
                "clientToken": part.deduplication})
                .to_string(),
            )
            .expect("a valid token");
        }
    }

    #[test]
    fn the_token_of_a_project_depends_on_the_original_and_the_project_only() {
        let tokens = |own_token, numbers: &[usize]| -> BTreeSet<String> {
            let items = numbers.iter().map(|number| (project(*number), WorkQueue));
            let parts = messages(WorkQueue, &settlement((portal(), own_token), items));
            parts
                .into_iter()
                .map(|(part, _)| part.deduplication)
                .collect()
        };
        let all = tokens(None, &[1, 2, 3]);
        assert_eq!(all.len(), 3);
        assert!(tokens(None, &[3, 2]).is_subset(&all), "whatever its place");
        let own = tokens(Some(TOKEN), &[1, 2, 3]);
        assert!(own.is_disjoint(&all));
        let other = TOKEN.replace('1', "2");
        assert!(tokens(Some(&other), &[1, 2, 3]).is_disjoint(&own));
    }

    #[test]
    fn a_part_of_assets_is_in_the_originals_group() {
        let items = (1..=3).map(|number| (asset(number), WorkQueue));
        let parts = messages(WorkQueue, &settlement((whole_project(), None), items));
        let held = [json!([id(1), id(2)]), json!([id(3)])];
        assert_eq!(parts.len(), 2);
        for (index, ((part, count), held)) in parts.iter().zip(held).enumerate() {
            assert_eq!(held.as_array().map(Vec::len), Some(*count));
            assert_eq!(
                body(part),
                json!({
                    "projectId": id(0),
                    "assetIds": held,
                    "clientToken": part.deduplication,
                    "sitewiseDisassociatorPart": {"of": "m-1", "number": index + 1, "count": 2},
                })
            );
            assert_eq!(part.group, "g");
        }
    }

    #[test]
    fn a_request_whose_list_failed_is_queued_as_it_came() {
        for scope in [portal(), whole_project()] {
            let whole = settlement((scope, Some(TOKEN)), [(Item::Message, WorkQueue)]);
            let [(queued, 1)] = &messages(WorkQueue, &whole)[..] else {
                unreachable!("one message");
            };
            assert_eq!(queued.body, BODY);
            assert_eq!(queued.attributes, []);
            assert_eq!(queued.group, "g");
            let again = &messages(WorkQueue, &whole)[0].0;
            assert_eq!(queued.deduplication, again.deduplication);
            assert_eq!(queued.deduplication.len(), 64);
        }
    }

    #[test]
    fn a_project_whose_list_ran_out_of_time_is_queued_with_what_it_showed() {
        let items = [asset(1), asset(2), asset(3), asset(4), Item::Message];
        let items = items.map(|item| (item, WorkQueue));
        let queued = messages(WorkQueue, &settlement((whole_project(), None), items));
        let counts: Vec<usize> = queued.iter().map(|(_, count)| *count).collect();
        assert_eq!(counts, [2, 2, 1]);
        let marker = &body(&queued[1].0)["sitewiseDisassociatorPart"];
        assert_eq!(*marker, json!({"of": "m-1", "number": 2, "count": 2}));
        assert_eq!(queued[2].0.body, BODY);
    }

    #[test]
    fn what_is_rejected_before_any_asset_is_known_is_dead_lettered_as_its_request() {
        for (scope, field, flag) in [
            (whole_project(), "projectId", "allAssets"),
            (portal(), "portalId", "allProjects"),
        ] {
            let is_project = matches!(scope, Scope::Project(_));
            let whole = settlement((scope, Some(TOKEN)), [(Item::Message, DeadLetterQueue)]);
            let [(dead_letter, 1)] = &messages(DeadLetterQueue, &whole)[..] else {
                unreachable!("one message");
            };
            assert_eq!(
                body(dead_letter),
                json!({
                    field: id(0),
                    flag: true,
                    "errors": [{"code": "CODE", "message": "message"}],
                    "source": {
                        "eventSource": "aws:sqs", "messageId": "m-1", "requestId": "r-1",
                    },
                    "deadLetteredAt": "2026-11-23T04:21:00Z",
                })
            );
            let names = dead_letter.attributes.iter().map(|one| &*one.name);
            let has_project = names.clone().any(|name| name == "ProjectId");
            assert_eq!(has_project, is_project);
            assert_eq!(names.count(), 4 + usize::from(is_project));
        }
    }

    #[test]
    fn rejected_assets_are_named_whatever_the_request_named() {
        let bad = "PUMP-7".parse::<AssetId>().expect_err("not an id");
        for scope in [whole_project(), named_assets()] {
            let items = [Item::InvalidId(bad.clone()), asset(1)];
            let items = items.map(|item| (item, DeadLetterQueue));
            let dead_letters = messages(DeadLetterQueue, &settlement((scope, Some(TOKEN)), items));
            let [(dead_letter, 2)] = &dead_letters[..] else {
                unreachable!("one message");
            };
            let body = body(dead_letter);
            assert_eq!(body["projectId"], id(0));
            assert_eq!(body["assetIds"], json!(["PUMP-7", id(1)]));
            assert_eq!(body["allAssets"], Value::Null);
            assert_eq!(body["clientToken"], Value::Null);
        }
    }
}
