//! The main job, end to end: a real service under a CPU quota, its spans through the agent
//! into a real Jaeger, and what Jaeger then says.

use std::{fs, time::Duration};

use anyhow::Context as _;
use harness::{
    agent::Agent,
    cgroup::Cgroup,
    jaeger::{Jaeger, Span},
    service::{Language, Service},
};

/// Share of one CPU under the quota, in percent: so small that being held back outweighs
/// what other programs of a busy machine do to the service.
const QUOTA_PERCENT: u64 = 10;

/// CPU time of a slow request: eight periods' worth of the quota, so fewer throttled
/// intervals than a span may have child spans.
const WORK_MS: u64 = 80;

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
        self.cgroup.limit_cpu(QUOTA_PERCENT)?;
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

/// By its process at least. (The very first requests come before the process is known to
/// send spans, so that nobody looked at its threads.)
fn is_known(span: &Span) -> bool {
    matches!(
        span.text("isostack.confidence"),
        "process" | "thread_inferred"
    )
}

fn says_who_held_it_back(language: Language) -> anyhow::Result<()> {
    let path = Path::start(language)?;
    path.warm_up()?;
    let (spans, held_back) = path.slow_request()?;

    let slow = server_span(&spans)?;
    let said = format!("{:?}\n{}", slow.tags, path.agent.process.output());
    assert_eq!(slow.text("isostack.fault"), "L-3", "{said}");
    assert_eq!(slow.text("isostack.cause"), "cpu_throttle", "{said}");
    assert!(is_known(slow), "{said}");
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
    let children: Vec<&Span> = children
        .into_iter()
        .filter(|span| span.text("isostack.cause") == "cpu_throttle")
        .collect();
    let shown: Duration = children.iter().map(|child| child.duration).sum();
    let ratio = shown.as_secs_f64() / held_back.as_secs_f64();
    assert!(
        (0.95..=1.05).contains(&ratio),
        "child spans show {shown:?}, cpu.stat says {held_back:?}: {ratio:.3}\n{:?} {:?}\n{children:#?}",
        slow.start_us,
        slow.duration
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

/// Nanoseconds that the process's threads waited for a CPU, by the kernel's own books.
fn waited_for_cpu(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten();
    let waits = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ')
            .nth(1)?
            .parse()
            .ok()
            .map(Duration::from_nanos)
    });
    waits.sum()
}

/// Time that the hypervisor took from all CPUs; counted in ticks of 10 ms.
fn stolen() -> Duration {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = stat
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(8)?.parse().ok());
    Duration::from_millis(10 * ticks.unwrap_or(0))
}

/// No quota, no verdict that blames one. A machine that is busy with something else may well
/// make the service wait: such a verdict is right when the kernel's books say the same.
fn a_healthy_service_gets_no_verdict(language: Language) -> anyhow::Result<()> {
    let path = Path::start(language)?;
    for _ in 0..10 {
        let pid = path.service.process.pid();
        let (waited, steal) = (waited_for_cpu(pid), stolen());
        let trace = path.service.trace_of_request(20)?;
        let waited = (waited_for_cpu(pid) - waited).as_secs_f64() * 1e3;
        let steal = (stolen() - steal).as_secs_f64() * 1e3 + 20.0;
        let spans = path.jaeger.wait_for_trace(&trace, 2)?;
        for span in spans.iter().filter(|span| !span.is_synthetic()) {
            match span.text("isostack.cause") {
                "" => assert_eq!(span.text("isostack.fault"), "", "{span:?}"),
                "runqueue" => {
                    let said = span.number("isostack.evidence.runqueue_ms");
                    assert!(
                        said.is_some_and(|said| said <= waited * 1.05),
                        "{waited}: {span:?}"
                    );
                }
                "steal" => {
                    let said = span.number("isostack.evidence.steal_ms");
                    assert!(said.is_some_and(|said| said <= steal), "{steal}: {span:?}");
                }
                _ => panic!("a healthy service is blamed: {span:?}"),
            }
            assert_ne!(span.text("isostack.layer"), "", "{span:?}");
            assert_ne!(span.text("isostack.stack"), "", "{span:?}");
            assert_ne!(span.text("isostack.node"), "", "{span:?}");
            assert!(is_known(span), "{span:?}");
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
