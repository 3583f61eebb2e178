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
        Self::with("0")
    }

    /// Without IPv6, whose devices say things of themselves now and then.
    pub fn ipv4_only() -> Self {
        Self::with("1")
    }

    fn with(disable_ipv6: &str) -> Self {
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
        pair.configured(disable_ipv6)
    }

    /// Likewise over two cards of this machine that are joined by a wire. They keep their names, by
    /// which they come back.
    pub fn over(cards: [&str; 2]) -> Self {
        let id = std::process::id();
        let mut pair = Self {
            a: Space::new(&format!("isoa{id}-w"), 1, "fd00:5a::1"),
            b: Space::new(&format!("isob{id}-w"), 2, "fd00:5a::2"),
        };
        for (card, space) in cards.into_iter().zip([&mut pair.a, &mut pair.b]) {
            ip(&format!("link set {card} netns {}", space.name));
            card.clone_into(&mut space.device);
        }
        pair.configured("1")
    }

    /// Likewise, but the first card stays where it is: only the other end has a namespace.
    pub fn one_over([here, there]: [&str; 2]) -> Space {
        let mut far = Space::new(&format!("isob{}-w", std::process::id()), 2, "fd00:5a::2");
        ip(&format!("link set {there} netns {}", far.name));
        there.clone_into(&mut far.device);
        let (name, address) = (&far.name, far.address);
        ip(&format!("-n {name} addr add {address}/30 dev {there}"));
        ip(&format!("-n {name} link set {there} up"));
        ip(&format!("addr replace 198.18.0.1/30 dev {here}"));
        ip(&format!("link set {here} up"));
        far
    }

    fn configured(self, disable_ipv6: &str) -> Self {
        let pair = self;
        let (a, b) = (&pair.a, &pair.b);
        for space in [a, b] {
            let Space {
                name,
                device,
                address,
                address6,
            } = space;
            space.run(&format!(
                "echo {disable_ipv6} | tee /proc/sys/net/ipv6/conf/*/disable_ipv6"
            ));
            ip(&format!("-n {name} addr add {address}/30 dev {device}"));
            if disable_ipv6 == "0" {
                ip(&format!(
                    "-n {name} addr add {address6}/64 dev {device} nodad"
                ));
            }
            ip(&format!("-n {name} link set {device} up"));
            ip(&format!("-n {name} link set lo up"));
        }
        // Both ends know each other from the start: the first packet is like all others.
        for (from, to) in [(a, b), (b, a)] {
            let shown = to.run(&format!("ip -o link show dev {}", to.device));
            let (_, mac) = shown.split_once("link/ether ").unwrap();
            let mac = mac.split(' ').next().unwrap();
            ip(&format!(
                "-n {} neigh replace {} lladdr {} dev {} nud permanent",
                from.name, to.address, mac, from.device
            ));
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
        let output = Command::new("nsenter")
            .args([&self.net(), "bash", "-c", line])
            .output()
            .unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The word for `nsenter`, which leaves `/sys` as it is, unlike `ip netns exec`.
    pub fn net(&self) -> String {
        format!("--net=/run/netns/{}", self.name)
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
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // Its devices go with it, and with those the other ends.
        let gone = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
        if !gone.is_ok_and(|status| status.success()) {
            eprintln!("cannot remove namespace {}", self.name);
        }
    }
}

fn ip(words: &str) {
    let output = Command::new("ip").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {words}: {output:?}");
}
