//! The `context` sensor in the running kernel against programs that publish in each of the ways
//! in which a thread-local variable can be reached. Needs root and a C compiler.

#![cfg(target_arch = "x86_64")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use agent_common::context::{ContextPlace, TRACES_MAP, TraceContext};
use aya::{EbpfLoader, maps::HashMap};
use isostack_agent::{
    event::{Away, Event},
    host::{
        proc::ProcDir,
        roots::Roots,
        thread_context::{Publishing, ThreadContexts},
    },
    load::{Sensors, Settings},
    metrics::AgentMetrics,
    process::ProcessKey,
    sensor::{Activation, SensorState},
};

/// The agent's programs and maps.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../agent-ebpf/agent-ebpf.bpf.o");

/// The variable and its only writer.
const LIBRARY: &str = r"
    __thread void *otel_thread_ctx_v1;
    void publish(void *record) { otel_thread_ctx_v1 = record; }
";

/// Two threads at work on spans of their own, one at work on none, and the first thread, which
/// never touched the variable. A record is 16 bytes of trace, 8 of span, then a 1 if it is valid.
const PROGRAM: &str = r#"
    #define _GNU_SOURCE
    #include <dlfcn.h>
    #include <pthread.h>
    #include <stdio.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <sys/prctl.h>
    #include <unistd.h>
    #ifdef LINKED
    void publish(void *);
    #else
    static void (*publish)(void *);
    #endif
    static void *work(void *as) {
        char record[28] = "trace-first-halftrace-2.span-";
        memcpy(record, "trace-1.trace-2.span-id", 23);
        record[23] = *(char *)as;
        record[24] = *(char *)as != 'i'; /* one is not valid */
        publish(record);
        for (;;) usleep(2000);
    }
    int main(int count, char **arguments) {
    #ifndef LINKED
        void *library = dlopen(arguments[1], RTLD_NOW);
        if (!library || !(publish = dlsym(library, "publish"))) return 1;
    #endif
        if (count > 2) {
            /* A process context that names another schema. */
            static char payload[64] = "\x12\x31\x0a\x1athreadlocal.schema_version\x12\x13\x0a\x11" "go_pprof_labels_v";
            struct { char signature[8]; unsigned version, size; unsigned long at, payload; } header =
                { "OTEL_CTX", 2, 51, 1, (unsigned long)payload };
            header.version = 2;
            int file = memfd_create("OTEL_CTX", 0);
            ftruncate(file, 4096);
            char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
            memcpy(page, &header, sizeof header);
        }
        pthread_t thread;
        pthread_create(&thread, 0, work, "1");
        pthread_create(&thread, 0, work, "2");
        pthread_create(&thread, 0, work, "i");
        puts("ready");
        fflush(stdout);
        for (;;) usleep(2000);
    }
"#;

/// A running publisher; gone when the test is.
struct Publisher {
    child: Child,
    key: ProcessKey,
    /// Whoever writes where nobody reads is killed.
    _output: BufReader<ChildStdout>,
    _dir: tempfile::TempDir,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn compile(dir: &Path, source: &str, name: &str, flags: &[&str]) -> PathBuf {
    let file = dir.join(format!("{name}.c"));
    std::fs::write(&file, source).unwrap();
    let out = dir.join(name);
    let compiled = Command::new("cc")
        .args(["-O1", "-pthread", "-w"])
        .arg(&file)
        .args(flags)
        .arg("-o")
        .arg(&out)
        .current_dir(dir)
        .output()
        .expect("there is a C compiler: the linker of this workspace is one");
    assert!(compiled.status.success(), "{compiled:?}");
    out
}

impl Publisher {
    /// As a library of its own, compiled with `flags`, loaded while the program runs.
    fn loaded(flags: &[&str], arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shared = [&["-shared", "-fPIC"], flags].concat();
        let library = compile(dir.path(), LIBRARY, "library.so", &shared);
        let program = compile(dir.path(), PROGRAM, "program", &["-ldl"]);
        let mut command = Command::new(program);
        command.arg(library).args(arguments);
        Self::start(command, dir)
    }

    /// Linked with the program, by `flags`.
    fn linked(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("library.c"), LIBRARY).unwrap();
        let flags = [&["-DLINKED"], flags].concat();
        let program = compile(dir.path(), PROGRAM, "program", &flags);
        Self::start(Command::new(program), dir)
    }

    fn start(mut command: Command, dir: tempfile::TempDir) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let key = ProcDir::new(&Roots::default(), child.id()).key().unwrap();
        Self {
            child,
            key,
            _output: output,
            _dir: dir,
        }
    }

    fn publishing(&self) -> Publishing {
        let contexts = ThreadContexts::new(Roots::default());
        let (seen, publishing) = contexts.look(self.key, None).unwrap().unwrap();
        // The same files are looked into once.
        assert_eq!(contexts.look(self.key, Some(seen)).unwrap(), None);
        publishing
    }

    /// What the sensor says of its threads.
    fn seen(&self) -> Vec<Away> {
        let Publishing::At(place) = self.publishing() else {
            panic!("{:?}", self.publishing());
        };
        self.seen_with(&Settings::default(), |_| place)
    }

    /// The same, where the sensors say where to look.
    fn seen_with(
        &self,
        settings: &Settings,
        place: impl Fn(&Sensors) -> ContextPlace,
    ) -> Vec<Away> {
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock();
        let all = Arc::new(Mutex::new(Vec::new()));
        let (seen, metrics) = (all.clone(), AgentMetrics::default());
        let sensors = Sensors::start(settings, metrics, move |batch| {
            let aways = batch.into_iter().filter_map(|event| match event {
                Event::Away(away) => Some(away),
                _ => None,
            });
            seen.lock().unwrap().extend(aways);
        })
        .unwrap();
        let statuses = sensors.statuses();
        let status = statuses.iter().find(|s| s.name == "context").unwrap();
        assert_eq!(status.state, SensorState::On, "{status:?}");
        assert!(sensors.track(self.key.pid));
        assert!(sensors.publishes(self.key.pid, Some(place(&sensors))));
        sensors.demand(Activation::WhilePublishing, true);
        thread::sleep(Duration::from_millis(500));
        sensors.stop();
        let all = all.lock().unwrap().clone();
        assert!(all.iter().all(|away| away.process == self.key), "{all:?}");
        all
    }
}

/// Each thread's stretches are in its own span's context, and nobody else's.
fn says_what_each_thread_works_on(publisher: &Publisher) {
    let seen = publisher.seen();
    let mut threads: Vec<u32> = seen.iter().map(|away| away.tid).collect();
    threads.sort_unstable();
    threads.dedup();
    assert_eq!(threads.len(), 4, "{seen:?}");
    let expected = [None, Some(b"span-id1"), Some(b"span-id2"), None];
    for (tid, expected) in threads.into_iter().zip(expected) {
        let of_thread = seen.iter().filter(|away| away.tid == tid);
        let mut count = 0;
        for away in of_thread {
            count += 1;
            match expected {
                None => assert!(away.context.is_none(), "{away:?}"),
                Some(span) => {
                    assert_eq!(&away.context.span, span, "{away:?}");
                    assert_eq!(&away.context.trace, b"trace-2.", "{away:?}");
                }
            }
        }
        assert!(count > 10, "{count} stretches of {tid}: {seen:?}");
    }
}

#[test]
fn of_a_library_by_descriptor() {
    says_what_each_thread_works_on(&Publisher::loaded(&["-mtls-dialect=gnu2"], &[]));
}

#[test]
fn of_a_library_by_module_and_offset() {
    says_what_each_thread_works_on(&Publisher::loaded(&["-mtls-dialect=gnu"], &[]));
}

#[test]
fn of_a_library_by_offset() {
    says_what_each_thread_works_on(&Publisher::loaded(&["-ftls-model=initial-exec"], &[]));
}

#[test]
fn of_a_library_that_was_there_at_the_start() {
    let flags = ["library.c", "-fPIC", "-mtls-dialect=gnu2", "-rdynamic"];
    says_what_each_thread_works_on(&Publisher::linked(&flags));
}

#[test]
fn of_a_program_at_a_fixed_address() {
    let flags = ["library.c", "-no-pie", "-fno-pie", "-rdynamic"];
    says_what_each_thread_works_on(&Publisher::linked(&flags));
}

#[test]
fn a_schema_that_is_not_known_is_not_followed() {
    let publisher = Publisher::loaded(&[], &["go"]);
    let Publishing::Unusable(reason) = publisher.publishing() else {
        panic!("{:?}", publisher.publishing());
    };
    assert!(reason.contains("`go_pprof_labels_v`"), "{reason}");
}

#[test]
fn who_does_not_publish_is_not_followed() {
    let key = ProcDir::new(&Roots::default(), std::process::id()).key();
    let contexts = ThreadContexts::new(Roots::default());
    let (_, publishing) = contexts.look(key.unwrap(), None).unwrap().unwrap();
    assert_eq!(publishing, Publishing::Nothing);
}

#[test]
fn another_program_and_what_it_loads_are_found_too() {
    let dir = tempfile::tempdir().unwrap();
    let shared = ["-shared", "-fPIC"];
    let library = compile(dir.path(), LIBRARY, "library.so", &shared);
    let program = compile(dir.path(), PROGRAM, "program", &["-ldl"]);
    let mut command = Command::new("sh");
    command
        .args(["-c", "echo ready; read go; exec \"$0\" \"$1\""])
        .args([program, library])
        .stdin(Stdio::piped());
    let mut publisher = Publisher::start(command, dir);
    let contexts = ThreadContexts::new(Roots::default());
    let (seen, publishing) = contexts.look(publisher.key, None).unwrap().unwrap();
    assert_eq!(publishing, Publishing::Nothing, "a shell");
    drop(publisher.child.stdin.take()); // the shell goes on
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match contexts.look(publisher.key, Some(seen)).unwrap() {
            Some((_, Publishing::At(_))) => return,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// The host's `/sys`, but for a BPF file system of its own in `fs/bpf`.
struct OwnSys(tempfile::TempDir);

impl OwnSys {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir("/sys").unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "fs" {
                symlink(entry.path(), dir.path().join(entry.file_name())).unwrap();
            }
        }
        let own = Self(dir);
        std::fs::create_dir_all(own.bpf()).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "bpf", "bpf"])
            .arg(own.bpf())
            .status();
        assert!(mounted.unwrap().success(), "no BPF file system");
        own
    }

    fn bpf(&self) -> PathBuf {
        self.0.path().join("fs/bpf")
    }
}

impl Drop for OwnSys {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.bpf()).status();
    }
}

/// As OpenTelemetry's eBPF instrumentation pins it: its map is made from the same definition as that
/// which the agent reads it by, and found by its path only.
#[test]
fn what_other_instrumentation_says_of_a_thread_is_read_from_its_map() {
    let sys = OwnSys::new();
    let roots = Roots {
        sysfs: sys.0.path().to_owned(),
        ..Roots::default()
    };
    let settings = Settings {
        roots,
        ..Settings::default()
    };
    std::fs::create_dir(sys.bpf().join("otel")).unwrap();
    let pin = sys.bpf().join("otel").join(TRACES_MAP);
    let mut other = EbpfLoader::new()
        .map_max_entries("EVENTS", 1 << 16)
        .map_pin_path(TRACES_MAP, pin.as_path())
        .load(OBJECT)
        .unwrap();
    let map = other.take_map(TRACES_MAP).unwrap();
    let mut traces: HashMap<_, u64, TraceContext> = HashMap::try_from(map).unwrap();

    let publisher = Publisher::loaded(&[], &[]);
    let pid = publisher.key.pid;
    let first = u64::from(pid) << 32 | u64::from(pid);
    let context = [*b"trace-1.", *b"trace-2.", *b"others-1"].map(u64::from_ne_bytes);
    traces.insert(first, context, 0).unwrap();
    let of_others = |sensors: &Sensors| sensors.published_by_others().unwrap();
    let seen = publisher.seen_with(&settings, of_others);
    assert!(seen.len() > 10, "{seen:?}");
    for away in &seen {
        assert_eq!(away.tid, pid, "of the others nothing is known: {away:?}");
        assert_eq!(&away.context.trace, b"trace-2.", "{away:?}");
        assert!(away.context.is_trace_only, "{away:?}");
    }
    assert!(pin.exists(), "the agent left it where it was");

    // Another map of that name is not read, and harms nobody.
    std::fs::remove_file(&pin).unwrap();
    other.map("TRACKED").unwrap().pin(&pin).unwrap();
    let metrics = AgentMetrics::default();
    let sensors = Sensors::start(&settings, metrics, |_| {}).unwrap();
    assert_eq!(sensors.published_by_others(), None);
    sensors.stop();
}
