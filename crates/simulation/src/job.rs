//! A job of any size: several functions of one throttled service work it off
//! through the fan-out, as the deployed stack would.

use std::cell::RefCell;
use std::time::Duration;

use fastrand::Rng;
use futures_util::future::join_all;
use serde_json::json;
use simulator::{Operation, Settings, Simulator, Throttle};
use tokio::time::{Instant, sleep};

use crate::queue::{Queue, QueueSettings, work_queue};
use crate::sandbox::{Ended, FunctionSettings, Sandbox};
use crate::world::sqs_event;

/// Most assets of a message that a person sends: what SQS's 1 MiB holds.
const MESSAGE_ASSETS: usize = 25_000;

/// Most assets in a call.
const BATCH: usize = 100;

/// The function's time, and the visibility timeout that goes with it, in the
/// deployed stack.
const TIMEOUT: Duration = Duration::from_secs(60);
const VISIBILITY: Duration = Duration::from_secs(420);

/// How long a poller waits that has found nothing.
const POLL: Duration = Duration::from_secs(1);

/// A job, and who works it off.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// assets to take out of one project
    pub assets: usize,
    /// functions at a time: `MaximumConcurrency`
    pub functions: usize,
    /// most messages of an invocation: `BatchSize`
    pub batch_size: usize,
    /// the largest request worked off at once: `FAN_OUT_ASSETS`
    pub fan_out_assets: usize,
    /// calls a second that the service lets through
    pub rate: f64,
    /// calls at once that it lets through after a pause
    pub burst: f64,
    /// the time of a call
    pub latency: Duration,
    /// deliveries before a message is given up: `MaxReceiveCount`
    pub max_receive_count: u32,
}

/// What a job took.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Took {
    /// the time until the project was empty and the queue too
    pub time: Duration,
    /// the least time in which the service lets so many calls through
    pub minimum: Duration,
    /// invocations of the function
    pub invocations: usize,
    /// calls, the throttled ones included
    pub calls: usize,
    /// calls that were throttled
    pub throttled: usize,
    /// the most deliveries of one message
    pub most_receives: u32,
    /// messages that the redrive policy gave up
    pub given_up: usize,
    /// assets left in the project
    pub left: usize,
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
}

fn asset(number: usize) -> String {
    format!("bbbbbbbb-0000-4000-8000-{number:012x}")
}

const PROJECT: &str = "aaaaaaaa-0000-4000-8000-000000000001";

impl Job {
    /// Works the job off, on a runtime and a clock of its own.
    ///
    /// # Panics
    ///
    /// If no runtime can be made, or the function fails on a record.
    pub fn run(self, seed: u64) -> Took {
        crate::paused_runtime(seed).block_on(self.work_off(seed))
    }

    async fn work_off(self, seed: u64) -> Took {
        let throttle = Throttle {
            rate: self.rate,
            burst: self.burst,
        };
        let simulator = Simulator::new(Settings {
            latency: self.latency,
            throttle: Some(throttle),
            ..Settings::default()
        });
        let ids: Vec<String> = (0..self.assets).map(asset).collect();
        simulator.add_project(PROJECT, &ids);
        let mut queue = Queue::new(QueueSettings {
            is_fifo: false,
            visibility: VISIBILITY,
            max_receive_count: self.max_receive_count,
            duplicates: 0.0,
        });
        for (number, ids) in ids.chunks(MESSAGE_ASSETS).enumerate() {
            let body = json!({"projectId": PROJECT, "assetIds": ids}).to_string();
            queue.put(format!("m-{number}"), body, None);
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
        });
        let ends = join_all((0..self.functions).map(|_| self.work(&shared))).await;
        let shared = shared.into_inner();
        let batches = self.assets.div_ceil(BATCH);
        let waits = (batches as f64 - self.burst).max(0.0) / self.rate;
        Took {
            time: ends.into_iter().max().unwrap_or_default(),
            minimum: Duration::from_secs_f64(waits),
            invocations: shared.invocations,
            calls: shared.calls,
            throttled: shared.calls - batches.min(shared.calls),
            most_receives: shared.most_receives,
            given_up: shared.given_up,
            left: simulator.project_assets(PROJECT).len(),
        }
    }

    /// Lets one function work until nothing is left, and returns when that was.
    async fn work(&self, shared: &RefCell<Shared>) -> Duration {
        let sandbox = {
            let shared = shared.borrow();
            let settings = FunctionSettings {
                is_fifo: false,
                fan_out_assets: self.fan_out_assets,
                max_concurrency: sitewise_disassociator::config::DEFAULT_MAX_CONCURRENCY,
            };
            Sandbox::start(&shared.simulator, settings)
        };
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
        for visibility in self.simulator.take_visibilities(work_queue(false)) {
            let ago = self.start.elapsed().saturating_sub(visibility.at);
            let visible_at = Instant::now() + visibility.timeout - ago;
            self.queue.hide_until(&visibility.receipt, visible_at);
        }
        let calls = self.simulator.calls();
        self.calls += calls
            .iter()
            .filter(|call| call.operation == Operation::Disassociate)
            .count();
        self.simulator.clear_calls();
    }
}
