//! Any failed assets, with any codes and messages, of any message: every asset is
//! named in a dead letter that SQS accepts and that is a valid request.
#![no_main]

use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sitewise_disassociator::aws::sqs::{MESSAGE_LIMIT, OutgoingMessage};
use sitewise_disassociator::input::event::{self, Event};
use sitewise_disassociator::input::received::receive;
use sitewise_disassociator::input::request::Request;
use sitewise_disassociator::outcome::Failure;
use sitewise_disassociator::output::dead_letter::Source;

/// Enough bytes for several dead letters.
const ENOUGH: usize = 3 * MESSAGE_LIMIT;

/// Asset ids and how to multiply them, beyond the size of a fuzzer's input; a
/// failure's code and message; a message's id and body.
type Input = (Vec<String>, u8, String, String, String, String);

/// Returns whether SQS accepts a text as a body or an attribute (API reference,
/// `SendMessage`).
fn is_accepted(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|letter| {
            matches!(letter, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}')
                || letter > '\u{ffff}'
        })
}

fn check(message: &OutgoingMessage) {
    assert!(is_accepted(&message.body));
    for attribute in &message.attributes {
        assert!(attribute.is_valid(), "{attribute:?}");
    }
    assert!(message.attributes.len() <= 10);
}

fuzz_target!(|input: Input| {
    let (mut assets, times, code, text, message_id, body) = input;
    let failure = Failure::new(code, text);
    assets.retain(|asset| !asset.is_empty());
    assets.sort();
    assets.dedup();
    let ids = json!(assets).to_string().len();
    let errors = json!([failure.code(), failure.message(), "names of fields"]).to_string();
    let times = usize::from(times);
    if times.is_multiple_of(2) {
        let times = times.min(ENOUGH / ids).max(1);
        assets = assets.iter().map(|asset| asset.repeat(times)).collect();
    } else {
        let times = times
            .min(ENOUGH / (ids + assets.len() * errors.len()))
            .max(1);
        assets = assets
            .iter()
            .flat_map(|asset| (1..=times).map(move |time| format!("{asset} {time}")))
            .collect();
    }
    assets.sort();
    assets.dedup();

    let event = json!({"Records": [{
        "messageId": message_id, "eventSource": "aws:sqs", "body": body,
    }]});
    let event = RawValue::from_string(event.to_string()).expect("JSON");
    let Ok(Event::Queue(messages)) = event::read(&event) else {
        panic!("an SQS event is not read as one");
    };
    let received = receive(&messages, &message_id);
    let source = Source {
        received: &received[0],
        request_id: &message_id,
        now: SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_407_660),
    };
    let message = source.of_message(&failure, []);
    check(&message);
    if received[0].request.is_err() && is_accepted(&body) {
        assert_eq!(message.body, body, "as it came");
    }
    assert!(message.size() <= MESSAGE_LIMIT || message.body.len() > MESSAGE_LIMIT);

    let project = "5791e316-d232-4366-84f0-e1df00172b1b"
        .parse()
        .expect("an id");
    let mut rest = &assets[..];
    let named_by = |asset: &'_ String| (asset.clone().into(), &failure);
    while let Some((message, count)) = source.of_assets(project, rest.iter().map(named_by)) {
        check(&message);
        // What is too large alone is left to the queue to refuse.
        let is_alone_too_large = count == 1 && message.attributes.is_empty();
        assert!(message.size() <= MESSAGE_LIMIT || is_alone_too_large);
        if count > 1 {
            let project = received[0].project().unwrap_or_default();
            let values = [&message_id, failure.code(), failure.message(), &project];
            let given = values.iter().filter(|value| !value.is_empty()).count();
            let from = usize::from(!message_id.is_empty());
            assert_eq!(message.attributes.len(), given + from);
        }
        let request = Request::parse(&message.body).expect("a request");
        let assets = request.named().expect("named assets");
        assert_eq!(assets.project, project);
        assert_eq!(assets.valid.len() + assets.invalid.len(), count);

        let body: Value = serde_json::from_str(&message.body).expect("JSON");
        let (named, next) = rest.split_at(count);
        assert_eq!(body["assetIds"], json!(named), "each once, in their order");
        let errors = body["errors"].as_array().expect("a list");
        assert_eq!(errors.len(), count);
        for (error, id) in errors.iter().zip(named) {
            assert!(id.starts_with(error["assetId"].as_str().expect("a text")));
            assert_eq!(error["code"], failure.code());
            assert_eq!(error["message"], failure.message());
        }
        rest = next;
    }
    assert!(rest.is_empty());
});
