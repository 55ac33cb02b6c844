//! Section 4, isolation: assets that make every call that contains them fail,
//! and what that means for the messages that share their batch.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Absent, Names, Settings};

use crate::support::{
    Harness, REFUSALS, asset, assets, failed_numbers, project, record, records, request,
};

const ALL: [usize; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

/// Ways of failing at once.
const FAST: [&str; 10] = [
    "status=500",
    "status=503",
    "status=409",
    "status=418",
    "status=302",
    "garbage",
    "truncate",
    "reset",
    "reset-after",
    "status=200:type=InternalFailureException",
];

/// Ways of failing that take each attempt's whole time.
const SLOW: [&str; 3] = ["stall", "stall-after", "stall-body"];

/// A function, and the project of ten messages of ten assets, of which the
/// service fails on some.
fn failing_on(failing: &[usize], how: &str) -> Harness {
    let harness = Harness::new(Settings {
        latency: Duration::from_millis(50),
        ..Settings::default()
    });
    harness.simulator.add_project(&project(1), assets(0..100));
    for number in failing {
        harness.fault(&format!("disassociate:asset={}:{how}", asset(*number)));
    }
    harness
}

/// Message `number` of project 1, delivered for the `receives`-th time.
fn message(number: usize, receives: usize) -> Value {
    let ids = assets(number * 10..(number + 1) * 10);
    let mut record = record(&format!("m-{number}"), &request(1, &ids));
    record["attributes"]["ApproximateReceiveCount"] = json!(receives.to_string());
    record
}

/// Delivers these messages until only those at fault come back, each time beside
/// a message of another project if there is an `other`; returns how often.
async fn deliveries(harness: &Harness, at_fault: &BTreeSet<usize>, has_other: bool) -> usize {
    let mut left = ALL.to_vec();
    let mut delivery = 0;
    while left.len() > at_fault.len() {
        delivery += 1;
        assert!(delivery <= 20, "{left:?} still come back");
        let mut messages: Vec<Value> = left
            .iter()
            .map(|number| message(*number, delivery))
            .collect();
        if has_other {
            let ids = [asset(1_000 + delivery)];
            harness.simulator.add_project(&project(2), &ids);
            messages.push(record("other", &request(2, &ids)));
        }
        left = failed_numbers(&harness.answer(&records(messages)).await);
        assert!(at_fault.iter().all(|number| left.contains(number)));
        assert_eq!(harness.letters().len(), 0);
    }
    delivery
}

#[tokio::test(start_paused = true)]
async fn what_fails_at_once_is_found_within_three_deliveries() {
    for how in FAST {
        for failing in [vec![0], vec![42], vec![99], vec![20, 25], vec![20, 70]] {
            for (has_other, concurrency) in [(false, 1), (false, 8), (true, 1), (true, 8)] {
                let mut harness = failing_on(&failing, how);
                harness.function.call_concurrency = concurrency;
                let at_fault = failing.iter().map(|asset| asset / 10).collect();
                let deliveries = deliveries(&harness, &at_fault, has_other).await;
                let case = format!("{how} {failing:?} {has_other} {concurrency}: {deliveries}");
                assert!(deliveries <= 3, "{case}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_others_are_answered_it_is_found_at_once() {
    for how in FAST {
        for failing in [vec![0], vec![99], vec![37, 42]] {
            let harness = failing_on(&failing, how);
            let at_fault: BTreeSet<usize> = failing.iter().map(|asset| asset / 10).collect();
            assert_eq!(
                deliveries(&harness, &at_fault, true).await,
                1,
                "{how} {failing:?}"
            );
            let left: BTreeSet<usize> =
                harness.remaining().iter().map(|asset| asset / 10).collect();
            assert!(left.is_subset(&at_fault), "{how} {failing:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_stalls_is_found_with_one_delivery_for_each_halving() {
    for how in SLOW {
        for failing in [0, 23, 42, 99] {
            for has_other in [false, true] {
                let harness = failing_on(&[failing], how);
                let at_fault = BTreeSet::from([failing / 10]);
                let deliveries = deliveries(&harness, &at_fault, has_other).await;
                // The whole, and four halvings until one of ten is alone.
                assert!(
                    deliveries <= 5,
                    "{how} {failing} {has_other}: {deliveries} deliveries"
                );
            }
        }
    }
}

/// The calls so far, the SDK's repetitions left out: batches, by their assets.
fn distinct_calls(harness: &Harness) -> BTreeSet<Vec<String>> {
    harness
        .calls()
        .into_iter()
        .map(|call| call.assets)
        .collect()
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_at_most_two_more_calls_for_each_shared_batch() {
    for how in FAST.iter().chain(&SLOW) {
        for receives in [1, 2, 3, 4, 9, 50] {
            for projects in [1, 3] {
                let harness = Harness::new(Settings::default());
                harness.fault(&format!("disassociate:{how}"));
                let event = records((0..projects).flat_map(|number| {
                    ALL.map(|index| {
                        let mut message = message(index, receives);
                        let ids = assets(index * 10..(index + 1) * 10);
                        message["body"] = json!(request(number, &ids).to_string());
                        message["messageId"] = json!(format!("m-{}", number * 10 + index));
                        message
                    })
                }));
                let left = failed_numbers(&harness.answer(&event).await);
                assert_eq!(left.len(), 10 * projects, "{how} {receives}");
                let calls: BTreeSet<_> = harness
                    .calls()
                    .into_iter()
                    .map(|call| (call.project, call.assets))
                    .collect();
                let most = if receives == 1 { 1 } else { 3 };
                assert!(
                    calls.len() <= most * projects,
                    "{how} {receives}: {} calls",
                    calls.len()
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn throttling_and_credentials_split_nothing() {
    for how in [
        "throttle",
        "status=429",
        "status=401",
        "status=403",
        "status=400:type=ExpiredTokenException",
    ] {
        let harness = failing_on(&[42], how);
        harness.simulator.add_project(&project(2), [asset(200)]);
        let mut messages = ALL.map(|number| message(number, 5)).to_vec();
        messages.push(record("other", &request(2, &[asset(200)])));
        let left = failed_numbers(&harness.answer(&records(messages)).await);
        assert_eq!(left, ALL, "{how}");
        assert_eq!(distinct_calls(&harness).len(), 2, "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_single_request_that_fails_is_not_split() {
    for how in FAST {
        let harness = failing_on(&[42], how);
        harness.simulator.add_project(&project(2), [asset(200)]);
        let mut whole = record("m-0", &request(1, &assets(0..100)));
        whole["attributes"]["ApproximateReceiveCount"] = json!("5");
        let other = record("other", &request(2, &[asset(200)]));
        let left = failed_numbers(&harness.answer(&records([whole, other])).await);
        assert_eq!(left, [0], "{how}");
        assert_eq!(distinct_calls(&harness).len(), 2, "{how}");
    }
}

/// Both have assets that are gone; a small message beside a large one is done at
/// once.
#[tokio::test(start_paused = true)]
async fn a_large_message_of_gone_assets_does_not_starve_a_small_one() {
    for absent in [Absent::NotFound, Absent::Invalid] {
        for names in [Names::Resource, Names::Project, Names::Nothing] {
            for large_first in [false, true] {
                for small_project in [1, 2] {
                    let mut harness = Harness::new(Settings {
                        unknown_asset: absent.clone(),
                        not_found_names: names,
                        latency: Duration::from_millis(200),
                        ..Settings::default()
                    });
                    harness.function.call_concurrency = 1;
                    harness
                        .simulator
                        .add_project(&project(1), assets(990..1000));
                    harness
                        .simulator
                        .add_project(&project(small_project), assets(2001..2020));
                    let large = record("m-0", &request(1, &assets(0..1000)));
                    let small = record("m-1", &request(small_project, &assets(2000..2020)));
                    let event = if large_first {
                        [large, small]
                    } else {
                        [small, large]
                    };
                    let left = failed_numbers(&harness.answer(&records(event)).await);
                    let case = format!("{absent:?} {names:?} {large_first} {small_project}");
                    assert!(!left.contains(&1), "{case}: {left:?}");
                }
            }
        }
    }
}

/// Assets that are refused and still listed are sought breadth first.
#[tokio::test(start_paused = true)]
async fn a_large_message_of_refused_assets_does_not_starve_a_small_one() {
    for (large_first, refusal) in [(false, REFUSALS[0]), (true, REFUSALS[1])] {
        let mut harness = Harness::new(Settings {
            latency: Duration::from_millis(50),
            ..Settings::default()
        });
        harness.time_left = Duration::from_secs(8);
        harness.simulator.add_project(&project(1), assets(0..1000));
        harness
            .simulator
            .add_project(&project(2), assets(2000..2020));
        harness.refuse([2007], refusal);
        let (status, error_type) = refusal;
        let project_1 = project(1);
        harness.fault(&format!(
            "disassociate:project={project_1}:status={status}:type={error_type}"
        ));
        let large = record("m-0", &request(1, &assets(0..1000)));
        let small = record("m-1", &request(2, &assets(2000..2020)));
        let event = if large_first {
            [large, small]
        } else {
            [small, large]
        };
        let left = failed_numbers(&harness.answer(&records(event)).await);
        assert_eq!(left, [0], "{large_first}");
        assert_eq!(harness.lettered_assets(), [[asset(2007)]]);
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_no_message_is_made_visible_early() {
    for how in FAST.iter().chain(&SLOW).chain(&["throttle"]) {
        let harness = failing_on(&[42], how);
        harness.simulator.add_project(&project(2), [asset(200)]);
        let mut messages = ALL.map(|number| message(number, 1)).to_vec();
        messages.push(record("other", &request(2, &[asset(200)])));
        for message in &mut messages {
            message["receiptHandle"] = json!("a receipt");
            message["eventSourceARN"] = json!("arn:aws:sqs:eu-west-1:000000000000:work");
        }
        harness.answer(&records(messages)).await;
        for call in harness.simulator.calls() {
            let target = call.headers.get("x-amz-target").map(String::as_str);
            assert!(
                matches!(target, None | Some("AmazonSQS.SendMessageBatch")),
                "{how}: {target:?}"
            );
        }
    }
}
