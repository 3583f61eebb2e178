//! What `doctor` and `/api/v1/sensors` say of a sensor.

use serde::Serialize;

/// Why a sensor cannot run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WhyNot {
    /// What is missing.
    pub reason: String,
    /// What would help.
    pub fix: String,
}

/// Whether a sensor works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SensorState {
    /// By its primary hook.
    On,
    /// By a fallback; `loses` says what that costs.
    Reduced,
    /// Not at all; `reason` says why.
    Off,
}

/// One line of `doctor` and of `/api/v1/sensors`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SensorStatus {
    /// `cpu`, `tcp`, ...
    pub name: &'static str,
    /// See [`SensorState`].
    pub state: SensorState,
    /// The hook in use, e.g. `tp_btf/sched_switch`; empty when off.
    pub hook: String,
    /// Why it is reduced or off; empty when on.
    pub reason: String,
    /// What that loses; empty when on.
    pub loses: String,
    /// What would fix it; empty when on.
    pub fix: String,
}
