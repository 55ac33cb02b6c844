//! Section 4, membership: where a read can tell, nothing is inferred.

use std::time::Duration;

use serde_json::json;
use simulator::{Absent, Action, Fault, Names, Operation, Settings, Tokens};

use crate::support::{
    Harness, REFUSALS, asset, asset_ids, assets, complaining, complaints, counts, failed, project,
    record, records, request, topic_event,
};

const NAMES: [Names; 3] = [Names::Nothing, Names::Project, Names::Resource];

#[tokio::test(start_paused = true)]
async fn what_the_project_does_not_list_is_absent_and_done() {
    for absent in complaints() {
        for names in NAMES {
            let harness = Harness::new(complaining(&absent, names));
            harness.simulator.add_project(&project(1), assets(40..101));
            harness.simulator.add_asset(&asset(7));
            let report = harness.answer(&request(1, &assets(0..100))).await;
            let case = format!("{absent:?} {names:?}");
            assert_eq!(report["status"], "succeeded", "{case}");
            assert_eq!(counts(&report), [60, 40, 0, 0], "{case}");
            assert_eq!(report["failures"], json!([]), "{case}");
            assert_eq!(harness.remaining(), [100], "{case}");
            assert_eq!(harness.reads().len(), 1, "{case}");

            let event = records([record("m-1", &request(1, &assets(0..100)))]);
            assert_eq!(harness.answer(&event).await, failed([]), "{case}");
            assert_eq!(harness.letters().len() + harness.parts().len(), 0, "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_listed_ones_are_tried_again_without_the_absent_ones() {
    for absent in complaints() {
        let harness = Harness::new(complaining(&absent, Names::Nothing));
        harness.simulator.add_project(&project(1), assets(5..100));
        let report = harness.answer(&request(1, &assets(0..100))).await;
        assert_eq!(counts(&report), [95, 5, 0, 0], "{absent:?}");
        let calls = harness.calls();
        if let Absent::AssetError { .. } = absent {
            assert_eq!(calls.len(), 1);
        } else {
            let [first, second] = &calls[..] else {
                panic!("two calls: {calls:?}");
            };
            assert_eq!(second.assets, assets(5..100));
            assert_ne!(first.token, second.token);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn gone_assets_do_not_keep_the_good_ones_of_their_batch_from_being_done() {
    for absent in complaints() {
        for names in NAMES {
            for good in [0..10, 45..55, 90..100] {
                for slow in [0, 100] {
                    let harness = Harness::new(complaining(&absent, names));
                    harness
                        .simulator
                        .add_project(&project(1), assets(good.clone().chain(100..200)));
                    harness.simulator.fault(
                        Fault::on(Operation::Disassociate)
                            .asset(asset(slow))
                            .action(Action::Latency(Duration::from_millis(1500))),
                    );
                    let event = records([record("m-1", &request(1, &assets(0..200)))]);
                    let case = format!("{absent:?} {names:?} {good:?} {slow}");
                    assert_eq!(harness.answer(&event).await, failed([]), "{case}");
                    assert_eq!(harness.remaining(), [0; 0], "{case}");
                    assert_eq!(harness.letters().len(), 0, "{case}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_this_invocation_took_out_is_not_dead_lettered_for_an_identical_message() {
    for absent in complaints() {
        for (messages, count) in [(2, 100), (2, 250), (3, 100), (10, 130)] {
            for concurrency in [1, 8] {
                for removed_stay_listed in [Duration::ZERO, Duration::from_secs(3600)] {
                    let mut harness = Harness::new(Settings {
                        removed_stay_listed,
                        ..complaining(&absent, Names::Resource)
                    });
                    harness.function.call_concurrency = concurrency;
                    harness.simulator.add_project(&project(1), assets(0..count));
                    let body = request(1, &assets(0..count));
                    let event =
                        records((0..messages).map(|number| record(&format!("m-{number}"), &body)));
                    let case = format!(
                        "{absent:?} {messages} × {count}, {concurrency}, {removed_stay_listed:?}"
                    );
                    assert_eq!(harness.answer(&event).await, failed([]), "{case}");
                    assert_eq!(harness.remaining(), [0; 0], "{case}");
                    assert_eq!(harness.letters().len(), 0, "{case}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_this_invocation_took_out_counts_as_disassociated_and_is_not_asked_for_again() {
    for absent in complaints() {
        for removed_stay_listed in [Duration::ZERO, Duration::from_secs(3600)] {
            for second in [0..100, 1..101, 50..150] {
                let mut harness = Harness::new(Settings {
                    removed_stay_listed,
                    ..complaining(&absent, Names::Nothing)
                });
                harness.function.call_concurrency = 1;
                harness.simulator.add_project(&project(1), assets(0..150));
                // Two requests of which both reports are to be seen.
                let mut event = topic_event(&request(1, &assets(0..100)));
                let notification = topic_event(&request(1, &assets(second.clone())));
                let records = event["Records"].as_array_mut().expect("a list");
                records.push(notification["Records"][0].clone());
                records[1]["Sns"]["MessageId"] = json!("notification-2");
                let reports = harness.answer(&event).await;
                for report in reports.as_array().expect("two reports") {
                    assert_eq!(counts(report), [100, 0, 0, 0], "{absent:?} {second:?}");
                }
                for id in assets(0..100) {
                    let calls = harness.calls().into_iter();
                    let count = calls.filter(|call| call.assets.contains(&id)).count();
                    assert!(count <= 2, "once for each request: {absent:?} {second:?}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_wording_of_a_refusal_keeps_the_good_request_of_a_shared_call_from_being_done() {
    let project_1 = project(1);
    for message in [
        &format!("One or more resources are not associated with project {project_1}"),
        &format!("Project {project_1} not found"),
        &format!("projects/{project_1}/assets can't be found"),
        "no",
        "",
    ] {
        for (status, error_type) in REFUSALS {
            for good_first in [false, true] {
                let harness = Harness::with_assets(0..10);
                for gone in assets(100..160) {
                    let fault = Fault::on(Operation::Disassociate).asset(gone);
                    harness.simulator.fault(fault.action(Action::Refuse {
                        status,
                        error_type: error_type.to_owned(),
                        message: message.to_owned(),
                    }));
                }
                let gone = record("gone", &request(1, &assets(100..160)));
                let good = record("good", &request(1, &assets(0..10)));
                let event = if good_first {
                    [good, gone]
                } else {
                    [gone, good]
                };
                let case = format!("{status} {message}");
                assert_eq!(harness.answer(&records(event)).await, failed([]), "{case}");
                assert_eq!(harness.remaining(), [0; 0], "{case}");
                assert_eq!(harness.letters().len(), 0, "{case}");
            }
        }
    }
}

/// A reply is lost, the SDK repeats the call, and the service complains of what
/// the first attempt has taken out, while the list still shows it.
#[tokio::test(start_paused = true)]
async fn a_list_that_lags_behind_a_lost_reply_rejects_nothing() {
    for lost in ["reset-after", "truncate", "garbage", "stall-after"] {
        for absent in complaints() {
            for (messages, count) in [(1, 1), (1, 3), (1, 100), (10, 10)] {
                for milliseconds in [1, 200, 700] {
                    let harness = Harness::new(Settings {
                        removed_stay_listed: Duration::from_millis(milliseconds),
                        tokens: Tokens::Ignored,
                        ..complaining(&absent, Names::Nothing)
                    });
                    let all = assets(0..messages * count);
                    harness.simulator.add_project(&project(1), &all);
                    harness.fault(&format!("disassociate:first=1:{lost}"));
                    let event = records((0..messages).map(|number| {
                        let ids = &all[number * count..(number + 1) * count];
                        record(&format!("m-{number}"), &request(1, ids))
                    }));
                    let case = format!("{lost} {absent:?} {messages} × {count}, {milliseconds} ms");
                    assert_eq!(harness.answer(&event).await, failed([]), "{case}");
                    assert_eq!(harness.letters().len(), 0, "{case}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_names_only_what_the_list_still_shows() {
    for absent in complaints() {
        for refusal in REFUSALS {
            let harness = Harness::new(complaining(&absent, Names::Nothing));
            harness.simulator.add_project(&project(1), assets(0..50));
            harness.refuse([10, 20], refusal);
            let event = records([record("m-1", &request(1, &assets(0..100)))]);
            assert_eq!(harness.answer(&event).await, failed([]), "{absent:?}");
            assert_eq!(harness.remaining(), [10, 20], "{absent:?}");
            let letters = harness.letter_bodies();
            let lettered: Vec<String> = letters.iter().flat_map(asset_ids).collect();
            assert_eq!(lettered, assets([10, 20]), "{absent:?}");
        }
    }
}
