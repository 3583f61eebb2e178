//! Tasks, their run queues and their groups.

use core::marker::PhantomData;

use aya_ebpf::{
    Global,
    helpers::{bpf_get_current_task, bpf_probe_read_kernel},
};

use super::{Memory, Probed, field, has};

/// The CPU controller is on a version 1 hierarchy.
#[unsafe(no_mangle)]
static CPU_CONTROLLER_V1: Global<u32> = Global::new(0);

/// Levels of nested groups searched for the one that limits.
const MAX_DEPTH: usize = 8;

/// `struct task_struct`.
#[derive(Clone, Copy)]
pub struct Task<M>(*const u8, PhantomData<M>);

/// `struct cfs_rq`: the queue of one group on one CPU.
#[derive(Clone, Copy)]
pub struct CfsRq<M>(*const u8, PhantomData<M>);

/// `struct cpumask`, by its address.
#[derive(Clone, Copy)]
pub struct Cpus(u64);

impl Cpus {
    /// Whether a CPU is one of them; also where the set cannot be read.
    #[inline(always)]
    pub fn has(self, cpu: u32) -> bool {
        let word = (self.0 as *const u64).wrapping_add(cpu as usize / 64);
        // SAFETY: the helper copes with any address.
        let bits = unsafe { bpf_probe_read_kernel(word) }.unwrap_or(u64::MAX);
        bits >> (cpu % 64) & 1 != 0
    }
}

impl Task<Probed> {
    /// The task that runs now, whatever it is doing.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper returns the address of the running task, which lives as long as
        // the program runs, and `Probed` copes with any address.
        unsafe { Self::new(bpf_get_current_task() as *const u8) }
    }
}

impl<M: Memory> Task<M> {
    /// # Safety
    ///
    /// `task` is a `task_struct` that lives as long as the program runs, of a kind that `M`
    /// can read.
    #[inline(always)]
    pub unsafe fn new(task: *const u8) -> Self {
        Self(task, PhantomData)
    }

    #[inline(always)]
    fn get<T: Copy + Default>(self, field: &Global<u32>) -> T {
        // SAFETY: `new` promised a task; `field` is one of a task's.
        unsafe { M::read(self.0, field) }
    }

    /// Thread id; 0 for the idle task.
    #[inline(always)]
    pub fn tid(self) -> u32 {
        self.get(&field::TASK_PID)
    }

    /// Thread group id.
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        self.get(&field::TASK_TGID)
    }

    /// Start of the thread group's leader, ns since boot.
    #[inline(always)]
    pub fn leader_start_boottime_ns(self) -> u64 {
        // SAFETY: `new` promised a task, and a task's group leader is a task.
        unsafe {
            let leader = M::pointer(self.0, &field::TASK_GROUP_LEADER);
            M::read(leader, &field::TASK_START_BOOTTIME)
        }
    }

    /// `rq.clock` since which it is runnable; 0: it is not.
    #[inline(always)]
    pub fn last_queued(self) -> u64 {
        self.get(&field::TASK_LAST_QUEUED)
    }

    /// `rq.clock` at which it last got a CPU.
    #[inline(always)]
    pub fn last_arrival(self) -> u64 {
        self.get(&field::TASK_LAST_ARRIVAL)
    }

    /// Nanoseconds of finished waits, throttle included.
    #[inline(always)]
    pub fn run_delay(self) -> u64 {
        self.get(&field::TASK_RUN_DELAY)
    }

    /// Times it got a CPU; 0 where the kernel does not count.
    #[inline(always)]
    pub fn pcount(self) -> u64 {
        if has(&field::TASK_PCOUNT) {
            self.get(&field::TASK_PCOUNT)
        } else {
            0
        }
    }

    /// How many CPUs it may run on, also such that are not there; of more than that, where the
    /// kernel does not say.
    #[inline(always)]
    pub fn cpus_allowed(self) -> u32 {
        if has(&field::TASK_CPUS_ALLOWED) {
            self.get(&field::TASK_CPUS_ALLOWED)
        } else {
            u32::MAX
        }
    }

    /// Where the set of these is.
    #[inline(always)]
    pub fn cpus(self) -> Cpus {
        // SAFETY: `Probed` copes with any address.
        Cpus(unsafe { Probed::read(self.0, &field::TASK_CPUS) })
    }

    /// It runs or wants to run; also where the kernel does not say.
    #[inline(always)]
    pub fn is_runnable(self) -> bool {
        self.state() == 0
    }

    /// It is on its way out (`PF_EXITING`).
    #[inline(always)]
    pub fn is_exiting(self) -> bool {
        self.get::<u32>(&field::TASK_FLAGS) & 4 != 0
    }

    /// It waits for something that no signal can end (`TASK_UNINTERRUPTIBLE`; not one that
    /// idles, `TASK_NOLOAD`).
    #[inline(always)]
    pub fn is_uninterruptible(self) -> bool {
        self.state() & 0x402 == 2
    }

    /// It sleeps until it is woken or killed (`TASK_KILLABLE`).
    #[inline(always)]
    pub fn is_killable(self) -> bool {
        self.state() & 0x502 == 0x102
    }

    /// How often it gave up the CPU by itself; 0 where the kernel does not say.
    #[inline(always)]
    pub fn voluntary_switches(self) -> u64 {
        if has(&field::TASK_NVCSW) {
            self.get(&field::TASK_NVCSW)
        } else {
            0
        }
    }

    /// Its scheduler state.
    #[inline(always)]
    fn state(self) -> u32 {
        if has(&field::TASK_STATE) {
            self.get(&field::TASK_STATE)
        } else if has(&field::TASK_STATE_LONG) {
            self.get::<u64>(&field::TASK_STATE_LONG) as u32
        } else {
            0
        }
    }

    /// Where its thread-local memory is, as its program set it; 0: it has none.
    #[inline(always)]
    pub fn thread_pointer(self) -> u64 {
        self.get(&field::TASK_FSBASE)
    }

    /// Inode of its cgroup in the I/O controller's hierarchy; 0 if there is no controller.
    #[inline(always)]
    pub fn io_cgroup_id(self) -> u64 {
        if !has(&field::CSS_SET_IO) {
            return 0;
        }
        // SAFETY: `new` promised a task; a task always has a state of each controller, that
        // has a cgroup, and that has a directory.
        unsafe {
            let state = M::pointer(M::pointer(self.0, &field::TASK_CGROUPS), &field::CSS_SET_IO);
            M::read(
                M::pointer(M::pointer(state, &field::CSS_CGROUP), &field::CGROUP_KN),
                &field::KERNFS_NODE_ID,
            )
        }
    }

    /// A quota took it off its queue. Ask only where [`throttles_tasks`].
    #[inline(always)]
    pub fn throttled(self) -> bool {
        self.get::<u8>(&field::TASK_THROTTLED) != 0
    }

    /// The queue of its group on its CPU.
    #[inline(always)]
    pub fn cfs_rq(self) -> CfsRq<M> {
        // SAFETY: `new` promised a task.
        CfsRq(
            unsafe { M::pointer(self.0, &field::TASK_CFS_RQ) },
            PhantomData,
        )
    }

    /// Inode of the nearest cgroup, its own or an ancestor's, that is throttled by its own
    /// quota on the task's CPU; 0 when none is found. A queue counts the throttled ones among
    /// itself and its ancestors: where the count falls from one to the next, a quota is used
    /// up. (`throttled_clock` says so too, but on some kernels only once a task was dequeued.)
    /// The way up is by the entities that stand for groups: where a group keeps its queues
    /// has changed (an array of pointers, per-CPU memory in 7.2), these have not.
    #[inline(never)]
    pub fn limiter(self) -> u64 {
        if !has(&field::TASK_SE_PARENT)
            || !has(&field::SE_PARENT)
            || !has(&field::SE_CFS_RQ)
            || !has(&field::CFS_RQ_TG)
            || !has(&field::CFS_RQ_THROTTLE_COUNT)
            || !has(&field::TG_CGROUP)
        {
            return 0;
        }
        // SAFETY: `Probed` copes with any address; a wrong one yields 0 and ends the walk.
        let (mut queue, mut entity) = unsafe {
            (
                Probed::pointer(self.0, &field::TASK_CFS_RQ),
                Probed::pointer(self.0, &field::TASK_SE_PARENT),
            )
        };
        // SAFETY: as above.
        let mut count: u32 = unsafe { Probed::read(queue, &field::CFS_RQ_THROTTLE_COUNT) };
        for _ in 0..MAX_DEPTH {
            if count == 0 {
                return 0;
            }
            // SAFETY: as above.
            unsafe {
                let group = Probed::pointer(queue, &field::CFS_RQ_TG);
                let mut above = 0;
                if !entity.is_null() {
                    queue = Probed::pointer(entity, &field::SE_CFS_RQ);
                    entity = Probed::pointer(entity, &field::SE_PARENT);
                    above = Probed::read(queue, &field::CFS_RQ_THROTTLE_COUNT);
                }
                if above < count {
                    return id_of_cgroup::<Probed>(Probed::pointer(group, &field::TG_CGROUP));
                }
                count = above;
            }
        }
        0
    }

    /// Inode of its cgroup in the CPU controller's hierarchy.
    #[inline(always)]
    pub fn cgroup_id(self) -> u64 {
        // SAFETY: `new` promised a task; a task is always in a cgroup of each hierarchy.
        unsafe {
            let css_set = M::pointer(self.0, &field::TASK_CGROUPS);
            let cgroup = if CPU_CONTROLLER_V1.load() != 0 {
                M::pointer(M::pointer(css_set, &field::CSS_SET_CPU), &field::CSS_CGROUP)
            } else {
                M::pointer(css_set, &field::CSS_SET_DFL_CGRP)
            };
            id_of_cgroup::<M>(cgroup)
        }
    }
}

/// Inode of a cgroup in its hierarchy.
///
/// # Safety
///
/// `cgroup` is a `struct cgroup` of a kind that `M` can read.
#[inline(always)]
pub unsafe fn id_of_cgroup<M: Memory>(cgroup: *const u8) -> u64 {
    // SAFETY: by the caller's promise; every cgroup has a directory.
    unsafe {
        M::read(
            M::pointer(cgroup, &field::CGROUP_KN),
            &field::KERNFS_NODE_ID,
        )
    }
}

impl<M: Memory> CfsRq<M> {
    #[inline(always)]
    fn get<T: Copy + Default>(self, field: &Global<u32>) -> T {
        // SAFETY: made from a task's `cfs_rq` pointer only; `field` is one of a cfs_rq's.
        unsafe { M::read(self.0, field) }
    }

    #[inline(always)]
    fn rq(self) -> *const u8 {
        // SAFETY: made from a task's `cfs_rq` pointer only.
        unsafe { M::pointer(self.0, &field::CFS_RQ_RQ) }
    }

    /// The address, to recognise the queue and to ask it again later.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    /// The clock of its CPU: that of all `sched_info` times.
    #[inline(always)]
    pub fn clock(self) -> u64 {
        // SAFETY: `rq` is the CPU's `struct rq`.
        unsafe { M::read(self.rq(), &field::RQ_CLOCK) }
    }

    /// It is held back now, by its own quota or an ancestor's.
    #[inline(always)]
    pub fn is_throttled(self) -> bool {
        has(&field::CFS_RQ_THROTTLE_COUNT) && self.get::<u32>(&field::CFS_RQ_THROTTLE_COUNT) != 0
    }

    /// `rq.clock` since which it is held back; 0: it is not, or the kernel does not say.
    #[inline(always)]
    pub fn held_since(self) -> u64 {
        if has(&field::CFS_RQ_SELF_CLOCK) {
            self.get(&field::CFS_RQ_SELF_CLOCK)
        } else {
            0
        }
    }

    /// Nanoseconds held back in finished throttles.
    #[inline(always)]
    pub fn held_ns(self) -> u64 {
        if has(&field::CFS_RQ_SELF_TIME) {
            self.get(&field::CFS_RQ_SELF_TIME)
        } else if has(&field::CFS_RQ_PELT_TIME) {
            self.get(&field::CFS_RQ_PELT_TIME)
        } else {
            0
        }
    }

    /// How long ago, in the load-tracking clock, the last throttle of its group began.
    #[inline(always)]
    pub fn last_throttle_age_ns(self) -> u64 {
        if !has(&field::CFS_RQ_PELT_CLOCK) || !has(&field::RQ_CLOCK_PELT) {
            return 0;
        }
        let rq = self.rq();
        // SAFETY: `rq` is the CPU's `struct rq`.
        let mut now: u64 = unsafe { M::read(rq, &field::RQ_CLOCK_PELT) };
        if has(&field::RQ_LOST_IDLE_TIME) {
            // SAFETY: as above.
            now = now.wrapping_sub(unsafe { M::read::<u64>(rq, &field::RQ_LOST_IDLE_TIME) });
        }
        now.saturating_sub(self.get(&field::CFS_RQ_PELT_CLOCK))
    }
}

/// [`CfsRq::held_ns`] of a queue known by its address, which may no longer exist.
#[inline(always)]
pub fn held_ns_at(address: u64) -> u64 {
    CfsRq::<Probed>(address as *const u8, PhantomData).held_ns()
}

/// The kernel takes single tasks off their queue (6.18) instead of whole groups.
#[inline(always)]
pub fn throttles_tasks() -> bool {
    has(&field::TASK_THROTTLED)
}
