//! Section 3: the partial batch response, the report, the Lambda error.

use serde_json::{Value, json};
use simulator::{Action, Fault, Operation, Settings};

use crate::support::{
    Harness, REQUEST_ID, asset, assets, failed, project, record, records, request, rule_event,
    topic_event,
};

#[tokio::test(start_paused = true)]
async fn a_partial_batch_response_has_nothing_else_in_it() {
    let harness = Harness::with_assets(0..3);
    let event = records([record("m-1", &request(1, &assets(0..3)))]);
    assert_eq!(
        harness.answer(&event).await,
        json!({"batchItemFailures": []})
    );
    assert_eq!(
        harness.answer(&json!({"Records": []})).await,
        json!({"batchItemFailures": []})
    );
    assert_eq!(
        harness.answer(&json!([])).await,
        json!({"batchItemFailures": []})
    );

    let harness = Harness::with_assets(0..3);
    harness
        .simulator
        .fault(Fault::sitewise().action(Action::Reset));
    assert_eq!(
        harness.answer(&event).await,
        json!({"batchItemFailures": [{"itemIdentifier": "m-1"}]})
    );
}

#[tokio::test(start_paused = true)]
async fn pipes_records_get_the_same_answer() {
    let harness = Harness::with_assets(0..3);
    harness.simulator.add_project(&project(2), assets(10..12));
    harness
        .simulator
        .fault(Fault::sitewise().project(project(2)).action(Action::Reset));
    let event = json!([
        record("m-1", &request(1, &assets(0..3))),
        record("m-2", &request(2, &assets(10..12))),
    ]);
    assert_eq!(harness.answer(&event).await, failed(["m-2"]));
}

#[tokio::test(start_paused = true)]
async fn only_the_records_that_failed_are_named_each_once() {
    let harness = Harness::with_assets(0..3);
    harness.simulator.add_project(&project(2), assets(10..12));
    harness
        .simulator
        .fault(Fault::sitewise().project(project(2)).action(Action::Reset));
    let event = records([
        record("m-1", &request(1, &[asset(0)])),
        record("m-2", &request(2, &[asset(10)])),
        record("m-3", &request(1, &[asset(1)])),
        record("m-4", &request(2, &[asset(11)])),
        record("m-4", &request(2, &[asset(11)])),
    ]);
    assert_eq!(harness.answer(&event).await, failed(["m-2", "m-4"]));
    assert_eq!(harness.remaining(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_record_without_an_id_fails_the_invocation() {
    for id in [Value::Null, json!(""), json!(7)] {
        let harness = Harness::with_assets(0..3).without_queues();
        let mut nameless = record("m-2", &json!("not a request"));
        nameless["messageId"] = id;
        let event = records([record("m-1", &request(1, &assets(0..3))), nameless]);
        assert_eq!(
            harness.handle(&event).await,
            Err(
                "MissingMessageId: a record without messageId could not be settled: the whole \
                 batch is returned to its queue"
                    .to_owned()
            )
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_without_an_id_that_is_done_needs_no_name() {
    let harness = Harness::with_assets(0..3);
    let mut nameless = record("m-1", &request(1, &assets(0..2)));
    nameless["messageId"] = Value::Null;
    let mut lettered = record("m-2", &json!("not a request"));
    lettered["messageId"] = Value::Null;
    assert_eq!(
        harness.answer(&records([nameless, lettered])).await,
        failed([])
    );
    assert_eq!(harness.remaining(), [2]);
    assert_eq!(harness.letters().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_report_of_success_is_exact() {
    let harness = Harness::with_assets(0..250);
    let mut ids = assets(0..250);
    ids.extend(assets(0..3));
    assert_eq!(
        harness.answer(&rule_event(&request(1, &ids))).await,
        json!({
            "requestId": REQUEST_ID, "projectId": project(1), "status": "succeeded",
            "assets": {"requested": 250, "duplicates": 3, "disassociated": 250, "absent": 0,
                       "rejected": 0, "unfinished": 0, "queued": 0},
            "calls": 3,
            "failures": [],
        })
    );
}

#[tokio::test(start_paused = true)]
async fn a_report_of_everything_at_once_is_exact() {
    let harness = Harness::with_assets(0..250);
    harness
        .simulator
        .fault(
            Fault::on(Operation::Disassociate)
                .asset(asset(101))
                .action(Action::Reply {
                    status: 503,
                    error_type: None,
                    headers: Vec::new(),
                    body: String::new(),
                }),
        );
    harness.simulator.fault(
        Fault::on(Operation::Disassociate).action(Action::AssetErrors {
            code: "INTERNAL_FAILURE".to_owned(),
            message: "Internal failure.".to_owned(),
            assets: vec![asset(3), asset(5)],
            heals_after: None,
        }),
    );
    let mut ids = assets(0..250);
    ids.push("PUMP-7".to_owned());
    let report = harness.answer(&request(1, &ids)).await;
    let failures = report["failures"].as_array().expect("a list");
    assert_eq!(
        failures[0],
        json!({
            "assetIds": ["PUMP-7"], "code": "InvalidAssetId",
            "message": "expected a lowercase UUID such as 1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0",
            "retryable": false, "deadLettered": true, "queued": false,
        })
    );
    assert_eq!(
        failures[1],
        json!({
            "assetIds": [asset(3), asset(5)], "code": "INTERNAL_FAILURE",
            "message": "Internal failure.", "retryable": false, "deadLettered": true,
            "queued": false,
        })
    );
    assert_eq!(failures[2]["assetIds"], json!(assets(100..200)));
    assert_eq!(failures[2]["code"], "HTTP 503");
    assert_eq!(failures[2]["queued"], true);
    assert_eq!(failures.len(), 3);
    assert_eq!(report["status"], "partial");
    assert_eq!(
        report["assets"],
        json!({"requested": 251, "duplicates": 0, "disassociated": 148, "absent": 0,
               "rejected": 3, "unfinished": 0, "queued": 100})
    );
    assert_eq!(
        report["calls"], 5,
        "three batches, two retries of named assets"
    );
    let letter = harness.letter_bodies().remove(0);
    assert_eq!(letter["assetIds"], json!(["PUMP-7", asset(3), asset(5)]));
}

#[tokio::test(start_paused = true)]
async fn a_report_larger_than_lambda_answers_is_cut_and_still_counts_truly() {
    let harness = Harness::new(Settings::default()).without_work_queue();
    let many = 62_500;
    let ids: Vec<String> = (0..many)
        .map(|number| format!("bad-{number:090}"))
        .collect();
    let report = harness.answer(&request(1, &ids)).await;
    let size = report.to_string().len();
    assert!(size <= 6_000_000, "{size}");
    assert_eq!(report["assets"]["rejected"], many);
    let failures = report["failures"].as_array().expect("a list");
    assert_eq!(failures.len(), 1, "one code, one failure");
    let listed = failures[0]["assetIds"].as_array().map_or(0, Vec::len);
    assert_eq!(failures[0]["omitted"], many - listed);
    let lettered: usize = harness.lettered_assets().iter().map(Vec::len).sum();
    assert_eq!(lettered, many, "nothing is left out of the letters");
}

/// Lambda sends one SNS record an event; should it ever send two, each has its
/// report.
#[tokio::test(start_paused = true)]
async fn several_notifications_get_a_report_each() {
    let harness = Harness::with_assets(0..3);
    let mut event = topic_event(&request(1, &[asset(0)]));
    let second = topic_event(&request(1, &["PUMP-7".to_owned()]));
    event["Records"]
        .as_array_mut()
        .expect("a list")
        .push(second["Records"][0].clone());
    let reports = harness.answer(&event).await;
    assert_eq!(reports[0]["status"], "succeeded");
    assert_eq!(reports[1]["status"], "failed");
    assert_eq!(reports[1]["failures"][0]["assetIds"], json!(["PUMP-7"]));
    assert_eq!(reports.as_array().map(Vec::len), Some(2));

    let harness = harness.without_queues();
    let error = harness
        .handle(&event)
        .await
        .expect_err("only Lambda can keep it");
    assert!(error.starts_with("NotStored: 1 assets"), "{error}");
}
