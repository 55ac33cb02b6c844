//! The SiteWise client: one request that disassociates assets, and those that read
//! projects and portals.
//!
//! The only place for SiteWise SDK types. It must not loop: the SDK retries one
//! request, [`dispatch`](crate::dispatch) does everything else.

use aws_config::SdkConfig;
use aws_sdk_iotsitewise::Client;
use aws_sdk_iotsitewise::config::interceptors::BeforeSerializationInterceptorContextMut;
use aws_sdk_iotsitewise::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::endpoint::EndpointPrefix;
use aws_types::endpoint_config::EndpointUrl;

use crate::aws::error::{CallFailure, CheckSuccess};
use crate::aws::retry::{RetryByClass, SITEWISE_TIMEOUTS, quota, with_retries};
use crate::input::id::{AssetId, ClientToken, PortalId, ProjectId};
use crate::outcome::Failure;

/// Assets on one page of a list (service model, shape `MaxResults`: 1 to 250).
const PAGE_SIZE: i32 = 250;

/// The SDK's value for an asset error's code that the response lacks.
const SDK_PLACEHOLDER: &str = "no value was set";

/// A client for SiteWise.
#[derive(Clone, Debug)]
pub struct SiteWise(Client);

/// A page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// the page's entries
    pub entries: Vec<T>,
    /// the token of the next page
    pub next: Option<String>,
}

/// A project in the list of its portal's projects.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ProjectSummary {
    /// the project's id
    pub id: ProjectId,
    /// the project's name
    pub name: String,
}

impl SiteWise {
    /// Makes a client with the process's configuration.
    pub fn new(config: &SdkConfig) -> Self {
        let config = with_retries(config, &SITEWISE_TIMEOUTS);
        let config = aws_sdk_iotsitewise::config::Builder::from(&config)
            .retry_partition(quota("sitewise"))
            .retry_classifier(RetryByClass)
            .interceptor(PlainConfiguredEndpoint)
            .interceptor(CheckSuccess { required: None })
            .build();
        Self(Client::from_conf(config))
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
            .0
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
            .map(|error| match AssetId::from_response(error.asset_id()) {
                Some(asset) if assets.contains(&asset) => {
                    let code = match error.code().as_str() {
                        "" | SDK_PLACEHOLDER => "HTTP 200",
                        code => code,
                    };
                    Ok((asset, Failure::new(code, error.message())))
                }
                _ => Err(CallFailure::malformed(format!(
                    "the response has an error ({}) for an asset that the request did not name",
                    error.code().as_str()
                ))),
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
    ) -> Result<Page<AssetId>, CallFailure> {
        let list = self.0.list_project_assets();
        let output = list
            .project_id(project.to_string())
            .max_results(PAGE_SIZE)
            .set_next_token(token.map(ToOwned::to_owned))
            .customize()
            .interceptor(requires("assetIds"))
            .send()
            .await
            .map_err(|error| CallFailure::of(&error))?;
        let assets = output.asset_ids.iter();
        // An id that the service model does not allow is none that could be sent.
        let assets = assets.filter_map(|id| AssetId::from_response(id));
        page(assets.collect(), output.next_token, token)
    }

    /// Lists a page of a portal's projects; see [`SiteWise::list_assets`].
    ///
    /// # Errors
    ///
    /// Anything but a 200 whose projects have ids. The response for a portal that
    /// does not exist is not documented.
    pub async fn list_projects(
        &self,
        portal: PortalId,
        token: Option<&str>,
    ) -> Result<Page<ProjectSummary>, CallFailure> {
        let list = self.0.list_projects();
        let output = list
            .portal_id(portal.to_string())
            .max_results(PAGE_SIZE)
            .set_next_token(token.map(ToOwned::to_owned))
            .customize()
            .interceptor(requires("projectSummaries"))
            .send()
            .await
            .map_err(|error| CallFailure::of(&error))?;
        let malformed = |_| CallFailure::malformed("the list has a project without a valid id");
        let projects = output.project_summaries.into_iter().map(|project| {
            let id = project.id.parse().map_err(malformed)?;
            let name = project.name;
            Ok(ProjectSummary { id, name })
        });
        let projects = projects.collect::<Result<_, _>>()?;
        page(projects, output.next_token, token)
    }

    /// Describes a project, to find out whether it exists.
    ///
    /// # Errors
    ///
    /// Anything but a 200 that can be read; see [`CallFailure::is_not_found`].
    pub async fn describe_project(&self, project: ProjectId) -> Result<(), CallFailure> {
        let describe = self.0.describe_project().project_id(project.to_string());
        let describe = describe.customize().interceptor(requires("projectId"));
        let described = describe.send().await;
        described.map(drop).map_err(|error| CallFailure::of(&error))
    }

    /// Describes a portal, to find out whether it exists.
    ///
    /// # Errors
    ///
    /// Anything but a 200 that can be read; see [`CallFailure::is_not_found`].
    pub async fn describe_portal(&self, portal: PortalId) -> Result<(), CallFailure> {
        let describe = self.0.describe_portal().portal_id(portal.to_string());
        let describe = describe.customize().interceptor(requires("portalId"));
        let described = describe.send().await;
        described.map(drop).map_err(|error| CallFailure::of(&error))
    }
}

/// Requires a member in the body of a success.
fn requires(member: &'static str) -> CheckSuccess {
    CheckSuccess {
        required: Some(member),
    }
}

/// Makes a page; `token` is the one that it was asked for with.
fn page<T>(
    entries: Vec<T>,
    next: Option<String>,
    token: Option<&str>,
) -> Result<Page<T>, CallFailure> {
    let next = next.filter(|next| !next.is_empty());
    if next.is_some() && next.as_deref() == token {
        let message = "a page of the list has its own token as the next one";
        return Err(CallFailure::malformed(message));
    }
    Ok(Page { entries, next })
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
