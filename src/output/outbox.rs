//! Stores what is not done in the queues that it was settled for.
//!
//! Owns the order of storing: dead letters first, then parts. It must not decide
//! where anything goes.

use std::time::SystemTime;

use tokio::time::Instant;

use super::dead_letter::{self, Source, dead_letters};
use super::part;
use crate::aws::sqs::{OutgoingMessage, Queue};
use crate::input::received::ReadError;
use crate::outcome::{Failure, code};
use crate::request::AssetId;
use crate::settle::{Destination, Item, Settlement};
use crate::telemetry;

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

/// Which unresolved items an outgoing message stores: of which settlement, and
/// their indices.
struct StoredItems {
    settlement: usize,
    indices: Vec<usize>,
}

type Outgoing = (OutgoingMessage, StoredItems);

impl Outbox<'_> {
    /// Stores dead letters, then the parts of messages whose dead letters are all
    /// stored, and marks in `settlements` what is stored.
    ///
    /// Messages are written as they are sent: all at once could take many times
    /// the memory that the event does.
    pub async fn store(&self, settlements: &mut [Settlement<'_>]) -> Stored {
        let (dead_letters, failed_letters) = {
            let letters = settlements.iter().enumerate();
            let letters = letters.flat_map(|(index, one)| self.dead_letters(index, one));
            let sent = self.send(self.dead_letter_queue, letters).await;
            mark(settlements, Destination::DeadLetterQueue, sent)
        };
        settlements.iter_mut().for_each(Settlement::hold_back_parts);
        let (parts, failed_parts) = {
            let parts = settlements.iter().enumerate();
            let parts = parts.flat_map(|(index, one)| self.parts(index, one));
            let sent = self.send(self.work_queue, parts).await;
            mark(settlements, Destination::WorkQueue, sent)
        };
        Stored {
            dead_letters,
            parts,
            failed: failed_letters + failed_parts,
        }
    }

    async fn send(
        &self,
        queue: Option<&Queue>,
        messages: impl Iterator<Item = Outgoing>,
    ) -> Vec<(StoredItems, Result<(), Failure>)> {
        match queue {
            Some(queue) => queue.send(messages, self.stop).await,
            None => Vec::new(),
        }
    }

    /// Writes the dead letters for one message, each when it is asked for.
    fn dead_letters<'b>(
        &'b self,
        settlement: usize,
        settled: &'b Settlement<'_>,
    ) -> Box<dyn Iterator<Item = Outgoing> + Send + 'b> {
        let source = Source {
            message: settled.received.message,
            request_id: self.request_id,
            now: self.now,
        };
        let unresolved = || {
            let unresolved = settled.unresolved.iter().enumerate();
            unresolved.filter(|(_, one)| one.destination == Destination::DeadLetterQueue)
        };
        let failures = unresolved().filter_map(|(index, one)| Some((index, one.failure.as_ref()?)));
        match &settled.received.request {
            Ok(request) => {
                let named = unresolved()
                    .filter_map(|(_, one)| Some((one.item.asset_id()?, one.failure.as_ref()?)));
                let mut indices = unresolved().map(|(index, _)| index);
                let letters = dead_letters(source, request.project, named);
                Box::new(letters.map(move |letter| {
                    let indices = indices.by_ref().take(letter.names).collect();
                    let items = StoredItems {
                        settlement,
                        indices,
                    };
                    (letter.message, items)
                }))
            }
            Err(ReadError::Malformed(error)) => {
                let project = error.project.as_deref();
                Box::new(failures.map(move |(index, failure)| {
                    let indices = vec![index];
                    let items = StoredItems {
                        settlement,
                        indices,
                    };
                    (dead_letter::as_it_came(source, project, failure), items)
                }))
            }
            Err(ReadError::Panicked) => Box::new(std::iter::empty()),
        }
    }

    /// Writes the parts for one message.
    fn parts(&self, settlement: usize, settled: &Settlement<'_>) -> Vec<Outgoing> {
        let Ok(request) = &settled.received.request else {
            return Vec::new();
        };
        let unresolved = settled.unresolved.iter().enumerate();
        let (indices, assets): (Vec<usize>, Vec<AssetId>) = unresolved
            .filter(|(_, one)| one.destination == Destination::WorkQueue)
            .filter_map(|(index, one)| match one.item {
                Item::Asset(asset) => Some((index, asset)),
                Item::InvalidId(_) | Item::Message => None,
            })
            .unzip();
        let mut indices = indices.into_iter();
        part::cut(&settled.received, request, &assets, self.part_assets)
            .into_iter()
            .map(|part| {
                let indices = indices.by_ref().take(part.holds).collect();
                (
                    part.message,
                    StoredItems {
                        settlement,
                        indices,
                    },
                )
            })
            .collect()
    }
}

/// Marks what is stored of that which is for one queue, and returns how many
/// messages are stored, and how many are not.
fn mark(
    settlements: &mut [Settlement<'_>],
    destination: Destination,
    sent: Vec<(StoredItems, Result<(), Failure>)>,
) -> (usize, usize) {
    let mut stored = 0;
    let mut failed = 0;
    let mut written = 0;
    for (items, result) in sent {
        written += items.indices.len();
        match &result {
            Ok(()) => stored += 1,
            Err(failure) => {
                failed += 1;
                telemetry::log_not_stored(failure);
            }
        }
        for index in items.indices {
            let one = &mut settlements[items.settlement].unresolved[index];
            match &result {
                Ok(()) => one.is_stored = true,
                Err(failure) => {
                    one.failure.get_or_insert_with(|| failure.clone());
                }
            }
        }
    }
    // Messages are written in the order of their items, while there is time: what
    // is in none of them is last. It counts as one message.
    let not_sent = Failure::new(code::DEADLINE_REACHED, "not sent");
    let unresolved = settlements.iter_mut().flat_map(|one| &mut one.unresolved);
    let mut unwritten = unresolved
        .filter(|one| one.destination == destination)
        .skip(written)
        .peekable();
    if unwritten.peek().is_some() {
        failed += 1;
        telemetry::log_not_stored(&not_sent);
    }
    for one in unwritten {
        one.failure.get_or_insert_with(|| not_sent.clone());
    }
    (stored, failed)
}
