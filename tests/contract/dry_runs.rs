//! Section 7, dry runs: nothing is changed, and what would be is reported.

use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Operation, Settings};

use crate::support::{
    Harness, MISSING, asset, assets, failed, project, record, records, request, rule_event,
};

const PORTAL: &str = "cccccccc-0000-4000-8000-000000000007";

fn dry(mut request: Value) -> Value {
    request["dryRun"] = json!(true);
    request
}

fn assert_nothing_changed(harness: &Harness) {
    assert_eq!(harness.calls().len(), 0);
    assert_eq!(harness.letters().len() + harness.parts().len(), 0);
    harness.assert_nothing_invalid_was_sent();
}

fn whole_project() -> Value {
    dry(json!({"projectId": project(1), "allAssets": true}))
}

fn whole_portal() -> Value {
    dry(json!({"portalId": PORTAL, "allProjects": true}))
}

#[tokio::test(start_paused = true)]
async fn the_dry_run_of_named_assets_says_which_would_go() {
    let harness = Harness::with_assets(0..3);
    let mut ids = assets([0, 1, 1, 8]);
    ids.push("bad".to_owned());
    let report = harness.answer(&dry(request(1, &ids))).await;
    assert_eq!(report["dryRun"], true);
    assert_eq!(
        report["assets"],
        json!({"requested": 4, "duplicates": 1, "wouldDisassociate": 2, "absent": 1,
               "rejected": 1})
    );
    assert_eq!(report["status"], "partial");
    let failure = &report["failures"][0];
    assert_eq!(failure["code"], "InvalidAssetId");
    assert_eq!(failure["deadLettered"], false);
    assert_nothing_changed(&harness);
}

#[tokio::test(start_paused = true)]
async fn the_dry_run_of_a_whole_project_counts_its_assets() {
    let mut harness = Harness::with_assets(0..300);
    harness.function.fan_out_assets = 100;
    let report = harness.answer(&whole_project()).await;
    assert_eq!(report["status"], "succeeded");
    assert_eq!(
        report["assets"],
        json!({"requested": 300, "duplicates": 0, "wouldDisassociate": 300, "absent": 0,
               "rejected": 0})
    );
    assert_nothing_changed(&harness);
}

#[tokio::test(start_paused = true)]
async fn the_dry_run_of_a_portal_names_its_projects() {
    let harness = Harness::with_assets(0..2);
    harness
        .simulator
        .add_portal(PORTAL, [project(1), project(2)]);
    let report = harness.answer(&whole_portal()).await;
    assert_eq!(report["status"], "succeeded");
    assert_eq!(report["portalId"], PORTAL);
    assert_eq!(
        report["projects"],
        json!([
            {"projectId": project(1), "name": "Simulated project aaaaaaaa", "assets": 2},
            {"projectId": project(2), "name": "Simulated project aaaaaaaa", "assets": 0},
        ])
    );
    assert_nothing_changed(&harness);
}

#[tokio::test(start_paused = true)]
async fn over_sqs_a_dry_run_is_acknowledged_once_read() {
    let harness = Harness::with_assets(0..3);
    harness.simulator.add_portal(PORTAL, [project(1)]);
    let mut ids = assets([0, 8]);
    ids.push("bad".to_owned());
    for request in [dry(request(1, &ids)), whole_project(), whole_portal()] {
        let event = records([record("m-1", &request)]);
        assert_eq!(harness.answer(&event).await, failed([]), "{request}");
        assert_nothing_changed(&harness);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_whose_read_fails_is_reported_with_its_code_and_redelivered() {
    for request in [
        dry(request(1, &assets([1]))),
        whole_project(),
        whole_portal(),
    ] {
        let harness = Harness::with_assets(0..3);
        harness.simulator.add_portal(PORTAL, [project(1)]);
        harness.fault("list:status=403");
        let event = records([record("m-1", &request)]);
        assert_eq!(harness.answer(&event).await, failed(["m-1"]), "{request}");
        for event in [request.clone(), rule_event(&request)] {
            let report = harness.answer(&event).await;
            assert_eq!(report["dryRun"], true);
            assert_eq!(report["failures"][0]["code"], "HTTP 403", "{report}");
            assert_eq!(report["failures"][0]["queued"], false);
        }
        assert_nothing_changed(&harness);
    }
}

#[tokio::test(start_paused = true)]
async fn the_dry_run_of_a_missing_project_or_portal_says_so_and_writes_no_dead_letter() {
    for missing_list in MISSING {
        let harness = Harness::new(Settings {
            missing_list,
            ..Settings::default()
        });
        for request in [
            dry(request(1, &assets([1, 2]))),
            whole_project(),
            whole_portal(),
        ] {
            let report = harness.answer(&request).await;
            assert_eq!(report["status"], "failed");
            assert_eq!(report["failures"][0]["code"], "ResourceNotFoundException");
            let event = records([record("m-1", &request)]);
            assert_eq!(harness.answer(&event).await, failed([]), "{request}");
            assert_nothing_changed(&harness);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_dry_run_is_treated_like_any_malformed_request() {
    let harness = Harness::with_assets(0..3);
    let malformed = json!({"projectId": "x", "allAssets": true, "dryRun": true});
    let event = records([record("m-1", &malformed)]);
    assert_eq!(harness.answer(&event).await, failed([]));
    assert_eq!(harness.letters().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_portals_dry_run_that_runs_out_of_time_says_what_it_read() {
    let harness = Harness::new(Settings::default());
    let projects: Vec<String> = (1..=20).map(project).collect();
    harness.simulator.add_portal(PORTAL, &projects);
    harness.fault("list:after=5:stall");
    let report = harness.answer(&whole_portal()).await;
    let projects = report["projects"].as_array().expect("a list");
    assert_eq!(projects.len(), 20);
    let unread = projects
        .iter()
        .filter(|one| one["code"] == "DeadlineReached");
    assert_eq!(unread.count(), 15, "{report}");
    let event = records([record("m-1", &whole_portal())]);
    assert_eq!(harness.answer(&event).await, failed([]));
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_between_other_messages_changes_nothing_of_theirs() {
    let harness = Harness::with_assets(0..3);
    let event = records([
        record("m-1", &request(1, &assets([0]))),
        record("m-2", &dry(request(1, &assets([1])))),
    ]);
    assert_eq!(harness.answer(&event).await, failed([]));
    assert_eq!(harness.remaining(), [1, 2]);
    let calls = harness.calls();
    assert!(!calls[0].assets.contains(&asset(1)));
    let reads = harness.reads();
    assert_eq!(reads[0].operation, Operation::ListProjectAssets);
}

#[tokio::test(start_paused = true)]
async fn a_portals_dry_run_that_runs_out_of_time_has_read_some_projects_to_the_end() {
    let mut harness = Harness::new(Settings {
        latency: Duration::from_secs(1),
        ..Settings::default()
    });
    harness.time_left = Duration::from_secs(20);
    let projects: Vec<String> = (1..=100).map(project).collect();
    harness.simulator.add_portal(PORTAL, &projects);
    let report = harness.answer(&whole_portal()).await;
    let projects = report["projects"].as_array().expect("a list");
    let read = projects.iter().filter(|one| one["assets"] == 0).count();
    assert!(read >= 16, "{read} of 100 lists and descriptions");
}
