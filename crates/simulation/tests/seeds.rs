//! The rig, as the gate runs it.

use std::time::Duration;

use simulation::job::Job;

/// Seeds of every run of the tests. The program runs more of them.
const SEEDS: u64 = 1_000;

#[test]
fn every_invariant_holds_in_every_history() {
    simulation::silence_requested_panics();
    let summary = simulation::run_all(0..SEEDS, false);
    assert!(
        summary.broken.is_empty(),
        "see `cargo run --package simulation -- --seed SEED`: {:#?}",
        summary.broken
    );
    assert!(
        summary.faults.len() >= 14,
        "the seeds know too few kinds of fault: {:?}",
        summary.faults
    );
    for (what, count, least) in [
        ("invocations", summary.tally.invocations, SEEDS),
        ("redeliveries", summary.tally.redeliveries, SEEDS),
        // It takes a service too slow for some records, and not for all.
        ("records that return soon", summary.tally.returned, 10),
        ("crashes", summary.tally.crashes, SEEDS / 10),
        ("dead letters", summary.tally.letters, SEEDS),
        ("assets added back", summary.tally.readded, SEEDS / 10),
    ] {
        assert!(count > least, "{count} {what}: the rig does not bite");
    }
}

#[test]
fn one_seed_gives_one_history() {
    simulation::silence_requested_panics();
    for seed in 0..20 {
        assert_eq!(
            simulation::run(seed).history,
            simulation::run(seed).history,
            "seed {seed}"
        );
    }
}

#[test]
fn a_large_job_is_done_near_the_services_own_pace_and_no_message_starves() {
    for (rate, times) in [(10.0, 1.25), (50.0, 1.25)] {
        let took = Job {
            assets: 300_000,
            functions: 5,
            batch_size: 100,
            fan_out_assets: 1000,
            rate,
            burst: rate,
            latency: Duration::from_millis(50),
            max_receive_count: 100,
        }
        .run(0);
        assert_eq!((took.left, took.given_up), (0, 0), "{took:?}");
        assert!(took.time < took.minimum.mul_f64(times), "{took:?}");
        assert!(took.throttled * 10 < took.calls, "{took:?}");
        assert!(took.most_receives < 20, "{took:?}");
    }
}
