//! Sections 4 and 5, whole projects: every asset that the project lists when the
//! message is processed.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Names, Operation, Settings};

use crate::support::{
    Harness, MISSING, WORK, asset, asset_ids, assets, complaining, complaints, counts, failed,
    failed_numbers, project, record, records, rule_event,
};

const TOKEN: &str = "decommission-2026-11-23-press-line-1";

/// A request for all assets of project 1.
fn whole_project() -> Value {
    json!({"projectId": project(1), "allAssets": true})
}

fn from_queue() -> Value {
    records([record("m-1", &whole_project())])
}

#[tokio::test(start_paused = true)]
async fn a_whole_project_is_emptied_by_one_list_and_full_batches() {
    let harness = Harness::with_assets(0..250);
    let report = harness.answer(&whole_project()).await;
    assert_eq!(report["status"], "succeeded");
    assert_eq!(report["projectId"], project(1));
    assert_eq!(report["assets"]["requested"], 250);
    assert_eq!(counts(&report), [250, 0, 0, 0]);
    assert_eq!(harness.remaining(), [0; 0]);
    assert_eq!(harness.call_sizes(), [100, 100, 50]);
    assert_eq!(harness.reads().len(), 1);
    harness.assert_nothing_invalid_was_sent();
}

#[tokio::test(start_paused = true)]
async fn a_project_of_one_asset_costs_one_list_and_one_call() {
    let harness = Harness::with_assets([7]);
    assert_eq!(harness.answer(&from_queue()).await, failed([]));
    let operations: Vec<Operation> = harness.requests().iter().map(|one| one.operation).collect();
    assert_eq!(
        operations,
        [Operation::ListProjectAssets, Operation::Disassociate]
    );
}

#[tokio::test(start_paused = true)]
async fn an_empty_project_is_done() {
    let harness = Harness::with_assets([]);
    assert_eq!(harness.answer(&from_queue()).await, failed([]));
    let report = harness.answer(&whole_project()).await;
    assert_eq!(report["status"], "succeeded");
    assert_eq!(report["assets"]["requested"], 0);
    assert_eq!(report["failures"], json!([]));
    assert_eq!(harness.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_missing_project_is_rejected_and_its_dead_letter_is_the_request() {
    for missing_list in MISSING {
        let harness = Harness::new(Settings {
            missing_list,
            ..Settings::default()
        });
        assert_eq!(harness.answer(&from_queue()).await, failed([]));
        assert_eq!(harness.requests().len(), 2, "the list and the project");
        let letters = harness.letter_bodies();
        assert_eq!(letters[0]["projectId"], project(1));
        assert_eq!(letters[0]["allAssets"], true);
        assert_eq!(letters[0]["assetIds"], Value::Null);
        let error = &letters[0]["errors"][0];
        assert_eq!(error["code"], "ResourceNotFoundException");
        assert_eq!(error["assetId"], Value::Null);

        let report = harness.answer(&whole_project()).await;
        assert_eq!(report["status"], "failed");
        assert_eq!(report["assets"]["requested"], 0);
        let failure = &report["failures"][0];
        assert_eq!(failure["assetIds"], json!([]));
        assert_eq!(failure["code"], "ResourceNotFoundException");
        assert_eq!(failure["retryable"], false);
        assert_eq!(failure["deadLettered"], true);
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_leaves_the_message_in_its_queue() {
    for (fault, _) in UNREADABLE {
        let harness = Harness::with_assets(0..3);
        harness.fault(fault);
        assert_eq!(harness.answer(&from_queue()).await, failed(["m-1"]));
        assert_eq!(harness.calls().len(), 0);
        assert_eq!(harness.letters().len(), 0);
    }
}

/// Faults of a list, and the codes that they are reported with.
const UNREADABLE: [(&str, &str); 3] = [
    ("list:status=403", "HTTP 403"),
    ("list:status=500", "HTTP 500"),
    ("list:throttle", "ThrottlingException"),
];

#[tokio::test(start_paused = true)]
async fn an_event_whose_list_fails_goes_to_the_work_queue_as_it_came() {
    for (fault, code) in UNREADABLE {
        let harness = Harness::with_assets(0..3);
        harness.fault(fault);
        let report = harness.answer(&rule_event(&whole_project())).await;
        assert_eq!(report["status"], "accepted", "{fault}");
        assert_eq!(report["assets"]["requested"], 0);
        let failure = &report["failures"][0];
        assert_eq!(failure["code"], code);
        assert_eq!(failure["assetIds"], json!([]));
        assert_eq!(failure["queued"], true);
        let queued = harness.parts();
        assert_eq!(queued, [rule_event(&whole_project())], "unmarked");
        assert_eq!(harness.letters().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_list_fails_is_lambdas_to_keep_without_a_work_queue() {
    let harness = Harness::with_assets(0..3).without_queues();
    harness.fault("list:status=403");
    let error = harness.handle(&rule_event(&whole_project())).await;
    assert!(error.expect_err("not stored").starts_with("NotStored"));
    let report = harness.answer(&whole_project()).await;
    assert_eq!(report["status"], "failed", "a direct caller has its report");
    assert_eq!(report["failures"][0]["retryable"], true);
}

#[tokio::test(start_paused = true)]
async fn a_large_project_is_cut_into_parts_of_assets() {
    let mut harness = Harness::with_assets(0..450);
    harness.function.fan_out_assets = 200;
    assert_eq!(harness.answer(&from_queue()).await, failed([]));
    assert_eq!(harness.calls().len(), 0);
    let parts = harness.parts();
    let held: BTreeSet<String> = parts.iter().flat_map(asset_ids).collect();
    assert_eq!(held, assets(0..450).into_iter().collect());
    assert_eq!(parts.len(), 3);
    for (index, part) in harness.simulator.take_messages(WORK).iter().enumerate() {
        let event = records([record(&format!("p-{index}"), &json!(part.body))]);
        assert_eq!(harness.answer(&event).await, failed([]));
    }
    assert_eq!(harness.remaining(), [0; 0]);
    assert_eq!(harness.parts().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_a_work_queue_a_large_project_is_processed_at_once() {
    let mut harness = Harness::with_assets(0..450).without_work_queue();
    harness.function.fan_out_assets = 200;
    assert_eq!(harness.answer(&from_queue()).await, failed([]));
    assert_eq!(harness.remaining(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_redelivery_lists_again_and_takes_what_is_there_by_then() {
    let harness = Harness::with_assets(0..3);
    harness.fault("disassociate:first=3:status=500");
    assert_eq!(harness.answer(&from_queue()).await, failed(["m-1"]));
    harness.simulator.add_project(&project(1), assets(10..12));
    assert_eq!(harness.answer(&from_queue()).await, failed([]));
    assert_eq!(harness.remaining(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn tokens_of_a_whole_project_are_derived_from_its_own_or_its_message_and_its_assets() {
    let token = async |message: &str, own: Option<&str>, members: [usize; 2]| {
        let harness = Harness::with_assets(members);
        let mut request = whole_project();
        if let Some(own) = own {
            request["clientToken"] = json!(own);
        }
        harness.answer(&records([record(message, &request)])).await;
        harness.calls()[0].token.clone().expect("a token")
    };
    let first = token("m-1", None, [1, 2]).await;
    assert_eq!(token("m-1", None, [1, 2]).await, first, "a redelivery");
    assert_ne!(token("m-2", None, [1, 2]).await, first);
    assert_ne!(token("m-1", None, [1, 3]).await, first);
    let own = token("m-1", Some(TOKEN), [1, 2]).await;
    assert_ne!(own, TOKEN, "never as it is");
    assert_eq!(token("m-2", Some(TOKEN), [1, 2]).await, own);
    assert_ne!(token("m-2", Some(TOKEN), [1, 3]).await, own);
}

#[tokio::test(start_paused = true)]
async fn a_list_of_several_pages_is_read_twice_and_again_after_the_calls() {
    let harness = Harness::with_assets(0..600);
    let report = harness.answer(&whole_project()).await;
    assert_eq!(counts(&report), [600, 0, 0, 0]);
    let lists = harness.reads();
    assert_eq!(
        lists.len(),
        3 + 3 + 1 + 1,
        "twice, then empty and described"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_still_listed_after_the_calls_is_processed_too() {
    let harness = Harness::new(Settings {
        latency: Duration::from_millis(50),
        ..Settings::default()
    });
    harness.simulator.add_project(&project(1), assets(0..300));
    let mut requests = harness.simulator.watch();
    let adds_an_asset_at_the_first_call = async {
        while let Some(request) = requests.recv().await {
            if request.operation == Operation::Disassociate {
                harness.simulator.add_project(&project(1), assets([900]));
                break;
            }
        }
    };
    let event = whole_project();
    let (report, ()) = tokio::join!(harness.answer(&event), adds_an_asset_at_the_first_call);
    assert_eq!(report["status"], "succeeded");
    assert_eq!(counts(&report), [301, 0, 0, 0]);
    assert_eq!(harness.remaining(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_asset_that_is_rejected_is_not_asked_for_again_after_the_calls() {
    let harness = Harness::with_assets(0..300);
    harness.fault(&format!(
        "disassociate:asset={}:asset-error=INTERNAL",
        asset(7)
    ));
    let report = harness.answer(&whole_project()).await;
    assert_eq!(counts(&report), [299, 0, 1, 0]);
    assert_eq!(harness.lettered_assets(), [[asset(7)]]);
    let asked = harness.calls();
    let asked = asked.iter().filter(|call| call.assets.contains(&asset(7)));
    assert_eq!(asked.count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_list_that_runs_out_of_time_still_yields_what_it_showed() {
    let harness = Harness::with_assets(0..1_000);
    harness.fault("list:after=2:stall");
    assert_eq!(harness.answer(&from_queue()).await, failed(["m-1"]));
    assert_eq!(harness.remaining().len(), 500, "two pages are gone");
    assert_eq!(harness.letters().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn whole_projects_share_no_call_with_named_assets() {
    let harness = Harness::with_assets(0..2);
    let named = json!({"projectId": project(1), "assetIds": assets([5])});
    let event = records([record("m-1", &whole_project()), record("m-2", &named)]);
    assert_eq!(harness.answer(&event).await, failed([]));
    let mut sizes = harness.call_sizes();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn where_time_is_short_some_of_many_empty_projects_are_done() {
    let mut harness = Harness::new(Settings {
        latency: Duration::from_secs(1),
        ..Settings::default()
    });
    harness.time_left = Duration::from_secs(20);
    let event = records((0..100).map(|number| {
        harness
            .simulator
            .add_project(&project(number), [] as [&str; 0]);
        let body = json!({"projectId": project(number), "allAssets": true});
        record(&format!("m-{number}"), &body)
    }));
    let left = failed_numbers(&harness.answer(&event).await).len();
    assert!(left <= 84, "{left} of 100 are left");
}

#[tokio::test(start_paused = true)]
async fn a_missing_project_is_rejected_also_where_the_time_for_lists_ends() {
    let mut harness = Harness::new(Settings::default());
    harness.time_left = Duration::from_secs(10);
    harness.fault("describe:latency=3700ms");
    let report = harness.answer(&rule_event(&whole_project())).await;
    assert_eq!(report["status"], "failed");
    let failure = &report["failures"][0];
    assert_eq!(failure["code"], "ResourceNotFoundException");
    assert_eq!(failure["deadLettered"], true);
    assert_eq!(harness.parts().len(), 0);
}

/// The asset is added between the whole project's list and the named asset's call,
/// and stays listed for long.
#[tokio::test(start_paused = true)]
async fn what_another_message_took_out_is_not_asked_for_again_whatever_the_list_says() {
    let named = json!({"projectId": project(1), "assetIds": assets([900])});
    for absent in complaints() {
        let harness = Harness::new(Settings {
            removed_stay_listed: Duration::from_secs(60),
            added_not_listed: Duration::from_secs(1),
            ..complaining(&absent, Names::Resource)
        });
        harness.simulator.add_project(&project(1), assets(0..300));
        harness.answer(&named).await;
        harness.simulator.add_project(&project(1), assets([900]));
        harness.fault(&format!("disassociate:asset={}:latency=2000ms", asset(299)));
        let event = records([record("m-1", &whole_project()), record("m-2", &named)]);
        let before = harness.calls().len();
        assert_eq!(harness.answer(&event).await, failed([]));
        let calls = harness.calls();
        let asked = calls[before..].iter();
        let asked = asked.filter(|call| call.assets.contains(&asset(900)));
        assert_eq!(asked.count(), 1, "{absent:?}");
        assert_eq!(harness.letters().len(), 0, "{absent:?}");
    }
}
