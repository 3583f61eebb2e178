//! The lab's network: a bridge, and one namespace with a veth for each service.

use std::{
    net::Ipv4Addr,
    process::{self, Command},
};

use anyhow::Context as _;
use harness::{guardian::Guardian, peers};

const REMOVE: &str = r#"
bridge="$1"
shift
for name in "$@"; do
  ip netns pids "$name" | while read -r p; do kill -9 "$p"; done
  ip netns del "$name"
done
ip link del "$bridge"
"#;

/// The name of the device inside each namespace.
pub const DEVICE: &str = "eth0";

/// The bridge and its namespaces.
#[derive(Debug)]
pub struct Network {
    /// Address of the bridge: the host's own in this network.
    pub host: Ipv4Addr,
    places: Vec<Place>,
    _guardian: Guardian,
}

/// A namespace.
#[derive(Clone, Debug)]
pub struct Place {
    /// Name of the namespace.
    pub netns: String,
    /// The host's end of its veth.
    pub veth: String,
    /// The address inside.
    pub address: Ipv4Addr,
    name: &'static str,
}

impl Network {
    /// Makes a bridge with an address of the network for benchmarks (198.18.0.0/15), and a
    /// namespace for each name.
    ///
    /// # Errors
    /// When `ip` is missing or refuses.
    pub fn create(names: &[&'static str]) -> anyhow::Result<Self> {
        peers::need("ip")?;
        let id = process::id();
        let bridge = format!("islb{id}");
        let net = u8::try_from(id % 250).context("below 250")? + 1;
        let place = |(at, name): (usize, &&'static str)| Place {
            netns: format!("isostack-lab-{id}-{name}"),
            veth: format!("isl{at}v{id}"),
            address: Ipv4Addr::new(198, 18, net, 10 + at as u8),
            name,
        };
        let places: Vec<Place> = names.iter().enumerate().map(place).collect();
        let mut remove = vec![bridge.clone()];
        remove.extend(places.iter().map(|place| place.netns.clone()));
        let network = Self {
            host: Ipv4Addr::new(198, 18, net, 1),
            places,
            _guardian: Guardian::new(REMOVE, &remove).context("cannot start sh")?,
        };
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&[
            "addr",
            "add",
            &format!("{}/24", network.host),
            "dev",
            &bridge,
        ])?;
        ip(&["link", "set", &bridge, "up"])?;
        for Place {
            netns,
            veth,
            address,
            ..
        } in &network.places
        {
            ip(&["netns", "add", netns])?;
            ip(&[
                "link", "add", veth, "type", "veth", "peer", "name", DEVICE, "netns", netns,
            ])?;
            ip(&["link", "set", veth, "master", &bridge, "up"])?;
            ip(&[
                "-n",
                netns,
                "addr",
                "add",
                &format!("{address}/24"),
                "dev",
                DEVICE,
            ])?;
            ip(&["-n", netns, "link", "set", DEVICE, "up"])?;
            ip(&["-n", netns, "link", "set", "lo", "up"])?;
        }
        Ok(network)
    }

    /// The namespace of that name.
    ///
    /// # Panics
    /// When there is none: the names are the caller's own.
    #[must_use]
    pub fn place(&self, name: &str) -> &Place {
        let found = self.places.iter().find(|place| place.name == name);
        found.expect("the names are those that the network was made with")
    }
}

impl Place {
    /// The words before a command that run it inside.
    #[must_use]
    pub fn exec(&self) -> [&str; 4] {
        ["ip", "netns", "exec", &self.netns]
    }

    /// Runs a program inside to its end; gives its output.
    ///
    /// # Errors
    /// When it cannot be started or fails.
    pub fn run(&self, words: &[&str]) -> anyhow::Result<String> {
        output(&[&self.exec()[..], words].concat())
    }
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    peers::run(Command::new("ip").args(words))
}

/// Runs a program to its end; gives its output.
///
/// # Errors
/// When it cannot be started or fails.
pub fn output(words: &[&str]) -> anyhow::Result<String> {
    let (program, arguments) = words.split_first().context("no program")?;
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| (*program).to_owned())?;
    anyhow::ensure!(
        output.status.success(),
        "{}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
