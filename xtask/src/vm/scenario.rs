//! What is done in a guest: the shell script that its first process sources.

use std::{fs, path::Path};

use anyhow::Context as _;
use harness::artifact;

use super::initramfs::Archive;

/// How the guest's control groups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Cgroups {
    /// One hierarchy.
    V2,
    /// One for each controller, and an empty new one beside them.
    V1,
}

/// The tests that are about control groups run under both versions; the others say nothing
/// new under the second.
const BOTH_VERSIONS: &[&str] = &["cpu_sensor", "block_sensor", "memory_sensor"];
/// Seconds for a single test: in software emulation each is several times slower.
const TEST_LIMIT_S: u32 = 300;
/// The library's own tests, of which only those run that load the eBPF programs.
pub const UNIT: &str = "isostack_agent";
const UNIT_FILTER: &str = "load::";
/// Of each program what `--quick` runs: names that begin so.
const QUICK: &[(&str, &str)] = &[
    (UNIT, "load::tests::"),
    ("block_sensor", "direct_reads_are_counted_as_fio_does"),
    ("cpu_sensor", "throttled_intervals_add_up_to_cpu_stat"),
    ("cpu_sensor", "confined::"),
    ("kvm_sensor", "every_exit_is_counted_by_its_reason"),
    ("machine_sensor", "clock::"),
    ("machine_sensor", "unplug::"),
    (
        "memory_sensor",
        "kills_are_counted_as_the_cgroup_counts_them",
    ),
    ("net_sensor", "what_a_firewall_refuses"),
    ("process_sensor", "another_program_is_seen_at_once"),
    ("seccomp_sensor", "each_refusal_is_counted_once"),
    ("tcp_sensor", "retransmits_are_what_the_socket_counts"),
    ("tcp_sensor", "listener::"),
    ("tcp_sensor", "window::"),
    ("wait_sensor", "a_futex_is_a_lock"),
    ("wait_sensor", "faults::"),
];

impl Cgroups {
    /// `v2`
    pub const fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V1 => "v1",
        }
    }

    /// The archive of the plan to run these test programs; none: they say nothing under it.
    pub fn tests(self, programs: &[&str], quick: bool) -> anyhow::Result<Option<Vec<u8>>> {
        let useful = programs.iter().any(|program| self.wants(program));
        self.tests_of(useful, programs, quick)
    }

    fn tests_of(
        self,
        useful: bool,
        programs: &[&str],
        quick: bool,
    ) -> anyhow::Result<Option<Vec<u8>>> {
        if !useful {
            return Ok(None);
        }
        let mut archive = Archive::default();
        archive.file("plan", 0o644, self.plan(programs, quick)?.as_bytes())?;
        archive.finish().map(Some)
    }

    /// The archive of the plan to ask `doctor` only; none: it says nothing new under it.
    pub fn doctor(self) -> anyhow::Result<Option<Vec<u8>>> {
        self.tests_of(self == Self::V2, &[], false)
    }

    /// The archive of the plan to run a developer's own shell script.
    pub fn script(self, path: &Path) -> anyhow::Result<Option<Vec<u8>>> {
        let mut archive = Archive::default();
        let script = fs::read(path).with_context(|| path.display().to_string())?;
        archive.file("script", 0o755, &script)?;
        let plan = format!("cgroups {}\nscript\n", self.name());
        archive.file("plan", 0o644, plan.as_bytes())?;
        archive.finish().map(Some)
    }

    /// Whether this test program is run under it.
    fn wants(self, program: &str) -> bool {
        self == Self::V2 || BOTH_VERSIONS.contains(&program)
    }

    /// The script for these test programs.
    fn plan(self, programs: &[&str], quick: bool) -> anyhow::Result<String> {
        let mut lines = vec![
            format!("cgroups {}", self.name()),
            "doctor plain".to_owned(),
            "machine".to_owned(),
        ];
        if self == Self::V2 {
            lines.extend(["no_btf", "no_tracefs", "unprivileged", "no_perfmon"].map(str::to_owned));
        }
        if !programs.is_empty() {
            lines.push(format!("scratch {}", artifact::target_tmp()?.display()));
        }
        for program in programs.iter().filter(|program| self.wants(program)) {
            let mut filters: Vec<&str> = QUICK
                .iter()
                .filter(|(name, _)| quick && name == program)
                .map(|(_, filter)| *filter)
                .collect();
            if filters.is_empty() {
                filters.push(if *program == UNIT { UNIT_FILTER } else { "" });
            }
            let line = |filter| format!("tests {program} {TEST_LIMIT_S} {filter}");
            lines.extend(filters.into_iter().map(line));
        }
        if self == Self::V2 {
            // Last: there is no way back from it.
            lines.push("lockdown".to_owned());
        }
        lines.push(String::new());
        Ok(lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_repeats_only_what_it_changes() {
        let programs = ["isostack_agent", "cpu_sensor", "tcp_sensor"];
        let plan = Cgroups::V1.plan(&programs, false).unwrap();
        assert!(
            plan.starts_with("cgroups v1\ndoctor plain\nmachine\nscratch /"),
            "{plan}"
        );
        assert!(plan.ends_with("/tmp\ntests cpu_sensor 300 \n"), "{plan}");
        let plan = Cgroups::V2.plan(&programs, false).unwrap();
        assert!(plan.contains("tests isostack_agent 300 load::\n"), "{plan}");
        assert!(plan.contains("tests tcp_sensor 300 \n"), "{plan}");
        assert!(plan.ends_with("lockdown\n"), "{plan}");
        let plan = Cgroups::V2.plan(&programs, true).unwrap();
        assert!(plan.contains("tests tcp_sensor 300 retransmits_"), "{plan}");
    }

    /// A test that has another name by now would silently not run.
    #[test]
    fn the_quick_tests_are_there() {
        for (program, begins) in QUICK.iter().filter(|(program, _)| *program != UNIT) {
            let source = artifact::root().join(format!("agent/tests/{program}.rs"));
            let source = fs::read_to_string(&source).unwrap();
            let what = match begins.split_once("::") {
                Some((module, name)) => {
                    let path = format!("agent/tests/{program}/{module}.rs");
                    let tests = fs::read_to_string(artifact::root().join(path)).unwrap();
                    assert!(tests.contains(&format!("#[test]\nfn {name}")), "{begins}");
                    format!("\nmod {module};")
                }
                None => format!("\nfn {begins}"),
            };
            assert!(source.contains(&what), "{program} {begins}");
        }
        for test in super::super::programs::sensor_tests(None).unwrap() {
            assert!(QUICK.iter().any(|(program, _)| *program == test), "{test}");
        }
    }
}
