//! Over a real socket: the SDK's own HTTP client, and the control calls.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use serde_json::{Value, json};
use simulator::{Action, Fault, Operation, Server, Settings, Simulator};
use tokio::net::TcpSocket;

use crate::support::{Harness, Trouble, asset, assets, message, project};

async fn serve(simulator: &Simulator) -> Server {
    simulator
        .serve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .expect("a free port")
}

/// Sends a plain HTTP request and returns the whole answer.
pub(crate) async fn ask(addr: SocketAddr, method: &str, path: &str, body: &str) -> String {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let exchange = move || -> io::Result<String> {
        let mut stream = TcpStream::connect(addr)?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let exchanged = tokio::task::spawn_blocking(exchange).await;
    exchanged.expect("no panic").expect("an answer")
}

/// Makes a control call; returns the status and the body.
async fn control(server: &Server, method: &str, path: &str, body: &str) -> (u16, Value) {
    let answer = ask(server.addr(), method, &format!("/_simulator/{path}"), body).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status");
    (
        status.parse().expect("a number"),
        serde_json::from_str(body).expect("JSON"),
    )
}

#[tokio::test]
async fn the_sdk_sees_answers_and_broken_connections_over_a_socket() {
    let simulator = Simulator::new(Settings::default());
    let server = serve(&simulator).await;
    let harness = Harness::over_socket(&simulator, &server.url()).and_assets(1..=9);
    assert_eq!(harness.disassociate([1]).await, Ok(vec![]));
    let call = harness.only_call();
    assert_eq!(call.host, server.addr().to_string());
    assert_eq!(call.operation, Operation::Disassociate);

    let ways = [
        (Action::Reset, Trouble::Incomplete, (None, false)),
        (Action::ResetAfter, Trouble::Incomplete, (None, true)),
        (
            Action::Panic("a reset here".to_owned()),
            Trouble::Incomplete,
            (None, false),
        ),
        (
            Action::Truncate,
            Trouble::Unreadable(200),
            (Some(200), true),
        ),
        (
            Action::Garbage("<html>".to_owned()),
            Trouble::refused(200, "", ""),
            (Some(200), true),
        ),
    ];
    for (number, (action, trouble, ending)) in (2..).zip(ways) {
        simulator.clear_faults();
        simulator.clear_calls();
        simulator.fault(Fault::sitewise().action(action));
        assert_eq!(harness.disassociate([number]).await, Err(trouble));
        assert_eq!(harness.endings(), [ending]);
        assert_eq!(!harness.remaining().contains(&number), ending.1);
    }

    simulator.clear_faults();
    assert_eq!(harness.disassociate(7..=9).await, Ok(vec![]));
    let page = harness.list(None, None).await.expect("a page");
    assert_eq!(page.asset_ids(), assets([2, 4]));
    let url = simulator.create_queue("q");
    harness.send(&url, "body").await.expect("sent");
    harness
        .send_batch(&url, vec![message("a", "another")])
        .await
        .expect("sent");
    assert_eq!(harness.bodies("q"), ["body", "another"]);
}

#[tokio::test]
async fn closing_the_connections_breaks_off_a_stalled_call() {
    for (action, trouble, is_applied) in [
        (Action::Stall, Trouble::Incomplete, false),
        (Action::StallAfter, Trouble::Incomplete, true),
        (Action::StallBody, Trouble::Unreadable(200), true),
    ] {
        let simulator = Simulator::new(Settings::default());
        let server = serve(&simulator).await;
        let harness = Harness::over_socket(&simulator, &server.url()).and_assets([1]);
        simulator.fault(Fault::sitewise().action(action.clone()));
        let (answer, ()) = tokio::join!(harness.disassociate([1]), async {
            // The stall has begun when the call is in the record; for the body,
            // when its first half is on its way.
            while simulator.calls().is_empty() {
                tokio::task::yield_now().await;
            }
            if matches!(action, Action::StallBody) {
                while harness.only_call().status.is_none() {
                    tokio::task::yield_now().await;
                }
                for _ in 0..1000 {
                    tokio::task::yield_now().await;
                }
            }
            server.close_connections();
        });
        assert_eq!(answer, Err(trouble), "{action:?}");
        assert_eq!(harness.remaining().is_empty(), is_applied);
        // The server itself goes on.
        simulator.clear_faults();
        assert!(harness.disassociate([1]).await.is_ok());
    }
}

#[tokio::test]
async fn a_dropped_server_listens_no_more() {
    let simulator = Simulator::new(Settings::default());
    let server = serve(&simulator).await;
    let addr = server.addr();
    drop(server);
    // Free once nobody listens, and then nobody else's. The listener is dropped
    // with its task, which the runtime still has to do.
    let port = TcpSocket::new_v4().expect("a socket");
    port.set_reuseaddr(true).expect("a socket option");
    while port.bind(addr).is_err() {
        tokio::task::yield_now().await;
    }
    let harness = Harness::over_socket(&simulator, &format!("http://{addr}"));
    assert_eq!(harness.disassociate([1]).await, Err(Trouble::Io));
    assert_eq!(harness.endings(), []);
}

#[tokio::test]
async fn the_control_calls_show_and_change_the_simulator() {
    let simulator = Simulator::new(Settings::default());
    let server = serve(&simulator).await;
    let harness = Harness::over_socket(&simulator, &server.url());
    let done = (200, json!({}));

    let event = json!({"Records": [{"body": json!({
        "projectId": project(1), "assetIds": assets([1, 2]),
    }).to_string()}]});
    assert_eq!(
        control(&server, "POST", "projects", &event.to_string()).await,
        done
    );
    assert_eq!(
        control(&server, "GET", "projects", "").await,
        (200, json!({project(1): [asset(1), asset(2)]}))
    );

    assert_eq!(
        control(
            &server,
            "POST",
            "faults",
            "disassociate:status=500:type=Odd\n"
        )
        .await,
        done
    );
    assert_eq!(
        harness.disassociate_as(1, [1]).await,
        Err(Trouble::refused(500, "Odd", ""))
    );
    assert_eq!(control(&server, "DELETE", "faults", "").await, done);
    assert_eq!(harness.disassociate_as(2, [1]).await, Ok(vec![]));

    let (status, calls) = control(&server, "GET", "calls", "").await;
    assert_eq!(status, 200);
    let calls = calls.as_array().expect("a list");
    let about = |call: &Value| {
        json!([
            call["seq"],
            call["operation"],
            call["method"],
            call["host"],
            call["projectId"],
            call["assetIds"],
            call["clientToken"],
            call["queue"],
            call["status"],
            call["applied"],
            call["invalid"],
        ])
    };
    let host = server.addr().to_string();
    let of = |number: usize, status: u16, applied: bool| {
        json!([
            number,
            "Disassociate",
            "POST",
            host,
            project(1),
            [asset(1)],
            crate::support::token(number + 1),
            null,
            status,
            applied,
            null,
        ])
    };
    // No control call is among them.
    assert_eq!(
        calls.iter().map(about).collect::<Vec<_>>(),
        [of(0, 500, false), of(1, 200, true)]
    );
    assert!(calls[0]["atMilliseconds"].is_u64());
    assert_eq!(calls[0]["headers"]["content-type"], "application/json");
    assert_eq!(control(&server, "DELETE", "calls", "").await, done);
    assert_eq!(control(&server, "GET", "calls", "").await, (200, json!([])));

    let url = simulator.create_queue("q.fifo");
    harness
        .sqs
        .send_message()
        .queue_url(&url)
        .message_body("body")
        .message_group_id("g")
        .message_deduplication_id("d")
        .send()
        .await
        .expect("sent");
    let id = simulator.messages("q.fifo")[0].id.clone();
    assert_eq!(
        control(&server, "GET", "queues/q.fifo", "").await,
        (
            200,
            json!([{"id": id, "body": "body", "attributes": {}, "groupId": "g",
                    "deduplicationId": "d"}])
        )
    );
    assert_eq!(
        control(&server, "GET", "queues/none", "").await,
        (200, json!([]))
    );
}

#[tokio::test]
async fn an_unknown_path_is_a_404_signed_or_not() {
    let simulator = Simulator::new(Settings::default());
    let server = serve(&simulator).await;
    let answer = ask(server.addr(), "GET", "/", "").await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    assert!(!answer.contains("x-amzn-errortype"), "{answer}");
    let [call] = simulator.calls().try_into().expect("one");
    assert_eq!(call.invalid.as_deref(), Some("no such operation"));
}

#[tokio::test]
async fn a_control_call_that_is_none_is_told_so() {
    let simulator = Simulator::new(Settings::default());
    let server = serve(&simulator).await;
    let none = json!({"error": "no such control call"});
    for (method, path) in [
        ("GET", "nothing"),
        ("PUT", "faults"),
        ("GET", "faults"),
        ("DELETE", "projects"),
    ] {
        assert_eq!(
            control(&server, method, path, "").await,
            (400, none.clone())
        );
    }
    assert_eq!(
        control(&server, "POST", "projects", "{}").await,
        (
            400,
            json!({"error": "expected an event or a request (projectId, assetIds)"})
        )
    );
    let (status, body) = control(&server, "POST", "faults", "list:explode").await;
    assert_eq!(status, 400);
    let error = body["error"].as_str().expect("a text");
    assert!(
        error.starts_with("\"explode\": expected project=ID, "),
        "{error}"
    );
    assert_eq!(simulator.calls().len(), 0);
}

#[tokio::test]
async fn a_replys_content_type_replaces_the_usual_one() {
    let simulator = Simulator::new(Settings::default());
    let server = serve(&simulator).await;
    let path = format!("/projects/{}/assets", project(1));
    let types = async || {
        let answer = ask(server.addr(), "GET", &path, "").await;
        answer
            .lines()
            .filter_map(|line| line.strip_prefix("content-type: "))
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(types().await, ["application/json"]);
    simulator.fault(Fault::sitewise().action(Action::Reply {
        status: 502,
        error_type: None,
        headers: vec![("Content-Type".to_owned(), "text/html".to_owned())],
        body: "<html>".to_owned(),
    }));
    assert_eq!(types().await, ["text/html"]);
}
