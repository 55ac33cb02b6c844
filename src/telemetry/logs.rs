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
use crate::input::id::{AssetId, ProjectId};
use crate::input::received::Received;
use crate::input::request::Scope;
use crate::outcome::{DryRun, Failure, Outcome};
use crate::settle::Settlement;

/// Most message ids in an audit line. With 100 assets it is 200 KB long; CloudWatch
/// Logs takes 256 KB.
const MOST_MESSAGE_IDS: usize = 5_000;

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
    subscriber(config, |line| {
        // A log that cannot be written is no reason to fail what was done.
        let _ = io::stdout().write_all(line);
    })
    .init();
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(display);
        tracing::error!(location, "the function panicked");
    }));
}

fn subscriber(config: TelemetryConfig, write: fn(&[u8])) -> impl Subscriber + Send + Sync {
    tracing_subscriber::registry()
        .with(JsonLines {
            service: config.service,
            metrics_level: config.metrics_level,
            write,
        })
        .with(config.filter)
        .with(filter_fn(is_allowed))
}

/// Makes the span of an invocation. The lines within it have its fields.
/// `trace_header` is X-Ray's.
pub fn invocation_span(
    function_request_id: &str,
    trace_header: Option<&str>,
    cold_start: bool,
) -> Span {
    let xray_trace_id = trace_header.and_then(trace_id);
    tracing::error_span!(
        target: INVOCATION,
        "invocation",
        function_request_id,
        xray_trace_id,
        cold_start,
        correlation_id = Empty,
    )
}

/// Returns the id of the trace in a tracing header ("Tracing header", AWS X-Ray
/// Developer Guide). The rest of the header may be a caller's text.
fn trace_id(header: &str) -> Option<&str> {
    let mut fields = header.split(';');
    let root = fields.find_map(|field| field.trim().strip_prefix("Root="))?;
    let is_id = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    (root.len() == 35 && root.bytes().all(is_id)).then_some(root)
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
    for settlement in settlements {
        log_dry_run(settlement);
    }
    let project_id = only_project(settlements).map(display);
    for document in metrics.documents(namespace, SystemTime::now()) {
        let members = object(&document);
        tracing::info!(target: METRICS, project_id, members = &members[..], "event processed");
    }
}

/// Logs assets that became absent, or that an accepted call has disassociated: those
/// that it named and the response did not. `listed` is whether a list read in this
/// invocation had them before.
pub fn log_assets<'a>(
    outcome: &Outcome,
    project_id: ProjectId,
    asset_ids: &[AssetId],
    listed: bool,
    message_ids: impl Iterator<Item = &'a str>,
) {
    #[derive(Serialize)]
    struct Audit<'a> {
        project_id: ProjectId,
        asset_ids: &'a [AssetId],
        listed: bool,
        message_ids: Vec<Uuid>,
    }
    let message_ids = message_ids.filter_map(|id| id.parse().ok());
    let members = || {
        object(&Audit {
            project_id,
            asset_ids,
            listed,
            message_ids: message_ids.take(MOST_MESSAGE_IDS).collect(),
        })
    };
    // Nothing is made where the level is off.
    match outcome {
        Outcome::Absent => tracing::info!(members = &members()[..], "assets absent"),
        _ => tracing::info!(members = &members()[..], "assets disassociated"),
    }
}

/// Logs the result of a dry run, which nothing else tells where it came over SQS.
fn log_dry_run(settlement: &Settlement<'_>) {
    let (would_disassociate, absent, unread_projects) = match &settlement.dry_run {
        None => return,
        Some(DryRun::Assets {
            would_disassociate,
            absent,
        }) => (*would_disassociate, *absent, None),
        Some(DryRun::Projects(projects)) => {
            let read = projects.iter().flat_map(|project| &project.assets);
            let unread = projects.len() - read.clone().count();
            (read.sum(), 0, Some(unread))
        }
    };
    let unresolved = settlement.unresolved.iter();
    let rejected = unresolved
        .filter(|one| one.item.asset_id().is_some())
        .count();
    let request = settlement.received.request.as_ref().ok();
    let portal_id = request.and_then(|request| match request.scope {
        Scope::Portal(portal) => Some(portal),
        Scope::Assets(_) | Scope::Project(_) => None,
    });
    tracing::info!(
        message_id = message_id(&settlement.received).map(display),
        project_id = project_id(&settlement.received).map(display),
        portal_id = portal_id.map(display),
        requested = would_disassociate + absent + rejected,
        would_disassociate,
        absent,
        rejected,
        unread_projects,
        "dry run"
    );
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

/// Logs that a record of the dead-letter queue was not dead-lettered again.
pub fn log_dead_letter_kept() {
    tracing::error!(
        "a record of the dead-letter queue failed and stays there: remove the event source \
         mapping of that queue, and redrive its messages to the work queue"
    );
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

/// Writes each event as a line.
struct JsonLines {
    service: String,
    metrics_level: &'static str,
    write: fn(&[u8]),
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JsonLines {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if attributes.metadata().target() == INVOCATION
            && let Some(span) = context.span(id)
        {
            let mut members = Members::default();
            attributes.record(&mut members);
            span.extensions_mut().insert(members);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(members) = span.extensions_mut().get_mut::<Members>()
        {
            values.record(members);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let level = match event.metadata().target() {
            METRICS => self.metrics_level,
            _ => event.metadata().level().as_str(),
        };
        let timestamp = DateTime::from(SystemTime::now()).fmt(Format::DateTime);
        let mut members = Members::default();
        members.put("level", level);
        // In RFC 3339's form, which Lambda's own filter requires.
        members.put("timestamp", timestamp.ok());
        members.put("service", &self.service);
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(invocation) = span.extensions().get::<Members>() {
                members.0.extend_from_slice(&invocation.0);
            }
        }
        event.record(&mut members);
        let mut line = members.0;
        line[0] = b'{';
        line.extend_from_slice(b"}\n");
        (self.write)(&line);
    }
}

/// Returns a value as a JSON object, for an event's field of bytes: its members
/// become the line's.
fn object(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// The members of a JSON object, each after a comma.
#[derive(Default)]
struct Members(Vec<u8>);

impl Members {
    fn put(&mut self, name: &str, value: impl Serialize) {
        let value = serde_json::to_vec(&value).unwrap_or_else(|_| b"null".to_vec());
        self.0.extend_from_slice(format!(",\"{name}\":").as_bytes());
        self.0.extend_from_slice(&value);
    }
}

impl Visit for Members {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), format_args!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field.name(), value);
    }

    /// Takes the members of an [`object`].
    fn record_bytes(&mut self, _: &Field, value: &[u8]) {
        if let [b'{', members @ .., b'}'] = value {
            self.0.push(b',');
            self.0.extend_from_slice(members);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::levels::with_required;
    use serde_json::{Value, json};
    use std::cell::RefCell;
    use std::iter;

    thread_local! {
        static WRITTEN: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }

    const PROJECT: &str = "aaaaaaaa-0000-4000-8000-000000000001";
    const ASSET: &str = "bbbbbbbb-0000-4000-8000-000000000001";
    const MESSAGE: &str = "cccccccc-0000-4000-8000-000000000001";

    /// Returns what is logged in an invocation at a level.
    fn written(filter: LevelFilter, log: impl FnOnce()) -> String {
        let config = TelemetryConfig {
            filter: with_required(Targets::new().with_default(filter), false),
            ..TelemetryConfig::default()
        };
        let subscriber = subscriber(config, |line| {
            WRITTEN.with_borrow_mut(|written| written.extend_from_slice(line));
        });
        tracing::subscriber::with_default(subscriber, || {
            invocation_span("request-1", None, false).in_scope(log);
        });
        String::from_utf8(WRITTEN.take()).expect("text")
    }

    /// Returns the one line that is logged at level INFO, without its timestamp.
    fn line(log: impl FnOnce()) -> Value {
        let written = written(LevelFilter::INFO, log);
        let mut line: Value = serde_json::from_str(&written).expect("one JSON line");
        let timestamp = line
            .as_object_mut()
            .and_then(|line| line.remove("timestamp"));
        assert!(timestamp.is_some_and(|timestamp| timestamp.is_string()));
        line
    }

    fn project() -> ProjectId {
        PROJECT.parse().expect("an id")
    }

    fn asset() -> AssetId {
        ASSET.parse().expect("an id")
    }

    #[test]
    fn audit_lines_name_project_assets_and_messages_but_no_text_of_a_sender() {
        let messages = || [MESSAGE, "canary"].into_iter();
        let audit = |message: &str, listed: bool| {
            json!({
                "level": "INFO",
                "message": message,
                "service": "sitewise-disassociator",
                "function_request_id": "request-1",
                "cold_start": false,
                "project_id": PROJECT,
                "asset_ids": [ASSET],
                "listed": listed,
                "message_ids": [MESSAGE],
            })
        };
        let disassociated = line(|| {
            log_assets(
                &Outcome::Disassociated,
                project(),
                &[asset()],
                true,
                messages(),
            );
        });
        assert_eq!(disassociated, audit("assets disassociated", true));
        let absent =
            line(|| log_assets(&Outcome::Absent, project(), &[asset()], false, messages()));
        assert_eq!(absent, audit("assets absent", false));
    }

    #[test]
    fn the_longest_audit_line_is_a_line_for_cloudwatch() {
        let written = written(LevelFilter::INFO, || {
            log_assets(
                &Outcome::Disassociated,
                project(),
                &[asset(); 100],
                false,
                iter::repeat(MESSAGE),
            );
        });
        assert!(written.len() < 256 * 1024, "{}", written.len());
        assert!(serde_json::from_str::<Value>(&written).is_ok());
    }

    #[test]
    fn an_audit_line_that_is_not_logged_costs_nothing() {
        let written = written(LevelFilter::WARN, || {
            let messages = iter::from_fn(|| unreachable!("the ids are not asked for"));
            log_assets(
                &Outcome::Disassociated,
                project(),
                &[asset()],
                true,
                messages,
            );
        });
        assert_eq!(written, "");
    }

    #[test]
    fn of_a_tracing_header_only_the_traces_id_is_logged() {
        let id = "1-5759e988-bd862e3fe1be46a994272793";
        for (header, expected) in [
            (
                format!("Root={id};Parent=53995c3f42cd8ad8;Sampled=1"),
                Some(id),
            ),
            (format!("Sampled=0; Root={id};Sender=a text"), Some(id)),
            (format!("Parent={id}"), None),
            ("Root=a text that has thirty-five letters".to_owned(), None),
        ] {
            assert_eq!(trace_id(&header), expected, "{header}");
        }
    }

    #[test]
    fn no_other_crate_logs_below_info() {
        let written = written(LevelFilter::TRACE, || {
            tracing::trace!(target: "lambda_runtime::requests", body = "canary");
            tracing::debug!(target: "hyper::proto", "canary");
            tracing::error!(target: "lambda_runtime::layers::panic", "canary");
            tracing::trace!("our own");
        });
        assert!(!written.contains("canary"), "{written}");
        assert!(written.contains("our own"), "{written}");
    }
}
