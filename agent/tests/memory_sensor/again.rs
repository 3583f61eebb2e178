//! What a limit pushed out of memory and is read again is told apart from what is read first.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use isostack_agent::{
    event::{Delay, Particulars},
    load::{Sensors, Settings},
    sensor::Value,
    time::MonoNs,
    vocabulary::Cause,
};

use crate::{
    load::{Hog, MemoryGroup},
    observed::Observed,
};

const LIMIT: u64 = 24 << 20;
const PAGE: u64 = 4096;
/// Readings of a file that are compared.
const READINGS: u64 = 12;
const REFAULTS: &str = "isostack_memory_refaults";

/// A process in a group that reads the file whose number it is told, and says when it has.
struct Reader {
    process: Hog,
    ask: io::PipeWriter,
    answers: io::PipeReader,
}

impl Reader {
    fn start(group: &MemoryGroup, files: Vec<PathBuf>) -> Self {
        let (mut asked, ask) = io::pipe().unwrap();
        let (answers, mut answer) = io::pipe().unwrap();
        let process = group.run(move || {
            let mut number = [0];
            while asked.read_exact(&mut number).is_ok() {
                read(&files[usize::from(number[0])]);
                let _ = answer.write_all(&number);
            }
        });
        Self {
            process,
            ask,
            answers,
        }
    }

    fn read(&mut self, number: u8) {
        self.ask.write_all(&[number]).unwrap();
        self.answers.read_exact(&mut [0]).unwrap();
    }
}

fn read(path: &Path) {
    let mut file = File::open(path).unwrap();
    let mut buffer = vec![0; 1 << 16];
    while file.read(&mut buffer).unwrap() > 0 {}
}

/// A file on a disk that is not in memory.
fn file(dir: &Path, name: &str, bytes: u64) -> PathBuf {
    let path = dir.join(name);
    let mut file = File::create(&path).unwrap();
    for _ in 0..bytes >> 20 {
        file.write_all(&[7; 1 << 20]).unwrap();
    }
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    path
}

/// `workingset_refault_file` of the group; none where the kernel does not say.
fn refaults(group: &MemoryGroup) -> Option<u64> {
    let text = fs::read_to_string(group.memory().join("memory.stat")).unwrap();
    let of = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map(|number| number.parse().unwrap())
    };
    of("workingset_refault_file ")
}

/// What the sensor counted of the group.
fn counted(sensors: &Sensors, group: &MemoryGroup) -> u64 {
    let measured = sensors.counted().measured.into_iter();
    let of_group = measured
        .filter(|series| series.key.cgroup_id == group.cpu.id() && series.family.name == REFAULTS);
    let count = |value| match value {
        Value::Count(n) => n,
        Value::Histogram(_) => panic!("it is a counter"),
    };
    of_group
        .inspect(|series| assert_eq!(series.labels, ["cgroup"]))
        .map(|series| count(series.value))
        .sum()
}

/// Nanoseconds that the device worked on what the process waited for from `since` to `until`, and
/// those of them that it was told to have waited for memory below a limit.
fn device_ns(delays: &[Delay], (since, until): (MonoNs, MonoNs)) -> (u64, u64) {
    let below_limit = |delay: &Delay| {
        let is_limit = matches!(delay.particulars, Particulars::Memory { memcg: true, .. });
        delay.cause == Cause::MemoryReclaim && is_limit
    };
    let again: Vec<&Delay> = delays.iter().filter(|delay| below_limit(delay)).collect();
    let mut sums = (0, 0);
    for delay in delays {
        let is_then = since <= delay.start && delay.end <= until;
        if delay.cause != Cause::BlockDevice || !is_then {
            continue;
        }
        let ns = delay.end.0 - delay.start.0;
        sums.0 += ns;
        if again
            .iter()
            .any(|of| of.tid == delay.tid && of.end == delay.end)
        {
            sums.1 += ns;
        }
    }
    sums
}

#[test]
fn what_is_read_again_below_a_limit_is_counted_as_the_cgroup_counts_it() {
    let observed = Observed::start("memory", &Settings::default());
    let group = MemoryGroup::new(LIMIT);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // In turns these two are always pushed out; the third is read once.
    let files = ["a", "b", "new"].map(|name| file(dir.path(), name, LIMIT));
    let mut reader = Reader::start(&group, files.to_vec());
    assert!(observed.sensors.track(reader.process.pid()));
    // The hooks come with the first reclaim; from then on what is pushed out is remembered.
    let mut turns = 0;
    while counted(&observed.sensors, &group) == 0 && turns < 100 {
        reader.read(0);
        reader.read(1);
        turns += 1;
        thread::sleep(Duration::from_millis(50));
    }
    if refaults(&group) == Some(0) {
        println!("cannot run here: the files are on no disk");
        return;
    }
    reader.read(0);
    reader.read(1);
    let told_from = MonoNs::now();
    let (truth_before, before) = (refaults(&group), counted(&observed.sensors, &group));
    for _ in 0..READINGS / 2 {
        reader.read(0);
        reader.read(1);
    }
    let (truth_after, after) = (refaults(&group), counted(&observed.sensors, &group));
    let told = (told_from, MonoNs::now());
    reader.read(2);
    let once = (told.1, MonoNs::now());
    let pid = reader.process.pid();
    reader.process.kill();
    let mut delays = observed.finish(group.cpu.id()).delays;
    delays.retain(|delay| delay.process.pid == pid);

    let (of_device, again) = device_ns(&delays, told);
    println!("{again} of {of_device} ns of the disk were for what was read again");
    assert!(of_device > 0 && again * 10 >= of_device * 9);
    let (of_device, again) = device_ns(&delays, once);
    println!("{again} of {of_device} ns were for what was read first");
    assert!(of_device > 0 && again * 10 <= of_device);

    let counted = after - before;
    println!(
        "{counted} pages counted of {READINGS} readings of {}",
        LIMIT / PAGE
    );
    assert!(counted > 0);
    let (Some(before), Some(after)) = (truth_before, truth_after) else {
        println!("not compared with memory.stat: this kernel counts none there");
        return;
    };
    let truth = after - before;
    let ratio = counted as f64 / truth as f64;
    println!("{truth} by the group's own count, ratio {ratio:.3}");
    assert!(
        (0.97..=1.03).contains(&ratio),
        "{counted} counted of {truth}, {ratio:.3}"
    );
}
