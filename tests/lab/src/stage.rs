//! The set-up that is made once: groups, network, sink, agent, services, and what reads the
//! kernel's books beside them. Everything of it goes with this value, and with the program
//! when it is killed.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{self, Command},
    sync::Arc,
};

use anyhow::Context as _;
use harness::{agent::Agent, artifact, debian, guardian::Guardian, service::wrap};

use crate::{
    group::Groups,
    network::Network,
    peer,
    sampler::Sampler,
    service::{self, Running, Service, Site},
    sink::Sink,
    slow_disk::{ARCHIVE, SlowDisk},
};

/// The group and the network namespace of whoever disturbs the others.
pub const NEIGHBOUR: &str = "neighbour";

/// A neighbour's group below the parent of `store` and `rates`.
pub const NEIGHBOUR_IN_DATA: &str = "data/neighbour";

/// Removes the folder; of the container's root only its own entries, never what is mounted.
const REMOVE: &str = r#"
sleep 0.2
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  for box in store rates; do
    find "$1/$box/rootfs" -mindepth 1 -maxdepth 1 -delete
    rmdir "$1/$box/rootfs"
    rm -f "$1/$box/config.json"
    rmdir "$1/$box"
  done
  rm -f "$1/filter.bpf" "$1/slow"
  rm -rf "$1/data" "$1/neighbour" "$1/state" "$1/runc" "$1/runsc"
  rmdir "$1"
  [ -d "$1" ] || break
  sleep 0.5
done
"#;

/// The set-up.
#[derive(Debug)]
pub struct Stage {
    /// Reads the kernel's books.
    pub sampler: Sampler,
    /// In the order of the chain; `rates` may not be there.
    pub services: Vec<Running>,
    /// Judges.
    pub agent: Agent,
    /// Keeps what the agent passes on.
    pub sink: Sink,
    /// Namespaces.
    pub network: Network,
    /// Cgroups.
    pub groups: Arc<Groups>,
    /// The disk with the database.
    pub disk: Disk,
    /// A folder on that disk.
    pub dir: PathBuf,
    /// The disk that can be made slow, where it can be had.
    pub slow: Option<SlowDisk>,
    /// The lab's own program, for what it runs as processes.
    pub program: PathBuf,
    _guardian: Guardian,
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// Its name, e.g. `vda`.
    pub name: String,
    /// `MAJOR:MINOR`.
    pub number: String,
}

impl Stage {
    /// Starts everything. `program` is the lab's own program; the agent writes a recording
    /// to `record`.
    ///
    /// # Errors
    /// When something of it cannot be had or does not start.
    pub fn start(
        program: PathBuf,
        record: Option<&Path>,
        agent_flags: &[&str],
    ) -> anyhow::Result<Self> {
        let dir = PathBuf::from(format!("/var/tmp/isostack-lab-{}", process::id()));
        let guardian = Guardian::new(REMOVE, &[&dir])?;
        for name in ["data", NEIGHBOUR, "state", "store/rootfs", "rates/rootfs"] {
            let dir = dir.join(name);
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        }
        let disk = Disk::of(&dir)?;
        let data = dir.join("data");
        let slow = SlowDisk::start(&dir, &data);
        if let Err(error) = &slow {
            println!("Not here: a slow device: {error:#}");
            // What would be written to it goes to the other disk.
            fs::create_dir_all(data.join(ARCHIVE))?;
        }
        let groups = Arc::new(Groups::create()?);
        groups.make_parent("shop")?;
        groups.make_parent("data")?;
        for group in [
            NEIGHBOUR,
            NEIGHBOUR_IN_DATA,
            "agent",
            Service::Front.group(),
            Service::Orders.group(),
        ] {
            groups.make(group)?;
        }
        let services = Service::ALL.iter().map(|service| service.name());
        let names: Vec<&str> = services.chain([NEIGHBOUR]).collect();
        let network = Network::create(&names)?;
        let sink = Sink::start()?;
        let agent = agent(&groups, &network, &sink, &dir, record, agent_flags)?;
        let peer = peer::start(network.host)?.to_string();
        let mut site = Site {
            groups: &groups,
            network: &network,
            otlp_grpc: &agent.otlp_grpc,
            otlp_http: &agent.otlp_http,
            peer: &peer,
            dir: &dir,
            has_rates: false,
        };
        // From the last to the first: who is asked is there.
        let runsc = debian::runsc();
        site.has_rates = runsc.is_ok();
        let mut services = Vec::new();
        match runsc {
            Ok(_) => services.push(service::start(Service::Rates, &site).context("rates")?),
            Err(error) => println!("Not here: gVisor in the chain: {error:#}"),
        }
        for service in [Service::Store, Service::Orders, Service::Front] {
            let running = service::start(service, &site);
            services.push(running.with_context(|| service.name())?);
        }
        services.reverse();
        let own = services.iter().map(|running| vec![running.pid]);
        let mut pids: Vec<Vec<u32>> = own.collect();
        if site.has_rates {
            // The sentry, and those that run the program for it.
            pids[Service::Rates as usize] = groups.pids(Service::Rates.group())?;
        }
        Ok(Self {
            sampler: Sampler::start(pids, disk.name.clone())?,
            services,
            agent,
            sink,
            network,
            groups,
            disk,
            dir,
            slow: slow.ok(),
            program,
            _guardian: guardian,
        })
    }

    /// Whether it runs; all do but what this machine cannot.
    #[must_use]
    pub fn has(&self, service: Service) -> bool {
        (service as usize) < self.services.len()
    }

    /// A running service.
    #[must_use]
    pub fn service(&self, service: Service) -> &Running {
        &self.services[service as usize]
    }

    /// Ends the agent as a user would, so that its recording is complete.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.agent.process.terminate().map(drop)
    }

    /// Whether the agent and all services still run.
    ///
    /// # Errors
    /// When one ended: with its output.
    pub fn check(&mut self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.agent.process.is_running(),
            "the agent ended:\n{}",
            self.agent.process.output()
        );
        for (service, running) in Service::ALL.iter().zip(&mut self.services) {
            anyhow::ensure!(
                running.process.is_running(),
                "{} ended:\n{}",
                service.name(),
                running.process.output()
            );
        }
        Ok(())
    }
}

fn agent(
    groups: &Groups,
    network: &Network,
    sink: &Sink,
    dir: &Path,
    record: Option<&Path>,
    flags: &[&str],
) -> anyhow::Result<Agent> {
    let mut agent = Command::new(artifact::program("isostack-agent")?);
    if let Some(file) = record {
        agent.arg("record").arg(file).args(["--max-size", "1GiB"]);
    }
    agent.args(["--http-listen", "127.0.0.1:0"]);
    agent.args(["--otlp-grpc-listen", &format!("{}:0", network.host)]);
    agent.args(["--otlp-http-listen", &format!("{}:0", network.host)]);
    agent.args(["--export-endpoint", &format!("http://{}", sink.address)]);
    agent.arg("--state-dir").arg(dir.join("state"));
    // What the services and the lab itself do costs `seccomp` more than its usual share: out of
    // its hooks it would miss what is injected.
    agent.args(["--sensor-budget", "10"]).args(flags);
    let procs = groups.procs("agent");
    let files: Vec<String> = procs.iter().map(|p| format!("'{}'", p.display())).collect();
    let enter = format!(
        "for file in {}; do echo $$ > \"$file\"; done; exec \"$@\"",
        files.join(" ")
    );
    Agent::start_command(&mut wrap(&["sh", "-c", &enter, "sh"], agent))
}

impl Disk {
    /// The disk that holds a folder.
    fn of(dir: &Path) -> anyhow::Result<Self> {
        let device = fs::metadata(dir)?.dev();
        let number = format!("{}:{}", libc::major(device), libc::minor(device));
        let link = PathBuf::from(format!("/sys/dev/block/{number}"));
        let mut place = fs::canonicalize(&link)
            .with_context(|| format!("{} lies on no disk ({number})", dir.display()))?;
        if place.join("partition").exists() {
            place.pop();
        }
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            number: fs::read_to_string(place.join("dev"))?.trim().to_owned(),
            name: name.into_owned(),
        })
    }
}
