//! The dead letter: a message that names only the assets that were not
//! disassociated, and is itself a request.
//!
//! Owns its form (contract, section 6). It must not decide who gets
//! one, and does not send it.

use std::borrow::Cow;
use std::iter;
use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Written;
use crate::aws::sqs::{MESSAGE_LIMIT, OutgoingMessage, escape_refused};
use crate::input::event::Message;
use crate::input::id::ProjectId;
use crate::outcome::Failure;
use crate::token::Derivation;

/// Longest `ErrorMessage` attribute, in bytes, as Lambda's own dead letters
/// have it ("the first 1 KB of the error message").
const ERROR_MESSAGE_LIMIT: usize = 1024;

/// Longest asset id that an entry of `errors` repeats, in bytes. `assetIds`
/// always has it whole; a valid one has 36.
const REPEATED_ID_LIMIT: usize = 128;

/// Where a dead letter is from.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// the message it stands for
    pub message: &'a Message<'a>,
    /// the Lambda request id of the invocation that wrote it
    pub request_id: &'a str,
    /// when it was written
    pub now: SystemTime,
}

impl Source<'_> {
    fn message_id(&self) -> Option<&str> {
        self.message.id.as_deref()
    }

    /// Makes an outgoing message. A FIFO queue takes those of one message with the
    /// same `content` for one, at each of its deliveries.
    fn outgoing<'b>(
        &self,
        body: String,
        project: Option<&str>,
        failure: &Failure,
        content: impl IntoIterator<Item = &'b str>,
    ) -> OutgoingMessage {
        let mut deduplication = Derivation::new("dead letter");
        deduplication.text(self.message_id().unwrap_or(self.request_id));
        content
            .into_iter()
            .for_each(|text| deduplication.text(text));
        let body = escape_refused(body);
        let attribute = |name, value: &str| {
            let value = escape_refused(value.to_owned());
            let end = value.floor_char_boundary(ERROR_MESSAGE_LIMIT);
            (end > 0).then(|| (name, value[..end].to_owned()))
        };
        let mut message = OutgoingMessage {
            deduplication: deduplication.finish().as_str().to_owned(),
            group: self
                .message
                .fifo_group
                .as_deref()
                .unwrap_or("sitewise-disassociator")
                .to_owned(),
            attributes: [
                attribute("RequestID", self.request_id),
                attribute("ErrorCode", failure.code()),
                attribute("ErrorMessage", failure.message()),
                attribute("ProjectId", project.unwrap_or_default()),
                attribute("SourceMessageId", self.message_id().unwrap_or_default()),
            ]
            .into_iter()
            .flatten()
            .collect(),
            body,
        };
        // The body is worth more than the attributes.
        while message.size() > MESSAGE_LIMIT && message.attributes.pop().is_some() {}
        message
    }

    /// Writes a dead letter that names `assets`, with this failure in its
    /// attributes.
    fn naming(
        &self,
        project: &str,
        failure: &Failure,
        assets: &[NamedAsset<'_>],
    ) -> OutgoingMessage {
        let now = DateTime::from_secs(DateTime::from(self.now).secs());
        let body = Body {
            project_id: project,
            asset_ids: assets.iter().map(|named| &*named.id).collect(),
            errors: assets.iter().map(|named| &*named.error).collect(),
            source: SourceBody {
                event_source: self.message.origin.as_str(),
                message_id: self.message_id(),
                request_id: self.request_id,
            },
            dead_lettered_at: now.fmt(Format::DateTime).unwrap_or_default(),
        };
        let body = serde_json::to_string(&body).expect("strings and lists of strings are JSON");
        let ids = assets.iter().map(|named| named.id.get());
        self.outgoing(body, Some(project), failure, ids)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    project_id: &'a str,
    asset_ids: Vec<&'a RawValue>,
    errors: Vec<&'a RawValue>,
    source: SourceBody<'a>,
    dead_lettered_at: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AssetErrorBody<'a> {
    asset_id: &'a str,
    code: &'a str,
    message: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SourceBody<'a> {
    event_source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a str>,
    request_id: &'a str,
}

/// An asset as a dead letter names it: in JSON, without characters that SQS
/// refuses.
struct NamedAsset<'a> {
    id: Box<RawValue>,
    error: Box<RawValue>,
    failure: &'a Failure,
}

impl<'a> NamedAsset<'a> {
    fn new(id: &str, failure: &'a Failure) -> Self {
        Self {
            id: raw(&id),
            error: raw(&AssetErrorBody {
                asset_id: &id[..id.floor_char_boundary(REPEATED_ID_LIMIT)],
                code: failure.code(),
                message: failure.message(),
            }),
            failure,
        }
    }

    /// Returns the bytes that it takes in a body, without commas.
    fn size(&self) -> usize {
        self.id.get().len() + self.error.get().len()
    }
}

fn raw(value: &impl Serialize) -> Box<RawValue> {
    let json = serde_json::to_string(value).expect("strings are JSON");
    RawValue::from_string(escape_refused(json)).expect("escaped JSON is JSON")
}

/// Writes the dead letters for one request: one, or as many as it takes to keep
/// each within what SQS stores. Each is written when it is asked for, of assets
/// that are taken no sooner.
pub fn dead_letters<'a>(
    source: Source<'a>,
    project: ProjectId,
    assets: impl Iterator<Item = (Cow<'a, str>, &'a Failure)>,
) -> impl Iterator<Item = Written> {
    let project = project.to_string();
    let mut assets = assets
        .map(|(id, failure)| NamedAsset::new(&id, failure))
        .peekable();
    const COMMAS: usize = 2;
    iter::from_fn(move || {
        let first = assets.next()?;
        let mut size = source.naming(&project, first.failure, &[]).size() + first.size();
        let mut named = vec![first];
        // An asset alone is stored, or refused by the queue.
        while let Some(next) = assets.next_if(|next| size + COMMAS + next.size() <= MESSAGE_LIMIT) {
            size += COMMAS + next.size();
            named.push(next);
        }
        Some(Written {
            message: source.naming(&project, named[0].failure, &named),
            items: named.len(),
        })
    })
}

/// Writes the dead letter for a message that cannot be read: the message as it
/// came.
pub fn as_it_came(source: Source<'_>, project: Option<&str>, failure: &Failure) -> OutgoingMessage {
    let body = source.message.as_it_came();
    source.outgoing(body.to_owned(), project, failure, [body])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::event::{Event, read};
    use serde_json::value::RawValue;
    use std::cell::Cell;
    use std::time::Duration;

    const PROJECT: &str = "1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0";

    fn with_message<R>(body: &str, run: impl FnOnce(Source<'_>) -> R) -> R {
        let payload = serde_json::json!({"Records": [{
            "messageId": "m-1", "eventSource": "aws:sqs", "body": body,
        }]});
        let payload = RawValue::from_string(payload.to_string()).expect("JSON");
        let event = read(&payload).expect("an event");
        let Event::Queue(messages) = &event else {
            panic!("an SQS event");
        };
        run(Source {
            message: &messages[0],
            request_id: "r-1",
            now: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_407_660_999),
        })
    }

    /// An asset id, and why it is in a dead letter.
    type Named<'a> = (Cow<'a, str>, &'a Failure);

    fn dead_letters_of<'a>(source: Source<'a>, assets: &[Named<'a>]) -> Vec<Written> {
        let project = PROJECT.parse().expect("an id");
        dead_letters(source, project, assets.iter().cloned()).collect()
    }

    #[test]
    fn a_dead_letter_has_the_contracts_form() {
        let failure = Failure::new("INTERNAL_FAILURE", "try later");
        let dead_letters = with_message("{}", |source| {
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
        let attributes: Vec<(&str, &str)> = dead_letters[0]
            .message
            .attributes
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        assert_eq!(
            attributes,
            [
                ("RequestID", "r-1"),
                ("ErrorCode", "INTERNAL_FAILURE"),
                ("ErrorMessage", "try later"),
                ("ProjectId", PROJECT),
                ("SourceMessageId", "m-1"),
            ]
        );
    }

    #[test]
    fn dead_letters_are_split_to_fit_and_name_every_asset_once() {
        let failure = Failure::new("X", "m".repeat(1024));
        let named: Vec<Named<'_>> = (0..5000)
            .map(|number| (format!("{number:036}").into(), &failure))
            .collect();
        let dead_letters = with_message("{}", |source| dead_letters_of(source, &named));
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
            with_message("{}", |source| dead_letters_of(source, &named))
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
        with_message("{}", |source| {
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
        with_message("{}", |source| {
            let dead_letters = dead_letters_of(source, &named);
            assert!(dead_letters.len() > 3, "{}", dead_letters.len());
            let mut start = 0;
            for dead_letter in &dead_letters[..dead_letters.len() - 1] {
                let end = start + dead_letter.items;
                let and_the_next: Vec<NamedAsset<'_>> = named[start..=end]
                    .iter()
                    .map(|(id, failure)| NamedAsset::new(id, failure))
                    .collect();
                let message = source.naming(PROJECT, and_the_next[0].failure, &and_the_next);
                assert!(message.attributes.len() < 5, "they fit only without");
                start = end;
            }
        });
    }

    #[test]
    fn a_dead_letter_is_of_no_more_assets_than_have_been_asked_for() {
        let failure = Failure::new("InvalidAssetId", "bad");
        let read = Cell::new(0);
        with_message("{}", |source| {
            let endless = iter::repeat_with(|| {
                read.set(read.get() + 1);
                ("abc".into(), &failure)
            });
            let mut dead_letters = dead_letters(source, PROJECT.parse().expect("an id"), endless);
            assert_eq!(read.get(), 0);
            let mut named = 0;
            for _ in 0..3 {
                named += dead_letters.next().expect("a dead letter").items;
                assert_eq!(read.get(), named + 1, "one does not fit");
            }
        });
    }

    #[test]
    fn a_huge_bad_id_is_kept_whole_and_repeated_in_short() {
        let failure = Failure::new("InvalidAssetId", "bad");
        let huge = "é".repeat(400_000);
        let dead_letters = with_message("{}", |source| {
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
        let message = with_message("not JSON", |source| as_it_came(source, None, &failure));
        assert_eq!(message.body, "not JSON");
        assert_eq!(
            message.attributes,
            [
                ("RequestID", "r-1".to_owned()),
                ("ErrorCode", "InvalidRequest".to_owned()),
                ("ErrorMessage", "no JSON\\u001b\\uffff".to_owned()),
                ("SourceMessageId", "m-1".to_owned()),
            ]
        );
        let attributes = message.size() - message.body.len();
        for (free, kept) in [(attributes, 4), (attributes - 1, 3), (0, 0)] {
            let large = "x".repeat(MESSAGE_LIMIT - free);
            let message = with_message(&large, |source| as_it_came(source, None, &failure));
            assert_eq!(message.body, large);
            assert_eq!(message.attributes.len(), kept, "{free} bytes are free");
        }
    }
}
