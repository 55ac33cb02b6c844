//! Logs and metrics.

pub mod levels;
mod logs;
pub mod metrics;

pub use logs::{
    TelemetryConfig, init, invocation_span, log_assets, log_dead_letter_kept,
    log_invocation_failure, log_not_stored, log_results, record_correlation_id,
};
