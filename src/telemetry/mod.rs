//! What the function tells its operators: log lines, one of which has the
//! metrics.

mod logs;
pub mod metrics;

pub use logs::{TelemetryConfig, begin_invocation, failed, init, not_stored, report, set_messages};
