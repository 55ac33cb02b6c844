//! Section 4, the last row: what could not be stored stays where it is.

use serde_json::json;

use crate::support::{
    DEAD_LETTERS, Harness, WORK, asset, assets, failed, record, records, request, rule_event,
    topic_event,
};

#[tokio::test(start_paused = true)]
async fn a_record_whose_letter_cannot_be_stored_is_redelivered() {
    for how in [
        "status=503",
        "status=403:type=AccessDeniedException",
        "reset",
        "stall",
        "truncate",
        "garbage",
        // a 200 with nothing in it
        "status=200",
        "fail-entries=InternalError",
    ] {
        let harness = Harness::with_assets(0..3);
        harness.fault(&format!("sqs:{how}"));
        let event = records([
            record("m-1", &request(1, &["PUMP-7".to_owned()])),
            record("m-2", &request(1, &assets(0..3))),
            record("m-3", &json!("not a request")),
        ]);
        assert_eq!(
            harness.answer(&event).await,
            failed(["m-1", "m-3"]),
            "{how}"
        );
        assert_eq!(harness.remaining(), [0; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_dead_letter_queue_a_rejected_record_is_redelivered() {
    let harness = Harness::with_assets(0..3).without_queues();
    let event = records([
        record("m-1", &request(1, &[asset(0), "PUMP-7".to_owned()])),
        record("m-2", &json!("not a request")),
        record("m-3", &request(1, &assets(1..3))),
    ]);
    assert_eq!(harness.answer(&event).await, failed(["m-1", "m-2"]));
    assert_eq!(harness.remaining(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_failures_are_in_no_queue_is_a_lambda_error() {
    let bad_id = request(1, &["PUMP-7".to_owned()]);
    let good = request(1, &assets(0..3));
    for wrap in [rule_event, topic_event] {
        // no queue at all
        let harness = Harness::with_assets(0..3).without_queues();
        let error = harness.handle(&wrap(&bad_id)).await.expect_err("an error");
        assert!(
            error.starts_with("NotStored: 1 assets or requests failed"),
            "{error}"
        );
        let error = harness
            .handle(&wrap(&json!({})))
            .await
            .expect_err("an error");
        assert!(error.starts_with("NotStored: 1 assets"), "{error}");
        assert!(
            error.ends_with("the first has the code InvalidRequest"),
            "{error}"
        );

        // queues that do not take it: what is unfinished waits for the dead letter
        for (queue, count) in [(DEAD_LETTERS, 2), (WORK, 1)] {
            let harness = Harness::with_assets(0..3);
            harness.fault(&format!("sqs:queue={queue}:status=503"));
            harness.fault("sitewise:status=503");
            let both = request(1, &[asset(0), "PUMP-7".to_owned()]);
            let error = harness.handle(&wrap(&both)).await.expect_err("an error");
            let expected = format!("NotStored: {count} assets");
            assert!(error.starts_with(&expected), "{error}");
        }

        // and nothing of the kind when all is well
        let harness = Harness::with_assets(0..3).without_queues();
        assert_eq!(harness.answer(&wrap(&good)).await["status"], "succeeded");
    }
}

#[tokio::test(start_paused = true)]
async fn a_direct_caller_gets_the_report_though_nothing_could_be_stored() {
    let harness = Harness::with_assets(0..3);
    harness.fault("sqs:status=503");
    harness.fault("sitewise:status=503");
    let report = harness
        .answer(&request(1, &[asset(0), "PUMP-7".to_owned()]))
        .await;
    assert_eq!(report["status"], "failed");
    assert_eq!(report["assets"]["rejected"], 1);
    assert_eq!(report["assets"]["unfinished"], 1);
    for failure in report["failures"].as_array().expect("a list") {
        assert_eq!(failure["deadLettered"], false);
        assert_eq!(failure["queued"], false);
    }
}
