//! `block`: time of I/O held back by a limit, waiting for the device, in the device.

mod disks;

use agent_common::{
    consumption::{BY_PAGE, KIND_CONSUMED},
    event::{
        Record,
        block::{KIND_DEVICE, KIND_QUEUE, KIND_THROTTLE, operation},
        sensor,
    },
    series::{SeriesKey, family},
};

use self::disks::Disks;
use super::{
    Activation, DecodeError, Family, FamilyKind, Hook, HookKind, Interpreter, Kernel, Meaning,
    Probe, Sensor,
    decode::{consumption, delay},
};
use crate::{
    event::{Event, Particulars, Resource},
    host::cgroup::Twins,
    vocabulary::Cause,
};

/// The sensor.
pub struct Block;

const PROBES: &[Probe] = &[
    Probe::essential(&hooks(
        ["block_complete", "block_complete_raw"],
        "block_rq_complete",
    )),
    Probe::optional(
        &hooks(["block_issue", "block_issue_raw"], "block_rq_issue"),
        "the split of queue and device for queues that keep no statistics: all of it counts as \
         the device's",
    ),
    Probe::optional(
        &hooks(["block_submit", "block_submit_raw"], "block_bio_queue"),
        "which thread waits for an I/O, and I/O held back by limits",
    ),
    Probe::at_times(
        &hooks(["block_switch", "block_switch_raw"], "sched_switch"),
        "how long limits hold I/O back",
        Activation::WhileThrottled,
    ),
];

const fn hooks(programs: [&'static str; 2], target: &'static str) -> [Hook; 2] {
    [
        Hook {
            program: programs[0],
            kind: HookKind::TpBtf,
            target,
            loses: "",
        },
        Hook {
            program: programs[1],
            kind: HookKind::RawTp,
            target,
            loses: "nothing but CPU time: its reads of kernel memory cost more",
        },
    ]
}

const FAMILIES: &[Family] = &[Family {
    id: family::BLOCK,
    name: "isostack_block_seconds",
    help: "Time of I/O: held back by a limit, waiting for the device, in the device.",
    kind: FamilyKind::Histogram,
    labels: &["device", "op", "phase"],
}];

impl Sensor for Block {
    fn id(&self) -> u32 {
        sensor::BLOCK
    }

    fn name(&self) -> &'static str {
        "block"
    }

    fn probes(&self) -> &'static [Probe] {
        PROBES
    }

    fn reduced(&self, kernel: &Kernel<'_>) -> Option<(String, &'static str)> {
        let fields = kernel.fields;
        let lacks = |any: &[&str]| !any.iter().any(|symbol| fields.has(symbol));
        if lacks(&["BIO_BLKG"]) || lacks(&["BLKG_BLKCG"]) || lacks(&["BLKCG_CGROUP"]) {
            return Some((
                "this kernel has no I/O controller (CONFIG_BLK_CGROUP)".to_owned(),
                "whose I/O it was: all counts for no cgroup",
            ));
        }
        let throttle = lacks(&["CSS_SET_IO"])
            || lacks(&["KTHREAD_DATA"])
            || lacks(&["WORKER_PWQ"])
            || lacks(&["PWQ_WQ"])
            || lacks(&["WQ_NAME", "WQ_NAME_LONG"])
            || lacks(&["TASK_WORKER_PRIVATE", "TASK_SET_CHILD_TID"])
            || lacks(&["TASK_STATE", "TASK_STATE_LONG"]);
        throttle.then(|| {
            (
                "this kernel's work queues look different".to_owned(),
                "how long limits hold I/O back",
            )
        })
    }

    fn interpreter(&self, kernel: &Kernel<'_>) -> Box<dyn Interpreter> {
        Box::new(BlockInterpreter {
            disks: Disks::new(&kernel.roots.sysfs),
            twins: Twins::of_controller(kernel.roots, "blkio"),
            page_twins: Twins::of_controller(kernel.roots, "memory"),
        })
    }

    fn families(&self) -> &'static [Family] {
        FAMILIES
    }
}

struct BlockInterpreter {
    disks: Disks,
    /// None where the I/O controller is on the CPU controller's hierarchy.
    twins: Option<Twins>,
    /// Likewise for the memory controller.
    page_twins: Option<Twins>,
}

impl Interpreter for BlockInterpreter {
    fn record(&mut self, record: &Record) -> Result<Meaning, DecodeError> {
        if record.pid == 0 || record.tid == 0 {
            return Err(DecodeError::Impossible("process id 0"));
        }
        let cause = match record.kind {
            KIND_THROTTLE => Cause::BlockThrottle,
            KIND_QUEUE => Cause::BlockQueue,
            KIND_DEVICE => Cause::BlockDevice,
            kind => {
                return Err(DecodeError::Unknown {
                    sensor: record.sensor,
                    kind,
                });
            }
        };
        let number =
            u32::try_from(record.detail).map_err(|_| DecodeError::Impossible("device number"))?;
        Ok(Meaning {
            cause,
            particulars: Particulars::Disk(self.disks.get(number)),
        })
    }

    fn event(&mut self, record: &Record) -> Result<Event, DecodeError> {
        if record.kind != KIND_CONSUMED {
            return delay(self, record);
        }
        let number = u32::try_from(record.detail & !BY_PAGE)
            .map_err(|_| DecodeError::Impossible("device number"))?;
        let twins = if record.detail & BY_PAGE == 0 {
            &self.twins
        } else {
            &self.page_twins
        };
        let cgroup_id = cpu_id(twins.as_ref(), record.cgroup_id).unwrap_or(0);
        let resource = Resource::Disk(self.disks.get(number));
        Ok(consumption(record, resource, cgroup_id))
    }

    fn labels(&mut self, key: &SeriesKey) -> Vec<String> {
        let device = self.disks.get(key.a).name.clone();
        vec![
            device,
            word_of_operation(key.b as u8).to_owned(),
            word_of_phase((key.b >> 8) as u32).to_owned(),
        ]
    }

    fn cgroup(&mut self, id: u64) -> Option<u64> {
        cpu_id(self.twins.as_ref(), id)
    }
}

/// The id in the CPU controller's hierarchy of one in another's; `None` once it is gone.
fn cpu_id(twins: Option<&Twins>, id: u64) -> Option<u64> {
    match twins {
        None => Some(id),
        Some(_) if id == 0 => Some(0),
        Some(twins) => twins.cpu_id(id),
    }
}

fn word_of_operation(number: u8) -> &'static str {
    match u32::from(number) {
        operation::READ => "read",
        operation::WRITE => "write",
        operation::FLUSH => "flush",
        operation::DISCARD => "discard",
        _ => "other",
    }
}

fn word_of_phase(kind: u32) -> &'static str {
    match kind {
        KIND_THROTTLE => "throttle",
        KIND_QUEUE => "queue",
        _ => "device",
    }
}

#[cfg(test)]
mod tests;
