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

/// Memory that was freed for the span says of waits for memory of which only the system call is
/// known what they were for (what was pushed out is read again), if it took at least one part in
/// this many.
const SAYS: u64 = 10;

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
    let most_of = |is: fn(&Particulars) -> bool| {
        let sums = sums.iter().rev().filter(|(of, _)| is(of));
        sums.max_by_key(|(_, sum)| *sum)
    };
    let is_call = |of: &Particulars| matches!(of, Particulars::SystemCall(_));
    let Some((most, _)) = most_of(|_| true) else {
        return Particulars::None;
    };
    // Nothing was freed for what is read back.
    let memory = most_of(|of| {
        matches!(
            of,
            Particulars::Memory {
                is_swap_in: false,
                ..
            }
        )
    });
    let calls = sums.iter().filter(|(of, _)| is_call(of));
    let calls: u64 = calls.map(|(_, sum)| sum).sum();
    match (most, memory) {
        (Particulars::SystemCall(_), Some((memory, of))) if of.saturating_mul(SAYS) >= calls => {
            (*memory).clone()
        }
        _ => (*most).clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::SystemCall;

    #[test]
    fn what_was_freed_says_what_waits_for_memory_were_for() {
        let call = Particulars::SystemCall(Arc::new(SystemCall {
            name: "pread64".to_owned(),
            action: String::new(),
        }));
        let memory = Particulars::Memory {
            memcg: true,
            limit: None,
            is_swap_in: false,
        };
        let of = |ms: u64, particulars: &Particulars| Wait {
            start: 0,
            end: ms * 1_000_000,
            particulars: particulars.clone(),
        };
        let both = |freed| heaviest(&[of(100, &call), of(freed, &memory)]);
        assert_eq!(both(20), memory);
        assert_eq!(both(5), call, "too little of it");
        assert_eq!(heaviest(&[of(1, &call)]), call);
        assert_eq!(heaviest(&[]), Particulars::None);
    }
}
