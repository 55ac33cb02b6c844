//! What the function tells about itself: log lines, one of which has the
//! metrics.
//!
//! Owns the log's format: every line is one JSON object with the key names of
//! Powertools for AWS Lambda. None holds a payload or a token, and none the
//! text of a panic. What the metrics are is for [`metrics`](crate::telemetry::metrics).

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write as _};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use uuid::Uuid;

use crate::outcome::{Failure, code};
use crate::request::ProjectId;
use crate::settle::{Received, Settlement};
use crate::telemetry::metrics::Metrics;

/// How the process tells about itself.
#[derive(Debug)]
pub struct TelemetryConfig {
    /// The name that every line has as `service`, the metrics' only dimension.
    pub service: String,
    /// Which lines are logged.
    pub filter: Targets,
    /// The metrics' namespace; without one there are none.
    pub metrics_namespace: Option<String>,
    /// The level of the line that has the metrics: one that Lambda's own
    /// filter does not drop, whatever it is set to.
    pub metrics_level: &'static str,
}

/// The line with the metrics is not a `tracing` event, for it has members
/// within members. What it needs of [`TelemetryConfig`] is here.
static METRICS: OnceLock<MetricsLine> = OnceLock::new();

struct MetricsLine {
    service: String,
    namespace: Option<String>,
    level: &'static str,
}

/// Sets up the log of the process.
///
/// From here on a panic is logged by its place alone: its text may quote what
/// an event carried.
pub fn init(config: TelemetryConfig) {
    let line = MetricsLine {
        service: config.service.clone(),
        namespace: config.metrics_namespace,
        level: config.metrics_level,
    };
    // There is one in a process.
    let _ = METRICS.set(line);
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .event_format(Lines {
            service: config.service,
        })
        .finish()
        .with(config.filter)
        .init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "a part of the function panicked");
    }));
}

/// The invocation under way; Lambda gives a process one at a time.
static INVOCATION: Mutex<Option<InvocationContext>> = Mutex::new(None);

#[derive(Clone, Serialize)]
struct InvocationContext {
    cold_start: bool,
    function_request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    xray_trace_id: Option<String>,
    /// The id of the event's only message.
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<Uuid>,
}

fn invocation() -> MutexGuard<'static, Option<InvocationContext>> {
    INVOCATION.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names the invocation that the lines to come are about.
pub fn begin_invocation(request_id: &str, xray_trace_id: Option<&str>) {
    let mut invocation = invocation();
    *invocation = Some(InvocationContext {
        cold_start: invocation.is_none(),
        function_request_id: request_id.to_owned(),
        xray_trace_id: xray_trace_id.map(ToOwned::to_owned),
        correlation_id: None,
    });
}

/// What the log may have of a message: ids by which an operator finds it, and
/// nothing else that it carries.
#[derive(Clone, Copy)]
struct MessageIds {
    /// the message's id, where it has the form that AWS gives it; others are
    /// whatever a caller wrote
    message: Option<Uuid>,
    /// the project, where there is a valid one
    project: Option<ProjectId>,
}

impl MessageIds {
    fn of(received: &Received<'_>) -> Self {
        let id = received.message.id.as_deref();
        Self {
            message: id.and_then(|id| id.parse().ok()),
            project: received
                .request
                .as_ref()
                .ok()
                .map(|request| request.project),
        }
    }
}

/// Sets the messages that the lines to come are about.
pub fn set_messages(received: &[Received<'_>]) {
    if let ([received], Some(invocation)) = (received, invocation().as_mut()) {
        invocation.correlation_id = MessageIds::of(received).message;
    }
}

struct Lines {
    service: String,
}

#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    message: &'a str,
    timestamp: Option<String>,
    service: &'a str,
    #[serde(flatten)]
    invocation: Option<&'a InvocationContext>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// Returns a time as RFC 3339 has it, which Lambda's own filter asks for.
fn timestamp(time: SystemTime) -> Option<String> {
    DateTime::from(time).fmt(Format::DateTime).ok()
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let invocation = invocation().clone();
        let line = Line {
            level: event.metadata().level().as_str(),
            message: &fields.message,
            timestamp: timestamp(SystemTime::now()),
            service: &self.service,
            invocation: invocation.as_ref(),
            fields: fields.others,
        };
        let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
}

impl Fields {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.others.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.put(field, format!("{value:?}"));
        }
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
}

/// Logs what became of an invocation: one line for each code among its failures,
/// one for the whole, which has the metrics.
pub fn report(settlements: &[Settlement<'_>], mut metrics: Metrics) {
    let mut failures: BTreeMap<(&str, bool), Failed<'_>> = BTreeMap::new();
    for settlement in settlements {
        for one in &settlement.unresolved {
            if let Some(failure) = &one.failure {
                failures
                    .entry((failure.code(), one.retryable))
                    .or_insert_with(|| Failed {
                        count: 0,
                        first: failure,
                        first_of: MessageIds::of(&settlement.received),
                    })
                    .count += 1;
            }
        }
    }
    for ((code, retryable), failed) in &failures {
        // Those two quote what the event carried.
        let quotes_the_event = [code::INVALID_REQUEST, code::INVALID_ASSET_ID].contains(code);
        let first_message = (!quotes_the_event).then(|| failed.first.message());
        let MessageIds { message, project } = failed.first_of;
        tracing::warn!(
            code,
            retryable,
            count = failed.count,
            first_message,
            first_message_id = message.map(tracing::field::display),
            first_project_id = project.map(tracing::field::display),
            "assets or requests failed"
        );
    }
    let Some(line) = METRICS.get() else {
        return;
    };
    let invocation = invocation().clone();
    metrics.cold_start = invocation.as_ref().is_some_and(|named| named.cold_start);
    if line.namespace.is_some() || tracing::enabled!(Level::INFO) {
        // A log that cannot be written is no reason to fail what was done.
        let _ = line.write(only_project(settlements), invocation.as_ref(), &metrics);
    }
}

struct Failed<'a> {
    count: usize,
    first: &'a Failure,
    first_of: MessageIds,
}

/// Returns the project that all messages are for, if it is one.
fn only_project(settlements: &[Settlement<'_>]) -> Option<ProjectId> {
    let mut projects = settlements
        .iter()
        .map(|one| MessageIds::of(&one.received).project);
    let first = projects.next()??;
    projects
        .all(|project| project == Some(first))
        .then_some(first)
}

impl MetricsLine {
    fn write(
        &self,
        project: Option<ProjectId>,
        invocation: Option<&InvocationContext>,
        metrics: &Metrics,
    ) -> io::Result<()> {
        let now = SystemTime::now();
        let mut lines = Vec::new();
        for mut members in metrics.documents(self.namespace.as_deref(), now) {
            if let Some(project) = project {
                members.insert("project_id".to_owned(), project.to_string().into());
            }
            let line = Line {
                level: self.level,
                message: "event processed",
                timestamp: timestamp(now),
                service: &self.service,
                invocation,
                fields: members,
            };
            serde_json::to_writer(&mut lines, &line)?;
            lines.push(b'\n');
        }
        io::stdout().lock().write_all(&lines)
    }
}

/// Tells that an invocation fails as a whole. `reason` must not quote the event.
pub fn failed(code: &str, reason: &str) {
    tracing::error!(code, reason, "the invocation failed");
}

/// Tells that a dead letter or a part could not be stored.
pub fn not_stored(failure: &Failure) {
    tracing::error!(
        code = failure.code(),
        first_message = failure.message(),
        "a dead letter or a part could not be stored"
    );
}
