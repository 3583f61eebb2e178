//! A single program that can be put on its hook and taken off again at once, for benchmarks
//! that compare with and without in short turns.

use std::io;

use aya::programs::{BtfTracePoint, ProgramError};

use super::{Settings, object::Object};

/// One loaded program on `sched_switch`, attached only while [`Toggled::during`] runs.
pub struct Toggled {
    object: Object,
    program: &'static str,
}

impl Toggled {
    /// The program of the `cpu` sensor.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn cpu(settings: &Settings) -> io::Result<Self> {
        Self::load(settings, "cpu_switch")
    }

    /// A program that does nothing: what the hook alone costs.
    ///
    /// # Errors
    ///
    /// If the kernel refuses it.
    pub fn floor(settings: &Settings) -> io::Result<Self> {
        Self::load(settings, "floor_switch")
    }

    /// Attaches it, runs `work`, detaches it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses to attach it.
    pub fn during<T>(&mut self, work: impl FnOnce() -> T) -> io::Result<T> {
        let link = self.program()?.attach().map_err(io::Error::other)?;
        let result = work();
        self.program()?.detach(link).map_err(io::Error::other)?;
        Ok(result)
    }

    fn load(settings: &Settings, program: &'static str) -> io::Result<Self> {
        let object = Object::load(settings).map_err(|why| io::Error::other(why.reason))?;
        let mut toggled = Self { object, program };
        let types = std::mem::replace(&mut toggled.object.btf, aya::Btf::new());
        toggled
            .program()?
            .load("sched_switch", &types)
            .map_err(io::Error::other)?;
        Ok(toggled)
    }

    fn program(&mut self) -> io::Result<&mut BtfTracePoint> {
        self.object
            .ebpf
            .program_mut(self.program)
            .ok_or(ProgramError::UnexpectedProgramType)
            .and_then(TryInto::try_into)
            .map_err(io::Error::other)
    }
}
