//! `isostack-agent trace ID`: asks for the spans of a trace, and shows which hop was slow and
//! why. The report is made by `crate::trace`, by the agent for what it remembers itself.

mod source;

use std::{io, process::ExitCode};

use self::source::{Trouble, fetch};
use super::{complain, write_out};
use crate::{
    cli::{EXIT_USAGE, Output, trace::TraceArgs},
    stack::report::plain_json,
    trace::{
        draw::{Paper, draw},
        read::parse_trace_id,
    },
};

/// Columns where there is no terminal.
const COLUMNS_OF_A_FILE: usize = 100;

/// Asks, shows and leaves.
#[must_use]
pub fn trace(args: &TraceArgs) -> ExitCode {
    let trace_id = match parse_trace_id(&args.id) {
        Ok(trace_id) => trace_id,
        Err(error) => {
            complain(&error);
            return EXIT_USAGE.into();
        }
    };
    let report = match fetch(trace_id, &args.source, &args.header) {
        Ok(report) => report,
        Err(trouble) => {
            complain(&trouble);
            return match trouble {
                Trouble::Usage(_) => EXIT_USAGE.into(),
                _ => ExitCode::FAILURE,
            };
        }
    };
    match args.output {
        Output::Json => match serde_json::to_string_pretty(&report) {
            Ok(json) => write_out(&plain_json(&json), 0),
            Err(error) => {
                complain(&format_args!(
                    "the report cannot be written as JSON: {error}"
                ));
                ExitCode::FAILURE
            }
        },
        Output::Table => {
            let paper = Paper {
                columns: super::columns(COLUMNS_OF_A_FILE),
                unicode: super::speaks_unicode(),
                all: args.all,
            };
            let drawn = draw(&report, paper);
            let coloured = anstream::AutoStream::choice(&io::stdout());
            let text = match coloured {
                anstream::ColorChoice::Never => anstream::adapter::strip_str(&drawn).to_string(),
                _ => drawn,
            };
            write_out(&text, 0)
        }
    }
}
