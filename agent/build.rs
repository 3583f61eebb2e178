//! Refuses to build the agent around an eBPF object that is not of the present source, or
//! around knowledge or log rules that are wrong; turns the rules into a table.

use std::{env, error::Error, fs, path::Path};

#[path = "build/log_rules.rs"]
mod log_rules;
#[path = "src/classify/pattern.rs"]
mod pattern;
#[path = "../agent-ebpf/source_hash.rs"]
mod source_hash;

// The knowledge is read here by the very code that reads it in the agent.
macro_rules! shared {
    ($($path:literal $name:ident),+) => {$(
        #[path = $path]
        #[allow(dead_code, reason = "the agent uses all of it, its build only what checks")]
        mod $name;
    )+};
}
shared!(
    "src/vocabulary.rs" vocabulary,
    "src/knowledge/figure.rs" figure,
    "src/knowledge/sentence.rs" sentence,
    "src/knowledge/data.rs" data,
    "src/knowledge/check.rs" check
);

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
        "agent/build",
        "agent/src/classify/pattern.rs",
        "agent/src/knowledge",
        "agent/src/vocabulary.rs",
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
    match data::Data::read() {
        Ok(data) => check::mistakes(&data),
        Err(unreadable) => vec![unreadable],
    }
    .iter()
    .flat_map(|mistake| mistake.lines())
    .for_each(|line| println!("cargo::error=knowledge: {line}"));
    let rules = workspace.join("agent/src/knowledge/log_rules.toml");
    let table = Path::new(&env::var("OUT_DIR")?).join("log_rules.rs");
    for complaint in log_rules::generate(&rules, &table)? {
        println!("cargo::error={complaint}");
    }
    Ok(())
}
