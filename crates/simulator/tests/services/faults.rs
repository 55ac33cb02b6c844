//! What goes wrong on request, as the SDK sees it and as the record has it.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use aws_sdk_iotsitewise::operation::batch_disassociate_project_assets::BatchDisassociateProjectAssetsError;
use aws_sdk_sqs::error::ProvideErrorMetadata;
use serde_json::{Value, json};
use simulator::{Absent, Action, Fault, Operation, Settings, Throttle, Tokens};
use tokio::time::Instant;

use crate::support::{Entry, Harness, Trouble, asset, assets, entry, message, project};

/// Two assets, and an action on the first disassociation.
fn harness(action: Action) -> Harness {
    let harness = Harness::with_assets([1, 2]);
    let fault = Fault::on(Operation::Disassociate).first(1).action(action);
    harness.simulator.fault(fault);
    harness
}

/// What the SDK sees of an action, after checking the record and the project.
async fn seen(action: Action, ending: (Option<u16>, bool)) -> Option<Result<Vec<Entry>, Trouble>> {
    let harness = harness(action);
    let seen = harness.disassociate_within(3600, [1]).await;
    assert_eq!(harness.endings(), [ending]);
    let is_applied = ending.1;
    assert_eq!(
        harness.remaining(),
        if is_applied { vec![2] } else { vec![1, 2] }
    );
    // The fault was for the first call only.
    assert_eq!(harness.disassociate([2]).await, Ok(vec![]));
    seen
}

#[tokio::test(start_paused = true)]
async fn a_reply_is_given_as_it_is_and_applies_nothing() {
    let harness = harness(Action::Reply {
        status: 503,
        error_type: Some("ServiceUnavailable".to_owned()),
        headers: vec![("retry-after".to_owned(), "7".to_owned())],
        body: r#"{"message":"later"}"#.to_owned(),
    });
    let error = harness
        .raw_call(&project(1), assets([1]), None)
        .await
        .expect_err("a 503");
    let raw = error.raw_response().expect("a response");
    assert_eq!(raw.status().as_u16(), 503);
    assert_eq!(raw.headers().get("retry-after"), Some("7"));
    assert_eq!(
        raw.headers().get("x-amzn-errortype"),
        Some("ServiceUnavailable")
    );
    assert_eq!(
        raw.body().bytes(),
        Some(br#"{"message":"later"}"#.as_slice())
    );
    assert_eq!(
        Trouble::of(&error),
        Trouble::refused(503, "ServiceUnavailable", "later")
    );
    assert_eq!(harness.endings(), [(Some(503), false)]);
    assert_eq!(harness.remaining(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_reply_of_200_applies_nothing_either() {
    let action = Action::Reply {
        status: 200,
        error_type: None,
        headers: vec![],
        body: "{}".to_owned(),
    };
    assert_eq!(seen(action, (Some(200), false)).await, Some(Ok(vec![])));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_the_error_that_it_names_and_applies_nothing() {
    let refuse = |status, name: &str| Action::Refuse {
        status,
        error_type: name.to_owned(),
        message: "so it is".to_owned(),
    };
    for (status, name) in [
        (400, "InvalidRequestException"),
        (404, "ResourceNotFoundException"),
        (429, "ThrottlingException"),
        (500, "InternalFailureException"),
        (409, "ConflictingOperationException"),
    ] {
        assert_eq!(
            seen(refuse(status, name), (Some(status), false)).await,
            Some(Err(Trouble::refused(status, name, "so it is")))
        );
    }

    let harness = harness(refuse(429, "ThrottlingException"));
    let error = harness
        .raw_call(&project(1), assets([1]), None)
        .await
        .expect_err("throttled");
    assert!(matches!(
        error.into_service_error(),
        BatchDisassociateProjectAssetsError::ThrottlingException(_)
    ));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_of_a_message_has_its_type_in_the_body_too() {
    let harness = Harness::new(Settings::default());
    let url = harness.simulator.create_queue("q");
    harness.simulator.fault(Fault::sqs().action(Action::Refuse {
        status: 400,
        error_type: "RequestThrottled".to_owned(),
        message: "slow down".to_owned(),
    }));
    let error = harness
        .sqs
        .send_message()
        .queue_url(&url)
        .message_body("body")
        .send()
        .await
        .expect_err("refused");
    let body = error.raw_response().expect("a response").body().bytes();
    let body: Value = serde_json::from_slice(body.expect("a body")).expect("JSON");
    assert_eq!(
        body,
        json!({"__type": "RequestThrottled", "message": "slow down"})
    );
    assert_eq!(error.code(), Some("RequestThrottled"));
    assert!(error.into_service_error().is_request_throttled());
    assert_eq!(harness.bodies("q"), [""; 0]);
    assert_eq!(harness.endings(), [(Some(400), false)]);
}

#[tokio::test(start_paused = true)]
async fn latencies_add_up_with_each_other_and_with_the_setting() {
    let harness = Harness::new(Settings {
        latency: Duration::from_millis(1),
        ..Settings::default()
    })
    .and_assets([1])
    .and_fault("disassociate:latency=20ms")
    .and_fault("disassociate:latency=300ms");
    let start = Instant::now();
    assert_eq!(harness.disassociate([1]).await, Ok(vec![]));
    assert_eq!(start.elapsed(), Duration::from_millis(321));
    assert_eq!(harness.endings(), [(Some(200), true)]);
}

#[tokio::test(start_paused = true)]
async fn a_fault_after_a_latency_still_fires_and_comes_late() {
    let harness = Harness::with_assets([1])
        .and_fault("disassociate:latency=20ms")
        .and_fault("disassociate:reset")
        .and_fault("disassociate:latency=300ms");
    let start = Instant::now();
    assert_eq!(harness.disassociate([1]).await, Err(Trouble::Io));
    assert_eq!(start.elapsed(), Duration::from_millis(20));
}

#[tokio::test(start_paused = true)]
async fn a_call_given_up_while_it_is_slow_is_not_applied() {
    let harness = Harness::with_assets([1]).and_fault("disassociate:latency=5000ms");
    assert_eq!(harness.disassociate_within(1, [1]).await, None);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(harness.remaining(), [1]);
    assert_eq!(harness.endings(), [(None, false)]);
}

#[tokio::test(start_paused = true)]
async fn a_stall_answers_nothing_and_applies_nothing() {
    assert_eq!(seen(Action::Stall, (None, false)).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_stall_after_the_request_answers_nothing_but_applies_it() {
    assert_eq!(seen(Action::StallAfter, (None, true)).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_stalled_body_never_ends_but_the_request_is_applied() {
    assert_eq!(seen(Action::StallBody, (Some(200), true)).await, None);
}

#[tokio::test(start_paused = true)]
async fn a_reset_before_the_request_applies_nothing() {
    let seen = seen(Action::Reset, (None, false)).await;
    assert_eq!(seen, Some(Err(Trouble::Io)));
}

#[tokio::test(start_paused = true)]
async fn a_reset_after_the_request_applies_it() {
    let seen = seen(Action::ResetAfter, (None, true)).await;
    assert_eq!(seen, Some(Err(Trouble::Io)));
}

#[tokio::test(start_paused = true)]
async fn a_truncated_answer_cannot_be_read_but_the_request_is_applied() {
    let seen = seen(Action::Truncate, (Some(200), true)).await;
    assert_eq!(seen, Some(Err(Trouble::Unreadable(200))));
}

#[tokio::test(start_paused = true)]
async fn garbage_cannot_be_read_but_the_request_is_applied() {
    let garbage = Action::Garbage("<html>".to_owned());
    let seen = seen(garbage, (Some(200), true)).await;
    assert_eq!(seen, Some(Err(Trouble::refused(200, "", ""))));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_the_callers_and_applies_nothing() {
    let harness = harness(Action::Panic("on request".to_owned()));
    let sitewise = harness.sitewise.clone();
    let call = tokio::spawn(
        AssertUnwindSafe(async move {
            let call = sitewise.batch_disassociate_project_assets();
            let call = call.project_id(project(1)).asset_ids(asset(1));
            call.send().await.is_ok()
        })
        .0,
    );
    let panic = call.await.expect_err("a panic").into_panic();
    assert_eq!(
        panic.downcast_ref::<String>().map(String::as_str),
        Some("on request")
    );
    assert_eq!(harness.endings(), [(None, false)]);
    assert_eq!(harness.remaining(), [1, 2]);
    // It does no harm to the simulator.
    assert_eq!(harness.disassociate([1]).await, Ok(vec![]));
}

fn asset_errors(numbers: &[usize], heals_after: Option<u32>) -> Fault {
    Fault::on(Operation::Disassociate).action(Action::AssetErrors {
        code: "INTERNAL_FAILURE".to_owned(),
        message: "not now".to_owned(),
        assets: assets(numbers.iter().copied()),
        heals_after,
    })
}

fn not_now(numbers: &[usize]) -> Result<Vec<Entry>, Trouble> {
    let entry = |&number| entry(number, "INTERNAL_FAILURE", "not now");
    Ok(numbers.iter().map(entry).collect())
}

#[tokio::test(start_paused = true)]
async fn an_asset_error_keeps_its_asset_and_the_others_leave() {
    let harness = Harness::with_assets(1..=4);
    harness.simulator.fault(asset_errors(&[2, 4], None));
    for remaining in [vec![2, 4], vec![2, 4]] {
        assert_eq!(harness.disassociate(1..=4).await, not_now(&[2, 4]));
        assert_eq!(harness.remaining(), remaining);
    }
    assert_eq!(harness.endings(), [(Some(200), true); 2]);
}

#[tokio::test(start_paused = true)]
async fn asset_errors_without_assets_are_for_every_asset() {
    let harness = Harness::with_assets(1..=3);
    harness.simulator.fault(asset_errors(&[], None));
    assert_eq!(harness.disassociate(1..=3).await, not_now(&[1, 2, 3]));
    assert_eq!(harness.remaining(), [1, 2, 3]);
}

#[tokio::test(start_paused = true)]
async fn each_asset_heals_by_itself() {
    let harness = Harness::with_assets(1..=3);
    harness.simulator.fault(asset_errors(&[1, 2], Some(2)));
    assert_eq!(harness.disassociate([1, 3]).await, not_now(&[1]));
    assert_eq!(harness.disassociate([1, 2]).await, not_now(&[1, 2]));
    assert_eq!(harness.disassociate([1, 2]).await, not_now(&[2]));
    assert_eq!(harness.remaining(), [2]);
    assert_eq!(harness.disassociate([1, 2]).await, Ok(vec![]));
    assert_eq!(harness.remaining(), [0; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_asset_error_of_another_asset_leaves_later_faults_their_turn() {
    let harness = Harness::with_assets(1..=2);
    harness.simulator.fault(asset_errors(&[2], None));
    let harness = harness.and_fault("disassociate:reset");
    assert_eq!(harness.disassociate([1]).await, Err(Trouble::Io));
    assert_eq!(harness.disassociate([1, 2]).await, not_now(&[2]));
}

fn fail_entries(bodies_containing: &str, sender_fault: bool, heals_after: Option<u32>) -> Fault {
    Fault::on(Operation::SendMessageBatch).action(Action::FailEntries {
        bodies_containing: bodies_containing.to_owned(),
        code: "InternalError".to_owned(),
        sender_fault,
        heals_after,
    })
}

#[tokio::test(start_paused = true)]
async fn failed_entries_are_not_stored_and_the_others_are() {
    for sender_fault in [false, true] {
        let harness = Harness::new(Settings::default());
        let url = harness.simulator.create_queue("q");
        harness
            .simulator
            .fault(fail_entries("bad", sender_fault, None));
        let batch = vec![
            message("a", "good 1"),
            message("b", "bad"),
            message("c", "good 2"),
        ];
        assert_eq!(
            harness.send_batch(&url, batch).await,
            Ok((
                vec!["a".to_owned(), "c".to_owned()],
                vec![("b".to_owned(), "InternalError".to_owned(), sender_fault)]
            ))
        );
        assert_eq!(harness.bodies("q"), ["good 1", "good 2"]);
        let call = harness.only_call();
        assert_eq!(
            (call.status, call.applied, call.invalid),
            (Some(200), true, None)
        );
        assert_eq!(call.bodies, ["good 1", "bad", "good 2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn each_body_heals_by_itself() {
    let harness = Harness::new(Settings::default());
    let url = harness.simulator.create_queue("q");
    harness.simulator.fault(fail_entries("", false, Some(1)));
    let failed = async |batch: Vec<_>| {
        let (_, failed) = harness.send_batch(&url, batch).await.expect("a 200");
        failed.into_iter().map(|(id, _, _)| id).collect::<Vec<_>>()
    };
    assert_eq!(
        failed(vec![message("a", "1"), message("b", "2")]).await,
        ["a", "b"]
    );
    assert_eq!(
        failed(vec![message("c", "1"), message("d", "3")]).await,
        ["d"]
    );
    assert_eq!(
        failed(vec![message("e", "2"), message("f", "3")]).await,
        [""; 0]
    );
    assert_eq!(harness.bodies("q"), ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_to_a_message_leaves_it_in_the_queue() {
    let harness = Harness::new(Settings::default());
    let url = harness.simulator.create_queue("q");
    harness
        .simulator
        .fault(Fault::sqs().first(1).action(Action::ResetAfter));
    assert_eq!(harness.send(&url, "body").await, Err(Trouble::Io));
    harness.send(&url, "body").await.expect("sent");
    assert_eq!(harness.bodies("q"), ["body", "body"]);
    assert_eq!(harness.endings(), [(None, true), (Some(200), true)]);
}

/// For each of six calls, whether the fault fired.
async fn fires(harness: &Harness) -> [bool; 6] {
    let mut fired = [false; 6];
    for fires in &mut fired {
        *fires = harness.disassociate([1]).await.is_err();
    }
    fired
}

#[tokio::test(start_paused = true)]
async fn a_fault_fires_when_it_should() {
    for (when, expected) in [
        ("", [1, 1, 1, 1, 1, 1]),
        ("nth=1:", [1, 0, 0, 0, 0, 0]),
        ("nth=3:", [0, 0, 1, 0, 0, 0]),
        ("first=2:", [1, 1, 0, 0, 0, 0]),
        ("after=4:", [0, 0, 0, 0, 1, 1]),
        ("probability=0:", [0, 0, 0, 0, 0, 0]),
        ("probability=1:", [1, 1, 1, 1, 1, 1]),
    ] {
        let harness = Harness::with_assets([1]).and_fault(&format!("disassociate:{when}reset"));
        assert_eq!(fires(&harness).await.map(usize::from), expected, "{when}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_sequence() {
    let with_seed = async |seed| {
        let harness = Harness::new(Settings {
            seed,
            ..Settings::default()
        })
        .and_assets([1])
        .and_fault("disassociate:probability=0.5:reset");
        let mut fired = Vec::new();
        for _ in 0..200 {
            fired.push(harness.disassociate([1]).await.is_err());
        }
        fired
    };
    let first = with_seed(1).await;
    assert_eq!(first, with_seed(1).await);
    assert_ne!(first, with_seed(2).await);
    let count = first.iter().filter(|fired| **fired).count();
    assert!((70..=130).contains(&count), "{count}");
}

#[tokio::test(start_paused = true)]
async fn only_requests_that_match_are_counted() {
    let harness = Harness::with_assets([1, 2]);
    harness.simulator.add_project(&project(2), assets([1, 2]));
    let harness = harness.and_fault(&format!(
        "sitewise:project={}:asset={}:nth=2:reset",
        project(2),
        asset(2)
    ));
    let call = async |number, numbers: Vec<usize>| {
        harness
            .call(&project(number), assets(numbers), None)
            .await
            .is_err()
    };
    assert!(!call(2, vec![1, 2]).await);
    assert!(!call(2, vec![1]).await);
    assert!(!call(1, vec![2]).await);
    harness.list(None, None).await.expect("a page");
    assert!(call(2, vec![2]).await);
    assert!(!call(2, vec![2]).await);
}

#[tokio::test(start_paused = true)]
async fn a_fault_keeps_to_its_service_operation_and_queue() {
    for (spec, expected) in [
        ("disassociate:reset", [true, false, false, false, false]),
        ("list:reset", [false, true, false, false, false]),
        ("describe:reset", [false, false, true, false, false]),
        ("reads:reset", [false, true, true, false, false]),
        ("sitewise:reset", [true, true, true, false, false]),
        ("sqs:reset", [false, false, false, true, true]),
        ("sqs:queue=q2:reset", [false, false, false, false, true]),
    ] {
        let harness = Harness::with_assets([1]).and_fault(spec);
        let urls = ["q1", "q2"].map(|name| harness.simulator.create_queue(name));
        let batch = vec![message("a", "body")];
        let found = [
            harness.disassociate([1]).await.is_err(),
            harness.list(None, None).await.is_err(),
            harness.describe().await.is_err(),
            harness.send(&urls[0], "body").await.is_err(),
            harness.send_batch(&urls[1], batch).await.is_err(),
        ];
        assert_eq!(found, expected, "{spec}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_fails_in_every_way() {
    let refused = |status, code, message| Some(Trouble::refused(status, code, message));
    for (action, expected, status) in [
        ("status=500:type=Odd", refused(500, "Odd", ""), Some(500)),
        (
            "throttle",
            refused(429, "ThrottlingException", "Rate exceeded"),
            Some(429),
        ),
        ("stall", None, None),
        ("stall-after", None, None),
        ("stall-body", None, Some(200)),
        ("reset", Some(Trouble::Io), None),
        ("reset-after", Some(Trouble::Io), None),
        ("truncate", Some(Trouble::Unreadable(200)), Some(200)),
        ("garbage", refused(200, "", ""), Some(200)),
    ] {
        let harness = Harness::with_assets([1]).and_fault(&format!("reads:{action}"));
        let hour = Duration::from_secs(3600);
        let list = tokio::time::timeout(hour, harness.list(None, None))
            .await
            .ok();
        let list = list.map(|page| Trouble::of(&page.expect_err(action)));
        let description = tokio::time::timeout(hour, harness.describe()).await.ok();
        let description = description.map(|found| Trouble::of(&found.expect_err(action)));
        assert_eq!([list, description], [expected.clone(), expected]);
        assert_eq!(harness.endings(), [(status, false); 2], "{action}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_takes_the_latency_of_a_fault() {
    let harness = Harness::with_assets([1]).and_fault("reads:latency=300ms");
    let start = Instant::now();
    harness.list(None, None).await.expect("a page");
    harness.describe().await.expect("a project");
    harness.disassociate([1]).await.expect("a 200");
    assert_eq!(start.elapsed(), Duration::from_millis(600));
}

#[tokio::test(start_paused = true)]
async fn the_first_fault_that_fires_decides() {
    let harness = Harness::with_assets([1])
        .and_fault("disassociate:nth=2:status=500:type=First")
        .and_fault("disassociate:status=503:type=Second");
    let second = Err(Trouble::refused(503, "Second", ""));
    assert_eq!(harness.disassociate([1]).await, second);
    assert_eq!(
        harness.disassociate([1]).await,
        Err(Trouble::refused(500, "First", ""))
    );
    assert_eq!(harness.disassociate([1]).await, second);
}

#[tokio::test(start_paused = true)]
async fn cleared_faults_fire_no_more() {
    let harness = Harness::with_assets([1]).and_fault("sitewise:reset");
    assert_eq!(harness.disassociate([1]).await, Err(Trouble::Io));
    harness.simulator.clear_faults();
    assert_eq!(harness.disassociate([1]).await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_fault_set_while_a_call_is_under_way_is_not_for_that_call() {
    let harness = Harness::with_assets([1, 2])
        .and_fault("disassociate:latency=100ms")
        .and_fault("disassociate:status=500");
    let (answer, ()) = tokio::join!(harness.disassociate([1]), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        harness.simulator.clear_faults();
        for spec in ["disassociate:reset", "disassociate:garbage"] {
            harness.simulator.fault(spec.parse().expect("a fault"));
        }
    });
    assert_eq!(answer, Ok(vec![]));
    assert_eq!(harness.disassociate([2]).await, Err(Trouble::Io));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_fault_decides_takes_nothing_out_of_the_bucket() {
    let harness = Harness::new(Settings {
        throttle: Some(Throttle {
            rate: 1.0,
            burst: 1.0,
        }),
        ..Settings::default()
    })
    .and_assets([1])
    .and_fault("disassociate:first=2:reset");
    assert_eq!(harness.disassociate([1]).await, Err(Trouble::Io));
    assert_eq!(harness.disassociate([1]).await, Err(Trouble::Io));
    assert_eq!(harness.disassociate([1]).await, Ok(vec![]));
    assert_eq!(
        harness.disassociate([1]).await,
        Err(Trouble::refused(
            429,
            "ThrottlingException",
            "Rate exceeded"
        ))
    );
}

#[tokio::test(start_paused = true)]
async fn asset_errors_leave_the_bucket_in_force() {
    let harness = Harness::new(Settings {
        throttle: Some(Throttle {
            rate: 1.0,
            burst: 1.0,
        }),
        ..Settings::default()
    })
    .and_assets([1, 2]);
    harness.simulator.fault(asset_errors(&[1], Some(1)));
    assert_eq!(harness.disassociate([1]).await, not_now(&[1]));
    let throttled = Trouble::refused(429, "ThrottlingException", "Rate exceeded");
    assert_eq!(harness.disassociate([1]).await, Err(throttled.clone()));

    // What breaks the answer breaks this one too, and nothing makes it a 200.
    harness.simulator.clear_faults();
    let broken = [
        ("reset-after", Trouble::Io),
        ("truncate", Trouble::Unreadable(429)),
        ("garbage", throttled),
    ];
    for (action, expected) in broken {
        harness.simulator.clear_faults();
        let spec = format!("disassociate:{action}");
        harness.simulator.fault(spec.parse().expect("a fault"));
        assert_eq!(harness.disassociate([2]).await, Err(expected), "{action}");
    }
    assert_eq!(harness.remaining(), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_replay_or_a_refusal_heals_nothing() {
    let harness = Harness::new(Settings {
        tokens: Tokens::AllReplayed,
        unknown_asset: Absent::NotFound,
        ..Settings::default()
    })
    .and_assets([1]);
    harness.simulator.fault(asset_errors(&[1], Some(2)));
    assert_eq!(harness.disassociate_as(1, [1]).await, not_now(&[1]));
    assert_eq!(harness.disassociate_as(1, [1]).await, not_now(&[1]));
    harness
        .disassociate_as(2, [1, 9])
        .await
        .expect_err("unknown");
    assert_eq!(harness.disassociate_as(3, [1]).await, not_now(&[1]));
    assert_eq!(harness.disassociate_as(4, [1]).await, Ok(vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_fault_does_not_hide_an_asset_that_refuses_the_whole_call() {
    let harness = Harness::new(Settings {
        unknown_asset: Absent::Invalid,
        ..Settings::default()
    })
    .and_assets([1]);
    harness.simulator.fault(asset_errors(&[], None));
    let message = format!("Asset {} can't be found.", asset(9));
    assert_eq!(
        harness.disassociate([1, 9]).await,
        Err(Trouble::refused(400, "InvalidRequestException", &message))
    );
}

#[tokio::test(start_paused = true)]
async fn a_reply_to_a_message_has_its_type_in_the_body_where_that_is_json() {
    for (body, expected) in [
        ("", r#"{"__type":"Odd"}"#),
        (r#"{"message":"m"}"#, r#"{"__type":"Odd","message":"m"}"#),
        (r#"{"__type":"Own"}"#, r#"{"__type":"Own"}"#),
        ("<html>", "<html>"),
    ] {
        let harness = Harness::new(Settings::default());
        let url = harness.simulator.create_queue("q");
        harness.simulator.fault(Fault::sqs().action(Action::Reply {
            status: 503,
            error_type: Some("Odd".to_owned()),
            headers: Vec::new(),
            body: body.to_owned(),
        }));
        let call = harness
            .sqs
            .send_message()
            .queue_url(&url)
            .message_body("body");
        let error = call.send().await.expect_err("refused");
        let found = error.raw_response().expect("a response").body().bytes();
        let found = found.expect("a body");
        match serde_json::from_str::<Value>(expected) {
            // The order of members means nothing.
            Ok(expected) => assert_eq!(serde_json::from_slice::<Value>(found).ok(), Some(expected)),
            Err(_) => assert_eq!(found, expected.as_bytes()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn clearing_the_record_changes_nothing_for_a_call_under_way() {
    let harness = Harness::with_assets([1, 2]).and_fault("disassociate:latency=100ms");
    let (answer, ()) = tokio::join!(harness.disassociate([1]), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        harness.simulator.clear_calls();
    });
    assert_eq!(answer, Ok(vec![]));
    assert_eq!(harness.remaining(), [2]);
    assert_eq!(harness.endings(), []);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_gets_every_call_once_it_is_over() {
    let harness = Harness::with_assets(1..=4)
        .and_fault("disassociate:nth=2:reset-after")
        .and_fault("disassociate:nth=2:latency=100ms");
    let mut watched = harness.simulator.watch();
    harness.disassociate([1]).await.expect("a 200");
    assert_eq!(harness.disassociate([2]).await, Err(Trouble::Io));
    let given_up = tokio::time::timeout(Duration::from_millis(50), harness.disassociate([3])).await;
    given_up.expect_err("slow");
    harness.disassociate([4]).await.expect("a 200");
    let mut endings = Vec::new();
    while let Ok(call) = watched.try_recv() {
        endings.push((call.seq, call.status, call.applied));
    }
    assert_eq!(
        endings,
        [
            (0, Some(200), true),
            (1, None, true),
            (2, None, false),
            (3, Some(200), true),
        ]
    );
    assert_eq!(harness.remaining(), [3]);
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_a_time_ends_with_it() {
    let start = Instant::now();
    let harness = Harness::with_assets([1, 2, 3]);
    let time = Duration::from_secs(10)..Duration::from_secs(20);
    let fault = Fault::on(Operation::Disassociate).during(time);
    harness.simulator.fault(fault.action(Action::Reply {
        status: 403,
        error_type: None,
        headers: Vec::new(),
        body: String::new(),
    }));
    for (seconds, status) in [(0, 200), (10, 403), (19, 403), (20, 200)] {
        tokio::time::sleep_until(start + Duration::from_secs(seconds)).await;
        let _ = harness.disassociate([1]).await;
        let (last, _) = harness.endings().pop().expect("a call");
        assert_eq!(last, Some(status), "after {seconds} s");
    }
}
