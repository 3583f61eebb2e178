//! What the store keeps of judged spans, and how it is asked.

use std::sync::Arc;

use isostack_agent::{
    export::{ExportSources, PrometheusConfig, store::Filter},
    time::MonoNs,
    vocabulary::{Cause, Fault},
};

#[path = "support/export.rs"]
mod support;

use support::{Plan, cgroup, identity};

const START: u64 = 1_795_000_000_123_456_789;

fn bench(config: &PrometheusConfig) -> ExportSources {
    support::sources(config, vec![cgroup(71, &[], &[])])
}

fn named() -> PrometheusConfig {
    PrometheusConfig {
        node: "node-7".into(),
        ..PrometheusConfig::default()
    }
}

fn plan(seed: u64) -> Plan {
    Plan {
        service: "shop",
        operation: "GET /",
        seed,
        start: START,
        duration_ms: 100,
        downstream_ms: 0,
        error: false,
        parts: vec![(Cause::Runqueue, 5)],
        verdict: None,
        identity: identity(71, "shop", "pod-a", "web"),
    }
}

fn throttled(seed: u64) -> Plan {
    Plan {
        parts: vec![(Cause::CpuThrottle, 60)],
        verdict: Some((Cause::CpuThrottle, Fault::L3, "")),
        ..plan(seed)
    }
}

fn record(bench: &ExportSources, plans: &[Plan], at_s: u64) {
    let (batch, judgements) = support::batch(plans, MonoNs(at_s * 1_000_000_000));
    bench.store.record(batch, judgements);
}

#[test]
fn the_history_of_incidents_is_bounded() {
    let bench = bench(&named());
    for seed in 0..600 {
        let mut plan = throttled(seed);
        plan.verdict = Some((Cause::CpuThrottle, Fault::L3, cgroup_name(seed)));
        record(&bench, &[plan.clone(), plan], seed);
    }
    let found = bench.store.incidents(&all());
    let shown = format!("{found:?}");
    assert_eq!(shown.matches("worst:").count(), 500);
    assert!(
        shown.contains("incidents: 600, verdicts: 1200"),
        "{shown:.200}"
    );
}

/// A name that lives for ever, as plans want.
fn cgroup_name(n: u64) -> &'static str {
    Box::leak(format!("neighbour-{n}").into_boxed_str())
}

fn all() -> Filter {
    Filter {
        limit: 1_000,
        ..Filter::default()
    }
}

#[test]
fn a_flood_of_healthy_spans_is_sampled_and_displaces_no_verdict() {
    let bench = bench(&named());
    record(&bench, &[throttled(1)], 5);
    let mut flood: Vec<_> = (10..5_010).map(plan).collect();
    flood.insert(2_000, throttled(9_999));
    record(&bench, &flood, 5);
    let kept = bench.store.spans(&all());
    assert_eq!(kept.len(), 500, "the ring is full");
    assert_eq!(bench.store.verdicts(&all()).len(), 2);
    record(&bench, &[plan(6_000)], 5);
    let (latest, _) = support::judged(&plan(5_009));
    let of_trace = |trace_id| Filter {
        trace_id: Some(trace_id),
        ..all()
    };
    assert_eq!(
        bench.store.spans(&of_trace(latest.trace_id)).len(),
        1,
        "the last are kept"
    );
    let (over, _) = support::judged(&plan(6_000));
    assert_eq!(
        bench.store.spans(&of_trace(over.trace_id)).len(),
        0,
        "the second's budget is used up"
    );
    record(&bench, &[plan(6_001)], 6);
    let (next, _) = support::judged(&plan(6_001));
    assert_eq!(
        bench.store.spans(&of_trace(next.trace_id)).len(),
        1,
        "a new second has a new one"
    );
}

#[test]
fn queries_choose_newest_first() {
    let bench = bench(&named());
    let other = Plan {
        service: "payment",
        parts: vec![(Cause::Steal, 70)],
        verdict: Some((Cause::Steal, Fault::L1, "")),
        ..plan(2)
    };
    record(&bench, &[throttled(1), other, plan(3), throttled(4)], 1);
    let ids = |filter: &Filter| -> Vec<String> {
        let rows = bench.store.verdicts(filter);
        let id = |s: &Arc<_>| {
            let row = isostack_agent::export::view::verdict_json(s, None).unwrap();
            row["trace_id"].as_str().unwrap()[16..]
                .trim_start_matches('0')
                .to_owned()
        };
        rows.iter().map(id).collect()
    };
    assert_eq!(ids(&all()), ["4", "2", "1"]);
    assert_eq!(ids(&Filter { limit: 1, ..all() }), ["4"]);
    assert_eq!(
        ids(&Filter {
            service: Some("payment".into()),
            ..all()
        }),
        ["2"]
    );
    assert_eq!(
        ids(&Filter {
            cause: Some(Cause::CpuThrottle),
            ..all()
        }),
        ["4", "1"]
    );
    assert!(
        ids(&Filter {
            cause: Some(Cause::Sleep),
            ..all()
        })
        .is_empty()
    );
}

#[test]
fn workloads_are_counted_and_bounded() {
    let bench = bench(&named());
    record(&bench, &[plan(1), throttled(2)], 1);
    for process in 100..1_200 {
        let identity = identity(process, "n", "p", "c");
        record(
            &bench,
            &[Plan {
                identity,
                ..plan(process)
            }],
            process,
        );
    }
    record(&bench, &[plan(3)], 5_000);
    let workloads = bench.store.workloads(10_000);
    assert_eq!(workloads.len(), 1_000);
    let row = |limit| {
        let seen = bench.store.workloads(limit);
        (seen.len(), seen.first().map(|w| w.spans()))
    };
    assert_eq!(
        row(1),
        (1, Some(1)),
        "the first one was forgotten, and counts anew"
    );
}
