//! The commands that look and leave. One document on stdout, what went wrong on stderr.

mod classify;
pub mod fetch;
mod layers;
mod packaging;
mod replay;
mod top;
mod trace;

use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
};

use serde::Serialize;

pub use self::{
    classify::classify,
    layers::layers,
    packaging::{completions, man},
    replay::replay,
    top::top,
    trace::trace,
};
use crate::{
    cli::{EXIT_NO_PRIVILEGE, EXIT_USAGE, Output, StackArgs},
    doctor::examine,
    host::{capabilities, identify::Identifier, roots::Roots},
    metrics::AgentMetrics,
    stack::{
        overrides::Overrides,
        report::{ProcessReport, plain_json},
    },
};

/// Says on stderr what went wrong; without a panic when nobody reads that any more, as the
/// exit code still counts.
pub fn complain(error: &dyn fmt::Display) {
    let _ = writeln!(io::stderr(), "isostack-agent: {error}");
}

/// `isostack-agent doctor`.
#[must_use]
pub fn doctor(roots: &Roots, output: Output) -> ExitCode {
    if let Some(code) = refuse(roots) {
        return code;
    }
    let report = examine(roots);
    let code = if report.no_privilege {
        EXIT_NO_PRIVILEGE
    } else {
        report.exit_code()
    };
    print(output, &report, |report| report.render_table(), code)
}

/// `isostack-agent stack [PID|--all]`.
#[must_use]
pub fn stack(args: StackArgs) -> ExitCode {
    let roots = args.roots.into();
    if let Some(code) = refuse(&roots) {
        return code;
    }
    let overrides = match args.stack_override.as_deref().map(Overrides::read) {
        None => Overrides::default(),
        Some(Ok(overrides)) => overrides,
        Some(Err(error)) => {
            complain(&error);
            return EXIT_USAGE.into();
        }
    };
    let identifier = Identifier::new(roots, AgentMetrics::default()).with_overrides(overrides);
    let unseen = capabilities::missing();
    let unseen: Vec<_> = unseen.into_iter().filter(|need| !need.essential).collect();
    if !unseen.is_empty() {
        complain(&format_args!(
            "not all layers may be seen: {}; run as root",
            capabilities::sentence(&unseen)
        ));
    }
    let output = args.output;
    let Some(pid) = args.pid else {
        let report = if args.all {
            identifier.all_report()
        } else {
            identifier.host_report()
        };
        return print(output, &report, |report| report.table(), 0);
    };
    if args.facts {
        return match identifier.record(pid) {
            Ok(record) => print(Output::Json, &record, |_| String::new(), 0),
            Err(error) => fail(&error),
        };
    }
    match identifier.look_up_pid(pid) {
        Ok(identity) => {
            let report = ProcessReport::from(&*identity);
            print(output, &report, |report| report.table(), 0)
        }
        Err(error) => fail(&error),
    }
}

/// Of a host that is not there nothing can be said.
fn refuse(roots: &Roots) -> Option<ExitCode> {
    let (key, path) = roots.missing()?;
    complain(&format_args!(
        "--{key} {}: there is no such folder; mount the host's there",
        path.display()
    ));
    Some(EXIT_USAGE.into())
}

fn fail(error: &dyn fmt::Display) -> ExitCode {
    complain(error);
    ExitCode::FAILURE
}

fn print<T: Serialize>(
    output: Output,
    document: &T,
    table: impl Fn(&T) -> String,
    code: u8,
) -> ExitCode {
    let text = match output {
        Output::Table => table(document),
        Output::Json => match serde_json::to_string_pretty(document) {
            Ok(json) => plain_json(&json),
            Err(error) => {
                complain(&format_args!(
                    "the report cannot be written as JSON: {error}"
                ));
                return ExitCode::FAILURE;
            }
        },
    };
    write_out(&text, code)
}

/// Writes a command's document.
fn write_out(text: &str, code: u8) -> ExitCode {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()) {
        Ok(()) => code.into(),
        // The reader has seen enough, as `head` does.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => code.into(),
        Err(error) => {
            complain(&format_args!("cannot write the report: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The terminal's columns; `COLUMNS` where there is none, or else this many.
fn columns(of_a_file: usize) -> usize {
    let terminal = terminal_size::terminal_size_of(io::stdout());
    let stated = || std::env::var("COLUMNS").ok()?.parse().ok();
    terminal
        .map(|(width, _)| usize::from(width.0))
        .or_else(stated)
        .unwrap_or(of_a_file)
}

/// Whether the locale's characters are UTF-8's. No locale at all is one of a service or a
/// pipe: whoever reads that can nearly always show it.
fn speaks_unicode() -> bool {
    let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
    locale.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    })
}
