//! Section 5: batches and client tokens, on the wire.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Action, Fault, Settings, Tokens};

use crate::support::{
    Harness, asset, assets, failed, failed_numbers, project, record, records, request, rule_event,
};

#[tokio::test(start_paused = true)]
async fn requests_of_every_size_at_the_edges_are_cut_at_a_hundred() {
    for (count, expected) in [
        (1, vec![1]),
        (99, vec![99]),
        (100, vec![100]),
        (101, vec![1, 100]),
        (250, vec![50, 100, 100]),
    ] {
        let harness = Harness::with_assets(0..count);
        let event = records([record("m-1", &request(1, &assets(0..count)))]);
        assert_eq!(harness.answer(&event).await, failed([]));
        let mut sizes = harness.call_sizes();
        sizes.sort_unstable();
        assert_eq!(sizes, expected);
        assert_eq!(harness.remaining(), [0; 0]);
        harness.assert_nothing_invalid_was_sent();
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_body_that_an_sqs_message_holds_is_worked_off() {
    let count = (1_048_576 - 64) / 39;
    let harness = Harness::with_assets(0..count).without_work_queue();
    let body = request(1, &assets(0..count));
    let size = body.to_string().len();
    assert!((1_048_400..=1_048_576).contains(&size), "{size}");
    let event = records([record("m-1", &body)]);
    assert_eq!(harness.answer(&event).await, failed([]));
    assert_eq!(harness.remaining(), [0; 0]);
    assert_eq!(harness.calls().len(), count.div_ceil(100));
    harness.assert_nothing_invalid_was_sent();
}

#[tokio::test(start_paused = true)]
async fn a_thousand_messages_of_one_asset_cost_ten_calls() {
    let harness = Harness::with_assets(0..1000);
    let event = records(
        (0..1000).map(|number| record(&format!("m-{number}"), &request(1, &[asset(number)]))),
    );
    assert_eq!(harness.answer(&event).await, failed([]));
    assert_eq!(harness.call_sizes(), [100; 10]);
    assert_eq!(harness.remaining(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_asset_that_two_requests_of_a_batch_ask_for_is_sent_once_and_both_are_told() {
    let harness = Harness::with_assets(0..3);
    harness
        .simulator
        .fault(Fault::sitewise().action(Action::AssetErrors {
            code: "INTERNAL_FAILURE".to_owned(),
            message: "Internal failure.".to_owned(),
            assets: vec![asset(1)],
            heals_after: None,
        }));
    let event = records([
        record("m-1", &request(1, &assets([0, 1]))),
        record("m-2", &request(1, &assets([1, 2]))),
    ]);
    assert_eq!(harness.answer(&event).await, failed([]));
    assert_eq!(harness.call_sizes(), [3, 1, 1]);
    assert_eq!(harness.lettered_assets(), [[asset(1)], [asset(1)]]);
}

#[tokio::test(start_paused = true)]
async fn the_callers_token_is_sent_as_it_is_for_one_batch() {
    let own = "decommission-2026-11-23-press-line-1";
    let harness = Harness::with_assets(0..3);
    let body = json!({"projectId": project(1), "assetIds": assets(0..3), "clientToken": own});
    let event = records([
        record("m-1", &body),
        record("m-2", &request(1, &[asset(0)])),
    ]);
    harness.answer(&event).await;
    let own_call = &harness.calls()[0];
    assert_eq!(own_call.token.as_deref(), Some(own));
    assert_eq!(
        own_call.assets,
        assets(0..3),
        "shared with no other request"
    );
    assert_ne!(harness.calls()[1].token.as_deref(), Some(own));
}

#[tokio::test(start_paused = true)]
async fn the_callers_token_is_the_root_of_all_tokens_for_several_batches() {
    let own = "decommission-2026-11-23-press-line-1";
    let body = json!({"projectId": project(1), "assetIds": assets(0..250), "clientToken": own});
    let harness = Harness::with_assets(0..250);
    harness.answer(&records([record("m-1", &body)])).await;
    let first: BTreeSet<_> = harness.calls().into_iter().map(|call| call.token).collect();
    assert_eq!(first.len(), 3);
    assert!(!first.contains(&Some(own.to_owned())));
    harness.simulator.clear_calls();
    harness.answer(&rule_event(&body)).await;
    let again: BTreeSet<_> = harness.calls().into_iter().map(|call| call.token).collect();
    assert_eq!(first, again, "however it arrives");
}

fn tokens_of_full_batches(harness: &Harness) -> BTreeSet<(Vec<String>, Option<String>)> {
    harness
        .calls()
        .into_iter()
        .filter(|call| call.assets.len() == 100)
        .map(|call| (call.assets, call.token))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_redelivered_message_sends_the_same_token_for_the_same_full_batch() {
    let message = record("m-1", &request(1, &assets(0..250)));
    let harness = Harness::with_assets(0..250);
    harness.answer(&records([message.clone()])).await;
    let first = tokens_of_full_batches(&harness);
    harness.simulator.clear_calls();
    let neighbour = record("m-2", &request(1, &assets(300..340)));
    harness.answer(&records([neighbour, message])).await;
    assert_eq!(tokens_of_full_batches(&harness), first);
    assert_eq!(first.len(), 2);

    let another = record("m-3", &request(1, &assets(0..250)));
    harness.simulator.clear_calls();
    harness.answer(&records([another])).await;
    assert_ne!(
        tokens_of_full_batches(&harness),
        first,
        "another ask, another token"
    );
}

#[tokio::test(start_paused = true)]
async fn a_token_comes_with_the_same_ids_in_the_same_order_whatever_order_the_messages_have() {
    let first = record("m-1", &request(1, &assets([5, 2, 9])));
    let second = record("m-2", &request(1, &assets([7, 1])));
    let calls = async |records_in_order: [&Value; 2]| {
        let harness = Harness::with_assets(0..10);
        harness
            .answer(&records(records_in_order.map(Value::clone)))
            .await;
        let calls = harness.calls().into_iter();
        calls
            .map(|call| (call.token, call.assets))
            .collect::<Vec<_>>()
    };
    let one = calls([&first, &second]).await;
    assert_eq!(one[0].1, assets([1, 2, 5, 7, 9]));
    assert_eq!(one, calls([&second, &first]).await);
}

#[tokio::test(start_paused = true)]
async fn a_retried_invocation_sends_the_same_tokens() {
    for event in [
        request(1, &assets(0..250)),
        rule_event(&request(1, &assets(0..250))),
    ] {
        let harness = Harness::with_assets(0..250);
        harness.answer(&event).await;
        let first = tokens_of_full_batches(&harness);
        harness.simulator.clear_calls();
        harness.answer(&event).await;
        assert_eq!(tokens_of_full_batches(&harness), first);
    }
    let mut harness = Harness::with_assets(0..250);
    harness.answer(&request(1, &assets(0..250))).await;
    let first = tokens_of_full_batches(&harness);
    harness.simulator.clear_calls();
    harness.request_id = "another-invocation";
    harness.answer(&request(1, &assets(0..250))).await;
    assert_ne!(tokens_of_full_batches(&harness), first);
}

#[tokio::test(start_paused = true)]
async fn whatever_the_service_remembers_of_tokens_everything_gets_done() {
    for tokens in [
        Tokens::Ignored,
        Tokens::SuccessesReplayed,
        Tokens::AllReplayed,
    ] {
        let harness = Harness::new(Settings {
            tokens,
            ..Settings::default()
        });
        harness.simulator.add_project(&project(1), assets(0..250));
        harness
            .simulator
            .fault(Fault::sitewise().first(2).action(Action::ResetAfter));
        harness
            .simulator
            .fault(Fault::sitewise().action(Action::AssetErrors {
                code: "INTERNAL_FAILURE".to_owned(),
                message: "Internal failure.".to_owned(),
                assets: assets([7, 120]),
                heals_after: Some(1),
            }));
        let event = records([record("m-1", &request(1, &assets(0..250)))]);
        for _delivery in 0..3 {
            assert_eq!(harness.answer(&event).await, failed([]));
        }
        assert_eq!(harness.remaining(), [0; 0]);
        assert_eq!(harness.letters().len(), 0);
        harness.assert_nothing_invalid_was_sent();
    }
}

#[tokio::test(start_paused = true)]
async fn a_redelivery_does_not_remove_an_asset_that_was_added_back() {
    for tokens in [Tokens::SuccessesReplayed, Tokens::AllReplayed] {
        let harness = Harness::new(Settings {
            tokens,
            ..Settings::default()
        });
        harness.simulator.add_project(&project(1), assets(0..100));
        let event = records([record("m-1", &request(1, &assets(0..100)))]);
        harness.answer(&event).await;
        harness.simulator.add_project(&project(1), [asset(5)]);
        harness.answer(&event).await;
        assert_eq!(harness.remaining(), [5]);
        let new = records([record("m-2", &request(1, &assets(0..100)))]);
        harness.answer(&new).await;
        assert_eq!(harness.remaining(), [0; 0], "a new ask removes it");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_in_flight_are_bounded_and_run_side_by_side() {
    for (concurrency, round_trips) in [(1, 12), (4, 3), (8, 2), (64, 1)] {
        let mut harness = Harness::with_assets(0..1200).without_work_queue();
        harness.function.call_concurrency = concurrency;
        harness
            .simulator
            .fault(Fault::sitewise().action(Action::Latency(Duration::from_secs(1))));
        let start = tokio::time::Instant::now();
        let report: Value = harness.answer(&request(1, &assets(0..1200))).await;
        assert_eq!(report["calls"], 12);
        assert_eq!(
            start.elapsed().as_secs(),
            round_trips,
            "at {concurrency} at a time"
        );
    }
}

/// The projects of the calls for messages of 250 assets, each of a project of its
/// own, that were delivered so often.
async fn order_of_calls(receives: &[usize]) -> Vec<usize> {
    let mut harness = Harness::new(Settings::default());
    harness.function.call_concurrency = 1;
    let event = records(receives.iter().enumerate().map(|(number, receives)| {
        let ids = assets(number * 250..(number + 1) * 250);
        harness.simulator.add_project(&project(number), &ids);
        let mut record = record(&format!("m-{number}"), &request(number, &ids));
        record["attributes"]["ApproximateReceiveCount"] = json!(receives.to_string());
        record
    }));
    assert_eq!(harness.answer(&event).await, failed([]));
    let projects = harness.calls().into_iter().map(|call| call.project);
    projects
        .map(|id| {
            let number = (0..receives.len()).find(|number| id == Some(project(*number)));
            number.expect("a project of this test")
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn the_first_batch_of_each_new_message_comes_before_any_messages_second() {
    assert_eq!(order_of_calls(&[1, 1, 1]).await[..3], [0, 1, 2]);
    let order = order_of_calls(&[3, 1, 5, 1]).await;
    assert_eq!(order[..2], [1, 3], "new messages");
    assert_eq!(
        order[2..8],
        [2, 2, 2, 0, 0, 0],
        "then those delivered most often"
    );
    assert_eq!(order[8..], [1, 1, 3, 3]);
}

/// Four messages of 150 assets, each delivered before, and time for three calls
/// of a second, one at a time: what is not named is done.
#[tokio::test(start_paused = true)]
async fn where_time_is_short_messages_that_come_again_are_finished_one_by_one() {
    for (receives, left) in [
        // The first message's full batch, its tail with the second's, and
        // that one's full batch.
        ([2, 2, 2, 2], vec![2, 3]),
        ([2, 2, 2, 5], vec![0, 1, 2]),
        ([3, 2, 4, 4], vec![0, 1]),
    ] {
        let mut harness = Harness::new(Settings {
            latency: Duration::from_secs(1),
            ..Settings::default()
        });
        harness.function.call_concurrency = 1;
        harness.time_left = Duration::from_millis(4200);
        harness.simulator.add_project(&project(1), assets(0..600));
        let event = records((0..4).map(|number| {
            let ids = assets(number * 150..(number + 1) * 150);
            let mut record = record(&format!("m-{number}"), &request(1, &ids));
            record["attributes"]["ApproximateReceiveCount"] = json!(receives[number].to_string());
            record
        }));
        assert_eq!(failed_numbers(&harness.answer(&event).await), left);
        assert_eq!(harness.calls().len(), 3);
    }
}

/// Shared batches of ten messages, of which the first fails.
#[tokio::test(start_paused = true)]
async fn every_batch_is_tried_once_before_any_is_split_or_repeated() {
    for how in [
        "status=404:type=ResourceNotFoundException",
        "status=400:type=InvalidRequestException",
        "status=409",
        "asset-error=INTERNAL_FAILURE",
        "asset-error=INTERNAL_FAILURE:heals=1",
    ] {
        let mut harness = Harness::new(Settings::default());
        harness.function.call_concurrency = 1;
        let event = records((0..100).map(|number| {
            let ids = assets(number * 10..(number + 1) * 10);
            harness.simulator.add_project(&project(number / 10), &ids);
            record(&format!("m-{number}"), &request(number / 10, &ids))
        }));
        for failing in [7, 302] {
            harness.fault(&format!("disassociate:asset={}:{how}", asset(failing)));
        }
        harness.answer(&event).await;
        let sizes = harness.call_sizes();
        assert_eq!(sizes[..10], [100; 10], "{how}");
        assert!(
            sizes[10..].iter().all(|size| *size < 100),
            "{how}: {sizes:?}"
        );
        assert!(sizes.len() > 10, "{how}");
    }
}

/// Tails of which no two fit in a batch, two just do, and two or three do.
#[tokio::test(start_paused = true)]
async fn tails_share_as_few_batches_as_they_fit_in() {
    for (count, sizes, calls) in [
        (2_400, [51, 51], 2_400),
        (240, [51, 49], 120),
        (240, [33, 34], 100),
    ] {
        let harness = Harness::new(Settings::default());
        let mut first = 0;
        let event = records((0..count).map(|number| {
            let ids = assets(first..first + sizes[number % 2]);
            first += ids.len();
            harness.simulator.add_project(&project(1), &ids);
            record(&format!("m-{number}"), &request(1, &ids))
        }));
        assert_eq!(harness.answer(&event).await, failed([]));
        assert_eq!(harness.calls().len(), calls, "{sizes:?}");
    }
}
