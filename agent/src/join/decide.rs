//! The order of the joins, from what the kernel shows down to nothing.

mod container;

use std::{net::IpAddr, sync::Arc};

use self::container::Containers;
use crate::{
    host::{
        identify::Identifier,
        peer::Peer,
        proc::{self, ProcDir},
    },
    otlp::Connection,
    process::{ProcessKey, SharedIdentity},
    span::Resource,
    vocabulary::Confidence,
    workload::Workload,
};

/// Executables (or their beginnings) of programs that pass on other programs' spans.
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
    "haproxy",
    "nginx",
    "traefik",
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
    pub peer: Peer,
    /// Resources of more than one service came over this connection.
    pub several_services: bool,
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
/// (address, service, instance, pid) was joined to before.
pub(super) fn decide(
    identifier: &Identifier,
    node_name: &str,
    question: &Question,
    recent: Option<ProcessKey>,
) -> Decision {
    let judge = Judge {
        identifier,
        resource: &question.resource,
    };
    let found = judge
        .by_connection(question)
        .or_else(|| judge.by_claim(node_name, question))
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
    resource: &'a Resource,
}

impl Judge<'_> {
    /// Item 3 of the design: the process at the other end.
    fn by_connection(&self, question: &Question) -> Option<Found> {
        let Peer::Local(holders) = &question.peer else {
            return None;
        };
        let holders: Vec<SharedIdentity> = holders
            .iter()
            .filter_map(|key| self.identifier.identify_key(*key))
            .collect();
        let first = holders.first()?;
        if holders
            .iter()
            .any(|holder| self.is_proxy(holder) || self.contradicts(&holder.workload))
        {
            return None;
        }
        let Some(pid) = self.resource.pid else {
            if question.several_services {
                return None;
            }
            return match &holders[..] {
                [only] => Some((only.clone(), Confidence::Process)),
                // Forked workers share the socket: which one cannot be told, their group can.
                _ => one_group(&holders).then(|| (first.clone(), Confidence::Container)),
            };
        };
        // Behind a collector in a container, everybody's pid is 1.
        if question.several_services && pid == 1 {
            return None;
        }
        let named: Vec<&SharedIdentity> = holders
            .iter()
            .filter(|h| self.inner_pid(h) == Some(pid))
            .collect();
        if let [only] = named[..] {
            return Some((only.clone(), Confidence::Process));
        }
        if question.several_services {
            return None;
        }
        // The program may state its pid as the host sees it.
        if let Some(holder) = holders.iter().find(|h| h.process.pid == pid) {
            return Some((holder.clone(), Confidence::Process));
        }
        holders.iter().find_map(|holder| self.relative(holder, pid))
    }

    /// The stated pid is not a holder's: a worker whose parent holds the connection, or a
    /// parent whose pid was read before the fork.
    fn relative(&self, holder: &SharedIdentity, pid: u32) -> Option<Found> {
        let roots = self.identifier.roots();
        let dir = ProcDir::new(roots, holder.process.pid);
        let (namespace, exe) = (dir.namespace("pid")?, dir.exe()?);
        let pids = match &*holder.cgroup_path {
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
        let stated_dir = ProcDir::new(roots, stated);
        // The same program, or it is a stranger that happens to have the number.
        if stated_dir.exe()? != exe {
            return None;
        }
        if is_ancestor(self.identifier, stated, holder.process.pid) {
            // The resource was made before the fork: the holder of the socket is the sender.
            return Some((holder.clone(), Confidence::Process));
        }
        let identity = self.identifier.identify(stated)?;
        (identity.cgroup_path == holder.cgroup_path).then_some((identity, Confidence::Process))
    }

    /// Item 4: a container or pod that the resource names and that exists here.
    fn by_claim(&self, node_name: &str, question: &Question) -> Option<Found> {
        let resource = self.resource;
        let elsewhere = !resource.node.is_empty() && resource.node != node_name;
        if question.peer == Peer::Remote && elsewhere {
            return None;
        }
        let containers = Containers::new(self.identifier);
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
        if question.peer != Peer::Vanished || question.several_services {
            return None;
        }
        let dir = ProcDir::new(self.identifier.roots(), recent.pid);
        if dir.key().ok()? != recent {
            return None;
        }
        let identity = self.identifier.identify_key(recent)?;
        if self.is_proxy(&identity) || self.contradicts(&identity.workload) {
            return None;
        }
        // Its own address or its own stated pid must still point at it.
        match self.resource.pid {
            Some(pid) => {
                let still = self.inner_pid(&identity) == Some(pid);
                still.then_some((identity, Confidence::Process))
            }
            None => {
                let own = proc::own_pid(self.identifier.roots())?;
                let own = ProcDir::new(self.identifier.roots(), own).namespace("net")?;
                let elsewhere = dir.namespace("net")? != own;
                elsewhere.then_some((identity, Confidence::Container))
            }
        }
    }

    /// Its pid in its own pid namespace, if it is still the same process.
    fn inner_pid(&self, identity: &SharedIdentity) -> Option<u32> {
        let dir = ProcDir::new(self.identifier.roots(), identity.process.pid);
        let pid = dir.status().ok()?.ns_pids.last().copied()?;
        (dir.key().ok()? == identity.process).then_some(pid)
    }

    fn is_proxy(&self, identity: &SharedIdentity) -> bool {
        let dir = ProcDir::new(self.identifier.roots(), identity.process.pid);
        let exe = dir.exe().unwrap_or_default();
        let name = exe.rsplit('/').next().unwrap_or_default();
        PROXIES
            .iter()
            .any(|proxy| name.starts_with(proxy) || identity.comm.starts_with(proxy))
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

/// Whether all are in one cgroup that is not the root.
fn one_group(holders: &[SharedIdentity]) -> bool {
    holders
        .iter()
        .all(|h| h.cgroup_path == holders[0].cgroup_path && h.cgroup_path != "/")
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
