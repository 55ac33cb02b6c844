//! The way in without sockets: an HTTP client for the real AWS SDK.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::simulator::{Reaction, Request, Simulator};
use crate::sitewise::Answer;

impl Simulator {
    /// Returns an HTTP client that reaches this simulator and nothing else.
    pub fn http_client(&self) -> SharedHttpClient {
        SharedHttpClient::new(InProcess(self.clone()))
    }
}

#[derive(Clone, Debug)]
struct InProcess(Simulator);

impl HttpClient for InProcess {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for InProcess {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let simulator = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = plain(&request)?;
            let reaction = simulator.receive(request).await;
            let io_error = |text| {
                let error = io::Error::new(io::ErrorKind::ConnectionReset, text);
                ConnectorError::io(error.into())
            };
            match reaction {
                Reaction::Answer(answer) => {
                    let body = SdkBody::from(answer.body.clone());
                    response(&answer, body)
                }
                Reaction::Truncated(answer) => {
                    let body = Half::of(&answer, Then::End);
                    response(&answer, SdkBody::from_body_1_x(body))
                }
                Reaction::StalledBody(answer) => {
                    let body = Half::of(&answer, Then::Silence);
                    response(&answer, SdkBody::from_body_1_x(body))
                }
                Reaction::Silence => std::future::pending().await,
                Reaction::Reset => Err(io_error("connection reset by the simulator")),
                #[expect(clippy::panic, reason = "a panic is what was asked for")]
                Reaction::Panic(text) => panic!("{text}"),
            }
        })
    }
}

fn plain(request: &HttpRequest) -> Result<Request, ConnectorError> {
    let uri: http::Uri = request
        .uri()
        .parse()
        .map_err(|error: http::uri::InvalidUri| ConnectorError::user(error.into()))?;
    let body = request.body().bytes().unwrap_or_default();
    Ok(Request {
        method: request.method().to_owned(),
        host: uri.authority().map(ToString::to_string).unwrap_or_default(),
        path: uri.path().to_owned(),
        query: uri.query().unwrap_or_default().to_owned(),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect(),
        body: String::from_utf8_lossy(body).into_owned(),
    })
}

fn response(answer: &Answer, body: SdkBody) -> Result<HttpResponse, ConnectorError> {
    let status =
        StatusCode::try_from(answer.status).map_err(|error| ConnectorError::user(error.into()))?;
    let mut response = HttpResponse::new(status, body);
    for (name, value) in &answer.headers {
        response.headers_mut().insert(name.clone(), value.clone());
    }
    Ok(response)
}

/// A body that breaks off in its middle.
pub(crate) struct Half {
    half: Option<Bytes>,
    then: Then,
    has_paused: bool,
    whole: u64,
}

pub(crate) enum Then {
    End,
    Silence,
}

impl Half {
    pub(crate) fn of(answer: &Answer, then: Then) -> Self {
        let body = answer.body.as_bytes();
        Self {
            half: Some(Bytes::copy_from_slice(&body[..body.len() / 2])),
            then,
            has_paused: false,
            whole: body.len() as u64,
        }
    }
}

impl Body for Half {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match (self.half.take(), &self.then) {
            (Some(half), _) => Poll::Ready(Some(Ok(Frame::data(half)))),
            (None, Then::End) if !self.has_paused => {
                // hyper sends what it has when the body pauses; without that,
                // the end would come before the headers.
                self.has_paused = true;
                context.waker().wake_by_ref();
                Poll::Pending
            }
            (None, Then::End) => Poll::Ready(Some(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the body ended before its end",
            )))),
            (None, Then::Silence) => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.whole)
    }
}
