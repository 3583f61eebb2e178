//! A real agent reads logs: the kernel's own, files, and OTLP logs that pass through it.
//! Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs::{self, OpenOptions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::{
    collector::logs::v1::{
        ExportLogsServiceRequest, ExportLogsServiceResponse,
        logs_service_client::LogsServiceClient,
        logs_service_server::{LogsService, LogsServiceServer},
    },
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

const PATIENCE: Duration = Duration::from_secs(120);

/// A running agent; ends with the test.
struct Agent {
    child: Child,
    http: String,
    otlp_grpc: String,
}

impl Agent {
    fn start(flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_isostack-agent"))
            .args(["--http-listen", "127.0.0.1:0", "--node-name", "n1"])
            .args(["--otlp-grpc-listen", "127.0.0.1:0"])
            .args(["--otlp-http-listen", "127.0.0.1:0"])
            .args(flags)
            .env("NO_COLOR", "1")
            .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT")
            .stderr(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (said, lines) = std::sync::mpsc::channel();
        let outputs: [Box<dyn std::io::Read + Send>; 2] = [
            Box::new(child.stderr.take().unwrap()),
            Box::new(child.stdout.take().unwrap()),
        ];
        for output in outputs {
            let said = said.clone();
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = said.send(line);
                }
            });
        }
        let mut agent = Self {
            child,
            http: String::new(),
            otlp_grpc: String::new(),
        };
        let mut all = String::new();
        while agent.http.is_empty() {
            let line = lines
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("no agent: {all}"));
            if line.contains("Listening") {
                let field = |name: &str| {
                    let word = line
                        .split_whitespace()
                        .find_map(|word| word.strip_prefix(name));
                    word.unwrap().trim_matches('"').to_owned()
                };
                (agent.http, agent.otlp_grpc) = (field("http="), field("otlp_grpc="));
            }
            all.push_str(&line);
        }
        agent
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.http
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The entries whose line holds `text`, once there are some.
    fn matches(&self, text: &str) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.get("/api/v1/log-matches?limit=1000");
            let body = answer.split("\r\n\r\n").nth(1).unwrap();
            let start = body.find('{').unwrap();
            let end = body.rfind('}').unwrap();
            // A chunked answer has its sizes around.
            let json: Value = serde_json::from_str(&body[start..=end]).unwrap();
            let entries = json["log_matches"].as_array().unwrap();
            let found: Vec<_> = entries
                .iter()
                .filter(|entry| entry["line"].as_str().unwrap().contains(text))
                .cloned()
                .collect();
            if !found.is_empty() {
                return found;
            }
            assert!(Instant::now() < deadline, "{text} was not found: {answer}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn count(&self, labels: &[&str]) -> f64 {
        let page = self.get("/metrics");
        let of_rule = |line: &&str| {
            line.starts_with("isostack_log_matches_total{")
                && labels.iter().all(|label| line.contains(label))
        };
        page.lines().find(of_rule).map_or(0.0, |line| {
            line.rsplit(' ').next().unwrap().trim().parse().unwrap()
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn to_kernel_log(text: &str) {
    let mut kmsg = OpenOptions::new().write(true).open("/dev/kmsg").unwrap();
    kmsg.write_all(format!("<6>{text}\n").as_bytes()).unwrap();
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn the_kernels_log_from_now_on() {
    let mark = std::process::id();
    to_kernel_log(&format!("isostack-test-{mark}: history: EPT violation"));
    let agent = Agent::start(&[]);
    let line =
        format!("isostack-test-{mark}: virtio_net virtio0: Unexpected TXQ (0) queue failure: -28");
    to_kernel_log(&format!("isostack-test-{mark}: nothing to say"));
    to_kernel_log(&line);
    let found = agent.matches(&line);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0]["layer"], "L-2");
    assert_eq!(found[0]["rule"], "virtqueue_full");
    assert_eq!(found[0]["source"], "kmsg");
    assert_eq!(found[0]["workload"], "");
    let counted = agent.count(&["layer=\"L-2\"", "node=\"n1\"", "rule=\"virtqueue_full\""]);
    assert!(counted >= 1.0, "{}", agent.get("/metrics"));
    let answer = agent.get("/api/v1/log-matches?limit=1000");
    assert!(
        !answer.contains("history"),
        "what was there before the start is history"
    );
    let sensors = agent.get("/api/v1/sensors");
    assert!(sensors.contains("/dev/kmsg"), "{sensors}");
}

#[test]
fn a_line_about_a_process_names_its_workload() {
    let agent = Agent::start(&[]);
    let pid = agent.child.id();
    let mark = format!("isostack-test-{}", std::process::id());
    to_kernel_log(&format!(
        "{mark}-denied: audit: type=1326 audit(1.1:1): pid={pid} comm=\"x\" syscall=1"
    ));
    let found = agent.matches(&format!("{mark}-denied"));
    assert_eq!(found[0]["rule"], "audit_seccomp");
    assert_ne!(found[0]["workload"], "", "{found:?}");
}

#[test]
fn files_with_their_pod_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let container = dir.path().join("log/pods/shop_web-0_1f2e/cart");
    fs::create_dir_all(&container).unwrap();
    let log = container.join("0.log");
    append(&log, "2026-01-01T00:00:00Z stdout F old: OOMKilled\n");
    let glob = format!("{}/log/pods/*/*/*.log", dir.path().display());
    let flags = [
        "--log-file",
        &glob,
        "--state-dir",
        state.path().to_str().unwrap(),
    ];
    let mut agent = Agent::start(&flags);
    // Until the first look is over, a new line may still be history.
    let deadline = Instant::now() + PATIENCE;
    while agent.count(&["rule=\"oom_killed\"", "pod=\"web-0\""]) < 1.0 {
        append(&log, "2026-01-01T00:00:01Z stdout F new: OOMKilled\n");
        thread::sleep(Duration::from_millis(300));
        assert!(
            Instant::now() < deadline,
            "{}",
            agent.get("/api/v1/log-matches")
        );
    }
    let found = agent.matches("new: OOMKilled");
    assert_eq!(found[0]["workload"], "shop/web-0/cart");
    assert!(!agent.get("/api/v1/log-matches?limit=1000").contains("old:"));

    // Ends as a supervisor ends it, and goes on where it was.
    let pid = rustix::process::Pid::from_child(&agent.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    agent.child.wait().unwrap();
    drop(agent);
    append(&log, "2026-01-01T00:00:02Z stdout F between: OOMKilled\n");
    let agent = Agent::start(&flags);
    agent.matches("between: OOMKilled");
    assert!(!agent.get("/api/v1/log-matches?limit=1000").contains("new:"));
}

#[derive(Clone, Default)]
struct Downstream(Arc<Mutex<Vec<ExportLogsServiceRequest>>>);

#[tonic::async_trait]
impl LogsService for Downstream {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        self.0.lock().push(request.into_inner());
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

fn string(text: &str) -> Option<AnyValue> {
    Some(AnyValue {
        value: Some(Any::StringValue(text.to_owned())),
    })
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: string(value),
        ..KeyValue::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn otlp_logs_leave_with_their_layer() {
    let downstream = Downstream::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tonic::transport::Server::builder()
        .add_service(LogsServiceServer::new(downstream.clone()))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let server = tokio::spawn(server);
    let endpoint = format!("http://{address}");
    let agent = tokio::task::spawn_blocking(move || {
        Agent::start(&["--export-endpoint", &endpoint, "--export-protocol", "grpc"])
    });
    let agent = agent.await.unwrap();

    let record = |body: &str| LogRecord {
        body: string(body),
        ..LogRecord::default()
    };
    let sent = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                // Of a pod that this process is not in.
                attributes: vec![
                    attribute("service.name", "cart"),
                    attribute("k8s.namespace.name", "shop"),
                    attribute("k8s.pod.name", "cart-0"),
                ],
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs {
                log_records: vec![
                    record("all is well"),
                    record("Gofer broken pipe"),
                    record("fine"),
                ],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    let mut client = LogsServiceClient::connect(format!("http://{}", agent.otlp_grpc))
        .await
        .unwrap();
    client.export(sent.clone()).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while downstream.0.lock().is_empty() {
        assert!(Instant::now() < deadline, "nothing was passed on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut expected = sent;
    let records = &mut expected.resource_logs[0].scope_logs[0].log_records;
    records[1]
        .attributes
        .push(attribute("isostack.layer", "L-4"));
    assert_eq!(*downstream.0.lock(), [expected]);
    let checked = tokio::task::spawn_blocking(move || {
        let found = agent.matches("Gofer broken pipe");
        assert_eq!(found[0]["source"], "otlp");
        // Who sends it, by the connection; not whom it says that it is.
        assert_ne!(found[0]["cgroup_id"], 0, "{found:?}");
        let name = found[0]["workload"].as_str().unwrap();
        assert!(!name.contains("cart"), "{found:?}");
        let labels = ["pod=\"\"", "rule=\"gofer_broken_pipe\"", "layer=\"L-4\""];
        assert_eq!(agent.count(&labels) as u64, 1);
    });
    checked.await.unwrap();
    server.abort();
}
