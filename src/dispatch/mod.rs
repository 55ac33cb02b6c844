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

mod requests;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::{Instant, sleep_until};

use crate::outcome::{Failure, Outcome, code};
use crate::pace::Pace;
use crate::plan::{Batch, first_attempts};
use crate::request::{AssetId, ProjectId};
use crate::sdk_error::FailureClass;
use crate::sitewise::SiteWise;

use requests::Requests;
pub use requests::SHORTEST_CALL;

/// How often an asset is tried that is refused alone, or that a 200 names among
/// its errors, the first time included.
pub const ASSET_ROUNDS: u32 = 3;

/// The pause before an asset's second round; it doubles for the next.
pub const ROUND_PAUSE: Duration = Duration::from_millis(250);

/// Into how many parts a refused set is split. With four, one asset at fault
/// among a hundred is found with 24 requests at most; with two it takes up to 27.
const REFUSED_PARTS: usize = 4;

/// Into how many parts a shared call is split that failed otherwise.
const FAILED_PARTS: usize = 2;

/// What came of a plan.
#[derive(Debug)]
pub struct Dispatched {
    /// For each batch, the outcome of each of its assets.
    pub outcomes: Vec<Vec<Outcome>>,
    /// `BatchDisassociateProjectAssets` calls, those throttled included; the
    /// SDK's retries of a call are not counted.
    pub calls: usize,
    /// Requests that read a project, counted likewise.
    pub reads: usize,
}

/// Runs `batches`, at most `concurrency` requests at a time and no faster than
/// `pace` allows, and returns what became of each batch's assets, in their
/// order.
///
/// Nothing runs past `stop`: what has no answer by then is unfinished.
pub async fn dispatch(
    sitewise: &SiteWise,
    pace: &Mutex<Pace>,
    batches: &[Batch],
    concurrency: usize,
    stop: Instant,
) -> Dispatched {
    let run = Run {
        requests: Requests::new(sitewise, pace, stop),
        batches,
        state: Mutex::new(State::new(batches)),
    };
    let first = first_attempts(batches).into_iter();
    let mut queue: VecDeque<Attempt> = first.map(|batch| Attempt::whole(batches, batch)).collect();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < concurrency.max(1) {
            if let Some(project) = run.state().next_project_to_read() {
                running.push(run.recheck(project).boxed());
            } else if let Some(attempt) = queue.pop_front() {
                running.push(run.attempt(attempt).boxed());
            } else {
                break;
            }
        }
        if let Some(again) = running.next().await {
            queue.extend(again);
            continue;
        }
        queue.extend(run.state().probe_deferred());
        if queue.is_empty() {
            break;
        }
    }
    drop(running);
    let Run {
        requests, state, ..
    } = run;
    let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
    let (calls, reads) = requests.counts();
    Dispatched {
        outcomes: state.into_outcomes(),
        calls,
        reads,
    }
}

/// Assets of one batch that go into one call.
#[derive(Debug)]
struct Attempt {
    batch: usize,
    /// the assets' positions in the batch
    positions: Vec<u8>,
    /// how often they were refused alone or named in a 200's errors
    round: u32,
    /// whether it is the batch as it was planned
    is_whole: bool,
    /// how many calls the service had answered when it was split off
    answers_before: usize,
}

impl Attempt {
    fn whole(batches: &[Batch], batch: usize) -> Self {
        Self {
            batch,
            positions: (0..).take(batches[batch].assets.len()).collect(),
            round: 0,
            is_whole: true,
            answers_before: 0,
        }
    }

    /// Makes an attempt with some of this one's assets.
    fn part(&self, positions: Vec<u8>) -> Self {
        Self {
            positions,
            is_whole: false,
            ..*self
        }
    }

    /// Returns how long to wait before it.
    fn pause(&self) -> Duration {
        match self.round {
            0 => Duration::ZERO,
            round => ROUND_PAUSE * 2_u32.pow(round - 1),
        }
    }
}

/// Assets with which something is wrong, as far as the service says.
#[derive(Debug)]
struct Refusal {
    attempt: Attempt,
    /// whether a 200 names them, rather than their call being refused
    is_by_name: bool,
}

struct Run<'a> {
    requests: Requests<'a>,
    batches: &'a [Batch],
    state: Mutex<State<'a>>,
}

impl<'a> Run<'a> {
    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one call and returns what is to be tried after it.
    async fn attempt(&self, mut attempt: Attempt) -> Vec<Attempt> {
        self.state().conclude_known(&mut attempt);
        if attempt.positions.is_empty() {
            return Vec::new();
        }
        let start = Instant::now() + attempt.pause();
        if self.requests.is_too_late(start) {
            self.state().end_for_lack_of_time(&attempt);
            return Vec::new();
        }
        sleep_until(start).await;
        let batch = &self.batches[attempt.batch];
        let mut assets: Vec<AssetId> = attempt
            .positions
            .iter()
            .map(|position| batch.assets[usize::from(*position)])
            .collect();
        // A token stands for a set of assets: a repeated call is the same to the
        // letter, whatever order the messages came in.
        assets.sort_unstable();
        let token = batch.token(&assets, attempt.round);
        let result = self
            .requests
            .disassociate(batch.project, &assets, &token)
            .await;

        let mut state = self.state();
        let class = match result {
            Ok(errors) => {
                let errors: HashMap<AssetId, Failure> = errors.into_iter().collect();
                let mut named = Vec::new();
                for position in &attempt.positions {
                    let error = errors.get(&batch.assets[usize::from(*position)]).cloned();
                    named.extend(error.is_some().then_some(*position));
                    let outcome = error.map_or(Outcome::Disassociated, Outcome::Unfinished);
                    state.conclude(attempt.batch, &[*position], &outcome);
                }
                if !named.is_empty() {
                    state.refused(attempt.part(named), true);
                }
                return state.answered();
            }
            Err(error) => {
                let outcome = Outcome::Unfinished(error.failure);
                state.conclude(attempt.batch, &attempt.positions, &outcome);
                error.class
            }
        };
        match class {
            FailureClass::Refused => {
                state.refused(attempt, false);
                state.answered()
            }
            FailureClass::Transient | FailureClass::Unexpected if state.is_shared(&attempt) => {
                if state.answers > attempt.answers_before {
                    return state.split(&attempt, FAILED_PARTS);
                }
                state.deferred.push(attempt);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Reads a project's membership, decides by it the refusals that came before
    /// its first page was asked for, and returns what is to be tried again.
    async fn recheck(&self, project: ProjectId) -> Vec<Attempt> {
        let refusals = Mutex::new(Vec::new());
        let take_refusals = || {
            let waiting = self.state().refusals.remove(&project);
            let mut refusals = refusals.lock().unwrap_or_else(PoisonError::into_inner);
            refusals.extend(waiting.into_iter().flatten());
        };
        let membership = self.requests.membership(project, take_refusals).await;
        if refusals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_empty()
        {
            // It never was asked for.
            take_refusals();
        }
        let refusals = refusals
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut state = self.state();
        state.reading.remove(&project);
        match membership {
            Ok(listed) => {
                let decided = refusals.into_iter();
                return decided
                    .flat_map(|refusal| state.decide(refusal, &listed))
                    .collect();
            }
            Err(error) if error.is_not_found() => {
                state.missing.insert(project, error.failure);
                for mut refusal in refusals {
                    state.conclude_known(&mut refusal.attempt);
                }
            }
            Err(error) => {
                let outcome = Outcome::Unfinished(error.failure);
                for mut refusal in refusals {
                    state.conclude_known(&mut refusal.attempt);
                    let Attempt {
                        batch, positions, ..
                    } = &refusal.attempt;
                    state.conclude(*batch, positions, &outcome);
                }
            }
        }
        Vec::new()
    }
}

/// For each asset that several batches have, the batches and its positions.
type Overlaps = HashMap<(ProjectId, AssetId), Vec<(usize, u8)>>;

/// What is known so far.
struct State<'a> {
    batches: &'a [Batch],
    /// final, or what is so if nothing more is found out
    outcomes: Vec<Vec<Outcome>>,
    /// what waits for a read of its project
    refusals: BTreeMap<ProjectId, Vec<Refusal>>,
    reading: HashSet<ProjectId>,
    /// projects that do not exist
    missing: HashMap<ProjectId, Failure>,
    /// shared calls that failed while the service answered nothing else
    deferred: Vec<Attempt>,
    /// found out when a call first fails
    overlaps: Option<Overlaps>,
    /// calls that the service has accepted, or refused for their assets
    answers: usize,
}

impl<'a> State<'a> {
    fn new(batches: &'a [Batch]) -> Self {
        // What has no other outcome in the end panicked.
        let failure = Failure::new(code::INTERNAL_ERROR, "the function failed on this batch");
        let untried =
            |batch: &Batch| vec![Outcome::Unfinished(failure.clone()); batch.assets.len()];
        Self {
            batches,
            outcomes: batches.iter().map(untried).collect(),
            refusals: BTreeMap::new(),
            reading: HashSet::new(),
            missing: HashMap::new(),
            deferred: Vec::new(),
            overlaps: None,
            answers: 0,
        }
    }

    /// Returns the final outcomes. Where several batches have an asset, it is
    /// done for all of them once it is for one.
    fn into_outcomes(mut self) -> Vec<Vec<Outcome>> {
        for places in self.overlaps.into_iter().flat_map(HashMap::into_values) {
            for done in [Outcome::Absent, Outcome::Disassociated] {
                let is_done = |(batch, position): &(usize, u8)| {
                    self.outcomes[*batch][usize::from(*position)] == done
                };
                if places.iter().any(is_done) {
                    for (batch, position) in &places {
                        self.outcomes[*batch][usize::from(*position)] = done.clone();
                    }
                }
            }
        }
        self.outcomes
    }

    fn conclude(&mut self, batch: usize, positions: &[u8], outcome: &Outcome) {
        for position in positions {
            self.outcomes[batch][usize::from(*position)] = outcome.clone();
        }
    }

    /// Concludes what of an attempt needs no call or read, and takes it out.
    fn conclude_known(&mut self, attempt: &mut Attempt) {
        // As long as nothing failed there is nothing to know.
        if self.overlaps.is_some() {
            let removed = self.removed_elsewhere(attempt);
            self.conclude(attempt.batch, &removed, &Outcome::Disassociated);
            attempt
                .positions
                .retain(|position| !removed.contains(position));
        }
        let project = self.batches[attempt.batch].project;
        if let Some(failure) = self.missing.get(&project) {
            let outcome = Outcome::Rejected(failure.clone());
            self.conclude(attempt.batch, &attempt.positions, &outcome);
            attempt.positions.clear();
        }
    }

    /// Returns those of an attempt's assets that another batch's call has taken
    /// out of the project in this invocation.
    fn removed_elsewhere(&mut self, attempt: &Attempt) -> Vec<u8> {
        let overlaps = self.overlaps.get_or_insert_with(|| overlaps(self.batches));
        let batch = &self.batches[attempt.batch];
        let is_removed = |position: &u8| {
            let asset = batch.assets[usize::from(*position)];
            let mut places = overlaps.get(&(batch.project, asset)).into_iter().flatten();
            places.any(|(batch, position)| {
                self.outcomes[*batch][usize::from(*position)] == Outcome::Disassociated
            })
        };
        attempt
            .positions
            .iter()
            .copied()
            .filter(is_removed)
            .collect()
    }

    /// Ends an attempt before its pause, which there is no time for.
    fn end_for_lack_of_time(&mut self, attempt: &Attempt) {
        for position in &attempt.positions {
            let outcome = &mut self.outcomes[attempt.batch][usize::from(*position)];
            if let Outcome::Unfinished(error) = outcome {
                *outcome = Outcome::Unfinished(requests::too_late(Some(error)));
            }
        }
    }

    /// Keeps refused assets until their project is read, unless all is known.
    fn refused(&mut self, mut attempt: Attempt, is_by_name: bool) {
        let project = self.batches[attempt.batch].project;
        let removed = self.removed_elsewhere(&attempt);
        if removed.len() == attempt.positions.len() || self.missing.contains_key(&project) {
            self.conclude_known(&mut attempt);
        } else {
            let refusal = Refusal {
                attempt,
                is_by_name,
            };
            self.refusals.entry(project).or_default().push(refusal);
        }
    }

    fn next_project_to_read(&mut self) -> Option<ProjectId> {
        let mut waiting = self.refusals.keys();
        let project = *waiting.find(|project| !self.reading.contains(project))?;
        self.reading.insert(project);
        Some(project)
    }

    /// Decides a refusal by the membership that was read after it, and returns
    /// what is to be tried again.
    fn decide(&mut self, refusal: Refusal, listed: &HashSet<AssetId>) -> Vec<Attempt> {
        let Refusal {
            mut attempt,
            is_by_name,
        } = refusal;
        let count = attempt.positions.len();
        self.conclude_known(&mut attempt);
        let assets = &self.batches[attempt.batch].assets;
        let is_listed = |position: &u8| listed.contains(&assets[usize::from(*position)]);
        let (listed, absent): (Vec<u8>, Vec<u8>) =
            attempt.positions.iter().copied().partition(is_listed);
        self.conclude(attempt.batch, &absent, &Outcome::Absent);
        let again = attempt.part(listed);
        let are_all_listed = again.positions.len() == count;
        match again.positions.len() {
            0 => Vec::new(),
            1 if are_all_listed => self.next_round(again),
            _ if is_by_name => self.next_round(again),
            _ if are_all_listed => self.split(&again, REFUSED_PARTS),
            _ => vec![again],
        }
    }

    /// Returns the next round of listed assets; after the last they are rejected.
    fn next_round(&mut self, attempt: Attempt) -> Vec<Attempt> {
        let round = attempt.round + 1;
        if round < ASSET_ROUNDS {
            return vec![Attempt { round, ..attempt }];
        }
        for position in attempt.positions {
            let outcome = &mut self.outcomes[attempt.batch][usize::from(position)];
            if let Outcome::Unfinished(error) = outcome {
                *outcome = Outcome::Rejected(error.clone());
            }
        }
        Vec::new()
    }

    /// Notes that the service has answered a call, and splits the shared calls
    /// that failed before.
    fn answered(&mut self) -> Vec<Attempt> {
        self.answers += 1;
        let deferred = std::mem::take(&mut self.deferred).into_iter();
        deferred
            .flat_map(|attempt| self.split(&attempt, FAILED_PARTS))
            .collect()
    }

    /// Returns two groups of requests of each deferred batch whose messages were
    /// delivered before. Where there are none, what is deferred stays unfinished.
    ///
    /// The groups are others at each delivery, and smaller ones, so that in the
    /// end the service answers one of them, unless it answers nothing at all.
    fn probe_deferred(&mut self) -> Vec<Attempt> {
        let mut probes = Vec::new();
        for attempt in std::mem::take(&mut self.deferred) {
            let owners = self.batches[attempt.batch].owners.iter();
            let receives = owners.map(|owner| owner.receives).max().unwrap_or_default() as usize;
            if !attempt.is_whole || receives < 2 {
                self.deferred.push(attempt);
                continue;
            }
            let mut groups = self.split(&attempt, 1 << (receives - 1).min(16));
            let count = groups.len();
            groups.rotate_left(2 * receives % count);
            self.deferred.extend(groups.split_off(2));
            probes.append(&mut groups);
        }
        probes
    }

    /// Returns an attempt's assets in up to so many attempts: the requests that
    /// share it apart, or else the assets of its one request.
    fn split(&self, attempt: &Attempt, parts: usize) -> Vec<Attempt> {
        let requests = self.by_request(attempt);
        let parts: Vec<Vec<u8>> = if requests.len() > 1 {
            even(&requests, parts).map(<[Vec<u8>]>::concat).collect()
        } else {
            even(&attempt.positions, parts)
                .map(<[u8]>::to_vec)
                .collect()
        };
        let part = |positions| Attempt {
            answers_before: self.answers,
            ..attempt.part(positions)
        };
        parts.into_iter().map(part).collect()
    }

    fn is_shared(&self, attempt: &Attempt) -> bool {
        self.by_request(attempt).len() > 1
    }

    /// Parts an attempt's assets by the requests that named them.
    fn by_request(&self, attempt: &Attempt) -> Vec<Vec<u8>> {
        let owners = &self.batches[attempt.batch].owners;
        let mut requests: BTreeMap<Vec<usize>, Vec<u8>> = BTreeMap::new();
        for position in &attempt.positions {
            let owners = owners
                .iter()
                .filter(|owner| owner.places.contains(position));
            let named_by = owners.map(|owner| owner.request).collect();
            requests.entry(named_by).or_default().push(*position);
        }
        requests.into_values().collect()
    }
}

/// Cuts a slice into so many parts of nearly the same length, or into as many
/// as it has items.
fn even<T>(items: &[T], parts: usize) -> impl Iterator<Item = &[T]> {
    let parts = parts.min(items.len());
    let end = move |part: usize| part * items.len() / parts;
    (0..parts).map(move |part| &items[end(part)..end(part + 1)])
}

/// Finds the assets that several batches have.
fn overlaps(batches: &[Batch]) -> Overlaps {
    let mut places: Vec<(ProjectId, AssetId, usize, u8)> = Vec::new();
    for (index, batch) in batches.iter().enumerate() {
        let assets = batch.assets.iter().zip(0..);
        places.extend(assets.map(|(asset, position)| (batch.project, *asset, index, position)));
    }
    places.sort_unstable();
    places
        .chunk_by(|a, b| (a.0, a.1) == (b.0, b.1))
        .filter(|same| same.len() > 1)
        .map(|same| {
            let places = same.iter().map(|(.., batch, position)| (*batch, *position));
            ((same[0].0, same[0].1), places.collect())
        })
        .collect()
}
