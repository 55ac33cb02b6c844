//! What leaves the function: dead letters and parts through SQS, the response
//! through Lambda.

pub mod dead_letter;
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

/// Settlements for the tests of this folder.
#[cfg(test)]
mod fixtures {
    use serde_json::json;
    use serde_json::value::RawValue;

    use crate::input::event::{Message, read};
    use crate::input::received::Received;
    use crate::input::request::{NamedAssets, Request, Scope};
    use crate::outcome::Failure;
    use crate::settle::{Destination, Item, Settlement, Unresolved};

    /// The body of [`message`].
    pub(super) const BODY: &str = r#"{"portalId":"as it came"}"#;

    pub(super) fn id(number: usize) -> String {
        format!("aaaaaaaa-0000-4000-8000-{number:012x}")
    }

    pub(super) fn project(number: usize) -> Item {
        Item::Project(id(number).parse().expect("an id"))
    }

    pub(super) fn asset(number: usize) -> Item {
        Item::Asset(id(number).parse().expect("an id"))
    }

    pub(super) fn portal() -> Scope {
        Scope::Portal(id(0).parse().expect("an id"))
    }

    pub(super) fn whole_project() -> Scope {
        Scope::Project(id(0).parse().expect("an id"))
    }

    pub(super) fn named_assets() -> Scope {
        Scope::Assets(NamedAssets {
            project: id(0).parse().expect("an id"),
            valid: Vec::new(),
            invalid: Vec::new(),
            duplicates: 0,
        })
    }

    /// Makes a record of a FIFO queue's group `g`.
    pub(super) fn message() -> &'static Message<'static> {
        let event = json!([{
            "eventSource": "aws:sqs", "messageId": "m-1", "body": BODY,
            "eventSourceARN": "arn:work.fifo", "attributes": {"MessageGroupId": "g"},
        }]);
        leak(&event.to_string())
    }

    /// Makes the message of a direct invocation, or of an event of one message.
    pub(super) fn leak(payload: &str) -> &'static Message<'static> {
        let payload = RawValue::from_string(payload.to_owned()).expect("JSON");
        let event = read(Box::leak(payload)).expect("an event");
        &Box::leak(Box::new(event)).messages()[0]
    }

    /// Settles a request of this scope: everything failed, what is for the work queue
    /// may be tried again, and nothing is stored yet.
    pub(super) fn settlement(
        scope: Scope,
        items: impl IntoIterator<Item = (Item, Destination)>,
    ) -> Settlement<'static> {
        let unresolved = items.into_iter().map(|(item, destination)| Unresolved {
            item,
            failure: Some(Failure::new("CODE", "message")),
            retryable: destination == Destination::WorkQueue,
            destination,
            is_stored: false,
        });
        Settlement {
            received: Received {
                message: message(),
                id: "m-1".into(),
                request: Ok(Request {
                    scope,
                    client_token: None,
                    dry_run: false,
                    is_part: false,
                }),
            },
            disassociated: 0,
            absent: 0,
            unresolved: unresolved.collect(),
            dry_run: None,
        }
    }
}
