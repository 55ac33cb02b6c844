//! The rig, as the gate runs it.

/// Seeds of every run of the tests. The program runs more of them.
const SEEDS: u64 = 1_000;

#[test]
fn every_invariant_holds_in_every_history() {
    rig::silence_requested_panics();
    let summary = rig::run_all(0..SEEDS, false);
    assert!(
        summary.broken.is_empty(),
        "see `cargo run --package rig -- --seed SEED`: {:#?}",
        summary.broken
    );
    assert!(
        summary.faults.len() >= 14,
        "the seeds know too few kinds of fault: {:?}",
        summary.faults
    );
    for (what, count) in [
        ("invocations", summary.tally.invocations),
        ("redeliveries", summary.tally.redeliveries),
        ("records that return soon", summary.tally.returned),
        ("crashes", summary.tally.crashes),
        ("dead letters", summary.tally.letters),
        ("assets added back", summary.tally.readded),
    ] {
        assert!(count > SEEDS / 10, "{count} {what}: the rig does not bite");
    }
}

#[test]
fn one_seed_gives_one_history() {
    rig::silence_requested_panics();
    for seed in 0..20 {
        assert_eq!(
            rig::run(seed).history,
            rig::run(seed).history,
            "seed {seed}"
        );
    }
}
