//! The simulation, as the gate runs it.

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
        summary.faults.len() >= 70,
        "the seeds know too few kinds of fault: {:?}",
        summary.faults
    );
    for (what, count, least) in [
        ("invocations", summary.tally.invocations, SEEDS),
        ("reads", summary.tally.reads, SEEDS),
        ("redeliveries", summary.tally.redeliveries, SEEDS),
        ("crashes", summary.tally.crashes, SEEDS / 10),
        ("dead letters", summary.tally.letters, SEEDS),
        ("assets added back", summary.tally.readded, SEEDS / 10),
    ] {
        assert!(
            count > least,
            "{count} {what}: the simulation does not bite"
        );
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
fn a_job_is_done_near_the_services_own_rate_and_no_message_starves() {
    for (job, most) in [
        (
            Job {
                projects: 1_000,
                rate: 2.0,
                ..Job::default()
            },
            1.25,
        ),
        (
            Job {
                projects: 3_000,
                rate: 10.0,
                ..Job::default()
            },
            1.1,
        ),
        (
            Job {
                projects: 6_000,
                rate: 30.0,
                ..Job::default()
            },
            1.1,
        ),
        (
            Job {
                projects: 1,
                assets: 300_000,
                rate: 10.0,
                ..Job::default()
            },
            1.25,
        ),
    ] {
        let took = job.median(3);
        assert!(took.is_whole(), "{job:?}: {took:?}");
        assert!(took.ratio() < most, "{job:?}: {took:?}");
        assert!(took.throttled * 10 < took.calls, "{job:?}: {took:?}");
        assert!(took.most_receives < 20, "{job:?}: {took:?}");
    }
}
