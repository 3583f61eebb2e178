//! The delays of one cause as a verdict's evidence: cut to what was waited for, as in the split.

use super::{culprit::Wait, held::Held, place::Place, scope::Scope, timeline::Timeline};
use crate::{event::Particulars, process::Identity, vocabulary::Cause};

/// The delays of `cause` as far as they count and lie in the span; `met` is told the thread of
/// each of them, whole or not.
pub fn waits(
    cause: Cause,
    place: Place,
    scope: &Scope,
    identity: &Identity,
    timeline: &Timeline,
    met: &mut dyn FnMut(u32),
) -> Vec<Wait> {
    let (mut waits, mut held) = (Vec::new(), Held::default());
    let wait = |start: u64, end: u64, particulars| Wait {
        start: start.max(place.start.0),
        end: end.min(place.end().0),
        particulars,
    };
    scope.delays(timeline, identity, place, &mut |entry, particulars| {
        if entry.cause != cause {
            return;
        }
        met(entry.tid);
        let takes_time = entry.end > entry.start;
        if takes_time && held.takes(scope, entry, || particulars.clone()) {
            return;
        }
        let pieces = scope.pieces(entry);
        waits.extend(pieces.map(|(start, end)| wait(start, end, particulars.clone())));
    });
    let parts = held.parts(scope, timeline, identity, place).into_iter();
    waits.extend(parts.map(|(particulars, start, end)| wait(start, end, particulars)));
    waits
}

/// What is known of those that took most of the time.
pub fn heaviest(waits: &[Wait]) -> Particulars {
    let mut sums: Vec<(&Particulars, u64)> = Vec::new();
    for wait in waits {
        // At least 1, so that what takes no time is counted.
        let weight = wait.end.saturating_sub(wait.start).saturating_add(1);
        match sums
            .iter_mut()
            .find(|(known, _)| *known == &wait.particulars)
        {
            Some((_, sum)) => *sum = sum.saturating_add(weight),
            None => sums.push((&wait.particulars, weight)),
        }
    }
    // Of equals the first, so that the same input gives the same answer.
    let most = sums.into_iter().rev().max_by_key(|(_, sum)| *sum);
    most.map_or(Particulars::None, |(particulars, _)| particulars.clone())
}
