//! The isolation stack: the layers a process runs inside, innermost first.

pub mod host;
pub mod overrides;
pub mod process;
pub mod record;
pub mod report;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::vocabulary::Layer;

/// One layer and the fact it was inferred from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackEntry {
    /// The layer.
    pub layer: Layer,
    /// Lower-case technology word of the design, e.g. `runc`, `virtio`, `kvm`.
    pub technology: String,
    /// The fact, for a person to check, e.g. `/proc/42/cgroup: /kubepods/...`.
    pub evidence: String,
}

/// The layers, innermost first; within one layer the nearest to the process first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stack(pub Vec<StackEntry>);

impl Stack {
    /// The layer of the process itself: that of the innermost entry; `L-0` when empty
    /// (a plain process on bare metal without anything found).
    #[must_use]
    pub fn layer(&self) -> Layer {
        self.0.first().map_or(Layer::HardwareAssist, |e| e.layer)
    }

    /// Whether any entry is of `layer`.
    #[must_use]
    pub fn has(&self, layer: Layer) -> bool {
        self.0.iter().any(|e| e.layer == layer)
    }
}

impl fmt::Display for Stack {
    /// The contract's form: `L-3:runc/L-2:virtio/L-1:kvm/L-0:svm`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, entry) in self.0.iter().enumerate() {
            let separator = if i == 0 { "" } else { "/" };
            write!(f, "{separator}{}:{}", entry.layer, entry.technology)?;
        }
        Ok(())
    }
}
