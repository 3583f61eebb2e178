//! Jaeger is killed and started again in the middle of a run. What the agent acknowledged
//! arrives; twice only what was on the wire when the connection broke.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    thread,
    time::Duration,
};

use harness::{
    agent::Agent,
    jaeger::{Jaeger, Place},
    otlp, wait,
};

const SPANS: u64 = 5;

/// Sends requests `from..to`, one each 10 ms, and gives back those that were acknowledged.
fn send(agent: &Agent, from: u64, to: u64) -> anyhow::Result<BTreeSet<u64>> {
    let mut acknowledged = BTreeSet::new();
    for sequence in from..to {
        if otlp::send(&agent.otlp_http, "svc", sequence, SPANS)? {
            acknowledged.insert(sequence);
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(acknowledged)
}

fn expected(requests: &BTreeSet<u64>) -> BTreeSet<String> {
    let spans = requests
        .iter()
        .flat_map(|r| (0..SPANS).map(|i| otlp::span_id(*r, i)));
    spans.collect()
}

/// How often Jaeger has each span that the test sent.
fn seen(jaeger: &Jaeger, requests: impl Iterator<Item = u64>) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for sequence in requests {
        for span in jaeger.trace(&otlp::trace_id(sequence)).unwrap_or_default() {
            if !span.is_synthetic() {
                *seen.entry(span.span_id).or_default() += 1;
            }
        }
    }
    seen
}

#[test]
fn every_acknowledged_span_arrives() -> anyhow::Result<()> {
    // A database on disk: what the killed Jaeger had taken is still there afterwards.
    let storage = tempfile::tempdir()?;
    let place = Place::new(Ipv4Addr::LOCALHOST)?.stored_in(storage.path());
    let jaeger = Jaeger::start_at(&place)?;
    let agent = Agent::start(&[
        "--export-endpoint",
        &jaeger.otlp_grpc(),
        "--settle",
        "100ms",
    ])?;
    let mut acknowledged = send(&agent, 0, 100)?;
    drop(jaeger); // SIGKILL, with spans settling, queued and on the wire
    acknowledged.extend(send(&agent, 100, 200)?);
    let jaeger = Jaeger::start_at(&place)?;
    acknowledged.extend(send(&agent, 200, 300)?);

    assert_eq!(
        acknowledged.len(),
        300,
        "there was room for all: none may be refused"
    );
    let expected = expected(&acknowledged);
    wait::until("every acknowledged span in Jaeger", wait::PATIENCE, || {
        let seen = seen(&jaeger, 0..300);
        expected
            .iter()
            .all(|span| seen.contains_key(span))
            .then_some(())
    })
    .map_err(|error| {
        let seen = seen(&jaeger, 0..300);
        let missing: Vec<_> = expected
            .iter()
            .filter(|span| !seen.contains_key(*span))
            .collect();
        error.context(format!("missing {missing:?}\n{}", agent.process.output()))
    })
}

#[test]
fn a_span_comes_twice_only_when_the_answer_was_lost() -> anyhow::Result<()> {
    // In memory: each incarnation shows what it was sent, and how often.
    let place = Place::new(Ipv4Addr::LOCALHOST)?;
    let first = Jaeger::start_at(&place)?;
    let agent = Agent::start(&["--export-endpoint", &first.otlp_grpc(), "--settle", "100ms"])?;
    send(&agent, 0, 100)?;
    let by_first = seen(&first, 0..100);
    drop(first);
    send(&agent, 100, 200)?;
    let second = Jaeger::start_at(&place)?;
    send(&agent, 200, 300)?;
    let last = expected(&BTreeSet::from([299]));
    wait::until("the last span in Jaeger", wait::PATIENCE, || {
        let seen = seen(&second, 299..300);
        last.iter()
            .all(|span| seen.contains_key(span))
            .then_some(())
    })?;

    let by_second = seen(&second, 0..300);
    let twice: Vec<_> = by_second.iter().filter(|(_, count)| **count > 1).collect();
    assert!(
        twice.is_empty(),
        "no connection to the second was lost: {twice:?}"
    );
    let again = by_first
        .keys()
        .filter(|span| by_second.contains_key(*span))
        .count();
    // The first showed them before it was killed, so they were delivered; the only ones that
    // may come again are those whose answer had not come yet: the newest.
    assert!(again <= 10 * SPANS as usize, "{again} spans came again");
    assert!(
        by_first.len() >= 50 * SPANS as usize,
        "the first had {}",
        by_first.len()
    );
    Ok(())
}
