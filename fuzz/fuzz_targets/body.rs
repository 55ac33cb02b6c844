//! Any message body between two good neighbours: the neighbours are read, nothing
//! invalid in the body passes as valid, and a JSON object is read as section 1 of
//! the contract says.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sitewise_disassociator::input::event::{self, Event};
use sitewise_disassociator::input::request::{DisassociateRequest, InvalidRequest};
use sitewise_disassociator::plan::{BATCH_LIMIT, PlanInput, plan};

const GOOD: &str = r#"{"projectId":"5791e316-d232-4366-84f0-e1df00172b1b",
    "assetIds":["dfa70030-4b94-462b-884f-c110a65c660b"]}"#;

/// Returns whether an id fits the service model's pattern.
fn is_id(text: &str) -> bool {
    text.len() == 36
        && text != "00000000-0000-0000-0000-000000000000"
        && text.bytes().enumerate().all(|(position, byte)| match position {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
        })
}

fn is_token(text: &str) -> bool {
    (36..=64).contains(&text.chars().count()) && !text.contains(char::is_whitespace)
}

/// Returns the asset ids of a request, or `None` where it is malformed.
fn asset_ids(body: &Value) -> Option<Vec<&str>> {
    let is_token_valid = match &body["clientToken"] {
        Value::Null => true,
        Value::String(token) => is_token(token),
        _ => false,
    };
    let assets = body["assetIds"].as_array()?;
    (is_id(body["projectId"].as_str()?) && is_token_valid && !assets.is_empty())
        .then(|| assets.iter().map(Value::as_str).collect())
        .flatten()
}

/// Reads `body` as the record between two good ones.
fn read(body: &str) -> Result<DisassociateRequest, InvalidRequest> {
    let records = [("1", GOOD), ("2", body), ("3", GOOD)]
        .map(|(id, body)| json!({"messageId": id, "eventSource": "aws:sqs", "body": body}));
    let payload = json!({ "Records": records }).to_string();
    let payload = RawValue::from_string(payload).expect("JSON");
    let Ok(Event::Queue(messages)) = event::read(&payload) else {
        panic!("an SQS event is not read as one");
    };
    let ids: Vec<_> = messages
        .iter()
        .map(|message| message.id.as_deref())
        .collect();
    assert_eq!(ids, [Some("1"), Some("2"), Some("3")]);
    let good = DisassociateRequest::parse(GOOD).expect("good");
    assert_eq!(messages[0].request().expect("good"), good);
    assert_eq!(messages[2].request().expect("good"), good);
    messages[1].request()
}

fuzz_target!(|body: &str| {
    let read_as = read(body);
    match &read_as {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(request) => check(request),
    }
    // Every way to write one value is one request. A known field that is given
    // twice is the exception: `Value` has its last, and the function refuses it.
    let Ok(value @ Value::Object(_)) = serde_json::from_str::<Value>(body) else {
        return;
    };
    if value.get("projectId").is_none() && value.get("assetIds").is_none() {
        return;
    }
    match (read(&value.to_string()), asset_ids(&value)) {
        (Err(_), None) => {}
        (Ok(request), Some(ids)) => {
            if let Ok(as_it_came) = read_as {
                assert_eq!(request, as_it_came);
            }
            let (valid, invalid): (BTreeSet<&str>, _) = ids.iter().partition(|id| is_id(id));
            let assets = request.assets.iter().map(ToString::to_string);
            assert_eq!(assets.collect::<BTreeSet<_>>(), owned(&valid));
            let refused = request.invalid.iter().map(|id| id.text().to_owned());
            assert_eq!(refused.collect::<BTreeSet<_>>(), owned(&invalid));
            assert_eq!(request.requested() + request.duplicates, ids.len());
            let token = request.client_token.as_ref().map(|token| token.as_str());
            assert_eq!(token, value["clientToken"].as_str());
        }
        (read, ids) => panic!("read as {read:?}, should be {ids:?}"),
    }
});

fn owned(ids: &BTreeSet<&str>) -> BTreeSet<String> {
    ids.iter().map(ToString::to_string).collect()
}

/// Nothing invalid is in a request, nor in the calls that are planned for it.
fn check(request: &DisassociateRequest) {
    assert!(is_id(&request.project.to_string()));
    assert!(request.requested() > 0);
    for asset in &request.assets {
        assert!(is_id(&asset.to_string()), "{asset}");
    }
    for invalid in &request.invalid {
        assert!(!is_id(invalid.text()), "{}", invalid.text());
    }
    let input = PlanInput {
        request,
        message_id: "2",
        receives: 1,
    };
    let mut planned = Vec::new();
    for batch in plan(&[input]) {
        assert!((1..=BATCH_LIMIT).contains(&batch.assets.len()));
        assert!(is_token(batch.token(&batch.assets, 0).as_str()));
        planned.extend(batch.assets);
    }
    assert_eq!(planned, request.assets, "each once, in their order");
}
