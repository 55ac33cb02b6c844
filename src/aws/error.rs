//! Classifies the errors of the AWS SDK, of either service.
//!
//! Owns the classification, by the SDK's variant, the HTTP status and the
//! service's name for the error together: none of them is enough alone. It must
//! not act on it.

use std::error::Error as StdError;
use std::time::Duration;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::FinalizerInterceptorContextMut;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use serde_json::{Map, Value};
use thiserror::Error;

use crate::outcome::{Failure, code};

/// Why a request as a whole did not succeed.
#[derive(Clone, Debug)]
pub struct CallFailure {
    /// Its class.
    pub class: FailureClass,
    /// Its code and message, for reports and dead letters.
    pub failure: Failure,
    /// How long the service asks to wait before the next request.
    pub pause: Option<Duration>,
}

/// The class of a request's failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailureClass {
    /// The service refuses something that the request names: a 400
    /// `InvalidRequestException` or a 404 `ResourceNotFoundException`.
    Refused,
    /// Too many requests: to be retried at a lower rate.
    Throttled,
    /// The service or the network failed; retried by the SDK.
    Transient,
    /// The credentials are missing, wrong, expired or not allowed to do this.
    Denied,
    /// Anything else.
    Unexpected,
}

impl CallFailure {
    /// Makes a failure without a response.
    pub fn new(class: FailureClass, failure: Failure) -> Self {
        Self {
            class,
            failure,
            pause: None,
        }
    }

    /// Returns whether the service says that what the request names does not
    /// exist.
    pub fn is_not_found(&self) -> bool {
        self.class == FailureClass::Refused && self.failure.code() == NOT_FOUND
    }

    /// Classifies an error of the SDK.
    pub fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: StdError + ProvideErrorMetadata + 'static,
    {
        match error {
            SdkError::TimeoutError(_) => Self::new(
                FailureClass::Transient,
                Failure::new(code::TIMEOUT, causes(error)),
            ),
            SdkError::DispatchFailure(dispatch) => {
                let connector = dispatch.as_connector_error();
                let is_timeout = connector.is_some_and(ConnectorError::is_timeout);
                let is_network = connector.is_some_and(is_network_error);
                let class = if is_network {
                    FailureClass::Transient
                } else {
                    FailureClass::Unexpected
                };
                let code = if is_timeout {
                    code::TIMEOUT
                } else {
                    code::CONNECTION_FAILED
                };
                Self::new(class, Failure::new(code, causes(error)))
            }
            SdkError::ResponseError(_) => {
                let source = error.source();
                let code = match source.and_then(|source| source.downcast_ref::<FalseSuccess>()) {
                    Some(FalseSuccess::ErrorType(name)) => name,
                    _ => code::MALFORMED_RESPONSE,
                };
                Self::new(FailureClass::Transient, Failure::new(code, causes(error)))
            }
            SdkError::ServiceError(service) => {
                let status = service.raw().status().as_u16();
                let name = error_name(service.err(), service.raw());
                let class = classify(status, name);
                let is_malformed = (200..300).contains(&status);
                let code = match name {
                    _ if is_malformed => code::MALFORMED_RESPONSE.to_owned(),
                    Some(name) => name.to_owned(),
                    None => format!("HTTP {status}"),
                };
                let message = service
                    .err()
                    .message()
                    .map_or_else(|| causes(service.err()), ToOwned::to_owned);
                Self {
                    class,
                    failure: Failure::new(code, message),
                    pause: pause(service.raw()),
                }
            }
            // Nothing was sent: the request or the credentials for it could not be made.
            _ => Self::new(
                FailureClass::Unexpected,
                Failure::new(code::CONNECTION_FAILED, causes(error)),
            ),
        }
    }
}

/// Returns the pause that a response asks for, in milliseconds, in the header
/// that the SDK's own retries follow.
fn pause(response: &HttpResponse) -> Option<Duration> {
    let header = response.headers().get("x-amz-retry-after")?;
    header.parse().ok().map(Duration::from_millis)
}

/// Returns whether the network failed, or something on it that does not speak
/// HTTP, so that another attempt may succeed. (Over a socket, a broken connection
/// and a response that is not HTTP are "other" errors.)
pub(crate) fn is_network_error(error: &ConnectorError) -> bool {
    error.is_timeout() || error.is_io() || error.is_other()
}

/// Returns the service's name for an error. If the body cannot be read, so that
/// the SDK has no name, the header may still have it.
pub(crate) fn error_name<'a>(
    error: &'a dyn ProvideErrorMetadata,
    response: &'a HttpResponse,
) -> Option<&'a str> {
    error
        .code()
        .or_else(|| response.headers().get(ERROR_TYPE).and_then(bare_name))
        .filter(|name| !name.is_empty())
}

const ERROR_TYPE: &str = "x-amzn-errortype";

/// Returns the name in an error type, which may have a namespace before it and a
/// URL after it.
fn bare_name(error_type: &str) -> Option<&str> {
    let name = error_type.split(':').next()?;
    name.rsplit('#').next().filter(|name| !name.is_empty())
}

/// Why a success to the SDK is none.
#[derive(Debug, Error)]
enum FalseSuccess {
    /// It has an error type.
    #[error("the response is a success that carries the error type {0}")]
    ErrorType(String),
    /// It lacks a member that the service model requires.
    #[error("the response is a success without {0}")]
    Missing(&'static str),
}

/// Turns a success that has an error type, or lacks a member, into a failure.
#[derive(Debug)]
pub(crate) struct CheckSuccess {
    /// A member that the body must have.
    pub(crate) required: Option<&'static str>,
}

impl CheckSuccess {
    fn check(&self, response: &HttpResponse) -> Result<(), FalseSuccess> {
        let body = response.body().bytes().unwrap_or_default();
        // Most bodies need not be parsed a second time.
        let is_parsed = self.required.is_some() || body.windows(6).any(|part| part == b"__type");
        let members: Map<String, Value> = if is_parsed {
            serde_json::from_slice(body).unwrap_or_default()
        } else {
            Map::new()
        };
        let in_header = response.headers().get(ERROR_TYPE);
        let in_body = members.get("__type").and_then(Value::as_str);
        if let Some(name) = in_header.or(in_body).and_then(bare_name) {
            return Err(FalseSuccess::ErrorType(name.to_owned()));
        }
        match self.required {
            Some(name) if !members.contains_key(name) => Err(FalseSuccess::Missing(name)),
            _ => Ok(()),
        }
    }
}

#[dyn_dispatch_hint]
impl Intercept for CheckSuccess {
    fn name(&self) -> &'static str {
        "check a success"
    }

    fn modify_before_attempt_completion(
        &self,
        context: &mut FinalizerInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let checked = context.response().map(|response| self.check(response));
        if let (Some(Err(error)), Some(output @ Ok(_))) = (checked, context.output_or_error_mut()) {
            *output = Err(OrchestratorError::response(error.into()));
        }
        Ok(())
    }
}

/// Codes that refuse a request for what it names (service model, errors of
/// `BatchDisassociateProjectAssets`).
const REFUSALS: &[&str] = &["InvalidRequestException", NOT_FOUND];

const NOT_FOUND: &str = "ResourceNotFoundException";

/// Codes about credentials ("Common Errors" of the AWS query and JSON
/// protocols, and those of AWS STS).
const DENIALS: &[&str] = &[
    "AccessDenied",
    "AccessDeniedException",
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "InvalidToken",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "NotAuthorized",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnauthorizedException",
    "UnrecognizedClientException",
];

/// Classifies a response by its status and its error name together.
pub(crate) fn classify(status: u16, name: Option<&str>) -> FailureClass {
    let is_one_of = |names: &[&str]| name.is_some_and(|name| names.contains(&name));
    if (200..300).contains(&status) {
        return FailureClass::Transient;
    }
    if is_one_of(aws_runtime::retries::classifiers::THROTTLING_ERRORS) {
        return FailureClass::Throttled;
    }
    if is_one_of(DENIALS) {
        return FailureClass::Denied;
    }
    match status {
        429 => FailureClass::Throttled,
        401 | 403 => FailureClass::Denied,
        400 | 404 if is_one_of(REFUSALS) => FailureClass::Refused,
        500..=599 => FailureClass::Transient,
        _ if is_one_of(aws_runtime::retries::classifiers::TRANSIENT_ERRORS) => {
            FailureClass::Transient
        }
        _ => FailureClass::Unexpected,
    }
}

/// Returns the text of an error and of its causes, outermost first.
fn causes(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::FailureClass::{Denied, Refused, Throttled, Transient, Unexpected};
    use super::*;

    #[test]
    fn status_and_name_decide_together() {
        for (status, name, expected) in [
            (400, Some("InvalidRequestException"), Refused),
            (404, Some("ResourceNotFoundException"), Refused),
            (400, Some("ResourceNotFoundException"), Refused),
            (400, None, Unexpected),
            (404, None, Unexpected),
            (400, Some("ValidationException"), Unexpected),
            (404, Some("UnknownOperationException"), Unexpected),
            (409, Some("ResourceNotFoundException"), Unexpected),
            (500, Some("ResourceNotFoundException"), Transient),
            (429, Some("ThrottlingException"), Throttled),
            (429, None, Throttled),
            (429, Some("SomethingNew"), Throttled),
            (400, Some("ThrottlingException"), Throttled),
            (503, Some("SlowDown"), Throttled),
            (500, Some("InternalFailureException"), Transient),
            (500, None, Transient),
            (501, None, Transient),
            (502, None, Transient),
            (503, None, Transient),
            (504, None, Transient),
            (599, None, Transient),
            (400, Some("RequestTimeout"), Transient),
            (200, None, Transient),
            (200, Some("ResourceNotFoundException"), Transient),
            (401, None, Denied),
            (403, None, Denied),
            (403, Some("AccessDeniedException"), Denied),
            (403, Some("SomethingNew"), Denied),
            (400, Some("ExpiredTokenException"), Denied),
            (400, Some("UnrecognizedClientException"), Denied),
            (500, Some("ExpiredTokenException"), Denied),
            (409, Some("ConflictException"), Unexpected),
            (418, None, Unexpected),
            (302, None, Unexpected),
            (100, None, Unexpected),
        ] {
            assert_eq!(classify(status, name), expected, "{status} {name:?}");
        }
    }
}
