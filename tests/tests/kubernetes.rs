//! On a real cluster: our image, our manifests, an instrumented pod with a CPU limit.
//!
//! Needs KUBECONFIG and kubectl; where they are missing it says so. Where images come from
//! is the cluster's affair: they are imported into the containerd that runs beside the
//! kubeconfig, as the test cluster has it.

use std::{fs, path::PathBuf, process::Command, thread, time::Duration};

use anyhow::Context as _;
use harness::{
    artifact,
    cluster::{CleanUp, Cluster},
    http,
    jaeger::{Jaeger, Place},
    peers, wait,
};

const NAMESPACE: &str = "isostack-test";

fn manifests() -> PathBuf {
    artifact::root().join("deploy/kubernetes")
}

#[test]
fn manifests_are_valid() -> anyhow::Result<()> {
    let requirements = artifact::root().join("tests/kubernetes/requirements.txt");
    let python = peers::python_env("kubernetes", &requirements)?;
    let dir = manifests();
    let mut checked = 0;
    // Of the optional part the role; the rest of it only changes what is checked here.
    let mut paths = vec![dir.join("kubelet/rbac.yaml")];
    for entry in fs::read_dir(&dir)? {
        paths.push(entry?.path());
    }
    for path in paths {
        let is_manifest = path
            .extension()
            .is_some_and(|extension| extension == "yaml")
            && path
                .file_name()
                .is_some_and(|name| name != "kustomization.yaml");
        if is_manifest {
            let mut validate = Command::new(&python);
            validate
                .args(["-m", "kubernetes_validate", "--strict", "-k", "1.36"])
                .arg(&path);
            peers::run(&mut validate).with_context(|| path.display().to_string())?;
            checked += 1;
        }
    }
    assert!(
        checked >= 5,
        "only {checked} manifests in {}",
        dir.display()
    );
    Ok(())
}

/// The manifests with the component that asks the kubelet, too.
fn with_kubelet() -> anyhow::Result<tempfile::TempDir> {
    let copy = tempfile::tempdir()?;
    for part in ["", "kubelet"] {
        let (from, to) = (manifests().join(part), copy.path().join(part));
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(from)? {
            let path = entry?.path();
            if let Some(name) = path.file_name().filter(|_| path.is_file()) {
                fs::copy(&path, to.join(name))?;
            }
        }
    }
    let file = copy.path().join("kustomization.yaml");
    let text = fs::read_to_string(&file)?;
    fs::write(file, format!("{text}components: [kubelet]\n"))?;
    Ok(copy)
}

#[test]
fn a_limited_pod_is_localised() -> anyhow::Result<()> {
    let Some(cluster) = Cluster::reach() else {
        return Ok(());
    };
    cluster.import("isostack-agent")?;
    cluster.import("shop")?;
    // With the optional part: the kubelet, which stands by while the API answers.
    let copy = with_kubelet()?;
    let root = copy.path().display().to_string();
    let _clean_up = CleanUp::new(&cluster, &[["namespace", NAMESPACE], ["-k", &root]]);

    // Jaeger on the node's own address, where pods reach it.
    let jaeger = Jaeger::start_at(&Place::new(cluster.node_address()?)?)?;

    cluster.kubectl(&["apply", "-f", &format!("{root}/namespace.yaml")])?;
    cluster.apply(&format!(
        "apiVersion: v1\nkind: ConfigMap\n\
         metadata: {{name: isostack-agent, namespace: isostack}}\n\
         data: {{export-endpoint: \"{}\"}}\n",
        jaeger.otlp_grpc()
    ))?;
    cluster.kubectl(&["apply", "-k", &root])?;
    let ready = [
        "rollout",
        "status",
        "daemonset/isostack-agent",
        "-n",
        "isostack",
        "--timeout=90s",
    ];
    if let Err(error) = cluster.kubectl(&ready) {
        let log = [
            "logs",
            "-n",
            "isostack",
            "daemonset/isostack-agent",
            "--tail=40",
        ];
        let pods = ["describe", "pods", "-n", "isostack"];
        return Err(error.context(format!(
            "{}\n{}",
            cluster.kubectl(&log).unwrap_or_default(),
            cluster.kubectl(&pods).unwrap_or_default()
        )));
    }

    let service = ["get", "service", "isostack-agent", "-n", "isostack", "-o"];
    let agent = cluster.kubectl(&[&service[..], &["jsonpath={.spec.clusterIP}"]].concat())?;
    cluster.apply(&shop(&agent))?;
    let name = ["-n", NAMESPACE, "pod/shop"];
    cluster.kubectl(
        &[
            &["wait", "--for=condition=Ready", "--timeout=60s"],
            &name[..],
        ]
        .concat(),
    )?;
    let address = cluster.kubectl(&[
        "get",
        "pod",
        "shop",
        "-n",
        NAMESPACE,
        "-o",
        "jsonpath={.status.podIP}",
    ])?;

    let url = format!("http://{address}:8080/checkout?work_ms=100");
    let slow = wait::until("the verdict in Jaeger", wait::PATIENCE, || {
        http::get(&url).ok()?;
        thread::sleep(Duration::from_secs(1));
        let spans = jaeger.spans_of("shop").ok()?;
        spans
            .into_iter()
            .find(|span| !span.is_synthetic() && span.text("isostack.cause") == "cpu_throttle")
    })
    .with_context(|| {
        let log = [
            "logs",
            "-n",
            "isostack",
            "daemonset/isostack-agent",
            "--tail=40",
        ];
        cluster.kubectl(&log).unwrap_or_default()
    })?;
    let of_agent = ["get", "pods", "-n", "isostack", "-o"];
    let node_name =
        cluster.kubectl(&[&of_agent[..], &["jsonpath={.items[0].spec.nodeName}"]].concat())?;
    assert_eq!(slow.text("isostack.fault"), "L-3", "{slow:?}");
    assert_eq!(slow.text("isostack.layer"), "L-3", "{slow:?}");
    let stack = slow.text("isostack.stack");
    assert!(stack.contains("L-3:containerd"), "{slow:?}");
    let confidence = slow.text("isostack.confidence");
    assert!(
        ["process", "thread_inferred"].contains(&confidence),
        "{slow:?}"
    );
    assert_eq!(slow.text("isostack.node"), node_name, "{slow:?}");

    // Named as a person names it, by the API and the account of the manifests.
    let address =
        cluster.kubectl(&[&of_agent[..], &["jsonpath={.items[0].status.podIP}"]].concat())?;
    let workloads = http::get(&format!("http://{address}:9464/api/v1/workloads"))?.json()?;
    let workloads = workloads["workloads"].as_array().context("workloads")?;
    let shop = workloads.iter().find(|workload| workload["comm"] == "shop");
    let shop = &shop.with_context(|| format!("{workloads:?}"))?["workload"];
    for (key, name) in [
        ("namespace", NAMESPACE),
        ("pod", "shop"),
        ("container", "shop"),
        ("names_from", "api"),
    ] {
        assert_eq!(shop[key], name, "{shop}");
    }
    let host = http::get(&format!("http://{address}:9464/api/v1/host"))?.json()?;
    let sources = host["names"]["sources"].as_array().context("sources")?;
    for (name, state) in [("api", "live"), ("kubelet", "standby")] {
        let source = sources.iter().find(|source| source["source"] == name);
        assert_eq!(source.context("a source")?["state"], state, "{host:#}");
    }
    // With no more than it lists, nothing is missing.
    let log = cluster.kubectl(&["logs", "-n", "isostack", "daemonset/isostack-agent"])?;
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    assert!(log.contains("Sensor on"), "{log}");
    Ok(())
}

fn shop(agent: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: {NAMESPACE}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: shop, namespace: {NAMESPACE}}}
spec:
  automountServiceAccountToken: false
  containers:
  - name: shop
    image: localhost/shop:{version}
    imagePullPolicy: Never
    args: [serve]
    env:
    - {{name: SHOP_LISTEN, value: \"0.0.0.0:8080\"}}
    - {{name: OTEL_EXPORTER_OTLP_ENDPOINT, value: \"http://{agent}:4317\"}}
    readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
    resources: {{requests: {{cpu: 50m, memory: 32Mi}}, limits: {{cpu: 200m, memory: 128Mi}}}}
    securityContext:
      runAsUser: 1000
      allowPrivilegeEscalation: false
      capabilities: {{drop: [ALL]}}
"
    )
}
