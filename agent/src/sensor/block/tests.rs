use std::sync::Arc;

use super::*;
use crate::host::{btf::KernelTypes, devices::Devices, roots::Roots};

fn interpreter() -> Box<dyn Interpreter> {
    let roots = Roots::default();
    let types = KernelTypes::read(&roots.sysfs).expect("the test machine has BTF");
    let fields = types.fields();
    Block.interpreter(&Kernel {
        fields: &fields,
        types: &types,
        roots: &roots,
        devices: &Arc::new(Devices::new(&roots.sysfs, Box::new(|_| None))),
    })
}

fn record(kind: u32) -> Record {
    Record {
        sensor: sensor::BLOCK,
        kind,
        start_ns: 5,
        end_ns: 9,
        cgroup_id: 7,
        detail: 0xfff << 20,
        leader_start_boottime_ns: 1,
        pid: 42,
        tid: 43,
        cpu: 1,
        extra: operation::READ,
    }
}

#[test]
fn each_kind_has_its_cause_and_a_disk() {
    let mut interpreter = interpreter();
    for (kind, cause) in [
        (KIND_THROTTLE, Cause::BlockThrottle),
        (KIND_QUEUE, Cause::BlockQueue),
        (KIND_DEVICE, Cause::BlockDevice),
    ] {
        let meaning = interpreter.record(&record(kind)).unwrap();
        assert_eq!(meaning.cause, cause);
        let Particulars::Disk(disk) = meaning.particulars else {
            panic!("no disk: {:?}", meaning.particulars);
        };
        assert_eq!(disk.name, "4095:0", "no such disk");
    }
}

#[test]
fn what_the_kernel_side_cannot_write_is_refused() {
    let mut interpreter = interpreter();
    let unknown = DecodeError::Unknown {
        sensor: sensor::BLOCK,
        kind: 9,
    };
    assert_eq!(interpreter.record(&record(9)), Err(unknown));
    let nobody = Record {
        pid: 0,
        ..record(KIND_QUEUE)
    };
    interpreter.record(&nobody).unwrap_err();
    let far = Record {
        detail: 1 << 32,
        ..record(KIND_QUEUE)
    };
    interpreter.record(&far).unwrap_err();
}

#[test]
fn labels_are_words() {
    let labels = |a, b| {
        interpreter().labels(&SeriesKey {
            cgroup_id: 1,
            family: family::BLOCK,
            a,
            b,
        })
    };
    assert_eq!(labels(0xfff << 20, 0x301), ["4095:0", "write", "device"]);
    assert_eq!(labels(0xfff << 20, 0x202), ["4095:0", "flush", "queue"]);
    assert_eq!(labels(0xfff << 20, 0x100), ["4095:0", "read", "throttle"]);
    assert_eq!(labels(0xfff << 20, 0x109)[1], "other");
}
