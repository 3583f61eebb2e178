//! Everything that must hold, in one run; a failing suite does not keep the others from
//! running. A test that failed is tried once more, alone, after all others: they put real load
//! on a real machine, which may have done something else at that moment. What passes only then
//! is counted as passed, and named in the closing lines.

mod again;
mod said;

use std::{ffi::OsStr, process::Command, time::Instant};

use again::Failed;
use anyhow::{Context as _, bail};
use harness::artifact;
use said::Stream;

use crate::{
    setup::{self, Purpose},
    vm,
};

/// Flags of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// Run only the suites whose name contains this.
    #[arg(long)]
    only: Option<String>,
}

/// What came out of a suite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
}

struct Suite {
    name: &'static str,
    command: Command,
    /// Why it cannot run on this machine; asked when it is its turn.
    not_here: fn() -> Option<String>,
}

/// Runs every suite.
///
/// # Errors
/// When the machine cannot be set up or a suite failed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    setup::need_root("cargo xtask test (it loads eBPF programs and makes cgroups)")?;
    setup::run(Purpose::Test)?;
    match std::env::var_os("KUBECONFIG") {
        Some(path) => println!("Kubernetes tests run against {}", path.display()),
        None => println!("Kubernetes tests are skipped: KUBECONFIG is not set"),
    }
    let mut total = Count::default();
    let mut failed = Vec::new();
    let mut lines = Vec::new();
    for mut suite in suites()? {
        if args
            .only
            .as_ref()
            .is_some_and(|only| !suite.name.contains(only.as_str()))
        {
            continue;
        }
        if let Some(reason) = (suite.not_here)() {
            println!("\n=== {}", suite.name);
            lines.push(format!("{:<24} cannot run here: {reason}", suite.name));
            continue;
        }
        let began = Instant::now();
        println!("\n=== {}", suite.name);
        let (count, known) = run_suite(&mut suite.command)?;
        failed.extend(known);
        lines.push(format!(
            "{:<24} {:>5} passed {:>3} failed {:>6.0} s",
            suite.name,
            count.passed,
            count.failed,
            began.elapsed().as_secs_f64()
        ));
        total.passed += count.passed;
        total.failed += count.failed;
    }
    let second = second_try(&failed)?;
    total.passed += second.len() as u64;
    total.failed -= second.len() as u64;
    if !second.is_empty() {
        lines.push(format!(
            "passed only at the second try, alone: {}",
            second.join(", ")
        ));
    }
    println!(
        "\n{}\n\n{} passed, {} failed",
        lines.join("\n"),
        total.passed,
        total.failed
    );
    if lines.is_empty() {
        bail!("no suite has that in its name: nothing was run");
    }
    if total.failed > 0 {
        bail!("{} failed", total.failed);
    }
    Ok(())
}

/// The names of those that pass when they are tried once more.
fn second_try(failed: &[Failed]) -> anyhow::Result<Vec<String>> {
    let mut passed = Vec::new();
    for failed in failed {
        passed.extend(failed.try_again()?);
    }
    Ok(passed)
}

fn suites() -> anyhow::Result<Vec<Suite>> {
    let deny = setup::cargo_deny()?;
    let mut deny_all = Command::new(&deny);
    deny_all.args(["check", "licenses", "bans", "sources"]);
    let advisories = advisories(&deny);
    let own = std::env::current_exe().context("own path")?;
    let mut ebpf = Command::new(&own);
    ebpf.args(["ebpf", "--check"]);
    let mut guests = Command::new(own);
    guests.args(["vm", "--load"]);
    let not_here = [
        "--workspace",
        "--exclude",
        "agent-ebpf",
        "--exclude",
        "isostack-tests",
        "--exclude",
        "isostack-lab",
    ];
    let units = [&["test", "--no-fail-fast"], &not_here[..]].concat();
    let suites = vec![
        suite("format", cargo(["fmt", "--all", "--check"])),
        suite(
            "lints",
            cargo(["clippy", "--all-targets", "--quiet", "--", "-D", "warnings"]),
        ),
        suite("licences, bans, sources", deny_all),
        suite("committed eBPF object", ebpf),
        suite("unit tests", cargo(units)),
        // One at a time: they measure CPU time that they would take from each other.
        suite(
            "end-to-end tests",
            cargo([
                "test",
                "--no-fail-fast",
                "-p",
                "isostack-tests",
                "--",
                "--test-threads=1",
            ]),
        ),
        suite(
            "fault lab, shortened",
            cargo([
                "test",
                "--no-fail-fast",
                "-p",
                "isostack-lab",
                "--",
                "--nocapture",
            ]),
        ),
        Suite {
            not_here: no_kernels,
            ..suite("other kernels", guests)
        },
    ];
    Ok(suites.into_iter().chain(advisories).collect())
}

/// Why the guests cannot be had.
fn no_kernels() -> Option<String> {
    let error = vm::kernels().err()?;
    Some(format!("{error:#}").replace('\n', "; "))
}

/// The check for known vulnerabilities, where the database of them can be reached.
fn advisories(deny: &std::path::Path) -> Option<Suite> {
    let mut fetch = Command::new(deny);
    fetch.current_dir(artifact::root()).args(["fetch", "db"]);
    if !fetch.output().is_ok_and(|output| output.status.success()) {
        println!("Advisories are not checked: their database cannot be reached");
        return None;
    }
    let mut check = Command::new(deny);
    check.args(["check", "advisories"]);
    Some(suite("advisories", check))
}

const fn suite(name: &'static str, command: Command) -> Suite {
    Suite {
        name,
        command,
        not_here: || None,
    }
}

fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = artifact::cargo();
    command.args(args);
    command
}

/// Runs a suite, passes its output on, and counts the test runner's closing lines; a suite
/// that is no test runner counts as one. Also tells which tests failed, as far as that is known.
fn run_suite(command: &mut Command) -> anyhow::Result<(Count, Vec<Failed>)> {
    let mut count = Count::default();
    let mut reader = again::Reader::default();
    let mut targets = Vec::new();
    let ok = said::run(command.current_dir(artifact::root()), |stream, line| {
        stream.pass_on(line)?;
        let line = String::from_utf8_lossy(line);
        match stream {
            Stream::Out => {
                reader.line(&line);
                let closing = closing_line(&line).unwrap_or_default();
                count.passed += closing.passed;
                count.failed += closing.failed;
            }
            Stream::Err => targets.extend(again::target(&line)),
        }
        Ok(())
    })?;
    match (ok, count) {
        (
            true,
            Count {
                passed: 0,
                failed: 0,
            },
        ) => count.passed = 1,
        (false, Count { failed: 0, .. }) => count.failed = 1,
        _ => {}
    }
    Ok((count, reader.failed(targets)))
}

/// `test result: ok. 12 passed; 0 failed; ...`
fn closing_line(line: &str) -> Option<Count> {
    let (_, rest) = line.split_once("test result: ")?;
    let (_, counts) = rest.split_once(". ")?;
    let number = |word: &str| {
        let part = counts.split("; ").find(|part| part.ends_with(word))?;
        part.split(' ').next()?.parse().ok()
    };
    Some(Count {
        passed: number(" passed")?,
        failed: number(" failed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_the_runner_says() {
        let line =
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 0 filtered out";
        assert_eq!(
            closing_line(line),
            Some(Count {
                passed: 12,
                failed: 3
            })
        );
        assert_eq!(closing_line("running 12 tests"), None);
    }

    #[test]
    fn a_suite_that_fails_without_a_closing_line_is_one_failure() -> anyhow::Result<()> {
        assert_eq!(
            run_suite(&mut Command::new("false"))?.0,
            Count {
                passed: 0,
                failed: 1
            }
        );
        assert_eq!(
            run_suite(&mut Command::new("true"))?.0,
            Count {
                passed: 1,
                failed: 0
            }
        );
        Ok(())
    }
}
