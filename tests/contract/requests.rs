//! Sections 1 and 2: what goes in, and that nothing invalid goes out.

use serde_json::json;
use simulator::Settings;

use crate::support::{
    Harness, asset, assets, failed, project, record, records, request, rule_event, topic_event,
};

#[tokio::test(start_paused = true)]
async fn repeated_ids_are_sent_once_and_counted() {
    let harness = Harness::with_assets(0..3);
    let ids = [
        asset(0),
        asset(1),
        asset(0),
        asset(0),
        "x".to_owned(),
        "x".to_owned(),
    ];
    let report = harness.answer(&request(1, &ids)).await;
    assert_eq!(harness.calls()[0].assets, assets(0..2));
    assert_eq!(
        report["assets"],
        json!({"requested": 3, "duplicates": 3, "disassociated": 2, "absent": 0,
               "rejected": 1, "unfinished": 0, "queued": 0})
    );
}

#[tokio::test(start_paused = true)]
async fn a_bad_id_is_rejected_alone_and_the_others_go_ahead() {
    let harness = Harness::with_assets(0..3);
    for bad in [
        "",
        "..",
        "PUMP-7",
        "00000000-0000-0000-0000-000000000000",
        &asset(0).to_uppercase(),
        &format!("{}\n", asset(0)),
        &format!("{{{}}}", asset(0)),
        "externalId:pump-7",
    ] {
        harness.simulator.add_project(&project(1), assets(0..3));
        let ids = [asset(0), bad.to_owned(), asset(1)];
        let event = records([record("m-1", &request(1, &ids))]);
        assert_eq!(harness.answer(&event).await, failed([]));
        assert_eq!(harness.remaining(), [2], "{bad:?}");
        let letter = harness.letter_bodies().pop().expect("a letter");
        assert_eq!(letter["assetIds"], json!([bad]));
        assert_eq!(letter["errors"][0]["code"], "InvalidAssetId");
    }
    harness.assert_nothing_invalid_was_sent();
}

#[tokio::test(start_paused = true)]
async fn a_request_of_bad_ids_only_makes_no_call() {
    let harness = Harness::with_assets(0..3);
    let report = harness
        .answer(&request(1, &["a".to_owned(), "b".to_owned()]))
        .await;
    assert_eq!(report["status"], "failed");
    assert_eq!(report["calls"], 0);
    assert_eq!(harness.lettered_assets(), [["a", "b"]]);
    assert_eq!(harness.simulator.calls().len(), 1, "the letter alone");
}

#[tokio::test(start_paused = true)]
async fn a_malformed_request_is_reported_with_every_problem() {
    let harness = Harness::with_assets(0..3);
    let bad = json!({"projectId": 7, "assetIds": [], "clientToken": "short"});
    let problems = "projectId: expected a string, found a number; \
                    assetIds: expected at least one asset id, found none; \
                    clientToken: expected 36 to 64 characters, found 5";
    for event in [bad.clone(), rule_event(&bad), topic_event(&bad)] {
        assert_eq!(
            harness.answer(&event).await,
            json!({
                "requestId": crate::support::REQUEST_ID, "projectId": null, "status": "failed",
                "assets": {"requested": 0, "duplicates": 0, "disassociated": 0, "absent": 0,
                           "rejected": 0, "unfinished": 0, "queued": 0},
                "calls": 0,
                "failures": [{
                    "assetIds": [], "code": "InvalidRequest", "message": problems,
                    "retryable": false, "deadLettered": true, "queued": false,
                }],
            })
        );
    }
    let letters = harness.letters();
    assert_eq!(letters[0].body, bad.to_string());
    assert_eq!(letters[1].body, rule_event(&bad).to_string());
    assert_eq!(
        letters[2].body,
        topic_event(&bad)["Records"][0]["Sns"].to_string()
    );
    for letter in letters {
        assert_eq!(letter.attributes["ErrorCode"], "InvalidRequest");
        assert_eq!(letter.attributes["ErrorMessage"], problems);
    }
    assert_eq!(harness.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_project_id_that_would_rewrite_the_path_never_reaches_the_wire() {
    let harness = Harness::with_assets(0..3);
    for bad in ["..", ".", "", "a/b", "%2e%2e", &project(1).to_uppercase()] {
        let report = harness
            .answer(&json!({"projectId": bad, "assetIds": [asset(0)]}))
            .await;
        assert_eq!(report["status"], "failed");
        assert_eq!(report["projectId"], bad);
    }
    assert_eq!(harness.calls().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_itself_a_request() {
    let harness = Harness::with_assets(0..3);
    let ids = [asset(0), "PUMP-7".to_owned()];
    harness
        .answer(&records([record("m-1", &request(1, &ids))]))
        .await;
    let letter = harness.simulator.take_messages("dead-letters").remove(0);
    harness
        .answer(&records([record("m-2", &json!(letter.body))]))
        .await;
    let again = harness.letter_bodies().remove(0);
    assert_eq!(again["assetIds"], json!(["PUMP-7"]));
    assert_eq!(again["source"]["messageId"], "m-2");
}

#[tokio::test(start_paused = true)]
async fn one_unreadable_body_never_affects_its_neighbours() {
    let bad_bodies = [
        json!(""),
        json!("{"),
        json!("null"),
        json!("[]"),
        json!("{}"),
        json!("\u{feff}{}"),
        json!(format!("{} {{}}", request(1, &assets([0])))),
        json!("[".repeat(100_000)),
        json!({"projectId": project(1), "assetIds": [1, 2]}),
        json!({"projectId": [project(1)], "assetIds": assets([0])}),
        json!(format!(
            r#"{{"projectId":"{0}","projectId":"{0}","assetIds":["{1}"]}}"#,
            project(1),
            asset(0)
        )),
    ];
    for bad in bad_bodies {
        for place in 0..3 {
            let harness = Harness::with_assets(0..3);
            let mut all = vec![
                record("m-1", &request(1, &[asset(1)])),
                record("m-2", &request(1, &[asset(2)])),
            ];
            all.insert(place, record("bad", &bad));
            assert_eq!(harness.answer(&records(all)).await, failed([]), "{bad}");
            assert_eq!(harness.remaining(), [0], "{bad}");
            assert_eq!(harness.letters().len(), 1, "{bad}");
            assert_eq!(
                harness.letters()[0].attributes["ErrorCode"],
                "InvalidRequest"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_is_none_of_the_events_is_a_lambda_error() {
    let harness = Harness::new(Settings::default());
    for payload in [json!(null), json!({}), json!("x"), json!({"Records": [{}]})] {
        let error = harness.handle(&payload).await.expect_err("an error");
        assert!(
            error.starts_with("UnrecognizedEvent: unrecognized event: expected an SQS event"),
            "{error}"
        );
    }
    assert_eq!(harness.simulator.calls().len(), 0);
}
