//! Section 6: the dead letter.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Action, Fault, Message, Operation};
use tokio::time::Instant;

use crate::support::{
    DEAD_LETTERS, Harness, REQUEST_ID, asset, asset_ids, assets, failed, project, record, records,
    request, rule_event, topic_event,
};

fn never_heals(message: &str) -> Fault {
    Fault::on(Operation::Disassociate).action(Action::AssetErrors {
        code: "INTERNAL_FAILURE".to_owned(),
        message: message.to_owned(),
        assets: Vec::new(),
        heals_after: None,
    })
}

fn size(message: &Message) -> usize {
    let attributes: usize = message
        .attributes
        .iter()
        .map(|(name, value)| name.len() + "String".len() + value.len())
        .sum();
    message.body.len() + attributes
}

/// Distinct ids of three characters that the pattern refuses.
fn bad_ids(first: char, count: usize) -> Vec<String> {
    let digit = |number| char::from_digit(number % 36, 36).expect("a digit");
    (0..)
        .map(|number: u32| {
            let first = char::from_u32(u32::from(first) + number / (36 * 36));
            let first = first.expect("a character");
            format!("{first}{}{}", digit(number / 36), digit(number))
        })
        .take(count)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_letter_is_exact() {
    for (event, source) in [
        (
            records([record("m-1", &request(1, &assets(0..2)))]),
            json!({"eventSource": "aws:sqs", "messageId": "m-1", "requestId": REQUEST_ID}),
        ),
        (
            rule_event(&request(1, &assets(0..2))),
            json!({"eventSource": "aws:events", "messageId": "event-1", "requestId": REQUEST_ID}),
        ),
        (
            topic_event(&request(1, &assets(0..2))),
            json!({"eventSource": "aws:sns", "messageId": "notification-1",
                   "requestId": REQUEST_ID}),
        ),
        (
            request(1, &assets(0..2)),
            json!({"eventSource": "aws:lambda", "requestId": REQUEST_ID}),
        ),
    ] {
        let harness = Harness::with_assets(0..2);
        harness.simulator.fault(never_heals("Internal failure."));
        harness.answer(&event).await;
        let letter = harness.letters().remove(0);
        let error = |number| {
            json!({"assetId": asset(number), "code": "INTERNAL_FAILURE",
                   "message": "Internal failure."})
        };
        assert_eq!(
            serde_json::from_str::<Value>(&letter.body).expect("JSON"),
            json!({
                "projectId": project(1),
                "assetIds": assets(0..2),
                "errors": [error(0), error(1)],
                "source": source,
                "deadLetteredAt": "2026-11-23T04:21:00Z",
            })
        );
        let mut attributes = json!({
            "RequestID": REQUEST_ID,
            "ErrorCode": "INTERNAL_FAILURE",
            "ErrorMessage": "Internal failure.",
            "ProjectId": project(1),
        });
        if let Some(id) = source.get("messageId") {
            attributes["SourceMessageId"] = id.clone();
        }
        assert_eq!(json!(letter.attributes), attributes);
    }
}

#[tokio::test(start_paused = true)]
async fn one_letter_a_request_names_only_what_was_not_disassociated() {
    let harness = Harness::with_assets(0..10);
    harness.simulator.fault(
        Fault::on(Operation::Disassociate).action(Action::AssetErrors {
            code: "INTERNAL_FAILURE".to_owned(),
            message: "Internal failure.".to_owned(),
            assets: assets([1, 4]),
            heals_after: None,
        }),
    );
    let event = records([
        record("m-1", &request(1, &assets(0..3))),
        record("m-2", &request(1, &assets(3..6))),
        record("m-3", &request(1, &assets(6..10))),
    ]);
    assert_eq!(harness.answer(&event).await, failed([]));
    assert_eq!(harness.lettered_assets(), [[asset(1)], [asset(4)]]);
    let sources: Vec<Value> = harness
        .letter_bodies()
        .iter()
        .map(|body| body["source"]["messageId"].clone())
        .collect();
    assert_eq!(sources, ["m-1", "m-2"]);
}

#[tokio::test(start_paused = true)]
async fn letters_are_split_at_the_size_that_sqs_takes() {
    let harness = Harness::with_assets(0..9000).without_work_queue();
    harness.simulator.fault(never_heals(&"long ".repeat(150)));
    let event = records([record("m-1", &request(1, &assets(0..9000)))]);
    assert_eq!(harness.answer(&event).await, failed([]));
    let letters = harness.letters();
    assert!(letters.len() > 7, "{}", letters.len());
    for letter in &letters {
        assert!(size(letter) <= 1_048_576);
    }
    let named: Vec<String> = harness.letter_bodies().iter().flat_map(asset_ids).collect();
    assert_eq!(named.len(), 9000);
    assert_eq!(
        named.into_iter().collect::<BTreeSet<_>>(),
        assets(0..9000).into_iter().collect()
    );
    harness.assert_nothing_invalid_was_sent();
}

#[tokio::test(start_paused = true)]
async fn tens_of_thousands_of_bad_ids_are_lettered_once_each_and_a_good_record_is_done() {
    let harness = Harness::with_assets(0..3);
    let many = [("m-1", bad_ids('!', 40_000)), ("m-3", bad_ids('A', 40_000))];
    let event = records([
        record("m-1", &request(1, &many[0].1)),
        record("m-2", &request(1, &assets(0..3))),
        record("m-3", &request(1, &many[1].1)),
    ]);
    assert_eq!(harness.answer(&event).await, failed([]));
    assert_eq!(harness.remaining(), [0; 0]);

    for letter in harness.letters() {
        assert!(size(&letter) <= 1_048_576);
    }
    let bodies = harness.letter_bodies();
    for (message, bad) in many {
        let named: Vec<String> = bodies
            .iter()
            .filter(|body| body["source"]["messageId"] == message)
            .flat_map(asset_ids)
            .collect();
        assert!(named == bad, "{message}: {} ids", named.len());
    }
    harness.assert_nothing_invalid_was_sent();
}

#[tokio::test(start_paused = true)]
async fn letters_that_there_is_no_time_to_send_are_not_written_and_keep_their_record() {
    let mut harness = Harness::with_assets(0..3);
    harness.time_left = Duration::from_secs(3);
    harness.simulator.fault(Fault::sqs().action(Action::Stall));
    let event = records([
        record("m-1", &request(1, &bad_ids('!', 80_000))),
        record("m-2", &request(1, &assets(0..3))),
        record("m-3", &request(1, &bad_ids('A', 1))),
    ]);
    assert_eq!(harness.answer(&event).await, failed(["m-1", "m-3"]));
    assert_eq!(harness.remaining(), [0; 0]);
    let sends = harness.simulator.calls().len() - harness.calls().len();
    assert_eq!(sends, 8, "of a letter each");
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_message_is_lettered_as_it_came() {
    let harness = Harness::with_assets(0..1);
    for body in [
        "not JSON",
        "{\"projectId\": 1,}",
        " ",
        "{\"emoji\":\"\u{1f600}\"}",
    ] {
        let event = records([record("m-1", &json!(body))]);
        assert_eq!(harness.answer(&event).await, failed([]), "{body}");
        let letter = harness.letters().pop().expect("a letter");
        assert_eq!(letter.body, body);
        assert_eq!(letter.attributes["ErrorCode"], "InvalidRequest");
        assert_eq!(letter.attributes["SourceMessageId"], "m-1");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_message_as_large_as_sqs_takes_is_lettered_too() {
    let harness = Harness::with_assets(0..1);
    let body = "x".repeat(1_048_576);
    let event = records([record("m-1", &json!(body))]);
    assert_eq!(harness.answer(&event).await, failed([]));
    let letter = harness.letters().pop().expect("a letter");
    assert_eq!(letter.body, body);
    assert!(size(&letter) <= 1_048_576);
}

#[tokio::test(start_paused = true)]
async fn characters_that_sqs_refuses_are_escaped() {
    let harness = Harness::with_assets(0..1);
    let nasty = "a\u{0}\u{8}\u{b}\u{1b}\u{fffe}\u{ffff}\r\n\t\u{2028}z";
    // in a bad id, in an unreadable body, and in what the service says
    harness.simulator.fault(never_heals(nasty));
    let event = records([
        record("m-1", &request(1, &[nasty.to_owned()])),
        record("m-2", &json!(nasty)),
        record("m-3", &request(1, &[asset(0)])),
    ]);
    assert_eq!(harness.answer(&event).await, failed([]));
    let letters = harness.letters();
    assert_eq!(letters.len(), 3);
    let body = |index: usize| -> Value {
        serde_json::from_str(&letters[index].body).expect("a JSON body")
    };
    assert_eq!(body(0)["assetIds"], json!([nasty]), "its meaning is kept");
    assert_eq!(
        letters[1].body,
        "a\\u0000\\u0008\\u000b\\u001b\\ufffe\\uffff\r\n\t\u{2028}z"
    );
    assert_eq!(body(2)["errors"][0]["message"], nasty);
    harness.assert_nothing_invalid_was_sent();
}

#[tokio::test(start_paused = true)]
async fn the_error_message_attribute_has_the_first_kilobyte() {
    let harness = Harness::with_assets(0..1);
    harness.simulator.fault(never_heals(&"é".repeat(5000)));
    harness
        .answer(&records([record("m-1", &request(1, &[asset(0)]))]))
        .await;
    let letter = harness.letters().remove(0);
    assert_eq!(letter.attributes["ErrorMessage"], "é".repeat(512));
}

#[tokio::test(start_paused = true)]
async fn letters_that_fail_inside_a_200_are_sent_again_alone() {
    let harness = Harness::with_assets(0..1);
    harness
        .simulator
        .fault(Fault::sqs().action(Action::FailEntries {
            bodies_containing: "bad-7".to_owned(),
            code: "InternalError".to_owned(),
            sender_fault: false,
            heals_after: Some(1),
        }));
    let event = records((0..25).map(|number| {
        record(
            &format!("m-{number}"),
            &request(1, &[format!("bad-{number}.")]),
        )
    }));
    assert_eq!(harness.answer(&event).await, failed([]));
    let mut sends: Vec<usize> = harness
        .simulator
        .calls()
        .iter()
        .map(|call| call.bodies.len())
        .collect();
    sends.sort_unstable();
    assert_eq!(sends, [1, 5, 10, 10], "in tens, and one again");
    assert_eq!(harness.letters().len(), 25);
}

#[tokio::test(start_paused = true)]
async fn only_records_whose_own_letter_failed_are_redelivered() {
    let harness = Harness::with_assets(0..1);
    harness
        .simulator
        .fault(Fault::sqs().action(Action::FailEntries {
            bodies_containing: "bad-7.".to_owned(),
            code: "InvalidMessageContents".to_owned(),
            sender_fault: true,
            heals_after: None,
        }));
    let event = records((0..25).map(|number| {
        record(
            &format!("m-{number}"),
            &request(1, &[format!("bad-{number}.")]),
        )
    }));
    assert_eq!(harness.answer(&event).await, failed(["m-7"]));
    assert_eq!(harness.letters().len(), 24);
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_spoils_its_batch_spoils_no_other() {
    let harness = Harness::with_assets(0..1);
    // SQS refuses the whole call for one entry
    harness
        .simulator
        .fault(
            Fault::on(Operation::SendMessageBatch)
                .first(1)
                .action(Action::Refuse {
                    status: 400,
                    error_type: "AWS.SimpleQueueService.InvalidBatchEntryId".to_owned(),
                    message: "refused".to_owned(),
                }),
        );
    let event = records((0..5).map(|number| {
        record(
            &format!("m-{number}"),
            &request(1, &[format!("bad-{number}")]),
        )
    }));
    assert_eq!(harness.answer(&event).await, failed([]));
    assert_eq!(harness.letters().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_id_too_large_for_any_letter_keeps_its_record() {
    let harness = Harness::with_assets(0..2);
    let event = records([
        record("m-1", &request(1, &["x".repeat(1_048_576 - 100), asset(0)])),
        record("m-2", &request(1, &[asset(1)])),
    ]);
    assert_eq!(harness.answer(&event).await, failed(["m-1"]));
    assert_eq!(harness.remaining(), [0; 0], "the others go ahead");
}

#[tokio::test(start_paused = true)]
async fn entries_that_fail_are_sent_again_only_while_there_is_time() {
    for milliseconds in (0..=1000).step_by(20) {
        let mut harness = Harness::with_assets([]);
        harness.time_left = Duration::from_millis(milliseconds);
        harness
            .simulator
            .fault(Fault::sqs().action(Action::FailEntries {
                bodies_containing: String::new(),
                code: "InternalError".to_owned(),
                sender_fault: false,
                heals_after: None,
            }));
        let start = Instant::now();
        let event = records([record("m-1", &json!("no request"))]);
        assert_eq!(harness.answer(&event).await, failed(["m-1"]));
        let took = start.elapsed();
        assert!(took <= harness.time_left, "{took:?} of {milliseconds} ms");
    }
}

/// A queue's own `MaximumMessageSize` may be less than what SQS takes.
#[tokio::test(start_paused = true)]
async fn a_letter_that_its_queue_refuses_for_its_size_is_halved_until_it_fits() {
    for code in [
        "InvalidParameterValue",
        "AWS.SimpleQueueService.BatchRequestTooLong",
    ] {
        let ids = bad_ids('!', 25);
        let both = request(1, &ids);
        for event in [records([record("m-1", &both)]), both.clone()] {
            let harness = Harness::with_assets([]);
            let fault = Fault::sqs().queue(DEAD_LETTERS);
            harness.simulator.fault(fault.action(Action::FailEntries {
                bodies_containing: ids[7].clone(),
                code: code.to_owned(),
                sender_fault: true,
                heals_after: None,
            }));
            let response = harness.answer(&event).await;
            let mut stored: Vec<String> = harness.lettered_assets().concat();
            stored.sort();
            let mut others = ids.clone();
            others.remove(7);
            others.sort();
            assert_eq!(stored, others, "once each");
            // Halves of 25, 13, 7, 4 and 2, which has the one alone.
            assert_eq!(harness.letters().len(), 5);
            if event["Records"].is_array() {
                assert_eq!(response, failed(["m-1"]), "one asset is in no queue");
                continue;
            }
            let failures = response["failures"].as_array().expect("a list");
            let reported = failures
                .iter()
                .map(|one| (&one["deadLettered"], asset_ids(one)));
            let reported: Vec<(&Value, Vec<String>)> = reported.collect();
            let mut in_order = ids.clone();
            in_order.remove(7);
            let expected = [
                (&json!(true), in_order),
                (&json!(false), vec![ids[7].clone()]),
            ];
            assert_eq!(reported, expected);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_its_queue_refuses_otherwise_is_not_split() {
    let harness = Harness::with_assets([]);
    harness.fault(&format!(
        "sqs:queue={DEAD_LETTERS}:fail-entries=AccessDenied"
    ));
    let event = records([record("m-1", &request(1, &bad_ids('!', 25)))]);
    assert_eq!(harness.answer(&event).await, failed(["m-1"]));
    let calls = harness.simulator.calls();
    assert!(
        calls.iter().all(
            |call| asset_ids(&serde_json::from_str(&call.bodies[0]).expect("JSON")).len() == 25
        )
    );
}
