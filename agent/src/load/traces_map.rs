//! The map in which OpenTelemetry's eBPF instrumentation (OBI) says which trace each thread works on:
//! it pins it for other agents of the host.
//!
//! Layout: OBI's `bpf/shared/obi_ctx.h`, which an OTEP describes too (opentelemetry-specification
//! 4855).

use std::path::PathBuf;

use agent_common::context::TraceContext;
use aya::maps::{MapData, MapError, MapInfo, MapType};

use crate::host::roots::Roots;

/// Below `/sys`.
const PINNED: &str = "fs/bpf/otel/traces_ctx_v1";

/// Where it is pinned, if it is and has the layout that is known.
pub fn find(roots: &Roots) -> Option<PathBuf> {
    let path = roots.sysfs.join(PINNED);
    if !path.exists() {
        return None;
    }
    let unusable = |reason: String| {
        tracing::warn!(path = %path.display(), reason, "Traces of other instrumentation are not used");
    };
    let info = match MapData::from_pin(&path).and_then(|map| map.info()) {
        Ok(info) => info,
        Err(error) => {
            unusable(error.to_string());
            return None;
        }
    };
    match layout(&info) {
        Ok(true) => Some(path),
        Ok(false) => {
            unusable("it is no LRU hash of 8 bytes to 24".to_owned());
            None
        }
        Err(error) => {
            unusable(error.to_string());
            None
        }
    }
}

fn layout(info: &MapInfo) -> Result<bool, MapError> {
    Ok(info.map_type()? == MapType::LruHash
        && info.key_size() as usize == size_of::<u64>()
        && info.value_size() as usize == size_of::<TraceContext>())
}
