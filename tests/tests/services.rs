//! The services and Jaeger by themselves, without the agent: what the other tests stand on.

use harness::{
    cgroup::Cgroup,
    jaeger::Jaeger,
    service::{Language, Service},
    wait,
};

fn reaches_jaeger(language: Language, spans: usize) -> anyhow::Result<()> {
    let jaeger = Jaeger::start()?;
    let endpoint = if language.speaks_grpc() {
        jaeger.otlp_grpc()
    } else {
        jaeger.otlp_http()
    };
    let service = Service::start(language, "svc", &endpoint, None)?;
    let trace = service.trace_of_request(5)?;
    let seen = jaeger.wait_for_trace(&trace, spans)?;
    assert_eq!(seen.len(), spans, "{seen:?}");
    assert!(
        seen.iter()
            .any(|span| span.text("http.request.method") == "GET"),
        "{seen:?}"
    );
    Ok(())
}

#[test]
fn rust_exports_by_grpc() -> anyhow::Result<()> {
    reaches_jaeger(Language::Rust, 3)
}

#[test]
fn python_exports_by_grpc() -> anyhow::Result<()> {
    reaches_jaeger(Language::Python, 2)
}

#[test]
fn node_exports_by_http_json() -> anyhow::Result<()> {
    reaches_jaeger(Language::Node, 2)
}

#[test]
fn java_exports_by_http_protobuf() -> anyhow::Result<()> {
    reaches_jaeger(Language::Java, 2)
}

#[test]
fn a_quota_stretches_the_request_and_not_its_cpu_time() -> anyhow::Result<()> {
    let cgroup = Cgroup::create("isostack-test-shop")?;
    let service = Service::start(Language::Rust, "shop", "http://127.0.0.1:9", Some(&cgroup))?;
    cgroup.limit_cpu(20)?;
    service.request(100)?;
    let stat = wait::until("throttled time", wait::PATIENCE, || {
        cgroup
            .cpu_stat()
            .ok()
            .filter(|stat| !stat.throttled.is_zero())
    })?;
    assert!(stat.throttled_periods >= 2, "{stat:?}");
    Ok(())
}
