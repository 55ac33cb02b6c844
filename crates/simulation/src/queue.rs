//! An SQS queue as its consumers see it: visibility, duplicates, the redrive
//! policy, FIFO groups.
//!
//! What is put in the queue by the function goes through the simulator's SQS
//! first, with all its rules; from there the rig moves it here.

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
    /// the share of deliveries that SQS repeats later, though the message is
    /// deleted by then ("at-least-once delivery", SQS Developer Guide)
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

/// A message as it is delivered.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    pub(crate) id: String,
    pub(crate) body: String,
    pub(crate) group: Option<String>,
    pub(crate) receives: u32,
    copy: u64,
}

impl Delivery {
    /// Returns what the queue knows the delivery by.
    pub(crate) fn receipt(&self) -> String {
        receipt(self.copy, self.receives)
    }
}

fn receipt(copy: u64, receives: u32) -> String {
    format!("receipt-{copy}-{receives}")
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
        let mut deliveries = Vec::new();
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
            deliveries.push(Delivery {
                id: message.id.clone(),
                body: message.body.clone(),
                group: message.group.clone(),
                receives: message.receives,
                copy: message.copy,
            });
            if !self.settings.is_fifo && dice.f64() < self.settings.duplicates {
                let mut duplicate = message.clone();
                duplicate.visible_at = now + Duration::from_secs(dice.u64(0..1200));
                duplicates.push(duplicate);
            }
        }
        self.messages.retain(|message| {
            let is_moved = moved.iter().any(|moved| moved.id == message.id);
            !(is_moved && message.receives >= self.settings.max_receive_count)
        });
        for mut duplicate in duplicates {
            self.copies += 1;
            duplicate.copy = self.copies;
            self.messages.push(duplicate);
        }
        (deliveries, moved)
    }

    pub(crate) fn delete(&mut self, delivery: &Delivery) {
        self.messages
            .retain(|message| message.copy != delivery.copy);
    }

    /// Hides a message until then, if its last delivery is this one and it is
    /// still in flight. Returns whether it was.
    pub(crate) fn hide_until(&mut self, delivered_as: &str, visible_at: Instant) -> bool {
        let now = Instant::now();
        let message = self.messages.iter_mut().find(|message| {
            message.visible_at > now && receipt(message.copy, message.receives) == delivered_as
        });
        if let Some(message) = message {
            message.visible_at = visible_at;
            return true;
        }
        false
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
