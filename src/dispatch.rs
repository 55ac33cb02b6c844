//! Runs the planned batches and finds out what became of every asset.
//!
//! Owns the order of calls, concurrency, the retry of assets, the split of
//! batches that fail, and the stop before the deadline (contract, section 4).
//! It must not know about SQS.
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

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::outcome::{Failure, Outcome, code};
use crate::pace::{Kind, Pace};
use crate::plan::Batch;
use crate::request::{AssetId, ProjectId};
use crate::sdk_error::{CallFailure, FailureClass};
use crate::sitewise::{AssetError, SiteWise};

/// How often an asset is tried that is refused alone, or that a 200 names among
/// its errors, the first time included.
pub const ASSET_ROUNDS: u32 = 3;

/// The pause before an asset's second round; it doubles for the next.
pub const ROUND_PAUSE: Duration = Duration::from_millis(250);

/// A request is not started with less time than this before the stop: no
/// attempt over a new connection would be likely to finish.
pub const SHORTEST_CALL: Duration = Duration::from_millis(400);

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
        sitewise,
        pace,
        batches,
        stop,
        line: tokio::sync::Mutex::default(),
        news: Notify::new(),
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
        match running.next().await {
            Some(again) => queue.extend(again),
            None => queue.extend(run.state().probe_deferred()),
        }
        if running.is_empty() && queue.is_empty() && run.state().is_settled() {
            break;
        }
    }
    drop(running);
    let state = run.state.into_inner();
    state.unwrap_or_else(PoisonError::into_inner).finish()
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
    /// why it is not the first
    last_error: Option<Failure>,
}

impl Attempt {
    fn whole(batches: &[Batch], batch: usize) -> Self {
        Self {
            batch,
            positions: (0..).take(batches[batch].assets.len()).collect(),
            round: 0,
            is_whole: true,
            last_error: None,
        }
    }

    /// Makes an attempt with some of this one's assets.
    fn part(&self, positions: Vec<u8>) -> Self {
        Self {
            positions,
            is_whole: false,
            last_error: self.last_error.clone(),
            ..*self
        }
    }
}

/// An attempt that shows that something is wrong with its assets.
#[derive(Debug)]
struct Refusal {
    attempt: Attempt,
    /// the failure of each asset
    failures: Vec<Failure>,
    /// whether a 200 names the assets, rather than the whole call being refused
    is_by_name: bool,
}

/// What reading a project showed.
enum Membership {
    Listed(HashSet<AssetId>),
    ProjectMissing(Failure),
    Unreadable(Failure),
}

struct Run<'a> {
    sitewise: &'a SiteWise,
    pace: &'a Mutex<Pace>,
    batches: &'a [Batch],
    stop: Instant,
    /// The requests that wait until they may start, in the order of their coming.
    line: tokio::sync::Mutex<()>,
    /// Notified of each answer: it may change when the next request may start.
    news: Notify,
    state: Mutex<State<'a>>,
}

impl<'a> Run<'a> {
    fn state(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes one call and returns what is to be tried after it.
    async fn attempt(&self, mut attempt: Attempt) -> Vec<Attempt> {
        if !self.state().conclude_known(&mut attempt) {
            return Vec::new();
        }
        let pause = Instant::now() + round_pause(attempt.round);
        if pause + SHORTEST_CALL <= self.stop {
            sleep_until(pause).await;
        }
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
        let answers_before = self.state().answers;
        let call = || self.sitewise.disassociate(batch.project, &assets, &token);
        let result = self
            .request(Kind::Call, attempt.last_error.as_ref(), call)
            .await;
        let mut state = self.state();
        match result {
            Ok(errors) => {
                state.called(&attempt, errors);
                state.answered()
            }
            Err(error) => match error.class {
                FailureClass::Refused => {
                    let failures = vec![error.failure; attempt.positions.len()];
                    state.refused(Refusal {
                        attempt,
                        failures,
                        is_by_name: false,
                    });
                    state.answered()
                }
                FailureClass::Transient | FailureClass::Unexpected
                    if state.by_request(&attempt).len() > 1 =>
                {
                    if state.answers > answers_before {
                        return state.split(&attempt, FAILED_PARTS);
                    }
                    state.deferred.push((attempt, error.failure));
                    Vec::new()
                }
                _ => {
                    state.conclude(&attempt, &Outcome::Unfinished(error.failure));
                    Vec::new()
                }
            },
        }
    }

    /// Reads a project's membership, decides by it the refusals that came before
    /// its first page was asked for, and returns what is to be tried again.
    async fn recheck(&self, project: ProjectId) -> Vec<Attempt> {
        let refusals = Mutex::new(Vec::new());
        let take_refusals = || {
            let mut refusals = refusals.lock().unwrap_or_else(PoisonError::into_inner);
            refusals.append(&mut self.state().refusals.remove(&project).unwrap_or_default());
        };
        let membership = self.membership(project, take_refusals).await;
        let mut state = self.state();
        state.reading.remove(&project);
        let refusals = refusals
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let decided = refusals.into_iter();
        match membership {
            Membership::Listed(listed) => decided
                .flat_map(|refusal| state.decide(refusal, &listed))
                .collect(),
            Membership::ProjectMissing(failure) => {
                state.missing.insert(project, failure);
                decided.for_each(|refusal| state.refused(refusal));
                Vec::new()
            }
            Membership::Unreadable(failure) => {
                let outcome = Outcome::Unfinished(failure);
                decided.for_each(|refusal| state.conclude(&refusal.attempt, &outcome));
                Vec::new()
            }
        }
    }

    /// Reads which assets a project has. `on_first_page` is called when its first
    /// page is asked for, or cannot be.
    ///
    /// A list of several pages is read twice, for entries may move from one page
    /// to another meanwhile; what either pass shows counts as listed.
    async fn membership(&self, project: ProjectId, on_first_page: impl Fn()) -> Membership {
        let mut listed = HashSet::new();
        for pass in 0..2 {
            let mut next: Option<String> = None;
            let mut pages = 0;
            while pages == 0 || next.is_some() {
                let page = self.request(Kind::Read, None, || {
                    if pass == 0 && pages == 0 {
                        on_first_page();
                    }
                    self.sitewise.list_assets(project, next.as_deref())
                });
                match page.await {
                    Ok(page) => {
                        listed.extend(page.assets);
                        next = page.next;
                        pages += 1;
                    }
                    Err(error) if error.class == FailureClass::Refused => {
                        return self.describe(project, Some(error.failure)).await;
                    }
                    Err(error) => {
                        if pass == 0 && pages == 0 {
                            on_first_page();
                        }
                        return Membership::Unreadable(error.failure);
                    }
                }
            }
            if pages == 1 {
                break;
            }
        }
        if listed.is_empty() {
            return self.describe(project, None).await;
        }
        Membership::Listed(listed)
    }

    /// Finds out whether a project exists whose list is empty or refused.
    async fn describe(&self, project: ProjectId, refused_list: Option<Failure>) -> Membership {
        let described = self.request(Kind::Read, None, || self.sitewise.describe(project));
        match (described.await, refused_list) {
            (Ok(()), None) => Membership::Listed(HashSet::new()),
            (Ok(()), Some(failure)) => Membership::Unreadable(failure),
            (Err(error), _) if error.is_not_found() => Membership::ProjectMissing(error.failure),
            (Err(error), _) => Membership::Unreadable(error.failure),
        }
    }

    /// Makes a request when it may start, and again while it is throttled.
    /// `after` is what it is made again for.
    async fn request<T, F>(
        &self,
        kind: Kind,
        after: Option<&Failure>,
        send: impl Fn() -> F,
    ) -> Result<T, CallFailure>
    where
        F: Future<Output = Result<T, CallFailure>>,
    {
        let mut throttled = None;
        loop {
            let Some(started) = self.turn(kind).await else {
                let given_up = self.state().given_up[kind as usize].clone();
                let failure = throttled.or(given_up).unwrap_or_else(|| too_late(after));
                return Err(CallFailure::new(FailureClass::Throttled, failure));
            };
            let answer = timeout_at(self.stop, AssertUnwindSafe(send()).catch_unwind());
            let error = match answer.await {
                Ok(Ok(Ok(value))) => {
                    self.accepted(kind, started);
                    return Ok(value);
                }
                Ok(Ok(Err(error))) => error,
                Ok(Err(_panic)) => CallFailure::new(FailureClass::Unexpected, panicked()),
                Err(_elapsed) => CallFailure::new(FailureClass::Transient, cut_off()),
            };
            match error.class {
                FailureClass::Throttled => {
                    self.throttled(kind, started, &error);
                    throttled = Some(error.failure);
                }
                FailureClass::Refused => {
                    self.accepted(kind, started);
                    return Err(error);
                }
                _ => return Err(error),
            }
        }
    }

    /// Waits until a request may start, and returns when it does; `None` where
    /// it may not, for all of its kind are given up or there is no time.
    async fn turn(&self, kind: Kind) -> Option<Instant> {
        let _first_in_line = self.line.lock().await;
        loop {
            let now = Instant::now();
            let start = self.pace().next_start(now);
            if start + SHORTEST_CALL > self.stop || self.state().given_up[kind as usize].is_some() {
                return None;
            }
            if start <= now {
                self.pace().started(now, fastrand::f64());
                self.state().requests[kind as usize] += 1;
                return Some(now);
            }
            // Either way it is looked at again.
            let _ = timeout_at(start, self.news.notified()).await;
        }
    }

    fn accepted(&self, kind: Kind, started: Instant) {
        self.pace().accepted(kind, started, Instant::now());
        self.news.notify_one();
    }

    fn throttled(&self, kind: Kind, started: Instant, error: &CallFailure) {
        let (mut pace, now) = (self.pace(), Instant::now());
        pace.throttled(kind, started, now, error.pause);
        if pace.is_hopeless(kind, now) {
            self.state().given_up[kind as usize] = Some(error.failure.clone());
        }
        drop(pace);
        self.news.notify_one();
    }
}

/// For each asset that several batches have, the batches and its positions.
type Overlaps = HashMap<(ProjectId, AssetId), Vec<(usize, u8)>>;

/// What is known so far.
struct State<'a> {
    batches: &'a [Batch],
    outcomes: Vec<Vec<Option<Outcome>>>,
    /// refusals that wait for a read of their project
    refusals: BTreeMap<ProjectId, Vec<Refusal>>,
    reading: HashSet<ProjectId>,
    /// projects that do not exist
    missing: HashMap<ProjectId, Failure>,
    /// shared calls that failed while the service answered nothing else
    deferred: Vec<(Attempt, Failure)>,
    /// found out when a call first fails
    overlaps: Option<Overlaps>,
    /// calls that the service has accepted, or refused for their assets
    answers: usize,
    /// by kind: what the service said when it let nothing through for too long
    given_up: [Option<Failure>; 2],
    /// by kind
    requests: [usize; 2],
}

impl<'a> State<'a> {
    fn new(batches: &'a [Batch]) -> Self {
        let assets = batches.iter().map(|batch| batch.assets.len());
        Self {
            batches,
            outcomes: assets.map(|count| vec![None; count]).collect(),
            refusals: BTreeMap::new(),
            reading: HashSet::new(),
            missing: HashMap::new(),
            deferred: Vec::new(),
            overlaps: None,
            answers: 0,
            given_up: [None, None],
            requests: [0; 2],
        }
    }

    /// Returns what became of everything. An asset whose end was not seen is a
    /// defect.
    fn finish(self) -> Dispatched {
        let or_panicked =
            |outcome: Option<Outcome>| outcome.unwrap_or_else(|| Outcome::Unfinished(panicked()));
        let outcomes = self.outcomes.into_iter();
        Dispatched {
            outcomes: outcomes
                .map(|batch| batch.into_iter().map(or_panicked).collect())
                .collect(),
            calls: self.requests[Kind::Call as usize],
            reads: self.requests[Kind::Read as usize],
        }
    }

    fn next_project_to_read(&mut self) -> Option<ProjectId> {
        let mut waiting = self.refusals.keys();
        let project = *waiting.find(|project| !self.reading.contains(project))?;
        self.reading.insert(project);
        Some(project)
    }

    fn is_settled(&self) -> bool {
        self.refusals.is_empty() && self.deferred.is_empty()
    }

    fn conclude(&mut self, attempt: &Attempt, outcome: &Outcome) {
        self.conclude_positions(attempt, &attempt.positions, outcome);
    }

    fn conclude_positions(&mut self, attempt: &Attempt, positions: &[u8], outcome: &Outcome) {
        for position in positions {
            self.outcomes[attempt.batch][usize::from(*position)] = Some(outcome.clone());
        }
    }

    /// Concludes what needs no call, takes it out of the attempt, and returns
    /// whether anything is left.
    fn conclude_known(&mut self, attempt: &mut Attempt) -> bool {
        // Without a failure so far there is nothing to know.
        if self.overlaps.is_some() {
            let removed = self.removed_elsewhere(attempt);
            self.conclude_positions(attempt, &removed, &Outcome::Disassociated);
            attempt
                .positions
                .retain(|position| !removed.contains(position));
        }
        let project = self.batches[attempt.batch].project;
        if let Some(failure) = self.missing.get(&project) {
            let outcome = Outcome::Rejected(failure.clone());
            self.conclude(attempt, &outcome);
            attempt.positions.clear();
        }
        !attempt.positions.is_empty()
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
                self.outcomes[*batch][usize::from(*position)] == Some(Outcome::Disassociated)
            })
        };
        attempt
            .positions
            .iter()
            .copied()
            .filter(is_removed)
            .collect()
    }

    /// Takes a 200 whose errors name these assets; all others are done.
    fn called(&mut self, attempt: &Attempt, errors: Vec<AssetError>) {
        let errors: HashMap<AssetId, Failure> = errors
            .into_iter()
            .map(|error| (error.asset, error.failure))
            .collect();
        let assets = &self.batches[attempt.batch].assets;
        let error = |position: &u8| errors.get(&assets[usize::from(*position)]);
        let positions = attempt.positions.iter().copied();
        let (named, done): (Vec<u8>, Vec<u8>) =
            positions.partition(|position| error(position).is_some());
        self.conclude_positions(attempt, &done, &Outcome::Disassociated);
        if !named.is_empty() {
            self.refused(Refusal {
                failures: named.iter().filter_map(error).cloned().collect(),
                attempt: attempt.part(named),
                is_by_name: true,
            });
        }
    }

    /// Keeps a refusal until its project is read, unless all is known already.
    fn refused(&mut self, mut refusal: Refusal) {
        let project = self.batches[refusal.attempt.batch].project;
        let removed = self.removed_elsewhere(&refusal.attempt);
        if removed.len() == refusal.attempt.positions.len() || self.missing.contains_key(&project) {
            self.conclude_known(&mut refusal.attempt);
        } else {
            self.refusals.entry(project).or_default().push(refusal);
        }
    }

    /// Decides a refusal by the membership that was read after it, and returns
    /// what is to be tried again.
    fn decide(&mut self, refusal: Refusal, listed: &HashSet<AssetId>) -> Vec<Attempt> {
        let mut attempt = refusal.attempt;
        let before = attempt.positions.clone();
        self.conclude_known(&mut attempt);
        let assets = &self.batches[attempt.batch].assets;
        let is_listed = |position: &u8| listed.contains(&assets[usize::from(*position)]);
        let (listed, absent): (Vec<u8>, Vec<u8>) =
            attempt.positions.iter().copied().partition(is_listed);
        self.conclude_positions(&attempt, &absent, &Outcome::Absent);
        let are_all_listed = listed.len() == before.len();
        if listed.is_empty() {
            Vec::new()
        } else if refusal.is_by_name || (are_all_listed && listed.len() == 1) {
            let failures: HashMap<u8, Failure> = before.into_iter().zip(refusal.failures).collect();
            self.next_round(&attempt, listed, &failures)
        } else if are_all_listed {
            self.split(&attempt, REFUSED_PARTS)
        } else {
            vec![attempt.part(listed)]
        }
    }

    /// Returns the next attempt with listed assets; after the last round they
    /// are rejected.
    fn next_round(
        &mut self,
        attempt: &Attempt,
        listed: Vec<u8>,
        failures: &HashMap<u8, Failure>,
    ) -> Vec<Attempt> {
        let round = attempt.round + 1;
        if round < ASSET_ROUNDS {
            let last_error = listed.last().and_then(|last| failures.get(last)).cloned();
            return vec![Attempt {
                round,
                last_error,
                ..attempt.part(listed)
            }];
        }
        for position in listed {
            let outcome = Outcome::Rejected(failures[&position].clone());
            self.conclude_positions(attempt, &[position], &outcome);
        }
        Vec::new()
    }

    /// Notes that the service has answered a call, so that shared calls that
    /// failed are split, and returns their parts.
    fn answered(&mut self) -> Vec<Attempt> {
        self.answers += 1;
        let deferred = std::mem::take(&mut self.deferred).into_iter();
        deferred
            .flat_map(|(attempt, _)| self.split(&attempt, FAILED_PARTS))
            .collect()
    }

    /// Returns two groups of requests of each deferred batch whose messages were
    /// delivered before, or else ends what is deferred.
    ///
    /// The groups are others at each delivery, and smaller ones, so that in the
    /// end the service answers one of them, unless it answers nothing at all.
    fn probe_deferred(&mut self) -> Vec<Attempt> {
        let mut probes = Vec::new();
        for (attempt, failure) in std::mem::take(&mut self.deferred) {
            let owners = self.batches[attempt.batch].owners.iter();
            let receives = owners.map(|owner| owner.receives).max().unwrap_or_default() as usize;
            if !attempt.is_whole || receives < 2 {
                self.deferred.push((attempt, failure));
                continue;
            }
            let requests = self.by_request(&attempt);
            let count = requests.len().min(1 << (receives - 1).min(16));
            let mut groups: Vec<Vec<u8>> =
                even(&requests, count).map(<[Vec<u8>]>::concat).collect();
            groups.rotate_left(2 * receives % count);
            let rest = groups.split_off(2).concat();
            probes.extend(groups.into_iter().map(|group| attempt.part(group)));
            if !rest.is_empty() {
                self.deferred.push((attempt.part(rest), failure));
            }
        }
        if probes.is_empty() {
            for (attempt, failure) in std::mem::take(&mut self.deferred) {
                self.conclude(&attempt, &Outcome::Unfinished(failure));
            }
        }
        probes
    }

    /// Returns an attempt's assets in several attempts: the requests that share
    /// it apart, or else the assets of its one request.
    fn split(&self, attempt: &Attempt, parts: usize) -> Vec<Attempt> {
        let requests = self.by_request(attempt);
        let parts: Vec<Vec<u8>> = if requests.len() > 1 {
            even(&requests, parts).map(<[Vec<u8>]>::concat).collect()
        } else {
            even(&attempt.positions, parts)
                .map(<[u8]>::to_vec)
                .collect()
        };
        parts.into_iter().map(|part| attempt.part(part)).collect()
    }

    /// Parts an attempt's assets by the requests that named them.
    fn by_request(&self, attempt: &Attempt) -> Vec<Vec<u8>> {
        let owners = &self.batches[attempt.batch].owners;
        let mut requests: BTreeMap<Vec<usize>, Vec<u8>> = BTreeMap::new();
        for position in &attempt.positions {
            let named_by = owners
                .iter()
                .filter(|owner| owner.places.contains(position))
                .map(|owner| owner.request)
                .collect();
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

/// Returns the batches in the order in which they are first tried.
///
/// The first batch of each message that is delivered for the first time comes
/// first, so that no message waits for all the others. The rest goes message by
/// message, those delivered most often first: where the time does not suffice
/// for all, each delivery finishes some.
fn first_attempts(batches: &[Batch]) -> Vec<usize> {
    let mut first_batches: HashMap<usize, usize> = HashMap::new();
    for (index, batch) in batches.iter().enumerate() {
        for owner in &batch.owners {
            first_batches.entry(owner.request).or_insert(index);
        }
    }
    let mut order: Vec<usize> = (0..batches.len()).collect();
    order.sort_by_cached_key(|index| {
        let owners = &batches[*index].owners;
        let is_first_of_new = owners
            .iter()
            .any(|owner| owner.receives <= 1 && first_batches[&owner.request] == *index);
        let receives = owners.iter().map(|owner| owner.receives).max();
        let request = owners.iter().map(|owner| owner.request).min();
        (!is_first_of_new, Reverse(receives), request)
    });
    order
}

/// Returns the pause before a round.
fn round_pause(round: u32) -> Duration {
    match round {
        0 => Duration::ZERO,
        _ => ROUND_PAUSE * 2_u32.pow(round - 1),
    }
}

fn panicked() -> Failure {
    Failure::new(
        code::INTERNAL_ERROR,
        "the function failed while it worked on this batch",
    )
}

fn cut_off() -> Failure {
    Failure::new(
        code::TIMEOUT,
        "no answer in the time left before the Lambda deadline",
    )
}

/// Makes the failure of a request for which there is no time.
fn too_late(after: Option<&Failure>) -> Failure {
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
