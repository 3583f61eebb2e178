//! The forms of `stat`, `status` and `cgroup`.

use crate::process::ProcessKey;

/// What is used of `/proc/PID/stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `comm`, lossily decoded.
    pub comm: String,
    /// One letter: `R`, `S`, `Z`, ...
    pub state: char,
    /// Parent, 0 for none.
    pub ppid: u32,
    /// Field 22: clock ticks since boot.
    pub start_ticks: u64,
    /// `PF_KTHREAD` of field 9: a thread of the kernel, which no program can be.
    pub kernel_thread: bool,
}

/// A kernel thread, in the flags of `task_struct`.
const PF_KTHREAD: u32 = 0x0020_0000;

impl Stat {
    /// Parses the file; `comm` may hold parentheses, blanks and newlines, so it ends at the
    /// *last* closing parenthesis.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let open = bytes.iter().position(|b| *b == b'(')?;
        let close = bytes.iter().rposition(|b| *b == b')')?;
        let comm = String::from_utf8_lossy(bytes.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
        // The rest starts with field 3.
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let ppid = fields.next()?.parse().ok()?;
        let flags: u32 = fields.nth(9 - 5)?.parse().unwrap_or(0);
        let start_ticks = fields.nth(22 - 10)?.parse().ok()?;
        Some(Self {
            comm,
            state,
            ppid,
            start_ticks,
            kernel_thread: flags & PF_KTHREAD != 0,
        })
    }
}

impl Stat {
    /// The key of the process whose `stat` this is.
    #[must_use]
    pub const fn key(&self, pid: u32) -> ProcessKey {
        ProcessKey {
            pid,
            start_ticks: self.start_ticks,
        }
    }
}

/// What is used of `/proc/PID/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `NSpid`: its pid in each pid namespace, the reader's first, its own last.
    pub ns_pids: Vec<u32>,
    /// `Seccomp`: 0 off, 1 strict, 2 filter.
    pub seccomp_mode: u32,
    /// `Seccomp_filters`, 0 where the kernel (before 5.9) does not say.
    pub seccomp_filters: u32,
    /// `NoNewPrivs`.
    pub no_new_privs: bool,
    /// Effective uid.
    pub uid: u32,
    /// `CapEff`.
    pub effective_capabilities: u64,
}

impl Status {
    /// Parses the file; lines that are missing leave their default.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut status = Self::default();
        // The kernel escapes newlines in `Name`, so that no line can be forged.
        for line in String::from_utf8_lossy(bytes).lines() {
            let Some((key, value)) = line.split_once(':') else {
                continue;
            };
            let mut values = value.split_ascii_whitespace();
            let first = values.clone().next().unwrap_or("");
            match key {
                "NSpid" => status.ns_pids = values.flat_map(str::parse).collect(),
                "Seccomp" => status.seccomp_mode = first.parse().unwrap_or(0),
                "Seccomp_filters" => status.seccomp_filters = first.parse().unwrap_or(0),
                "NoNewPrivs" => status.no_new_privs = first == "1",
                "Uid" => status.uid = values.nth(1).and_then(|v| v.parse().ok()).unwrap_or(0),
                "CapEff" => {
                    status.effective_capabilities = u64::from_str_radix(first, 16).unwrap_or(0);
                }
                _ => {}
            }
        }
        status
    }
}

/// One line of `/proc/PID/cgroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupLine {
    /// Hierarchy number, 0 for the unified one.
    pub hierarchy: u32,
    /// Controllers of a v1 hierarchy, e.g. `cpu,cpuacct` or `name=systemd`; empty for v2.
    pub controllers: String,
    /// Path as the reader's cgroup namespace shows it, without ` (deleted)`.
    pub path: String,
}

impl CgroupLine {
    /// Parses the file; what is not of the kernel's form is skipped.
    #[must_use]
    pub fn parse_all(bytes: &[u8]) -> Vec<Self> {
        let text = String::from_utf8_lossy(bytes);
        text.lines().filter_map(Self::parse).collect()
    }

    fn parse(line: &str) -> Option<Self> {
        let (hierarchy, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        path.starts_with('/').then(|| Self {
            hierarchy: hierarchy.parse().unwrap_or(0),
            controllers: controllers.to_owned(),
            path: path.to_owned(),
        })
    }

    /// Whether this is the v1 hierarchy of `controller`.
    #[must_use]
    pub fn has_controller(&self, controller: &str) -> bool {
        self.controllers.split(',').any(|c| c == controller)
    }
}
