//! An event loop that works on several requests, and whose peers its waits were for.

use super::{
    threads::{of_thread, part, request, unsure},
    *,
};
use crate::event::Ask;

const LOOP: u32 = 7;

/// A wait for whom it asked for the request that it began to read at `read_ms`.
fn ask(read_ms: u64, start_ms: u64, end_ms: u64) -> Event {
    Event::Ask(Ask {
        process: process(PID),
        tid: LOOP,
        request: at(read_ms),
        start: at(start_ms),
        end: at(end_ms),
    })
}

/// The loop reads a request at each of these times and answers them one after the other.
fn turns(reads_ms: &[u64], end_ms: u64) -> Vec<Event> {
    let each = reads_ms.iter().zip(0..);
    each.map(|(read, n)| unsure(LOOP, *read, end_ms + n))
        .collect()
}

fn judge(pipeline: &mut Pipeline, from_ms: u64, events: Vec<Event>) -> Vec<Judgement> {
    for event in events {
        pipeline.on_event(&event, at(from_ms + 2_000));
    }
    // Both at once: the first for its peer, the other for a timer.
    let spans = vec![
        request(1, from_ms + 10, from_ms + 250),
        request(2, from_ms + 20, from_ms + 250),
    ];
    let mut batch = batch(at(from_ms + 2_000), Confidence::Process, spans);
    let resource = Resource {
        service: "shop".into(),
        language: "nodejs".into(),
        ..Resource::default()
    };
    batch.resources[0].resource = Arc::new(resource);
    judged(pipeline, batch)
}

fn busy(from_ms: u64) -> Vec<Event> {
    let mut events = turns(&[from_ms + 10, from_ms + 20], from_ms + 251);
    events.push(of_thread(LOOP, Cause::OnCpu, from_ms + 10, from_ms + 30));
    events.push(of_thread(LOOP, Cause::OnCpu, from_ms + 100, from_ms + 120));
    events
}

#[test]
fn a_loops_idle_time_is_of_the_request_that_asked_a_slow_peer() {
    let mut pipeline = pipeline();
    // What is usual: nobody waits for long.
    for n in 0..30 {
        let from = n * 400;
        let mut events = turns(&[from + 10, from + 20], from + 31);
        events.push(of_thread(LOOP, Cause::OnCpu, from + 10, from + 30));
        for event in events {
            pipeline.on_event(&event, at(from + 300));
        }
        let spans = vec![
            request(1, from + 10, from + 30),
            request(2, from + 20, from + 30),
        ];
        let batch = batch(at(from + 300), Confidence::Process, spans);
        judged(&mut pipeline, batch);
    }
    let from = 12_000;
    let mut events = busy(from);
    events.push(of_thread(LOOP, Cause::SocketWait, from + 30, from + 100));
    events.push(of_thread(LOOP, Cause::SocketWait, from + 120, from + 249));
    events.push(ask(from + 10, from + 25, from + 245));
    let judged = judge(&mut pipeline, from, events);
    let verdict = judged[0].verdict.as_ref().expect("its peer was slow");
    assert_eq!(
        (verdict.fault, verdict.cause),
        (Fault::Downstream, Cause::SocketWait)
    );
    assert_eq!(part(&judged[0], Cause::SocketWait), (70 + 125) * MS);
    // Whom it did not ask for is not known to have been waited for.
    assert_eq!(judged[1].verdict, None);
    assert_eq!(judged[1].joined.confidence, Confidence::Process);
}

#[test]
fn whose_ask_it_was_must_be_known() {
    let told = |events: Vec<Event>| {
        let mut pipeline = pipeline();
        let mut all = busy(0);
        all.push(of_thread(LOOP, Cause::SocketWait, 30, 100));
        all.extend(events);
        let judged = judge(&mut pipeline, 0, all);
        [0, 1].map(|at: usize| part(&judged[at], Cause::SocketWait) / MS)
    };
    assert_eq!(told(vec![]), [70, 70], "of all, where nothing is known");
    assert_eq!(told(vec![ask(10, 40, 60)]), [20, 70]);
    assert_eq!(told(vec![ask(20, 40, 60)]), [70, 20]);
    assert_eq!(told(vec![ask(10, 40, 60), ask(10, 50, 65)]), [25, 70]);
    assert_eq!(told(vec![ask(16, 40, 60)]), [70, 20], "the next that began");
    assert_eq!(told(vec![ask(3, 40, 60)]), [70, 70], "long before");
}

/// What is late is waited for by who asked, and by nobody while the loop computes.
#[test]
fn late_segments_are_of_the_request_that_asked() {
    for cause in [Cause::TcpRtt, Cause::TcpRetransmit] {
        let told = |events: Vec<Event>| {
            let mut pipeline = pipeline();
            let mut all = busy(0);
            all.push(of_thread(LOOP, cause, 90, 130));
            all.extend(events);
            let judged = judge(&mut pipeline, 0, all);
            [0, 1].map(|at: usize| part(&judged[at], cause) / MS)
        };
        assert_eq!(told(vec![]), [20, 20], "{cause}: it computed for 20");
        assert_eq!(told(vec![ask(10, 40, 95)]), [5, 20], "{cause}");
        assert_eq!(told(vec![ask(10, 40, 60)]), [0, 20], "{cause}");
    }
}

/// A dropped segment is waited for where it is known who asked, too.
#[test]
fn a_drop_is_of_the_request_that_asked() {
    let mut pipeline = pipeline();
    let mut events = busy(0);
    events.push(of_thread(LOOP, Cause::SocketWait, 30, 100));
    events.push(of_thread(LOOP, Cause::NetDrop, 40, 90));
    events.push(ask(10, 50, 95));
    let judged = judge(&mut pipeline, 0, events);
    assert_eq!(part(&judged[0], Cause::NetDrop), 40 * MS);
    assert_eq!(part(&judged[1], Cause::NetDrop), 0);
}
