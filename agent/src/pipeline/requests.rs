//! The requests that each process works on: its server spans, by time.
//!
//! A span's time cannot be told apart from that of the requests in flight beside it unless the
//! thread is known, and a request's thread is also that of the spans inside it.
//!
//! Bounds: 48 bytes a request, at most [`MAX_REQUESTS`] of all processes together (3 MB, a quarter
//! more while rings grow; 13 s of 5 000 requests a second); the process with the most gives way first, and that is counted.

use std::num::NonZeroU32;

use super::{by_process::ByProcess, ring::Interval};
use crate::{
    process::ProcessKey,
    span::{SpanId, TraceId},
};

/// Requests kept of all processes.
const MAX_REQUESTS: usize = 1 << 16;
/// Requests looked at for one that a span is, or is part of.
const MAX_LOOKED_AT: usize = 256;
/// What is no step of the wall clock moves a span by less than this.
const CORRECTED_NS: u64 = 2_000_000;
/// A span may stick out of the request that it belongs to by this much: different clocks of
/// one SDK.
const STICK_OUT_NS: u64 = 1_000_000;

/// One server span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Monotonic.
    pub start: u64,
    /// Monotonic.
    pub end: u64,
    /// Its trace.
    pub trace: TraceId,
    /// Itself.
    pub span: SpanId,
    /// How far the sender's clock may be off: some milliseconds at most.
    pub slack_ns: u32,
    /// The thread that works on it.
    pub thread: Worker,
}

/// Who works on a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Worker {
    /// Nobody knows, or not yet.
    #[default]
    Unknown,
    /// This thread.
    Thread(NonZeroU32),
}

impl From<u32> for Worker {
    /// No thread has the id 0.
    fn from(tid: u32) -> Self {
        NonZeroU32::new(tid).map_or(Self::Unknown, Self::Thread)
    }
}

impl Interval for Request {
    fn start(&self) -> u64 {
        self.start
    }

    fn end(&self) -> u64 {
        self.end
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Requests(ByProcess<Request, MAX_REQUESTS>);

impl Requests {
    /// Takes one.
    pub fn add(&mut self, process: ProcessKey, request: Request) {
        self.0.add(process, request);
    }

    /// Those in flight at some moment of `[start, end)`.
    pub fn in_flight(
        &self,
        process: ProcessKey,
        start: u64,
        end: u64,
    ) -> impl Iterator<Item = &Request> {
        // One of no length is at its start.
        let end = end.max(start.saturating_add(1));
        self.0.overlapping(process, start, end)
    }

    /// How many are in flight there at most, found without looking at each.
    pub fn about_in_flight(&self, process: ProcessKey, start: u64, end: u64) -> usize {
        self.0.at_most(process, start, end)
    }

    /// The request of that trace inside which a span lies: the shortest.
    pub fn around(
        &self,
        process: ProcessKey,
        trace: TraceId,
        start: u64,
        end: u64,
    ) -> Option<&Request> {
        self.in_flight(process, start, end)
            .take(MAX_LOOKED_AT)
            .filter(|request| {
                request.trace == trace
                    && request.start <= start.saturating_add(STICK_OUT_NS)
                    && end <= request.end.saturating_add(STICK_OUT_NS)
            })
            .min_by_key(|request| (request.end - request.start, request.span))
    }

    /// Notes who works on a request.
    pub fn set_worker(&mut self, process: ProcessKey, request: &Request, tid: u32) {
        let about = about(request.end);
        let mut ended = self.0.ending_mut(process, about, MAX_LOOKED_AT);
        let same = ended.find(|r| r.span == request.span && r.trace == request.trace);
        if let Some(same) = same {
            same.thread = tid.into();
        }
    }

    /// Forgets what is older than `horizon`.
    pub fn expire(&mut self, horizon: u64) {
        self.0.expire(horizon);
    }

    /// Requests forgotten before their time since the last call.
    pub fn take_evicted(&mut self) -> u64 {
        self.0.take_evicted()
    }
}

/// The offset of the clocks may have been corrected since the request was noted.
const fn about(end: u64) -> (u64, u64) {
    (
        end.saturating_sub(CORRECTED_NS),
        end.saturating_add(CORRECTED_NS),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn process() -> ProcessKey {
        ProcessKey {
            pid: 7,
            start_ticks: 1,
        }
    }

    fn request(trace: u8, span: u8, start_ms: u64, end_ms: u64) -> Request {
        Request {
            start: start_ms * MS,
            end: end_ms * MS,
            trace: [trace; 16],
            span: [span; 8],
            slack_ns: 0,
            thread: Worker::Unknown,
        }
    }

    #[test]
    fn a_span_lies_in_the_shortest_request_around_it() {
        let mut requests = Requests::default();
        requests.add(process(), request(1, 1, 100, 5_000));
        requests.add(process(), request(1, 2, 200, 400));
        requests.add(process(), request(2, 3, 250, 300));
        let around = |trace, start, end| {
            requests
                .around(process(), [trace; 16], start * MS, end * MS)
                .map(|r| r.span[0])
        };
        assert_eq!(around(1, 260, 290), Some(2));
        assert_eq!(around(1, 260, 410), Some(1));
        assert_eq!(around(2, 260, 290), Some(3));
        assert_eq!(around(2, 260, 290 + 12), None);
        assert_eq!(around(3, 260, 290), None);
    }

    #[test]
    fn a_worker_is_noted_at_the_one_request() {
        let mut requests = Requests::default();
        requests.add(process(), request(1, 1, 100, 300));
        requests.add(process(), request(1, 2, 100, 300));
        requests.set_worker(process(), &request(1, 2, 100, 300), 9);
        let workers: Vec<_> = requests
            .in_flight(process(), 150 * MS, 160 * MS)
            .map(|r| (r.span[0], r.thread))
            .collect();
        assert_eq!(workers, [(1, Worker::Unknown), (2, Worker::from(9))]);
        requests.expire(301 * MS);
        assert_eq!(requests.0.len(), 0);
    }
}
