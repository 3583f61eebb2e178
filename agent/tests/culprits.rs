//! Who is blamed for a delay, with real neighbours in real cgroups. Needs root, fio, mkfs.ext4,
//! a loop device and `ip`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "culprits/answers.rs"]
mod answers;
#[path = "support/cgroup.rs"]
#[allow(dead_code, reason = "limits are for other test programs")]
mod cgroup;
#[path = "culprits/home.rs"]
mod home;
#[path = "support/netns.rs"]
mod netns;
#[path = "block_sensor/place.rs"]
#[allow(dead_code, reason = "counts and limits are for another test program")]
mod place;

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use bytes::Bytes;
use home::Home;
use isostack_agent::{
    event::{Delay, Disk, Event, Flow, MemoryLimit, Particulars, Resource, Slice},
    host::{identify::Identifier, roots::Roots},
    load::{Sensors, Settings},
    metrics::AgentMetrics,
    pipeline::{Pipeline, PipelineConfig},
    process::SharedIdentity,
    run::attribute::Attributor,
    sensor::{Activation, Selection},
    span::{Joined, Resource as SpanResource, ResourceSpans, SpanBatch, SpanView},
    time::{MonoNs, UnixNs, WallClock},
    verdict::Verdict,
    vocabulary::{Cause, Confidence, Fault},
};
use netns::Pair;
use place::LoopDisk;
use tokio::sync::mpsc;

/// Loads disturb each other: one test at a time.
static TURN: Mutex<()> = Mutex::new(());

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;

/// Running sensors, and events as the pipeline gets them.
struct Agent {
    sensors: Sensors,
    identifier: Arc<Identifier>,
    events: mpsc::Receiver<Vec<Event>>,
    metrics: AgentMetrics,
    _turn: MutexGuard<'static, ()>,
}

impl Agent {
    fn start(names: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = AgentMetrics::default();
        let identifier = Arc::new(Identifier::new(Roots::default(), metrics.clone()));
        let (sender, events) = mpsc::channel(16_384);
        let mut attributor = Attributor::new(identifier.clone(), sender, metrics.clone());
        let settings = Settings {
            selection: Selection::parse(names).unwrap(),
            // What a test says is not to be thinned by what it costs.
            sensor_budget_cores: 1.0,
            ..Settings::default()
        };
        let sensors = Sensors::start(&settings, metrics.clone(), move |events| {
            attributor.take(events);
        })
        .unwrap();
        Self {
            sensors,
            identifier,
            events,
            metrics,
            _turn: turn,
        }
    }

    /// Who a process is, once it lives where it shall.
    fn identify(&self, pid: u32, home: &Home) -> SharedIdentity {
        loop {
            let identity = self.identifier.look_up_pid(pid).unwrap();
            if identity.cgroup_id == home.cpu.id() {
                return identity;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn name_of(&self, home: &Home) -> String {
        let (_, workload) = self.identifier.inhabitant_of_cgroup(home.cpu.id()).unwrap();
        workload.display_name()
    }

    /// Everything that was seen; the sensors are stopped.
    fn finish(mut self) -> Seen {
        thread::sleep(Duration::from_millis(200));
        self.sensors.stop();
        let mut all = Vec::new();
        while let Ok(batch) = self.events.try_recv() {
            all.extend(batch);
        }
        Seen {
            events: all,
            metrics: self.metrics,
        }
    }
}

struct Seen {
    events: Vec<Event>,
    metrics: AgentMetrics,
}

impl Seen {
    /// Delays of one process.
    fn delays(&self, pid: u32, cause: Cause) -> impl Iterator<Item = &Delay> {
        self.events.iter().filter_map(move |event| match event {
            Event::Delay(d) if d.process.pid == pid && d.cause == cause => Some(d),
            _ => None,
        })
    }

    /// A disk that somebody used, by its name.
    fn disk(&self, name: &str) -> Option<Arc<Disk>> {
        self.events.iter().find_map(|event| match event {
            Event::Consumption(c) => match &c.resource {
                Resource::Disk(disk) if disk.name == name => Some(disk.clone()),
                _ => None,
            },
            _ => None,
        })
    }

    /// What one cgroup consumed, of those resources.
    fn consumed(&self, home: &Home, of: impl Fn(&Resource) -> bool) -> u64 {
        let amounts = self.events.iter().filter_map(|event| match event {
            Event::Consumption(c) if c.cgroup_id == home.cpu.id() && of(&c.resource) => {
                Some(c.amount)
            }
            _ => None,
        });
        amounts.sum()
    }

    /// The verdict on a span of `victim` in that time, of an operation that is usually done in
    /// 20 ms and waits for nothing; `extra` is seen as well.
    fn verdict(
        &self,
        victim: &SharedIdentity,
        (start, end): (u64, u64),
        extra: &[Delay],
    ) -> Option<Arc<Verdict>> {
        let now = MonoNs::now();
        let clock = WallClock::new(now, UnixNs::now());
        let mut pipeline = Pipeline::new(
            PipelineConfig::default(),
            clock.clone(),
            self.metrics.clone(),
        );
        let extra = extra.iter().cloned().map(Event::Delay);
        for event in self.events.iter().cloned().chain(extra) {
            pipeline.on_event(&event, now);
        }
        // Usual ones, long before anything was seen.
        let quiet = now.0 - 110 * S;
        let mut times: Vec<(u64, u64)> = (0..40)
            .map(|n| (quiet + n * 30 * MS, quiet + n * 30 * MS + 20 * MS))
            .collect();
        times.push((start, end));
        let spans: Vec<SpanView> = times
            .iter()
            .enumerate()
            .map(|(n, (start, end))| SpanView {
                trace_id: [1; 16],
                span_id: (n as u64 + 1).to_be_bytes(),
                start_unix_ns: clock.wall(MonoNs(*start)).0,
                end_unix_ns: clock.wall(MonoNs(*end)).0,
                kind: 2,
                name: 0..9,
                ..SpanView::default()
            })
            .collect();
        let batch = SpanBatch {
            payload: Bytes::from_static(b"GET /cart"),
            received: now,
            resources: vec![ResourceSpans {
                spans: 0..spans.len(),
                resource: Arc::new(SpanResource {
                    service: "shop".into(),
                    ..SpanResource::default()
                }),
                joined: Joined {
                    identity: Some(victim.clone()),
                    confidence: Confidence::Process,
                },
            }],
            spans,
            permit: None,
        };
        pipeline.on_batch(batch);
        let mut last = None;
        pipeline.flush(now, &mut |_, judged| last = judged.last().cloned());
        last.unwrap().verdict
    }
}

/// What a thread of that process is told to have waited for: how long a real wait is depends on
/// the disk and on who else runs.
fn told(
    victim: &SharedIdentity,
    cause: Cause,
    (start, end): (u64, u64),
    particulars: Particulars,
) -> Delay {
    Delay {
        cause,
        start: MonoNs(start),
        end: MonoNs(end),
        process: victim.process,
        tid: victim.process.pid,
        cpu: 0,
        cgroup_id: victim.cgroup_id,
        particulars,
    }
}

/// For a second, however fast the disk is: what is judged must be slower than usual everywhere.
const READS: &str = "exec fio --name=victim --thread --ioengine=psync --rw=randread --bs=64k \
                     --direct=1 --time_based --runtime=1 --randrepeat=1 --filename=";

/// The victim reads a disk while `hog` does what it does; returns the verdict and the hog's name.
fn beside(hog_script: impl Fn(&LoopDisk) -> String) -> (Option<Arc<Verdict>>, String) {
    let agent = Agent::start("block");
    let disk = LoopDisk::new();
    let (victim, hog) = (Home::new(), Home::new());
    let mut noise = hog.spawn(&hog_script(&disk));
    let mut reader = victim.spawn(&format!("{READS}{}", disk.path.display()));
    let pid = reader.pid();
    let identity = agent.identify(pid, &victim);
    assert!(agent.sensors.track(pid));
    noise.begin();
    thread::sleep(Duration::from_millis(700));
    let start = MonoNs::now();
    reader.begin();
    reader.end();
    let span = (start.0, MonoNs::now().0);
    let name = agent.name_of(&hog);
    // What is under way is told once more comes.
    thread::sleep(Duration::from_millis(200));
    drop(noise);
    let seen = agent.finish();
    let of_disk = |r: &Resource| matches!(r, Resource::Disk(d) if d.name == disk.name);
    assert!(
        seen.consumed(&hog, of_disk) > 0,
        "the neighbour was not seen"
    );
    let device = seen.disk(&disk.name).expect("the neighbour used it");
    let wait = told(
        &identity,
        Cause::BlockDevice,
        span,
        Particulars::Disk(device),
    );
    (seen.verdict(&identity, span, &[wait]), name)
}

#[test]
fn who_fills_the_disk_is_named() {
    let (verdict, hog) = beside(|disk| {
        format!(
            "exec fio --name=hog --thread --ioengine=psync --rw=write --bs=4m --direct=1 \
             --numjobs=8 --time_based --runtime=60 --filename={}",
            disk.path.display()
        )
    });
    let verdict = verdict.expect("it waited for nothing but the disk");
    assert_eq!(verdict.culprit, hog, "{verdict:?}");
    assert!(verdict.summary.contains(&hog), "{}", verdict.summary);
}

/// What the kernel writes back later is nobody's by the I/O controller of version 1.
#[test]
fn whose_data_is_written_back_is_named() {
    let mount = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let at = mount.path().display().to_string();
    let (verdict, hog) = beside(|disk| {
        let path = disk.path.display().to_string();
        for command in [
            vec!["mkfs.ext4", "-q", "-F", &path],
            vec!["mount", &path, &at],
        ] {
            let status = Command::new(command[0])
                .args(&command[1..])
                .status()
                .unwrap();
            assert!(status.success(), "{command:?}");
        }
        format!(
            "while :; do dd if=/dev/zero of={at}/f bs=1M count=32 conv=notrunc 2>&1; \
             sync -f {at}/f; done"
        )
    });
    let unmounted = Command::new("umount").arg(&at).status().unwrap();
    assert!(unmounted.success());
    let verdict = verdict.expect("it waited for nothing but the disk");
    assert_eq!(verdict.culprit, hog, "{verdict:?}");
}

/// The test's own disk alone: the one below it is everybody's.
#[test]
fn a_slow_disk_without_neighbours_has_no_culprit() {
    let agent = Agent::start("block");
    let disk = LoopDisk::new();
    let victim = Home::new();
    let mut reader = victim.spawn(&format!("{READS}{}", disk.path.display()));
    let pid = reader.pid();
    let identity = agent.identify(pid, &victim);
    assert!(agent.sensors.track(pid));
    let start = MonoNs::now();
    reader.begin();
    reader.end();
    let span = (start.0, MonoNs::now().0);
    let seen = agent.finish();
    let device = seen.disk(&disk.name).expect("the reader used it");
    let wait = told(
        &identity,
        Cause::BlockDevice,
        span,
        Particulars::Disk(device),
    );
    let verdict = seen.verdict(&identity, span, &[wait]);
    let verdict = verdict.expect("it waited for nothing but the disk");
    assert_eq!(verdict.culprit, "", "{verdict:?}");
}

/// The neighbour's reclaim is real; the victim's wait, which would be short and rare, is told.
#[test]
fn for_whom_memory_is_freed_is_named() {
    let agent = Agent::start("memory");
    let (victim, hog) = (Home::new(), Home::new());
    let parent = hog.memory_limit(32 << 20);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = dir.path().join("data");
    std::fs::write(&file, vec![7; 96 << 20]).unwrap();
    let data = std::fs::File::open(&file).unwrap();
    data.sync_all().unwrap();
    // Out of the cache, so that it is charged to the reader.
    rustix::fs::fadvise(&data, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    let mut waiting = victim.spawn("exec sleep 60");
    let identity = agent.identify(waiting.pid(), &victim);
    waiting.begin();
    let read = file.display();
    let mut noise = hog.spawn(&format!(
        "for i in 1 2 3 4 5 6; do cat {read} > /dev/null; done"
    ));
    let start = MonoNs::now().0;
    noise.begin();
    noise.end();
    let end = MonoNs::now().0;
    let seen = agent.finish();
    assert!(seen.consumed(&hog, |r| *r == Resource::Memory { memcg: true }) > 0);
    let wait = |is_ancestor| {
        let limit = MemoryLimit {
            cgroup_path: if is_ancestor {
                "/".into()
            } else {
                parent.clone()
            },
            bytes: 32 << 20,
            file: "memory.limit_in_bytes",
            is_ancestor,
        };
        let particulars = Particulars::Memory {
            memcg: true,
            limit: Some(Arc::new(limit)),
            is_swap_in: false,
        };
        told(&identity, Cause::MemoryReclaim, (start, end), particulars)
    };
    let verdict = seen
        .verdict(&identity, (start, end), &[wait(true)])
        .unwrap();
    assert!(verdict.culprit.contains("isostack-test"), "{verdict:?}");
    let own = seen
        .verdict(&identity, (start, end), &[wait(false)])
        .unwrap();
    assert_eq!(own.culprit, "", "its own limit is nobody else's doing");
}

/// The flood is real; the retransmission that it would cause at some time is told.
#[test]
fn who_floods_the_network_is_named() {
    let agent = Agent::start("tcp,net");
    let pair = Pair::ipv4_only();
    let (victim, hog) = (Home::new(), Home::new());
    let mut waiting = victim.spawn("exec sleep 60");
    let identity = agent.identify(waiting.pid(), &victim);
    waiting.begin();
    let flood = format!(
        "exec nsenter {} python3 -c 'import socket, time\ns = socket.socket(socket.AF_INET, \
         socket.SOCK_DGRAM)\ns.connect((\"{}\", 9))\nend = time.time() + 1.5\nwhile time.time() < \
         end:\n  try: s.send(b\"x\" * 64)\n  except OSError: pass'",
        pair.a.net(),
        pair.b.address
    );
    let mut noise = hog.spawn(&flood);
    noise.begin();
    thread::sleep(Duration::from_millis(1_000));
    let name = agent.name_of(&hog);
    noise.end();
    let seen = agent.finish();
    let floods = seen.events.iter().filter_map(|event| match event {
        Event::Consumption(c) if c.cgroup_id == hog.cpu.id() => Some((c.start.0, c.end.0)),
        _ => None,
    });
    let (start, end) = floods.fold((u64::MAX, 0), |(start, end), (from, to)| {
        (start.min(from), end.max(to))
    });
    assert!(start < end, "the flood was not seen");
    let wait = |slice| {
        let flow = Flow {
            slice: Some(slice),
            device: "ve2".into(),
            reason: String::new(),
        };
        let particulars = Particulars::Flow(Arc::new(flow));
        told(&identity, Cause::TcpRetransmit, (start, end), particulars)
    };
    let same = seen.verdict(&identity, (start, end), &[wait(Slice::Container)]);
    assert_eq!(same.unwrap().culprit, name);
    let other = seen.verdict(&identity, (start, end), &[wait(Slice::Physical)]);
    assert_eq!(other.unwrap().culprit, "", "it went another way");
}
