//! Section 4, what a list may look like: of a project that is missing, that is
//! empty, that is large; and what finding out costs.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use simulator::{Absent, Action, Fault, Names, Operation, Settings};

use crate::support::{
    Harness, MISSING, REFUSALS, asset, assets, complaining, complaints, counts, failed, project,
    record, records, request,
};

const LATENCY: Duration = Duration::from_millis(50);

/// What a missing project may be asked for: messages, of how many assets each.
const SHAPES: [(usize, usize); 5] = [(1, 1), (1, 1_000), (300, 1), (20, 30), (5, 250)];

#[tokio::test(start_paused = true)]
async fn a_project_that_does_not_exist_has_all_its_assets_rejected_for_a_few_requests() {
    for missing_list in MISSING {
        for names in [Names::Nothing, Names::Project] {
            for (messages, count) in SHAPES {
                for concurrency in [1, 8, 64] {
                    let mut harness = Harness::new(Settings {
                        missing_list,
                        latency: LATENCY,
                        ..complaining(&Absent::Ignore, names)
                    });
                    harness.function.call_concurrency = concurrency;
                    let event = records((0..messages).map(|number| {
                        let ids = assets(number * count..(number + 1) * count);
                        record(&format!("m-{number}"), &request(1, &ids))
                    }));
                    assert_eq!(harness.answer(&event).await, failed([]));
                    let case =
                        format!("{missing_list:?} {names:?} {messages} × {count}, {concurrency}");
                    let batches = (messages * count).div_ceil(100);
                    let requests = harness.requests().len();
                    let most = 3 * concurrency.min(batches);
                    assert!(requests <= most, "{case}: {requests} requests");
                    let letters = harness.letter_bodies();
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
    for missing_list in MISSING {
        let harness = Harness::new(Settings {
            missing_list,
            ..Settings::default()
        });
        harness.simulator.add_project(&project(2), assets(500..900));
        let event = records([
            record("m-1", &request(1, &assets(0..500))),
            record("m-2", &request(2, &assets(500..900))),
        ]);
        assert_eq!(harness.answer(&event).await, failed([]));
        assert_eq!(harness.simulator.project_assets(&project(2)).len(), 0);
        assert_eq!(harness.lettered_assets().concat(), assets(0..500));
    }
}

#[tokio::test(start_paused = true)]
async fn a_project_that_exists_and_lists_nothing_has_all_its_assets_absent() {
    for absent in complaints() {
        for missing_list in MISSING {
            let harness = Harness::new(Settings {
                missing_list,
                ..complaining(&absent, Names::Project)
            });
            harness.simulator.add_project(&project(1), [] as [&str; 0]);
            let report = harness.answer(&request(1, &assets(0..100))).await;
            assert_eq!(report["status"], "succeeded", "{absent:?}");
            assert_eq!(counts(&report), [0, 100, 0, 0], "{absent:?}");
            assert_eq!(
                harness.requests().len(),
                3,
                "the call, the list, its project"
            );
            assert_eq!(harness.letters().len(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_assets_that_are_long_gone_cost_at_most_forty_requests() {
    for absent in complaints() {
        for members in [0, 250] {
            for (messages, count) in [(1, 1_000), (20, 50), (1_000, 1)] {
                for concurrency in [1, 8, 64] {
                    let mut harness = Harness::new(Settings {
                        latency: LATENCY,
                        ..complaining(&absent, Names::Nothing)
                    });
                    harness.function.call_concurrency = concurrency;
                    let others = assets(5_000..5_000 + members);
                    harness.simulator.add_project(&project(1), others);
                    let event = records((0..messages).map(|number| {
                        let ids = assets(number * count..(number + 1) * count);
                        record(&format!("m-{number}"), &request(1, &ids))
                    }));
                    assert_eq!(harness.answer(&event).await, failed([]));
                    assert_eq!(harness.letters().len(), 0);
                    let requests = harness.requests().len();
                    let case = format!("{absent:?} {members} {messages} × {count}, {concurrency}");
                    assert!(requests <= 40, "{case}: {requests} requests");
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
            let harness = Harness::with_assets(0..300);
            harness.refuse([1], refusal);
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
                harness
                    .simulator
                    .fault(fault.action(page(asset(1), Some("250"))));
            }
            let report = harness.answer(&request(1, &[asset(1)])).await;
            assert_eq!(counts(&report), [0, 0, 1, 0], "{hidden_in} {refusal:?}");
            assert_eq!(
                harness.reads().len(),
                3 * 4,
                "two pages twice in each round"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_asset_on_a_later_page_is_listed_and_one_on_none_is_absent() {
    for (members, pages) in [(1, 1), (249, 1), (250, 1), (251, 2), (500, 2), (750, 3)] {
        let harness = Harness::new(complaining(&Absent::NotFound, Names::Nothing));
        harness
            .simulator
            .add_project(&project(1), assets(0..members));
        let last = members - 1;
        let report = harness.answer(&request(1, &assets([last, 1_000]))).await;
        assert_eq!(counts(&report), [1, 1, 0, 0], "{members}");
        let readings = if pages == 1 { 1 } else { 2 };
        assert_eq!(harness.reads().len(), pages * readings, "{members}");
        harness.assert_nothing_invalid_was_sent();
    }
}

/// A project may list what is below its assets too.
#[tokio::test(start_paused = true)]
async fn descendants_in_a_list_change_nothing() {
    for absent in complaints() {
        let harness = Harness::new(Settings {
            lists_descendants: true,
            ..complaining(&absent, Names::Nothing)
        });
        harness.simulator.add_project(&project(1), assets(0..2));
        harness
            .simulator
            .add_descendants(&asset(0), assets(100..110));
        let report = harness.answer(&request(1, &assets(0..10))).await;
        assert_eq!(counts(&report), [2, 8, 0, 0], "{absent:?}");
    }
}

/// Eight batches whose refusals come one after the other while the first read
/// is under way.
#[tokio::test(start_paused = true)]
async fn one_read_serves_every_answer_that_came_before_its_first_page() {
    let harness = Harness::new(complaining(&Absent::NotFound, Names::Nothing));
    harness.simulator.add_project(&project(1), [asset(5_000)]);
    harness.fault("list:latency=1000ms");
    for batch in 0..8_u64 {
        harness.fault(&format!(
            "disassociate:asset={}:latency={}ms",
            asset(batch as usize * 100),
            10 * (batch + 1)
        ));
    }
    let report = harness.answer(&request(1, &assets(0..800))).await;
    assert_eq!(counts(&report), [0, 800, 0, 0]);
    let reads: Vec<Duration> = harness.reads().iter().map(|read| read.at).collect();
    let first_call = harness.calls()[0].at;
    let milliseconds: Vec<u128> = reads
        .iter()
        .map(|at| (*at - first_call).as_millis())
        .collect();
    assert_eq!(milliseconds, [10, 1010]);
}

/// The second refusal comes between the first page and the second.
#[tokio::test(start_paused = true)]
async fn a_read_serves_no_answer_that_came_after_its_first_page() {
    let harness = Harness::new(complaining(&Absent::NotFound, Names::Nothing));
    harness
        .simulator
        .add_project(&project(1), assets(5_000..5_300));
    harness.fault("list:latency=1000ms");
    for (batch, latency) in [(0, 10), (100, 500)] {
        let slow = asset(batch);
        harness.fault(&format!("disassociate:asset={slow}:latency={latency}ms"));
    }
    let report = harness.answer(&request(1, &assets(0..200))).await;
    assert_eq!(counts(&report), [0, 200, 0, 0]);
    assert_eq!(
        harness.reads().len(),
        2 * 4,
        "two reads of two pages, twice each"
    );
}
