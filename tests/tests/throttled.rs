//! The main job, end to end: a real service under a CPU quota, its spans through the agent
//! into a real Jaeger, and what Jaeger then says.

use std::time::Duration;

use anyhow::Context as _;
use harness::{
    agent::Agent,
    cgroup::Cgroup,
    jaeger::{Jaeger, Span},
    service::{Language, Service},
};

/// CPU time of a slow request: five periods of a 20 % quota, so fewer throttled intervals
/// than a span may have child spans.
const WORK_MS: u64 = 100;

/// An agent that exports to a Jaeger, and a service that exports to the agent. The service
/// has one CPU, so that `cpu.stat`, which counts per CPU, counts what a person would.
struct Path {
    service: Service,
    cgroup: Cgroup,
    agent: Agent,
    jaeger: Jaeger,
}

impl Path {
    fn start(language: Language) -> anyhow::Result<Self> {
        let jaeger = Jaeger::start()?;
        let agent = Agent::start(&["--export-endpoint", &jaeger.otlp_grpc()])?;
        let cgroup = Cgroup::create("isostack-test-throttled")?;
        let to = if language.speaks_grpc() {
            &agent.otlp_grpc
        } else {
            &agent.otlp_http
        };
        let service = Service::start_inside(
            &["taskset", "-c", "1"],
            language,
            "svc",
            &format!("http://{to}"),
            Some(&cgroup),
        )?;
        Ok(Self {
            service,
            cgroup,
            agent,
            jaeger,
        })
    }

    /// Some requests at full speed: code paths are warm, the exporter is connected, and the
    /// agent knows what is normal.
    fn warm_up(&self) -> anyhow::Result<()> {
        for _ in 0..5 {
            let trace = self.service.trace_of_request(20)?;
            self.jaeger.wait_for_trace(&trace, 2)?;
        }
        Ok(())
    }

    /// One request under the quota: its spans and the time that the kernel says it was held
    /// back meanwhile.
    fn slow_request(&self) -> anyhow::Result<(Vec<Span>, Duration)> {
        self.cgroup.limit_cpu(20)?;
        let before = self.cgroup.cpu_stat()?.throttled;
        let trace = self.service.trace_of_request(WORK_MS)?;
        let held_back = self.cgroup.cpu_stat()?.throttled - before;
        // The export, too, is under the quota; it goes faster without.
        self.cgroup.limit_cpu(100)?;
        Ok((self.jaeger.wait_for_trace(&trace, 2)?, held_back))
    }
}

fn server_span(spans: &[Span]) -> anyhow::Result<&Span> {
    spans
        .iter()
        .find(|span| span.operation == "GET /work")
        .with_context(|| format!("no server span in {spans:?}"))
}

fn says_who_held_it_back(language: Language) -> anyhow::Result<()> {
    let path = Path::start(language)?;
    path.warm_up()?;
    let (spans, held_back) = path.slow_request()?;

    let slow = server_span(&spans)?;
    let said = format!("{:?}\n{}", slow.tags, path.agent.process.output());
    assert_eq!(slow.text("isostack.fault"), "L-3", "{said}");
    assert_eq!(slow.text("isostack.cause"), "cpu_throttle", "{said}");
    assert_eq!(slow.text("isostack.confidence"), "process", "{said}");
    assert!(
        slow.number("isostack.share")
            .is_some_and(|share| share >= 0.5),
        "{said}"
    );
    assert!(!slow.text("isostack.summary").is_empty(), "{said}");

    // Nothing the application said is missing.
    assert_eq!(slow.text("http.route"), "/work", "{said}");

    let children: Vec<&Span> = spans.iter().filter(|span| span.is_synthetic()).collect();
    assert!((1..=16).contains(&children.len()), "{children:?}");
    let shown: Duration = children.iter().map(|child| child.duration).sum();
    let ratio = shown.as_secs_f64() / held_back.as_secs_f64();
    assert!(
        (0.95..=1.05).contains(&ratio),
        "child spans show {shown:?}, cpu.stat says {held_back:?}: {ratio:.3}\n{children:#?}"
    );
    for child in children {
        assert_eq!(child.operation, "L-3 cpu_throttle");
        assert_eq!(child.text("otel.scope.name"), "isostack-agent");
        assert_eq!(child.parent.as_ref(), Some(&slow.span_id));
        let (start, end) = (
            child.start_us,
            child.start_us + child.duration.as_micros() as u64,
        );
        let slow_end = slow.start_us + slow.duration.as_micros() as u64;
        assert!(
            start >= slow.start_us && end <= slow_end,
            "{child:?} outside {slow:?}"
        );
    }
    Ok(())
}

fn a_healthy_service_gets_no_verdict(language: Language) -> anyhow::Result<()> {
    let path = Path::start(language)?;
    for _ in 0..10 {
        let trace = path.service.trace_of_request(20)?;
        let spans = path.jaeger.wait_for_trace(&trace, 2)?;
        for span in &spans {
            assert!(!span.is_synthetic(), "{span:?}");
            assert_eq!(span.text("isostack.fault"), "", "{span:?}");
            assert_eq!(span.text("isostack.cause"), "", "{span:?}");
            assert_ne!(span.text("isostack.layer"), "", "{span:?}");
            assert_ne!(span.text("isostack.stack"), "", "{span:?}");
            assert_ne!(span.text("isostack.node"), "", "{span:?}");
            assert_eq!(span.text("isostack.confidence"), "process", "{span:?}");
        }
    }
    Ok(())
}

#[test]
fn python_throttled() -> anyhow::Result<()> {
    says_who_held_it_back(Language::Python)
}

#[test]
fn python_healthy() -> anyhow::Result<()> {
    a_healthy_service_gets_no_verdict(Language::Python)
}

#[test]
fn node_throttled() -> anyhow::Result<()> {
    says_who_held_it_back(Language::Node)
}

#[test]
fn node_healthy() -> anyhow::Result<()> {
    a_healthy_service_gets_no_verdict(Language::Node)
}

#[test]
fn java_throttled() -> anyhow::Result<()> {
    says_who_held_it_back(Language::Java)
}

#[test]
fn java_healthy() -> anyhow::Result<()> {
    a_healthy_service_gets_no_verdict(Language::Java)
}
