use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::event::Limiter;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;
/// The present in these tests.
const NOW: MonoNs = MonoNs(1_000 * S);

fn process(pid: u32) -> ProcessKey {
    ProcessKey {
        pid,
        start_ticks: 7,
    }
}

fn delay(pid: u32, start: u64, end: u64) -> Delay {
    Delay {
        cause: Cause::Runqueue,
        start: MonoNs(start),
        end: MonoNs(end),
        process: process(pid),
        tid: pid,
        cpu: 1,
        cgroup_id: u64::from(pid % 2),
        particulars: Particulars::None,
    }
}

fn found(timeline: &Timeline, pid: u32, start: u64, end: u64) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    timeline.of_process(process(pid), MonoNs(start), MonoNs(end), &mut |e, _| {
        found.push((e.start, e.end));
    });
    found.sort_unstable();
    found
}

#[test]
fn what_cannot_be_kept_is_refused_for_its_reason() {
    let mut timeline = Timeline::new(TimelineConfig::default());
    let with = |cause| Delay {
        cause,
        ..delay(1, NOW.0 - S, NOW.0)
    };
    let table = [
        (delay(1, NOW.0 - S, NOW.0), Ok(())),
        (delay(1, NOW.0 - S, NOW.0 - S), Err(Dropped::Empty)),
        (delay(1, NOW.0, NOW.0 - S), Err(Dropped::Empty)),
        (delay(1, NOW.0, NOW.0 + 2 * S), Err(Dropped::Future)),
        (delay(1, 0, u64::MAX), Err(Dropped::Future)),
        (
            delay(1, NOW.0 - 200 * S, NOW.0 - 121 * S),
            Err(Dropped::TooOld),
        ),
        (delay(1, NOW.0 - 200 * S, NOW.0 - 119 * S), Ok(())),
        (with(Cause::Downstream), Err(Dropped::NotADelay)),
        (with(Cause::Unexplained), Err(Dropped::NotADelay)),
    ];
    for (delay, expected) in table {
        assert_eq!(timeline.add(&delay, NOW), expected, "{delay:?}");
    }
    assert_eq!(timeline.len(), 2);
}

#[test]
fn a_pid_used_again_is_another_process_and_a_cgroup_is_all_of_its() {
    let mut timeline = Timeline::new(TimelineConfig::default());
    let delay = |pid, start: u64, end: u64| delay(pid, start * US, end * US);
    let mut reused = delay(1, 30, 40);
    reused.process.start_ticks = 8;
    for delay in [delay(1, 10, 20), reused, delay(3, 15, 25), delay(2, 10, 20)] {
        timeline.add(&delay, MonoNs(50 * US)).unwrap();
    }
    assert_eq!(found(&timeline, 1, 0, 100 * US), [(10 * US, 20 * US)]);
    let mut of_cgroup = Vec::new();
    let members = timeline.of_cgroup(1, MonoNs(0), MonoNs(100 * US), &mut |e, _| {
        of_cgroup.push(e.start / US)
    });
    of_cgroup.sort_unstable();
    assert_eq!((members, of_cgroup), (3, vec![10, 15, 30]));
    let moved = Delay {
        cgroup_id: 9,
        ..delay(1, 41, 42)
    };
    timeline.add(&moved, MonoNs(50 * US)).unwrap();
    let end = MonoNs(100 * US);
    let members = |cgroup| timeline.of_cgroup(cgroup, MonoNs(0), end, &mut |_, _| {});
    assert_eq!((members(1), members(9)), (2, 1));
}

#[test]
fn the_dead_are_forgotten_after_the_window() {
    let mut timeline = Timeline::new(TimelineConfig::default());
    timeline.add(&delay(1, NOW.0 - S, NOW.0), NOW).unwrap();
    timeline
        .add(
            &delay(2, NOW.0 + 60 * S, NOW.0 + 61 * S),
            MonoNs(NOW.0 + 61 * S),
        )
        .unwrap();
    timeline.expire(MonoNs(NOW.0 + 119 * S));
    assert_eq!(timeline.len(), 2);
    timeline.expire(MonoNs(NOW.0 + 121 * S));
    assert_eq!(timeline.len(), 1);
    assert_eq!(timeline.tracks.len(), 1);
    timeline.expire(MonoNs(NOW.0 + 200 * S));
    assert!(timeline.is_empty() && timeline.tracks.is_empty() && timeline.by_cgroup.is_empty());
    assert_eq!(timeline.take_evicted(), 0, "expired, not evicted");
}

#[test]
fn a_noisy_process_costs_a_quiet_one_nothing() {
    let config = TimelineConfig {
        max_intervals: 1_000,
        ..TimelineConfig::default()
    };
    let mut timeline = Timeline::new(config);
    timeline
        .add(&delay(2, 0, 10 * US), MonoNs(10 * US))
        .unwrap();
    for n in 1..10_000 {
        let (start, end) = (n * 10 * US, (n * 10 + 5) * US);
        timeline.add(&delay(1, start, end), MonoNs(end)).unwrap();
        assert!(timeline.len() <= 1_000);
    }
    assert_eq!(found(&timeline, 2, 0, 10 * US), [(0, 10 * US)]);
    let last = (99_990 * US, 99_995 * US);
    assert_eq!(found(&timeline, 1, last.0, last.1), [last]);
    assert_eq!(timeline.take_evicted() as usize + timeline.len(), 10_000);
}

#[test]
fn many_equal_processes_lose_the_oldest() {
    let config = TimelineConfig {
        max_intervals: 1_000,
        max_processes: 500,
        ..TimelineConfig::default()
    };
    let mut timeline = Timeline::new(config);
    for n in 0..20_000u32 {
        let at = u64::from(n) * MS;
        timeline
            .add(&delay(n % 400, at, at + 5 * US), MonoNs(at + 5 * US))
            .unwrap();
        assert!(timeline.len() <= 1_000);
    }
    assert_eq!(
        found(&timeline, 19_999 % 400, 19_999 * MS, 20_000 * MS).len(),
        1
    );
    assert_eq!(timeline.take_evicted() as usize + timeline.len(), 20_000);
    for n in 0..2_000u32 {
        timeline
            .add(&delay(1_000 + n, 20 * S, 20 * S + 5), MonoNs(20 * S + 5))
            .unwrap();
        assert!(timeline.tracks.len() <= 500);
    }
    assert_eq!(
        timeline.tracks.values().map(Track::len).sum::<usize>(),
        timeline.len()
    );
}

#[test]
fn the_limiter_comes_back_with_its_interval() {
    let mut timeline = Timeline::new(TimelineConfig::default());
    let limiter = |n: u64| {
        Arc::new(Limiter {
            cgroup_id: n,
            cgroup_path: format!("/{n}"),
            cores: 0.2,
            quota_file: "cpu.max",
            is_ancestor: false,
        })
    };
    for n in 0..300 {
        let (start, end) = (n * 10 * US, (n * 10 + 5) * US);
        let mut delay = delay(1, start, end);
        delay.particulars = Particulars::Limiter(limiter(n));
        timeline.add(&delay, MonoNs(end)).unwrap();
    }
    let mut right = 0;
    timeline.of_process(
        process(1),
        MonoNs(0),
        MonoNs(u64::MAX),
        &mut |e, particulars| match particulars.limiter() {
            Some(limiter) => {
                assert_eq!(limiter.cgroup_id, e.start / US / 10);
                right += 1;
            }
            None => assert!(
                e.start / US / 10 >= 255,
                "only what had no place is without"
            ),
        },
    );
    assert_eq!(right, 255);
    let mut late = delay(1, 300 * S, 301 * S);
    late.particulars = Particulars::Limiter(limiter(1_000));
    timeline.add(&late, MonoNs(301 * S)).unwrap();
    let mut seen = Vec::new();
    timeline.of_process(
        process(1),
        MonoNs(0),
        MonoNs(u64::MAX),
        &mut |_, particulars| {
            seen.push(particulars.limiter().map(|l| l.cgroup_id));
        },
    );
    assert_eq!(
        seen,
        [Some(1_000)],
        "places of expired intervals are used again"
    );
}

#[test]
fn steal_is_spread_over_its_poll_interval() {
    let mut timeline = Timeline::new(TimelineConfig::default());
    let steal = |cpu, start_ms: u64, end_ms: u64, stolen_ms: u64| Steal {
        cpu,
        start: MonoNs(start_ms * MS),
        end: MonoNs(end_ms * MS),
        stolen_ns: stolen_ms * MS,
    };
    let now = MonoNs(S);
    timeline.add_steal(&steal(1, 0, 100, 50), now).unwrap();
    timeline.add_steal(&steal(1, 100, 200, 0), now).unwrap();
    timeline.add_steal(&steal(1, 200, 300, 110), now).unwrap();
    assert_eq!(
        timeline.add_steal(&steal(1, 250, 350, 1), now),
        Err(Dropped::BadSteal)
    );
    assert_eq!(
        timeline.add_steal(&steal(u32::MAX, 0, 100, 1), now),
        Err(Dropped::BadSteal)
    );
    assert_eq!(
        timeline.add_steal(&steal(1, 400, 400, 1), now),
        Err(Dropped::Empty)
    );
    assert_eq!(
        timeline.add_steal(&steal(1, 400, 9_000, 1), now),
        Err(Dropped::Future)
    );
    let stolen = |cpu, start: u64, end: u64| timeline.stolen_ns(cpu, start * MS, end * MS) / MS;
    assert_eq!(stolen(1, 20, 40), 10);
    assert_eq!(stolen(1, 90, 190), 5);
    assert_eq!(stolen(1, 0, 1_000), 150, "no more than the interval itself");
    assert_eq!(stolen(2, 0, 1_000), 0);
}

proptest! {
    /// Whatever the order and the lengths, a query finds what a look at all would.
    #[test]
    fn a_query_finds_all_that_overlaps_and_no_more(
        intervals in prop::collection::vec((0u64..2_000, 1u64..400), 0..60),
        start in 0u64..2_500,
        length in 1u64..600,
    ) {
        let mut timeline = Timeline::new(TimelineConfig::default());
        let mut expected = Vec::new();
        for (from, long) in &intervals {
            let (from, to) = (from * MS, (from + long) * MS);
            timeline.add(&delay(1, from, to), MonoNs(3 * S)).unwrap();
            if from < (start + length) * MS && to > start * MS {
                expected.push((from, to));
            }
        }
        expected.sort_unstable();
        prop_assert_eq!(found(&timeline, 1, start * MS, (start + length) * MS), expected);
    }
}

#[test]
fn times_are_kept_to_the_microsecond_and_what_follows_still_follows() {
    let mut timeline = Timeline::new(TimelineConfig::default());
    let times = [10 * US + 999, 60 * US + 1, 61 * US, 200 * US + 500];
    for two in times.windows(2) {
        let delay = delay(1, two[0], two[1]);
        timeline.add(&delay, MonoNs(S)).unwrap();
    }
    let kept = [(10, 60), (60, 61), (61, 200)].map(|(from, to)| (from * US, to * US));
    assert_eq!(found(&timeline, 1, 0, S), kept);
}
