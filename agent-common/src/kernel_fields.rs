//! The one table of kernel structure members that the programs read.
//!
//! The daemon resolves each in the running kernel's BTF and hands the byte offset to the
//! programs as a constant of the same name; what the kernel does not have is [`ABSENT`],
//! and the verifier then removes the code that would have used it. A path goes through
//! embedded structures (`se.cfs_rq`), anonymous members are searched, `[name]` is an array
//! element whose index is the value of an enumerator, and the size is checked so that a
//! member that became something else counts as absent.

/// Offset of a member that the running kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelField {
    /// Name of the constant in the eBPF object.
    pub symbol: &'static str,
    /// The structure.
    pub structure: &'static str,
    /// Path of the member.
    pub path: &'static str,
    /// Its size in bytes.
    pub size: u32,
    /// The `cpu` sensor cannot work without it.
    pub required: bool,
}

/// Calls the macro `$then` with every row:
/// `CONSTANT: "structure" "path" bytes required|optional, "what it is";`
#[macro_export]
macro_rules! for_each_kernel_field {
    ($then:ident) => {
        $then! {
            TASK_PID: "task_struct" "pid" 4 required, "thread id";
            TASK_TGID: "task_struct" "tgid" 4 required, "thread group id";
            TASK_GROUP_LEADER: "task_struct" "group_leader" 8 required, "first thread of the group";
            TASK_START_BOOTTIME: "task_struct" "start_boottime" 8 required, "ns since boot; 5.5";
            TASK_CFS_RQ: "task_struct" "se.cfs_rq" 8 required, "queue of the task's group on its CPU; FAIR_GROUP_SCHED";
            TASK_CGROUPS: "task_struct" "cgroups" 8 required, "its css_set";
            TASK_LAST_QUEUED: "task_struct" "sched_info.last_queued" 8 required, "rq clock at which it became runnable; SCHED_INFO";
            TASK_LAST_ARRIVAL: "task_struct" "sched_info.last_arrival" 8 required, "rq clock at which it last got a CPU";
            TASK_RUN_DELAY: "task_struct" "sched_info.run_delay" 8 required, "ns waited so far, throttle included";
            TASK_PCOUNT: "task_struct" "sched_info.pcount" 8 required, "times it got a CPU";
            TASK_THROTTLED: "task_struct" "throttled" 1 optional, "taken off its queue by a quota; 6.18";
            CFS_RQ_RQ: "cfs_rq" "rq" 8 required, "the CPU's queue";
            CFS_RQ_TG: "cfs_rq" "tg" 8 optional, "its group";
            CFS_RQ_THROTTLE_COUNT: "cfs_rq" "throttle_count" 4 optional, "throttled groups among it and its ancestors";
            CFS_RQ_THROTTLED_CLOCK: "cfs_rq" "throttled_clock" 8 optional, "rq clock at which this very group was throttled";
            CFS_RQ_SELF_CLOCK: "cfs_rq" "throttled_clock_self" 8 optional, "rq clock since which it is held back, by itself or an ancestor; 6.6";
            CFS_RQ_SELF_TIME: "cfs_rq" "throttled_clock_self_time" 8 optional, "ns held back so far, without the present throttle; 6.6";
            CFS_RQ_PELT_CLOCK: "cfs_rq" "throttled_clock_pelt" 8 optional, "load-tracking clock at the start of the last throttle";
            CFS_RQ_PELT_TIME: "cfs_rq" "throttled_clock_pelt_time" 8 optional, "as the self time, in the load-tracking clock";
            RQ_CLOCK: "rq" "clock" 8 required, "the clock of everything above";
            RQ_CLOCK_PELT: "rq" "clock_pelt" 8 optional, "load-tracking clock, lost idle time included";
            RQ_LOST_IDLE_TIME: "rq" "lost_idle_time" 8 optional, "what to subtract from it";
            TG_PARENT: "task_group" "parent" 8 optional, "the group above";
            TG_CFS_RQ: "task_group" "cfs_rq" 8 optional, "its queues by CPU";
            TG_CGROUP: "task_group" "css.cgroup" 8 optional, "its cgroup";
            CSS_SET_DFL_CGRP: "css_set" "dfl_cgrp" 8 required, "cgroup in the unified hierarchy";
            CSS_SET_CPU: "css_set" "subsys[cpu_cgrp_id]" 8 required, "state in the CPU controller's hierarchy; CGROUP_SCHED";
            CSS_CGROUP: "cgroup_subsys_state" "cgroup" 8 required, "the cgroup of a state";
            CGROUP_KN: "cgroup" "kn" 8 required, "its directory";
            KERNFS_NODE_ID: "kernfs_node" "id" 8 required, "inode; 5.5";
        }
    };
}

macro_rules! table {
    ($($name:ident: $structure:literal $path:literal $size:literal $need:ident, $what:literal;)+) => {
        /// Every member that the programs read.
        pub const KERNEL_FIELDS: &[KernelField] = &[$(KernelField {
            symbol: stringify!($name),
            structure: $structure,
            path: $path,
            size: $size,
            required: table!(@ $need),
        },)+];
    };
    (@ required) => { true };
    (@ optional) => { false };
}

for_each_kernel_field!(table);
