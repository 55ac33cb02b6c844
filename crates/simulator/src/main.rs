//! The simulator as a program of its own, for a built function to talk to.

#![expect(clippy::print_stdout, reason = "the program tells what it sees")]

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use simulator::{
    Absent, Call, Fault, MissingList, Names, Operation, Settings, Simulator, Throttle, Tokens,
};

/// Simulates AWS IoT SiteWise Monitor projects and SQS queues over HTTP.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9100")]
    listen: SocketAddr,

    /// An event whose projects and assets are there from the start
    #[arg(long, value_name = "FILE")]
    event: Vec<PathBuf>,

    /// A project that is there from the start, with its assets; @FILE has one a
    /// line
    #[arg(long, value_name = "ID=ASSET,ASSET|ID=@FILE")]
    project: Vec<String>,

    /// A portal that is there from the start, with its projects; @FILE has one a
    /// line
    #[arg(long, value_name = "ID=PROJECT,PROJECT|ID=@FILE")]
    portal: Vec<String>,

    /// Assets below a project's asset, in no project themselves; @FILE has one a
    /// line
    #[arg(long, value_name = "ROOT=ASSET,ASSET|ROOT=@FILE")]
    descendants: Vec<String>,

    /// A queue that is there from the start
    #[arg(long, value_name = "NAME")]
    queue: Vec<String>,

    /// How long each SiteWise call takes
    #[arg(long, default_value_t = 0)]
    latency_ms: u64,

    /// SiteWise calls allowed per second and at once
    #[arg(long, value_name = "RATE[:BURST]")]
    throttle: Option<String>,

    /// Makes faults of a probability happen in another order
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// What is remembered of client tokens
    #[arg(long, value_enum, default_value_t = Tokens::Ignored)]
    tokens: Tokens,

    /// What happens to an asset that is not in the project
    #[arg(long, value_enum, default_value_t = AbsentArgument::Ignore)]
    asset_not_in_project: AbsentArgument,

    /// What happens to an asset that does not exist
    #[arg(long, value_enum, default_value_t = AbsentArgument::Error)]
    unknown_asset: AbsentArgument,

    /// What the message of a 404 or 400 names
    #[arg(long, value_enum, default_value_t = Names::Resource)]
    not_found_names: Names,

    /// What the list of a project or portal that does not exist is answered with
    #[arg(long, value_enum, default_value_t = MissingList::NotFound)]
    missing_list: MissingList,

    /// How long a list still shows an asset that was removed
    #[arg(long, default_value_t = 0)]
    removed_stay_listed_ms: u64,

    /// How long a list lacks an asset that was added after the first request
    #[arg(long, default_value_t = 0)]
    added_not_listed_ms: u64,

    /// Lists show the descendants of the assets that they show
    #[arg(long)]
    lists_descendants: bool,

    /// What goes wrong, such as disassociate:probability=0.3:status=500; the
    /// targets are disassociate, list, describe, list-projects, describe-portal, reads,
    /// sitewise and sqs
    #[arg(long, value_name = "SPEC")]
    fault: Vec<Fault>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AbsentArgument {
    Ignore,
    Error,
    NotFound,
    Invalid,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let simulator = Simulator::new(settings(&arguments)?);
    for file in &arguments.event {
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("{}: {error}", file.display()))?;
        simulator.seed_from_event(&text);
    }
    for text in &arguments.project {
        let (id, assets) = id_and_assets(text)?;
        simulator.add_project(&id, assets);
    }
    for text in &arguments.portal {
        let (portal, projects) = id_and_assets(text)?;
        simulator.add_portal(&portal, projects);
    }
    for text in &arguments.descendants {
        let (root, descendants) = id_and_assets(text)?;
        simulator.add_descendants(&root, descendants);
    }
    for queue in &arguments.queue {
        simulator.create_queue(queue);
    }
    for fault in arguments.fault {
        simulator.fault(fault);
    }

    let server = simulator.serve(arguments.listen).await?;
    println!("listening on {}", server.url());
    for (project, assets) in simulator.projects() {
        println!("project {project}: {} asset(s)", assets.len());
    }
    for queue in &arguments.queue {
        println!("queue {}/000000000000/{queue}", server.url());
    }
    let mut calls = simulator.watch();
    let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
    loop {
        tokio::select! {
            stopped = &mut stop => return Ok(stopped?),
            Some(call) = calls.recv() => println!("{}", line(&call)),
        }
    }
}

/// Reads `ID=ASSET,ASSET` or `ID=@file`.
fn id_and_assets(text: &str) -> Result<(String, Vec<String>), String> {
    let (id, assets) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?}: expected ID=ASSET,ASSET or ID=@FILE"))?;
    let assets: Vec<String> = match assets.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|error| format!("{file}: {error}"))?
            .lines()
            .map(|line| line.trim().to_owned())
            .collect(),
        None => assets.split(',').map(ToOwned::to_owned).collect(),
    };
    let assets = assets.into_iter().filter(|asset| !asset.is_empty());
    Ok((id.to_owned(), assets.collect()))
}

fn line(call: &Call) -> String {
    let answer = match call.status {
        Some(status) => status.to_string(),
        None => "no answer".to_owned(),
    };
    let what = match (&call.project, &call.queue) {
        (Some(project), _) if call.operation == Operation::Disassociate => {
            format!("project {project}, {} asset(s)", call.assets.len())
        }
        (Some(project), _) => format!("project {project}"),
        (None, Some(queue)) => format!("queue {queue}, {} message(s)", call.bodies.len()),
        (None, None) => format!("{} {}", call.method, call.path),
    };
    let invalid = call
        .invalid
        .as_ref()
        .map(|reason| format!(" INVALID: {reason}"))
        .unwrap_or_default();
    format!(
        "+{:>6} ms {:?} {what} → {answer}{invalid}",
        call.at.as_millis(),
        call.operation
    )
}

fn settings(arguments: &Arguments) -> Result<Settings, String> {
    Ok(Settings {
        asset_not_in_project: absent(arguments.asset_not_in_project),
        unknown_asset: absent(arguments.unknown_asset),
        tokens: arguments.tokens,
        not_found_names: arguments.not_found_names,
        missing_list: arguments.missing_list,
        removed_stay_listed: Duration::from_millis(arguments.removed_stay_listed_ms),
        added_not_listed: Duration::from_millis(arguments.added_not_listed_ms),
        lists_descendants: arguments.lists_descendants,
        latency: Duration::from_millis(arguments.latency_ms),
        throttle: arguments.throttle.as_deref().map(throttle).transpose()?,
        seed: arguments.seed,
    })
}

fn absent(argument: AbsentArgument) -> Absent {
    match argument {
        AbsentArgument::Ignore => Absent::Ignore,
        AbsentArgument::Error => Absent::AssetError {
            code: "INTERNAL_FAILURE".to_owned(),
            message: "The asset can't be disassociated.".to_owned(),
        },
        AbsentArgument::NotFound => Absent::NotFound,
        AbsentArgument::Invalid => Absent::Invalid,
    }
}

fn throttle(text: &str) -> Result<Throttle, String> {
    let (rate, burst) = text.split_once(':').unwrap_or((text, text));
    let number = |part: &str| part.parse::<f64>().ok().filter(|number| *number > 0.0);
    match (number(rate), number(burst)) {
        (Some(rate), Some(burst)) => Ok(Throttle {
            rate,
            burst: burst.max(1.0),
        }),
        _ => Err(format!(
            "{text:?}: expected RATE or RATE:BURST, both above 0"
        )),
    }
}
