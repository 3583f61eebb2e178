//! A real Jaeger 2 and its query API.

use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::{http, peers, process::Process, wait};

/// Where a Jaeger listens and keeps its spans; the same across its restarts.
#[derive(Clone, Debug)]
pub struct Place {
    address: IpAddr,
    /// Folder of its database; in memory without.
    storage: Option<PathBuf>,
    query: u16,
    query_grpc: u16,
    otlp_grpc: u16,
    otlp_http: u16,
}

/// A running Jaeger.
#[derive(Debug)]
pub struct Jaeger {
    /// The process.
    pub process: Process,
    place: Place,
}

/// A span as Jaeger gives it back.
#[derive(Clone, Debug)]
pub struct Span {
    /// Trace id, hexadecimal.
    pub trace_id: String,
    /// Span id, hexadecimal.
    pub span_id: String,
    /// The parent's span id, if it has one.
    pub parent: Option<String>,
    /// Its name.
    pub operation: String,
    /// Wall time of its start.
    pub start_us: u64,
    /// How long it took.
    pub duration: Duration,
    /// Attributes, the scope's name (`otel.scope.name`) among them.
    pub tags: BTreeMap<String, Value>,
}

impl Span {
    /// An attribute as text; empty where it is missing.
    #[must_use]
    pub fn text(&self, key: &str) -> &str {
        self.tags
            .get(key)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// An attribute as a number.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<f64> {
        self.tags.get(key)?.as_f64()
    }

    /// Whether the agent added it.
    #[must_use]
    pub fn is_synthetic(&self) -> bool {
        self.tags.get("isostack.synthetic") == Some(&Value::Bool(true))
    }
}

impl Place {
    /// Four ports of an address that are free now, and a storage in memory.
    ///
    /// # Errors
    /// When there are none.
    pub fn new(address: impl Into<IpAddr>) -> anyhow::Result<Self> {
        let address = address.into();
        let held = (0..4)
            .map(|_| TcpListener::bind((address, 0)))
            .collect::<Result<Vec<_>, _>>()?;
        let mut ports = held
            .iter()
            .map(|listener| listener.local_addr().map(|a| a.port()));
        let mut next = || {
            ports
                .next()
                .context("four were asked for")?
                .context("own address")
        };
        Ok(Self {
            address,
            storage: None,
            query: next()?,
            query_grpc: next()?,
            otlp_grpc: next()?,
            otlp_http: next()?,
        })
    }

    /// The same with a database on disk, which outlives the process.
    #[must_use]
    pub fn stored_in(mut self, dir: &Path) -> Self {
        self.storage = Some(dir.to_owned());
        self
    }
}

impl Jaeger {
    /// Starts one on free ports and waits until it answers.
    ///
    /// # Errors
    /// When it cannot be built, started or reached.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_at(&Place::new(Ipv4Addr::LOCALHOST)?)
    }

    /// Starts one here: another incarnation of a killed one.
    ///
    /// # Errors
    /// When it cannot be built, started or reached.
    pub fn start_at(place: &Place) -> anyhow::Result<Self> {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        fs::write(file.path(), config(place))?;
        let mut command = Command::new(peers::jaeger()?);
        command.arg("--config").arg(file.path());
        let process = Process::start("jaeger", &mut command, None)?;
        let mut jaeger = Self {
            process,
            place: place.clone(),
        };
        wait::until("Jaeger's answer", wait::PATIENCE, || {
            if !jaeger.process.is_running() {
                return Some(Err(()));
            }
            jaeger.services().ok().map(|_| Ok(()))
        })?
        .map_err(|()| anyhow::anyhow!("Jaeger ended:\n{}", jaeger.process.output()))?;
        Ok(jaeger)
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Where it takes OTLP over gRPC.
    #[must_use]
    pub fn otlp_grpc(&self) -> String {
        format!("http://{}:{}", self.place.address, self.place.otlp_grpc)
    }

    /// Where it takes OTLP over HTTP.
    #[must_use]
    pub fn otlp_http(&self) -> String {
        format!("http://{}:{}", self.place.address, self.place.otlp_http)
    }

    /// Where it answers questions.
    #[must_use]
    pub fn query_url(&self) -> String {
        format!("http://{}:{}", self.place.address, self.place.query)
    }

    fn query(&self, path: &str) -> anyhow::Result<Value> {
        let answer = http::get(&format!("{}{path}", self.query_url()))?;
        if answer.status == 404 {
            return Ok(Value::Null);
        }
        Ok(answer
            .json()?
            .get_mut("data")
            .map(Value::take)
            .unwrap_or_default())
    }

    /// Names of the services it has spans of.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn services(&self) -> anyhow::Result<Vec<String>> {
        let data = self.query("/api/services")?;
        let names = data.as_array().into_iter().flatten();
        Ok(names
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect())
    }

    /// All spans of one trace; empty while it has none.
    ///
    /// # Errors
    /// When it does not answer, or with something else than spans.
    pub fn trace(&self, trace_id: &str) -> anyhow::Result<Vec<Span>> {
        spans(&self.query(&format!("/api/traces/{trace_id}"))?)
    }

    /// All spans of one service, of every trace.
    ///
    /// # Errors
    /// When it does not answer, or with something else than spans.
    pub fn spans_of(&self, service: &str) -> anyhow::Result<Vec<Span>> {
        spans(&self.query(&format!(
            "/api/traces?service={service}&limit=100000&lookback=1h"
        ))?)
    }

    /// Waits until a trace has `count` spans that the application made.
    ///
    /// # Errors
    /// When they do not come.
    pub fn wait_for_trace(&self, trace_id: &str, count: usize) -> anyhow::Result<Vec<Span>> {
        let what = format!("{count} spans of trace {trace_id} in Jaeger");
        wait::until(&what, wait::PATIENCE, || {
            let spans = self.trace(trace_id).ok()?;
            (spans.iter().filter(|span| !span.is_synthetic()).count() >= count).then_some(spans)
        })
    }
}

fn spans(data: &Value) -> anyhow::Result<Vec<Span>> {
    let traces = data.as_array().into_iter().flatten();
    traces
        .flat_map(|trace| trace["spans"].as_array().into_iter().flatten())
        .map(span)
        .collect()
}

fn span(value: &Value) -> anyhow::Result<Span> {
    let text = |key: &str| {
        value[key]
            .as_str()
            .with_context(|| format!("{key} of {value}"))
    };
    let number = |key: &str| {
        value[key]
            .as_u64()
            .with_context(|| format!("{key} of {value}"))
    };
    let tags = value["tags"].as_array().into_iter().flatten();
    let tags: BTreeMap<_, _> = tags
        .filter_map(|tag| Some((tag["key"].as_str()?.to_owned(), tag["value"].clone())))
        .collect();
    let parents = value["references"].as_array().into_iter().flatten();
    let mut parents = parents.filter(|reference| reference["refType"] == "CHILD_OF");
    let parent = parents
        .next()
        .and_then(|reference| reference["spanID"].as_str());
    if text("traceID")?.is_empty() {
        bail!("a span without a trace: {value}");
    }
    Ok(Span {
        trace_id: text("traceID")?.to_owned(),
        span_id: text("spanID")?.to_owned(),
        parent: parent.map(str::to_owned),
        operation: text("operationName")?.to_owned(),
        start_us: number("startTime")?,
        duration: Duration::from_micros(number("duration")?),
        tags,
    })
}

fn config(place: &Place) -> String {
    let Place {
        address,
        storage,
        query,
        query_grpc,
        otlp_grpc,
        otlp_http,
    } = place;
    let backend = match storage {
        None => "memory: {max_traces: 100000}".to_owned(),
        Some(dir) => format!(
            "badger: {{directories: {{keys: {0}/keys, values: {0}/values}}, ephemeral: false}}",
            dir.display()
        ),
    };
    format!(
        "service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{receivers: [otlp], exporters: [jaeger_storage_exporter]}}
  telemetry:
    metrics: {{level: none}}
    logs: {{level: warn}}
extensions:
  jaeger_storage:
    backends:
      main: {{{backend}}}
  jaeger_query:
    storage: {{traces: main}}
    grpc: {{endpoint: \"{address}:{query_grpc}\"}}
    http: {{endpoint: \"{address}:{query}\"}}
receivers:
  otlp:
    protocols:
      grpc: {{endpoint: \"{address}:{otlp_grpc}\"}}
      http: {{endpoint: \"{address}:{otlp_http}\"}}
exporters:
  jaeger_storage_exporter: {{trace_storage: main}}
"
    )
}
