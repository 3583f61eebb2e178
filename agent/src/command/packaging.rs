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
    write_out(&String::from_utf8_lossy(&script), 0)
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
