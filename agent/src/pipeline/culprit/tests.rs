use std::sync::Arc;

use super::*;
use crate::{
    event::{Consumption, Disk, Flow, MemoryLimit, Slice, SystemCall},
    process::ProcessKey,
    stack::Stack,
    time::MonoNs,
    workload::Workload,
};

const MS: u64 = 1_000_000;

fn neighbour(n: u64, path: &str) -> Arc<Neighbour> {
    Arc::new(Neighbour {
        cgroup_id: n,
        cgroup_path: path.into(),
        name: format!("n{n}"),
    })
}

fn victim() -> Identity {
    Identity {
        process: ProcessKey {
            pid: 1,
            start_ticks: 1,
        },
        comm: String::new(),
        cgroup_id: 1,
        cgroup_path: "/pods/a".into(),
        workload: Workload::default(),
        stack: Stack::default(),
    }
}

fn wait(start_ms: u64, end_ms: u64, particulars: Particulars) -> Wait {
    Wait {
        start: start_ms * MS,
        end: end_ms * MS,
        particulars,
    }
}

/// `(cgroup, path, from, to, amount)`.
type Use = (u64, &'static str, u64, u64, u64);

fn consumers(resource: &Resource, uses: &[Use]) -> Consumers {
    let mut consumers = Consumers::default();
    for (id, path, start, end, amount) in uses {
        let of = Consumption {
            resource: resource.clone(),
            start: MonoNs(start * MS),
            end: MonoNs(end * MS),
            amount: *amount,
            cgroup_id: *id,
            consumer: (*id != 0).then(|| neighbour(*id, path)),
        };
        consumers
            .add(&of, MonoNs(0), MonoNs(1_000_000 * MS))
            .unwrap();
    }
    consumers
}

fn culprit(cause: Cause, waits: &[Wait], resource: &Resource, uses: &[Use]) -> String {
    let consumers = consumers(resource, uses);
    find(cause, &waits[0].particulars, waits, &victim(), &consumers).name
}

fn of_cpu(waits: &[(u64, u64)]) -> String {
    let waits: Vec<Wait> = waits
        .iter()
        .map(|(n, ms)| {
            let particulars = match n {
                0 => Particulars::None,
                n => Particulars::Neighbour(neighbour(*n, "")),
            };
            wait(100, 100 + ms, particulars)
        })
        .collect();
    of_the_cpu(&waits, &victim()).name
}

#[test]
fn of_a_cpu_the_one_that_had_it_most_is_named() {
    assert_eq!(of_cpu(&[(2, 10), (3, 30), (2, 25)]), "n2");
    assert_eq!(of_cpu(&[(1, 60), (2, 40)]), "", "mostly in its own way");
    assert_eq!(of_cpu(&[(1, 40), (2, 60)]), "n2");
    assert_eq!(of_cpu(&[]), "");
    assert_eq!(of_cpu(&[(0, 60), (2, 40)]), "", "mostly not known");
    let many: Vec<(u64, u64)> = (2..10).map(|n| (n, 10)).collect();
    assert_eq!(of_cpu(&many), "", "a crowd is nobody");
    let root = |root_ms, n2_ms| {
        let root = Neighbour {
            cgroup_id: 9,
            cgroup_path: "/".into(),
            name: String::new(),
        };
        let waits = [
            wait(0, root_ms, Particulars::Neighbour(Arc::new(root))),
            wait(0, n2_ms, Particulars::Neighbour(neighbour(2, "/b"))),
            wait(0, 30, Particulars::Neighbour(neighbour(1, "/pods/a"))),
        ];
        of_the_cpu(&waits, &victim()).name
    };
    assert_eq!(
        root(30, 40),
        "n2",
        "the root's processes and it kept the victim waiting"
    );
    assert_eq!(root(90, 20), "", "it had little of it");
}

fn disk(name: &str) -> Arc<Disk> {
    Arc::new(Disk {
        name: name.into(),
        paravirtual: false,
    })
}

#[test]
fn of_a_disk_the_one_with_most_under_way_just_then_is_named() {
    let vda = Resource::Disk(disk("vda"));
    let waits = [
        wait(1_000, 1_100, Particulars::Disk(disk("vda"))),
        wait(1_200, 1_300, Particulars::Disk(disk("vda"))),
    ];
    let of = |uses: &[Use]| culprit(Cause::BlockDevice, &waits, &vda, uses);
    let victim: Use = (1, "/pods/a", 1_000, 1_300, 300_000);
    assert_eq!(of(&[victim, (2, "/pods/b", 1_000, 1_300, 900_000)]), "n2");
    assert_eq!(
        of(&[victim, (2, "/pods/b", 1_000, 1_300, 150_000)]),
        "",
        "less than 40 %"
    );
    assert_eq!(of(&[victim]), "");
    assert_eq!(
        of(&[victim, (2, "/pods/b", 1_100, 1_200, 9_000_000)]),
        "",
        "it was quiet while the victim waited"
    );
    assert_eq!(
        of(&[
            victim,
            (2, "/pods/b", 1_050, 1_060, 500_000),
            (3, "/pods/c", 1_000, 1_300, 600_000)
        ]),
        "n2",
        "of the other only two thirds fall into the waits"
    );
    assert_eq!(
        of(&[victim, (2, "/pods/a/inner", 1_000, 1_300, 900_000)]),
        "",
        "a part of the victim"
    );
    assert_eq!(
        of(&[victim, (2, "/", 1_000, 1_300, 900_000)]),
        "",
        "the root encloses everybody"
    );
    assert_eq!(
        of(&[
            victim,
            (0, "", 1_000, 1_300, 900_000),
            (2, "/pods/b", 1_000, 1_300, 100_000)
        ]),
        "",
        "most is nobody's"
    );
    let call = Particulars::SystemCall(Arc::new(SystemCall {
        name: "fsync".into(),
        action: String::new(),
    }));
    let fsync = [wait(1_000, 1_300, call)];
    let busy: &[Use] = &[victim, (2, "/pods/b", 1_000, 1_300, 900_000)];
    assert_eq!(culprit(Cause::BlockQueue, &fsync, &vda, busy), "n2");
    assert_eq!(culprit(Cause::BlockQueue, &fsync, &vda, &[]), "");
    let vdb = Resource::Disk(disk("vdb"));
    let uses: &[Use] = &[(2, "/pods/b", 1_000, 1_300, 900_000)];
    assert_eq!(culprit(Cause::BlockDevice, &waits, &vdb, uses), "");
}

fn memory(limit: Option<(&str, bool)>) -> Particulars {
    Particulars::Memory {
        memcg: limit.is_some(),
        limit: limit.map(|(path, is_ancestor)| {
            Arc::new(MemoryLimit {
                cgroup_path: path.into(),
                bytes: 1,
                file: "memory.max",
                is_ancestor,
            })
        }),
        is_swap_in: false,
    }
}

#[test]
fn of_memory_who_lives_below_the_same_limit_is_named() {
    let uses: &[Use] = &[
        (1, "/pods/a", 1_000, 1_100, 100),
        (2, "/pods/b", 1_000, 1_100, 400),
        (3, "/else", 1_000, 1_100, 450),
    ];
    let of = |limit: Option<(&str, bool)>| {
        let waits = [wait(1_000, 1_100, memory(limit))];
        let resource = Resource::Memory {
            memcg: limit.is_some(),
        };
        culprit(Cause::MemoryReclaim, &waits, &resource, uses)
    };
    assert_eq!(of(None), "n3", "the host's is everybody's");
    assert_eq!(of(Some(("/pods/a", false))), "", "its own limit");
    let below = [
        (1, "/pods/a", 1_000, 1_100, 100),
        (2, "/pods/b", 1_000, 1_100, 400),
    ];
    let waits = [wait(1_000, 1_100, memory(Some(("/pods", true))))];
    let resource = Resource::Memory { memcg: true };
    assert_eq!(
        culprit(Cause::MemoryReclaim, &waits, &resource, &below),
        "n2"
    );
    let kill = [wait(1_100, 1_100, memory(Some(("/pods", true))))];
    assert_eq!(culprit(Cause::OomKill, &kill, &resource, &below), "n2");
    let late = [wait(1_400, 1_400, memory(Some(("/pods", true))))];
    assert_eq!(culprit(Cause::OomKill, &late, &resource, &below), "");
}

#[test]
fn of_the_network_only_a_flood_is_named() {
    let flow = |slice| {
        Particulars::Flow(Arc::new(Flow {
            slice,
            device: "veth0".into(),
            reason: String::new(),
        }))
    };
    let waits = [wait(1_000, 1_200, flow(Some(Slice::Container)))];
    let of = |slice, uses: &[Use]| {
        culprit(
            Cause::TcpRetransmit,
            &waits,
            &Resource::Network(slice),
            uses,
        )
    };
    let flood: Use = (2, "/b", 1_000, 1_200, 20_000);
    assert_eq!(of(Some(Slice::Container), &[flood]), "n2");
    assert_eq!(
        of(Some(Slice::Container), &[(2, "/b", 1_000, 1_200, 900)]),
        ""
    );
    assert_eq!(
        of(Some(Slice::Physical), &[flood]),
        "",
        "it went another way"
    );
    assert_eq!(of(None, &[flood]), "n2", "it is not known which way");
}

#[test]
fn who_lives_in_the_root_has_neighbours() {
    let hog = neighbour(2, "/pods/b");
    for (own, expected) in [
        ("/", false),
        ("", false),
        ("/pods", true),
        ("/pods/b/c", true),
    ] {
        let victim = Identity {
            cgroup_path: own.into(),
            ..victim()
        };
        assert_eq!(is_own(&hog, &victim), expected, "{own}");
        let unknown = neighbour(2, "");
        assert!(!is_own(&unknown, &victim), "{own}");
    }
}

#[test]
fn paths_enclose_each_other_by_their_parts() {
    for (path, group, expected) in [
        ("/a/b", "/a", true),
        ("/a", "/a", true),
        ("/ab", "/a", false),
        ("/a", "/", true),
        ("/", "/", true),
        ("/a", "/a/b", false),
    ] {
        assert_eq!(is_within(path, group), expected, "{path} in {group}");
    }
}

#[test]
fn very_many_waits_are_looked_at_as_one() {
    let waits: Vec<Wait> = (0..10_000)
        .map(|n| wait(2 * n, 2 * n + 1, Particulars::None))
        .collect();
    assert_eq!(windows(&waits), [(0, 19_999 * MS)]);
    assert_eq!(
        windows(&waits[..3]),
        [(0, MS), (2 * MS, 3 * MS), (4 * MS, 5 * MS)]
    );
}
