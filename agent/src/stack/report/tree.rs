//! `stack --all` for people: workloads under what they belong to.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{ProcessReport, visible};
use crate::vocabulary::Layer;

/// Where a workload hangs in the tree: each step is one level down.
type Place = Vec<String>;

/// The tree of workloads; of each stack only what stands above the host's own `host` layers.
pub(super) fn tree(workloads: &[ProcessReport], host: usize) -> String {
    let mut places: BTreeMap<Place, &ProcessReport> = BTreeMap::new();
    for report in workloads {
        let mut place = place(report);
        // Two of one name are told apart by their process.
        if places.contains_key(&place)
            && let Some(last) = place.last_mut()
        {
            last.push_str(&format!(" (pid {})", report.pid));
        }
        places.insert(place, report);
    }
    let mut text = format!(
        "{:<48} {:<6} {:<24} PROCESS\n",
        "WORKLOAD", "LAYER", "ABOVE THE HOST"
    );
    let mut open: &[String] = &[];
    for (place, report) in &places {
        let Some((name, groups)) = place.split_last() else {
            continue;
        };
        let common = open.iter().zip(groups).take_while(|(a, b)| a == b).count();
        for (depth, group) in groups.iter().enumerate().skip(common) {
            let _ = writeln!(text, "{}{}", "  ".repeat(depth), visible(group));
        }
        open = groups;
        let indented = format!("{}{}", "  ".repeat(groups.len()), visible(name));
        let above = report.stack.len().saturating_sub(host);
        let stack: Vec<String> = report.stack[..above]
            .iter()
            .map(|e| format!("{}:{}", e.layer, visible(&e.technology)))
            .collect();
        let stack = if stack.is_empty() {
            "-".to_owned()
        } else {
            stack.join("/")
        };
        let _ = writeln!(
            text,
            "{indented:<48} {:<6} {stack:<24} {} (pid {})",
            report.layer.as_str(),
            visible(&report.comm),
            report.pid
        );
    }
    text
}

fn place(report: &ProcessReport) -> Place {
    let workload = &report.workload;
    let label = workload.container_label().to_owned();
    let pod = workload.pod_label();
    if !pod.is_empty() {
        let pod = match &*workload.namespace {
            "" => pod.to_owned(),
            namespace => format!("{namespace}/{pod}"),
        };
        let label = if workload.container.is_empty() && workload.container_id.is_empty() {
            "(the pod itself)".to_owned()
        } else {
            label
        };
        return vec!["pods".to_owned(), pod, label];
    }
    let machine = report
        .stack
        .first()
        .is_some_and(|e| e.layer == Layer::FullVirtualisation)
        && matches!(
            &*workload.runtime,
            "libvirt" | "qemu" | "cloud-hypervisor" | "crosvm" | "firecracker"
        );
    let group = if machine {
        "machines"
    } else if !workload.container.is_empty() || !workload.container_id.is_empty() {
        "containers"
    } else if workload.runtime == "systemd" {
        "units"
    } else if workload.unit.is_empty() {
        "processes"
    } else {
        "groups"
    };
    vec![group.to_owned(), label]
}
