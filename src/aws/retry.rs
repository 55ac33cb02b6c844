//! The retry policy: how often, how fast and for how long anything is tried again.
//!
//! Owns its numbers, and what the AWS SDK retries within one request. A throttled
//! request is not for the SDK to retry: [`dispatch`](crate::dispatch) does that,
//! at the rate of all requests, as its
//! [`rate_limiter`](crate::dispatch::rate_limiter) allows.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_smithy_runtime::client::retries::{RetryPartition, TokenBucket};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{
    ClassifyRetry, RetryAction, RetryClassifierPriority,
};

use crate::aws::error::{FailureClass, classify, error_name, is_network_error};

/// How often an asset is tried that is refused alone, or that a 200 names among
/// its errors, the first time included.
pub const ASSET_ROUNDS: u32 = 3;

/// The pause before an asset's second round; it doubles for the next.
pub const ROUND_PAUSE: Duration = Duration::from_millis(250);

/// How often a queue entry is sent that fails inside a 200, the first time
/// included.
pub const ENTRY_ATTEMPTS: u32 = 3;

/// The pause before an entry's second attempt; it grows by as much for the next.
pub const ENTRY_PAUSE: Duration = Duration::from_millis(100);

/// The SDK's attempts of one request, the first included, all with one client
/// token.
pub const SDK_ATTEMPTS: u32 = 3;

/// The longest pause before one of the SDK's attempts, also where the service asks
/// for a longer one in `x-amz-retry-after`: with the SDK's own limit, 20 seconds,
/// one such response would use up an invocation. No pause that the SDK chooses
/// itself between three attempts is longer than two seconds.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// Most idle connections kept to one host. They may all be dead when a process
/// thaws, and each may then cost a retry: fewer than a full quota has.
pub const MOST_IDLE_CONNECTIONS: usize = 32;

/// Tokens of a full retry quota, the SDK's own number. A retry costs 10 after a
/// transient failure.
const QUOTA: usize = 500;

/// Tokens that come back each second. The SDK's own quota comes back by
/// successes only: a process that lived through an outage would retry nothing
/// for long.
const QUOTA_PER_SECOND: f32 = 10.0;

/// How long a client waits. The invocation's deadline may cut it shorter.
pub(crate) struct Timeouts {
    connect: Duration,
    /// for one attempt's whole response
    attempt: Duration,
    /// for a request with all its attempts and the pauses between them
    operation: Duration,
}

pub(crate) const SITEWISE_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(3),
    attempt: Duration::from_secs(10),
    operation: Duration::from_secs(35),
};

/// Shorter ones: dead letters and parts are written in the invocation's last
/// seconds.
pub(crate) const SQS_TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(2),
    attempt: Duration::from_secs(5),
    operation: Duration::from_secs(12),
};

/// Returns the process's configuration with a client's retries and timeouts. The
/// SDK's own defaults would wait for a silent server without end.
pub(crate) fn with_retries(config: &SdkConfig, timeouts: &Timeouts) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(timeouts.connect)
        .operation_attempt_timeout(timeouts.attempt)
        .operation_timeout(timeouts.operation)
        .build();
    let retries = RetryConfig::standard()
        .with_max_attempts(SDK_ATTEMPTS)
        .with_max_backoff(LONGEST_BACKOFF);
    config
        .to_builder()
        .retry_config(retries)
        .timeout_config(timeouts)
        // The attempt timeout covers a body that stalls.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build()
}

/// Makes a retry quota for one client: shared by its requests, kept between
/// invocations, apart from every other client's.
pub(crate) fn quota(client: &'static str) -> RetryPartition {
    let bucket = TokenBucket::builder()
        .capacity(QUOTA)
        .refill_rate(QUOTA_PER_SECOND)
        .build();
    RetryPartition::custom(client).token_bucket(bucket).build()
}

/// Retries every [`Transient`](FailureClass::Transient) failure: the SDK alone
/// would give up on a 200 that cannot be read and on the rarer 5xx. Retries no
/// [`Throttled`](FailureClass::Throttled) one: the SDK would do so regardless of
/// all other requests.
#[derive(Debug)]
pub(crate) struct RetryByClass;

impl ClassifyRetry for RetryByClass {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let Some(Err(error)) = context.output_or_error() else {
            return RetryAction::NoActionIndicated;
        };
        if error.as_connector_error().is_some_and(is_network_error) {
            return RetryAction::transient_error();
        }
        let (Some(_), Some(response)) = (error.as_operation_error(), context.response()) else {
            return RetryAction::NoActionIndicated;
        };
        let name = error_name(response);
        match classify(response.status().as_u16(), name.as_deref()) {
            FailureClass::Throttled => RetryAction::RetryForbidden,
            FailureClass::Transient => RetryAction::transient_error(),
            FailureClass::Refused | FailureClass::Denied | FailureClass::Unexpected => {
                RetryAction::NoActionIndicated
            }
        }
    }

    fn name(&self) -> &'static str {
        "retry by failure class"
    }

    /// Runs first: the SDK's own classifiers may add the delay that the service
    /// asks for.
    fn priority(&self) -> RetryClassifierPriority {
        RetryClassifierPriority::run_before(RetryClassifierPriority::http_status_code_classifier())
    }
}
