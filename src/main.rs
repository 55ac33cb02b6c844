//! The Lambda function's process: one cold start, then `run`.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::value::RawValue;
use sitewise_disassociator::answer::Answer;
use sitewise_disassociator::config::{Config, DEFAULT_SERVICE_NAME};
use sitewise_disassociator::connections::Connections;
use sitewise_disassociator::handler::{Function, HandlerError, Invocation, time_left};
use sitewise_disassociator::queue::{Queue, Sqs};
use sitewise_disassociator::sitewise::SiteWise;
use sitewise_disassociator::telemetry::{self, Voice};
use tokio::time::Instant;
use tracing_subscriber::filter::{LevelFilter, Targets};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            telemetry::init(Voice {
                service: DEFAULT_SERVICE_NAME.to_owned(),
                filter: Targets::new().with_default(LevelFilter::INFO),
                metrics_namespace: None,
                metrics_level: "INFO",
            });
            tracing::error!(%error, "wrong configuration");
            return ExitCode::FAILURE;
        }
    };
    let connections = connections(&config);
    let sdk_config = sdk_config(&config, connections.clone()).await;
    let function = function(&config, &sdk_config);
    telemetry::init(config.voice);
    let handler = service_fn(|event: LambdaEvent<Box<RawValue>>| {
        let (function, connections) = (&function, &connections);
        async move {
            let answer = handle(function, event).await;
            connections.close_spare();
            answer.map_err(|error| diagnostic(&error))
        }
    });
    match lambda_runtime::run(handler).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the Lambda runtime stopped");
            ExitCode::FAILURE
        }
    }
}

fn connections(config: &Config) -> Connections {
    let tls_context = config.roots.tls_context();
    Connections::new(move |most_idle| {
        Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls_context.clone())
            .pool_max_idle_per_host(most_idle)
            .build_https()
    })
}

async fn sdk_config(config: &Config, connections: Connections) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(connections);
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if config.has_credentials {
        loader = loader.credentials_provider(EnvironmentVariableCredentialsProvider::new());
    }
    loader.load().await
}

fn function(config: &Config, sdk_config: &SdkConfig) -> Function {
    let sqs = Sqs::new(sdk_config);
    let queue = |url: &Option<String>| url.clone().map(|url| Queue::new(sqs.clone(), url));
    Function {
        sitewise: SiteWise::new(sdk_config),
        dead_letter_queue: queue(&config.dead_letter_queue_url),
        work_queue: queue(&config.work_queue_url),
        fan_out_assets: config.fan_out_assets,
        call_concurrency: config.call_concurrency,
        pace: Arc::default(),
        now: SystemTime::now,
    }
}

async fn handle(
    function: &Function,
    event: LambdaEvent<Box<RawValue>>,
) -> Result<Answer, HandlerError> {
    telemetry::enter(
        &event.context.request_id,
        event.context.xray_trace_id.as_deref(),
    );
    let deadline = SystemTime::UNIX_EPOCH + Duration::from_millis(event.context.deadline);
    let invocation = Invocation {
        request_id: &event.context.request_id,
        deadline: Instant::now() + time_left(deadline, SystemTime::now()),
    };
    function
        .handle(&event.payload, invocation)
        .await
        .inspect_err(|error| telemetry::failed(error.name(), &error.to_string()))
}

fn diagnostic(error: &HandlerError) -> Diagnostic {
    Diagnostic {
        error_type: error.name().to_owned(),
        error_message: error.to_string(),
    }
}
