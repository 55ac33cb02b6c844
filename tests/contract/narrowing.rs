//! Section 4, a refused batch: who is at fault, and at what cost.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use simulator::{Absent, Names, Settings, Throttle};
use tokio::time::Instant;

use crate::support::{
    Rig, asset, asset_ids, assets, failed, project, record, records, request, rule_event,
};

const NAMES: [Names; 3] = [Names::Resource, Names::Project, Names::Nothing];

fn refusing(absent: &Absent, names: Names) -> Rig {
    Rig::new(Settings {
        asset_not_in_project: absent.clone(),
        unknown_asset: absent.clone(),
        not_found_names: names,
        ..Settings::default()
    })
}

fn refusals() -> [(Absent, &'static str); 2] {
    [
        (Absent::NotFound, "ResourceNotFoundException"),
        (Absent::Invalid, "InvalidRequestException"),
    ]
}

#[tokio::test(start_paused = true)]
async fn the_assets_at_fault_are_rejected_and_the_rest_go_ahead() {
    for (absent, code) in refusals() {
        for names in NAMES {
            // Most calls, where the message names a culprit and where it does not.
            for (culprits, most_named, most) in [
                (vec![0], 4, 6),
                (vec![99], 4, 18),
                (vec![3, 50, 51], 9, 32),
                ((0..100).step_by(7).collect(), 56, 116),
            ] {
                let rig = refusing(&absent, names);
                let good: Vec<usize> = (0..100).filter(|n| !culprits.contains(n)).collect();
                rig.simulator.add_project(&project(1), assets(good.clone()));
                let event = records([record("m-1", &request(1, &assets(0..100)))]);
                assert_eq!(rig.answer(&event).await, failed([]));
                assert_eq!(rig.remaining(), [0; 0], "{code} {names:?} {culprits:?}");
                let letter = rig.letter_bodies().remove(0);
                assert_eq!(
                    letter["assetIds"],
                    json!(assets(culprits.clone())),
                    "{code} {names:?}"
                );
                for error in letter["errors"].as_array().expect("a list") {
                    assert_eq!(error["code"], code);
                }
                let calls = rig.calls().len();
                let is_named = matches!(names, Names::Resource);
                let most = if is_named { most_named } else { most };
                assert!(calls <= most, "{calls} calls for {culprits:?}, {names:?}");
                rig.assert_nothing_invalid_was_sent();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_culprit_that_the_message_names_costs_three_calls() {
    let rig = refusing(&Absent::NotFound, Names::Resource);
    rig.simulator.add_project(&project(1), assets(0..99));
    let event = records([record("m-1", &request(1, &assets(0..100)))]);
    assert_eq!(rig.answer(&event).await, failed([]));
    assert_eq!(rig.call_sizes(), [100, 1, 99]);
    assert_eq!(rig.lettered_assets(), [[asset(99)]]);
}

/// The whole; one alone, which shows that the project exists; the halves of the
/// rest, and of the one at fault: no call whose answer is known.
#[tokio::test(start_paused = true)]
async fn what_is_known_to_be_refused_is_not_tried_again() {
    let rig = refusing(&Absent::NotFound, Names::Nothing);
    rig.simulator.add_project(&project(1), assets(0..3));
    let event = records([record("m-1", &request(1, &assets(0..4)))]);
    assert_eq!(rig.answer(&event).await, failed([]));
    let sizes: Vec<usize> = rig.calls().iter().map(|call| call.assets.len()).collect();
    assert_eq!(sizes, [4, 1, 1, 2, 1, 1]);
    assert_eq!(rig.lettered_assets(), [assets([3])]);
}

/// Nor is a refused batch taken apart while the service gives no answers.
#[tokio::test(start_paused = true)]
async fn an_outage_is_not_met_with_more_calls_than_before() {
    let rig = refusing(&Absent::NotFound, Names::Nothing);
    rig.simulator.add_project(&project(1), assets(0..99));
    let fault = "disassociate:after=1:status=503";
    rig.simulator.fault(fault.parse().expect("a fault"));
    let event = records([record("m-1", &request(1, &assets(0..100)))]);
    assert_eq!(rig.answer(&event).await, failed(["m-1"]));
    let mut sizes: Vec<usize> = rig.calls().iter().map(|call| call.assets.len()).collect();
    sizes.sort_unstable();
    // The whole, one alone and the rest, and both once more, for there was an
    // answer; three attempts of each.
    assert_eq!(sizes, [vec![1; 6], vec![99; 6], vec![100]].concat());
}

#[tokio::test(start_paused = true)]
async fn a_project_that_does_not_exist_costs_a_handful_of_calls() {
    for names in NAMES {
        for (count, most) in [(1, 1), (100, 6), (250, 8), (2_000, 13), (25_000, 13)] {
            let rig = refusing(&Absent::Ignore, names).without_work_queue();
            let event = records([record("m-1", &request(1, &assets(0..count)))]);
            assert_eq!(rig.answer(&event).await, failed([]));
            let calls = rig.calls().len();
            assert!(calls <= most, "{calls} calls for {count} assets, {names:?}");
            let named: BTreeSet<String> = rig.lettered_assets().concat().into_iter().collect();
            assert_eq!(named.len(), count, "every asset is named");
            for letter in rig.letter_bodies() {
                for error in letter["errors"].as_array().expect("a list") {
                    assert_eq!(error["code"], "ResourceNotFoundException");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_messages_for_a_project_that_does_not_exist_cost_a_handful_of_calls() {
    for names in [Names::Resource, Names::Project] {
        let rig = refusing(&Absent::Ignore, names);
        let event = records(
            (0..1000).map(|number| record(&format!("m-{number}"), &request(1, &[asset(number)]))),
        );
        assert_eq!(rig.answer(&event).await, failed([]));
        let calls = rig.calls().len();
        assert!(calls <= 13, "{calls} calls, {names:?}");
        assert_eq!(rig.letters().len(), 1000);
    }
}

/// Where the service names nothing, one request's assets must not speak for
/// another's: each request is tried for itself, but little more than once.
#[tokio::test(start_paused = true)]
async fn where_nothing_is_named_each_request_of_a_missing_project_costs_a_call() {
    let rig = refusing(&Absent::Ignore, Names::Nothing);
    let event = records(
        (0..1000).map(|number| record(&format!("m-{number}"), &request(1, &[asset(number)]))),
    );
    assert_eq!(rig.answer(&event).await, failed([]));
    let calls = rig.calls().len();
    assert!((1000..=1010).contains(&calls), "{calls} calls");
    assert_eq!(rig.letters().len(), 1000);
}

/// Dead letters that are sent back together are just that: absent assets of
/// several requests, and a project that is there.
#[tokio::test(start_paused = true)]
async fn others_absent_assets_do_not_make_a_project_missing() {
    for (absent, code) in refusals() {
        for names in NAMES {
            let mut rig = refusing(&absent, names);
            rig.function.max_concurrency = 1;
            rig.simulator.add_project(&project(1), assets(20..120));
            let letters = (0..20).map(|number| vec![asset(number)]);
            let event = records(
                letters
                    .chain([assets(20..120)])
                    .enumerate()
                    .map(|(number, ids)| record(&format!("m-{number}"), &request(1, &ids))),
            );
            assert_eq!(rig.answer(&event).await, failed([]));
            assert_eq!(rig.remaining(), [0; 0], "{code} {names:?}");
            let lettered: usize = rig.lettered_assets().iter().map(Vec::len).sum();
            assert_eq!(lettered, 20, "{code} {names:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_shared_by_several_requests_is_split_by_request_first() {
    for (absent, _) in refusals() {
        for names in NAMES {
            let rig = refusing(&absent, names);
            rig.simulator.add_project(&project(1), assets(0..60));
            let event = records([
                record("m-1", &request(1, &assets(0..30))),
                record("m-2", &request(1, &assets(100..110))),
                record("m-3", &request(1, &assets(30..60))),
            ]);
            assert_eq!(rig.answer(&event).await, failed([]));
            assert_eq!(rig.remaining(), [0; 0]);
            assert_eq!(rig.lettered_assets(), [assets(100..110)], "{names:?}");
        }
    }
}

/// The hardest neighbours: nearly all of a batch is at fault, and the messages
/// do not say who.
#[tokio::test(start_paused = true)]
async fn one_request_never_changes_anothers_fate() {
    for (absent, _) in refusals() {
        for names in [Names::Resource, Names::Nothing] {
            for place in [0, 42, 98] {
                let rig = refusing(&absent, names);
                rig.simulator.add_project(&project(1), [asset(place)]);
                let event =
                    records((0..99).map(|number| {
                        record(&format!("m-{number}"), &request(1, &[asset(number)]))
                    }));
                assert_eq!(rig.answer(&event).await, failed([]));
                assert_eq!(rig.remaining(), [0; 0], "{names:?} {place}");
                assert_eq!(rig.letters().len(), 98);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_asset_at_fault_that_two_requests_ask_for_is_rejected_for_both() {
    let rig = refusing(&Absent::NotFound, Names::Nothing);
    rig.simulator.add_project(&project(1), assets(0..4));
    let event = records([
        record("m-1", &request(1, &assets([0, 9, 1]))),
        record("m-2", &request(1, &assets([2, 9, 3]))),
    ]);
    assert_eq!(rig.answer(&event).await, failed([]));
    assert_eq!(rig.remaining(), [0; 0]);
    assert_eq!(rig.lettered_assets(), [[asset(9)], [asset(9)]]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_project_holds_no_other_project_up() {
    let rig = refusing(&Absent::Ignore, Names::Nothing);
    rig.simulator.add_project(&project(2), assets(500..900));
    let event = records([
        record("m-1", &request(1, &assets(0..500))),
        record("m-2", &request(2, &assets(500..900))),
    ]);
    assert_eq!(rig.answer(&event).await, failed([]));
    assert_eq!(rig.simulator.project_assets(&project(2)).len(), 0);
    assert_eq!(rig.lettered_assets().concat().len(), 500);
}

#[tokio::test(start_paused = true)]
async fn a_report_says_who_was_at_fault() {
    let rig = refusing(&Absent::NotFound, Names::Resource);
    rig.simulator.add_project(&project(1), assets(0..9));
    let report = rig.answer(&rule_event(&request(1, &assets(0..10)))).await;
    assert_eq!(report["status"], "partial");
    assert_eq!(report["assets"]["disassociated"], 9);
    assert_eq!(report["failures"][0]["assetIds"], json!([asset(9)]));
    assert_eq!(report["failures"][0]["code"], "ResourceNotFoundException");
    assert_eq!(report["failures"][0]["deadLettered"], true);
}

#[tokio::test(start_paused = true)]
async fn whatever_absent_assets_mean_every_asset_ends_somewhere() {
    let error = Absent::AssetError {
        code: "NOT_IN_PROJECT".to_owned(),
        message: "not in project".to_owned(),
    };
    for absent in [Absent::Ignore, error, Absent::NotFound, Absent::Invalid] {
        for names in NAMES {
            let rig = refusing(&absent, names);
            rig.simulator.add_project(&project(1), assets(0..50));
            rig.simulator.add_asset(&asset(60));
            let report = rig.answer(&request(1, &assets(0..100))).await;
            let counts = &report["assets"];
            assert_eq!(counts["requested"], 100);
            if absent == Absent::Ignore {
                assert_eq!(counts["disassociated"], 100);
            } else {
                assert_eq!(counts["disassociated"], 50, "{absent:?} {names:?}");
                assert_eq!(counts["rejected"], 50);
                assert_eq!(rig.lettered_assets(), [assets(50..100)]);
            }
            assert_eq!(rig.remaining(), [0; 0]);
        }
    }
}

/// A message that comes again when its work was done long ago: each refusal
/// names the first asset that is not there, and no more.
#[tokio::test(start_paused = true)]
async fn a_thousand_absent_assets_are_settled_within_one_invocation() {
    for (good, most) in [(0, 1_050), (1, 1_060), (500, 1_050)] {
        let rig = Rig::new(Settings {
            unknown_asset: Absent::NotFound,
            latency: Duration::from_millis(200),
            ..Settings::default()
        });
        // The good ones are the last of all, which are reached last.
        rig.simulator
            .add_project(&project(1), assets(1_000 - good..1_000));
        let event = records([record("m-1", &request(1, &assets(0..1_000)))]);
        assert_eq!(rig.answer(&event).await, failed([]), "{good} good");
        assert_eq!(rig.remaining(), [0; 0]);
        let lettered: usize = rig.lettered_assets().iter().map(Vec::len).sum();
        assert_eq!(lettered, 1_000 - good);
        let calls = rig.calls().len();
        assert!(calls <= most, "{calls} calls with {good} good");
    }
}

/// The same where nothing is named, and the project is known to exist.
#[tokio::test(start_paused = true)]
async fn where_most_assets_are_refused_each_costs_about_a_call() {
    for names in NAMES {
        for (concurrency, most) in [(1, 110), (8, 140), (64, 200)] {
            let mut rig = Rig::new(Settings {
                unknown_asset: Absent::NotFound,
                not_found_names: names,
                latency: Duration::from_millis(100),
                ..Settings::default()
            });
            rig.function.max_concurrency = concurrency;
            rig.simulator.add_project(&project(1), [asset(0)]);
            let event = records([record("m-1", &request(1, &assets(0..100)))]);
            let start = Instant::now();
            assert_eq!(rig.answer(&event).await, failed([]));
            assert_eq!(rig.remaining(), [0; 0]);
            assert_eq!(rig.lettered_assets(), [assets(1..100)]);
            let calls = rig.calls().len();
            assert!(calls <= most, "{calls} calls, {concurrency}, {names:?}");
            // Some are made one after the other whatever the concurrency.
            let rounds = start.elapsed().as_millis() as usize / 100;
            let expected = most / concurrency + 10;
            assert!(rounds <= expected, "{rounds} rounds, {concurrency}");
        }
    }
}

/// What is found out first need not hold for the rest.
#[tokio::test(start_paused = true)]
async fn assets_are_tried_alone_only_as_long_as_most_are_refused() {
    let rig = Rig::new(Settings {
        unknown_asset: Absent::NotFound,
        asset_not_in_project: Absent::AssetError {
            code: "NOT_IN_PROJECT".to_owned(),
            message: "not in project".to_owned(),
        },
        ..Settings::default()
    });
    rig.simulator.add_project(&project(1), [] as [String; 0]);
    for number in 6..100 {
        rig.simulator.add_asset(&asset(number));
    }
    let event = records([record("m-1", &request(1, &assets(0..100)))]);
    assert_eq!(rig.answer(&event).await, failed([]));
    assert_eq!(rig.lettered_assets(), [assets(0..100)]);
    let calls = rig.calls().len();
    assert!(calls <= 40, "{calls} calls");
}

/// The same from a service that throttles: a single asset left unfinished
/// would bring all the others back.
#[tokio::test(start_paused = true)]
async fn absent_assets_are_settled_within_one_invocation_though_some_calls_are_throttled() {
    let rig = Rig::new(Settings {
        unknown_asset: Absent::NotFound,
        latency: Duration::from_millis(50),
        throttle: Some(Throttle {
            rate: 50.0,
            burst: 50.0,
        }),
        ..Settings::default()
    });
    rig.simulator.add_project(&project(1), [] as [String; 0]);
    let event = records([record("m-1", &request(1, &assets(0..1_000)))]);
    assert_eq!(rig.answer(&event).await, failed([]));
    let lettered: usize = rig.lettered_assets().iter().map(Vec::len).sum();
    assert_eq!(lettered, 1_000);
}

#[tokio::test(start_paused = true)]
async fn where_the_time_does_not_suffice_for_all_the_first_messages_are_finished() {
    let mut rig = Rig::new(Settings {
        unknown_asset: Absent::NotFound,
        latency: Duration::from_millis(200),
        ..Settings::default()
    });
    rig.function.max_concurrency = 1;
    let ids = ["m-1", "m-2", "m-3", "m-4"];
    let event = records(ids.into_iter().enumerate().map(|(number, id)| {
        rig.simulator
            .add_project(&project(number), [] as [String; 0]);
        record(id, &request(number, &assets(0..150)))
    }));
    assert_eq!(rig.answer(&event).await, failed(["m-2", "m-3", "m-4"]));
    assert_eq!(rig.letters().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_one_request_shows_is_not_held_against_an_asset_that_another_shares() {
    let rig = refusing(&Absent::NotFound, Names::Nothing);
    rig.simulator.add_project(&project(1), [asset(50)]);
    let event = records([
        record("m-1", &request(1, &assets((0..20).chain([50])))),
        record("m-2", &request(1, &[asset(50)])),
    ]);
    assert_eq!(rig.answer(&event).await, failed([]));
    assert_eq!(rig.remaining(), [0; 0]);
    assert_eq!(rig.lettered_assets(), [assets(0..20)]);
}

/// Requests of a project: which assets each names. Even numbers are in the
/// project, odd ones are at fault.
fn any_requests() -> impl Strategy<Value = Vec<BTreeSet<usize>>> {
    let some_good = proptest::collection::btree_set((0..60_usize).prop_map(|n| n * 2), 0..40);
    let few_bad = proptest::collection::btree_set((0..60_usize).prop_map(|n| n * 2 + 1), 0..4);
    let one = (some_good, few_bad).prop_map(|(good, bad)| &good | &bad);
    proptest::collection::vec(one.prop_filter("not empty", |one| !one.is_empty()), 1..8)
}

fn any_absent() -> impl Strategy<Value = Absent> {
    prop_oneof![
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
        names in proptest::sample::select(&NAMES[..]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let rig = refusing(&absent, names);
            rig.simulator.add_project(&project(1), assets((0..60).map(|n| n * 2)));
            let event = records(requests.iter().enumerate().map(|(index, numbers)| {
                record(&format!("m-{index}"), &request(1, &assets(numbers.iter().copied())))
            }));
            assert_eq!(rig.answer(&event).await, failed([]));
            rig.assert_nothing_invalid_was_sent();
            // Each asset of the project that anyone named is gone, and no other.
            let named: BTreeSet<usize> = requests.iter().flatten().copied().collect();
            let left: Vec<usize> =
                (0..60).map(|n| n * 2).filter(|n| !named.contains(n)).collect();
            assert_eq!(rig.remaining(), left);
            // Each request's letter names its own bad assets, and no other.
            let mut letters: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for body in rig.letter_bodies() {
                let source = body["source"]["messageId"].as_str().expect("an id").to_owned();
                letters.insert(source, asset_ids(&body));
            }
            for (index, numbers) in requests.iter().enumerate() {
                let bad = assets(numbers.iter().copied().filter(|n| n % 2 == 1));
                let letter = letters.remove(&format!("m-{index}")).unwrap_or_default();
                assert_eq!(letter, bad);
            }
            assert!(letters.is_empty());
        });
    }
}
