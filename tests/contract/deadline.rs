//! Section 4, the deadline: nothing is started that cannot finish, and nothing
//! outlives it.

use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Action, Fault, Operation};
use sitewise_disassociator::deadline::{LEAST_RESERVE, RESERVE};
use sitewise_disassociator::session::SHORTEST_CALL;
use tokio::time::Instant;

use crate::support::{Harness, asset, assets, failed, project, record, records, request};

fn one_record() -> Value {
    records([record("m-1", &request(1, &assets(0..3)))])
}

#[tokio::test(start_paused = true)]
async fn nothing_is_started_without_time_to_finish() {
    let mut harness = Harness::with_assets(0..3);
    harness.time_left = Duration::from_millis(500);
    assert_eq!(harness.answer(&one_record()).await, failed(["m-1"]));
    assert_eq!(harness.calls().len(), 0);

    let report = harness.answer(&request(1, &assets(0..3))).await;
    assert_eq!(report["calls"], 0);
    assert_eq!(report["status"], "accepted");
    assert_eq!(report["failures"][0]["code"], "DeadlineReached");
    assert_eq!(harness.parts()[0]["assetIds"], json!(assets(0..3)));

    let just_enough = LEAST_RESERVE + SHORTEST_CALL;
    for (time_left, calls) in [
        (just_enough, 1),
        (just_enough - Duration::from_millis(1), 0),
    ] {
        let mut harness = Harness::with_assets(0..3);
        harness.time_left = time_left;
        harness.answer(&one_record()).await;
        assert_eq!(harness.calls().len(), calls, "{time_left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_call_outlives_the_deadline_whatever_time_is_left() {
    for milliseconds in [0, 1, 100, 400, 1_000, 3_000, 10_000, 60_000] {
        let mut harness = Harness::with_assets(0..3);
        harness.time_left = Duration::from_millis(milliseconds);
        harness
            .simulator
            .fault(Fault::sitewise().action(Action::Stall));
        let start = Instant::now();
        assert_eq!(harness.answer(&one_record()).await, failed(["m-1"]));
        assert!(start.elapsed() <= harness.time_left, "{milliseconds} ms");
        // and the same with queues that are silent too
        harness.simulator.fault(Fault::sqs().action(Action::Stall));
        let start = Instant::now();
        let report = harness.answer(&request(1, &assets(0..3))).await;
        assert!(start.elapsed() <= harness.time_left, "{milliseconds} ms");
        assert_eq!(report["status"], "failed");
        assert_eq!(report["failures"][0]["queued"], false);
    }
}

#[tokio::test(start_paused = true)]
async fn assets_without_time_for_their_retry_are_unfinished() {
    let mut harness = Harness::with_assets(0..3);
    harness.time_left = Duration::from_millis(1_200);
    harness.fault("disassociate:latency=400ms");
    let error = Fault::on(Operation::Disassociate).action(Action::AssetErrors {
        code: "INTERNAL_FAILURE".to_owned(),
        message: "Internal failure.".to_owned(),
        assets: vec![asset(1)],
        heals_after: None,
    });
    harness.simulator.fault(error);
    let start = Instant::now();
    let report = harness.answer(&request(1, &assets(0..3))).await;
    assert_eq!(
        start.elapsed(),
        Duration::from_millis(400),
        "no pause for nothing"
    );
    assert_eq!(report["assets"]["disassociated"], 2);
    assert_eq!(report["assets"]["queued"], 1);
    assert_eq!(report["failures"][0]["code"], "DeadlineReached");
    assert_eq!(
        report["failures"][0]["message"],
        "too little time left before the Lambda deadline to try again after INTERNAL_FAILURE: \
         Internal failure."
    );
}

#[tokio::test(start_paused = true)]
async fn no_pause_takes_of_the_time_that_is_kept_for_the_answer() {
    for milliseconds in (800..9000).step_by(130) {
        let mut harness = Harness::with_assets([0]);
        harness.simulator.add_project(&project(2), assets([1]));
        harness.time_left = Duration::from_millis(milliseconds);
        // The other project's asset is worth another round.
        harness.fault(&format!(
            "disassociate:project={}:status=404:type=ResourceNotFoundException",
            project(2)
        ));
        let event = records([
            record("m-1", &request(1, &assets([0]))),
            record("m-2", &request(2, &assets([1]))),
        ]);
        let start = Instant::now();
        let answer = harness.answer(&event).await;
        let is_rejected = !harness.letters().is_empty();
        let expected = if is_rejected {
            failed([])
        } else {
            failed(["m-2"])
        };
        assert_eq!(answer, expected);
        let reserve = (harness.time_left / 5).clamp(LEAST_RESERVE, RESERVE);
        let took = start.elapsed();
        assert!(
            took <= harness.time_left - reserve,
            "{took:?} of {milliseconds} ms"
        );
    }
}
