//! The rig as a program: many seeds, or one with its whole history.

use std::process::ExitCode;

use clap::Parser;

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
}

#[expect(clippy::print_stdout, reason = "printing is what the program is for")]
fn main() -> ExitCode {
    rig::silence_requested_panics();
    let options = Options::parse();
    let is_whole = if let Some(seed) = options.seed {
        let run = rig::run(seed);
        println!("{}", run.history.join("\n"));
        match &run.result {
            Ok(tally) => println!("{tally:?}"),
            Err(broken) => println!("broken: {broken}"),
        }
        run.result.is_ok()
    } else {
        let summary = rig::run_all(options.from..options.from + options.seeds, options.stop);
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
