//! Section 7: which endpoint is called, and the cold start's refusals.

use std::process::Command;

use aws_smithy_http_client::Builder;
use serde_json::Value;
use simulator::{Action, Fault, Settings, Simulator};
use sitewise_disassociator::aws::sitewise::SiteWise;
use sitewise_disassociator::aws::sqs::{Queue, Sqs};

use crate::support::{
    DEAD_LETTERS, Harness, asset, failed, project, record, records, request, sdk_config,
};

fn first_call(harness: &Harness) -> simulator::Call {
    harness.calls().remove(0)
}

#[tokio::test(start_paused = true)]
async fn awss_own_endpoint_has_the_monitor_prefix() {
    let harness = Harness::with_assets(0..1);
    harness.answer(&request(1, &[asset(0)])).await;
    assert_eq!(
        first_call(&harness).host,
        "monitor.iotsitewise.eu-west-1.amazonaws.com"
    );
}

#[tokio::test(start_paused = true)]
async fn a_configured_endpoint_is_called_exactly_as_given() {
    let mut harness = Harness::with_assets(0..1);
    let config = sdk_config(harness.simulator.http_client())
        .endpoint_url("https://vpce-1.example.com:8443/prefix")
        .build();
    harness.function.sitewise = SiteWise::new(&config);
    harness.answer(&request(1, &[asset(0)])).await;
    let call = first_call(&harness);
    assert_eq!(call.host, "vpce-1.example.com:8443");
    assert_eq!(
        call.path,
        format!("/prefix/projects/{}/assets/disassociate", project(1))
    );
}

#[tokio::test]
async fn a_configured_endpoint_is_called_over_a_real_socket() {
    let simulator = Simulator::new(Settings::default());
    simulator.add_project(&project(1), [asset(0)]);
    let server = simulator
        .serve(([127, 0, 0, 1], 0).into())
        .await
        .expect("a free port");
    let mut harness = Harness::with_assets([]);
    let config = sdk_config(Builder::new().build_http())
        .endpoint_url(server.url())
        .build();
    harness.function.sitewise = SiteWise::new(&config);
    let report = harness.answer(&request(1, &[asset(0)])).await;
    assert_eq!(report["status"], "succeeded");
    assert_eq!(simulator.project_assets(&project(1)).len(), 0);
    assert_eq!(simulator.calls()[0].host, server.addr().to_string());
}

#[test]
fn a_wrong_value_stops_the_cold_start_and_is_named() {
    let log_level = "one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL";
    let url = "a URL with http or https";
    for (variable, value, expected) in [
        ("FAN_OUT_ASSETS", "99", "a whole number from 100 to 25000"),
        ("CALL_CONCURRENCY", "many", "a whole number from 1 to 64"),
        ("DEAD_LETTER_QUEUE_URL", "dead-letters", url),
        ("WORK_QUEUE_URL", "work", url),
        ("AWS_ENDPOINT_URL_IOTSITEWISE", "localhost", url),
        ("AWS_LAMBDA_LOG_LEVEL", "LOUD", log_level),
    ] {
        assert_eq!(
            cold_start_error([(variable, value)]),
            format!("wrong configuration: {variable}: expected {expected}, found {value:?}")
        );
    }
}

#[test]
fn a_queue_in_another_region_is_a_warning_at_the_start() {
    let lines = cold_start([
        ("AWS_REGION", "eu-west-1"),
        (
            "DEAD_LETTER_QUEUE_URL",
            "https://sqs.eu-west-2.amazonaws.com/1/dead",
        ),
    ]);
    let [warning, stopped] = lines.try_into().expect("two lines");
    let fields = ["level", "variable", "queue_region", "function_region"];
    assert_eq!(
        fields.map(|field| &warning[field]),
        ["WARN", "DEAD_LETTER_QUEUE_URL", "eu-west-2", "eu-west-1"]
    );
    assert_eq!(stopped["message"], "the Lambda runtime stopped");
}

/// The AWS SDK panics at these values where it reads them.
#[test]
fn a_retry_setting_of_the_sdk_does_not_stop_the_cold_start() {
    for (variable, value) in [
        ("AWS_RETRY_MODE", "legacy"),
        ("AWS_MAX_ATTEMPTS", "0"),
        ("AWS_MAX_ATTEMPTS", "ten"),
    ] {
        assert_eq!(cold_start_error([(variable, value)]), NO_RUNTIME_API);
    }
}

#[test]
fn one_place_with_a_root_certificate_is_enough() {
    let folder = empty_folder("empty-beside-a-root");
    for variables in [
        [("SSL_CERT_FILE", ROOT), ("SSL_CERT_DIR", &folder)],
        [("SSL_CERT_FILE", ROOT), ("SSL_CERT_DIR", "/nowhere")],
        [("SSL_CERT_FILE", "/nowhere"), ("SSL_CERT_DIR", ROOTS)],
        [("SSL_CERT_FILE", ""), ("SSL_CERT_DIR", ROOTS)],
        [("AWS_CA_BUNDLE", ROOT), ("SSL_CERT_DIR", &folder)],
        [("AWS_CA_BUNDLE", ""), ("SSL_CERT_FILE", ROOT)],
    ] {
        assert_eq!(cold_start_error(variables), NO_RUNTIME_API, "{variables:?}");
    }
}

#[test]
fn a_place_without_a_root_certificate_stops_the_cold_start_and_is_named() {
    let folder = empty_folder("empty-alone");
    let no_certificate = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (variable, value, reason) in [
        ("AWS_CA_BUNDLE", "/nowhere", "No such file"),
        ("AWS_CA_BUNDLE", no_certificate, "none found"),
        ("AWS_CA_BUNDLE", ROOTS, "Is a directory"),
        ("SSL_CERT_FILE", "/nowhere", "No such file"),
        ("SSL_CERT_FILE", no_certificate, "none found"),
        ("SSL_CERT_DIR", "/nowhere", "No such file"),
        ("SSL_CERT_DIR", &folder, "none found"),
    ] {
        let error = cold_start_error([(variable, value)]);
        let start = format!(
            "wrong configuration: {variable}: expected a path to root certificates in PEM format ("
        );
        assert!(error.starts_with(&start), "{error}");
        assert!(error.contains(reason), "{error}");
        assert!(error.ends_with(&format!("), found {value:?}")), "{error}");
    }
}

/// What stops a cold start without fault: there is no Lambda here.
const NO_RUNTIME_API: &str = "the Lambda runtime stopped: client error (Connect)";

const ROOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/aws/tls_roots");
const ROOT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/src/aws/tls_roots/amazon-root-ca-1.pem"
);

/// Starts the function's binary, and returns the error in the one line that it logs.
fn cold_start_error<const N: usize>(variables: [(&str, &str); N]) -> String {
    let [line] = cold_start(variables).try_into().expect("one line");
    let text = |field: &str| line[field].as_str().expect("text").to_owned();
    format!("{}: {}", text("message"), text("error"))
}

/// Starts the function's binary, and returns the lines that it logs.
fn cold_start<const N: usize>(variables: [(&str, &str); N]) -> Vec<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_sitewise-disassociator"))
        .env_clear()
        .envs([
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
            ("AWS_LAMBDA_FUNCTION_NAME", "sitewise-disassociator"),
            ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
            ("AWS_LAMBDA_LOG_GROUP_NAME", "group"),
            ("AWS_LAMBDA_LOG_STREAM_NAME", "stream"),
            ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:1"),
            ("AWS_REGION", "eu-west-1"),
        ])
        .envs(variables)
        .output()
        .expect("the function's binary");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let lines = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    lines.collect::<Result<_, _>>().expect("JSON lines")
}

/// Creates a folder without files, and returns its path.
fn empty_folder(name: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(&path).expect("a folder");
    path
}

/// Over a socket the SDK tells a broken connection in another way than the
/// in-process client does.
#[tokio::test]
async fn a_connection_that_breaks_on_a_real_socket_is_a_failed_connection() {
    let mut harness = Harness::with_assets(0..1);
    let server = harness
        .simulator
        .serve(([127, 0, 0, 1], 0).into())
        .await
        .expect("a free port");
    let config = sdk_config(Builder::new().build_http())
        .endpoint_url(server.url())
        .build();
    harness.function.sitewise = SiteWise::new(&config);
    let queue_url = format!("{}/000000000000/{DEAD_LETTERS}", server.url());
    harness.function.dead_letter_queue = Some(Queue::new(Sqs::new(&config), queue_url));
    harness.function.work_queue = None;
    harness
        .simulator
        .fault(Fault::sitewise().action(Action::Reset));
    harness.simulator.fault(Fault::sqs().action(Action::Reset));

    let report = harness.answer(&request(1, &[asset(0)])).await;
    assert_eq!(report["failures"][0]["code"], "ConnectionFailed");
    assert_eq!(report["failures"][0]["deadLettered"], false);
    assert_eq!(harness.calls().len(), 3, "the SDK's attempts");

    harness.simulator.clear_calls();
    let bad = |id: &str| record(id, &request(1, &["PUMP-7".to_owned()]));
    let answer = harness.answer(&records([bad("m-1"), bad("m-2")])).await;
    assert_eq!(answer, failed(["m-1", "m-2"]));
    let sends = harness.simulator.calls().len();
    assert_eq!(
        sends, 3,
        "the SDK's attempts, and none for each letter alone"
    );
}
