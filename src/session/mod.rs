//! The requests of one invocation to SiteWise: when each may start, and until when.
//!
//! Owns the wait for the rate limiter, the repetition of throttled requests, the
//! stop before the deadline, and the pages of a list. It must not know what a
//! request is for.

mod list;
pub mod rate_limiter;

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::aws::error::{CallFailure, FailureClass};
use crate::aws::sitewise::SiteWise;
use crate::input::id::{AssetId, ClientToken, ProjectId};
use crate::outcome::{Failure, code};

pub use list::List;
use rate_limiter::{RateLimiter, RequestKind};

/// A request is not started with less time than this before the stop: no
/// attempt over a new connection would be likely to finish.
pub const SHORTEST_CALL: Duration = Duration::from_millis(400);

/// The requests of one invocation.
#[derive(Debug)]
pub struct Session<'a> {
    sitewise: &'a SiteWise,
    rate_limiter: &'a Mutex<RateLimiter>,
    concurrency: usize,
    /// A permit for each request that may be in flight.
    permits: Semaphore,
    /// Held by the request that is the next to start; the others queue for it.
    next: tokio::sync::Mutex<()>,
    /// Notified of each response: it may change when the next request may start.
    answered: Notify,
    state: RefCell<State>,
}

/// How many requests were made. A throttled one that is made again counts again;
/// the SDK's retries of a request do not count.
#[derive(Clone, Debug, Default)]
pub struct RequestCounts {
    /// those that disassociate assets
    pub calls: usize,
    /// those that read a project or a portal
    pub reads: usize,
    /// those of either kind that were throttled
    pub throttled: usize,
    /// how long each took, with the SDK's retries
    pub latencies: Vec<Duration>,
}

#[derive(Debug, Default)]
struct State {
    counts: RequestCounts,
    /// by kind, what the service said when it let nothing through for too long
    given_up: [Option<Failure>; 2],
}

impl<'a> Session<'a> {
    /// Starts a session of at most `concurrency` requests at a time.
    pub fn new(
        sitewise: &'a SiteWise,
        rate_limiter: &'a Mutex<RateLimiter>,
        concurrency: usize,
    ) -> Self {
        let concurrency = concurrency.max(1);
        Self {
            sitewise,
            rate_limiter,
            concurrency,
            permits: Semaphore::new(concurrency),
            next: tokio::sync::Mutex::default(),
            answered: Notify::new(),
            state: RefCell::default(),
        }
    }

    /// Returns how many requests may be in flight.
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Runs futures that make requests, and returns their results in order. As many
    /// run at a time as requests may be in flight: of several requests each, some
    /// futures end before the others begin, so that a stop leaves some of them done.
    pub async fn run_all<F: Future>(&self, futures: impl Iterator<Item = F>) -> Vec<F::Output> {
        let numbered = futures
            .enumerate()
            .map(|(number, future)| future.map(move |result| (number, result)));
        let running = stream::iter(numbered).buffer_unordered(self.concurrency);
        let mut results: Vec<(usize, F::Output)> = running.collect().await;
        results.sort_unstable_by_key(|(number, _)| *number);
        results.into_iter().map(|(_, result)| result).collect()
    }

    /// Returns how many requests were made.
    pub fn into_counts(self) -> RequestCounts {
        self.state.into_inner().counts
    }

    /// Disassociates assets before `stop`; see [`SiteWise::disassociate`].
    pub async fn disassociate(
        &self,
        project: ProjectId,
        assets: &[AssetId],
        token: &ClientToken,
        stop: Instant,
    ) -> Result<Vec<(AssetId, Failure)>, CallFailure> {
        let call = || self.sitewise.disassociate(project, assets, token);
        self.request(RequestKind::Call, stop, call).await
    }

    /// Makes a request when it may start, and again while it is throttled.
    async fn request<T, F>(
        &self,
        kind: RequestKind,
        stop: Instant,
        send: impl Fn() -> F,
    ) -> Result<T, CallFailure>
    where
        F: Future<Output = Result<T, CallFailure>>,
    {
        let _permit = self.permits.acquire().await;
        let mut throttled = None;
        loop {
            let Some(started) = self.wait_for_start(kind, stop).await else {
                let given_up = self.state.borrow().given_up[kind as usize].clone();
                let failure = throttled.or(given_up).unwrap_or_else(|| too_late(None));
                return Err(CallFailure::new(FailureClass::Throttled, failure));
            };
            let response = timeout_at(stop, AssertUnwindSafe(send()).catch_unwind());
            let result = match response.await {
                Ok(Ok(result)) => result,
                Ok(Err(_panic)) => {
                    let failure = Failure::new(code::INTERNAL_ERROR, "the request panicked");
                    Err(CallFailure::new(FailureClass::Unexpected, failure))
                }
                Err(_elapsed) => Err(CallFailure::stopped()),
            };
            let latency = started.elapsed();
            self.state.borrow_mut().counts.latencies.push(latency);
            match result {
                Err(error) if error.class == FailureClass::Throttled => {
                    self.throttled(kind, started, &error);
                    throttled = Some(error.failure);
                }
                Err(error) if error.class != FailureClass::Refused => return Err(error),
                answered => {
                    self.rate_limiter().accepted(kind, started, Instant::now());
                    self.answered.notify_one();
                    return answered;
                }
            }
        }
    }

    /// Waits until a request may start, and returns when it does; `None` where
    /// all of its kind are given up, or there is no time.
    async fn wait_for_start(&self, kind: RequestKind, stop: Instant) -> Option<Instant> {
        let _next = self.next.lock().await;
        loop {
            let now = Instant::now();
            let start = self.rate_limiter().next_start(now);
            if is_too_late(start, stop) || self.state.borrow().given_up[kind as usize].is_some() {
                return None;
            }
            if start <= now {
                self.rate_limiter().started(now, fastrand::f64());
                let counts = &mut self.state.borrow_mut().counts;
                match kind {
                    RequestKind::Call => counts.calls += 1,
                    RequestKind::Read => counts.reads += 1,
                }
                return Some(now);
            }
            // Either way it is looked at again.
            let _ = timeout_at(start, self.answered.notified()).await;
        }
    }

    fn throttled(&self, kind: RequestKind, started: Instant, error: &CallFailure) {
        let (mut rate_limiter, now) = (self.rate_limiter(), Instant::now());
        let mut state = self.state.borrow_mut();
        state.counts.throttled += 1;
        rate_limiter.throttled(kind, started, now, error.pause);
        if rate_limiter.should_give_up(kind, now) {
            state.given_up[kind as usize] = Some(error.failure.clone());
        }
        drop(rate_limiter);
        self.answered.notify_one();
    }

    fn rate_limiter(&self) -> MutexGuard<'a, RateLimiter> {
        self.rate_limiter
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether a request that starts then would not be likely to finish.
pub(crate) fn is_too_late(start: Instant, stop: Instant) -> bool {
    start + SHORTEST_CALL > stop
}

/// Makes the failure of what there is no time for.
pub(crate) fn too_late(after: Option<&Failure>) -> Failure {
    let time = "too little time left before the Lambda deadline";
    let message = match after {
        None => time.to_owned(),
        Some(error) => format!(
            "{time} to try again after {}: {}",
            error.code(),
            error.message()
        ),
    };
    Failure::new(code::DEADLINE_REACHED, message)
}
