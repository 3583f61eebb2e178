//! Programs that are loaded, and attached only while somebody needs them: what they cost is
//! paid by the hosts that use it.

use aya::{
    Ebpf,
    maps::Array,
    programs::{
        BtfTracePoint, FEntry, ProgramError, RawTracePoint, fentry::FEntryLinkId,
        raw_trace_point::RawTracePointLinkId, tp_btf::BtfTracePointLinkId,
    },
};

use super::object::wrong;
use crate::sensor::{Activation, Hook, HookKind, Sensor};

/// A program's place on its hook.
pub enum Link {
    TpBtf(BtfTracePointLinkId),
    RawTp(RawTracePointLinkId),
    FEntry(FEntryLinkId),
}

/// The sensors that were started, with the programs that each of them uses.
#[derive(Default)]
pub struct OnDemand {
    sensors: Vec<Started>,
    /// The last epoch given.
    epoch: u32,
}

/// See [`OnDemand`].
struct Started {
    sensor: &'static dyn Sensor,
    activation: Activation,
    programs: Vec<(&'static Hook, Option<Link>)>,
    wanted: bool,
    /// Off its hooks for the moment, as it costs too much.
    paused: bool,
}

impl OnDemand {
    /// Takes a sensor whose programs are attached; takes them off until they are needed.
    pub fn add(
        &mut self,
        ebpf: &mut Ebpf,
        sensor: &'static dyn Sensor,
        activation: Activation,
        programs: Vec<(&'static Hook, Link)>,
    ) {
        let mut started = Started {
            sensor,
            activation,
            programs: programs
                .into_iter()
                .map(|(hook, link)| (hook, Some(link)))
                .collect(),
            wanted: activation == Activation::Always,
            paused: false,
        };
        started.settle(ebpf, &mut self.epoch);
        self.sensors.push(started);
    }

    /// Attaches or detaches the programs of `activation`. What the kernel refuses is said in
    /// the log, and tried again by the next call.
    pub fn set(&mut self, ebpf: &mut Ebpf, activation: Activation, wanted: bool) {
        for started in &mut self.sensors {
            if started.activation == activation {
                started.wanted = wanted;
                if started.is_unsettled() {
                    started.settle(ebpf, &mut self.epoch);
                }
            }
        }
    }

    /// Takes the programs of a sensor that runs on demand off their hooks for the moment, or
    /// puts them back.
    pub fn pause(&mut self, ebpf: &mut Ebpf, sensor_id: u32, paused: bool) {
        for started in &mut self.sensors {
            if started.sensor.id() == sensor_id && started.activation != Activation::Always {
                started.paused = paused;
                if started.is_unsettled() {
                    started.settle(ebpf, &mut self.epoch);
                }
            }
        }
    }

    /// When the programs of a sensor are attached; `None` if it was not started.
    pub fn activation(&self, sensor_id: u32) -> Option<Activation> {
        let of = |started: &&Started| started.sensor.id() == sensor_id;
        self.sensors.iter().find(of).map(|s| s.activation)
    }

    /// Before the programs go: none of them may take the others' absence for a fact.
    pub fn end(&mut self, ebpf: &mut Ebpf) {
        for started in &self.sensors {
            started.set_epoch(ebpf, 0);
        }
    }
}

impl Started {
    fn settle(&mut self, ebpf: &mut Ebpf, epoch: &mut u32) {
        let on = self.wanted && !self.paused;
        self.set_epoch(ebpf, 0);
        for (hook, link) in &mut self.programs {
            let done = match (on, link.take()) {
                (true, None) => attach(ebpf, hook).map(|new| *link = Some(new)),
                (false, Some(old)) => detach(ebpf, hook, old),
                (_, same) => {
                    *link = same;
                    Ok(())
                }
            };
            if let Err(error) = done {
                tracing::warn!(%hook, on, %error, "Cannot change a hook");
            }
        }
        if on && self.programs.iter().all(|(_, link)| link.is_some()) {
            // Half the range, as the kernel side keeps a bit beside it.
            *epoch = *epoch % (u32::MAX >> 1) + 1;
            self.set_epoch(ebpf, *epoch);
        }
    }

    /// Whether something is to be done.
    fn is_unsettled(&self) -> bool {
        let on = self.wanted && !self.paused;
        self.programs.iter().any(|(_, link)| link.is_some() != on)
    }

    fn set_epoch(&self, ebpf: &mut Ebpf, epoch: u32) {
        let Some(name) = self.sensor.epoch() else {
            return;
        };
        let set = ebpf
            .map_mut(name)
            .ok_or(ProgramError::UnexpectedProgramType)
            .map(|map| {
                let mut array: Array<_, u32> = Array::try_from(map).map_err(wrong)?;
                array.set(0, epoch, 0).map_err(wrong)
            });
        if !matches!(set, Ok(Ok(()))) {
            tracing::warn!(sensor = self.sensor.name(), epoch, "Cannot set the epoch");
        }
    }
}

/// Puts a loaded program on its hook.
pub fn attach(ebpf: &mut Ebpf, hook: &Hook) -> Result<Link, ProgramError> {
    let program = ebpf
        .program_mut(hook.program)
        .ok_or(ProgramError::UnexpectedProgramType)?;
    Ok(match hook.kind {
        HookKind::TpBtf => Link::TpBtf(<&mut BtfTracePoint>::try_from(program)?.attach()?),
        HookKind::RawTp => {
            Link::RawTp(<&mut RawTracePoint>::try_from(program)?.attach(hook.target)?)
        }
        HookKind::FEntry => Link::FEntry(<&mut FEntry>::try_from(program)?.attach()?),
    })
}

/// Takes it off.
fn detach(ebpf: &mut Ebpf, hook: &Hook, link: Link) -> Result<(), ProgramError> {
    let program = ebpf
        .program_mut(hook.program)
        .ok_or(ProgramError::UnexpectedProgramType)?;
    match link {
        Link::TpBtf(link) => <&mut BtfTracePoint>::try_from(program)?.detach(link),
        Link::RawTp(link) => <&mut RawTracePoint>::try_from(program)?.detach(link),
        Link::FEntry(link) => <&mut FEntry>::try_from(program)?.detach(link),
    }
}
