//! Names by a real container runtime, without Kubernetes.

use anyhow::Context as _;
use harness::cluster::Cluster;

use super::{
    ALONE, Lab,
    pods::{NAMESPACE, Pods},
    seen::Seen,
    wait_for_state,
};

#[test]
fn containerd_names_pods_by_itself() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::reach() else {
        return Ok(());
    };
    let _alone = ALONE.lock().unwrap_or_else(|broken| broken.into_inner());
    let lab = Lab::new(&cluster)?;
    let socket = cluster.state().join("run/containerd.sock");
    let socket = format!("unix:{}", socket.display());
    let agent = lab.agent_that(&["--kubernetes-api", "off", "--cri-endpoint", &socket])?;
    wait_for_state(&agent, "api", "off")?;
    wait_for_state(&agent, "cri", "live")?;
    let pods = Pods::new(&agent.otlp_http);
    cluster.apply(&pods.list())?;
    let mut seen = Seen::default();
    let names = [
        "guaranteed/main",
        "burstable/main",
        "every-*/main",
        "many/first",
        "many/second",
        "again/main",
    ];
    seen.wait(&agent, &names)?;
    for name in names {
        seen.wait_until(&agent, "the runtime's word", |seen| {
            let mut rows = seen.rows(name);
            rows.any(|row| row["workload"]["names_from"] == "cri")
        })?;
    }
    let row = seen.rows("burstable/main").next().context("a row")?;
    assert_eq!(row["workload"]["namespace"], NAMESPACE, "{row}");
    seen.nobody_was_misattributed()
}
