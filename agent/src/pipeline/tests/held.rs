//! Drops, stuck queues and lost segments are somebody's reason only where he waited meanwhile.

use proptest::prelude::*;

use super::*;
use crate::event::{Consumption, Flow, Neighbour, Resource, Slice};

fn through(slice: Slice, reason: &str) -> Particulars {
    Particulars::Flow(Arc::new(Flow {
        slice: Some(slice),
        device: "eth0".into(),
        reason: reason.into(),
    }))
}

fn of_the_network(cause: Cause, start_ms: u64, end_ms: u64) -> Delay {
    let particulars = match cause {
        Cause::Virtqueue => through(Slice::Paravirtual, ""),
        _ => through(Slice::Container, "QDISC_DROP"),
    };
    Delay {
        particulars,
        ..delay(cause, start_ms, end_ms)
    }
}

fn judgement(delays: impl IntoIterator<Item = Delay>, end_ms: u64) -> Judgement {
    let mut pipeline = pipeline();
    feed(&mut pipeline, delays);
    let spans = vec![span(9, 0, 0, end_ms)];
    let spans = batch(at(end_ms), Confidence::ThreadInferred, spans);
    judged(&mut pipeline, spans).remove(0)
}

#[test]
fn a_wait_for_a_dropped_segment_is_the_drops() {
    let delays = [
        of_the_network(Cause::NetDrop, 10, 10),
        delay(Cause::SocketWait, 11, 230),
        delay(Cause::TcpRetransmit, 12, 212),
        of_the_network(Cause::NetDrop, 10, 212),
    ];
    let judgement = judgement(delays, 250);
    let verdict = judgement.verdict.expect("it waited");
    assert_eq!((verdict.fault, verdict.cause), (Fault::L3, Cause::NetDrop));
    assert_eq!(
        verdict.summary,
        "80 % of 250 ms: packets were dropped through eth0 (QDISC_DROP)"
    );
    let split = judgement.split.expect("judged");
    assert_eq!(split.part(Cause::NetDrop), 201 * MS);
    assert_eq!(split.part(Cause::SocketWait), 18 * MS);
}

/// Its segment was dropped, or its queue stuck, while it was busy otherwise.
#[test]
fn who_did_not_wait_is_not_held_up() {
    let all = [
        Cause::NetDrop,
        Cause::Virtqueue,
        Cause::Conntrack,
        Cause::TcpRetransmit,
    ];
    for cause in all {
        for other in [Cause::OnCpu, Cause::LockWait, Cause::Sleep] {
            let delays = [of_the_network(cause, 10, 900), delay(other, 5, 950)];
            let judgement = judgement(delays, 1_000);
            assert_eq!(judgement.verdict, None, "{cause} and {other}");
            assert_eq!(judgement.split.expect("judged").part(cause), 0);
        }
    }
    for cause in [Cause::NetDrop, Cause::Virtqueue, Cause::Conntrack] {
        let elsewhere = Delay {
            tid: PID + 1,
            ..delay(Cause::SocketWait, 5, 950)
        };
        let judgement = judgement([of_the_network(cause, 10, 900), elsewhere], 1_000);
        assert_eq!(judgement.verdict, None, "{cause}: another thread waits");
    }
}

/// Of a segment that was lost somewhere, what its thread is not known to have done otherwise counts:
/// who waits need not be seen.
#[test]
fn a_lost_segment_is_waited_for_where_nothing_else_was_done() {
    let lost = || delay(Cause::TcpRetransmit, 100, 500);
    let told = |others: Vec<Delay>| {
        let mut all: Vec<Delay> = others.into_iter().chain([lost()]).collect();
        all.sort_by_key(|delay| delay.end);
        let judgement = judgement(all, 1_000);
        let split = judgement.split.expect("judged");
        split.part(Cause::TcpRetransmit) / MS
    };
    assert_eq!(told(vec![]), 400, "nobody says what it did");
    assert_eq!(told(vec![delay(Cause::SocketWait, 90, 600)]), 400);
    let computed = delay(Cause::OnCpu, 0, 300);
    let queued = delay(Cause::Runqueue, 350, 400);
    assert_eq!(told(vec![computed, queued]), 150);
}

#[test]
fn as_many_waits_as_there_are_count() {
    let waits = (0..900).flat_map(|n| {
        [
            delay(Cause::SocketWait, n, n + 1),
            of_the_network(Cause::NetDrop, n, n + 1),
        ]
    });
    let split = judgement(waits, 1_000).split.expect("judged");
    assert_eq!(split.part(Cause::NetDrop), 900 * MS);
}

/// The evidence is of what was waited, not of what lay in a queue while nobody waited for it.
#[test]
fn the_evidence_is_cut_to_what_was_waited() {
    let delays = [
        delay(Cause::SocketWait, 600, 950),
        delay(Cause::OnCpu, 0, 600),
        of_the_network(Cause::NetDrop, 10, 900),
    ];
    let verdict = judgement(delays, 1_000).verdict.expect("it waited");
    assert_eq!(verdict.cause, Cause::NetDrop);
    let longest = ("net_drop_longest_ms".to_owned(), 300.0);
    assert!(
        verdict.evidence.contains(&longest),
        "{:?}",
        verdict.evidence
    );
}

/// The queue of a device that is no virtual machine's.
#[test]
fn a_queue_that_stands_still_drops_nothing() {
    let stuck = Delay {
        particulars: through(Slice::Physical, Flow::TX_TIMEOUT),
        ..delay(Cause::NetDrop, 10, 900)
    };
    let delays = [stuck, delay(Cause::SocketWait, 5, 950)];
    let verdict = judgement(delays, 1_000).verdict.expect("it waited");
    assert_eq!(
        verdict.summary,
        "89 % of 1000 ms: a transmit queue was stuck through eth0"
    );
}

#[test]
fn who_filled_the_queue_is_the_culprit() {
    let sent = |cgroup_id, name: &str, from_ms, amount| {
        Event::Consumption(Consumption {
            resource: Resource::Network(Some(Slice::Paravirtual)),
            start: at(from_ms),
            end: at(from_ms + 100),
            amount,
            cgroup_id,
            consumer: Some(Arc::new(Neighbour {
                cgroup_id,
                cgroup_path: format!("/shop/{name}"),
                name: name.into(),
            })),
        })
    };
    let culprit = |amount| {
        let mut pipeline = pipeline();
        // Before the request: once the queue stands still, nobody gets anything into it.
        let flood = (0..10).map(|n| sent(80, "flooder", 8_000 + n * 100, amount));
        let own = sent(70, "cart", 8_500, 100);
        for event in flood.chain([own]) {
            pipeline.on_event(&event, at(9_000));
        }
        let held = [
            delay(Cause::SocketWait, 9_501, 16_000),
            of_the_network(Cause::Virtqueue, 9_500, 15_990),
        ];
        feed(&mut pipeline, held);
        let spans = vec![span(9, 0, 9_490, 16_010)];
        let spans = batch(at(16_010), Confidence::ThreadInferred, spans);
        let judgement = judged(&mut pipeline, spans).remove(0);
        let verdict = judgement.verdict.expect("it waited");
        assert_eq!(
            (verdict.fault, verdict.cause),
            (Fault::L2, Cause::Virtqueue)
        );
        verdict
    };
    let verdict = culprit(2_000);
    assert_eq!(verdict.culprit, "flooder");
    assert_eq!(
        verdict.summary,
        "100 % of 6520 ms: a queue of a paravirtual device was stuck through eth0, after \
         flooder flooded the network"
    );
    assert_eq!(culprit(20).culprit, "", "a few datagrams are no flood");
}

fn any_times() -> impl Strategy<Value = (u64, u64)> {
    (0u64..1_000, 1u64..1_000).prop_map(|(start, length)| (start, (start + length).min(1_000)))
}

proptest! {
    /// What is told of the network takes at most what was waited for a socket.
    #[test]
    fn nothing_is_held_up_that_did_not_wait(
        held in prop::collection::vec(any_times(), 0..6),
        waits in prop::collection::vec(any_times(), 0..6),
        cause in prop::sample::select(vec![Cause::NetDrop, Cause::Virtqueue]),
    ) {
        let delays = held.iter().map(|(start, end)| of_the_network(cause, *start, *end));
        let sockets = waits.iter().map(|(start, end)| delay(Cause::SocketWait, *start, *end));
        let mut all: Vec<Delay> = delays.chain(sockets).filter(|d| d.end > d.start).collect();
        all.sort_by_key(|delay| delay.end);
        let judgement = judgement(all, 1_000);
        let within = |ms: u64, of: &[(u64, u64)]| of.iter().any(|(s, e)| *s <= ms && ms < *e);
        let both = (0..1_000).filter(|ms| within(*ms, &held) && within(*ms, &waits)).count();
        let told = judgement.split.expect("judged").part(cause);
        prop_assert_eq!(told, both as u64 * MS);
        if both == 0 {
            prop_assert!(judgement.verdict.is_none_or(|verdict| verdict.cause != cause));
        }
    }
}
