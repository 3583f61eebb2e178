//! Names by the node's kubelet, for an account that the API server tells nothing.

use std::fs;

use anyhow::Context as _;
use harness::cluster::{CleanUp, Cluster};

use super::{
    ALONE, Lab, Statics,
    pods::{NAMESPACE, Pods},
    seen::Seen,
    wait_for_state,
};

#[test]
fn the_kubelet_names_pods_where_the_api_does_not() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::reach() else {
        return Ok(());
    };
    let _alone = ALONE.lock().unwrap_or_else(|broken| broken.into_inner());
    let lab = Lab::new(&cluster)?;
    lab.token(NAMESPACE, "default")?;
    let url = format!("https://{}:10250", cluster.node_address()?);
    let ca = lab.file("ca");
    let agent = lab.agent(&["--kubelet", &url, "--kubelet-ca-file", &ca])?;
    wait_for_state(&agent, "api", "denied")?;
    let reason = wait_for_state(&agent, "kubelet", "denied")?;
    assert!(
        reason.contains("nodes/pods") && reason.contains("kubelet/rbac.yaml"),
        "{reason}"
    );

    // The manifest's role, and no right but that.
    let role = harness::artifact::root().join("deploy/kubernetes/kubelet/rbac.yaml");
    let role = role.display().to_string();
    let _clean_up = CleanUp::new(
        &cluster,
        &[["-f", &role], ["clusterrolebinding", NAMESPACE]],
    );
    cluster.kubectl(&["apply", "-f", &role])?;
    cluster.kubectl(&[
        "create",
        "clusterrolebinding",
        NAMESPACE,
        "--clusterrole=isostack-agent-kubelet",
        &format!("--serviceaccount={NAMESPACE}:default"),
    ])?;
    wait_for_state(&agent, "kubelet", "live")?;
    let pods = Pods::new(&agent.otlp_http);
    let mut seen = Seen::default();
    cluster.apply(&pods.brief())?;
    seen.wait(&agent, &["brief/main"])?;
    cluster.apply(&pods.list())?;
    seen.wait(
        &agent,
        &[
            "guaranteed/main",
            "burstable/main",
            "besteffort/main",
            "every-*/main",
            "web-*/main",
            "many/first",
            "many/prepare",
            "again/main",
        ],
    )?;
    for (name, owner) in [
        ("every-*/main", "DaemonSet/every"),
        ("web-*/main", "Deployment/web"),
        ("burstable/main", ""),
    ] {
        seen.wait_until(&agent, "the kubelet's word", |seen| {
            let mut rows = seen.rows(name);
            rows.any(|row| row["workload"]["names_from"] == "kubelet")
        })?;
        let row = seen.rows(name).next().context(name)?;
        assert_eq!(row["workload"]["owner"], owner, "{row}");
    }

    // While it is away its names stay; a pod of its own is told of by nobody else.
    let kubelet = cluster.stop("kubelet")?;
    wait_for_state(&agent, "kubelet", "failing")?;
    Seen::default().wait(&agent, &["burstable/main"])?;
    let statics = Statics::new(&cluster)?;
    fs::write(statics.dir.path().join("static.json"), pods.of_kubelet())?;
    drop(kubelet);
    wait_for_state(&agent, "kubelet", "live")?;
    let name = format!("static-{}/main", lab.node);
    seen.wait(&agent, &[&name])?;
    let row = seen.rows(&name).next().context("a row")?;
    let owner = format!("Node/{}", lab.node);
    assert_eq!(row["workload"]["owner"], owner, "{row}");

    // The API's word is better, as soon as it is given.
    lab.token("isostack", "isostack-agent")?;
    wait_for_state(&agent, "api", "live")?;
    wait_for_state(&agent, "kubelet", "standby")?;
    seen.wait_until(&agent, "the API's word", |seen| {
        let mut rows = seen.rows("burstable/main");
        rows.any(|row| row["workload"]["names_from"] == "api")
    })?;
    seen.nobody_was_misattributed()
}

#[test]
fn a_kubelet_whose_certificate_nobody_vouches_for_is_asked_by_a_word_only() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::reach() else {
        return Ok(());
    };
    let _alone = ALONE.lock().unwrap_or_else(|broken| broken.into_inner());
    let lab = Lab::new(&cluster)?;
    let role = harness::artifact::root().join("deploy/kubernetes/kubelet/rbac.yaml");
    let role = role.display().to_string();
    let _clean_up = CleanUp::new(&cluster, &[["-f", &role]]);
    cluster.kubectl(&["apply", "-f", &role])?;
    let url = format!("https://{}:10250", cluster.node_address()?);
    let token = lab.file("token");
    let own = ["--kubernetes-api", "off", "--kubernetes-token-file", &token];
    let agent = lab.agent_with(&[&own[..], &["--kubelet", &url]].concat())?;
    let reason = wait_for_state(&agent, "kubelet", "failing")?;
    assert!(reason.contains("--kubelet-ca-file"), "{reason}");
    drop(agent);
    let insecure = ["--kubelet", &url, "--kubelet-insecure", "true"];
    let agent = lab.agent_with(&[&own[..], &insecure].concat())?;
    wait_for_state(&agent, "kubelet", "live")?;
    let pods = Pods::new(&agent.otlp_http);
    cluster.apply(&pods.burstable())?;
    let mut seen = Seen::default();
    seen.wait(&agent, &["burstable/main"])?;
    seen.nobody_was_misattributed()
}
