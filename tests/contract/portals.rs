//! Section 5, whole portals: one part for each project, through the work queue.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use simulator::{Action, Fault, Operation, Settings};

use crate::support::{Harness, MISSING, WORK, asset, failed, project, record, records, rule_event};

const PORTAL: &str = "cccccccc-0000-4000-8000-000000000007";

fn whole_portal() -> Value {
    json!({"portalId": PORTAL, "allProjects": true})
}

fn from_queue() -> Value {
    records([record("m-1", &whole_portal())])
}

/// A function, and a portal of so many projects of one asset each.
fn with_projects(count: usize) -> Harness {
    let harness = Harness::new(Settings::default());
    harness
        .simulator
        .add_portal(PORTAL, (1..=count).map(project));
    for number in 1..=count {
        harness
            .simulator
            .add_project(&project(number), [asset(number)]);
    }
    harness
}

#[tokio::test(start_paused = true)]
async fn a_portal_becomes_one_part_for_each_of_its_projects() {
    let harness = with_projects(300);
    assert_eq!(harness.answer(&from_queue()).await, failed([]));
    assert_eq!(harness.calls().len(), 0);
    let parts = harness.parts();
    let projects: Vec<&Value> = parts.iter().map(|part| &part["projectId"]).collect();
    let expected: Vec<Value> = (1..=300).map(|number| json!(project(number))).collect();
    assert_eq!(projects, expected.iter().collect::<Vec<_>>());
    let tokens: BTreeSet<String> = parts
        .iter()
        .map(|part| part["clientToken"].to_string())
        .collect();
    assert_eq!(tokens.len(), 300);
    for (index, part) in parts.iter().enumerate() {
        assert_eq!(part["allAssets"], true);
        let marker = json!({"of": "m-1", "number": index + 1, "count": 300});
        assert_eq!(part["sitewiseDisassociatorPart"], marker);
    }
    harness.assert_nothing_invalid_was_sent();
}

#[tokio::test(start_paused = true)]
async fn a_portal_is_empty_once_its_parts_are_processed() {
    let harness = with_projects(100);
    harness.answer(&from_queue()).await;
    let parts = harness.simulator.take_messages(WORK);
    for (number, parts) in parts.chunks(25).enumerate() {
        let parts = parts.iter().enumerate();
        let parts =
            parts.map(|(index, part)| record(&format!("p-{number}-{index}"), &json!(part.body)));
        assert_eq!(harness.answer(&records(parts)).await, failed([]));
    }
    assert!(
        harness
            .simulator
            .projects()
            .values()
            .all(BTreeSet::is_empty)
    );
    assert_eq!(harness.calls().len(), 100);
    let lists = harness.reads();
    let lists = lists
        .iter()
        .filter(|call| call.operation == Operation::ListProjectAssets);
    assert_eq!(lists.count(), 100);
    assert_eq!(harness.parts().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_parts_of_a_portal_have_the_same_tokens_at_each_delivery() {
    let first = with_projects(3);
    first.answer(&from_queue()).await;
    let again = with_projects(4);
    again.answer(&from_queue()).await;
    let tokens = |harness: &Harness| -> Vec<String> {
        let parts = harness.parts();
        parts
            .iter()
            .map(|part| part["clientToken"].to_string())
            .collect()
    };
    assert_eq!(tokens(&first), tokens(&again)[..3]);
}

#[tokio::test(start_paused = true)]
async fn without_a_work_queue_a_portal_is_rejected_and_the_variable_named() {
    let harness = with_projects(3).without_work_queue();
    assert_eq!(harness.answer(&from_queue()).await, failed([]));
    let letters = harness.letter_bodies();
    assert_eq!(letters[0]["portalId"], PORTAL);
    assert_eq!(letters[0]["allProjects"], true);
    assert_eq!(letters[0]["errors"][0]["code"], "InvalidRequest");
    let message = letters[0]["errors"][0]["message"].as_str().expect("a text");
    assert!(message.contains("WORK_QUEUE_URL"), "{message}");
    assert_eq!(harness.requests().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_portal_that_does_not_exist_is_rejected() {
    for missing_list in MISSING {
        let harness = Harness::new(Settings {
            missing_list,
            ..Settings::default()
        });
        assert_eq!(harness.answer(&from_queue()).await, failed([]));
        let letters = harness.letter_bodies();
        assert_eq!(letters[0]["portalId"], PORTAL);
        assert_eq!(letters[0]["errors"][0]["code"], "ResourceNotFoundException");
        let report = harness.answer(&whole_portal()).await;
        assert_eq!(report["status"], "failed");
        assert_eq!(report["portalId"], PORTAL);
        assert_eq!(report["projects"], json!({"listed": 0, "queued": 0}));
        assert_eq!(report["failures"][0]["code"], "ResourceNotFoundException");
    }
}

#[tokio::test(start_paused = true)]
async fn a_portal_that_lists_nothing_has_succeeded() {
    let harness = with_projects(0);
    assert_eq!(harness.answer(&from_queue()).await, failed([]));
    let report = harness.answer(&whole_portal()).await;
    assert_eq!(report["status"], "succeeded");
    assert_eq!(harness.letters().len() + harness.parts().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn no_part_is_sent_before_the_whole_list_is_read() {
    for fault in [
        "list-projects:after=1:status=403",
        "list-projects:after=1:stall",
    ] {
        let harness = with_projects(300);
        harness.fault(fault);
        assert_eq!(harness.answer(&from_queue()).await, failed(["m-1"]));
        assert_eq!(harness.parts().len(), 0);
        let report = harness.answer(&rule_event(&whole_portal())).await;
        assert_eq!(report["status"], "accepted", "it is queued as it came");
        assert_eq!(harness.parts(), [rule_event(&whole_portal())]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_portal_whose_parts_are_not_all_stored_comes_back() {
    let harness = with_projects(30);
    harness.fault("sqs:queue=work:nth=2:status=500");
    harness.fault("sqs:queue=work:after=2:status=403");
    assert_eq!(harness.answer(&from_queue()).await, failed(["m-1"]));
    assert_eq!(harness.letters().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_report_of_a_portal_counts_its_projects() {
    let harness = with_projects(12);
    let report = harness.answer(&whole_portal()).await;
    assert_eq!(report["status"], "accepted");
    assert_eq!(report["portalId"], PORTAL);
    assert_eq!(report["projects"], json!({"listed": 12, "queued": 12}));
    assert_eq!(report["assets"], Value::Null);
    assert_eq!(report["projectId"], Value::Null);
    assert_eq!(report["failures"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn a_portals_project_with_many_assets_is_cut_once_more_and_no_further() {
    let mut harness = with_projects(1);
    harness.function.fan_out_assets = 100;
    harness
        .simulator
        .add_project(&project(1), (0..250).map(asset));
    let mut deliveries = 0;
    harness.answer(&from_queue()).await;
    loop {
        let messages = harness.simulator.take_messages(WORK);
        if messages.is_empty() {
            break;
        }
        deliveries += 1;
        for (index, message) in messages.iter().enumerate() {
            let event = records([record(&format!("p-{index}"), &json!(message.body))]);
            assert_eq!(harness.answer(&event).await, failed([]));
        }
    }
    assert_eq!(deliveries, 2, "the project, its parts");
    assert_eq!(harness.remaining(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_project_that_is_renamed_between_two_reads_of_the_list_becomes_one_part() {
    let harness = with_projects(1);
    let pages = [
        ("old", Some("2")),
        ("old", None),
        ("new", Some("2")),
        ("new", None),
    ];
    for (name, next) in pages {
        let summary = json!({"id": project(1), "name": name});
        let body = json!({"projectSummaries": [summary], "nextToken": next}).to_string();
        let page = Action::Reply {
            status: 200,
            error_type: None,
            headers: Vec::new(),
            body,
        };
        let fault = Fault::on(Operation::ListProjects).first(1).action(page);
        harness.simulator.fault(fault);
    }
    let report = harness.answer(&whole_portal()).await;
    assert_eq!(report["projects"], json!({"listed": 1, "queued": 1}));
    assert_eq!(harness.parts().len(), 1);
}
