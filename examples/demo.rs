//! One event, processed by the real handler with the real AWS SDK over HTTP,
//! against a simulated SiteWise Monitor and SQS: nothing of AWS is needed.
//!
//! Every project and asset that the event names is there before; what happens
//! is printed for a person to read.

#![expect(clippy::print_stdout, reason = "printing is what a demo is for")]

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
use clap::Parser;
use serde_json::value::RawValue;
use simulator::{Call, Fault, Operation, Settings, Simulator, Throttle};
use sitewise_disassociator::config::FunctionConfig;
use sitewise_disassociator::handler::{Function, Invocation};
use sitewise_disassociator::input::event::{self, Event};
use sitewise_disassociator::input::request::Scope;
use tokio::time::Instant;

const DEAD_LETTERS: &str = "dead-letters";
const WORK: &str = "work";

/// Works one event off against a simulated AWS and shows what happened.
#[derive(Debug, Parser)]
struct Arguments {
    /// The event, a JSON file such as those in events/
    #[arg(default_value = "events/sqs-several-requests.json")]
    event: PathBuf,

    /// What goes wrong, any number of times, such as
    /// disassociate:probability=0.3:status=500 or sqs:first=1:reset
    #[arg(long, value_name = "SPEC")]
    fault: Vec<Fault>,

    /// How long each SiteWise call takes
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 40)]
    latency: u64,

    /// SiteWise calls allowed per second; a burst of one second is allowed at once
    #[arg(long, value_name = "RATE")]
    throttle: Option<f64>,

    /// Makes faults of a probability happen in another order
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Time before the Lambda deadline
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    time_left: f64,

    /// The largest request that is processed at once
    #[arg(long, value_name = "ASSETS", default_value_t = 1000)]
    fan_out: usize,

    /// SiteWise calls at a time
    #[arg(long, value_name = "CALLS", default_value_t = 8)]
    concurrency: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let text = std::fs::read_to_string(&arguments.event)
        .map_err(|error| format!("{}: {error}", arguments.event.display()))?;
    let payload: Box<RawValue> = serde_json::from_str(&text)
        .map_err(|error| format!("{}: {error}", arguments.event.display()))?;

    let simulator = Simulator::new(Settings {
        latency: Duration::from_millis(arguments.latency),
        throttle: arguments.throttle.map(|rate| Throttle {
            rate,
            burst: rate.max(1.0),
        }),
        seed: arguments.seed,
        ..Settings::default()
    });
    simulator.seed_from_event(&text);
    for fault in arguments.fault {
        simulator.fault(fault);
    }
    let server = simulator.serve(([127, 0, 0, 1], 0).into()).await?;
    let function = function(
        &simulator,
        &server.url(),
        arguments.fan_out,
        arguments.concurrency,
    );

    println!("The event, {}", arguments.event.display());
    show_event(&payload);
    println!("\nBefore");
    show_projects(&simulator);

    let start = Instant::now();
    let started_at = simulator.calls().len();
    let response = function
        .handle(
            &payload,
            Invocation {
                request_id: "8476a536-e9f4-11e8-9739-2dfe598c3fcd",
                deadline: start + Duration::from_secs_f64(arguments.time_left),
                is_cold_start: true,
            },
        )
        .await;
    let took = start.elapsed();

    let calls = simulator.calls().split_off(started_at);
    show_calls(&calls, took);
    println!("\nAfter");
    show_projects(&simulator);
    show_queue(&simulator, "Dead letters", DEAD_LETTERS)?;
    show_queue(&simulator, "Work queue", WORK)?;
    match response {
        Ok(response) => {
            println!("\nThe response, as Lambda returns it");
            println!("{}", serde_json::to_string_pretty(&response)?);
        }
        Err(error) => {
            println!("\nThe error, as Lambda returns it");
            let error = serde_json::json!({
                "errorType": error.name(), "errorMessage": error.to_string(),
            });
            println!("{}", serde_json::to_string_pretty(&error)?);
        }
    }
    Ok(())
}

fn function(simulator: &Simulator, url: &str, fan_out: usize, concurrency: usize) -> Function {
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "AKIDEXAMPLE",
            "not a secret",
            None,
            None,
            "demo",
        )))
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .endpoint_url(url)
        .build();
    let queue = |name| Some(simulator.create_queue(name));
    let settings = FunctionConfig {
        dead_letter_queue_url: queue(DEAD_LETTERS),
        work_queue_url: queue(WORK),
        fan_out_assets: fan_out,
        call_concurrency: concurrency,
        ..FunctionConfig::default()
    };
    Function::new(&config, settings, SystemTime::now)
}

fn show_event(payload: &RawValue) {
    let event = match event::read(payload) {
        Ok(event) => event,
        Err(error) => {
            println!("  {error}");
            return;
        }
    };
    let response = match event {
        Event::Queue(_) => "a partial batch response",
        Event::Reported(_) => "a report",
    };
    println!(
        "  {} message(s); the response is {response}",
        event.messages().len()
    );
    for message in event.messages() {
        let id = message.id.as_deref().unwrap_or("without an id");
        print!("  {} {id}: ", message.origin.as_str());
        match message.request() {
            Ok(request) => {
                let dry_run = if request.dry_run { " (dry run)" } else { "" };
                match request.scope {
                    Scope::Assets(assets) => println!(
                        "{} asset(s) of project {}, {} bad id(s){dry_run}",
                        assets.valid.len(),
                        assets.project,
                        assets.invalid.len(),
                    ),
                    Scope::Project(project) => println!("all assets of project {project}{dry_run}"),
                    Scope::Portal(portal) => println!("all projects of portal {portal}{dry_run}"),
                }
            }
            Err(error) => println!("cannot be read: {error}"),
        }
    }
}

fn show_projects(simulator: &Simulator) {
    let projects = simulator.projects();
    if projects.is_empty() {
        println!("  no project");
    }
    for (project, assets) in projects {
        println!("  project {project}: {} asset(s)", assets.len());
    }
}

fn show_calls(calls: &[Call], took: Duration) {
    println!("\n{} call(s) in {} ms", calls.len(), took.as_millis());
    let first = calls.first().map_or(Duration::ZERO, |call| call.at);
    for call in calls {
        let what = match call.operation {
            Operation::Disassociate => format!(
                "BatchDisassociateProjectAssets {}, {} asset(s), token {}…",
                call.project.as_deref().unwrap_or_default(),
                call.assets.len(),
                call.token
                    .as_deref()
                    .and_then(|token| token.get(..8))
                    .unwrap_or_default(),
            ),
            Operation::SendMessage | Operation::SendMessageBatch => format!(
                "SendMessageBatch to {}, {} message(s)",
                call.queue.as_deref().unwrap_or_default(),
                call.bodies.len()
            ),
            Operation::ListProjectAssets => format!(
                "ListProjectAssets {}, {} asset(s)",
                call.project.as_deref().unwrap_or_default(),
                call.listed.len()
            ),
            Operation::DescribeProject => format!(
                "DescribeProject {}",
                call.project.as_deref().unwrap_or_default()
            ),
            Operation::ListProjects => format!(
                "ListProjects {}, {} project(s)",
                call.portal.as_deref().unwrap_or_default(),
                call.listed.len()
            ),
            Operation::DescribePortal => format!(
                "DescribePortal {}",
                call.portal.as_deref().unwrap_or_default()
            ),
            Operation::Other => call.path.clone(),
        };
        let status = match call.status {
            Some(status) => status.to_string(),
            None => "no response".to_owned(),
        };
        println!(
            "  +{:>5} ms  {what} → {status}",
            (call.at - first).as_millis()
        );
    }
}

fn show_queue(simulator: &Simulator, title: &str, name: &str) -> Result<(), Box<dyn Error>> {
    let messages = simulator.messages(name);
    println!("\n{title}: {} message(s)", messages.len());
    for message in messages {
        for (attribute, value) in &message.attributes {
            println!("  {attribute}: {value}");
        }
        match serde_json::from_str::<serde_json::Value>(&message.body) {
            Ok(body) if message.body.len() < 2_000 => {
                for line in serde_json::to_string_pretty(&body)?.lines() {
                    println!("  {line}");
                }
            }
            Ok(_) => println!(
                "  {}… ({} bytes)",
                message.body.get(..160).unwrap_or_default(),
                message.body.len()
            ),
            Err(_) => println!("  {}", message.body),
        }
    }
    Ok(())
}
