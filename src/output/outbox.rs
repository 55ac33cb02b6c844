//! Stores what is not done in the queues that it was settled for.
//!
//! Owns the order of storing: dead letters first, then parts. It must not decide
//! where anything goes.

use std::time::SystemTime;

use tokio::time::Instant;

use super::Written;
use super::dead_letter::{Source, as_it_came, dead_letters};
use super::part;
use crate::aws::sqs::Queue;
use crate::outcome::{Failure, code};
use crate::settle::{Destination, Item, Settlement, Unresolved, hold_back_parts};
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
        let mut written = 0;
        let messages = (settlements.iter())
            .flat_map(|settlement| self.messages(destination, settlement))
            .map(|Written { message, items }| {
                let first = written;
                written += items;
                (message, first..written)
            });
        let results = queue.send(messages, self.stop).await;

        let unresolved = settlements.iter_mut().flat_map(|one| &mut one.unresolved);
        let mut items: Vec<Option<&mut Unresolved>> = unresolved
            .filter(|one| one.destination == destination)
            .map(Some)
            .collect();
        let mut failed = 0;
        let mut note = |items: &mut [Option<&mut Unresolved>], result: &Result<(), Failure>| {
            if let Err(failure) = result {
                failed += 1;
                telemetry::log_not_stored(failure);
            }
            for item in items.iter_mut().filter_map(Option::take) {
                match result {
                    Ok(()) => item.is_stored = true,
                    Err(failure) => {
                        item.failure.get_or_insert_with(|| failure.clone());
                    }
                }
            }
        };
        for (stored, result) in &results {
            note(&mut items[stored.clone()], result);
        }
        let stored = results.iter().filter(|(_, result)| result.is_ok()).count();
        if items.iter().any(Option::is_some) {
            // Time ran out before these were sent.
            let failure = Failure::new(code::DEADLINE_REACHED, "not sent");
            note(&mut items, &Err(failure));
        }
        (stored, failed)
    }

    /// Writes the messages that store what of a settlement is for one queue: each
    /// item once, in their order. Items for the work queue are assets, and those
    /// for the dead-letter queue have a failure.
    fn messages<'b>(
        &'b self,
        destination: Destination,
        settlement: &'b Settlement<'_>,
    ) -> Box<dyn Iterator<Item = Written> + Send + 'b> {
        let received = &settlement.received;
        let source = Source {
            message: received.message,
            request_id: self.request_id,
            now: self.now,
        };
        let items = settlement.unresolved.iter();
        let items = items.filter(move |one| one.destination == destination);
        let request = received.request.as_ref().ok();
        match request.and_then(|request| Some((request.project()?, &request.client_token))) {
            Some((project, own_token)) if destination == Destination::WorkQueue => {
                let assets = items.filter_map(|one| match one.item {
                    Item::Asset(asset) => Some(asset),
                    Item::InvalidId(_) | Item::Project(_) | Item::Message => None,
                });
                let assets: Vec<_> = assets.collect();
                let own_token = own_token.as_ref();
                let parts = part::cut(received, project, own_token, &assets, self.part_assets);
                Box::new(parts.into_iter())
            }
            Some((project, _)) => {
                let named =
                    items.filter_map(|one| Some((one.item.asset_id()?, one.failure.as_ref()?)));
                Box::new(dead_letters(source, project, named))
            }
            None => {
                let failures = items.filter_map(|one| one.failure.as_ref());
                Box::new(failures.map(move |failure| {
                    let message = as_it_came(source, received.project().as_deref(), failure);
                    Written { message, items: 1 }
                }))
            }
        }
    }
}
