//! Takes the assets that SQS messages name out of their projects: one call after
//! another, and a message with any failure is delivered again.

use aws_config::BehaviorVersion;
use aws_lambda_events::event::sqs::{BatchItemFailure, SqsBatchResponse, SqsEvent, SqsMessage};
use aws_sdk_iotsitewise::Client;
use aws_sdk_iotsitewise::config::interceptors::BeforeSerializationInterceptorContextMut;
use aws_sdk_iotsitewise::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::endpoint::EndpointPrefix;
use lambda_runtime::{Error, LambdaEvent, run, service_fn, tracing};
use serde::Deserialize;

/// What one call may carry.
const ASSETS_PER_CALL: usize = 100;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    project_id: String,
    asset_ids: Vec<String>,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    tracing::init_default_subscriber();
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let config = aws_sdk_iotsitewise::config::Builder::from(&config)
        .interceptor(NoHostPrefix)
        .build();
    let client = Client::from_conf(config);
    run(service_fn(|event: LambdaEvent<SqsEvent>| {
        handle(&client, event.payload)
    }))
    .await
}

async fn handle(client: &Client, event: SqsEvent) -> Result<SqsBatchResponse, Error> {
    let mut response = SqsBatchResponse::default();
    for message in event.records {
        if let Err(error) = disassociate(client, &message).await {
            ::tracing::error!(%error, "a message failed");
            let mut failure = BatchItemFailure::default();
            failure.item_identifier = message.message_id.ok_or("a message without an id")?;
            response.batch_item_failures.push(failure);
        }
    }
    Ok(response)
}

async fn disassociate(client: &Client, message: &SqsMessage) -> Result<(), Error> {
    let body = message.body.as_deref().ok_or("a message without a body")?;
    let request: Request = serde_json::from_str(body)?;
    for assets in request.asset_ids.chunks(ASSETS_PER_CALL) {
        let answer = client
            .batch_disassociate_project_assets()
            .project_id(&request.project_id)
            .set_asset_ids(Some(assets.to_vec()))
            .send()
            .await?;
        if !answer.errors().is_empty() {
            return Err(format!("{} assets failed", answer.errors().len()).into());
        }
    }
    Ok(())
}

/// The SDK puts `monitor.` before the host, which a loopback address cannot have.
#[derive(Debug)]
struct NoHostPrefix;

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for NoHostPrefix {
    fn name(&self) -> &'static str {
        "no host prefix"
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
