//! What a payload is: one of the known events, and the messages in it.
//!
//! Owns the events' and envelopes' forms. The outside of an event is read
//! leniently, for AWS may add to it at any time; the text that somebody wrote
//! is read strictly, each record by itself. It must not judge a request.

use std::borrow::Cow;

use serde_json::value::RawValue;
use thiserror::Error;

use crate::request::{DisassociateRequest, InvalidRequest, Problem, text_of};
use crate::strict_json::{Kind, Object, Text};

/// A payload that was recognised, as its messages and the answer it wants.
#[derive(Debug)]
pub enum Event<'a> {
    /// Records of an SQS queue, from an event source mapping or from
    /// EventBridge Pipes: answered with a partial batch response.
    Queue(Vec<Message<'a>>),
    /// Anything else: answered with a report for each message.
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
    /// The caller, who is told.
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
    /// (`ApproximateReceiveCount`); 0 where nothing tells.
    pub receives: u32,
    content: Content<'a>,
    raw: Cow<'a, str>,
}

#[derive(Debug)]
enum Content<'a> {
    /// A request, or an envelope with a request in it.
    Enveloped,
    /// A request alone.
    Request(Cow<'a, str>),
    /// Nothing to read.
    Missing(&'static str),
}

impl<'a> Message<'a> {
    /// Reads the request out of the message.
    pub fn request(&self) -> Result<DisassociateRequest, InvalidRequest> {
        match &self.content {
            Content::Enveloped => open(&self.raw),
            Content::Request(text) => DisassociateRequest::parse(text),
            Content::Missing(what) => Err(InvalidRequest::unreadable(Problem::NoBody(what))),
        }
    }

    /// Returns the message as it came, in a form that [`Message::request`]
    /// reads again once it is the body of an SQS message.
    pub fn as_it_came(&self) -> &str {
        &self.raw
    }

    fn record(record: &'a RawValue) -> Self {
        let unreadable = |what| Self {
            origin: Origin::Sqs,
            id: None,
            fifo_group: None,
            receives: 0,
            content: Content::Missing(what),
            raw: Cow::Borrowed(record.get()),
        };
        let Some(fields) = outside(record) else {
            return unreadable("a record that is no object");
        };
        let mut message = match fields.get("body").map(|body| (Kind::of(body), body)) {
            None => unreadable("no body"),
            Some((Kind::Null, _)) => unreadable("null"),
            Some((Kind::String, body)) => match text(body) {
                Some(body) if body.is_empty() => unreadable("an empty string"),
                Some(body) => Self {
                    content: Content::Enveloped,
                    raw: body,
                    ..unreadable("")
                },
                None => unreadable("a string that is not Unicode"),
            },
            Some(_) => unreadable("another JSON value"),
        };
        message.id = text_field(&fields, "messageId").filter(|id| !id.is_empty());
        let attributes = fields.get("attributes").and_then(outside);
        let attribute = |name| {
            attributes
                .as_ref()
                .and_then(|fields| text_field(fields, name))
        };
        let is_fifo = text_field(&fields, "eventSourceARN").map_or_else(
            || attribute("SequenceNumber").is_some(),
            |arn| arn.ends_with(".fifo"),
        );
        message.fifo_group = is_fifo.then(|| attribute("MessageGroupId")).flatten();
        message.receives = attribute("ApproximateReceiveCount")
            .and_then(|count| count.parse().ok())
            .unwrap_or_default();
        message
    }

    fn notification(record: &'a RawValue) -> Self {
        let notification = outside(record).and_then(|record| record.get("Sns"));
        let fields = notification.and_then(outside);
        let field = |name| fields.as_ref().and_then(|sns| text_field(sns, name));
        Self {
            origin: Origin::Sns,
            id: field("MessageId"),
            fifo_group: None,
            receives: 0,
            content: match field("Message") {
                Some(text) => Content::Request(text),
                None => Content::Missing("no Sns.Message"),
            },
            raw: match notification {
                Some(sns) if fields.as_ref().is_some_and(is_read_alone) => sns.get().into(),
                // Without its usual fields it is read in the event's form only.
                Some(sns) => {
                    format!(r#"{{"Records":[{{"EventSource":"aws:sns","Sns":{sns}}}]}}"#).into()
                }
                None => record.get().into(),
            },
        }
    }
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
    match Kind::of(payload) {
        Kind::Object => {}
        Kind::Array => {
            let records = elements(payload).unwrap_or_default();
            return match source_of(&records) {
                Some(Origin::Sqs) => Ok(queue(&records)),
                None if records.is_empty() => Ok(Event::Queue(Vec::new())),
                _ => Err(UnrecognizedEvent {
                    found: "an array without a record of eventSource aws:sqs",
                }),
            };
        }
        _ => {
            return Err(UnrecognizedEvent {
                found: "neither an object nor an array",
            });
        }
    }
    let fields = outside(payload).ok_or(UnrecognizedEvent {
        found: "an object that cannot be read",
    })?;

    if let Some(records) = fields.get("Records").and_then(elements)
        && !(records.is_empty() && has_request(&fields))
    {
        return match source_of(&records) {
            Some(Origin::Sqs) => Ok(queue(&records)),
            Some(_) => Ok(Event::Reported(
                records.into_iter().map(Message::notification).collect(),
            )),
            None if records.is_empty() => Ok(Event::Queue(Vec::new())),
            None => Err(UnrecognizedEvent {
                found: "Records of another source",
            }),
        };
    }
    let (origin, id, request) = if is_request(&fields) {
        (Origin::Direct, None, payload)
    } else if let Some(detail) = detail(&fields) {
        (Origin::EventBridge, text_field(&fields, "id"), detail)
    } else {
        return Err(UnrecognizedEvent {
            found: "an object with none of these fields",
        });
    };
    Ok(Event::Reported(vec![Message {
        origin,
        id,
        fifo_group: None,
        receives: 0,
        content: Content::Request(Cow::Borrowed(request.get())),
        raw: Cow::Borrowed(payload.get()),
    }]))
}

fn queue<'a>(records: &[&'a RawValue]) -> Event<'a> {
    Event::Queue(
        records
            .iter()
            .map(|record| Message::record(record))
            .collect(),
    )
}

/// Opens the envelope around a request, if there is one.
fn open(body: &str) -> Result<DisassociateRequest, InvalidRequest> {
    let object = Object::parse(body)?;
    if is_request(&object) {
        return DisassociateRequest::from_object(&object);
    }
    if !object.repeated().is_empty() {
        return Err(InvalidRequest {
            project: None,
            problems: object
                .repeated()
                .iter()
                .map(|key| Problem::Repeated(format!("{key:?}")))
                .collect(),
        });
    }
    if let Some(detail) = detail(&object) {
        DisassociateRequest::parse(detail.get())
    } else if object.has("TopicArn")
        && let Some(message) = object.get("Message")
    {
        let mut problems = Vec::new();
        match text_of(message, "Message", &mut problems) {
            Some(message) => DisassociateRequest::parse(&message),
            None => Err(InvalidRequest {
                project: None,
                problems,
            }),
        }
    } else if let Some(notification) = lone_notification(&object) {
        // What Lambda's own dead-letter queue keeps of a failed SNS event.
        notification.request()
    } else {
        Err(InvalidRequest::unreadable(Problem::UnknownForm))
    }
}

fn is_request(fields: &Object<'_>) -> bool {
    fields.has("projectId") || fields.has("assetIds")
}

fn detail<'a>(fields: &Object<'a>) -> Option<&'a RawValue> {
    (fields.has("detail-type") && fields.has("source"))
        .then(|| fields.get("detail"))
        .flatten()
}

/// Tells whether an object is a request, or an EventBridge event around one.
fn has_request(fields: &Object<'_>) -> bool {
    is_request(fields) || detail(fields).is_some()
}

/// Tells whether [`open`] takes an SNS notification for one when it is a body.
fn is_read_alone(sns: &Object<'_>) -> bool {
    sns.has("TopicArn") && sns.repeated().is_empty() && !has_request(sns)
}

fn lone_notification<'a>(fields: &Object<'a>) -> Option<Message<'a>> {
    let records = fields.get("Records").and_then(elements)?;
    match (records.as_slice(), source_of(&records)) {
        ([record], Some(Origin::Sns)) => Some(Message::notification(record)),
        _ => None,
    }
}

/// Finds out where records are from: the first that says so speaks for all.
fn source_of(records: &[&RawValue]) -> Option<Origin> {
    records.iter().find_map(|record| {
        let fields = outside(record)?;
        let is = |key, name| text_field(&fields, key).is_some_and(|value| value == name);
        if is("eventSource", "aws:sqs") {
            Some(Origin::Sqs)
        } else if is("EventSource", "aws:sns") {
            Some(Origin::Sns)
        } else {
            None
        }
    })
}

fn outside(value: &RawValue) -> Option<Object<'_>> {
    serde_json::from_str(value.get()).ok()
}

fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

fn text(value: &RawValue) -> Option<Cow<'_, str>> {
    let Text(text) = serde_json::from_str(value.get()).ok()?;
    Some(text)
}

fn text_field<'a>(fields: &Object<'a>, key: &str) -> Option<Cow<'a, str>> {
    fields.get(key).and_then(text)
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

    /// Whether the answer is a partial batch, and what the messages say.
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
                        .map(|request| request.assets.len())
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
                "a request that has no records either",
                {
                    let mut request = request();
                    request["Records"] = json!([]);
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
            (json!(null), "neither an object nor an array"),
            (json!("x"), "neither an object nor an array"),
            (json!(1), "neither an object nor an array"),
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
        let no_body = "body: expected a string that is not empty, found";
        let none_of_them = "expected a request (projectId, assetIds), an EventBridge event \
                            (source, detail-type, detail) or an SNS notification (Type, TopicArn, \
                            Message), found none of their fields";
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for (bad, problem) in [
            (record(&json!(null)), format!("{no_body} null")),
            (record(&json!("")), format!("{no_body} an empty string")),
            (record(&json!(7)), format!("{no_body} another JSON value")),
            (record(&request()), format!("{no_body} another JSON value")),
            (
                json!({"messageId": "m", "eventSource": "aws:sqs"}),
                format!("{no_body} no body"),
            ),
            (
                record(&json!("{} {}")),
                "expected a JSON object: trailing characters at line 1 column 4".to_owned(),
            ),
            (
                record(&json!("\u{feff}{}")),
                "expected a JSON object, found a byte-order mark before it".to_owned(),
            ),
            (
                record(&json!(deep)),
                "expected a JSON object at most 128 levels deep".to_owned(),
            ),
            (record(&json!("{\"a\":1}")), none_of_them.to_owned()),
            (
                record(&json!("{\"detail-type\":1,\"source\":2}")),
                none_of_them.to_owned(),
            ),
            (
                record(&json!(
                    "{\"detail-type\":\"t\",\"source\":\"s\",\"detail\":{},\"detail\":{}}"
                )),
                "\"detail\": given more than once".to_owned(),
            ),
            (
                record(&json!("{\"TopicArn\":\"t\",\"Message\":{}}")),
                "Message: expected a string, found an object".to_owned(),
            ),
            (
                record(&json!("{\"TopicArn\":\"t\",\"Message\":\"hello\"}")),
                "expected a JSON object: expected value at line 1 column 1".to_owned(),
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
                    (Origin::Sqs, id.clone(), Err(problem)),
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
            (with(r#""Subject":"s","Subject":"s""#), false),
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
