//! Runs the planned batches and finds out what became of every asset.
//!
//! Owns the retry of assets, the split of batches that fail, and what reading a
//! project decides (contract, section 4). It must not know about SQS.
//!
//! One queue of attempts. A failed attempt gives smaller attempts, or the same
//! one with a higher round, or outcomes:
//!
//! - Named in a 200's errors, or refused (400, 404): the project's membership is
//!   read. An asset that is not listed is absent. Listed ones are tried again:
//!   those named, together; those refused, without the absent ones, or split
//!   until the asset at fault is alone.
//! - Failed otherwise, in a call that several requests share: split between the
//!   requests, once the service answers other calls. It may be an asset of one
//!   request that makes the call fail.
//! - Failed otherwise: unfinished.

mod attempt;
mod isolation;
mod state;

use std::cell::RefCell;
use std::collections::VecDeque;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep_until};

use crate::input::id::ProjectId;
use crate::outcome::Outcome;
use crate::plan::{Batch, first_attempts};
use crate::session::{Session, is_too_late};

use attempt::Attempt;
use state::State;

/// Makes the calls of `batches` and returns, for each batch, what became of its
/// assets, in their order.
///
/// Nothing runs past `stop`: what has no response by then is unfinished.
pub async fn dispatch(
    session: &Session<'_>,
    batches: &[Batch<'_>],
    stop: Instant,
) -> Vec<Vec<Outcome>> {
    let run = Run {
        session,
        stop,
        batches,
        state: RefCell::new(State::new(batches)),
    };
    let first = first_attempts(batches).into_iter();
    let mut queue: VecDeque<Attempt> = first.map(|batch| Attempt::whole(batches, batch)).collect();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < session.concurrency() {
            if let Some(project) = run.state.borrow_mut().next_project_to_read() {
                running.push(run.recheck(project).boxed_local());
            } else if let Some(attempt) = run.take_next(&mut queue) {
                running.push(run.attempt(attempt).boxed_local());
            } else {
                break;
            }
        }
        let has_room = running.len() < session.concurrency();
        let now = Instant::now();
        let starts = queue.iter().filter_map(|attempt| attempt.not_before);
        let wake = starts.filter(|start| *start > now).min();
        tokio::select! {
            biased;
            Some(again) = running.next() => queue.extend(again),
            () = sleep_until(wake.unwrap_or(stop)), if has_room && wake.is_some() => {}
            else => {
                queue.extend(run.state.borrow_mut().probe_deferred());
                if queue.is_empty() {
                    break;
                }
            }
        }
    }
    drop(running);
    run.state.into_inner().into_outcomes()
}

struct Run<'a> {
    session: &'a Session<'a>,
    stop: Instant,
    batches: &'a [Batch<'a>],
    state: RefCell<State<'a>>,
}

impl Run<'_> {
    /// Takes the first attempt that need not wait, or waits in vain.
    fn take_next(&self, queue: &mut VecDeque<Attempt>) -> Option<Attempt> {
        let (now, state) = (Instant::now(), self.state.borrow());
        let is_due = |at: Instant| at <= now || is_too_late(at, self.stop);
        let is_free = |attempt: &Attempt| {
            let project = self.batches[attempt.batch].project;
            attempt.not_before.is_none_or(is_due) && !state.is_in_doubt(project)
        };
        let first = queue
            .iter()
            .position(|attempt| is_free(attempt) && !attempt.is_suspect);
        queue.remove(first.or_else(|| queue.iter().position(is_free))?)
    }

    /// Makes one call and returns what is to be tried after it.
    async fn attempt(&self, mut attempt: Attempt) -> Vec<Attempt> {
        self.state.borrow_mut().conclude_known(&mut attempt);
        if attempt.assets.is_empty() {
            return Vec::new();
        }
        let start = attempt.not_before;
        if start.is_some_and(|start| is_too_late(start, self.stop)) {
            self.state.borrow_mut().end_for_lack_of_time(&attempt);
            return Vec::new();
        }
        let batch = &self.batches[attempt.batch];
        let token = batch.token(&attempt.assets, attempt.round);
        let call = self
            .session
            .disassociate(batch.project, &attempt.assets, &token, self.stop);
        let result = call.await;
        let mut state = self.state.borrow_mut();
        match result {
            Ok(errors) => state.accepted(&attempt, errors),
            Err(error) => state.failed(attempt, &error),
        }
    }

    /// Reads a project's membership, decides by it the refusals that came before
    /// its first page was asked for, and returns what is to be tried again.
    async fn recheck(&self, project: ProjectId) -> Vec<Attempt> {
        let refusals = RefCell::new(Vec::new());
        let take_refusals = || {
            let mut refusals = refusals.borrow_mut();
            refusals.extend(self.state.borrow_mut().take_refusals(project));
        };
        let list = self.session.list_assets(project, self.stop, take_refusals);
        let membership = list.await.complete();
        if refusals.borrow().is_empty() {
            // It was never asked for.
            take_refusals();
        }
        let mut state = self.state.borrow_mut();
        state.read(project, refusals.into_inner(), membership)
    }
}
