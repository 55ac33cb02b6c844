//! The function, the real SDK and the simulator, wired up for one test.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_sqs::config::{Credentials, SharedCredentialsProvider};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use simulator::{
    Absent, Action, Call, Fault, Message, MissingList, Names, Operation, Settings, Simulator,
};
use sitewise_disassociator::aws::sitewise::SiteWise;
use sitewise_disassociator::config::FunctionConfig;
use sitewise_disassociator::handler::{Function, Invocation};
use tokio::time::Instant;

pub(crate) const REQUEST_ID: &str = "8476a536-e9f4-11e8-9739-2dfe598c3fcd";
pub(crate) const DEAD_LETTERS: &str = "dead-letters";
pub(crate) const WORK: &str = "work";

/// A project id by number.
pub(crate) fn project(number: usize) -> String {
    format!("aaaaaaaa-0000-4000-8000-{number:012x}")
}

/// An asset id by number.
pub(crate) fn asset(number: usize) -> String {
    format!("bbbbbbbb-0000-4000-8000-{number:012x}")
}

/// The refusals that the service model has.
pub(crate) const REFUSALS: [(u16, &str); 2] = [
    (404, "ResourceNotFoundException"),
    (400, "InvalidRequestException"),
];

/// What the list of a missing project or portal may answer.
pub(crate) const MISSING: [MissingList; 3] = [
    MissingList::NotFound,
    MissingList::Invalid,
    MissingList::Empty,
];

/// Asset ids by number.
pub(crate) fn assets(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(asset).collect()
}

/// A request's JSON.
pub(crate) fn request(number: usize, ids: &[String]) -> Value {
    json!({"projectId": project(number), "assetIds": ids})
}

/// An SQS record with this id and body.
pub(crate) fn record(id: &str, body: &Value) -> Value {
    let body = match body {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    json!({"messageId": id, "eventSource": "aws:sqs", "body": body,
           "eventSourceARN": "arn:aws:sqs:eu-west-1:123456789012:work"})
}

/// An SQS event of these records.
pub(crate) fn records(records: impl IntoIterator<Item = Value>) -> Value {
    json!({"Records": records.into_iter().collect::<Vec<_>>()})
}

/// An EventBridge event around a detail.
pub(crate) fn rule_event(detail: &Value) -> Value {
    json!({"version": "0", "id": "event-1", "detail-type": "Assets Decommissioned",
           "source": "com.example.maintenance", "detail": detail})
}

/// An SNS event around a message.
pub(crate) fn topic_event(message: &Value) -> Value {
    json!({"Records": [{"EventSource": "aws:sns", "Sns": {
        "Type": "Notification", "MessageId": "notification-1", "TopicArn": "arn:topic",
        "Message": message.to_string(),
    }}]})
}

/// The partial batch response that names these records.
pub(crate) fn failed<const N: usize>(ids: [&str; N]) -> Value {
    let failures: Vec<Value> = ids.iter().map(|id| json!({"itemIdentifier": id})).collect();
    json!({"batchItemFailures": failures})
}

/// The numbers of the records `m-0`, `m-1` and so on that a partial batch
/// response names.
pub(crate) fn failed_numbers(answer: &Value) -> Vec<usize> {
    let failures = answer["batchItemFailures"].as_array().expect("a list");
    let ids = failures.iter().map(|failure| &failure["itemIdentifier"]);
    ids.map(|id| {
        let number = id
            .as_str()
            .and_then(|id| id.strip_prefix("m-")?.parse().ok());
        number.expect("a record with a number")
    })
    .collect()
}

/// A service that complains so about absent assets.
pub(crate) fn complaining(absent: &Absent, names: Names) -> Settings {
    Settings {
        asset_not_in_project: absent.clone(),
        unknown_asset: absent.clone(),
        not_found_names: names,
        ..Settings::default()
    }
}

/// Every way in which a service may complain about absent assets.
pub(crate) fn complaints() -> [Absent; 3] {
    let error = Absent::AssetError {
        code: "NOT_IN_PROJECT".to_owned(),
        message: "not in project".to_owned(),
    };
    [Absent::NotFound, Absent::Invalid, error]
}

/// How many assets a report counts as disassociated, absent, rejected and
/// unfinished.
pub(crate) fn counts(report: &Value) -> [&Value; 4] {
    let counts = &report["assets"];
    ["disassociated", "absent", "rejected", "unfinished"].map(|name| &counts[name])
}

/// The process's SDK configuration, over `http_client`.
pub(crate) fn sdk_config(http_client: SharedHttpClient) -> aws_types::sdk_config::Builder {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-west-1"))
        .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
            "AKIDEXAMPLE",
            "secret",
            None,
            None,
            "test",
        )))
        .http_client(http_client)
}

pub(crate) struct Harness {
    pub(crate) simulator: Simulator,
    pub(crate) function: Function,
    pub(crate) request_id: &'static str,
    pub(crate) time_left: Duration,
}

impl Harness {
    /// A function with both queues, and a simulator with these settings.
    pub(crate) fn new(settings: Settings) -> Self {
        let simulator = Simulator::new(settings);
        let config = sdk_config(simulator.http_client()).build();
        let queues = FunctionConfig {
            dead_letter_queue_url: Some(simulator.create_queue(DEAD_LETTERS)),
            work_queue_url: Some(simulator.create_queue(WORK)),
            ..FunctionConfig::default()
        };
        let now = || SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_407_660);
        let function = Function::new(&config, queues, now);
        Self {
            simulator,
            function,
            request_id: REQUEST_ID,
            time_left: Duration::from_secs(60),
        }
    }

    /// The same with one project, number 1, that has these assets.
    pub(crate) fn with_assets(numbers: impl IntoIterator<Item = usize>) -> Self {
        let harness = Self::new(Settings::default());
        harness.simulator.add_project(&project(1), assets(numbers));
        harness
    }

    /// Another function, of the same service and queues.
    pub(crate) fn another(&self) -> Self {
        let config = sdk_config(self.simulator.http_client()).build();
        let function = Function {
            sitewise: SiteWise::new(&config),
            rate_limiter: Arc::default(),
            ..self.function.clone()
        };
        Self {
            simulator: self.simulator.clone(),
            function,
            ..*self
        }
    }

    pub(crate) fn without_work_queue(mut self) -> Self {
        self.function.work_queue = None;
        self
    }

    /// Without both queues: the work queue requires the other one.
    pub(crate) fn without_queues(self) -> Self {
        let mut harness = self.without_work_queue();
        harness.function.dead_letter_queue = None;
        harness
    }

    /// Has every call that contains one of these assets refused.
    pub(crate) fn refuse(
        &self,
        numbers: impl IntoIterator<Item = usize>,
        (status, error_type): (u16, &str),
    ) {
        for number in numbers {
            let fault = Fault::on(Operation::Disassociate).asset(asset(number));
            self.simulator.fault(fault.action(Action::Refuse {
                status,
                error_type: error_type.to_owned(),
                message: "refused".to_owned(),
            }));
        }
    }

    /// Adds the fault that this text means.
    pub(crate) fn fault(&self, text: &str) {
        self.simulator
            .fault(text.parse::<Fault>().expect("a fault"));
    }

    /// Handles an event; an error is given by its name and text.
    pub(crate) async fn handle(&self, event: &Value) -> Result<Value, String> {
        let payload = RawValue::from_string(event.to_string()).expect("JSON");
        let invocation = Invocation {
            request_id: self.request_id,
            deadline: Instant::now() + self.time_left,
            is_cold_start: true,
        };
        match self.function.handle(&payload, invocation).await {
            Ok(answer) => Ok(serde_json::to_value(answer).expect("JSON")),
            Err(error) => Err(format!("{}: {error}", error.name())),
        }
    }

    /// Handles an event that must be answered.
    pub(crate) async fn answer(&self, event: &Value) -> Value {
        self.handle(event).await.expect("an answer")
    }

    /// The requests to SiteWise so far: calls and reads.
    pub(crate) fn requests(&self) -> Vec<Call> {
        let mut requests = self.simulator.calls();
        requests.retain(Call::is_sitewise);
        requests
    }

    /// The SiteWise calls so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let mut calls = self.requests();
        calls.retain(|call| call.operation == Operation::Disassociate);
        calls
    }

    /// The reads of membership so far: lists and descriptions.
    pub(crate) fn reads(&self) -> Vec<Call> {
        let mut reads = self.requests();
        reads.retain(|call| call.operation != Operation::Disassociate);
        reads
    }

    /// How many assets each SiteWise call so far had.
    pub(crate) fn call_sizes(&self) -> Vec<usize> {
        self.calls().iter().map(|call| call.assets.len()).collect()
    }

    /// The numbers of project 1's remaining assets.
    pub(crate) fn remaining(&self) -> Vec<usize> {
        self.simulator
            .project_assets(&project(1))
            .iter()
            .map(|id| usize::from_str_radix(&id[24..], 16).expect("an id of this module"))
            .collect()
    }

    pub(crate) fn letters(&self) -> Vec<Message> {
        self.simulator.messages(DEAD_LETTERS)
    }

    /// The dead letters' bodies, as JSON.
    pub(crate) fn letter_bodies(&self) -> Vec<Value> {
        bodies(&self.letters())
    }

    /// For each dead letter, its asset ids.
    pub(crate) fn lettered_assets(&self) -> Vec<Vec<String>> {
        self.letter_bodies().iter().map(asset_ids).collect()
    }

    /// The work queue's messages, as JSON.
    pub(crate) fn parts(&self) -> Vec<Value> {
        bodies(&self.simulator.messages(WORK))
    }

    /// Checks what must hold after every test.
    pub(crate) fn assert_nothing_invalid_was_sent(&self) {
        for call in self.simulator.calls() {
            assert_eq!(call.invalid, None, "{call:?}");
        }
    }
}

fn bodies(messages: &[Message]) -> Vec<Value> {
    messages
        .iter()
        .map(|message| serde_json::from_str(&message.body).expect("a JSON body"))
        .collect()
}

/// The asset ids of a request's JSON.
pub(crate) fn asset_ids(request: &Value) -> Vec<String> {
    request["assetIds"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|id| id.as_str().expect("a string").to_owned())
        .collect()
}
