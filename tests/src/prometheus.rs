//! A real Prometheus that scrapes one agent, and its query API.

use std::{fs, net::TcpListener, process::Command};

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::{http, peers, process::Process, wait};

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    /// The process.
    pub process: Process,
    address: String,
    _storage: TempDir,
}

impl Prometheus {
    /// Starts one that scrapes `target` (`HOST:PORT`) every second, exemplars included.
    ///
    /// # Errors
    /// When it is not installed or does not start.
    pub fn start(target: &str) -> anyhow::Result<Self> {
        peers::need("prometheus")?;
        let storage = tempfile::Builder::new()
            .prefix("isostack-prometheus-")
            .tempdir()?;
        let config = storage.path().join("prometheus.yml");
        fs::write(
            &config,
            format!(
                "global: {{scrape_interval: 1s}}\n\
                 scrape_configs:\n\
                 - job_name: isostack-agent\n\
                 \x20 static_configs: [{{targets: [\"{target}\"]}}]\n"
            ),
        )?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let mut command = Command::new("prometheus");
        command.arg("--config.file").arg(&config);
        command
            .arg("--storage.tsdb.path")
            .arg(storage.path().join("data"));
        command.arg(format!("--web.listen-address={address}"));
        command.args(["--enable-feature=exemplar-storage", "--log.level=warn"]);
        let process = Process::start("prometheus", &mut command, None)?;
        let prometheus = Self {
            process,
            address,
            _storage: storage,
        };
        wait::until("Prometheus", wait::PATIENCE, || {
            http::get(&prometheus.url("/-/ready"))
                .ok()
                .filter(|answer| answer.status == 200)
        })
        .with_context(|| prometheus.process.output())?;
        Ok(prometheus)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// An instant query; the list of its results.
    ///
    /// # Errors
    /// When Prometheus refuses the expression.
    pub fn query(&self, expression: &str) -> anyhow::Result<Vec<Value>> {
        let path = format!("/api/v1/query?query={}", encode(expression));
        let answer = http::get(&self.url(&path))?;
        let answer = answer.json().with_context(|| expression.to_owned())?;
        Ok(answer["data"]["result"]
            .as_array()
            .cloned()
            .unwrap_or_default())
    }

    /// Exemplars of a series selector in the last hour.
    ///
    /// # Errors
    /// When Prometheus refuses the expression.
    pub fn exemplars(&self, expression: &str) -> anyhow::Result<Vec<Value>> {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_secs();
        let path = format!(
            "/api/v1/query_exemplars?query={}&start={}&end={}",
            encode(expression),
            now - 3600,
            now + 60
        );
        let answer = http::get(&self.url(&path))?.json()?;
        let series = answer["data"].as_array().cloned().unwrap_or_default();
        Ok(series
            .iter()
            .flat_map(|one| one["exemplars"].as_array().cloned().unwrap_or_default())
            .collect())
    }
}

/// Percent-encodes everything that is not plain.
fn encode(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' | b'.' => {
                char::from(byte).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
