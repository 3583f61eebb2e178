//! What an event loop's idle time was for, as far as one of its requests is concerned.

use super::{MAX_LOOKED_AT, nested};
use crate::pipeline::{
    correlate::Context,
    requests::{Request, Requests},
    thread::Window,
};

/// Other requests that begin so shortly before or after one may be taken for it.
const AROUND_NS: u64 = 20_000_000;

/// When the loop waited for what it asked for a request, in order and without overlaps; empty where
/// that is not known.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked(Vec<(u64, u64)>);

impl Asked {
    /// In a window, of the request `own` that the thread `tid` works on.
    pub(super) fn find(
        window: Window,
        tid: u32,
        own: Request,
        context: Context<'_>,
        requests: &Requests,
    ) -> Self {
        let about = (
            own.start.saturating_sub(AROUND_NS),
            own.start.saturating_add(AROUND_NS),
        );
        let is_own = |other: &Request| (other.trace, other.span) == (own.trace, own.span);
        let beside: Vec<&Request> = requests
            .in_flight(window.process, about.0, about.1)
            .take(MAX_LOOKED_AT)
            // One of its trace inside it is part of it.
            .filter(|other| !is_own(other) && !nested(other, &own))
            .collect();
        let times = (window.start, window.end);
        let whose = (window.process, tid);
        Self(context.asks.of(whose, &own, times, beside.iter().copied()))
    }

    pub(super) const fn is_known(&self) -> bool {
        !self.0.is_empty()
    }

    /// The parts of a time in which it waited.
    pub(super) fn within(&self, start: u64, end: u64) -> impl Iterator<Item = (u64, u64)> {
        let first = self.0.partition_point(|(_, until)| *until <= start);
        let asked = self.0[first..].iter();
        let asked = asked.take_while(move |(from, _)| *from < end);
        asked.map(move |(from, until)| (start.max(*from), end.min(*until)))
    }
}
