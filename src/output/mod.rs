//! What leaves the function: dead letters and parts through SQS, the response
//! through Lambda.

pub mod dead_letter;
pub mod outbox;
pub mod part;
pub mod response;

use crate::aws::sqs::OutgoingMessage;

/// A message to store, written for the next ones of some unresolved items.
#[derive(Debug)]
pub struct Written {
    /// The message.
    pub message: OutgoingMessage,
    /// How many items it stores.
    pub items: usize,
}
