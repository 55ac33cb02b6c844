//! Section 4: an asset for which the service fails every call, and what that
//! means for those that share its batch.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use simulator::Fault;

use crate::support::{Rig, asset, assets, project, record, records, request};

/// A function, and the one project of ten messages of ten assets, of which the
/// service fails on some.
fn rig(failing: &[usize], how: &str) -> Rig {
    let rig = Rig::with_assets(0..100);
    for number in failing {
        let fault = format!("disassociate:asset={}:{how}", asset(*number));
        rig.simulator
            .fault(fault.parse::<Fault>().expect("a fault"));
    }
    rig
}

fn message(number: usize, receives: u32) -> Value {
    let ids = assets(number * 10..(number + 1) * 10);
    let mut record = record(&format!("m-{number}"), &request(1, &ids));
    record["attributes"]["ApproximateReceiveCount"] = json!(receives.to_string());
    record
}

/// Delivers the messages of these numbers, and returns the numbers of those
/// that come again.
async fn deliver(rig: &Rig, numbers: &[usize], receives: u32) -> Vec<usize> {
    let event = records(numbers.iter().map(|number| message(*number, receives)));
    failed_of(&rig.answer(&event).await)
}

fn failed_of(answer: &Value) -> Vec<usize> {
    let failures = answer["batchItemFailures"].as_array().expect("a list");
    let names = failures.iter().map(|failure| &failure["itemIdentifier"]);
    names
        .filter_map(|name| name.as_str()?.strip_prefix("m-")?.parse().ok())
        .collect()
}

const ALL: [usize; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

#[tokio::test(start_paused = true)]
async fn where_others_are_answered_the_message_at_fault_is_found_at_once() {
    for how in ["status=500", "status=409", "status=418"] {
        for failing in [vec![0], vec![42], vec![99], vec![37, 42]] {
            let rig = rig(&failing, how);
            rig.simulator.add_project(&project(2), assets(200..201));
            let mut event = records(ALL.map(|number| message(number, 1)));
            let other = record("other", &request(2, &assets(200..201)));
            event["Records"].as_array_mut().expect("a list").push(other);
            let answer = rig.answer(&event).await;
            let at_fault: Vec<usize> = failing.iter().map(|asset| asset / 10).collect();
            assert_eq!(failed_of(&answer), at_fault, "{how} {failing:?}");
            let left: Vec<usize> = at_fault
                .iter()
                .flat_map(|number| number * 10..(number + 1) * 10)
                .collect();
            assert_eq!(rig.remaining(), left);
            assert_eq!(rig.letters().len(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_else_is_answered_it_is_found_by_its_later_deliveries() {
    for how in ["status=500", "status=409"] {
        for failing in [
            vec![0],
            vec![23],
            vec![99],
            vec![23, 31],
            vec![5, 15, 25, 35],
        ] {
            let rig = rig(&failing, how);
            let at_fault: BTreeSet<usize> = failing.iter().map(|asset| asset / 10).collect();
            let mut left = ALL.to_vec();
            let mut deliveries = 0;
            while left.len() > at_fault.len() {
                deliveries += 1;
                left = deliver(&rig, &left, deliveries).await;
            }
            assert_eq!(BTreeSet::from_iter(left), at_fault, "{how} {failing:?}");
            assert!(
                deliveries as usize <= 2 + failing.len(),
                "{how} {failing:?}: {deliveries} deliveries"
            );
            assert_eq!(rig.letters().len(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_costs_one_more_call_where_messages_have_come_before() {
    for (receives, expected) in [(1, vec![100]), (2, vec![100, 10]), (9, vec![100, 10])] {
        let rig = Rig::with_assets(0..100);
        let outage = "disassociate:status=500".parse::<Fault>();
        rig.simulator.fault(outage.expect("a fault"));
        assert_eq!(deliver(&rig, &ALL, receives).await, ALL);
        let mut sizes = rig.call_sizes();
        // Three attempts each.
        sizes.dedup();
        assert_eq!(sizes, expected, "{receives} deliveries");
        assert_eq!(rig.calls().len(), 3 * expected.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_may_have_been_applied_is_repeated_whole() {
    for how in ["reset-after", "truncate", "garbage", "stall-after"] {
        let rig = Rig::with_assets(0..100);
        rig.simulator.add_project(&project(2), assets(200..201));
        let fault = format!("disassociate:project={}:first=3:{how}", project(1));
        rig.simulator
            .fault(fault.parse::<Fault>().expect("a fault"));
        let mut event = records(ALL.map(|number| message(number, 3)));
        let other = record("other", &request(2, &assets(200..201)));
        event["Records"].as_array_mut().expect("a list").push(other);
        assert_eq!(failed_of(&rig.answer(&event).await), [0; 0], "{how}");
        let calls = rig.calls().into_iter();
        let tokens: BTreeSet<_> = calls
            .filter(|call| call.project == Some(project(1)))
            .map(|call| (call.assets.len(), call.token))
            .collect();
        assert_eq!(tokens.len(), 1, "{how}: {tokens:?}");
    }
}
