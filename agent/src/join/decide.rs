//! The order of the joins, from what the kernel shows down to nothing.

mod container;
mod socket;

use std::{net::IpAddr, sync::Arc};

pub(super) use self::container::ContainerIndex;
use self::{container::Containers, socket::Sockets};
use super::sighting::{Holder, Sighting};
use crate::{
    host::{
        identify::Identifier,
        peer::Peer,
        proc::{self, ProcDir},
    },
    otlp::{Connection, ends::Ends},
    process::{ProcessKey, SharedIdentity},
    span::Resource,
    vocabulary::Confidence,
    workload::Workload,
};

/// Executables (`otelcol` also stands for `otelcol-contrib`) of programs that pass on other programs' spans.
const PROXIES: &[&str] = &[
    "otelcol",
    "otelcontribcol",
    "otel-collector",
    "opentelemetry-c",
    "fluent-bit",
    "fluentd",
    "envoy",
    "vector",
    "alloy",
    "grafana-agent",
    "jaeger",
    "tempo",
    "telegraf",
    "istio-proxy",
    "linkerd2-proxy",
    "pilot-agent",
    "datadog-agent",
    "trace-agent",
    "rotel",
    "isostack-agent",
    "cloudwatch-agent",
    "amazon-cloudwat",
    "aws-otel",
    "odigos",
    "beyla",
    "bindplane",
    "socat",
    "kube-proxy",
    "docker-proxy",
    "ssh",
    "rootlessport",
];
/// Relatives of the sender's process that are looked at.
const MAX_RELATIVES: usize = 4096;

/// Everything the decision depends on, besides the host itself.
#[derive(Debug)]
pub(super) struct Question {
    pub connection: Connection,
    pub resource: Arc<Resource>,
    pub sighting: Arc<Sighting>,
    /// Resources of more than one service came over this connection.
    pub several_services: bool,
    /// The connections that its spans name.
    pub ends: Vec<Ends>,
}

impl Question {
    /// The sender's address.
    pub fn address(&self) -> Option<IpAddr> {
        match &self.connection {
            Connection::Tcp { peer, .. } => Some(peer.ip().to_canonical()),
            Connection::Unix { .. } => None,
        }
    }
}

/// The answer.
#[derive(Debug)]
pub(super) struct Decision {
    pub identity: Option<SharedIdentity>,
    pub confidence: Confidence,
}

/// Decides; reads `/proc` and the cgroups. `recent` is the process that the same sender
/// (address, service, instance, pid) was joined to before; `sockets` says who holds some.
pub(super) fn decide(
    identifier: &Identifier,
    index: &ContainerIndex,
    node_name: &str,
    question: &Question,
    recent: Option<ProcessKey>,
    sockets: Sockets<'_>,
) -> Decision {
    let judge = Judge {
        identifier,
        index,
        resource: &question.resource,
    };
    let found = judge
        .by_connection(question)
        .or_else(|| {
            let claimed = judge.by_claim(node_name, question);
            if let Some((_, Confidence::Process)) = &claimed {
                return claimed;
            }
            let container = claimed.as_ref().map(|(identity, _)| identity);
            judge
                .by_socket(node_name, question, container, sockets)
                .or(claimed)
        })
        .or_else(|| judge.by_memory(question, recent?));
    match found {
        Some((identity, confidence)) => Decision {
            identity: Some(with_names(identity, &question.resource)),
            confidence,
        },
        None => Decision {
            identity: None,
            confidence: Confidence::Host,
        },
    }
}

type Found = (SharedIdentity, Confidence);

struct Judge<'a> {
    identifier: &'a Identifier,
    index: &'a ContainerIndex,
    resource: &'a Resource,
}

impl Judge<'_> {
    /// Item 3 of the design: the process at the other end.
    fn by_connection(&self, question: &Question) -> Option<Found> {
        let holders = &question.sighting.holders;
        let first = holders.first()?;
        if holders
            .iter()
            .any(|holder| is_proxy(holder) || self.contradicts(&holder.identity.workload))
        {
            return None;
        }
        // A kernel of the sandbox's own gave the pid: here it is another's number, or nobody's.
        let stated = self.resource.pid.filter(|_| !counts_its_own(holders));
        let Some(pid) = stated else {
            if question.several_services {
                return None;
            }
            return match &holders[..] {
                [only] => Some((only.identity.clone(), Confidence::Process)),
                // Forked workers share the socket: which one cannot be told, their group can.
                _ => one_group(holders).then(|| (first.identity.clone(), Confidence::Container)),
            };
        };
        // Behind a collector in a container, everybody's pid is 1.
        if question.several_services && pid == 1 {
            return None;
        }
        let mut named = holders.iter().filter(|h| h.inner_pid == Some(pid));
        if let (Some(one), None) = (named.next(), named.next()) {
            return Some((one.identity.clone(), Confidence::Process));
        }
        if question.several_services {
            return None;
        }
        // The program may state its pid as the host sees it.
        if let Some(holder) = holders.iter().find(|h| h.identity.process.pid == pid) {
            return Some((holder.identity.clone(), Confidence::Process));
        }
        holders.iter().find_map(|holder| self.relative(holder, pid))
    }

    /// The stated pid is not a holder's: a worker whose parent holds the connection, or a
    /// parent whose pid was read before the fork.
    fn relative(&self, holder: &Holder, pid: u32) -> Option<Found> {
        let roots = self.identifier.roots();
        let namespace = holder.pid_namespace?;
        let sender = &holder.identity;
        let pids = match &*sender.cgroup_path {
            "/" => proc::pids(roots),
            path => self.identifier.cgroups().processes(path),
        };
        let mut same = pids.into_iter().take(MAX_RELATIVES).filter(|candidate| {
            let dir = ProcDir::new(roots, *candidate);
            dir.namespace("pid") == Some(namespace)
                && dir
                    .status()
                    .is_ok_and(|status| status.ns_pids.last() == Some(&pid))
        });
        let stated = same.next()?;
        // The same program, or it is a stranger that happens to have the number.
        if ProcDir::new(roots, stated).exe()? != holder.exe {
            return None;
        }
        if is_ancestor(self.identifier, stated, sender.process.pid) {
            // The resource was made before the fork: the holder of the socket is the sender.
            return Some((sender.clone(), Confidence::Process));
        }
        let identity = self.identifier.identify(stated)?;
        (identity.cgroup_path == sender.cgroup_path).then_some((identity, Confidence::Process))
    }

    /// Item 4: a container or pod that the resource names and that exists here.
    fn by_claim(&self, node_name: &str, question: &Question) -> Option<Found> {
        let resource = self.resource;
        let elsewhere = !resource.node.is_empty() && resource.node != node_name;
        if question.sighting.peer == Peer::Remote && elsewhere {
            return None;
        }
        let claims = [&resource.container_id, &resource.pod_uid, &resource.pod];
        if claims.iter().all(|claim| claim.is_empty()) {
            return None;
        }
        let containers = Containers::new(self.identifier, self.index.get(self.identifier));
        let paths = containers.named_by(resource)?;
        let processes = containers.processes(&paths);
        if let Some(pid) = resource.pid {
            let mut named = processes.iter().filter(|p| self.inner_pid(p) == Some(pid));
            // Two containers of a pod have a pid 1 each: then it is neither.
            if let (Some(one), None) = (named.next(), named.next()) {
                return Some((one.clone(), Confidence::Process));
            }
        }
        let [_one_container] = &paths[..] else {
            return None;
        };
        Some((processes.first()?.clone(), Confidence::Container))
    }

    /// The connection was over before its process could be found: the process that the same
    /// sender was before, if it is provably still that.
    fn by_memory(&self, question: &Question, recent: ProcessKey) -> Option<Found> {
        if question.sighting.peer != Peer::Vanished || question.several_services {
            return None;
        }
        let holder = Holder::look(self.identifier, recent)?;
        if is_proxy(&holder) || self.contradicts(&holder.identity.workload) {
            return None;
        }
        // Its own address or its own stated pid must still point at it.
        let counts = counts_its_own(std::slice::from_ref(&holder));
        match self.resource.pid.filter(|_| !counts) {
            Some(pid) => {
                let still = holder.inner_pid == Some(pid);
                still.then_some((holder.identity, Confidence::Process))
            }
            None => {
                let roots = self.identifier.roots();
                let own = ProcDir::new(roots, proc::own_pid(roots)?).namespace("net")?;
                let its = ProcDir::new(roots, recent.pid).namespace("net")?;
                (its != own).then_some((holder.identity, Confidence::Container))
            }
        }
    }

    /// Its pid in its own pid namespace, if it is still the same process.
    fn inner_pid(&self, identity: &SharedIdentity) -> Option<u32> {
        let dir = ProcDir::new(self.identifier.roots(), identity.process.pid);
        let pid = dir.status().ok()?.ns_pids.last().copied()?;
        (dir.key().ok()? == identity.process).then_some(pid)
    }

    /// Whether the resource names a container or pod that this is not.
    fn contradicts(&self, workload: &Workload) -> bool {
        let resource = self.resource;
        let differs = |claim: &str, fact: &str| !claim.is_empty() && !fact.starts_with(claim);
        // Outside Kubernetes a claim of a pod is as wrong as that of another pod.
        differs(&resource.pod_uid, &workload.pod_uid)
            || (container::is_id(&resource.container_id)
                && differs(&resource.container_id, &workload.container_id))
    }
}

/// `otelcol`, `otelcol-contrib`, `jaeger_linux`, but not `temporal`.
fn is_proxy_name(name: &str) -> bool {
    PROXIES.iter().any(|proxy| {
        name.strip_prefix(proxy)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_', '.']))
    })
}

/// Whether all are of gVisor, whose processes have no pids of this kernel.
fn counts_its_own(holders: &[Holder]) -> bool {
    let is_gvisor = |holder: &Holder| {
        let mut entries = holder.identity.stack.0.iter();
        entries.any(|entry| entry.technology == "gvisor")
    };
    holders.iter().all(is_gvisor)
}

/// Whether all are in one cgroup that is not the root.
fn one_group(holders: &[Holder]) -> bool {
    let mut paths = holders.iter().map(|h| &h.identity.cgroup_path);
    let Some(first) = paths.next() else {
        return false;
    };
    first != "/" && paths.all(|path| path == first)
}

fn is_proxy(holder: &Holder) -> bool {
    let name = holder.exe.rsplit('/').next().unwrap_or_default();
    [name, &*holder.identity.comm]
        .into_iter()
        .any(is_proxy_name)
}

fn is_ancestor(identifier: &Identifier, ancestor: u32, of: u32) -> bool {
    let mut pid = of;
    for _ in 0..32 {
        let Ok(stat) = ProcDir::new(identifier.roots(), pid).stat() else {
            return false;
        };
        if stat.ppid == ancestor {
            return true;
        }
        if stat.ppid <= 1 {
            return false;
        }
        pid = stat.ppid;
    }
    false
}

/// Fills pod names that the host does not know from the resource, for a container that the
/// resource does not contradict: a name is only ever added to the sender's own workload.
fn with_names(identity: SharedIdentity, resource: &Resource) -> SharedIdentity {
    let workload = &identity.workload;
    let in_container = !workload.pod_uid.is_empty() || !workload.container_id.is_empty();
    let agrees = |claim: &str, fact: &str| claim.is_empty() || fact.is_empty() || claim == fact;
    let useful = (workload.pod.is_empty() && !resource.pod.is_empty())
        || (workload.namespace.is_empty() && !resource.namespace.is_empty());
    if !in_container
        || !useful
        || !agrees(&resource.pod_uid, &workload.pod_uid)
        || !agrees(&resource.pod, &workload.pod)
        || !agrees(&resource.namespace, &workload.namespace)
    {
        return identity;
    }
    let mut named = (*identity).clone();
    for (known, claim) in [
        (&mut named.workload.pod, &resource.pod),
        (&mut named.workload.namespace, &resource.namespace),
    ] {
        if known.is_empty() {
            known.clone_from(claim);
        }
    }
    Arc::new(named)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        host::roots::Roots,
        metrics::AgentMetrics,
        stack::{Stack, StackEntry},
        vocabulary::Layer,
    };

    #[test]
    fn collectors_by_name() {
        for name in [
            "otelcol",
            "otelcol-contrib",
            "jaeger-all-in-one",
            "envoy",
            "alloy",
        ] {
            assert!(is_proxy_name(name), "{name}");
        }
        for name in ["temporal", "alloydb", "vectordb", "sshd", "java", ""] {
            assert!(!is_proxy_name(name), "{name}");
        }
    }

    /// A process in `/web` that states a pid which is nobody's here.
    fn joined(technologies: &[&str], several_services: bool) -> Option<Confidence> {
        let holder = |(pid, technology): (u32, &&str)| Holder {
            identity: Arc::new(crate::process::Identity {
                process: ProcessKey {
                    pid,
                    start_ticks: 1,
                },
                comm: "exe".into(),
                cgroup_id: 1,
                cgroup_path: "/web".into(),
                workload: Workload::default(),
                stack: Stack(vec![StackEntry {
                    layer: Layer::Sandbox,
                    technology: (*technology).into(),
                    evidence: String::new(),
                }]),
            }),
            inner_pid: Some(pid),
            pid_namespace: None,
            exe: "/usr/bin/runsc".into(),
        };
        let connection = Connection::Tcp {
            local: ([127, 0, 0, 1], 4317).into(),
            peer: ([127, 0, 0, 1], 50_000).into(),
        };
        let question = Question {
            connection,
            resource: Arc::new(Resource {
                pid: Some(1),
                ..Resource::default()
            }),
            sighting: Arc::new(Sighting {
                holders: (900..).zip(technologies).map(holder).collect(),
                ..Sighting::nothing()
            }),
            several_services,
            ends: Vec::new(),
        };
        let identifier = Identifier::new(Roots::default(), AgentMetrics::default());
        let judge = Judge {
            identifier: &identifier,
            index: &ContainerIndex::default(),
            resource: &question.resource,
        };
        let found = judge.by_connection(&question)?;
        assert_eq!(found.0.process.pid, 900);
        Some(found.1)
    }

    #[test]
    fn a_pid_that_gvisors_kernel_gave_is_not_looked_for_here() {
        assert_eq!(joined(&["gvisor"], false), Some(Confidence::Process));
        // Those that run its code inherit what the sentry holds.
        let all = ["gvisor", "gvisor"];
        assert_eq!(joined(&all, false), Some(Confidence::Container));
        assert_eq!(joined(&["gvisor"], true), None, "a collector in a sandbox");
        for others in [&["bubblewrap"][..], &["gvisor", "bubblewrap"]] {
            assert_eq!(joined(others, false), None, "{others:?}");
        }
    }

    #[test]
    fn a_resource_names_a_container_but_never_renames_it() {
        let identity = |pod_uid: &str, pod: &str| {
            Arc::new(crate::process::Identity {
                process: ProcessKey {
                    pid: 1,
                    start_ticks: 1,
                },
                comm: String::new(),
                cgroup_id: 1,
                cgroup_path: String::new(),
                workload: Workload {
                    pod_uid: pod_uid.into(),
                    pod: pod.into(),
                    ..Workload::default()
                },
                stack: Stack::default(),
            })
        };
        let claim = |pod_uid: &str, pod: &str| Resource {
            pod_uid: pod_uid.into(),
            pod: pod.into(),
            namespace: "shop".into(),
            ..Resource::default()
        };
        let names = |identity, claim: Resource| {
            let workload = &with_names(identity, &claim).workload;
            (workload.namespace.clone(), workload.pod.clone())
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        let odd = format!("we\"ird\n\u{202e}{}", "x".repeat(4096));
        assert_eq!(
            names(identity("u", ""), claim("", &odd)),
            pair("shop", &odd)
        );
        assert_eq!(
            names(identity("u", ""), claim("u", "web")),
            pair("shop", "web")
        );
        assert_eq!(names(identity("u", ""), claim("v", "web")), pair("", ""));
        assert_eq!(
            names(identity("u", "web"), claim("u", "db")),
            pair("", "web")
        );
        assert_eq!(
            names(identity("u", "web"), claim("u", "")),
            pair("shop", "web")
        );
        assert_eq!(
            names(identity("", ""), claim("", "web")),
            pair("", ""),
            "no container"
        );
    }
}
