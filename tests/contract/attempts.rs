//! What the metrics tell of a call's attempts.

use std::time::Duration;

use simulator::Settings;
use sitewise_disassociator::aws::attempts::Attempts;
use sitewise_disassociator::input::id::{AssetId, ClientToken, ProjectId};

use crate::support::{Rig, asset, project};

async fn call(rig: &Rig) -> Attempts {
    let project: ProjectId = project(1).parse().expect("a project id");
    let asset: AssetId = asset(1).parse().expect("an asset id");
    let token: ClientToken = "t".repeat(36).parse().expect("a token");
    // Whether it succeeds is for other tests.
    let _ = rig
        .function
        .sitewise
        .disassociate(project, &[asset], &token)
        .await;
    rig.function.sitewise.take_attempts()
}

#[tokio::test(start_paused = true)]
async fn each_attempt_of_a_call_is_counted_and_timed_once() {
    for (fault, retries, throttled) in [
        ("disassociate:latency=50ms", 0, 0),
        // Those are not the SDK's to make again.
        ("disassociate:throttle", 0, 1),
        ("disassociate:status=429", 0, 1),
        ("disassociate:first=1:status=500", 1, 0),
        ("disassociate:reset", 2, 0),
        ("disassociate:status=403", 0, 0),
        ("disassociate:garbage", 2, 0),
    ] {
        let rig = Rig::new(Settings::default());
        rig.simulator.add_project(&project(1), [asset(1)]);
        rig.simulator.fault(fault.parse().expect("a fault"));
        let attempts = call(&rig).await;
        assert_eq!(
            (
                attempts.retries,
                attempts.throttled,
                attempts.latencies.len()
            ),
            (retries, throttled, retries + 1),
            "{fault}"
        );
        assert_eq!(rig.calls().len(), retries + 1, "{fault}");
        assert_eq!(
            rig.function.sitewise.take_attempts(),
            Attempts::default(),
            "what was taken does not come back"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_latency_is_an_attempts_own_without_the_pauses_between_them() {
    let rig = Rig::with_assets([1]);
    rig.simulator
        .fault("disassociate:first=1:status=500".parse().expect("a fault"));
    rig.simulator
        .fault("disassociate:latency=70ms".parse().expect("a fault"));
    for latency in call(&rig).await.latencies {
        assert!(
            latency < Duration::from_millis(75),
            "the retry's pause counts: {latency:?}"
        );
    }
    let rig = Rig::with_assets([1]);
    rig.simulator
        .fault("disassociate:first=1:stall".parse().expect("a fault"));
    let [stalled, answered] = call(&rig).await.latencies.try_into().expect("two");
    assert_eq!(stalled.as_secs(), 10, "the attempt's timeout");
    assert!(answered < Duration::from_millis(10), "{answered:?}");
}
