//! Programs that are loaded, and attached only while somebody needs them: what they cost is
//! paid by the hosts that use it.

use aya::{
    Ebpf,
    programs::{
        BtfTracePoint, ProgramError, RawTracePoint, raw_trace_point::RawTracePointLinkId,
        tp_btf::BtfTracePointLinkId,
    },
};

use crate::sensor::{Activation, Hook, HookKind};

/// A program's place on its hook.
pub enum Link {
    TpBtf(BtfTracePointLinkId),
    RawTp(RawTracePointLinkId),
}

/// The programs of one activation.
#[derive(Default)]
pub struct OnDemand {
    programs: Vec<Demanded>,
}

struct Demanded {
    activation: Activation,
    hook: &'static Hook,
    link: Option<Link>,
}

impl OnDemand {
    /// Takes a program that is loaded and not attached.
    pub fn add(&mut self, activation: Activation, hook: &'static Hook) {
        self.programs.push(Demanded {
            activation,
            hook,
            link: None,
        });
    }

    /// Attaches or detaches the programs of `activation`. Says in the log what the kernel
    /// refuses; the next call tries again.
    pub fn set(&mut self, ebpf: &mut Ebpf, activation: Activation, wanted: bool) {
        let concerned = |program: &&mut Demanded| program.activation == activation;
        for program in self.programs.iter_mut().filter(concerned) {
            let done = match (wanted, program.link.take()) {
                (true, None) => attach(ebpf, program.hook).map(|link| program.link = Some(link)),
                (false, Some(link)) => detach(ebpf, program.hook, link),
                (_, link) => {
                    program.link = link;
                    Ok(())
                }
            };
            if let Err(error) = done {
                tracing::warn!(hook = %program.hook, wanted, %error, "Cannot change a hook");
            }
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
    })
}

/// Takes it off.
pub fn detach(ebpf: &mut Ebpf, hook: &Hook, link: Link) -> Result<(), ProgramError> {
    let program = ebpf
        .program_mut(hook.program)
        .ok_or(ProgramError::UnexpectedProgramType)?;
    match link {
        Link::TpBtf(link) => <&mut BtfTracePoint>::try_from(program)?.detach(link),
        Link::RawTp(link) => <&mut RawTracePoint>::try_from(program)?.detach(link),
    }
}
