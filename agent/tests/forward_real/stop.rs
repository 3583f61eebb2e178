//! Stopping: delivers what it can and says what it could not.

use std::time::Duration;

use isostack_agent::{forward::Undelivered, otlp::Signal};

use crate::{
    PROTOCOLS,
    agent::Agent,
    downstream::{Downstream, Reply, ok},
};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(50);

#[tokio::test]
async fn delivers_what_is_queued() {
    for protocol in PROTOCOLS {
        let downstream = Downstream::start(|_, _| ok()).await;
        let agent = Agent::new(downstream.address, protocol, &[]);
        for id in 0..100 {
            agent.send(id..id + 1);
        }
        let left = agent.forwarder.drain(LONG).await;
        assert_eq!(left, Undelivered::default());
        assert_eq!(agent.metrics.spans_forwarded.get(), 100);
        assert_eq!(agent.metrics.forward_queue.get(), 0);
    }
}

#[tokio::test]
async fn still_tries_again_while_stopping() {
    let busy = || Reply::Grpc(tonic::Code::Unavailable as u32, "later".to_owned(), vec![]);
    let downstream = Downstream::replying([busy(), busy(), busy()]).await;
    let agent = Agent::new(downstream.address, "grpc", &[]);
    agent.send(0..7);
    let left = agent.forwarder.drain(LONG).await;
    assert_eq!(left, Undelivered::default());
    assert_eq!(downstream.received().len(), 4);
}

#[tokio::test]
async fn says_what_it_could_not_deliver() {
    for protocol in PROTOCOLS {
        // One is taken, one is under way without an answer, the rest waits.
        let script = |n: usize, _: &_| if n == 0 { ok() } else { Reply::Wait };
        let downstream = Downstream::start(script).await;
        let agent = Agent::tuned(downstream.address, protocol, &[], |c| c.max_in_flight = 1);
        agent.send(0..1);
        agent.settled().await;
        agent.send(1..4);
        downstream.requests(2).await;
        agent.send(4..10);
        agent.send(10..11);
        let (handle, metrics) = (agent.handle.clone(), agent.metrics.clone());
        let left = agent.forwarder.drain(SHORT).await;
        let expected = Undelivered {
            requests: 3,
            items: 10,
        };
        assert_eq!(left, expected);
        let reason = "stopped";
        let lost = metrics
            .spans_lost
            .get_or_create(&isostack_agent::metrics::Reason { reason });
        assert_eq!(lost.get(), 10);
        drop(lost);
        assert_eq!(metrics.spans_forwarded.get(), 1);
        assert_eq!(metrics.forward_queue.get(), 0);

        // What comes after the end is counted too.
        handle.enqueue(isostack_agent::forward::Outgoing {
            signal: Signal::Traces,
            payload: crate::agent::request(0..2),
            items: 2,
            permit: None,
        });
        let lost = metrics
            .spans_lost
            .get_or_create(&isostack_agent::metrics::Reason { reason });
        assert_eq!(lost.get(), 12);
    }
}

#[tokio::test]
async fn ends_though_nobody_listens() {
    let agent = Agent::at("http://127.0.0.1:1", "grpc", &[], |_| {});
    agent.send(0..3);
    agent.send_other(Signal::Logs, b"l");
    let left = agent.forwarder.drain(SHORT).await;
    let expected = Undelivered {
        requests: 2,
        items: 3,
    };
    assert_eq!(left, expected);
}

#[tokio::test]
async fn dropped_without_drain_it_ends_its_tasks() {
    let downstream = Downstream::start(|_, _| Reply::Wait).await;
    let agent = Agent::new(downstream.address, "grpc", &[]);
    agent.send(0..3);
    downstream.requests(1).await;
    let (handle, metrics) = (agent.handle.clone(), agent.metrics.clone());
    drop(agent);
    // The lanes are gone when their entry is closed: then an arrival is refused and counted.
    let reason = isostack_agent::metrics::Reason { reason: "stopped" };
    loop {
        handle.enqueue(isostack_agent::forward::Outgoing {
            signal: Signal::Traces,
            payload: crate::agent::request(0..1),
            items: 1,
            permit: None,
        });
        if metrics.spans_lost.get_or_create(&reason).get() > 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
}
