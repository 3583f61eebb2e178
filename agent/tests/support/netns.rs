//! Two network namespaces joined by a veth pair, gone when dropped.

#![allow(dead_code, reason = "each test file uses what it needs")]

use std::{
    fs::{self, File},
    net::Ipv4Addr,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// See the module.
pub struct Pair {
    pub a: Space,
    pub b: Space,
}

/// One namespace.
pub struct Space {
    pub name: String,
    /// Its end of the pair.
    pub device: String,
    pub address: Ipv4Addr,
    /// The same of version 6, as text.
    pub address6: &'static str,
}

impl Pair {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", std::process::id());
        // Dropped, and with it what was made already, should a later step fail.
        let pair = Self {
            a: Space::new(&format!("isoa{id}"), 1, "fd00:5a::1"),
            b: Space::new(&format!("isob{id}"), 2, "fd00:5a::2"),
        };
        let (a, b) = (&pair.a, &pair.b);
        ip(&format!(
            "link add {} netns {} type veth peer name {} netns {}",
            a.device, a.name, b.device, b.name
        ));
        for space in [a, b] {
            let Space { name, device, address, address6 } = space;
            ip(&format!("-n {name} addr add {address}/30 dev {device}"));
            ip(&format!("-n {name} addr add {address6}/64 dev {device} nodad"));
            ip(&format!("-n {name} link set {device} up"));
            ip(&format!("-n {name} link set lo up"));
        }
        pair
    }
}

impl Space {
    fn new(name: &str, host: u8, address6: &'static str) -> Self {
        ip(&format!("netns add {name}"));
        Self {
            name: name.to_owned(),
            device: format!("ve{host}"),
            address: Ipv4Addr::new(198, 18, 0, host),
            address6,
        }
    }

    /// Inode of the namespace.
    pub fn inode(&self) -> u64 {
        fs::metadata(format!("/run/netns/{}", self.name))
            .unwrap()
            .ino()
    }

    /// Runs a command line in it and returns what it wrote.
    pub fn run(&self, line: &str) -> String {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.name, "bash", "-c", line])
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs `work` on a thread in it; sockets stay in the namespace that they were made in.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.name)).unwrap();
        thread::scope(|scope| {
            let inside = scope.spawn(move || {
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .unwrap();
                work()
            });
            inside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // Its devices go with it, and with those the other ends.
        let gone = Command::new("ip").args(["netns", "del", &self.name]).status();
        if !gone.is_ok_and(|status| status.success()) {
            eprintln!("cannot remove namespace {}", self.name);
        }
    }
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {output:?}");
}
