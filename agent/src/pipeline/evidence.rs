//! What the single intervals of a verdict's cause say beyond the split.

use super::{
    children::ChildTime,
    correlate::Asked,
    culprit::{self, Wait},
    scope::Scope,
    waits::{heaviest, waits},
    words::{Evidence, Stalls, is_major_fault, is_swap_in},
};
use crate::{event::Particulars, vocabulary::Cause};

const CLIENT: i32 = 3; // `SpanKind` of a call
/// Children whose start is looked at.
const MAX_CHILDREN: usize = 1 << 10;

/// What is known of the delays of a span's `cause`.
pub(super) fn find(cause: Cause, asked: Asked<'_>, scope: &Scope) -> Evidence {
    let Asked {
        place,
        identity,
        context,
        ..
    } = asked;
    // Steal is measured on the waits that it stretched.
    let source = if cause == Cause::Steal {
        Cause::Runqueue
    } else {
        cause
    };
    let mut evidence = Evidence::default();
    let mut threads = Vec::new();
    let of = |source, met: &mut dyn FnMut(u32)| {
        waits(source, place, scope, identity, context.timeline, met)
    };
    let waits = of(source, &mut |tid| {
        evidence.intervals += 1;
        threads.push(tid);
    });
    evidence.longest_ns = waits.iter().map(length).max().unwrap_or(0);
    threads.sort_unstable();
    threads.dedup();
    evidence.threads = threads.len();
    evidence.lost_events = context.losses.within(place.start, place.end());
    evidence.saving = context.losses.saving(place.start, place.end());
    evidence.is_behind = scope.is_widened();
    evidence.is_of_loop = scope.is_loop_in_company();
    evidence.is_until_begun = cause == Cause::SocketWait && is_until_begun(asked, &waits);
    evidence.particulars = heaviest(&waits);
    if matches!(
        cause,
        Cause::MemoryReclaim | Cause::BlockThrottle | Cause::BlockQueue | Cause::BlockDevice
    ) {
        for source in [Cause::MemoryReclaim, Cause::BlockQueue] {
            let waits = of(source, &mut |_| {});
            evidence.swap_ins.add(&waits, is_swap_in);
            evidence.major_faults.add(&waits, is_major_fault);
        }
        let all: u64 = waits.iter().map(length).sum();
        evidence.is_for_faults = evidence.major_faults.ns >= all.div_ceil(2);
    }
    evidence.culprit = culprit::find(
        cause,
        &evidence.particulars,
        &waits,
        identity,
        context.consumers,
    );
    evidence
}

const fn length(wait: &Wait) -> u64 {
    wait.end.saturating_sub(wait.start)
}

impl Stalls {
    fn add(&mut self, waits: &[Wait], is_one: fn(&Particulars) -> bool) {
        for wait in waits.iter().filter(|wait| is_one(&wait.particulars)) {
            self.count += 1;
            self.ns = self.ns.saturating_add(length(wait));
        }
    }
}

/// Whether a client span waited longer before its first child began than after the last had ended: the
/// callee had not begun with the request, whether it was busy or the request still on its way. (Of spans
/// that the client's own library makes below it, as for looking a name up, the first counts too.)
fn is_until_begun(asked: Asked<'_>, waits: &[Wait]) -> bool {
    let Asked { span, place, .. } = asked;
    let whole = (span.start_unix_ns, span.end_unix_ns);
    let mut own = asked.context.children.of(asked.parent).take(MAX_CHILDREN);
    let is_moved = |child: ChildTime| {
        child.by_clock_of_call(whole) != (child.start_unix_ns, child.end_unix_ns)
    };
    // When it really began is not known.
    if own.any(is_moved) {
        return false;
    }
    let children = || asked.children().take(MAX_CHILDREN);
    let began = children().map(|(start, _)| start).min();
    let ended = children().map(|(_, end)| end).max();
    let (Some((began, ended)), CLIENT) = (began.zip(ended), span.kind) else {
        return false;
    };
    let since = |wall: u64| wall.saturating_sub(span.start_unix_ns);
    let at = |wall: u64| place.start.0.saturating_add(since(wall));
    let within = |wait: &Wait, from: u64, until: u64| {
        let end = wait.end.min(until);
        end.saturating_sub(wait.start.max(from))
    };
    let sum = |from, until| -> u64 { waits.iter().map(|wait| within(wait, from, until)).sum() };
    let before = sum(place.start.0, at(began));
    before > 0 && before > sum(at(ended), u64::MAX)
}
