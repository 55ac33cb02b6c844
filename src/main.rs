//! The Lambda function's process: one cold start, then `run`.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::value::RawValue;
use sitewise_disassociator::aws::connections::Connections;
use sitewise_disassociator::config::{Config, DEFAULT_SERVICE_NAME};
use sitewise_disassociator::deadline::time_left;
use sitewise_disassociator::handler::{Function, HandlerError, Invocation};
use sitewise_disassociator::output::response::Response;
use sitewise_disassociator::telemetry::{self, TelemetryConfig};
use tokio::time::Instant;
use tracing_subscriber::filter::{LevelFilter, Targets};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            telemetry::init(TelemetryConfig {
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
    let function = Function::new(&sdk_config, config.function, SystemTime::now);
    telemetry::init(config.telemetry);
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
    let tls_context = config.tls_roots.tls_context();
    Connections::new(move |most_idle| {
        Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls_context.clone())
            .pool_max_idle_per_host(most_idle)
            .build_https()
    })
}

async fn sdk_config(config: &Config, connections: Connections) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(connections)
        // Each client has a retry configuration of its own. Without one here the
        // loader panics at values of AWS_RETRY_MODE and AWS_MAX_ATTEMPTS that it
        // does not support.
        .retry_config(RetryConfig::standard());
    if let Some(region) = &config.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if config.has_credentials {
        loader = loader.credentials_provider(EnvironmentVariableCredentialsProvider::new());
    }
    loader.load().await
}

async fn handle(
    function: &Function,
    event: LambdaEvent<Box<RawValue>>,
) -> Result<Response, HandlerError> {
    telemetry::begin_invocation(
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
