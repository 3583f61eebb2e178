//! `cargo xtask lab`: many runs one after the other, and the report.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::{
    plan::{self, Spec, Wanted},
    report::{self, Summary, picture, table},
    run,
    score::Outcome,
    service::Service,
    stage::Stage,
};

/// Flags of the lab.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// What everything random comes from [default: the clock]
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many runs
    #[arg(long, default_value_t = 60)]
    pub runs: usize,
    /// Only these runs of the seed, e.g. 7 or 3,7
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<usize>,
    /// Only this fault, e.g. own_quota, or reference incident (incident_1 to 3), in every run
    #[arg(long, value_name = "NAME")]
    pub kind: Option<String>,
    /// Leave results here: runs.jsonl (a run a line; what is there is not done again),
    /// summary.json, confusion.svg, misses.txt
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Have the agent record all that it judges by, for `isostack-agent replay`: with --only,
    /// one run that was answered wrongly
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Say what each run was answered
    #[arg(long)]
    pub verbose: bool,
    /// A flag for the agent, e.g. --agent=--settle=1s
    #[arg(long = "agent", value_name = "FLAG")]
    pub agent_flags: Vec<String>,
}

/// Set by the first Ctrl-C: the run ends, and the lab with it.
pub static STOP: AtomicBool = AtomicBool::new(false);

/// Runs the lab by its flags; `program` is the lab's own.
///
/// # Errors
/// When the stage cannot be set up or the results cannot be written.
pub fn run(args: &Args, program: PathBuf) -> anyhow::Result<Summary> {
    let seed = args
        .seed
        .unwrap_or_else(|| crate::sink::unix_ns() / 1_000_000_000);
    let wanted_kind = match &args.kind {
        None => Wanted::Mix,
        Some(name) => Wanted::named(name).map_err(anyhow::Error::msg)?,
    };
    let mut kept = Kept::open(args.output.as_deref(), seed)?;
    let kind = args.kind.as_ref().map(|name| format!(" --kind {name}"));
    let again = format!("cargo xtask lab --seed {seed}{}", kind.unwrap_or_default());
    println!("Seed {seed}: {again} --only RUN does one of its runs again");
    for line in report::not_here() {
        println!("Not here: {line}");
    }
    let wanted: Vec<Spec> = (0..args.runs)
        .chain(args.only.iter().copied())
        .filter(|run| args.only.is_empty() || args.only.contains(run))
        .filter(|run| !kept.done.contains(run))
        .map(|run| plan::spec(seed, run, &wanted_kind))
        .collect();
    let mut outcomes = std::mem::take(&mut kept.outcomes);
    if !outcomes.is_empty() {
        println!("{} runs are done already", kept.done.len());
    }
    let flags: Vec<&str> = args.agent_flags.iter().map(String::as_str).collect();
    let mut stage: Option<Stage> = None;
    let mut stages = 0;
    let began = Instant::now();
    for spec in dedup(wanted) {
        if STOP.load(Ordering::Relaxed) {
            println!("Stopped; the same command with --output goes on from here.");
            break;
        }
        let outcome = one(&spec, (&mut stage, &mut stages), &program, args, &flags)?;
        let misses = table::misses(&again, &outcome);
        let word = match () {
            () if outcome.error.is_some() => "not done",
            () if !misses.is_empty() => "MISS",
            () if outcome.is_void() => "void",
            () => "right",
        };
        let what: Vec<&str> = spec.faults.iter().map(|fault| fault.kind.name()).collect();
        println!(
            "{:>4} {:>5.0} s  {word:<8} {}",
            spec.run,
            began.elapsed().as_secs_f64(),
            if what.is_empty() {
                "healthy".to_owned()
            } else {
                what.join(" + ")
            }
        );
        for miss in &misses {
            println!("       {miss}");
        }
        if args.verbose {
            detail(&outcome);
        }
        kept.add(seed, &outcome)?;
        outcomes.push(outcome);
    }
    if let Some(stage) = stage {
        stage.stop()?;
    }
    outcomes.sort_by_key(|outcome| outcome.run);
    let summary = Summary::of(seed, &outcomes);
    println!("\n{}", table::text(&summary));
    if let Some(dir) = &args.output {
        write(dir, &again, &summary, &outcomes)?;
        println!("{}", dir.display());
    }
    Ok(summary)
}

/// The file that the agent of each stage records to: of the first as it was asked for, of one that
/// comes after a stage that broke with its number.
fn recording(file: &Path, stage: usize) -> PathBuf {
    if stage == 1 {
        return file.to_owned();
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let (stem, rest) = name.split_once('.').unwrap_or((&name, "jsonl.gz"));
    file.with_file_name(format!("{stem}-{stage}.{rest}"))
}

/// One run; a stage that broke is set up anew for the next, and counted.
fn one(
    spec: &Spec,
    (stage, stages): (&mut Option<Stage>, &mut usize),
    program: &Path,
    args: &Args,
    flags: &[&str],
) -> anyhow::Result<Outcome> {
    if stage.is_none() {
        println!("Setting the stage up");
        *stages += 1;
        let file = args.record.as_deref().map(|file| recording(file, *stages));
        let mut fresh = Stage::start(program.to_owned(), file.as_deref(), flags)?;
        let usual = Spec {
            faults: Vec::new(),
            ..spec.clone()
        };
        // A recording of one run is to be small: most of it is what happens before the fault.
        let is_small = args.record.is_some() && !args.only.is_empty();
        let answers = if is_small {
            run::QUICK_KNOWN
        } else {
            run::USUAL_KNOWN
        };
        run::warm_up(&usual, &mut fresh, answers)?;
        *stage = Some(fresh);
    }
    let ready = stage.as_mut().context("a stage")?;
    let mut spec = spec.clone();
    if !ready.has(Service::Rates) {
        spec.without_rates();
    }
    Ok(run::run(&spec, ready).unwrap_or_else(|error| {
        *stage = None;
        Outcome {
            run: spec.run,
            error: Some(format!("{error:#}")),
            ..Outcome::default()
        }
    }))
}

fn detail(outcome: &Outcome) {
    for verdict in &outcome.verdicts {
        println!("       {}", verdict.effect.what);
    }
    for answer in &outcome.answers {
        println!(
            "       {}: {} {} by {:?}, {:.0} ms in {} spans: {}",
            answer.service,
            answer.fault,
            answer.cause,
            answer.culprit,
            answer.blamed_ms,
            answer.spans,
            answer.summary
        );
    }
    println!(
        "       {} requests ({} failed), {} spans, {} healthy; joins {:?}",
        outcome.requests.0, outcome.requests.1, outcome.spans, outcome.healthy, outcome.joins
    );
    for said in &outcome.disturbed {
        println!(
            "       disturbed: {} {}: {} {:.1} ms, measured {:.1} ms",
            said.service, said.span, said.said, said.blamed_ms, said.measured_ms
        );
    }
}

fn dedup(mut specs: Vec<Spec>) -> Vec<Spec> {
    specs.sort_by_key(|spec| spec.run);
    specs.dedup_by_key(|spec| spec.run);
    specs
}

/// Results that are written as they come.
struct Kept {
    file: Option<File>,
    done: Vec<usize>,
    outcomes: Vec<Outcome>,
}

impl Kept {
    fn open(dir: Option<&Path>, seed: u64) -> anyhow::Result<Self> {
        let mut kept = Self {
            file: None,
            done: Vec::new(),
            outcomes: Vec::new(),
        };
        let Some(dir) = dir else {
            return Ok(kept);
        };
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let path = dir.join("runs.jsonl");
        if let Ok(file) = File::open(&path) {
            for line in BufReader::new(file).lines() {
                let line = line?;
                // The last line may be half a one, of a lab that was killed.
                let Ok(record) = serde_json::from_str::<serde_json::Value>(&line) else {
                    continue;
                };
                if record["seed"] != seed {
                    bail!(
                        "{} has runs of seed {}: give that one, or another folder",
                        path.display(),
                        record["seed"]
                    );
                }
                let outcome: Outcome = serde_json::from_value(record["outcome"].clone())?;
                kept.done.push(outcome.run);
                kept.outcomes.push(outcome);
            }
        }
        kept.file = Some(OpenOptions::new().create(true).append(true).open(path)?);
        if !kept.done.is_empty() {
            // After half a line.
            writeln!(kept.file.as_ref().context("just opened")?)?;
        }
        Ok(kept)
    }

    fn add(&mut self, seed: u64, outcome: &Outcome) -> anyhow::Result<()> {
        if let Some(file) = &mut self.file {
            writeln!(file, "{}", json!({"seed": seed, "outcome": outcome}))?;
        }
        Ok(())
    }
}

fn write(dir: &Path, again: &str, summary: &Summary, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let misses: Vec<String> = outcomes
        .iter()
        .flat_map(|outcome| table::misses(again, outcome))
        .collect();
    let numbers = json!({
        "summary": summary,
        "false_verdicts_per_healthy_span": summary.false_share(),
    });
    fs::write(
        dir.join("summary.json"),
        serde_json::to_string_pretty(&numbers)?,
    )?;
    fs::write(dir.join("confusion.svg"), picture::svg(summary))?;
    fs::write(dir.join("misses.txt"), misses.join("\n") + "\n")?;
    fs::write(dir.join("table.txt"), table::text(summary))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stage_has_its_own_recording() {
        let file = Path::new("/a/lab.jsonl.gz");
        assert_eq!(recording(file, 1), file);
        assert_eq!(recording(file, 3), Path::new("/a/lab-3.jsonl.gz"));
        assert_eq!(
            recording(Path::new("/a/lab"), 2),
            Path::new("/a/lab-2.jsonl.gz")
        );
    }
}
