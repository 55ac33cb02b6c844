//! What a payload is: one of the known events, and the messages in it.
//!
//! What AWS writes around a request is read leniently, because AWS may add to
//! it at any time. Each record is read by itself.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_smithy_types::base64;
use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::json::{self, Field, OTHER_FIELDS, Object};
use super::request::{InvalidRequest, Request};
use crate::aws::sqs::{Attribute, AttributeValue};

/// Most envelopes that a request may be in: one inside the other, as from a rule to
/// a topic to a queue.
const MOST_ENVELOPES: usize = 3;

/// A payload that was recognised: its messages and the response it wants.
#[derive(Debug)]
pub enum Event<'a> {
    /// Records of an SQS queue, from an event source mapping or from
    /// EventBridge Pipes: the response is a partial batch response.
    Queue(Vec<Message<'a>>),
    /// Anything else: the response is a report for each message.
    Reported(Vec<Message<'a>>),
}

impl<'a> Event<'a> {
    /// Returns the event's messages.
    pub fn messages(&self) -> &[Message<'a>] {
        match self {
            Self::Queue(messages) | Self::Reported(messages) => messages,
        }
    }
}

/// The service that carried a message here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Origin {
    /// An SQS queue.
    Sqs,
    /// An EventBridge rule that invokes the function.
    EventBridge,
    /// An SNS topic that invokes the function.
    Sns,
    /// A direct invocation.
    Direct,
}

impl Origin {
    /// Returns the name that dead letters give as `eventSource`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sqs => "aws:sqs",
            Self::EventBridge => "aws:events",
            Self::Sns => "aws:sns",
            Self::Direct => "aws:lambda",
        }
    }

    /// Returns who keeps a message that is not settled.
    pub fn keeper(self) -> Keeper {
        match self {
            Self::Sqs => Keeper::Queue,
            Self::EventBridge | Self::Sns => Keeper::Lambda,
            Self::Direct => Keeper::Caller,
        }
    }
}

/// Who keeps a message that is not settled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keeper {
    /// The queue: it delivers the message again, whole.
    Queue,
    /// Lambda: it invokes the function again, and has a dead-letter queue.
    Lambda,
    /// The caller, who gets a report.
    Caller,
}

/// What carried one request here.
#[derive(Debug)]
pub struct Message<'a> {
    /// Where it is from.
    pub origin: Origin,
    /// The id its service gave it, if any.
    pub id: Option<Cow<'a, str>>,
    /// The ARN of the queue that a record is from (`eventSourceARN`).
    pub queue_arn: Option<Cow<'a, str>>,
    /// The FIFO message group, for a record of a FIFO queue only: a standard
    /// queue may have groups too, but promises no order.
    pub fifo_group: Option<Cow<'a, str>>,
    /// How often its queue has delivered it, this time included
    /// (`ApproximateReceiveCount`); 0 if unknown.
    pub receives: u32,
    /// When it was sent to its queue (`SentTimestamp`).
    pub sent_at: Option<SystemTime>,
    /// The text to read the request from, or why there is none.
    text: Result<Cow<'a, str>, String>,
    raw: &'a RawValue,
}

impl<'a> Message<'a> {
    fn new(origin: Origin, id: Field<'a>, raw: &'a RawValue) -> Self {
        Self {
            origin,
            id: id.text().ok().filter(|id| !id.is_empty()),
            queue_arn: None,
            fifo_group: None,
            receives: 0,
            sent_at: None,
            text: Ok(raw.get().into()),
            raw,
        }
    }

    /// Reads the request out of the message.
    pub fn request(&self) -> Result<Request, InvalidRequest> {
        match &self.text {
            Ok(text) => open(text, 0),
            Err(problem) => Err(problem.clone().into()),
        }
    }

    /// Returns the message as it came, in a form that [`Message::request`]
    /// reads again once it is the body of an SQS message.
    pub fn as_it_came(&self) -> &str {
        match &self.text {
            Ok(text) => text,
            Err(_) => self.raw.get(),
        }
    }

    /// Returns the sender's own attributes of an SQS message, as far as they can be
    /// read.
    pub fn sender_attributes(&self) -> Vec<Attribute> {
        let record = Object::read_leniently(self.raw);
        let attributes = record.get("messageAttributes").value();
        let attributes: HashMap<String, &RawValue> = attributes
            .and_then(|attributes| serde_json::from_str(attributes.get()).ok())
            .unwrap_or_default();
        let attributes = attributes.into_iter();
        let mut attributes: Vec<Attribute> = attributes
            .filter_map(|(name, attribute)| {
                let attribute: SenderAttribute<'_> = serde_json::from_str(attribute.get()).ok()?;
                attribute.named(name)
            })
            .collect();
        attributes.sort_by(|a, b| a.name.cmp(&b.name));
        attributes
    }

    fn from_sqs(raw: &'a RawValue) -> Self {
        let record = Object::read_leniently(raw);
        let body = record.get("body");
        let text = match (record.check(&OTHER_FIELDS), body.text()) {
            _ if json::kind(raw) != "an object" => Err(format!(
                "record: expected a JSON object, found {}",
                json::kind(raw)
            )),
            (Err(problem), _) => Err(format!("record: {problem}")),
            (_, Err(problem)) => Err(format!("body: {problem}")),
            (_, Ok(body)) if body.is_empty() => {
                Err("body: expected a request, found an empty string".to_owned())
            }
            (_, body) => body,
        };
        let attributes = record.get("attributes").value();
        let attributes = attributes.map(Object::read_leniently).unwrap_or_default();
        let queue_arn = record.get("eventSourceARN").text().ok();
        let is_fifo = match &queue_arn {
            Some(arn) => arn.ends_with(".fifo"),
            None => attributes.get("SequenceNumber").is_present(),
        };
        let group = attributes.get("MessageGroupId").text().ok();
        let sent_at = attributes.get("SentTimestamp").parse().ok();
        Self {
            queue_arn,
            fifo_group: group.filter(|_| is_fifo),
            receives: attributes
                .get("ApproximateReceiveCount")
                .parse()
                .unwrap_or(0),
            sent_at: sent_at.map(|sent_at| UNIX_EPOCH + Duration::from_millis(sent_at)),
            text,
            ..Self::new(Origin::Sqs, record.get("messageId"), raw)
        }
    }

    fn from_sns(raw: &'a RawValue) -> Self {
        let sns = Object::read_leniently(raw).get("Sns").value();
        let notification = sns.map(Object::read_leniently).unwrap_or_default();
        let text = match sns {
            Some(sns) if is_notification(&notification) => sns.get().into(),
            // Without its usual fields it is recognised in an event only.
            _ => format!(r#"{{"Records":[{raw}]}}"#).into(),
        };
        Self {
            text: Ok(text),
            ..Self::new(Origin::Sns, notification.get("MessageId"), raw)
        }
    }
}

/// A message attribute, as Lambda gives it in a record.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SenderAttribute<'a> {
    #[serde(borrow)]
    data_type: Cow<'a, str>,
    string_value: Option<String>,
    binary_value: Option<String>,
}

impl SenderAttribute<'_> {
    fn named(self, name: String) -> Option<Attribute> {
        let value = match (self.string_value, self.binary_value) {
            (Some(text), _) => AttributeValue::Text(text),
            (None, binary) => AttributeValue::Binary(base64::decode(binary?).ok()?),
        };
        Some(Attribute {
            name: name.into(),
            data_type: self.data_type.into_owned().into(),
            value,
        })
    }
}

/// A payload that is none of the known events.
#[derive(Debug, Error)]
#[error(
    "unrecognized event: expected an SQS event (Records with eventSource aws:sqs), an array of \
     such records from EventBridge Pipes, an EventBridge event (detail-type, source, detail), an \
     SNS event (Records with EventSource aws:sns) or a request (projectId or portalId, with \
     assetIds, allAssets or allProjects), found {found}"
)]
pub struct UnrecognizedEvent {
    found: &'static str,
}

/// Reads a payload, which is known to be JSON.
///
/// # Errors
///
/// A payload that is none of the events; the error says what was expected.
pub fn read(payload: &RawValue) -> Result<Event<'_>, UnrecognizedEvent> {
    let unrecognized = |found| Err(UnrecognizedEvent { found });
    let queue =
        |records: Vec<_>| Event::Queue(records.into_iter().map(Message::from_sqs).collect());
    let topic =
        |records: Vec<_>| Event::Reported(records.into_iter().map(Message::from_sns).collect());
    let whole = |origin, id| Ok(Event::Reported(vec![Message::new(origin, id, payload)]));

    if let Some(records) = json::elements(payload) {
        return match source_of(&records) {
            Some(Origin::Sqs) => Ok(queue(records)),
            _ => unrecognized("an array without a record of eventSource aws:sqs"),
        };
    }
    if json::kind(payload) != "an object" {
        return unrecognized(json::kind(payload));
    }
    let Ok(object) = Object::read(payload.get()) else {
        // A field is given twice, which no service does: the report says so.
        return whole(Origin::Direct, Field::default());
    };
    if is_request(&object) {
        whole(Origin::Direct, Field::default())
    } else if detail(&object).is_some() {
        whole(Origin::EventBridge, object.get("id"))
    } else if let Some(records) = object.get("Records").value().and_then(json::elements) {
        match source_of(&records) {
            Some(Origin::Sqs) => Ok(queue(records)),
            Some(_) => Ok(topic(records)),
            None => unrecognized("Records of another source"),
        }
    } else {
        unrecognized("an object with none of these fields")
    }
}

/// Returns where records are from: the first that says so speaks for all.
/// Where there is none there is nothing to do, as for an empty SQS event.
fn source_of(records: &[&RawValue]) -> Option<Origin> {
    if records.is_empty() {
        return Some(Origin::Sqs);
    }
    records.iter().find_map(|record| {
        let record = Object::read_leniently(record);
        if record.get("eventSource").text().as_deref() == Ok("aws:sqs") {
            Some(Origin::Sqs)
        } else if record.get("EventSource").text().as_deref() == Ok("aws:sns") {
            Some(Origin::Sns)
        } else {
            None
        }
    })
}

/// Reads a request that is in so many envelopes, and may be in more.
fn open(text: &str, envelopes: usize) -> Result<Request, InvalidRequest> {
    let object = Object::read(text)?;
    if is_request(&object) {
        return Request::from_object(&object);
    }
    let inner: Result<Cow<'_, str>, String> = if let Some(detail) = detail(&object) {
        Ok(detail.get().into())
    } else if is_notification(&object) {
        object.get("Message").text()
    } else if let Some(sns) = lone_notification(&object) {
        let notification = Object::read(sns.get());
        let notification = notification.map_err(|problem| format!("Sns: {problem}"))?;
        notification.get("Message").text()
    } else if envelopes > 0 {
        // What is missing is named.
        return Request::from_object(&object);
    } else {
        let unknown = "expected a request (projectId or portalId, with assetIds, allAssets or \
                       allProjects), an EventBridge event (source, detail-type, detail) or an \
                       SNS notification (Type, TopicArn, Message), found none of their fields";
        return Err(unknown.to_owned().into());
    };
    if envelopes == MOST_ENVELOPES {
        let too_many = "expected a request in at most three envelopes, found another one";
        return Err(too_many.to_owned().into());
    }
    open(
        &inner.map_err(|problem| format!("Message: {problem}"))?,
        envelopes + 1,
    )
}

/// Returns the notification in an SNS event of one record, which is what
/// Lambda's own dead-letter queue keeps of a failed event.
fn lone_notification<'a>(event: &Object<'a>) -> Option<&'a RawValue> {
    match json::elements(event.get("Records").value()?)?.as_slice() {
        [record] => Object::read_leniently(record).get("Sns").value(),
        _ => None,
    }
}

fn is_request(object: &Object<'_>) -> bool {
    object.has_any(&[
        "projectId",
        "assetIds",
        "portalId",
        "allAssets",
        "allProjects",
    ])
}

/// Returns the detail of an EventBridge event.
fn detail<'a>(object: &Object<'a>) -> Option<&'a RawValue> {
    let is_event = object.get("detail-type").is_present() && object.get("source").is_present();
    object.get("detail").value().filter(|_| is_event)
}

/// Returns whether the object is an SNS notification and nothing else.
fn is_notification(object: &Object<'_>) -> bool {
    object.get("TopicArn").is_present()
        && object.get("Message").is_present()
        && !is_request(object)
        && detail(object).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const PROJECT: &str = "1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0";
    const ASSET: &str = "a1b2c3d4-5678-4890-abcd-ef1234567890";

    fn raw(payload: &Value) -> Box<RawValue> {
        RawValue::from_string(payload.to_string()).expect("JSON")
    }

    fn request() -> Value {
        json!({"projectId": PROJECT, "assetIds": [ASSET]})
    }

    fn record(body: &Value) -> Value {
        json!({"messageId": "m", "eventSource": "aws:sqs", "body": body})
    }

    /// A message's origin, id, and number of assets or problem.
    type Read = (Origin, Option<String>, Result<usize, String>);

    /// Whether the response is a partial batch, and what the messages say.
    fn reading(payload: &Value) -> (bool, Vec<Read>) {
        let payload = raw(payload);
        let event = read(&payload).expect("an event");
        let messages = event
            .messages()
            .iter()
            .map(|message| {
                (
                    message.origin,
                    message.id.as_ref().map(ToString::to_string),
                    message
                        .request()
                        .map(|request| request.named().expect("assets").valid.len())
                        .map_err(|error| error.to_string()),
                )
            })
            .collect();
        (matches!(event, Event::Queue(_)), messages)
    }

    #[test]
    fn each_event_kind_is_recognised_by_its_shape() {
        let body = request().to_string();
        let sqs = |id: &str| (Origin::Sqs, Some(id.to_owned()), Ok(1));
        let record = |id: &str| json!({"messageId": id, "eventSource": "aws:sqs", "body": body});
        for (kind, payload, expected) in [
            (
                "event source mapping",
                json!({"Records": [record("a"), record("b")]}),
                (true, vec![sqs("a"), sqs("b")]),
            ),
            (
                "pipes",
                json!([record("a"), record("b")]),
                (true, vec![sqs("a"), sqs("b")]),
            ),
            ("no records", json!({"Records": []}), (true, vec![])),
            (
                "a request with Records of its own",
                {
                    let mut request = request();
                    request["Records"] = json!([record("a")]);
                    request
                },
                (false, vec![(Origin::Direct, None, Ok(1))]),
            ),
            ("pipes without records", json!([]), (true, vec![])),
            (
                "rule",
                json!({"detail-type": "t", "source": "s", "id": "e", "detail": request()}),
                (
                    false,
                    vec![(Origin::EventBridge, Some("e".to_owned()), Ok(1))],
                ),
            ),
            (
                "topic",
                json!({"Records": [{"EventSource": "aws:sns", "Sns": {
                    "MessageId": "n", "Message": body,
                }}]}),
                (false, vec![(Origin::Sns, Some("n".to_owned()), Ok(1))]),
            ),
            (
                "direct",
                request(),
                (false, vec![(Origin::Direct, None, Ok(1))]),
            ),
            (
                "direct, one field only",
                json!({"assetIds": [ASSET]}),
                (
                    false,
                    vec![(Origin::Direct, None, Err("projectId: missing".to_owned()))],
                ),
            ),
            (
                "direct, with the fields of a dead letter",
                json!({"projectId": PROJECT, "assetIds": [ASSET], "source": {}, "errors": []}),
                (false, vec![(Origin::Direct, None, Ok(1))]),
            ),
        ] {
            assert_eq!(reading(&payload), expected, "{kind}");
        }
    }

    #[test]
    fn a_payload_that_is_no_event_is_refused_with_what_was_expected() {
        for (payload, found) in [
            (json!(null), "null"),
            (json!("x"), "a string"),
            (json!(1), "a number"),
            (json!({}), "an object with none of these fields"),
            (
                json!({"detail-type": "t", "source": "s"}),
                "an object with none of these fields",
            ),
            (
                json!({"detail": {}, "source": "s"}),
                "an object with none of these fields",
            ),
            (
                json!({"Records": {}}),
                "an object with none of these fields",
            ),
            (
                json!({"Records": [{"eventSource": "aws:s3"}]}),
                "Records of another source",
            ),
            (
                json!([{"eventSource": "aws:kinesis"}]),
                "an array without a record of eventSource aws:sqs",
            ),
            (
                json!([{"EventSource": "aws:sns"}]),
                "an array without a record of eventSource aws:sqs",
            ),
        ] {
            let error = read(&raw(&payload)).expect_err("no event").to_string();
            assert_eq!(
                error,
                format!(
                    "unrecognized event: expected an SQS event (Records with eventSource \
                     aws:sqs), an array of such records from EventBridge Pipes, an EventBridge \
                     event (detail-type, source, detail), an SNS event (Records with EventSource \
                     aws:sns) or a request (projectId or portalId, with assetIds, allAssets or \
                     allProjects), found {found}"
                )
            );
        }
    }

    #[test]
    fn a_body_may_be_an_envelope_of_three_kinds() {
        let notification = json!({
            "Type": "Notification", "MessageId": "n", "TopicArn": "t",
            "Message": request().to_string(),
        });
        for (envelope, body) in [
            ("none", request()),
            (
                "EventBridge",
                json!({"detail-type": "t", "source": "s", "detail": request()}),
            ),
            ("SNS", notification.clone()),
            (
                "what Lambda keeps of an SNS event",
                json!({"Records": [{"EventSource": "aws:sns", "Sns": notification}]}),
            ),
        ] {
            let (_, messages) = reading(&json!({"Records": [record(&json!(body.to_string()))]}));
            assert_eq!(
                messages,
                [(Origin::Sqs, Some("m".to_owned()), Ok(1))],
                "{envelope}"
            );
        }
    }

    #[test]
    fn one_unreadable_record_never_affects_its_neighbours() {
        let none_of_them = "expected a request (projectId or portalId, with assetIds, allAssets or \
                            allProjects), an EventBridge event (source, detail-type, detail) or an \
                            SNS notification (Type, TopicArn, Message), found none of their fields";
        for (bad, problem) in [
            (record(&json!(null)), "body: expected a string, found null"),
            (
                record(&json!("")),
                "body: expected a request, found an empty string",
            ),
            (record(&json!(7)), "body: expected a string, found a number"),
            (
                record(&request()),
                "body: expected a string, found an object",
            ),
            (
                json!({"messageId": "m", "eventSource": "aws:sqs"}),
                "body: missing",
            ),
            (
                record(&json!("{} {}")),
                "expected a JSON object: trailing characters at line 1 column 4",
            ),
            (
                record(&json!("\u{feff}{}")),
                "expected a JSON object, found a byte-order mark before it",
            ),
            (record(&json!("{\"a\":1}")), none_of_them),
            (
                record(&json!("{\"detail-type\":1,\"source\":2}")),
                none_of_them,
            ),
            (
                record(&json!(
                    "{\"detail-type\":\"t\",\"source\":\"s\",\"detail\":{},\"detail\":{}}"
                )),
                "expected a JSON object: duplicate field `detail`",
            ),
            (
                record(&json!("{\"TopicArn\":\"t\",\"Message\":{}}")),
                "Message: expected a string, found an object",
            ),
            (
                record(&json!("{\"TopicArn\":\"t\",\"Message\":\"hello\"}")),
                "expected a JSON object: expected value at line 1 column 1",
            ),
        ] {
            let good = record(&json!(request().to_string()));
            let payload = json!({"Records": [good, bad, good]});
            let (_, messages) = reading(&payload);
            let id = Some("m".to_owned());
            assert_eq!(
                messages,
                [
                    (Origin::Sqs, id.clone(), Ok(1)),
                    (Origin::Sqs, id.clone(), Err(problem.to_owned())),
                    (Origin::Sqs, id, Ok(1)),
                ]
            );
        }
    }

    #[test]
    fn what_is_dead_lettered_as_it_came_can_be_read_again() {
        let usual = json!({"MessageId": "n", "TopicArn": "t", "Message": request().to_string()});
        let usual = usual.to_string();
        let with = |field: &str| usual.replacen('{', &format!("{{{field},"), 1);
        let in_an_event =
            |sns: &str| format!(r#"{{"Records":[{{"EventSource":"aws:sns","Sns":{sns}}}]}}"#);
        for (notification, is_kept_alone) in [
            (usual.clone(), true),
            (usual.replace("TopicArn", "Topic"), false),
            (with(r#""projectId":1"#), false),
            (with(r#""assetIds":[]"#), false),
            (with(r#""detail-type":"t","source":"s","detail":{}"#), false),
            (with(r#""detail":{}"#), true),
            (with(r#""Subject":"s","Subject":"s""#), true),
        ] {
            let payload = RawValue::from_string(in_an_event(&notification)).expect("JSON");
            let event = read(&payload).expect("an event");
            let kept = event.messages()[0].as_it_came();
            let expected = if is_kept_alone {
                notification
            } else {
                in_an_event(&notification)
            };
            assert_eq!(kept, expected);
            let (_, messages) = reading(&json!({"Records": [record(&json!(kept))]}));
            assert_eq!(messages[0].2, Ok(1), "{kept}");
        }
    }

    #[test]
    fn what_gives_a_field_twice_is_a_message_that_says_so() {
        for (payload, id, problem) in [
            (
                r#"{"projectId":1,"projectId":2}"#,
                None,
                "expected a JSON object: duplicate field `projectId`",
            ),
            (
                r#"[{"eventSource":"aws:sqs","messageId":"m","body":"","body":""}]"#,
                Some("m"),
                "record: expected a JSON object: duplicate field `body`",
            ),
            (
                r#"{"Records":[{"EventSource":"aws:sns","Sns":{"Message":"","Message":""}}]}"#,
                None,
                "Sns: expected a JSON object: duplicate field `Message`",
            ),
        ] {
            let payload: &RawValue = serde_json::from_str(payload).expect("JSON");
            let event = read(payload).expect("an event");
            let [message] = event.messages() else {
                unreachable!("one message");
            };
            let error = message.request().expect_err("not a request");
            assert_eq!(message.id.as_deref(), id, "{payload}");
            assert_eq!(error.to_string(), problem);
        }
    }

    #[test]
    fn a_record_without_body_is_kept_as_the_whole_record() {
        let payload = raw(&json!({"Records": [
            {"eventSource": "aws:sqs", "messageId": "m"}, 7, {"messageId": ""}
        ]}));
        let event = read(&payload).expect("an event");
        let kept: Vec<&str> = event.messages().iter().map(Message::as_it_came).collect();
        assert_eq!(
            kept,
            [
                r#"{"eventSource":"aws:sqs","messageId":"m"}"#,
                "7",
                r#"{"messageId":""}"#
            ]
        );
        assert_eq!(event.messages()[2].id, None, "an empty id names nothing");
    }

    #[test]
    fn only_records_of_a_fifo_queue_have_a_group() {
        for (arn, attributes, expected) in [
            (
                json!("arn:q.fifo"),
                json!({"MessageGroupId": "g"}),
                Some("g"),
            ),
            (json!("arn:q"), json!({"MessageGroupId": "g"}), None),
            (json!("arn:q.fifo"), json!({}), None),
            (json!("arn:q.fifo"), json!(null), None),
            (
                json!(null),
                json!({"MessageGroupId": "g", "SequenceNumber": "1"}),
                Some("g"),
            ),
            (json!(null), json!({"MessageGroupId": "g"}), None),
        ] {
            let payload = raw(&json!([{
                "eventSource": "aws:sqs", "eventSourceARN": arn, "attributes": attributes,
            }]));
            let event = read(&payload).expect("an event");
            assert_eq!(
                event.messages()[0].fifo_group.as_deref(),
                expected,
                "{payload}"
            );
        }
    }

    #[test]
    fn a_record_tells_how_often_it_was_delivered_or_nothing() {
        for (attributes, expected) in [
            (json!({"ApproximateReceiveCount": "1"}), 1),
            (json!({"ApproximateReceiveCount": "12"}), 12),
            (json!({"ApproximateReceiveCount": 2}), 0),
            (json!({"ApproximateReceiveCount": "many"}), 0),
            (json!({"ApproximateReceiveCount": "-1"}), 0),
            (json!({"ApproximateReceiveCount": "4294967296"}), 0),
            (json!({"ApproximateReceiveCount": null}), 0),
            (json!({}), 0),
            (json!(null), 0),
        ] {
            let payload = raw(&json!([{"eventSource": "aws:sqs", "attributes": attributes}]));
            let event = read(&payload).expect("an event");
            assert_eq!(event.messages()[0].receives, expected, "{payload}");
        }
        let payload = raw(&request());
        let event = read(&payload).expect("an event");
        assert_eq!(event.messages()[0].receives, 0, "no queue, no count");
    }

    #[test]
    fn a_malformed_attribute_of_the_sender_is_left_out_alone() {
        let payload = raw(&json!([{"eventSource": "aws:sqs", "messageAttributes": {
            "bad": {"stringValue": "x"},
            "label": {"dataType": "String.label", "stringValue": "x"},
            "number": {"dataType": "Number", "stringValue": "7"},
            "wrong": 7,
        }}]));
        let event = read(&payload).expect("an event");
        let attributes = event.messages()[0].sender_attributes();
        let kept: Vec<String> = attributes
            .iter()
            .map(|attribute| format!("{}: {}", attribute.name, attribute.data_type))
            .collect();
        assert_eq!(kept, ["label: String.label", "number: Number"]);
    }
}
