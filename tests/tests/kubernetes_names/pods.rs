//! Pods that work a little and say in spans who they are: `NAMESPACE/POD/CONTAINER@UID` as the
//! service's name, from what Kubernetes tells them.

use serde_json::{Value, json};

/// Where they are.
pub const NAMESPACE: &str = "isostack-names";

const IMAGE: &str = "localhost/busybox:1";

/// `span` sends one, `work` uses a CPU for a moment.
const FUNCTIONS: &str = r#"
span() {
  trace=$(tr -d - </proc/sys/kernel/random/uuid)
  body=$(echo "$BODY" | sed "s/TRACE/$trace/; s/NOW/$(date +%s)/g")
  wget -q -O - --header "Content-Type: application/json" --post-data "$body" "http://$AGENT/v1/traces" >/dev/null
}
work() { i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done; }
"#;
const FOREVER: &str = "while :; do span; work; sleep 2; done";

/// Makes them.
pub struct Pods {
    agent: String,
}

impl Pods {
    /// They send to this address.
    pub fn new(agent: &str) -> Self {
        Self {
            agent: agent.to_owned(),
        }
    }

    fn container(&self, name: &str, script: &str, resources: &Value) -> Value {
        let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
        let service = format!("$(NAMESPACE)/$(POD)/{name}@$(POD_UID)");
        json!({
            "name": name, "image": IMAGE, "imagePullPolicy": "Never", "resources": resources,
            "command": ["sh", "-c", format!("{FUNCTIONS}{script}")],
            "env": [
                field("NAMESPACE", "metadata.namespace"),
                field("POD", "metadata.name"),
                field("POD_UID", "metadata.uid"),
                { "name": "AGENT", "value": self.agent },
                { "name": "BODY", "value": body(&service) },
            ],
        })
    }

    fn spec(&self, script: &str, resources: &Value) -> Value {
        json!({
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{ "operator": "Exists" }],
            "containers": [self.container("main", script, resources)],
        })
    }

    fn pod(&self, name: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod", "spec": spec,
            "metadata": {
                "name": name, "namespace": NAMESPACE,
                "labels": { "app.kubernetes.io/name": name, "other": "left-out" },
            },
        })
    }

    /// One with a limit that is more than its request.
    pub fn burstable(&self) -> String {
        let resources = json!({ "requests": { "cpu": "10m" }, "limits": { "cpu": "200m" } });
        self.pod("burstable", &self.spec(FOREVER, &resources))
            .to_string()
    }

    /// One without requests.
    pub fn besteffort(&self) -> String {
        self.pod("besteffort", &self.spec(FOREVER, &json!({})))
            .to_string()
    }

    /// One that lives one second.
    pub fn brief(&self) -> String {
        let mut brief = self.spec("span; work; sleep 1", &little());
        brief["restartPolicy"] = json!("Never");
        self.pod("brief", &brief).to_string()
    }

    /// One that is made, deleted and made again.
    pub fn same(&self) -> String {
        self.pod("same", &self.spec(FOREVER, &little())).to_string()
    }

    /// One for the kubelet's own folder.
    pub fn of_kubelet(&self) -> String {
        self.pod("static", &self.spec(FOREVER, &little()))
            .to_string()
    }

    /// One that makes groups that look like another's, in every hierarchy, and moves there.
    pub fn evil(&self, uid: &str, id: &str) -> String {
        let script = format!(
            "for top in /sys/fs/cgroup/cpu /sys/fs/cgroup/cpu,cpuacct /sys/fs/cgroup; do
               for of in kubepods/burstable/pod{uid}/{id} pod{uid}/{id}; do
                 mkdir -p $top/$of && echo 0 > $top/$of/cgroup.procs && break 2
               done
             done
             {FOREVER}"
        );
        let mut spec = self.spec(&script, &little());
        spec["containers"][0]["securityContext"] = json!({ "privileged": true });
        self.pod("evil", &spec).to_string()
    }

    /// Arguments of kubectl for a container that joins a pod that runs.
    pub fn debug(&self, pod: &str, uid: &str) -> Vec<String> {
        let service = format!("{NAMESPACE}/{pod}/debug@{uid}");
        let words = [
            "debug",
            pod,
            "-n",
            NAMESPACE,
            "--image",
            IMAGE,
            "--image-pull-policy=Never",
            "--container=debug",
            "--profile=general",
            &format!("--env=AGENT={}", self.agent),
            &format!("--env=BODY={}", body(&service)),
            "--",
            "sh",
            "-c",
            &format!("{FUNCTIONS}{FOREVER}"),
        ];
        words.map(str::to_owned).into()
    }

    /// All the others.
    pub fn list(&self) -> String {
        let little = little();
        let guaranteed = json!({ "limits": { "cpu": "100m", "memory": "32Mi" } });
        let mut privileged = self.spec(FOREVER, &little);
        privileged["containers"][0]["securityContext"] = json!({ "privileged": true });
        let mut many = self.spec(FOREVER, &little);
        many["containers"] = json!([
            self.container("first", FOREVER, &little),
            self.container("second", FOREVER, &little),
        ]);
        many["initContainers"] =
            json!([self.container("prepare", "span; work; sleep 1; span", &little)]);
        let mut once = self.spec("span; work; sleep 1; span", &little);
        once["restartPolicy"] = json!("Never");
        let again = self.spec("span; work; sleep 1; exit 1", &little);
        let made = |kind: &str, group: &str, name: &str, more: Value| {
            let labels = json!({ "app": name });
            let spec = self.spec(FOREVER, &little);
            let mut object = json!({
                "apiVersion": group, "kind": kind,
                "metadata": { "name": name, "namespace": NAMESPACE },
                "spec": {
                    "selector": { "matchLabels": labels },
                    "template": { "metadata": { "labels": labels }, "spec": spec },
                },
            });
            if let (Some(spec), Value::Object(more)) = (object["spec"].as_object_mut(), more) {
                spec.extend(more);
            }
            object
        };
        let items = [
            self.pod("guaranteed", &self.spec(FOREVER, &guaranteed)),
            self.pod("privileged", &privileged),
            self.pod("many", &many),
            self.pod("again", &again),
            made("DaemonSet", "apps/v1", "every", json!({})),
            made("Deployment", "apps/v1", "web", json!({ "replicas": 1 })),
            made(
                "StatefulSet",
                "apps/v1",
                "db",
                json!({ "serviceName": "db" }),
            ),
            json!({
                "apiVersion": "batch/v1", "kind": "Job",
                "metadata": { "name": "once", "namespace": NAMESPACE },
                "spec": { "template": { "spec": once } },
            }),
        ];
        let texts = [self.burstable(), self.besteffort(), self.same()];
        let documents = items.iter().map(Value::to_string).chain(texts);
        documents.collect::<Vec<_>>().join("\n---\n")
    }
}

/// A request of their own: the group of pods without any gets next to nothing of processors that
/// somebody else keeps busy.
fn little() -> Value {
    json!({ "requests": { "cpu": "20m" } })
}

fn body(service: &str) -> String {
    json!({ "resourceSpans": [{
        "resource": { "attributes": [
            { "key": "service.name", "value": { "stringValue": service } },
        ] },
        "scopeSpans": [{ "spans": [{
            "traceId": "TRACE", "spanId": "0102030405060708", "name": "work", "kind": 2,
            "startTimeUnixNano": "NOW000000000", "endTimeUnixNano": "NOW000000001",
        }] }],
    }] })
    .to_string()
}
