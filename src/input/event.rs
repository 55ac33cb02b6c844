//! What a payload is: one of the known events, and the messages in it.
//!
//! What AWS writes around a request is read leniently, because AWS may add to
//! it at any time. Each record is read by itself.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use thiserror::Error;

use super::json::{self, Field, Object};
use super::request::{InvalidRequest, Request};

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
    /// The FIFO message group, for a record of a FIFO queue only: a standard
    /// queue may have groups too, but promises no order.
    pub fifo_group: Option<Cow<'a, str>>,
    /// How often its queue has delivered it, this time included
    /// (`ApproximateReceiveCount`); 0 if unknown.
    pub receives: u32,
    /// The text to read the request from, or why there is none.
    text: Result<Cow<'a, str>, String>,
    raw: &'a RawValue,
}

impl<'a> Message<'a> {
    fn new(origin: Origin, id: Field<'a>, raw: &'a RawValue) -> Self {
        Self {
            origin,
            id: id.text().ok().filter(|id| !id.is_empty()),
            fifo_group: None,
            receives: 0,
            text: Ok(raw.get().into()),
            raw,
        }
    }

    /// Reads the request out of the message.
    pub fn request(&self) -> Result<Request, InvalidRequest> {
        match &self.text {
            Ok(text) => open(text),
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

    fn from_sqs(raw: &'a RawValue) -> Self {
        let record = json::object::<SqsRecord<'_>>(raw.get());
        let text = match &record {
            Ok(record) => record.body(),
            Err(problem) => Err(format!("record: {problem}")),
        };
        let record = record.unwrap_or_else(|_| SqsRecord {
            message_id: AnyRecord::read(raw).message_id,
            ..SqsRecord::default()
        });
        let attributes: Attributes<'_> = (record.attributes.value())
            .and_then(|attributes| json::object(attributes.get()).ok())
            .unwrap_or_default();
        let is_fifo = match record.queue_arn.text() {
            Ok(arn) => arn.ends_with(".fifo"),
            Err(_) => attributes.sequence_number.is_present(),
        };
        let group = attributes.message_group_id.text().ok();
        Self {
            fifo_group: group.filter(|_| is_fifo),
            receives: attributes.approximate_receive_count.parse().unwrap_or(0),
            text,
            ..Self::new(Origin::Sqs, record.message_id, raw)
        }
    }

    fn from_sns(raw: &'a RawValue) -> Self {
        let sns = AnyRecord::read(raw).sns.value();
        let notification: Object<'_> = sns
            .and_then(|sns| json::object(sns.get()).ok())
            .unwrap_or_default();
        let text = match sns {
            Some(sns) if notification.is_notification() => sns.get().into(),
            // Without its usual fields it is recognised in an event only.
            _ => format!(r#"{{"Records":[{raw}]}}"#).into(),
        };
        Self {
            text: Ok(text),
            ..Self::new(Origin::Sns, notification.message_id, raw)
        }
    }
}

/// A record of any service, by the fields that say what it is.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct AnyRecord<'a> {
    message_id: Field<'a>,
    event_source: Field<'a>,
    #[serde(rename = "EventSource")]
    sns_event_source: Field<'a>,
    #[serde(rename = "Sns")]
    sns: Field<'a>,
}

impl<'a> AnyRecord<'a> {
    /// Reads a record; one that cannot be read has no fields.
    fn read(record: &'a RawValue) -> Self {
        json::object(record.get()).unwrap_or_default()
    }
}

/// A record of an SQS queue, from Lambda or EventBridge Pipes.
///
/// It borrows and takes what it needs, where `SqsMessage` of `aws_lambda_events`
/// copies every field and refuses the record for a wrong one that nobody needs.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", bound(deserialize = "'de: 'a"))]
struct SqsRecord<'a> {
    message_id: Field<'a>,
    body: Field<'a>,
    attributes: Field<'a>,
    #[serde(rename = "eventSourceARN")]
    queue_arn: Field<'a>,
}

impl<'a> SqsRecord<'a> {
    fn body(&self) -> Result<Cow<'a, str>, String> {
        match self.body.text() {
            Ok(body) if body.is_empty() => {
                Err("body: expected a request, found an empty string".to_owned())
            }
            body => body.map_err(|problem| format!("body: {problem}")),
        }
    }
}

/// The system attributes of an SQS message.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", bound(deserialize = "'de: 'a"))]
struct Attributes<'a> {
    approximate_receive_count: Field<'a>,
    message_group_id: Field<'a>,
    sequence_number: Field<'a>,
}

/// A payload that is none of the known events.
#[derive(Debug, Error)]
#[error(
    "unrecognized event: expected an SQS event (Records with eventSource aws:sqs), an array of \
     such records from EventBridge Pipes, an EventBridge event (detail-type, source, detail), an \
     SNS event (Records with EventSource aws:sns) or a request (projectId, assetIds), found \
     {found}"
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
    let Ok(object) = json::object::<Object<'_>>(payload.get()) else {
        // A field is given twice, which no service does: the report says so.
        return whole(Origin::Direct, Field::default());
    };
    if object.is_request() {
        whole(Origin::Direct, Field::default())
    } else if object.detail().is_some() {
        whole(Origin::EventBridge, object.id)
    } else if let Some(records) = object.records.value().and_then(json::elements) {
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
        let record = AnyRecord::read(record);
        if record.event_source.text().as_deref() == Ok("aws:sqs") {
            Some(Origin::Sqs)
        } else if record.sns_event_source.text().as_deref() == Ok("aws:sns") {
            Some(Origin::Sns)
        } else {
            None
        }
    })
}

/// Reads a request, which may be in an envelope.
fn open(text: &str) -> Result<Request, InvalidRequest> {
    let object: Object<'_> = json::object(text)?;
    if object.is_request() {
        return Request::from_object(&object);
    }
    if let Some(detail) = object.detail() {
        return Request::parse(detail.get());
    }
    let message = if object.is_notification() {
        object.message
    } else if let Some(sns) = lone_notification(&object) {
        let notification = json::object::<Object<'_>>(sns.get());
        let notification = notification.map_err(|problem| format!("Sns: {problem}"))?;
        notification.message
    } else {
        let unknown = "expected a request (projectId, assetIds), an EventBridge event (source, \
                       detail-type, detail) or an SNS notification (Type, TopicArn, Message), \
                       found none of their fields";
        return Err(unknown.to_owned().into());
    };
    let message = (message.text()).map_err(|problem| format!("Message: {problem}"))?;
    Request::parse(&message)
}

/// Returns the notification in an SNS event of one record, which is what
/// Lambda's own dead-letter queue keeps of a failed event.
fn lone_notification<'a>(event: &Object<'a>) -> Option<&'a RawValue> {
    match json::elements(event.records.value()?)?.as_slice() {
        [record] => AnyRecord::read(record).sns.value(),
        _ => None,
    }
}

impl<'a> Object<'a> {
    fn is_request(&self) -> bool {
        self.project_id.is_present() || self.asset_ids.is_present()
    }

    /// Returns the detail of an EventBridge event.
    fn detail(&self) -> Option<&'a RawValue> {
        let is_event = self.detail_type.is_present() && self.source.is_present();
        self.detail.value().filter(|_| is_event)
    }

    /// Returns whether the object is an SNS notification and nothing else.
    fn is_notification(&self) -> bool {
        self.topic_arn.is_present()
            && self.message.is_present()
            && !self.is_request()
            && self.detail().is_none()
    }
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
                     aws:sns) or a request (projectId, assetIds), found {found}"
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
        let none_of_them = "expected a request (projectId, assetIds), an EventBridge event \
                            (source, detail-type, detail) or an SNS notification (Type, TopicArn, \
                            Message), found none of their fields";
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
                "expected a JSON object: duplicate field `detail` at line 1 column 52",
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
                "expected a JSON object: duplicate field `projectId` at line 1 column 26",
            ),
            (
                r#"[{"eventSource":"aws:sqs","messageId":"m","body":"","body":""}]"#,
                Some("m"),
                "record: expected a JSON object: duplicate field `body` at line 1 column 57",
            ),
            (
                r#"{"Records":[{"EventSource":"aws:sns","Sns":{"Message":"","Message":""}}]}"#,
                None,
                "Sns: expected a JSON object: duplicate field `Message` at line 1 column 23",
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
}
