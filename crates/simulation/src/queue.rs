//! An SQS queue as its consumers see it: visibility, duplicates, the redrive
//! policy, FIFO groups.
//!
//! What is put in the queue by the function goes through the simulator's SQS
//! first, with all its rules; from there the simulation moves it here.

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::Instant;

/// How a queue is configured.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// whether it is a FIFO queue
    pub is_fifo: bool,
    /// how long a delivered message is hidden
    pub visibility: Duration,
    /// how often a message is delivered before it goes to the dead-letter queue
    pub max_receive_count: u32,
    /// the share of deliveries that SQS repeats, in the same event or later,
    /// though the message is deleted by then ("at-least-once delivery", SQS
    /// Developer Guide)
    pub duplicates: f64,
}

/// A message in the queue.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) id: String,
    pub(crate) body: String,
    pub(crate) group: Option<String>,
    visible_at: Instant,
    receives: u32,
    copy: u64,
}

impl Held {
    fn delivery(&self) -> Delivery {
        Delivery {
            id: self.id.clone(),
            body: self.body.clone(),
            group: self.group.clone(),
            receives: self.receives,
            copy: self.copy,
        }
    }
}

/// A message as it is delivered.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) body: String,
    pub(crate) group: Option<String>,
    pub(crate) receives: u32,
    copy: u64,
}

/// A message that the redrive policy moved.
#[derive(Debug)]
pub(crate) struct Moved {
    pub(crate) id: String,
    pub(crate) body: String,
}

#[derive(Debug)]
pub(crate) struct Queue {
    settings: QueueSettings,
    messages: Vec<Held>,
    copies: u64,
}

impl Queue {
    pub(crate) fn new(settings: QueueSettings) -> Self {
        Self {
            settings,
            messages: Vec::new(),
            copies: 0,
        }
    }

    pub(crate) fn put(&mut self, id: String, body: String, group: Option<String>) {
        self.copies += 1;
        self.messages.push(Held {
            id,
            body,
            group,
            visible_at: Instant::now(),
            receives: 0,
            copy: self.copies,
        });
    }

    pub(crate) fn messages(&self) -> &[Held] {
        &self.messages
    }

    /// Delivers up to `most` visible messages; those that were delivered too
    /// often are moved instead.
    pub(crate) fn receive(&mut self, most: usize, dice: &mut Rng) -> (Vec<Delivery>, Vec<Moved>) {
        let now = Instant::now();
        let mut deliveries: Vec<Delivery> = Vec::new();
        let mut moved = Vec::new();
        let mut duplicates = Vec::new();
        let mut blocked: BTreeSet<String> = BTreeSet::new();
        for message in &mut self.messages {
            let group = message.group.clone().filter(|_| self.settings.is_fifo);
            let is_blocked = group.as_ref().is_some_and(|group| blocked.contains(group));
            if message.visible_at > now || is_blocked {
                blocked.extend(group);
                continue;
            }
            if deliveries.len() == most {
                break;
            }
            if message.receives >= self.settings.max_receive_count {
                moved.push(Moved {
                    id: message.id.clone(),
                    body: message.body.clone(),
                });
                continue;
            }
            message.receives += 1;
            message.visible_at = now + self.settings.visibility;
            deliveries.push(message.delivery());
            if !self.settings.is_fifo && dice.f64() < self.settings.duplicates {
                self.copies += 1;
                let mut duplicate = Held {
                    copy: self.copies,
                    ..message.clone()
                };
                if deliveries.len() < most && dice.bool() {
                    deliveries.push(duplicate.delivery());
                } else {
                    duplicate.visible_at = now + Duration::from_secs(dice.u64(0..1200));
                }
                duplicates.push(duplicate);
            }
        }
        self.messages.retain(|message| {
            let is_moved = moved.iter().any(|moved| moved.id == message.id);
            !(is_moved && message.receives >= self.settings.max_receive_count)
        });
        self.messages.extend(duplicates);
        (deliveries, moved)
    }

    pub(crate) fn delete(&mut self, delivery: &Delivery) {
        self.messages
            .retain(|message| message.copy != delivery.copy);
    }

    /// From here on nothing is delivered twice.
    pub(crate) fn calm(&mut self) {
        self.settings.duplicates = 0.0;
    }

    /// Returns when the next message can be delivered.
    pub(crate) fn next_visible(&self) -> Option<Instant> {
        self.messages.iter().map(|message| message.visible_at).min()
    }
}

/// Returns the dead-letter queue's name; a FIFO queue wants a FIFO one.
pub(crate) fn dead_letter_queue(is_fifo: bool) -> &'static str {
    if is_fifo {
        "dead-letters.fifo"
    } else {
        "dead-letters"
    }
}

/// Returns the work queue's name.
pub(crate) fn work_queue(is_fifo: bool) -> &'static str {
    if is_fifo { "work.fifo" } else { "work" }
}
