//! `isostack-agent layers`.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{columns, complain, write_out};
use crate::{
    cli::{
        EXIT_USAGE,
        layers::{Form, LayersArgs, LayersCommand},
    },
    knowledge::{
        compare::Comparison,
        document::Document,
        find::{NameError, find, find_subject},
        select::{Request, RequestError, select},
        show::{EntryView, Overview},
    },
};

/// Columns of a table when the output is no terminal.
const COLUMNS_OF_A_FILE: usize = 100;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum LayersError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// Answers and leaves.
#[must_use]
pub fn layers(args: &LayersArgs) -> ExitCode {
    let (document, json) = match answer(args.command.as_ref()) {
        Ok(answer) => answer,
        Err(error) => {
            complain(&error);
            return EXIT_USAGE.into();
        }
    };
    let text = match args.output {
        Form::Table => document.plain(columns(COLUMNS_OF_A_FILE)),
        Form::Markdown => document.markdown(),
        Form::Json => format!("{json:#}"),
    };
    write_out(&text, 0)
}

fn answer(command: Option<&LayersCommand>) -> Result<(Document, Value), LayersError> {
    Ok(match command {
        None => (Overview::document(), json!(Overview::new())),
        Some(LayersCommand::Show { names }) => {
            let mut entries: Vec<EntryView> = Vec::new();
            for name in names {
                entries.extend(find(name)?.into_iter().map(EntryView::from));
            }
            let mut document = Document::default();
            entries.iter().for_each(|e| document.append(e.document()));
            (document, json!({ "entries": entries }))
        }
        Some(LayersCommand::Compare { names }) => {
            let subjects: Result<Vec<_>, _> = names.iter().map(|n| find_subject(n)).collect();
            let comparison = Comparison::of(&subjects?);
            (comparison.document(), json!(comparison))
        }
        Some(LayersCommand::Select(args)) => {
            let answer = select(Request::new(args.needs())?);
            (answer.document(), json!(answer))
        }
    })
}
