//! Section 4, membership: where a read can tell, nothing is inferred.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Absent, Action, Fault, MissingProjectList, Names, Operation, Settings, Tokens};

use crate::support::{
    REFUSALS, Rig, asset, asset_ids, assets, failed, project, record, records, request, topic_event,
};

const NAMES: [Names; 3] = [Names::Nothing, Names::Project, Names::Resource];

/// What the list of a missing project may answer.
const MISSING: [MissingProjectList; 3] = [
    MissingProjectList::NotFound,
    MissingProjectList::Invalid,
    MissingProjectList::Empty,
];

const LATENCY: Duration = Duration::from_millis(50);

/// A service that complains so about absent assets.
fn complaining(absent: &Absent, names: Names) -> Settings {
    Settings {
        asset_not_in_project: absent.clone(),
        unknown_asset: absent.clone(),
        not_found_names: names,
        ..Settings::default()
    }
}

/// Every way in which a service may complain about absent assets.
fn complaints() -> [Absent; 3] {
    let error = Absent::AssetError {
        code: "NOT_IN_PROJECT".to_owned(),
        message: "not in project".to_owned(),
    };
    [Absent::NotFound, Absent::Invalid, error]
}

fn counts(report: &Value) -> [&Value; 4] {
    let counts = &report["assets"];
    ["disassociated", "absent", "rejected", "unfinished"].map(|name| &counts[name])
}

#[tokio::test(start_paused = true)]
async fn what_the_project_does_not_list_is_absent_and_done() {
    for absent in complaints() {
        for names in NAMES {
            let rig = Rig::new(complaining(&absent, names));
            rig.simulator.add_project(&project(1), assets(40..101));
            rig.simulator.add_asset(&asset(7));
            let report = rig.answer(&request(1, &assets(0..100))).await;
            let case = format!("{absent:?} {names:?}");
            assert_eq!(report["status"], "succeeded", "{case}");
            assert_eq!(counts(&report), [60, 40, 0, 0], "{case}");
            assert_eq!(report["failures"], json!([]), "{case}");
            assert_eq!(rig.remaining(), [100], "{case}");
            assert_eq!(rig.reads().len(), 1, "{case}");

            let event = records([record("m-1", &request(1, &assets(0..100)))]);
            assert_eq!(rig.answer(&event).await, failed([]), "{case}");
            assert_eq!(rig.letters().len() + rig.parts().len(), 0, "{case}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_listed_ones_are_tried_again_without_the_absent_ones() {
    for absent in complaints() {
        let rig = Rig::new(complaining(&absent, Names::Nothing));
        rig.simulator.add_project(&project(1), assets(5..100));
        let report = rig.answer(&request(1, &assets(0..100))).await;
        assert_eq!(counts(&report), [95, 5, 0, 0], "{absent:?}");
        let calls = rig.calls();
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
                    let rig = Rig::new(complaining(&absent, names));
                    rig.simulator
                        .add_project(&project(1), assets(good.clone().chain(100..200)));
                    rig.simulator.fault(
                        Fault::on(Operation::Disassociate)
                            .asset(asset(slow))
                            .action(Action::Latency(Duration::from_millis(1500))),
                    );
                    let event = records([record("m-1", &request(1, &assets(0..200)))]);
                    let case = format!("{absent:?} {names:?} {good:?} {slow}");
                    assert_eq!(rig.answer(&event).await, failed([]), "{case}");
                    assert_eq!(rig.remaining(), [0; 0], "{case}");
                    assert_eq!(rig.letters().len(), 0, "{case}");
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
                    let mut rig = Rig::new(Settings {
                        removed_stay_listed,
                        ..complaining(&absent, Names::Resource)
                    });
                    rig.function.call_concurrency = concurrency;
                    rig.simulator.add_project(&project(1), assets(0..count));
                    let body = request(1, &assets(0..count));
                    let event =
                        records((0..messages).map(|number| record(&format!("m-{number}"), &body)));
                    let case = format!(
                        "{absent:?} {messages} × {count}, {concurrency}, {removed_stay_listed:?}"
                    );
                    assert_eq!(rig.answer(&event).await, failed([]), "{case}");
                    assert_eq!(rig.remaining(), [0; 0], "{case}");
                    assert_eq!(rig.letters().len(), 0, "{case}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_this_invocation_took_out_counts_as_disassociated_and_is_not_asked_for_again() {
    for absent in complaints() {
        for removed_stay_listed in [Duration::ZERO, Duration::from_secs(3600)] {
            let mut rig = Rig::new(Settings {
                removed_stay_listed,
                ..complaining(&absent, Names::Nothing)
            });
            rig.function.call_concurrency = 1;
            rig.simulator.add_project(&project(1), assets(0..100));
            // Two requests of which both reports are to be seen.
            let mut event = topic_event(&request(1, &assets(0..100)));
            let second = event["Records"][0].clone();
            event["Records"]
                .as_array_mut()
                .expect("a list")
                .push(second);
            event["Records"][1]["Sns"]["MessageId"] = json!("notification-2");
            let reports = rig.answer(&event).await;
            for report in reports.as_array().expect("two reports") {
                assert_eq!(counts(report), [100, 0, 0, 0], "{absent:?}");
            }
            let most_often = assets(0..100).into_iter().map(|id| {
                let calls = rig.calls().into_iter();
                calls.filter(|call| call.assets.contains(&id)).count()
            });
            // Once for each request.
            assert!(most_often.max() <= Some(2), "{absent:?}");
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
                let rig = Rig::with_assets(0..10);
                for gone in assets(100..160) {
                    let fault = Fault::on(Operation::Disassociate).asset(gone);
                    rig.simulator.fault(fault.action(Action::Refuse {
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
                assert_eq!(rig.answer(&records(event)).await, failed([]), "{case}");
                assert_eq!(rig.remaining(), [0; 0], "{case}");
                assert_eq!(rig.letters().len(), 0, "{case}");
            }
        }
    }
}

/// What a missing project may be asked for: messages, of how many assets each.
const SHAPES: [(usize, usize); 5] = [(1, 1), (1, 1_000), (300, 1), (20, 30), (5, 250)];

#[tokio::test(start_paused = true)]
async fn a_project_that_does_not_exist_has_all_its_assets_rejected_for_a_few_requests() {
    for missing_project_list in MISSING {
        for names in [Names::Nothing, Names::Project] {
            for (messages, count) in SHAPES {
                for concurrency in [1, 8, 64] {
                    let mut rig = Rig::new(Settings {
                        missing_project_list,
                        latency: LATENCY,
                        ..complaining(&Absent::Ignore, names)
                    });
                    rig.function.call_concurrency = concurrency;
                    let event = records((0..messages).map(|number| {
                        let ids = assets(number * count..(number + 1) * count);
                        record(&format!("m-{number}"), &request(1, &ids))
                    }));
                    assert_eq!(rig.answer(&event).await, failed([]));
                    let case = format!(
                        "{missing_project_list:?} {names:?} {messages} × {count}, {concurrency}"
                    );
                    let batches = (messages * count).div_ceil(100);
                    let requests = rig.requests().len();
                    let most = 3 * concurrency.min(batches);
                    assert!(requests <= most, "{case}: {requests} requests");
                    let letters = rig.letter_bodies();
                    let errors = letters
                        .iter()
                        .flat_map(|letter| letter["errors"].as_array());
                    let rejected: BTreeSet<&str> = errors
                        .flatten()
                        .inspect(|error| {
                            assert_eq!(error["code"], "ResourceNotFoundException", "{case}");
                        })
                        .filter_map(|error| error["assetId"].as_str())
                        .collect();
                    assert_eq!(rejected.len(), messages * count, "{case}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_project_holds_no_other_project_up() {
    for missing_project_list in MISSING {
        let rig = Rig::new(Settings {
            missing_project_list,
            ..Settings::default()
        });
        rig.simulator.add_project(&project(2), assets(500..900));
        let event = records([
            record("m-1", &request(1, &assets(0..500))),
            record("m-2", &request(2, &assets(500..900))),
        ]);
        assert_eq!(rig.answer(&event).await, failed([]));
        assert_eq!(rig.simulator.project_assets(&project(2)).len(), 0);
        assert_eq!(rig.lettered_assets().concat(), assets(0..500));
    }
}

#[tokio::test(start_paused = true)]
async fn a_project_that_exists_and_lists_nothing_has_all_its_assets_absent() {
    for absent in complaints() {
        for missing_project_list in MISSING {
            let rig = Rig::new(Settings {
                missing_project_list,
                ..complaining(&absent, Names::Project)
            });
            rig.simulator.add_project(&project(1), [] as [&str; 0]);
            let report = rig.answer(&request(1, &assets(0..100))).await;
            assert_eq!(report["status"], "succeeded", "{absent:?}");
            assert_eq!(counts(&report), [0, 100, 0, 0], "{absent:?}");
            assert_eq!(rig.requests().len(), 3, "the call, the list, its project");
            assert_eq!(rig.letters().len(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_assets_that_are_long_gone_cost_at_most_forty_requests() {
    for absent in complaints() {
        for members in [0, 250] {
            for (messages, count) in [(1, 1_000), (20, 50), (1_000, 1)] {
                for concurrency in [1, 8, 64] {
                    let mut rig = Rig::new(Settings {
                        latency: LATENCY,
                        ..complaining(&absent, Names::Nothing)
                    });
                    rig.function.call_concurrency = concurrency;
                    let others = assets(5_000..5_000 + members);
                    rig.simulator.add_project(&project(1), others);
                    let event = records((0..messages).map(|number| {
                        let ids = assets(number * count..(number + 1) * count);
                        record(&format!("m-{number}"), &request(1, &ids))
                    }));
                    assert_eq!(rig.answer(&event).await, failed([]));
                    assert_eq!(rig.letters().len(), 0);
                    let requests = rig.requests().len();
                    let case = format!("{absent:?} {members} {messages} × {count}, {concurrency}");
                    assert!(requests <= 40, "{case}: {requests} requests");
                }
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
                    let rig = Rig::new(Settings {
                        removed_stay_listed: Duration::from_millis(milliseconds),
                        tokens: Tokens::Ignored,
                        ..complaining(&absent, Names::Nothing)
                    });
                    let all = assets(0..messages * count);
                    rig.simulator.add_project(&project(1), &all);
                    rig.fault(&format!("disassociate:first=1:{lost}"));
                    let event = records((0..messages).map(|number| {
                        let ids = &all[number * count..(number + 1) * count];
                        record(&format!("m-{number}"), &request(1, ids))
                    }));
                    let case = format!("{lost} {absent:?} {messages} × {count}, {milliseconds} ms");
                    assert_eq!(rig.answer(&event).await, failed([]), "{case}");
                    assert_eq!(rig.letters().len(), 0, "{case}");
                }
            }
        }
    }
}

/// Where in a list of two pages, read twice, the second asset is missing.
#[tokio::test(start_paused = true)]
async fn a_list_of_several_pages_is_read_twice_and_what_either_shows_is_listed() {
    for hidden_in in 0..=2 {
        for refusal in REFUSALS {
            let rig = Rig::with_assets(0..300);
            rig.refuse([1], refusal);
            let page = |hidden, next: Option<&str>| {
                let numbers = if next.is_some() { 0..250 } else { 250..300 };
                let ids: Vec<String> = assets(numbers)
                    .into_iter()
                    .filter(|id| *id != hidden)
                    .collect();
                Action::Reply {
                    status: 200,
                    error_type: None,
                    headers: Vec::new(),
                    body: json!({"assetIds": ids, "nextToken": next}).to_string(),
                }
            };
            // The first page of the first or of the second reading lacks it.
            if hidden_in > 0 {
                let fault = Fault::on(Operation::ListProjectAssets).nth(hidden_in * 2 - 1);
                rig.simulator
                    .fault(fault.action(page(asset(1), Some("250"))));
            }
            let report = rig.answer(&request(1, &[asset(1)])).await;
            assert_eq!(counts(&report), [0, 0, 1, 0], "{hidden_in} {refusal:?}");
            assert_eq!(rig.reads().len(), 3 * 4, "two pages twice in each round");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_asset_on_a_later_page_is_listed_and_one_on_none_is_absent() {
    for (members, pages) in [(1, 1), (249, 1), (250, 1), (251, 2), (500, 2), (750, 3)] {
        let rig = Rig::new(complaining(&Absent::NotFound, Names::Nothing));
        rig.simulator.add_project(&project(1), assets(0..members));
        let last = members - 1;
        let report = rig.answer(&request(1, &assets([last, 1_000]))).await;
        assert_eq!(counts(&report), [1, 1, 0, 0], "{members}");
        let readings = if pages == 1 { 1 } else { 2 };
        assert_eq!(rig.reads().len(), pages * readings, "{members}");
        rig.assert_nothing_invalid_was_sent();
    }
}

/// A project may list what is below its assets too.
#[tokio::test(start_paused = true)]
async fn descendants_in_a_list_change_nothing() {
    for absent in complaints() {
        let rig = Rig::new(Settings {
            lists_descendants: true,
            ..complaining(&absent, Names::Nothing)
        });
        rig.simulator.add_project(&project(1), assets(0..2));
        rig.simulator.add_descendants(&asset(0), assets(100..110));
        let report = rig.answer(&request(1, &assets(0..10))).await;
        assert_eq!(counts(&report), [2, 8, 0, 0], "{absent:?}");
    }
}

/// Eight batches whose refusals come one after the other while the first read
/// is under way.
#[tokio::test(start_paused = true)]
async fn one_read_serves_every_answer_that_came_before_its_first_page() {
    let rig = Rig::new(complaining(&Absent::NotFound, Names::Nothing));
    rig.simulator.add_project(&project(1), [asset(5_000)]);
    rig.fault("list:latency=1000ms");
    for batch in 0..8_u64 {
        rig.fault(&format!(
            "disassociate:asset={}:latency={}ms",
            asset(batch as usize * 100),
            10 * (batch + 1)
        ));
    }
    let report = rig.answer(&request(1, &assets(0..800))).await;
    assert_eq!(counts(&report), [0, 800, 0, 0]);
    let reads: Vec<Duration> = rig.reads().iter().map(|read| read.at).collect();
    let first_call = rig.calls()[0].at;
    let milliseconds: Vec<u128> = reads
        .iter()
        .map(|at| (*at - first_call).as_millis())
        .collect();
    assert_eq!(milliseconds, [10, 1010]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_names_only_what_the_list_still_shows() {
    for absent in complaints() {
        for refusal in REFUSALS {
            let rig = Rig::new(complaining(&absent, Names::Nothing));
            rig.simulator.add_project(&project(1), assets(0..50));
            rig.refuse([10, 20], refusal);
            let event = records([record("m-1", &request(1, &assets(0..100)))]);
            assert_eq!(rig.answer(&event).await, failed([]), "{absent:?}");
            assert_eq!(rig.remaining(), [10, 20], "{absent:?}");
            let letters = rig.letter_bodies();
            let lettered: Vec<String> = letters.iter().flat_map(asset_ids).collect();
            assert_eq!(lettered, assets([10, 20]), "{absent:?}");
        }
    }
}
