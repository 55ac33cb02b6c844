//! The way in over loopback: an HTTP/1.1 server, with a few control calls for
//! people and black-box tests under `/_simulator/`.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};

use crate::call::Call;
use crate::client::{Half, Then};
use crate::fault::Fault;
use crate::simulator::{Reaction, Request, Simulator};
use crate::sitewise::Answer;

/// How long the server waits after a connection that it could not take.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

type Connections = Arc<Mutex<Vec<AbortHandle>>>;
type Response = hyper::Response<BoxBody<Bytes, io::Error>>;

/// A running server; it stops when it is dropped.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    accepting: JoinHandle<()>,
    connections: Connections,
}

impl Server {
    /// Returns the address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the URL to use as an endpoint.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Closes every open connection now.
    pub fn close_connections(&self) {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for connection in connections.drain(..) {
            connection.abort();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
        self.close_connections();
    }
}

impl Simulator {
    /// Serves this simulator over HTTP; port 0 takes a free one.
    pub async fn serve(&self, addr: SocketAddr) -> io::Result<Server> {
        let listener = TcpListener::bind(addr).await?;
        let addr = listener.local_addr()?;
        let connections = Connections::default();
        let accepting = tokio::spawn(accept(listener, self.clone(), connections.clone()));
        Ok(Server {
            addr,
            accepting,
            connections,
        })
    }
}

async fn accept(listener: TcpListener, simulator: Simulator, connections: Connections) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // A connection gone already, or too many files open: it passes.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = tokio::spawn(connection(stream, simulator.clone()));
        let mut open = connections.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|connection| !connection.is_finished());
        open.push(connection.abort_handle());
    }
}

async fn connection(stream: TcpStream, simulator: Simulator) {
    let service = service_fn(|request| respond(request, simulator.clone()));
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // A connection that broke, by a fault or by its caller, concerns no other.
    drop(served);
}

async fn respond(
    request: hyper::Request<Incoming>,
    simulator: Simulator,
) -> Result<Response, io::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let request = Request {
        method: parts.method.to_string(),
        host: parts.headers.get("host").map(text).unwrap_or_default(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), text(value)))
            .collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    if let Some(control) = request.path.strip_prefix("/_simulator/") {
        let answer = controlled(&simulator, &request.method, control, &request.body);
        return response(&answer, full(&answer));
    }
    match simulator.receive(request).await {
        Reaction::Answer(answer) => response(&answer, full(&answer)),
        Reaction::Truncated(answer) => response(&answer, Half::of(&answer, Then::End).boxed()),
        Reaction::StalledBody(answer) => {
            response(&answer, Half::of(&answer, Then::Silence).boxed())
        }
        Reaction::Silence => std::future::pending().await,
        // The error makes hyper drop the connection without an answer.
        Reaction::Reset | Reaction::Panic(_) => {
            Err(io::Error::from(io::ErrorKind::ConnectionReset))
        }
    }
}

fn full(answer: &Answer) -> BoxBody<Bytes, io::Error> {
    Full::from(answer.body.clone())
        .map_err(|never| match never {})
        .boxed()
}

fn response(answer: &Answer, body: BoxBody<Bytes, io::Error>) -> Result<Response, io::Error> {
    let mut response = hyper::Response::builder().status(answer.status);
    let is_type = |(name, _): &(String, String)| name.eq_ignore_ascii_case("content-type");
    if !answer.headers.iter().any(is_type) {
        response = response.header("content-type", "application/json");
    }
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    response.body(body).map_err(io::Error::other)
}

/// Answers a control call. It is not recorded.
fn controlled(simulator: &Simulator, method: &str, path: &str, body: &str) -> Answer {
    let done = Answer::ok(&json!({}));
    match (method, path) {
        ("GET", "calls") => Answer::ok(&simulator.calls().iter().map(call_json).collect::<Value>()),
        ("GET", "projects") => Answer::ok(&json!(simulator.projects())),
        ("POST", "projects") => {
            if simulator.seed_from_event(body).is_empty() {
                return wrong("expected an event or a request (projectId, assetIds)");
            }
            done
        }
        ("POST", "faults") => match body.trim().parse::<Fault>() {
            Ok(fault) => {
                simulator.fault(fault);
                done
            }
            Err(error) => wrong(&error.to_string()),
        },
        ("DELETE", "faults") => {
            simulator.clear_faults();
            done
        }
        ("DELETE", "calls") => {
            simulator.clear_calls();
            done
        }
        ("GET", path) => match path.strip_prefix("queues/") {
            Some(queue) => {
                let messages: Value = simulator
                    .messages(queue)
                    .into_iter()
                    .map(|message| {
                        json!({
                            "id": message.id, "body": message.body,
                            "attributes": message.attributes, "groupId": message.group_id,
                            "deduplicationId": message.deduplication_id,
                        })
                    })
                    .collect();
                Answer::ok(&messages)
            }
            None => wrong("no such control call"),
        },
        _ => wrong("no such control call"),
    }
}

fn call_json(call: &Call) -> Value {
    json!({
        "seq": call.seq, "atMilliseconds": call.at.as_millis(),
        "operation": format!("{:?}", call.operation), "method": call.method, "host": call.host,
        "path": call.path, "headers": call.headers, "projectId": call.project,
        "assetIds": call.assets, "clientToken": call.token, "queue": call.queue,
        "status": call.status, "applied": call.applied, "invalid": call.invalid,
        "body": call.body,
    })
}

fn wrong(what: &str) -> Answer {
    Answer {
        status: 400,
        headers: Vec::new(),
        body: json!({ "error": what }).to_string(),
    }
}
