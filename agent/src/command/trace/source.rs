//! Where the spans of a trace come from.

use std::{
    fs::File,
    io::{self, BufReader, Read as _},
    path::Path,
};

use http::StatusCode;
use serde_json::Value;
use thiserror::Error;

use crate::{
    cli::trace::SourceArgs,
    command::fetch::{Answer, FetchError, MAX_BYTES, Server},
    span::{TraceId, hex},
    trace::{
        self, Report,
        read::{Found, ReadError, read},
    },
};

/// Why there is no report.
#[derive(Debug, Error)]
pub enum Trouble {
    /// An address or header that cannot be meant.
    #[error(transparent)]
    Usage(FetchError),
    /// No answer.
    #[error("{error}{hint}")]
    NoAnswer {
        /// What happened.
        error: FetchError,
        /// What to do, after a semicolon; may be empty.
        hint: &'static str,
    },
    /// An answer that is none of a trace store.
    #[error("{url} answered {what}")]
    Answer {
        /// Where.
        url: String,
        /// What, and what to do.
        what: String,
    },
    /// It is not there.
    #[error("trace {id} is not {place}{hint}")]
    NotFound {
        /// Which.
        id: String,
        /// Where not.
        place: String,
        /// What to do, after a semicolon.
        hint: String,
    },
    /// A file that cannot be read.
    #[error("{file}: {error}")]
    File {
        /// Which.
        file: String,
        /// Why.
        error: ReadError,
    },
}

/// Asks the source that the flags name.
pub(super) fn fetch(
    trace_id: TraceId,
    args: &SourceArgs,
    headers: &[String],
) -> Result<Report, Trouble> {
    if let Some(file) = &args.file {
        return from_file(trace_id, file);
    }
    let server =
        |address: &str, example| Server::new(address, headers, example).map_err(Trouble::Usage);
    if let Some(address) = &args.jaeger {
        return from_jaeger(trace_id, &server(address, "http://jaeger:16686")?);
    }
    if let Some(address) = &args.tempo {
        return from_tempo(trace_id, &server(address, "http://tempo:3200")?);
    }
    from_agent(trace_id, &server(&args.agent, "http://127.0.0.1:9464")?)
}

/// The agent analyses itself: it knows more than attributes say.
fn from_agent(trace_id: TraceId, server: &Server) -> Result<Report, Trouble> {
    let path = format!("/api/v1/traces/{}", hex(&trace_id));
    let hint = "; is the agent running there? --agent URL names another one, --jaeger, --tempo \
                and --file other sources";
    let answer = server
        .get(&path)
        .map_err(|error| Trouble::NoAnswer { error, hint })?;
    let url = server.url(&path);
    let parsed = serde_json::from_slice::<Report>(&answer.body);
    match (answer.status.as_u16(), parsed) {
        (200, Ok(report)) => Ok(report),
        (404, _) if said(&answer).contains("trace") => Err(Trouble::NotFound {
            id: hex(&trace_id),
            place: "in the memory of this agent".to_owned(),
            hint: "; it keeps the latest spans of its node, and those of traces with a verdict \
                   longer: ask your trace store by --jaeger or --tempo"
                .to_owned(),
        }),
        (200, Err(error)) => Err(Trouble::Answer {
            url,
            what: format!(
                "with something else than a trace ({error}): is it an isostack-agent of this version?"
            ),
        }),
        _ => Err(refused(
            url,
            &answer,
            "is it an isostack-agent of this version?",
            JAEGER.denied,
        )),
    }
}

/// A kind of trace store, as far as asking it and its troubles go.
struct Store {
    name: &'static str,
    /// What to think of an answer that is none of it.
    doubt: &'static str,
    /// What to do when it lets nobody in.
    denied: &'static str,
}

const JAEGER: Store = Store {
    name: "Jaeger",
    doubt: "is it Jaeger's query address, with its base path if it has one, as http://jaeger:16686?",
    denied: "pass the credentials by --header Authorization=...",
};

const TEMPO: Store = Store {
    name: "Tempo",
    doubt: "is it Tempo's HTTP address, with its http_api_prefix if it has one, as http://tempo:3200?",
    denied: "pass the tenant by --header X-Scope-OrgID=..., credentials by --header Authorization=...",
};

/// Where Tempo says whether its parts run; never below its prefix.
const READY: &str = "/ready";

/// Jaeger's stable API first: it has nanoseconds. The older one is there in all versions.
fn from_jaeger(trace_id: TraceId, server: &Server) -> Result<Report, Trouble> {
    let id = hex(&trace_id);
    let paths = [format!("/api/v3/traces/{id}"), format!("/api/traces/{id}")];
    from_store(trace_id, server, &paths, &JAEGER)
}

/// Tempo's second version of the API says when a trace is not complete.
fn from_tempo(trace_id: TraceId, server: &Server) -> Result<Report, Trouble> {
    let id = hex(&trace_id);
    let paths = [format!("/api/v2/traces/{id}"), format!("/api/traces/{id}")];
    let mut answer = from_store(trace_id, server, &paths, &TEMPO);
    // While it starts it says of everything that it is not there.
    if let Err(Trouble::NotFound { hint, .. }) = &mut answer
        && let Ok(ready) = server.get(READY)
        && ready.status == StatusCode::SERVICE_UNAVAILABLE
    {
        let words = said(&ready);
        *hint = format!("; Tempo is not ready ({words}): ask again when its {READY} says so");
    }
    answer
}

/// Asks the paths in turn until one has spans.
fn from_store(
    trace_id: TraceId,
    server: &Server,
    paths: &[String],
    store: &Store,
) -> Result<Report, Trouble> {
    let doubt = store.doubt;
    let mut trouble = None;
    let mut absent = false;
    for path in paths {
        let hint = "; is it running there, reachable from here, and does this port speak HTTP, \
                    with TLS if the address says https and without if not?";
        let answer = server
            .get(path)
            .map_err(|error| Trouble::NoAnswer { error, hint })?;
        match read(&*answer.body, trace_id) {
            Ok(found) if !found.spans.is_empty() => {
                return Ok(finish(trace_id, found, answer.status));
            }
            Ok(_) if answer.status.is_success() => absent = true,
            Err(ReadError::TooMany) => {
                return Err(Trouble::Answer {
                    url: server.url(path),
                    what: ReadError::TooMany.to_string(),
                });
            }
            // A page for browsers, or an older version that has no such path.
            Err(error) if answer.status.is_success() => {
                trouble = Some(Trouble::Answer {
                    url: server.url(path),
                    what: format!("with something else than a trace ({error}): {doubt}"),
                });
            }
            // The store's own word for it, or an empty answer; what has no such path says
            // so as text.
            _ if answer.status == StatusCode::NOT_FOUND => {
                absent |= answer.body.is_empty() || is_store(&answer);
            }
            _ => trouble = Some(refused(server.url(path), &answer, doubt, store.denied)),
        }
    }
    match trouble {
        Some(trouble) if !absent => Err(trouble),
        None if !absent => Err(Trouble::Answer {
            url: server.url(paths.last().map_or("", String::as_str)),
            what: format!("that there is no such path: {doubt}"),
        }),
        _ => Err(Trouble::NotFound {
            id: hex(&trace_id),
            place: format!("in {}", store.name),
            hint: "; spans arrive there some seconds after they end, and are deleted after its \
                   retention time"
                .to_owned(),
        }),
    }
}

/// What a store says where it has no such trace.
fn is_store(answer: &Answer) -> bool {
    let text = String::from_utf8_lossy(&answer.body).to_lowercase();
    // Many servers repeat the path that they do not have.
    text.replace("/traces/", "").contains("trace")
}

/// The report, with what the store said beside the spans.
fn finish(trace_id: TraceId, found: Found, status: StatusCode) -> Report {
    let mut report = trace::report(trace_id, found.spans);
    if !found.said.is_empty() {
        let said: String = found.said.chars().take(300).collect();
        report.notes.push(format!("the store says: {said}"));
    } else if found.is_partial || status == StatusCode::PARTIAL_CONTENT {
        // Tempo's second version in the document, its first by the status alone.
        let note = "the store could not read all of the trace: spans may be missing";
        report.notes.push(note.to_owned());
    }
    report
}

/// Of an answer that is an error: what it says, and what to do about it.
fn refused(url: String, answer: &Answer, doubt: &str, denied: &str) -> Trouble {
    let said = said(answer);
    let said = if said.is_empty() {
        String::new()
    } else {
        format!(" ({said})")
    };
    let what = match answer.status.as_u16() {
        401 | 403 => format!("{}{said}: {denied}", answer.status),
        429 | 500.. => format!(
            "{}{said}: it is there but cannot answer now; ask again, its log says more",
            answer.status
        ),
        _ => format!("{}{said}: {doubt}", answer.status),
    };
    Trouble::Answer { url, what }
}

/// The first words of what a server says is wrong.
fn said(answer: &Answer) -> String {
    const MOST: usize = 200;
    let json: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let of_json = json.as_ref().and_then(|json| {
        let texts = [
            &json["error"],
            &json["error"]["message"],
            &json["message"],
            &json["errors"][0]["msg"],
        ];
        texts.into_iter().find_map(Value::as_str)
    });
    let whole = String::from_utf8_lossy(&answer.body[..answer.body.len().min(4 * MOST)]);
    let text = of_json.unwrap_or(&whole).trim().to_owned();
    if text.starts_with('<') {
        return "a page for browsers".to_owned();
    }
    let shown = |char: char| match char {
        '"' | '\'' => String::from(char),
        char => char.escape_debug().to_string(),
    };
    text.chars().take(MOST).map(shown).collect()
}

fn from_file(trace_id: TraceId, file: &Path) -> Result<Report, Trouble> {
    let name = file.display().to_string();
    let failed = |error| Trouble::File {
        file: name.clone(),
        error,
    };
    let limit = MAX_BYTES as u64;
    let found = if file == Path::new("-") {
        read(BufReader::new(io::stdin().lock()).take(limit), trace_id)
    } else {
        let opened = File::open(file).map_err(|error| failed(ReadError::Io(error.to_string())))?;
        let length = opened.metadata().map_or(0, |meta| meta.len());
        if length > limit {
            let error = format!(
                "it is larger than {} MiB, which is more than is looked at: cut it to the lines \
                 of the trace",
                MAX_BYTES >> 20
            );
            return Err(failed(ReadError::Io(error)));
        }
        read(BufReader::new(opened).take(limit), trace_id)
    };
    let found = found.map_err(failed)?;
    if found.spans.is_empty() {
        let others = match found.of_others {
            0 => "no spans: it is to be OTLP in JSON, or what Jaeger's page downloads".to_owned(),
            1 => "1 span of another trace".to_owned(),
            many => format!("{many} spans of other traces"),
        };
        return Err(Trouble::NotFound {
            id: hex(&trace_id),
            place: format!("in {name}"),
            hint: format!("; it holds {others}"),
        });
    }
    Ok(finish(trace_id, found, StatusCode::OK))
}
