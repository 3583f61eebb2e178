//! Reads a recording, which may be anybody's: every line is bounded, and so is all that the
//! lines together make the reader remember.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    sync::Arc,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flate2::bufread::GzDecoder;

use super::{
    EVENTS_PER_LINE, FORMAT, MAX_IDENTITIES, MAX_LINE_BYTES, MAX_SMALL_LINE_BYTES, VERSION,
    entry::{Entry, Header, JoinedTo, Judged},
};
use crate::{
    event::{Event, Particulars},
    otlp::view,
    process::Identity,
    span::{Joined, SpanBatch},
    time::{MonoNs, UnixNs},
};

/// Bytes of identities and of what is known of delays that a file may make the reader keep.
const MAX_REMEMBERED_BYTES: usize = 256 << 20;

/// Why a recording cannot be replayed, or not further. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Unreadable {
        /// As named.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Something else.
    #[error("this is no recording of isostack-agent ({0}): `isostack-agent record FILE` makes one")]
    Foreign(&'static str),
    /// Of a later agent.
    #[error(
        "the recording is in version {version} of the format, written by isostack-agent {agent}; \
         this agent reads up to version {VERSION}: replay it with that agent or a later one"
    )]
    Newer {
        /// Of the format.
        version: u32,
        /// Who wrote it.
        agent: String,
    },
    /// It asks for more than an agent ever has.
    #[error("line 1 of the recording asks for more memory than an agent takes: it is broken")]
    Settings,
    /// A line that cannot be.
    #[error("line {line} of the recording is broken: {what}")]
    Broken {
        /// From 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
}

/// What was read: an entry as the pipeline takes it.
#[derive(Debug)]
pub enum Step {
    /// See [`Entry::Clock`].
    Clock(MonoNs, UnixNs),
    /// See [`Entry::Events`].
    Events(MonoNs, Vec<Event>),
    /// See [`Entry::Batch`].
    Batch(Box<SpanBatch>),
    /// See [`Entry::Settle`].
    Settle(MonoNs),
    /// See [`Entry::Flush`].
    Flush(MonoNs),
    /// See [`Entry::Judged`].
    Judged(Vec<Judged>),
    /// See [`Entry::Lost`].
    Lost(u64),
    /// The last line was read.
    End,
    /// There is no last line: the agent was killed, or the file cut.
    Cut,
}

/// See the module's head.
pub struct Reader {
    lines: Lines,
    header: Header,
    identities: Vec<Option<Arc<Identity>>>,
    particulars: HashMap<String, Particulars>,
    remembered_bytes: usize,
}

impl Reader {
    /// Opens a recording and reads its first line.
    ///
    /// # Errors
    /// When it cannot be read or is no recording that this agent understands.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let file = File::open(path).map_err(|source| ReadError::Unreadable {
            path: path.display().to_string(),
            source,
        })?;
        Self::new(Box::new(BufReader::with_capacity(1 << 16, file)))
    }

    /// The same of a file's content.
    ///
    /// # Errors
    /// When it is no recording that this agent understands.
    pub fn new(mut input: Box<dyn BufRead>) -> Result<Self, ReadError> {
        let first = input.fill_buf().map_err(|source| ReadError::Unreadable {
            path: "the recording".to_owned(),
            source,
        })?;
        let input: Box<dyn BufRead> = match first {
            [0x1f, 0x8b, ..] => Box::new(BufReader::new(GzDecoder::new(input))),
            [b'{', ..] => input,
            [] => return Err(ReadError::Foreign("it is empty")),
            _ => return Err(ReadError::Foreign("it is neither gzip nor lines of JSON")),
        };
        let mut lines = Lines { input, number: 0 };
        let mut line = Vec::new();
        let whole = lines.next(&mut line)?;
        let header = header(&line)?;
        if !whole {
            return Err(ReadError::Foreign("its first line is cut"));
        }
        Ok(Self {
            lines,
            header,
            identities: Vec::new(),
            particulars: HashMap::new(),
            remembered_bytes: 0,
        })
    }

    /// The first line.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// The next step; after [`Step::End`] or [`Step::Cut`] there is none.
    ///
    /// # Errors
    /// When a line cannot be what an agent wrote.
    pub fn step(&mut self) -> Result<Step, ReadError> {
        let mut line = Vec::new();
        loop {
            if !self.lines.next(&mut line)? {
                return Ok(Step::Cut);
            }
            let entry: Entry = serde_json::from_slice(&line)
                .map_err(|error| self.broken(format!("{error}: cut it off before this line")))?;
            if !entry.times_are_sane() {
                return Err(self.broken("a time in it is none that a clock shows".to_owned()));
            }
            let is_small = !matches!(entry, Entry::Batch { .. } | Entry::Judged(_));
            if is_small && line.len() > MAX_SMALL_LINE_BYTES {
                return Err(self.broken(format!("it is longer than {MAX_SMALL_LINE_BYTES} bytes")));
            }
            return Ok(match entry {
                Entry::Recording(_) => {
                    return Err(self.broken("only the first line can be this".to_owned()));
                }
                Entry::Identity { slot, identity } => {
                    self.identity(slot, identity, line.len())?;
                    continue;
                }
                Entry::Clock { mono, wall } => Step::Clock(mono, wall),
                Entry::Events { now, events } => Step::Events(now, self.events(events)?),
                Entry::Batch {
                    received,
                    joined,
                    payload,
                } => Step::Batch(Box::new(self.batch(received, &joined, &payload)?)),
                Entry::Settle { now } => Step::Settle(now),
                Entry::Flush { now } => Step::Flush(now),
                Entry::Judged(judged) => Step::Judged(judged),
                Entry::Lost { entries } => Step::Lost(entries),
                Entry::End { .. } => Step::End,
            });
        }
    }

    fn identity(
        &mut self,
        slot: u32,
        identity: Arc<Identity>,
        bytes: usize,
    ) -> Result<(), ReadError> {
        if slot >= MAX_IDENTITIES {
            return Err(self.broken(format!("slots end at {MAX_IDENTITIES}")));
        }
        self.remember(bytes)?;
        let slot = slot as usize;
        if self.identities.len() <= slot {
            self.identities.resize(slot + 1, None);
        }
        self.identities[slot] = Some(identity);
        Ok(())
    }

    /// The events, with what is known of them shared: a file of equal words takes them once.
    fn events(&mut self, mut events: Vec<Event>) -> Result<Vec<Event>, ReadError> {
        if events.len() > EVENTS_PER_LINE {
            return Err(self.broken(format!("more than {EVENTS_PER_LINE} events")));
        }
        for event in &mut events {
            let Event::Delay(delay) = event else { continue };
            if delay.particulars.is_none() {
                continue;
            }
            let text = serde_json::to_string(&delay.particulars)
                .map_err(|error| self.broken(error.to_string()))?;
            if let Some(known) = self.particulars.get(&text) {
                delay.particulars = known.clone();
                continue;
            }
            self.remember(2 * text.len())?;
            self.particulars.insert(text, delay.particulars.clone());
        }
        Ok(events)
    }

    fn batch(
        &mut self,
        received: MonoNs,
        joined: &[JoinedTo],
        payload: &str,
    ) -> Result<SpanBatch, ReadError> {
        let payload = STANDARD
            .decode(payload)
            .map_err(|error| self.broken(format!("the spans are not in base64: {error}")))?;
        let mut batch = view::parse(Bytes::from(payload), received)
            .map_err(|error| self.broken(error.to_string()))?;
        if batch.resources.len() != joined.len() {
            let (has, told) = (batch.resources.len(), joined.len());
            return Err(self.broken(format!("{has} resources and {told} joins")));
        }
        for (resource, joined) in batch.resources.iter_mut().zip(joined) {
            let identity = match joined.identity {
                None => None,
                Some(slot) => {
                    let known = self.identities.get(slot as usize).cloned().flatten();
                    let unknown = || self.broken(format!("nobody has slot {slot}"));
                    Some(known.ok_or_else(unknown)?)
                }
            };
            resource.joined = Joined {
                identity,
                confidence: joined.confidence,
            };
        }
        Ok(batch)
    }

    fn remember(&mut self, bytes: usize) -> Result<(), ReadError> {
        self.remembered_bytes = self.remembered_bytes.saturating_add(bytes);
        if self.remembered_bytes > MAX_REMEMBERED_BYTES {
            return Err(self.broken("it holds more names than a host has".to_owned()));
        }
        Ok(())
    }

    fn broken(&self, what: String) -> ReadError {
        ReadError::Broken {
            line: self.lines.number,
            what,
        }
    }
}

/// The first line, if this agent understands it.
fn header(line: &[u8]) -> Result<Header, ReadError> {
    #[derive(serde::Deserialize)]
    struct First {
        recording: Claim,
    }
    /// What every version says.
    #[derive(serde::Deserialize)]
    struct Claim {
        format: String,
        version: u32,
        #[serde(default)]
        agent: String,
    }
    let First { recording: claim } = serde_json::from_slice(line)
        .map_err(|_| ReadError::Foreign("its first line does not say that it is one"))?;
    if claim.format != FORMAT {
        return Err(ReadError::Foreign(
            "its first line says that it is something else",
        ));
    }
    if claim.version > VERSION {
        return Err(ReadError::Newer {
            version: claim.version,
            agent: claim
                .agent
                .chars()
                .filter(|c| c.is_ascii_graphic())
                .take(32)
                .collect(),
        });
    }
    match serde_json::from_slice(line) {
        Ok(Entry::Recording(header)) if Entry::Recording(header.clone()).times_are_sane() => {
            Ok(*header)
        }
        Ok(_) => Err(ReadError::Settings),
        Err(error) => Err(ReadError::Broken {
            line: 1,
            what: error.to_string(),
        }),
    }
}

/// Lines of bounded length.
struct Lines {
    input: Box<dyn BufRead>,
    number: u64,
}

impl Lines {
    /// Puts the next line into `line`, without its end; false when there is none, or only a
    /// part of one: the file was cut there.
    fn next(&mut self, line: &mut Vec<u8>) -> Result<bool, ReadError> {
        line.clear();
        self.number += 1;
        let mut bounded = (&mut self.input).take(MAX_LINE_BYTES as u64 + 1);
        match bounded.read_until(b'\n', line) {
            Ok(_) if line.last() == Some(&b'\n') => {
                line.pop();
                Ok(true)
            }
            Ok(_) if line.len() > MAX_LINE_BYTES => Err(ReadError::Broken {
                line: self.number,
                what: format!("it is longer than {MAX_LINE_BYTES} bytes"),
            }),
            Ok(_) => Ok(false),
            // A compressed stream without its end.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(ReadError::Broken {
                line: self.number,
                what: format!("it cannot be decompressed ({error})"),
            }),
        }
    }
}
