//! The Lambda function's process: one cold start, then `run`.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use lambda_runtime::{Diagnostic, LambdaEvent, service_fn};
use serde_json::value::RawValue;
use sitewise_disassociator::aws::connections;
use sitewise_disassociator::aws::retry::MOST_IDLE_CONNECTIONS;
use sitewise_disassociator::config::Config;
use sitewise_disassociator::deadline::time_left;
use sitewise_disassociator::handler::{Function, Invocation};
use sitewise_disassociator::output::response::Response;
use sitewise_disassociator::telemetry::{self, TelemetryConfig};
use tokio::time::Instant;
use tracing::Instrument as _;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            telemetry::init(TelemetryConfig::default());
            tracing::error!(%error, "wrong configuration");
            return ExitCode::FAILURE;
        }
    };
    let sdk_config = sdk_config(&config).await;
    let function = Function::new(&sdk_config, config.function, SystemTime::now);
    telemetry::init(config.telemetry);
    for (variable, queue_region) in config.queues_elsewhere {
        tracing::warn!(
            variable,
            queue_region,
            function_region = config.region,
            "the queue is in another Region than the function, which cannot send to it"
        );
    }
    let mut is_cold_start = true;
    let handler = service_fn(|event| {
        let is_cold_start = std::mem::replace(&mut is_cold_start, false);
        handle(&function, event, is_cold_start)
    });
    match lambda_runtime::run(handler).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = match error.downcast_ref::<serde_json::Error>() {
                // It quotes what the caller wrote.
                Some(_) => "the client context is malformed".to_owned(),
                None => error.to_string(),
            };
            tracing::error!(error, "the Lambda runtime stopped");
            ExitCode::FAILURE
        }
    }
}

fn http_client(config: &Config) -> SharedHttpClient {
    let tls_context = config.tls_roots.tls_context();
    connections::http_client(move || {
        Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .tls_context(tls_context.clone())
            .pool_max_idle_per_host(MOST_IDLE_CONNECTIONS)
            .build_https()
    })
}

async fn sdk_config(config: &Config) -> SdkConfig {
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client(config))
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
    is_cold_start: bool,
) -> Result<Response, Diagnostic> {
    let LambdaEvent { payload, context } = event;
    let deadline = SystemTime::UNIX_EPOCH + Duration::from_millis(context.deadline);
    let invocation = Invocation {
        request_id: &context.request_id,
        deadline: Instant::now() + time_left(deadline, SystemTime::now()),
        is_cold_start,
    };
    let span = telemetry::invocation_span(
        &context.request_id,
        context.xray_trace_id.as_deref(),
        is_cold_start,
    );
    let handled = async {
        let response = function.handle(&payload, invocation).await;
        response.map_err(|error| {
            let diagnostic = Diagnostic {
                error_type: error.name().to_owned(),
                error_message: error.to_string(),
            };
            telemetry::log_invocation_failure(&diagnostic.error_type, &diagnostic.error_message);
            diagnostic
        })
    };
    handled.instrument(span).await
}
