//! Where the programs of a sensor attach.

use super::Activation;

/// One thing that a sensor has to see, and the ways to see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its programs, best first; the first that the kernel takes is used.
    pub hooks: &'static [Hook],
    /// What is not known where the kernel takes none of them; `None`: then the sensor is off.
    pub optional: Option<&'static str>,
    /// When they are attached, where that is not the same as for the rest of the sensor.
    pub activation: Option<Activation>,
}

impl Probe {
    /// One that the sensor is nothing without.
    #[must_use]
    pub const fn essential(hooks: &'static [Hook]) -> Self {
        Self {
            hooks,
            optional: None,
            activation: None,
        }
    }

    /// One without which the sensor is merely reduced.
    #[must_use]
    pub const fn optional(hooks: &'static [Hook], loses: &'static str) -> Self {
        Self {
            hooks,
            optional: Some(loses),
            activation: None,
        }
    }

    /// One without which the sensor is reduced, attached at times only.
    #[must_use]
    pub const fn at_times(
        hooks: &'static [Hook],
        loses: &'static str,
        activation: Activation,
    ) -> Self {
        Self {
            hooks,
            optional: Some(loses),
            activation: Some(activation),
        }
    }
}

/// One program of a sensor and the place it attaches to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Name of the program in the eBPF object.
    pub program: &'static str,
    /// How it attaches.
    pub kind: HookKind,
    /// Name of the tracepoint or function.
    pub target: &'static str,
    /// What is lost with it against the first; empty for the first.
    pub loses: &'static str,
}

/// How a program attaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// Tracepoint with arguments typed by BTF.
    TpBtf,
    /// Raw tracepoint.
    RawTp,
    /// Entry of a kernel function, its arguments typed by BTF.
    FEntry,
}

impl Hook {
    /// A raw tracepoint that needs no better.
    #[must_use]
    pub const fn raw_tp(program: &'static str, target: &'static str) -> Self {
        Self {
            program,
            kind: HookKind::RawTp,
            target,
            loses: "",
        }
    }

    /// The entry of a kernel function, which does as well.
    #[must_use]
    pub const fn fentry(program: &'static str, target: &'static str) -> Self {
        Self {
            kind: HookKind::FEntry,
            ..Self::raw_tp(program, target)
        }
    }
}

impl std::fmt::Display for Hook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            HookKind::TpBtf => "tp_btf",
            HookKind::RawTp => "raw_tp",
            HookKind::FEntry => "fentry",
        };
        write!(f, "{kind}/{}", self.target)
    }
}
