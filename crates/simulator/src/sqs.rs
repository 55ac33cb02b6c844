//! SQS over plain data: `SendMessage` and `SendMessageBatch` of the AWS JSON
//! protocol.
//!
//! The rules are those of the SQS API reference and quotas. The order in which a
//! call is checked is a choice: AWS does not say it. `DelaySeconds` is not
//! looked at, attributes of the type `Binary` are refused as empty, and the
//! answers have no `MD5OfMessageAttributes` and no `SequenceNumber`, which the
//! Rust SDK does not check.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use md5::{Digest, Md5};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::sitewise::Answer;

/// Most entries of a batch.
pub const BATCH_LIMIT: usize = 10;

/// Most bytes of a message and of a batch, attributes included.
pub const MESSAGE_LIMIT: usize = 1_048_576;

const ATTRIBUTE_LIMIT: usize = 10;
const ID_LIMIT: usize = 80;
const GROUP_LIMIT: usize = 128;

/// How long a FIFO queue knows a deduplication id.
const DEDUPLICATION_WINDOW: Duration = Duration::from_secs(300);

/// A stored message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// the id that SQS gave it
    pub id: String,
    /// the body
    pub body: String,
    /// the string attributes
    pub attributes: BTreeMap<String, String>,
    /// the message group
    pub group_id: Option<String>,
    /// the deduplication id
    pub deduplication_id: Option<String>,
}

/// All queues, by name.
pub(crate) struct Sqs {
    pub(crate) queues: BTreeMap<String, Queue>,
    seed: u64,
    sent: u64,
}

#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) messages: Vec<Message>,
    is_fifo: bool,
    known: HashMap<String, (Duration, String)>,
}

/// Why an entry or a call is refused.
#[derive(Clone)]
struct Refusal {
    code: &'static str,
    message: String,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    fn answer(&self) -> Answer {
        let mut headers = vec![("x-amzn-errortype".to_owned(), self.code.to_owned())];
        if self.code == NO_QUEUE {
            // The name of the query protocol, which the SDKs know the error by.
            let name = "AWS.SimpleQueueService.NonExistentQueue;Sender";
            headers.push(("x-amzn-query-error".to_owned(), name.to_owned()));
        }
        Answer {
            status: 400,
            headers,
            body: json!({ "__type": self.code, "message": self.message }).to_string(),
        }
    }
}

/// The queue of a request, by the last part of its URL.
pub(crate) fn queue_name(request: &Value) -> Option<String> {
    let url = request["QueueUrl"].as_str()?;
    url.rsplit('/').next().map(ToOwned::to_owned)
}

/// The bodies that a send carries.
pub(crate) fn bodies(request: &Value) -> Vec<String> {
    let entries = match request["Entries"].as_array() {
        Some(entries) => entries.iter().collect(),
        None => vec![request],
    };
    entries
        .into_iter()
        .filter_map(|entry| entry["MessageBody"].as_str().map(ToOwned::to_owned))
        .collect()
}

impl Sqs {
    /// Makes it without queues; the messages' ids follow from `seed` and order.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            queues: BTreeMap::new(),
            seed,
            sent: 0,
        }
    }

    pub(crate) fn create(&mut self, name: &str) {
        self.queues.entry(name.to_owned()).or_insert_with(|| Queue {
            is_fifo: name.ends_with(".fifo"),
            ..Queue::default()
        });
    }

    /// Answers `SendMessage`; the second value says why it is refused.
    pub(crate) fn send(&mut self, request: &Value, now: Duration) -> (Answer, Option<String>) {
        let stored = self
            .check_queue(request)
            .and_then(|()| check(request))
            .and_then(|()| self.store(request, request, now));
        match stored {
            Ok((id, md5)) => {
                let body = json!({ "MessageId": id, "MD5OfMessageBody": md5 });
                (Answer::ok(&body), None)
            }
            Err(refusal) => (refusal.answer(), Some(refusal.message)),
        }
    }

    /// Answers `SendMessageBatch`. `fails` picks entries to fail by their
    /// bodies, with a code and whether the sender is at fault.
    pub(crate) fn send_batch(
        &mut self,
        request: &Value,
        now: Duration,
        mut fails: impl FnMut(&str) -> Option<(String, bool)>,
    ) -> (Answer, Option<String>) {
        let entries: Vec<&Value> = request["Entries"]
            .as_array()
            .into_iter()
            .flatten()
            .collect();
        if let Err(refusal) = check_batch(&entries).and_then(|()| self.check_queue(request)) {
            return (refusal.answer(), Some(refusal.message));
        }
        let mut successful = Vec::new();
        let mut failed = Vec::new();
        let mut invalid = None;
        for entry in entries {
            let id = &entry["Id"];
            let body = entry["MessageBody"].as_str().unwrap_or_default();
            if let Some((code, sender_fault)) = fails(body) {
                failed.push(json!({
                    "Id": id, "Code": code, "SenderFault": sender_fault,
                    "Message": "Simulated failure.",
                }));
                continue;
            }
            match check(entry).and_then(|()| self.store(request, entry, now)) {
                Ok((message, md5)) => successful.push(json!({
                    "Id": id, "MessageId": message, "MD5OfMessageBody": md5,
                })),
                Err(refusal) => {
                    failed.push(json!({
                        "Id": id, "Code": refusal.code, "SenderFault": true,
                        "Message": refusal.message,
                    }));
                    invalid = Some(refusal.message);
                }
            }
        }
        let body = json!({ "Successful": successful, "Failed": failed });
        (Answer::ok(&body), invalid)
    }

    fn check_queue(&self, request: &Value) -> Result<(), Refusal> {
        let name = queue_name(request).unwrap_or_default();
        if self.queues.contains_key(&name) {
            Ok(())
        } else {
            Err(no_queue(&name))
        }
    }

    fn store(
        &mut self,
        request: &Value,
        entry: &Value,
        now: Duration,
    ) -> Result<(String, String), Refusal> {
        let name = queue_name(request).unwrap_or_default();
        let queue = self.queues.get_mut(&name).ok_or_else(|| no_queue(&name))?;
        let text = |name: &str| entry[name].as_str().map(ToOwned::to_owned);
        let body = text("MessageBody").unwrap_or_default();
        let md5 = hex(&Md5::digest(body.as_bytes()));
        let (group, deduplication) = (text("MessageGroupId"), text("MessageDeduplicationId"));
        if queue.is_fifo {
            if group.is_none() {
                let message = "The request must contain the parameter MessageGroupId.";
                return Err(Refusal::new("MissingParameter", message));
            }
            // No queue here deduplicates by content.
            let Some(deduplication) = &deduplication else {
                return Err(Refusal::new(
                    "InvalidParameterValue",
                    "The queue should either have ContentBasedDeduplication enabled or \
                     MessageDeduplicationId provided explicitly",
                ));
            };
            if let Some((at, id)) = queue.known.get(deduplication)
                && now.saturating_sub(*at) < DEDUPLICATION_WINDOW
            {
                return Ok((id.clone(), md5));
            }
        } else if deduplication.is_some() {
            return Err(Refusal::new(
                "InvalidParameterValue",
                "MessageDeduplicationId is not valid for this queue type.",
            ));
        }
        self.sent += 1;
        let high = 0x5132_0000_0000_4000 ^ (self.seed << 16);
        let id = Uuid::from_u64_pair(high, 0x8000_0000_0000_0000 | self.sent);
        let id = id.to_string();
        if let (true, Some(deduplication)) = (queue.is_fifo, &deduplication) {
            queue.known.insert(deduplication.clone(), (now, id.clone()));
        }
        queue.messages.push(Message {
            id: id.clone(),
            body,
            attributes: attributes(entry).collect(),
            group_id: group,
            deduplication_id: deduplication,
        });
        Ok((id, md5))
    }
}

const NO_QUEUE: &str = "com.amazonaws.sqs#QueueDoesNotExist";

fn no_queue(name: &str) -> Refusal {
    Refusal::new(NO_QUEUE, format!("The queue {name:?} does not exist."))
}

fn attributes(entry: &Value) -> impl Iterator<Item = (String, String)> {
    entry["MessageAttributes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| {
            let value = value["StringValue"].as_str().unwrap_or_default();
            (name.clone(), value.to_owned())
        })
}

fn size(entry: &Value) -> usize {
    let body = entry["MessageBody"].as_str().map_or(0, str::len);
    let attributes: usize = entry["MessageAttributes"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| {
            let text = |field: &str| value[field].as_str().map_or(0, str::len);
            name.len() + text("DataType") + text("StringValue")
        })
        .sum();
    body + attributes
}

fn check_batch(entries: &[&Value]) -> Result<(), Refusal> {
    let ids: HashSet<&str> = entries
        .iter()
        .filter_map(|entry| entry["Id"].as_str())
        .collect();
    let is_id = |id: &&str| {
        (1..=ID_LIMIT).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    if entries.is_empty() {
        Err(Refusal::new(
            "AWS.SimpleQueueService.EmptyBatchRequest",
            "There must be an entry.",
        ))
    } else if entries.len() > BATCH_LIMIT {
        Err(Refusal::new(
            "AWS.SimpleQueueService.TooManyEntriesInBatchRequest",
            format!("{} entries", entries.len()),
        ))
    } else if ids.len() != entries.len() {
        Err(Refusal::new(
            "AWS.SimpleQueueService.BatchEntryIdsNotDistinct",
            "Ids must be distinct.",
        ))
    } else if !ids.iter().all(is_id) {
        Err(Refusal::new(
            "AWS.SimpleQueueService.InvalidBatchEntryId",
            "Ids are letters, digits, - and _.",
        ))
    } else if entries.iter().map(|entry| size(entry)).sum::<usize>() > MESSAGE_LIMIT {
        Err(Refusal::new(
            "AWS.SimpleQueueService.BatchRequestTooLong",
            "The batch is too long.",
        ))
    } else {
        Ok(())
    }
}

fn check(entry: &Value) -> Result<(), Refusal> {
    let is_allowed = |text: &str| {
        text.chars().all(|character| {
            matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
                || character >= '\u{10000}'
        })
    };
    let body = entry["MessageBody"].as_str().unwrap_or_default();
    if body.is_empty() {
        return Err(Refusal::new("MissingParameter", "The body is empty."));
    }
    if size(entry) > MESSAGE_LIMIT {
        return Err(Refusal::new(
            "InvalidParameterValue",
            "The message is too long.",
        ));
    }
    if !is_allowed(body) {
        return Err(Refusal::new(
            "InvalidMessageContents",
            "A character is not allowed.",
        ));
    }
    if attributes(entry).count() > ATTRIBUTE_LIMIT {
        return Err(Refusal::new(
            "InvalidParameterValue",
            "There are too many attributes.",
        ));
    }
    for (name, value) in attributes(entry) {
        let data_type = entry["MessageAttributes"][&name]["DataType"].as_str();
        let is_typed = data_type.is_some_and(|data_type| {
            // A label of the sender's own may follow, as in `String.json`.
            let (kind, _) = data_type.split_once('.').unwrap_or((data_type, ""));
            ["String", "Number"].contains(&kind)
        });
        if name.is_empty() || value.is_empty() || !is_allowed(&value) || !is_typed {
            return Err(Refusal::new(
                "InvalidParameterValue",
                format!("attribute {name:?}"),
            ));
        }
    }
    for field in ["MessageGroupId", "MessageDeduplicationId"] {
        if let Some(value) = entry[field].as_str()
            && (!(1..=GROUP_LIMIT).contains(&value.len())
                || !value.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(Refusal::new("InvalidParameterValue", field));
        }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
