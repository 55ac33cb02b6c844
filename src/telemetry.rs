//! What the function tells about itself: log lines.
//!
//! Owns the log's format. Every line is one JSON object; none holds a payload
//! or a token, and none the text of a panic.

use std::collections::BTreeMap;

use tracing_subscriber::EnvFilter;

use crate::handler::Stored;
use crate::outcome::{Failure, code};
use crate::settle::Settlement;

/// Sets up the log for the process, from `filter` up.
///
/// From here on a panic is logged by its place alone: its text may quote what
/// an event carried.
pub fn init(filter: EnvFilter) {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_target(false)
        .init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        tracing::error!(place, "a part of the function panicked");
    }));
}

/// Tells what became of an invocation: one line for the whole, one for each
/// code among its failures.
pub fn report(settlements: &[Settlement], calls: usize, stored: Stored) {
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
        calls,
        disassociated,
        dead_letters = stored.dead_letters,
        parts = stored.parts,
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
