//! Page faults that wait for a disk, against what the process itself knows of its pages: of a mapped
//! disk, and of memory that was pushed out to a swap space. The disk is a loop device that answers
//! so many requests a second.

use std::{
    fs::{self, OpenOptions},
    io,
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _, unix::fs::FileExt as _},
    path::{Path, PathBuf},
    ptr, slice,
    sync::atomic::{AtomicU64, Ordering},
};

use isostack_agent::{
    event::{Delay, Particulars},
    load::Settings,
    sensor::{Activation, KernelHistogram},
    vocabulary::Cause,
};

use super::{
    FAMILY, MS, Seen,
    cgroup::{Group, hierarchy_of},
    child::Child,
    load::MemoryGroup,
    observed::Observed,
    place::{IoGroup, LoopDisk},
    sleep,
};

const PAGE: usize = 4096;
/// Requests that the disk answers in a second.
const IOPS: u64 = 100;
/// Pages of a file that are touched, and as many that are read.
const TOUCHED: usize = 60;
/// From one to the next: farther than the kernel reads ahead.
const STRIDE: usize = 64 * PAGE;

/// What a child tells of itself.
#[repr(C)]
struct Told {
    /// Pages that were not there when it touched them.
    missing: AtomicU64,
    /// Major faults, as the kernel counts them.
    major: AtomicU64,
    /// What touching took that was neither on a CPU nor waiting for one.
    blocked_ns: AtomicU64,
}

/// Memory of its own, or a file's; never given back: a child ends soon.
fn map(bytes: usize, flags: i32, fd: i32) -> *mut u8 {
    let access = match fd {
        -1 => libc::PROT_READ | libc::PROT_WRITE,
        _ => libc::PROT_READ,
    };
    // SAFETY: a new mapping, wherever the kernel wants it.
    let at = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, fd, 0) };
    assert_ne!(at, libc::MAP_FAILED, "{}", io::Error::last_os_error());
    // No page is read before it is asked for.
    // SAFETY: the mapping just made.
    unsafe { libc::madvise(at, bytes, libc::MADV_RANDOM) };
    at.cast()
}

/// Room that a child shares with the test.
fn told() -> &'static Told {
    let room = map(PAGE, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1);
    // SAFETY: zeroes are a valid value, and nobody unmaps it.
    unsafe { &*room.cast::<Told>() }
}

fn major_faults() -> u64 {
    // SAFETY: zeroes are a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: room for the answer.
    unsafe { libc::getrusage(libc::RUSAGE_SELF, &raw mut usage) };
    u64::try_from(usage.ru_majflt).unwrap_or(0)
}

/// When this thread would have been here, had it never been blocked: the time now without what it was
/// on a CPU and waited for one, as the scheduler counts it.
fn blocked_since_start_ns() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let mut numbers = text.split_whitespace().map(|n| n.parse::<u64>().unwrap());
    let ran_or_waited: u64 = numbers.by_ref().take(2).sum();
    isostack_agent::time::MonoNs::now().0 - ran_or_waited
}

/// Touches a page; says whether it was not there.
fn touch(page: *const u8) -> bool {
    let mut there = 0_u8;
    // SAFETY: a page of a mapping, and room for one answer; then a byte of it.
    unsafe {
        libc::mincore(page.cast_mut().cast(), PAGE, &raw mut there);
        page.read_volatile();
    }
    there & 1 == 0
}

/// Touches `count` pages, and tells what that was.
fn touch_all(pages: *const u8, count: usize, told: &Told) {
    let (began, before) = (blocked_since_start_ns(), major_faults());
    for n in 0..count {
        let missing = touch(pages.wrapping_add(n * STRIDE));
        told.missing
            .fetch_add(u64::from(missing), Ordering::Relaxed);
    }
    let blocked_ns = blocked_since_start_ns() - began;
    told.blocked_ns.store(blocked_ns, Ordering::Relaxed);
    told.major.store(major_faults() - before, Ordering::Relaxed);
}

/// What the sensor says of a tracked child that enters these groups and does this.
fn seen(group: &Group, others: &[PathBuf], work: impl FnOnce()) -> Seen {
    let observed = Observed::start("wait", &Settings::default());
    observed.sensors.demand(Activation::WhileTracking, true);
    let child = Child::start(group, || {
        for group in others {
            if fs::write(group.join("cgroup.procs"), "0").is_err() {
                // SAFETY: ends this process.
                unsafe { libc::_exit(1) };
            }
        }
        // Until it is tracked; untold.
        sleep(100 * MS);
        work();
    });
    assert!(observed.sensors.track(child.pid()));
    assert_eq!(child.wait(), 0);
    observed.finish(group.id())
}

fn histogram(seen: &Seen, kind: &str) -> (u64, u64) {
    let all = seen.histograms(FAMILY);
    let of_kind = |(labels, histogram): &(Vec<String>, KernelHistogram)| {
        (labels[0] == kind).then(|| (histogram.count(), histogram.sum_ns))
    };
    all.iter().find_map(of_kind).unwrap_or_default()
}

fn check_ratio(what: &str, measured: u64, truth: u64, range: std::ops::RangeInclusive<f64>) {
    let ratio = measured as f64 / truth.max(1) as f64;
    assert!(
        range.contains(&ratio),
        "{what}: {measured} of {truth}, ratio {ratio:.3}"
    );
}

#[test]
fn page_faults_on_a_mapped_file_are_told_from_reads() {
    let disk = LoopDisk::new();
    let group = IoGroup::new();
    if let Err(why) = group.limit(&disk.number(), IOPS) {
        println!("cannot run here: {why}");
        return;
    }
    let others: Vec<PathBuf> = group.directories().map(Path::to_owned).collect();
    let told = told();
    let file = OpenOptions::new().read(true).open(&disk.path).unwrap();
    let fd = file.as_raw_fd();
    let seen = seen(&group.cpu, &others, || {
        let pages = map(TOUCHED * STRIDE, libc::MAP_SHARED, fd);
        touch_all(pages, TOUCHED, told);
        // Between the touched ones: nobody has them.
        let mut page = [0_u8; PAGE];
        // SAFETY: no memory is given; the reads fill the room that they are given.
        unsafe {
            libc::posix_fadvise(fd, 0, 0, libc::POSIX_FADV_RANDOM);
            for n in 0..TOUCHED {
                let at = (n * STRIDE + STRIDE / 2) as i64;
                libc::pread(fd, page.as_mut_ptr().cast(), PAGE, at);
            }
        }
    });
    let missing = told.missing.load(Ordering::Relaxed);
    let major = told.major.load(Ordering::Relaxed);
    assert!(missing >= TOUCHED as u64 - 5, "{missing}");
    assert!(major >= missing, "{major} of {missing}");

    let (faults, faults_ns) = histogram(&seen, "major_fault");
    let (reads, reads_ns) = histogram(&seen, "disk");
    check_ratio("faults", faults, major, 0.95..=1.1);
    check_ratio("reads", reads, TOUCHED as u64, 0.9..=1.2);
    let blocked_ns = told.blocked_ns.load(Ordering::Relaxed);
    check_ratio("time", faults_ns, blocked_ns, 0.95..=1.05);
    assert_eq!(histogram(&seen, "swap_in").0, 0);

    // The disk lets some pass and then none for a while: most of the time is long stretches.
    let told_ns = |is: &dyn Fn(&str) -> bool| -> u64 {
        let is_one = |delay: &&Delay| {
            delay.cause == Cause::BlockQueue
                && matches!(&delay.particulars, Particulars::SystemCall(call) if is(&call.name))
        };
        let told = seen.delays.iter().filter(is_one);
        told.map(|delay| delay.end.since(delay.start)).sum()
    };
    check_ratio(
        "faults told",
        told_ns(&|n| n == "page fault"),
        faults_ns,
        0.5..=1.0,
    );
    check_ratio(
        "reads told",
        told_ns(&|n| n == "pread64"),
        reads_ns,
        0.5..=1.0,
    );
    assert_eq!(told_ns(&str::is_empty), 0);
}

/// A swap space on a disk; off when dropped.
struct Swap(std::ffi::CString);

impl Swap {
    /// Fails where the kernel has none or does not allow it.
    fn on(disk: &LoopDisk, bytes: usize) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).open(&disk.path)?;
        let mut header = vec![0_u8; PAGE];
        // kernel: include/linux/swap.h: union swap_header: version, last page, bad pages.
        let last_page = u32::try_from(bytes / PAGE - 1).unwrap();
        header[1024..1028].copy_from_slice(&1_u32.to_ne_bytes());
        header[1028..1032].copy_from_slice(&last_page.to_ne_bytes());
        header[PAGE - 10..].copy_from_slice(b"SWAPSPACE2");
        file.write_all_at(&header, 0)?;
        file.sync_all()?;
        drop(file);
        let path = std::ffi::CString::new(disk.path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a string that ends in a zero.
        match unsafe { libc::swapon(path.as_ptr(), 0) } {
            0 => Ok(Self(path)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // SAFETY: a string that ends in a zero.
        if unsafe { libc::swapoff(self.0.as_ptr()) } != 0 {
            println!("swapoff: {}", io::Error::last_os_error());
        }
    }
}

/// So many reads a second of a disk by whoever is charged for swapping; as before when dropped.
struct ReadLimit(Option<(PathBuf, String)>);

impl ReadLimit {
    /// Where the I/O controller is of version 1, swapping is charged to nobody: to the root's group.
    fn set(group: &MemoryGroup, number: &str) -> Result<Self, String> {
        let (root, v1) = hierarchy_of("blkio");
        let write = |path: &Path, text: &str| {
            fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        if v1 {
            let file = root.join("blkio.throttle.read_iops_device");
            write(&file, &format!("{number} {IOPS}"))?;
            return Ok(Self(Some((file, format!("{number} 0")))));
        }
        write(&root.join("cgroup.subtree_control"), "+io")?;
        let file = group.memory().join("io.max");
        write(&file, &format!("{number} riops={IOPS}"))?;
        Ok(Self(None))
    }
}

impl Drop for ReadLimit {
    fn drop(&mut self) {
        if let Some((file, text)) = &self.0 {
            let _ = fs::write(file, text);
        }
    }
}

#[test]
fn memory_that_is_read_back_from_the_swap_space_is_a_swap_in() {
    const LIMIT: usize = 16 << 20;
    const USED: usize = 3 * LIMIT;
    let disk = LoopDisk::new();
    let group = MemoryGroup::new(LIMIT as u64);
    let limits = ReadLimit::set(&group, &disk.number());
    // Off before the disk is gone, also when something fails.
    let swap = Swap::on(&disk, 60 << 20);
    let (_limit, _swap) = match (limits, swap) {
        (Ok(limit), Ok(swap)) => (limit, swap),
        (Err(why), _) => return println!("cannot run here: {why}"),
        (_, Err(why)) => return println!("cannot run here: swapon: {why}"),
    };
    let told = told();
    let others = [group.memory().to_owned()];
    let seen = seen(&group.cpu, &others, || {
        let memory = map(USED, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1);
        // SAFETY: the mapping just made.
        let bytes = unsafe { slice::from_raw_parts_mut(memory, USED) };
        for page in bytes.chunks_mut(PAGE) {
            page[0] = 1;
        }
        touch_all(memory, USED / STRIDE, told);
    });
    let missing = told.missing.load(Ordering::Relaxed);
    let major = told.major.load(Ordering::Relaxed);
    assert!(missing >= (USED / STRIDE / 2) as u64, "{missing}");
    assert!(major >= missing, "{major} of {missing}");

    let (swapped, swapped_ns) = histogram(&seen, "swap_in");
    check_ratio("swap-ins", swapped, missing, 0.9..=1.2);
    let blocked_ns = told.blocked_ns.load(Ordering::Relaxed);
    check_ratio("time", swapped_ns, blocked_ns, 0.9..=1.05);
    let is_swap_in = |delay: &&Delay| {
        delay.cause == Cause::MemoryReclaim
            && matches!(
                delay.particulars,
                Particulars::Memory {
                    is_swap_in: true,
                    ..
                }
            )
    };
    let told = seen.delays.iter().filter(is_swap_in);
    let told_ns: u64 = told.map(|delay| delay.end.since(delay.start)).sum();
    check_ratio("told", told_ns, swapped_ns, 0.5..=1.0);
}
