//! Downstream is well: order, bytes, joining, headers, compression.

use std::sync::Arc;

use isostack_agent::{
    forward::{Health, Outgoing},
    otlp::Signal,
};
use tokio::sync::Semaphore;

use crate::{
    PROTOCOLS,
    agent::{Agent, ids, permit, request},
    downstream::{Downstream, Reply, ok},
};

#[tokio::test]
async fn bytes_and_order_are_kept() {
    for protocol in PROTOCOLS {
        let downstream = Downstream::start(|_, _| ok()).await;
        // One at a time, so that the order of arrival is the order of sending.
        let agent = Agent::tuned(downstream.address, protocol, &[], |c| c.max_in_flight = 1);
        assert_eq!(agent.health("traces"), Health::Idle);
        let mut sent = Vec::new();
        for n in 0..50 {
            sent.extend(agent.send(n * 10..(n + 1) * 10));
            if n % 7 == 0 {
                agent.settled().await;
            }
        }
        agent.settled().await;
        assert_eq!(downstream.bytes(), sent);
        assert_eq!(agent.forwarded(), 500);
        assert_eq!(agent.health("traces"), Health::Connected);
        let path = downstream.received()[0].path.clone();
        match protocol {
            "grpc" => assert_eq!(
                path,
                "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
            ),
            _ => assert_eq!(path, "/v1/traces"),
        }
    }
}

#[tokio::test]
async fn a_backlog_is_joined_within_the_limit() {
    for protocol in PROTOCOLS {
        let wait_first = |n: usize, _: &_| if n == 0 { Reply::Wait } else { ok() };
        let downstream = Downstream::start(wait_first).await;
        let one = request(1..2).len();
        let agent = Agent::tuned(downstream.address, protocol, &[], |c| {
            c.max_in_flight = 1;
            c.max_batch_bytes = one * 4;
        });
        agent.send(1..2);
        downstream.requests(1).await;
        for id in 2..12 {
            agent.send(id..id + 1);
        }
        assert_eq!(agent.handle.state().signals[0].queued_requests, 11);
        downstream.release();
        agent.settled().await;
        let received = downstream.received();
        let counts: Vec<_> = received.iter().map(|r| ids(&r.message).len()).collect();
        // Two-digit ids have a longer name, so fewer of them fit.
        assert_eq!(counts, [1, 4, 4, 2]);
        let all: Vec<_> = received.iter().flat_map(|r| ids(&r.message)).collect();
        assert_eq!(all, (1..12).collect::<Vec<_>>());
        let state = &agent.handle.state().signals[0];
        assert_eq!((state.queued_requests, state.queued_bytes), (0, 0));
    }
}

#[tokio::test]
async fn several_are_under_way_at_once() {
    let downstream = Downstream::start(|_, _| Reply::Wait).await;
    let agent = Agent::tuned(downstream.address, "grpc", &[], |c| c.max_in_flight = 3);
    for id in 0..3 {
        agent.send(id..id + 1);
        // Only a sender that does not wait for answers gets here.
        downstream.requests(id as usize + 1).await;
    }
    downstream.release();
    agent.settled().await;
    assert_eq!(agent.forwarded(), 3);
}

#[tokio::test]
async fn headers_and_compression() {
    let env = [
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20abc,x-tenant=one",
        ),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ];
    for protocol in PROTOCOLS {
        let downstream = Downstream::start(|_, _| ok()).await;
        let agent = Agent::new(downstream.address, protocol, &env);
        let sent = agent.send(0..100);
        agent.settled().await;
        let received = &downstream.received()[0];
        assert_eq!(received.message, sent);
        assert!(received.compressed);
        assert_eq!(received.headers["authorization"], "Bearer abc");
        assert_eq!(received.headers["x-tenant"], "one");
        let user_agent = received.headers["user-agent"].to_str().unwrap();
        assert!(user_agent.starts_with("isostack-agent/"), "{user_agent}");
        assert!(!format!("{:?}", agent.handle.state()).contains("abc"));
    }
}

#[tokio::test]
async fn the_budget_is_given_back_on_delivery_and_not_before() {
    let downstream = Downstream::start(|_, _| Reply::Wait).await;
    let agent = Agent::new(downstream.address, "grpc", &[]);
    let budget = Arc::new(Semaphore::new(1000));
    agent.handle.enqueue(Outgoing {
        signal: Signal::Traces,
        payload: request(0..1),
        items: 1,
        permit: Some(permit(&budget, 300)),
    });
    downstream.requests(1).await;
    assert_eq!(budget.available_permits(), 700);
    downstream.release();
    agent.until(|_| budget.available_permits() == 1000).await;
    assert_eq!(agent.forwarded(), 1);
}

#[tokio::test]
async fn other_signals_pass_untouched() {
    // Not even protobuf: the forwarder does not look.
    const METRICS: &[u8] = b"\xff these are metrics";
    const LOGS: &[u8] = b"\xfe these are logs";
    for protocol in PROTOCOLS {
        let downstream = Downstream::start(|_, _| ok()).await;
        let agent = Agent::new(downstream.address, protocol, &[]);
        agent.send_other(Signal::Metrics, METRICS);
        agent.settled().await;
        agent.send_other(Signal::Logs, LOGS);
        agent.settled().await;
        let received = downstream.received();
        assert_eq!(received[0].message, METRICS);
        assert_eq!(received[1].message, LOGS);
        assert!(received[0].path.to_lowercase().contains("metrics"));
        assert!(received[1].path.to_lowercase().contains("logs"));
        assert_eq!(agent.metrics.passed_through.get(), 2);
    }
}
