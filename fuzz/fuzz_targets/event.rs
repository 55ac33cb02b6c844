//! Any payload: it is an event or a clear error, no record is passed over, and a
//! message that was stored in a queue is read as it was before.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use serde_json::value::RawValue;
use sitewise_disassociator::input::event::{self, Event, Origin};

fuzz_target!(|text: &str| {
    let Ok(payload) = serde_json::from_str::<&RawValue>(text) else {
        return;
    };
    let event = match event::read(payload) {
        Ok(event) => event,
        Err(error) => {
            assert!(error.to_string().contains("expected"), "{error}");
            return;
        }
    };
    if let Ok(records) = serde_json::from_str::<Vec<&RawValue>>(text) {
        assert_eq!(event.messages().len(), records.len(), "one for each record");
    }
    for message in event.messages() {
        // A record without an id must not be named to SQS with an empty one.
        assert!(message.origin != Origin::Sqs || message.id.as_deref() != Some(""));
        assert_eq!(
            matches!(event, Event::Queue(_)),
            message.origin == Origin::Sqs
        );
        let read = message.request();
        // The message as a queue stores it.
        let stored = json!({"Records": [{
            "messageId": "stored", "eventSource": "aws:sqs", "body": message.as_it_came(),
        }]});
        let stored = RawValue::from_string(stored.to_string()).expect("JSON");
        let Ok(Event::Queue(again)) = event::read(&stored) else {
            panic!("an SQS event is not read as one");
        };
        assert_eq!(again.len(), 1);
        match read {
            Ok(request) => assert_eq!(again[0].request().expect("read before"), request),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
});
