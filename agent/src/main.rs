//! `isostack-agent`: parses the command line, runs the command, turns errors into exit codes.

use std::process::ExitCode;

use clap::Parser;
use isostack_agent::{
    cli::{Cli, Command, EXIT_USAGE, Output},
    config::Config,
    doctor, run, stack,
};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and version are answers, not errors; if the terminal is gone, so be it.
            let _ = answer.print();
            return if answer.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        None => daemon(cli.run),
        Some(Command::Run(args)) => daemon(*args),
        Some(Command::Doctor(args)) => {
            doctor::command(&args.roots.into(), args.output == Output::Json)
        }
        Some(Command::Stack(args)) => {
            let json = args.output == Output::Json;
            stack::report::command(&args.roots.into(), args.pid, args.all, json)
        }
    }
}

fn daemon(args: isostack_agent::cli::RunArgs) -> ExitCode {
    let config = match Config::resolve(args.settings, args.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("isostack-agent: {error}");
            return EXIT_USAGE.into();
        }
    };
    match run::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("isostack-agent: {error}");
            error.exit_code()
        }
    }
}
