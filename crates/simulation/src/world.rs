//! One run: requests arrive, queues deliver, processes live and die, until
//! everything has drained.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use serde_json::{Value, json};
use simulator::{Message, Operation, Simulator};
use sitewise_disassociator::aws::retry::ASSET_ROUNDS;
use tokio::time::{Instant, sleep_until};

use crate::Tally;
use crate::history::{Broken, History, Invariant};
use crate::ledger::{ALL, Ledger, Letter, Named, assets_of, named};
use crate::queue::{Delivery, Queue, dead_letter_queue, work_queue};
use crate::sandbox::{Ended, Sandbox, process_of};
use crate::scenario::{Form, HEALING_CODE, Kind, Planned, Scenario, Way};
use crate::trace::Trace;

/// How long after the last fault everything must have drained.
const DRAIN_TIME: Duration = Duration::from_secs(6 * 3600);

/// How long the runtime waits before the two retries of an asynchronous
/// invocation ("Error handling for asynchronous invocation", AWS Lambda
/// Developer Guide).
const ASYNC_RETRIES: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(120)];

/// How often the function attempts a call: once, and the SDK's two retries.
const ATTEMPTS: u64 = 3;

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
    /// how often each message has failed since nothing else goes wrong
    failed_in_calm: BTreeMap<String, u32>,
    /// what joins whole projects, and when, the last first
    joins: Vec<(Duration, Named)>,
    /// for each message that the function sent, the invocations that led to it
    depths: BTreeMap<String, u32>,
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
        let (mut healing, mut joins) = (Vec::new(), Vec::new());
        for request in &requests {
            for asset in &request.assets {
                if let Some(at) = asset.joins_at {
                    joins.push((at, (request.project.clone(), asset.id.clone())));
                    continue;
                }
                match asset.kind {
                    Kind::Good | Kind::Healing | Kind::Poison if !request.project_is_missing => {
                        simulator.add_project(&request.project, [&asset.id]);
                    }
                    Kind::Foreign => simulator.add_asset(&asset.id),
                    Kind::Descendant => match request.root() {
                        Some(root) => simulator.add_descendants(&root.id, [&asset.id]),
                        None => simulator.add_asset(&asset.id),
                    },
                    Kind::Good | Kind::Healing | Kind::Poison | Kind::Unknown => {}
                }
                if asset.kind == Kind::Poison {
                    simulator.fault(scenario.poison.clone().asset(&asset.id));
                }
                if asset.kind == Kind::Healing {
                    healing.push(asset.id.clone());
                }
            }
            let nothing = Vec::<String>::new();
            match &request.form {
                _ if request.project_is_missing => {}
                Form::Portal => simulator.add_portal(&request.project, nothing),
                Form::ProjectOf(portal) => simulator.add_portal(portal, [&request.project]),
                Form::Assets | Form::Project => simulator.add_project(&request.project, nothing),
            }
        }
        joins.sort();
        joins.reverse();
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
        let (mut members, mut portals) = (BTreeMap::new(), BTreeMap::new());
        for (place, request) in requests.iter().enumerate() {
            for named in assets_of(request) {
                owners.entry(named).or_default().push(place);
            }
            let container = match &request.form {
                Form::Assets => continue,
                Form::Project | Form::Portal => &request.project,
                Form::ProjectOf(portal) => {
                    portals.insert(request.project.clone(), portal.clone());
                    portal
                }
            };
            let ids = request.assets.iter().map(|asset| asset.id.clone());
            let assets = ids.map(|id| (request.project.clone(), id));
            let mut assets: Vec<Named> = assets.collect();
            for named in &assets {
                owners.entry(named.clone()).or_default().push(place);
            }
            if request.project_is_missing {
                assets = assets_of(request);
            }
            for of in BTreeSet::from([container, &request.project]) {
                let known: &mut Vec<Named> = members.entry(of.clone()).or_default();
                known.extend(assets.iter().cloned());
            }
        }
        let sandboxes = (0..scenario.sandboxes)
            .map(|number| Sandbox::start(&simulator, scenario.function(), number))
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
                added: BTreeMap::new(),
                unlisted: BTreeSet::new(),
                asked_again: BTreeMap::new(),
                pending: BTreeMap::new(),
                open: joins.iter().map(|(_, named)| named.clone()).collect(),
                members,
                portals,
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
            failed_in_calm: BTreeMap::new(),
            joins,
            depths: BTreeMap::new(),
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
        self.tally.unlisted = self.ledger.left_unlisted() as u64;
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
                "arrives: message {} ({:?}, {:?}), {} asset(s) of {}{}",
                request.message,
                request.way,
                request.form,
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
                        .added
                        .insert(named.clone(), self.history.elapsed());
                    self.ledger
                        .asked_again
                        .insert(named, request.message.clone());
                }
            }
            if matches!(request.form, Form::ProjectOf(_)) {
                self.arrived += 1;
                continue;
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
            let joins = &mut self.joins;
            let joining = join(&self.simulator, joins, self.history, &mut self.ledger.added);
            tokio::select! {
                biased;
                () = joining => Vec::new(),
                ended = join_all(runs) => ended,
            }
        };
        let traces = self.take_calls()?;
        for trace in &traces {
            self.ledger.note_decided(|named| trace.decides(named));
        }
        self.check_costs(&jobs, &traces)?;
        self.take_messages(&traces)?;
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
                    Sandbox::start(&self.simulator, self.scenario.function(), job.sandbox);
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

    /// Notes the calls since the last time, and returns what each process did.
    fn take_calls(&mut self) -> Result<Vec<Trace>, Broken> {
        let settings = &self.scenario.settings;
        let mut traces: Vec<Trace> = self.sandboxes.iter().map(|_| Trace::default()).collect();
        for call in self.simulator.calls() {
            let who = call.project.as_ref().or(call.queue.as_ref());
            self.history.note(format_args!(
                "  at {:.3} {:?} {}: {} asset(s), {} listed, {} message(s), token {}, {}{}",
                call.at.as_secs_f64(),
                call.operation,
                who.map_or("", String::as_str),
                call.assets.len(),
                call.listed.len(),
                call.bodies.len(),
                call.token.as_deref().unwrap_or("-"),
                call.status
                    .map_or("no answer".to_owned(), |status| status.to_string()),
                if call.applied { ", applied" } else { "" },
            ));
            if let Some(reason) = call.invalid {
                return Err(Broken::new(Invariant::NothingInvalidIsSent, reason));
            }
            if let (Operation::ListProjectAssets, Some(project)) = (call.operation, &call.project) {
                self.ledger.note_list(project, call.at, settings);
            }
            if let Some(trace) = process_of(&call).and_then(|process| traces.get_mut(process)) {
                trace.add(&call, settings.latency);
            }
        }
        self.simulator.clear_calls();
        Ok(traces)
    }

    /// Moves what the function stored to where its consumers see it, and checks
    /// I7.
    fn take_messages(&mut self, traces: &[Trace]) -> Result<(), Broken> {
        let is_fifo = self.scenario.queue.is_fifo;
        let messages = self.simulator.take_messages(dead_letter_queue(is_fifo));
        let letters: Vec<Letter> = messages.iter().map(Letter::written).collect();
        for letter in &letters {
            self.history
                .note(format_args!("  letter: {}", short(&letter.body)));
            for (named, code) in &letter.codes {
                if !self.may_be_in_a_letter(named, &letter.body, traces) {
                    return Err(Broken::new(
                        Invariant::DeadLettersAreTrue,
                        format!("asset {} with {code}, which no list had shown", named.1),
                    ));
                }
            }
        }
        for part in self.simulator.take_messages(work_queue(is_fifo)) {
            let holds = named(&part.body);
            self.history
                .note(format_args!("  part {}: {} asset(s)", part.id, holds.len()));
            let is_stored = |bad: &String| {
                let letters = self.ledger.letters.iter().chain(&letters);
                let mut named = letters.flat_map(|letter| &letter.named);
                named.any(|(_, id)| id == bad)
            };
            let owners = || holds.iter().flat_map(|named| self.owners_of(named));
            if !owners().any(|owner| owner.bad_ids.iter().all(is_stored)) {
                return Err(Broken::new(
                    Invariant::AmplificationIsBounded,
                    format!("part {} without the dead letter of its message", part.id),
                ));
            }
            self.check_depth(&part)?;
            self.queue.put(part.id, part.body, part.group_id);
        }
        self.ledger.letters.extend(letters);
        Ok(())
    }

    /// Checks that a chain of messages has at most four invocations.
    fn check_depth(&mut self, part: &Message) -> Result<(), Broken> {
        let body: Value = serde_json::from_str(&part.body).unwrap_or_default();
        let of = body["sitewiseDisassociatorPart"]["of"].as_str();
        let depth = of.and_then(|of| self.depths.get(of)).unwrap_or(&1) + 1;
        if depth > 4 {
            return Err(Broken::new(
                Invariant::AmplificationIsBounded,
                format!("part {} makes a chain of {depth} invocations", part.id),
            ));
        }
        self.depths.insert(part.id.clone(), depth);
        Ok(())
    }

    fn may_be_in_a_letter(&self, named: &Named, letter: &str, traces: &[Trace]) -> bool {
        self.owners_of(named)
            .any(|request| request.project_is_missing || request.bad_ids.contains(&named.1))
            || traces.iter().any(|trace| trace.confirms(letter, named))
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
                self.check_isolation(record)?;
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
                    named(&record.body),
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

    /// Checks that a message whose calls always fail does not keep others from
    /// being done, where nothing else goes wrong: three deliveries do, or one for
    /// each halving and the first where the calls take all the time; twice as many
    /// where an invocation makes one call at a time, and may get no further than
    /// the half at fault.
    fn check_isolation(&mut self, record: &Delivery) -> Result<(), Broken> {
        let owner = self.owner_of(&record.body);
        if !self.is_calm || owner.is_none_or(Planned::is_poison) {
            return Ok(());
        }
        let halvings = self.scenario.batch_size.next_power_of_two().ilog2();
        let failed = self.failed_in_calm.entry(record.id.clone()).or_default();
        *failed += 1;
        let one_at_a_time = u32::from(self.scenario.call_concurrency == 1);
        if *failed > halvings.max(2) << one_at_a_time {
            return Err(Broken::new(
                Invariant::NeighboursAreUnharmed,
                format!(
                    "message {} has failed {failed} times in the calm",
                    record.id
                ),
            ));
        }
        Ok(())
    }

    /// Finds the request that a part or a letter is of.
    fn owner_of(&self, body: &str) -> Option<&Planned> {
        self.owners_of(named(body).first()?).next()
    }

    /// Finds the requests that name an asset.
    fn owners_of(&self, named: &Named) -> impl Iterator<Item = &Planned> + use<'_> {
        let places = self.owners.get(named).into_iter().flatten();
        places.map(|place| &self.requests[*place])
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
        let sum = count("disassociated")
            + count("absent")
            + count("rejected")
            + count("unfinished")
            + count("queued");
        let mut returned = BTreeSet::new();
        for failure in report["failures"].as_array().into_iter().flatten() {
            let is_kept =
                failure["deadLettered"] == json!(true) || failure["queued"] == json!(true);
            if !is_kept {
                let ids = failure["assetIds"].as_array().into_iter().flatten();
                if ids.clone().count() == 0 {
                    returned.insert(ALL.to_owned());
                }
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
        let kept = self.ledger.expanded(kept).into_iter();
        let kept = kept.filter(|(_, id)| !returned.contains(id)).collect();
        self.ledger.check_settled(
            request,
            kept,
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
            let named = (project, asset);
            self.ledger
                .added
                .insert(named.clone(), self.history.elapsed());
            self.ledger.readded.insert(named);
            self.tally.readded += 1;
        }
    }

    /// Checks that the service has seen a bounded number of requests: for each
    /// request of a message over its whole life, for each process, and for all.
    fn check_costs(&mut self, jobs: &[Job], traces: &[Trace]) -> Result<(), Broken> {
        let allowed = self.allow(jobs);
        for trace in traces {
            for place in trace.attempts_of(&self.owners) {
                self.costs[place].attempts += 1;
            }
        }
        let holds = |found: u64, most: u64, what: &str| {
            if found <= most {
                return Ok(());
            }
            let text = format!("{found} {what}, at most {most} expected");
            Err(Broken::new(Invariant::AmplificationIsBounded, text))
        };
        let sum = |count: fn(&Trace) -> u64| traces.iter().map(count).sum::<u64>();
        let (attempts, reads) = (sum(Trace::attempts), sum(|trace| trace.reads));
        let throttled = sum(|trace| trace.throttled);
        self.tally.attempts += attempts;
        self.tally.reads += reads;
        self.tally.throttled += throttled;
        holds(attempts, allowed, "attempts")?;
        let search = jobs.len() as u64 * self.search_bound();
        holds(
            throttled,
            2 * (attempts + reads) + search,
            "throttled attempts",
        )?;
        for (cost, request) in self.costs.iter().zip(&self.requests) {
            let what = format!("attempts with assets of message {}", request.message);
            holds(cost.attempts, cost.bound, &what)?;
        }
        let is_shared = |named: &Named| self.owners.get(named).is_some_and(|of| of.len() > 1);
        let missing = self.requests.iter().filter(|one| one.project_is_missing);
        let in_flight = self.scenario.call_concurrency as u64;
        for (process, trace) in traces.iter().enumerate() {
            let mut jobs = jobs.iter().filter(|job| job.sandbox == process);
            let named = jobs.next().map(|job| named(&job.event)).unwrap_or_default();
            let whole = named.iter().filter(|named| named.1 == ALL).count() as u64;
            // A whole project is listed before its calls, and again after them.
            let reads = (trace.refusals + 2 * whole) * self.read_bound();
            holds(trace.reads, reads, "reads")?;
            let extra = trace.extra_calls(is_shared) as u64;
            holds(extra, 2, "calls for a part of a batch in an outage")?;
            for request in missing.clone().filter(|_| self.is_calm) {
                let requests = trace.requests.get(&request.project).copied();
                let what = "requests for a missing project";
                holds(requests.unwrap_or_default(), 3 * in_flight, what)?;
            }
        }
        Ok(())
    }

    /// How many calls an invocation may see throttled where none is let through:
    /// those at a time, and the search of its rate.
    fn search_bound(&self) -> u64 {
        self.scenario.call_concurrency as u64 + 12
    }

    /// Allows each request whose assets are in the jobs what that may cost, and
    /// returns how much that is together.
    fn allow(&mut self, jobs: &[Job]) -> u64 {
        let mut sum = 0;
        for job in jobs {
            let mut counts: BTreeMap<usize, u64> = BTreeMap::new();
            for named in named(&job.event) {
                for place in self.owners.get(&named).into_iter().flatten() {
                    let assets = match &*named.1 {
                        ALL => self.requests[*place].assets.len() as u64,
                        _ => 1,
                    };
                    *counts.entry(*place).or_default() += assets;
                }
            }
            for (place, assets) in counts {
                let bound = self.bound_of(&self.requests[place], assets);
                self.costs[place].bound += bound;
                sum += bound;
            }
        }
        sum
    }

    /// How many attempts the calls with some of a request's assets in them may
    /// take in one invocation.
    fn bound_of(&self, request: &Planned, assets: u64) -> u64 {
        let batches = assets.div_ceil(100) + 1;
        // It may share a batch with as many requests as an event carries: one call
        // for each halving, and two where nothing is answered.
        let neighbours = u64::from(self.scenario.batch_size.ilog2()) + 3;
        if request.project_is_missing {
            return ATTEMPTS * (batches + neighbours);
        }
        let settings = &self.scenario.settings;
        let failing = if settings.removed_stay_listed.is_zero() {
            let kinds = request.assets.iter().map(|asset| asset.kind);
            kinds.filter(|kind| *kind != Kind::Good).count() as u64
        } else {
            // Whatever a lost reply has taken out is refused and still listed.
            assets
        };
        // Four parts at each of four levels for an asset at fault, or all parts that
        // there are; then the rounds of what is alone.
        let rounds = u64::from(ASSET_ROUNDS);
        let splits = (16 * failing).min(2 * assets) + (rounds - 1) * failing;
        // And the batch itself, without what is absent, in its rounds.
        ATTEMPTS * ((rounds + 1) * batches + neighbours + splits)
    }

    /// How many attempts the reads after one answer may take: all pages twice,
    /// or one page and the project.
    fn read_bound(&self) -> u64 {
        let assets = self.requests.iter().map(|request| request.assets.len());
        let pages = assets.sum::<usize>().div_ceil(250) as u64;
        ATTEMPTS * (2 * pages).max(2)
    }
}

/// Adds assets to whole projects when they are to join, and then waits for ever.
async fn join(
    simulator: &Simulator,
    joins: &mut Vec<(Duration, Named)>,
    history: &mut History,
    added: &mut BTreeMap<Named, Duration>,
) {
    while let Some((at, named)) = joins.last().cloned() {
        let left = at.saturating_sub(history.elapsed());
        sleep_until(Instant::now() + left).await;
        history.note(format_args!("asset {} joins project {}", named.1, named.0));
        simulator.add_project(&named.0, [&named.1]);
        added.insert(named, history.elapsed());
        joins.pop();
    }
    std::future::pending::<()>().await;
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
                "messageId": record.id, "receiptHandle": format!("receipt-{}", record.id),
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
