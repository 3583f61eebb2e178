//! Kernel threads, and whose work they do.

use aya_ebpf::{Global, helpers::bpf_get_current_task};

use super::{Memory, Probed, field, has};

/// `PF_WQ_WORKER`.
const WORKER: u32 = 0x20;
/// `PF_KTHREAD`.
const KERNEL_THREAD: u32 = 0x0020_0000;

/// `struct task_struct` of the task that runs now, as far as it may be a kernel thread.
#[derive(Clone, Copy)]
pub struct Runner {
    task: *const u8,
    flags: u32,
}

impl Runner {
    /// The task that runs now.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper returns the address of the running task; `Probed` copes with
        // anything.
        unsafe {
            let task = bpf_get_current_task() as *const u8;
            Self {
                task,
                flags: Probed::read(task, &field::TASK_FLAGS),
            }
        }
    }

    /// It has no user space.
    #[inline(always)]
    pub fn is_kernel_thread(self) -> bool {
        self.flags & KERNEL_THREAD != 0
    }

    /// First eight bytes of the name of the work queue whose work it does; 0 if it is no
    /// worker.
    #[inline(always)]
    pub fn work_queue(self) -> u64 {
        if self.flags & WORKER == 0
            || !has(&field::KTHREAD_DATA)
            || !has(&field::WORKER_PWQ)
            || !has(&field::PWQ_WQ)
        {
            return 0;
        }
        let Some(kthread) = first(&field::TASK_WORKER_PRIVATE, &field::TASK_SET_CHILD_TID) else {
            return 0;
        };
        let Some(name) = first(&field::WQ_NAME_LONG, &field::WQ_NAME) else {
            return 0;
        };
        // SAFETY: `Probed` copes with any address; a wrong one yields another name.
        unsafe {
            let kthread = Probed::pointer(self.task, kthread);
            let worker = Probed::pointer(kthread, &field::KTHREAD_DATA);
            let pool = Probed::pointer(worker, &field::WORKER_PWQ);
            Probed::read(Probed::pointer(pool, &field::PWQ_WQ), name)
        }
    }
}

/// The one that the running kernel has.
#[inline(always)]
fn first(a: &'static Global<u32>, b: &'static Global<u32>) -> Option<&'static Global<u32>> {
    if has(a) {
        Some(a)
    } else if has(b) {
        Some(b)
    } else {
        None
    }
}
