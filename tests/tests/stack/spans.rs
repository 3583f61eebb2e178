//! An agent between services and a real Jaeger.

use harness::{agent::Agent, jaeger::Jaeger};

use crate::case::{shown, stack_of, throttled};

pub struct Spans {
    pub jaeger: Jaeger,
    /// The stack of the host, in the contract's form.
    pub host: String,
    agent: Agent,
}

impl Spans {
    pub fn new() -> anyhow::Result<Self> {
        let jaeger = Jaeger::start()?;
        Ok(Self {
            agent: Agent::start(&["--export-endpoint", &jaeger.otlp_grpc()])?,
            host: stack_of(&shown(&[])?, "host"),
            jaeger,
        })
    }

    /// Where services send to over gRPC.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.agent.otlp_grpc)
    }

    /// The same over HTTP, as `HOST:PORT`.
    pub fn otlp_http(&self) -> &str {
        &self.agent.otlp_http
    }

    /// Waits for throttled time of this layer and workload.
    pub fn throttled(&self, layer: &str, label: &str) -> anyhow::Result<()> {
        throttled(&self.agent, layer, label)
    }
}
