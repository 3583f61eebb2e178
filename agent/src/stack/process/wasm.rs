//! WebAssembly engines: as a program, as a containerd shim that becomes the container, or as
//! a library in any program.

use super::{ProcessFacts, base_name, entry};
use crate::{stack::StackEntry, vocabulary::Layer};

/// Engines by the name of their program.
const PROGRAMS: &[(&str, &str)] = &[
    ("wasmtime", "wasmtime"),
    ("wasmedge", "wasmedge"),
    ("wasmer", "wasmer"),
    ("spin", "spin"),
    ("iwasm", "wamr"),
];

/// Engines by the beginning of their library's name.
const LIBRARIES: &[(&str, &str)] = &[
    ("libwasmtime", "wasmtime"),
    ("_libwasmtime", "wasmtime"),
    ("libwasmedge", "wasmedge"),
    ("libwasmer", "wasmer"),
    ("libiwasm", "wamr"),
];

/// Engines whose containerd shim runs the module itself.
const SHIMS: &[&str] = &["wasmtime", "wasmedge", "wasmer", "spin"];

/// The engine that a program is, by its name.
#[must_use]
pub fn engine(exe_name: &str) -> Option<&'static str> {
    if let Some(shim) = exe_name.strip_prefix("containerd-shim-") {
        return SHIMS.iter().find(|s| shim.starts_with(**s)).copied();
    }
    let found = PROGRAMS.iter().find(|(name, _)| *name == exe_name);
    found.map(|(_, engine)| *engine)
}

/// The engine that a mapped file is, by its name.
#[must_use]
pub fn library_engine(path: &str) -> Option<&'static str> {
    let name = base_name(path);
    let found = LIBRARIES
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix));
    found.map(|(_, engine)| *engine)
}

/// L-4: the byte-code machine, then the engine.
pub(super) fn wasm(facts: &ProcessFacts, in_container: bool) -> Vec<StackEntry> {
    let by_program = engine(facts.exe_name())
        .filter(|_| facts.exe_is_roots() || in_container)
        // The shim itself, outside of its container, starts others and runs nothing.
        .filter(|_| in_container || !facts.exe_name().starts_with("containerd-shim-"));
    let found = match by_program {
        Some(engine) => Some((engine, format!("exe {}", facts.exe))),
        None => facts.libraries.iter().find_map(|library| {
            let engine = library_engine(library)?;
            Some((engine, format!("/proc/{}/maps: {library}", facts.pid)))
        }),
    };
    let Some((engine, text)) = found else {
        return Vec::new();
    };
    vec![
        entry(
            Layer::Sandbox,
            "wasm",
            format!("byte code run by {engine}: {text}"),
        ),
        entry(Layer::Sandbox, engine, text),
    ]
}
