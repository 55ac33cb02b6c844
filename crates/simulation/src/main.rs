//! The simulation as a program: many seeds, or one with its whole history.

use std::process::ExitCode;

use clap::Parser;
use simulation::job::Job;

/// Runs seeds, each a life of the function with much that can go wrong in it.
#[derive(Parser)]
struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Stop at the first seed that breaks an invariant.
    #[arg(long)]
    stop: bool,
    /// One seed only, with its whole history.
    #[arg(long)]
    seed: Option<u64>,
    /// Instead of seeds, a job of so many projects for a throttled service: the
    /// median of five runs.
    #[arg(long)]
    jobs: Option<usize>,
    /// Assets of each project of a job.
    #[arg(long, default_value_t = Job::default().assets)]
    assets: usize,
    /// Each message of a job names a portal of a hundred projects.
    #[arg(long)]
    portals: bool,
    /// Calls a second that the service lets through, for each job.
    #[arg(long, value_delimiter = ',', default_value = "2,10,30")]
    rate: Vec<f64>,
    /// Functions at work at a time.
    #[arg(long, default_value_t = Job::default().functions)]
    functions: usize,
    /// Most messages of an invocation.
    #[arg(long, default_value_t = Job::default().batch_size)]
    batch_size: usize,
}

/// Runs of a job, of which the median counts.
const JOB_RUNS: u64 = 5;

#[expect(clippy::print_stdout, reason = "printing is what the program is for")]
fn main() -> ExitCode {
    simulation::silence_requested_panics();
    let options = Options::parse();
    let is_whole = if let Some(projects) = options.jobs {
        println!(
            "{:>9} {:>9} {:>9} {:>6} {:>11} {:>7} {:>9} {:>8}",
            "calls/s", "seconds", "minimum", "x", "invocations", "calls", "throttled", "receives"
        );
        options.rate.iter().all(|rate| {
            let job = Job {
                projects,
                assets: options.assets,
                by_portal: options.portals,
                rate: *rate,
                functions: options.functions,
                batch_size: options.batch_size,
                ..Job::default()
            };
            let took = job.median(JOB_RUNS);
            println!(
                "{rate:>9} {:>9.1} {:>9.1} {:>6.3} {:>11} {:>7} {:>9} {:>8}",
                took.time.as_secs_f64(),
                took.minimum.as_secs_f64(),
                took.ratio(),
                took.invocations,
                took.calls,
                took.throttled,
                took.most_receives
            );
            took.is_whole()
        })
    } else if let Some(seed) = options.seed {
        let run = simulation::run(seed);
        println!("{}", run.history.join("\n"));
        match &run.result {
            Ok(tally) => println!("{tally:?}"),
            Err(broken) => println!("broken: {broken}"),
        }
        run.result.is_ok()
    } else {
        let summary = simulation::run_all(options.from..options.from + options.seeds, options.stop);
        for (fault, seeds) in &summary.faults {
            println!("{seeds:>8} seeds with: {fault}");
        }
        println!("{:?}", summary.tally);
        for (seed, broken) in &summary.broken {
            println!("seed {seed}: {broken}");
        }
        println!("{} seeds, {} broken", summary.runs, summary.broken.len());
        summary.broken.is_empty()
    };
    if is_whole {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
