//! The files that the user named, as they come, grow, are rotated and go.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    ops::ControlFlow,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use super::{Board, envelope::Envelope, origin};
use crate::{
    classify::{
        Only, WINDOW_BYTES,
        stream::{Found, Stream},
        tail::{Begin, Look, Place, Tail},
    },
    metrics::{AgentMetrics, Reason},
    state_file,
    time::UnixNs,
    workload::Workload,
};

/// Files followed at once; each costs two descriptors at most and 16 KiB.
const MAX_FILES: usize = 512;
/// Read of one file before the next has its turn, in pieces of [`WINDOW_BYTES`].
const PIECES_AT_ONCE: usize = 64;
/// A file is not read further behind its end than this: what is left out is counted.
const MAX_BEHIND_BYTES: u64 = 64 << 20;
/// A file that could not be followed, or read, is tried again after so long.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// Name of the file with the positions, in the state directory.
const POSITIONS: &str = "log_positions.json";
/// A file of positions that is larger is not one of ours.
const MAX_POSITIONS_BYTES: u64 = 4 << 20;

/// See the module's head.
pub struct Files {
    globs: Vec<String>,
    followed: HashMap<PathBuf, Followed>,
    positions: Option<PathBuf>,
    remembered: BTreeMap<PathBuf, Place>,
    /// The first look was taken: what comes from now on is new, and read from its start.
    started: bool,
    complained: HashSet<PathBuf>,
    /// When they are tried again.
    forgive: Instant,
    /// What was read at the last two looks, by device and inode.
    inodes: [HashSet<(u64, u64)>; 2],
    /// What is read of a file whose lines are in envelopes.
    raw: Vec<u8>,
}

struct Followed {
    tail: Tail,
    stream: Stream<'static>,
    workload: Workload,
    /// Of a container's.
    envelope: Option<Envelope>,
}

impl Files {
    /// Nothing is opened yet.
    pub fn new(globs: Vec<String>, state_dir: Option<&Path>) -> Self {
        let positions = state_dir.map(|dir| dir.join(POSITIONS));
        let positions = positions.filter(|_| !globs.is_empty());
        Self {
            globs,
            followed: HashMap::new(),
            remembered: positions.as_deref().map(read_positions).unwrap_or_default(),
            positions,
            started: false,
            complained: HashSet::new(),
            forgive: Instant::now() + FORGIVEN_AFTER,
            inodes: Default::default(),
            raw: vec![0; WINDOW_BYTES],
        }
    }

    /// Looks which files there are.
    pub fn discover(&mut self, metrics: &AgentMetrics) {
        let now = self
            .followed
            .values()
            .filter_map(|f| f.tail.inode())
            .collect();
        self.inodes = [now, std::mem::take(&mut self.inodes[0])];
        if Instant::now() >= self.forgive {
            self.forgive = Instant::now() + FORGIVEN_AFTER;
            self.complained.clear();
        }
        for pattern in &self.globs {
            let Ok(paths) = glob::glob(pattern) else {
                continue;
            };
            for path in paths.filter_map(Result::ok) {
                if self.followed.contains_key(&path) || self.complained.contains(&path) {
                    continue;
                }
                if self.followed.len() >= MAX_FILES {
                    let reason = "too_many_files";
                    metrics
                        .log_lines_lost
                        .get_or_create(&Reason { reason })
                        .inc();
                    if self.complained.len() < MAX_FILES {
                        tracing::warn!(path = %path.display(), most = MAX_FILES, "Too many log files: not followed");
                        self.complained.insert(path);
                    }
                    continue;
                }
                let begin = match self.remembered.get(&path) {
                    Some(place) => Begin::At(*place),
                    // Not one that was merely renamed, whose lines were read under its old name.
                    None if self.started && !self.was_read(&path) => Begin::Start,
                    None => Begin::End,
                };
                // Names in /var/log/containers are links to what the kubelet writes.
                let workload = origin::workload(&path);
                let is_of_container = workload != Workload::default();
                let followed = Followed {
                    workload,
                    envelope: is_of_container.then(Envelope::default),
                    tail: Tail::new(path.clone(), begin),
                    stream: Stream::with_buffer(Only::default(), WINDOW_BYTES),
                };
                tracing::debug!(path = %path.display(), "Log file followed");
                self.followed.insert(path, followed);
            }
        }
        self.started = true;
    }

    fn was_read(&self, path: &Path) -> bool {
        let Ok(meta) = fs::metadata(path) else {
            return false;
        };
        let inode = (meta.dev(), meta.ino());
        self.inodes.iter().any(|known| known.contains(&inode))
    }

    /// Reads what is new, each file a bounded part; whether there may be more at once.
    pub fn read(&mut self, board: &Board, metrics: &AgentMetrics) -> bool {
        let mut more = false;
        let (complained, raw) = (&mut self.complained, &mut self.raw);
        self.followed.retain(|path, file| {
            match file.read(path, raw, board, metrics) {
                Ok(Reading::Done) => true,
                Ok(Reading::More) => {
                    more = true;
                    true
                }
                // When it comes back it is found again.
                Ok(Reading::Gone) => false,
                Err(error) => {
                    let reason = "unreadable_file";
                    metrics.log_lines_lost.get_or_create(&Reason { reason }).inc();
                    tracing::warn!(path = %path.display(), %error, "A log file is not read any more");
                    if complained.len() < MAX_FILES {
                        complained.insert(path.clone());
                    }
                    false
                }
            }
        });
        more
    }

    /// Writes where each file is, if there is a place to.
    pub fn remember(&mut self) {
        let Some(path) = &self.positions else { return };
        let places = self
            .followed
            .iter()
            .filter_map(|(path, file)| Some((path.clone(), file.tail.place(file.pending())?)));
        let places: BTreeMap<_, _> = places.collect();
        if places == self.remembered {
            return;
        }
        let written = serde_json::to_vec(&places)
            .map_err(Into::into)
            .and_then(|bytes| state_file::replace(path, &bytes));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "Positions in log files are not remembered");
            self.positions = None;
            return;
        }
        self.remembered = places;
    }
}

enum Reading {
    Done,
    More,
    Gone,
}

impl Followed {
    /// Bytes that were read and belong to a line that has not ended. Of a container's, a part of
    /// a line that ended by itself counts as a line after a restart.
    fn pending(&self) -> usize {
        match &self.envelope {
            Some(envelope) => envelope.pending(),
            None => self.stream.pending(),
        }
    }

    fn read(
        &mut self,
        path: &Path,
        raw: &mut [u8],
        board: &Board,
        metrics: &AgentMetrics,
    ) -> std::io::Result<Reading> {
        let source = path.to_string_lossy();
        for _ in 0..PIECES_AT_ONCE {
            let look = match self.envelope {
                Some(_) => self.tail.look(raw)?,
                None => self.tail.look(self.stream.space())?,
            };
            let workload = &self.workload;
            let mut sink = |found: Found<'_>| {
                board.take(found.hit, workload, &source, found.line, UnixNs::now());
                ControlFlow::<()>::Continue(())
            };
            let stream = &mut self.stream;
            // The sink never breaks.
            let _ = match (look, &mut self.envelope) {
                (Look::Bytes(n), None) => stream.advance(n, &mut sink),
                (Look::Bytes(n), Some(envelope)) => {
                    envelope.open(&raw[..n], &mut |text| feed(stream, text, &mut sink));
                    ControlFlow::Continue(())
                }
                (Look::Restarted, envelope) => {
                    if let Some(envelope) = envelope {
                        envelope.restart(&mut |text| feed(stream, text, &mut sink));
                    }
                    stream.finish(&mut sink)
                }
                (Look::Nothing, _) => return Ok(Reading::Done),
                (Look::Gone, _) => return Ok(Reading::Gone),
            };
        }
        if self.tail.catch_up(MAX_BEHIND_BYTES)? > 0 {
            let reason = "too_far_behind";
            metrics
                .log_lines_lost
                .get_or_create(&Reason { reason })
                .inc();
            // The rest of a line is no line.
            self.envelope = self.envelope.is_some().then(Envelope::default);
            let _ = self.stream.finish(&mut |_| ControlFlow::<()>::Continue(()));
        }
        Ok(Reading::More)
    }
}

/// Gives the stream what does not lie in its buffer yet.
fn feed(
    stream: &mut Stream<'_>,
    mut text: &[u8],
    sink: &mut impl FnMut(Found<'_>) -> ControlFlow<()>,
) {
    while !text.is_empty() {
        let space = stream.space();
        let n = text.len().min(space.len());
        space[..n].copy_from_slice(&text[..n]);
        text = &text[n..];
        // The sink never breaks.
        let _ = stream.advance(n, sink);
    }
}

fn read_positions(path: &Path) -> BTreeMap<PathBuf, Place> {
    let too_large = |path: &Path| fs::metadata(path).is_ok_and(|m| m.len() > MAX_POSITIONS_BYTES);
    if too_large(path) {
        return BTreeMap::new();
    }
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return BTreeMap::new(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "Positions in log files cannot be read: only new lines are");
            return BTreeMap::new();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "Positions in log files are damaged: only new lines are read");
        BTreeMap::new()
    })
}
