//! `logs`: log lines that speak of a layer. It has no programs in the kernel;
//! [`crate::logs`] reads, on a thread of its own. Files and OTLP logs can always be read.

use std::path::Path;

use agent_common::event::{Record, sensor};

use super::{DecodeError, Interpreter, Kernel, Lack, Meaning, Probe, Sensor};
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

    fn alone(&self) -> Option<Option<Lack>> {
        let lack = Kmsg::open(Path::new(kmsg::PATH)).err().map(|error| Lack {
            reason: format!("{} cannot be read: {error}", kmsg::PATH),
            loses: "what the kernel itself says",
            fix: "in a container mount the host's device there; where kernel.dmesg_restrict is 1 \
                  it takes CAP_SYSLOG",
        });
        Some(lack)
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
