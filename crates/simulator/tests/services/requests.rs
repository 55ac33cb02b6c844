//! What is said of requests that break the service model, and of events.

use aws_sdk_iotsitewise::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_iotsitewise::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_types::body::SdkBody;
use simulator::{Operation, Settings, Simulator};

use crate::support::{Harness, Trouble, asset, assets, project, token};

/// What is wrong with a disassociation, as answered and as recorded.
async fn wrong(project: &str, assets: Vec<String>, token: Option<String>) -> Option<String> {
    let harness = Harness::with_assets(1..=150);
    let answer = harness.call(project, assets, token).await;
    let call = harness.only_call();
    match &call.invalid {
        Some(reason) => assert_eq!(
            answer,
            Err(Trouble::refused(400, "InvalidRequestException", reason))
        ),
        None => assert_eq!(answer, Ok(vec![])),
    }
    assert_eq!(call.applied, call.invalid.is_none());
    call.invalid
}

#[tokio::test(start_paused = true)]
async fn one_to_a_hundred_assets_are_allowed() {
    for (count, expected) in [
        (0, Some("0 asset ids")),
        (1, None),
        (100, None),
        (101, Some("101 asset ids")),
    ] {
        let found = wrong(&project(1), assets(1..=count), None).await;
        assert_eq!(found.as_deref(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn ids_are_lowercase_uuids_and_not_nil() {
    for bad in [
        "bbbbbbbb-0000-4000-8000-00000000000",
        "bbbbbbbb-0000-4000-8000-0000000000011",
        "BBBBBBBB-0000-4000-8000-000000000001",
        "bbbbbbbb000040008000000000000001",
        "bbbbbbbb-0000-4000-8000-00000000000g",
        "bbbbbbb-b0000-4000-8000-000000000001",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-fffffffffffff",
    ] {
        let found = wrong(&project(1), vec![asset(1), bad.to_owned()], None).await;
        assert_eq!(found, Some(format!("asset id {bad:?}")));
        let found = wrong(bad, assets([1]), None).await;
        assert_eq!(found, Some(format!("projectId {bad:?}")));
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_and_a_description_want_an_id_too() {
    let harness = Harness::with_assets([1]);
    let list = harness
        .sitewise
        .list_project_assets()
        .project_id("project-1");
    let description = harness.sitewise.describe_project().project_id("project-1");
    let troubles = [
        Trouble::of(&list.send().await.expect_err("no id")),
        Trouble::of(&description.send().await.expect_err("no id")),
    ];
    let reason = "projectId \"project-1\"";
    let refused = Trouble::refused(400, "InvalidRequestException", reason);
    assert_eq!(troubles, [refused.clone(), refused]);
    for call in harness.simulator.calls() {
        assert_eq!(call.invalid.as_deref(), Some(reason));
    }
}

#[tokio::test(start_paused = true)]
async fn tokens_have_36_to_64_characters_and_no_space() {
    for (text, expected) in [
        ("t".repeat(35), Some("clientToken")),
        ("t".repeat(36), None),
        ("t".repeat(64), None),
        ("t".repeat(65), Some("clientToken")),
        (
            format!("{} {}", "t".repeat(20), "t".repeat(20)),
            Some("clientToken"),
        ),
        (format!("{}\n", "t".repeat(40)), Some("clientToken")),
        ("é".repeat(64), None),
    ] {
        let found = wrong(&project(1), assets([1]), Some(text)).await;
        assert_eq!(found.as_deref(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn the_sdks_own_token_is_valid_and_recorded() {
    let harness = Harness::with_assets([1, 2]);
    harness.disassociate([1]).await.expect("a 200");
    harness.disassociate_as(5, [2]).await.expect("a 200");
    let tokens: Vec<Option<String>> = harness
        .simulator
        .calls()
        .into_iter()
        .map(|call| call.token)
        .collect();
    assert_eq!(tokens[0].as_ref().map(String::len), Some(36));
    assert_eq!(tokens[1], Some(token(5)));
}

#[tokio::test(start_paused = true)]
async fn repeated_assets_are_recorded_as_wrong_but_worked_off() {
    let harness = Harness::with_assets([1, 2]);
    assert_eq!(harness.disassociate([1, 1]).await, Ok(vec![]));
    assert_eq!(harness.remaining(), [2]);
    let call = harness.only_call();
    assert_eq!(call.invalid.as_deref(), Some("repeated asset ids"));
    assert!(call.applied);
}

#[tokio::test(start_paused = true)]
async fn pages_have_1_to_250_assets() {
    let harness = Harness::with_assets(1..=3);
    for (size, is_allowed) in [
        (0, false),
        (1, true),
        (250, true),
        (251, false),
        (-1, false),
    ] {
        let found = harness.list(Some(size), None).await;
        assert_eq!(found.is_ok(), is_allowed, "{size}");
        if let Err(error) = found {
            assert_eq!(
                Trouble::of(&error),
                Trouble::refused(400, "InvalidRequestException", "maxResults or nextToken")
            );
            let call = harness.simulator.calls().pop().expect("a call");
            assert_eq!(call.invalid.as_deref(), Some("maxResults or nextToken"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_is_not_simulated_is_a_404() {
    let harness = Harness::with_assets([1]);
    let error = harness
        .sitewise
        .list_portals()
        .send()
        .await
        .expect_err("unknown");
    assert_eq!(
        error.raw_response().map(|raw| raw.status().as_u16()),
        Some(404)
    );
    let error = harness.sqs.list_queues().send().await.expect_err("unknown");
    assert_eq!(
        error.raw_response().map(|raw| raw.status().as_u16()),
        Some(404)
    );
    for call in harness.simulator.calls() {
        assert_eq!(call.operation, Operation::Other);
        assert_eq!(call.invalid.as_deref(), Some("no such operation"));
        assert_eq!((call.status, call.applied), (Some(404), false));
    }
}

/// Takes the signature away.
#[derive(Debug)]
struct Unsigned;

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Unsigned {
    fn name(&self) -> &'static str {
        "unsigned"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        context.request_mut().headers_mut().remove("authorization");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_without_signature_is_a_403() {
    let harness = Harness::with_assets([1]);
    let error = harness
        .sitewise
        .batch_disassociate_project_assets()
        .project_id(project(1))
        .asset_ids(asset(1))
        .customize()
        .interceptor(Unsigned)
        .send()
        .await
        .expect_err("not signed");
    assert_eq!(
        Trouble::of(&error),
        Trouble::refused(403, "MissingAuthenticationTokenException", "Not signed.")
    );
    assert_eq!(harness.only_call().invalid.as_deref(), Some("not signed"));
    assert_eq!(harness.remaining(), [1]);
}

/// Sends this body instead, after the request was signed.
#[derive(Debug)]
struct Body(&'static str);

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for Body {
    fn name(&self) -> &'static str {
        "body"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        *context.request_mut().body_mut() = SdkBody::from(self.0);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_other_types_is_refused() {
    let id = r#""bbbbbbbb-0000-4000-8000-000000000001""#;
    for (body, expected) in [
        ("", "the body is no JSON object"),
        ("[]", "the body is no JSON object"),
        ("{}", "0 asset ids"),
        (r#"{"assetIds":AN_ID}"#, "0 asset ids"),
        (r#"{"assetIds":[7]}"#, "asset id \"\""),
        (r#"{"assetIds":[AN_ID],"clientToken":7}"#, "clientToken"),
        (r#"{"assetIds":[AN_ID],"clientToken":""}"#, "clientToken"),
    ] {
        let harness = Harness::with_assets([1]);
        let body: &'static str = body.replace("AN_ID", id).leak();
        let call = harness
            .sitewise
            .batch_disassociate_project_assets()
            .project_id(project(1));
        let call = call.asset_ids(asset(1)).customize().interceptor(Body(body));
        let error = call.send().await.expect_err("refused");
        assert_eq!(
            Trouble::of(&error),
            Trouble::refused(400, "InvalidRequestException", expected)
        );
        assert_eq!(harness.only_call().invalid.as_deref(), Some(expected));
        assert_eq!(harness.remaining(), [1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_path_with_a_step_up_is_a_404() {
    for bad in [".", ".."] {
        let harness = Harness::with_assets([1]);
        let Err(Trouble::Refused { status, code, .. }) = harness.call(bad, assets([1]), None).await
        else {
            panic!("not refused");
        };
        assert_eq!((status, code.as_str()), (404, ""));
        let call = harness.only_call();
        assert_eq!(call.invalid.as_deref(), Some("the path has a . or .."));
        assert_eq!(call.operation, Operation::Other);
    }
}

fn seeded(event: &serde_json::Value) -> (Vec<String>, Simulator) {
    let simulator = Simulator::new(Settings::default());
    (simulator.seed_from_event(&event.to_string()), simulator)
}

fn request(number: usize, ids: impl IntoIterator<Item = usize>) -> serde_json::Value {
    serde_json::json!({"projectId": project(number), "assetIds": assets(ids)})
}

#[tokio::test(start_paused = true)]
async fn an_event_seeds_the_project_it_names() {
    let (projects, simulator) = seeded(&request(1, [1, 2]));
    assert_eq!(projects, [project(1)]);
    assert_eq!(
        simulator.projects(),
        [(project(1), [asset(1), asset(2)].into())].into()
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_seeds_from_json_inside_strings_inside_strings() {
    let notification = serde_json::json!({"Message": request(2, [3]).to_string()});
    let (projects, simulator) = seeded(&serde_json::json!({"Records": [
        {"body": request(1, [1]).to_string()},
        {"body": notification.to_string()},
        {"body": format!("\n {}", request(1, [2]))},
        {"body": serde_json::json!([request(3, [4])]).to_string()},
        {"body": serde_json::Value::from(request(4, [5]).to_string()).to_string()},
        {"body": "{ no JSON"},
        {"body": "text"},
    ]}));
    assert_eq!(projects, [1, 2, 3, 4].map(project));
    assert_eq!(
        simulator.projects(),
        [
            (project(1), [asset(1), asset(2)].into()),
            (project(2), [asset(3)].into()),
            (project(3), [asset(4)].into()),
            (project(4), [asset(5)].into()),
        ]
        .into()
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_seeds_nothing_of_invalid_ids() {
    let (projects, simulator) = seeded(&serde_json::json!([
        {"projectId": "no id", "assetIds": assets([1])},
        {"projectId": project(1), "assetIds": ["no id", asset(2), 3]},
        {"projectId": project(2)},
    ]));
    assert_eq!(projects, [project(1)]);
    assert_eq!(
        simulator.projects(),
        [(project(1), [asset(2)].into())].into()
    );
}

#[tokio::test(start_paused = true)]
async fn a_text_that_is_no_json_seeds_nothing() {
    let simulator = Simulator::new(Settings::default());
    assert_eq!(simulator.seed_from_event("projectId"), Vec::<String>::new());
    assert_eq!(simulator.projects(), [].into());
}
