//! One boot of one kernel under QEMU, emulated in software: it runs where no virtualisation
//! is to be had, and its timings mean nothing.

use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use harness::peers;

use super::wire::Wire;

/// The emulator.
pub const QEMU: &str = "qemu-system-x86_64";
/// Bytes of the empty disk that a guest has for its tests.
const DISK_BYTES: u64 = 1 << 30;

/// What a guest left.
#[derive(Debug, Default)]
pub struct Output {
    /// Second serial port: the results.
    pub results: String,
    /// First serial port: the kernel's messages.
    pub console: String,
}

/// Boots and waits until the guest turns itself off.
///
/// # Errors
/// When QEMU cannot be run, or says no.
pub fn boot(image: &Path, segments: &[&[u8]], limit: Duration) -> anyhow::Result<Output> {
    if !peers::has(QEMU) {
        bail!("{QEMU} is not there: install qemu-system-x86");
    }
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name);
    fs::write(at("initramfs"), segments.concat())?;
    File::create(at("disk"))?.set_len(DISK_BYTES)?;
    let mut qemu = Command::new(QEMU);
    // One thread for both CPUs: with one each, a kernel that patches its own code (it does
    // when a program is attached) dies now and then of a breakpoint that is no longer there.
    qemu.args(["-accel", "tcg,thread=single"])
        // Without CMPXCHG16B, after which QEMU 7.2 now and then leaves the low half of RAX in
        // the flags: the next return from an interrupt is a double fault. Kernels until 6.17
        // use it for every allocation.
        .args(["-cpu", "max,-cx16"])
        .args(["-m", "1536", "-smp", "2"])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(at("initramfs"))
        .args([
            "-append",
            "console=ttyS0 quiet loglevel=4 no_timer_check panic=-1",
        ]);
    for port in ["console", "results"] {
        qemu.arg("-serial")
            .arg(format!("file:{}", at(port).display()));
    }
    qemu.arg("-drive").arg(format!(
        "file={},format=raw,if=virtio,cache=unsafe",
        at("disk").display()
    ));
    // A network card that leads nowhere; without a ROM, which not every installation has.
    qemu.args(["-netdev", "user,id=net,restrict=on"])
        .args(["-device", "virtio-net-pci,netdev=net,romfile="]);
    qemu.args(Wire::lay(dir.path())?.arguments());
    qemu.stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(at("stderr"))?);
    let mut guest = Guest(qemu.spawn().with_context(|| format!("cannot run {QEMU}"))?);
    let began = Instant::now();
    let status = loop {
        if let Some(status) = guest.0.try_wait()? {
            break Some(status);
        }
        if began.elapsed() > limit {
            break None;
        }
        thread::sleep(Duration::from_millis(100));
    };
    drop(guest);
    let read = |name: &str| {
        let bytes = fs::read(at(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    };
    if status.is_some_and(|status| !status.success()) {
        bail!("{QEMU} failed: {}", read("stderr").trim());
    }
    Ok(Output {
        results: read("results"),
        console: read("console"),
    })
}

/// Killed when it is no longer waited for.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
