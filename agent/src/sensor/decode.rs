//! From the bytes of the ring buffer to typed events.

use agent_common::{
    event::{Record, sensor::COUNT},
    series::SeriesKey,
};

use super::{Kernel, SENSORS};
use crate::{
    event::{Change, Consumption, Delay, Event, Particulars, Resource},
    process::ProcessKey,
    time::{MonoNs, TICK_NS},
    vocabulary::Cause,
};

/// Gives a sensor's numbers their meaning; may remember what it looked up (bounded).
pub trait Interpreter: Send {
    /// What a record of a delay is about; see [`Interpreter::event`].
    ///
    /// # Errors
    ///
    /// If the kernel side cannot have written it.
    fn record(&mut self, record: &Record) -> Result<Meaning, DecodeError>;

    /// The event that a record is. Length, sensor id and the order of its times are checked.
    ///
    /// # Errors
    ///
    /// If the kernel side cannot have written it.
    fn event(&mut self, record: &Record) -> Result<Event, DecodeError> {
        delay(self, record)
    }

    /// Of a sensor that tells of changes instead of events: the change.
    ///
    /// # Errors
    ///
    /// If the kernel side cannot have written it.
    fn change(&mut self, _record: &Record) -> Result<Option<Change>, DecodeError> {
        Ok(None)
    }

    /// The cgroup of a series as the CPU controller's hierarchy knows it; `None` once it is
    /// gone. The key's own, unless the kernel side counts by another hierarchy's.
    fn cgroup(&mut self, id: u64) -> Option<u64> {
        Some(id)
    }

    /// Values of the labels of the key's family, in its order.
    fn labels(&mut self, _key: &SeriesKey) -> Vec<String> {
        Vec::new()
    }
}

/// What a record says beside its times and whose they are.
#[derive(Clone, Debug, PartialEq)]
pub struct Meaning {
    /// The mechanism.
    pub cause: Cause,
    /// More about it.
    pub particulars: Particulars,
}

impl From<Cause> for Meaning {
    fn from(cause: Cause) -> Self {
        Self {
            cause,
            particulars: Particulars::None,
        }
    }
}

/// What a record turned out to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    /// For the pipeline.
    Event(Event),
    /// For who knows processes.
    Change(Change),
}

/// A record that the kernel side cannot have written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Its length is wrong.
    #[error("a record of {0} bytes has the wrong length")]
    Length(usize),
    /// No such sensor or kind.
    #[error("a record of sensor {sensor}, kind {kind} is unknown")]
    Unknown {
        /// The sensor's id.
        sensor: u32,
        /// The kind; 0 where the sensor is not known.
        kind: u32,
    },
    /// Its numbers make no sense.
    #[error("a record has an impossible {0}")]
    Impossible(&'static str),
    /// It says that what it is about could not be read.
    #[error("a thread's context could not be read")]
    Unreadable,
}

impl DecodeError {
    /// The word of the counter.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unreadable => "context_unreadable",
            Self::Length(_) | Self::Unknown { .. } | Self::Impossible(_) => "undecodable",
        }
    }
}

/// The interpreters of all sensors.
pub struct Decoder(Vec<Option<Box<dyn Interpreter>>>);

impl Decoder {
    /// Reads what it needs of the kernel and the host.
    #[must_use]
    pub fn new(kernel: &Kernel<'_>) -> Self {
        let mut interpreters: Vec<Option<Box<dyn Interpreter>>> = Vec::new();
        interpreters.resize_with(COUNT as usize, || None);
        for sensor in SENSORS.iter().filter_map(|entry| entry.sensor) {
            interpreters[sensor.id() as usize] = Some(sensor.interpreter(kernel));
        }
        Self(interpreters)
    }

    /// Decodes one record of the ring buffer.
    ///
    /// # Errors
    ///
    /// If the bytes are not what the kernel side writes.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<(u32, Decoded), DecodeError> {
        if bytes.len() != size_of::<Record>() {
            return Err(DecodeError::Length(bytes.len()));
        }
        // SAFETY: the length was checked, any bytes are a valid `Record` (integers only), and
        // an unaligned read asks nothing of the address.
        let record = unsafe { bytes.as_ptr().cast::<Record>().read_unaligned() };
        let interpreter = self.of(record.sensor).ok_or(DecodeError::Unknown {
            sensor: record.sensor,
            kind: 0,
        })?;
        if record.end_ns < record.start_ns {
            return Err(DecodeError::Impossible("end before its start"));
        }
        let decoded = match interpreter.change(&record)? {
            Some(change) => Decoded::Change(change),
            None => Decoded::Event(interpreter.event(&record)?),
        };
        Ok((record.sensor, decoded))
    }

    /// Values of the labels of a series of this sensor.
    #[must_use]
    pub fn labels(&mut self, sensor: u32, key: &SeriesKey) -> Vec<String> {
        self.of(sensor).map_or_else(Vec::new, |i| i.labels(key))
    }

    /// See [`Interpreter::cgroup`].
    #[must_use]
    pub fn cgroup(&mut self, sensor: u32, id: u64) -> Option<u64> {
        self.of(sensor).and_then(|i| i.cgroup(id))
    }

    fn of(&mut self, sensor: u32) -> Option<&mut Box<dyn Interpreter>> {
        self.0.get_mut(sensor as usize)?.as_mut()
    }
}

/// A record of a delay, by what the sensor says that it means.
pub(super) fn delay<I: Interpreter + ?Sized>(
    interpreter: &mut I,
    record: &Record,
) -> Result<Event, DecodeError> {
    let Meaning { cause, particulars } = interpreter.record(record)?;
    Ok(Event::Delay(Delay {
        cause,
        start: MonoNs(record.start_ns),
        end: MonoNs(record.end_ns),
        process: process_of(record),
        tid: record.tid,
        cpu: record.cpu,
        cgroup_id: record.cgroup_id,
        particulars,
    }))
}

/// A record of a consumption; `cgroup_id` is the consumer's in the CPU controller's hierarchy.
pub(super) fn consumption(record: &Record, resource: Resource, cgroup_id: u64) -> Event {
    Event::Consumption(Consumption {
        resource,
        start: MonoNs(record.start_ns),
        end: MonoNs(record.end_ns),
        amount: u64::from(record.extra),
        cgroup_id,
        consumer: None,
    })
}

/// The process; where only the cgroup is known, one that stands for all of the cgroup's and
/// that no process can be taken for (0 is never a pid).
pub(super) fn process_of(record: &Record) -> ProcessKey {
    let start_ticks = if record.pid == 0 {
        record.cgroup_id
    } else {
        record.leader_start_boottime_ns / TICK_NS
    };
    ProcessKey {
        pid: record.pid,
        start_ticks,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::host::{btf::KernelTypes, devices::Devices, roots::Roots};

    /// As on this machine, one record.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
        static DECODER: parking_lot::Mutex<Option<Decoder>> = parking_lot::Mutex::new(None);
        let mut decoder = DECODER.lock();
        let decoder = decoder.get_or_insert_with(|| {
            let roots = Roots::default();
            let types = KernelTypes::read(&roots.sysfs).expect("the test machine has BTF");
            Decoder::new(&Kernel {
                fields: &types.fields(),
                types: &types,
                roots: &roots,
                devices: &Arc::new(Devices::new(&roots.sysfs, Box::new(|_| None))),
            })
        });
        decoder.decode(bytes).map(|(_, decoded)| match decoded {
            Decoded::Event(event) => event,
            Decoded::Change(change) => panic!("no event: {change:?}"),
        })
    }

    #[test]
    fn records_of_no_sensor_are_refused() {
        assert_eq!(decode(&[]), Err(DecodeError::Length(0)));
        assert_eq!(decode(&[1, 0, 0]), Err(DecodeError::Length(3)));
        let mut record = [0; 64];
        record[0] = 77;
        let unknown = DecodeError::Unknown {
            sensor: 77,
            kind: 0,
        };
        assert_eq!(decode(&record), Err(unknown));
    }
}
