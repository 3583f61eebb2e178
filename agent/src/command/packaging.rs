//! What a packager asks for: shell completions and man pages of the whole command line.

use std::{fs, path::Path, process::ExitCode};

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{complain, write_out};
use crate::cli::Cli;

/// `isostack-agent completions SHELL`.
#[must_use]
pub fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "isostack-agent", &mut script);
    let script = String::from_utf8_lossy(&script);
    write_out(
        &match shell {
            Shell::Bash => with_one_name(&script),
            _ => script.into_owned(),
        },
        0,
    )
}

/// The script for bash calls the program by two names where that has a hyphen, and so finds no
/// subcommand: <https://github.com/clap-rs/clap/issues/6421>.
fn with_one_name(script: &str) -> String {
    script.replace("isostack__subcmd__agent", "isostack__agent")
}

/// `isostack-agent man DIR`: one page for the program and one for each command.
#[must_use]
pub fn man(directory: &Path) -> ExitCode {
    let written = fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let directory = directory.display();
            complain(&format_args!(
                "cannot write the man pages to {directory}: {error}"
            ));
            ExitCode::FAILURE
        }
    }
}
