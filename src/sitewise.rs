//! The one SiteWise call.
//!
//! Owns the SDK client's settings; the only place for SiteWise SDK types. It
//! must not loop: retries of one call are the SDK's, everything else is
//! `dispatch`'s.

use std::time::Duration;

use aws_config::SdkConfig;
use aws_config::retry::RetryConfig;
use aws_sdk_iotsitewise::Client;
use aws_sdk_iotsitewise::config::interceptors::BeforeSerializationInterceptorContextMut;
use aws_sdk_iotsitewise::config::{
    ConfigBag, Intercept, RuntimeComponents, StalledStreamProtectionConfig,
};
use aws_sdk_iotsitewise::operation::batch_disassociate_project_assets::BatchDisassociateProjectAssetsError;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::endpoint::EndpointPrefix;
use aws_types::endpoint_config::EndpointUrl;

use crate::attempts::{Attempts, CountAttempts};
use crate::outcome::{Failure, code};
use crate::request::{AssetId, ClientToken, ProjectId};
use crate::retry::{self, RetryByClass};
use crate::sdk_error::{CallFailure, FailureClass};

/// Longest wait for a connection. (The SDK's own default is 3.1 s.)
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest wait for one attempt's whole answer. (The SDK's default is none.)
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time for a call with all its attempts and the pauses between them.
/// The invocation's deadline may cut it shorter.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(35);

/// SiteWise Monitor, as far as this function uses it.
#[derive(Clone, Debug)]
pub struct SiteWise {
    client: Client,
    attempts: CountAttempts<BatchDisassociateProjectAssetsError>,
}

/// An asset that a 200 names among its errors.
#[derive(Clone, Debug)]
pub struct AssetError {
    /// the asset that is still there
    pub asset: AssetId,
    /// the service's own code and message
    pub failure: Failure,
}

impl SiteWise {
    /// Makes a client of the process's configuration.
    pub fn new(config: &SdkConfig) -> Self {
        let attempts = CountAttempts::default();
        let config = aws_sdk_iotsitewise::config::Builder::from(config)
            .retry_config(RetryConfig::standard().with_max_attempts(retry::ATTEMPTS))
            .timeout_config(retry::timeouts(
                CONNECT_TIMEOUT,
                ATTEMPT_TIMEOUT,
                OPERATION_TIMEOUT,
            ))
            // The attempt timeout covers a body that stalls.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .retry_partition(retry::quota("sitewise"))
            .retry_classifier(RetryByClass::<BatchDisassociateProjectAssetsError>::default())
            .interceptor(PlainConfiguredEndpoint)
            .interceptor(attempts.clone())
            .build();
        Self {
            client: Client::from_conf(config),
            attempts,
        }
    }

    /// Returns what was attempted since the last time, for metrics.
    pub fn take_attempts(&self) -> Attempts {
        self.attempts.take()
    }

    /// Calls `BatchDisassociateProjectAssets` once, with the SDK's retries.
    ///
    /// Returns the assets that the service could not disassociate; every other
    /// asset of the call is out of the project.
    ///
    /// # Errors
    ///
    /// Anything but a 200 that can be read and whose errors name assets of
    /// this call only. An error that cannot be attributed may stand for any
    /// asset, so that none of the call counts as done.
    pub async fn disassociate(
        &self,
        project: ProjectId,
        assets: &[AssetId],
        token: &ClientToken,
    ) -> Result<Vec<AssetError>, CallFailure> {
        let output = self
            .client
            .batch_disassociate_project_assets()
            .project_id(project.to_string())
            .set_asset_ids(Some(assets.iter().map(AssetId::to_string).collect()))
            .client_token(token.as_str())
            .send()
            .await
            .map_err(|error| CallFailure::of(&error))?;
        output
            .errors()
            .iter()
            .map(|error| match AssetId::from_answer(error.asset_id()) {
                Some(asset) if assets.contains(&asset) => Ok(AssetError {
                    asset,
                    failure: Failure::new(error.code().as_str(), error.message()),
                }),
                _ => Err(CallFailure::new(
                    FailureClass::Transient,
                    Failure::new(
                        code::MALFORMED_RESPONSE,
                        format!(
                            "the answer has an error ({}) for an asset that the call did not name",
                            error.code().as_str()
                        ),
                    ),
                )),
            })
            .collect()
    }
}

/// Calls a configured endpoint exactly as given: the prefix `monitor.`, which
/// the operation puts before every host, belongs to AWS's own endpoints only.
#[derive(Debug)]
struct PlainConfiguredEndpoint;

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for PlainConfiguredEndpoint {
    fn name(&self) -> &'static str {
        "plain configured endpoint"
    }

    fn modify_before_serialization(
        &self,
        _: &mut BeforeSerializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if config.load::<EndpointUrl>().is_some() {
            config.interceptor_state().unset::<EndpointPrefix>();
        }
        Ok(())
    }
}
