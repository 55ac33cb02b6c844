//! Runs a plan: which call next, and what became of every asset.
//!
//! Owns concurrency, the retry of named assets and of throttled calls, the
//! narrowing down of refused batches and the stop before the deadline. It must
//! not know about SQS.
//!
//! A refused call (400, 404) does not say whose fault it is. The rules by
//! which the culprits are found:
//!
//! 1. An asset is rejected when a call with it alone is refused.
//! 2. A refused batch is split: into what the message names and the rest,
//!    else between requests, else in the middle; the parts are tried again.
//! 3. While nothing shows that the project exists, a few assets are tried
//!    alone first. When each of [`PROBES`] assets was refused, none by a
//!    message that names it, and none ever accepted, the project is presumed to
//!    be the culprit, so that a project that does not exist costs a handful of
//!    calls. One request's assets say nothing about another's: they are
//!    presumed only from their own request's refusals, or where every message
//!    names the project itself and speaks of no asset ("Project … not found"; not
//!    "Asset not found in project …", which is true of one asset only).
//! 4. While a project is in doubt, its other batches wait.
//! 5. Where [`PROBES`] assets of a batch were refused alone, and fewer were
//!    accepted, most are likely to be at fault (a message that is delivered once
//!    more when its assets are long gone): each is then tried alone, as long as
//!    that holds, for parts of the batch would only be refused as well.
//! 6. Parts of a batch are tried at the same time, unless the project is in
//!    doubt: what one of them shows may save the others. The smallest go first,
//!    for they show most.
//!
//! Batches are tried in the order in which they finish messages: first those
//! of the messages that were delivered most often, then message by message.
//! Where the time does not suffice for all, some are finished all the same.
//!
//! A throttled call is made again, with its token, when its turn comes by the
//! [`pace`](crate::pace) of all calls. Where nothing is let through for long
//! enough, all that is left is given up together.
//!
//! What failed for the moment otherwise is tried once more when everything
//! else is over, and again, as long as each pass over the rest has had an
//! answer and there is time: a service that gives some answers gives the others
//! soon, and a message with one asset left would be worked off all over again.
//! A batch of several requests for which the service answered with an error is
//! halved between them: it may be an asset of one that it fails on. Where nothing
//! is answered, nothing is tried once more, but for one request of such a batch,
//! another at each delivery after the first: it may be all that there is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::outcome::{Failure, Outcome, code};
use crate::pace::Pace;
use crate::plan::Batch;
use crate::request::{AssetId, ProjectId};
use crate::sdk_error::{CallFailure, FailureClass};
use crate::sitewise::{AssetError, SiteWise};

/// How often an asset is tried that a 200 names among its errors, the first
/// time included.
pub const ASSET_ATTEMPTS: u32 = 3;

/// The pause before the first retry of named assets; it doubles each time.
pub const ASSET_RETRY_PAUSE: Duration = Duration::from_millis(250);

/// How many assets, refused alone, make a project the presumed culprit.
pub const PROBES: usize = 5;

/// The pause before what failed for the moment is tried once more.
pub const PASS_PAUSE: Duration = Duration::from_secs(1);

/// A call is not started with less time than this before the stop: no attempt
/// over a new connection would be likely to finish.
pub const SHORTEST_CALL: Duration = Duration::from_millis(400);

/// Runs `batches`, at most `concurrency` calls at a time and no faster than
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
    let calls = Calls {
        sitewise,
        batches,
        stop,
        pace,
        line: tokio::sync::Mutex::default(),
        news: Notify::new(),
        state: Mutex::default(),
    };
    let mut outcomes: Vec<Vec<Option<Outcome>>> = batches
        .iter()
        .map(|batch| vec![None; batch.assets.len()])
        .collect();
    let mut schedule = Schedule::new(batches);
    let mut running = FuturesUnordered::new();
    let mut later: Vec<Later> = Vec::new();
    let mut may_sound = true;
    loop {
        while running.len() < concurrency.max(1)
            && let Some(job) = schedule.next(&calls)
        {
            let (batch, finds_culprits) = (job.batch, job.finds_culprits);
            let run = AssertUnwindSafe(calls.run(job)).catch_unwind();
            running.push(run.map(move |done| (batch, finds_culprits, done)));
        }
        let Some((batch, finds_culprits, done)) = running.next().await else {
            let again = Instant::now() + PASS_PAUSE;
            if later.is_empty() || calls.is_too_late(again) {
                break;
            }
            let next = if calls.take_has_answer() {
                may_sound = true;
                let later = later.drain(..);
                later.flat_map(|later| later.halved(batches)).collect()
            } else if std::mem::take(&mut may_sound) {
                sounding(&mut later, batches).into_iter().collect()
            } else {
                Vec::new()
            };
            if next.is_empty() {
                break;
            }
            sleep_until(again).await;
            schedule.start_again(next);
            continue;
        };
        // A job that panicked leaves its assets without an outcome.
        let done = done.unwrap_or_default();
        schedule.go_on(batch, done.parts);
        later.extend(done.later);
        for (place, outcome) in done.outcomes {
            outcomes[batch][usize::from(place)] = Some(outcome);
        }
        schedule.finished(&calls, batch, finds_culprits, done.refused);
    }
    drop(running);
    for later in later {
        for place in later.subset.places {
            outcomes[later.batch][usize::from(place)] =
                Some(Outcome::Unfinished(later.failure.clone()));
        }
    }

    let state = calls
        .state
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    Dispatched {
        outcomes: outcomes
            .into_iter()
            .map(|batch| {
                batch
                    .into_iter()
                    .map(|found| found.unwrap_or_else(panicked))
                    .collect()
            })
            .collect(),
        calls: state.calls,
    }
}

/// What came of a plan.
#[derive(Debug)]
pub struct Dispatched {
    /// For each batch, the outcome of each of its assets.
    pub outcomes: Vec<Vec<Outcome>>,
    /// Calls made, those throttled included; the SDK's retries of a call are
    /// not counted.
    pub calls: usize,
}

fn panicked() -> Outcome {
    Outcome::Unfinished(panic_failure())
}

fn panic_failure() -> Failure {
    Failure::new(
        code::INTERNAL_ERROR,
        "the function failed while it worked on this batch",
    )
}

/// Assets of one batch that go into one call.
#[derive(Clone, Debug)]
struct Subset {
    /// their places in the batch
    places: Vec<u8>,
    /// how often they were named in a 200's errors
    round: u32,
    /// what the service last said of one of them
    last_error: Option<Failure>,
    /// what kept them from being finished on an earlier pass
    setback: Option<Failure>,
}

impl Subset {
    /// Makes a subset of these places, with the same past.
    fn part(&self, places: Vec<u8>) -> Self {
        Self {
            places,
            round: self.round,
            last_error: self.last_error.clone(),
            setback: self.setback.clone(),
        }
    }
}

/// Assets whose call failed for the moment.
#[derive(Debug)]
struct Later {
    batch: usize,
    subset: Subset,
    failure: Failure,
    /// whether the service has said so, and has done nothing
    is_answer: bool,
    finds_culprits: bool,
}

impl Later {
    fn part(&self, places: Vec<u8>) -> Self {
        Self {
            subset: self.subset.part(places),
            failure: self.failure.clone(),
            ..*self
        }
    }

    /// Halves it between requests, where the service fails on some of them.
    fn halved(self, batches: &[Batch]) -> Vec<Self> {
        let (batch, places) = (&batches[self.batch], &self.subset.places);
        if !self.is_answer || by_request(batch, places).len() < 2 {
            return vec![self];
        }
        let (first, second) = halves(batch, places);
        vec![self.part(first), self.part(second)]
    }
}

/// Takes one request out of those that share a call, where they have come before:
/// the next one at each delivery.
fn sounding(later: &mut Vec<Later>, batches: &[Batch]) -> Option<Later> {
    let (index, receives, mut requests) = later.iter().enumerate().find_map(|(index, later)| {
        let batch = &batches[later.batch];
        let requests = by_request(batch, &later.subset.places);
        let receives = batch.owners.iter().map(|owner| owner.receives).max()?;
        (later.is_answer && receives > 1 && requests.len() > 1)
            .then_some((index, receives, requests))
    })?;
    let shared = later.swap_remove(index);
    let alone = requests.remove(receives as usize % requests.len());
    later.push(shared.part(requests.concat()));
    Some(shared.part(alone))
}

#[derive(Debug)]
struct Refusal {
    subset: Subset,
    failure: Failure,
}

/// Work on one batch.
#[derive(Debug)]
struct Job {
    batch: usize,
    start: Vec<Subset>,
    refused: Vec<Refusal>,
    finds_culprits: bool,
}

impl Job {
    /// Makes a job of assets that are still to be tried.
    fn new(batch: usize, untried: Subset, finds_culprits: bool) -> Self {
        Self {
            batch,
            start: vec![untried],
            refused: Vec::new(),
            finds_culprits,
        }
    }

    /// How many assets it is about.
    fn size(&self) -> usize {
        let refused = self.refused.iter().map(|refusal| &refusal.subset);
        let subsets = self.start.iter().chain(refused);
        subsets.map(|subset| subset.places.len()).sum()
    }
}

/// What came of a job.
#[derive(Debug, Default)]
struct Done {
    outcomes: Vec<(u8, Outcome)>,
    /// Refused subsets that the job left for one that finds culprits.
    refused: Vec<Refusal>,
    /// Parts of a refused batch that the job left to be tried at the same time.
    parts: Vec<Subset>,
    /// Subsets whose call failed for the moment.
    later: Vec<Later>,
}

/// Which job is next: those of a project in doubt wait until one of them has
/// found out whether the project exists.
///
/// Every batch is tried before any is taken apart, those of the requests that
/// were delivered most often first, then an earlier request's before a later
/// one's: where the time does not suffice for all, some messages are finished
/// all the same, and fewer come again.
struct Schedule<'a> {
    batches: &'a [Batch],
    first_tries: VecDeque<Job>,
    /// by the batch's rank, the number of assets, and the order of arrival
    culprits: BTreeMap<(Rank, usize, usize, usize), Job>,
    arrived: usize,
    in_doubt: HashMap<ProjectId, Vec<Job>>,
}

impl<'a> Schedule<'a> {
    fn new(batches: &'a [Batch]) -> Self {
        let mut order: Vec<usize> = (0..batches.len()).collect();
        order.sort_by_cached_key(|index| rank(&batches[*index]));
        let first_tries = order
            .into_iter()
            .map(|index| {
                let whole = Subset {
                    places: (0..).take(batches[index].assets.len()).collect(),
                    round: 0,
                    last_error: None,
                    setback: None,
                };
                Job::new(index, whole, false)
            })
            .collect();
        Self {
            batches,
            first_tries,
            culprits: BTreeMap::new(),
            arrived: 0,
            in_doubt: HashMap::new(),
        }
    }

    fn next(&mut self, calls: &Calls<'_>) -> Option<Job> {
        while let Some(job) = self.first_tries.pop_front() {
            let project = self.batches[job.batch].project;
            let Some(waiting) = self.in_doubt.get_mut(&project) else {
                return Some(job);
            };
            waiting.push(job);
        }
        let (_, mut job) = self.culprits.pop_first()?;
        if let [untried] = &mut job.start[..]
            && untried.round == 0
            && let [first, rest @ ..] = &untried.places[..]
            && !rest.is_empty()
            && calls.state().is_mostly_refused(job.batch)
        {
            let (first, rest) = (untried.part(vec![*first]), untried.part(rest.to_vec()));
            *untried = first;
            self.go_on(job.batch, vec![rest]);
        }
        Some(job)
    }

    fn push(&mut self, job: Job) {
        if job.finds_culprits {
            self.push_culprits(job);
        } else {
            self.first_tries.push_back(job);
        }
    }

    fn push_culprits(&mut self, job: Job) {
        let rank = rank(&self.batches[job.batch]);
        self.arrived += 1;
        self.culprits
            .insert((rank, job.batch, job.size(), self.arrived), job);
    }

    /// Makes a job of each part of a refused batch.
    fn go_on(&mut self, batch: usize, parts: Vec<Subset>) {
        for part in parts {
            self.push_culprits(Job::new(batch, part, true));
        }
    }

    /// Makes a job of each subset whose call failed for the moment.
    fn start_again(&mut self, later: Vec<Later>) {
        for later in later {
            let untried = Subset {
                setback: Some(later.failure),
                ..later.subset
            };
            self.push(Job::new(later.batch, untried, later.finds_culprits));
        }
    }

    fn finished(
        &mut self,
        calls: &Calls<'_>,
        batch: usize,
        finds_culprits: bool,
        refused: Vec<Refusal>,
    ) {
        let project = self.batches[batch].project;
        if finds_culprits || calls.state().exists(project) {
            for job in self.in_doubt.remove(&project).unwrap_or_default() {
                self.push(job);
            }
        }
        if refused.is_empty() {
            return;
        }
        let job = Job {
            batch,
            start: Vec::new(),
            refused,
            finds_culprits: true,
        };
        if let Some(waiting) = self.in_doubt.get_mut(&project) {
            waiting.push(job);
            return;
        }
        if !calls.state().exists(project) {
            self.in_doubt.insert(project, Vec::new());
        }
        self.push_culprits(job);
    }
}

/// What comes first: most deliveries, then the first request.
type Rank = (Reverse<u32>, usize);

fn rank(batch: &Batch) -> Rank {
    let owners = batch.owners.iter();
    let receives = owners.clone().map(|owner| owner.receives).max();
    let first = owners.map(|owner| owner.request).min();
    (
        Reverse(receives.unwrap_or_default()),
        first.unwrap_or_default(),
    )
}

/// What all jobs know together.
#[derive(Debug, Default)]
struct State {
    calls: usize,
    /// Whether the service has answered for an asset since this was last asked.
    has_answer: bool,
    /// What the service said when it let nothing through for too long.
    given_up: Option<Failure>,
    evidence: HashMap<ProjectId, Evidence>,
    /// by batch
    tried: HashMap<usize, Tried>,
}

/// How many of a batch's assets were refused alone, and how many were in a call
/// that was not.
#[derive(Clone, Copy, Debug, Default)]
struct Tried {
    refused: usize,
    accepted: usize,
}

/// What the answers so far say about one project.
#[derive(Debug, Default)]
struct Evidence {
    /// Some call was answered with a 200.
    exists: bool,
    /// For each request, how many of its assets were refused alone, by
    /// messages that did not name them.
    refused_alone: HashMap<usize, usize>,
    /// For each message that names the project and speaks of no asset, how many
    /// assets were refused alone with it.
    project_named: HashMap<Failure, usize>,
    /// What the service last said of an asset refused alone.
    refusal: Option<Failure>,
}

impl State {
    fn exists(&self, project: ProjectId) -> bool {
        self.evidence
            .get(&project)
            .is_some_and(|evidence| evidence.exists)
    }

    /// Tells whether most of a batch's assets are likely to be refused: see the
    /// module's rule 5.
    fn is_mostly_refused(&self, batch: usize) -> bool {
        self.tried
            .get(&batch)
            .is_some_and(|tried| tried.refused >= PROBES && tried.refused > tried.accepted)
    }
}

impl Evidence {
    /// Tells whether an asset of `requests` may be taken for refused because
    /// its project is: see the module's rule 3.
    fn presumes_refused(&self, requests: &[usize]) -> bool {
        let is_enough = |count: &usize| *count >= PROBES;
        !self.exists
            && (self.project_named.values().any(is_enough)
                || requests
                    .iter()
                    .all(|request| self.refused_alone.get(request).is_some_and(is_enough)))
    }
}

/// Why a call gave no list of errors.
enum Missed {
    /// The time left was too short to start.
    TooLate,
    /// The call failed.
    Failed(CallFailure),
}

struct Calls<'a> {
    sitewise: &'a SiteWise,
    batches: &'a [Batch],
    stop: Instant,
    pace: &'a Mutex<Pace>,
    /// The calls that wait for their turn, in the order of their coming.
    line: tokio::sync::Mutex<()>,
    /// An answer has come, which may change when the next call's turn is.
    news: Notify,
    state: Mutex<State>,
}

impl Calls<'_> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether the service has answered since this was last asked.
    fn take_has_answer(&self) -> bool {
        std::mem::take(&mut self.state().has_answer)
    }

    async fn run(&self, job: Job) -> Done {
        let mut work = Work {
            calls: self,
            index: job.batch,
            batch: &self.batches[job.batch],
            finds_culprits: job.finds_culprits,
            stack: job.start,
            done: Done::default(),
        };
        for refusal in job.refused {
            work.find_culprits(refusal).await;
            work.share();
        }
        while let Some(subset) = work.stack.pop() {
            work.attempt(subset).await;
            work.share();
        }
        work.done
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells whether a call that starts then would not be likely to finish.
    fn is_too_late(&self, start: Instant) -> bool {
        start + SHORTEST_CALL > self.stop
    }

    /// Waits until a call may start, and returns when it does.
    async fn turn(&self) -> Result<Instant, Missed> {
        let _first_in_line = self.line.lock().await;
        loop {
            if let Some(failure) = self.state().given_up.clone() {
                return Err(Missed::Failed(CallFailure::new(
                    FailureClass::Throttled,
                    failure,
                )));
            }
            let now = Instant::now();
            let start = self.pace().next_start(now);
            if self.is_too_late(start) {
                return Err(Missed::TooLate);
            }
            if start <= now {
                self.pace().started(now, fastrand::f64());
                return Ok(now);
            }
            // Either way it is looked at again.
            let _ = timeout_at(start, self.news.notified()).await;
        }
    }

    /// Makes a call, and makes it again while it is throttled.
    async fn call(
        &self,
        batch: &Batch,
        places: &[u8],
        round: u32,
    ) -> Result<Vec<AssetError>, Missed> {
        let mut assets: Vec<AssetId> = places
            .iter()
            .map(|place| batch.assets[usize::from(*place)])
            .collect();
        // A token stands for a set of assets: the call that repeats it is the same
        // to the letter, whatever order the messages came in.
        assets.sort_unstable();
        let token = batch.token(&assets, round);
        let mut throttled = None;
        loop {
            let start = match (self.turn().await, throttled) {
                (Ok(start), _) => start,
                (Err(Missed::TooLate), Some(failure)) => return Err(Missed::Failed(failure)),
                (Err(missed), _) => return Err(missed),
            };
            self.state().calls += 1;
            let call = self.sitewise.disassociate(batch.project, &assets, &token);
            let answer = timeout_at(self.stop, AssertUnwindSafe(call).catch_unwind()).await;
            match answer {
                Ok(Ok(Ok(errors))) => {
                    self.answered(start);
                    self.state()
                        .evidence
                        .entry(batch.project)
                        .or_default()
                        .exists = true;
                    return Ok(errors);
                }
                Ok(Ok(Err(failure))) if failure.class == FailureClass::Throttled => {
                    self.throttled(start, &failure);
                    throttled = Some(failure);
                }
                Ok(Ok(Err(failure))) => {
                    if failure.class == FailureClass::Refused {
                        self.answered(start);
                    }
                    return Err(Missed::Failed(failure));
                }
                Ok(Err(_panic)) => {
                    return Err(Missed::Failed(CallFailure::new(
                        FailureClass::Unexpected,
                        panic_failure(),
                    )));
                }
                Err(_elapsed) => {
                    return Err(Missed::Failed(CallFailure::new(
                        FailureClass::Transient,
                        Failure::of_pace(
                            code::TIMEOUT,
                            "no answer in the time left before the Lambda deadline",
                        ),
                    )));
                }
            }
        }
    }

    /// Notes that the service has answered for the assets of a call.
    fn answered(&self, start: Instant) {
        self.state().has_answer = true;
        self.pace().accepted(start, Instant::now());
        self.news.notify_one();
    }

    fn throttled(&self, start: Instant, failure: &CallFailure) {
        let (mut pace, now) = (self.pace(), Instant::now());
        pace.throttled(start, now, failure.pause);
        if pace.is_hopeless(now) {
            self.state().given_up = Some(failure.failure.clone());
        }
        drop(pace);
        self.news.notify_one();
    }
}

/// A job at work on its batch.
struct Work<'a> {
    calls: &'a Calls<'a>,
    /// the place of the batch among all
    index: usize,
    batch: &'a Batch,
    finds_culprits: bool,
    stack: Vec<Subset>,
    done: Done,
}

impl Work<'_> {
    /// Leaves the rest to be tried at the same time, where it may be: see the
    /// module's rule 6.
    fn share(&mut self) {
        let state = self.calls.state();
        let is_in_doubt = !state.exists(self.batch.project) && !state.is_mostly_refused(self.index);
        if self.finds_culprits && !is_in_doubt {
            self.done.parts.append(&mut self.stack);
        }
    }

    async fn attempt(&mut self, mut subset: Subset) {
        self.reject_presumed(&mut subset.places);
        if subset.places.is_empty() {
            return;
        }
        if subset.round > 0 {
            let again = Instant::now() + ASSET_RETRY_PAUSE * 2_u32.pow(subset.round - 1);
            if self.calls.is_too_late(again) {
                self.too_late(&subset);
                return;
            }
            sleep_until(again).await;
        }
        let Some(failure) = self.call(&subset).await else {
            return;
        };
        let refusal = Refusal { subset, failure };
        if self.finds_culprits {
            self.find_culprits(refusal).await;
        } else {
            self.done.refused.push(refusal);
        }
    }

    /// Makes a call and takes its answer. Returns the failure of a refused
    /// call, which says nothing yet about its assets.
    async fn call(&mut self, subset: &Subset) -> Option<Failure> {
        let answer = self.calls.call(self.batch, &subset.places, subset.round);
        match answer.await {
            Ok(errors) => self.answered(subset, errors),
            Err(Missed::TooLate) => self.too_late(subset),
            Err(Missed::Failed(failed)) => match failed.class {
                FailureClass::Refused => return Some(failed.failure),
                FailureClass::Transient => self.later(subset, failed),
                FailureClass::Unexpected
                    if failed.is_answer && by_request(self.batch, &subset.places).len() > 1 =>
                {
                    self.later(subset, failed);
                }
                FailureClass::Throttled | FailureClass::Denied | FailureClass::Unexpected => {
                    self.conclude(&subset.places, &Outcome::Unfinished(failed.failure));
                }
            },
        }
        None
    }

    fn later(&mut self, subset: &Subset, failed: CallFailure) {
        self.done.later.push(Later {
            batch: self.index,
            subset: subset.clone(),
            failure: failed.failure,
            is_answer: failed.is_answer,
            finds_culprits: self.finds_culprits,
        });
    }

    fn conclude(&mut self, places: &[u8], outcome: &Outcome) {
        self.done
            .outcomes
            .extend(places.iter().map(|place| (*place, outcome.clone())));
    }

    fn too_late(&mut self, subset: &Subset) {
        if let Some(failure) = &subset.setback {
            let outcome = Outcome::Unfinished(failure.clone());
            self.conclude(&subset.places, &outcome);
            return;
        }
        let message = match &subset.last_error {
            None => "too little time left before the Lambda deadline".to_owned(),
            Some(error) => format!(
                "too little time left before the Lambda deadline to try again after {}: {}",
                error.code(),
                error.message()
            ),
        };
        let failure = Failure::new(code::DEADLINE_REACHED, message);
        self.conclude(&subset.places, &Outcome::Unfinished(failure));
    }

    /// Takes a 200: assets in `errors` are tried again or rejected, all others
    /// are done.
    fn answered(&mut self, subset: &Subset, errors: Vec<AssetError>) {
        let mut state = self.calls.state();
        state.tried.entry(self.index).or_default().accepted += subset.places.len();
        drop(state);
        let failures: HashMap<AssetId, Failure> = errors
            .into_iter()
            .map(|error| (error.asset, error.failure))
            .collect();
        let is_last_round = subset.round + 1 >= ASSET_ATTEMPTS;
        let mut again = Vec::new();
        let mut last_error = None;
        for place in &subset.places {
            match failures.get(&self.batch.assets[usize::from(*place)]) {
                None => self.conclude(&[*place], &Outcome::Disassociated),
                Some(failure) if is_last_round => {
                    self.conclude(&[*place], &Outcome::Rejected(failure.clone()));
                }
                Some(failure) => {
                    again.push(*place);
                    last_error = Some(failure.clone());
                }
            }
        }
        if !again.is_empty() {
            self.stack.push(Subset {
                places: again,
                round: subset.round + 1,
                last_error,
                setback: None,
            });
        }
    }

    /// Takes a refused subset apart. What it leaves on the stack is smaller.
    async fn find_culprits(&mut self, refusal: Refusal) {
        let Refusal {
            mut subset,
            failure,
        } = refusal;
        if let [place] = subset.places[..] {
            self.refused_alone(place, failure);
            return;
        }
        self.reject_presumed(&mut subset.places);
        if subset.places.is_empty() {
            return;
        }
        let (named, rest) = self.named_in(failure.message(), &subset.places);
        if !named.is_empty() && !rest.is_empty() {
            self.push(&subset, rest);
            self.push(&subset, named);
            return;
        }
        let project = self.batch.project;
        let mut places = subset.places.clone();
        if !self.calls.state().exists(project) {
            let refused = self.probe(&subset, &mut places).await;
            self.reject_presumed(&mut places);
            match refused {
                Refused::Nothing => {}
                Refused::Part => {
                    self.push(&subset, places);
                    return;
                }
                Refused::All => {
                    for group in by_request(self.batch, &places) {
                        self.push(&subset, group);
                    }
                    return;
                }
            }
        }
        let (first, second) = halves(self.batch, &places);
        self.push(&subset, second);
        self.push(&subset, first);
    }

    /// Tries assets of `places` alone, one after the other, until one is not
    /// refused, and takes those it tried out of `places`.
    async fn probe(&mut self, subset: &Subset, places: &mut Vec<u8>) -> Refused {
        let mut refused = Refused::Nothing;
        let count = PROBES.min(places.len());
        let probes: Vec<u8> = (0..count)
            .map(|number| places[number * places.len() / count])
            .collect();
        for place in probes {
            let alone = subset.part(vec![place]);
            let refusal = self.call(&alone).await;
            places.retain(|other| *other != place);
            let Some(failure) = refusal else {
                // Where it was not accepted either, there is more to fail.
                let is_accepted = self.calls.state().exists(self.batch.project);
                return if is_accepted { refused } else { Refused::Part };
            };
            self.refused_alone(place, failure);
            refused = Refused::Part;
        }
        Refused::All
    }

    /// Rejects an asset that was refused in a call of its own. Unless the
    /// message says that it is the asset, it may be the project.
    fn refused_alone(&mut self, place: u8, failure: Failure) {
        let (named, _) = self.named_in(failure.message(), &[place]);
        let project = self.batch.project;
        let mut state = self.calls.state();
        state.tried.entry(self.index).or_default().refused += 1;
        let evidence = state.evidence.entry(project).or_default();
        if named.is_empty() {
            for request in requests_of(self.batch, place) {
                *evidence.refused_alone.entry(request).or_default() += 1;
            }
            if is_about_project(failure.message(), project) {
                *evidence.project_named.entry(failure.clone()).or_default() += 1;
            }
            evidence.refusal = Some(failure.clone());
        }
        drop(state);
        self.conclude(&[place], &Outcome::Rejected(failure));
    }

    /// Rejects those of `places` whose project is presumed to be refused, and
    /// takes them out.
    fn reject_presumed(&mut self, places: &mut Vec<u8>) {
        let state = self.calls.state();
        let Some(evidence) = state.evidence.get(&self.batch.project) else {
            return;
        };
        let (presumed, rest): (Vec<u8>, Vec<u8>) = places
            .iter()
            .partition(|place| evidence.presumes_refused(&requests_of(self.batch, **place)));
        let refusal = evidence.refusal.clone();
        drop(state);
        let Some(refusal) = refusal.filter(|_| !presumed.is_empty()) else {
            return;
        };
        *places = rest;
        let failure = Failure::new(
            refusal.code(),
            format!(
                "not tried alone: {PROBES} assets of the project were, each was refused and none \
                 of its assets accepted; the last refusal: {}",
                refusal.message()
            ),
        );
        self.conclude(&presumed, &Outcome::Rejected(failure));
    }

    fn push(&mut self, parent: &Subset, places: Vec<u8>) {
        if !places.is_empty() {
            self.stack.push(parent.part(places));
        }
    }

    /// Parts `places` into those whose asset `message` names and the rest.
    fn named_in(&self, message: &str, places: &[u8]) -> (Vec<u8>, Vec<u8>) {
        places.iter().partition(|place| {
            let asset = self.batch.assets[usize::from(**place)];
            message.contains(&asset.to_string())
        })
    }
}

/// Halves `places`, between requests where they are of several.
fn halves(batch: &Batch, places: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut groups = by_request(batch, places);
    if groups.len() == 1 {
        let (first, second) = places.split_at(places.len() / 2);
        return (first.to_vec(), second.to_vec());
    }
    let second = groups.split_off(groups.len() / 2);
    (groups.concat(), second.concat())
}

fn requests_of(batch: &Batch, place: u8) -> Vec<usize> {
    let owners = batch.owners.iter();
    owners
        .filter(|owner| owner.places.contains(&place))
        .map(|owner| owner.request)
        .collect()
}

/// Parts `places` by the requests that asked for them.
fn by_request(batch: &Batch, places: &[u8]) -> Vec<Vec<u8>> {
    let mut groups: BTreeMap<Vec<usize>, Vec<u8>> = BTreeMap::new();
    for place in places {
        groups
            .entry(requests_of(batch, *place))
            .or_default()
            .push(*place);
    }
    groups.into_values().collect()
}

/// Tells whether a refusal's message is about a project, and about no asset.
fn is_about_project(message: &str, project: ProjectId) -> bool {
    message.contains(&project.to_string()) && !message.to_lowercase().contains("asset")
}

/// What trying a few assets alone has shown.
enum Refused {
    /// The first was accepted: a culprit is among the others.
    Nothing,
    /// Some were, then one was not: the others may be good, or fail as well.
    Part,
    /// Each one was.
    All,
}
