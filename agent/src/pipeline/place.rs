//! Where a span lies on the monotonic clock, or why it cannot be judged.

use crate::{
    span::SpanView,
    time::{MonoNs, UnixNs, WallClock},
};

/// Why a span is not judged. It is forwarded all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unjudged {
    /// No process or container is known behind it.
    NotJoined,
    /// Trace id or span id is absent or all zero.
    NoIds,
    /// Start or end is absent.
    NoTime,
    /// It ends before it starts.
    EndBeforeStart,
    /// It names itself as its parent.
    OwnParent,
    /// It ends after it was received.
    Future,
    /// It began before what the timeline still has.
    TooOld,
    /// The wall clock was stepped between its start and its end: which of the two clocks
    /// its duration was taken from cannot be known.
    ClockStep,
    /// It has more children or overlaps more delays than one span or one batch may cost.
    WorkLimit,
}

impl Unjudged {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::NotJoined,
        Self::NoIds,
        Self::NoTime,
        Self::EndBeforeStart,
        Self::OwnParent,
        Self::Future,
        Self::TooOld,
        Self::ClockStep,
        Self::WorkLimit,
    ];

    /// The word of the counter.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotJoined => "not_joined",
            Self::NoIds => "no_ids",
            Self::NoTime => "no_time",
            Self::EndBeforeStart => "end_before_start",
            Self::OwnParent => "own_parent",
            Self::Future => "future",
            Self::TooOld => "too_old",
            Self::ClockStep => "clock_step",
            Self::WorkLimit => "work_limit",
        }
    }
}

/// A span on the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its start.
    pub start: MonoNs,
    /// Its duration in nanoseconds.
    pub duration_ns: u64,
}

impl Place {
    /// Its end.
    #[must_use]
    pub const fn end(&self) -> MonoNs {
        MonoNs(self.start.0.saturating_add(self.duration_ns))
    }
}

/// A span may end this much after it was received: the offset of the clocks is a sample.
const FUTURE_SLACK_NS: u64 = 1_000_000_000;
/// Start and end may disagree by this much about the offset of the clocks: below it is
/// slewing, and samples taken by a thread that was held up between its two readings.
const STEP_TOLERANCE_NS: u64 = 10_000_000;

/// Whether ids and times are such that the span can be anybody's parent or child.
///
/// # Errors
/// The reason why not.
pub fn check(span: &SpanView) -> Result<(), Unjudged> {
    if span.trace_id == [0; 16] || span.span_id == [0; 8] {
        return Err(Unjudged::NoIds);
    }
    if span.start_unix_ns == 0 || span.end_unix_ns == 0 {
        return Err(Unjudged::NoTime);
    }
    if span.end_unix_ns < span.start_unix_ns {
        return Err(Unjudged::EndBeforeStart);
    }
    if span.parent_span_id == span.span_id {
        return Err(Unjudged::OwnParent);
    }
    Ok(())
}

/// Places a span.
///
/// # Errors
/// The reason why it cannot be.
pub fn place(
    span: &SpanView,
    clock: &WallClock,
    received: MonoNs,
    horizon: MonoNs,
) -> Result<Place, Unjudged> {
    check(span)?;
    let latest = MonoNs(received.0.saturating_add(FUTURE_SLACK_NS));
    let duration_ns = span.end_unix_ns - span.start_unix_ns;
    let start = clock
        .mono_by(UnixNs(span.start_unix_ns), latest)
        .ok_or_else(|| {
            if span.start_unix_ns > clock.wall(latest).0 {
                Unjudged::Future
            } else if span.start_unix_ns < clock.wall(horizon).0 {
                Unjudged::TooOld
            } else {
                Unjudged::ClockStep // the wall clock never showed it
            }
        })?;
    if start < horizon {
        return Err(Unjudged::TooOld);
    }
    let place = Place { start, duration_ns };
    let shown_end = place.end().0;
    let end = clock.mono_by(UnixNs(span.end_unix_ns), latest).ok_or({
        if shown_end > latest.0 {
            Unjudged::Future
        } else {
            Unjudged::ClockStep
        }
    })?;
    if shown_end.abs_diff(end.0) > STEP_TOLERANCE_NS {
        return Err(Unjudged::ClockStep);
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const WALL: u64 = 1_800_000_000 * S;

    fn span(start_unix_ns: u64, end_unix_ns: u64) -> SpanView {
        SpanView {
            trace_id: [1; 16],
            span_id: [2; 8],
            start_unix_ns,
            end_unix_ns,
            ..SpanView::default()
        }
    }

    #[test]
    fn bad_spans_are_refused_each_for_its_reason() {
        let clock = WallClock::new(MonoNs(1_000 * S), UnixNs(WALL));
        let (received, horizon) = (MonoNs(1_010 * S), MonoNs(900 * S));
        let good = span(WALL, WALL + S);
        let table = [
            (
                good.clone(),
                Ok(Place {
                    start: MonoNs(1_000 * S),
                    duration_ns: S,
                }),
            ),
            (
                span(WALL, WALL),
                Ok(Place {
                    start: MonoNs(1_000 * S),
                    duration_ns: 0,
                }),
            ),
            (
                SpanView {
                    trace_id: [0; 16],
                    ..good.clone()
                },
                Err(Unjudged::NoIds),
            ),
            (
                SpanView {
                    span_id: [0; 8],
                    ..good.clone()
                },
                Err(Unjudged::NoIds),
            ),
            (
                SpanView {
                    parent_span_id: [2; 8],
                    ..good
                },
                Err(Unjudged::OwnParent),
            ),
            (span(0, WALL), Err(Unjudged::NoTime)),
            (span(WALL, 0), Err(Unjudged::NoTime)),
            (span(WALL + 1, WALL), Err(Unjudged::EndBeforeStart)),
            (span(WALL, WALL + 20 * S), Err(Unjudged::Future)),
            (span(u64::MAX - 1, u64::MAX), Err(Unjudged::Future)),
            (span(WALL, u64::MAX), Err(Unjudged::Future)),
            (span(WALL - 101 * S, WALL), Err(Unjudged::TooOld)),
            (span(WALL - 2_000 * S, WALL), Err(Unjudged::TooOld)),
            (span(1, 2), Err(Unjudged::TooOld)),
        ];
        for (span, expected) in table {
            assert_eq!(
                place(&span, &clock, received, horizon),
                expected,
                "{span:?}"
            );
        }
    }

    #[test]
    fn a_step_of_the_clock_costs_only_the_spans_across_it() {
        let mut clock = WallClock::new(MonoNs(1_000 * S), UnixNs(WALL));
        // At monotonic 1 010 the wall clock goes an hour forward, at 1 020 back again.
        clock.sample(MonoNs(1_010 * S), UnixNs(WALL + 3_610 * S));
        clock.sample(MonoNs(1_020 * S), UnixNs(WALL + 20 * S));
        let at = |start, end| {
            place(
                &span(start, end),
                &clock,
                MonoNs(1_030 * S),
                MonoNs(900 * S),
            )
        };
        let second_at = |start| {
            Ok(Place {
                start: MonoNs(start),
                duration_ns: S,
            })
        };
        assert_eq!(at(WALL + 5 * S, WALL + 6 * S), second_at(1_005 * S));
        assert_eq!(at(WALL + 3_615 * S, WALL + 3_616 * S), second_at(1_015 * S));
        assert_eq!(at(WALL + 25 * S, WALL + 26 * S), second_at(1_025 * S));
        assert_eq!(at(WALL + 9 * S, WALL + 3_611 * S), Err(Unjudged::ClockStep));
        assert_eq!(at(WALL + 9 * S, WALL + 11 * S), Err(Unjudged::ClockStep));
        assert_eq!(
            at(WALL + 3_619 * S, WALL + 21 * S),
            Err(Unjudged::EndBeforeStart)
        );
    }
}
