//! How the agent starts, refuses to start, and stops.

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    process::{Command, Output, Stdio},
};

use anyhow::Context as _;
use harness::{
    agent::Agent,
    artifact,
    cgroup::Cgroup,
    http,
    jaeger::Jaeger,
    otlp,
    service::{Language, Service},
    wait,
};

fn run(wrapper: &[&str], flags: &[&str]) -> anyhow::Result<Output> {
    let mut words: Vec<&std::ffi::OsStr> = wrapper.iter().map(AsRef::as_ref).collect();
    let agent = artifact::program("isostack-agent")?;
    words.push(agent.as_ref());
    words.extend(flags.iter().map(std::ffi::OsStr::new));
    // An agent that does start instead of refusing would run for ever.
    Command::new("timeout")
        .arg("20")
        .args(&words)
        .output()
        .context("cannot run")
}

fn refusal(wrapper: &[&str], flags: &[&str], code: i32) -> anyhow::Result<String> {
    let output = run(wrapper, flags)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{flags:?}: {said}");
    assert!(
        output.stdout.is_empty(),
        "logs belong to stderr: {output:?}"
    );
    Ok(said)
}

#[test]
fn a_wrong_flag_is_answered_with_the_nearest() -> anyhow::Result<()> {
    let said = refusal(&[], &["--export-endpont", "http://127.0.0.1:1"], 64)?;
    assert!(said.contains("--export-endpoint"), "{said}");
    Ok(())
}

#[test]
fn wrong_values_are_refused_before_anything_starts() -> anyhow::Result<()> {
    for (flag, value) in [
        ("--sensors", "cpuu"),
        ("--settle", "fast"),
        ("--http-listen", "nowhere"),
        ("--export-endpoint", "ftp://127.0.0.1"),
        ("--export-protocol", "carrier-pigeon"),
        ("--export-endpoint", "foo"),
        ("--jaeger-url", "foo"),
        ("--jaeger-url", "http://j:99999"),
        ("--cri-endpoint", "foo"),
        ("--node-name", ""),
    ] {
        let said = refusal(&[], &[flag, value], 64)?;
        assert!(said.contains(value), "{said}");
    }
    Ok(())
}

#[test]
fn it_does_not_send_to_itself() -> anyhow::Result<()> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
    let endpoint = format!("http://{address}");
    let flags = [
        "--http-listen",
        "127.0.0.1:0",
        "--otlp-grpc-listen",
        &address,
        "--otlp-http-listen",
        "127.0.0.1:0",
        "--export-endpoint",
        &endpoint,
    ];
    let said = refusal(&[], &flags, 64)?;
    assert!(said.contains(&endpoint), "{said}");
    Ok(())
}

#[test]
fn a_sensor_that_was_asked_for_and_is_not_there_fails_the_start() -> anyhow::Result<()> {
    let flags = [
        "--http-listen",
        "127.0.0.1:0",
        "--otlp-grpc-listen",
        "127.0.0.1:0",
        "--otlp-http-listen",
        "127.0.0.1:0",
        "--sensors",
        "kvm",
    ];
    let output = run(&[], &flags)?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("sensor kvm was asked for and cannot run"),
        "{said}"
    );
    Ok(())
}

#[test]
fn a_wrong_key_in_the_file_is_answered_with_the_nearest() -> anyhow::Result<()> {
    let mut file = tempfile::NamedTempFile::new()?;
    writeln!(file, "setle = \"1s\"")?;
    let path = file.path().to_str().context("path")?;
    let said = refusal(&[], &["--config", path], 64)?;
    assert!(said.contains("settle"), "{said}");
    Ok(())
}

#[test]
fn an_empty_variable_counts_as_unset() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let config = dir.path().join("agent.toml");
    fs::write(&config, "node_name = \"from-file\"\n")?;
    let mut command = Command::new(artifact::program("isostack-agent")?);
    for listen in ["--http-listen", "--otlp-grpc-listen", "--otlp-http-listen"] {
        command.args([listen, "127.0.0.1:0"]);
    }
    command.arg("--state-dir").arg(dir.path());
    command.arg("--config").arg(&config);
    for name in ["NODE_NAME", "SETTLE", "JAEGER_URL", "LOG_FILE", "KUBELET"] {
        command.env(format!("ISOSTACK_{name}"), "");
    }
    let agent = Agent::start_command(&mut command)?;
    assert_eq!(agent.api("/api/v1/host")?["node"], "from-file");
    Ok(())
}

#[test]
fn without_privilege_it_says_what_to_do() -> anyhow::Result<()> {
    // The program's folder may be closed to others: drop the capabilities, not the user.
    let said = refusal(
        &[
            "setpriv",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--no-new-privs",
            "--",
        ],
        &["--http-listen", "127.0.0.1:0"],
        77,
    )?;
    assert!(said.contains("root") || said.contains("CAP_BPF"), "{said}");
    Ok(())
}

#[test]
fn a_taken_port_is_named_with_its_holder() -> anyhow::Result<()> {
    let held = TcpListener::bind("127.0.0.1:0")?;
    let address = held.local_addr()?.to_string();
    let flags = [
        "--http-listen",
        "127.0.0.1:0",
        "--otlp-grpc-listen",
        &address,
        "--otlp-http-listen",
        "127.0.0.1:0",
    ];
    let output = run(&[], &flags)?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains(&address), "{said}");
    assert!(said.contains("--otlp-grpc-listen"), "{said}");
    assert!(said.contains(&std::process::id().to_string()), "{said}");
    Ok(())
}

#[test]
fn starts_without_configuration_and_shows_itself() -> anyhow::Result<()> {
    let agent = Agent::start(&[])?;
    for path in ["/", "/metrics", "/healthz", "/readyz"] {
        let answer = http::get(&agent.url(path))?;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
    for path in ["host", "sensors", "verdicts", "spans"] {
        agent.api(&format!("/api/v1/{path}"))?;
    }
    let sensors = agent.api("/api/v1/sensors")?.to_string();
    assert!(sensors.contains("\"cpu\""), "{sensors}");
    Ok(())
}

/// What `deploy/systemd/isostack-agent.service` leaves it: a user without rights of its own
/// and these four capabilities.
#[test]
fn runs_with_the_privileges_of_the_systemd_unit() -> anyhow::Result<()> {
    let unit = artifact::root().join("deploy/systemd/isostack-agent.service");
    let unit = fs::read_to_string(unit)?;
    let of_unit = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key));
        line.map(|line| {
            let names = line.split_whitespace();
            let names = names.map(|name| name.to_lowercase().replace("cap_", ",+"));
            format!("-all{}", names.collect::<String>())
        })
        .with_context(|| format!("no {key} in the unit"))
    };
    let ambient = of_unit("AmbientCapabilities=")?;
    let bounding = of_unit("CapabilityBoundingSet=")?;
    assert!(unit.contains("NoNewPrivileges=yes"), "{unit}");
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    command.args(["--no-new-privs", "--inh-caps", &ambient]);
    command.args(["--ambient-caps", &ambient, "--bounding-set", &bounding]);
    command.arg("--").arg(artifact::program("isostack-agent")?);
    for flag in ["--http-listen", "--otlp-grpc-listen", "--otlp-http-listen"] {
        command.args([flag, "127.0.0.1:0"]);
    }
    let agent = Agent::start_command(&mut command)?;
    let said = agent.process.output();
    assert!(!said.contains("WARN"), "{said}");
    let sensors = agent.api("/api/v1/sensors")?;
    let sensors = sensors["sensors"].as_array().context("sensors")?;
    let cpu = sensors.iter().find(|sensor| sensor["name"] == "cpu");
    assert_eq!(cpu.context("cpu")?["state"], "on", "{said}");

    // The service is another user's: root's.
    let cgroup = Cgroup::create("isostack-test-unit")?;
    let endpoint = format!("http://{}", agent.otlp_grpc);
    let service = Service::start(Language::Rust, "svc", &endpoint, Some(&cgroup))?;
    cgroup.limit_cpu(10)?;
    service.request(60)?;
    let path = "?service=svc&cause=cpu_throttle";
    let verdict = &agent.wait_for_verdict(path)?[0];
    // By the process, or more finely by the thread of the request.
    let confidence = &verdict["confidence"];
    assert!(
        confidence == "process" || confidence == "thread_inferred",
        "{verdict}"
    );
    assert_eq!(verdict["fault"], "L-3", "{verdict}");
    Ok(())
}

/// A dead downstream is told where people and machines look, and is no reason for a restart:
/// that would lose the spans that are kept for it.
#[test]
fn a_downstream_that_takes_nothing_is_told_and_leaves_it_ready() -> anyhow::Result<()> {
    // A port that no other test is given: who connects is refused.
    let gone = "127.0.0.1:1";
    let endpoint = format!("http://{gone}");
    let agent = Agent::start(&["--export-endpoint", &endpoint, "--settle", "1ms"])?;
    let idle = agent.api("/api/v1/host")?;
    assert_eq!(idle["downstream"][0]["state"], "idle", "{idle}");
    assert!(otlp::send(&agent.otlp_http, "svc", 1, 2)?);
    wait::until("a failing downstream", wait::PATIENCE, || {
        let host = agent.api("/api/v1/host").ok()?;
        (host["downstream"][0]["state"] == "failing").then_some(())
    })?;
    let host = agent.api("/api/v1/host")?;
    let told = &host["downstream"][0];
    assert_eq!(told["signal"], "traces", "{told}");
    assert_eq!(told["queued_requests"], 1, "{told}");
    let ready = http::get(&agent.url("/readyz"))?;
    assert_eq!(ready.status, 200, "{}", ready.body);
    assert!(ready.body.contains(gone), "{}", ready.body);
    Ok(())
}

#[test]
fn a_state_directory_that_cannot_be_is_told_at_the_start() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let nowhere = dir.path().join("a/b");
    let nowhere = nowhere.to_str().context("path")?;
    let agent = Agent::start(&["--state-dir", nowhere])?;
    let said = agent.process.output();
    assert!(
        said.contains("--state-dir") && said.contains(nowhere),
        "{said}"
    );
    Ok(())
}

#[test]
fn metrics_pass_promtool() -> anyhow::Result<()> {
    let agent = Agent::start(&[])?;
    let service = Service::start(
        Language::Rust,
        "svc",
        &format!("http://{}", agent.otlp_grpc),
        None,
    )?;
    service.request(5)?;
    wait::until("received spans", wait::PATIENCE, || {
        let page = http::get(&agent.url("/metrics")).ok()?.body;
        page.contains("isostack_span_duration_seconds_bucket")
            .then_some(())
    })?;
    let page = http::get(&agent.url("/metrics"))?.body;
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    promtool
        .stdin
        .take()
        .context("stdin")?
        .write_all(page.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{page}");
    Ok(())
}

#[test]
fn a_stop_delivers_what_is_there() -> anyhow::Result<()> {
    let jaeger = Jaeger::start()?;
    // Spans would wait longer than the test: only the stop can deliver them.
    let flags = ["--export-endpoint", &jaeger.otlp_grpc(), "--settle", "60s"];
    let mut agent = Agent::start(&flags)?;
    let endpoint = format!("http://{}", agent.otlp_grpc);
    let mut service = Service::start(Language::Rust, "svc", &endpoint, None)?;
    let trace = service.trace_of_request(5)?;
    service.process.terminate()?; // sends its spans and is answered
    assert!(jaeger.trace(&trace)?.is_empty());
    let status = agent.process.terminate()?;
    assert!(status.success(), "{status}: {}", agent.process.output());
    jaeger.wait_for_trace(&trace, 3)?;
    Ok(())
}

#[test]
fn a_stop_says_what_it_could_not_deliver() -> anyhow::Result<()> {
    // A port that answers nobody: bound, never accepted from.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let endpoint = format!("http://{}", silent.local_addr()?);
    let mut agent = Agent::start(&["--export-endpoint", &endpoint, "--drain-timeout", "1s"])?;
    let to = format!("http://{}", agent.otlp_grpc);
    let mut service = Service::start(Language::Rust, "svc", &to, None)?;
    service.request(5)?;
    service.process.terminate()?;
    let status = agent.process.terminate()?;
    let said = agent.process.output();
    assert!(
        said.contains("3 spans") || said.contains("spans=3"),
        "{status}: {said}"
    );
    Ok(())
}
