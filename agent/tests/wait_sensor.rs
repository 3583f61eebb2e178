//! The `wait` sensor in the running kernel against a program that knows what it waits for.
//! Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, reason = "limits are for other test programs")]
#[path = "support/cgroup.rs"]
mod cgroup;
#[path = "support/child.rs"]
mod child;
#[path = "wait_sensor/faults.rs"]
mod faults;
#[allow(
    dead_code,
    reason = "programs that run into limits are for another test program"
)]
#[path = "memory_sensor/load.rs"]
mod load;
#[allow(dead_code, reason = "counters are for other test programs")]
#[path = "support/observed.rs"]
mod observed;
#[allow(dead_code, reason = "counts are for another test program")]
#[path = "block_sensor/place.rs"]
mod place;

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::AsRawFd as _,
    ptr, thread,
    time::Instant,
};

use cgroup::Group;
use child::Child;
use isostack_agent::{
    event::{Delay, Particulars},
    load::Settings,
    sensor::Activation,
    time::MonoNs,
    vocabulary::Cause,
};
use observed::{Observed, Seen};

/// Waits of each kind, and how long each is at least.
const WAITS: u32 = 20;
const MS: u64 = 1_000_000;
const LONG_NS: u64 = 5 * MS;

const FAMILY: &str = "isostack_wait_seconds";

/// What the sensor says of a tracked child that runs `load`, and how long that took.
fn seen(load: fn()) -> (Seen, u64) {
    let group = Group::new();
    let observed = Observed::start("wait", &Settings::default());
    observed.sensors.demand(Activation::WhileTracking, true);
    // The child only begins once it is tracked: it sleeps first, untold.
    let child = Child::start(&group, || {
        sleep(100 * MS);
        load();
    });
    assert!(observed.sensors.track(child.pid()));
    let began = Instant::now();
    assert_eq!(child.wait(), 0);
    let took = u64::try_from(began.elapsed().as_nanos()).unwrap();
    (observed.finish(group.id()), took)
}

fn sleep(ns: u64) {
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: ns as i64,
    };
    // SAFETY: a time that outlives the call.
    unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, 0, &raw const time, ptr::null_mut()) };
}

/// Waits for a word that nobody changes.
fn lock(ns: u64) {
    let word = 0_u32;
    let time = libc::timespec {
        tv_sec: 0,
        tv_nsec: ns as i64,
    };
    // SAFETY: both outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            &raw const word,
            libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
            0,
            &raw const time,
        )
    };
}

/// Whether the process of this `/proc/PID/stat` is asleep: `1234 (name) S 1 ...`.
fn sleeps(stat: i32) -> bool {
    let mut text = [0_u8; 64];
    // SAFETY: that much room.
    let length = unsafe { libc::pread(stat, text.as_mut_ptr().cast(), text.len(), 0) };
    let text = &text[..usize::try_from(length).unwrap_or(0)];
    text.windows(3).any(|three| three == b") S")
}

/// Reads from a child that keeps one waiting, through a descriptor of this kind.
fn read(pair: fn(&mut [i32; 2]) -> i32, ns: u64) {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors and one byte; the child ends without returning.
    unsafe {
        let reader = libc::open(
            c"/proc/self/stat".as_ptr(),
            libc::O_RDONLY | libc::O_CLOEXEC,
        );
        if reader < 0 || pair(&mut ends) != 0 {
            libc::_exit(1);
        }
        let child = libc::fork();
        if child == 0 {
            // Where the CPUs are slow it may be the first to run, and the other never waits.
            while !sleeps(reader) {
                libc::sched_yield();
            }
            sleep(ns);
            libc::write(ends[1], [1_u8].as_ptr().cast(), 1);
            libc::_exit(0);
        }
        let mut byte = 0_u8;
        libc::read(ends[0], (&raw mut byte).cast(), 1);
        libc::close(ends[0]);
        libc::close(ends[1]);
        libc::close(reader);
        // Has ended or is about to: nothing to wait for.
        while libc::waitpid(child, ptr::null_mut(), libc::WNOHANG) == 0 {}
    }
}

fn pipe(ends: &mut [i32; 2]) -> i32 {
    // SAFETY: room for two descriptors.
    unsafe { libc::pipe(ends.as_mut_ptr()) }
}

fn socketpair(ends: &mut [i32; 2]) -> i32 {
    // SAFETY: room for two descriptors.
    unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_STREAM, 0, ends.as_mut_ptr()) }
}

/// Waits of one cause by calls of one name; the child's first sleep is not among them.
fn waits<'a>(seen: &'a Seen, cause: Cause, call: &str) -> Vec<&'a Delay> {
    let of = |delay: &&Delay| {
        delay.cause == cause
            && delay.end.since(delay.start) < 90 * MS
            && matches!(&delay.particulars, Particulars::SystemCall(c) if c.name == call)
    };
    seen.delays.iter().filter(of).collect()
}

fn check(seen: &Seen, took: u64, cause: Cause, call: &str, kind: &str) {
    let waits = waits(seen, cause, call);
    assert_eq!(waits.len(), WAITS as usize, "{call}: {waits:?}");
    let sum: u64 = waits.iter().map(|d| d.end.since(d.start)).sum();
    // A timer never fires early (one tick of slack for the clocks of two CPUs).
    assert!(
        sum >= u64::from(WAITS) * (LONG_NS - MS / 10),
        "{call}: {sum} ns"
    );
    assert!(sum <= took, "{call}: {sum} ns of {took}");
    let histograms = seen.histograms(FAMILY);
    let of_kind = histograms.iter().find(|(labels, _)| labels[0] == kind);
    let (_, histogram) = of_kind.unwrap_or_else(|| panic!("no {kind} in {histograms:?}"));
    assert!(histogram.count() >= u64::from(WAITS));
    assert!(histogram.sum_ns >= sum);
}

#[test]
fn sleeps_are_the_programs_own() {
    let (seen, took) = seen(|| (0..WAITS).for_each(|_| sleep(LONG_NS)));
    check(&seen, took, Cause::Sleep, "clock_nanosleep", "sleep");
}

#[test]
fn a_futex_is_a_lock() {
    let (seen, took) = seen(|| (0..WAITS).for_each(|_| lock(LONG_NS)));
    check(&seen, took, Cause::LockWait, "futex", "lock");
}

#[test]
fn reading_is_a_wait_for_whoever_is_at_the_other_end() {
    let (from_pipe, took) = seen(|| (0..WAITS).for_each(|_| read(pipe, LONG_NS)));
    check(&from_pipe, took, Cause::SocketWait, "read", "socket");
    let (from_socket, took) = seen(|| (0..WAITS).for_each(|_| read(socketpair, LONG_NS)));
    check(&from_socket, took, Cause::SocketWait, "read", "socket");
}

#[test]
fn nearly_all_of_a_threads_time_is_told() {
    let (seen, _) = seen(|| {
        for _ in 0..WAITS {
            let began = MonoNs::now();
            while MonoNs::now().since(began) < 10 * MS {
                std::hint::spin_loop();
            }
            sleep(LONG_NS);
            lock(LONG_NS);
            read(pipe, LONG_NS);
        }
    });
    let mut stretches: Vec<(u64, u64)> = seen.delays.iter().map(|d| (d.start.0, d.end.0)).collect();
    stretches.sort_unstable();
    let (first, last) = (stretches[0].0, stretches.iter().map(|s| s.1).max().unwrap());
    let mut told = 0;
    let mut until = first;
    for (start, end) in stretches {
        told += end.saturating_sub(start.max(until));
        until = until.max(end);
    }
    let share = told as f64 / (last - first) as f64;
    assert!(
        share > 0.95,
        "told {share:.3} of {} ms",
        (last - first) / MS
    );
}

#[test]
fn of_who_sends_no_spans_nothing_is_told() {
    let group = Group::new();
    let observed = Observed::start("wait", &Settings::default());
    observed.sensors.demand(Activation::WhileTracking, true);
    Child::start(&group, || (0..WAITS).for_each(|_| sleep(LONG_NS))).wait();
    let seen = observed.finish(group.id());
    assert_eq!(seen.histograms(FAMILY), []);
    assert!(seen.delays.iter().all(|d| d.cause != Cause::Sleep));
}

/// Between two waits that are seen it may have gone on and waited again unseen: from the first to
/// the second is none.
#[test]
fn what_happened_while_a_process_was_not_tracked_is_no_wait() {
    let group = Group::new();
    let observed = Observed::start("wait", &Settings::default());
    observed.sensors.demand(Activation::WhileTracking, true);
    let (mut told, mut tell) = io::pipe().unwrap();
    let (mut asked, mut ask) = io::pipe().unwrap();
    let child = Child::start(&group, || {
        for _ in 0..3 {
            let _ = ask.write_all(b"?");
            let _ = told.read_exact(&mut [0]);
        }
    });
    let pid = child.pid();
    let stat = File::open(format!("/proc/{pid}/stat")).unwrap();
    let mut waits_again = || {
        asked.read_exact(&mut [0]).unwrap();
        while !sleeps(stat.as_raw_fd()) {
            thread::yield_now();
        }
        sleep(LONG_NS);
    };
    waits_again();
    assert!(observed.sensors.track(pid));
    tell.write_all(b"!").unwrap();
    waits_again();
    assert!(observed.sensors.untrack(pid));
    tell.write_all(b"!").unwrap();
    waits_again();
    assert!(observed.sensors.track(pid));
    tell.write_all(b"!").unwrap();
    assert_eq!(child.wait(), 0);
    let seen = observed.finish(group.id());
    let waits: Vec<_> = seen
        .delays
        .iter()
        .filter(|d| d.cause == Cause::SocketWait)
        .collect();
    assert!(waits.is_empty(), "{waits:?}");
}
