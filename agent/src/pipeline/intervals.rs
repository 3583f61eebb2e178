//! The stretches that become child spans: at most [`MAX_INTERVALS`] of a span.
//!
//! When there are more, neighbours of one cause are merged over the smallest gaps, the
//! other causes' first, so that the verdict's cause keeps the most detail. A merged stretch
//! keeps the exact time of its cause, so per cause the `cause_ns` always add up to the
//! part of the split that is shown. Of the causes other than the verdict's, single stretches
//! of less than 1 % of the self time are left out: they would only be clutter in a trace view
//! and take room from the others (the split has them).

use super::split::Piece;
use crate::vocabulary::Cause;

/// Most child spans of a span.
pub const MAX_INTERVALS: usize = 16;
/// Below this part of the self time (one in this many) a stretch of another cause is left
/// out.
const CLUTTER: u64 = 100;

/// Chooses and merges; the result is in order of time.
#[must_use]
pub fn select(pieces: &[Piece], verdict: Cause, self_time_ns: u64) -> Vec<Piece> {
    let mut groups: Vec<(u64, Vec<Piece>)> = Vec::new();
    let shown =
        |piece: &&Piece| piece.cause == verdict || piece.cause_ns >= self_time_ns.div_ceil(CLUTTER);
    for piece in pieces.iter().filter(shown) {
        match groups
            .iter_mut()
            .find(|(_, group)| group[0].cause == piece.cause)
        {
            Some((total, group)) => {
                *total += piece.cause_ns;
                group.push(*piece);
            }
            None => groups.push((piece.cause_ns, vec![*piece])),
        }
    }
    // The verdict's first, then the largest; the sort is stable, so equal ones stay in order.
    groups.sort_by_key(|(total, group)| (group[0].cause != verdict, std::cmp::Reverse(*total)));
    groups.truncate(MAX_INTERVALS);
    let mut room = MAX_INTERVALS;
    let mut chosen = Vec::with_capacity(MAX_INTERVALS);
    let count = groups.len();
    for (at, (_, group)) in groups.into_iter().enumerate() {
        let reserved = count - at - 1;
        let merged = merge_to(group, room - reserved);
        room -= merged.len();
        chosen.extend(merged);
    }
    chosen.sort_by_key(|piece| (piece.start, piece.end));
    chosen
}

/// Merges neighbours until at most `most` are left, keeping apart those with the largest
/// gaps between them.
fn merge_to(group: Vec<Piece>, most: usize) -> Vec<Piece> {
    if group.len() <= most {
        return group;
    }
    let mut gaps: Vec<(u64, usize)> = group
        .windows(2)
        .enumerate()
        .map(|(at, pair)| (pair[1].start - pair[0].end, at + 1))
        .collect();
    gaps.sort_unstable_by_key(|(gap, at)| (std::cmp::Reverse(*gap), *at));
    let mut cuts: Vec<usize> = gaps.iter().take(most - 1).map(|(_, at)| *at).collect();
    cuts.sort_unstable();
    cuts.push(group.len());
    let mut from = 0;
    let mut merged = Vec::with_capacity(most);
    for cut in cuts {
        let run = &group[from..cut];
        merged.push(Piece {
            end: run[run.len() - 1].end,
            cause_ns: run.iter().map(|piece| piece.cause_ns).sum(),
            ..run[0]
        });
        from = cut;
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn piece(cause: Cause, start_ms: u64, end_ms: u64) -> Piece {
        Piece {
            cause,
            start: start_ms * MS,
            end: end_ms * MS,
            cause_ns: (end_ms - start_ms) * MS,
        }
    }

    #[test]
    fn few_are_kept_as_they_are() {
        let pieces = [
            piece(Cause::CpuThrottle, 20, 100),
            piece(Cause::Runqueue, 100, 110),
        ];
        assert_eq!(select(&pieces, Cause::CpuThrottle, 120 * MS), pieces);
    }

    #[test]
    fn clutter_is_left_out_but_never_the_verdicts_cause() {
        let pieces = [
            piece(Cause::CpuThrottle, 20, 21),
            piece(Cause::Runqueue, 100, 101),
        ];
        assert_eq!(select(&pieces, Cause::CpuThrottle, 1_000 * MS), pieces[..1]);
    }

    #[test]
    fn many_tiny_stretches_do_not_crowd_out_the_story() {
        let mut pieces = vec![piece(Cause::CpuThrottle, 100, 180)];
        // 40 waits of 1 ms: 8 % of the self time together, each of them noise.
        pieces.extend((0..40).map(|n| piece(Cause::Runqueue, 200 + 5 * n, 201 + 5 * n)));
        pieces.push(piece(Cause::Runqueue, 450, 480));
        let chosen = select(&pieces, Cause::CpuThrottle, 500 * MS);
        assert_eq!(chosen, [pieces[0], pieces[41]]);
    }

    #[test]
    fn the_smallest_gaps_are_merged_and_no_time_is_lost() {
        let mut pieces = Vec::new();
        for n in 0..20 {
            // Gap of 2 ms after each, except 50 ms after every fourth.
            let start = n * 10 + (n / 4) * 48;
            pieces.push(piece(Cause::CpuThrottle, start, start + 8));
        }
        for n in 0..10 {
            pieces.push(piece(Cause::Runqueue, 1_000 + n * 10, 1_005 + n * 10));
        }
        let chosen = select(&pieces, Cause::CpuThrottle, 500 * MS);
        assert_eq!(chosen.len(), MAX_INTERVALS);
        let of = |cause| chosen.iter().filter(move |p| p.cause == cause);
        assert_eq!(of(Cause::CpuThrottle).count(), 15);
        assert_eq!(of(Cause::Runqueue).count(), 1);
        assert_eq!(
            of(Cause::CpuThrottle).map(|p| p.cause_ns).sum::<u64>(),
            160 * MS
        );
        assert_eq!(
            of(Cause::Runqueue).map(|p| p.cause_ns).sum::<u64>(),
            50 * MS
        );
        assert!(chosen.windows(2).all(|w| w[0].start <= w[1].start));
        for n in 1..5 {
            let start = n * 40 + n * 48;
            assert!(
                chosen.iter().any(|p| p.start == start * MS),
                "the large gaps stay"
            );
        }
    }
}
