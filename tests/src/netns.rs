//! A network namespace with a veth pair to the host, gone when its owner is gone.

use std::{net::Ipv4Addr, process};

use anyhow::Context as _;

use crate::{
    guardian::Guardian,
    peers::{self, run},
};

const REMOVE: &str = r#"
ip netns pids "$1" | while read -r p; do kill -9 "$p"; done
ip link del "$2"
ip netns del "$1"
"#;

/// A namespace; the far end of the veth pair is inside.
#[derive(Debug)]
pub struct Netns {
    name: String,
    /// The host's end.
    pub host: Ipv4Addr,
    /// The end inside.
    pub inside: Ipv4Addr,
    _guardian: Guardian,
}

impl Netns {
    /// Makes one with two addresses of a /30 of TEST-NET-2.
    ///
    /// # Errors
    /// When `ip` is missing or refuses.
    pub fn create() -> anyhow::Result<Self> {
        peers::need("ip")?;
        let id = process::id();
        let name = format!("isostack-{id}");
        // Interface names have at most 15 characters.
        let (near, far) = (format!("isoh{id}"), format!("ison{id}"));
        // 64 blocks of four addresses: test processes that run side by side seldom meet.
        let block = u8::try_from(id % 64).context("below 64")? * 4;
        let (host, inside) = (
            Ipv4Addr::new(198, 51, 100, block + 1),
            Ipv4Addr::new(198, 51, 100, block + 2),
        );
        let guardian = Guardian::new(REMOVE, &[&name, &near]).context("cannot start sh")?;
        let (host_30, inside_30) = (format!("{host}/30"), format!("{inside}/30"));
        for arguments in [
            &["netns", "add", &name][..],
            &[
                "link", "add", &near, "type", "veth", "peer", "name", &far, "netns", &name,
            ],
            &["addr", "add", &host_30, "dev", &near],
            &["link", "set", &near, "up"],
            &["-n", &name, "addr", "add", &inside_30, "dev", &far],
            &["-n", &name, "link", "set", &far, "up"],
            &["-n", &name, "link", "set", "lo", "up"],
        ] {
            run(process::Command::new("ip").args(arguments))?;
        }
        Ok(Self {
            name,
            host,
            inside,
            _guardian: guardian,
        })
    }

    /// The words before a command that run it inside.
    #[must_use]
    pub fn exec(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.name]
    }
}
