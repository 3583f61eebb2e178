//! The agent as a process: free ports, its API, a graceful end.

use std::{path::Path, process::Command};

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::{artifact, http, process::Process, wait};

/// A running agent.
#[derive(Debug)]
pub struct Agent {
    /// The process.
    pub process: Process,
    /// `HOST:PORT` of the page, the API and the metrics.
    pub http: String,
    /// `HOST:PORT` of the gRPC receiver.
    pub otlp_grpc: String,
    /// `HOST:PORT` of the HTTP receiver.
    pub otlp_http: String,
    /// Gone with the agent.
    state: Option<TempDir>,
}

impl Agent {
    /// Starts the agent of this workspace on free ports with these flags besides, and
    /// waits until it is ready.
    ///
    /// # Errors
    /// When it does not build, start or become ready.
    pub fn start(flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_on("127.0.0.1", [0, 0, 0], flags)
    }

    /// The same with its OTLP receivers on another address; the ports are those of the
    /// page, of gRPC and of HTTP, 0 for a free one.
    ///
    /// # Errors
    /// When it does not build, start or become ready.
    pub fn start_on(otlp: &str, ports: [u16; 3], flags: &[&str]) -> anyhow::Result<Self> {
        Self::start_program(&artifact::program("isostack-agent")?, otlp, ports, flags)
    }

    /// The same with another build of it.
    ///
    /// # Errors
    /// When it does not start or become ready.
    pub fn start_program(
        program: &Path,
        otlp: &str,
        ports: [u16; 3],
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(["--http-listen", &format!("127.0.0.1:{}", ports[0])]);
        command.args(["--otlp-grpc-listen", &format!("{otlp}:{}", ports[1])]);
        command.args(["--otlp-http-listen", &format!("{otlp}:{}", ports[2])]);
        Self::start_afresh(command.args(flags), flags)
    }

    /// The agent of this workspace on free ports, recording to a file. The file is complete
    /// when the agent was stopped.
    ///
    /// # Errors
    /// When it does not build, start or become ready.
    pub fn record(file: &Path, flags: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(artifact::program("isostack-agent")?);
        command.arg("record").arg(file);
        for listen in ["--http-listen", "--otlp-grpc-listen", "--otlp-http-listen"] {
            command.args([listen, "127.0.0.1:0"]);
        }
        Self::start_afresh(command.args(flags), flags)
    }

    /// Starts an agent that knows nothing of what other agents on this machine found usual, unless
    /// the flags say where it is to look.
    fn start_afresh(command: &mut Command, flags: &[&str]) -> anyhow::Result<Self> {
        if flags.contains(&"--state-dir") {
            return Self::start_command(command);
        }
        let state = tempfile::tempdir()?;
        let mut agent = Self::start_command(command.arg("--state-dir").arg(state.path()))?;
        agent.state = Some(state);
        Ok(agent)
    }

    /// Starts an agent by a command of the caller's making.
    ///
    /// # Errors
    /// When it does not start or become ready.
    pub fn start_command(command: &mut Command) -> anyhow::Result<Self> {
        // A user's exporter settings are not the test's.
        for name in ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            command.env_remove(name);
        }
        command.env("NO_COLOR", "1");
        let mut process = Process::start("isostack-agent", command, None)?;
        let line = process.wait_for_line("Listening")?;
        let field = |name: &str| {
            field(&line, name).with_context(|| format!("no {name}= in the log line {line:?}"))
        };
        let agent = Self {
            http: field("http")?,
            otlp_grpc: field("otlp_grpc")?,
            otlp_http: field("otlp_http")?,
            process,
            state: None,
        };
        wait::until("/readyz", wait::PATIENCE, || {
            http::get(&agent.url("/readyz"))
                .ok()
                .filter(|answer| answer.status == 200)
        })
        .with_context(|| agent.process.output())?;
        Ok(agent)
    }

    /// The URL of a path of its HTTP port.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    /// Asks its JSON API.
    ///
    /// # Errors
    /// When there is no JSON answer.
    pub fn api(&self, path: &str) -> anyhow::Result<Value> {
        http::get(&self.url(path))?.json()
    }

    /// Waits until `/api/v1/verdicts` with `query` has at least one, newest first.
    ///
    /// # Errors
    /// When none comes.
    pub fn wait_for_verdict(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let path = format!("/api/v1/verdicts{query}");
        wait::until(&path, wait::PATIENCE, || {
            let list = self.api(&path).ok()?.get("verdicts")?.as_array()?.clone();
            (!list.is_empty()).then_some(list)
        })
        .with_context(|| self.process.output())
    }

    /// One sample of `/metrics` by its exact series text, e.g. `name_total{a="b"}`.
    #[must_use]
    pub fn metric(&self, series: &str) -> Option<f64> {
        let page = http::get(&self.url("/metrics")).ok()?.body;
        page.lines().find_map(|line| {
            let value = line.strip_prefix(series)?.strip_prefix(' ')?;
            value.split(' ').next()?.parse().ok()
        })
    }
}

/// The value of `name=value` in a log line, without quotes.
fn field(line: &str, name: &str) -> Option<String> {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .map(|value| value.trim_matches('"').to_owned())
}
