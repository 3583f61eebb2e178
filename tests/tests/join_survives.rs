//! The join from a span to its process holds where the process is hard to see, its pid is
//! not its own for long, or its connection is not.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, bail};
use harness::{
    agent::Agent,
    cgroup::Cgroup,
    netns::Netns,
    peers,
    service::{Language, Service, wrap},
    wait,
};
use serde_json::Value;

const WORK_MS: u64 = 60;

/// Slow requests until one is found to be throttled; the newest such verdict of the service.
/// (A busy machine gives it verdicts of other causes too, and rightly.)
fn verdict(agent: &Agent, service: &Service, name: &str) -> anyhow::Result<Value> {
    let path = format!("/api/v1/verdicts?service={name}&cause=cpu_throttle");
    wait::until("a verdict", wait::PATIENCE, || {
        service.request(WORK_MS).ok()?;
        std::thread::sleep(Duration::from_millis(800));
        agent.api(&path).ok()?["verdicts"].get(0).cloned()
    })
    .with_context(|| agent.process.output())
}

fn assert_throttled(verdict: &Value) {
    assert_eq!(verdict["fault"], "L-3", "{verdict}");
    assert_eq!(verdict["cause"], "cpu_throttle", "{verdict}");
    assert_joined(verdict);
}

/// By its process, or more finely by the thread of the request.
fn assert_joined(verdict: &Value) {
    let confidence = &verdict["confidence"];
    assert!(
        confidence == "process" || confidence == "thread_inferred",
        "{verdict}"
    );
}

#[test]
fn pid_and_network_namespace_of_its_own() -> anyhow::Result<()> {
    let netns = Netns::create()?;
    let agent = Agent::start_on(&netns.host.to_string(), [0; 3], &[])?;
    let cgroup = Cgroup::create("isostack-test-ns")?;
    let inner = Language::Rust.command_on(&format!("{}:0", netns.inside))?;
    // pid 1 of a namespace with a /proc of its own, as in a container.
    let unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let command = wrap(&netns.exec(), wrap(&unshare, inner));
    let endpoint = format!("http://{}", agent.otlp_grpc);
    let service =
        Service::start_command(command, Language::Rust, "inside", &endpoint, Some(&cgroup))?;
    cgroup.limit_cpu(20)?;
    assert_throttled(&verdict(&agent, &service, "inside")?);
    Ok(())
}

/// Starts a service whose pid is `wanted`, which is free.
fn start_with_pid(
    wanted: u32,
    name: &str,
    endpoint: &str,
    cgroup: &Cgroup,
) -> anyhow::Result<Service> {
    for _ in 0..500 {
        // The next process gets the number after this, unless another one is quicker.
        fs::write("/proc/sys/kernel/ns_last_pid", (wanted - 1).to_string())
            .context("/proc/sys/kernel/ns_last_pid: the kernel gives pids only by itself")?;
        let mut probe = Command::new("true").spawn()?;
        let next = probe.id();
        probe.wait()?;
        if next != wanted {
            continue;
        }
        fs::write("/proc/sys/kernel/ns_last_pid", (wanted - 1).to_string())?;
        let service = Service::start(Language::Rust, name, endpoint, Some(cgroup))?;
        if service.process.pid() == wanted {
            return Ok(service);
        }
    }
    bail!("pid {wanted} could not be had again")
}

#[test]
fn a_pid_that_came_round_again_is_another_process() -> anyhow::Result<()> {
    let agent = Agent::start(&[])?;
    let endpoint = format!("http://{}", agent.otlp_grpc);
    let old_group = Cgroup::create("isostack-test-old")?;
    let old = Service::start(Language::Rust, "old", &endpoint, Some(&old_group))?;
    let pid = old.process.pid();
    old_group.limit_cpu(20)?;
    let said = verdict(&agent, &old, "old")?;
    assert_throttled(&said);
    drop(old);

    // Healthy, in another cgroup, with the number of the one that was held back.
    let new_group = Cgroup::create("isostack-test-new")?;
    let new = start_with_pid(pid, "new", &endpoint, &new_group)?;
    for _ in 0..5 {
        new.request(5)?;
    }
    new_group.limit_cpu(20)?;
    let said = verdict(&agent, &new, "new")?;
    assert_throttled(&said);
    let spans = agent.api("/api/v1/verdicts?service=new")?;
    let evidence = spans.to_string();
    assert!(
        !evidence.contains("isostack-test-old"),
        "blamed on the old one: {evidence}"
    );
    Ok(())
}

#[test]
fn an_exporter_that_reconnects_is_found_again() -> anyhow::Result<()> {
    peers::need("ss")?;
    let agent = Agent::start(&[])?;
    let cgroup = Cgroup::create("isostack-test-again")?;
    let endpoint = format!("http://{}", agent.otlp_grpc);
    let service = Service::start(Language::Rust, "again", &endpoint, Some(&cgroup))?;
    cgroup.limit_cpu(20)?;
    assert_throttled(&verdict(&agent, &service, "again")?);

    let first = connection(&agent).context("the exporter is connected")?;
    peers::run(Command::new("ss").args(["-K", "dst", &agent.otlp_grpc]))?;
    let before = newest(&agent)?;
    wait::until("a verdict over the new connection", wait::PATIENCE, || {
        service.request(WORK_MS).ok()?;
        std::thread::sleep(Duration::from_millis(800));
        let now = newest(&agent).ok()?;
        (now != before && connection(&agent).is_some_and(|again| again != first)).then_some(())
    })?;
    let all = agent.api("/api/v1/verdicts?service=again")?;
    for verdict in all["verdicts"].as_array().context("verdicts")? {
        assert_joined(verdict);
    }
    Ok(())
}

fn newest(agent: &Agent) -> anyhow::Result<Value> {
    let throttled = agent.api("/api/v1/verdicts?service=again&cause=cpu_throttle")?;
    Ok(throttled["verdicts"][0]["span_id"].clone())
}

/// The exporter's end of its connection to the agent.
fn connection(agent: &Agent) -> Option<String> {
    let output = Command::new("ss")
        .args(["-Htn", "state", "established", "dst", &agent.otlp_grpc])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines()
        .next()?
        .split_whitespace()
        .nth(2)
        .map(str::to_owned)
}

#[test]
fn an_agent_that_starts_again_finds_its_senders() -> anyhow::Result<()> {
    let agent = Agent::start(&[])?;
    let port = agent
        .otlp_grpc
        .rsplit(':')
        .next()
        .context("port")?
        .parse()?;
    let cgroup = Cgroup::create("isostack-test-restart")?;
    let endpoint = format!("http://{}", agent.otlp_grpc);
    let service = Service::start(Language::Rust, "stays", &endpoint, Some(&cgroup))?;
    cgroup.limit_cpu(20)?;
    service.request(WORK_MS)?;
    drop(agent);
    let agent = Agent::start_on("127.0.0.1", [0, port, 0], &[])?;
    assert_throttled(&verdict(&agent, &service, "stays")?);
    Ok(())
}
