//! What the function tells about itself: log lines.
//!
//! Owns the log's format: every line is one JSON object with the key names of
//! Powertools for AWS Lambda. None holds a payload or a token, and none the
//! text of a panic.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::outcome::{Failure, code};
use crate::settle::Settlement;

/// Sets up the log of the process, which names itself `service`, from `filter` up.
///
/// From here on a panic is logged by its place alone: its text may quote what
/// an event carried.
pub fn init(service: String, filter: EnvFilter) {
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .event_format(Lines { service })
        .init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "a part of the function panicked");
    }));
}

/// The invocation under way; Lambda gives a process one at a time.
static INVOCATION: Mutex<Option<Named>> = Mutex::new(None);

#[derive(Clone, Serialize)]
struct Named {
    cold_start: bool,
    function_request_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    xray_trace_id: Option<String>,
}

fn invocation() -> MutexGuard<'static, Option<Named>> {
    INVOCATION.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names the invocation that the lines to come are about.
pub fn enter(request_id: &str, xray_trace_id: Option<&str>) {
    let mut invocation = invocation();
    *invocation = Some(Named {
        cold_start: invocation.is_none(),
        function_request_id: request_id.to_owned(),
        xray_trace_id: xray_trace_id.map(ToOwned::to_owned),
    });
}

struct Lines {
    service: String,
}

#[derive(Serialize)]
struct Line<'a> {
    level: &'a str,
    message: &'a str,
    timestamp: &'a str,
    service: &'a str,
    #[serde(flatten)]
    invocation: Option<Named>,
    #[serde(flatten)]
    fields: Map<String, Value>,
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
        let timestamp = DateTime::from(SystemTime::now())
            .fmt(Format::DateTime)
            .map_err(|_| fmt::Error)?;
        let line = Line {
            level: event.metadata().level().as_str(),
            message: &fields.message,
            timestamp: &timestamp,
            service: &self.service,
            invocation: invocation().clone(),
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

/// What an invocation did, apart from what became of its messages.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work {
    /// calls made, without the SDK's retries
    pub calls: usize,
    /// dead letters stored
    pub dead_letters: usize,
    /// parts stored
    pub parts: usize,
}

/// Tells what became of an invocation: one line for the whole, one for each
/// code among its failures.
pub fn report(settlements: &[Settlement], work: Work) {
    let disassociated: usize = settlements
        .iter()
        .map(|settlement| settlement.disassociated)
        .sum();
    let kept_at_source = settlements
        .iter()
        .filter(|settlement| settlement.must_stay())
        .count();
    let mut failures: BTreeMap<(&str, bool), (usize, &Failure)> = BTreeMap::new();
    for rest in settlements.iter().flat_map(|settlement| &settlement.rest) {
        if let Some(failure) = &rest.failure {
            failures
                .entry((failure.code(), rest.retryable))
                .or_insert((0, failure))
                .0 += 1;
        }
    }
    for ((code, retryable), (count, first)) in &failures {
        // Those two quote what the event carried.
        let quotes_the_event = [code::INVALID_REQUEST, code::INVALID_ASSET_ID].contains(code);
        let first_message = (!quotes_the_event).then(|| first.message());
        tracing::warn!(
            code,
            retryable,
            count,
            first_message,
            "assets or requests failed"
        );
    }
    tracing::info!(
        messages = settlements.len(),
        calls = work.calls,
        disassociated,
        dead_letters = work.dead_letters,
        parts = work.parts,
        kept_at_source,
        "event worked off"
    );
}

/// Tells that a dead letter or a part could not be stored.
pub fn not_stored(failure: &Failure) {
    tracing::error!(
        code = failure.code(),
        first_message = failure.message(),
        "a dead letter or a part could not be stored"
    );
}
