//! The metrics of one invocation.
//!
//! Owns the metrics' names and units, and their form: documents of the
//! CloudWatch embedded metric format ("Specification: Embedded metric format",
//! Amazon CloudWatch User Guide). Pure: it must not write them anywhere.

use std::iter;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::output::response::{Counts, requests_unfinished};
use crate::session::RequestCounts;
use crate::settle::Settlement;

/// Most values that a document may have of one metric (the specification's
/// `targetMembers`).
const MOST_VALUES: usize = 100;

const CALL_LATENCY: &str = "CallLatency";
const OLDEST_MESSAGE_AGE: &str = "OldestMessageAge";

/// The metrics of one invocation. A message that is redelivered counts again.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// messages in the event
    pub messages: usize,
    /// records named in the partial batch response
    pub redelivered: usize,
    /// the assets, by outcome
    pub assets: Counts,
    /// requests without an outcome whose assets are not known, so that `assets`
    /// cannot count them
    pub requests_unfinished: usize,
    /// the age of the oldest record that stays in its queue, by its
    /// `SentTimestamp`
    pub oldest_message_age: Option<Duration>,
    /// the requests to SiteWise
    pub requests: RequestCounts,
    /// dead letters stored
    pub dead_letters: usize,
    /// parts stored
    pub parts: usize,
    /// dead letters and parts that could not be stored
    pub not_stored: usize,
    /// whether this is the process's first invocation
    pub cold_start: bool,
}

impl Metrics {
    /// Counts what became of messages. `redelivered` says of each whether it stays in
    /// its queue.
    pub fn count(
        &mut self,
        settlements: &[Settlement<'_>],
        redelivered: &[bool],
        now: fn() -> SystemTime,
    ) {
        self.messages = settlements.len();
        self.redelivered = redelivered.iter().filter(|is_so| **is_so).count();
        self.assets = Counts::of(settlements);
        self.requests_unfinished = requests_unfinished(settlements);
        let redelivered = settlements.iter().zip(redelivered);
        let redelivered = redelivered.filter(|(_, is_redelivered)| **is_redelivered);
        let sent_at = redelivered.filter_map(|(one, _)| one.received.message.sent_at);
        let oldest = sent_at.min();
        self.oldest_message_age = oldest.and_then(|sent_at| now().duration_since(sent_at).ok());
    }

    /// Returns the metrics as members of a log line: the values, and `_aws` if
    /// there is a `namespace`. The one dimension is in every line, `service`.
    ///
    /// Latencies for which the first line has no room are in lines of their own.
    pub fn documents(&self, namespace: Option<&str>, now: SystemTime) -> Vec<Map<String, Value>> {
        let mut latencies = self.requests.latencies.chunks(MOST_VALUES).map(latency);
        let mut first = self.metrics();
        first.extend(latencies.next());
        iter::once(first)
            .chain(latencies.map(|latencies| vec![latencies]))
            .map(|metrics| document(metrics, namespace, now))
            .collect()
    }

    fn metrics(&self) -> Vec<Metric> {
        let assets = &self.assets;
        let count = |(name, count): (_, usize)| (name, "Count", count.into());
        let mut metrics = Vec::from(
            [
                ("MessagesReceived", self.messages),
                ("MessagesRedelivered", self.redelivered),
                ("AssetsRequested", assets.requested),
                ("AssetsDisassociated", assets.disassociated),
                ("AssetsAbsent", assets.absent),
                ("AssetsRejected", assets.rejected),
                ("AssetsUnfinished", assets.unfinished),
                ("AssetsQueued", assets.queued),
                ("RequestsUnfinished", self.requests_unfinished),
                ("Calls", self.requests.calls),
                ("Reads", self.requests.reads),
                ("ThrottledCalls", self.requests.throttled),
                ("DeadLetters", self.dead_letters),
                ("Parts", self.parts),
                ("NotStored", self.not_stored),
            ]
            .map(count),
        );
        // As in Powertools, warm starts are not counted.
        metrics.extend(self.cold_start.then_some(count(("ColdStart", 1))));
        let age = self.oldest_message_age.map(|age| age.as_secs().into());
        metrics.extend(age.map(|age| (OLDEST_MESSAGE_AGE, "Seconds", age)));
        metrics
    }
}

/// A metric's name, unit and value.
type Metric = (&'static str, &'static str, Value);

fn latency(latencies: &[Duration]) -> Metric {
    let milliseconds = latencies.iter().map(|one| one.as_secs_f64() * 1000.0);
    (CALL_LATENCY, "Milliseconds", milliseconds.collect())
}

fn document(metrics: Vec<Metric>, namespace: Option<&str>, now: SystemTime) -> Map<String, Value> {
    let directive = namespace.map(|namespace| {
        let time = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let metrics = metrics.iter();
        let metrics = metrics.map(|(name, unit, _)| json!({"Name": name, "Unit": unit}));
        let directive = json!({
            "Timestamp": u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            "CloudWatchMetrics": [{
                "Namespace": namespace,
                "Dimensions": [["service"]],
                "Metrics": metrics.collect::<Value>(),
            }],
        });
        ("_aws".to_owned(), directive)
    });
    let values = metrics.into_iter();
    let values = values.map(|(name, _, value)| (name.to_owned(), value));
    values.chain(directive).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(latencies: u64) -> Metrics {
        Metrics {
            messages: 2,
            redelivered: 1,
            assets: Counts {
                requested: 22,
                duplicates: 1,
                disassociated: 4,
                absent: 12,
                rejected: 3,
                unfinished: 2,
                queued: 1,
            },
            requests_unfinished: 6,
            oldest_message_age: Some(Duration::from_millis(345_999)),
            requests: RequestCounts {
                calls: 5,
                reads: 13,
                throttled: 7,
                latencies: (0..latencies)
                    .map(|latency| Duration::from_micros(latency * 500))
                    .collect(),
            },
            dead_letters: 8,
            parts: 9,
            not_stored: 11,
            cold_start: true,
        }
    }

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(1_795_407_660_123)
    }

    #[test]
    fn a_document_has_every_metric_with_its_unit_and_one_dimension() {
        insta::assert_json_snapshot!(metrics(2).documents(Some("Decommissioning"), now()));
    }

    #[test]
    fn what_an_invocation_does_not_have_is_not_in_its_document() {
        let documents = Metrics::default().documents(Some("Decommissioning"), now());
        assert_eq!(documents.len(), 1);
        let text = Value::from(documents).to_string();
        assert!(text.contains("Calls"), "{text}");
        for absent in ["ColdStart", CALL_LATENCY, OLDEST_MESSAGE_AGE] {
            assert!(!text.contains(absent), "{text}");
        }
    }

    #[test]
    fn without_a_namespace_the_values_are_members_all_the_same() {
        let [line] = metrics(0).documents(None, now()).try_into().expect("one");
        assert_eq!(line.get("_aws"), None);
        assert_eq!(line["AssetsRequested"], 22);
    }

    #[test]
    fn a_document_has_at_most_a_hundred_latencies_and_none_is_dropped() {
        for (latencies, sizes) in [
            (0, &[][..]),
            (1, &[1]),
            (100, &[100]),
            (101, &[100, 1]),
            (250, &[100, 100, 50]),
        ] {
            let documents = metrics(latencies).documents(Some("Decommissioning"), now());
            let found: Vec<usize> = documents
                .iter()
                .filter_map(|document| Some(document.get(CALL_LATENCY)?.as_array()?.len()))
                .collect();
            assert_eq!(found, sizes);
            for later in documents.iter().skip(1) {
                let named = &later["_aws"]["CloudWatchMetrics"][0]["Metrics"];
                assert_eq!(
                    named,
                    &json!([{"Name": CALL_LATENCY, "Unit": "Milliseconds"}])
                );
                assert_eq!(later.len(), 2, "{later:?}");
            }
        }
    }
}
