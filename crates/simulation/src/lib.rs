//! Deterministic simulation of the function's life: the real handler and the
//! real AWS SDK, over the simulator, on a clock that only moves when nothing
//! else does.
//!
//! One seed gives one history: which requests come, how the service behaves
//! where AWS does not say, what fails and when, where processes die. Every
//! history is held against the [`Invariant`]s, at each step and at its end.
//!
//! - `scenario`: what a seed draws
//! - `world`: the run; `queue`: SQS towards its consumers; `sandbox`: Lambda
//! - `ledger`: where every asset is, and what must be true of it
//! - `trace`: what a process asked of the services, and what it was answered
//! - `history`: what happened
//! - [`job`]: no faults, but more to do than a throttled service lets through

mod history;
pub mod job;
mod ledger;
mod queue;
mod sandbox;
mod scenario;
mod trace;
mod world;

use std::collections::BTreeMap;
use std::ops::{AddAssign, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use fastrand::Rng;

pub use history::{Broken, History, Invariant};
pub use queue::QueueSettings;

use scenario::Scenario;
use world::World;

/// The text of the panics that the simulation asks for.
pub const PANIC: &str = "a defect that the simulation asked for";

/// What runs were made of.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// invocations of the function
    pub invocations: u64,
    /// attempts of disassociations
    pub attempts: u64,
    /// attempts of reads
    pub reads: u64,
    /// attempts of either that were throttled, and in no other count
    pub throttled: u64,
    /// records that were named in a partial batch response
    pub redeliveries: u64,
    /// processes that died at work
    pub crashes: u64,
    /// dead letters at the end
    pub letters: u64,
    /// assets that someone added back
    pub readded: u64,
    /// assets left in their project because a list lacked them after they had
    /// been added
    pub unlisted: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.invocations += other.invocations;
        self.attempts += other.attempts;
        self.reads += other.reads;
        self.throttled += other.throttled;
        self.redeliveries += other.redeliveries;
        self.crashes += other.crashes;
        self.letters += other.letters;
        self.readded += other.readded;
        self.unlisted += other.unlisted;
    }
}

/// One seed's run.
#[derive(Debug)]
pub struct Run {
    /// what it was made of, or what broke
    pub result: Result<Tally, Broken>,
    /// what happened
    pub history: Vec<String>,
    /// the kinds of fault that were in it
    pub faults: Vec<String>,
}

/// Runs one seed, on a runtime and a clock of its own.
///
/// # Panics
///
/// If no runtime can be made, or the simulation itself is at fault.
pub fn run(seed: u64) -> Run {
    paused_runtime(seed).block_on(async {
        let mut dice = Rng::with_seed(seed);
        let mut history = History::new();
        let scenario = Scenario::draw(&mut dice);
        let faults = scenario.faults();
        history.note(format_args!("seed {seed}: {}", scenario.summary()));
        let world = World::new(&scenario, &mut dice, &mut history);
        let result = world.run().await;
        Run {
            result,
            history: history.lines().to_vec(),
            faults,
        }
    })
}

/// Makes a runtime with a clock of its own, and seeds the thread's dice: the
/// function and the SDK draw their pauses from them.
fn paused_runtime(seed: u64) -> tokio::runtime::Runtime {
    fastrand::seed(seed);
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime needs nothing but memory")
}

/// What many runs came to.
#[derive(Debug, Default)]
pub struct Summary {
    /// how many seeds were run
    pub runs: u64,
    /// what the unbroken ones were made of
    pub tally: Tally,
    /// for each kind of fault, how many seeds had it
    pub faults: BTreeMap<String, u64>,
    /// the seeds that broke an invariant
    pub broken: BTreeMap<u64, Broken>,
}

/// Runs many seeds, on as many threads as there are processors; no new ones
/// after one that broke an invariant, if `stops_when_broken`.
pub fn run_all(seeds: Range<u64>, stops_when_broken: bool) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let summary = Mutex::new(Summary::default());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    let run = run(seed);
                    let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
                    summary.runs += 1;
                    for fault in run.faults {
                        *summary.faults.entry(fault).or_default() += 1;
                    }
                    match run.result {
                        Ok(tally) => summary.tally += tally,
                        Err(broken) => {
                            summary.broken.insert(seed, broken);
                            if stops_when_broken {
                                next.store(seeds.end, Ordering::Relaxed);
                            }
                        }
                    }
                }
            });
        }
    });
    summary.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the panics that the simulation asks for out of the output.
pub fn silence_requested_panics() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload_as_str().unwrap_or_default();
        if !text.contains(PANIC) {
            default(panic);
        }
    }));
}
