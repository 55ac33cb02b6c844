//! The real SDK and the simulator, wired up for one test.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_iotsitewise::config::interceptors::BeforeSerializationInterceptorContextMut;
use aws_sdk_iotsitewise::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_iotsitewise::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_iotsitewise::operation::batch_disassociate_project_assets::BatchDisassociateProjectAssetsError;
use aws_sdk_iotsitewise::operation::describe_portal::{DescribePortalError, DescribePortalOutput};
use aws_sdk_iotsitewise::operation::describe_project::{
    DescribeProjectError, DescribeProjectOutput,
};
use aws_sdk_iotsitewise::operation::list_project_assets::{
    ListProjectAssetsError, ListProjectAssetsOutput,
};
use aws_sdk_iotsitewise::operation::list_projects::{ListProjectsError, ListProjectsOutput};
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::endpoint::EndpointPrefix;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::retry::ErrorKind;
use simulator::{Call, Fault, Settings, Simulator};

/// A project id by number.
pub(crate) fn project(number: usize) -> String {
    format!("aaaaaaaa-0000-4000-8000-{number:012x}")
}

/// A portal id by number.
pub(crate) fn portal(number: usize) -> String {
    format!("cccccccc-0000-4000-8000-{number:012x}")
}

/// Project ids by number.
pub(crate) fn projects(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(project).collect()
}

/// An asset id by number.
pub(crate) fn asset(number: usize) -> String {
    format!("bbbbbbbb-0000-4000-8000-{number:012x}")
}

/// Asset ids by number.
pub(crate) fn assets(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(asset).collect()
}

/// A client token by number.
pub(crate) fn token(number: usize) -> String {
    format!("{number:036}")
}

/// What went wrong, as the SDK tells it apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Trouble {
    /// the connection broke
    Io,
    /// the connection ended without an answer, as hyper puts it
    Incomplete,
    /// an answer with this status had no readable body
    Unreadable(u16),
    /// an error was answered
    Refused {
        status: u16,
        code: String,
        message: String,
    },
    Other(String),
}

impl Trouble {
    pub(crate) fn refused(status: u16, code: &str, message: &str) -> Self {
        Self::Refused {
            status,
            code: code.to_owned(),
            message: message.to_owned(),
        }
    }

    pub(crate) fn of<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::fmt::Debug,
    {
        match error {
            SdkError::DispatchFailure(failure) if failure.is_io() => Self::Io,
            SdkError::DispatchFailure(failure)
                if failure.as_other() == Some(ErrorKind::TransientError) =>
            {
                Self::Incomplete
            }
            SdkError::ResponseError(error) => Self::Unreadable(error.raw().status().as_u16()),
            SdkError::ServiceError(error) => Self::Refused {
                status: error.raw().status().as_u16(),
                code: error.err().code().unwrap_or_default().to_owned(),
                message: error.err().message().unwrap_or_default().to_owned(),
            },
            other => Self::Other(format!("{other:?}")),
        }
    }
}

/// An asset error in a 200: the asset, the code and the message.
pub(crate) type Entry = (String, String, String);

pub(crate) fn entry(number: usize, code: &str, message: &str) -> Entry {
    (asset(number), code.to_owned(), message.to_owned())
}

/// How a call ended, by the record: its status, and whether it was applied.
pub(crate) fn ending(call: &Call) -> (Option<u16>, bool) {
    (call.status, call.applied)
}

/// Calls a configured endpoint as given, without the prefix `monitor.`.
#[derive(Debug)]
struct WithoutPrefix;

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for WithoutPrefix {
    fn name(&self) -> &'static str {
        "without prefix"
    }

    fn modify_before_serialization(
        &self,
        _: &mut BeforeSerializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        config.interceptor_state().unset::<EndpointPrefix>();
        Ok(())
    }
}

fn sdk_config(http_client: SharedHttpClient) -> aws_config::SdkConfig {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        // One call is one request.
        .retry_config(RetryConfig::disabled())
        // It measures by the real clock, also where tokio's is paused.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .http_client(http_client)
        .build()
}

/// A simulator and the two SDK clients that reach it.
pub(crate) struct Harness {
    pub(crate) simulator: Simulator,
    pub(crate) sitewise: aws_sdk_iotsitewise::Client,
    pub(crate) sqs: aws_sdk_sqs::Client,
}

impl Harness {
    /// Without sockets.
    pub(crate) fn new(settings: Settings) -> Self {
        let simulator = Simulator::new(settings);
        let config = sdk_config(simulator.http_client());
        Self {
            sitewise: aws_sdk_iotsitewise::Client::new(&config),
            sqs: aws_sdk_sqs::Client::new(&config),
            simulator,
        }
    }

    /// With project 1, that has these assets.
    pub(crate) fn with_assets(numbers: impl IntoIterator<Item = usize>) -> Self {
        Self::new(Settings::default()).and_assets(numbers)
    }

    pub(crate) fn and_assets(self, numbers: impl IntoIterator<Item = usize>) -> Self {
        self.simulator.add_project(&project(1), assets(numbers));
        self
    }

    /// With portal 2, that has these projects.
    pub(crate) fn with_projects(numbers: impl IntoIterator<Item = usize>) -> Self {
        let harness = Self::new(Settings::default());
        harness.simulator.add_portal(&portal(2), projects(numbers));
        harness
    }

    /// The same with a fault, as `Fault` reads it.
    pub(crate) fn and_fault(self, spec: &str) -> Self {
        self.simulator
            .fault(spec.parse::<Fault>().expect("a fault"));
        self
    }

    /// Through a socket to `url`.
    pub(crate) fn over_socket(simulator: &Simulator, url: &str) -> Self {
        let config = sdk_config(aws_smithy_http_client::Builder::new().build_http())
            .into_builder()
            .endpoint_url(url)
            .build();
        let sitewise = aws_sdk_iotsitewise::config::Builder::from(&config)
            .interceptor(WithoutPrefix)
            .build();
        Self {
            simulator: simulator.clone(),
            sitewise: aws_sdk_iotsitewise::Client::from_conf(sitewise),
            sqs: aws_sdk_sqs::Client::new(&config),
        }
    }

    /// Disassociates; the SDK makes a client token of its own.
    pub(crate) async fn disassociate(
        &self,
        numbers: impl IntoIterator<Item = usize>,
    ) -> Result<Vec<Entry>, Trouble> {
        self.call(&project(1), assets(numbers), None).await
    }

    /// Disassociates with this client token.
    pub(crate) async fn disassociate_as(
        &self,
        number: usize,
        numbers: impl IntoIterator<Item = usize>,
    ) -> Result<Vec<Entry>, Trouble> {
        self.call(&project(1), assets(numbers), Some(token(number)))
            .await
    }

    /// Disassociates; every part is the caller's.
    pub(crate) async fn call(
        &self,
        project: &str,
        assets: Vec<String>,
        token: Option<String>,
    ) -> Result<Vec<Entry>, Trouble> {
        self.raw_call(project, assets, token)
            .await
            .map_err(|error| Trouble::of(&error))
    }

    /// The same with the SDK's own error.
    pub(crate) async fn raw_call(
        &self,
        project: &str,
        assets: Vec<String>,
        token: Option<String>,
    ) -> Result<Vec<Entry>, SdkError<BatchDisassociateProjectAssetsError, HttpResponse>> {
        let output = self
            .sitewise
            .batch_disassociate_project_assets()
            .project_id(project)
            .set_asset_ids(Some(assets))
            .set_client_token(token)
            .send()
            .await?;
        let entry = |error: &aws_sdk_iotsitewise::types::AssetErrorDetails| {
            (
                error.asset_id().to_owned(),
                error.code().as_str().to_owned(),
                error.message().to_owned(),
            )
        };
        Ok(output.errors().iter().map(entry).collect())
    }

    /// Gives up on a disassociation after this many seconds.
    pub(crate) async fn disassociate_within(
        &self,
        seconds: u64,
        numbers: impl IntoIterator<Item = usize>,
    ) -> Option<Result<Vec<Entry>, Trouble>> {
        tokio::time::timeout(Duration::from_secs(seconds), self.disassociate(numbers))
            .await
            .ok()
    }

    /// Lists project 1.
    pub(crate) async fn list(
        &self,
        size: Option<i32>,
        next: Option<&str>,
    ) -> Result<ListProjectAssetsOutput, SdkError<ListProjectAssetsError, HttpResponse>> {
        self.sitewise
            .list_project_assets()
            .project_id(project(1))
            .set_max_results(size)
            .set_next_token(next.map(ToOwned::to_owned))
            .send()
            .await
    }

    /// Describes project 1.
    pub(crate) async fn describe(
        &self,
    ) -> Result<DescribeProjectOutput, SdkError<DescribeProjectError, HttpResponse>> {
        self.sitewise
            .describe_project()
            .project_id(project(1))
            .send()
            .await
    }

    /// Lists portal 2.
    pub(crate) async fn list_projects(
        &self,
        size: Option<i32>,
        next: Option<&str>,
    ) -> Result<ListProjectsOutput, SdkError<ListProjectsError, HttpResponse>> {
        self.sitewise
            .list_projects()
            .portal_id(portal(2))
            .set_max_results(size)
            .set_next_token(next.map(ToOwned::to_owned))
            .send()
            .await
    }

    /// Describes portal 2.
    pub(crate) async fn describe_portal(
        &self,
    ) -> Result<DescribePortalOutput, SdkError<DescribePortalError, HttpResponse>> {
        self.sitewise
            .describe_portal()
            .portal_id(portal(2))
            .send()
            .await
    }

    /// The numbers of project 1's assets.
    pub(crate) fn remaining(&self) -> Vec<usize> {
        numbers(&self.simulator.project_assets(&project(1)))
    }

    /// The only call so far.
    pub(crate) fn only_call(&self) -> Call {
        let [call] = <[Call; 1]>::try_from(self.simulator.calls()).expect("one call");
        call
    }

    /// For each call its status, and whether it was applied.
    pub(crate) fn endings(&self) -> Vec<(Option<u16>, bool)> {
        self.simulator.calls().iter().map(ending).collect()
    }

    /// Sends one message; returns its id.
    pub(crate) async fn send(&self, queue_url: &str, body: &str) -> Result<String, Trouble> {
        self.sqs
            .send_message()
            .queue_url(queue_url)
            .message_body(body)
            .send()
            .await
            .map(|output| output.message_id().expect("an id").to_owned())
            .map_err(|error| Trouble::of(&error))
    }

    /// Sends a batch; returns the ids of the entries sent, and of those failed
    /// with their codes and whether the sender was at fault.
    pub(crate) async fn send_batch(
        &self,
        queue_url: &str,
        entries: Vec<SendMessageBatchRequestEntry>,
    ) -> Result<(Vec<String>, Vec<(String, String, bool)>), Trouble> {
        let output = self
            .sqs
            .send_message_batch()
            .queue_url(queue_url)
            .set_entries(Some(entries))
            .send()
            .await
            .map_err(|error| Trouble::of(&error))?;
        let sent = output
            .successful()
            .iter()
            .map(|entry| entry.id().to_owned());
        let failed = output.failed().iter().map(|entry| {
            let (id, code) = (entry.id().to_owned(), entry.code().to_owned());
            (id, code, entry.sender_fault())
        });
        Ok((sent.collect(), failed.collect()))
    }

    /// The bodies in a queue.
    pub(crate) fn bodies(&self, queue: &str) -> Vec<String> {
        let messages = self.simulator.messages(queue);
        messages.into_iter().map(|message| message.body).collect()
    }
}

/// A batch's entry.
pub(crate) fn message(id: &str, body: &str) -> SendMessageBatchRequestEntry {
    SendMessageBatchRequestEntry::builder()
        .id(id)
        .message_body(body)
        .build()
        .expect("an entry")
}

fn numbers(ids: &BTreeSet<String>) -> Vec<usize> {
    ids.iter()
        .map(|id| usize::from_str_radix(&id[24..], 16).expect("an id of this module"))
        .collect()
}
