use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    event::{Disk, Limiter, MemoryLimit},
    pipeline::culprit::Culprit,
};

const S: u64 = 1_000_000_000;
const NOW: u64 = 1_795_334_400 * S;

fn evidence(culprit: &str, particulars: Particulars) -> Evidence {
    Evidence {
        culprit: Culprit {
            name: culprit.into(),
            part: 1.0,
        },
        particulars,
        ..Evidence::default()
    }
}

fn quota(path: &str) -> Particulars {
    Particulars::Limiter(Arc::new(Limiter {
        cgroup_id: 7,
        cgroup_path: path.into(),
        cores: 0.5,
        quota_file: "cpu.max",
        is_ancestor: false,
    }))
}

fn disk(name: &str) -> Particulars {
    Particulars::Disk(Arc::new(Disk {
        name: name.into(),
        paravirtual: false,
    }))
}

/// Whether two verdicts are one story.
fn same(a: (Cause, Fault, &Evidence, &str), b: (Cause, Fault, &Evidence, &str)) -> bool {
    let of =
        |v: (Cause, Fault, &Evidence, &str)| Story::of(v.0, v.1, v.2, (v.3, &Workload::default()));
    of(a) == of(b)
}

#[test]
fn one_cause_fault_and_subject_are_one_story() {
    use Cause::{BlockDevice, CpuThrottle, LockWait, MemoryReclaim, Runqueue};
    let nobody = evidence("", Particulars::None);
    let hog = evidence("hog", Particulars::None);
    let of = |cause, evidence, service| (cause, Fault::Host, evidence, service);
    assert!(same(of(Runqueue, &hog, "a"), of(Runqueue, &hog, "b")));
    assert!(same(of(Runqueue, &nobody, "a"), of(Runqueue, &nobody, "b")));
    assert!(!same(of(Runqueue, &hog, "a"), of(Runqueue, &nobody, "a")));
    assert!(!same(
        of(Runqueue, &hog, "a"),
        of(Cause::BlockQueue, &hog, "a")
    ));
    assert!(!same(
        (BlockDevice, Fault::Host, &hog, "a"),
        (BlockDevice, Fault::L2, &hog, "a")
    ));
    let (pod, other) = (evidence("", quota("/pod1")), evidence("", quota("/pod2")));
    assert!(same(of(CpuThrottle, &pod, "a"), of(CpuThrottle, &pod, "b")));
    assert!(!same(
        of(CpuThrottle, &pod, "a"),
        of(CpuThrottle, &other, "a")
    ));
    let (vda, vdb) = (evidence("", disk("vda")), evidence("", disk("vdb")));
    assert!(same(of(BlockDevice, &vda, "a"), of(BlockDevice, &vda, "b")));
    assert!(!same(
        of(BlockDevice, &vda, "a"),
        of(BlockDevice, &vdb, "a")
    ));
    assert!(same(of(LockWait, &nobody, "a"), of(LockWait, &nobody, "a")));
    assert!(!same(
        of(LockWait, &nobody, "a"),
        of(LockWait, &nobody, "b")
    ));
    let host = evidence(
        "",
        Particulars::Memory {
            memcg: false,
            limit: None,
            is_swap_in: false,
        },
    );
    assert!(same(
        of(MemoryReclaim, &host, "a"),
        of(MemoryReclaim, &host, "b")
    ));
    let limit = MemoryLimit {
        cgroup_path: "/pod1".into(),
        bytes: 1,
        file: "memory.high",
        is_ancestor: true,
    };
    let limited = evidence(
        "",
        Particulars::Memory {
            memcg: true,
            limit: Some(Arc::new(limit)),
            is_swap_in: false,
        },
    );
    assert!(same(
        of(MemoryReclaim, &limited, "a"),
        of(MemoryReclaim, &limited, "b")
    ));
    assert!(!same(
        of(MemoryReclaim, &limited, "a"),
        of(MemoryReclaim, &host, "a")
    ));
}

#[test]
fn who_takes_a_services_name_has_a_story_of_his_own() {
    let nobody = evidence("", Particulars::None);
    let of = |cause, container: &str| {
        let workload = Workload {
            container: container.into(),
            ..Workload::default()
        };
        Story::of(cause, Fault::App, &nobody, ("shop", &workload))
    };
    assert_eq!(of(Cause::LockWait, "cart"), of(Cause::LockWait, "cart"));
    assert_ne!(of(Cause::LockWait, "cart"), of(Cause::LockWait, "other"));
    assert_eq!(of(Cause::Runqueue, "cart"), of(Cause::Runqueue, "other"));
}

fn story(subject: &str) -> Story {
    let culprit = evidence(subject, Particulars::None);
    Story::of(
        Cause::Runqueue,
        Fault::Host,
        &culprit,
        ("shop", &Workload::default()),
    )
}

#[test]
fn a_silence_ends_an_incident_and_late_spans_do_not() {
    let mut incidents = Incidents::default();
    let mut at = |second: u64| {
        let start = NOW + second * S;
        incidents.note(story("hog"), start, start + S)
    };
    let first = at(1_000);
    assert_eq!(first.len(), "i-0123456789abcdef".len());
    assert_eq!(at(1_100), first);
    assert_eq!(at(1_221), first, "just within the window");
    assert_eq!(at(900), first, "late, and from before the first");
    let second = at(1_343);
    assert_ne!(second, first);
    assert_eq!(at(1_400), second);
    assert_eq!(at(1_300), second);
}

#[test]
fn the_one_silent_for_longest_makes_room() {
    let mut incidents = Incidents::default();
    let mut note = |n: usize, second: u64| {
        let start = NOW + second * S;
        incidents.note(story(&format!("{n}")), start, start)
    };
    let names: Vec<String> = (0..MAX_OPEN).map(|n| note(n, 1 + n as u64 / 10)).collect();
    assert_eq!(note(0, 50), names[0]);
    note(MAX_OPEN, 51);
    assert_eq!(note(0, 52), names[0]);
    assert_ne!(note(1, 52), names[1], "it was silent for longest");
    assert_eq!(incidents.open.len(), MAX_OPEN);
}

proptest! {
    /// Of the same input come the same names, and never one for two stories.
    #[test]
    fn names_are_stable_and_belong_to_one_story(
        spans in prop::collection::vec((0u8..6, 0u64..2_000, 0u64..10), 1..200),
    ) {
        let run = || {
            let mut incidents = Incidents::default();
            spans
                .iter()
                .map(|(n, start, length)| {
                    let start = NOW + start * S;
                    incidents.note(story(&n.to_string()), start, start + length * S)
                })
                .collect::<Vec<_>>()
        };
        let names = run();
        prop_assert_eq!(&names, &run());
        let mut owner = BTreeMap::new();
        for ((n, ..), name) in spans.iter().zip(names) {
            prop_assert_eq!(owner.entry(name).or_insert(n), &n);
        }
    }

    #[test]
    fn no_subject_breaks_it(culprit in "\\PC{0,400}", service in ".{0,40}") {
        let story = Story::of(
            Cause::Runqueue,
            Fault::Host,
            &evidence(&culprit, Particulars::None),
            (&service, &Workload::default()),
        );
        prop_assert!(story.subject.len() <= MAX_SUBJECT_BYTES);
        prop_assert!(Incidents::default().note(story, u64::MAX, 0).starts_with("i-"));
    }
}
