//! Records that only lacked time: visible again soon, where the service answers.

use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Action, Call, Fault, Operation, Settings, Throttle, Visibility};
use sitewise_disassociator::aws::sqs::{Queue, Sqs};
use sitewise_disassociator::handler::{RETURN_AFTER, RETURN_PATIENCE};
use tokio::time::Instant;

use crate::support::{Rig, WORK, asset, failed, project, record, records, request, sdk_config};

const ARN: &str = "arn:aws:sqs:eu-west-1:000000000000:work";

/// A record as SQS delivers it, with an ARN that is the work queue's.
fn delivered(id: &str, body: &Value) -> Value {
    let mut record = record(id, body);
    record["eventSourceARN"] = json!(ARN);
    record["receiptHandle"] = json!(format!("receipt of {id}"));
    record["attributes"] = json!({"ApproximateReceiveCount": "1"});
    record
}

/// Records `m-0`, `m-1` and so on, of one project each.
fn one_project_each(count: usize) -> Value {
    records((0..count).map(|number| {
        delivered(
            &format!("m-{number}"),
            &request(number + 1, &[asset(number)]),
        )
    }))
}

/// A function that makes one call at a time, each of which takes a second, and
/// has time for some.
fn slow(projects: usize, seconds: u64) -> Rig {
    let mut rig = Rig::new(Settings {
        latency: Duration::from_secs(1),
        ..Settings::default()
    });
    for number in 0..projects {
        rig.simulator
            .add_project(&project(number + 1), [asset(number)]);
    }
    rig.function.max_concurrency = 1;
    // What is left after the calls is a fifth.
    rig.time_left = Duration::from_millis(seconds * 1250 + 100);
    rig
}

/// The record and the seconds of each change of visibility.
fn returned(rig: &Rig) -> Vec<(String, Duration)> {
    let changes = rig.simulator.visibilities(WORK);
    changes
        .into_iter()
        .map(
            |Visibility {
                 receipt, timeout, ..
             }| {
                let id = receipt.strip_prefix("receipt of ").expect("a handle");
                (id.to_owned(), timeout)
            },
        )
        .collect()
}

fn soon<const N: usize>(ids: [&str; N]) -> Vec<(String, Duration)> {
    ids.map(|id| (id.to_owned(), RETURN_AFTER)).to_vec()
}

fn changes(rig: &Rig) -> Vec<Call> {
    let mut calls = rig.simulator.calls();
    calls.retain(|call| call.operation == Operation::ChangeMessageVisibilityBatch);
    calls
}

fn reply(status: u16, error_type: &str) -> Action {
    Action::Reply {
        status,
        error_type: Some(error_type.to_owned()),
        headers: Vec::new(),
        body: String::new(),
    }
}

fn visibility_fault() -> Fault {
    Fault::on(Operation::ChangeMessageVisibilityBatch)
}

#[tokio::test(start_paused = true)]
async fn what_was_not_started_in_time_comes_back_soon() {
    let rig = slow(4, 2);
    let answer = rig.answer(&one_project_each(4)).await;
    assert_eq!(answer, failed(["m-2", "m-3"]));
    assert_eq!(returned(&rig), soon(["m-2", "m-3"]));
    let [call] = &changes(&rig)[..] else {
        panic!("one call: {:?}", changes(&rig));
    };
    let body: Value = serde_json::from_str(&call.body).expect("JSON");
    assert_eq!(
        body,
        json!({
            "QueueUrl": "http://simulator.invalid/000000000000/work",
            "Entries": [
                {"Id": "0", "ReceiptHandle": "receipt of m-2", "VisibilityTimeout": 10},
                {"Id": "1", "ReceiptHandle": "receipt of m-3", "VisibilityTimeout": 10},
            ],
        })
    );
    rig.assert_nothing_invalid_was_sent();
}

#[tokio::test(start_paused = true)]
async fn what_was_throttled_comes_back_soon_while_others_are_done() {
    for (status, error_type) in [
        (429, "ThrottlingException"),
        (429, "New"),
        (503, "SlowDown"),
    ] {
        let mut rig = Rig::with_assets(0..1);
        rig.simulator.add_project(&project(2), [asset(1)]);
        let fault = Fault::sitewise().project(project(2));
        rig.simulator.fault(fault.action(reply(status, error_type)));
        rig.time_left = Duration::from_secs(20);
        assert_eq!(rig.answer(&one_project_each(2)).await, failed(["m-1"]));
        assert_eq!(returned(&rig), soon(["m-1"]), "{status} {error_type}");
    }
}

#[tokio::test(start_paused = true)]
async fn under_a_rate_limit_whatever_is_left_comes_back_soon() {
    let mut rig = Rig::new(Settings {
        throttle: Some(Throttle {
            rate: 1.0,
            burst: 1.0,
        }),
        ..Settings::default()
    });
    for number in 0..30 {
        rig.simulator
            .add_project(&project(number + 1), [asset(number)]);
    }
    rig.time_left = Duration::from_secs(15);
    let answer = rig.answer(&one_project_each(30)).await;
    let left = answer["batchItemFailures"].as_array().expect("a list");
    assert!((1..30).contains(&left.len()), "{answer}");
    let ids: Vec<Value> = returned(&rig)
        .into_iter()
        .map(|(id, _)| json!({"itemIdentifier": id}))
        .collect();
    assert_eq!(ids, *left);
    rig.assert_nothing_invalid_was_sent();
}

#[tokio::test(start_paused = true)]
async fn in_an_outage_everything_waits_for_the_visibility_timeout() {
    for (reason, action) in [
        ("throttled, no answer", reply(429, "ThrottlingException")),
        ("unavailable", reply(503, "ServiceUnavailable")),
        ("no right", reply(403, "AccessDeniedException")),
        ("silence", Action::Stall),
    ] {
        let rig = slow(4, 12);
        rig.simulator.fault(Fault::sitewise().action(action));
        let answer = rig.answer(&one_project_each(4)).await;
        assert_eq!(answer, failed(["m-0", "m-1", "m-2", "m-3"]), "{reason}");
        assert_eq!(changes(&rig).len(), 0, "{reason}");
    }
}

/// It would take as long once more, and use its deliveries up.
#[tokio::test(start_paused = true)]
async fn where_no_record_is_finished_all_wait_for_the_visibility_timeout() {
    let rig = slow(1, 2);
    let event = records([0, 1].map(|number| {
        let ids: Vec<String> = (0..300).map(|id| asset(number * 300 + id)).collect();
        delivered(&format!("m-{number}"), &request(1, &ids))
    }));
    assert_eq!(rig.answer(&event).await, failed(["m-0", "m-1"]));
    assert!(rig.calls().len() > 1, "some calls were answered");
    assert_eq!(changes(&rig).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_record_with_another_trouble_waits_while_its_neighbours_return() {
    let rig = slow(4, 2);
    let denied = Fault::sitewise().project(project(2));
    rig.simulator
        .fault(denied.action(reply(403, "AccessDeniedException")));
    let answer = rig.answer(&one_project_each(4)).await;
    assert_eq!(answer, failed(["m-1", "m-2", "m-3"]));
    assert_eq!(returned(&rig), soon(["m-2", "m-3"]));
}

#[tokio::test(start_paused = true)]
async fn only_records_of_the_work_queue_return_soon() {
    for (reason, arn, handle) in [
        (
            "another queue",
            json!("arn:aws:sqs:eu-west-1:000000000000:other"),
            json!("h"),
        ),
        (
            "another account",
            json!("arn:aws:sqs:eu-west-1:123456789012:work"),
            json!("h"),
        ),
        ("no ARN", json!(null), json!("h")),
        ("no handle", json!(ARN), json!(null)),
        ("an empty handle", json!(ARN), json!("")),
    ] {
        let rig = slow(3, 2);
        let mut event = one_project_each(3);
        event["Records"][2]["eventSourceARN"] = arn;
        event["Records"][2]["receiptHandle"] = handle;
        assert_eq!(rig.answer(&event).await, failed(["m-2"]));
        assert_eq!(changes(&rig).len(), 0, "{reason}");
    }
    let rig = slow(3, 2).without_work_queue();
    assert_eq!(rig.answer(&one_project_each(3)).await, failed(["m-2"]));
    assert_eq!(changes(&rig).len(), 0, "no work queue");
}

#[tokio::test(start_paused = true)]
async fn records_of_a_fifo_queue_wait_for_their_group() {
    let mut rig = slow(3, 2);
    let sqs = Sqs::new(&sdk_config(rig.simulator.http_client()).build());
    let url = rig.simulator.create_queue("work.fifo");
    rig.function.work_queue = Some(Queue::new(sqs, url));
    let mut event = one_project_each(3);
    for index in 0..3 {
        event["Records"][index]["eventSourceARN"] = json!(format!("{ARN}.fifo"));
        event["Records"][index]["attributes"]["MessageGroupId"] = json!(format!("g-{index}"));
    }
    assert_eq!(rig.answer(&event).await, failed(["m-2"]));
    assert_eq!(changes(&rig).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn at_most_ten_records_are_named_in_a_call() {
    for (late, calls) in [(10, vec![10]), (11, vec![10, 1]), (25, vec![10, 10, 5])] {
        let rig = slow(late + 1, 1);
        rig.answer(&one_project_each(late + 1)).await;
        let sizes: Vec<usize> = changes(&rig)
            .iter()
            .map(|call| call.receipts.len())
            .collect();
        assert_eq!(sizes, calls);
        assert_eq!(returned(&rig).len(), late);
        rig.assert_nothing_invalid_was_sent();
    }
}

#[tokio::test(start_paused = true)]
async fn that_it_fails_changes_nothing_else() {
    let event = one_project_each(26);
    let expected = slow(26, 1).answer(&event).await;
    for (reason, action, calls) in [
        ("no right", reply(403, "AccessDenied"), 1..=1),
        ("no queue", reply(400, "QueueDoesNotExist"), 1..=1),
        // one call, with as many attempts as there is time for
        ("broken", reply(500, "InternalFailure"), 1..=3),
        ("resets", Action::Reset, 1..=3),
        ("no JSON", Action::Garbage("<html>".to_owned()), 1..=3),
        ("an empty answer", Action::Garbage("{}".to_owned()), 3..=3),
        ("a defect", Action::Panic("a defect".to_owned()), 1..=1),
        ("silence", Action::Stall, 1..=1),
        ("lost answers", Action::StallAfter, 1..=1),
    ] {
        let rig = slow(26, 1);
        rig.simulator.fault(visibility_fault().action(action));
        let start = Instant::now();
        assert_eq!(rig.answer(&event).await, expected, "{reason}");
        assert!(start.elapsed() < rig.time_left, "{reason}");
        assert!(calls.contains(&changes(&rig).len()), "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_queue_is_not_waited_for_long() {
    let event = one_project_each(20);
    let mut times = Vec::new();
    for is_silent in [false, true] {
        let rig = slow(20, 16);
        if is_silent {
            rig.simulator
                .fault(visibility_fault().action(Action::Stall));
        }
        let start = Instant::now();
        rig.answer(&event).await;
        assert_eq!(changes(&rig).len(), 1);
        times.push(start.elapsed());
    }
    assert_eq!(times[1], times[0] + RETURN_PATIENCE);
}

#[tokio::test(start_paused = true)]
async fn entries_that_fail_inside_a_200_wait_and_the_others_return() {
    let rig = slow(4, 2);
    rig.simulator
        .fault(visibility_fault().action(Action::FailEntries {
            bodies_containing: "m-2".to_owned(),
            code: "ReceiptHandleIsInvalid".to_owned(),
            sender_fault: true,
            heals_after: None,
        }));
    let answer = rig.answer(&one_project_each(4)).await;
    assert_eq!(answer, failed(["m-2", "m-3"]));
    assert_eq!(returned(&rig), soon(["m-3"]));
    assert_eq!(changes(&rig).len(), 1, "and that is that");
}

#[tokio::test(start_paused = true)]
async fn dead_letters_come_first() {
    let rig = slow(3, 2);
    let mut event = one_project_each(4);
    event["Records"][3] = delivered(
        "m-3",
        &json!({"projectId": project(1), "assetIds": ["bad"]}),
    );
    assert_eq!(rig.answer(&event).await, failed(["m-2"]));
    assert_eq!(returned(&rig), soon(["m-2"]));
    let sqs: Vec<Operation> = rig
        .simulator
        .calls()
        .iter()
        .filter(|call| call.queue.is_some())
        .map(|call| call.operation)
        .collect();
    assert_eq!(
        sqs,
        [
            Operation::SendMessageBatch,
            Operation::ChangeMessageVisibilityBatch
        ]
    );
}
