//! What the metrics say about the requests to SiteWise.

use std::time::Duration;

use simulator::Settings;
use sitewise_disassociator::dispatch::dispatch;
use sitewise_disassociator::plan::{PlanInput, plan};
use sitewise_disassociator::session::{RequestCounts, Session};
use tokio::time::Instant;

use crate::support::{Harness, asset, project};

/// Requests that one of project 1's assets be disassociated.
async fn counts(harness: &Harness) -> RequestCounts {
    let assets = [asset(1).parse().expect("an id")];
    let batches = plan(&[PlanInput {
        project: project(1).parse().expect("an id"),
        assets: &assets,
        is_whole_project: false,
        client_token: None,
        message_id: "m-1",
        receives: 1,
    }]);
    let stop = Instant::now() + harness.time_left;
    let function = &harness.function;
    let session = Session::new(&function.sitewise, &function.rate_limiter, 1);
    dispatch(&session, &batches, stop).await;
    session.into_counts()
}

#[tokio::test(start_paused = true)]
async fn each_request_is_counted_and_timed_once() {
    let asset_error = format!("disassociate:asset={}:asset-error=INTERNAL", asset(1));
    for (faults, expected) in [
        (vec![], [1, 0, 0]),
        (vec!["disassociate:first=2:throttle"], [3, 0, 2]),
        (vec!["disassociate:first=2:status=429"], [3, 0, 2]),
        // The SDK's retries do not count.
        (vec!["disassociate:reset"], [1, 0, 0]),
        (vec!["disassociate:status=403"], [1, 0, 0]),
        // Three rounds, each with a read after it.
        (vec![&asset_error], [3, 3, 0]),
        (vec![&asset_error, "list:first=2:throttle"], [3, 5, 2]),
    ] {
        let harness = Harness::new(Settings::default());
        harness.simulator.add_project(&project(1), [asset(1)]);
        for fault in &faults {
            harness.fault(fault);
        }
        let counts = counts(&harness).await;
        assert_eq!(
            [counts.calls, counts.reads, counts.throttled],
            expected,
            "{faults:?}"
        );
        assert_eq!(counts.latencies.len(), counts.calls + counts.reads);
    }
}

#[tokio::test(start_paused = true)]
async fn a_latency_has_the_sdks_retries_and_not_the_wait_for_the_rate() {
    for (fault, expected) in [
        ("disassociate:latency=70ms", 70..75),
        // The timeout of the first attempt.
        ("disassociate:first=1:stall", 10_000..12_000),
    ] {
        let harness = Harness::with_assets([1]);
        harness.fault(fault);
        harness.fault("disassociate:first=3:throttle");
        let mut counts = counts(&harness).await;
        let slowest = counts.latencies.iter().max().map(Duration::as_millis);
        assert!(
            expected.contains(&slowest.expect("a latency")),
            "{slowest:?}"
        );
        counts.latencies.retain(|latency| latency.as_millis() > 75);
        assert_eq!(counts.latencies.len(), usize::from(expected.start > 75));
    }
}
