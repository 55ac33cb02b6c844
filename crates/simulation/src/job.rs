//! A job of any size: several functions of one throttled service do it as the
//! deployed stack would.

use std::cell::RefCell;
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use serde_json::json;
use simulator::{Settings, Simulator, Throttle};
use tokio::time::{Instant, sleep};

use crate::queue::{Queue, QueueSettings, work_queue};
use crate::sandbox::{Ended, FunctionSettings, Sandbox};
use crate::world::sqs_event;

/// Most assets of a message that a person sends: what SQS's 1 MiB holds.
const MESSAGE_ASSETS: usize = 25_000;

/// Projects of a portal (SiteWise quotas).
const PORTAL_PROJECTS: usize = 100;

/// Most assets in a call.
const BATCH: usize = 100;

/// The function's time, and the visibility timeout that goes with it, in the
/// deployed stack.
const TIMEOUT: Duration = Duration::from_secs(60);
const VISIBILITY: Duration = Duration::from_secs(420);

/// How long a poller waits that has found nothing.
const POLL: Duration = Duration::from_secs(1);

/// A job, and who does it. The default is the deployed stack's.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// projects to empty, each named by messages of its own
    pub projects: usize,
    /// assets of each project
    pub assets: usize,
    /// whether one message names each portal of a hundred projects, instead of each
    /// project's assets
    pub by_portal: bool,
    /// calls a second that the service lets through, and calls at once after a
    /// pause
    pub rate: f64,
    /// functions at a time: `FunctionConcurrency`
    pub functions: usize,
    /// most messages of an invocation: `BatchSize`
    pub batch_size: usize,
    /// the largest request processed at once: `FAN_OUT_ASSETS`
    pub fan_out_assets: usize,
    /// the time of a call
    pub latency: Duration,
    /// deliveries before a message is given up: `MaxReceiveCount`
    pub max_receive_count: u32,
}

impl Default for Job {
    /// What the quotas of AWS allow: 100 portals of 100 projects of one asset.
    fn default() -> Self {
        Self {
            projects: 10_000,
            assets: 1,
            by_portal: false,
            rate: 10.0,
            functions: 5,
            batch_size: 25,
            fan_out_assets: 1000,
            latency: Duration::from_millis(50),
            max_receive_count: 100,
        }
    }
}

/// What a job took.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Took {
    /// the time until the projects were empty and the queue too
    pub time: Duration,
    /// the least time in which the service lets so many calls, and lists of whole
    /// projects and portals, through
    pub minimum: Duration,
    /// invocations of the function
    pub invocations: usize,
    /// calls and reads, the throttled ones included
    pub calls: usize,
    /// those that were throttled
    pub throttled: usize,
    /// the most deliveries of one message
    pub most_receives: u32,
    /// messages that the redrive policy gave up
    pub given_up: usize,
    /// assets left in their projects
    pub left: usize,
}

impl Took {
    /// Returns how many times the least time it took.
    pub fn ratio(&self) -> f64 {
        self.time.as_secs_f64() / self.minimum.as_secs_f64()
    }

    /// Returns whether everything was done.
    pub fn is_whole(&self) -> bool {
        self.left == 0 && self.given_up == 0
    }
}

struct Shared {
    simulator: Simulator,
    queue: Queue,
    dice: Rng,
    start: Instant,
    most_receives: u32,
    invocations: usize,
    given_up: usize,
    calls: usize,
    throttled: usize,
}

impl Job {
    /// Does the job, on a runtime and a clock of its own.
    ///
    /// # Panics
    ///
    /// If no runtime can be made, or the function fails on a record.
    pub fn run(self, seed: u64) -> Took {
        crate::paused_runtime(seed).block_on(self.process(seed))
    }

    /// Does the job with so many seeds from 0, and returns what took the median time.
    ///
    /// # Panics
    ///
    /// As [`Job::run`] does, and if there is no seed.
    pub fn median(self, seeds: u64) -> Took {
        let mut took: Vec<Took> = (0..seeds).map(|seed| self.run(seed)).collect();
        took.sort_by_key(|took| took.time);
        took[took.len() / 2]
    }

    async fn process(self, seed: u64) -> Took {
        let simulator = Simulator::new(Settings {
            latency: self.latency,
            throttle: Some(Throttle {
                rate: self.rate,
                burst: self.rate,
            }),
            ..Settings::default()
        });
        let mut queue = Queue::new(QueueSettings {
            is_fifo: false,
            visibility: VISIBILITY,
            max_receive_count: self.max_receive_count,
            duplicates: 0.0,
        });
        for number in 0..self.projects {
            let project = format!("aaaaaaaa-0000-4000-8000-{number:012x}");
            let first = number * self.assets;
            let ids: Vec<String> = (first..first + self.assets)
                .map(|asset| format!("bbbbbbbb-0000-4000-8000-{asset:012x}"))
                .collect();
            simulator.add_project(&project, &ids);
            if self.by_portal {
                let portal = number / PORTAL_PROJECTS;
                let id = format!("dddddddd-0000-4000-8000-{portal:012x}");
                simulator.add_portal(&id, [&project]);
                if number % PORTAL_PROJECTS == 0 {
                    let body = json!({"portalId": id, "allProjects": true}).to_string();
                    queue.put(format!("m-{number}"), body, None);
                }
                continue;
            }
            for (part, ids) in ids.chunks(MESSAGE_ASSETS).enumerate() {
                let body = json!({"projectId": project, "assetIds": ids}).to_string();
                queue.put(format!("m-{number}-{part}"), body, None);
            }
        }
        let shared = RefCell::new(Shared {
            simulator: simulator.clone(),
            queue,
            dice: Rng::with_seed(seed),
            start: Instant::now(),
            most_receives: 0,
            invocations: 0,
            given_up: 0,
            calls: 0,
            throttled: 0,
        });
        let functions = (0..self.functions).map(|number| self.function(number, &shared));
        let ends = join_all(functions).await;
        let shared = shared.into_inner();
        let mut requests = self.projects * self.assets.div_ceil(BATCH);
        if self.by_portal {
            // Each portal and each project is listed once.
            requests += self.projects.div_ceil(PORTAL_PROJECTS) + self.projects;
        }
        let waits = (requests as f64 - self.rate).max(0.0) / self.rate;
        Took {
            time: ends.into_iter().max().unwrap_or_default(),
            minimum: Duration::from_secs_f64(waits),
            invocations: shared.invocations,
            calls: shared.calls,
            throttled: shared.throttled,
            most_receives: shared.most_receives,
            given_up: shared.given_up,
            left: simulator
                .projects()
                .values()
                .map(|assets| assets.len())
                .sum(),
        }
    }

    /// Lets one function work until nothing is left, and returns when that was.
    async fn function(&self, number: usize, shared: &RefCell<Shared>) -> Duration {
        let settings = FunctionSettings {
            is_fifo: false,
            fan_out_assets: self.fan_out_assets,
            call_concurrency: sitewise_disassociator::config::DEFAULT_CALL_CONCURRENCY,
        };
        let sandbox = Sandbox::start(&shared.borrow().simulator, settings, number);
        let mut end = Duration::ZERO;
        loop {
            let (records, number) = {
                let mut shared = shared.borrow_mut();
                let Shared { queue, dice, .. } = &mut *shared;
                let (records, moved) = queue.receive(self.batch_size, dice);
                shared.given_up += moved.len();
                if records.is_empty() && shared.queue.messages().is_empty() {
                    return end;
                }
                shared.invocations += usize::from(!records.is_empty());
                let receives = records.iter().map(|record| record.receives).max();
                shared.most_receives = shared.most_receives.max(receives.unwrap_or_default());
                (records, shared.invocations)
            };
            if records.is_empty() {
                sleep(POLL).await;
                continue;
            }
            let event = sqs_event(&records, work_queue(false));
            let ended = sandbox
                .invoke(&format!("request-{number}"), &event, TIMEOUT, None)
                .await;
            let Ended::Answer(answer) = ended else {
                unreachable!("records that have ids are answered: {ended}");
            };
            let answer = answer.to_string();
            let mut shared = shared.borrow_mut();
            for record in &records {
                if !answer.contains(&format!("\"{}\"", record.id)) {
                    shared.queue.delete(record);
                }
            }
            shared.take_what_it_sent();
            end = shared.start.elapsed();
        }
    }
}

impl Shared {
    fn take_what_it_sent(&mut self) {
        for part in self.simulator.take_messages(work_queue(false)) {
            self.queue.put(part.id, part.body, None);
        }
        for call in self.simulator.calls() {
            if call.is_sitewise() {
                self.calls += 1;
                self.throttled += usize::from(call.status == Some(429));
            }
        }
        self.simulator.clear_calls();
    }
}
