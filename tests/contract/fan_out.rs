//! Section 5, large requests: parts through the work queue.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Action, Fault};

use crate::support::{
    DEAD_LETTERS, Harness, WORK, asset, asset_ids, assets, failed, project, record, records,
    request, rule_event, topic_event,
};

fn with_limit(mut harness: Harness, limit: usize) -> Harness {
    harness.function.fan_out_assets = limit;
    harness
}

fn tokens(parts: &[Value]) -> Vec<String> {
    parts
        .iter()
        .map(|part| part["clientToken"].to_string())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_request_at_the_limit_is_worked_off_where_it_arrives() {
    let harness = with_limit(Harness::with_assets(0..200), 200);
    let event = records([record("m-1", &request(1, &assets(0..200)))]);
    assert_eq!(harness.answer(&event).await, failed([]));
    assert_eq!(harness.call_sizes(), [100, 100]);
    assert_eq!(harness.parts().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_past_the_limit_is_cut_into_parts_and_acknowledged() {
    let harness = with_limit(Harness::with_assets(0..501), 200);
    let event = records([record("m-1", &request(1, &assets(0..501)))]);
    assert_eq!(harness.answer(&event).await, failed([]));
    assert_eq!(harness.calls().len(), 0);
    let parts = harness.parts();
    let held: Vec<Vec<String>> = parts.iter().map(asset_ids).collect();
    assert_eq!(held, [assets(0..200), assets(200..400), assets(400..501)]);
    let distinct: BTreeSet<String> = tokens(&parts).into_iter().collect();
    assert_eq!(distinct.len(), 3);
    for (index, part) in parts.iter().enumerate() {
        assert_eq!(part["projectId"], project(1));
        assert_eq!(
            part["sitewiseDisassociatorPart"],
            json!({"of": "m-1", "number": index + 1, "count": 3})
        );
    }
}

#[tokio::test(start_paused = true)]
async fn parts_are_worked_off_and_never_cut_again() {
    let harness = with_limit(Harness::with_assets(0..501), 200);
    harness
        .answer(&records([record("m-1", &request(1, &assets(0..501)))]))
        .await;
    let harness = with_limit(harness, 100);
    let parts = harness.simulator.take_messages(WORK);
    for (index, part) in parts.iter().enumerate() {
        let event = records([record(&format!("p-{index}"), &json!(part.body))]);
        assert_eq!(harness.answer(&event).await, failed([]));
    }
    assert_eq!(harness.remaining(), [0; 0]);
    assert_eq!(harness.parts().len(), 0, "whatever the limit is now");
    let tokens: BTreeSet<_> = harness.calls().into_iter().map(|call| call.token).collect();
    assert_eq!(tokens.len(), 6, "each batch of each part has its own");
}

#[tokio::test(start_paused = true)]
async fn a_repeated_fan_out_repeats_the_same_parts() {
    let own = json!({
        "projectId": project(1), "assetIds": assets(0..250),
        "clientToken": "decommission-2026-11-23-press-line-1",
    });
    let plain = request(1, &assets(0..250));
    for event in [
        records([record("m-1", &plain)]),
        records([record("m-1", &own)]),
        rule_event(&plain),
        topic_event(&own),
        plain.clone(),
    ] {
        let harness = with_limit(Harness::with_assets(0..250), 100);
        harness.answer(&event).await;
        let first = harness.simulator.take_messages(WORK);
        harness.answer(&event).await;
        let second = harness.simulator.take_messages(WORK);
        let bodies = |messages: Vec<simulator::Message>| -> Vec<String> {
            messages.into_iter().map(|message| message.body).collect()
        };
        assert_eq!(bodies(first), bodies(second));
    }
}

#[tokio::test(start_paused = true)]
async fn the_parts_tokens_come_from_the_callers_token_or_else_the_message() {
    let own = |token: &str| json!({"projectId": project(1), "assetIds": assets(0..250), "clientToken": token});
    let a = "decommission-2026-11-23-press-line-a";
    let b = "decommission-2026-11-23-press-line-b";
    let mut seen = Vec::new();
    for (id, body) in [
        ("m-1", own(a)),
        ("m-2", own(a)),
        ("m-1", own(b)),
        ("m-1", request(1, &assets(0..250))),
        ("m-2", request(1, &assets(0..250))),
    ] {
        let harness = with_limit(Harness::with_assets(0..250), 100);
        harness.answer(&records([record(id, &body)])).await;
        seen.push(tokens(&harness.parts()));
    }
    assert_eq!(seen[0], seen[1], "the caller's token is all that counts");
    let distinct: BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn bad_ids_of_a_large_request_go_to_a_letter() {
    let harness = with_limit(Harness::with_assets(0..250), 100);
    let mut ids = assets(0..250);
    ids.insert(30, "PUMP-7".to_owned());
    assert_eq!(
        harness
            .answer(&records([record("m-1", &request(1, &ids))]))
            .await,
        failed([])
    );
    assert_eq!(harness.lettered_assets(), [["PUMP-7"]]);
    let held: Vec<String> = harness.parts().iter().flat_map(asset_ids).collect();
    assert_eq!(held, assets(0..250));
}

fn fails(queue: &str, text: &str) -> Fault {
    Fault::sqs().queue(queue).action(Action::FailEntries {
        bodies_containing: text.to_owned(),
        code: "InternalError".to_owned(),
        sender_fault: false,
        heals_after: None,
    })
}

#[tokio::test(start_paused = true)]
async fn unless_all_parts_are_stored_the_original_comes_back() {
    for fault in [
        fails(WORK, &asset(249)),
        fails(WORK, ""),
        Fault::sqs().queue(WORK).action(Action::Reset),
        Fault::sqs().queue(WORK).action(Action::Stall),
    ] {
        let harness = with_limit(Harness::with_assets(0..250), 100);
        harness.simulator.fault(fault);
        let event = records([
            record("m-1", &request(1, &assets(0..250))),
            record("m-2", &request(2, &["bad".to_owned()])),
        ]);
        assert_eq!(harness.answer(&event).await, failed(["m-1"]));
    }
}

/// Else the parts would be stored again at each delivery.
#[tokio::test(start_paused = true)]
async fn no_part_is_stored_before_the_dead_letters_are() {
    let mut ids = assets(0..250);
    ids.insert(30, "PUMP-7".to_owned());
    let large = request(1, &ids);
    for fault in [
        fails(DEAD_LETTERS, "PUMP-7"),
        fails(DEAD_LETTERS, ""),
        Fault::sqs().queue(DEAD_LETTERS).action(Action::Reset),
        Fault::sqs().queue(DEAD_LETTERS).action(Action::Truncate),
        Fault::sqs().queue(DEAD_LETTERS).action(Action::Stall),
    ] {
        let harness = with_limit(Harness::with_assets(0..250), 100);
        harness.simulator.add_project(&project(2), assets(500..750));
        harness.simulator.fault(fault.clone());
        let event = records([
            record("m-1", &large),
            record("m-2", &request(2, &assets(500..750))),
        ]);
        for _delivery in 0..5 {
            assert_eq!(harness.answer(&event).await, failed(["m-1"]), "{fault:?}");
            let stored = harness.simulator.take_messages(WORK);
            assert_eq!(stored.len(), 3, "the other message's: {fault:?}");
            assert!(stored.iter().all(|part| part.body.contains(&project(2))));
        }
        for event in [rule_event(&large), topic_event(&large)] {
            let error = harness
                .handle(&event)
                .await
                .expect_err("only Lambda can keep it");
            assert!(error.starts_with("NotStored"), "{error}");
            assert_eq!(harness.parts().len(), 0, "{fault:?}");
        }
        let report = harness.answer(&large).await;
        assert_eq!(report["assets"]["queued"], 0);
        assert_eq!(report["assets"]["unfinished"], 250);
        assert_eq!(harness.parts().len(), 0, "{fault:?}");

        harness.simulator.clear_faults();
        harness.simulator.take_messages(DEAD_LETTERS);
        assert_eq!(
            harness.answer(&records([record("m-1", &large)])).await,
            failed([])
        );
        assert_eq!(harness.lettered_assets(), [["PUMP-7"]]);
        assert_eq!(harness.parts().len(), 3);
    }
}

/// A list may differ at the next delivery: a part's place says nothing.
#[tokio::test(start_paused = true)]
async fn a_parts_token_comes_from_its_assets_as_a_set_and_not_from_its_place() {
    let cut = async |ids: Vec<String>| {
        let harness = with_limit(Harness::with_assets(0..0), 100);
        harness
            .answer(&records([record("m-1", &request(1, &ids))]))
            .await;
        let parts = harness.parts().into_iter();
        let token_of = |part: &Value| part["clientToken"].to_string();
        parts
            .map(|part| (BTreeSet::from_iter(asset_ids(&part)), token_of(&part)))
            .collect::<BTreeSet<_>>()
    };
    let all = cut(assets(0..300)).await;
    assert_eq!(all.len(), 3);
    assert!(
        cut(assets(100..300)).await.is_subset(&all),
        "the first is gone"
    );
    let reversed = (0..300).rev();
    assert_eq!(cut(assets(reversed)).await, all, "in another order");
}

#[tokio::test(start_paused = true)]
async fn a_report_counts_what_is_queued_without_calling_it_a_failure() {
    for event in [
        request(1, &assets(0..250)),
        rule_event(&request(1, &assets(0..250))),
        topic_event(&request(1, &assets(0..250))),
    ] {
        let harness = with_limit(Harness::with_assets(0..250), 100);
        let report = harness.answer(&event).await;
        assert_eq!(report["status"], "accepted");
        assert_eq!(
            report["assets"],
            json!({"requested": 250, "duplicates": 0, "disassociated": 0, "absent": 0,
                   "rejected": 0, "unfinished": 0, "queued": 250})
        );
        assert_eq!(report["failures"], json!([]));
        assert_eq!(harness.parts().len(), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_queued_is_reported_unfinished_with_the_reason() {
    let harness = with_limit(Harness::with_assets(0..250), 100);
    harness
        .simulator
        .fault(Fault::sqs().action(Action::FailEntries {
            bodies_containing: asset(249),
            code: "InternalError".to_owned(),
            sender_fault: false,
            heals_after: None,
        }));
    let report = harness.answer(&request(1, &assets(0..250))).await;
    assert_eq!(report["status"], "partial");
    assert_eq!(report["assets"]["queued"], 200);
    assert_eq!(report["assets"]["unfinished"], 50);
    let failure = &report["failures"][0];
    assert_eq!(failure["code"], "InternalError");
    assert_eq!(failure["assetIds"], json!(assets(200..250)));
    assert_eq!(failure["retryable"], true);
    assert_eq!(failure["queued"], false);

    let error = harness
        .handle(&rule_event(&request(1, &assets(0..250))))
        .await
        .expect_err("only Lambda can keep these");
    assert!(error.starts_with("NotStored: 50 assets"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn without_a_work_queue_a_request_of_any_size_is_worked_off() {
    let harness = with_limit(Harness::with_assets(0..1500).without_work_queue(), 100);
    let report = harness.answer(&request(1, &assets(0..1500))).await;
    assert_eq!(report["status"], "succeeded");
    assert_eq!(report["calls"], 15);
}

#[tokio::test(start_paused = true)]
async fn unfinished_work_that_is_retried_with_other_assets_has_another_token() {
    let down = |harness: &Harness, number: usize| {
        harness.simulator.clear_faults();
        harness
            .simulator
            .fault(Fault::sitewise().asset(asset(number)).action(Action::Reset));
    };
    let harness = Harness::with_assets(0..200);
    let event = rule_event(&request(1, &assets(0..200)));
    down(&harness, 0);
    harness.answer(&event).await;
    down(&harness, 150);
    harness.answer(&event).await;
    let parts = harness.parts();
    assert_eq!(asset_ids(&parts[0]), assets(0..100));
    assert_eq!(asset_ids(&parts[1]), assets(100..200));
    assert_ne!(parts[0]["clientToken"], parts[1]["clientToken"]);
}

#[tokio::test(start_paused = true)]
async fn parts_that_there_is_no_time_to_send_are_told_of() {
    let mut harness = with_limit(Harness::with_assets([]), 100);
    harness.time_left = Duration::from_secs(3);
    harness.simulator.fault(Fault::sqs().action(Action::Stall));
    let report = harness.answer(&request(1, &assets(0..10_000))).await;
    assert_eq!(report["assets"]["unfinished"], 10_000);
    let told: Vec<(&Value, Vec<String>)> = report["failures"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|failure| (&failure["code"], asset_ids(failure)))
        .collect();
    assert_eq!(
        told,
        [
            (&json!("Timeout"), assets(0..8000)),
            (&json!("DeadlineReached"), assets(8000..10_000)),
        ]
    );
    assert_eq!(harness.simulator.calls().len(), 8, "ten parts each");
}
