//! From the alert to the evidence on the page, in a real browser: a verdict in the list, its trace,
//! the kernel's events in its time, and these raw. Three clicks.

use anyhow::Context as _;
use harness::{
    agent::Agent,
    browser::{self, Browser},
    cgroup::Cgroup,
    service::{Language, Service},
};
use serde_json::Value;

/// Share of one CPU under the quota, in percent, and CPU time of a slow request.
const QUOTA_PERCENT: u64 = 10;
const WORK_MS: u64 = 80;

/// A verdict of a request that a quota held back.
fn slow_request(agent: &Agent) -> anyhow::Result<Value> {
    let cgroup = Cgroup::create("isostack-test-page")?;
    let endpoint = format!("http://{}", agent.otlp_grpc);
    let service = Service::start(Language::Rust, "cart", &endpoint, Some(&cgroup))?;
    // Until the agent knows what is usual, and whose spans they are.
    for _ in 0..5 {
        service.request(10)?;
    }
    cgroup.limit_cpu(QUOTA_PERCENT)?;
    service.request(WORK_MS)?;
    cgroup.limit_cpu(100)?;
    let verdicts = agent.wait_for_verdict("?service=cart&cause=cpu_throttle")?;
    verdicts.into_iter().next().context("no verdict")
}

#[test]
fn three_clicks_from_the_verdict_to_the_raw_events() -> anyhow::Result<()> {
    if browser::program().is_none() {
        println!("cannot run here: there is no Chromium on the path");
        return Ok(());
    }
    let agent = Agent::start(&[])?;
    let verdict = slow_request(&agent)?;
    let trace = verdict["trace_id"].as_str().context("a trace")?;

    let mut browser = Browser::start()?;
    browser.open(&agent.url("/"))?;
    // The alert: service, cause and what to do, without any click.
    let card = format!(
        "[...document.querySelectorAll('#list .card.bad')].find(c => c.querySelector('a[href=\"#trace={trace}\"]'))"
    );
    let shown = browser.wait_for(&format!("({card})?.innerText"))?;
    let shown = shown.as_str().unwrap_or_default().to_lowercase();
    for words in ["cart", "l-3", "cpu throttle", "what to do"] {
        assert!(shown.contains(words), "no {words:?} in {shown}");
    }

    browser.click(&format!("({card})?.querySelector('.head a.out')"))?;
    let slowest = "document.querySelector('#trace-body .hop.slowest')";
    let hop = browser.wait_for(&format!("{slowest}?.innerText"))?;
    let hop = hop.as_str().unwrap_or_default().to_lowercase();
    assert!(
        hop.contains("cart") && hop.contains("cpu throttle"),
        "{hop}"
    );

    browser.click(&format!("{slowest}.querySelector('.raw button')"))?;
    let rows = browser.wait_for(&format!(
        "[...{slowest}.querySelectorAll('table.events tbody tr')].map(r => r.innerText).join('\\n')"
    ))?;
    let rows = rows.as_str().unwrap_or_default();
    assert!(rows.contains("cpu throttle"), "{rows}");
    assert_eq!(browser.errors(), &[] as &[String]);

    browser.click(&format!("{slowest}.querySelector('.raw a')"))?;
    let at = browser.wait_for("location.pathname.endsWith('/events') && location.search")?;
    assert!(at.as_str().unwrap_or_default().contains(trace), "{at}");
    let raw = browser.wait_for("document.querySelector('pre')?.innerText")?;
    let raw: Value = serde_json::from_str(raw.as_str().unwrap_or_default())?;
    let events = raw["events"].as_array().context("a list of events")?;
    let held_back = |event: &&Value| event["cause"] == "cpu_throttle";
    let told: f64 = events
        .iter()
        .filter(held_back)
        .filter_map(|event| event["duration_ms"].as_f64())
        .sum();
    // The evidence is that of the verdict: what is said of the span is a part of it.
    let said = verdict["split"]["cpu_throttle"].as_f64();
    let said = said.context("the split of the verdict")?;
    assert!(told >= 0.9 * said, "{told} ms of events, {said} ms said");
    Ok(())
}
