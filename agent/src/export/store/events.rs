//! The latest kernel events, and longer those behind a verdict.

use super::{Filter, Store, StoredSpan, push_bounded};
use crate::{
    event::{Delay, Event},
    process::ProcessKey,
    time::UnixNs,
    vocabulary::Cause,
};

/// A kernel event and the wall time of its start.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StoredEvent {
    pub(crate) event: Event,
    pub(crate) start: UnixNs,
}

/// Somebody's time, in which events are looked for.
#[derive(Clone, Copy, Debug)]
struct Window {
    from: u64,
    to: u64,
    /// The process and its cgroup, where they are known.
    process: Option<(ProcessKey, u64)>,
}

impl Store {
    /// Takes a kernel event that was attributed; `start` is the wall time of its beginning.
    pub fn record_event(&self, event: &Event, start: UnixNs) {
        match event {
            // Nobody's delay.
            Event::Consumption(_)
            | Event::Loss(_)
            | Event::Saving(_)
            | Event::Turn(_)
            | Event::Ask(_)
            | Event::Away(_) => return,
            Event::Steal(steal) => {
                self.metrics.add_steal(steal.stolen_ns);
                if steal.stolen_ns == 0 {
                    return;
                }
            }
            Event::Delay(_) => {}
        }
        let stored = StoredEvent {
            event: event.clone(),
            start,
        };
        push_bounded(&mut self.events.lock(), stored, self.config.events);
    }

    /// Kernel events that a filter wants, newest first: the latest ones, and those kept with
    /// the trace that it names. `workload` and `limit` are left to the caller, who knows names.
    pub(crate) fn events(&self, filter: &Filter) -> Vec<StoredEvent> {
        let (windows, mut found) = match filter.trace_id {
            None => (None, Vec::new()),
            Some(trace_id) => {
                let kept = self.trace(trace_id);
                let windows: Vec<_> = kept.spans.iter().map(|s| Window::of(s)).collect();
                (Some(windows), kept.events)
            }
        };
        let wanted = |stored: &StoredEvent| {
            filter.cause.is_none_or(|cause| stored.cause() == cause)
                && filter.from.is_none_or(|from| stored.end() >= from.0)
                && filter.to.is_none_or(|to| stored.start <= to)
                && windows
                    .as_ref()
                    .is_none_or(|windows| windows.iter().any(|w| w.holds(stored)))
        };
        // Two hops of one process kept some twice.
        found.sort_by_key(|stored| std::cmp::Reverse(stored.start));
        found.dedup();
        found.retain(&wanted);
        let latest = self.events.lock().clone();
        let kept_with_trace = found.len();
        for stored in latest.into_iter().rev().filter(wanted) {
            if !found[..kept_with_trace].contains(&stored) {
                found.push(stored);
            }
        }
        if kept_with_trace > 0 {
            found.sort_by_key(|stored| std::cmp::Reverse(stored.start));
        }
        found
    }

    /// The first and the last moment that a filter can mean.
    pub(crate) fn time_of(&self, filter: &Filter) -> (UnixNs, UnixNs) {
        let from = filter.from.unwrap_or(UnixNs(0));
        let to = filter.to.unwrap_or(UnixNs(u64::MAX));
        let Some(trace_id) = filter.trace_id else {
            return (from, to);
        };
        let spans = self.trace(trace_id).spans;
        let first = spans.iter().map(|span| span.start_unix_ns).min();
        let last = spans.iter().map(|span| span.end_unix_ns).max();
        // Of a trace that is not here nothing is meant.
        match first.zip(last) {
            Some((first, last)) => (from.max(UnixNs(first)), to.min(UnixNs(last))),
            None => (UnixNs(1), UnixNs(0)),
        }
    }

    /// The latest events in a span's time of its process, at most so many as a trace keeps.
    pub(super) fn events_of(&self, span: &StoredSpan) -> Vec<StoredEvent> {
        let window = Window::of(span);
        let events = self.events.lock();
        let of_span = events.iter().rev().filter(|stored| window.holds(stored));
        of_span
            .take(self.config.traces.events_of_one)
            .cloned()
            .collect()
    }
}

impl Window {
    fn of(span: &StoredSpan) -> Self {
        let identity = span.joined.identity.as_deref();
        Self {
            from: span.start_unix_ns,
            to: span.end_unix_ns,
            process: identity.map(|identity| (identity.process, identity.cgroup_id)),
        }
    }

    /// Steal is nobody's and concerns everybody.
    fn holds(&self, stored: &StoredEvent) -> bool {
        let is_his = match (&stored.event, self.process) {
            (Event::Steal(_), _) => true,
            // None of them is kept.
            (
                Event::Consumption(_)
                | Event::Loss(_)
                | Event::Saving(_)
                | Event::Turn(_)
                | Event::Ask(_)
                | Event::Away(_),
                _,
            ) => false,
            (Event::Delay(_), None) => false,
            (Event::Delay(delay), Some((process, cgroup))) => {
                delay.process == process || (cgroup != 0 && delay.cgroup_id == cgroup)
            }
        };
        is_his && stored.end() >= self.from && stored.start.0 <= self.to
    }
}

impl StoredEvent {
    pub(crate) fn cause(&self) -> Cause {
        match &self.event {
            Event::Delay(Delay { cause, .. }) => *cause,
            Event::Steal(_)
            | Event::Consumption(_)
            | Event::Loss(_)
            | Event::Saving(_)
            | Event::Turn(_)
            | Event::Ask(_)
            | Event::Away(_) => Cause::Steal,
        }
    }

    /// Wall time of its end.
    fn end(&self) -> u64 {
        let length = match &self.event {
            Event::Delay(delay) => delay.end.since(delay.start),
            Event::Steal(steal) => steal.end.since(steal.start),
            Event::Consumption(_)
            | Event::Loss(_)
            | Event::Saving(_)
            | Event::Turn(_)
            | Event::Ask(_)
            | Event::Away(_) => 0,
        };
        self.start.0.saturating_add(length)
    }
}
