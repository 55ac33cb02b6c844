//! The rig as a program: many seeds, or one with its whole history.

use std::process::ExitCode;
use std::time::Duration;

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
    /// Instead of seeds, jobs of these many assets for a throttled service.
    #[arg(long, value_delimiter = ',')]
    jobs: Vec<usize>,
    /// Calls a second that the service lets through.
    #[arg(long, default_value_t = 50.0)]
    rate: f64,
    /// Functions at work at a time.
    #[arg(long, default_value_t = 5)]
    functions: usize,
    /// Most messages of an invocation.
    #[arg(long, default_value_t = 100)]
    batch_size: usize,
}

#[expect(clippy::print_stdout, reason = "printing is what the program is for")]
fn main() -> ExitCode {
    simulation::silence_requested_panics();
    let options = Options::parse();
    let is_whole = if !options.jobs.is_empty() {
        println!(
            "{:>9} {:>9} {:>9} {:>5} {:>11} {:>7} {:>9} {:>8}",
            "assets", "seconds", "minimum", "x", "invocations", "calls", "throttled", "receives"
        );
        options.jobs.iter().all(|assets| {
            let took = job(&options, *assets).run(options.from);
            let (time, minimum) = (took.time.as_secs_f64(), took.minimum.as_secs_f64());
            println!(
                "{assets:>9} {time:>9.1} {minimum:>9.1} {:>5.2} {:>11} {:>7} {:>9} {:>8}",
                time / minimum,
                took.invocations,
                took.calls,
                took.throttled,
                took.most_receives
            );
            took.left == 0 && took.given_up == 0
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

fn job(options: &Options, assets: usize) -> Job {
    Job {
        assets,
        functions: options.functions,
        batch_size: options.batch_size,
        fan_out_assets: 1000,
        rate: options.rate,
        burst: options.rate,
        latency: Duration::from_millis(50),
        max_receive_count: 100,
    }
}
