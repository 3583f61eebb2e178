//! A service inside of something, its spans through the agent into a real Jaeger.

use anyhow::Context as _;
use harness::{agent::Agent, cgroup::Cgroup, jaeger::Jaeger, service::Service, wait};

use crate::case::{shown, stack_of};

pub struct Spans {
    pub cgroup: Cgroup,
    agent: Agent,
    jaeger: Jaeger,
}

impl Spans {
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let jaeger = Jaeger::start()?;
        Ok(Self {
            cgroup: Cgroup::create(&format!("isostack-test-stack-{name}"))?,
            agent: Agent::start(&["--export-endpoint", &jaeger.otlp_grpc()])?,
            jaeger,
        })
    }

    /// The group's path as runtimes want it.
    pub fn path(&self) -> String {
        let name = self.cgroup.dir().file_name().unwrap_or_default();
        format!("/{}", name.to_string_lossy())
    }

    /// Where services send to.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.agent.otlp_grpc)
    }

    /// The spans of a request say this layer (the host's own if empty), and these entries
    /// above the host's.
    pub fn check(&self, service: &Service, layer: &str, above: &str) -> anyhow::Result<()> {
        let host = stack_of(&shown(&[])?, "host");
        let host_layer = host.split(':').next().unwrap_or_default();
        let expected = [above, &host].map(str::to_owned);
        let expected = expected.join("/");
        let expected = expected.trim_start_matches('/');
        let layer = if layer.is_empty() { host_layer } else { layer };
        // The first connection may be looked at a moment after its first spans.
        wait::until("spans with their stack", wait::PATIENCE, || {
            let trace = service.trace_of_request(1).ok()?;
            let spans = self.jaeger.wait_for_trace(&trace, 2).ok()?;
            let own = spans.iter().filter(|span| !span.is_synthetic());
            own.map(|span| (span.text("isostack.layer"), span.text("isostack.stack")))
                .all(|said| said == (layer, expected))
                .then_some(())
        })
        .with_context(|| {
            let spans = self.agent.api("/api/v1/spans?limit=4");
            format!("{layer} {expected} among {spans:#?}")
        })
    }
}
