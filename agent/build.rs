//! Refuses to build the agent around an eBPF object that is not of the present source.

use std::{env, error::Error, fs, path::Path};

#[path = "../agent-ebpf/source_hash.rs"]
mod source_hash;

use source_hash::source_hash;

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = env::var("CARGO_MANIFEST_DIR")?;
    let workspace = Path::new(&manifest)
        .parent()
        .ok_or("the agent lies in a workspace")?;
    for input in [
        "agent-ebpf",
        "agent-common/src",
        "agent-common/Cargo.toml",
        "rust-toolchain.toml",
        "Cargo.lock",
    ] {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(input).display()
        );
    }
    let built_from = fs::read_to_string(workspace.join("agent-ebpf/agent-ebpf.bpf.o.sources"))
        .unwrap_or_default();
    if built_from.trim() != source_hash(workspace)? {
        println!(
            "cargo::error=the eBPF source changed but its object was not rebuilt: \
             run `cargo xtask ebpf`"
        );
    }
    Ok(())
}
