//! Which lines are logged.
//!
//! Owns the names of the log levels, and what is logged, or kept out of the log,
//! whatever the configured filter says.

use tracing::{Level, Metadata};
use tracing_subscriber::filter::{LevelFilter, Targets};

/// The beginning of the targets of this function's own lines.
const FUNCTION: &str = "sitewise_disassociator";

/// The target of the span that names the invocation.
pub(super) const INVOCATION: &str = "sitewise_disassociator::invocation";

/// The target of the lines that have the metrics.
pub(super) const METRICS: &str = "sitewise_disassociator::metrics";

/// The module of the Lambda runtime that logs the handler's errors. The function
/// has logged them already.
const RUNTIME_ERRORS: &str = "lambda_runtime::layers::panic";

/// Returns the level that a name of Lambda's or Powertools' stands for.
pub fn level(name: &str) -> Option<LevelFilter> {
    Some(match name.to_ascii_uppercase().as_str() {
        "TRACE" => LevelFilter::TRACE,
        "DEBUG" => LevelFilter::DEBUG,
        "INFO" => LevelFilter::INFO,
        "WARN" | "WARNING" => LevelFilter::WARN,
        "ERROR" | "FATAL" | "CRITICAL" => LevelFilter::ERROR,
        _ => return None,
    })
}

/// Returns the lowest level from INFO up that passes Lambda's own filter. That
/// filter takes a line without a level for INFO ("Log-level filtering", AWS
/// Lambda Developer Guide), and metrics are lost with their line.
pub fn metrics_level(lambda_level: &str) -> &'static str {
    match lambda_level.to_ascii_uppercase().as_str() {
        "WARN" | "WARNING" => "WARN",
        "ERROR" => "ERROR",
        "FATAL" | "CRITICAL" => "FATAL",
        _ => "INFO",
    }
}

/// Adds what is logged whatever the configured filter says: the invocation's
/// ids in each line, and the metrics if they have a namespace.
pub fn with_required(filter: Targets, has_metrics: bool) -> Targets {
    let filter = filter.with_target(INVOCATION, LevelFilter::ERROR);
    if has_metrics {
        filter.with_target(METRICS, LevelFilter::INFO)
    } else {
        filter
    }
}

/// Returns whether a line may be logged at all. Below INFO, other crates log
/// what they send and receive: the Lambda runtime the event, the AWS SDK requests
/// and responses, with client tokens and message bodies.
pub(super) fn is_allowed(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    target.starts_with(FUNCTION) || (*metadata.level() <= Level::INFO && target != RUNTIME_ERRORS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_the_names_of_lambda_and_of_powertools() {
        for (name, expected, of_metrics) in [
            ("TRACE", LevelFilter::TRACE, "INFO"),
            ("debug", LevelFilter::DEBUG, "INFO"),
            ("INFO", LevelFilter::INFO, "INFO"),
            ("WARN", LevelFilter::WARN, "WARN"),
            ("Warning", LevelFilter::WARN, "WARN"),
            ("ERROR", LevelFilter::ERROR, "ERROR"),
            ("FATAL", LevelFilter::ERROR, "FATAL"),
            ("CRITICAL", LevelFilter::ERROR, "FATAL"),
        ] {
            assert_eq!(level(name), Some(expected), "{name}");
            assert_eq!(metrics_level(name), of_metrics, "{name}");
        }
        assert_eq!(level("LOUD"), None);
    }

    #[test]
    fn metrics_with_a_namespace_and_ids_of_the_invocation_pass_every_filter() {
        for filter in ["off", "info", "sitewise_disassociator=off"] {
            for has_metrics in [true, false] {
                let requested: Targets = filter.parse().expect("a filter");
                let filter = with_required(requested, has_metrics);
                assert!(filter.would_enable(INVOCATION, &Level::ERROR));
                let is_logged = filter.would_enable(METRICS, &Level::INFO);
                let is_requested = filter.would_enable("sitewise_disassociator", &Level::INFO);
                assert_eq!(is_logged, has_metrics || is_requested, "{filter}");
            }
        }
    }
}
