//! The agent on other kernels: guests under QEMU that run `doctor` and the sensors' tests.

mod boot;
mod docs;
mod guest;
mod initramfs;
mod kernel;
mod modules;
mod programs;
mod report;
mod root;
mod scenario;
mod table;
mod wire;

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};

use self::{
    boot::{Boot, Done},
    initramfs::Archive,
    report::Outcome,
    scenario::Cgroups,
    table::Column,
};
use crate::setup::{self, Purpose};

/// Flags of `cargo xtask vm`.
#[derive(clap::Args)]
pub struct Args {
    /// Kernel series, e.g. `6.1,6.12` [default: all].
    #[arg(long, value_delimiter = ',')]
    kernel: Vec<String>,
    /// Only the programs of agent/tests/*_sensor.rs whose name contains this.
    #[arg(long)]
    test: Option<String>,
    /// Cgroup version of the guests [default: both].
    #[arg(long, value_enum)]
    cgroups: Option<Cgroups>,
    /// Of each sensor one test only.
    #[arg(long, conflicts_with_all = ["script", "write_docs"])]
    quick: bool,
    /// No test but whether the kernel takes every program, and what `doctor` says: what
    /// `cargo xtask test` does.
    #[arg(long, conflicts_with_all = ["test", "cgroups", "quick", "script", "write_docs"])]
    load: bool,
    /// Run this shell script instead of the tests, which are in `/tests`, and show what it says.
    #[arg(long, conflicts_with = "write_docs")]
    script: Option<PathBuf>,
    /// Write docs/kernels.md instead of comparing with it; runs no tests.
    #[arg(long, conflicts_with_all = ["test", "kernel", "cgroups"])]
    write_docs: bool,
    /// Show everything that the guests say.
    #[arg(long)]
    verbose: bool,
}

/// Fetches the kernels that are not in the cache.
///
/// # Errors
/// With the reason why the guests cannot run here.
pub fn kernels() -> anyhow::Result<()> {
    kernel::get(&selected(&[])?).map(drop)
}

/// Boots the guests, prints what came out, compares with the documentation.
///
/// # Errors
/// When a guest cannot be had, something failed in one, or the documentation is out of date.
pub fn run(args: &Args) -> anyhow::Result<()> {
    setup::run(Purpose::Vm)?;
    let wanted = selected(&args.kernel)?;
    let kernels = kernel::get(&wanted)?;
    let tests = if args.load {
        Vec::new()
    } else {
        programs::sensor_tests(args.test.as_deref())?
    };
    let programs = programs::build(tests)?;
    let base = root::segment(&programs)?;

    let mut boots = VecDeque::new();
    for kernel in &kernels {
        let mut modules = Archive::default();
        modules::add(&mut modules, kernel)
            .with_context(|| format!("modules of {}", kernel.series))?;
        let modules = Arc::new(modules.finish()?);
        for cgroups in [Cgroups::V2, Cgroups::V1] {
            if args.cgroups.is_some_and(|only| only != cgroups) {
                continue;
            }
            let plan = match &args.script {
                Some(script) => cgroups.script(script)?,
                None if args.write_docs => cgroups.doctor()?,
                None => cgroups.tests(&programs.names(), args.quick || args.load)?,
            };
            boots.extend(plan.map(|plan| Boot {
                kernel,
                cgroups,
                modules: modules.clone(),
                plan,
            }));
        }
    }
    let limit = if args.load {
        boot::LOAD_LIMIT
    } else {
        boot::GUEST_LIMIT
    };
    let verbose = args.verbose || args.script.is_some();
    let done = boot::all(boots, &base, limit, verbose);
    conclude(args, &done, &programs.agent)
}

/// Prints everything and says whether it is well.
fn conclude(args: &Args, done: &[Done], agent: &Path) -> anyhow::Result<()> {
    let (mut passed, mut failed) = (0, 0);
    let mut columns = Vec::new();
    for guest in done {
        println!("\n{}, cgroup {}", guest.release, guest.cgroups.name());
        for outcome in &guest.outcomes {
            print(outcome);
            match outcome.wrong {
                Some(_) => failed += 1,
                None => passed += 1,
            }
        }
        let plain = guest.sections.iter().find(|s| s.name == "doctor:plain");
        if let (Cgroups::V2, Some(Ok(sensors))) = (guest.cgroups, plain.map(report::sensors)) {
            columns.push(Column {
                kernel: guest.series.to_owned(),
                sensors,
            });
        }
    }
    println!("\n{}", table::states(&columns));
    let whole = columns.len() == kernel::series().count();
    if args.write_docs || (whole && !args.load) {
        match docs::settle(&columns, whole, args.write_docs, agent) {
            Ok(()) => passed += 1,
            Err(error) => {
                println!("FAILED {}: {error:#}", docs::PAGE);
                failed += 1;
            }
        }
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {verdict}. {passed} passed; {failed} failed; in {} guests",
        done.len()
    );
    ensure!(failed == 0, "{failed} failed in the guests");
    Ok(())
}

fn selected(named: &[String]) -> anyhow::Result<Vec<&'static str>> {
    let all: Vec<&str> = kernel::series().collect();
    if let Some(unknown) = named.iter().find(|name| !all.contains(&name.as_str())) {
        bail!("no kernel series {unknown}: there are {}", all.join(", "));
    }
    let wanted = |series: &&str| named.is_empty() || named.iter().any(|name| name == series);
    Ok(all.into_iter().filter(wanted).collect())
}

fn print(outcome: &Outcome) {
    let name = match outcome.seconds {
        Some(seconds) => format!("{}, {seconds} s", outcome.name),
        None => outcome.name.clone(),
    };
    match (&outcome.wrong, &outcome.not_here) {
        (Some(wrong), _) => println!("  FAILED {name}: {}", wrong.replace('\n', "\n    ")),
        (None, Some(reason)) => println!("  ok     {name} ({reason})"),
        (None, None) => println!("  ok     {name}"),
    }
}
