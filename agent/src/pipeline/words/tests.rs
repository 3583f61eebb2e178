use std::sync::Arc;

use super::*;
use crate::{
    event::{Disk, Flow, MemoryLimit, SystemCall, VmExit},
    process::ProcessKey,
    stack::Stack,
    workload::Workload,
};

fn identity() -> Identity {
    Identity {
        process: ProcessKey {
            pid: 7,
            start_ticks: 7,
        },
        comm: "cart".into(),
        cgroup_id: 70,
        cgroup_path: "/shop/cart".into(),
        workload: Workload {
            namespace: "shop".into(),
            pod: "cart-0".into(),
            pod_uid: "0a1b".into(),
            container: "cart".into(),
            ..Workload::default()
        },
        stack: Stack::default(),
    }
}

fn limited(path: &str, cores: f64, is_ancestor: bool) -> Evidence {
    let limiter = Limiter {
        cgroup_id: 69,
        cgroup_path: path.into(),
        cores,
        quota_file: "cpu.max",
        is_ancestor,
    };
    Evidence {
        particulars: Particulars::Limiter(Arc::new(limiter)),
        ..Evidence::default()
    }
}

fn throttle(identity: &Identity, evidence: &Evidence) -> String {
    summary(Cause::CpuThrottle, 0.714, 412_300_000, identity, evidence)
}

#[test]
fn a_quota_is_named_with_its_size_and_place() {
    let pod_uid = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a1b.slice";
    let table = [
        (
            limited("/shop/cart", 0.2, false),
            "shop/cart-0/cart (limit 0.2 cores set on the container)",
        ),
        (
            limited("/kubepods/burstable/pod0a1b", 1.0, true),
            "pod shop/cart-0 (limit 1 core set on the pod)",
        ),
        (
            limited(pod_uid, 2.5, true),
            "pod shop/cart-0 (limit 2.5 cores set on the pod)",
        ),
        (
            limited("/shop", 0.125, true),
            "/shop (limit 0.125 cores set on a cgroup around it)",
        ),
    ];
    for (evidence, place) in table {
        let start = "71 % of 412 ms: held back by the CPU quota of ";
        assert_eq!(throttle(&identity(), &evidence), format!("{start}{place}"));
    }
    let unknown = throttle(&identity(), &Evidence::default());
    assert!(
        unknown.ends_with("quota of shop/cart-0/cart or of a group around it"),
        "{unknown}"
    );
    let mut plain = identity();
    plain.workload = Workload::default();
    let own = throttle(&plain, &limited("/cart", 0.5, false));
    assert!(
        own.ends_with("quota of cart (limit 0.5 cores set on its own cgroup)"),
        "{own}"
    );
}

#[test]
fn who_caused_it_and_what_was_lost_are_part_of_the_sentence() {
    let of = |cause, particulars: &Particulars, culprit: &str, usual_ns, lost_events| {
        let evidence = Evidence {
            particulars: particulars.clone(),
            culprit: Culprit {
                name: culprit.into(),
                part: 0.8,
            },
            usual_ns,
            lost_events,
            ..Evidence::default()
        };
        summary(cause, 0.5, 40_000_000, &identity(), &evidence)
    };
    let vda = Particulars::Disk(Arc::new(Disk {
        name: "vda".into(),
        paravirtual: true,
    }));
    let eth = Particulars::Flow(Arc::new(Flow {
        slice: None,
        device: "eth0".into(),
        reason: String::new(),
    }));
    let memory = |path: &str, memcg, is_ancestor| Particulars::Memory {
        memcg,
        limit: memcg.then(|| {
            Arc::new(MemoryLimit {
                cgroup_path: path.into(),
                bytes: 64 << 20,
                file: "memory.high",
                is_ancestor,
            })
        }),
        is_swap_in: false,
    };
    let swap_in = Particulars::Memory {
        memcg: false,
        limit: None,
        is_swap_in: true,
    };
    let fault = Particulars::SystemCall(Arc::new(SystemCall {
        name: SystemCall::MAJOR_FAULT.into(),
        action: String::new(),
    }));
    let nothing = Particulars::None;
    let fsync = Particulars::SystemCall(Arc::new(SystemCall {
        name: "fsync".into(),
        action: String::new(),
    }));
    for (sentence, expected) in [
        (
            of(Cause::BlockQueue, &fsync, "hog", None, 0),
            "waited in fsync for the file system or its disk, busy with I/O of hog",
        ),
        (
            of(Cause::MemoryReclaim, &fsync, "", None, 0),
            "waited for memory to be freed or read back",
        ),
        (
            of(Cause::MemoryReclaim, &swap_in, "hog", None, 0),
            "waited for memory to be read back from the swap space, as the host was short of it, \
             used up by hog",
        ),
        (
            of(Cause::MemoryReclaim, &fault, "", None, 0),
            "waited for pages of files to be read again that were pushed out of memory",
        ),
        (
            of(Cause::BlockQueue, &fault, "hog", None, 0),
            "waited in a page fault for the disk of a mapped file, busy with I/O of hog",
        ),
        (
            of(Cause::Runqueue, &nothing, "hog", None, 0),
            "ready to run and waiting for a CPU, which hog had",
        ),
        (
            of(Cause::BlockQueue, &vda, "hog", None, 0),
            "waited in the queue of the disk vda, filled by hog",
        ),
        (
            of(Cause::BlockDevice, &vda, "", Some(2_000_000), 0),
            "waited for the disk vda (usually 2.0 ms)",
        ),
        (
            of(Cause::TcpRetransmit, &eth, "hog", None, 0),
            "waited for lost TCP segments to be sent again through eth0, while hog flooded the \
             network",
        ),
        (
            of(
                Cause::MemoryReclaim,
                &memory("/shop", true, true),
                "hog",
                None,
                0,
            ),
            "had to free memory before it got any, below memory.high of /shop (64 MiB), used up \
             by hog",
        ),
        (
            of(Cause::MemoryReclaim, &memory("", true, false), "", None, 0),
            "had to free memory before it got any, below memory.high of shop/cart-0/cart (64 MiB)",
        ),
        (
            of(
                Cause::MemoryReclaim,
                &memory("", false, false),
                "hog",
                None,
                0,
            ),
            "had to free memory before it got any, as the host was short of it, used up by hog",
        ),
        (
            of(Cause::OnCpu, &nothing, "", Some(12_000_000), 0),
            "its own code was running (usually 12 ms)",
        ),
        (
            of(Cause::Steal, &nothing, "", None, 1),
            "the hypervisor below gave the CPU to somebody else; 1 kernel event of that time was \
             lost",
        ),
        (
            of(Cause::Conntrack, &nothing, "", None, 30),
            "connection tracking had no room, or no port left for address translation; 30 kernel events of that time were lost",
        ),
    ] {
        assert_eq!(sentence, format!("50 % of 40 ms: {expected}"));
    }
}

#[test]
fn the_remedy_names_what_sets_the_quota_there() {
    let on_v1 = |path: &str, is_ancestor| {
        let mut evidence = limited(path, 0.2, is_ancestor);
        let mut limiter = evidence.limiter().unwrap().clone();
        limiter.quota_file = "cpu.cfs_quota_us";
        evidence.particulars = Particulars::Limiter(Arc::new(limiter));
        evidence
    };
    let mut plain = identity();
    plain.workload = Workload::default();
    let table = [
        (
            identity(),
            on_v1("/kubepods/pod0a1b/cart", false),
            "resources.limits.cpu of shop/cart-0/cart",
        ),
        (
            identity(),
            on_v1("/kubepods/pod0a1b", true),
            "resources.limits.cpu of the containers of pod cart-0",
        ),
        (
            identity(),
            on_v1("/kubepods", true),
            "cpu.cfs_quota_us of /kubepods",
        ),
        (
            plain.clone(),
            on_v1("/shop", true),
            "cpu.cfs_quota_us of /shop",
        ),
        (
            plain,
            limited("/shop/cart", 0.2, false),
            "cpu.max of /shop/cart",
        ),
    ];
    for (identity, evidence, setting) in table {
        assert_eq!(
            remedy(Cause::CpuThrottle, Fault::L3, &identity, &evidence),
            format!("Raise {setting} above 0.2 CPUs or remove it, or run fewer threads at once.")
        );
    }
}

#[test]
fn names_from_outside_are_cleaned_and_cut() {
    let mut identity = identity();
    identity.workload = Workload::default();
    identity.comm = "ev\u{1b}[31mil\n\u{202e}".into();
    let evidence = limited(&format!("/{}", "x".repeat(5_000)), 0.2, true);
    let sentence = throttle(&identity, &evidence);
    assert!(!sentence.contains(char::is_control), "{sentence}");
    let own = throttle(&identity, &limited("/", 0.2, false));
    assert!(
        own.contains("of ev\u{fffd}[31mil\u{fffd}\u{fffd} (limit"),
        "{own}"
    );
    assert!(sentence.chars().count() < 400);
    assert!(
        remedy(Cause::CpuThrottle, Fault::L3, &identity, &evidence)
            .chars()
            .count()
            < 400
    );
}

#[test]
fn every_cause_has_one_sentence_of_each_kind() {
    for cause in Cause::ALL {
        let what = summary(
            *cause,
            0.5,
            20_000_000_000,
            &identity(),
            &Evidence::default(),
        );
        assert!(what.starts_with("50 % of 20.0 s: "), "{what}");
        assert!(!what.contains("  ") && !what.ends_with('.'), "{what}");
        for fault in Fault::ALL {
            let todo = remedy(*cause, *fault, &identity(), &Evidence::default());
            assert!(todo.ends_with('.') && !todo.contains("  "), "{todo}");
            assert!(
                !todo.contains('{') && todo.matches(". ").count() == 0,
                "{todo}"
            );
        }
    }
}

#[test]
fn the_remedy_names_what_the_evidence_names() {
    let disk = |paravirtual| {
        Particulars::Disk(Arc::new(Disk {
            name: "vda".into(),
            paravirtual,
        }))
    };
    let flow = Particulars::Flow(Arc::new(Flow {
        slice: None,
        device: "eth0".into(),
        reason: "NO_\u{1b}SOCKET".into(),
    }));
    let nameless = Particulars::Flow(Arc::new(Flow {
        slice: None,
        device: String::new(),
        reason: String::new(),
    }));
    let call = Particulars::SystemCall(Arc::new(SystemCall {
        name: "openat".into(),
        action: "errno".into(),
    }));
    let exit = Particulars::VmExit(Arc::new(VmExit {
        reason: "HLT".into(),
        nested_page_fault: false,
    }));
    let table = [
        (
            Cause::BlockDevice,
            Fault::L2,
            disk(true),
            "the back end of vda",
        ),
        (
            Cause::BlockQueue,
            Fault::Host,
            disk(false),
            "user of vda, or give shop/cart-0/cart",
        ),
        (
            Cause::NetDrop,
            Fault::L3,
            flow.clone(),
            "eth0 drop packets for the reason NO_\u{fffd}SOCKET.",
        ),
        (
            Cause::NetDrop,
            Fault::L3,
            nameless,
            "Look at the drop reason",
        ),
        (Cause::Virtqueue, Fault::L2, flow, "queues of eth0"),
        (
            Cause::SeccompDenied,
            Fault::L3,
            call,
            "Allow openat in the seccomp profile of shop/cart-0/cart",
        ),
        (Cause::KvmExit, Fault::L1, exit, "exits for HLT"),
        (
            Cause::OomKill,
            Fault::L3,
            Particulars::None,
            "limit of shop/cart-0/cart",
        ),
    ];
    for (cause, fault, particulars, part) in table {
        let evidence = Evidence {
            particulars,
            ..Evidence::default()
        };
        let todo = remedy(cause, fault, &identity(), &evidence);
        assert!(todo.contains(part), "{part} in {todo}");
    }
}

#[test]
fn numbers_carry_their_unit() {
    let split = Split {
        self_time_ns: 400_000_000,
        ..Split::default()
    };
    let evidence = Evidence {
        intervals: 4,
        longest_ns: 80_000_000,
        threads: 1,
        usual_ns: Some(2_000_000),
        culprit: Culprit {
            name: "hog".into(),
            part: 0.75,
        },
        lost_events: 3,
        saving: vec!["seccomp", "wait"],
        ..limited("/shop/cart", 0.2, false)
    };
    let numbers = numbers(Cause::CpuThrottle, 320_000_000, &split, &evidence);
    let expected = [
        ("cpu_throttle_ms", 320.0),
        ("cpu_throttle_intervals", 4.0),
        ("cpu_throttle_longest_ms", 80.0),
        ("cpu_throttle_threads", 1.0),
        ("self_time_ms", 400.0),
        ("cpu_throttle_usual_ms", 2.0),
        ("cpu_limit_cores", 0.2),
        ("culprit_percent", 75.0),
        ("events_lost", 3.0),
        ("sensors_saving", 2.0),
    ];
    assert_eq!(numbers, expected.map(|(name, n)| (name.to_owned(), n)));
}
