//! What the metrics page says about judged spans and kernel histograms.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, helpers included"
)]

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
};

use isostack_agent::{
    event::{Delay, Event, Particulars, Steal},
    export::{ExportSources, LabelSource, PrometheusConfig, prometheus::Format, store::Filter},
    metrics::Reason,
    process::ProcessKey,
    sensor::{CgroupCpu, Counted},
    time::{MonoNs, UnixNs},
    vocabulary::{Cause, Fault, Layer},
    workload::Workload,
};

#[path = "support/export.rs"]
mod support;

use support::{MS, Plan, cgroup, identity};

const START: u64 = 1_795_000_000_123_456_789;

fn bench(config: &PrometheusConfig) -> ExportSources {
    support::sources(config, Vec::new())
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

fn all() -> Filter {
    Filter {
        limit: 1_000,
        service: None,
        cause: None,
        trace_id: None,
        from: None,
        to: None,
        workload: None,
    }
}

fn label(of: &'static [(u64, &'static str)]) -> LabelSource {
    Arc::new(move |id| {
        let (_, container) = of.iter().find(|(known, _)| *known == id)?;
        let workload = Workload {
            container: (*container).to_owned(),
            ..Workload::default()
        };
        Some((Layer::Container, workload))
    })
}

/// Samples by name and labels, without exemplars.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let sample = |line: &str| {
        let line = line.split(" # {").next().unwrap();
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    page.lines()
        .filter(|l| !l.starts_with('#'))
        .map(sample)
        .collect()
}

fn page(bench: &ExportSources, cgroups: &[CgroupCpu], label: &LabelSource, at_s: u64) -> String {
    let now = MonoNs(at_s * 1_000_000_000);
    bench
        .exposition
        .text(Format::OpenMetrics, &counted(cgroups), label, now)
}

fn counted(cgroups: &[CgroupCpu]) -> Counted {
    Counted {
        cpu: cgroups.to_vec(),
        measured: Vec::new(),
    }
}

#[test]
fn steal_is_summed_and_events_are_kept() {
    let bench = bench(&named());
    let steal = |stolen_ns| {
        Event::Steal(Steal {
            cpu: 0,
            start: MonoNs(1),
            end: MonoNs(2),
            stolen_ns,
        })
    };
    bench.store.record_event(&steal(1_500 * MS), UnixNs(START));
    bench.store.record_event(&steal(500 * MS), UnixNs(START));
    bench.store.record_event(
        &Event::Delay(Delay {
            cause: Cause::Runqueue,
            start: MonoNs(0),
            end: MonoNs(2 * MS),
            process: ProcessKey {
                pid: 1,
                start_ticks: 1,
            },
            tid: 1,
            cpu: 0,
            cgroup_id: 71,
            particulars: Particulars::None,
        }),
        UnixNs(START),
    );
    let page = page(&bench, &[], &label(&[]), 1);
    assert!(
        page.contains("isostack_cpu_steal_seconds_total{node=\"node-7\"} 2.0\n"),
        "{page}"
    );
}

#[test]
fn kernel_histograms_are_folded_without_losing_a_count() {
    let bench = bench(&named());
    // Slot 10 ends at 2^20 ns, slot 11 at 2^21; the last slot has no end.
    let counted = cgroup(71, &[(10, 3), (11, 2), (25, 7)], &[(0, 1), (1, 4)]);
    let sums = (counted.throttled.sum_ns, counted.runqueue.sum_ns);
    let page = page(&bench, &[counted], &label(&[(71, "web")]), 1);
    let samples = samples(&page);
    let labels =
        "layer=\"L-3\",node=\"node-7\",namespace=\"\",pod=\"\",container=\"web\",runtime=\"\"";
    let of = |name: &str, le: &str| samples[&format!("isostack_{name}{{{labels}{le}}}")];
    let interval = "cpu_throttle_interval_seconds";
    assert_eq!(
        of(&format!("{interval}_bucket"), ",le=\"0.000262144\""),
        0.0
    );
    assert_eq!(
        of(&format!("{interval}_bucket"), ",le=\"0.001048576\""),
        3.0
    );
    assert_eq!(
        of(&format!("{interval}_bucket"), ",le=\"0.002097152\""),
        5.0
    );
    assert_eq!(
        of(&format!("{interval}_bucket"), ",le=\"4.294967296\""),
        5.0
    );
    assert_eq!(of(&format!("{interval}_bucket"), ",le=\"+Inf\""), 12.0);
    assert_eq!(of(&format!("{interval}_count"), ""), 12.0);
    assert_eq!(of(&format!("{interval}_sum"), ""), sums.0 as f64 / 1e9);
    assert_eq!(of("cpu_throttled_seconds_total", ""), sums.0 as f64 / 1e9);
    assert_eq!(of("runqueue_seconds_bucket", ",le=\"0.000001024\""), 1.0);
    assert_eq!(of("runqueue_seconds_bucket", ",le=\"0.000008192\""), 5.0);
    assert_eq!(of("runqueue_seconds_sum", ""), sums.1 as f64 / 1e9);
}

#[test]
fn counters_never_fall_when_cgroups_come_go_and_get_names() {
    let bench = bench(&named());
    let web = label(&[(1, "web"), (2, "web"), (3, "db")]);
    let count = |cgroups: &[CgroupCpu], label: &LabelSource, at: u64, container: &str| {
        let samples = samples(&page(&bench, cgroups, label, at));
        let mut found = samples.iter().filter(|(name, _)| {
            name.starts_with("isostack_runqueue_seconds_count")
                && name.contains(&format!("container=\"{container}\""))
        });
        let value = found.next().map(|(_, v)| *v);
        assert!(found.next().is_none(), "one series for one set of labels");
        value
    };
    let counted = |id, n| cgroup(id, &[], &[(4, n)]);
    assert_eq!(
        count(&[counted(1, 10), counted(2, 5)], &web, 1, "web"),
        Some(15.0)
    );
    assert_eq!(
        count(&[counted(1, 12)], &web, 2, "web"),
        Some(17.0),
        "the second one is gone"
    );
    assert_eq!(
        count(&[counted(1, 12), counted(2, 1)], &web, 3, "web"),
        Some(18.0),
        "its id is used again"
    );
    assert_eq!(
        count(
            &[counted(1, 12), counted(3, 40)],
            &label(&[(1, "web")]),
            4,
            "db"
        ),
        None
    );
    assert_eq!(
        count(&[counted(1, 12), counted(3, 41)], &web, 5, "db"),
        Some(41.0),
        "named later, nothing lost"
    );
    assert_eq!(count(&[], &web, 200, "web"), Some(18.0));
    assert_eq!(count(&[], &web, 900, "web"), None, "forgotten in the end");
}

#[test]
fn exemplars_sit_in_the_bucket_of_their_value() {
    let bench = bench(&named());
    // Five stretches of 12 ms: between 2^23 (8.4 ms) and 2^24 ns (16.8 ms), slot 14.
    record(&bench, &[throttled(7)], 1);
    let page = page(
        &bench,
        &[cgroup(71, &[(14, 5), (20, 1)], &[])],
        &label(&[(71, "web")]),
        1,
    );
    let (span, _) = support::judged(&throttled(7));
    let trace: String = span.trace_id.iter().map(|b| format!("{b:02x}")).collect();
    let with: Vec<_> = page
        .lines()
        .filter(|l| l.starts_with("isostack_cpu_throttle_interval") && l.contains(" # {"))
        .collect();
    assert_eq!(with.len(), 1, "{with:?}");
    assert!(with[0].contains("le=\"0.016777216\"} 5 # {"), "{with:?}");
    assert!(
        with[0].contains(&format!("trace_id=\"{trace}\"")),
        "{with:?}"
    );
    assert!(with[0].contains("\"} 0.012 "), "{with:?}");
    let of_span = page.lines().filter(|l| l.contains(" # {"));
    assert!(
        of_span
            .clone()
            .any(|l| l.starts_with("isostack_span_duration_seconds_bucket"))
    );
    assert!(
        of_span
            .clone()
            .any(|l| l.starts_with("isostack_verdicts_total"))
    );
}

#[test]
fn spans_are_counted_by_service_operation_status_and_cause() {
    let bench = bench(&named());
    let failed = Plan {
        error: true,
        ..plan(2)
    };
    record(&bench, &[plan(1), failed, throttled(3)], 1);
    let samples = samples(&page(&bench, &[], &label(&[]), 1));
    let duration = "isostack_span_duration_seconds_count{service=\"shop\",operation=\"GET /\"";
    assert_eq!(samples[&format!("{duration},status=\"unset\"}}")], 2.0);
    assert_eq!(samples[&format!("{duration},status=\"error\"}}")], 1.0);
    let cause = "isostack_span_cause_seconds_total{service=\"shop\"";
    assert_eq!(
        samples[&format!("{cause},cause=\"cpu_throttle\",fault=\"L-3\"}}")],
        0.06
    );
    assert_eq!(
        samples[&format!("{cause},cause=\"runqueue\",fault=\"host\"}}")],
        0.01
    );
    let verdicts = "isostack_verdicts_total{service=\"shop\",cause=\"cpu_throttle\",fault=\"L-3\"}";
    assert_eq!(samples[verdicts], 1.0);
}

#[test]
fn impossible_times_spoil_no_sum() {
    let bench = bench(&named());
    let plans = [plan(1), plan(2), plan(3), plan(4)];
    let (mut batch, judgements) = support::batch(&plans, MonoNs(1));
    batch.spans[0].start_unix_ns = 0;
    batch.spans[1].end_unix_ns = batch.spans[1].start_unix_ns - 1;
    batch.spans[2].end_unix_ns = u64::MAX;
    bench.store.record(batch, judgements);
    let samples = samples(&page(&bench, &[], &label(&[]), 1));
    let labels = "{service=\"shop\",operation=\"GET /\",status=\"unset\"}";
    assert_eq!(
        samples[&format!("isostack_span_duration_seconds_count{labels}")],
        1.0
    );
    assert_eq!(
        samples[&format!("isostack_span_duration_seconds_sum{labels}")],
        0.1
    );
    assert_eq!(bench.store.spans(&all()).len(), 4, "shown all the same");
    let rows = bench.store.spans(&all());
    for row in rows
        .iter()
        .map(|s| isostack_agent::export::view::span_json(s, None))
    {
        assert!(row["duration_ms"].as_f64().unwrap() >= 0.0);
    }
}

#[test]
fn made_up_service_names_leave_the_page_bounded() {
    let config = PrometheusConfig {
        max_series: 200,
        ..named()
    };
    let bench = bench(&config);
    let names: Vec<&'static str> = (0..3_000)
        .map(|i| &*Box::leak(format!("made-up-{i}").into_boxed_str()))
        .collect();
    for chunk in names.chunks(100) {
        let plans: Vec<_> = chunk
            .iter()
            .map(|&service| Plan { service, ..plan(1) })
            .collect();
        record(&bench, &plans, 1);
    }
    let first = Plan {
        service: "made-up-0",
        ..plan(1)
    };
    record(&bench, &[first], 1);
    let counted = [cgroup(1, &[(1, 1)], &[(1, 1)])];
    let samples = samples(&page(&bench, &counted, &label(&[(1, "web")]), 1));
    let made_up = samples
        .keys()
        .filter(|name| name.contains("made-up"))
        .count();
    assert!((100..=150).contains(&made_up), "{made_up}");
    let kernel = samples.keys().filter(|name| name.contains("\"web\""));
    assert_eq!(kernel.count(), 39, "no sender pushes them off the page");
    let first = "isostack_span_duration_seconds_count{service=\"made-up-0\",operation=\"GET /\",status=\"unset\"}";
    assert_eq!(
        samples[first], 2.0,
        "what has a series goes on being counted"
    );
}

#[test]
fn operations_beyond_the_bound_are_counted_as_other() {
    let config = PrometheusConfig {
        max_operations: 2,
        ..named()
    };
    let bench = bench(&config);
    let of = |operation| Plan {
        operation,
        ..plan(1)
    };
    record(&bench, &[of("a"), of("b"), of("c"), of("d"), of("a")], 1);
    let samples = samples(&page(&bench, &[], &label(&[]), 1));
    let lost = "isostack_agent_spans_lost_total{reason=\"rejected\"}";
    assert_eq!(samples[lost], 0.0, "an increase from nothing is not seen");
    let count = |operation| {
        let name = "isostack_span_duration_seconds_count{service=\"shop\",operation";
        samples
            .get(&format!("{name}=\"{operation}\",status=\"unset\"}}"))
            .copied()
    };
    assert_eq!(count("a"), Some(2.0));
    assert_eq!(count("other"), Some(2.0));
    assert_eq!(count("c"), None);
}

#[test]
fn the_cap_on_series_holds_and_says_what_it_left_out() {
    let config = PrometheusConfig {
        max_series: 100,
        ..named()
    };
    let bench = bench(&config);
    let operations = ["a", "b", "c", "d", "e", "f", "g"];
    let plans = operations.map(|operation| Plan {
        operation,
        ..plan(1)
    });
    record(&bench, &plans, 1);
    let cgroups: Vec<_> = (1..=3).map(|id| cgroup(id, &[(1, 1)], &[(1, 1)])).collect();
    let page = page(&bench, &cgroups, &label(&[(1, "x"), (2, "y"), (3, "z")]), 1);
    let own =
        |name: &&String| !name.starts_with("isostack_agent") && !name.starts_with("isostack_build");
    let samples = samples(&page);
    let shown = samples.keys().filter(own).count();
    assert!(
        (50..=101).contains(&shown),
        "{shown} series (one more for steal)"
    );
    assert!(samples["isostack_agent_series_overflow_total"] > 0.0);
    assert_eq!(
        samples["isostack_agent_series_overflow_total"],
        bench.metrics.series_overflow.get() as f64
    );
}

#[test]
fn hostile_names_stay_inside_their_quotes_and_promtool_accepts_the_page() {
    let bench = bench(&named());
    let hostile = "a\"b\\c\nd # {e=\"f\"} 1 é";
    let plans = [
        Plan {
            service: "x\ny\"\\",
            operation: "a\"b\\c\nd # {e=\"f\"} 1 é",
            ..throttled(1)
        },
        Plan {
            service: "",
            operation: "",
            ..plan(2)
        },
        Plan {
            operation: "e\u{202e}f",
            ..plan(3)
        },
    ];
    record(&bench, &plans, 1);
    let workload = Workload {
        container: hostile.into(),
        ..Workload::default()
    };
    let label: LabelSource = Arc::new(move |_| Some((Layer::Container, workload.clone())));
    bench.metrics.spans_joined.inc();
    let cgroups = [cgroup(71, &[(14, 5)], &[(3, 1)])];
    let open = page(&bench, &cgroups, &label, 1);
    let escaped = "container=\"a\\\"b\\\\c\\nd # {e=\\\"f\\\"} 1 é\"";
    assert!(open.contains(escaped), "{open}");
    assert!(
        open.contains("operation=\"a\\\"b\\\\c\\nd # {e=\\\"f\\\"} 1 é\""),
        "{open}"
    );
    assert!(open.ends_with("# EOF\n"));
    assert_eq!(open.matches("# EOF").count(), 1);

    assert!(
        open.contains("operation=\"e\\\\u{202e}f\""),
        "what turns the text round is shown by its number: {open}"
    );

    let classic = bench
        .exposition
        .text(Format::Classic, &counted(&cgroups), &label, MonoNs(2));
    assert!(
        !classic.contains("# EOF") && !classic.contains("# UNIT") && !classic.contains("trace_id")
    );
    assert!(
        classic.contains(escaped),
        "the exemplar's sign inside of quotes is not one"
    );
    assert!(classic.contains("# TYPE isostack_verdicts_total counter\n"));
    assert!(classic.contains("# TYPE isostack_build_info gauge\n"));
    promtool(&classic);
}

#[test]
fn dashboard_and_alerts_ask_for_series_that_exist() {
    let bench = bench(&named());
    record(&bench, &[plan(1), throttled(2)], 1);
    let reason = || Reason { reason: "any" };
    drop(bench.metrics.spans_refused.get_or_create(&reason()));
    drop(bench.metrics.spans_lost.get_or_create(&reason()));
    drop(bench.metrics.events_dropped.get_or_create(&reason()));
    let page = page(
        &bench,
        &[cgroup(71, &[(14, 5)], &[(3, 1)])],
        &label(&[(71, "web")]),
        1,
    );
    let asked = [
        include_str!("../../deploy/grafana/dashboards/isostack.json"),
        include_str!("../../deploy/prometheus/alerts.yml"),
    ]
    .concat();
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let names: std::collections::BTreeSet<_> = asked
        .split(|c| !is_name(c))
        .filter(|word| word.starts_with("isostack_"))
        .collect();
    assert!(names.len() > 20, "{names:?}");
    // What the kernel side aggregates is on a page only where a sensor has counted it.
    let measured: Vec<_> = isostack_agent::sensor::families()
        .map(|(_, family)| family.name)
        .collect();
    for name in names {
        let parts = ["_total", "_bucket", "_count", "_sum"];
        let of_family = parts
            .iter()
            .filter_map(|part| name.strip_suffix(part))
            .any(|family| measured.contains(&family));
        let with_labels = page.contains(&format!("\n{name}{{"));
        assert!(
            of_family || with_labels || page.contains(&format!("\n{name} ")),
            "{name}"
        );
    }
}

#[test]
fn the_format_is_what_the_scraper_asked_for() {
    let of = |accept| Format::negotiate(Some(accept));
    let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;\
        version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(of(prometheus), Format::OpenMetrics);
    assert_eq!(
        of("application/openmetrics-text; version=1.0.0"),
        Format::OpenMetrics
    );
    assert_eq!(of("text/plain"), Format::Classic);
    assert_eq!(
        of("text/plain, application/openmetrics-text;q=0.2"),
        Format::Classic
    );
    assert_eq!(of("application/openmetrics-text;q=0"), Format::Classic);
    assert_eq!(of("*/*"), Format::Classic);
    assert_eq!(Format::negotiate(None), Format::Classic);
}

/// Prometheus' own checker, where it is installed.
fn promtool(page: &str) {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => return eprintln!("not checked with promtool: {error}"),
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(page.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}\n{page}");
}
