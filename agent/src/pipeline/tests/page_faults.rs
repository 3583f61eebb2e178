//! Page faults that wait for a disk: told by their own name, and counted once.

use super::*;
use crate::{
    event::{Disk, MemoryLimit, SystemCall},
    verdict::Verdict,
};

fn disk() -> Particulars {
    Particulars::Disk(Arc::new(Disk {
        name: "vda".into(),
        paravirtual: true,
    }))
}

fn major_fault() -> Particulars {
    Particulars::SystemCall(Arc::new(SystemCall {
        name: SystemCall::MAJOR_FAULT.into(),
        action: String::new(),
    }))
}

fn swap_in(limit: Option<MemoryLimit>) -> Particulars {
    Particulars::Memory {
        memcg: limit.is_some(),
        limit: limit.map(Arc::new),
        is_swap_in: true,
    }
}

/// What is said of a request of 100 ms that met these, after 50 of its like that met nothing.
fn verdict(delays: &[(Cause, Particulars, u64, u64)]) -> Arc<Verdict> {
    let mut pipeline = pipeline();
    let mut judge = |n: u64, met: &[(Cause, Particulars, u64, u64)], end: u64| {
        let from = n * 1_000;
        let told = met.iter().map(|(cause, of, start, end)| Delay {
            particulars: of.clone(),
            ..delay(*cause, from + start, from + end)
        });
        feed(&mut pipeline, told);
        let spans = vec![span(9, 0, from, from + end)];
        let batch = batch(at(from + end), Confidence::Process, spans);
        judged(&mut pipeline, batch).remove(0).verdict
    };
    for n in 0..50 {
        let a_little = [(Cause::BlockDevice, disk(), 1, 2)];
        assert_eq!(judge(n, &a_little, 20), None);
    }
    judge(50, delays, 100).expect("80 of 100 ms")
}

fn number(verdict: &Verdict, name: &str) -> Option<f64> {
    let of_name = |(n, value): &(String, f64)| (n == name).then_some(*value);
    verdict.evidence.iter().find_map(of_name)
}

#[test]
fn a_swap_in_is_memory_and_its_disk_is_not_told_again() {
    let limit = MemoryLimit {
        cgroup_path: "/shop/cart".into(),
        bytes: 64 << 20,
        file: "memory.max",
        is_ancestor: false,
    };
    let met = [
        (Cause::MemoryReclaim, swap_in(Some(limit)), 10, 90),
        (Cause::BlockQueue, disk(), 11, 20),
        (Cause::BlockDevice, disk(), 20, 89),
    ];
    let verdict = verdict(&met);
    assert_eq!(
        (verdict.fault, verdict.cause),
        (Fault::L3, Cause::MemoryReclaim)
    );
    assert_eq!(
        verdict.summary,
        "80 % of 100 ms: waited for memory to be read back from the swap space, below memory.max \
         of cart (64 MiB)"
    );
    assert_eq!(number(&verdict, "memory_reclaim_ms"), Some(80.0));
    assert_eq!(number(&verdict, "swap_in_ms"), Some(80.0));
    assert_eq!(number(&verdict, "swap_ins"), Some(1.0));
    assert_eq!(number(&verdict, "major_faults"), None);
    assert!(verdict.remedy.contains("memory"), "{}", verdict.remedy);
}

#[test]
fn what_was_pushed_out_for_nobodys_limit_is_the_hosts() {
    let verdict = verdict(&[(Cause::MemoryReclaim, swap_in(None), 10, 90)]);
    assert_eq!(
        (verdict.fault, verdict.cause),
        (Fault::Host, Cause::MemoryReclaim)
    );
}

#[test]
fn a_mapped_files_page_is_read_from_the_disk_in_a_page_fault() {
    let met = [
        (Cause::BlockQueue, major_fault(), 10, 50),
        (Cause::BlockDevice, disk(), 11, 49),
        (Cause::BlockQueue, major_fault(), 50, 90),
        (Cause::BlockDevice, disk(), 51, 89),
    ];
    let verdict = verdict(&met);
    assert_eq!(
        (verdict.fault, verdict.cause),
        (Fault::L2, Cause::BlockDevice)
    );
    assert!(
        verdict.summary.contains("the disk vda in page faults"),
        "{}",
        verdict.summary
    );
    assert_eq!(number(&verdict, "major_fault_ms"), Some(80.0));
    assert_eq!(number(&verdict, "major_faults"), Some(2.0));
    assert_eq!(number(&verdict, "swap_ins"), None);
    let seen = number(&verdict, "block_device_ms");
    assert_eq!(seen, Some(76.0), "not what the faults took again");
}

#[test]
fn of_a_program_that_reads_as_it_asked_to_no_fault_is_told() {
    let read = Particulars::SystemCall(Arc::new(SystemCall {
        name: "pread64".into(),
        action: String::new(),
    }));
    let met = [
        (Cause::BlockQueue, read, 10, 90),
        (Cause::BlockDevice, disk(), 11, 89),
    ];
    let verdict = verdict(&met);
    assert_eq!(verdict.cause, Cause::BlockDevice);
    assert!(!verdict.summary.contains("fault"), "{}", verdict.summary);
    assert_eq!(number(&verdict, "major_faults"), None);
}
