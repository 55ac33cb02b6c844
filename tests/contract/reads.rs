//! Section 4, reads of membership: when they happen, and what their failures
//! mean.

use std::time::Duration;

use serde_json::{Value, json};
use simulator::{Absent, Action, Fault, Settings, Throttle};
use tokio::time::Instant;

use crate::support::{
    Harness, asset, assets, failed, failed_numbers, project, record, records, request, rule_event,
};

const LATENCY: Duration = Duration::from_millis(50);

/// A service that refuses calls with absent assets.
fn refusing() -> Settings {
    Settings {
        asset_not_in_project: Absent::NotFound,
        unknown_asset: Absent::NotFound,
        ..Settings::default()
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_service_complains_of_no_request_nothing_is_read() {
    for how in [
        "latency=1ms",
        "throttle",
        "status=401",
        "status=403",
        "status=409",
        "status=500",
        "status=503",
        "reset",
        "reset-after",
        "truncate",
        "garbage",
        "stall",
        "status=200:type=InternalFailureException",
    ] {
        let harness = Harness::with_assets(0..400);
        harness.fault(&format!("disassociate:{how}"));
        let mut ids = assets(0..250);
        ids.extend(assets(0..3));
        ids.push("PUMP-7".to_owned());
        harness
            .answer(&records([
                record("m-1", &request(1, &ids)),
                record("m-2", &request(1, &assets(300..310))),
                record("m-3", &json!("not a request")),
            ]))
            .await;
        harness.answer(&request(1, &assets(320..330))).await;
        assert_eq!(harness.reads().len(), 0, "{how}");
    }
}

/// How a read fails, and the code that its assets are unfinished with.
struct Unreadable {
    how: &'static str,
    code: &'static str,
}

fn unreadable() -> Vec<Unreadable> {
    [
        ("throttle", "ThrottlingException"),
        ("status=429", "HTTP 429"),
        ("status=401", "HTTP 401"),
        ("status=403", "HTTP 403"),
        (
            "status=403:type=AccessDeniedException",
            "AccessDeniedException",
        ),
        (
            "status=400:type=ExpiredTokenException",
            "ExpiredTokenException",
        ),
        ("status=409", "HTTP 409"),
        ("status=302", "HTTP 302"),
        (
            "status=500:type=InternalFailureException",
            "InternalFailureException",
        ),
        ("status=500", "HTTP 500"),
        ("status=503", "HTTP 503"),
        ("reset", "ConnectionFailed"),
        ("reset-after", "ConnectionFailed"),
        ("truncate", "MalformedResponse"),
        ("garbage", "MalformedResponse"),
        // a 200 with nothing in it
        ("status=200", "MalformedResponse"),
        (
            "status=200:type=InternalFailureException",
            "InternalFailureException",
        ),
        ("stall", "Timeout"),
        ("stall-body", "Timeout"),
    ]
    .map(|(how, code)| Unreadable { how, code })
    .into()
}

/// The read that cannot be read, and what it is about.
struct Scene {
    reason: &'static str,
    target: &'static str,
    members: usize,
}

const SCENES: [Scene; 4] = [
    Scene {
        reason: "a list",
        target: "list",
        members: 10,
    },
    Scene {
        reason: "a list's second page",
        target: "list:after=1",
        members: 300,
    },
    Scene {
        reason: "the second reading",
        target: "list:after=2",
        members: 300,
    },
    Scene {
        reason: "the project of an empty list",
        target: "describe",
        members: 0,
    },
];

#[tokio::test(start_paused = true)]
async fn where_membership_cannot_be_read_the_assets_are_unfinished_with_the_reads_code() {
    for Unreadable { how, code } in unreadable() {
        for Scene {
            reason,
            target,
            members,
        } in SCENES
        {
            for error in [None, Some("NOT_IN_PROJECT")] {
                let mut settings = refusing();
                if let Some(code) = error {
                    settings.unknown_asset = Absent::AssetError {
                        code: code.to_owned(),
                        message: "not in project".to_owned(),
                    };
                }
                let harness = Harness::new(settings);
                let others = assets(5_000..5_000 + members);
                harness.simulator.add_project(&project(1), others);
                harness.fault(&format!("{target}:{how}"));
                let case = format!("{reason} {how} {error:?}");
                let mut ids = assets(0..3);
                ids.push("PUMP-7".to_owned());
                let event = records([record("m-1", &request(1, &ids))]);
                assert_eq!(harness.answer(&event).await, failed(["m-1"]), "{case}");
                assert_eq!(harness.letters().len() + harness.parts().len(), 0, "{case}");

                for event in [rule_event(&request(1, &ids)), request(1, &ids)] {
                    harness.simulator.clear_faults();
                    harness.fault(&format!("{target}:{how}"));
                    let report = harness.answer(&event).await;
                    assert_eq!(report["assets"]["queued"], 3, "{case}: {report}");
                    assert_eq!(report["assets"]["rejected"], 1, "{case}");
                    let failure = &report["failures"][1];
                    assert_eq!(failure["code"], code, "{case}");
                    assert_eq!(failure["retryable"], true, "{case}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_list_of_a_project_that_exists_leaves_its_assets_unfinished() {
    for (how, code) in [
        (
            "status=404:type=ResourceNotFoundException",
            "ResourceNotFoundException",
        ),
        (
            "status=400:type=InvalidRequestException",
            "InvalidRequestException",
        ),
    ] {
        for members in [0, 10] {
            let harness = Harness::new(refusing());
            harness
                .simulator
                .add_project(&project(1), assets(5_000..5_000 + members));
            harness.fault(&format!("list:{how}"));
            let report = harness.answer(&request(1, &assets(0..3))).await;
            assert_eq!(report["assets"]["queued"], 3, "{how}");
            assert_eq!(report["failures"][0]["code"], code, "{how}");
            let event = records([record("m-1", &request(1, &assets(0..3)))]);
            assert_eq!(harness.answer(&event).await, failed(["m-1"]), "{how}");
            assert_eq!(harness.letters().len(), 0, "{how}");
        }
    }
}

/// Only one answer says that a project does not exist.
#[tokio::test(start_paused = true)]
async fn any_other_refusal_of_a_projects_description_rejects_nothing() {
    for how in [
        "status=404",
        "status=404:type=UnknownOperationException",
        "status=404:type=InvalidRequestException",
        "status=400:type=InvalidRequestException",
        "status=403:type=ResourceNotFoundException",
        "status=500:type=ResourceNotFoundException",
        "status=200:type=ResourceNotFoundException",
    ] {
        let harness = Harness::new(refusing());
        harness.fault(&format!("describe:{how}"));
        let event = records([record("m-1", &request(1, &assets(0..3)))]);
        assert_eq!(harness.answer(&event).await, failed(["m-1"]), "{how}");
        assert_eq!(harness.letters().len(), 0, "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_unreadable_list_is_not_asked_about_is_done() {
    for Unreadable { how, .. } in unreadable() {
        let harness = Harness::with_assets(0..100);
        let error = format!(
            "disassociate:asset={}:asset-error=INTERNAL_FAILURE",
            asset(3)
        );
        harness.fault(&error);
        harness.fault(&format!("reads:{how}"));
        let report = harness.answer(&request(1, &assets(0..100))).await;
        assert_eq!(report["assets"]["disassociated"], 99, "{how}");
        assert_eq!(report["assets"]["queued"], 1, "{how}");
        assert_eq!(harness.remaining(), [3], "{how}");
    }
}

#[tokio::test(start_paused = true)]
async fn reads_that_fail_for_the_moment_are_repeated_as_calls_are() {
    for Unreadable { how, .. } in unreadable() {
        let is_repeated = !["=401", "=403", "=409", "=302", "Expired"]
            .iter()
            .any(|once| how.contains(once));
        if !is_repeated {
            continue;
        }
        for members in [0, 10] {
            let harness = Harness::new(refusing());
            harness
                .simulator
                .add_project(&project(1), assets(5_000..5_000 + members));
            harness.fault(&format!("reads:first=2:{how}"));
            let report = harness.answer(&request(1, &assets(0..3))).await;
            assert_eq!(report["assets"]["absent"], 3, "{how}: {report}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn no_read_outlives_the_deadline_whatever_time_is_left() {
    for how in ["stall", "stall-body", "latency=7000ms", "throttle"] {
        for milliseconds in [700, 1_000, 3_000, 10_000, 30_000, 60_000] {
            let mut harness = Harness::new(refusing());
            harness.simulator.add_project(&project(1), assets(100..700));
            harness.fault(&format!("reads:{how}"));
            harness.fault("disassociate:latency=90ms");
            harness.time_left = Duration::from_millis(milliseconds);
            let start = Instant::now();
            let event = records([record("m-1", &request(1, &assets(0..3)))]);
            let answer = harness.answer(&event).await;
            assert!(
                start.elapsed() <= harness.time_left,
                "{how} {milliseconds} ms"
            );
            let is_read = how.starts_with("latency") && milliseconds == 60_000;
            let expected = if is_read { failed([]) } else { failed(["m-1"]) };
            assert_eq!(answer, expected, "{how} {milliseconds} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_without_an_end_is_unfinished_in_time() {
    let harness = Harness::new(refusing());
    harness.simulator.add_project(&project(1), assets(100..110));
    harness.fault("list:latency=50ms");
    let endless = json!({"assetIds": assets(100..110), "nextToken": "again"});
    harness
        .simulator
        .fault(
            "list:status=200"
                .parse::<Fault>()
                .expect("a fault")
                .action(Action::Reply {
                    status: 200,
                    error_type: None,
                    headers: Vec::new(),
                    body: endless.to_string(),
                }),
        );
    let start = Instant::now();
    let event = records([record("m-1", &request(1, &assets(0..3)))]);
    assert_eq!(harness.answer(&event).await, failed(["m-1"]));
    assert!(start.elapsed() <= harness.time_left);
}

/// One message's assets need a read; all others are good.
#[tokio::test(start_paused = true)]
async fn giving_up_on_throttled_reads_ends_only_what_needs_them() {
    for concurrency in [1, 2, 8] {
        for place in [0, 25, 49] {
            let mut harness = Harness::new(Settings {
                latency: LATENCY,
                ..refusing()
            });
            harness.function.call_concurrency = concurrency;
            harness.fault("reads:throttle");
            let event = records((0..50).map(|number| {
                let members = if number == place { 1..2 } else { 0..1 };
                harness
                    .simulator
                    .add_project(&project(number), assets(members));
                record(&format!("m-{number}"), &request(number, &[asset(0)]))
            }));
            let left = failed_numbers(&harness.answer(&event).await);
            assert_eq!(left, [place], "{concurrency} at a time");
            let reads = harness.reads().len();
            assert!((2..=15).contains(&reads), "{reads} reads");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reads_keep_to_the_rate_that_the_service_allows() {
    for rate in [5.0, 20.0] {
        let settings = Settings {
            latency: LATENCY,
            throttle: Some(Throttle { rate, burst: 10.0 }),
            ..refusing()
        };
        // The same random numbers in every run.
        fastrand::seed(1);
        let mut harness = Harness::new(settings);
        harness.time_left = Duration::from_secs(900);
        // Each costs a call, and a list.
        let event = records((0..100).map(|number| {
            harness.simulator.add_project(&project(number), [asset(1)]);
            record(&format!("m-{number}"), &request(number, &[asset(0)]))
        }));
        let start = Instant::now();
        assert_eq!(harness.answer(&event).await, failed([]));
        let (seconds, requests) = (start.elapsed().as_secs_f64(), harness.requests().len());
        let least = (200.0 - 10.0) / rate;
        assert!(seconds <= 1.25 * least, "{seconds} s, at least {least} s");
        let throttled = requests - 200;
        assert!(10 * throttled <= requests + 50, "{throttled} of {requests}");
    }
}

#[tokio::test(start_paused = true)]
async fn reads_count_among_the_requests_in_flight() {
    for concurrency in [1, 3, 8] {
        let mut harness = Harness::new(Settings {
            latency: LATENCY,
            ..refusing()
        });
        harness.function.call_concurrency = concurrency;
        let event = records((0..40).map(|number| {
            harness
                .simulator
                .add_project(&project(number), assets(1..3));
            let ids = assets(0..1 + number % 2);
            record(&format!("m-{number}"), &request(number, &ids))
        }));
        assert_eq!(harness.answer(&event).await, failed([]));
        let starts: Vec<Duration> = harness.requests().iter().map(|call| call.at).collect();
        let in_flight = starts.iter().map(|start| {
            let since = starts.iter().filter(|other| *other <= start);
            since.filter(|other| **other + LATENCY > *start).count()
        });
        assert_eq!(in_flight.max(), Some(concurrency));
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_read_leaves_its_assets_unfinished() {
    let harness = Harness::new(refusing());
    harness.simulator.add_project(&project(1), [asset(1)]);
    harness.simulator.add_project(&project(2), [asset(2)]);
    harness
        .simulator
        .fault(Fault::reads().action(Action::Panic("a panic".to_owned())));
    let event = records([
        record("m-1", &request(1, &[asset(0)])),
        record("m-2", &request(2, &[asset(2)])),
    ]);
    assert_eq!(harness.answer(&event).await, failed(["m-1"]));
    let report: Value = harness.answer(&request(1, &[asset(0)])).await;
    assert_eq!(report["failures"][0]["code"], "InternalError");
}
