//! What has no SDK sends spans all the same: it holds the connection to the agent, and hands on
//! what the test gives it. So the process at the connection's other end is a machine's monitor,
//! or a WebAssembly engine.

use std::{
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use harness::debian;
use rustix::process::{Signal, set_parent_process_death_signal};

/// A machine's whole disk: 115200 baud on both ports, then every byte that comes in by the
/// second goes out by the first. It asks without a pause, and so is always busy.
const ECHO_MACHINE: &[u8] = &[
    0xba, 0xfb, 0x03, 0xb0, 0x83, 0xee, // first port: divisor latch
    0xba, 0xf8, 0x03, 0xb0, 0x01, 0xee, 0x42, 0x30, 0xc0, 0xee, // divisor 1
    0xba, 0xfb, 0x03, 0xb0, 0x03, 0xee, // 8 bits, no parity
    0xba, 0xfb, 0x02, 0xb0, 0x83, 0xee, // second port: the same
    0xba, 0xf8, 0x02, 0xb0, 0x01, 0xee, 0x42, 0x30, 0xc0, 0xee, //
    0xba, 0xfb, 0x02, 0xb0, 0x03, 0xee, //
    0xba, 0xfd, 0x02, 0xec, 0xa8, 0x01, 0x74, 0xf8, // until the second has a byte
    0xba, 0xf8, 0x02, 0xec, 0x88, 0xc4, // take it
    0xba, 0xfd, 0x03, 0xec, 0xa8, 0x20, 0x74, 0xf8, // until the first is free
    0xba, 0xf8, 0x03, 0x88, 0xe0, 0xee, // give it
    0xeb, 0xe2, // and again
];

/// Reads standard input, writes what came to standard output, counts to two million, and again:
///
/// ```wat
/// (module
///   (import "wasi_snapshot_preview1" "fd_read" (func (param i32 i32 i32 i32) (result i32)))
///   (import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
///   (memory (export "memory") 1)
///   (func (export "_start") (local i32)
///     (i32.store (i32.const 0) (i32.const 64))
///     (loop
///       (i32.store (i32.const 4) (i32.const 4096))
///       (drop (call 0 (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
///       (i32.store (i32.const 4) (i32.load (i32.const 8)))
///       (drop (call 1 (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 12)))
///       (local.set 0 (i32.const 2000000))
///       (loop (br_if 0 (local.tee 0 (i32.sub (local.get 0) (i32.const 1)))))
///       (br 0))))
/// ```
fn echo_module() -> Vec<u8> {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    let mut section = |id: u8, body: &[u8]| {
        module.push(id);
        // All are shorter than 128 bytes, so that their length is one.
        module.push(u8::try_from(body.len()).expect("a short section"));
        module.extend(body);
    };
    section(
        1,
        &[2, 0x60, 4, 0x7f, 0x7f, 0x7f, 0x7f, 1, 0x7f, 0x60, 0, 0],
    );
    let mut imports = vec![2];
    for name in ["fd_read", "fd_write"] {
        for text in ["wasi_snapshot_preview1", name] {
            imports.push(text.len() as u8);
            imports.extend(text.bytes());
        }
        imports.extend([0, 0]);
    }
    section(2, &imports);
    section(3, &[1, 1]);
    section(5, &[1, 0, 1]);
    let exports = b"\x02\x06memory\x02\x00\x06_start\x00\x02";
    section(7, exports);
    let code = [
        1, 1, 0x7f, // one local
        0x41, 0, 0x41, 0xc0, 0, 0x36, 2, 0, // memory[0] = 64
        0x03, 0x40, // loop
        0x41, 4, 0x41, 0x80, 0x20, 0x36, 2, 0, // memory[4] = 4096
        0x41, 0, 0x41, 0, 0x41, 1, 0x41, 8, 0x10, 0, 0x1a, // fd_read
        0x41, 4, 0x41, 8, 0x28, 2, 0, 0x36, 2, 0, // memory[4] = memory[8]
        0x41, 1, 0x41, 0, 0x41, 1, 0x41, 12, 0x10, 1, 0x1a, // fd_write
        0x41, 0x80, 0x89, 0xfa, 0, 0x21, 0, // 2000000
        0x03, 0x40, 0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b, // count down
        0x0c, 0, 0x0b, 0x0b, // again
    ];
    let mut functions = vec![1, code.len() as u8];
    functions.extend(code);
    section(10, &functions);
    module
}

/// A process that hands on what it is given.
pub struct Relay {
    child: Child,
    sent: u64,
}

impl Relay {
    /// QEMU with that machine; both its ports are QEMU's descriptors.
    pub fn qemu(procs: &Path, agent: &str, dir: &Path) -> anyhow::Result<Self> {
        let mut disk = ECHO_MACHINE.to_vec();
        disk.resize(510, 0);
        disk.extend([0x55, 0xaa]);
        disk.resize(1 << 20, 0);
        let image = dir.join("disk");
        fs::write(&image, disk)?;
        let (host, port) = agent.rsplit_once(':').context("HOST:PORT")?;
        let drive = format!("file={},format=raw,if=ide", image.display());
        let to_agent = format!("socket,id=agent,host={host},port={port}");
        let args = [
            "-name",
            "guest=isostack-vm",
            "-accel",
            "tcg",
            "-m",
            "32",
            "-display",
            "none",
            "-nodefaults",
            "-no-reboot",
            "-drive",
            &drive,
            "-chardev",
            &to_agent,
            "-serial",
            "chardev:agent",
            "-chardev",
            "stdio,id=test,signal=off",
            "-serial",
            "chardev:test",
        ];
        Self::start(procs, "qemu-system-x86_64", &args)
    }

    /// WasmEdge with that module; its standard output is the connection.
    pub fn wasmedge(procs: &Path, agent: &str) -> anyhow::Result<Self> {
        let tree = debian::wasmedge().context("not run: WasmEdge cannot be had here")?;
        let name = format!("echo-{}.wasm", std::process::id());
        let module = tree.join(&name);
        fs::write(&module, echo_module())?;
        let (host, port) = agent.rsplit_once(':').context("HOST:PORT")?;
        let root = tree.display().to_string();
        let connect = format!("exec >/dev/tcp/{host}/{port} && exec chroot \"$@\"");
        let module_there = format!("/{name}");
        let engine = [&*root, "/usr/bin/wasmedge", &module_there];
        let args = [&["-c", &connect, "bash"], &engine[..]].concat();
        let mut relay = Self::start(procs, "bash", &args)?;
        // It has read the module when it hands on the first span.
        let first = relay.trace();
        fs::remove_file(&module)?;
        first?;
        Ok(relay)
    }

    fn start(procs: &Path, program: &str, args: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        command.arg(procs).arg(program).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let with_its_owner = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
        // SAFETY: between fork and exec prctl(2) alone is called.
        unsafe { command.pre_exec(with_its_owner) };
        Ok(Self {
            child: command.spawn()?,
            sent: 0,
        })
    }

    /// Hands it a span of somewhat more than a second, during which it works; its trace id.
    pub fn trace(&mut self) -> anyhow::Result<String> {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH);
        self.sent += 1;
        let start = now()?.as_nanos();
        let trace = format!("{start:032x}");
        let body = |end: u128| {
            serde_json::json!({ "resourceSpans": [{
                "resource": { "attributes": [
                    { "key": "service.name", "value": { "stringValue": "svc" } },
                ] },
                "scopeSpans": [{ "spans": [{
                    "traceId": trace, "spanId": format!("{:016x}", self.sent),
                    "name": "GET /work", "kind": 2,
                    "startTimeUnixNano": start.to_string(), "endTimeUnixNano": end.to_string(),
                }] }],
            }] })
            .to_string()
        };
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: agent\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body(start).len()
        );
        let input = self.child.stdin.as_mut().context("its input")?;
        for piece in head.as_bytes().chunks(4) {
            input.write_all(piece)?;
            input.flush()?;
            thread::sleep(Duration::from_millis(40));
        }
        input.write_all(body(now()?.as_nanos()).as_bytes())?;
        input.flush()?;
        Ok(trace)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
