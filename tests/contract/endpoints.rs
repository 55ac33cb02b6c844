//! Section 7: which endpoint is called, and the cold start's refusals.

use std::process::Command;

use aws_smithy_http_client::Builder;
use simulator::{Action, Fault, Settings, Simulator};
use sitewise_disassociator::queue::{Queue, Sqs};
use sitewise_disassociator::sitewise::SiteWise;

use crate::support::{
    DEAD_LETTERS, Rig, asset, failed, project, record, records, request, sdk_config,
};

fn first_call(rig: &Rig) -> simulator::Call {
    rig.calls().remove(0)
}

#[tokio::test(start_paused = true)]
async fn awss_own_endpoint_has_the_monitor_prefix() {
    let rig = Rig::with_assets(0..1);
    rig.answer(&request(1, &[asset(0)])).await;
    assert_eq!(
        first_call(&rig).host,
        "monitor.iotsitewise.eu-west-1.amazonaws.com"
    );
}

#[tokio::test(start_paused = true)]
async fn a_configured_endpoint_is_called_exactly_as_given() {
    let mut rig = Rig::with_assets(0..1);
    let config = sdk_config(rig.simulator.http_client())
        .endpoint_url("https://vpce-1.example.com:8443/prefix")
        .build();
    rig.function.sitewise = SiteWise::new(&config);
    rig.answer(&request(1, &[asset(0)])).await;
    let call = first_call(&rig);
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
    let mut rig = Rig::with_assets([]);
    let config = sdk_config(Builder::new().build_http())
        .endpoint_url(server.url())
        .build();
    rig.function.sitewise = SiteWise::new(&config);
    let report = rig.answer(&request(1, &[asset(0)])).await;
    assert_eq!(report["status"], "succeeded");
    assert_eq!(simulator.project_assets(&project(1)).len(), 0);
    assert_eq!(simulator.calls()[0].host, server.addr().to_string());
}

#[test]
fn a_wrong_value_stops_the_cold_start_and_is_named() {
    for (variable, value, expected) in [
        ("FAN_OUT_ASSETS", "99", "a whole number from 100 to 25000"),
        ("CALL_CONCURRENCY", "many", "a whole number from 1 to 64"),
        (
            "DEAD_LETTER_QUEUE_URL",
            "dead-letters",
            "a URL with http or https",
        ),
        ("WORK_QUEUE_URL", "work", "a URL with http or https"),
        (
            "AWS_ENDPOINT_URL_IOTSITEWISE",
            "localhost",
            "a URL with http or https",
        ),
        (
            "AWS_LAMBDA_LOG_LEVEL",
            "LOUD",
            "one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_sitewise-disassociator"))
            .env_clear()
            .env(variable, value)
            .output()
            .expect("the function's binary");
        assert!(!output.status.success());
        let log = String::from_utf8(output.stdout).expect("UTF-8");
        let line: serde_json::Value = serde_json::from_str(&log).expect("one JSON line");
        assert_eq!(line["message"], "wrong configuration");
        assert_eq!(
            line["error"],
            format!("{variable}: expected {expected}, found {value:?}")
        );
    }
}

/// Over a socket the SDK tells a broken connection in another way than the
/// in-process client does.
#[tokio::test]
async fn a_connection_that_breaks_on_a_real_socket_is_a_failed_connection() {
    let mut rig = Rig::with_assets(0..1);
    let server = rig
        .simulator
        .serve(([127, 0, 0, 1], 0).into())
        .await
        .expect("a free port");
    let config = sdk_config(Builder::new().build_http())
        .endpoint_url(server.url())
        .build();
    rig.function.sitewise = SiteWise::new(&config);
    let queue_url = format!("{}/000000000000/{DEAD_LETTERS}", server.url());
    rig.function.dead_letter_queue = Some(Queue::new(Sqs::new(&config), queue_url));
    rig.function.work_queue = None;
    rig.simulator.fault(Fault::sitewise().action(Action::Reset));
    rig.simulator.fault(Fault::sqs().action(Action::Reset));

    let report = rig.answer(&request(1, &[asset(0)])).await;
    assert_eq!(report["failures"][0]["code"], "ConnectionFailed");
    assert_eq!(report["failures"][0]["deadLettered"], false);
    assert_eq!(rig.calls().len(), 3, "the SDK's attempts");

    rig.simulator.clear_calls();
    let bad = |id: &str| record(id, &request(1, &["PUMP-7".to_owned()]));
    let answer = rig.answer(&records([bad("m-1"), bad("m-2")])).await;
    assert_eq!(answer, failed(["m-1", "m-2"]));
    let sends = rig.simulator.calls().len();
    assert_eq!(
        sends, 3,
        "the SDK's attempts, and none for each letter alone"
    );
}
