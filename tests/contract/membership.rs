//! Section 4, membership: where a read can tell, nothing is inferred.

use std::time::Duration;

use simulator::{Absent, Action, Fault, Names, Operation, Settings};

use crate::support::{Rig, asset, assets, failed, project, record, records, request};

const NAMES: [Names; 3] = [Names::Nothing, Names::Project, Names::Resource];

/// A service that refuses calls for absent assets so.
fn refusing(absent: &Absent, names: Names) -> Settings {
    Settings {
        asset_not_in_project: absent.clone(),
        unknown_asset: absent.clone(),
        not_found_names: names,
        ..Settings::default()
    }
}

/// Every way in which a service may complain about absent assets.
fn complaints() -> Vec<Absent> {
    let error = Absent::AssetError {
        code: "NOT_IN_PROJECT".to_owned(),
        message: "not in project".to_owned(),
    };
    vec![Absent::NotFound, Absent::Invalid, error]
}

fn refusal(status: u16, error_type: &str, message: &str) -> Action {
    Action::Refuse {
        status,
        error_type: error_type.to_owned(),
        message: message.to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn gone_assets_do_not_keep_the_good_ones_of_their_batch_from_being_done() {
    for absent in complaints() {
        for names in NAMES {
            for good in [0..10, 45..55, 90..100] {
                for slow in [0, 100] {
                    let rig = Rig::new(refusing(&absent, names));
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
                let mut rig = Rig::new(refusing(&absent, Names::Resource));
                rig.function.max_concurrency = concurrency;
                rig.simulator.add_project(&project(1), assets(0..count));
                let body = request(1, &assets(0..count));
                let event =
                    records((0..messages).map(|number| record(&format!("m-{number}"), &body)));
                let case = format!("{absent:?} {messages} × {count}, {concurrency}");
                assert_eq!(rig.answer(&event).await, failed([]), "{case}");
                assert_eq!(rig.remaining(), [0; 0], "{case}");
                assert_eq!(rig.letters().len(), 0, "{case}");
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
        for (status, error_type) in [
            (404, "ResourceNotFoundException"),
            (400, "InvalidRequestException"),
        ] {
            for good_first in [false, true] {
                let rig = Rig::with_assets(0..10);
                for gone in 100..160 {
                    rig.simulator.fault(
                        Fault::on(Operation::Disassociate)
                            .asset(asset(gone))
                            .action(refusal(status, error_type, message)),
                    );
                }
                let gone = record("gone", &request(1, &assets(100..160)));
                let good = record("good", &request(1, &assets(0..10)));
                let event = if good_first { [good, gone] } else { [gone, good] };
                let case = format!("{status} {message}");
                assert_eq!(rig.answer(&records(event)).await, failed([]), "{case}");
                assert_eq!(rig.remaining(), [0; 0], "{case}");
                assert_eq!(rig.letters().len(), 0, "{case}");
            }
        }
    }
}
