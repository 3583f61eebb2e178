use proptest::prelude::*;

use super::*;

fn run(
    duration: u64,
    children: &[(i128, i128)],
    delays: &[(Cause, i128, i128)],
) -> (Split, Vec<Piece>) {
    let mut sweep = Sweep::default();
    sweep.begin(duration);
    for (start, end) in children {
        sweep.child(*start, *end);
    }
    for (cause, start, end) in delays {
        sweep.delay(*cause, 0, *start, *end);
    }
    let split = sweep.run(|_, _, _| 0);
    (split, sweep.pieces().to_vec())
}

#[test]
fn the_order_names_each_cause_once() {
    for cause in Cause::ALL {
        assert_eq!(PRECEDENCE[rank(*cause)], *cause);
    }
    assert_eq!(PRECEDENCE.len(), Cause::ALL.len());
}

#[test]
fn rules_one_by_one() {
    use Cause::{CpuThrottle, LockWait, OnCpu, Runqueue, Unexplained};
    type Case = (
        &'static str,
        &'static [(i128, i128)],
        &'static [(Cause, i128, i128)],
        u64,
        &'static [(Cause, u64)],
    );
    let table: &[Case] = &[
        ("nothing seen", &[], &[], 0, &[(Unexplained, 100)]),
        ("a child", &[(10, 40)], &[], 30, &[(Unexplained, 70)]),
        (
            "children overlap",
            &[(10, 40), (20, 50), (10, 40)],
            &[],
            40,
            &[(Unexplained, 60)],
        ),
        (
            "a child outlives the span",
            &[(-5, 10), (90, 500)],
            &[],
            20,
            &[(Unexplained, 80)],
        ),
        (
            "a child outside",
            &[(-50, -10), (100, 120)],
            &[],
            0,
            &[(Unexplained, 100)],
        ),
        (
            "children all along",
            &[(0, 100)],
            &[(CpuThrottle, 0, 100)],
            100,
            &[],
        ),
        (
            "a delay",
            &[],
            &[(CpuThrottle, 20, 90)],
            0,
            &[(CpuThrottle, 70), (Unexplained, 30)],
        ),
        (
            "a delay reaches out on both sides",
            &[],
            &[(CpuThrottle, -20, 190)],
            0,
            &[(CpuThrottle, 100)],
        ),
        (
            "a delay in a child is the child's",
            &[(0, 50)],
            &[(CpuThrottle, 40, 60)],
            50,
            &[(CpuThrottle, 10), (Unexplained, 40)],
        ),
        (
            "two threads held back at once count once",
            &[],
            &[(CpuThrottle, 0, 60), (CpuThrottle, 20, 80)],
            0,
            &[(CpuThrottle, 80), (Unexplained, 20)],
        ),
        (
            "the quota before the queue",
            &[],
            &[(Runqueue, 0, 60), (CpuThrottle, 20, 80)],
            0,
            &[(CpuThrottle, 60), (Runqueue, 20), (Unexplained, 20)],
        ),
        (
            "an idle thread's wait does not hide that another runs",
            &[],
            &[(LockWait, 0, 100), (OnCpu, 30, 90), (Runqueue, 20, 30)],
            0,
            &[(Runqueue, 10), (OnCpu, 60), (LockWait, 30)],
        ),
        (
            "a pool of four on two CPUs: half of the time is waiting",
            &[],
            &[
                (OnCpu, 0, 50),
                (OnCpu, 0, 50),
                (Runqueue, 0, 50),
                (Runqueue, 0, 50),
                (Runqueue, 50, 100),
                (Runqueue, 50, 100),
                (OnCpu, 50, 100),
                (OnCpu, 50, 100),
            ],
            0,
            &[(Runqueue, 50), (OnCpu, 50)],
        ),
        (
            "a quota holds all of them, whoever still runs",
            &[],
            &[(OnCpu, 0, 50), (CpuThrottle, 0, 100), (Runqueue, 0, 100)],
            0,
            &[(CpuThrottle, 100)],
        ),
        (
            "an empty delay",
            &[],
            &[(Runqueue, 7, 7)],
            0,
            &[(Unexplained, 100)],
        ),
        (
            "a delay that ends before it starts",
            &[],
            &[(Runqueue, 9, 7)],
            0,
            &[(Unexplained, 100)],
        ),
    ];
    for (what, children, delays, downstream_ns, parts) in table {
        let (split, _) = run(100, children, delays);
        assert_eq!(split.downstream_ns, *downstream_ns, "{what}");
        assert_eq!(split.self_time_ns, 100 - downstream_ns, "{what}");
        assert_eq!(split.parts[..], parts[..], "{what}");
    }
}

#[test]
fn a_span_without_length_has_no_parts() {
    let (split, pieces) = run(0, &[(0, 10)], &[(Cause::CpuThrottle, -5, 5)]);
    assert_eq!(split, Split::default());
    assert_eq!(pieces, []);
}

#[test]
fn steal_takes_its_part_of_waiting_and_running_only() {
    let mut sweep = Sweep::default();
    sweep.begin(100);
    sweep.delay(Cause::Runqueue, 3, 0, 40);
    sweep.delay(Cause::CpuThrottle, 3, 40, 60);
    sweep.delay(Cause::OnCpu, 3, 60, 80);
    let split = sweep.run(|cpu, start, end| if cpu == 3 { (end - start) / 4 } else { 0 });
    let expected = [
        (Cause::CpuThrottle, 20),
        (Cause::Steal, 15),
        (Cause::Runqueue, 30),
        (Cause::OnCpu, 15),
        (Cause::Unexplained, 20),
    ];
    assert_eq!(split.parts[..], expected);
    let of = |cause| -> u64 {
        sweep
            .pieces()
            .iter()
            .filter(|p| p.cause == cause)
            .map(|p| p.cause_ns)
            .sum()
    };
    assert_eq!(
        (of(Cause::Runqueue), of(Cause::Steal), of(Cause::OnCpu)),
        (30, 15, 0)
    );
}

#[test]
fn more_stolen_than_there_is_makes_no_negative_rest() {
    let mut sweep = Sweep::default();
    sweep.begin(100);
    sweep.delay(Cause::Runqueue, 0, 0, 40);
    let split = sweep.run(|_, _, _| u64::MAX);
    assert_eq!(
        split.parts[..],
        [(Cause::Steal, 40), (Cause::Unexplained, 60)]
    );
}

#[test]
fn neighbouring_pieces_of_one_cause_are_one() {
    let delays = [
        (Cause::CpuThrottle, 0, 30),
        (Cause::CpuThrottle, 30, 50),
        (Cause::Runqueue, 10, 60),
    ];
    let (_, pieces) = run(100, &[], &delays);
    let expected = [
        Piece {
            cause: Cause::CpuThrottle,
            start: 0,
            end: 50,
            cause_ns: 50,
        },
        Piece {
            cause: Cause::Runqueue,
            start: 50,
            end: 60,
            cause_ns: 10,
        },
    ];
    assert_eq!(pieces, expected);
}

fn any_delay() -> impl Strategy<Value = (Cause, i128, i128)> {
    let cause = prop::sample::select(Cause::ALL);
    (cause, -60i128..260, -60i128..260)
}

proptest! {
    /// Against the obvious way: each nanosecond of the span looked at by itself.
    #[test]
    fn each_instant_is_counted_once_for_the_first_cause(
        duration in 0u64..200,
        children in prop::collection::vec((-60i128..260, -60i128..260), 0..8),
        delays in prop::collection::vec(any_delay(), 0..24),
    ) {
        let (split, pieces) = run(duration, &children, &delays);
        let mut expected = [0u64; PRECEDENCE.len()];
        let mut in_piece = 0;
        let mut shared = 0.0;
        for at in 0..i128::from(duration) {
            let covers = |start: i128, end: i128| start <= at && at < end;
            let child = children.iter().any(|(start, end)| covers(*start, *end));
            let first = PRECEDENCE.iter().position(|cause| {
                (*cause == Cause::Downstream && child)
                    || delays.iter().any(|(c, start, end)| c == cause && covers(*start, *end))
            });
            let first = first.unwrap_or(UNEXPLAINED);
            expected[first] += 1;
            let piece = pieces.iter().filter(|p| covers(p.start.into(), p.end.into()));
            let found: Vec<_> = piece.map(|p| p.cause).collect();
            let cause = PRECEDENCE[first];
            if matches!(cause, Cause::Downstream | Cause::Unexplained | Cause::OnCpu) {
                prop_assert!(found.is_empty());
            } else {
                prop_assert_eq!(found, vec![cause]);
                in_piece += 1;
            }
            if cause == Cause::Runqueue {
                let open = |cause| delays.iter().filter(|(c, start, end)| *c == cause && covers(*start, *end)).count() as f64;
                shared += open(Cause::OnCpu) / (open(Cause::OnCpu) + open(Cause::Runqueue));
            }
        }
        // Of what is waiting by the order alone, those who run meanwhile have their part.
        let part_of = |cause| split.parts.iter().find(|(c, _)| *c == cause).map_or(0, |(_, ns)| *ns);
        let given = part_of(Cause::OnCpu) - expected[ON_CPU];
        let boundaries = 2.0 * (delays.len() + children.len()) as f64;
        prop_assert!((given as f64 - shared).abs() <= 1.0 + boundaries, "{given} of {shared}");
        expected[ON_CPU] += given;
        expected[rank(Cause::Runqueue)] -= given;
        in_piece -= given;
        prop_assert_eq!(split.downstream_ns, expected[DOWNSTREAM]);
        for (cause, ns) in PRECEDENCE.iter().zip(expected).skip(1) {
            let part = split.parts.iter().find(|(c, _)| c == cause).map_or(0, |(_, ns)| *ns);
            prop_assert_eq!(part, ns, "{}", cause);
        }
        prop_assert_eq!(pieces.iter().map(|p| p.cause_ns).sum::<u64>(), in_piece);
    }

    /// With any steal, and numbers of any size.
    #[test]
    fn the_parts_add_up_to_the_self_time(
        duration in any::<u64>(),
        children in prop::collection::vec((any::<i64>(), any::<u64>()), 0..8),
        delays in prop::collection::vec((prop::sample::select(Cause::ALL), any::<i64>(), any::<u64>()), 0..24),
        stolen in any::<u64>(),
    ) {
        let mut sweep = Sweep::default();
        sweep.begin(duration);
        for (start, length) in &children {
            sweep.child((*start).into(), i128::from(*start) + i128::from(*length));
        }
        for (cause, start, length) in &delays {
            sweep.delay(*cause, 0, (*start).into(), i128::from(*start) + i128::from(*length));
        }
        let split = sweep.run(|_, start, end| stolen % (end - start + 1));
        let sum: u64 = split.parts.iter().map(|(_, ns)| ns).sum();
        prop_assert_eq!(sum, split.self_time_ns);
        prop_assert_eq!(split.self_time_ns + split.downstream_ns, duration);
        prop_assert!(split.parts.iter().all(|(_, ns)| *ns > 0));
        for piece in sweep.pieces() {
            prop_assert!(piece.start < piece.end && piece.end <= duration);
            prop_assert!(piece.cause_ns > 0 && piece.cause_ns <= piece.end - piece.start);
            let part = split.parts.iter().find(|(c, _)| *c == piece.cause);
            prop_assert!(part.is_some());
        }
        for (cause, ns) in &split.parts {
            let pieces = sweep.pieces().iter().filter(|p| p.cause == *cause);
            let sum: u64 = pieces.map(|p| p.cause_ns).sum();
            if !matches!(cause, Cause::OnCpu | Cause::Unexplained) {
                prop_assert_eq!(sum, *ns);
            }
        }
    }
}
