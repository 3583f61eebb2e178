//! Between the agent and the API server: one fault after the other, then none. It speaks plain
//! HTTP to both, to the API server through `kubectl proxy`.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use harness::process::Process;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// Its answer begins so much later.
    Slow(Duration),
    /// 410: the position is too old.
    Gone,
    /// 503.
    Unavailable,
    /// Its answer breaks off after so long.
    BreakOff(Duration),
}

/// The proxy; ends with its owner.
pub struct Proxy {
    address: String,
    state: Arc<Mutex<State>>,
    _kubectl: Process,
}

#[derive(Default)]
struct State {
    faults: Vec<Fault>,
    requests: Vec<String>,
}

impl Proxy {
    /// Each request gets the next fault.
    pub fn start(faults: &[Fault]) -> anyhow::Result<Self> {
        let mut kubectl = Process::start(
            "kubectl proxy",
            Command::new("kubectl").args(["proxy", "--port=0"]),
            None,
        )?;
        let line = kubectl.wait_for_line("Starting to serve on ")?;
        let upstream = line.rsplit(' ').next().context("an address")?.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let state = Arc::new(Mutex::new(State {
            faults: faults.iter().rev().copied().collect(),
            requests: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (shared, upstream) = (Arc::clone(&shared), upstream.clone());
                // A client that goes away is none of the test's business.
                thread::spawn(move || drop(serve(client, &upstream, &shared)));
            }
        });
        Ok(Self {
            address,
            state,
            _kubectl: kubectl,
        })
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Faults that are still to come.
    pub fn left(&self) -> usize {
        self.state.lock().map_or(0, |state| state.faults.len())
    }

    /// First lines of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.state
            .lock()
            .map_or_else(|_| Vec::new(), |state| state.requests.clone())
    }
}

fn serve(mut client: TcpStream, upstream: &str, state: &Mutex<State>) -> anyhow::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head)?;
    let (line, rest) = head.split_once("\r\n").context("a request")?;
    let fault = {
        let mut state = state.lock().map_err(|_| anyhow::anyhow!("broken"))?;
        state.requests.push(line.to_owned());
        state.faults.pop().unwrap_or(Fault::None)
    };
    let refuse = |client: &mut TcpStream, code: u16| {
        let body = format!("{{\"kind\":\"Status\",\"code\":{code},\"message\":\"by the test\"}}");
        let answer = format!(
            "HTTP/1.1 {code} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        client.write_all(answer.as_bytes())
    };
    let mut end = None;
    match fault {
        Fault::None => {}
        Fault::Slow(time) => thread::sleep(time),
        Fault::Gone => return Ok(refuse(&mut client, 410)?),
        Fault::Unavailable => return Ok(refuse(&mut client, 503)?),
        Fault::BreakOff(time) => end = Some(Instant::now() + time),
    }
    let mut server = TcpStream::connect(upstream)?;
    let head = format!("{line}\r\nConnection: close\r\n{rest}");
    server.write_all(head.as_bytes())?;
    let mut buffer = [0; 16 << 10];
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(client.shutdown(Shutdown::Both)?);
        }
        server.set_read_timeout(left)?;
        match server.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => client.write_all(&buffer[..count])?,
            Err(_) if end.is_some() => {}
            Err(error) => return Err(error.into()),
        }
    }
}
