//! What the AWS SDK retries within one call, how much, and for how long. A
//! throttled call is not for the SDK to retry: that is
//! [`dispatch`](crate::dispatch)'s, at the pace of all calls.
//!
//! Owns the retry classifier, the retry quota and the form of the timeouts. It
//! must not retry anything itself.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_smithy_runtime::client::retries::{RetryPartition, TokenBucket};
use aws_smithy_runtime_api::client::interceptors::context::{Error, InterceptorContext};
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use aws_smithy_runtime_api::client::retries::classifiers::{
    ClassifyRetry, RetryAction, RetryClassifierPriority,
};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::aws::error::{FailureClass, classify, error_name, is_of_the_network};

/// Tokens of a full quota, the SDK's own number. A retry costs 10 after a
/// transient failure.
const QUOTA: usize = 500;

/// Tokens that come back each second. The SDK's own quota comes back by
/// successes only: a process that lived through an outage would retry nothing
/// for long.
const QUOTA_PER_SECOND: f32 = 10.0;

/// Attempts of one call, the first included, all with one client token.
pub const ATTEMPTS: u32 = 3;

/// Most idle connections kept to one host: one fewer than a call has attempts.
/// They may all be dead when a process thaws, and only a try tells; so the last
/// attempt is on a new one.
pub const MOST_IDLE_CONNECTIONS: usize = ATTEMPTS as usize - 1;

/// Makes a retry quota for one client: shared by its calls, kept between
/// invocations, apart from every other client's.
pub fn quota(name: &'static str) -> RetryPartition {
    let bucket = TokenBucket::builder()
        .capacity(QUOTA)
        .refill_rate(QUOTA_PER_SECOND)
        .build();
    RetryPartition::custom(name).token_bucket(bucket).build()
}

/// Makes the three timeouts of a client. The SDK's own defaults would wait for
/// a silent server without end.
pub fn timeouts(connect: Duration, attempt: Duration, operation: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(connect)
        .operation_attempt_timeout(attempt)
        .operation_timeout(operation)
        .build()
}

/// Returns the metadata of an error of a client's operations.
pub(crate) type Metadata = fn(&Error) -> Option<&dyn ProvideErrorMetadata>;

/// Returns what the service's answer to an attempt means; `None` where it is a
/// success, or where there is no answer to read.
pub(crate) fn class_of(context: &InterceptorContext, metadata: Metadata) -> Option<FailureClass> {
    let error = context.output_or_error()?.err()?;
    let error = metadata(error.as_operation_error()?)?;
    let response = context.response()?;
    Some(classify(
        response.status().as_u16(),
        error_name(error, response),
    ))
}

/// Retries whatever [`classify`](crate::aws::error) calls transient, for the SDK
/// alone would give up on a 200 that cannot be read and on the rarer 5xx; and
/// nothing that it calls throttled, which the SDK would retry regardless of all
/// other calls.
#[derive(Debug)]
pub(crate) struct RetryByClass(pub(crate) Metadata);

impl ClassifyRetry for RetryByClass {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(Result::err);
        let connector = error.and_then(OrchestratorError::as_connector_error);
        if connector.is_some_and(is_of_the_network) {
            return RetryAction::transient_error();
        }
        match class_of(context, self.0) {
            Some(FailureClass::Throttled) => RetryAction::RetryForbidden,
            Some(FailureClass::Transient) => RetryAction::transient_error(),
            Some(FailureClass::Refused | FailureClass::Denied | FailureClass::Unexpected)
            | None => RetryAction::NoActionIndicated,
        }
    }

    fn classify_retry_v2(
        &self,
        context: &InterceptorContext,
        previous: &RetryAction,
    ) -> RetryAction {
        match (self.classify_retry(context), previous) {
            (RetryAction::RetryForbidden, _) => RetryAction::RetryForbidden,
            (action, RetryAction::NoActionIndicated) => action,
            // The SDK's own decision may carry the delay that the service asked for.
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "retry by failure class"
    }

    fn priority(&self) -> RetryClassifierPriority {
        RetryClassifierPriority::run_after(RetryClassifierPriority::transient_error_classifier())
    }
}
