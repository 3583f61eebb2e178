//! The fault lab, shortened: every kind of fault at least once, from a fixed seed. The
//! bounds are lower than what the whole lab measures (docs/lab.md), as this machine may be
//! busy with other things; a sensor or a rule that stops working falls below them.

use std::path::PathBuf;

use lab::{cli, report::Summary};

/// Runs: five thirds of the kinds, so that each comes once beside the healthy ones.
const RUNS: usize = 40;

fn summary() -> anyhow::Result<Summary> {
    // LAB_SEED tries another one.
    let seed = std::env::var("LAB_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let args = cli::Args {
        seed: Some(seed.unwrap_or(1)),
        runs: RUNS,
        only: Vec::new(),
        kind: None,
        output: None,
        record: None,
        verbose: false,
        agent_flags: Vec::new(),
    };
    cli::run(&args, PathBuf::from(env!("CARGO_BIN_EXE_isostack-lab")))
}

#[test]
fn names_what_was_done() -> anyhow::Result<()> {
    let summary = summary()?;
    let again = format!(
        "cargo xtask lab --seed {} --runs {RUNS} --verbose",
        summary.seed
    );
    assert_eq!(summary.broken, 0, "runs could not be done: {again}");
    let of = |kind: &str| summary.kinds.get(kind).cloned().unwrap_or_default();
    // What the kernel says exactly is never missed.
    for kind in ["own_quota", "parent_quota", "client_quota"] {
        let of = of(kind);
        assert!(of.cause.share() >= 0.5, "{kind}: {of:?}: {again}");
    }
    assert!(summary.hop.share() >= 0.7, "hop {:?}: {again}", summary.hop);
    assert!(
        summary.cause.share() >= 0.7,
        "cause {:?}: {again}",
        summary.cause
    );
    assert!(
        summary.culprit.share() >= 0.7,
        "culprit {:?}: {again}",
        summary.culprit
    );
    assert!(
        summary.false_share() <= 0.01,
        "{} false verdicts of {} healthy spans: {again}",
        summary.false_verdicts,
        summary.healthy_spans
    );
    Ok(())
}
