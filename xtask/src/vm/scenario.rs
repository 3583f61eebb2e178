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

impl Cgroups {
    /// `v2`
    pub const fn name(self) -> &'static str {
        match self {
            Self::V2 => "v2",
            Self::V1 => "v1",
        }
    }

    /// The archive of the plan to run these test programs; none: they say nothing under it.
    pub fn tests(self, programs: &[&str]) -> anyhow::Result<Option<Vec<u8>>> {
        self.tests_of(programs.iter().any(|program| self.wants(program)), programs)
    }

    fn tests_of(self, useful: bool, programs: &[&str]) -> anyhow::Result<Option<Vec<u8>>> {
        if !useful {
            return Ok(None);
        }
        let mut archive = Archive::default();
        archive.file("plan", 0o644, self.plan(programs)?.as_bytes())?;
        archive.finish().map(Some)
    }

    /// The archive of the plan to ask `doctor` only; none: it says nothing new under it.
    pub fn doctor(self) -> anyhow::Result<Option<Vec<u8>>> {
        self.tests_of(self == Self::V2, &[])
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
    fn plan(self, programs: &[&str]) -> anyhow::Result<String> {
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
            let filter = if *program == UNIT { UNIT_FILTER } else { "" };
            lines.push(format!("tests {program} {TEST_LIMIT_S} {filter}"));
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
        let plan = Cgroups::V1.plan(&programs).unwrap();
        assert!(
            plan.starts_with("cgroups v1\ndoctor plain\nmachine\nscratch /"),
            "{plan}"
        );
        assert!(plan.ends_with("/tmp\ntests cpu_sensor 300 \n"), "{plan}");
        let plan = Cgroups::V2.plan(&programs).unwrap();
        assert!(plan.contains("tests isostack_agent 300 load::\n"), "{plan}");
        assert!(plan.contains("tests tcp_sensor 300 \n"), "{plan}");
        assert!(plan.ends_with("lockdown\n"), "{plan}");
    }
}
