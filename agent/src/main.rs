//! `isostack-agent`: parses the command line, runs the command, turns errors into exit codes.

use std::process::ExitCode;

use isostack_agent::{
    allocator,
    cli::{Cli, Command, EXIT_USAGE, RunArgs},
    command,
    config::Config,
    run::{self, RecordTo},
};

fn main() -> ExitCode {
    allocator::set_up();
    let cli = match Cli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(answer) => {
            // Help and version are answers, not errors; if the terminal is gone, so be it.
            let _ = answer.print();
            return if answer.use_stderr() {
                EXIT_USAGE.into()
            } else {
                ExitCode::SUCCESS
            };
        }
    };
    match cli.command {
        None => daemon(cli.run, None),
        Some(Command::Run(args)) => daemon(*args, None),
        Some(Command::Record(args)) => daemon(args.run, Some(args.to.into())),
        Some(Command::Replay(args)) => command::replay(&args),
        Some(Command::Doctor(args)) => command::doctor(&args.roots.into(), args.output),
        Some(Command::Classify(args)) => command::classify(&args),
        Some(Command::Stack(args)) => command::stack(args),
        Some(Command::Trace(args)) => command::trace(&args),
        Some(Command::Top(args)) => command::top(&args),
        Some(Command::Layers(args)) => command::layers(&args),
        Some(Command::Completions { shell }) => command::completions(shell),
        Some(Command::Man { directory }) => command::man(&directory),
    }
}

fn daemon(args: RunArgs, record: Option<RecordTo>) -> ExitCode {
    let config = match Config::resolve(args.settings, args.config.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            command::complain(&error);
            return EXIT_USAGE.into();
        }
    };
    match run::run(config, record) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            command::complain(&error);
            error.exit_code()
        }
    }
}
