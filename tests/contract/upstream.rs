//! Section 4 over real sockets: everything the upstream may do, and what the
//! function makes of it. An upgrade of the SDK that changes any of it fails
//! here.
//!
//! One asset is asked for, once in an SQS record and once directly. The rows
//! run side by side, so that the slowest one is the time that all take.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aws_smithy_http_client::Builder;
use futures_util::future::join_all;
use serde_json::{Value, json};
use simulator::{Action, Fault, Operation};
use sitewise_disassociator::aws::sitewise::SiteWise;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::{Harness, asset, failed, record, records, request, sdk_config};

/// One row of the table.
struct Row {
    reason: &'static str,
    upstream: Upstream,
    /// attempts of the call that the upstream sees
    attempts: usize,
    end: End,
    /// the time that the invocation has
    time_left: Duration,
}

/// What becomes of the asset.
#[derive(Clone, Copy)]
enum End {
    /// It is disassociated.
    Done,
    /// It is rejected with this code, after a read for each attempt: a dead
    /// letter, not retryable.
    Letter(&'static str),
    /// It is unfinished with this code: the record is redelivered, the direct
    /// request's asset goes to the work queue, retryable.
    Again(&'static str),
}

/// What the upstream does.
enum Upstream {
    /// The simulator's server, with these faults.
    Simulated(Vec<Fault>),
    /// For each connection in turn a script; the last one serves all others.
    Scripted(Vec<Vec<Step>>),
    /// Nobody listens.
    Nobody,
    /// The listener's queue is full: no connection is ever made.
    Full,
}

/// A step of a connection's script. What follows the last one is an orderly end.
#[derive(Clone)]
enum Step {
    /// The request is read, and counted.
    Read,
    /// These bytes are sent.
    Send(Vec<u8>),
    /// Nothing happens for this time.
    Pause(Duration),
    /// Nothing happens any more.
    Silence,
    /// The connection is reset.
    Reset,
}

/// Attempts of a call that is throttled until all is given up (`pace`).
const SEARCH: usize = 7;

use End::{Again, Done, Letter};
use Step::{Pause, Read, Reset, Send, Silence};

const NAME: &str = "x-amzn-errortype";

const INVALID: &str = "InvalidRequestException";
const NOT_FOUND: &str = "ResourceNotFoundException";
const THROTTLED: &str = "ThrottlingException";
const EXPIRED: &str = "ExpiredTokenException";
const UNKNOWN_KEY: &str = "UnrecognizedClientException";
const MALFORMED: &str = "MalformedResponse";
const BROKEN: &str = "ConnectionFailed";

const A_MOMENT: Duration = Duration::from_millis(200);
/// The SDK's stalled-stream protection would give a body up after six.
const SEVEN_SECONDS: Duration = Duration::from_secs(7);

fn row(reason: &'static str, upstream: Upstream, attempts: usize, end: End) -> Row {
    Row {
        reason,
        upstream,
        attempts,
        end,
        time_left: Duration::from_secs(60),
    }
}

/// The same in an invocation that leaves eight seconds for calls: less than an
/// attempt's own timeout.
fn short(row: Row) -> Row {
    Row {
        time_left: Duration::from_secs(10),
        ..row
    }
}

/// An error in the service's own form, each time.
fn named(status: u16, name: &str) -> Upstream {
    reply(status, &[(NAME, name)], r#"{"message":"no"}"#)
}

/// A status alone.
fn plain(status: u16) -> Upstream {
    reply(status, &[], "")
}

/// A status and a body.
fn answered(status: u16, body: &str) -> Upstream {
    reply(status, &[], body)
}

/// A 200 with this body.
fn ok(body: &str) -> Upstream {
    answered(200, body)
}

/// A 200 that names an asset among its errors, with this code.
fn asset_error(id: &str, code: &str) -> Upstream {
    let error = json!({"assetId": id, "code": code, "message": "no"});
    ok(&json!({ "errors": [error] }).to_string())
}

fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Upstream {
    let headers = headers.iter();
    Upstream::Simulated(vec![
        Fault::on(Operation::Disassociate).action(Action::Reply {
            status,
            error_type: None,
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
            body: body.to_owned(),
        }),
    ])
}

/// The simulator with the faults of these texts.
fn faults<const N: usize>(texts: [&str; N]) -> Upstream {
    let faults = texts.iter().map(|text| text.parse().expect("a fault"));
    Upstream::Simulated(faults.collect())
}

/// A script for every connection: the request is read, then this happens.
fn script<const N: usize>(steps: [Step; N]) -> Upstream {
    Upstream::Scripted(vec![read_then(steps)])
}

fn read_then<const N: usize>(steps: [Step; N]) -> Vec<Step> {
    [Read].into_iter().chain(steps).collect()
}

fn send(bytes: impl AsRef<[u8]>) -> Step {
    Send(bytes.as_ref().to_vec())
}

/// An answer as text: a status line and headers, then the body.
fn answer(head: &str, body: impl AsRef<[u8]>) -> Step {
    let mut bytes = format!("{head}\r\nconnection: close\r\n\r\n").into_bytes();
    bytes.extend_from_slice(body.as_ref());
    Send(bytes)
}

/// A good answer.
fn good() -> Step {
    answer("HTTP/1.1 200 OK\r\ncontent-length: 13", r#"{"errors":[]}"#)
}

/// The table.
#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let line = "HTTP/1.1 200 OK";
    let long = "HTTP/1.1 200 OK\r\ncontent-length: 100";
    let exact = "HTTP/1.1 200 OK\r\ncontent-length: 2";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked";
    let half = || answer("HTTP/1.1 200 OK\r\ncontent-length: 13", r#"{"erro"#);
    let location = [("location", "/elsewhere")];
    let html = "<html>no</html>";
    vec![
        // successes
        row("200, nothing failed", faults([]), 1, Done),
        row("200, empty", plain(200), 1, Done),
        row("204", plain(204), 1, Done),
        row("200, no list", ok("{}"), 1, Done),
        row("200, null for the list", ok(r#"{"errors":null}"#), 1, Done),
        row("200, new fields", ok(r#"{"new":[{}],"errors":[]}"#), 1, Done),
        row("200, called HTML", reply(200, &[("content-type", "text/html")], "{}"), 1, Done),
        row("200, of HTTP/1.0", script([answer("HTTP/1.0 200 OK", "{}")]), 1, Done),
        row("200, no reason", script([answer("HTTP/1.1 200\r\ncontent-length: 2", "{}")]), 1, Done),
        row("200, until the end", script([answer(line, "{}")]), 1, Done),
        row("200, more than its length", script([answer(exact, "{}{}")]), 1, Done),
        row("200, in chunks", script([answer(chunked, "1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")]), 1, Done),
        row("200, a header not UTF-8", script([send(b"HTTP/1.1 200 OK\r\nvia: \xe9\r\n\r\n{}")]), 1, Done),
        row("100, then 200", script([send("HTTP/1.1 100 Continue\r\n\r\n"), good()]), 1, Done),
        row("103, then 200", script([send("HTTP/1.1 103 Early Hints\r\n\r\n"), good()]), 1, Done),
        row("200, after two seconds", faults(["sitewise:latency=2000ms"]), 1, Done),
        // a 200 that carries an error type
        row("200, an error's header", named(200, NOT_FOUND), 3, Again(NOT_FOUND)),
        row("200, an error's type", answered(200, r#"{"__type":"a.b#NewException:http://c/"}"#), 3, Again("NewException")),
        row("200, an error's type and a list", answered(200, r#"{"__type":"NewException","errors":[]}"#), 3, Again("NewException")),
        row("200, an error's type once", faults(["disassociate:first=1:status=200:type=NewException"]), 2, Done),
        // a 200 that names assets
        row("200, its asset, no code", ok(&json!({"errors": [{"assetId": asset(0), "message": "no"}]}).to_string()), 3, Letter("HTTP 200")),
        row("200, its asset", asset_error(&asset(0), "INTERNAL_FAILURE"), 3, Letter("INTERNAL_FAILURE")),
        row("200, its asset, new code", asset_error(&asset(0), "NEW"), 3, Letter("NEW")),
        row("200, another asset", asset_error(&asset(7), "INTERNAL_FAILURE"), 1, Again(MALFORMED)),
        row("200, an error of nothing", ok(r#"{"errors":[{}]}"#), 1, Again(MALFORMED)),
        // a 200 that cannot be read
        row("200, HTML", ok(html), 3, Again(MALFORMED)),
        row("200, text", ok("OK"), 3, Again(MALFORMED)),
        row("200, null", ok("null"), 3, Again(MALFORMED)),
        row("200, an array", ok("[]"), 3, Again(MALFORMED)),
        row("200, two objects", ok("{} {}"), 3, Again(MALFORMED)),
        row("200, a byte-order mark", ok("\u{feff}{}"), 3, Again(MALFORMED)),
        row("200, text for the list", ok(r#"{"errors":"none"}"#), 3, Again(MALFORMED)),
        row("200, an object for the list", ok(r#"{"errors":{}}"#), 3, Again(MALFORMED)),
        row("200, not UTF-8", script([answer(line, b"{\"errors\":\"\xff\"}")]), 3, Again(MALFORMED)),
        row("200, truncated", faults(["sitewise:truncate"]), 3, Again(MALFORMED)),
        row("200, less than its length", script([answer(long, "{}")]), 3, Again(MALFORMED)),
        row("200, half by its length", script([answer(exact, r#"{"errors":[]}"#)]), 3, Again(MALFORMED)),
        row("200, reset within", script([half(), Pause(A_MOMENT), Reset]), 3, Again(MALFORMED)),
        row("200, an end among chunks", script([answer(chunked, "1\r\n{\r\n")]), 3, Again(MALFORMED)),
        row("200, chunks of no size", script([answer(chunked, "x\r\n{}\r\n")]), 3, Again(MALFORMED)),
        // refusals
        row("400, invalid request", named(400, INVALID), 3, Letter(INVALID)),
        row("400, not found", named(400, NOT_FOUND), 3, Letter(NOT_FOUND)),
        row("404, not found", named(404, NOT_FOUND), 3, Letter(NOT_FOUND)),
        row("404, invalid request", named(404, INVALID), 3, Letter(INVALID)),
        // where the name stands
        row("name of a namespace", named(400, "a.b#InvalidRequestException"), 3, Letter(INVALID)),
        row("name at an address", named(400, "InvalidRequestException:http://c/"), 3, Letter(INVALID)),
        row("name of both", named(404, "a.b#ResourceNotFoundException:http://c/"), 3, Letter(NOT_FOUND)),
        row("name as __type", answered(400, r#"{"__type":"InvalidRequestException"}"#), 3, Letter(INVALID)),
        row("name as __type, of both", answered(404, r#"{"__type":"a.b#ResourceNotFoundException:http://c/"}"#), 3, Letter(NOT_FOUND)),
        row("name as code", answered(400, r#"{"code":"InvalidRequestException"}"#), 3, Letter(INVALID)),
        row("two names", reply(400, &[(NAME, INVALID)], r#"{"__type":"ThrottlingException"}"#), 3, Letter(INVALID)),
        row("name and HTML", reply(404, &[(NAME, NOT_FOUND)], html), 3, Letter(NOT_FOUND)),
        row("name and nothing", reply(404, &[(NAME, NOT_FOUND)], ""), 3, Letter(NOT_FOUND)),
        row("name in small letters", named(400, "invalidrequestexception"), 1, Again("invalidrequestexception")),
        row("empty name", named(500, ""), 3, Again("HTTP 500")),
        // a 400 or 404 that says nothing of the assets
        row("400, no name", plain(400), 1, Again("HTTP 400")),
        row("400, HTML", answered(400, html), 1, Again("HTTP 400")),
        row("400, validation", named(400, "ValidationException"), 1, Again("ValidationException")),
        row("400, aborted", named(400, "RequestAbortedException"), 1, Again("RequestAbortedException")),
        row("404, no name", plain(404), 1, Again("HTTP 404")),
        row("404, HTML", answered(404, html), 1, Again("HTTP 404")),
        row("404, operation", named(404, "UnknownOperationException"), 1, Again("UnknownOperationException")),
        // credentials
        row("400, expired", named(400, EXPIRED), 1, Again(EXPIRED)),
        row("403, expired", named(403, EXPIRED), 1, Again(EXPIRED)),
        row("403, expired, as __type", answered(403, r#"{"__type":"a.b#ExpiredTokenException"}"#), 1, Again(EXPIRED)),
        row("500, expired", named(500, EXPIRED), 3, Again(EXPIRED)),
        row("400, too old", named(400, "RequestExpired"), 1, Again("RequestExpired")),
        row("400, unknown key", named(400, UNKNOWN_KEY), 1, Again(UNKNOWN_KEY)),
        row("403, unknown key", named(403, UNKNOWN_KEY), 1, Again(UNKNOWN_KEY)),
        row("401, no name", plain(401), 1, Again("HTTP 401")),
        row("401, named", named(401, "UnauthorizedException"), 1, Again("UnauthorizedException")),
        row("403, no name", plain(403), 1, Again("HTTP 403")),
        row("403, HTML", answered(403, html), 1, Again("HTTP 403")),
        row("403, denied", named(403, "AccessDeniedException"), 1, Again("AccessDeniedException")),
        row("403, signature", named(403, "InvalidSignatureException"), 1, Again("InvalidSignatureException")),
        row("403, half a signature", named(403, "IncompleteSignature"), 1, Again("IncompleteSignature")),
        row("403, not subscribed", named(403, "OptInRequired"), 1, Again("OptInRequired")),
        row("403, new name", named(403, "SomethingNew"), 1, Again("SomethingNew")),
        row("403, invalid request", named(403, INVALID), 1, Again(INVALID)),
        // throttling
        row("429, named", named(429, THROTTLED), SEARCH, Again(THROTTLED)),
        row("429, no name", plain(429), SEARCH, Again("HTTP 429")),
        row("429, new name", named(429, "SomethingNew"), SEARCH, Again("SomethingNew")),
        row("400, throttled", named(400, THROTTLED), SEARCH, Again(THROTTLED)),
        row("410, limit", named(410, "LimitExceededException"), SEARCH, Again("LimitExceededException")),
        row("503, slow down", named(503, "SlowDown"), SEARCH, Again("SlowDown")),
        row("429 twice, then 200", faults(["sitewise:first=2:status=429"]), 3, Done),
        // the service failed
        row("500, named", named(500, "InternalFailureException"), 3, Again("InternalFailureException")),
        row("500, no name", plain(500), 3, Again("HTTP 500")),
        row("500, not found", named(500, NOT_FOUND), 3, Again(NOT_FOUND)),
        row("501", plain(501), 3, Again("HTTP 501")),
        row("502, HTML", answered(502, html), 3, Again("HTTP 502")),
        row("503", plain(503), 3, Again("HTTP 503")),
        row("503, named", named(503, "ServiceUnavailableException"), 3, Again("ServiceUnavailableException")),
        row("504", plain(504), 3, Again("HTTP 504")),
        row("599", plain(599), 3, Again("HTTP 599")),
        row("400, timed out", named(400, "RequestTimeoutException"), 3, Again("RequestTimeoutException")),
        row("408, timed out", named(408, "RequestTimeoutException"), 3, Again("RequestTimeoutException")),
        row("503, again soon", reply(503, &[("x-amz-retry-after", "100")], ""), 3, Again("HTTP 503")),
        row("503, again tomorrow", reply(503, &[("x-amz-retry-after", "86400000")], ""), 3, Again("HTTP 503")),
        row("503 once, then 200", faults(["sitewise:first=1:status=503"]), 2, Done),
        row("HTML once, then 200", faults(["sitewise:first=1:garbage"]), 2, Done),
        row("truncated twice, then 200", faults(["sitewise:first=2:truncate"]), 3, Done),
        // anything else; a redirect is not followed
        row("301", reply(301, &location, ""), 1, Again("HTTP 301")),
        row("302", reply(302, &location, ""), 1, Again("HTTP 302")),
        row("303", reply(303, &location, ""), 1, Again("HTTP 303")),
        row("304", plain(304), 1, Again("HTTP 304")),
        row("307", reply(307, &location, ""), 1, Again("HTTP 307")),
        row("308", reply(308, &location, ""), 1, Again("HTTP 308")),
        row("402", plain(402), 1, Again("HTTP 402")),
        row("407", plain(407), 1, Again("HTTP 407")),
        row("408, no name", plain(408), 1, Again("HTTP 408")),
        row("409, no name", plain(409), 1, Again("HTTP 409")),
        row("409, conflict", named(409, "ConflictingOperationException"), 1, Again("ConflictingOperationException")),
        row("409, not found", named(409, NOT_FOUND), 1, Again(NOT_FOUND)),
        row("413", plain(413), 1, Again("HTTP 413")),
        row("418", plain(418), 1, Again("HTTP 418")),
        row("600", script([answer("HTTP/1.1 600 What\r\ncontent-length: 0", "")]), 1, Again("HTTP 600")),
        // the connection
        row("nobody listens", Upstream::Nobody, 0, Again(BROKEN)),
        row("no connection in time", Upstream::Full, 0, Again("Timeout")),
        row("reset before it is read", Upstream::Scripted(vec![vec![Reset]]), 3, Again(BROKEN)),
        row("reset once it is read", script([Reset]), 3, Again(BROKEN)),
        row("an end before it is applied", faults(["sitewise:reset"]), 3, Again(BROKEN)),
        row("an end after it is applied", faults(["sitewise:reset-after"]), 3, Again(BROKEN)),
        row("an end in good order", script([]), 3, Again(BROKEN)),
        row("reset among the headers", script([send("HTTP/1.1 200 OK\r\ncont"), Reset]), 3, Again(BROKEN)),
        row("an end among the headers", script([send("HTTP/1.1 200 OK\r\ncont")]), 3, Again(BROKEN)),
        row("100 and an end", script([send("HTTP/1.1 100 Continue\r\n\r\n")]), 3, Again(BROKEN)),
        row("an end twice, then 200", faults(["sitewise:first=2:reset"]), 3, Done),
        row("applied and an end, then 200", faults(["sitewise:first=1:reset-after"]), 2, Done),
        // an answer that is not HTTP
        row("another protocol", script([send("SSH-2.0-OpenSSH_9.9\r\n")]), 3, Again(BROKEN)),
        row("a TLS alert", script([send(b"\x15\x03\x03\x00\x02\x02\x28")]), 3, Again(BROKEN)),
        row("200, a length in words", script([answer("HTTP/1.1 200 OK\r\ncontent-length: two", "{}")]), 3, Again(BROKEN)),
        row("200, two lengths", script([answer("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 2", "{}")]), 3, Again(BROKEN)),
        row("not HTTP once, then 200", Upstream::Scripted(vec![read_then([send("what?")]), read_then([good()])]), 2, Done),
        // silence: all the time that there is for the row of that name alone
        short(row("silence, little time", faults(["sitewise:stall"]), 1, Again("Timeout"))),
        short(row("applied, then silence", faults(["sitewise:stall-after"]), 1, Again("Timeout"))),
        short(row("silence among the headers", script([send("HTTP/1.1 200 OK\r\n"), Silence]), 1, Again("Timeout"))),
        short(row("silence in the body", faults(["sitewise:stall-body"]), 1, Again("Timeout"))),
        short(row("silence in an error", script([answer("HTTP/1.1 404 No\r\ncontent-length: 9", "{"), Silence]), 1, Again("Timeout"))),
        row("silence once, then 200", faults(["sitewise:first=1:stall"]), 2, Done),
        row("silence in the body once, then 200", faults(["sitewise:first=1:stall-body"]), 2, Done),
        row("silence", faults(["sitewise:stall"]), 3, Again("Timeout")),
        // last, for setting a row up takes time from all before it
        row("200, slow within", script([half(), Pause(SEVEN_SECONDS), send(r#"rs":[]}"#)]), 1, Done),
    ]
}

#[tokio::test]
async fn whatever_the_upstream_does_has_one_meaning() {
    let rows = rows();
    let seen = join_all(rows.iter().map(Row::seen)).await;
    let wrong: Vec<String> = rows
        .iter()
        .zip(seen)
        .filter(|(row, seen)| *seen != row.expected())
        .map(|(row, seen)| {
            let expected = row.expected();
            format!(
                "{}\n    expected {expected}\n    found    {seen}",
                row.reason
            )
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} of {} rows:\n{}",
        wrong.len(),
        rows.len(),
        wrong.join("\n")
    );
}

impl Row {
    /// What is to be seen from outside.
    fn expected(&self) -> Value {
        let attempts = self.attempts;
        let failure = |code, is_retryable: bool| {
            json!({"assetIds": [asset(0)], "code": code, "retryable": is_retryable,
                   "deadLettered": !is_retryable, "queued": is_retryable})
        };
        let seen = |answer, reads, letters, parts| {
            json!({"attempts": attempts, "reads": reads, "answer": answer, "letters": letters,
                   "parts": parts})
        };
        let report = |status, failures: Value| json!({"status": status, "failures": failures});
        match self.end {
            Done => json!({
                "record": seen(failed([]), 0, json!([]), 0),
                "direct": seen(report("succeeded", json!([])), 0, json!([]), 0),
            }),
            Letter(code) => {
                let letters = json!([[asset(0), code]]);
                let report = report("failed", json!([failure(code, false)]));
                json!({
                    "record": seen(failed([]), attempts, letters.clone(), 0),
                    "direct": seen(report, attempts, letters, 0),
                })
            }
            Again(code) => json!({
                "record": seen(failed(["m-1"]), 0, json!([]), 0),
                "direct": seen(report("accepted", json!([failure(code, true)])), 0, json!([]), 1),
            }),
        }
    }

    /// What is seen.
    async fn seen(&self) -> Value {
        let asked = request(1, &[asset(0)]);
        let record = records([record("m-1", &asked)]);
        let (record, direct) = tokio::join!(self.handled(&record), self.handled(&asked));
        json!({"record": record, "direct": direct})
    }

    async fn handled(&self, event: &Value) -> Value {
        let mut harness = Harness::with_assets([0]);
        harness.time_left = self.time_left;
        let served = self.upstream.serve(&harness).await;
        let config = sdk_config(Builder::new().build_http())
            .endpoint_url(&served.url)
            .build();
        harness.function.sitewise = SiteWise::new(&config);
        let answer = match harness.handle(event).await {
            Ok(answer) => short_report(answer),
            Err(error) => json!(error),
        };
        harness.assert_nothing_invalid_was_sent();
        let letters: Vec<Value> = harness
            .letter_bodies()
            .into_iter()
            .flat_map(|letter| letter["errors"].as_array().cloned().unwrap_or_default())
            .map(|error| json!([error["assetId"], error["code"]]))
            .collect();
        json!({
            "attempts": harness.calls().len() + served.attempts.load(Ordering::SeqCst),
            "reads": harness.reads().len(),
            "answer": answer,
            "letters": letters,
            "parts": harness.parts().len(),
        })
    }
}

/// Leaves a partial batch as it is, and of a report the status and the failures
/// without their messages, which must be there.
fn short_report(mut answer: Value) -> Value {
    if answer["status"].is_null() {
        return answer;
    }
    for failure in answer["failures"].as_array_mut().expect("a list") {
        let fields = failure.as_object_mut().expect("an object");
        fields.retain(|name, value| name != "message" || *value == json!(""));
    }
    json!({"status": answer["status"], "failures": answer["failures"]})
}

/// An upstream at work; it stops when it is dropped.
struct Served {
    url: String,
    attempts: Arc<AtomicUsize>,
    /// what must be kept for the upstream to stay as it is
    _alive: Box<dyn Any>,
}

impl Upstream {
    async fn serve(&self, harness: &Harness) -> Served {
        let attempts = Arc::<AtomicUsize>::default();
        let (addr, alive): (_, Box<dyn Any>) = match self {
            Self::Simulated(faults) => {
                for fault in faults {
                    harness.simulator.fault(fault.clone());
                }
                let server = harness.simulator.serve(([127, 0, 0, 1], 0).into()).await;
                let server = server.expect("a free port");
                (server.addr(), Box::new(server))
            }
            Self::Scripted(scripts) => {
                let listener = bound().listen(16).expect("a listener");
                let addr = listener.local_addr().expect("an address");
                let mut accepting = JoinSet::new();
                accepting.spawn(accept(listener, scripts.clone(), attempts.clone()));
                (addr, Box::new(accepting))
            }
            Self::Nobody => {
                // The port is taken, so that no other row gets it.
                let socket = bound();
                (socket.local_addr().expect("an address"), Box::new(socket))
            }
            Self::Full => {
                let listener = bound().listen(1).expect("a listener");
                let addr = listener.local_addr().expect("an address");
                let mut queued = Vec::new();
                while let Ok(stream) = timeout(A_MOMENT, TcpStream::connect(addr)).await {
                    queued.push(stream.expect("a connection"));
                }
                (addr, Box::new((listener, queued)))
            }
        };
        Served {
            url: format!("http://{addr}"),
            attempts,
            _alive: alive,
        }
    }
}

fn bound() -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    let any_port = ([127, 0, 0, 1], 0).into();
    socket.bind(any_port).expect("a free port");
    socket
}

async fn accept(listener: TcpListener, scripts: Vec<Vec<Step>>, attempts: Arc<AtomicUsize>) {
    // Its connections end with it.
    let mut connections = JoinSet::new();
    for number in 0.. {
        let (stream, _) = listener.accept().await.expect("a connection");
        let script = &scripts[number.min(scripts.len() - 1)];
        attempts.fetch_add(1, Ordering::SeqCst);
        connections.spawn(play(stream, script.clone()));
    }
}

/// Plays a script. Whoever is at the other end may be gone at any time.
async fn play(mut stream: TcpStream, script: Vec<Step>) {
    for step in script {
        match step {
            Read => read_request(&mut stream).await,
            Send(bytes) => drop(stream.write_all(&bytes).await),
            Pause(time) => sleep(time).await,
            Silence => std::future::pending().await,
            Reset => {
                stream.set_zero_linger().expect("a socket option");
                return;
            }
        }
    }
    drop(stream.shutdown().await);
}

/// Reads a request to its end, which its length tells.
async fn read_request(stream: &mut TcpStream) {
    let mut bytes = Vec::new();
    while stream.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_length = name.eq_ignore_ascii_case("content-length");
            is_length
                .then(|| value.trim().parse::<usize>())
                .and_then(Result::ok)
        });
        if body.len() >= length.expect("a length") {
            return;
        }
    }
}
