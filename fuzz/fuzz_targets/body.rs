//! Any message body between two good neighbours: the neighbours are read, nothing
//! invalid in the body passes as valid, and a JSON object is read as section 1 of
//! the contract says.
#![no_main]

use std::collections::BTreeSet;

use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sitewise_disassociator::input::event::{self, Event};
use sitewise_disassociator::input::request::{InvalidRequest, Request, Scope};
use sitewise_disassociator::plan::{BATCH_LIMIT, PlanInput, plan};

const GOOD: &str = r#"{"projectId":"5791e316-d232-4366-84f0-e1df00172b1b",
    "assetIds":["dfa70030-4b94-462b-884f-c110a65c660b"]}"#;

/// Returns whether an id fits the service model's pattern.
fn is_id(text: &str) -> bool {
    text.len() == 36
        && text != "00000000-0000-0000-0000-000000000000"
        && text
            .bytes()
            .enumerate()
            .all(|(position, byte)| match position {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            })
}

fn is_token(text: &str) -> bool {
    (36..=64).contains(&text.chars().count()) && !text.contains(char::is_whitespace)
}

/// What a request asks for.
#[derive(Debug)]
enum Form<'a> {
    Assets(Vec<&'a str>),
    Project,
    Portal,
}

/// Returns a flag, or `None` where it is no boolean.
fn flag(body: &Value, name: &str) -> Option<bool> {
    body.get(name).map_or(Some(false), Value::as_bool)
}

/// Returns what a request asks for, or `None` where it is malformed.
fn form(body: &Value) -> Option<Form<'_>> {
    const FLAGS: [&str; 3] = ["dryRun", "allAssets", "allProjects"];
    let is_misspelt = |name: &String| {
        let plain = name.replace(['_', '-'], "");
        let is_flag = FLAGS.iter().any(|flag| flag.eq_ignore_ascii_case(&plain));
        is_flag && !FLAGS.contains(&name.as_str())
    };
    let is_token_valid = match &body["clientToken"] {
        Value::Null => true,
        Value::String(token) => is_token(token),
        _ => false,
    };
    let [_, all_assets, all_projects] = FLAGS.map(|name| flag(body, name));
    let (all_assets, all_projects) = (all_assets?, all_projects?);
    flag(body, "dryRun")?;
    if !is_token_valid || body.as_object()?.keys().any(is_misspelt) {
        return None;
    }
    let has = |name| body.get(name).is_some();
    let is_valid_id = |name: &str| body[name].as_str().is_some_and(is_id);
    if all_projects {
        let is_mixed = all_assets || has("projectId") || has("assetIds");
        return (is_valid_id("portalId") && !is_mixed).then_some(Form::Portal);
    }
    if !is_valid_id("projectId") {
        return None;
    }
    if all_assets {
        return (!has("assetIds")).then_some(Form::Project);
    }
    let assets = body["assetIds"].as_array()?;
    let assets: Option<Vec<&str>> = assets.iter().map(Value::as_str).collect();
    assets.filter(|assets| !assets.is_empty()).map(Form::Assets)
}

/// Reads `body` as the record between two good ones.
fn read(body: &str) -> Result<Request, InvalidRequest> {
    let records = [("1", GOOD), ("2", body), ("3", GOOD)]
        .map(|(id, body)| json!({"messageId": id, "eventSource": "aws:sqs", "body": body}));
    let payload = json!({ "Records": records }).to_string();
    let payload = RawValue::from_string(payload).expect("JSON");
    let Ok(Event::Queue(messages)) = event::read(&payload) else {
        panic!("an SQS event is not read as one");
    };
    let ids: Vec<_> = messages
        .iter()
        .map(|message| message.id.as_deref())
        .collect();
    assert_eq!(ids, [Some("1"), Some("2"), Some("3")]);
    let good = Request::parse(GOOD).expect("good");
    assert_eq!(messages[0].request().expect("good"), good);
    assert_eq!(messages[2].request().expect("good"), good);
    messages[1].request()
}

fuzz_target!(|body: &str| {
    let read_as = read(body);
    match &read_as {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(request) => check(request),
    }
    // Every way to write one value is one request. A known field that is given
    // twice is the exception: `Value` has its last, and the function refuses it.
    let Ok(value @ Value::Object(_)) = serde_json::from_str::<Value>(body) else {
        return;
    };
    let names = [
        "projectId",
        "portalId",
        "assetIds",
        "allAssets",
        "allProjects",
    ];
    if names.iter().all(|name| value.get(name).is_none()) {
        return;
    }
    match (read(&value.to_string()), form(&value)) {
        (Err(_), None) => {}
        (Ok(request), Some(form)) => {
            if let Ok(as_it_came) = read_as {
                assert_eq!(request, as_it_came);
            }
            match (&request.scope, form) {
                (Scope::Assets(assets), Form::Assets(ids)) => {
                    let (valid, invalid): (BTreeSet<&str>, _) =
                        ids.iter().partition(|id| is_id(id));
                    let read = assets.valid.iter().map(ToString::to_string);
                    assert_eq!(read.collect::<BTreeSet<_>>(), owned(&valid));
                    let refused = assets.invalid.iter().map(|id| id.text().to_owned());
                    assert_eq!(refused.collect::<BTreeSet<_>>(), owned(&invalid));
                    let read = assets.valid.len() + assets.invalid.len() + assets.duplicates;
                    assert_eq!(read, ids.len());
                }
                (Scope::Project(_), Form::Project) | (Scope::Portal(_), Form::Portal) => {}
                (scope, form) => panic!("read as {scope:?}, should be {form:?}"),
            }
            let project = request.project().map(|project| project.to_string());
            match &request.scope {
                Scope::Portal(portal) => assert_eq!(portal.to_string(), value["portalId"]),
                _ => assert_eq!(project.as_deref(), value["projectId"].as_str()),
            }
            assert_eq!(request.dry_run, value["dryRun"] == true);
            let token = request.client_token.as_ref().map(|token| token.as_str());
            assert_eq!(token, value["clientToken"].as_str());
        }
        (read, form) => panic!("read as {read:?}, should be {form:?}"),
    }
});

fn owned(ids: &BTreeSet<&str>) -> BTreeSet<String> {
    ids.iter().map(ToString::to_string).collect()
}

/// Nothing invalid is in a request, nor in the calls that are planned for it.
fn check(request: &Request) {
    let Scope::Assets(assets) = &request.scope else {
        return;
    };
    assert!(is_id(&assets.project.to_string()));
    assert!(assets.valid.len() + assets.invalid.len() > 0);
    for asset in &assets.valid {
        assert!(is_id(&asset.to_string()), "{asset}");
    }
    for invalid in &assets.invalid {
        assert!(!is_id(invalid.text()), "{}", invalid.text());
    }
    let input = PlanInput {
        project: assets.project,
        assets: &assets.valid,
        is_whole_project: false,
        client_token: request.client_token.as_ref(),
        message_id: "2",
        receives: 1,
    };
    let mut planned = Vec::new();
    for batch in plan(&[input]) {
        assert!((1..=BATCH_LIMIT).contains(&batch.assets.len()));
        assert!(is_token(batch.token(&batch.assets, 0).as_str()));
        planned.extend(batch.assets);
    }
    planned.sort();
    let mut valid = assets.valid.clone();
    valid.sort();
    assert_eq!(planned, valid, "each once");
}
