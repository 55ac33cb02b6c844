//! Makes requests to SiteWise: when each may start, and until when.
//!
//! Owns the wait for the rate limiter, the repetition of throttled requests, and
//! the stop before the deadline. It must not know what a request is for.

use std::cell::RefCell;
use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::rate_limiter::{RateLimiter, RequestKind};
use crate::aws::error::{CallFailure, FailureClass};
use crate::aws::sitewise::SiteWise;
use crate::input::id::{AssetId, ClientToken, ProjectId};
use crate::outcome::{Failure, code};

/// A request is not started with less time than this before the stop: no
/// attempt over a new connection would be likely to finish.
pub const SHORTEST_CALL: Duration = Duration::from_millis(400);

/// The requests of one invocation.
pub(super) struct Requests<'a> {
    sitewise: &'a SiteWise,
    rate_limiter: &'a Mutex<RateLimiter>,
    stop: Instant,
    /// Held by the request that is the next to start; the others queue for it.
    next: tokio::sync::Mutex<()>,
    /// Notified of each answer: it may change when the next request may start.
    answered: Notify,
    state: RefCell<State>,
}

/// How many requests were made. A throttled one that is made again counts again;
/// the SDK's retries of a request do not count.
#[derive(Clone, Debug, Default)]
pub struct RequestCounts {
    /// those that disassociate assets
    pub calls: usize,
    /// those that read a project
    pub reads: usize,
    /// those of either kind that were throttled
    pub throttled: usize,
    /// how long each took, with the SDK's retries
    pub latencies: Vec<Duration>,
}

#[derive(Default)]
struct State {
    counts: RequestCounts,
    /// by kind, what the service said when it let nothing through for too long
    given_up: [Option<Failure>; 2],
}

impl<'a> Requests<'a> {
    pub(super) fn new(
        sitewise: &'a SiteWise,
        rate_limiter: &'a Mutex<RateLimiter>,
        stop: Instant,
    ) -> Self {
        Self {
            sitewise,
            rate_limiter,
            stop,
            next: tokio::sync::Mutex::default(),
            answered: Notify::new(),
            state: RefCell::default(),
        }
    }

    /// Returns how many requests were made.
    pub(super) fn into_counts(self) -> RequestCounts {
        self.state.into_inner().counts
    }

    /// Returns whether a request that starts then would not be likely to finish.
    pub(super) fn is_too_late(&self, start: Instant) -> bool {
        start + SHORTEST_CALL > self.stop
    }

    /// Disassociates assets; see [`SiteWise::disassociate`].
    pub(super) async fn disassociate(
        &self,
        project: ProjectId,
        assets: &[AssetId],
        token: &ClientToken,
    ) -> Result<Vec<(AssetId, Failure)>, CallFailure> {
        let call = || self.sitewise.disassociate(project, assets, token);
        self.request(RequestKind::Call, call).await
    }

    /// Reads which assets a project has. `on_first_page` is called whenever its
    /// first page is asked for.
    ///
    /// A list of several pages is read twice, for entries may move from one page
    /// to another meanwhile; what either pass shows counts as listed. Where the
    /// list is empty or refused, the project may not exist: that is an error of
    /// which [`CallFailure::is_not_found`] is true.
    pub(super) async fn membership(
        &self,
        project: ProjectId,
        on_first_page: impl Fn(),
    ) -> Result<HashSet<AssetId>, CallFailure> {
        let mut listed = HashSet::new();
        for is_first_pass in [true, false] {
            let mut next: Option<String> = None;
            let mut pages = 0;
            while pages == 0 || next.is_some() {
                let page = self.request(RequestKind::Read, || {
                    if is_first_pass && pages == 0 {
                        on_first_page();
                    }
                    self.sitewise.list_assets(project, next.as_deref())
                });
                let page = match page.await {
                    Err(error) if error.class == FailureClass::Refused => {
                        self.describe(project).await?;
                        let class = FailureClass::Unexpected;
                        return Err(CallFailure { class, ..error });
                    }
                    page => page?,
                };
                listed.extend(page.assets);
                next = page.next;
                pages += 1;
            }
            if pages == 1 {
                break;
            }
        }
        if listed.is_empty() {
            self.describe(project).await?;
        }
        Ok(listed)
    }

    async fn describe(&self, project: ProjectId) -> Result<(), CallFailure> {
        self.request(RequestKind::Read, || self.sitewise.describe(project))
            .await
    }

    /// Makes a request when it may start, and again while it is throttled.
    async fn request<T, F>(&self, kind: RequestKind, send: impl Fn() -> F) -> Result<T, CallFailure>
    where
        F: Future<Output = Result<T, CallFailure>>,
    {
        let mut throttled = None;
        loop {
            let Some(started) = self.wait_for_start(kind).await else {
                let given_up = self.state.borrow().given_up[kind as usize].clone();
                let failure = throttled.or(given_up).unwrap_or_else(|| too_late(None));
                return Err(CallFailure::new(FailureClass::Throttled, failure));
            };
            let answer = timeout_at(self.stop, AssertUnwindSafe(send()).catch_unwind());
            let result = match answer.await {
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
                    continue;
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
    async fn wait_for_start(&self, kind: RequestKind) -> Option<Instant> {
        let _next = self.next.lock().await;
        loop {
            let now = Instant::now();
            let start = self.rate_limiter().next_start(now);
            if self.is_too_late(start) || self.state.borrow().given_up[kind as usize].is_some() {
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

/// Makes the failure of what there is no time for.
pub(super) fn too_late(after: Option<&Failure>) -> Failure {
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
