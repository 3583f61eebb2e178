//! Requests to the chain, a few clients at a time, each waiting for its answer.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use harness::http;

use crate::{plan::ASKS_RATES, service::PORT, sink::unix_ns};

/// One request and what came of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its trace; empty where no answer said.
    pub trace: String,
    /// When it was sent, wall time.
    pub start_ns: u64,
    /// When it was answered.
    pub end_ns: u64,
    /// Whether it was answered with success.
    pub ok: bool,
    /// Whether it was to ask `rates`.
    pub asks_rates: bool,
}

/// What is asked for, one after the other: paths with queries.
pub type Script = Vec<String>;

/// A running load.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    script: Arc<Mutex<Script>>,
    done: Arc<Mutex<Vec<Request>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts so many clients on a script, with a pause after each answer.
    ///
    /// # Errors
    /// When there are no threads to be had.
    pub fn start(
        front: Ipv4Addr,
        clients: usize,
        pause: Duration,
        script: Script,
    ) -> anyhow::Result<Self> {
        let load = Self {
            stop: Arc::default(),
            script: Arc::new(Mutex::new(script)),
            done: Arc::default(),
            clients: Vec::new(),
        };
        let turn = Arc::new(AtomicU64::new(0));
        let client = || {
            let (stop, script) = (Arc::clone(&load.stop), Arc::clone(&load.script));
            let (done, turn) = (Arc::clone(&load.done), Arc::clone(&turn));
            thread::Builder::new()
                .name("client".to_owned())
                .spawn(move || {
                    while !stop.load(Ordering::Relaxed) {
                        let at = turn.fetch_add(1, Ordering::Relaxed) as usize;
                        let script = script.lock().unwrap_or_else(PoisonError::into_inner);
                        let path = script[at % script.len()].clone();
                        drop(script);
                        let request = ask(front, &path);
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        done.push(request);
                        drop(done);
                        thread::sleep(pause);
                    }
                })
        };
        let clients = (0..clients).map(|_| client()).collect::<Result<_, _>>()?;
        Ok(Self { clients, ..load })
    }

    /// From now on this is asked for.
    pub fn ask_for(&self, script: Script) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }

    /// How many requests were answered.
    #[must_use]
    pub fn answered(&self) -> usize {
        self.done
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Waits for the last answers.
    #[must_use]
    pub fn stop(self) -> Vec<Request> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            // A client that panicked has one request less.
            let _ = client.join();
        }
        std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn ask(front: Ipv4Addr, path: &str) -> Request {
    let start_ns = unix_ns();
    let answer = http::get(&format!("http://{front}:{PORT}{path}"));
    let end_ns = unix_ns();
    let trace = answer.as_ref().ok().and_then(|answer| {
        let mut lines = answer.head.lines().map(str::to_ascii_lowercase);
        lines.find_map(|line| Some(line.strip_prefix("x-trace-id:")?.trim().to_owned()))
    });
    Request {
        trace: trace.unwrap_or_default(),
        start_ns,
        end_ns,
        ok: answer.is_ok_and(|answer| answer.status == 200),
        asks_rates: path.contains(ASKS_RATES),
    }
}
