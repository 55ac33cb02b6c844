//! How the time of an invocation is divided.
//!
//! Owns what is kept free before the Lambda deadline.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Most time kept free before the deadline for dead letters and the response; a
/// fifth of the time that an invocation has, where that is less.
pub const RESERVE: Duration = Duration::from_secs(3);

/// Least time kept free before the deadline for dead letters and the response.
pub const LEAST_RESERVE: Duration = Duration::from_millis(300);

/// Time kept free for the response alone.
pub const RESPONSE_RESERVE: Duration = Duration::from_millis(100);

/// Time assumed where the runtime gives no real deadline.
const UNKNOWN_TIME_LEFT: Duration = Duration::from_secs(60);

/// A deadline that is past by more than this is none.
const OLDEST_DEADLINE: Duration = Duration::from_secs(3600);

/// Returns the time before a deadline, as the Lambda Runtime API gives it.
///
/// Lambda's own is never long past. `cargo lambda watch` gives one of 1970,
/// which would leave no time for anything.
pub fn time_left(deadline: SystemTime, now: SystemTime) -> Duration {
    match deadline.duration_since(now) {
        Ok(left) => left,
        Err(past) if past.duration() > OLDEST_DEADLINE => UNKNOWN_TIME_LEFT,
        Err(_) => Duration::ZERO,
    }
}

/// When each stage of an invocation must be over.
#[derive(Clone, Copy, Debug)]
pub struct Stops {
    /// Lists before the calls: half of the time for requests.
    pub lists: Instant,
    /// Requests to SiteWise.
    pub requests: Instant,
    /// Dead letters and parts.
    pub writes: Instant,
}

impl Stops {
    /// Divides the time that is left before a deadline.
    pub fn before(deadline: Instant) -> Self {
        let now = Instant::now();
        let left = deadline.saturating_duration_since(now);
        let before = |reserve| deadline.checked_sub(reserve).unwrap_or(now);
        let requests = before((left / 5).clamp(LEAST_RESERVE, RESERVE));
        Self {
            lists: now + requests.saturating_duration_since(now) / 2,
            requests,
            writes: before(RESPONSE_RESERVE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_deadline_that_is_long_past_is_none() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_407_660);
        let second = Duration::from_secs(1);
        for (deadline, left) in [
            (now + 30 * second, 30 * second),
            (now, Duration::ZERO),
            (now - second, Duration::ZERO),
            (now - 3600 * second, Duration::ZERO),
            (now - 3601 * second, 60 * second),
            (SystemTime::UNIX_EPOCH + 600 * second, 60 * second),
        ] {
            assert_eq!(time_left(deadline, now), left);
        }
    }
}
