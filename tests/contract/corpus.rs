//! Sections 1 and 2: malformed input of many kinds, and a million ids. Whatever
//! comes in, its neighbours are processed, it is dead-lettered as it came, and
//! nothing invalid goes out.

use std::collections::BTreeSet;
use std::ops::AddAssign;
use std::thread;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use simulator::{Absent, Settings};
use sitewise_disassociator::aws::sqs::escape_refused;
use sitewise_disassociator::handler::Invocation;
use tokio::time::Instant;

use crate::support::{
    Harness, REQUEST_ID, asset, asset_ids, assets, failed, project, record, records, request,
};

/// A bad message.
#[derive(Deserialize)]
struct Bad {
    reason: String,
    #[serde(flatten)]
    sent: Sent,
    #[serde(flatten)]
    end: End,
    /// the response to it as a payload of its own, in short
    as_payload: String,
}

/// How a record carries it.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sent {
    /// As the text of the body.
    Body(String),
    /// As JSON in place of the body's string.
    BodyJson(String),
    /// As JSON in place of the whole record.
    Record(String),
}

/// What becomes of it.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum End {
    /// It is dead-lettered as it came, because of this problem.
    Problem(String),
    /// Only these ids are dead-lettered, and [`GOOD`] is disassociated.
    InvalidIds(Vec<String>),
}

use End::{InvalidIds, Problem};
use Sent::{Body, BodyJson, Record};

/// The good asset of each bad message that has one. The neighbours have those
/// before it.
const GOOD: usize = 9;

/// The corpus, which the fuzz targets start from too.
const FILES: [&str; 5] = [
    // not one JSON object
    include_str!("corpus/texts.json"),
    // objects that are meant as requests
    include_str!("corpus/requests.json"),
    // requests with some bad ids
    include_str!("corpus/asset_ids.json"),
    // records that are bad themselves
    include_str!("corpus/records.json"),
    // envelopes, and what looks like one
    include_str!("corpus/envelopes.json"),
];

/// Messages that are too long for a file.
fn long_messages() -> Vec<Bad> {
    let text = |reason: &str, body: String, problem: &str| Bad {
        reason: reason.to_owned(),
        sent: Body(body),
        end: Problem(problem.to_owned()),
        as_payload: "refused".to_owned(),
    };
    let million = "a".repeat(1_000_000);
    let project_id = json!({"projectId": million, "assetIds": [asset(GOOD)]});
    let asset_ids = request(1, &[asset(GOOD), million.clone()]);
    vec![
        text(
            "a very long number",
            "9".repeat(100_000),
            "expected a JSON object, found a number",
        ),
        text(
            "lists, 100,000 deep",
            "[".repeat(100_000) + &"]".repeat(100_000),
            "expected a JSON object, found an array",
        ),
        text(
            "brackets that never close",
            "[".repeat(500_000),
            "expected a JSON object: EOF while parsing a list at line 1 column 500000",
        ),
        text(
            "objects that never close",
            r#"{"a":"#.repeat(100_000),
            "expected a JSON object: EOF while parsing a value at line 1 column 500000",
        ),
        text(
            "one word of 1 MB",
            million.clone(),
            "expected a JSON object: expected value at line 1 column 1",
        ),
        Bad {
            as_payload: "failed".to_owned(),
            ..text(
                "project of 1 MB",
                project_id.to_string(),
                &format!(
                    "projectId: expected a lowercase UUID such as \
                     1f2e3d4c-5b6a-4798-8796-a5b4c3d2e1f0, found \"{}\"… (1000000 bytes)",
                    &million[..64]
                ),
            )
        },
        Bad {
            reason: "id of 1 MB".to_owned(),
            sent: Body(asset_ids.to_string()),
            end: InvalidIds(vec![million]),
            as_payload: "partial".to_owned(),
        },
    ]
}

/// A message that is processed whole, although it looks unusual.
#[derive(Deserialize)]
struct Unusual {
    reason: String,
    body: String,
    /// the response to it as a payload of its own, in short
    as_payload: String,
}

fn unusual() -> Vec<Unusual> {
    serde_json::from_str(include_str!("corpus/unusual.json")).expect("cases")
}

fn corpus() -> Vec<Bad> {
    let parse = |text| serde_json::from_str::<Vec<Bad>>(text).expect("cases");
    let mut all: Vec<Bad> = FILES.into_iter().flat_map(parse).collect();
    all.extend(long_messages());
    all
}

impl Bad {
    /// Returns the record that carries it.
    fn record(&self) -> String {
        match &self.sent {
            Body(body) => record("bad", &json!(body)).to_string(),
            BodyJson(body) => {
                format!(r#"{{"messageId":"bad","eventSource":"aws:sqs","body":{body}}}"#)
            }
            Record(record) => record.clone(),
        }
    }

    /// Returns it as JSON: as a string if it is not JSON.
    fn json(&self) -> String {
        match &self.sent {
            Body(body) => match RawValue::from_string(body.clone()) {
                Ok(value) => value.get().to_owned(),
                Err(_) => json!(body).to_string(),
            },
            BodyJson(json) | Record(json) => json.clone(),
        }
    }

    /// Returns it as the message of an SNS notification, if it can be one.
    fn message(&self) -> Option<String> {
        match &self.sent {
            Body(body) => Some(json!(body).to_string()),
            BodyJson(json) => Some(json.clone()),
            Record(_) => None,
        }
    }

    /// Returns the numbers of its assets that remain.
    fn remaining(&self) -> Vec<usize> {
        match self.end {
            Problem(_) => vec![GOOD],
            InvalidIds(_) => vec![],
        }
    }

    /// Checks its one dead letter, of `kept` where it is unreadable.
    fn check_letter(&self, harness: &Harness, kept: &str, source: Option<&str>) {
        let letters = harness.letters();
        assert_eq!(letters.len(), 1, "{}", self.reason);
        let letter = &letters[0];
        let message = &letter.attributes["ErrorMessage"];
        let mut attributes = json!({"RequestID": REQUEST_ID, "ErrorMessage": message});
        if let Some(source) = source {
            attributes["SourceMessageId"] = json!(source);
        }
        // A project that came as a string is named, good or bad.
        if let Some(project) = letter.attributes.get("ProjectId") {
            attributes["ProjectId"] = json!(project);
        }
        assert_ne!(message, "", "{}", self.reason);
        match &self.end {
            Problem(_) => {
                attributes["ErrorCode"] = json!("InvalidRequest");
                // A failure must not print a megabyte.
                assert!(
                    letter.body == escape_refused(kept.to_owned()),
                    "{}",
                    self.reason
                );
            }
            InvalidIds(ids) => {
                attributes["ErrorCode"] = json!("InvalidAssetId");
                attributes["ProjectId"] = json!(project(1));
                let body: Value = serde_json::from_str(&letter.body).expect("JSON");
                assert!(body["assetIds"] == json!(ids), "{}", self.reason);
                let errors = body["errors"].as_array().expect("a list");
                assert_eq!(errors.len(), ids.len(), "{}", self.reason);
                for (id, error) in ids.iter().zip(errors) {
                    let id = &id[..id.len().min(128)];
                    assert_eq!(error["assetId"], id, "{}", self.reason);
                    assert_eq!(error["code"], "InvalidAssetId", "{}", self.reason);
                }
            }
        }
        assert_eq!(json!(letter.attributes), attributes, "{}", self.reason);
    }

    /// Checks the report on it.
    fn check_report(&self, harness: &Harness, mut report: Value) {
        let letter = &harness.letters()[0];
        // Whichever project was given is repeated; a bad one may be long.
        let given = escape_refused(
            report["projectId"]
                .take()
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        );
        let attribute = letter
            .attributes
            .get("ProjectId")
            .map_or("", String::as_str);
        assert!(
            given[..given.len().min(1024)] == *attribute,
            "{}",
            self.reason
        );
        let failure = |ids: &[&String], code: &str, message: &Value| {
            json!({"assetIds": ids, "code": code,
                   "message": message, "retryable": false, "deadLettered": true, "queued": false})
        };
        let (status, done, failures) = match &self.end {
            Problem(_) => {
                let message = json!(letter.attributes["ErrorMessage"]);
                ("failed", 0, vec![failure(&[], "InvalidRequest", &message)])
            }
            InvalidIds(ids) => {
                let body: Value = serde_json::from_str(&letter.body).expect("JSON");
                let errors = body["errors"].as_array().expect("a list");
                let mut failures: Vec<(&Value, Vec<&String>)> = Vec::new();
                for (id, error) in ids.iter().zip(errors) {
                    let message = &error["message"];
                    match failures.iter_mut().find(|(known, _)| *known == message) {
                        Some((_, ids)) => ids.push(id),
                        None => failures.push((message, vec![id])),
                    }
                }
                let failures = failures
                    .iter()
                    .map(|(message, ids)| failure(ids, "InvalidAssetId", message));
                ("partial", 1, failures.collect())
            }
        };
        let rejected = match &self.end {
            Problem(_) => 0,
            InvalidIds(ids) => ids.len(),
        };
        let expected = json!({
            "requestId": REQUEST_ID, "projectId": null, "status": status,
            "assets": {"requested": done + rejected, "duplicates": 0, "disassociated": done,
                       "absent": 0, "rejected": rejected, "unfinished": 0, "queued": 0},
            "calls": done, "failures": failures,
        });
        assert!(
            report == expected,
            "{}: {:.2000}",
            self.reason,
            report.to_string()
        );
    }
}

/// Handles an event that may contain what a [`Value`] cannot hold.
async fn handle(harness: &Harness, event: &str) -> Result<Value, String> {
    let payload = RawValue::from_string(event.to_owned()).expect("JSON");
    let invocation = Invocation {
        request_id: harness.request_id,
        deadline: Instant::now() + harness.time_left,
        is_cold_start: true,
    };
    match harness.function.handle(&payload, invocation).await {
        Ok(answer) => Ok(serde_json::to_value(answer).expect("JSON")),
        Err(error) => Err(format!("{}: {error}", error.name())),
    }
}

#[test]
fn the_corpus_has_each_reason_once() {
    let bad = corpus().into_iter().map(|bad| bad.reason);
    let unusual = unusual().into_iter().map(|unusual| unusual.reason);
    let reasons: Vec<String> = bad.chain(unusual).collect();
    assert!(reasons.len() > 280, "{}", reasons.len());
    let distinct: BTreeSet<&String> = reasons.iter().collect();
    assert_eq!(reasons.len(), distinct.len());
}

#[tokio::test(start_paused = true)]
async fn a_bad_message_is_kept_as_it_came_and_its_nine_neighbours_are_done() {
    for bad in corpus() {
        for place in [0, 4, 9] {
            let harness = Harness::with_assets(0..=GOOD);
            let good = |number: usize| {
                record(&format!("m-{number}"), &request(1, &[asset(number)])).to_string()
            };
            let mut all: Vec<String> = (0..GOOD).map(good).collect();
            all.insert(place, bad.record());
            let event = format!(r#"{{"Records":[{}]}}"#, all.join(","));
            let answer = handle(&harness, &event).await;
            assert_eq!(answer, Ok(failed([])), "{} at {place}", bad.reason);
            assert_eq!(
                harness.remaining(),
                bad.remaining(),
                "{} at {place}",
                bad.reason
            );
            let calls = harness.calls().len();
            assert_eq!(calls, 1, "{} at {place}: one batch", bad.reason);
            harness.assert_nothing_invalid_was_sent();
            assert_eq!(harness.parts().len(), 0, "{}", bad.reason);

            let is_named = bad.record().contains(r#""messageId":"bad""#);
            let kept = match &bad.sent {
                Body(body) => body.clone(),
                BodyJson(_) | Record(_) => bad.record(),
            };
            bad.check_letter(&harness, &kept, is_named.then_some("bad"));
            if let Problem(problem) = &bad.end {
                let found = &harness.letters()[0].attributes["ErrorMessage"];
                assert_eq!(found, problem, "{}", bad.reason);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_event_is_kept_as_it_came_and_reported() {
    for bad in corpus() {
        let harness = Harness::with_assets([GOOD]);
        let event = format!(
            r#"{{"id":"e","detail-type":"t","source":"s","detail":{}}}"#,
            bad.json()
        );
        let report = handle(&harness, &event).await.expect(&bad.reason);
        bad.check_letter(&harness, &event, Some("e"));
        bad.check_report(&harness, report);
        assert_eq!(harness.remaining(), bad.remaining(), "{}", bad.reason);
        harness.assert_nothing_invalid_was_sent();
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_notification_is_kept_as_it_came_and_reported() {
    for bad in corpus() {
        let Some(message) = bad.message() else {
            continue;
        };
        let harness = Harness::with_assets([GOOD]);
        let notification = format!(r#"{{"MessageId":"n","TopicArn":"t","Message":{message}}}"#);
        let event = format!(r#"{{"Records":[{{"EventSource":"aws:sns","Sns":{notification}}}]}}"#);
        let report = handle(&harness, &event).await.expect(&bad.reason);
        bad.check_letter(&harness, &notification, Some("n"));
        bad.check_report(&harness, report);
        assert_eq!(harness.remaining(), bad.remaining(), "{}", bad.reason);
        harness.assert_nothing_invalid_was_sent();
    }
}

#[tokio::test(start_paused = true)]
async fn a_bad_payload_is_refused_or_reported() {
    for bad in corpus() {
        let harness = Harness::with_assets([GOOD]);
        let payload = bad.json();
        let answer = handle(&harness, &payload).await;
        assert_eq!(in_short(&answer), bad.as_payload, "{}", bad.reason);
        harness.assert_nothing_invalid_was_sent();
        match (bad.as_payload.as_str(), answer) {
            ("refused", _) => {
                assert_eq!(harness.simulator.calls().len(), 0, "{}", bad.reason);
                assert_eq!(harness.remaining(), [GOOD], "{}", bad.reason);
            }
            // Where it is a request, or an envelope that is an event.
            ("failed" | "partial", Ok(report)) => {
                let source = match &bad.sent {
                    // SNS records: kept without what is around them.
                    Body(body) if body.starts_with(r#"{"Records""#) => continue,
                    Body(body) if body.contains(r#""detail-type":"t""#) => {
                        body.contains(r#""id":"e""#)
                    }
                    _ => false,
                };
                bad.check_letter(&harness, &payload, source.then_some("e"));
                bad.check_report(&harness, report);
                assert_eq!(harness.remaining(), bad.remaining(), "{}", bad.reason);
            }
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_unusual_message_is_done_like_its_neighbours() {
    for Unusual {
        reason,
        body,
        as_payload,
    } in unusual()
    {
        let harness = Harness::with_assets(0..=GOOD);
        let event = records([
            record("m-1", &request(1, &[asset(0)])),
            record("unusual", &json!(body)),
            record("m-2", &request(1, &assets(1..GOOD))),
        ]);
        assert_eq!(harness.answer(&event).await, failed([]), "{reason}");
        assert_eq!(harness.remaining(), [0; 0], "{reason}");
        assert_eq!(harness.letters().len(), 0, "{reason}");
        assert_eq!(harness.parts().len(), 0, "{reason}");
        harness.assert_nothing_invalid_was_sent();

        let harness = Harness::with_assets([GOOD]);
        let answer = handle(&harness, &body).await;
        assert_eq!(in_short(&answer), as_payload, "{reason}");
        let remaining = harness.remaining();
        assert_eq!(remaining.is_empty(), as_payload == "succeeded", "{reason}");
    }
}

/// Returns a response in a word, or a clear error.
fn in_short(answer: &Result<Value, String>) -> String {
    match answer {
        Err(error) => {
            let is_clear =
                error.starts_with("UnrecognizedEvent: unrecognized event: expected an SQS event");
            if is_clear { "refused" } else { error }.to_owned()
        }
        Ok(Value::Array(reports)) => {
            let each = reports.iter().map(|report| in_short(&Ok(report.clone())));
            each.collect::<Vec<_>>().join(", ")
        }
        Ok(answer) if *answer == failed([]) => "batch".to_owned(),
        Ok(report) => report["status"].as_str().unwrap_or("?").to_owned(),
    }
}

/// The pattern of the service model for ids, a letter `h` for `[0-9a-f]`; the
/// one id that it excludes is [`NIL`].
const PATTERN: &str = "hhhhhhhh-hhhh-hhhh-hhhh-hhhhhhhhhhhh";
const NIL: &str = "00000000-0000-0000-0000-000000000000";

/// Returns whether the service model accepts `id`, by the pattern and without
/// the code under test.
fn is_valid(id: &str) -> bool {
    let fits = |(byte, place): (u8, u8)| match place {
        b'h' => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
        hyphen => byte == hyphen,
    };
    id.len() == PATTERN.len() && id.bytes().zip(PATTERN.bytes()).all(fits) && id != NIL
}

#[test]
fn the_oracle_accepts_what_the_pattern_accepts() {
    for (id, expected) in [
        (asset(1).as_str(), true),
        ("01234567-89ab-cdef-0123-456789abcdef", true),
        ("00000000-0000-0000-0000-000000000001", true),
        ("ffffffff-ffff-ffff-ffff-ffffffffffff", true),
        (NIL, false),
        ("", false),
        ("0123456789abcdef0123456789abcdef", false),
        ("01234567-89AB-cdef-0123-456789abcdef", false),
        ("01234567-89ab-cdef-0123-456789abcdeg", false),
        ("01234567-89ab-cdef-0123-456789abcdef\n", false),
        ("0123456-789ab-cdef-0123-456789abcdef", false),
        ("٠1234567-9ab-cdef-0123-456789abcdef", false),
    ] {
        assert_eq!(is_valid(id), expected, "{id:?}");
    }
}

/// Numbers by SplitMix64, the same in every run.
struct Random(u64);

impl Random {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        (self.roll() % limit as u64) as usize
    }

    fn one_of(&mut self, texts: &[&'static str]) -> &'static str {
        texts[self.below(texts.len())]
    }

    /// An id that the pattern takes.
    fn good_id(&mut self) -> String {
        let (high, low) = (self.roll(), self.roll());
        format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            high >> 32,
            high >> 16 & 0xffff,
            high & 0xffff,
            low >> 48,
            low & 0xffff_ffff_ffff
        )
    }

    /// A good id with one thing done to it, which may leave it good.
    fn nearly_good_id(&mut self) -> String {
        let id = self.good_id();
        let place = self.below(id.len());
        let strange = self.one_of(STRANGE);
        match self.below(12) {
            0 => id.to_uppercase(),
            1 => format!(
                "{}{}{}",
                &id[..place],
                id[place..=place].to_uppercase(),
                &id[place + 1..]
            ),
            2 => format!("{}{}", &id[..place], &id[place + 1..]),
            3 => format!("{}{strange}{}", &id[..place], &id[place..]),
            // as many characters, then as many bytes
            4 => format!("{}{strange}{}", &id[..place], &id[place + 1..]),
            5 => format!(
                "{}{strange}{}",
                &id[..place],
                id.get(place + strange.len()..).unwrap_or_default()
            ),
            6 => id.replace('-', ""),
            7 => format!("{{{id}}}"),
            8 => format!("urn:uuid:{id}"),
            9 => format!("{id}{strange}"),
            10 => format!("{strange}{id}"),
            _ => format!("{}-{}", &id[..place], id[place..].replacen('-', "", 1)),
        }
    }

    /// Anything else.
    fn bad_id(&mut self) -> String {
        let pieces = 1 + self.below(12);
        (0..pieces).map(|_| self.one_of(STRANGE)).collect()
    }
}

/// Texts that do not belong in an id, and some that do.
const STRANGE: &[&str] = &[
    "a", "0", "-", "A", "F", "g", "z", "_", " ", "\t", "\n", "\r\n", "\0", "\u{1b}", "\u{7f}", "/",
    "..", "../", "\\", "\"", "'", "`", "%", "%2e", "%00", "?", "#", "&", "=", ";", ",", ":", "{",
    "}", "[", "]", "<", "é", "а", "٠", "０", "‐", "\u{a0}", "\u{200b}", "\u{202e}", "\u{2028}",
    "\u{feff}", "\u{fffd}", "\u{fffe}", "\u{ffff}", "😀", "00000000", NIL,
];

/// Where a request's ids go.
#[derive(Debug, Default)]
struct Destinations {
    sent: BTreeSet<String>,
    dead_lettered: BTreeSet<String>,
}

/// How many ids of each kind there were.
#[derive(Debug, Default, Eq, PartialEq)]
struct Tally {
    sent: usize,
    dead_lettered: usize,
    repeated: usize,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.dead_lettered += other.dead_lettered;
        self.repeated += other.repeated;
    }
}

/// Ids of one request.
const IDS: usize = 20_000;

/// The requests, by their numbers, which are the seeds too.
const REQUESTS: usize = 50;

const THREADS: usize = 2;

#[test]
fn of_a_million_ids_each_good_one_is_sent_once_and_each_bad_one_is_dead_lettered() {
    let mut tally = Tally::default();
    thread::scope(|scope| {
        let threads = (0..THREADS).map(|thread| {
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_time()
                    .start_paused(true)
                    .build()
                    .expect("a runtime");
                let mut tally = Tally::default();
                for number in (thread..REQUESTS).step_by(THREADS) {
                    tally += runtime.block_on(generated_request(number));
                }
                tally
            })
        });
        for thread in threads.collect::<Vec<_>>() {
            tally += thread.join().expect("every request as expected");
        }
    });
    let expected = Tally {
        sent: 518_391,
        dead_lettered: 279_695,
        repeated: 201_914,
    };
    assert_eq!(tally, expected, "of {}", IDS * REQUESTS);
}

/// Generates a request, handles it, and checks where its ids go.
async fn generated_request(number: usize) -> Tally {
    let mut random = Random(number as u64);
    let mut ids: Vec<String> = Vec::with_capacity(IDS);
    while ids.len() < IDS {
        let id = match random.below(20) {
            0..=9 => random.good_id(),
            10..=14 => random.nearly_good_id(),
            15 => random.bad_id(),
            _ if ids.is_empty() => continue,
            _ => ids[random.below(ids.len())].clone(),
        };
        ids.push(id);
    }
    let distinct: BTreeSet<String> = ids.iter().cloned().collect();
    let (sent, dead_lettered) = distinct.into_iter().partition(|id| is_valid(id));
    let expected = Destinations {
        sent,
        dead_lettered,
    };
    let tally = Tally {
        sent: expected.sent.len(),
        dead_lettered: expected.dead_lettered.len(),
        repeated: IDS - expected.sent.len() - expected.dead_lettered.len(),
    };

    // Assets that are not in the project are no failure here.
    let settings = Settings {
        unknown_asset: Absent::Ignore,
        ..Settings::default()
    };
    let harness = Harness::new(settings).without_work_queue();
    harness
        .simulator
        .add_project(&project(number), [] as [String; 0]);
    let request = request(number, &ids);
    if number.is_multiple_of(2) {
        let event = records([record("m-1", &request)]);
        let answer = harness.answer(&event).await;
        assert_eq!(answer, failed([]), "request {number}");
        check_destinations(&harness, number, &expected);
    } else {
        let report = harness.answer(&request).await;
        check_destinations(&harness, number, &expected);
        let counts = json!({
            "requested": tally.sent + tally.dead_lettered, "duplicates": tally.repeated,
            "disassociated": tally.sent, "absent": 0, "rejected": tally.dead_lettered,
            "unfinished": 0, "queued": 0,
        });
        assert_eq!(report["assets"], counts, "request {number}");
    }
    harness.assert_nothing_invalid_was_sent();
    tally
}

/// Checks that each id went to its destination, once.
fn check_destinations(harness: &Harness, number: usize, expected: &Destinations) {
    let mut found = Destinations::default();
    for call in harness.calls() {
        assert_eq!(call.project, Some(project(number)));
        for id in call.assets {
            assert!(is_valid(&id), "request {number}: {id:?} was sent");
            assert!(found.sent.insert(id), "request {number}: sent twice");
        }
    }
    for letter in harness.letter_bodies() {
        assert_eq!(letter["projectId"], project(number));
        for id in asset_ids(&letter) {
            let is_new = found.dead_lettered.insert(id);
            assert!(is_new, "request {number}: dead-lettered twice");
        }
    }
    let sent = found.sent.symmetric_difference(&expected.sent);
    let dead_lettered = found
        .dead_lettered
        .symmetric_difference(&expected.dead_lettered);
    // A failure must not print thousands.
    let wrong: Vec<&String> = sent.chain(dead_lettered).take(10).collect();
    assert_eq!(wrong, [] as [&String; 0], "request {number}");
}
