//! The log lines.
//!
//! Owns their format: each is one JSON object with the key names of Powertools
//! for AWS Lambda. None has a payload, a client token, or text that a sender
//! wrote; a service's message may quote that, so failures are logged by their
//! codes alone. [`metrics`](crate::telemetry::metrics) owns what the metrics are.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write as _};
use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Empty, Field, Visit, display};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Span, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use uuid::Uuid;

use super::levels::{INVOCATION, METRICS, is_allowed};
use super::metrics::Metrics;
use crate::input::id::ProjectId;
use crate::input::received::Received;
use crate::outcome::Failure;
use crate::settle::Settlement;

/// The configuration of the log.
#[derive(Debug)]
pub struct TelemetryConfig {
    /// The `service` of each line, also the metrics' only dimension.
    pub service: String,
    /// Which lines are logged.
    pub filter: Targets,
    /// The level of the lines that have the metrics.
    pub metrics_level: &'static str,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            service: "sitewise-disassociator".to_owned(),
            filter: Targets::new().with_default(LevelFilter::INFO),
            metrics_level: "INFO",
        }
    }
}

/// Sets up the log of the process.
///
/// From here on a panic is logged by its location alone: its text may quote the
/// event.
pub fn init(config: TelemetryConfig) {
    tracing_subscriber::registry()
        .with(JsonLines {
            service: config.service,
            metrics_level: config.metrics_level,
        })
        .with(config.filter)
        .with(filter_fn(is_allowed))
        .init();
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(display);
        tracing::error!(location, "the function panicked");
    }));
}

/// Makes the span of an invocation. The lines within it have its fields.
pub fn invocation_span(
    function_request_id: &str,
    xray_trace_id: Option<&str>,
    cold_start: bool,
) -> Span {
    tracing::error_span!(
        target: INVOCATION,
        "invocation",
        function_request_id,
        xray_trace_id,
        cold_start,
        correlation_id = Empty,
    )
}

/// Makes the id of the event's only message the invocation's `correlation_id`.
pub fn record_correlation_id(received: &[Received<'_>]) {
    if let [received] = received
        && let Some(id) = message_id(received)
    {
        Span::current().record("correlation_id", display(id));
    }
}

/// Logs the results of an invocation: a line for each code among the failures,
/// and one line for the whole event, which has the metrics.
pub fn log_results(settlements: &[Settlement<'_>], metrics: &Metrics, namespace: Option<&str>) {
    let mut failures: BTreeMap<(&str, bool), (usize, &Received<'_>)> = BTreeMap::new();
    for settlement in settlements {
        for unresolved in &settlement.unresolved {
            if let Some(failure) = &unresolved.failure {
                let key = (failure.code(), unresolved.retryable);
                let first = (0, &settlement.received);
                failures.entry(key).or_insert(first).0 += 1;
            }
        }
    }
    for ((code, retryable), (count, first)) in failures {
        tracing::warn!(
            code,
            retryable,
            count,
            first_message_id = message_id(first).map(display),
            first_project_id = project_id(first).map(display),
            "assets or requests failed"
        );
    }
    let project_id = only_project(settlements).map(display);
    for document in metrics.documents(namespace, SystemTime::now()) {
        let metrics = serde_json::to_vec(&document).unwrap_or_default();
        tracing::info!(target: METRICS, project_id, metrics = &metrics[..], "event processed");
    }
}

/// Logs that an invocation fails as a whole. `reason` must not quote the event.
pub fn log_invocation_failure(code: &str, reason: &str) {
    tracing::error!(code, reason, "the invocation failed");
}

/// Logs that a dead letter or a part was not stored.
pub fn log_not_stored(failure: &Failure) {
    let code = failure.code();
    tracing::error!(code, "a dead letter or a part could not be stored");
}

/// Returns the id of a message, if it is a UUID, as AWS's ids are. Others may be
/// any text that a caller wrote.
fn message_id(received: &Received<'_>) -> Option<Uuid> {
    received.message.id.as_deref()?.parse().ok()
}

fn project_id(received: &Received<'_>) -> Option<ProjectId> {
    let request = received.request.as_ref().ok()?;
    request.project()
}

/// Returns the project that all messages are for, if it is one.
fn only_project(settlements: &[Settlement<'_>]) -> Option<ProjectId> {
    let mut projects = settlements.iter().map(|one| project_id(&one.received));
    let first = projects.next()??;
    let is_only = projects.all(|project| project == Some(first));
    is_only.then_some(first)
}

/// Writes each event as a line to standard output.
struct JsonLines {
    service: String,
    metrics_level: &'static str,
}

#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    message: Value,
    /// In RFC 3339's form, which Lambda's own filter requires.
    timestamp: Option<String>,
    service: &'a str,
    #[serde(flatten)]
    fields: Fields,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().target() == INVOCATION
            && let Some(span) = context.span(id)
        {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(invocation) = span.extensions().get::<Fields>() {
                fields = invocation.clone();
            }
        }
        event.record(&mut fields);
        if let Some(Value::Object(metrics)) = fields.0.remove("metrics") {
            fields.0.extend(metrics);
        }
        let line = Line {
            level: match event.metadata().target() {
                METRICS => self.metrics_level,
                _ => event.metadata().level().as_str(),
            },
            message: fields.0.remove("message").unwrap_or_default(),
            timestamp: DateTime::from(SystemTime::now()).fmt(Format::DateTime).ok(),
            service: &self.service,
            fields,
        };
        if let Ok(mut line) = serde_json::to_vec(&line) {
            line.push(b'\n');
            // A log that cannot be written is no reason to fail what was done.
            let _ = io::stdout().write_all(&line);
        }
    }
}

/// The fields of an event or a span. Bytes are JSON.
#[derive(Clone, Default, Serialize)]
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        self.put(field, serde_json::from_slice::<Value>(value).ok());
    }
}
