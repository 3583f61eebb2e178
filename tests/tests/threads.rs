//! `thread_inferred` against the truth: real servers with upstream SDKs, many requests at a
//! time, each of which says on which thread it was worked on. The agent sees nothing of that.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use harness::{
    agent::Agent,
    artifact, peers,
    service::{self, Language, Service},
};
use serde_json::Value;

/// Requests in flight.
const CLIENTS: u64 = 64;
/// How long there are so many.
const LOAD: Duration = Duration::from_secs(8);
/// Longest wait for an answer of a service.
const PATIENCE: Duration = Duration::from_secs(60);

/// A kept-alive connection.
struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    fn connect(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    fn get(&mut self, path: &str) -> anyhow::Result<Value> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())?;
        let (mut length, mut in_chunks) = (0, false);
        loop {
            let header = self.line()?.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            in_chunks |= header == "transfer-encoding: chunked";
            if header.is_empty() {
                break;
            }
        }
        let mut body = Vec::new();
        while in_chunks {
            let size = u64::from_str_radix(&self.line()?, 16)?;
            self.stream.by_ref().take(size).read_to_end(&mut body)?;
            self.line()?;
            in_chunks = size > 0;
        }
        self.stream.by_ref().take(length).read_to_end(&mut body)?;
        Ok(serde_json::from_slice(&body)?)
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "closed");
        Ok(line.trim_end().to_owned())
    }
}

/// Numbers that look random, the same each time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// What the agent said of a span.
struct Said {
    confidence: String,
    thread: Option<u64>,
    kind: String,
}

/// Everything that the agent said until `done`, by span.
fn listen(agent: &Agent, done: &AtomicBool) -> anyhow::Result<HashMap<String, Said>> {
    let mut said = HashMap::new();
    let mut last = false;
    loop {
        let rows = agent.api("/api/v1/spans?limit=500")?;
        for row in rows["spans"].as_array().context("no spans")? {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            said.insert(
                text("span_id"),
                Said {
                    confidence: text("confidence"),
                    thread: row["thread"].as_u64(),
                    kind: text("kind"),
                },
            );
        }
        if last {
            return Ok(said);
        }
        thread::sleep(Duration::from_millis(100));
        last = done.load(Ordering::Acquire);
    }
}

/// Loads `service` from [`CLIENTS`] connections; `path` makes requests. Gives what the agent
/// said, and the truth by `truth(answer)`: thread by span.
fn under_load(
    agent: &Agent,
    service: &Service,
    path: fn(&mut Dice) -> String,
    truth: impl Fn(&Value) -> Vec<(String, u64)> + Sync,
) -> anyhow::Result<(HashMap<String, Said>, HashMap<String, u64>)> {
    let url = service.url(1);
    let address = url.split('/').nth(2).context("no address")?;
    // The agent learns who sends spans from the first ones.
    let mut first = Client::connect(address)?;
    let asked = Instant::now();
    while agent.api("/api/v1/spans")?["spans"]
        .as_array()
        .is_none_or(Vec::is_empty)
    {
        ensure!(asked.elapsed() < PATIENCE, "{}", agent.process.output());
        first.get(&path(&mut Dice(7)))?;
        thread::sleep(Duration::from_millis(100));
    }
    drop(first);
    let (done, known) = (AtomicBool::new(false), Mutex::new(HashMap::new()));
    let said = thread::scope(|scope| -> anyhow::Result<_> {
        let listener = scope.spawn(|| listen(agent, &done));
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let (known, truth) = (&known, &truth);
                scope.spawn(move || -> anyhow::Result<()> {
                    let mut dice = Dice(0x9e37_79b9 + n * 7919);
                    let mut client = Client::connect(address)?;
                    let started = Instant::now();
                    while started.elapsed() < LOAD {
                        let answer = client.get(&path(&mut dice))?;
                        known.lock().expect("no panic").extend(truth(&answer));
                    }
                    Ok(())
                })
            })
            .collect();
        for client in clients {
            client.join().expect("no panic")?;
        }
        thread::sleep(Duration::from_secs(2)); // the last are exported and judged
        done.store(true, Ordering::Release);
        listener.join().expect("no panic")
    })?;
    Ok((said, known.into_inner()?))
}

fn python_threads(agent: &Agent) -> anyhow::Result<Service> {
    let mut command = Command::new(peers::python()?);
    command.arg(artifact::root().join("tests/services/python/threads.py"));
    let endpoint = format!("http://{}", agent.otlp_grpc);
    Service::start_command(command, Language::Python, "threads", &endpoint, None)
}

fn java_threads(agent: &Agent) -> anyhow::Result<Service> {
    let command = service::java("Threads", "127.0.0.1:0")?;
    let endpoint = format!("http://{}", agent.otlp_http);
    Service::start_command(command, Language::Java, "threads", &endpoint, None)
}

/// At least half of the spans are answered, and at least 99 of 100 answers are right.
fn are_found_among_64(agent: &Agent, service: &Service) -> anyhow::Result<()> {
    let path = |dice: &mut Dice| {
        let (cpu, sleep) = (dice.roll(4), 20 + dice.roll(180));
        format!("/mixed?cpu_ms={cpu}&sleep_ms={sleep}")
    };
    let truth = |answer: &Value| {
        let tids = answer["tids"].as_object().cloned().unwrap_or_default();
        tids.into_iter()
            .filter_map(|(span, tid)| Some((span, tid.as_u64()?)))
            .collect()
    };
    let (said, truth) = under_load(agent, service, path, truth)?;
    for kind in ["server", "internal"] {
        let of_kind = said.iter().filter(|(_, said)| said.kind == kind);
        let known: Vec<_> = of_kind
            .filter_map(|(span, said)| Some((said, *truth.get(span)?)))
            .collect();
        let named: Vec<_> = known
            .iter()
            .filter(|(said, _)| said.confidence == "thread_inferred")
            .collect();
        let right = named
            .iter()
            .filter(|(said, tid)| said.thread == Some(*tid))
            .count();
        println!(
            "{kind}: {} spans, {} answered, {right} right",
            known.len(),
            named.len()
        );
        assert!(known.len() > 100, "{} of {}", known.len(), truth.len());
        assert!(named.len() * 2 > known.len(), "it says too little");
        assert!(right * 100 >= named.len() * 99, "it says what is not so");
    }
    Ok(())
}

#[test]
fn a_thread_per_connection_is_found_among_64() -> anyhow::Result<()> {
    let agent = Agent::start(&[])?;
    let service = python_threads(&agent)?;
    are_found_among_64(&agent, &service)
}

#[test]
fn a_thread_per_request_is_found_among_64() -> anyhow::Result<()> {
    let agent = Agent::start(&[])?;
    let service = java_threads(&agent)?;
    are_found_among_64(&agent, &service)
}

#[test]
fn an_event_loop_is_never_taken_for_another_thread() -> anyhow::Result<()> {
    let agent = Agent::start(&[])?;
    let endpoint = format!("http://{}", agent.otlp_http);
    let service = Service::start(Language::Node, "loop", &endpoint, None)?;
    let tid = u64::from(service.process.pid());
    let path = |dice: &mut Dice| format!("/work?cpu_ms={}", dice.roll(3));
    let truth = move |answer: &Value| {
        let span = answer["span_id"].as_str().unwrap_or_default();
        vec![(span.to_owned(), tid)]
    };
    let (said, truth) = under_load(&agent, &service, path, truth)?;
    let known = said
        .iter()
        .filter_map(|(span, said)| Some((said, *truth.get(span)?)));
    let (mut seen, mut inferred) = (0, 0);
    for (said, tid) in known {
        seen += 1;
        inferred += usize::from(said.confidence == "thread_inferred");
        assert!(
            said.thread.is_none_or(|said| said == tid),
            "{:?}",
            said.thread
        );
    }
    println!("{seen} spans, {inferred} answered");
    assert!(seen > 100, "{seen} of {}", truth.len());
    assert!(
        inferred * 10 < seen,
        "{inferred} of {seen}: it works on many at once"
    );
    Ok(())
}
