use super::*;
use crate::{verdict::Parts, vocabulary::Layer};

const MS: u64 = 1_000_000;
const RULES: Rules = Rules {
    share_threshold: 0.30,
    baseline_factor: 3.0,
};

/// Microseconds in, so that the cases are easy to read.
fn split(self_us: u64, parts: &[(Cause, u64)]) -> Split {
    let explained: u64 = parts.iter().map(|(_, us)| us).sum();
    let mut parts: Parts = parts
        .iter()
        .map(|(cause, us)| (*cause, us * 1_000))
        .collect();
    if self_us > explained {
        parts.push((Cause::Unexplained, (self_us - explained) * 1_000));
    }
    Split {
        self_time_ns: self_us * 1_000,
        parts,
        downstream_ns: 0,
    }
}

/// What is blamed after `learned` was seen often.
fn blamed(learned: Option<&Split>, split: &Split) -> Option<Cause> {
    blamed_if(Owner::Own, learned, split)
}

fn blamed_if(owner: Owner, learned: Option<&Split>, split: &Split) -> Option<Cause> {
    let mut baselines = Baselines::new(4, 7);
    let key = baselines.key("shop", b"GET /cart");
    for _ in 0..40 {
        if let Some(learned) = learned {
            baselines.learn(key, learned);
        }
    }
    let at = Circumstances::of(Layer::Container);
    let case = Case {
        split,
        at: &|_| at,
        owner,
        baselines: &baselines,
        key,
    };
    blame(&case, RULES).map(|(cause, _)| cause)
}

#[test]
fn rules_without_a_baseline() {
    use Cause::{
        BlockDevice, CpuThrottle, LockWait, OnCpu, Runqueue, Sleep, SocketWait, Steal, TcpRtt,
    };
    type Case = (&'static str, u64, &'static [(Cause, u64)], Option<Cause>);
    let table: &[Case] = &[
        ("nothing seen", 400_000, &[], None),
        ("no length", 0, &[], None),
        (
            "just below the share",
            100_000,
            &[(CpuThrottle, 29_999)],
            None,
        ),
        (
            "just the share",
            100_000,
            &[(CpuThrottle, 30_000)],
            Some(CpuThrottle),
        ),
        (
            "a trifle in a short span",
            2_000,
            &[(CpuThrottle, 999)],
            None,
        ),
        (
            "a short span held back",
            2_000,
            &[(CpuThrottle, 1_000)],
            Some(CpuThrottle),
        ),
        ("the queue of a busy host", 50, &[(Runqueue, 30)], None),
        ("a time slice or two", 12_000, &[(Runqueue, 9_999)], None),
        ("a long wait", 30_000, &[(Runqueue, 20_000)], Some(Runqueue)),
        ("stolen", 30_000, &[(Steal, 20_000)], Some(Steal)),
        (
            "the greater of two",
            90_000,
            &[(CpuThrottle, 30_000), (Runqueue, 40_000)],
            Some(Runqueue),
        ),
        (
            "of equals the first",
            90_000,
            &[(Runqueue, 40_000), (CpuThrottle, 40_000)],
            Some(CpuThrottle),
        ),
        (
            "the program's own doing",
            90_000,
            &[(OnCpu, 20_000), (LockWait, 20_000)],
            None,
        ),
        (
            "waiting for others",
            90_000,
            &[(Sleep, 40_000), (SocketWait, 50_000)],
            None,
        ),
        (
            "a service of unknown usual time",
            90_000,
            &[(BlockDevice, 80_000)],
            None,
        ),
        (
            "a fault that has no place",
            90_000,
            &[(TcpRtt, 80_000)],
            None,
        ),
    ];
    for (what, self_us, parts, expected) in table {
        assert_eq!(blamed(None, &split(*self_us, parts)), *expected, "{what}");
    }
}

/// A client span of 374 ms waited 352 ms for an instrumented callee under a quota; that its
/// own thread waited 19 of the 22 ms left is not why it was slow.
#[test]
fn a_wait_beside_a_slow_child_is_no_reason() {
    let beside = |downstream_us: u64, cause| Split {
        downstream_ns: downstream_us * 1_000,
        ..split(22_000, &[(cause, 19_000)])
    };
    for (downstream_us, cause, expected) in [
        (352_000, Cause::Runqueue, None),
        (352_000, Cause::Steal, None),
        (100_000, Cause::Runqueue, Some(Cause::Runqueue)),
        (352_000, Cause::CpuThrottle, Some(Cause::CpuThrottle)),
    ] {
        let named = blamed(None, &beside(downstream_us, cause));
        assert_eq!(named, expected, "{cause} beside {downstream_us} us");
    }
}

#[test]
fn rules_with_a_baseline() {
    use Cause::{BlockDevice, BlockQueue, CpuThrottle, MemoryReclaim, OnCpu, Runqueue};
    type Parts = &'static [(Cause, u64)];
    type Case = (&'static str, (u64, Parts), (u64, Parts), Option<Cause>);
    let table: &[Case] = &[
        (
            "a quota is news however often",
            (100_000, &[(CpuThrottle, 80_000)]),
            (100_000, &[(CpuThrottle, 80_000)]),
            Some(CpuThrottle),
        ),
        (
            "why it is slower than its like",
            (100_000, &[]),
            (200_000, &[(CpuThrottle, 55_000)]),
            Some(CpuThrottle),
        ),
        (
            "less than half of why",
            (100_000, &[]),
            (200_000, &[(CpuThrottle, 45_000)]),
            None,
        ),
        (
            "not slower than its like",
            (180_000, &[]),
            (200_000, &[(CpuThrottle, 55_000)]),
            None,
        ),
        (
            "less than three times the usual",
            (100_000, &[(CpuThrottle, 20_000)]),
            (210_000, &[(CpuThrottle, 59_000)]),
            None,
        ),
        (
            "a limit, and what came of it",
            (14_600, &[(OnCpu, 7_000)]),
            (
                149_000,
                &[
                    (MemoryReclaim, 42_000),
                    (BlockDevice, 8_000),
                    (BlockQueue, 35_000),
                    (Runqueue, 19_000),
                    (OnCpu, 42_000),
                ],
            ),
            Some(MemoryReclaim),
        ),
        (
            "less than a fifth of it",
            (14_600, &[(OnCpu, 7_000)]),
            (
                149_000,
                &[
                    (MemoryReclaim, 26_000),
                    (BlockDevice, 36_000),
                    (OnCpu, 42_000),
                ],
            ),
            None,
        ),
        (
            "little that is always there, and much that nobody saw",
            (100_000, &[(CpuThrottle, 29_000)]),
            (300_000, &[(CpuThrottle, 69_000)]),
            None,
        ),
        (
            "most of it seen by nobody",
            (14_600, &[(OnCpu, 7_000)]),
            (149_000, &[(CpuThrottle, 42_000)]),
            None,
        ),
        (
            "not three times as slow as its like",
            (60_000, &[(OnCpu, 7_000)]),
            (149_000, &[(MemoryReclaim, 42_000), (BlockQueue, 44_000)]),
            None,
        ),
        (
            "slower by a trifle",
            (1_000, &[]),
            (9_000, &[(Runqueue, 2_600)]),
            None,
        ),
        (
            "half as fast as its like, for want of a CPU",
            (6_600, &[(Runqueue, 300)]),
            (13_600, &[(Runqueue, 7_300)]),
            Some(Runqueue),
        ),
        (
            "as slow as its like, which always wait for a CPU",
            (13_600, &[(Runqueue, 7_300)]),
            (13_600, &[(Runqueue, 7_300)]),
            None,
        ),
        (
            "the disk as always",
            (50_000, &[(BlockDevice, 40_000)]),
            (50_000, &[(BlockDevice, 40_000)]),
            None,
        ),
        (
            "the disk three times slower",
            (50_000, &[(BlockDevice, 40_000)]),
            (130_000, &[(BlockDevice, 120_000)]),
            Some(BlockDevice),
        ),
    ];
    for (what, (usual_us, usual), (self_us, parts), expected) in table {
        let learned = split(*usual_us, usual);
        assert_eq!(
            blamed(Some(&learned), &split(*self_us, parts)),
            *expected,
            "{what}"
        );
    }
}

#[test]
fn what_the_program_does_is_news_only_beyond_what_it_usually_does() {
    use Cause::{CpuThrottle, LockWait, OnCpu, Runqueue, Sleep, SocketWait};
    type Parts = &'static [(Cause, u64)];
    type Case = (&'static str, (u64, Parts), (u64, Parts), Option<Cause>);
    let table: &[Case] = &[
        (
            "plain slow code",
            (50_000, &[(OnCpu, 40_000)]),
            (900_000, &[(OnCpu, 890_000)]),
            Some(OnCpu),
        ),
        (
            "always slow code",
            (900_000, &[(OnCpu, 890_000)]),
            (900_000, &[(OnCpu, 890_000)]),
            None,
        ),
        (
            "a convoy",
            (10_000, &[(OnCpu, 9_000)]),
            (200_000, &[(OnCpu, 9_000), (LockWait, 190_000)]),
            Some(LockWait),
        ),
        (
            "a sleep",
            (10_000, &[(OnCpu, 9_000)]),
            (200_000, &[(Sleep, 190_000)]),
            Some(Sleep),
        ),
        (
            "a slow peer",
            (10_000, &[(SocketWait, 5_000)]),
            (200_000, &[(SocketWait, 190_000)]),
            Some(SocketWait),
        ),
        (
            "slower by less than somebody notices",
            (1_000, &[(OnCpu, 1_000)]),
            (20_000, &[(OnCpu, 20_000)]),
            None,
        ),
        (
            "twice as slow happens",
            (50_000, &[(OnCpu, 50_000)]),
            (140_000, &[(OnCpu, 140_000)]),
            None,
        ),
        (
            "the quota is why it runs for longer",
            (50_000, &[(OnCpu, 50_000)]),
            (900_000, &[(OnCpu, 60_000), (CpuThrottle, 840_000)]),
            Some(CpuThrottle),
        ),
        (
            "the code is why it waits for the CPU too",
            (50_000, &[(OnCpu, 50_000)]),
            (1_000_000, &[(OnCpu, 650_000), (Runqueue, 350_000)]),
            Some(OnCpu),
        ),
        ("nobody saw it", (50_000, &[]), (900_000, &[]), None),
    ];
    for (what, (usual_us, usual), (self_us, parts), expected) in table {
        let (learned, now) = (split(*usual_us, usual), split(*self_us, parts));
        assert_eq!(blamed(Some(&learned), &now), *expected, "{what}");
        assert_eq!(
            blamed_if(Owner::Unknown, Some(&learned), &now),
            expected
                .filter(|cause| Nature::of(*cause) != Nature::Own)
                .or(
                    // The next best that needs no certainty.
                    (*what == "the code is why it waits for the CPU too").then_some(Runqueue)
                ),
            "{what}, and it may be another request's"
        );
    }
}

/// While it computes, none of its requests goes on; what it waits for may be for another one.
#[test]
fn what_an_event_loop_does_holds_all_its_requests_up() {
    use Cause::{LockWait, OnCpu, Sleep, SocketWait};
    let usual = split(10_000, &[(OnCpu, 7_000)]);
    for (cause, unasked, asked) in [
        (OnCpu, true, true),
        (LockWait, true, true),
        (SocketWait, false, true),
        (Sleep, false, false),
    ] {
        let now = split(200_000, &[(cause, 190_000)]);
        for (is_asked, is_told) in [(false, unasked), (true, asked)] {
            let owner = Owner::Loop { asked: is_asked };
            let named = blamed_if(owner, Some(&usual), &now);
            assert_eq!(
                named,
                is_told.then_some(cause),
                "{cause}, asked: {is_asked}"
            );
        }
    }
}

#[test]
fn a_slow_callee_is_news_where_nothing_of_its_own_is() {
    let with_child = |self_us: u64, parts: &[(Cause, u64)], downstream_us: u64| Split {
        downstream_ns: downstream_us * 1_000,
        ..split(self_us, parts)
    };
    let usual = with_child(5_000, &[], 20_000);
    for (now, expected) in [
        (with_child(5_000, &[], 200_000), Some(Cause::Downstream)),
        (with_child(5_000, &[], 70_000), Some(Cause::Downstream)),
        (with_child(5_000, &[], 60_000), None),
        (usual.clone(), None),
        (
            with_child(50_000, &[(Cause::CpuThrottle, 40_000)], 200_000),
            Some(Cause::CpuThrottle),
        ),
    ] {
        assert_eq!(
            blamed_if(Owner::Unknown, Some(&usual), &now),
            expected,
            "{now:?}"
        );
        let alone = blamed(None, &now);
        assert_eq!(
            alone,
            expected.filter(|c| *c != Cause::Downstream),
            "{now:?}"
        );
    }
}

/// Operations that are sometimes slow, as those that miss a cache, are not news each time.
#[test]
fn what_is_sometimes_slow_is_usual() {
    let (fast, slow) = (
        split(5_000, &[(Cause::OnCpu, 5_000)]),
        split(200_000, &[(Cause::OnCpu, 200_000)]),
    );
    for (every, expected) in [(10, None), (20, None), (1_000, Some(Cause::OnCpu))] {
        let mut baselines = Baselines::new(4, 7);
        let key = baselines.key("shop", b"GET /cart");
        for n in 0..1_000 {
            baselines.learn(key, if n % every == 0 { &slow } else { &fast });
        }
        let at = Circumstances::of(Layer::Container);
        let case = Case {
            split: &slow,
            at: &|_| at,
            owner: Owner::Own,
            baselines: &baselines,
            key,
        };
        let named = blame(&case, RULES).map(|(cause, _)| cause);
        assert_eq!(named, expected, "one in {every}");
    }
}

#[test]
fn every_floor_is_a_time_that_a_person_can_notice() {
    const { assert!(FLOOR_HELD_BACK_NS == MS && FLOOR_NS == 10 * MS && FLOOR_OWN_NS == 20 * MS) };
    for cause in Cause::ALL {
        let nothing = split(0, &[(*cause, 0)]);
        assert_eq!(blamed(None, &nothing), None, "{cause}");
    }
}
