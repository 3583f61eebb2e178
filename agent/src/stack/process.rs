//! From facts about a process to its isolation stack and its workload. Pure: whatever is
//! needed is in [`ProcessFacts`], so that frozen facts give the same answer anywhere.

mod container;
mod facts;
mod machine;
mod nesting;
mod sandbox;
#[cfg(test)]
mod tests;
mod wasm;

pub use container::is_runtime;
pub use facts::{Ancestor, Descriptors, ExeFile, LogNames, ProcessFacts, RuntimeState, base_name};
pub use machine::{is_monitor, is_vcpu, machine_monitor};
pub use sandbox::{is_tool, wrapper};
pub use wasm::{engine as wasm_engine, library_engine};

use self::{container::Runtimes, facts::differ, nesting::Place};
use super::{Stack, StackEntry, host::host_stack};
use crate::{
    host::platform::HostFacts,
    vocabulary::Layer,
    workload::{Workload, path::PathKind},
};

/// The layers a process runs inside, innermost first.
#[must_use]
pub fn process_stack(facts: &ProcessFacts, host: &HostFacts) -> Stack {
    let mut stack = Inference::of(facts, host).stack();
    stack.0.extend(host_stack(host).0);
    stack
}

/// What a person recognises behind the process.
#[must_use]
pub fn process_workload(facts: &ProcessFacts, host: &HostFacts) -> Workload {
    Inference::of(facts, host).workload()
}

/// What both answers rest on.
#[derive(Debug)]
pub struct Inference<'a> {
    facts: &'a ProcessFacts,
    host: &'a HostFacts,
    place: Place<'a>,
    runtimes: Runtimes,
}

impl<'a> Inference<'a> {
    /// From the facts of a process on a host.
    #[must_use]
    pub fn of(facts: &'a ProcessFacts, host: &'a HostFacts) -> Self {
        let place = Place::find(facts, host);
        Self {
            runtimes: Runtimes::find(facts, &place, host),
            facts,
            host,
            place,
        }
    }

    /// The layers above the host's own, innermost first.
    #[must_use]
    pub fn stack(&self) -> Stack {
        let Self { facts, host, .. } = *self;
        let in_container = self.runtimes.is_container();
        let mut stack = wasm::wasm(facts, in_container);
        stack.extend(sandbox::sandboxes(facts, host, in_container));
        // A device that a machine was given is below the machine, but above the host's own.
        let (given, machine): (Vec<_>, Vec<_>) = machine::machine(facts)
            .into_iter()
            .partition(|e| e.layer == Layer::HardwareAssist);
        stack.extend(machine);
        stack.extend(given);
        stack.extend(self.runtimes.entries());
        if in_container {
            stack.extend(sandbox::seccomp(facts, Layer::Container));
        }
        Stack(stack)
    }

    /// What a person recognises behind the process.
    #[must_use]
    pub fn workload(&self) -> Workload {
        let Self { facts, host, .. } = *self;
        let names = self.place.names();
        let mut workload = Workload {
            pod_uid: names.pod_uid,
            container: names.container,
            container_id: names.container_id,
            unit: names.unit,
            runtime: self.runtimes.name().to_owned(),
            process: facts.comm.clone(),
            cgroup_id: facts.cgroup_id,
            ..Workload::default()
        };
        // What the node knows by the path's names counts only where those do.
        if self.place.doubt().is_none() {
            workload.namespace.clone_from(&facts.log_names.namespace);
            workload.pod.clone_from(&facts.log_names.pod);
            if workload.container.is_empty() {
                workload.container.clone_from(&facts.log_names.container);
            }
        }
        if workload.container_id.is_empty()
            && workload.container.is_empty()
            && let Some(id) = self.runtimes.container_id()
        {
            id.clone_into(&mut workload.container_id);
            workload.unit.clear();
        }
        if workload.runtime.is_empty() && names.kind == PathKind::Unit {
            workload.runtime = "systemd".to_owned();
        }
        // runsc called by hand: the group has a name, the container another.
        if !self.runtimes.is_container()
            && workload.container.is_empty()
            && let Some(id) = sandbox::served_by_gvisor(facts, host)
        {
            id.clone_into(&mut workload.container_id);
            "gvisor".clone_into(&mut workload.runtime);
            workload.unit.clear();
        }
        name_machine(facts, &self.runtimes, &mut workload);
        workload
    }
}

/// A machine is called by its own name: the one in libvirt's group, or what root called it.
fn name_machine(facts: &ProcessFacts, runtimes: &Runtimes, workload: &mut Workload) {
    let Some(monitor) = machine::monitor_of(facts) else {
        return;
    };
    if runtimes.is_container() || !workload.container.is_empty() {
        return;
    }
    let libvirt = machine::libvirt_name(&facts.cgroup_path);
    if let Some(name) = libvirt {
        workload.container = name;
        "libvirt".clone_into(&mut workload.runtime);
    } else if facts.uid == 0
        && facts.uid_map.is_empty()
        && let Some(name) = machine::machine_name(facts)
    {
        workload.container = name;
        monitor.clone_into(&mut workload.runtime);
    }
}

fn entry(layer: Layer, technology: &str, evidence: String) -> StackEntry {
    StackEntry {
        layer,
        technology: technology.to_owned(),
        evidence,
    }
}
