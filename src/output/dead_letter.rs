//! The dead letter: a message that names only the assets that were not
//! disassociated, and is itself a request.
//!
//! Owns its form (contract, section 6). It must not decide who gets
//! one, and does not send it.

use std::borrow::Cow;
use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::Serialize;
use serde_json::{Value, json};

use super::{group, whole_project};
use crate::aws::sqs::{ATTRIBUTES, Attribute, MESSAGE_LIMIT, OutgoingMessage, escape_refused};
use crate::input::id::ProjectId;
use crate::input::received::Received;
use crate::input::request::Scope;
use crate::outcome::Failure;
use crate::token::Derivation;

/// Longest `ErrorMessage` attribute, in bytes, as Lambda's own dead letters
/// have it ("the first 1 KB of the error message").
const ERROR_MESSAGE_LIMIT: usize = 1024;

/// Longest asset id that an entry of `errors` repeats, in bytes. `assetIds`
/// always has it whole; a valid one has 36.
const REPEATED_ID_LIMIT: usize = 128;

/// Bytes between an asset and the one before it, in both lists.
const COMMAS: usize = 2;

/// Where a dead letter is from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// the message it stands for
    pub received: &'a Received<'a>,
    /// the Lambda request id of the invocation that wrote it
    pub request_id: &'a str,
    /// when it was written
    pub now: SystemTime,
}

impl Source<'_> {
    /// Writes a dead letter for as many of the first `assets` as keep it within
    /// what SQS stores, and returns how many these are; `None` where there are no
    /// assets. Takes no more of them than it needs.
    pub fn of_assets<'a>(
        &self,
        project: ProjectId,
        assets: impl Iterator<Item = (Cow<'a, str>, &'a Failure)>,
    ) -> Option<(OutgoingMessage, usize)> {
        let mut assets = assets.peekable();
        let first_failure = assets.peek()?.1;
        let write = |ids: &[Cow<'_, str>], errors: &[Value]| {
            let scope = json!({"projectId": project.to_string(), "assetIds": ids});
            let content = ids.iter().map(|id| &**id);
            self.outgoing(self.body(scope, errors), first_failure, content)
        };
        let (mut ids, mut errors) = (Vec::new(), Vec::new());
        let mut size = write(&[], &[]).size() - COMMAS;
        for (id, failure) in assets {
            let repeated = &id[..id.floor_char_boundary(REPEATED_ID_LIMIT)];
            let error = json!({
                "assetId": repeated, "code": failure.code(), "message": failure.message(),
            });
            size += COMMAS + as_json(&id).len() + as_json(&error).len();
            // An asset alone is stored, or refused by the queue.
            if size > MESSAGE_LIMIT && !ids.is_empty() {
                break;
            }
            ids.push(id);
            errors.push(error);
        }
        Some((write(&ids, &errors), ids.len()))
    }

    /// Writes the dead letter for a message as a whole: for a whole project or
    /// portal its request, for anything else the message as it came, with as many
    /// of the sender's own attributes as SQS allows beside ours.
    pub fn of_message(
        &self,
        failure: &Failure,
        sender_attributes: impl IntoIterator<Item = Attribute>,
    ) -> OutgoingMessage {
        let request = self.received.request.as_ref().ok();
        let scope = match request.map(|request| &request.scope) {
            Some(Scope::Project(project)) => Some(whole_project(*project)),
            Some(Scope::Portal(portal)) => {
                Some(json!({"portalId": portal.to_string(), "allProjects": true}))
            }
            Some(Scope::Assets(_)) | None => None,
        };
        match scope {
            Some(scope) => {
                let error = json!({"code": failure.code(), "message": failure.message()});
                self.outgoing(self.body(scope, &[error]), failure, [])
            }
            None => {
                let body = self.received.message.as_it_came();
                let mut message = self.outgoing(escape_refused(body.to_owned()), failure, [body]);
                for attribute in sender_attributes {
                    let is_named = |one: &Attribute| one.name == attribute.name;
                    if attribute.is_valid() && !message.attributes.iter().any(is_named) {
                        message.attributes.push(attribute);
                    }
                }
                message.attributes.truncate(ATTRIBUTES);
                drop_excess_attributes(&mut message);
                message
            }
        }
    }

    /// Returns the body of a dead letter with the fields of a request.
    fn body(&self, mut request: Value, errors: &[Value]) -> String {
        let now = DateTime::from_secs(DateTime::from(self.now).secs());
        let message = self.received.message;
        let mut source = json!({
            "eventSource": message.origin.as_str(), "requestId": self.request_id,
        });
        if let Some(id) = &message.id {
            source["messageId"] = json!(id);
        }
        request["errors"] = json!(errors);
        request["source"] = source;
        request["deadLetteredAt"] = json!(now.fmt(Format::DateTime).unwrap_or_default());
        as_json(&request)
    }

    /// Makes an outgoing message. A FIFO queue takes those of one message with the
    /// same `content` for one, at each of its deliveries.
    fn outgoing<'a>(
        &self,
        body: String,
        failure: &Failure,
        content: impl IntoIterator<Item = &'a str>,
    ) -> OutgoingMessage {
        let mut deduplication = Derivation::new("dead letter");
        deduplication.text(&self.received.id);
        (content.into_iter()).for_each(|text| deduplication.text(text));
        let attribute = |name: &'static str, value: &str| {
            let mut value = escape_refused(value.to_owned());
            value.truncate(value.floor_char_boundary(ERROR_MESSAGE_LIMIT));
            (!value.is_empty()).then(|| Attribute::text(name, value))
        };
        let message_id = self.received.message.id.as_deref();
        let attributes = [
            attribute("RequestID", self.request_id),
            attribute("ErrorCode", failure.code()),
            attribute("ErrorMessage", failure.message()),
            attribute("ProjectId", &self.received.project().unwrap_or_default()),
            attribute("SourceMessageId", message_id.unwrap_or_default()),
        ];
        let mut message = OutgoingMessage {
            body,
            attributes: attributes.into_iter().flatten().collect(),
            group: group(self.received),
            deduplication: deduplication.finish().as_str().to_owned(),
        };
        drop_excess_attributes(&mut message);
        message
    }
}

/// Drops the last attributes while SQS would refuse the message for its size: the
/// body is worth more.
fn drop_excess_attributes(message: &mut OutgoingMessage) {
    while message.size() > MESSAGE_LIMIT && message.attributes.pop().is_some() {}
}

/// Returns the JSON of a value, without characters that SQS refuses.
fn as_json(value: &impl Serialize) -> String {
    escape_refused(serde_json::to_string(value).expect("strings and lists of strings are JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::sqs::AttributeValue;
    use crate::input::event::read;
    use crate::input::received::receive;
    use crate::input::request::Request;
    use serde_json::value::RawValue;
    use std::cell::Cell;
    use std::iter;
    use std::time::Duration;

    const PROJECT: &str = "1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0";
    const REQUEST: &str = r#"{"projectId":"1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0","assetIds":[""]}"#;

    fn with_message<R>(body: &str, run: impl FnOnce(Source<'_>) -> R) -> R {
        let payload = serde_json::json!({"Records": [{
            "messageId": "m-1", "eventSource": "aws:sqs", "body": body,
        }]});
        let payload = RawValue::from_string(payload.to_string()).expect("JSON");
        let event = read(&payload).expect("an event");
        let received = receive(event.messages(), "r-1");
        run(Source {
            received: &received[0],
            request_id: "r-1",
            now: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_407_660_999),
        })
    }

    /// A dead letter, and how many assets it names.
    struct Written {
        message: OutgoingMessage,
        items: usize,
    }

    /// An asset id, and why it is in a dead letter.
    type Named<'a> = (Cow<'a, str>, &'a Failure);

    fn dead_letters_of<'a>(source: Source<'a>, assets: &[Named<'a>]) -> Vec<Written> {
        let project = PROJECT.parse().expect("an id");
        let mut next = 0;
        iter::from_fn(|| {
            let (message, items) = source.of_assets(project, assets[next..].iter().cloned())?;
            next += items;
            Some(Written { message, items })
        })
        .collect()
    }

    #[test]
    fn a_dead_letter_has_the_contracts_form() {
        let failure = Failure::new("INTERNAL_FAILURE", "try later");
        let dead_letters = with_message(REQUEST, |source| {
            dead_letters_of(source, &[("a".into(), &failure)])
        });
        assert_eq!(dead_letters.len(), 1);
        let body: serde_json::Value =
            serde_json::from_str(&dead_letters[0].message.body).expect("a JSON body");
        assert_eq!(
            body,
            serde_json::json!({
                "projectId": PROJECT,
                "assetIds": ["a"],
                "errors": [{"assetId": "a", "code": "INTERNAL_FAILURE", "message": "try later"}],
                "source": {"eventSource": "aws:sqs", "messageId": "m-1", "requestId": "r-1"},
                "deadLetteredAt": "2026-11-23T04:21:00Z",
            })
        );
        let attributes = &dead_letters[0].message.attributes;
        let text = |(name, value): (&'static str, &str)| Attribute::text(name, value.to_owned());
        let expected = [
            ("RequestID", "r-1"),
            ("ErrorCode", "INTERNAL_FAILURE"),
            ("ErrorMessage", "try later"),
            ("ProjectId", PROJECT),
            ("SourceMessageId", "m-1"),
        ];
        assert_eq!(*attributes, expected.map(text));
    }

    #[test]
    fn dead_letters_are_split_to_fit_and_name_every_asset_once() {
        let failure = Failure::new("X", "m".repeat(1024));
        let named: Vec<Named<'_>> = (0..5000)
            .map(|number| (format!("{number:036}").into(), &failure))
            .collect();
        let dead_letters = with_message(REQUEST, |source| dead_letters_of(source, &named));
        assert!(dead_letters.len() > 4);
        let mut next = 0;
        for dead_letter in &dead_letters {
            assert!(dead_letter.message.size() <= MESSAGE_LIMIT);
            let names = next..next + dead_letter.items;
            next = names.end;
            let body: serde_json::Value =
                serde_json::from_str(&dead_letter.message.body).expect("a JSON body");
            let ids: Vec<String> = names.map(|n| format!("{n:036}")).collect();
            assert_eq!(body["assetIds"], serde_json::json!(ids));
            assert_eq!(body["errors"].as_array().map(Vec::len), Some(ids.len()));
        }
        assert_eq!(next, 5000);
    }

    #[test]
    fn dead_letters_are_split_rather_than_stripped_of_attributes_and_only_past_the_limit() {
        let failure = Failure::new("InvalidAssetId", "bad");
        let written = |length: usize| {
            let named = ["x".to_owned(), "y".repeat(length)].map(|asset| (asset.into(), &failure));
            with_message(REQUEST, |source| dead_letters_of(source, &named))
        };
        let full = 1000 + MESSAGE_LIMIT - written(1000)[0].message.size();
        for (length, expected) in [(full, vec![2]), (full + 1, vec![1, 1])] {
            let dead_letters = written(length);
            let names: Vec<_> = dead_letters
                .iter()
                .map(|dead_letter| dead_letter.items)
                .collect();
            assert_eq!(names, expected);
            for dead_letter in &dead_letters {
                assert!(dead_letter.message.size() <= MESSAGE_LIMIT);
                assert_eq!(dead_letter.message.attributes.len(), 5);
            }
        }
        assert_eq!(written(full)[0].message.size(), MESSAGE_LIMIT);
    }

    #[test]
    fn dead_letters_of_any_assets_are_within_the_limit_and_name_each_once() {
        let failures = [
            Failure::new("InvalidAssetId", "bad"),
            Failure::new("\u{1b}\u{ffff}", "\"\\\n\u{0}é".repeat(100)),
            Failure::new("INTERNAL_FAILURE", "\u{ffff}".repeat(340)),
        ];
        // Those of the last failure take more room than their JSON tells.
        let with_refused = 4000..;
        let ids: Vec<String> = (0..6000)
            .map(|number| match number % 1000 {
                0 => "x".repeat(300_000) + &number.to_string(),
                7 => "\u{0}\"é\u{fffe}".repeat(20_000) + &number.to_string(),
                _ if with_refused.contains(&number) => format!("\u{fffe}\u{7}{number}"),
                _ => format!("\"\u{8}\\{number}"),
            })
            .collect();
        let named: Vec<Named<'_>> = ids
            .iter()
            .enumerate()
            .map(|(number, id)| {
                (
                    id.into(),
                    &failures[number / 2 % 2 + usize::from(with_refused.contains(&number))],
                )
            })
            .collect();
        with_message(REQUEST, |source| {
            let dead_letters = dead_letters_of(source, &named);
            let mut next = 0;
            for dead_letter in &dead_letters {
                assert!(dead_letter.message.size() <= MESSAGE_LIMIT);
                assert_eq!(dead_letter.message.attributes.len(), 5);
                let names = next..next + dead_letter.items;
                next = names.end;
                let body: serde_json::Value =
                    serde_json::from_str(&dead_letter.message.body).expect("a JSON body");
                // A failure must not print a megabyte.
                assert!(body["assetIds"] == serde_json::json!(ids[names]));
                assert_eq!(
                    body["errors"].as_array().map(Vec::len),
                    Some(dead_letter.items)
                );
            }
            assert_eq!(next, named.len());
        });
    }

    #[test]
    fn a_dead_letter_is_split_only_where_the_next_asset_has_no_room() {
        let failures = [
            Failure::new("InvalidAssetId", "bad"),
            Failure::new("\"X\"", "\"\\\n\u{0}é".repeat(100)),
        ];
        let named: Vec<Named<'_>> = (0..8000)
            .map(|number| {
                (
                    format!("\u{0}\"é\\{}", "x".repeat(number % 500)).into(),
                    &failures[number / 3 % 2],
                )
            })
            .collect();
        with_message(REQUEST, |source| {
            let dead_letters = dead_letters_of(source, &named);
            assert!(dead_letters.len() > 3, "{}", dead_letters.len());
            let mut start = 0;
            for dead_letter in &dead_letters[..dead_letters.len() - 1] {
                let end = start + dead_letter.items;
                let and_the_next = &named[start..=end];
                let ids: Vec<_> = and_the_next.iter().map(|(id, _)| id.clone()).collect();
                let errors = and_the_next.iter().map(|(id, failure)| {
                    let end = id.floor_char_boundary(REPEATED_ID_LIMIT);
                    json!({"assetId": id[..end], "code": failure.code(), "message": failure.message()})
                });
                let errors: Vec<_> = errors.collect();
                let scope = json!({"projectId": PROJECT, "assetIds": ids});
                let message = source.outgoing(source.body(scope, &errors), named[start].1, []);
                assert!(message.attributes.len() < 5, "they fit only without");
                start = end;
            }
        });
    }

    #[test]
    fn a_dead_letter_takes_no_more_assets_than_it_needs() {
        let failure = Failure::new("InvalidAssetId", "bad");
        let read = Cell::new(0);
        with_message(REQUEST, |source| {
            let endless = iter::repeat_with(|| {
                read.set(read.get() + 1);
                ("abc".into(), &failure)
            });
            let project = PROJECT.parse().expect("an id");
            let (_, named) = source.of_assets(project, endless).expect("a dead letter");
            assert_eq!(read.get(), named + 1, "one does not fit");
        });
    }

    #[test]
    fn a_huge_bad_id_is_kept_whole_and_repeated_in_short() {
        let failure = Failure::new("InvalidAssetId", "bad");
        let huge = "é".repeat(400_000);
        let dead_letters = with_message(REQUEST, |source| {
            dead_letters_of(source, &[(huge.as_str().into(), &failure)])
        });
        assert!(dead_letters[0].message.size() <= MESSAGE_LIMIT);
        let body: serde_json::Value =
            serde_json::from_str(&dead_letters[0].message.body).expect("a JSON body");
        assert_eq!(body["assetIds"][0], serde_json::json!(huge));
        assert_eq!(
            body["errors"][0]["assetId"],
            serde_json::json!("é".repeat(64))
        );
    }

    #[test]
    fn an_unreadable_message_is_kept_as_it_came_even_where_attributes_do_not_fit() {
        let failure = Failure::new("InvalidRequest", "no JSON\u{1b}\u{ffff}");
        let message = with_message("not JSON", |source| source.of_message(&failure, []));
        assert_eq!(message.body, "not JSON");
        let text = |(name, value): (&'static str, &str)| Attribute::text(name, value.to_owned());
        let expected = [
            ("RequestID", "r-1"),
            ("ErrorCode", "InvalidRequest"),
            ("ErrorMessage", "no JSON\\u001b\\uffff"),
            ("SourceMessageId", "m-1"),
        ];
        assert_eq!(message.attributes, expected.map(text));
        let attributes = message.size() - message.body.len();
        for (free, kept) in [(attributes, 4), (attributes - 1, 3), (0, 0)] {
            let large = "x".repeat(MESSAGE_LIMIT - free);
            let message = with_message(&large, |source| source.of_message(&failure, []));
            assert_eq!(message.body, large);
            assert_eq!(message.attributes.len(), kept, "{free} bytes are free");
        }
    }

    #[test]
    fn an_unreadable_message_keeps_as_many_of_the_senders_attributes_as_sqs_allows() {
        let failure = Failure::new("InvalidRequest", "no JSON");
        let sent = |name: &str, data_type: &'static str, value| Attribute {
            name: name.to_owned().into(),
            data_type: data_type.into(),
            value,
        };
        let text = || AttributeValue::Text("1".to_owned());
        let mut kept = vec![sent("size", "Number", text())];
        kept.push(sent(
            "image",
            "Binary.gif",
            AttributeValue::Binary(vec![0; 3]),
        ));
        kept.extend((0..4).map(|number| sent(&format!("label-{number}"), "String", text())));
        let mut all = vec![
            sent("ErrorCode", "String", text()),
            sent("aws.reserved", "String", text()),
        ];
        all.extend(kept.iter().cloned());
        all.push(sent("one-too-many", "String", text()));
        let message = with_message("not JSON", |source| {
            source.of_message(&failure, all.iter().cloned())
        });
        assert_eq!(message.body, "not JSON");
        assert_eq!(message.attributes.len(), 10);
        let code = Attribute::text("ErrorCode", "InvalidRequest".to_owned());
        assert!(message.attributes[..4].contains(&code), "ours first");
        assert_eq!(message.attributes[4..], kept);

        // The sender's are the first to go where there is no room.
        let large = "x".repeat(MESSAGE_LIMIT - (message.size() - message.body.len()) + 1);
        let message = with_message(&large, |source| source.of_message(&failure, all));
        assert_eq!(message.body, large);
        assert_eq!(message.attributes[4..], kept[..5]);
    }

    #[test]
    fn the_dead_letter_of_a_whole_request_has_no_attributes_of_the_sender() {
        let failure = Failure::new("ResourceNotFoundException", "no such portal");
        let sent = Attribute::text("size", "1".to_owned());
        let message = with_message(REQUEST, |source| {
            let request = source.received.request.as_ref().expect("a request").clone();
            let received = Received {
                message: source.received.message,
                id: "m-1".into(),
                request: Ok(Request {
                    scope: Scope::Project(PROJECT.parse().expect("an id")),
                    ..request
                }),
            };
            let source = Source {
                received: &received,
                ..source
            };
            source.of_message(&failure, [sent])
        });
        assert_eq!(message.attributes.len(), 5);
    }
}
