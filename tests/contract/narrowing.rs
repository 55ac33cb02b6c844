//! Section 4, a refused batch of which all assets are listed: which one is at
//! fault, and at what cost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};
use simulator::{Absent, Action, Fault, Operation, Settings};
use sitewise_disassociator::aws::retry::{ASSET_ROUNDS, ROUND_PAUSE};

use crate::support::{
    Harness, REFUSALS, asset, asset_ids, assets, failed, project, record, records, request,
    rule_event,
};

#[tokio::test(start_paused = true)]
async fn the_assets_at_fault_are_rejected_and_the_others_go_ahead() {
    for (status, code) in REFUSALS {
        for failing in [
            vec![0],
            vec![99],
            vec![3, 50, 51],
            (0..100).step_by(7).collect(),
            (0..100).collect(),
        ] {
            let harness = Harness::with_assets(0..100);
            harness.refuse(failing.clone(), (status, code));
            let event = records([record("m-1", &request(1, &assets(0..100)))]);
            assert_eq!(harness.answer(&event).await, failed([]));
            assert_eq!(harness.remaining(), failing);
            let letter = harness.letter_bodies().remove(0);
            assert_eq!(letter["assetIds"], json!(assets(failing.clone())));
            let error = |id| json!({"assetId": id, "code": code, "message": "refused"});
            let errors: Vec<Value> = assets(failing).into_iter().map(error).collect();
            assert_eq!(letter["errors"], json!(errors));
            harness.assert_nothing_invalid_was_sent();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn one_bad_asset_of_a_hundred_costs_at_most_24_requests_wherever_it_is() {
    for concurrency in [1, 8] {
        for place in 0..100 {
            let mut harness = Harness::with_assets(0..100);
            harness.function.call_concurrency = concurrency;
            harness.refuse([place], REFUSALS[place % 2]);
            let event = records([record("m-1", &request(1, &assets(0..100)))]);
            assert_eq!(harness.answer(&event).await, failed([]));
            assert_eq!(harness.lettered_assets(), [[asset(place)]]);
            let requests = harness.requests().len();
            assert!(requests <= 24, "{requests} requests, {place}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_asset_alone_has_three_rounds_with_pauses_between_and_a_read_after_each() {
    for refusal in REFUSALS {
        // How often it is refused before it is accepted.
        for refused in 1..=4 {
            let harness = Harness::with_assets([0]);
            let fault = Fault::on(Operation::Disassociate).first(refused);
            harness.simulator.fault(fault.action(Action::Refuse {
                status: refusal.0,
                error_type: refusal.1.to_owned(),
                message: format!("refused until {refused}"),
            }));
            let event = records([record("m-1", &request(1, &[asset(0)]))]);
            assert_eq!(harness.answer(&event).await, failed([]));
            let rounds = ASSET_ROUNDS as usize;
            let calls = harness.calls();
            assert_eq!(calls.len(), rounds.min(refused + 1));
            assert_eq!(harness.reads().len(), rounds.min(refused));
            let mut pause = ROUND_PAUSE;
            for pair in calls.windows(2) {
                assert_eq!(pair[1].at - pair[0].at, pause);
                pause *= 2;
            }
            let tokens: BTreeSet<_> = calls.iter().map(|call| &call.token).collect();
            assert_eq!(tokens.len(), calls.len());
            let errors: Vec<Value> = harness
                .letter_bodies()
                .iter()
                .map(|letter| letter["errors"].clone())
                .collect();
            if refused < rounds {
                assert_eq!(errors, [] as [Value; 0]);
                assert_eq!(harness.remaining(), [0; 0]);
            } else {
                let message = format!("refused until {refused}");
                let error = json!({"assetId": asset(0), "code": refusal.1, "message": message});
                assert_eq!(errors, [json!([error])]);
            }
        }
    }
}

/// Ten messages of ten assets share the call.
#[tokio::test(start_paused = true)]
async fn a_shared_batch_is_split_between_requests_first() {
    for refusal in REFUSALS {
        for failing in [0, 47, 99] {
            let harness = Harness::with_assets(0..100);
            harness.refuse([failing], refusal);
            let event = records((0..10).map(|number| {
                let ids = assets(number * 10..(number + 1) * 10);
                record(&format!("m-{number}"), &request(1, &ids))
            }));
            assert_eq!(harness.answer(&event).await, failed([]));
            assert_eq!(harness.lettered_assets(), [[asset(failing)]]);
            for call in harness.calls() {
                let parts: Vec<usize> = (0..10)
                    .map(|number| {
                        let ids = assets(number * 10..(number + 1) * 10);
                        ids.iter().filter(|id| call.assets.contains(id)).count()
                    })
                    .filter(|count| *count > 0)
                    .collect();
                assert!(
                    parts.len() == 1 || parts.iter().all(|count| *count == 10),
                    "{parts:?}"
                );
            }
        }
    }
}

/// Each asset is in every call of its batch until a call with it is accepted,
/// and in none after that.
#[tokio::test(start_paused = true)]
async fn what_was_accepted_is_not_sent_again() {
    let harness = Harness::with_assets(0..100);
    harness.refuse([42], REFUSALS[0]);
    harness
        .answer(&records([record("m-1", &request(1, &assets(0..100)))]))
        .await;
    let mut accepted = BTreeSet::new();
    for call in harness.calls() {
        assert!(call.assets.iter().all(|id| !accepted.contains(id)));
        if call.status == Some(200) {
            accepted.extend(call.assets);
        }
    }
    assert_eq!(accepted.len(), 99);
}

/// Nor is a refused batch split while the service gives no answers.
#[tokio::test(start_paused = true)]
async fn an_outage_after_a_refusal_costs_few_calls() {
    let harness = Harness::with_assets(0..100);
    harness.fault("disassociate:after=1:status=503");
    harness.refuse([0], REFUSALS[0]);
    let event = records([record("m-1", &request(1, &assets(0..100)))]);
    assert_eq!(harness.answer(&event).await, failed(["m-1"]));
    assert_eq!(harness.letters().len(), 0);
    let distinct: BTreeSet<Vec<String>> = harness
        .calls()
        .into_iter()
        .map(|call| call.assets)
        .collect();
    assert!(distinct.len() <= 5, "{distinct:?}");
}

#[tokio::test(start_paused = true)]
async fn an_asset_at_fault_that_two_requests_ask_for_is_rejected_for_both() {
    for refusal in REFUSALS {
        let harness = Harness::with_assets(0..10);
        harness.refuse([9], refusal);
        let event = records([
            record("m-1", &request(1, &assets([0, 9, 1]))),
            record("m-2", &request(1, &assets([2, 9, 3]))),
        ]);
        assert_eq!(harness.answer(&event).await, failed([]));
        assert_eq!(harness.remaining(), [4, 5, 6, 7, 8, 9]);
        assert_eq!(harness.lettered_assets(), [[asset(9)], [asset(9)]]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_report_says_which_asset_was_at_fault() {
    let harness = Harness::with_assets(0..10);
    harness.refuse([9], REFUSALS[0]);
    let report = harness
        .answer(&rule_event(&request(1, &assets(0..10))))
        .await;
    assert_eq!(report["status"], "partial");
    assert_eq!(report["assets"]["disassociated"], 9);
    assert_eq!(report["calls"], json!(harness.calls().len()));
    let failure = json!({
        "assetIds": [asset(9)], "code": "ResourceNotFoundException", "message": "refused",
        "retryable": false, "deadLettered": true, "queued": false,
    });
    assert_eq!(report["failures"], json!([failure]));
}

#[tokio::test(start_paused = true)]
async fn what_there_is_no_time_to_find_out_is_unfinished() {
    for seconds in [1, 2, 3, 5] {
        let mut harness = Harness::new(Settings {
            latency: Duration::from_millis(200),
            ..Settings::default()
        });
        harness.time_left = Duration::from_secs(seconds);
        harness.simulator.add_project(&project(1), assets(0..100));
        harness.refuse(0..100, REFUSALS[0]);
        let event = records([record("m-1", &request(1, &assets(0..100)))]);
        assert_eq!(harness.answer(&event).await, failed(["m-1"]), "{seconds} s");
        assert_eq!(harness.letters().len(), 0);
    }
}

/// Requests of a project: which assets each names. Even numbers are in the
/// project, those that four divides are good; odd ones are gone.
fn any_requests() -> impl Strategy<Value = Vec<BTreeSet<usize>>> {
    let some_good = proptest::collection::btree_set((0..30_usize).prop_map(|n| n * 4), 0..30);
    let few_bad = proptest::collection::btree_set((0..30_usize).prop_map(|n| n * 4 + 2), 0..3);
    let some_gone = proptest::collection::btree_set((0..60_usize).prop_map(|n| n * 2 + 1), 0..8);
    let one = (some_good, few_bad, some_gone).prop_map(|(good, bad, gone)| &(&good | &bad) | &gone);
    proptest::collection::vec(one.prop_filter("not empty", |one| !one.is_empty()), 1..8)
}

fn any_absent() -> impl Strategy<Value = Absent> {
    prop_oneof![
        Just(Absent::Ignore),
        Just(Absent::AssetError {
            code: "NOT_IN_PROJECT".to_owned(),
            message: "not in project".to_owned(),
        }),
        Just(Absent::NotFound),
        Just(Absent::Invalid),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_requests_fate_depends_only_on_its_own_assets(
        requests in any_requests(),
        absent in any_absent(),
        refusal in proptest::sample::select(&REFUSALS[..]),
        concurrency in 1..9_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let mut harness = Harness::new(Settings {
                asset_not_in_project: absent.clone(),
                unknown_asset: absent,
                ..Settings::default()
            });
            harness.function.call_concurrency = concurrency;
            harness.simulator.add_project(&project(1), assets((0..60).map(|n| n * 2)));
            harness.refuse((0..30).map(|n| n * 4 + 2), refusal);
            let event = records(requests.iter().enumerate().map(|(index, numbers)| {
                record(&format!("m-{index}"), &request(1, &assets(numbers.iter().copied())))
            }));
            assert_eq!(harness.answer(&event).await, failed([]));
            harness.assert_nothing_invalid_was_sent();
            // Each good asset that anyone named is gone, and no other.
            let named: BTreeSet<usize> = requests.iter().flatten().copied().collect();
            let left: Vec<usize> = (0..60)
                .map(|n| n * 2)
                .filter(|n| n % 4 == 2 || !named.contains(n))
                .collect();
            assert_eq!(harness.remaining(), left);
            // Each request's letter names its own bad assets, and no other.
            let mut letters: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for body in harness.letter_bodies() {
                let source = body["source"]["messageId"].as_str().expect("an id").to_owned();
                letters.insert(source, asset_ids(&body));
            }
            for (index, numbers) in requests.iter().enumerate() {
                let bad = assets(numbers.iter().copied().filter(|n| n % 4 == 2));
                let letter = letters.remove(&format!("m-{index}")).unwrap_or_default();
                assert_eq!(letter, bad);
            }
            assert!(letters.is_empty());
        });
    }
}
