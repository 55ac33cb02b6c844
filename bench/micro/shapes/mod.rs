//! What the benchmarks measure with: events of several shapes.

use serde_json::json;
use serde_json::value::RawValue;
use sitewise_disassociator::input::request::Request;
use sitewise_disassociator::plan::PlanInput;

/// Messages, and assets of each.
pub(crate) const SHAPES: [(usize, usize); 5] =
    [(1, 1), (1000, 1), (10, 250), (1, 25_000), (6, 25_000)];

const PROJECT: &str = "aaaaaaaa-0000-4000-8000-000000000001";

fn asset(number: usize) -> String {
    format!("bbbbbbbb-0000-4000-8000-{number:012x}")
}

fn body(message: usize, assets: usize) -> String {
    let ids: Vec<String> = (message * assets..(message + 1) * assets)
        .map(asset)
        .collect();
    json!({"projectId": PROJECT, "assetIds": ids}).to_string()
}

/// An SQS event, as the runtime hands it over.
pub(crate) fn payload(messages: usize, assets: usize) -> Box<RawValue> {
    let records: Vec<_> = (0..messages)
        .map(|number| {
            json!({"messageId": format!("m-{number}"), "eventSource": "aws:sqs",
                   "body": body(number, assets)})
        })
        .collect();
    RawValue::from_string(json!({ "Records": records }).to_string()).expect("JSON")
}

/// The requests of such an event.
pub(crate) fn requests(messages: usize, assets: usize) -> Vec<Request> {
    (0..messages)
        .map(|number| Request::parse(&body(number, assets)).expect("a request"))
        .collect()
}

/// What is planned for `requests`.
pub(crate) fn inputs(requests: &[Request]) -> Vec<PlanInput<'_>> {
    requests
        .iter()
        .filter_map(Request::named)
        .map(|named| PlanInput {
            project: named.project,
            assets: &named.valid,
            is_whole_project: false,
            client_token: None,
            message_id: "8f2d6c5e-0d0c-4f0e-9f0a-3a6c1a7f3b11",
            receives: 1,
        })
        .collect()
}
