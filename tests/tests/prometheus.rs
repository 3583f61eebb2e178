//! A real Prometheus scrapes a real agent under traffic: every query of every dashboard
//! gives data, and exemplars lead to traces.

use std::{fs, thread, time::Duration};

use anyhow::Context as _;
use harness::{
    agent::Agent,
    artifact,
    cgroup::Cgroup,
    prometheus::Prometheus,
    service::{Language, Service},
    wait,
};
use serde_json::Value;

/// Every expression of a dashboard, panels within rows included.
fn expressions(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(expression)) = map.get("expr") {
                into.push(expression.clone());
            }
            map.values().for_each(|value| expressions(value, into));
        }
        Value::Array(list) => list.iter().for_each(|value| expressions(value, into)),
        _ => {}
    }
}

/// Grafana's variables as Grafana would fill them in with "All" chosen.
fn fill_in(expression: &str, dashboard: &Value) -> String {
    let mut filled = expression.to_owned();
    for (name, value) in [
        ("__rate_interval", "10s"),
        ("__interval", "5s"),
        ("__range", "60s"),
    ] {
        filled = filled
            .replace(&format!("${{{name}}}"), value)
            .replace(&format!("${name}"), value);
    }
    for variable in dashboard["templating"]["list"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let Some(name) = variable["name"].as_str() else {
            continue;
        };
        filled = filled
            .replace(&format!("${{{name}:regex}}"), ".*")
            .replace(&format!("${{{name}}}"), ".*")
            .replace(&format!("${name}"), ".*");
    }
    filled
}

#[test]
fn every_dashboard_query_gives_data() -> anyhow::Result<()> {
    let agent = Agent::start(&[])?;
    let prometheus = Prometheus::start(&agent.http)?;
    let cgroup = Cgroup::create("isostack-test-grafana")?;
    let endpoint = format!("http://{}", agent.otlp_grpc);
    let service = Service::start(Language::Rust, "svc", &endpoint, Some(&cgroup))?;
    cgroup.limit_cpu(20)?;

    let dir = artifact::root().join("deploy/grafana/dashboards");
    let mut waiting = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&path)?)?;
        let mut found = Vec::new();
        expressions(&dashboard, &mut found);
        assert!(!found.is_empty(), "{} has no query", path.display());
        waiting.extend(
            found
                .iter()
                .map(|expression| fill_in(expression, &dashboard)),
        );
    }
    assert!(!waiting.is_empty(), "no dashboard in {}", dir.display());

    let result = wait::until("data for every query", wait::PATIENCE, || {
        service.request(60).ok()?;
        thread::sleep(Duration::from_millis(500));
        waiting.retain(|query| prometheus.query(query).map_or(true, |data| data.is_empty()));
        waiting.is_empty().then_some(())
    });
    let refused: Vec<_> = waiting
        .iter()
        .filter_map(|query| prometheus.query(query).err())
        .collect();
    assert!(refused.is_empty(), "refused: {refused:#?}");
    assert!(result.is_ok(), "no data: {waiting:#?}");

    let exemplars = wait::until("exemplars", wait::PATIENCE, || {
        let found = prometheus
            .exemplars("isostack_span_duration_seconds_bucket")
            .ok()?;
        (!found.is_empty()).then_some(found)
    })?;
    let trace = exemplars[0]["labels"]["trace_id"]
        .as_str()
        .unwrap_or_default();
    assert_eq!(trace.len(), 32, "{exemplars:?}");
    Ok(())
}
