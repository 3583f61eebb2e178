use proptest::prelude::*;

use super::*;
use crate::{
    event::{Delay, Event},
    process::ProcessKey,
    sensor::decode::tests::decode,
    time::MonoNs,
};

fn record() -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(sensor::CPU.to_ne_bytes());
    bytes.extend(KIND_THROTTLED.to_ne_bytes());
    for word in [1_000_u64, 81_000, 4711, 4710, 12_345_678_900] {
        bytes.extend(word.to_ne_bytes());
    }
    for half in [70_u32, 71, 3, 0] {
        bytes.extend(half.to_ne_bytes());
    }
    bytes
}

#[test]
fn a_record_becomes_a_delay() {
    let expected = Event::Delay(Delay {
        cause: Cause::CpuThrottle,
        start: MonoNs(1_000),
        end: MonoNs(81_000),
        process: ProcessKey {
            pid: 70,
            start_ticks: 1_234,
        },
        tid: 71,
        cpu: 3,
        cgroup_id: 4711,
        particulars: Particulars::QuotaOf(4710),
    });
    assert_eq!(decode(&record()), Ok(expected));
}

/// Whoever else had the CPU is the reason; a set that is too small only where nobody had.
#[test]
fn a_wait_is_for_a_neighbour_or_for_the_own_cpuset() {
    let confined = |cpus| Particulars::Confined(Confinement { cpus });
    let (own, other) = (4711, 4712);
    for (had, cpus, expected) in [
        (other, 0, Particulars::CpuWentTo(other)),
        (other, 2, Particulars::CpuWentTo(other)),
        (own, 0, Particulars::CpuWentTo(own)),
        (own, 2, confined(2)),
        (0, 0, Particulars::None),
        (0, 1, confined(1)),
    ] {
        let mut record = record();
        record[4..8].copy_from_slice(&KIND_RUNQUEUE.to_ne_bytes());
        record[32..40].copy_from_slice(&u64::to_ne_bytes(had));
        record[60..64].copy_from_slice(&u32::to_ne_bytes(cpus));
        let Ok(Event::Delay(delay)) = decode(&record) else {
            panic!("{had} {cpus}");
        };
        assert_eq!(delay.particulars, expected, "{had} {cpus}");
    }
}

#[test]
fn every_other_length_is_refused() {
    let long = [record(), vec![0]].concat();
    for len in (4..long.len() - 1).chain([long.len()]) {
        assert_eq!(
            decode(&long[..len]),
            Err(DecodeError::Length(len)),
            "{len} bytes"
        );
    }
}

#[test]
fn impossible_numbers_are_refused() {
    let with = |at: usize, bytes: &[u8]| {
        let mut record = record();
        record[at..at + bytes.len()].copy_from_slice(bytes);
        decode(&record)
    };
    assert_eq!(
        with(4, &9_u32.to_ne_bytes()),
        Err(DecodeError::Unknown { sensor: 1, kind: 9 })
    );
    assert_eq!(
        with(16, &999_u64.to_ne_bytes()),
        Err(DecodeError::Impossible("end before its start"))
    );
    assert_eq!(
        with(48, &0_u32.to_ne_bytes()),
        Err(DecodeError::Impossible("process id 0"))
    );
}

proptest! {
    #[test]
    fn whatever_is_accepted_makes_sense(mut bytes in proptest::collection::vec(any::<u8>(), 64), kind in 0_u32..5) {
        bytes[..4].copy_from_slice(&sensor::CPU.to_ne_bytes());
        bytes[4..8].copy_from_slice(&kind.to_ne_bytes());
        if let Ok(Event::Delay(delay)) = decode(&bytes) {
            prop_assert!((1..=3).contains(&kind));
            prop_assert!(delay.start <= delay.end);
            prop_assert!(delay.process.pid != 0 && delay.tid != 0);
        }
    }
}
