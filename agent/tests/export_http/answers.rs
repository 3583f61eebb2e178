//! What the API answers is what its description says.

use super::*;

#[tokio::test]
async fn every_documented_path_answers_as_documented_and_none_is_undocumented() {
    let server = start().await;
    server.record(1..3);
    let spec = server.get("/api/v1/openapi.yaml").await.body;
    let documented: Vec<_> = spec
        .lines()
        .filter_map(|l| l.strip_prefix("  /")?.strip_suffix(':'))
        .map(|p| format!("/{p}"))
        .collect();
    let routes = include_str!("../../src/export/http/routes.rs");
    let mut routed: Vec<_> = routes
        .split(".route(")
        .skip(1)
        .map(|r| r.split('"').nth(1).unwrap().to_owned())
        .collect();
    routed.sort();
    let mut sorted = documented.clone();
    sorted.sort();
    assert_eq!(sorted, routed);

    let rows = server.get("/api/v1/verdicts?limit=1").await.json();
    let trace = rows["verdicts"][0]["trace_id"].as_str().unwrap();
    for path in documented.iter().filter(|p| !p.ends_with("/stream")) {
        let answer = server.get(&path.replace("{trace_id}", trace)).await;
        assert_eq!(answer.status, 200, "{path}");
        let section = spec.split(&format!("\n  {path}:\n")).nth(1).unwrap();
        let section = section.split("\n  /").next().unwrap();
        let kind = answer
            .header("content-type")
            .split(';')
            .next()
            .unwrap()
            .to_owned();
        let by_reference =
            section.contains("#/components/responses/") && kind == "application/json";
        assert!(
            section.contains(&kind) || by_reference,
            "{path} answers {kind}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        let policy = answer.header("content-security-policy");
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe"),
            "{path}"
        );
        assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
    }
    assert_eq!(server.get("/api/v2/x").await.status, 404);
    server.stop().await;
}

#[tokio::test]
async fn a_verdict_has_the_shape_that_machines_rely_on() {
    let server = start().await;
    server.record(1..4);
    let answer = server
        .get("/api/v1/verdicts?limit=2&service=shop&cause=cpu_throttle")
        .await;
    let rows = answer.json();
    let rows = rows["verdicts"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    let row = rows[0].as_object().unwrap();
    for field in [
        "trace_id",
        "span_id",
        "service",
        "operation",
        "start_unix_nano",
        "duration_ms",
        "self_time_ms",
        "fault",
        "cause",
        "share",
        "culprit",
        "confidence",
        "layer",
        "split",
        "incident",
    ] {
        assert!(row.contains_key(field), "{field} in {row:?}");
    }
    assert_eq!(
        row["start_unix_nano"],
        START.to_string(),
        "a string, every digit of it"
    );
    assert_eq!(row["operation"], "<b>GET</b> /\u{7}\"");
    assert_eq!(row["fault"], "L-3");
    assert_eq!(row["share"], 0.75);
    assert_eq!(row["self_time_ms"], 160.0);
    assert_eq!(row["layer"], "L-3");
    assert_eq!(row["confidence"], "process");
    let split = row["split"].as_object().unwrap();
    let sum: f64 = split.values().map(|v| v.as_f64().unwrap()).sum();
    assert_eq!(sum, 160.0);
    assert_eq!(row["intervals"].as_array().unwrap().len(), 5);
    let trace = row["trace_id"].as_str().unwrap();
    let one = server
        .get(&format!("/api/v1/spans?trace_id={trace}"))
        .await
        .json();
    assert_eq!(one["spans"][0]["verdict"]["cause"], "cpu_throttle");
    let workloads = server.get("/api/v1/workloads").await.json();
    assert_eq!(workloads["workloads"][0]["verdicts"], 3);
    assert_eq!(workloads["workloads"][0]["services"][0], "shop");
    server.stop().await;
}

#[tokio::test]
async fn incidents_tell_who_was_affected_and_since_when() {
    let server = start().await;
    let none = server.get("/api/v1/incidents").await.json();
    assert_eq!(
        (&none["total"], &none["convergence"]),
        (&0.into(), &0.0.into())
    );
    server.record(1..11);
    let (mut pay, mut later) = (plan(12), plan(13));
    pay.service = "pay";
    pay.parts = vec![(Cause::CpuThrottle, 150)];
    later.start = START + 7;
    later.verdict = Some((Cause::Runqueue, Fault::Host, "hog"));
    later.parts = vec![(Cause::Runqueue, 100)];
    let (batch, judgements) = support::batch(&[pay, later], MonoNs(99_000_000_000));
    server.sources.store.record(batch, judgements);

    let all = server.get("/api/v1/incidents").await.json();
    assert_eq!((&all["total"], &all["verdicts"]), (&2.into(), &12.into()));
    let convergence = all["convergence"].as_f64().unwrap();
    assert!((convergence - (1.0 - 2.0 / 12.0)).abs() < 1e-9);
    let rows = all["incidents"].as_array().unwrap();
    assert_eq!(rows[0]["culprit"], "hog", "the latest first");
    let quota = &rows[1];
    assert_eq!(
        (&quota["verdicts"], &quota["lost_ms"]),
        (&11.into(), &1350.0.into())
    );
    assert_eq!(quota["start_unix_nano"], START.to_string());
    let end = (START + 200_000_000).to_string();
    assert_eq!(
        (&quota["last_seen_unix_nano"], &quota["end_unix_nano"]),
        (&end.clone().into(), &end.into())
    );
    let services = quota["services"].as_array().unwrap();
    assert_eq!(
        (&services[0]["service"], &services[0]["verdicts"]),
        (&"pay".into(), &1.into())
    );
    assert_eq!(services[1]["operations"][0], "<b>GET</b> /\u{7}\"");
    assert_eq!(quota["worst_ms"], 150.0);
    let worst = quota["trace_id"].as_str().unwrap();
    let span = server
        .get(&format!("/api/v1/spans?trace_id={worst}"))
        .await
        .json();
    assert_eq!(span["spans"][0]["service"], "pay");

    for (query, count) in [
        ("service=pay", 1),
        ("cause=runqueue", 1),
        ("limit=1", 1),
        ("service=x", 0),
    ] {
        let some = server
            .get(&format!("/api/v1/incidents?{query}"))
            .await
            .json();
        assert_eq!(
            some["incidents"].as_array().unwrap().len(),
            count,
            "{query}"
        );
    }
    let page = server.get("/metrics").await.body;
    for series in [
        "isostack_incidents_total{service=\"shop\",cause=\"cpu_throttle\",fault=\"L-3\"} 1",
        "isostack_incidents_total{service=\"shop\",cause=\"runqueue\",fault=\"host\"} 1",
    ] {
        assert!(page.contains(series), "{series}");
    }
    assert!(
        !page.contains("isostack_incidents_total{service=\"pay\""),
        "it opened none"
    );
    server.stop().await;
}

#[tokio::test]
async fn events_name_who_suffered_and_who_limited() {
    let server = start().await;
    let limiter = Limiter {
        cgroup_id: 7,
        cgroup_path: "/kubepods/burstable".into(),
        cores: 0.5,
        quota_file: "cpu.max",
        is_ancestor: true,
    };
    let delay = Delay {
        cause: Cause::CpuThrottle,
        start: MonoNs(1_000_000),
        end: MonoNs(4_500_000),
        process: ProcessKey {
            pid: 42,
            start_ticks: 1,
        },
        tid: 43,
        cpu: 1,
        cgroup_id: 71,
        particulars: Particulars::Limiter(Arc::new(limiter)),
    };
    let store = &server.sources.store;
    store.record_event(&Event::Delay(delay), UnixNs(START));
    let steal = |stolen_ns| {
        Event::Steal(Steal {
            cpu: 3,
            start: MonoNs(1),
            end: MonoNs(2),
            stolen_ns,
        })
    };
    store.record_event(&steal(0), UnixNs(START));
    store.record_event(&steal(2_000_000), UnixNs(START));
    let rows = server.get("/api/v1/events").await.json();
    let rows = rows["events"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "a poll without steal is no event");
    assert_eq!(
        (&rows[0]["cause"], &rows[0]["duration_ms"]),
        (&"steal".into(), &2.0.into())
    );
    let row = &rows[1];
    assert_eq!(row["start_unix_nano"], START.to_string());
    assert_eq!(row["duration_ms"], 3.5);
    assert_eq!(row["workload"], "shop/checkout-7d9f6c5b4-x2x9q/checkout");
    assert_eq!(row["limiter"], "/kubepods/burstable");
    let one = server.get("/api/v1/events?cause=cpu_throttle").await.json();
    assert_eq!(one["events"].as_array().unwrap().len(), 1);
    server.stop().await;
}
