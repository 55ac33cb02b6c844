//! Section 4, throttling: a job finishes near the service's own minimum, with few
//! calls throttled, and where nothing is let through the service sees little
//! more than the first attempts.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use simulator::{Fault, Settings, Throttle};
use tokio::time::{Instant, sleep};

use crate::support::{Harness, assets, project, record, records, request};

const LATENCY: Duration = Duration::from_millis(50);
const BURST: f64 = 10.0;

/// A function of a service with this rate, for requests of any size.
fn harness(rate: f64, burst: f64) -> Harness {
    let settings = Settings {
        latency: LATENCY,
        throttle: Some(Throttle { rate, burst }),
        ..Settings::default()
    };
    // The same luck in every run.
    fastrand::seed(1);
    let mut harness = Harness::new(settings).without_work_queue();
    harness.time_left = Duration::from_secs(900);
    harness
}

/// A request for this many full batches of a project.
fn job(harness: &Harness, number: usize, batches: usize) -> Value {
    let ids = assets(number * 1_000_000..number * 1_000_000 + batches * 100);
    harness.simulator.add_project(&project(number), &ids);
    request(number, &ids)
}

/// What a job took: seconds, calls, and of these the throttled ones.
#[derive(Debug)]
struct Took {
    seconds: f64,
    calls: usize,
    throttled: usize,
}

impl Took {
    /// At most a tenth throttled; five more are free, for finding out.
    fn assert_few_throttled(&self) {
        assert!(10 * self.throttled <= self.calls + 50, "{self:?}");
    }

    fn assert_within(&self, minimum: f64, times: f64) {
        assert!(
            self.seconds <= minimum * times,
            "{self:?}, at least {minimum} s, {} times",
            self.seconds / minimum
        );
    }
}

/// Has a job of this many batches done.
async fn done(harness: &Harness, number: usize, batches: usize) -> Took {
    let event = job(harness, number, batches);
    let start = Instant::now();
    let report = harness.answer(&event).await;
    assert_eq!(report["status"], "succeeded", "{}", report["failures"]);
    let calls = harness.calls().len();
    assert_eq!(report["calls"], json!(calls));
    Took {
        seconds: start.elapsed().as_secs_f64(),
        calls,
        throttled: calls - batches,
    }
}

#[tokio::test(start_paused = true)]
async fn a_hundred_batches_take_little_more_than_the_services_own_minimum() {
    for rate in [2.0, 5.0, 10.0, 20.0, 50.0] {
        let took = done(&harness(rate, BURST), 1, 100).await;
        took.assert_within((100.0 - BURST) / rate, 1.25);
        took.assert_few_throttled();
    }
}

#[tokio::test(start_paused = true)]
async fn without_throttling_nothing_waits() {
    let took = done(&harness(1e9, 1e9), 1, 100).await;
    assert_eq!(took.calls, 100);
    // Eight at a time.
    assert_eq!(took.seconds, 13.0 * LATENCY.as_secs_f64());
}

/// Changes the rate after a while, and has a job done meanwhile.
async fn done_while_it_changes(from: f64, to: f64, after: f64, batches: usize) -> (Took, f64) {
    let harness = harness(from, BURST);
    let change = async {
        sleep(Duration::from_secs_f64(after)).await;
        let throttle = Some(Throttle {
            rate: to,
            burst: BURST,
        });
        let settings = Settings {
            throttle,
            ..harness.simulator.settings()
        };
        harness.simulator.set_settings(settings);
    };
    let (took, ()) = tokio::join!(done(&harness, 1, batches), change);
    let rest = batches as f64 - BURST - from * after;
    (took, after + rest / to)
}

#[tokio::test(start_paused = true)]
async fn a_rate_that_falls_is_followed() {
    for (from, to, after) in [(10.0, 5.0, 4.0), (10.0, 2.0, 4.0), (50.0, 20.0, 0.8)] {
        let (took, minimum) = done_while_it_changes(from, to, after, 100).await;
        took.assert_within(minimum, 1.25);
        took.assert_few_throttled();
    }
}

/// To find that there is more takes calls that could have been throttled: a
/// rate that rises to its fivefold is reached after some sixty.
#[tokio::test(start_paused = true)]
async fn a_rate_that_rises_is_found() {
    for (from, to, after, times) in [
        (5.0, 10.0, 5.0, 1.25),
        (2.0, 10.0, 10.0, 1.25),
        (10.0, 50.0, 5.0, 1.5),
    ] {
        let (took, minimum) = done_while_it_changes(from, to, after, 300).await;
        took.assert_within(minimum, times);
        took.assert_few_throttled();
    }
}

/// How many batches each of several functions has done when the first has done
/// all of its own, and when the last has.
async fn shared(functions: usize, rate: f64, batches: usize) -> (Vec<usize>, Took) {
    let first = harness(rate, BURST);
    let rigs: Vec<Harness> = (0..functions).map(|_| first.another()).collect();
    let events: Vec<Value> = (1..=functions)
        .map(|number| job(&first, number, batches))
        .collect();
    let start = Instant::now();
    let mut running: FuturesUnordered<_> = rigs
        .iter()
        .zip(&events)
        .map(|(harness, event)| harness.answer(event))
        .collect();
    let mut shares = None;
    while let Some(report) = running.next().await {
        assert_eq!(report["status"], "succeeded", "{}", report["failures"]);
        shares.get_or_insert_with(|| {
            let left = (1..=functions)
                .map(|number| first.simulator.project_assets(&project(number)).len() / 100);
            left.map(|left| batches - left).collect()
        });
    }
    let calls = first.calls().len();
    let took = Took {
        seconds: start.elapsed().as_secs_f64(),
        calls,
        throttled: calls - functions * batches,
    };
    (shares.expect("a first one"), took)
}

#[tokio::test(start_paused = true)]
async fn several_functions_share_a_service_and_none_goes_without() {
    const BATCHES: usize = 150;
    for (functions, rate) in [(2, 10.0), (4, 10.0), (5, 50.0)] {
        let (shares, took) = shared(functions, rate, BATCHES).await;
        // When the others have ended, the last has to find that there is more.
        took.assert_within(((functions * BATCHES) as f64 - BURST) / rate, 1.5);
        // Each finds out for itself.
        let free = 8 * functions;
        let limit = took.calls / 10 + free;
        assert!(took.throttled <= limit, "{took:?}, {limit} allowed");
        // Jain's index: 1 where all have done the same, 1 / functions where one has done all.
        let sum: usize = shares.iter().sum();
        let squares: usize = shares.iter().map(|share| share * share).sum();
        let fairness = (sum * sum) as f64 / (functions * squares) as f64;
        assert!(fairness >= 0.7, "{fairness}: {shares:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_is_let_through_all_is_given_up_after_a_few_calls() {
    let harness = harness(1e-9, 0.0);
    let jobs: Vec<_> = (1..=100)
        .map(|number| record(&format!("m-{number}"), &job(&harness, number, 1)))
        .collect();
    let event = records(jobs);
    let start = Instant::now();
    let answer = harness.answer(&event).await;
    let named = answer["batchItemFailures"].as_array().map(Vec::len);
    assert_eq!(named, Some(100), "no letter, and none counts as done");
    assert_eq!(harness.letters().len(), 0);
    let first = harness.calls().len();
    assert!(
        (14..=15).contains(&first),
        "{first}: eight at once, then a search"
    );
    assert!(start.elapsed() < Duration::from_secs(8));
    // The next invocation asks once.
    harness.answer(&event).await;
    assert_eq!(harness.calls().len(), first + 1);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_call_is_made_again_with_its_token() {
    let harness = Harness::with_assets(0..100);
    let fault: Fault = "sitewise:first=3:status=429".parse().expect("a fault");
    harness.simulator.fault(fault);
    harness.answer(&request(1, &assets(0..100))).await;
    let calls = harness.calls();
    assert_eq!(calls.len(), 4);
    assert!(calls.iter().all(|call| call.token == calls[0].token));
    assert_eq!(harness.remaining(), [] as [usize; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_is_kept_between_invocations() {
    let harness = harness(10.0, BURST);
    done(&harness, 1, 100).await;
    let before = harness.calls().len();
    let report = harness.answer(&job(&harness, 2, 50)).await;
    assert_eq!(report["status"], "succeeded");
    let calls = harness.calls().len() - before;
    assert!(calls - 50 <= 5, "{calls} calls");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_throttles_all_sees_a_few_calls_however_much_there_is_to_do() {
    let harness = Harness::new(Settings::default());
    harness.fault("sitewise:throttle");
    let mut seen = Vec::new();
    for delivery in 0..5 {
        let event = records((0..100).map(|index| {
            let first = (delivery * 100 + index) * 100;
            record(
                &format!("m-{first}"),
                &request(1, &assets(first..first + 100)),
            )
        }));
        let before = harness.calls().len();
        harness.answer(&event).await;
        seen.push(harness.calls().len() - before);
    }
    // A search; then one call to see whether it is over.
    assert_eq!(seen, [7, 1, 1, 1, 1]);
}
