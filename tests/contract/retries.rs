//! What the SDK retries within one request.

use std::time::Duration;

use serde_json::json;
use simulator::{Action, Fault};
use tokio::time::Instant;

use crate::support::{Harness, asset, record, records, request};

/// A 503 that asks for a pause of an hour, in milliseconds.
fn unavailable() -> Action {
    Action::Reply {
        status: 503,
        error_type: Some("ServiceUnavailableException".to_owned()),
        headers: vec![("x-amz-retry-after".to_owned(), "3600000".to_owned())],
        body: String::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_pause_that_a_service_asks_for_does_not_use_up_the_invocation() {
    for fault in [Fault::sitewise(), Fault::sqs()] {
        let mut harness = Harness::with_assets([1]);
        harness.time_left = Duration::from_secs(600);
        harness.simulator.fault(fault.action(unavailable()));
        let start = Instant::now();
        let unfinished = record("m-1", &request(1, &[asset(1)]));
        let rejected = record("m-2", &json!({}));
        harness.answer(&records([unfinished, rejected])).await;
        let attempts = harness.simulator.calls();
        let elapsed = start.elapsed();
        assert!(attempts.len() >= 3, "{attempts:?}");
        assert!(elapsed < Duration::from_secs(10), "{elapsed:?}");
    }
}
