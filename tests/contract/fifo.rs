//! FIFO queues: order within a message group, both ways.

use serde_json::{Value, json};
use simulator::{Action, Fault};
use sitewise_disassociator::aws::sqs::{Queue, Sqs};

use crate::support::{Harness, asset, assets, failed, project, records, request, sdk_config};

fn fifo_record(id: &str, group: &str, body: &Value) -> Value {
    json!({
        "messageId": id, "eventSource": "aws:sqs", "body": body.to_string(),
        "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:work.fifo",
        "attributes": {"MessageGroupId": group, "SequenceNumber": "18850000000000000001"},
    })
}

#[tokio::test(start_paused = true)]
async fn behind_a_failed_record_its_group_comes_back_too() {
    let harness = Harness::with_assets(0..10);
    harness.simulator.add_project(&project(2), assets(20..22));
    harness
        .simulator
        .fault(Fault::sitewise().project(project(2)).action(Action::Reset));
    let bad = json!({"projectId": project(1), "assetIds": ["bad"]});
    let event = records([
        fifo_record("m-1", "a", &request(1, &[asset(0)])),
        fifo_record("m-2", "a", &request(2, &[asset(20)])),
        fifo_record("m-3", "b", &request(1, &[asset(1)])),
        fifo_record("m-4", "a", &request(1, &[asset(2)])),
        fifo_record("m-5", "a", &bad),
        fifo_record("m-6", "b", &bad),
    ]);
    assert_eq!(harness.answer(&event).await, failed(["m-2", "m-4", "m-5"]));
    let letters = harness.letter_bodies();
    assert_eq!(letters.len(), 1, "what comes back writes no letter");
    assert_eq!(letters[0]["source"]["messageId"], "m-6");
}

#[tokio::test(start_paused = true)]
async fn behind_a_letter_that_cannot_be_stored_its_group_comes_back_too() {
    let harness = Harness::with_assets(0..10);
    harness.simulator.fault(Fault::sqs().action(Action::Reset));
    let event = records([
        fifo_record(
            "m-1",
            "a",
            &json!({"projectId": project(1), "assetIds": ["bad"]}),
        ),
        fifo_record("m-2", "b", &request(1, &[asset(0)])),
        fifo_record("m-3", "a", &request(1, &[asset(1)])),
    ]);
    assert_eq!(harness.answer(&event).await, failed(["m-1", "m-3"]));
}

#[tokio::test(start_paused = true)]
async fn a_group_on_a_standard_queue_holds_nothing_back() {
    let harness = Harness::with_assets(0..10);
    harness.simulator.add_project(&project(2), assets(20..22));
    harness
        .simulator
        .fault(Fault::sitewise().project(project(2)).action(Action::Reset));
    let mut event = records([
        fifo_record("m-1", "a", &request(2, &[asset(20)])),
        fifo_record("m-2", "a", &request(1, &[asset(0)])),
    ]);
    for index in 0..2 {
        event["Records"][index]["eventSourceARN"] = json!("arn:aws:sqs:eu-west-1:1:work");
    }
    assert_eq!(harness.answer(&event).await, failed(["m-1"]));
}

fn with_fifo_queues(mut harness: Harness) -> Harness {
    let sqs = Sqs::new(&sdk_config(harness.simulator.http_client()).build());
    let queue = |name: &str| {
        Some(Queue::new(
            sqs.clone(),
            harness.simulator.create_queue(name),
        ))
    };
    harness.function.work_queue = queue("work.fifo");
    harness.function.dead_letter_queue = queue("dead-letters.fifo");
    harness.function.fan_out_assets = 100;
    harness
}

#[tokio::test(start_paused = true)]
async fn parts_go_in_the_originals_group_and_are_deduplicated() {
    let harness = with_fifo_queues(Harness::with_assets(0..250));
    let event = records([fifo_record("m-1", "line-7", &request(1, &assets(0..250)))]);
    assert_eq!(harness.answer(&event).await, failed([]));
    assert_eq!(harness.answer(&event).await, failed([]), "and once more");
    let parts = harness.simulator.messages("work.fifo");
    assert_eq!(parts.len(), 3, "SQS drops what it already has");
    for part in &parts {
        assert_eq!(part.group_id.as_deref(), Some("line-7"));
        let body: Value = serde_json::from_str(&part.body).expect("JSON");
        assert_eq!(
            part.deduplication_id.as_deref(),
            body["clientToken"].as_str()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn letters_to_a_fifo_queue_keep_the_group_and_are_deduplicated() {
    let harness = with_fifo_queues(Harness::with_assets(0..3));
    let event = records([
        fifo_record(
            "m-1",
            "line-7",
            &json!({"projectId": project(1), "assetIds": ["bad"]}),
        ),
        fifo_record("m-2", "line-7", &json!("not a request")),
    ]);
    assert_eq!(harness.answer(&event).await, failed([]));
    assert_eq!(harness.answer(&event).await, failed([]), "and once more");
    let letters = harness.simulator.messages("dead-letters.fifo");
    assert_eq!(letters.len(), 2);
    for letter in letters {
        assert_eq!(letter.group_id.as_deref(), Some("line-7"));
    }
}

#[tokio::test(start_paused = true)]
async fn parts_of_an_event_without_a_group_are_grouped_by_project() {
    let harness = with_fifo_queues(Harness::with_assets(0..250));
    let report = harness.answer(&request(1, &assets(0..250))).await;
    assert_eq!(report["status"], "accepted");
    for part in harness.simulator.messages("work.fifo") {
        assert_eq!(part.group_id, Some(project(1)));
    }
}

#[tokio::test(start_paused = true)]
async fn behind_a_record_whose_dead_letter_is_not_stored_no_part_is_sent() {
    let harness = with_fifo_queues(Harness::with_assets(0..250));
    harness.fault("sqs:queue=dead-letters.fifo:status=500");
    let bad = request(1, &["PUMP-7".to_owned()]);
    let large = request(1, &assets(0..250));
    let event = records([
        fifo_record("m-1", "line-7", &bad),
        fifo_record("m-2", "line-7", &large),
        fifo_record("m-3", "line-8", &large),
    ]);
    assert_eq!(harness.answer(&event).await, failed(["m-1", "m-2"]));
    let parts = harness.simulator.messages("work.fifo");
    let groups: Vec<_> = parts.iter().map(|part| part.group_id.as_deref()).collect();
    assert_eq!(groups, [Some("line-8"); 3]);
}
