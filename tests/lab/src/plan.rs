//! From a seed to runs: what is injected, how strongly, where and when. A run depends on the
//! seed and its own number only, so that any of them can be done again alone.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde::{Deserialize, Serialize};

use crate::{
    fault::between,
    incidents::{INCIDENTS, Incident},
    load::Script,
    service::Service,
};

/// What can be injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A CPU quota on the victim's own group.
    OwnQuota,
    /// A CPU quota on the parent of two services.
    ParentQuota,
    /// A CPU quota on a caller and not on who it calls.
    ClientQuota,
    /// Busy loops on the victim's CPU.
    CpuNeighbour,
    /// A token bucket on what the victim sends.
    RateLimit,
    /// Segments to the victim dropped.
    Loss,
    /// Connections to the victim refused.
    Refused,
    /// A neighbour's UDP in the victim's queue.
    UdpFlood,
    /// The victim's queue of connections runs over.
    ListenOverflow,
    /// Address translation has no port left for the victim's connections.
    SnatExhausted,
    /// A limit on writes a second.
    IoLimit,
    /// A neighbour that writes directly.
    DiskNeighbour,
    /// A neighbour that writes through the page cache.
    Writeback,
    /// A neighbour that flushes each write.
    FsyncStorm,
    /// A disk that takes long for each write, and that nobody else uses.
    SlowDevice,
    /// A memory limit just above what is used.
    MemoryLimit,
    /// A limit on the victim's parent, filled by a neighbour.
    MemoryNeighbour,
    /// A helper process killed for lack of memory.
    OomKill,
    /// System calls refused in a sandbox, and tried again.
    SeccompSandbox,
    /// The same in a container.
    SeccompContainer,
    /// All requests want one lock.
    LockConvoy,
    /// Full collections of the JVM.
    GcPause,
    /// More CPU time for the same request.
    SlowCode,
    /// The last service waits by itself.
    SlowStore,
    /// A server without spans answers late.
    SlowPeer,
}

/// One fault of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// Where.
    pub victim: Service,
    /// How strongly, 0 to 1.
    pub strength: f64,
    /// Picks among what has no order (a CPU, a period).
    pub choice: usize,
}

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Spec {
    /// Its number.
    pub run: usize,
    /// None, one or two.
    pub faults: Vec<Fault>,
    /// Milliseconds of CPU time of a request in each service.
    pub cpu_ms: [u64; Service::COUNT],
    /// Bytes of an answer.
    pub size: u64,
    /// A new connection for each request.
    pub fresh: bool,
    /// Clients at once.
    pub clients: usize,
    /// Pause of a client after each answer.
    pub pause: Duration,
    /// Requests without the fault before it.
    pub lead: Duration,
    /// How long the fault is in place.
    pub hold: Duration,
}

use Kind::{
    ClientQuota, CpuNeighbour, DiskNeighbour, FsyncStorm, GcPause, IoLimit, ListenOverflow,
    LockConvoy, Loss, MemoryLimit, MemoryNeighbour, OomKill, OwnQuota, ParentQuota, RateLimit,
    Refused, SeccompContainer, SeccompSandbox, SlowCode, SlowDevice, SlowPeer, SlowStore,
    SnatExhausted, UdpFlood, Writeback,
};

impl Kind {
    /// All of them.
    pub const ALL: [Self; 25] = [
        OwnQuota,
        ParentQuota,
        ClientQuota,
        CpuNeighbour,
        RateLimit,
        Loss,
        Refused,
        UdpFlood,
        ListenOverflow,
        IoLimit,
        DiskNeighbour,
        Writeback,
        FsyncStorm,
        SlowDevice,
        MemoryLimit,
        MemoryNeighbour,
        OomKill,
        SeccompSandbox,
        SeccompContainer,
        LockConvoy,
        GcPause,
        SlowCode,
        SlowStore,
        SlowPeer,
        SnatExhausted,
    ];

    /// Those that come in turn. The rest comes by its name only: it needs more of the kernel.
    fn in_turn() -> &'static [Self] {
        &Self::ALL[..Self::ALL.len() - 1]
    }

    /// In words, as the tables have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            OwnQuota => "own_quota",
            ParentQuota => "parent_quota",
            ClientQuota => "client_quota",
            CpuNeighbour => "cpu_neighbour",
            RateLimit => "rate_limit",
            Loss => "loss",
            Refused => "refused",
            UdpFlood => "udp_flood",
            ListenOverflow => "listen_overflow",
            SnatExhausted => "snat_exhausted",
            IoLimit => "io_limit",
            DiskNeighbour => "disk_neighbour",
            Writeback => "writeback",
            FsyncStorm => "fsync_storm",
            SlowDevice => "slow_device",
            MemoryLimit => "memory_limit",
            MemoryNeighbour => "memory_neighbour",
            OomKill => "oom_kill",
            SeccompSandbox => "seccomp_sandbox",
            SeccompContainer => "seccomp_container",
            LockConvoy => "lock_convoy",
            GcPause => "gc_pause",
            SlowCode => "slow_code",
            SlowStore => "slow_store",
            SlowPeer => "slow_peer",
        }
    }

    /// Where it can be.
    const fn victims(self) -> &'static [Service] {
        use Service::{Front, Orders, Rates, Store};
        match self {
            OwnQuota => &[Front, Orders, Store, Rates],
            CpuNeighbour | SlowCode => &[Front, Orders, Store],
            ParentQuota | GcPause => &[Front],
            ClientQuota | SeccompSandbox | SlowPeer | SnatExhausted => &[Orders],
            RateLimit | Loss | Refused | UdpFlood => &[Orders, Store],
            ListenOverflow | IoLimit | DiskNeighbour | Writeback | FsyncStorm | SlowDevice
            | MemoryLimit | MemoryNeighbour | OomKill | SeccompContainer | SlowStore => &[Store],
            LockConvoy => &[Front, Store],
        }
    }
}

/// Pairs that can be told apart: of different mechanisms, in different services. The first
/// is half of the first reference incident (a quota and a refusing sandbox).
const PAIRS: [(Kind, Service, Kind, Service); 6] = [
    (OwnQuota, Service::Store, SeccompSandbox, Service::Orders),
    (OwnQuota, Service::Front, DiskNeighbour, Service::Store),
    (OwnQuota, Service::Orders, IoLimit, Service::Store),
    (Loss, Service::Orders, OwnQuota, Service::Store),
    (SlowPeer, Service::Orders, FsyncStorm, Service::Store),
    (OwnQuota, Service::Front, SeccompContainer, Service::Store),
];

/// What the runs are to be of.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// Everything in turn, nothing at all most of all.
    Mix,
    /// This in every run, anywhere.
    Only(Kind),
    /// A reference incident in every run.
    Incident(&'static Incident),
}

impl Wanted {
    /// By the name of a fault or of an incident.
    ///
    /// # Errors
    /// With the names that there are.
    pub fn named(name: &str) -> Result<Self, String> {
        if let Some(incident) = Incident::named(name) {
            return Ok(Self::Incident(incident));
        }
        if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.name() == name) {
            return Ok(Self::Only(kind));
        }
        let names: Vec<&str> = Kind::ALL
            .iter()
            .map(|kind| kind.name())
            .chain(INCIDENTS.iter().map(|incident| incident.name))
            .collect();
        Err(format!("no fault {name:?}; there are {}", names.join(", ")))
    }
}

/// Of fifteen runs those with one fault.
const SINGLE: [usize; 8] = [1, 3, 6, 8, 9, 11, 13, 14];

/// By which `store` is told to ask `rates`.
pub const ASKS_RATES: &str = "rates:1";

/// One run of a seed: two in five without any fault, one in fifteen with two.
#[must_use]
pub fn spec(seed: u64, run: usize, wanted: &Wanted) -> Spec {
    let mut random =
        StdRng::seed_from_u64(seed ^ (run as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let faults = match (run % 5, wanted) {
        (_, Wanted::Only(kind)) => vec![fault(*kind, None, &mut random)],
        (_, Wanted::Incident(incident)) => {
            let faults = incident.faults.iter();
            let of = |(kind, place): &(Kind, Service)| fault(*kind, Some(*place), &mut random);
            faults.map(of).collect()
        }
        (0 | 2, Wanted::Mix) => Vec::new(),
        (4, Wanted::Mix) if run % 3 == 1 => {
            let pair = PAIRS.choose(&mut random).unwrap_or(&PAIRS[0]);
            vec![
                fault(pair.0, Some(pair.1), &mut random),
                fault(pair.2, Some(pair.3), &mut random),
            ]
        }
        (_, Wanted::Mix) => {
            // In turn, so that each kind comes as often as the others; the seed says from where.
            let kinds = Kind::in_turn();
            let of_fifteen = SINGLE.iter().position(|at| *at == run % 15).unwrap_or(0);
            let turn = run / 15 * SINGLE.len() + of_fifteen + seed as usize % kinds.len();
            vec![fault(kinds[turn % kinds.len()], None, &mut random)]
        }
    };
    let convoy = faults
        .iter()
        .any(|f| matches!(f.kind, LockConvoy | ListenOverflow));
    let large = faults.iter().any(|f| f.kind == RateLimit);
    let new = faults
        .iter()
        .any(|f| matches!(f.kind, Refused | ListenOverflow | SnatExhausted));
    let translated = faults.iter().any(|f| f.kind == SnatExhausted);
    let sizes = [200, 2_000, 100_000];
    let mut pick = |from: u64, to: u64| random.random_range(from..=to);
    Spec {
        run,
        cpu_ms: [pick(4, 8), pick(3, 7), pick(3, 7), 3],
        size: if large {
            100_000
        } else {
            sizes[pick(0, 2) as usize]
        },
        fresh: new || pick(0, 3) == 0,
        clients: match wanted {
            Wanted::Incident(Incident {
                clients: Some(clients),
                ..
            }) => *clients,
            _ if convoy => 4,
            _ => pick(1, 2) as usize,
        },
        pause: Duration::from_millis(pick(5, 20)),
        lead: Duration::from_millis(pick(300, 700)),
        // A lost SYN is sent again after one second, and after two more.
        hold: Duration::from_millis(if translated {
            2_800
        } else {
            pick(1_500, 2_200)
        }),
        faults,
    }
}

fn fault(kind: Kind, victim: Option<Service>, random: &mut StdRng) -> Fault {
    let drawn = *kind.victims().choose(random).unwrap_or(&Service::Store);
    Fault {
        kind,
        victim: victim.unwrap_or(drawn),
        strength: f64::from(random.random_range(0..=20_u32)) / 20.0,
        choice: random.random_range(0..60),
    }
}

impl Spec {
    /// Without `rates`: what was to be done to it is done to who asks it.
    pub fn without_rates(&mut self) {
        for fault in &mut self.faults {
            if fault.victim == Service::Rates {
                fault.victim = Service::Store;
            }
        }
    }

    /// The requests of this run: every fifth takes a path that is slow by nature. Faults of
    /// the application come with them when `faulty`.
    #[must_use]
    pub fn script(&self, faulty: bool) -> Script {
        let request = |at: usize| {
            let report = at % 5 == 4;
            let steps = Service::ALL.map(|service| {
                let mut steps = vec![format!("cpu:{}", self.cpu_ms[service as usize])];
                if service == Service::Store {
                    steps.push("db:1".to_owned());
                    if report {
                        steps.extend(["cpu:25".to_owned(), ASKS_RATES.to_owned()]);
                    }
                }
                let faults = self
                    .faults
                    .iter()
                    .filter(|fault| faulty && fault.victim == service);
                steps.extend(faults.filter_map(|fault| step(fault, at)));
                format!("{}={}", service.name(), steps.join(","))
            });
            format!(
                "/{}?{}&size={}&fresh={}",
                if report { "report" } else { "buy" },
                steps.join("&"),
                self.size,
                u8::from(self.fresh)
            )
        };
        (0..10).map(request).collect()
    }
}

/// What a fault makes the victim do in the request `at` of the script.
fn step(fault: &Fault, at: usize) -> Option<String> {
    let range = |from, to| between(from, to, fault.strength) as u64;
    Some(match fault.kind {
        SeccompSandbox | SeccompContainer => format!("retry:{}", range(6.0, 30.0)),
        LockConvoy => format!("lock:{}", range(15.0, 50.0)),
        GcPause if at.is_multiple_of(2) => format!("gc:{}", range(1.0, 4.0)),
        SlowCode => format!("cpu:{}", range(40.0, 150.0)),
        SlowStore => format!("sleep:{}", range(60.0, 300.0)),
        SlowPeer => format!("peer:{}", range(60.0, 300.0)),
        ListenOverflow if at.is_multiple_of(10) => format!("deaf:{}", range(600.0, 1_200.0)),
        IoLimit => "db:1".to_owned(),
        SlowDevice => "archive:1".to_owned(),
        MemoryLimit | MemoryNeighbour => "touch:60".to_owned(),
        OomKill if at.is_multiple_of(2) => "child:200".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_the_same_each_time_and_alone() {
        for run in 0..60 {
            let (one, two) = (spec(7, run, &Wanted::Mix), spec(7, run, &Wanted::Mix));
            assert_eq!(format!("{one:?}"), format!("{two:?}"));
        }
        assert_ne!(
            format!("{:?}", spec(7, 1, &Wanted::Mix)),
            format!("{:?}", spec(8, 1, &Wanted::Mix))
        );
    }

    #[test]
    fn incidents_and_faults_have_names() -> Result<(), String> {
        let incident = Wanted::named("incident_1")?;
        assert_eq!(spec(1, 0, &incident).faults.len(), 2);
        let flood = &spec(1, 0, &Wanted::named("rtt-storm")?).faults[0];
        assert_eq!((flood.kind, flood.victim), (UdpFlood, Service::Store));
        let quota = Wanted::named("own_quota")?;
        assert_eq!(spec(1, 0, &quota).faults[0].kind, OwnQuota);
        assert!(Wanted::named("quota").is_err_and(|error| error.contains("own_quota")));
        Ok(())
    }

    #[test]
    fn a_third_is_healthy_and_every_kind_comes() {
        let specs: Vec<Spec> = (0..300).map(|run| spec(1, run, &Wanted::Mix)).collect();
        let healthy = specs.iter().filter(|spec| spec.faults.is_empty()).count();
        assert!(healthy >= 100, "{healthy}");
        assert!(specs.iter().any(|spec| spec.faults.len() == 2));
        let singles = specs.iter().filter(|spec| spec.faults.len() == 1).count();
        let all = Kind::in_turn();
        for kind in all {
            let is_it = |spec: &&Spec| spec.faults.len() == 1 && spec.faults[0].kind == *kind;
            let times = specs.iter().filter(is_it).count();
            assert!(
                times.abs_diff(singles / all.len()) <= 1,
                "{kind:?}: {times}"
            );
        }
    }
}
