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

use crate::outcome::{Failure, Outcome, code};

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

    /// Makes the failure of a response that cannot be read.
    pub fn malformed(message: impl Into<String>) -> Self {
        let failure = Failure::new(code::MALFORMED_RESPONSE, message);
        Self::new(FailureClass::Transient, failure)
    }

    /// Makes the failure of a request that is stopped before the Lambda deadline.
    pub fn stopped() -> Self {
        let message = "no response in the time left before the Lambda deadline";
        let failure = Failure::new(code::TIMEOUT, message);
        Self::new(FailureClass::Transient, failure)
    }

    /// Returns whether the service says that what the request names does not
    /// exist.
    pub fn is_not_found(&self) -> bool {
        self.class == FailureClass::Refused && self.failure.code() == NOT_FOUND
    }

    /// Returns what becomes of a request whose list failed so: it is rejected where
    /// the service says that what it names does not exist, else unfinished.
    pub fn into_outcome(self) -> Outcome {
        if self.is_not_found() {
            Outcome::Rejected(self.failure)
        } else {
            Outcome::Unfinished(self.failure)
        }
    }

    /// Classifies an error of the SDK.
    pub fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: StdError + ProvideErrorMetadata + 'static,
    {
        let name = error.raw_response().and_then(error_name);
        let (class, code) = match error {
            SdkError::ServiceError(service) => {
                return Self::of_response(service.raw(), name, service.err());
            }
            SdkError::ResponseError(_) => {
                let code = name.as_deref().unwrap_or(code::MALFORMED_RESPONSE);
                (FailureClass::Transient, code)
            }
            SdkError::TimeoutError(_) => (FailureClass::Transient, code::TIMEOUT),
            SdkError::DispatchFailure(failed) if failed.is_timeout() => {
                (FailureClass::Transient, code::TIMEOUT)
            }
            SdkError::DispatchFailure(failed)
                if failed.as_connector_error().is_some_and(is_network_error) =>
            {
                (FailureClass::Transient, code::CONNECTION_FAILED)
            }
            // Nothing was sent: the request or the credentials for it could not be made.
            _ => (FailureClass::Unexpected, code::CONNECTION_FAILED),
        };
        Self::new(class, Failure::new(code, causes(error)))
    }

    fn of_response(
        response: &HttpResponse,
        name: Option<String>,
        error: &(impl StdError + ProvideErrorMetadata),
    ) -> Self {
        let status = response.status();
        let class = classify(status.as_u16(), name.as_deref());
        let code = match name {
            Some(name) => name,
            None if status.is_success() => code::MALFORMED_RESPONSE.to_owned(),
            None => format!("HTTP {status}"),
        };
        let message = error.message().map(ToOwned::to_owned);
        Self {
            class,
            failure: Failure::new(code, message.unwrap_or_else(|| causes(error))),
            pause: pause(response),
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

/// Returns the service's name for an error, which stands in a header or in the
/// body; a namespace may be before it, and a URL after it.
pub(crate) fn error_name(response: &HttpResponse) -> Option<String> {
    let members = members(response);
    let mut keys = ["code", "__type"].into_iter();
    let in_body = keys.find_map(|name| members.get(name)?.as_str());
    let in_header = response.headers().get("x-amzn-errortype");
    let error_type = in_header.or(in_body)?;
    let name = error_type.split(':').next()?.rsplit('#').next()?;
    (!name.is_empty()).then(|| name.to_owned())
}

/// Returns the members of a JSON body.
fn members(response: &HttpResponse) -> Map<String, Value> {
    let body = response.body().bytes().unwrap_or_default();
    serde_json::from_slice(body).unwrap_or_default()
}

/// Turns a success that has an error type, or lacks a member that the service
/// model requires, into a failure.
#[derive(Debug)]
pub(crate) struct CheckSuccess {
    /// A member that the body must have.
    pub(crate) required: Option<&'static str>,
}

impl CheckSuccess {
    fn check(&self, response: &HttpResponse) -> Result<(), String> {
        if let Some(name) = error_name(response) {
            return Err(format!(
                "the response is a success that has the error type {name}"
            ));
        }
        match self.required {
            Some(name) if members(response).get(name).is_none_or(Value::is_null) => {
                Err(format!("the response is a success without {name}"))
            }
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

/// Codes about credentials, which may end with `Exception` ("Common Errors" of the
/// AWS query and JSON protocols, and those of AWS STS).
const DENIALS: &[&str] = &[
    "AccessDenied",
    "AuthFailure",
    "ExpiredToken",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignature",
    "InvalidToken",
    "MissingAuthenticationToken",
    "NotAuthorized",
    "OptInRequired",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "Unauthorized",
    "UnrecognizedClient",
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
    if name.is_some_and(|name| DENIALS.contains(&name.trim_end_matches("Exception"))) {
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

    #[test]
    fn a_success_must_have_what_the_model_requires_and_no_error_type() {
        let check = CheckSuccess {
            required: Some("assetIds"),
        };
        for (body, is_success) in [
            (r#"{"assetIds":[]}"#, true),
            (r#"{"assetIds":null}"#, false),
            ("{}", false),
            ("", false),
            ("[]", false),
            (
                r#"{"assetIds":[],"__type":"a.b#ThrottlingException"}"#,
                false,
            ),
            (r#"{"assetIds":[],"__type":null}"#, true),
        ] {
            let status = 200.try_into().expect("a status");
            let response = HttpResponse::new(status, body.into());
            assert_eq!(check.check(&response).is_ok(), is_success, "{body}");
        }
    }
}
