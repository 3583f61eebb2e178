//! The reference incidents, made for real: hop, layer, mechanism and culprit by the agent. What
//! came of a run of each is kept in `agent/tests/data/recordings`.

use std::path::{Path, PathBuf};

use lab::{
    cli,
    incidents::{INCIDENTS, Incident},
    report::Summary,
};

/// Runs to judge by, and the part of them that must be right: more are added where another program
/// on this machine disturbed them, or where its disk was too fast for the fault to be felt.
const RUNS: [(usize, f64); 3] = [(3, 0.6), (6, 0.7), (9, 0.75)];

#[test]
fn each_is_localised() -> anyhow::Result<()> {
    for incident in &INCIDENTS {
        let results = tempfile::tempdir()?;
        let mut missing = String::new();
        for (runs, least) in RUNS {
            // What is there is not done again.
            let summary = run(incident, runs, results.path())?;
            assert_eq!(summary.broken, 0, "{}: not done", incident.id);
            missing = not_localised(incident, &summary, least);
            if missing.is_empty() {
                break;
            }
            println!("Incident {} in {runs} runs: {missing}", incident.id);
        }
        assert_eq!(missing, "", "incident {}", incident.id);
    }
    Ok(())
}

fn run(incident: &Incident, runs: usize, results: &Path) -> anyhow::Result<Summary> {
    let args = cli::Args {
        seed: Some(1),
        runs,
        only: Vec::new(),
        kind: Some(incident.name.to_owned()),
        output: Some(results.to_owned()),
        record: None,
        verbose: true,
        agent_flags: Vec::new(),
    };
    cli::run(&args, PathBuf::from(env!("CARGO_BIN_EXE_isostack-lab")))
}

/// What keeps it from being localised: of each of its faults at least two had an effect, and that
/// part of these was answered rightly in everything.
fn not_localised(incident: &Incident, summary: &Summary, least: f64) -> String {
    let mut missing = Vec::new();
    for (kind, _) in incident.faults {
        let of = summary.kinds.get(kind.name()).cloned().unwrap_or_default();
        let parts = [of.hop, of.fault, of.cause, of.culprit];
        if of.injected < 2 || parts.iter().any(|part| part.share() < least) {
            missing.push(format!("{}: {of:?}", kind.name()));
        }
    }
    missing.join("; ")
}
