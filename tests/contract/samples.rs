//! Every sample in `events/`, whole: what it asks, what is called, what is
//! left, what is answered.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use simulator::{Call, Message, Operation};

use crate::support::{DEAD_LETTERS, Harness, WORK};

/// Long lists in short: their length, first and last.
fn short(value: &Value) -> Value {
    match value {
        Value::Array(items) if items.len() > 6 => json!(format!(
            "{} × {} … {}",
            items.len(),
            items[0],
            items[items.len() - 1]
        )),
        Value::Array(items) => items.iter().map(short).collect(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| (key.clone(), short(value)))
            .collect(),
        other => other.clone(),
    }
}

fn body(message: &Message) -> Value {
    let body = serde_json::from_str(&message.body).unwrap_or_else(|_| json!(message.body));
    json!({"body": short(&body), "attributes": message.attributes})
}

fn call(call: &Call) -> Value {
    json!({
        "project": call.project,
        "assets": short(&json!(call.assets)),
        "token": call.token,
    })
}

#[tokio::test(start_paused = true)]
async fn every_sample_does_what_its_snapshot_says() {
    let mut settings = insta::Settings::clone_current();
    settings.set_omit_expression(true);
    let _settings = settings.bind_to_scope();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("events");
    let mut samples: Vec<_> = fs::read_dir(folder)
        .expect("the samples' folder")
        .map(|entry| entry.expect("a file").path())
        .filter(|path| path.extension() == Some("json".as_ref()))
        .collect();
    samples.sort();
    assert!(samples.len() >= 25);
    for sample in samples {
        let text = fs::read_to_string(&sample).expect("a sample");
        let event: Value = serde_json::from_str(&text).expect("JSON");
        let harness = Harness::new(simulator::Settings::default());
        harness.simulator.seed_from_event(&text);
        let answer = harness.handle(&event).await;
        let projects: BTreeMap<String, usize> = harness
            .simulator
            .projects()
            .into_iter()
            .map(|(project, assets)| (project, assets.len()))
            .collect();
        let mut calls = harness.calls();
        // Calls of one invocation arrive in any order.
        calls.sort_by(|a, b| (&a.project, &a.assets).cmp(&(&b.project, &b.assets)));
        let calls: Vec<Value> = calls.iter().map(call).collect();
        let queue =
            |name| -> Vec<Value> { harness.simulator.messages(name).iter().map(body).collect() };
        harness.assert_nothing_invalid_was_sent();
        assert!(
            harness
                .simulator
                .calls()
                .iter()
                .all(|call| call.operation != Operation::Other)
        );
        let name = sample
            .file_stem()
            .and_then(|name| name.to_str())
            .expect("a name");
        insta::assert_json_snapshot!(
            name,
            json!({
                "answer": answer.map_or_else(|error| json!({"error": error}), |answer| short(&answer)),
                "calls": calls,
                "remaining": projects,
                "deadLetters": queue(DEAD_LETTERS),
                "workQueue": queue(WORK),
            })
        );
    }
}
