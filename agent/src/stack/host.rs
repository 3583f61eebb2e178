//! From facts about the machine to the layers below every process on it. Pure.

mod hardware;
mod hypervisor;
mod paravirtual;
#[cfg(test)]
mod tests;

use super::{Stack, StackEntry};
use crate::{host::platform::HostFacts, vocabulary::Layer};

/// The host's layers, innermost first: paravirtual devices, hypervisor, hardware assist.
#[must_use]
pub fn host_stack(facts: &HostFacts) -> Stack {
    let hypervisors = hypervisor::hypervisors(facts);
    let mut stack = Vec::new();
    if !hypervisors.is_empty() {
        stack.extend(paravirtual::paravirtual(facts));
    }
    let hardware = hardware::hardware(facts, &hypervisors);
    stack.extend(hypervisors);
    stack.extend(hardware);
    Stack(stack)
}

fn entry(layer: Layer, technology: &str, evidence: String) -> StackEntry {
    StackEntry {
        layer,
        technology: technology.to_owned(),
        evidence,
    }
}
