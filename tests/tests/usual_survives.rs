//! What is usual of a service is still known after the agent was restarted: slow code is told at once.

use harness::{
    agent::Agent,
    service::{Language, Service},
    wait,
};
use serde_json::Value;

/// Requests before; twenty make what is usual.
const WARM: usize = 40;
/// Slow ones: on a busy machine one of them may have waited for a CPU most of the time.
const SLOW: usize = 4;

fn agent_and_service(state: &str) -> anyhow::Result<(Agent, Service)> {
    let agent = Agent::start(&["--state-dir", state])?;
    let endpoint = format!("http://{}", agent.otlp_grpc);
    let service = Service::start(Language::Python, "svc", &endpoint, None)?;
    Ok((agent, service))
}

/// The server spans of these traces, once they are judged.
fn judged(agent: &Agent, traces: &[String]) -> anyhow::Result<Vec<Value>> {
    let of = |trace: &String| {
        let spans = agent.api(&format!("/api/v1/spans?trace_id={trace}")).ok()?;
        let is_server = |span: &&Value| span["kind"] == "server";
        spans["spans"].as_array()?.iter().find(is_server).cloned()
    };
    wait::until("the spans of all requests", wait::PATIENCE, || {
        traces.iter().map(of).collect()
    })
}

fn is_told_of_slow_code(span: &Value) -> bool {
    span["verdict"]["cause"] == "on_cpu" || span["cause"] == "on_cpu"
}

#[test]
fn slow_code_is_told_after_a_restart_as_before() -> anyhow::Result<()> {
    let (known, new) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let known = known.path().display().to_string();
    let (mut agent, service) = agent_and_service(&known)?;
    let mut traces = Vec::new();
    for _ in 0..WARM {
        traces.push(service.trace_of_request(5)?);
    }
    judged(&agent, &traces)?;
    agent.process.terminate()?;
    drop(service);
    for (state, expected) in [(known, true), (new.path().display().to_string(), false)] {
        let (agent, service) = agent_and_service(&state)?;
        let slow: Result<Vec<String>, _> =
            (0..SLOW).map(|_| service.trace_of_request(400)).collect();
        let spans = judged(&agent, &slow?)?;
        assert_eq!(
            spans.iter().any(is_told_of_slow_code),
            expected,
            "{spans:#?}"
        );
    }
    Ok(())
}
