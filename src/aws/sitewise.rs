//! The SiteWise client: one request that disassociates assets, two that read a
//! project.
//!
//! The only place for SiteWise SDK types. It must not loop: the SDK retries one
//! request, [`dispatch`](crate::dispatch) does everything else.

use std::error::Error as StdError;

use aws_config::SdkConfig;
use aws_sdk_iotsitewise::Client;
use aws_sdk_iotsitewise::config::interceptors::BeforeSerializationInterceptorContextMut;
use aws_sdk_iotsitewise::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_iotsitewise::error::ProvideErrorMetadata;
use aws_sdk_iotsitewise::operation::batch_disassociate_project_assets::BatchDisassociateProjectAssetsError;
use aws_sdk_iotsitewise::operation::describe_project::DescribeProjectError;
use aws_sdk_iotsitewise::operation::list_project_assets::ListProjectAssetsError;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::endpoint::EndpointPrefix;
use aws_smithy_runtime_api::client::interceptors::context::Error;
use aws_types::endpoint_config::EndpointUrl;

use crate::aws::attempts::{Attempts, CountAttempts};
use crate::aws::error::{CallFailure, CheckSuccess, FailureClass};
use crate::aws::retry::{RetryByClass, SITEWISE_TIMEOUTS, quota, with_retries};
use crate::outcome::{Failure, code};
use crate::request::{AssetId, ClientToken, ProjectId};

/// Assets on one page of a list (service model, shape `MaxResults`: 1 to 250).
const PAGE_SIZE: i32 = 250;

/// The SDK's value for an asset error's code that the response lacks.
const SDK_PLACEHOLDER: &str = "no value was set";

/// A client for SiteWise.
#[derive(Clone, Debug)]
pub struct SiteWise {
    client: Client,
    attempts: CountAttempts,
}

/// A page of a project's assets.
#[derive(Clone, Debug)]
pub struct Page {
    /// the page's assets
    pub assets: Vec<AssetId>,
    /// the token of the next page
    pub next: Option<String>,
}

impl SiteWise {
    /// Makes a client with the process's configuration.
    pub fn new(config: &SdkConfig) -> Self {
        let attempts = CountAttempts::new(metadata);
        let config = with_retries(config, &SITEWISE_TIMEOUTS);
        let config = aws_sdk_iotsitewise::config::Builder::from(&config)
            .retry_partition(quota("sitewise"))
            .retry_classifier(RetryByClass(metadata))
            .interceptor(PlainConfiguredEndpoint)
            .interceptor(CheckSuccess { required: None })
            .interceptor(attempts.clone())
            .build();
        Self {
            client: Client::from_conf(config),
            attempts,
        }
    }

    /// Returns the attempts since it was last called, for metrics.
    pub fn take_attempts(&self) -> Attempts {
        self.attempts.take()
    }

    /// Calls `BatchDisassociateProjectAssets` once, with the SDK's retries.
    ///
    /// Returns the assets that the service could not disassociate, each with the
    /// service's own code and message. All other assets are disassociated.
    ///
    /// # Errors
    ///
    /// Anything but a 200 that can be read and whose errors name assets of this
    /// call only. Any other error may be about any asset, so that none of them
    /// counts as disassociated.
    pub async fn disassociate(
        &self,
        project: ProjectId,
        assets: &[AssetId],
        token: &ClientToken,
    ) -> Result<Vec<(AssetId, Failure)>, CallFailure> {
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
                Some(asset) if assets.contains(&asset) => {
                    let code = match error.code().as_str() {
                        "" | SDK_PLACEHOLDER => "HTTP 200",
                        code => code,
                    };
                    Ok((asset, Failure::new(code, error.message())))
                }
                _ => Err(CallFailure::new(
                    FailureClass::Transient,
                    Failure::new(
                        code::MALFORMED_RESPONSE,
                        format!(
                            "the response has an error ({}) for an asset that the request did not name",
                            error.code().as_str()
                        ),
                    ),
                )),
            })
            .collect()
    }

    /// Lists a page of a project's assets: the first one, or the one that a token
    /// stands for.
    ///
    /// # Errors
    ///
    /// Anything but a 200 that can be read. The response for a project that does
    /// not exist is not documented.
    pub async fn list_assets(
        &self,
        project: ProjectId,
        token: Option<&str>,
    ) -> Result<Page, CallFailure> {
        let output = self
            .client
            .list_project_assets()
            .project_id(project.to_string())
            .max_results(PAGE_SIZE)
            .set_next_token(token.map(ToOwned::to_owned))
            .customize()
            .interceptor(CheckSuccess {
                required: Some("assetIds"),
            })
            .send()
            .await
            .map_err(|error| CallFailure::of(&error))?;
        let next = output.next_token.filter(|next| !next.is_empty());
        if next.is_some() && next.as_deref() == token {
            return Err(CallFailure::new(
                FailureClass::Transient,
                Failure::new(
                    code::MALFORMED_RESPONSE,
                    "a page of the project's assets has its own token as the next one",
                ),
            ));
        }
        let assets = output.asset_ids.iter();
        Ok(Page {
            assets: assets.filter_map(|id| AssetId::from_answer(id)).collect(),
            next,
        })
    }

    /// Describes a project, to find out whether it exists.
    ///
    /// # Errors
    ///
    /// Anything but a 200 that can be read; see [`CallFailure::is_not_found`].
    pub async fn describe(&self, project: ProjectId) -> Result<(), CallFailure> {
        let request = self.client.describe_project();
        let described = request
            .project_id(project.to_string())
            .customize()
            .interceptor(CheckSuccess {
                required: Some("projectId"),
            })
            .send();
        match described.await {
            Ok(_) => Ok(()),
            Err(error) => Err(CallFailure::of(&error)),
        }
    }
}

/// Returns the metadata of an error of any operation of this client.
fn metadata(error: &Error) -> Option<&dyn ProvideErrorMetadata> {
    fn of<E: ProvideErrorMetadata + StdError + Send + Sync + 'static>(
        error: &Error,
    ) -> Option<&dyn ProvideErrorMetadata> {
        error.downcast_ref::<E>().map(|error| error as _)
    }
    of::<BatchDisassociateProjectAssetsError>(error)
        .or_else(|| of::<ListProjectAssetsError>(error))
        .or_else(|| of::<DescribeProjectError>(error))
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
