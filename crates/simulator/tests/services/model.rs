//! The simulator against AWS's own service model. The fixture says where it
//! comes from.

use serde_json::Value;
use simulator::{ASSET_LIMIT, Absent, Settings, TOKEN_LENGTH, Throttle};

use crate::support::{Harness, Trouble, asset, assets, portal, project};

const DISASSOCIATE: &str = "BatchDisassociateProjectAssets";
const LIST: &str = "ListProjectAssets";
const DESCRIBE: &str = "DescribeProject";
const LIST_PROJECTS: &str = "ListProjects";
const DESCRIBE_PORTAL: &str = "DescribePortal";

fn model() -> Value {
    serde_json::from_str(include_str!("../model/iotsitewise.json")).expect("JSON")
}

fn shape(name: &str) -> Value {
    model()["shapes"][name].clone()
}

fn limit(shape: &Value, field: &str) -> usize {
    let number = shape[field].as_u64().expect("a number");
    usize::try_from(number).expect("a small number")
}

fn operation(name: &str) -> Value {
    model()["operations"][name].clone()
}

#[test]
fn the_fixture_names_its_origin_and_nothing_of_it_is_missing() {
    let model = model();
    let origin = model["origin"].as_str().expect("a text");
    for part in ["botocore 1.43.127", "Apache License, Version 2.0"] {
        assert!(origin.contains(part), "{origin}");
    }
    assert_eq!(model["metadata"]["serviceId"], "IoTSiteWise");
    assert_eq!(model["metadata"]["apiVersion"], "2019-12-02");
    assert_every_shape_is_there(&model, &model);
}

fn assert_every_shape_is_there(value: &Value, model: &Value) {
    if let Some(name) = value["shape"].as_str() {
        assert!(model["shapes"][name].is_object(), "{name}");
    }
    match value {
        Value::Object(fields) => fields
            .values()
            .for_each(|field| assert_every_shape_is_there(field, model)),
        Value::Array(items) => items
            .iter()
            .for_each(|item| assert_every_shape_is_there(item, model)),
        _ => {}
    }
}

#[test]
fn the_asset_limit_is_the_models() {
    let ids = shape("IDs");
    assert_eq!(*ASSET_LIMIT.start(), limit(&ids, "min"));
    assert_eq!(*ASSET_LIMIT.end(), limit(&ids, "max"));
    let request = shape("BatchDisassociateProjectAssetsRequest");
    assert_eq!(request["members"]["assetIds"]["shape"], "IDs");
    assert_eq!(
        request["required"],
        serde_json::json!(["projectId", "assetIds"])
    );
}

#[test]
fn the_token_length_is_the_models() {
    let token = shape("ClientToken");
    assert_eq!(*TOKEN_LENGTH.start(), limit(&token, "min"));
    assert_eq!(*TOKEN_LENGTH.end(), limit(&token, "max"));
    let (start, end) = TOKEN_LENGTH.into_inner();
    assert_eq!(token["pattern"], format!("\\S{{{start},{end}}}"));
}

/// Whether the simulator takes these for a project's and an asset's ids.
async fn is_taken(project_id: &str, asset_id: &str) -> bool {
    let harness = Harness::new(Settings::default());
    harness.simulator.add_project(project_id, [asset_id]);
    let answer = harness
        .call(project_id, vec![asset_id.to_owned()], None)
        .await;
    let call = harness.only_call();
    assert_eq!(answer.is_ok(), call.invalid.is_none());
    answer.is_ok()
}

#[tokio::test(start_paused = true)]
async fn ids_are_taken_at_the_edges_of_the_models_pattern() {
    let id = shape("ID");
    assert_eq!((limit(&id, "min"), limit(&id, "max")), (36, 36));
    // The pattern in words: not nil; digits and a to f in groups of 8, 4, 4, 4
    // and 12. Each id below is at an edge of it.
    assert_eq!(
        id["pattern"],
        "^(?!00000000-0000-0000-0000-000000000000)\
         [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
    );
    for (text, is_id) in [
        ("00000000-0000-0000-0000-000000000000", false),
        ("00000000-0000-0000-0000-000000000001", true),
        ("ffffffff-ffff-ffff-ffff-ffffffffffff", true),
        ("fffffffF-ffff-ffff-ffff-ffffffffffff", false),
        ("gfffffff-ffff-ffff-ffff-ffffffffffff", false),
        ("ffffffff-ffff-ffff-ffff-fffffffffff", false),
        ("ffffffff-ffff-ffff-ffff-fffffffffffff", false),
        ("ffffffffffff-ffff-ffff-ffff-ffffffff", false),
        ("ffffffff_ffff_ffff_ffff_ffffffffffff", false),
        ("{fffffff-ffff-ffff-ffff-fffffffffff}", false),
    ] {
        assert_eq!(is_taken(text, &asset(1)).await, is_id, "project {text}");
        assert_eq!(is_taken(&project(1), text).await, is_id, "asset {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn pages_are_as_large_as_the_model_says() {
    let size = shape("MaxResults");
    let (least, most) = (limit(&size, "min"), limit(&size, "max"));
    let harness = Harness::with_assets(1..=most + 1);
    for (size, is_allowed) in [
        (least - 1, false),
        (least, true),
        (most, true),
        (most + 1, false),
    ] {
        let wanted = i32::try_from(size).expect("a small number");
        let page = harness.list(Some(wanted), None).await;
        let found = page.ok().map(|page| page.asset_ids().len());
        assert_eq!(found, is_allowed.then_some(size));
    }
}

#[tokio::test(start_paused = true)]
async fn a_next_token_is_as_the_model_says() {
    let harness = Harness::with_assets(1..=60);
    let page = harness.list(None, None).await.expect("a page");
    let token = page.next_token().expect("a token");
    let next = shape("NextToken");
    assert_eq!(next["pattern"], "[A-Za-z0-9+/=]+");
    assert!((limit(&next, "min")..=limit(&next, "max")).contains(&token.len()));
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric()));
}

/// The status that the model gives an error of this operation.
fn modelled_status(operation_name: &str, error: &str) -> Option<u16> {
    let errors = operation(operation_name)["errors"].clone();
    let is_declared = errors
        .as_array()
        .expect("a list")
        .iter()
        .any(|declared| declared["shape"] == error);
    let status = shape(error)["error"]["httpStatusCode"].as_u64();
    is_declared.then(|| u16::try_from(status.expect("a status")).expect("a status"))
}

/// A refusal's name and status.
fn answered(trouble: Trouble) -> (String, u16) {
    let Trouble::Refused { status, code, .. } = trouble else {
        return (format!("{trouble:?}"), 0);
    };
    (code, status)
}

#[tokio::test(start_paused = true)]
async fn errors_have_the_statuses_that_the_model_gives_them() {
    let harness = Harness::new(Settings {
        unknown_asset: Absent::Invalid,
        throttle: Some(Throttle {
            rate: 1.0,
            burst: 4.0,
        }),
        ..Settings::default()
    })
    .and_assets([1]);
    let troubles = [
        harness.disassociate(1..=101).await.expect_err("too many"),
        harness.disassociate([2]).await.expect_err("unknown"),
        harness
            .call(&project(2), assets([1]), None)
            .await
            .expect_err("no project"),
    ];
    let mut found: Vec<(String, u16)> = troubles.map(answered).into();
    let error = harness.list(Some(0), None).await.expect_err("no page");
    let of_a_list = answered(Trouble::of(&error));
    found.push(answered(
        harness.disassociate([1]).await.expect_err("throttled"),
    ));
    let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "InvalidRequestException",
            "InvalidRequestException",
            "ResourceNotFoundException",
            "ThrottlingException",
        ]
    );
    for (name, status) in &found {
        assert_eq!(modelled_status(DISASSOCIATE, name), Some(*status), "{name}");
    }
    assert_eq!(modelled_status(LIST, &of_a_list.0), Some(of_a_list.1));
    assert_eq!(of_a_list.0, "InvalidRequestException");
}

#[tokio::test(start_paused = true)]
async fn the_throttle_of_a_fault_is_the_models() {
    let harness = Harness::with_assets([1]).and_fault("sitewise:throttle");
    let (name, status) = answered(harness.disassociate([1]).await.expect_err("throttled"));
    assert_eq!(modelled_status(DISASSOCIATE, &name), Some(status));
    assert_eq!(modelled_status(LIST, &name), Some(status));
    for read in [DESCRIBE, LIST_PROJECTS, DESCRIBE_PORTAL] {
        assert_eq!(modelled_status(read, &name), Some(status));
    }
}

#[tokio::test(start_paused = true)]
async fn a_description_has_what_the_model_requires() {
    let harness = Harness::with_assets([]);
    let found = harness.describe().await.expect("a project");
    let response = shape("DescribeProjectResponse");
    for member in response["required"].as_array().expect("a list") {
        let member = member.as_str().expect("a name");
        let (shape_name, value) = match member {
            "projectId" => ("ID", found.project_id().to_owned()),
            "projectArn" => ("ARN", found.project_arn().to_owned()),
            "projectName" => ("Name", found.project_name().to_owned()),
            "portalId" => ("ID", found.portal_id().to_owned()),
            "projectCreationDate" | "projectLastUpdateDate" => {
                let (created, updated) = (
                    found.project_creation_date(),
                    found.project_last_update_date(),
                );
                // The SDK puts 1970 in the place of a date that is missing.
                assert!(created.secs() > 0 && updated >= created);
                assert_eq!(shape("Timestamp")["type"], "timestamp");
                continue;
            }
            other => panic!("{other}"),
        };
        assert_eq!(response["members"][member]["shape"], shape_name);
        let limits = shape(shape_name);
        assert!(
            (limit(&limits, "min")..=limit(&limits, "max")).contains(&value.len()),
            "{member}"
        );
    }
    assert_eq!(
        shape("ARN")["pattern"],
        r"^arn:aws(-cn|-us-gov)?:[a-zA-Z0-9-:\/_\.]+$"
    );
    assert_eq!(
        found.project_arn(),
        format!(
            "arn:aws:iotsitewise:eu-west-1:000000000000:project/{}",
            project(1)
        )
    );
    assert_eq!(found.project_description(), None);
}

#[tokio::test(start_paused = true)]
async fn refusals_of_a_description_are_the_models() {
    let harness = Harness::new(Settings::default());
    let missing = Trouble::of(&harness.describe().await.expect_err("no project"));
    let call = harness.sitewise.describe_project().project_id("no-id");
    let invalid = Trouble::of(&call.send().await.expect_err("no id"));
    for (trouble, expected) in [
        (missing, "ResourceNotFoundException"),
        (invalid, "InvalidRequestException"),
    ] {
        let (name, status) = answered(trouble);
        assert_eq!(name, expected);
        assert_eq!(modelled_status(DESCRIBE, &name), Some(status));
    }
}

/// Asserts that a text is as long as its shape in the model wants.
fn assert_length(response: &Value, member: &str, value: &str) {
    let limits = shape(
        response["members"][member]["shape"]
            .as_str()
            .expect("a name"),
    );
    let most = limits["max"]
        .as_u64()
        .map_or(usize::MAX, |_| limit(&limits, "max"));
    assert!(
        (limit(&limits, "min")..=most).contains(&value.len()),
        "{member}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_list_of_projects_has_what_the_model_requires() {
    let harness = Harness::with_projects(1..=2);
    let page = harness.list_projects(Some(1), None).await.expect("a page");
    let [found] = page.project_summaries() else {
        panic!("{page:?}");
    };
    let response = shape("ListProjectsResponse");
    assert_eq!(
        response["required"],
        serde_json::json!(["projectSummaries"])
    );
    assert_length(&response, "nextToken", page.next_token().expect("a token"));
    let summary = shape("ProjectSummary");
    assert_eq!(summary["required"], serde_json::json!(["id", "name"]));
    assert_length(&summary, "id", found.id());
    assert_length(&summary, "name", found.name());
    for date in [found.creation_date(), found.last_update_date()] {
        assert!(date.is_some_and(|date| date.secs() > 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_description_of_a_portal_has_what_the_model_requires() {
    let harness = Harness::with_projects([]);
    let found = harness.describe_portal().await.expect("a portal");
    let response = shape("DescribePortalResponse");
    for member in response["required"].as_array().expect("a list") {
        let member = member.as_str().expect("a name");
        let value = match member {
            "portalId" => found.portal_id(),
            "portalArn" => found.portal_arn(),
            "portalName" => found.portal_name(),
            "portalClientId" => found.portal_client_id(),
            "portalStartUrl" => found.portal_start_url(),
            "portalContactEmail" => found.portal_contact_email(),
            "portalStatus" => {
                let state = found.portal_status().expect("a status").state();
                let states = shape("PortalState")["enum"].clone();
                let states = states.as_array().expect("a list");
                assert!(states.contains(&state.as_str().into()), "{state}");
                continue;
            }
            "portalCreationDate" => {
                // The SDK puts 1970 in the place of a date that is missing.
                assert!(found.portal_creation_date().secs() > 0);
                continue;
            }
            "portalLastUpdateDate" => {
                assert!(found.portal_last_update_date().secs() > 0);
                continue;
            }
            other => panic!("{other}"),
        };
        assert_length(&response, member, value);
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_of_requests_for_portals_are_the_models() {
    let harness = Harness::new(Settings::default());
    let missing = Trouble::of(&harness.describe_portal().await.expect_err("no portal"));
    let call = harness.sitewise.describe_portal().portal_id("no-id");
    let no_id = Trouble::of(&call.send().await.expect_err("no id"));
    let list = harness.sitewise.list_projects().portal_id("no-id");
    let no_list = Trouble::of(&list.send().await.expect_err("no id"));
    for (operation, trouble, expected) in [
        (DESCRIBE_PORTAL, missing, "ResourceNotFoundException"),
        (DESCRIBE_PORTAL, no_id, "InvalidRequestException"),
        (LIST_PROJECTS, no_list, "InvalidRequestException"),
    ] {
        let (name, status) = answered(trouble);
        assert_eq!(name, expected);
        assert_eq!(modelled_status(operation, &name), Some(status));
    }
}

/// The model has no 404 for a list; the simulator gives one unless it is set to
/// another answer, because AWS does not say what a missing project's list gets.
#[test]
fn the_404_of_a_list_is_outside_the_model() {
    for list in [LIST, LIST_PROJECTS] {
        assert_eq!(modelled_status(list, "ResourceNotFoundException"), None);
    }
    assert_eq!(
        modelled_status(DISASSOCIATE, "ResourceNotFoundException"),
        Some(404)
    );
}

#[tokio::test(start_paused = true)]
async fn the_operations_are_where_the_model_has_them() {
    let harness = Harness::with_projects([1]).and_assets([1]);
    harness.disassociate([1]).await.expect("a 200");
    harness.list(None, None).await.expect("a page");
    harness.describe().await.expect("a project");
    harness.list_projects(None, None).await.expect("a page");
    harness.describe_portal().await.expect("a portal");
    let calls = harness.simulator.calls();
    let names = [DISASSOCIATE, LIST, DESCRIBE, LIST_PROJECTS, DESCRIBE_PORTAL];
    assert_eq!(calls.len(), names.len());
    for (call, name) in calls.iter().zip(names) {
        let operation = operation(name);
        let uri = operation["http"]["requestUri"].as_str().expect("a text");
        let uri = uri.replace("{projectId}", &project(1));
        assert_eq!(call.path, uri.replace("{portalId}", &portal(2)));
        assert_eq!(operation["http"]["method"], call.method);
        assert_eq!(operation["http"]["responseCode"], 200);
        assert_eq!(call.status, Some(200));
        let prefix = operation["endpoint"]["hostPrefix"].as_str();
        let service = model()["metadata"]["endpointPrefix"].clone();
        assert_eq!(
            call.host,
            format!(
                "{}{}.eu-west-1.amazonaws.com",
                prefix.expect("a text"),
                service.as_str().expect("a text")
            )
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_asset_error_has_the_models_fields_and_code() {
    let harness = Harness::with_assets([1]);
    let errors = harness.disassociate([2]).await.expect("a 200");
    let [(found, code, message)] = errors.try_into().expect("one");
    assert_eq!(found, asset(2));
    assert_eq!(shape("AssetErrorCode")["enum"], serde_json::json!([code]));
    assert_ne!(message, "");
    assert_eq!(
        shape("AssetErrorDetails")["required"],
        serde_json::json!(["assetId", "code", "message"])
    );
}
