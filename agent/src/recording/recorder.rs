//! Records a run while it goes on: the pipeline hands copies to a thread that writes them. The
//! pipeline never waits for it; what does not fit is counted, here and in the recording.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::{
    EVENTS_PER_LINE, FORMAT, VERSION,
    entry::{EndReason, Entry, Header, Judged, judged},
    write::{Room, Writer},
};
use crate::{
    event::Event,
    metrics::AgentMetrics,
    pipeline::PipelineConfig,
    span::{Joined, SpanBatch},
    time::{MonoNs, UnixNs},
    verdict::Judgement,
};

/// Entries that may wait for the thread, and about how many bytes they may take.
const QUEUE_ENTRIES: usize = 8_192;
const QUEUE_BYTES: usize = 64 << 20;
/// The file is brought up to date this often.
const FLUSH_EVERY: Duration = Duration::from_secs(1);

/// What is to be recorded where.
#[derive(Clone, Debug)]
pub struct RecorderConfig {
    /// Largest file.
    pub max_bytes: u64,
    /// Name of this node.
    pub node: String,
    /// Whether enriched spans have child spans.
    pub child_spans: bool,
}

/// See the module's head.
#[derive(Debug)]
pub struct Recorder {
    queue: SyncSender<Item>,
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<Written>>,
    /// Cancelled when the thread stops by itself: the file is full, or cannot be written.
    ended: CancellationToken,
}

/// What became of a recording.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Size of the file.
    pub bytes: u64,
    /// Entries that are missing in it.
    pub lost: u64,
    /// Why it ends.
    pub reason: EndReason,
}

/// What waits for the thread.
#[derive(Debug)]
enum Item {
    Entry(Entry),
    Events(MonoNs, Vec<Event>),
    Batch(MonoNs, Vec<Joined>, Bytes),
}

#[derive(Debug, Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    lost: AtomicU64,
}

impl Recorder {
    /// Makes the file and starts the thread. The pipeline must have been made with these
    /// settings and this sample of the clocks. `ended` is cancelled when nothing more will be
    /// written.
    ///
    /// # Errors
    /// When the file cannot be made, or the thread.
    pub fn start(
        path: &Path,
        config: RecorderConfig,
        pipeline: &PipelineConfig,
        (mono, wall): (MonoNs, UnixNs),
        ended: CancellationToken,
    ) -> io::Result<Self> {
        let mut writer = Writer::create(path, config.max_bytes)?;
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            agent: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: kernel(),
            node: config.node,
            about: String::new(),
            mono,
            wall,
            child_spans: config.child_spans,
            pipeline: pipeline.into(),
        };
        writer.entry(&Entry::Recording(Box::new(header)))?;
        writer.flush()?;
        let (queue, items) = sync_channel(QUEUE_ENTRIES);
        let shared = Arc::new(Shared::default());
        let thread = {
            let (shared, ended) = (Arc::clone(&shared), ended.clone());
            std::thread::Builder::new()
                .name("recorder".to_owned())
                .spawn(move || {
                    let written = write_all(writer, &items, &shared);
                    ended.cancel();
                    written
                })?
        };
        Ok(Self {
            queue,
            shared,
            thread,
            ended,
        })
    }

    /// Records a sample of the clocks.
    pub fn clock(&self, mono: MonoNs, wall: UnixNs, metrics: &AgentMetrics) {
        self.push(Item::Entry(Entry::Clock { mono, wall }), 0, metrics);
    }

    /// Records events that the pipeline took at `now`, one after the other.
    pub fn events(&self, now: MonoNs, events: &[Event], metrics: &AgentMetrics) {
        for events in events.chunks(EVENTS_PER_LINE) {
            let item = Item::Events(now, events.to_vec());
            self.push(item, size_of_val(events), metrics);
        }
    }

    /// Records a batch that the pipeline took.
    pub fn batch(&self, batch: &SpanBatch, metrics: &AgentMetrics) {
        let joined: Vec<Joined> = batch.resources.iter().map(|r| r.joined.clone()).collect();
        let bytes = batch.payload.len() + joined.len() * size_of::<Joined>();
        let item = Item::Batch(batch.received, joined, batch.payload.clone());
        self.push(item, bytes, metrics);
    }

    /// Records that the pipeline judged what was due at `now`.
    pub fn settle(&self, now: MonoNs, metrics: &AgentMetrics) {
        self.push(Item::Entry(Entry::Settle { now }), 0, metrics);
    }

    /// Records that the pipeline judged everything.
    pub fn flush(&self, now: MonoNs, metrics: &AgentMetrics) {
        self.push(Item::Entry(Entry::Flush { now }), 0, metrics);
    }

    /// Records what came out for a batch.
    pub fn judged(&self, batch: &SpanBatch, judgements: &[Judgement], metrics: &AgentMetrics) {
        let judged = judged(batch, judgements);
        let bytes = judged.len() * size_of::<Judged>();
        self.push(Item::Entry(Entry::Judged(judged)), bytes, metrics);
    }

    /// Whether nothing more will be written: the file is full, or cannot be written.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Writes what waits, and completes the file.
    ///
    /// # Errors
    /// When it could not be written; what was written is under its preliminary name.
    pub fn finish(self) -> io::Result<Written> {
        drop(self.queue);
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| Err(io::Error::other("the recorder's thread panicked")))
    }

    fn push(&self, item: Item, bytes: usize, metrics: &AgentMetrics) {
        if self.has_ended() {
            return; // Nothing is missing in a file that ends before.
        }
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if queued + bytes > QUEUE_BYTES || self.queue.try_send(item).is_err() {
            self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
            metrics.recording_lost.inc();
        }
    }
}

fn kernel() -> String {
    let kernel = rustix::system::uname();
    kernel.release().to_string_lossy().into_owned()
}

impl Item {
    /// As it was counted when it was queued.
    fn bytes(&self) -> usize {
        match self {
            Self::Entry(Entry::Judged(judged)) => judged.len() * size_of::<Judged>(),
            Self::Entry(_) => 0,
            Self::Events(_, events) => size_of_val(&events[..]),
            Self::Batch(_, joined, payload) => payload.len() + joined.len() * size_of::<Joined>(),
        }
    }

    fn write(self, writer: &mut Writer) -> io::Result<Room> {
        match self {
            Self::Entry(entry) => writer.entry(&entry),
            Self::Events(now, events) => writer.entry(&Entry::Events { now, events }),
            Self::Batch(received, joined, payload) => {
                writer.batch(received, joined.iter(), &payload)
            }
        }
    }
}

/// Writes until nobody sends any more, or the file is full.
fn write_all(mut writer: Writer, items: &Receiver<Item>, shared: &Shared) -> io::Result<Written> {
    let mut lost_written = 0;
    let mut flushed = Instant::now();
    let mut reason = EndReason::Stopped;
    loop {
        let mut room = Room::Written;
        let lost = shared.lost.load(Ordering::Relaxed);
        if lost > lost_written {
            let entries = lost - lost_written;
            room = writer.entry(&Entry::Lost { entries })?;
            lost_written = lost;
        }
        if room == Room::Written {
            match items.recv_timeout(FLUSH_EVERY.saturating_sub(flushed.elapsed())) {
                Ok(item) => {
                    shared
                        .queued_bytes
                        .fetch_sub(item.bytes(), Ordering::Relaxed);
                    room = item.write(&mut writer)?;
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if room == Room::Full {
            reason = EndReason::MaxSize;
            break;
        }
        if flushed.elapsed() >= FLUSH_EVERY {
            writer.flush()?;
            flushed = Instant::now();
        }
    }
    let bytes = writer.finish(reason)?;
    Ok(Written {
        bytes,
        lost: lost_written,
        reason,
    })
}
