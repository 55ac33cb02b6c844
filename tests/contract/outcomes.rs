//! Section 4: what happens to a call, and where its assets lead.

use serde_json::{Value, json};
use simulator::{Action, Fault, Operation};
use sitewise_disassociator::aws::retry::ROUND_PAUSE;

use crate::support::{
    Harness, asset, assets, failed, record, records, request, rule_event, topic_event,
};

fn refuse(status: u16, error_type: &str) -> Action {
    Action::Refuse {
        status,
        error_type: error_type.to_owned(),
        message: "refused".to_owned(),
    }
}

fn reply(status: u16, body: impl Into<String>) -> Action {
    Action::Reply {
        status,
        error_type: None,
        headers: Vec::new(),
        body: body.into(),
    }
}

fn plain(status: u16) -> Action {
    reply(status, "")
}

fn asset_errors(ids: &[String], heals_after: Option<u32>) -> Action {
    Action::AssetErrors {
        code: "INTERNAL_FAILURE".to_owned(),
        message: "Internal failure.".to_owned(),
        assets: ids.to_vec(),
        heals_after,
    }
}

fn one_record() -> Value {
    records([record("m-1", &request(1, &assets(0..3)))])
}

#[tokio::test(start_paused = true)]
async fn assets_that_a_200_does_not_name_are_disassociated() {
    let harness = Harness::with_assets(0..5);
    assert_eq!(harness.answer(&one_record()).await, failed([]));
    assert_eq!(harness.remaining(), [3, 4]);
    assert_eq!(harness.call_sizes(), [3]);
    assert_eq!(harness.letters().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn every_form_of_an_empty_success_is_a_success() {
    for (status, body) in [
        (200, ""),
        (204, ""),
        (200, "{}"),
        (200, r#"{"errors":null}"#),
        (200, r#"{"errors":[]}"#),
    ] {
        let harness = Harness::with_assets(0..3);
        harness
            .simulator
            .fault(Fault::sitewise().action(reply(status, body.to_owned())));
        assert_eq!(
            harness.answer(&one_record()).await,
            failed([]),
            "{status} {body}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_asset_among_the_errors_is_retried_alone_with_a_new_token() {
    for heals_after in 1..=2 {
        let harness = Harness::with_assets(0..3);
        harness.simulator.fault(
            Fault::on(Operation::Disassociate).action(asset_errors(&[asset(1)], Some(heals_after))),
        );
        assert_eq!(harness.answer(&one_record()).await, failed([]));
        assert_eq!(harness.remaining(), [0; 0]);
        let calls = harness.calls();
        assert_eq!(calls.len(), 1 + heals_after as usize);
        let mut tokens: Vec<_> = calls.iter().map(|call| call.token.clone()).collect();
        let mut pause = ROUND_PAUSE;
        for pair in calls.windows(2) {
            assert_eq!(pair[1].assets, [asset(1)]);
            assert_eq!(pair[1].at - pair[0].at, pause);
            pause *= 2;
        }
        tokens.sort();
        tokens.dedup();
        assert_eq!(
            tokens.len(),
            calls.len(),
            "each call has a token of its own"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_asset_that_stays_among_the_errors_is_rejected_with_the_services_code() {
    for code in ["INTERNAL_FAILURE", "A_CODE_NEVER_SEEN"] {
        let harness = Harness::with_assets(0..3);
        harness.simulator.fault(
            Fault::on(Operation::Disassociate).action(Action::AssetErrors {
                code: code.to_owned(),
                message: "Internal failure.".to_owned(),
                assets: vec![asset(1)],
                heals_after: None,
            }),
        );
        assert_eq!(harness.answer(&one_record()).await, failed([]));
        assert_eq!(harness.remaining(), [1]);
        assert_eq!(harness.call_sizes(), [3, 1, 1]);
        assert_eq!(
            harness.letter_bodies()[0]["errors"],
            json!([{"assetId": asset(1), "code": code, "message": "Internal failure."}])
        );
        assert_eq!(harness.lettered_assets(), [[asset(1)]]);
    }
}

/// The SDK fills what is missing with a placeholder.
#[tokio::test(start_paused = true)]
async fn an_asset_error_without_a_code_has_the_status_for_its_code() {
    for mut error in [
        json!({}),
        json!({"message": "said"}),
        json!({"code": null, "message": null}),
        json!({"code": "", "message": ""}),
    ] {
        error["assetId"] = json!(asset(1));
        let harness = Harness::with_assets(0..3);
        let body = json!({"errors": [error]}).to_string();
        harness
            .simulator
            .fault(Fault::on(Operation::Disassociate).action(reply(200, body)));
        let report = harness.answer(&request(1, &assets(0..3))).await;
        assert_eq!(report["assets"]["disassociated"], 2);
        let letter = harness.letter_bodies().remove(0);
        for found in [&report["failures"][0], &letter["errors"][0]] {
            assert_eq!(found["code"], "HTTP 200", "{error}");
            let message = found["message"].as_str().expect("a text");
            assert!(message.starts_with(error["message"].as_str().unwrap_or_default()));
        }
        assert!(!harness.letters()[0].body.contains("no value was set"));
        assert!(!report.to_string().contains("no value was set"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_names_no_asset_of_the_call_leaves_the_whole_call_unfinished() {
    for id in [asset(77), String::new(), "what".to_owned()] {
        let harness = Harness::with_assets(0..3);
        harness.simulator.fault(
            Fault::sitewise().action(reply(
                200,
                json!({"errors": [
                    {"assetId": id, "code": "INTERNAL_FAILURE", "message": "?"}
                ]})
                .to_string(),
            )),
        );
        assert_eq!(harness.answer(&one_record()).await, failed(["m-1"]), "{id}");
        assert_eq!(harness.letters().len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_names_its_asset_in_capitals_is_that_assets() {
    let harness = Harness::with_assets(0..3);
    harness.simulator.fault(
        Fault::on(Operation::Disassociate).action(reply(
            200,
            json!({"errors": [
                {"assetId": asset(1).to_uppercase(), "code": "INTERNAL_FAILURE", "message": "?"}
            ]})
            .to_string(),
        )),
    );
    assert_eq!(harness.answer(&one_record()).await, failed([]));
    assert_eq!(harness.lettered_assets(), [[asset(1)]]);
}

#[tokio::test(start_paused = true)]
async fn a_malformed_request_and_a_bad_id_are_rejected_without_a_call() {
    let harness = Harness::with_assets(0..3);
    let event = records([
        record("m-1", &json!({"projectId": "..", "assetIds": []})),
        record("m-2", &request(1, &[asset(0), "PUMP-7".to_owned()])),
    ]);
    assert_eq!(harness.answer(&event).await, failed([]));
    assert_eq!(harness.call_sizes(), [1]);
    let letters = harness.letter_bodies();
    assert_eq!(letters[0], json!({"projectId": "..", "assetIds": []}));
    assert_eq!(letters[1]["assetIds"], json!(["PUMP-7"]));
    assert_eq!(letters[1]["errors"][0]["code"], "InvalidAssetId");
    harness.assert_nothing_invalid_was_sent();
}

/// Rows of failures that pass: retried with one token, and then as if nothing
/// had been.
#[tokio::test(start_paused = true)]
async fn throttling_server_errors_and_the_network_are_retried_with_the_same_token() {
    for action in [
        refuse(429, "ThrottlingException"),
        plain(429),
        refuse(400, "ThrottlingException"),
        refuse(500, "InternalFailureException"),
        plain(500),
        plain(501),
        plain(502),
        plain(503),
        plain(504),
        plain(599),
        Action::Stall,
        Action::StallAfter,
        Action::StallBody,
        Action::Reset,
        Action::ResetAfter,
        Action::Truncate,
        Action::Garbage("<html>".to_owned()),
        Action::Garbage("{} {}".to_owned()),
        Action::Garbage(r#"{"errors":"none"}"#.to_owned()),
        refuse(200, "InternalFailureException"),
        reply(200, r#"{"__type":"InternalFailureException"}"#),
    ] {
        let harness = Harness::with_assets(0..3);
        harness
            .simulator
            .fault(Fault::sitewise().first(2).action(action.clone()));
        assert_eq!(
            harness.answer(&one_record()).await,
            failed([]),
            "{action:?}"
        );
        assert_eq!(harness.remaining(), [0; 0], "{action:?}");
        let calls = harness.calls();
        assert_eq!(calls.len(), 3, "{action:?}");
        for call in &calls {
            assert_eq!(call.token, calls[0].token, "{action:?}");
            assert_eq!(call.assets, calls[0].assets, "{action:?}");
        }
    }
}

/// Failures, how often the call is tried in all, and the code they have.
fn unfinished() -> Vec<(Action, usize, &'static str)> {
    vec![
        (refuse(429, "ThrottlingException"), 7, "ThrottlingException"),
        (plain(429), 7, "HTTP 429"),
        (
            refuse(500, "InternalFailureException"),
            3,
            "InternalFailureException",
        ),
        (plain(500), 3, "HTTP 500"),
        (plain(503), 3, "HTTP 503"),
        (plain(501), 3, "HTTP 501"),
        (Action::Stall, 3, "Timeout"),
        (Action::Reset, 3, "ConnectionFailed"),
        (Action::ResetAfter, 3, "ConnectionFailed"),
        (Action::Truncate, 3, "MalformedResponse"),
        (Action::Garbage("<html>".to_owned()), 3, "MalformedResponse"),
        (
            refuse(200, "InternalFailureException"),
            3,
            "InternalFailureException",
        ),
        (
            refuse(200, "ResourceNotFoundException"),
            3,
            "ResourceNotFoundException",
        ),
        (
            reply(200, r#"{"__type":"a.b#NewException","errors":[]}"#),
            3,
            "NewException",
        ),
        (
            refuse(401, "UnauthorizedException"),
            1,
            "UnauthorizedException",
        ),
        (plain(401), 1, "HTTP 401"),
        (
            refuse(403, "AccessDeniedException"),
            1,
            "AccessDeniedException",
        ),
        (plain(403), 1, "HTTP 403"),
        (
            refuse(400, "ExpiredTokenException"),
            1,
            "ExpiredTokenException",
        ),
        (
            refuse(400, "UnrecognizedClientException"),
            1,
            "UnrecognizedClientException",
        ),
        (refuse(409, "ConflictException"), 1, "ConflictException"),
        (plain(418), 1, "HTTP 418"),
        (plain(302), 1, "HTTP 302"),
        (plain(400), 1, "HTTP 400"),
        (plain(404), 1, "HTTP 404"),
        (refuse(400, "ValidationException"), 1, "ValidationException"),
    ]
}

#[tokio::test(start_paused = true)]
async fn an_unfinished_record_is_redelivered_whole_and_dead_letters_nothing() {
    for (action, attempts, _) in unfinished() {
        let harness = Harness::with_assets(0..3);
        harness
            .simulator
            .fault(Fault::sitewise().action(action.clone()));
        let ids = [asset(0), asset(1), "PUMP-7".to_owned()];
        let event = records([record("m-1", &request(1, &ids))]);
        assert_eq!(harness.answer(&event).await, failed(["m-1"]), "{action:?}");
        assert_eq!(harness.calls().len(), attempts, "{action:?}");
        assert_eq!(harness.letters().len(), 0, "{action:?}");
        assert_eq!(harness.parts().len(), 0, "{action:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn unfinished_assets_of_other_events_go_to_the_work_queue() {
    for (action, _, code) in unfinished() {
        for event in [
            request(1, &assets(0..3)),
            rule_event(&request(1, &assets(0..3))),
            topic_event(&request(1, &assets(0..3))),
        ] {
            let harness = Harness::with_assets(0..3);
            harness
                .simulator
                .fault(Fault::sitewise().action(action.clone()));
            let report = harness.answer(&event).await;
            assert_eq!(report["status"], "accepted", "{action:?}");
            assert_eq!(report["assets"]["queued"], 3, "{action:?}");
            let failure = &report["failures"][0];
            assert_eq!(failure["code"], code, "{action:?}");
            assert_eq!(failure["retryable"], true);
            assert_eq!(failure["queued"], true);
            assert_eq!(failure["deadLettered"], false);
            let part = &harness.parts()[0];
            assert_eq!(part["projectId"], request(1, &[])["projectId"]);
            assert_eq!(part["assetIds"], json!(assets(0..3)));
            assert_eq!(harness.letters().len(), 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_work_queue_unfinished_assets_of_other_events_are_dead_lettered() {
    for event in [
        request(1, &assets(0..3)),
        rule_event(&request(1, &assets(0..3))),
        topic_event(&request(1, &assets(0..3))),
    ] {
        let harness = Harness::with_assets(0..3).without_work_queue();
        harness
            .simulator
            .fault(Fault::sitewise().action(plain(503)));
        let report = harness.answer(&event).await;
        assert_eq!(report["status"], "failed");
        assert_eq!(report["assets"]["unfinished"], 3);
        assert_eq!(report["failures"][0]["deadLettered"], true);
        assert_eq!(report["failures"][0]["retryable"], true);
        assert_eq!(harness.lettered_assets(), [assets(0..3)]);
    }
}

#[tokio::test(start_paused = true)]
async fn rejected_assets_of_other_events_are_dead_lettered_and_reported() {
    for event in [
        request(1, &assets(0..3)),
        rule_event(&request(1, &assets(0..3))),
        topic_event(&request(1, &assets(0..3))),
    ] {
        let harness = Harness::with_assets(0..3);
        harness
            .simulator
            .fault(Fault::on(Operation::Disassociate).action(asset_errors(&[asset(2)], None)));
        let report = harness.answer(&event).await;
        assert_eq!(report["status"], "partial");
        assert_eq!(
            report["failures"],
            json!([{
                "assetIds": [asset(2)], "code": "INTERNAL_FAILURE",
                "message": "Internal failure.", "retryable": false, "deadLettered": true,
                "queued": false,
            }])
        );
        assert_eq!(harness.lettered_assets(), [[asset(2)]]);
        assert_eq!(harness.remaining(), [2]);
    }
}
