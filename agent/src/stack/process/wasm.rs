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

/// The engine that a mapped library is, by its name.
#[must_use]
pub fn library_engine(path: &str) -> Option<&'static str> {
    let name = base_name(path);
    let (_, version) = name.split_once(".so")?;
    if !version.is_empty() && !version.starts_with('.') {
        return None;
    }
    let found = LIBRARIES
        .iter()
        .find(|(prefix, _)| name.starts_with(prefix));
    found.map(|(_, engine)| *engine)
}

/// Whether Spin was told to: `spin up`, and `spin trigger http` that this starts.
fn runs_an_application(cmdline: &[String]) -> bool {
    let command = cmdline.get(1).map(|word| &**word);
    matches!(command, Some("up" | "trigger" | "watch"))
}

/// L-4: the byte-code machine, then the engine. Who maps an engine's library says so of himself:
/// it is his own layer, and nobody else's.
pub(super) fn wasm(facts: &ProcessFacts, in_container: bool) -> Vec<StackEntry> {
    let is_shim = facts.exe_name().starts_with("containerd-shim-");
    let by_program = engine(facts.exe_name())
        .filter(|_| facts.exe_is_roots())
        // The shim itself, outside of its container, starts others and runs nothing.
        .filter(|_| in_container || !is_shim)
        // Other programs may be called so.
        .filter(|engine| *engine != "spin" || is_shim || runs_an_application(&facts.cmdline));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::process::ExeFile;

    fn found(exe: &str, cmdline: &str, owner: u32) -> bool {
        let facts = ProcessFacts {
            exe: exe.to_owned(),
            exe_file: Some(ExeFile {
                owner,
                ..ExeFile::default()
            }),
            cmdline: cmdline.split(' ').map(str::to_owned).collect(),
            ..ProcessFacts::default()
        };
        !wasm(&facts, true).is_empty()
    }

    #[test]
    fn a_name_alone_makes_no_engine() {
        assert!(found("/usr/bin/wasmtime", "wasmtime run a.wasm", 0));
        assert!(!found("/home/u/wasmtime", "wasmtime run a.wasm", 1000));
        assert!(found("/usr/bin/spin", "spin up", 0));
        assert!(found("/usr/bin/spin", "/usr/bin/spin trigger http", 0));
        assert!(!found("/usr/bin/spin", "spin 100", 0), "another program");
        assert!(found("/bin/containerd-shim-spin-v2", "shim -id a", 0));
    }

    #[test]
    fn a_library_is_called_like_one() {
        for (path, engine) in [
            ("/usr/lib/libwasmedge.so.0.1.0", Some("wasmedge")),
            (
                "/venv/wasmtime/linux-x86_64/_libwasmtime.so",
                Some("wasmtime"),
            ),
            ("/tmp/libwasmtime", None),
            ("/tmp/libwasmtime.source", None),
            ("/tmp/my-libwasmtime.so", None),
        ] {
            assert_eq!(library_engine(path), engine, "{path}");
        }
    }
}
