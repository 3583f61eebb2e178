//! Names of workloads on a real cluster: pods of every kind say in the spans that they send who
//! they are, and the agent must come to the same by itself.
//!
//! Needs KUBECONFIG and kubectl; where they are missing it says so. The agent runs beside the
//! cluster, with the account and the role of the project's manifests.

#[path = "kubernetes_names/cri.rs"]
mod cri;
#[path = "kubernetes_names/kubelet.rs"]
mod kubelet;
#[path = "kubernetes_names/pods.rs"]
mod pods;
#[path = "kubernetes_names/proxy.rs"]
mod proxy;
#[path = "kubernetes_names/seen.rs"]
mod seen;

use std::{fs, sync::Mutex, thread, time::Duration};

use anyhow::{Context as _, ensure};
use harness::{
    agent::Agent,
    artifact,
    cluster::{A_WHILE, CleanUp, Cluster},
    http, wait,
};
use serde_json::{Value, json};

use self::{
    pods::{NAMESPACE, Pods},
    proxy::{Fault, Proxy},
    seen::Seen,
};

/// One cluster: a test that stops its parts must be alone.
static ALONE: Mutex<()> = Mutex::new(());

/// The cluster with the agent's account and an empty namespace, and how the agent asks.
struct Lab<'a> {
    cluster: &'a Cluster,
    node: String,
    address: String,
    files: tempfile::TempDir,
    _clean_up: CleanUp<'a>,
}

impl<'a> Lab<'a> {
    fn new(cluster: &'a Cluster) -> anyhow::Result<Self> {
        let manifest = |name: &str| {
            let path = artifact::root().join("deploy/kubernetes").join(name);
            path.display().to_string()
        };
        let (namespace, rbac) = (manifest("namespace.yaml"), manifest("rbac.yaml"));
        let clean_up = CleanUp::new(
            cluster,
            &[["namespace", NAMESPACE], ["-f", &rbac], ["-f", &namespace]],
        );
        cluster.kubectl(&["apply", "-f", &namespace])?;
        cluster.kubectl(&["apply", "-f", &rbac])?;
        cluster.apply(&format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {NAMESPACE}}}}}"
        ))?;
        // Without its account a namespace takes no pods.
        for namespace in ["isostack", NAMESPACE] {
            let account = ["get", "serviceaccount", "default", "-n", namespace];
            wait::until("a service account", wait::PATIENCE, || {
                cluster.kubectl(&account).ok()
            })?;
        }
        let files = tempfile::tempdir()?;
        let authority = [
            "get",
            "configmap",
            "kube-root-ca.crt",
            "-n",
            "isostack",
            "-o",
            r"jsonpath={.data.ca\.crt}",
        ];
        let authority = wait::until("the cluster's authority", wait::PATIENCE, || {
            cluster.kubectl(&authority).ok()
        })?;
        fs::write(files.path().join("ca"), authority)?;
        let lab = Self {
            node: cluster.node_name()?,
            address: cluster.node_address()?.to_string(),
            cluster,
            files,
            _clean_up: clean_up,
        };
        lab.token("isostack", "isostack-agent")?;
        Ok(lab)
    }

    /// Puts a token of this account where the agent reads it.
    fn token(&self, namespace: &str, account: &str) -> anyhow::Result<()> {
        let token = ["create", "token", account, "-n", namespace];
        fs::write(self.file("token"), self.cluster.kubectl(&token)?)?;
        Ok(())
    }

    fn file(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    /// An agent that asks the API as the account whose token is there.
    fn agent(&self, flags: &[&str]) -> anyhow::Result<Agent> {
        let server = self.cluster.server()?;
        let (token, ca) = (self.file("token"), self.file("ca"));
        let own = [
            "--kubernetes-api",
            &server,
            "--kubernetes-token-file",
            &token,
            "--kubernetes-ca-file",
            &ca,
        ];
        self.agent_with(&[&own[..], flags].concat())
    }

    fn agent_with(&self, flags: &[&str]) -> anyhow::Result<Agent> {
        self.agent_that(&[&["--cri-endpoint", "off"][..], flags].concat())
    }

    fn agent_that(&self, flags: &[&str]) -> anyhow::Result<Agent> {
        let own = ["--node-name", &self.node];
        Agent::start_on(&self.address, [0, 0, 0], &[&own[..], flags].concat())
    }
}

/// State and reason of a source of names.
fn source(agent: &Agent, name: &str) -> Option<(String, String)> {
    let host = agent.api("/api/v1/host").ok()?;
    let sources = host["names"]["sources"].as_array()?;
    let source = sources.iter().find(|source| source["source"] == name)?;
    let text = |key: &str| source[key].as_str().map(str::to_owned);
    Some((text("state")?, text("reason")?))
}

fn wait_for_state(agent: &Agent, name: &str, state: &str) -> anyhow::Result<String> {
    let what = format!("{name} to be {state}");
    wait::until(&what, A_WHILE, || {
        source(agent, name).filter(|(found, _)| found == state)
    })
    .map(|(_, reason)| reason)
    .with_context(|| format!("{:?}\n{}", source(agent, name), agent.process.output()))
}

#[test]
fn every_kind_of_pod_is_named() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::reach() else {
        return Ok(());
    };
    let _alone = ALONE.lock().unwrap_or_else(|broken| broken.into_inner());
    let lab = Lab::new(&cluster)?;
    let agent = lab.agent(&[])?;
    wait_for_state(&agent, "api", "live")?;
    let pods = Pods::new(&agent.otlp_http);
    let mut seen = Seen::default();

    // It sends once, and is gone: the agent has nobody else to look for.
    cluster.apply(&pods.brief())?;
    seen.wait(&agent, &["brief/main"])?;

    cluster.apply(&pods.list())?;
    let same = ["delete", "pod", "same", "-n", NAMESPACE, "--now"];
    seen.wait(&agent, &["same/main"])?;
    cluster.kubectl(&same)?;
    cluster.apply(&pods.same())?;

    // A container that joins a pod that runs.
    let uid = ["get", "pod", "many", "-n", NAMESPACE, "-o"];
    let uid = cluster.kubectl(&[&uid[..], &["jsonpath={.metadata.uid}"]].concat())?;
    cluster.kubectl(&[
        "wait",
        "--for=condition=Ready",
        &format!("--timeout={}s", A_WHILE.as_secs()),
        "-n",
        NAMESPACE,
        "pod/many",
    ])?;
    cluster.kubectl(
        &pods
            .debug("many", &uid)
            .iter()
            .map(|a| &**a)
            .collect::<Vec<_>>(),
    )?;

    // One that makes itself look like another: groups of its form, below its own.
    let victim = ["get", "pod", "burstable", "-n", NAMESPACE, "-o"];
    let victim = cluster.kubectl(
        &[
            &victim[..],
            &["jsonpath={.metadata.uid} {.status.containerStatuses[0].containerID}"],
        ]
        .concat(),
    )?;
    let (victim_uid, victim_id) = victim.split_once(' ').context("a uid and an id")?;
    let (_, victim_id) = victim_id.split_once("://").context("an id")?;
    cluster.apply(&pods.evil(victim_uid, victim_id))?;

    seen.wait(
        &agent,
        &[
            "guaranteed/main",
            "burstable/main",
            "besteffort/main",
            "every-*/main",
            "web-*/main",
            "db-0/main",
            "once-*/main",
            "privileged/main",
            "many/first",
            "many/second",
            "many/prepare",
            "many/debug",
            "again/main",
            "same/main",
            "evil/main",
        ],
    )?;
    seen.wait_until(&agent, "two lives of a container", |seen| {
        seen.lives("again/main", "container_id") >= 2
    })?;
    seen.wait_until(&agent, "two pods of one name", |seen| {
        seen.lives("same/main", "pod_uid") >= 2
    })?;
    // It is where it wanted to be: what it sends from there was looked at.
    let uid = ["get", "pod", "evil", "-n", NAMESPACE, "-o"];
    let uid = cluster.kubectl(&[&uid[..], &["jsonpath={.metadata.uid}"]].concat())?;
    ensure!(
        cgroups_of_processes().any(|line| {
            let imitation = format!("pod{victim_uid}/{victim_id}");
            line.contains(&uid) && line.ends_with(&imitation)
        }),
        "no process of {uid} is in a group like that of {victim_uid}"
    );
    for (name, owner) in [
        ("every-*/main", "DaemonSet/every"),
        ("web-*/main", "Deployment/web"),
        ("db-0/main", "StatefulSet/db"),
        ("once-*/main", "Job/once"),
        ("burstable/main", ""),
    ] {
        let row = seen.rows(name).next().context(name)?;
        assert_eq!(row["workload"]["owner"], owner, "{row}");
        assert_eq!(row["workload"]["names_from"], "api", "{row}");
        assert_eq!(row["layer"], "L-3", "{row}");
    }
    let labels = &seen.rows("burstable/main").next().context("a row")?["workload"]["labels"];
    assert_eq!(*labels, json!({ "app.kubernetes.io/name": "burstable" }));

    // The same names on the series of the groups, those that are gone too.
    wait::until("the names in /metrics", A_WHILE, || {
        let page = http::get(&agent.url("/metrics")).ok()?.body;
        let has = |pod: &str, container: &str| {
            let labels = [
                format!("namespace=\"{NAMESPACE}\""),
                format!("pod=\"{pod}\""),
                format!("container=\"{container}\""),
            ];
            page.lines()
                .any(|line| labels.iter().all(|label| line.contains(label)))
        };
        let all = [
            ("burstable", "main"),
            ("many", "first"),
            ("many", "second"),
            ("brief", "main"),
            ("again", "main"),
            ("evil", "main"),
        ];
        all.iter().all(|(pod, name)| has(pod, name)).then_some(())
    })
    .with_context(|| {
        http::get(&agent.url("/metrics")).map_or_else(|e| e.to_string(), |p| p.body)
    })?;
    seen.nobody_was_misattributed()
}

/// Every line of `/proc/PID/cgroup` of everybody.
fn cgroups_of_processes() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.flat_map(|entry| {
        let text = fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    })
}

#[test]
fn names_survive_the_api_and_the_kubelet() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::reach() else {
        return Ok(());
    };
    let _alone = ALONE.lock().unwrap_or_else(|broken| broken.into_inner());
    let lab = Lab::new(&cluster)?;
    let state = lab.file("state");
    fs::create_dir(&state)?;
    let agent = lab.agent(&["--state-dir", &state])?;
    let pods = Pods::new(&agent.otlp_http);
    cluster.apply(&pods.burstable())?;
    Seen::default().wait(&agent, &["burstable/main"])?;
    let port: u16 = agent
        .otlp_http
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok())
        .context("a port")?;
    let cached = format!("{state}/names.json");
    wait::until("the names on disk", wait::PATIENCE, || {
        let text = fs::read_to_string(&cached).ok()?;
        let pods: Value = serde_json::from_str(&text).ok()?;
        let of_it = pods["pods"].as_array()?.iter();
        let mut of_it = of_it.filter(|pod| pod["name"] == "burstable");
        of_it.next()?["containers"][0]["id"].as_str().map(drop)
    })?;

    let api = cluster.stop("apiserver")?;
    let reason = wait_for_state(&agent, "api", "failing")?;
    assert!(!reason.is_empty());
    Seen::default().wait(&agent, &["burstable/main"])?;
    // An agent that starts now has only what the other left.
    drop(agent);
    let server = lab.file("server");
    fs::write(&server, "")?;
    let own = ["--kubernetes-token-file", &lab.file("token")];
    let ca = ["--kubernetes-ca-file", &lab.file("ca")];
    let url = cluster.server()?;
    let flags = [
        &["--node-name", &lab.node, "--cri-endpoint", "off"][..],
        &["--kubernetes-api", &url, "--state-dir", &state],
        &own,
        &ca,
    ]
    .concat();
    let agent = Agent::start_on(&lab.address, [0, 0, port], &flags)?;
    wait_for_state(&agent, "api", "failing")?;
    let mut seen = Seen::default();
    seen.wait(&agent, &["burstable/main"])?;
    let row = seen.rows("burstable/main").next().context("a row")?;
    assert_eq!(row["workload"]["names_from"], "cache", "{row}");
    drop(api);
    wait_for_state(&agent, "api", "live")?;
    seen.wait_until(&agent, "the API's word", |seen| {
        seen.rows("burstable/main")
            .any(|row| row["workload"]["names_from"] == "api")
    })?;

    // The kubelet: what runs is named, and what it makes itself, a static pod, too.
    let kubelet = cluster.stop("kubelet")?;
    Seen::default().wait(&agent, &["burstable/main"])?;
    let statics = Statics::new(&cluster)?;
    fs::write(statics.dir.path().join("static.json"), pods.of_kubelet())?;
    drop(kubelet);
    let name = format!("static-{}/main", lab.node);
    seen.wait(&agent, &[&name])?;
    let row = seen.rows(&name).next().context("a row")?;
    assert_eq!(
        row["workload"]["owner"],
        format!("Node/{}", lab.node),
        "{row}"
    );
    seen.nobody_was_misattributed()
}

/// A folder from which the test cluster's kubelet takes pods, from its next start on; emptied
/// at the end, so that it takes them away again.
struct Statics {
    dir: tempfile::TempDir,
    config: std::path::PathBuf,
    before: String,
}

impl Statics {
    fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let config = cluster.state().join("kubelet.yaml");
        let before = fs::read_to_string(&config)?;
        let dir = tempfile::tempdir_in(cluster.state())?;
        let with = format!("{before}staticPodPath: {}\n", dir.path().display());
        fs::write(&config, with)?;
        Ok(Self {
            dir,
            config,
            before,
        })
    }
}

impl Drop for Statics {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.dir.path().join("static.json"));
        if let Err(error) = fs::write(&self.config, &self.before) {
            eprintln!("{}: {error}", self.config.display());
        }
        // It looks every 20 s; the namespace goes only after its pods.
        thread::sleep(Duration::from_secs(1));
    }
}

#[test]
fn an_account_that_may_not_list_pods_is_told_so() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::reach() else {
        return Ok(());
    };
    let _alone = ALONE.lock().unwrap_or_else(|broken| broken.into_inner());
    let lab = Lab::new(&cluster)?;
    lab.token(NAMESPACE, "default")?;
    let agent = lab.agent(&[])?;
    let reason = wait_for_state(&agent, "api", "denied")?;
    assert!(
        reason.contains("rbac.yaml") && reason.contains("pods"),
        "{reason}"
    );
    let log = agent.process.output();
    assert!(log.contains("Names of workloads are refused"), "{log}");

    // Ids instead of names; the pod's own word counts for nothing.
    let pods = Pods::new(&agent.otlp_http);
    cluster.apply(&pods.burstable())?;
    let row = wait::until("the pod by its ids", A_WHILE, || {
        let rows = agent.api("/api/v1/workloads?limit=1000").ok()?;
        let rows = rows["workloads"].as_array()?.clone();
        let own = |row: &&Value| row["services"].to_string().contains("burstable");
        rows.iter().find(own).cloned()
    })?;
    let workload = &row["workload"];
    for key in ["namespace", "pod", "container", "owner", "names_from"] {
        assert_eq!(workload[key], "", "{row}");
    }
    let uid = workload["pod_uid"].as_str().context("a uid")?;
    let id = workload["container_id"].as_str().context("an id")?;
    assert_eq!(row["name"], format!("{uid}/{}", &id[..12]), "{row}");

    // Allowed while it runs: names come without a restart.
    lab.token("isostack", "isostack-agent")?;
    wait_for_state(&agent, "api", "live")?;
    let mut seen = Seen::default();
    seen.wait(&agent, &["burstable/main"])?;
    seen.nobody_was_misattributed()
}

#[test]
fn an_api_server_that_forgets_breaks_off_and_is_slow() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::reach() else {
        return Ok(());
    };
    let _alone = ALONE.lock().unwrap_or_else(|broken| broken.into_inner());
    let lab = Lab::new(&cluster)?;
    let proxy = Proxy::start(&[
        Fault::Slow(Duration::from_secs(3)),
        Fault::Gone,
        Fault::None,
        Fault::BreakOff(Duration::from_secs(2)),
        Fault::Unavailable,
        Fault::Gone,
    ])?;
    let agent = lab.agent_with(&["--kubernetes-api", &proxy.url()])?;
    let pods = Pods::new(&agent.otlp_http);
    cluster.apply(&pods.burstable())?;
    let mut seen = Seen::default();
    seen.wait(&agent, &["burstable/main"])?;
    wait::until("all faults to be over", A_WHILE, || {
        (proxy.left() == 0).then_some(())
    })
    .with_context(|| format!("{:?}\n{}", proxy.requests(), agent.process.output()))?;
    // One that came after all of them.
    cluster.apply(&pods.besteffort())?;
    seen.wait(&agent, &["besteffort/main"])?;
    wait_for_state(&agent, "api", "live")?;
    let requests = proxy.requests();
    let lists = requests.iter().filter(|r| !r.contains("watch=1")).count();
    ensure!(lists >= 3, "each 410 is a new list: {requests:?}");
    ensure!(
        requests
            .iter()
            .all(|r| r.starts_with("GET /api/v1/pods?fieldSelector=spec.nodeName%3D")),
        "pods of this node and nothing else: {requests:?}"
    );
    seen.nobody_was_misattributed()
}
