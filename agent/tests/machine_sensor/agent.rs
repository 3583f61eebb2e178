//! The agent as a process, and a service below a CPU quota that sends it spans.

use std::{
    io::{BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use isostack_agent::time::UnixNs;
use serde_json::Value;

use super::{cgroup::Group, child::Child};

/// Against a hang: in software emulation everything takes its time.
const PATIENCE: Duration = Duration::from_secs(120);
/// CPU time that a request takes, and what the quota leaves of each 100 ms.
const BURN_NS: i64 = 60_000_000;
const QUOTA_US: u32 = 20_000;
/// How long a request sleeps that takes none.
const REST: Duration = Duration::from_millis(300);

/// A running agent; ended when dropped.
pub struct Agent {
    child: std::process::Child,
    http: String,
    otlp: SocketAddr,
}

impl Agent {
    pub fn start() -> Self {
        // Where the program was built, or, in a guest, on the path.
        let built = Path::new(env!("CARGO_BIN_EXE_isostack-agent"));
        let program = match built.exists() {
            true => built,
            false => Path::new("isostack-agent"),
        };
        let mut child = Command::new(program)
            .args(["--http-listen", "127.0.0.1:0", "--node-name", "n1"])
            .args(["--otlp-grpc-listen", "127.0.0.1:0"])
            .args(["--otlp-http-listen", "127.0.0.1:0"])
            .args(["--state-dir", "/nowhere"])
            .env("NO_COLOR", "1")
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let (said, lines) = mpsc::channel();
        let log = child.stderr.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(log).lines().map_while(Result::ok) {
                println!("{line}");
                let _ = said.send(line);
            }
        });
        let mut agent = Self {
            child,
            http: String::new(),
            otlp: ([127, 0, 0, 1], 0).into(),
        };
        while agent.http.is_empty() {
            let line = lines.recv_timeout(PATIENCE).unwrap();
            let field = |name: &str| {
                let mut words = line.split_whitespace();
                let word = words.find_map(|word| word.strip_prefix(name)).unwrap();
                word.trim_matches('"').to_owned()
            };
            if line.contains("Listening") {
                agent.otlp = field("otlp_http=").parse().unwrap();
                agent.http = field("http=");
            }
        }
        agent
    }

    /// Body of what it answers.
    pub fn get(&self, path: &str) -> String {
        let answer = http(&self.http, &format!("GET {path}"), "");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        body.to_owned()
    }

    /// The verdict on a request's span, if there is one by now.
    pub fn verdict(&self, request: u8) -> Option<Value> {
        let id = trace_id(request);
        let body = self.get(&format!("/api/v1/verdicts?trace_id={id}"));
        // A chunked answer has its sizes around.
        let json = &body[body.find('{')?..=body.rfind('}')?];
        let answer: Value = serde_json::from_str(json).unwrap();
        answer["verdicts"].as_array().unwrap().first().cloned()
    }

    /// The same, waited for.
    pub fn verdict_on(&self, request: u8) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(verdict) = self.verdict(request) {
                return verdict;
            }
            assert!(Instant::now() < deadline, "no verdict on {request}");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Spans that were not judged, for this reason.
    pub fn unjudged(&self, reason: &str) -> f64 {
        let page = self.get("/metrics");
        let label = format!("isostack_agent_spans_unjudged_total{{reason=\"{reason}\"}} ");
        let value = page.lines().find_map(|line| line.strip_prefix(&*label));
        value.map_or(0.0, |value| value.trim().parse().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn http(to: &str, what: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!(
        "{what} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

fn trace_id(request: u8) -> String {
    format!("{request:032x}")
}

/// What a request does, as the service is told.
#[derive(Clone, Copy)]
pub enum Request {
    /// It takes more CPU than the quota leaves.
    Burns = b'b' as isize,
    /// It sleeps.
    Rests = b's' as isize,
}

/// A service below a quota, which serves requests one after the other.
pub struct Service {
    child: Option<Child>,
    ask: Option<PipeWriter>,
    done: PipeReader,
    _group: Group,
}

impl Service {
    pub fn start(agent: &Agent) -> Self {
        let group = Group::new();
        group.limit(QUOTA_US);
        let (mut asked, ask) = std::io::pipe().unwrap();
        let (done, mut answered) = std::io::pipe().unwrap();
        let to = agent.otlp;
        // What only the other side writes to is closed here, so that both see each other's end.
        let child = {
            let ask = ask.try_clone().unwrap();
            Child::start(&group, move || {
                drop(ask);
                let mut request = [0_u8; 2];
                while asked.read_exact(&mut request).is_ok() && request[1] != 0 {
                    serve(to, request);
                    let _ = answered.write_all(b"!");
                }
            })
        };
        Self {
            child: Some(child),
            ask: Some(ask),
            done,
            _group: group,
        }
    }

    /// Begins with a request; its trace has that number.
    pub fn begin(&mut self, request: u8, what: Request) {
        let ask = self.ask.as_mut().unwrap();
        ask.write_all(&[what as u8, request]).unwrap();
    }

    /// Waits until it is served and its span sent.
    pub fn end(&mut self) {
        self.done.read_exact(&mut [0]).unwrap();
    }

    pub fn serve(&mut self, request: u8, what: Request) {
        self.begin(request, what);
        self.end();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(ask) = &mut self.ask {
            let _ = ask.write_all(&[0, 0]);
        }
        if !thread::panicking()
            && let Some(child) = self.child.take()
        {
            assert_eq!(child.wait(), 0);
        }
    }
}

fn serve(to: SocketAddr, [what, request]: [u8; 2]) {
    let start = UnixNs::now();
    if what == Request::Burns as u8 {
        let until = cpu_ns() + BURN_NS;
        while cpu_ns() < until {
            std::hint::spin_loop();
        }
    } else {
        thread::sleep(REST);
    }
    let end = UnixNs::now();
    let (trace, span) = (trace_id(request), format!("{request:016x}"));
    let name = r#"{"key":"service.name","value":{"stringValue":"shop"}}"#;
    let body = format!(
        r#"{{"resourceSpans":[{{"resource":{{"attributes":[{name}]}},"scopeSpans":[{{"spans":[{{"traceId":"{trace}","spanId":"{span}","name":"buy","kind":2,"startTimeUnixNano":"{}","endTimeUnixNano":"{}"}}]}}]}}]}}"#,
        start.0, end.0
    );
    let answer = http(&to.to_string(), "POST /v1/traces", &body);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// CPU time of this thread.
fn cpu_ns() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
