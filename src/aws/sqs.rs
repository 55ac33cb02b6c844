//! Sends messages to SQS queues.
//!
//! Owns what SQS accepts: batches of ten, sizes, characters, FIFO fields, and
//! entries that fail inside a 200. The only place for SQS SDK types. It must not
//! know what a message means.

use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
use std::iter;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, LazyLock};

use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::operation::send_message_batch::SendMessageBatchOutput;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, MessageAttributeValue, SendMessageBatchRequestEntry,
};
use aws_smithy_types::Blob;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use http::Uri;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::aws::error::{CallFailure, FailureClass};
use crate::aws::retry::{ENTRY_ATTEMPTS, ENTRY_PAUSE, SQS_TIMEOUTS, quota, with_retries};
use crate::outcome::{Failure, code};

/// Most bytes of a message and of a `SendMessageBatch`, attributes included
/// (SQS quotas: 1 MiB).
pub const MESSAGE_LIMIT: usize = 1_048_576;

/// Most entries of a batch call (SQS quotas).
pub const BATCH_ENTRIES: usize = 10;

/// `SendMessageBatch` requests at a time; one at a time to a FIFO queue, where
/// order counts.
const CONCURRENCY: usize = 8;

/// Most attributes of a message (SQS quotas).
pub const ATTRIBUTES: usize = 10;

/// A message to send to a queue.
#[derive(Clone, Debug)]
pub struct OutgoingMessage {
    /// The body, not empty.
    pub body: String,
    /// The attributes, each with a name of its own.
    pub attributes: Vec<Attribute>,
    /// The message group, used where the queue is FIFO.
    pub group: String,
    /// The deduplication id, used where the queue is FIFO.
    pub deduplication: String,
}

/// An attribute of a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attribute {
    /// The name.
    pub name: Cow<'static, str>,
    /// The data type: `String`, `Number` or `Binary`, maybe with a label behind a
    /// dot.
    pub data_type: Cow<'static, str>,
    /// The value, not empty.
    pub value: AttributeValue,
}

/// The value of an attribute.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum AttributeValue {
    /// of the types `String` and `Number`
    Text(String),
    /// of the type `Binary`
    Binary(Vec<u8>),
}

impl Attribute {
    /// Makes an attribute of the type `String`.
    pub fn text(name: &'static str, value: String) -> Self {
        Self {
            name: name.into(),
            data_type: "String".into(),
            value: AttributeValue::Text(value),
        }
    }

    /// Returns whether SQS accepts it (SQS developer guide, "Message attribute
    /// components").
    pub fn is_valid(&self) -> bool {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let is_name = |text: &str| {
            let mut parts = text.split('.');
            text.len() <= 256 && parts.all(|part| !part.is_empty() && part.bytes().all(is_allowed))
        };
        let prefix = self.name.split_once('.').map(|(first, _)| first);
        let is_reserved = prefix.is_some_and(|first| {
            first.eq_ignore_ascii_case("AWS") || first.eq_ignore_ascii_case("Amazon")
        });
        let is_value = match (&self.value, self.data_type.split('.').next()) {
            (AttributeValue::Text(text), Some("String")) => {
                !text.is_empty() && !text.contains(is_refused)
            }
            (AttributeValue::Text(text), Some("Number")) => text.parse::<f64>().is_ok(),
            (AttributeValue::Binary(bytes), Some("Binary")) => !bytes.is_empty(),
            _ => false,
        };
        is_name(&self.name) && !is_reserved && is_name(&self.data_type) && is_value
    }
}

impl AttributeValue {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }
}

impl OutgoingMessage {
    /// Returns the size as SQS counts it: the body, and each attribute's name,
    /// type and value.
    pub fn size(&self) -> usize {
        let attributes: usize = self
            .attributes
            .iter()
            .map(|one| one.name.len() + one.data_type.len() + one.value.len())
            .sum();
        self.body.len() + attributes
    }
}

/// A client for SQS, made when it is first needed: most invocations write
/// nothing, and no cold start should wait for it. Its clones share the client.
#[derive(Clone, Debug)]
pub struct Sqs(Arc<LazyLock<Client, Box<dyn FnOnce() -> Client + Send>>>);

impl Sqs {
    /// Makes a client with the process's configuration.
    pub fn new(config: &SdkConfig) -> Self {
        let config = config.clone();
        Self(Arc::new(LazyLock::new(Box::new(move || {
            let config = with_retries(&config, &SQS_TIMEOUTS);
            let config = aws_sdk_sqs::config::Builder::from(&config);
            Client::from_conf(config.retry_partition(quota("sqs")).build())
        }))))
    }
}

/// A queue.
#[derive(Clone, Debug)]
pub struct Queue {
    sqs: Sqs,
    url: String,
}

impl Queue {
    /// Makes a queue from its URL.
    pub fn new(sqs: Sqs, url: String) -> Self {
        Self { sqs, url }
    }

    /// Returns whether an ARN is this queue's: of its account, its name and, where
    /// the URL has one, its Region.
    pub fn has_arn(&self, arn: &str) -> bool {
        let mut url = self.url.trim_end_matches('/').rsplit('/');
        let (name, account) = (url.next(), url.next());
        match arn.split(':').collect::<Vec<_>>()[..] {
            ["arn", _, "sqs", region, arn_account, arn_name] => {
                let is_region = region_of(&self.url).is_none_or(|known| known == region);
                is_region && account == Some(arn_account) && name == Some(arn_name)
            }
            _ => false,
        }
    }

    /// Returns whether it is a FIFO queue.
    pub fn is_fifo(&self) -> bool {
        self.url.ends_with(".fifo")
    }

    /// Sends messages, each of which comes with a value of the caller's. Returns
    /// these values, in any order, and whether SQS has confirmed that the message
    /// is stored. Nothing runs past `stop`.
    ///
    /// Each message is taken from the iterator when it is to be sent. One that is
    /// not begun by `stop` has no result.
    pub async fn send<T>(
        &self,
        messages: impl IntoIterator<Item = (OutgoingMessage, T)>,
        stop: Instant,
    ) -> Vec<(T, Result<(), Failure>)> {
        let concurrency = if self.is_fifo() { 1 } else { CONCURRENCY };
        let in_time = batches(messages).take_while(|_| Instant::now() < stop);
        let sent: Vec<_> = stream::iter(in_time)
            .map(|batch| async move {
                let (messages, values): (Vec<OutgoingMessage>, Vec<T>) = batch.into_iter().unzip();
                let send = AssertUnwindSafe(self.send_batch(&messages, stop));
                let results = send.catch_unwind().await.unwrap_or_else(|_panic| {
                    let failure = Failure::new(code::INTERNAL_ERROR, "the function failed to send");
                    vec![Err(failure); messages.len()]
                });
                values.into_iter().zip(results)
            })
            .buffer_unordered(concurrency)
            .collect()
            .await;
        sent.into_iter().flatten().collect()
    }

    /// Sends the messages of one batch, and again those that failed.
    async fn send_batch(
        &self,
        messages: &[OutgoingMessage],
        stop: Instant,
    ) -> Vec<Result<(), Failure>> {
        let not_sent = Failure::new(code::DEADLINE_REACHED, "not sent");
        let mut results = vec![Err(not_sent); messages.len()];
        let mut requests = VecDeque::from([((0..messages.len()).collect::<Vec<_>>(), 1)]);
        while let Some((indices, attempt)) = requests.pop_front() {
            let output = match self.send_entries(messages, &indices, stop).await {
                Ok(output) => output,
                // One entry may make the whole batch fail: each is sent alone, once.
                Err(CallFailure {
                    class: FailureClass::Refused | FailureClass::Unexpected,
                    ..
                }) if indices.len() > 1 => {
                    let alone = indices.into_iter().map(|index| vec![index]);
                    requests.extend(alone.map(|indices| (indices, ENTRY_ATTEMPTS)));
                    continue;
                }
                Err(error) => {
                    for index in indices {
                        results[index] = Err(error.failure.clone());
                    }
                    continue;
                }
            };
            let mut again = Vec::new();
            for index in indices {
                let id = index.to_string();
                // Only what SQS names as stored is stored.
                if output.successful().iter().any(|entry| entry.id() == id) {
                    results[index] = Ok(());
                    continue;
                }
                let failed = output.failed().iter().find(|entry| entry.id() == id);
                if !failed.is_some_and(BatchResultErrorEntry::sender_fault) {
                    again.push(index);
                }
                results[index] = Err(match failed {
                    Some(entry) => Failure::new(entry.code(), entry.message().unwrap_or_default()),
                    None => Failure::new(
                        code::MALFORMED_RESPONSE,
                        "the response of SQS has no result for the message",
                    ),
                });
            }
            let again_at = Instant::now() + ENTRY_PAUSE * attempt;
            if !again.is_empty() && attempt < ENTRY_ATTEMPTS && again_at < stop {
                sleep_until(again_at).await;
                requests.push_back((again, attempt + 1));
            }
        }
        results
    }

    /// Makes one `SendMessageBatch` request, with indices as the entries' ids. A
    /// 200 may have failed entries.
    async fn send_entries(
        &self,
        messages: &[OutgoingMessage],
        indices: &[usize],
        stop: Instant,
    ) -> Result<SendMessageBatchOutput, CallFailure> {
        let entries = indices.iter().map(|id| self.entry(*id, &messages[*id]));
        let call = self
            .sqs
            .0
            .send_message_batch()
            .queue_url(&self.url)
            .set_entries(Some(entries.collect()))
            .send();
        timeout_at(stop, call)
            .await
            .map_err(|_elapsed| CallFailure::stopped())?
            .map_err(|error| CallFailure::of(&error))
    }

    fn entry(&self, id: usize, message: &OutgoingMessage) -> SendMessageBatchRequestEntry {
        let mut entry = SendMessageBatchRequestEntry::builder()
            .id(id.to_string())
            .message_body(&message.body);
        for attribute in &message.attributes {
            let value = MessageAttributeValue::builder().data_type(&*attribute.data_type);
            let value = match &attribute.value {
                AttributeValue::Text(text) => value.string_value(text),
                AttributeValue::Binary(bytes) => value.binary_value(Blob::new(bytes.clone())),
            };
            let value = value.build().expect("a data type is set");
            entry = entry.message_attributes(&*attribute.name, value);
        }
        if self.is_fifo() {
            entry = entry
                .message_group_id(&message.group)
                .message_deduplication_id(&message.deduplication);
        }
        entry.build().expect("an id and a body are set")
    }
}

/// Returns whether a failure may say that a message is too large for its queue,
/// whose `MaximumMessageSize` may be less than [`MESSAGE_LIMIT`]. Of an entry SQS
/// says `InvalidParameterValue`, which has other meanings too.
pub fn is_maybe_too_large(failure: &Failure) -> bool {
    let code = failure.code();
    code.starts_with("InvalidParameterValue") || code.ends_with("BatchRequestTooLong")
}

/// Returns the Region that a queue's URL has: in `sqs.REGION.amazonaws.com` and the
/// like, or the older `REGION.queue.amazonaws.com` ("Amazon SQS endpoints and
/// quotas", AWS General Reference).
pub fn region_of(url: &str) -> Option<String> {
    let url: Uri = url.parse().ok()?;
    let host = url.host()?.to_ascii_lowercase();
    match host.split('.').collect::<Vec<_>>()[..] {
        ["sqs" | "sqs-fips", region, "amazonaws" | "api", ..]
        | [region, "queue", "amazonaws", ..] => Some(region.to_owned()),
        _ => None,
    }
}

/// Packs messages, in their order, into batches that SQS accepts, each when it is
/// asked for.
fn batches<T>(
    messages: impl IntoIterator<Item = (OutgoingMessage, T)>,
) -> impl Iterator<Item = Vec<(OutgoingMessage, T)>> {
    let mut messages = messages.into_iter().peekable();
    iter::from_fn(move || {
        let first = messages.next()?;
        let mut size = first.0.size();
        let mut batch = vec![first];
        while batch.len() < BATCH_ENTRIES
            && let Some(next) =
                messages.next_if(|(message, _)| size + message.size() <= MESSAGE_LIMIT)
        {
            size += next.0.size();
            batch.push(next);
        }
        Some(batch)
    })
}

/// Escapes what SQS refuses in bodies and attributes: all but
/// `#x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF`
/// (SQS API reference, `SendMessage`).
///
/// An escape has JSON's form, so that a JSON text keeps its meaning.
pub fn escape_refused(text: String) -> String {
    let refused: BTreeSet<char> = text.chars().filter(|one| is_refused(*one)).collect();
    refused.into_iter().fold(text, |text, character| {
        text.replace(character, &format!("\\u{:04x}", u32::from(character)))
    })
}

fn is_refused(character: char) -> bool {
    matches!(character, '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}')
        && !matches!(character, '\t' | '\n' | '\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_queue_is_known_by_its_account_and_name_and_the_region_that_its_url_has() {
        let arn = "arn:aws:sqs:eu-west-1:123456789012:dead";
        for (url, expected) in [
            (
                "https://sqs.eu-west-1.amazonaws.com/123456789012/dead",
                true,
            ),
            (
                "https://sqs.eu-west-1.amazonaws.com/123456789012/dead/",
                true,
            ),
            (
                "https://eu-west-1.queue.amazonaws.com/123456789012/dead",
                true,
            ),
            ("http://127.0.0.1:9324/123456789012/dead", true),
            (
                "https://sqs.us-east-1.amazonaws.com/123456789012/dead",
                false,
            ),
            (
                "https://sqs.eu-west-1.amazonaws.com/123456789013/dead",
                false,
            ),
            (
                "https://sqs.eu-west-1.amazonaws.com/123456789012/work",
                false,
            ),
        ] {
            let sqs = Sqs::new(&SdkConfig::builder().build());
            let queue = Queue::new(sqs, url.to_owned());
            assert_eq!(queue.has_arn(arn), expected, "{url}");
            assert!(!queue.has_arn("dead"));
        }
    }

    fn message(size: usize) -> OutgoingMessage {
        OutgoingMessage {
            body: "x".repeat(size),
            attributes: Vec::new(),
            group: String::new(),
            deduplication: String::new(),
        }
    }

    #[test]
    fn batches_hold_ten_messages_and_one_mebibyte() {
        for (reason, sizes, expected) in [
            ("none", vec![], vec![]),
            ("one", vec![1], vec![0..1]),
            ("ten", vec![1; 10], vec![0..10]),
            ("eleven", vec![1; 11], vec![0..10, 10..11]),
            ("exactly full", vec![MESSAGE_LIMIT - 1, 1], vec![0..2]),
            ("one byte over", vec![MESSAGE_LIMIT, 1], vec![0..1, 1..2]),
            ("each full", vec![MESSAGE_LIMIT; 3], vec![0..1, 1..2, 2..3]),
            (
                "too large alone",
                vec![MESSAGE_LIMIT + 1, 1],
                vec![0..1, 1..2],
            ),
        ] {
            let messages = sizes.into_iter().map(message).zip(0..);
            let packed: Vec<Vec<usize>> = batches(messages)
                .map(|batch| batch.into_iter().map(|(_, index)| index).collect())
                .collect();
            let expected: Vec<Vec<usize>> = expected.into_iter().map(Iterator::collect).collect();
            assert_eq!(packed, expected, "{reason}");
        }
    }

    #[test]
    fn a_batch_takes_no_more_messages_than_it_needs() {
        let taken = Cell::new(0);
        let endless = iter::repeat_with(|| {
            taken.set(taken.get() + 1);
            (message(MESSAGE_LIMIT / 4), ())
        });
        let mut batches = batches(endless);
        assert_eq!(taken.get(), 0);
        for count in 1..=3 {
            assert_eq!(batches.next().map(|batch| batch.len()), Some(4));
            assert_eq!(taken.get(), 4 * count + 1, "one does not fit");
        }
    }

    #[tokio::test]
    async fn nothing_is_taken_without_time() {
        let sqs = Sqs::new(&SdkConfig::builder().build());
        for url in ["http://localhost/work", "http://localhost/work.fifo"] {
            let messages = (0..100).map(|_| (message(1), ()));
            let queue = Queue::new(sqs.clone(), url.to_owned());
            let sent = queue.send(messages, Instant::now()).await;
            assert_eq!(sent.len(), 0);
        }
    }

    #[test]
    fn attributes_count_with_name_type_and_value() {
        let message = OutgoingMessage {
            attributes: vec![
                Attribute::text("ErrorCode", "12345".to_owned()),
                Attribute {
                    name: "image".into(),
                    data_type: "Binary.gif".into(),
                    value: AttributeValue::Binary(vec![0; 3]),
                },
            ],
            ..message(100)
        };
        assert_eq!(message.size(), 100 + (9 + 6 + 5) + (5 + 10 + 3));
    }

    #[test]
    fn an_attribute_is_valid_by_its_name_its_type_and_its_value() {
        let text = |value: &str| AttributeValue::Text(value.to_owned());
        let bytes = |value: &[u8]| AttributeValue::Binary(value.to_vec());
        for (is_valid, name, data_type, value) in [
            (true, "a", "String", text("x")),
            (true, "a.B-c_9", "String.json", text("é\u{10000}\t")),
            (true, "awsome", "Number.int", text("-1.5e3")),
            (true, &"a".repeat(256), "Binary.gzip", bytes(&[0])),
            (false, &"a".repeat(257), "String", text("x")),
            (false, "", "String", text("x")),
            (false, ".a", "String", text("x")),
            (false, "a.", "String", text("x")),
            (false, "a..b", "String", text("x")),
            (false, "a b", "String", text("x")),
            (false, "AWS.trace", "String", text("x")),
            (false, "amazon.trace", "String", text("x")),
            (false, "a", "", text("x")),
            (false, "a", "string", text("x")),
            (false, "a", "String.", text("x")),
            (false, "a", "Strings", text("x")),
            (false, "a", "String", text("")),
            (false, "a", "String", text("\0")),
            (false, "a", "String", bytes(&[0])),
            (false, "a", "Number", text("one")),
            (false, "a", "Binary", bytes(&[])),
            (false, "a", "Binary", text("x")),
        ] {
            let attribute = Attribute {
                name: name.to_owned().into(),
                data_type: data_type.into(),
                value,
            };
            assert_eq!(attribute.is_valid(), is_valid, "{attribute:?}");
        }
    }

    #[test]
    fn only_what_sqs_refuses_is_escaped() {
        assert_eq!(
            escape_refused("a\t\n\r\u{7f}é\u{d7ff}\u{e000}\u{fffd}\u{10000}\u{10ffff}".to_owned()),
            "a\t\n\r\u{7f}é\u{d7ff}\u{e000}\u{fffd}\u{10000}\u{10ffff}"
        );
        assert_eq!(
            escape_refused("a\0\u{1b}[31m\u{fffe}\u{ffff}".to_owned()),
            "a\\u0000\\u001b[31m\\ufffe\\uffff"
        );
    }
}
