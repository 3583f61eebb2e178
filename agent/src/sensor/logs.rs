//! `logs`: log lines that speak of a layer. It has no programs in the kernel;
//! [`crate::logs`] reads, on a thread of its own.

use std::path::Path;

use agent_common::event::{Record, sensor};

use super::{DecodeError, Interpreter, Kernel, Meaning, Probe, Sensor, WhyNot};
use crate::host::kmsg::{self, Kmsg};

/// The sensor.
pub struct LogLines;

impl Sensor for LogLines {
    fn id(&self) -> u32 {
        sensor::LOGS
    }

    fn name(&self) -> &'static str {
        "logs"
    }

    fn probes(&self) -> &'static [Probe] {
        &[]
    }

    fn reads(&self) -> &'static str {
        kmsg::PATH
    }

    fn check(&self, _: &Kernel<'_>) -> Result<(), WhyNot> {
        match Kmsg::open(Path::new(kmsg::PATH)) {
            Ok(_) => Ok(()),
            Err(error) => Err(WhyNot {
                reason: format!("{} cannot be read: {error}", kmsg::PATH),
                fix: "in a container mount the host's device there; where kernel.dmesg_restrict \
                      is 1 it takes CAP_SYSLOG"
                    .to_owned(),
            }),
        }
    }

    fn interpreter(&self, _: &Kernel<'_>) -> Box<dyn Interpreter> {
        Box::new(NoRecords)
    }
}

struct NoRecords;

impl Interpreter for NoRecords {
    fn record(&mut self, record: &Record) -> Result<Meaning, DecodeError> {
        Err(DecodeError::Unknown {
            sensor: record.sensor,
            kind: record.kind,
        })
    }
}
