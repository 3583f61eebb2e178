//! `isostack-agent top`: which workloads lose how much time to which causes, by the counters
//! of a running agent, compared with those of a second ago.

mod screen;
mod table;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use tokio::runtime;

use self::{
    screen::{Key, Screen},
    table::{Look, Rates, render},
};
use super::{
    complain,
    fetch::{FetchError, Server},
    speaks_unicode, write_out,
};
use crate::{
    cli::{
        EXIT_USAGE, Output,
        trace::{TopArgs, TopSort},
    },
    stack::report::plain_json,
};

/// Columns where there is no terminal.
const COLUMNS_OF_A_FILE: usize = 100;
/// Failed looks in a row before it gives up.
const PATIENCE: u32 = 10;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
enum TopError {
    #[error("{0}; is the agent running there? --agent URL names another one")]
    NoAnswer(FetchError),
    #[error(
        "{url} answered with something else than workloads ({what}): is it an isostack-agent of \
         this version?"
    )]
    Answer { url: String, what: String },
    #[error("the terminal cannot be used: {0}")]
    Terminal(#[from] io::Error),
}

/// Shows until somebody has seen enough, or once.
#[must_use]
pub fn top(args: &TopArgs) -> ExitCode {
    let server = match Server::new(&args.agent, &[], "http://127.0.0.1:9464") {
        Ok(server) => server,
        Err(error) => {
            complain(&error);
            return EXIT_USAGE.into();
        }
    };
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&TopError::Terminal(error));
            return ExitCode::FAILURE;
        }
    };
    let live = !args.once && args.output == Output::Table && io::stdout().is_terminal();
    let shown = runtime.block_on(async {
        if live {
            watch(args, &server).await.map(|()| None)
        } else {
            twice(args, &server).await.map(Some)
        }
    });
    runtime.shutdown_background();
    match shown {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(text)) => write_out(&text, 0),
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

async fn look(server: &Server) -> Result<Look, TopError> {
    const PATH: &str = "/api/v1/workloads?limit=1000";
    let answer = server.ask(PATH).await.map_err(TopError::NoAnswer)?;
    let odd = |what: String| TopError::Answer {
        url: server.url(PATH),
        what,
    };
    if !answer.status.is_success() {
        return Err(odd(answer.status.to_string()));
    }
    Look::parse(&answer.body, Instant::now()).map_err(|error| odd(error.to_string()))
}

/// One table or document, of the time between two looks.
async fn twice(args: &TopArgs, server: &Server) -> Result<String, TopError> {
    let before = look(server).await?;
    tokio::time::sleep(Duration::from_secs(args.interval)).await;
    let rates = Rates::between(&before, &look(server).await?, args.sort);
    Ok(match args.output {
        Output::Json => plain_json(&format!("{:#}", rates.json())),
        Output::Table => {
            let columns = super::columns(COLUMNS_OF_A_FILE);
            render(&rates, args.sort, columns, usize::MAX, speaks_unicode()).join("\n")
        }
    })
}

/// The live table. The terminal is given back however this ends.
async fn watch(args: &TopArgs, server: &Server) -> Result<(), TopError> {
    let mut before = look(server).await?;
    let mut screen = Screen::open()?;
    let mut sort = args.sort;
    let mut trouble = None;
    let mut failed = 0;
    let mut rates = Rates::default();
    let mut ticks = tokio::time::interval(Duration::from_secs(args.interval));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        let (columns, rows) = screen.size();
        let room = rows.saturating_sub(2);
        let mut lines = if rates.is_empty() {
            vec![format!(
                "{}: the first figures come in {} s",
                server.url(""),
                args.interval
            )]
        } else {
            render(&rates, sort, columns, room, speaks_unicode())
        };
        lines.resize(room, String::new());
        lines.push(trouble.clone().unwrap_or_else(|| {
            "q quit; sort by: t total, c throttle, r runqueue, m memory, d disk, n network, v verdicts, a name".to_owned()
        }));
        if !screen.draw(&lines)? {
            return Ok(());
        }
        tokio::select! {
            key = screen.key() => match key {
                Key::Quit => return Ok(()),
                Key::Resized => {}
                Key::Letter(letter) => sort = sort_of(letter).unwrap_or(sort),
            },
            _ = ticks.tick() => match look(server).await {
                Ok(now) => {
                    rates = Rates::between(&before, &now, sort);
                    before = now;
                    (trouble, failed) = (None, 0);
                }
                Err(error) => {
                    failed += 1;
                    if failed >= PATIENCE {
                        return Err(error);
                    }
                    trouble = Some(format!("{error}"));
                }
            },
        }
        rates.sort(sort);
    }
}

fn sort_of(letter: char) -> Option<TopSort> {
    Some(match letter {
        't' => TopSort::Total,
        'c' => TopSort::Throttle,
        'r' => TopSort::Runqueue,
        'm' => TopSort::Memory,
        'd' => TopSort::Disk,
        'n' => TopSort::Network,
        'v' => TopSort::Verdicts,
        'a' => TopSort::Name,
        _ => return None,
    })
}
