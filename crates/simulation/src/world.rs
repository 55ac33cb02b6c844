//! One run: requests arrive, queues deliver, processes live and die, until
//! everything has drained.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use serde_json::{Value, json};
use simulator::{Operation, Simulator};
use sitewise_disassociator::dispatch::PROBES;
use tokio::time::{Instant, sleep_until};

use crate::Tally;
use crate::history::{Broken, History, Invariant};
use crate::ledger::{Ledger, Letter, Named, assets_of, named};
use crate::queue::{Delivery, Queue, dead_letter_queue, work_queue};
use crate::sandbox::{Ended, Sandbox};
use crate::scenario::{HEALING_CODE, Kind, Planned, Scenario, Way, status};

/// How long after the last fault everything must have drained.
const DRAIN_TIME: Duration = Duration::from_secs(6 * 3600);

/// How long the runtime waits before the two retries of an asynchronous
/// invocation ("Error handling for asynchronous invocation", AWS Lambda
/// Developer Guide).
const ASYNC_RETRIES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(120)];

/// How often a caller tries again who is told that something failed: more than
/// there are minutes in which anything goes wrong.
const MOST_TRIES: usize = 60;

pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    dice: &'a mut Rng,
    history: &'a mut History,
    tally: Tally,
    simulator: Simulator,
    queue: Queue,
    sandboxes: Vec<Sandbox>,
    ledger: Ledger,
    /// how many requests have arrived, in the order of their arrival
    arrived: usize,
    requests: Vec<Planned>,
    waiting: Vec<Waiting>,
    is_calm: bool,
    invocations: u64,
    /// for each asset, the places of the requests that name it
    owners: BTreeMap<Named, Vec<usize>>,
    /// for each request, what it has cost so far
    costs: Vec<Cost>,
}

/// What the calls with some of a request's assets in them have cost.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    attempts: u64,
    /// what they may have cost in as many invocations
    bound: u64,
}

/// An event that Lambda, or a caller, holds.
#[derive(Clone, Debug)]
struct Waiting {
    request: usize,
    failures: usize,
    due: Instant,
}

struct Job {
    sandbox: usize,
    work: Work,
    event: String,
    request_id: String,
    time_left: Duration,
    dies_after: Option<u32>,
    loses_answer: bool,
}

enum Work {
    Records(Vec<Delivery>),
    Event(Waiting),
}

impl<'a> World<'a> {
    pub(crate) fn new(scenario: &'a Scenario, dice: &'a mut Rng, history: &'a mut History) -> Self {
        let simulator = Simulator::new(scenario.settings.clone());
        let mut requests = scenario.requests.clone();
        requests.sort_by_key(|request| request.arrives_at);
        let mut healing = Vec::new();
        for request in &requests {
            for asset in &request.assets {
                match asset.kind {
                    Kind::Good | Kind::Healing | Kind::Poison if !request.project_is_missing => {
                        simulator.add_project(&request.project, [&asset.id]);
                    }
                    Kind::Foreign => simulator.add_asset(&asset.id),
                    Kind::Good | Kind::Healing | Kind::Poison | Kind::Unknown => {}
                }
                if asset.kind == Kind::Poison {
                    let fault = simulator::Fault::on(Operation::Disassociate).asset(&asset.id);
                    simulator.fault(fault.action(status(scenario.poison_status, None)));
                }
                if asset.kind == Kind::Healing {
                    healing.push(asset.id.clone());
                }
            }
            if !request.project_is_missing {
                simulator.add_project(&request.project, Vec::<String>::new());
            }
        }
        for storm in &scenario.storms {
            history.note(format_args!("storm: {}: {:?}", storm.name, storm.fault));
            simulator.fault(storm.fault.clone());
        }
        if !healing.is_empty() {
            let action = simulator::Action::AssetErrors {
                code: HEALING_CODE.to_owned(),
                message: "Simulated failure.".to_owned(),
                assets: healing,
                heals_after: Some(scenario.heals_after),
            };
            simulator.fault(simulator::Fault::on(Operation::Disassociate).action(action));
        }
        let mut owners: BTreeMap<Named, Vec<usize>> = BTreeMap::new();
        for (place, request) in requests.iter().enumerate() {
            for named in assets_of(request) {
                owners.entry(named).or_default().push(place);
            }
        }
        let sandboxes = (0..scenario.sandboxes)
            .map(|_| Sandbox::start(&simulator, scenario.function()))
            .collect();
        Self {
            scenario,
            dice,
            history,
            tally: Tally::default(),
            queue: Queue::new(scenario.queue.clone()),
            sandboxes,
            ledger: Ledger {
                simulator: simulator.clone(),
                letters: Vec::new(),
                readded: BTreeSet::new(),
                asked_again: BTreeMap::new(),
                pending: BTreeMap::new(),
                assets: requests
                    .iter()
                    .filter(|request| !request.project_is_missing)
                    .flat_map(|request| {
                        let ids = request.assets.iter().map(|asset| asset.id.clone());
                        ids.map(|id| (request.project.clone(), id))
                    })
                    .collect(),
            },
            simulator,
            arrived: 0,
            owners,
            costs: vec![Cost::default(); requests.len()],
            requests,
            waiting: Vec::new(),
            is_calm: false,
            invocations: 0,
        }
    }

    /// Runs until nothing is left to do.
    pub(crate) async fn run(mut self) -> Result<Tally, Broken> {
        self.drain().await?;
        self.calm_down().await;
        if self.scenario.redrives || self.scenario.is_endless {
            self.redrive();
            self.drain().await?;
        }
        self.ledger
            .check_nothing_is_lost(&self.requests, self.queue.messages())?;
        self.ledger.check_fates(&self.requests, self.scenario)?;
        self.tally.letters = self.ledger.letters.len() as u64;
        Ok(self.tally)
    }

    async fn calm_down(&mut self) {
        let left = self.scenario.calm_at.saturating_sub(self.history.elapsed());
        sleep_until(Instant::now() + left).await;
        self.stop_faults_when_due();
    }

    /// Sends every dead letter to the work queue, as an operator would.
    fn redrive(&mut self) {
        for (number, letter) in self.ledger.letters.drain(..).enumerate() {
            self.history
                .note(format_args!("redriven: {}", short(&letter.body)));
            self.queue.put(
                format!("redriven-{number}"),
                letter.body,
                letter.group.or_else(|| Some("redriven".to_owned())),
            );
        }
    }

    async fn drain(&mut self) -> Result<(), Broken> {
        let limit = self.scenario.calm_at + 2 * DRAIN_TIME;
        loop {
            self.arrive();
            self.stop_faults_when_due();
            let jobs = self.jobs()?;
            if jobs.is_empty() {
                let Some(next) = self.next_event() else {
                    return Ok(());
                };
                let soon = Instant::now() + Duration::from_secs(1);
                sleep_until(next.max(soon)).await;
            } else {
                self.work(jobs).await?;
                self.readd();
            }
            if self.history.elapsed() > limit {
                return Err(Broken::new(
                    Invariant::EverythingDrains,
                    format!(
                        "{} message(s) and {} event(s) are left long after the last fault",
                        self.queue.messages().len(),
                        self.waiting.len()
                    ),
                ));
            }
        }
    }

    fn arrive(&mut self) {
        while let Some(request) = self.requests.get(self.arrived) {
            if request.arrives_at > self.history.elapsed() {
                return;
            }
            self.history.note(format_args!(
                "arrives: message {} ({:?}), {} asset(s) of project {}{}",
                request.message,
                request.way,
                request.assets.len() + request.bad_ids.len(),
                request.project,
                if request.token.is_some() {
                    ", with a token"
                } else {
                    ""
                },
            ));
            if request.asks_again {
                self.history
                    .note(format_args!("  its assets are added back before"));
                for named in assets_of(request) {
                    self.simulator.add_project(&named.0, [&named.1]);
                    self.ledger
                        .asked_again
                        .insert(named, request.message.clone());
                }
            }
            if request.way.is_queued() {
                self.queue.put(
                    request.message.clone(),
                    request.payload(),
                    Some(request.group.clone()),
                );
            } else {
                self.ledger
                    .pending
                    .insert(request.message.clone(), assets_of(request));
                self.waiting.push(Waiting {
                    request: self.arrived,
                    failures: 0,
                    due: Instant::now(),
                });
            }
            self.arrived += 1;
        }
    }

    fn stop_faults_when_due(&mut self) {
        if self.is_calm || self.history.elapsed() < self.scenario.calm_at {
            return;
        }
        self.is_calm = true;
        self.history.note(format_args!("from here on all is well"));
        let mut settings = self.simulator.settings();
        settings.throttle = None;
        self.simulator.set_settings(settings);
        self.queue.calm();
    }

    fn next_event(&self) -> Option<Instant> {
        let now = Instant::now();
        let arrival = self
            .requests
            .get(self.arrived)
            .map(|next| now + next.arrives_at.saturating_sub(self.history.elapsed()));
        let due = self.waiting.iter().map(|waiting| waiting.due).min();
        [arrival, due, self.queue.next_visible()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Gives each process something to do, if there is anything.
    fn jobs(&mut self) -> Result<Vec<Job>, Broken> {
        let mut jobs = Vec::new();
        for sandbox in 0..self.sandboxes.len() {
            let now = Instant::now();
            let due = self.waiting.iter().position(|waiting| waiting.due <= now);
            let (work, event, request_id) = if let Some(due) = due {
                let waiting = self.waiting.remove(due);
                let request = &self.requests[waiting.request];
                // Lambda's retries have the first try's request id.
                let request_id = format!("request-{}", request.message);
                let event = request.payload();
                (Work::Event(waiting), event, request_id)
            } else {
                let most = self.scenario.batch_size;
                let (records, moved) = self.queue.receive(most, self.dice);
                for moved in &moved {
                    self.history
                        .note(format_args!("moved by the redrive policy: {}", moved.id));
                    self.ledger.letters.push(moved.into());
                    let is_poison = || self.owner_of(&moved.body).is_some_and(Planned::is_poison);
                    if !self.scenario.is_endless && !is_poison() {
                        return Err(Broken::new(
                            Invariant::EverythingDrains,
                            format!("message {} was delivered too often", moved.id),
                        ));
                    }
                }
                if records.is_empty() {
                    continue;
                }
                self.invocations += 1;
                let request_id = format!("request-{}", self.invocations);
                let event = sqs_event(&records, work_queue(self.scenario.queue.is_fifo));
                (Work::Records(records), event, request_id)
            };
            let happens = |dice: &mut Rng, share| !self.is_calm && dice.f64() < share;
            let is_hurried = happens(self.dice, self.scenario.hurried);
            let dies = happens(self.dice, self.scenario.crashes);
            jobs.push(Job {
                sandbox,
                work,
                event,
                request_id,
                time_left: if is_hurried {
                    Duration::from_millis(self.dice.u64(100..5000))
                } else {
                    Duration::from_secs(60)
                },
                dies_after: dies.then(|| self.dice.u32(0..60)),
                loses_answer: happens(self.dice, self.scenario.lost_answers),
            });
        }
        Ok(jobs)
    }

    async fn work(&mut self, jobs: Vec<Job>) -> Result<(), Broken> {
        for job in &jobs {
            self.history.note(format_args!(
                "process {} gets {}, {:.1} s left{}",
                job.sandbox,
                job.work,
                job.time_left.as_secs_f64(),
                job.dies_after
                    .map(|polls| format!(", dies after {polls} polls"))
                    .unwrap_or_default()
            ));
        }
        let ended = {
            let runs = jobs.iter().map(|job| {
                self.sandboxes[job.sandbox].invoke(
                    &job.request_id,
                    &job.event,
                    job.time_left,
                    job.dies_after,
                )
            });
            join_all(runs).await
        };
        let bound = self.allow(&jobs);
        let (attempts, too_many) = self.take_calls()?;
        let limit = 2 * attempts + jobs.len() as u64 * self.search_bound();
        if too_many > limit {
            return Err(Broken::new(
                Invariant::AmplificationIsBounded,
                format!("the rate limit refused {too_many} attempts, at most {limit} expected"),
            ));
        }
        if attempts > bound {
            return Err(Broken::new(
                Invariant::AmplificationIsBounded,
                format!("{attempts} attempts, at most {bound} expected"),
            ));
        }
        self.check_costs()?;
        self.take_messages();
        self.take_visibilities();
        for (job, ended) in jobs.into_iter().zip(ended) {
            self.tally.invocations += 1;
            self.history
                .note(format_args!("process {}: {ended}", job.sandbox));
            if matches!(ended, Ended::TimedOut) {
                return Err(Broken::new(
                    Invariant::DeadlinesAreKept,
                    format!("process {} was stopped at its deadline", job.sandbox),
                ));
            }
            if matches!(ended, Ended::Crashed) {
                self.tally.crashes += 1;
                self.sandboxes[job.sandbox] =
                    Sandbox::start(&self.simulator, self.scenario.function());
            }
            let answer = match ended {
                Ended::Answer(_) | Ended::Error(_) if job.loses_answer => {
                    self.history.note(format_args!("  … which never arrives"));
                    None
                }
                Ended::Crashed => None,
                ended => Some(ended),
            };
            match job.work {
                Work::Records(records) => self.records_ended(&records, answer)?,
                Work::Event(waiting) => self.event_ended(waiting, answer)?,
            }
        }
        self.ledger
            .check_nothing_is_lost(&self.requests[..self.arrived], self.queue.messages())?;
        self.ledger.check_readded()
    }

    /// Notes the calls since the last time, and counts the attempts among them:
    /// those that a rate limit refused apart, for they are bounded by the others.
    fn take_calls(&mut self) -> Result<(u64, u64), Broken> {
        let (mut attempts, mut too_many) = (0, 0);
        let has_rate_limit = self.scenario.settings.throttle.is_some();
        for call in self.simulator.calls() {
            if call.operation == Operation::Disassociate {
                if has_rate_limit && call.status == Some(429) {
                    too_many += 1;
                } else {
                    attempts += 1;
                    let project = call.project.iter();
                    let named = project.flat_map(|project| {
                        let ids = call.assets.iter();
                        ids.map(|id| (project.clone(), id.clone()))
                    });
                    let owners = named.flat_map(|named| self.owners.get(&named).into_iter());
                    for place in owners.flatten().collect::<BTreeSet<_>>() {
                        self.costs[*place].attempts += 1;
                    }
                }
            }
            let who = call.project.or(call.queue).unwrap_or_default();
            self.history.note(format_args!(
                "  at {:.3} {:?} {who}: {} asset(s), {} message(s), {} receipt(s), token {}, {}{}",
                call.at.as_secs_f64(),
                call.operation,
                call.assets.len(),
                call.bodies.len(),
                call.receipts.len(),
                call.token.as_deref().unwrap_or("-"),
                call.status
                    .map_or("no answer".to_owned(), |status| status.to_string()),
                if call.applied { ", applied" } else { "" },
            ));
            if let Some(reason) = call.invalid {
                return Err(Broken::new(Invariant::NothingInvalidIsSent, reason));
            }
        }
        self.tally.attempts += attempts + too_many;
        self.simulator.clear_calls();
        Ok((attempts, too_many))
    }

    /// Moves what the function stored to where its consumers see it.
    fn take_messages(&mut self) {
        let is_fifo = self.scenario.queue.is_fifo;
        for part in self.simulator.take_messages(work_queue(is_fifo)) {
            self.history.note(format_args!(
                "  part {}: {} asset(s)",
                part.id,
                named(&part.body).len()
            ));
            self.queue.put(part.id, part.body, part.group_id);
        }
        for letter in self.simulator.take_messages(dead_letter_queue(is_fifo)) {
            self.history
                .note(format_args!("  letter: {}", short(&letter.body)));
            self.ledger.letters.push(Letter::written(&letter));
        }
    }

    /// Brings back sooner what the function asked for.
    fn take_visibilities(&mut self) {
        let name = work_queue(self.scenario.queue.is_fifo);
        for visibility in self.simulator.take_visibilities(name) {
            let ago = self.history.elapsed().saturating_sub(visibility.at);
            let visible_at = Instant::now() + visibility.timeout - ago;
            if self.queue.hide_until(&visibility.receipt, visible_at) {
                self.tally.returned += 1;
                self.history.note(format_args!(
                    "  {} is visible again {:.0} s later",
                    visibility.receipt,
                    visibility.timeout.as_secs_f64()
                ));
            }
        }
    }

    fn records_ended(&mut self, records: &[Delivery], answer: Option<Ended>) -> Result<(), Broken> {
        let answer = match answer {
            None => return Ok(()),
            Some(Ended::Answer(answer)) => answer,
            Some(ended) => {
                return Err(Broken::new(
                    Invariant::TheAnswerIsTrue,
                    format!("records that have ids got {ended}"),
                ));
            }
        };
        let failed: BTreeSet<&str> = answer["batchItemFailures"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|failure| failure["itemIdentifier"].as_str())
            .collect();
        let mut failed_groups = BTreeSet::new();
        for record in records {
            let is_failed = failed.contains(record.id.as_str());
            if self.scenario.queue.is_fifo {
                if is_failed {
                    failed_groups.insert(&record.group);
                } else if failed_groups.contains(&record.group) {
                    return Err(Broken::new(
                        Invariant::GroupsKeepTheirOrder,
                        format!("message {} overtakes a failed one", record.id),
                    ));
                }
            }
            if is_failed {
                self.tally.redeliveries += 1;
                continue;
            }
            let of = self
                .requests
                .iter()
                .find(|request| request.message == record.id)
                .or_else(|| self.owner_of(&record.body));
            if let Some(of) = of {
                self.ledger.check_settled(
                    of,
                    &named(&record.body),
                    &record.id,
                    self.queue.messages(),
                    Invariant::TheAnswerIsTrue,
                )?;
            }
        }
        for record in records {
            if !failed.contains(record.id.as_str()) {
                self.queue.delete(record);
            }
        }
        Ok(())
    }

    /// Finds the request that a part or a letter is of.
    fn owner_of(&self, body: &str) -> Option<&Planned> {
        let named = named(body);
        let first = named.first()?;
        self.requests
            .iter()
            .find(|request| request.way != Way::Malformed && assets_of(request).contains(first))
    }

    fn event_ended(&mut self, waiting: Waiting, answer: Option<Ended>) -> Result<(), Broken> {
        let request = self.requests[waiting.request].clone();
        let is_direct = request.way == Way::Direct;
        match answer {
            Some(Ended::Answer(report)) => {
                self.check_report(&request, &report)?;
                if is_direct && returns_something(&report) {
                    if waiting.failures > MOST_TRIES {
                        return Err(Broken::new(
                            Invariant::EverythingDrains,
                            format!("message {} is returned without end", request.message),
                        ));
                    }
                    self.again(waiting, Duration::from_secs(60));
                } else {
                    self.ledger.pending.remove(&request.message);
                }
                Ok(())
            }
            Some(ended) if is_direct => Err(Broken::new(
                Invariant::TheAnswerIsTrue,
                format!("a direct caller got {ended}"),
            )),
            _ if is_direct => {
                self.again(waiting, Duration::from_secs(60));
                Ok(())
            }
            _ => {
                match ASYNC_RETRIES.get(waiting.failures) {
                    Some(pause) => self.again(waiting, *pause),
                    None => {
                        self.history.note(format_args!(
                            "Lambda gives message {} up to the dead-letter queue",
                            request.message
                        ));
                        self.ledger.letters.push(Letter::kept(&request.payload()));
                        self.ledger.pending.remove(&request.message);
                    }
                }
                Ok(())
            }
        }
    }

    fn again(&mut self, mut waiting: Waiting, pause: Duration) {
        waiting.failures += 1;
        waiting.due = Instant::now() + pause;
        self.waiting.push(waiting);
    }

    /// Checks that what a report says is done is done, and what it says is
    /// kept is kept.
    fn check_report(&self, request: &Planned, report: &Value) -> Result<(), Broken> {
        let counts = &report["assets"];
        let count = |name: &str| counts[name].as_u64().unwrap_or_default();
        let sum =
            count("disassociated") + count("rejected") + count("unfinished") + count("queued");
        let mut returned = BTreeSet::new();
        for failure in report["failures"].as_array().into_iter().flatten() {
            let is_kept =
                failure["deadLettered"] == json!(true) || failure["queued"] == json!(true);
            if !is_kept {
                let ids = failure["assetIds"].as_array().into_iter().flatten();
                returned.extend(ids.filter_map(Value::as_str).map(ToOwned::to_owned));
            }
        }
        if sum != count("requested") {
            return Err(Broken::new(
                Invariant::TheAnswerIsTrue,
                format!("{counts} does not add up"),
            ));
        }
        let kept: Vec<Named> = assets_of(request)
            .into_iter()
            .filter(|(_, id)| !returned.contains(id))
            .collect();
        self.ledger.check_settled(
            request,
            &kept,
            &request.message,
            self.queue.messages(),
            Invariant::TheAnswerIsTrue,
        )
    }

    /// Someone adds an asset back.
    fn readd(&mut self) {
        if !self.scenario.readds || self.dice.f64() > 0.3 {
            return;
        }
        let place = self.dice.usize(..);
        let requests = &self.requests[..self.arrived];
        if let Some((project, asset)) =
            self.ledger
                .readdable(requests, &self.scenario.settings, place)
        {
            self.history
                .note(format_args!("asset {asset} is added back"));
            self.simulator.add_project(&project, [&asset]);
            self.ledger.readded.insert((project, asset));
            self.tally.readded += 1;
        }
    }

    /// How many calls an invocation may see throttled where none is let through:
    /// those at a time, and the search of its pace.
    fn search_bound(&self) -> u64 {
        self.scenario.max_concurrency as u64 + 12
    }

    /// Allows each request whose assets are in the jobs what that may cost, and
    /// returns how much that is together.
    fn allow(&mut self, jobs: &[Job]) -> u64 {
        let mut sum = 0;
        for job in jobs {
            let mut counts: BTreeMap<usize, u64> = BTreeMap::new();
            let owners = named(&job.event).into_iter();
            for place in owners.filter_map(|named| self.owners.get(&named)).flatten() {
                *counts.entry(*place).or_default() += 1;
            }
            for (place, assets) in counts {
                let bound = self.bound_of(&self.requests[place], assets);
                self.costs[place].bound += bound;
                sum += bound;
            }
        }
        sum
    }

    /// Checks that the service has seen a bounded number of attempts for each
    /// request, over its whole life.
    fn check_costs(&self) -> Result<(), Broken> {
        for (Cost { attempts, bound }, request) in self.costs.iter().zip(&self.requests) {
            if attempts > bound {
                return Err(Broken::new(
                    Invariant::AmplificationIsBounded,
                    format!(
                        "{attempts} attempts with assets of message {}, at most {bound} expected",
                        request.message
                    ),
                ));
            }
        }
        Ok(())
    }

    /// How many attempts the calls with some of a request's assets in them may
    /// take in one invocation: three for each call, three rounds of calls for
    /// assets named in a 200, and what it takes to find out which are refused.
    fn bound_of(&self, request: &Planned, assets: u64) -> u64 {
        let absent = &self.scenario.settings.asset_not_in_project;
        let wrong = if request.project_is_missing || *absent != simulator::Absent::Ignore {
            // Assets that a lost reply has taken out are refused like absent ones.
            assets
        } else {
            let kinds = request.assets.iter().map(|asset| asset.kind);
            kinds.filter(|kind| *kind != Kind::Good).count() as u64
        };
        let batches = assets.div_ceil(100) + 1;
        // Both halves of all that a culprit is in, or all halves that there are.
        let narrowing = (14 * wrong).min(2 * assets);
        // It may share a batch with as many requests as an event carries.
        let neighbours = u64::from(self.scenario.batch_size.ilog2()) + 1;
        3 * (3 * batches + PROBES as u64 + neighbours + narrowing)
    }
}

fn returns_something(report: &Value) -> bool {
    let failures = report["failures"].as_array().into_iter().flatten();
    failures
        .into_iter()
        .any(|failure| failure["deadLettered"] != json!(true) && failure["queued"] != json!(true))
}

impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Records(records) => {
                let ids: Vec<String> = records
                    .iter()
                    .map(|record| format!("{} ({})", record.id, record.receives))
                    .collect();
                write!(f, "records {}", ids.join(", "))
            }
            Self::Event(waiting) => {
                write!(f, "event {}, try {}", waiting.request, waiting.failures + 1)
            }
        }
    }
}

pub(crate) fn sqs_event(records: &[Delivery], queue: &str) -> String {
    let records: Vec<Value> = records
        .iter()
        .map(|record| {
            let mut attributes = json!({"ApproximateReceiveCount": record.receives.to_string()});
            if let Some(group) = &record.group {
                attributes["MessageGroupId"] = json!(group);
            }
            json!({
                "messageId": record.id, "receiptHandle": record.receipt(),
                "body": record.body, "attributes": attributes, "eventSource": "aws:sqs",
                "eventSourceARN": format!("arn:aws:sqs:eu-west-1:000000000000:{queue}"),
            })
        })
        .collect();
    json!({ "Records": records }).to_string()
}

fn short(text: &str) -> String {
    text.chars().take(160).collect()
}
