//! By which delays a span is measured.
//!
//! 0. Where the program publishes which span each of its threads works on and a thread was seen
//!    at this one ([`contexts`](super::contexts)), by what was met then, and the confidence says
//!    `thread`. What threads met when they worked on another trace does not count by rule 3 either.
//! 1. Where the thread that worked on its request is known ([`thread`]), by that thread's, and
//!    the confidence says `thread_inferred`. A span inside a request, of the same trace and
//!    process, is on the request's thread unless that was off the CPU when the span began
//!    or ended: then another thread made the span.
//! 2. Where one thread answers everything that the process answers (an event loop), by that
//!    thread's: what holds it back holds all its requests back, each in full. What it waits for
//!    a socket is a request's as far as it is known what it asked for that ([`asks`](super::asks)).
//! 3. Else by those of all threads that may be the span's, and not of those that work on
//!    another request. A span's times are taken by a thread that runs (in languages whose
//!    spans stay on a thread): if some are known to have run at both, only theirs count, else
//!    not of those that are known to have been off the CPU at one. An instant is then shared
//!    among the requests in flight, or among the threads that ran at both ends where those are
//!    more: see [`Sweep::shared_by`](super::split::Sweep::shared_by).
//!
//! Delays of which no thread is known (a kill, a drop) are everybody's.

mod asked;
mod presence;

use std::sync::Arc;

use self::{asked::Asked, presence::Presence};
use super::{
    behind::Waits,
    contexts::{Whose, Worked},
    correlate::Context,
    judge::Owner,
    place::{Place, place},
    requests::{Request, Requests, Worker},
    thread::{self, Window},
    timeline::{Entry, Timeline, Visit},
};
use crate::{
    process::{Identity, ProcessKey},
    span::{ResourceSpans, SpanBatch, SpanId, SpanView},
    time::{MonoNs, WallClock},
    vocabulary::{Cause, Confidence},
};

const SERVER: i32 = 2; // `SpanKind` of a request's span
/// Other requests of which it is known when a span's time is shared with them; with more, all
/// of it is shared with all.
const MAX_OTHERS: usize = 64;
/// With so many kept about its time, nobody looks at single ones: it is shared with all.
const CROWD: usize = 256;
/// Other requests looked at.
const MAX_LOOKED_AT: usize = 1_024;

/// What a span is measured by.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The join.
    pub confidence: Confidence,
    /// The only thread whose delays count.
    only: Option<u32>,
    /// Threads whose delays do not count, in order.
    not: Vec<u32>,
    /// Threads that worked on another request from a time to another, in order: what they
    /// met then does not count.
    busy: Vec<(u32, u64, u64)>,
    /// Threads that share what is lost.
    pub sharers: usize,
    /// Requests in flight of which its time cannot be told apart, monotonic.
    pub others: Vec<(u64, u64)>,
    /// It is measured by an event loop's thread, which worked on no other request meanwhile.
    is_alone: bool,
    /// When that thread waited for what it asked for this request; not known of one that was alone.
    asked: Asked,
    /// What threads worked on, by their programs' word: only what was the span's counts.
    worked: Option<Worked>,
    /// With them, what held back other threads in its own waits counts too.
    waits: Option<Waits>,
}

/// Finds scopes; keeps what saves allocations.
#[derive(Debug, Default)]
pub struct Scopes {
    presence: Presence,
}

/// Takes the requests of a batch that has just arrived.
pub fn note_requests(
    batch: &SpanBatch,
    clock: &WallClock,
    horizon: MonoNs,
    requests: &mut Requests,
) {
    for (_, resource, span) in server_spans(batch) {
        if let (Some(process), Ok(place)) = (
            process_of(resource),
            place(span, clock, batch.received, horizon),
        ) {
            requests.add(process, request(span, place));
        }
    }
}

/// Looks for the threads that worked on the requests of a batch, which has settled: one for each
/// of its spans, in order.
pub fn find_workers(
    batch: &SpanBatch,
    context: Context<'_>,
    requests: &mut Requests,
) -> Vec<Worker> {
    let mut workers = vec![Worker::Unknown; batch.spans.len()];
    for (at, resource, span) in server_spans(batch) {
        let Some(process) = process_of(resource) else {
            continue;
        };
        if !is_of_one_process(resource.joined.confidence)
            || !thread::stays_on_a_thread(&resource.resource.language)
        {
            continue;
        }
        let Ok(place) = place(span, context.clock, batch.received, context.horizon) else {
            continue;
        };
        let request = request(span, place);
        if let Some(tid) = worker(process, &request, context, requests) {
            requests.set_worker(process, &request, tid);
            workers[at] = tid.into();
        }
    }
    workers
}

fn worker(
    process: ProcessKey,
    request: &Request,
    context: Context<'_>,
    requests: &Requests,
) -> Option<u32> {
    let window = Window {
        process,
        start: request.start,
        end: request.end,
        slack_ns: request.slack_ns.into(),
    };
    let tid = thread::infer(context.turns, context.timeline, window)?;
    // A thread works on one request at a time; one in another's trace and time is the same.
    let taken = requests
        .in_flight(process, request.start, request.end)
        .take(MAX_LOOKED_AT)
        .any(|other| {
            other.thread == tid.into() && other.span != request.span && !nested(other, request)
        });
    (!taken).then_some(tid)
}

impl Scopes {
    /// What this span is measured by; `worker` is that of [`find_workers`].
    pub fn of(
        &mut self,
        resource: &ResourceSpans,
        (span, worker): (&SpanView, Worker),
        place: Place,
        context: Context<'_>,
        requests: &Requests,
    ) -> Scope {
        let mut scope = Scope {
            confidence: resource.joined.confidence,
            only: None,
            not: Vec::new(),
            busy: Vec::new(),
            sharers: 1,
            others: Vec::new(),
            is_alone: false,
            asked: Asked::default(),
            worked: None,
            waits: None,
        };
        let Some(process) = process_of(resource) else {
            return scope;
        };
        let (start, end) = (place.start.0, place.end().0);
        let window = Window {
            process,
            start,
            end,
            slack_ns: thread::slack_ns(span.start_unix_ns),
        };
        let own = if span.kind == SERVER {
            Some(Request {
                thread: worker,
                ..request(span, place)
            })
        } else {
            requests.around(process, span.trace_id, start, end).copied()
        };
        let joined_by_process = is_of_one_process(scope.confidence);
        let worked = if joined_by_process && !context.contexts.is_empty() {
            worked(span, window, context, requests)
        } else {
            None
        };
        if let Some(worked) = worked {
            let threads = worked.own_threads();
            if !threads.is_empty() {
                scope.confidence = Confidence::Thread;
                match thread::only_one(context.turns, window) {
                    // What holds a loop holds all its requests.
                    Some(tid) if threads == [tid] => {
                        scope.is_alone = !has_company(process, window, own, requests);
                        scope.only = Some(tid);
                    }
                    _ => scope.worked = Some(worked),
                }
                return scope;
            }
            scope.busy.extend(worked.others());
        }
        if let Some(own) = own
            && joined_by_process
        {
            let is_itself = own.span == span.span_id;
            if let Worker::Thread(tid) = own.thread
                && (is_itself || !thread::was_away(context.timeline, tid.get(), window))
            {
                scope.confidence = Confidence::ThreadInferred;
                scope.only = Some(tid.get());
                return scope;
            }
            if thread::stays_on_a_thread(&resource.resource.language)
                && let Some(tid) = thread::only_one(context.turns, window)
                && (thread::is_one_loop(&resource.resource.language)
                    || !thread::went_back_to_its_loop(context.timeline, tid, window))
            {
                scope.is_alone = !has_company(process, window, Some(own), requests);
                scope.only = Some(tid);
                if !scope.is_alone {
                    scope.asked = Asked::find(window, tid, own, context, requests);
                }
                return scope;
            }
        }
        let about = requests.about_in_flight(process, start, end);
        if about > CROWD {
            scope.sharers = about + 1;
            return scope;
        }
        let mut unknown = 0;
        let in_flight = requests.in_flight(process, start, end);
        for other in in_flight.take(MAX_LOOKED_AT) {
            let is = |of: SpanId| other.span == of && other.trace == span.trace_id;
            if is(span.span_id) || own.is_some_and(|own| is(own.span)) {
                continue;
            }
            match other.thread {
                Worker::Thread(tid) => scope.busy.push((tid.get(), other.start, other.end)),
                Worker::Unknown => {
                    unknown += 1;
                    if unknown > MAX_OTHERS {
                        break;
                    }
                    scope.others.push((other.start, other.end));
                }
            }
        }
        if unknown > MAX_OTHERS {
            scope.others.clear();
            // Too many to look at each: rather shared with too many than blamed too much.
            scope.sharers = about + 1;
        }
        scope.busy.sort_unstable();
        if joined_by_process && thread::stays_on_a_thread(&resource.resource.language) {
            self.leave_out_who_was_away(&mut scope, window, context.timeline);
        }
        scope
    }

    /// Rule 3: keeps those who may have made the span.
    fn leave_out_who_was_away(&mut self, scope: &mut Scope, window: Window, timeline: &Timeline) {
        let counts = |entry: &Entry| scope.counts(entry);
        if let Some((present, away)) = self.presence.find(window, timeline, counts) {
            scope.sharers = scope.sharers.max(present);
            scope.not = away;
        }
    }
}

impl Scope {
    /// What was done meanwhile is known to be this request's, and no other's.
    pub fn is_certain(&self) -> bool {
        self.is_alone || self.worked.is_some() || self.confidence == Confidence::ThreadInferred
    }

    /// It is known when the loop's thread waited for what it asked for this request.
    pub const fn knows_asks(&self) -> bool {
        self.asked.is_known()
    }

    /// The parts of a time in which the loop waited for what it asked for this request, if that is
    /// known; else all of it.
    pub fn while_asking(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let all = (!self.knows_asks()).then_some((start, end));
        all.into_iter().chain(self.asked.within(start, end))
    }

    /// Its time is told apart from that of other requests: by its thread, or as there was none.
    pub fn is_apart(&self) -> bool {
        self.is_certain() || self.only.is_some() || (self.sharers == 1 && self.others.is_empty())
    }

    /// It is measured by an event loop's thread, which worked on other requests meanwhile.
    pub fn is_loop_in_company(&self) -> bool {
        self.only.is_some() && !self.is_certain()
    }

    /// Whose the time is by which it is measured.
    pub fn owner(&self) -> Owner {
        match (self.is_certain(), self.is_loop_in_company()) {
            (true, _) => Owner::Own,
            (false, true) => Owner::Loop {
                asked: self.knows_asks(),
            },
            (false, false) => Owner::Unknown,
        }
    }

    /// The thread that it is measured by, where it is one.
    pub fn thread(&self) -> Option<u32> {
        let worked = || match self.worked.as_ref()?.own_threads()[..] {
            [one] => Some(one),
            _ => None,
        };
        self.only.or_else(worked)
    }

    /// Its like, but with what held back those that its thread waited for; `None` where that is
    /// not known.
    pub fn with_those_waited_for(
        &self,
        timeline: &Timeline,
        identity: &Identity,
        place: Place,
    ) -> Option<Self> {
        let mut waits = Waits::of(self.only?);
        self.delays(timeline, identity, place, &mut |entry, _| waits.add(entry));
        Some(Self {
            waits: Some(waits.ready()?),
            ..self.clone()
        })
    }

    /// Whether those count that its thread waited for.
    pub const fn is_widened(&self) -> bool {
        self.waits.is_some()
    }

    /// When a delay that counts does: mostly all the time.
    pub fn pieces(&self, entry: &Entry) -> impl Iterator<Item = (u64, u64)> {
        let is_asking = self.knows_asks() && entry.cause == Cause::SocketWait;
        let asked = is_asking.then(|| self.asked.within(entry.start, entry.end));
        let is_whole = self.waits.is_none() && !is_asking;
        let all = is_whole.then_some((entry.start, entry.end));
        let waits = self.waits.iter().filter(move |_| !is_asking);
        let waits = waits.flat_map(|waits| waits.pieces(entry));
        let asked = asked.into_iter().flatten();
        all.into_iter().chain(waits).chain(asked)
    }

    /// Calls `f` with the delays that count, in `place`; returns how many processes have them.
    pub fn delays(
        &self,
        timeline: &Timeline,
        identity: &Identity,
        place: Place,
        f: &mut Visit<'_>,
    ) -> usize {
        let mut counting = |entry: &Entry, particulars: &_| {
            if self.counts(entry) {
                f(entry, particulars);
            }
        };
        match self.confidence {
            Confidence::Host => 0,
            Confidence::Container => {
                timeline.of_cgroup(identity.cgroup_id, place.start, place.end(), &mut counting)
            }
            _ => {
                timeline.of_process(identity.process, place.start, place.end(), &mut counting);
                1
            }
        }
    }

    fn counts(&self, entry: &Entry) -> bool {
        let tid = entry.tid;
        if let Some(waits) = &self.waits {
            return waits.pieces(entry).next().is_some();
        }
        if let Some(worked) = &self.worked {
            return tid == 0 || worked.is_own(entry);
        }
        if let Some(only) = self.only {
            return tid == only || tid == 0;
        }
        let first = self.busy.partition_point(|(busy, ..)| *busy < tid);
        let others = self.busy[first..]
            .iter()
            .take_while(|(busy, ..)| *busy == tid)
            .any(|(_, start, end)| entry.start < *end && entry.end > *start);
        !others && self.not.binary_search(&tid).is_err()
    }
}

/// What the process's threads worked on about the span's time, if they say so.
fn worked(
    span: &SpanView,
    window: Window,
    context: Context<'_>,
    requests: &Requests,
) -> Option<Worked> {
    let (start, end) = (window.start, window.end);
    // Spans inside a request need not be sent: what they meet is the request's, if that can be
    // of one request only.
    let mut in_flight = requests.in_flight(window.process, start, end);
    let is_only_of_trace = span.kind == SERVER
        && in_flight
            .by_ref()
            .take(MAX_LOOKED_AT)
            .all(|other| other.trace != span.trace_id || other.span == span.span_id)
        && in_flight.next().is_none();
    context.contexts.worked(window.process, (start, end), |of| {
        if of.is_none() {
            Whose::Open
        } else if of.trace != span.trace_id[8..] {
            // What others say of a program's trace may be one of their own making.
            match of.is_trace_only {
                true => Whose::Open,
                false => Whose::Others,
            }
        } else if of.span == span.span_id || is_only_of_trace {
            Whose::Own
        } else {
            Whose::Open
        }
    })
}

/// Whether the process works on another request beside this one.
fn has_company(
    process: ProcessKey,
    window: Window,
    own: Option<Request>,
    requests: &Requests,
) -> bool {
    let is_own =
        |other: &Request| own.is_some_and(|own| (other.trace, other.span) == (own.trace, own.span));
    let mut in_flight = requests.in_flight(process, window.start, window.end);
    !in_flight.all(is_own)
}

/// With the span's place in the batch.
fn server_spans(batch: &SpanBatch) -> impl Iterator<Item = (usize, &ResourceSpans, &SpanView)> {
    batch.resources.iter().flat_map(|resource| {
        let spans = batch.spans.get(resource.spans.clone()).unwrap_or_default();
        let servers = (resource.spans.start..).zip(spans);
        let servers = servers.filter(|(_, span)| span.kind == SERVER);
        servers.map(move |(at, span)| (at, resource, span))
    })
}

/// Whether just that process is meant.
const fn is_of_one_process(confidence: Confidence) -> bool {
    matches!(confidence, Confidence::Process | Confidence::Socket)
}

/// Under which process the requests of a resource are kept.
fn process_of(resource: &ResourceSpans) -> Option<ProcessKey> {
    let identity: &Arc<Identity> = resource.joined.identity.as_ref()?;
    Some(identity.process)
}

fn request(span: &SpanView, place: Place) -> Request {
    Request {
        start: place.start.0,
        end: place.end().0,
        trace: span.trace_id,
        span: span.span_id,
        slack_ns: thread::slack_ns(span.start_unix_ns) as u32,
        thread: Worker::Unknown,
    }
}

/// One is part of the other: frameworks make a span in a span.
fn nested(a: &Request, b: &Request) -> bool {
    let within = |a: &Request, b: &Request| a.start >= b.start && a.end <= b.end;
    a.trace == b.trace && (within(a, b) || within(b, a))
}
