//! Logs of a real SDK through the agent: classified, and otherwise as they were.

use std::process::Command;

use anyhow::{Context as _, ensure};
use harness::{agent::Agent, artifact, peers, process::Process, wait};
use serde_json::Value;

fn python(args: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(peers::python()?);
    command
        .arg(artifact::root().join("tests/services/python/logs.py"))
        .args(args)
        .env("OTEL_SERVICE_NAME", "shop");
    Ok(command)
}

/// The records that came, once there are so many.
fn records(receiver: &Process, count: usize) -> anyhow::Result<Vec<Value>> {
    wait::until("the records", wait::PATIENCE, || {
        let output = receiver.output();
        let lines = output
            .lines()
            .filter_map(|line| line.strip_prefix("record "));
        let found: Vec<Value> = lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        (found.len() >= count).then_some(found)
    })
}

fn attribute<'r>(record: &'r Value, key: &str) -> Option<&'r Value> {
    let attributes = record["attributes"].as_array()?;
    let found = attributes
        .iter()
        .find(|attribute| attribute["key"] == key)?;
    Some(&found["value"])
}

#[test]
fn logs_of_an_sdk_get_their_layer_and_nothing_else() -> anyhow::Result<()> {
    let mut receiver = Process::start("receiver", &mut python(&["receive"])?, None)?;
    let line = receiver.wait_for_line("listening ")?;
    let address = line.trim_start_matches("listening ");
    let endpoint = format!("http://{address}");
    let agent = Agent::start(&["--export-endpoint", &endpoint, "--export-protocol", "grpc"])?;

    let said = "runc create failed: unable to start container process: OOM-killed";
    let output = python(&[
        "send",
        &agent.otlp_grpc,
        said,
        "order 7 accepted",
        "Gofer broken pipe",
    ])?
    .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{errors}");
    let answer = String::from_utf8_lossy(&output.stdout);
    let trace = answer.trim().strip_prefix("trace ").context("no trace")?;

    let records = records(&receiver, 3)?;
    let layer = |index: usize| {
        let value = attribute(&records[index], "isostack.layer");
        value.map(|value| value["stringValue"].as_str().unwrap_or_default())
    };
    assert_eq!(
        [layer(0), layer(1), layer(2)],
        [Some("L-3"), None, Some("L-4")]
    );
    let first = &records[0];
    assert_eq!(first["body"]["stringValue"], said);
    assert_eq!(first["severityText"], "ERROR");
    let attempt = attribute(first, "attempt").context("the SDK's own attribute")?;
    assert_eq!(attempt["intValue"], "3");
    let bytes = first["traceId"].as_str().context("no trace id")?;
    assert_eq!(hex(bytes)?, trace);

    let shown = agent.api("/api/v1/log-matches")?;
    let matches = shown["log_matches"].as_array().context("no list")?;
    // Whose they are is what the host knows of the sender, not the name that it gives itself.
    let sender = |entry: &&Value| {
        let workload = entry["workload"].as_str().unwrap_or_default();
        workload.starts_with("python") && entry["source"] == "otlp"
    };
    assert_eq!(matches.iter().filter(sender).count(), 2, "{shown:#}");
    Ok(())
}

/// Base64, as JSON has bytes, in hexadecimal.
fn hex(base64: &str) -> anyhow::Result<String> {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits: u32 = 0;
    let mut count = 0;
    let mut out = String::new();
    for c in base64.trim_end_matches('=').chars() {
        let digit = DIGITS.find(c).context("not base64")?;
        bits = bits << 6 | u32::try_from(digit)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push_str(&format!("{:02x}", bits >> count & 0xff));
        }
    }
    Ok(out)
}
