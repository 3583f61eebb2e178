//! `cargo xtask demo`: the agent and a small service held back by a CPU quota, and each slow
//! request as the agent localises it. Everything started here ends with this process, also
//! when it is killed.

mod ports;
mod show;

use std::{
    collections::HashSet,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use harness::{
    agent::Agent,
    artifact,
    cgroup::Cgroup,
    http,
    process::Process,
    service::{Language, Service},
};

use crate::setup::{self, Purpose};

/// Share of one CPU that the service gets, in percent.
const QUOTA_PERCENT: u64 = 20;

/// CPU time of one request in milliseconds: five periods' worth of that quota.
const WORK_MS: u64 = 100;

/// Flags of `cargo xtask demo`.
#[derive(clap::Args)]
pub struct Args {
    /// Stop after the first localised request.
    #[arg(long)]
    once: bool,
    /// Stop after this many seconds [default: at Ctrl-C]
    #[arg(long)]
    seconds: Option<u64>,
}

/// Set by the first Ctrl-C.
static STOP: AtomicBool = AtomicBool::new(false);

/// Runs the demo.
///
/// # Errors
/// Without root, when something cannot be built or started, or when the time was up before
/// the first request was localised.
pub fn run(args: &Args) -> anyhow::Result<()> {
    setup::need_root("cargo xtask demo (it loads eBPF programs and makes a cgroup)")?;
    setup::run(Purpose::Build)?;
    println!("Building the agent and the service (a few minutes the first time)");
    artifact::program("isostack-agent")?;
    stop_on_signals()?;
    let began = Instant::now();

    let agent = start_agent()?;
    println!("Web page      http://{}/", agent.http);
    let cgroup = Cgroup::create("isostack-demo")?;
    cgroup.limit_cpu(QUOTA_PERCENT)?;
    let endpoint = format!("http://{}", agent.otlp_grpc);
    let shop = Service::start(Language::Rust, "shop", &endpoint, Some(&cgroup))?;
    println!(
        "Service       {} in {}",
        shop.url(WORK_MS),
        cgroup.dir().display()
    );
    println!("              with a quota of {QUOTA_PERCENT} % of one CPU, one request a second");
    println!("Ctrl-C stops everything.\n");
    let mut load = Command::new(artifact::program("shop")?);
    load.args(["load", "--rate", "1", "--url", &shop.url(WORK_MS)]);
    let load = Process::start("load", &mut load, None)?;

    let mut demo = Demo {
        agent,
        shop,
        load,
        seen: HashSet::new(),
    };
    let end = args
        .seconds
        .map(|seconds| began + Duration::from_secs(seconds));
    while !STOP.load(Ordering::Relaxed) {
        let first = demo.seen.is_empty();
        demo.step()?;
        if first && !demo.seen.is_empty() {
            println!(
                "First request localised {:.1} s after the start.\n",
                began.elapsed().as_secs_f64()
            );
        }
        if args.once && !demo.seen.is_empty() {
            break;
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    demo.stop()?;
    drop(cgroup);
    println!("Stopped; the cgroup and all processes of the demo are gone.");
    if demo.seen.is_empty() && (args.once || args.seconds.is_some()) {
        bail!("no request was localised in this time");
    }
    Ok(())
}

/// The agent on its usual ports where they are free.
fn start_agent() -> anyhow::Result<Agent> {
    let flags = ["--http-listen", "--otlp-grpc-listen", "--otlp-http-listen"];
    let mut command = Command::new(artifact::program("isostack-agent")?);
    for (flag, port) in flags.into_iter().zip(ports::DEFAULT) {
        let port = match ports::holder(port) {
            None => port,
            Some(holder) => {
                println!("Port {port} is taken by {holder}: using a free one instead");
                0
            }
        };
        command.arg(flag).arg(format!("127.0.0.1:{port}"));
    }
    Agent::start_command(&mut command).context("the agent does not start")
}

struct Demo {
    agent: Agent,
    shop: Service,
    load: Process,
    /// Span ids that were shown.
    seen: HashSet<String>,
}

impl Demo {
    /// Shows the verdicts that are new.
    fn step(&mut self) -> anyhow::Result<()> {
        if !self.agent.process.is_running() {
            bail!("the agent ended:\n{}", self.agent.process.output());
        }
        if !self.shop.process.is_running() {
            bail!("the service ended:\n{}", self.shop.process.output());
        }
        let answer = http::get(&self.agent.url("/api/v1/verdicts?service=shop&limit=50"));
        // A busy moment is no reason to stop; the process is looked at each time.
        let Ok(answer) = answer.and_then(|answer| answer.json()) else {
            return Ok(());
        };
        let verdicts = answer["verdicts"]
            .as_array()
            .context("the answer has no verdicts")?;
        for verdict in verdicts.iter().rev() {
            let id = verdict["span_id"].as_str().unwrap_or_default().to_owned();
            if self.seen.insert(id) {
                println!("{}", show::verdict(verdict, &self.agent.url("/")));
            }
        }
        Ok(())
    }

    /// Stops in order: no new requests, the last spans out, then the agent.
    fn stop(&mut self) -> anyhow::Result<()> {
        self.load.terminate()?;
        if self.shop.process.is_running() {
            self.shop.process.terminate()?;
        }
        if self.agent.process.is_running() {
            self.agent.process.terminate()?;
        }
        Ok(())
    }
}

extern "C" fn on_signal(_signal: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
}

fn stop_on_signals() -> anyhow::Result<()> {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let handler = on_signal as extern "C" fn(libc::c_int);
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe, and is a
        // function that lives as long as the program.
        let before = unsafe { libc::signal(signal, handler as libc::sighandler_t) };
        if before == libc::SIG_ERR {
            bail!("cannot handle signal {signal}");
        }
    }
    Ok(())
}
