//! The process that Lambda runs the function in: warm between invocations,
//! stopped at its deadline, dead at any moment.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_async::time::{SharedTimeSource, TimeSource};
use serde_json::Value;
use serde_json::value::RawValue;
use simulator::{Call, Simulator};
use sitewise_disassociator::config::FunctionConfig;
use sitewise_disassociator::handler::{Function, Invocation};
use tokio::time::{Instant, timeout_at};

use crate::queue::{dead_letter_queue, work_queue};

/// The time of day when a run starts.
const START: Duration = Duration::from_secs(1_795_407_660);

/// The time of day by the run's own clock, for the SDK's retry quota too.
#[derive(Clone, Copy, Debug)]
struct RunTime(Instant);

impl TimeSource for RunTime {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + START + self.0.elapsed()
    }
}

/// What the access key of a process starts with.
const PROCESS: &str = "PROCESS-";

/// Returns the number of the process that made a request.
pub(crate) fn process_of(call: &Call) -> Option<usize> {
    let (_, key) = call.headers.get("authorization")?.split_once(PROCESS)?;
    key.split('/').next()?.parse().ok()
}

/// How an invocation ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// with an answer
    Answer(Value),
    /// with a Lambda error
    Error(String),
    /// the process died
    Crashed,
    /// Lambda stopped it at its deadline
    TimedOut,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answer(answer) => write!(f, "answers {answer}"),
            Self::Error(error) => write!(f, "fails: {error}"),
            Self::Crashed => f.write_str("dies"),
            Self::TimedOut => f.write_str("is stopped at its deadline"),
        }
    }
}

/// How the function is configured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FunctionSettings {
    pub(crate) is_fifo: bool,
    pub(crate) fan_out_assets: usize,
    pub(crate) call_concurrency: usize,
}

/// A process with the function in it.
#[derive(Debug)]
pub(crate) struct Sandbox {
    function: Function,
}

impl Sandbox {
    /// A cold start. The process signs its requests by its number.
    pub(crate) fn start(simulator: &Simulator, settings: FunctionSettings, process: usize) -> Self {
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-west-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                format!("{PROCESS}{process}"),
                "secret",
                None,
                None,
                "simulation",
            )))
            .time_source(SharedTimeSource::new(RunTime(Instant::now())))
            .http_client(simulator.http_client())
            .build();
        let queue = |name: &str| Some(simulator.create_queue(name));
        let function_config = FunctionConfig {
            dead_letter_queue_url: queue(dead_letter_queue(settings.is_fifo)),
            work_queue_url: queue(work_queue(settings.is_fifo)),
            fan_out_assets: settings.fan_out_assets,
            call_concurrency: settings.call_concurrency,
            ..FunctionConfig::default()
        };
        let function = Function::new(&config, function_config, || UNIX_EPOCH + START);
        Self { function }
    }

    /// Runs one invocation. With `dies_after` polls the process is gone, with
    /// whatever was under way.
    pub(crate) async fn invoke(
        &self,
        request_id: &str,
        event: &str,
        time_left: Duration,
        dies_after: Option<u32>,
    ) -> Ended {
        let Ok(payload) = RawValue::from_string(event.to_owned()) else {
            return Ended::Error("the simulation's own event is not JSON".to_owned());
        };
        let deadline = Instant::now() + time_left;
        let invocation = Invocation {
            request_id,
            deadline,
            is_cold_start: false,
        };
        let handled = async {
            match self.function.handle(&payload, invocation).await {
                Ok(answer) => Ended::Answer(serde_json::to_value(answer).unwrap_or_default()),
                Err(error) => Ended::Error(error.to_string()),
            }
        };
        let mortal = Mortal {
            life: Box::pin(handled),
            polls_left: dies_after,
        };
        match timeout_at(deadline, mortal).await {
            Ok(ended) => ended.unwrap_or(Ended::Crashed),
            Err(_elapsed) => Ended::TimedOut,
        }
    }
}

/// A future that is given up after so many polls: at any of its await points.
struct Mortal<F> {
    life: Pin<Box<F>>,
    polls_left: Option<u32>,
}

impl<F: Future> Future for Mortal<F> {
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.polls_left {
            Some(0) => return Poll::Ready(None),
            Some(left) => *left -= 1,
            None => {}
        }
        self.life.as_mut().poll(context).map(Some)
    }
}
