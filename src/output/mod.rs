//! What leaves the function: dead letters and parts through SQS, the response
//! through Lambda.

pub mod dead_letter;
#[cfg(test)]
mod fixtures;
pub mod outbox;
pub mod part;
pub mod report;
pub mod response;

use serde_json::{Value, json};

use crate::input::id::ProjectId;
use crate::input::received::Received;

/// Returns the fields of a request for a whole project (contract, section 1).
fn whole_project(project: ProjectId) -> Value {
    json!({"projectId": project.to_string(), "allAssets": true})
}

/// Returns the group that a FIFO queue gets a message as a whole in.
fn group(received: &Received<'_>) -> String {
    let group = received.message.fifo_group.as_deref();
    group.unwrap_or("sitewise-disassociator").to_owned()
}
