//! Section 8: no line has a payload, a client token, or text that a sender
//! wrote, whichever crate logs it and whatever the filter says.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use serde_json::{Value, json};
use simulator::{Absent, Action, Fault, Settings, Simulator};

const PROJECT: &str = "aaaaaaaa-0000-4000-8000-000000000001";
const ASSET: &str = "bbbbbbbb-0000-4000-8000-000000000001";
const REQUEST_ID: &str = "8476a536-e9f4-11e8-9739-2dfe598c3fcd";
const SENDERS_TEXT: &str = "canary-with-as-many-letters-as-a-client-token-has";

/// Plays the Lambda Runtime API for one invocation; then it is gone. Returns its
/// address.
fn runtime_api(payload: &Value, client_context: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let deadline = i64::MAX;
    let invocation = format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\n\
         lambda-runtime-aws-request-id: {REQUEST_ID}\r\n\
         lambda-runtime-deadline-ms: {deadline}\r\n\
         lambda-runtime-client-context: {client_context}\r\n\
         content-length: {}\r\n\r\n{payload}",
        payload.to_string().len()
    );
    let accepted = "HTTP/1.1 202 Accepted\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    thread::spawn(move || {
        for reply in [&invocation, accepted] {
            let (mut stream, _) = listener.accept().expect("a connection");
            read_request(&stream);
            stream.write_all(reply.as_bytes()).expect("a reader");
        }
    });
    address
}

fn read_request(stream: &TcpStream) {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    let mut line = String::new();
    while reader.read_line(&mut line).expect("a request") > 2 {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
}

/// A service that refuses every request with a sender's text.
fn refusing() -> Simulator {
    let simulator = Simulator::new(Settings::default());
    for fault in [Fault::sitewise(), Fault::sqs()] {
        simulator.fault(fault.action(Action::Refuse {
            status: 400,
            error_type: "InvalidRequestException".to_owned(),
            message: SENDERS_TEXT.to_owned(),
        }));
    }
    simulator
}

/// Starts the function's binary for one invocation, and returns its log.
async fn log(
    simulator: &Simulator,
    payload: &Value,
    client_context: &'static str,
    filter: (&str, &str),
) -> String {
    simulator.add_project(PROJECT, [ASSET]);
    simulator.create_queue("dead-letters");
    let server = simulator.serve(([127, 0, 0, 1], 0).into()).await;
    let server = server.expect("a free port");
    let url = server.url();
    let mut command = Command::new(env!("CARGO_BIN_EXE_sitewise-disassociator"));
    command
        .env_clear()
        .env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_ENDPOINT_URL", &url)
        .env(
            "DEAD_LETTER_QUEUE_URL",
            format!("{url}/000000000000/dead-letters"),
        )
        .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256")
        .env("AWS_LAMBDA_FUNCTION_NAME", "sitewise-disassociator")
        .env("AWS_LAMBDA_FUNCTION_VERSION", "1")
        .env("AWS_LAMBDA_LOG_GROUP_NAME", "group")
        .env("AWS_LAMBDA_LOG_STREAM_NAME", "stream")
        .env(
            "AWS_LAMBDA_RUNTIME_API",
            runtime_api(payload, client_context),
        )
        .env(filter.0, filter.1);
    let ended = tokio::task::spawn_blocking(move || command.output()).await;
    let output = ended.expect("no panic").expect("the function's binary");
    String::from_utf8(output.stdout).expect("text")
}

fn lines(log: &str) -> Vec<Value> {
    let lines = log.lines().map(serde_json::from_str);
    lines.collect::<Result<_, _>>().expect("JSON lines")
}

/// Filters that let everything through.
const EVERYTHING: [(&str, &str); 2] = [
    ("AWS_LAMBDA_LOG_LEVEL", "TRACE"),
    (
        "RUST_LOG",
        "lambda_runtime=trace,aws_smithy_runtime=trace,info",
    ),
];

#[tokio::test]
async fn no_line_has_what_a_sender_wrote() {
    for filter in EVERYTHING {
        let record = |number: u8, body: String| {
            let id = format!("cccccccc-0000-4000-8000-00000000000{number}");
            json!({"eventSource": "aws:sqs", "messageId": id, "body": body})
        };
        let request = json!({
            "projectId": PROJECT,
            "assetIds": [ASSET, SENDERS_TEXT],
            "clientToken": SENDERS_TEXT,
        });
        let payload = json!({"Records": [
            record(1, request.to_string()),
            record(2, SENDERS_TEXT.to_owned()),
        ]});
        let log = log(&refusing(), &payload, "", filter).await;
        assert!(!log.contains("canary"), "{filter:?}: {log}");
        // The services' messages have that text too.
        let failures: Vec<Value> = lines(&log)
            .into_iter()
            .filter(|line| line["code"] == "InvalidRequestException")
            .map(|line| json!([line["message"], line["function_request_id"]]))
            .collect();
        assert_eq!(
            failures,
            [
                json!(["a dead letter or a part could not be stored", REQUEST_ID]),
                json!(["assets or requests failed", REQUEST_ID]),
            ]
        );
    }
}

const MESSAGE: &str = "cccccccc-0000-4000-8000-000000000001";
const OTHER_ASSET: &str = "bbbbbbbb-0000-4000-8000-000000000002";

/// The audit lines of an event of one record: message, assets, whether listed.
async fn audit(simulator: &Simulator, request: &Value, level: &str) -> Vec<(String, Value, Value)> {
    let record = json!({"eventSource": "aws:sqs", "messageId": MESSAGE,
                        "body": request.to_string()});
    let payload = json!({"Records": [record]});
    let log = log(simulator, &payload, "", ("AWS_LAMBDA_LOG_LEVEL", level)).await;
    let lines = lines(&log).into_iter();
    let lines = lines.filter(|line| line["asset_ids"].is_array());
    lines
        .map(|line| {
            assert_eq!(line["level"], "INFO");
            assert_eq!(line["project_id"], PROJECT);
            assert_eq!(line["message_ids"], json!([MESSAGE]));
            assert_eq!(line["function_request_id"], REQUEST_ID);
            let message = line["message"].as_str().expect("a text").to_owned();
            (message, line["asset_ids"].clone(), line["listed"].clone())
        })
        .collect()
}

#[tokio::test]
async fn a_line_for_each_accepted_call_names_its_assets_and_whether_they_were_listed() {
    let named = json!({"projectId": PROJECT, "assetIds": [ASSET]});
    let whole = json!({"projectId": PROJECT, "allAssets": true});
    for (request, listed) in [(named, false), (whole, true)] {
        for (level, is_logged) in [("INFO", true), ("WARN", false)] {
            let simulator = Simulator::new(Settings::default());
            let lines = audit(&simulator, &request, level).await;
            let line = (
                "assets disassociated".to_owned(),
                json!([ASSET]),
                json!(listed),
            );
            let expected = if is_logged { vec![line] } else { vec![] };
            assert_eq!(lines, expected, "{request} {level}");
        }
    }
}

#[tokio::test]
async fn absent_assets_have_a_line_and_others_are_listed_after_a_read() {
    let simulator = Simulator::new(Settings {
        asset_not_in_project: Absent::NotFound,
        unknown_asset: Absent::NotFound,
        ..Settings::default()
    });
    let request = json!({"projectId": PROJECT, "assetIds": [ASSET, OTHER_ASSET]});
    let lines = audit(&simulator, &request, "INFO").await;
    assert_eq!(
        lines,
        [
            (
                "assets absent".to_owned(),
                json!([OTHER_ASSET]),
                json!(false)
            ),
            (
                "assets disassociated".to_owned(),
                json!([ASSET]),
                json!(true)
            ),
        ]
    );
}

#[tokio::test]
async fn an_asset_that_fails_inside_a_200_is_in_no_line() {
    let simulator = Simulator::new(Settings::default());
    let fault = format!("disassociate:asset={OTHER_ASSET}:asset-error=INTERNAL");
    simulator.fault(fault.parse().expect("a fault"));
    simulator.add_project(PROJECT, [OTHER_ASSET]);
    let request = json!({"projectId": PROJECT, "assetIds": [ASSET, OTHER_ASSET]});
    let lines = audit(&simulator, &request, "INFO").await;
    let expected = (
        "assets disassociated".to_owned(),
        json!([ASSET]),
        json!(false),
    );
    assert_eq!(lines, [expected]);
}

#[tokio::test]
async fn the_dry_run_of_a_portal_logs_how_many_projects_it_did_not_read() {
    let simulator = Simulator::new(Settings::default());
    let portal = "dddddddd-0000-4000-8000-000000000001";
    let other = "aaaaaaaa-0000-4000-8000-000000000002";
    simulator.add_portal(portal, [PROJECT, other]);
    let fault = format!("list:project={other}:status=403");
    simulator.fault(fault.parse().expect("a fault"));
    let payload = json!({"portalId": portal, "allProjects": true, "dryRun": true});
    let log = log(&simulator, &payload, "", ("AWS_LAMBDA_LOG_LEVEL", "INFO")).await;
    let lines = lines(&log);
    let line = lines.iter().find(|line| line["message"] == "dry run");
    let line = line.expect("a line");
    assert_eq!(line["would_disassociate"], 1);
    assert_eq!(line["unread_projects"], 1);
}

#[tokio::test]
async fn over_sqs_the_counts_of_a_dry_run_are_in_the_log() {
    let simulator = Simulator::new(Settings::default());
    let request = json!({"projectId": PROJECT, "dryRun": true,
                         "assetIds": [ASSET, OTHER_ASSET, "bad"]});
    let record = json!({"eventSource": "aws:sqs", "messageId": MESSAGE,
                        "body": request.to_string()});
    let payload = json!({"Records": [record]});
    let log = log(&simulator, &payload, "", ("AWS_LAMBDA_LOG_LEVEL", "INFO")).await;
    let lines = lines(&log);
    let line = lines.iter().find(|line| line["message"] == "dry run");
    let line = line.expect("a line");
    let names = [
        "project_id",
        "message_id",
        "requested",
        "would_disassociate",
        "absent",
        "rejected",
    ];
    let found = names.map(|name| &line[name]);
    let expected = [
        json!(PROJECT),
        json!(MESSAGE),
        json!(3),
        json!(1),
        json!(1),
        json!(1),
    ];
    assert_eq!(found, expected.each_ref());
}

/// The Lambda runtime stops at a client context that it cannot read.
#[tokio::test]
async fn a_malformed_client_context_is_not_quoted() {
    const CONTEXT: &str = r#"{"client": "canary", "custom": {}, "env": {}}"#;
    for filter in EVERYTHING {
        let log = log(&refusing(), &json!({}), CONTEXT, filter).await;
        assert!(!log.contains("canary"), "{filter:?}: {log}");
        let lines = lines(&log);
        let last = lines.last().expect("a line");
        assert_eq!(last["message"], "the Lambda runtime stopped", "{log}");
    }
}
