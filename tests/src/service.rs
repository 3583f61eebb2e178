//! The instrumented services of `tests/services`, one per language and exporter.

use std::{ffi::OsStr, process::Command};

use anyhow::Context as _;
use serde_json::Value;

use crate::{artifact, cgroup::Cgroup, http, peers, process::Process};

/// A language with its upstream SDK and the exporter that its service uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Rust, OTLP over gRPC.
    Rust,
    /// Python, OTLP over gRPC.
    Python,
    /// JavaScript, OTLP over HTTP with JSON.
    Node,
    /// Java, OTLP over HTTP with protobuf.
    Java,
}

impl Language {
    /// The command of the service, without what it runs inside.
    ///
    /// # Errors
    /// When it cannot be built or its packages cannot be had.
    pub fn command(self) -> anyhow::Result<Command> {
        self.command_on("127.0.0.1:0")
    }

    /// The same listening elsewhere.
    ///
    /// # Errors
    /// When it cannot be built or its packages cannot be had.
    pub fn command_on(self, listen: &str) -> anyhow::Result<Command> {
        Ok(match self {
            Self::Rust => {
                let mut command = Command::new(artifact::program("shop")?);
                command.args(["serve", "--listen", listen]);
                command
            }
            Self::Python => {
                let mut command = Command::new(peers::python()?);
                command
                    .arg(artifact::root().join("tests/services/python/app.py"))
                    .arg(listen);
                command
            }
            Self::Node => {
                let mut command = Command::new("node");
                command.arg(peers::node()?.join("app.mjs")).arg(listen);
                command
            }
            Self::Java => java("App", listen)?,
        })
    }

    /// Whether its exporter speaks gRPC (else HTTP).
    #[must_use]
    pub const fn speaks_grpc(self) -> bool {
        matches!(self, Self::Rust | Self::Python)
    }

    /// The path of its one operation, with the CPU time that it is to take.
    #[must_use]
    pub fn path(self, cpu_ms: u64) -> String {
        match self {
            Self::Rust => format!("/checkout?work_ms={cpu_ms}"),
            _ => format!("/work?cpu_ms={cpu_ms}"),
        }
    }
}

/// The command of a service in Java by the name of its class.
///
/// # Errors
/// When it cannot be built or its packages cannot be had.
pub fn java(class: &str, listen: &str) -> anyhow::Result<Command> {
    let dir = peers::java()?;
    let class_path = format!("{0}:{0}/lib/*", dir.display());
    let mut command = Command::new("java");
    command.args(["-XX:+UseSerialGC", "-cp", &class_path, class, listen]);
    command
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        .env("OTEL_BSP_SCHEDULE_DELAY", "200")
        .env("OTEL_METRICS_EXPORTER", "none")
        .env("OTEL_LOGS_EXPORTER", "none");
    Ok(command)
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    /// The process.
    pub process: Process,
    /// Which one it is.
    pub language: Language,
    address: String,
}

impl Service {
    /// Starts a service as `name` that sends its spans to `endpoint`, and waits until it
    /// listens.
    ///
    /// # Errors
    /// When it cannot be had or does not start.
    pub fn start(
        language: Language,
        name: &str,
        endpoint: &str,
        cgroup: Option<&Cgroup>,
    ) -> anyhow::Result<Self> {
        Self::start_inside(&[] as &[&str], language, name, endpoint, cgroup)
    }

    /// The same behind a command that runs it elsewhere, e.g. `taskset -c 1`.
    ///
    /// # Errors
    /// When it cannot be had or does not start.
    pub fn start_inside<S: AsRef<OsStr>>(
        wrapper: &[S],
        language: Language,
        name: &str,
        endpoint: &str,
        cgroup: Option<&Cgroup>,
    ) -> anyhow::Result<Self> {
        Self::start_command(
            wrap(wrapper, language.command()?),
            language,
            name,
            endpoint,
            cgroup,
        )
    }

    /// The same by a command of the caller's making, from [`Language::command_on`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_command(
        mut command: Command,
        language: Language,
        name: &str,
        endpoint: &str,
        cgroup: Option<&Cgroup>,
    ) -> anyhow::Result<Self> {
        command
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
            .env("OTEL_SERVICE_NAME", name)
            .env("PYTHONUNBUFFERED", "1");
        let mut process = Process::start(name, &mut command, cgroup)?;
        let line = process.wait_for_line("listening ")?;
        let address = line.trim_start_matches("listening ").to_owned();
        Ok(Self {
            process,
            language,
            address,
        })
    }

    /// The URL of a request that takes this much CPU time.
    #[must_use]
    pub fn url(&self, cpu_ms: u64) -> String {
        format!("http://{}{}", self.address, self.language.path(cpu_ms))
    }

    /// Sends one request that takes this much CPU time; the answer names its trace.
    ///
    /// # Errors
    /// When it is not answered.
    pub fn request(&self, cpu_ms: u64) -> anyhow::Result<Value> {
        http::get(&format!(
            "http://{}{}",
            self.address,
            self.language.path(cpu_ms)
        ))?
        .json()
    }

    /// The same; only the trace id.
    ///
    /// # Errors
    /// When it is not answered with one.
    pub fn trace_of_request(&self, cpu_ms: u64) -> anyhow::Result<String> {
        let answer = self.request(cpu_ms)?;
        Ok(answer["trace_id"]
            .as_str()
            .context("the answer names no trace")?
            .to_owned())
    }
}

/// `inner` as the argument of another command.
#[must_use]
pub fn wrap<S: AsRef<OsStr>>(wrapper: &[S], inner: Command) -> Command {
    let Some((program, arguments)) = wrapper.split_first() else {
        return inner;
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .arg(inner.get_program())
        .args(inner.get_args());
    for (key, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(key, value),
            None => command.env_remove(key),
        };
    }
    command
}
