//! A panic anywhere in handling fails only what it must, and its text never
//! reaches the caller.

use simulator::{Action, Fault, Operation};

use crate::support::{Harness, assets, failed, project, record, records, request, rule_event};

const SECRET: &str = "the text of a panic";

fn panic() -> Action {
    Action::Panic(SECRET.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_call_fails_that_batch_alone() {
    let harness = Harness::with_assets(0..3);
    harness.simulator.add_project(&project(2), assets(10..12));
    harness
        .simulator
        .fault(Fault::sitewise().project(project(2)).action(panic()));
    let event = records([
        record("m-1", &request(1, &assets(0..3))),
        record("m-2", &request(2, &assets(10..12))),
    ]);
    assert_eq!(harness.answer(&event).await, failed(["m-2"]));
    assert_eq!(harness.remaining(), [0; 0]);

    harness.simulator.clear_faults();
    assert_eq!(
        harness.answer(&event).await,
        failed([]),
        "the process lives on"
    );
    assert_eq!(harness.simulator.project_assets(&project(2)).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_reported_without_its_text() {
    let harness = Harness::with_assets(0..3);
    harness.simulator.fault(Fault::sitewise().action(panic()));
    let report = harness.answer(&request(1, &assets(0..3))).await;
    assert_eq!(report["assets"]["queued"], 3);
    assert_eq!(report["failures"][0]["code"], "InternalError");
    assert!(!report.to_string().contains(SECRET));
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_a_letter_is_sent_keeps_the_record() {
    let harness = Harness::with_assets(0..3);
    harness.simulator.fault(Fault::sqs().action(panic()));
    let event = records([
        record("m-1", &request(1, &["bad".to_owned()])),
        record("m-2", &request(1, &assets(0..3))),
    ]);
    assert_eq!(harness.answer(&event).await, failed(["m-1"]));
    assert_eq!(harness.remaining(), [0; 0]);

    let error = harness
        .handle(&rule_event(&request(1, &["bad".to_owned()])))
        .await
        .expect_err("only Lambda can keep it");
    assert!(error.starts_with("NotStored"), "{error}");
    assert!(!error.contains(SECRET));
}

/// The clock is the one part that is handed in: where it panics, the panic is
/// in our own code, outside every call.
#[tokio::test(start_paused = true)]
async fn a_panic_in_our_own_code_leaves_every_message_where_it_is() {
    let mut harness = Harness::with_assets(0..3);
    harness.function.now = || panic!("{}", SECRET);
    let good = request(1, &assets(0..3));
    let event = records([
        record("m-1", &good),
        record("m-2", &request(1, &assets(0..1))),
    ]);
    assert_eq!(harness.answer(&event).await, failed(["m-1", "m-2"]));
    assert_eq!(
        harness.handle(&rule_event(&good)).await,
        Err(
            "NotStored: 1 assets or requests failed and are in no queue: the event is returned to \
             Lambda's own retries and dead-letter queue; the first has the code InternalError"
                .to_owned()
        )
    );
    let report = harness.answer(&good).await;
    assert_eq!(report["status"], "failed");
    assert_eq!(report["failures"][0]["code"], "InternalError");
    assert_eq!(report["failures"][0]["retryable"], true);
    assert!(!report.to_string().contains(SECRET));
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_read_or_a_retry_takes_nothing_back_of_what_was_done_before() {
    for panicking in [Fault::reads(), Fault::on(Operation::Disassociate)] {
        let harness = Harness::with_assets(0..3);
        let fault = Fault::on(Operation::Disassociate).first(1);
        harness.simulator.fault(fault.action(Action::AssetErrors {
            code: "INTERNAL_FAILURE".to_owned(),
            message: "Internal failure.".to_owned(),
            assets: assets([1]),
            heals_after: None,
        }));
        harness.simulator.fault(panicking.action(panic()));
        let report = harness.answer(&request(1, &assets(0..3))).await;
        assert_eq!(report["assets"]["disassociated"], 2);
        assert_eq!(report["assets"]["queued"], 1);
        assert_eq!(report["failures"][0]["code"], "InternalError");
    }
}
