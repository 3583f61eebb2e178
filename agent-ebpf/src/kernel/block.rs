//! Block requests and what they are made of.

use core::marker::PhantomData;

use agent_common::event::block::operation;
use aya_ebpf::Global;

use super::{Memory, Probed, argument, field, has};

/// `REQ_OP_MASK`.
const OPERATION_MASK: u32 = 0xff;
/// The first operation that is a driver's own: nobody's I/O (`REQ_OP_SCSI_IN` in 5.10,
/// `REQ_OP_DRV_IN` since).
const FIRST_PASSTHROUGH: u32 = 32;
/// `MEMCG_DATA_OBJEXTS`, `MEMCG_DATA_KMEM` and whatever comes after them.
const MEMCG_FLAGS: u64 = 7;
/// `BIO_ISSUE_TIME_MASK`.
const ISSUE_TIME_MASK: u64 = (1 << 51) - 1;
/// Nothing waits longer for a request; a larger difference is a number that means
/// something else.
const MAX_WAIT_NS: u64 = 60_000_000_000;

/// `struct request`.
#[derive(Clone, Copy)]
pub struct Request<M>(*const u8, PhantomData<M>);

/// `struct bio`.
#[derive(Clone, Copy)]
pub struct Bio<M>(*const u8, PhantomData<M>);

impl<M: Memory> Request<M> {
    /// # Safety
    ///
    /// `request` is a `struct request` that lives as long as the program runs, of a kind
    /// that `M` can read.
    #[inline(always)]
    pub unsafe fn new(request: *const u8) -> Self {
        Self(request, PhantomData)
    }

    #[inline(always)]
    fn get<T: Copy + Default>(self, field: &Global<u32>) -> T {
        // SAFETY: `new` promised a request; `field` is one of a request's.
        unsafe { M::read(self.0, field) }
    }

    /// Its address, by which it can be recognised while it lives.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    /// One of `operation`; `None` for a driver's own command.
    #[inline(always)]
    pub fn operation(self) -> Option<u32> {
        let operation = self.get::<u32>(&field::RQ_FLAGS) & OPERATION_MASK;
        (operation < FIRST_PASSTHROUGH).then_some(operation)
    }

    /// Bytes that are not completed yet.
    #[inline(always)]
    pub fn remaining_bytes(self) -> u32 {
        self.get(&field::RQ_DATA_LEN)
    }

    /// Its first I/O; null for the device's own flush.
    #[inline(always)]
    pub fn bio(self) -> Bio<M> {
        // SAFETY: `new` promised a request.
        Bio(unsafe { M::pointer(self.0, &field::RQ_BIO) }, PhantomData)
    }

    /// `CLOCK_MONOTONIC` at its allocation; 0 where the queue keeps no statistics.
    #[inline(always)]
    pub fn start_ns(self) -> u64 {
        self.get(&field::RQ_START)
    }

    /// `CLOCK_MONOTONIC` when the device got it; 0 where the kernel did not note it.
    #[inline(always)]
    pub fn io_start_ns(self) -> u64 {
        if has(&field::RQ_IO_START) {
            self.get(&field::RQ_IO_START)
        } else {
            0
        }
    }

    /// The whole disk, as major number * 2^20 + minor.
    #[inline(always)]
    pub fn disk(self) -> u32 {
        // SAFETY: `new` promised a request, which always has a queue; a missing disk is read
        // as 0.
        unsafe {
            let disk = if has(&field::QUEUE_DISK) {
                M::pointer(M::pointer(self.0, &field::RQ_QUEUE), &field::QUEUE_DISK)
            } else if has(&field::RQ_DISK) {
                M::pointer(self.0, &field::RQ_DISK)
            } else {
                return 0;
            };
            number::<M>(disk)
        }
    }
}

impl<M: Memory> Bio<M> {
    /// # Safety
    ///
    /// `bio` is a `struct bio` that lives as long as the program runs, of a kind that `M`
    /// can read.
    #[inline(always)]
    pub unsafe fn new(bio: *const u8) -> Self {
        Self(bio, PhantomData)
    }

    /// Not there at all.
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Its address, by which it can be recognised while it lives.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    /// The one merged behind it.
    #[inline(always)]
    pub fn next(self) -> Self {
        // SAFETY: made from a bio's address only.
        Self(unsafe { M::pointer(self.0, &field::BIO_NEXT) }, PhantomData)
    }

    /// One of `operation`.
    #[inline(always)]
    pub fn operation(self) -> u32 {
        // SAFETY: made from a bio's address only.
        unsafe { M::read::<u32>(self.0, &field::BIO_OPF) & OPERATION_MASK }
    }

    /// It asks for a flush and carries nothing.
    #[inline(always)]
    pub fn is_empty(self) -> bool {
        // SAFETY: made from a bio's address only.
        unsafe { M::read::<u16>(self.0, &field::BIO_VCNT) == 0 }
    }

    /// When it was submitted, if that was noted and is not after `start_ns`; else `start_ns`.
    #[inline(always)]
    pub fn submitted_ns(self, start_ns: u64) -> u64 {
        if !has(&field::BIO_ISSUE) {
            return start_ns;
        }
        // SAFETY: made from a bio's address only.
        let issue: u64 = unsafe { M::read(self.0, &field::BIO_ISSUE) };
        let waited_ns = start_ns.wrapping_sub(issue) & ISSUE_TIME_MASK;
        if waited_ns < MAX_WAIT_NS {
            start_ns - waited_ns
        } else {
            start_ns
        }
    }

    /// Address of its cgroup's share of the queue; 0 if there is none.
    #[inline(always)]
    pub fn share(self) -> u64 {
        if !has(&field::BIO_BLKG) {
            return 0;
        }
        // SAFETY: made from a bio's address only.
        unsafe { M::pointer(self.0, &field::BIO_BLKG) as u64 }
    }

    /// Inode of its cgroup in the I/O controller's hierarchy; 0 if there is none.
    #[inline(always)]
    pub fn cgroup_id(self) -> u64 {
        if !has(&field::BIO_BLKG) || !has(&field::BLKG_BLKCG) || !has(&field::BLKCG_CGROUP) {
            return 0;
        }
        // SAFETY: made from a bio's address only; null on the way is read as 0.
        unsafe {
            let blkcg = M::pointer(M::pointer(self.0, &field::BIO_BLKG), &field::BLKG_BLKCG);
            let cgroup = M::pointer(blkcg, &field::BLKCG_CGROUP);
            M::read(
                M::pointer(cgroup, &field::CGROUP_KN),
                &field::KERNFS_NODE_ID,
            )
        }
    }

    /// Inode of the cgroup, in the memory controller's hierarchy, whose page its first piece
    /// is; 0 where that cannot be told. Whose data it is that the kernel writes back by itself.
    #[inline(always)]
    pub fn memory_cgroup_id(self) -> u64 {
        let charged = if has(&field::FOLIO_MEMCG) {
            &field::FOLIO_MEMCG
        } else {
            &field::PAGE_MEMCG
        };
        if !has(charged) || !has(&field::BIO_IO_VEC) || !has(&field::MEMCG_CGROUP) {
            return 0;
        }
        // SAFETY: made from a bio's address only, and `Probed` copes with anything else. The
        // piece lies in an array, of which the verifier has no type.
        unsafe {
            let piece = Probed::pointer(self.0, &field::BIO_IO_VEC);
            let mut page = Probed::pointer(piece, &field::BVEC_PAGE);
            if has(&field::PAGE_COMPOUND_HEAD) {
                let head: u64 = Probed::read(page, &field::PAGE_COMPOUND_HEAD);
                if head & 1 != 0 {
                    page = (head - 1) as *const u8;
                }
            }
            let charged: u64 = Probed::read(page, charged);
            if charged & MEMCG_FLAGS != 0 || charged == 0 {
                return 0; // not a page of files or programs
            }
            let cgroup = Probed::pointer(charged as *const u8, &field::MEMCG_CGROUP);
            Probed::read(
                Probed::pointer(cgroup, &field::CGROUP_KN),
                &field::KERNFS_NODE_ID,
            )
        }
    }

    /// The whole disk, as major number * 2^20 + minor.
    #[inline(always)]
    pub fn disk(self) -> u32 {
        // SAFETY: made from a bio's address only; null on the way is read as 0.
        unsafe {
            let disk = if has(&field::BIO_BDEV) && has(&field::BDEV_DISK) {
                M::pointer(M::pointer(self.0, &field::BIO_BDEV), &field::BDEV_DISK)
            } else if has(&field::BIO_DISK) {
                M::pointer(self.0, &field::BIO_DISK)
            } else {
                return 0;
            };
            number::<M>(disk)
        }
    }
}

/// Which argument of `block_bio_queue` is the bio.
#[inline(always)]
pub fn bio_is_second_argument() -> bool {
    argument::BIO_QUEUE_BIO.load() != 0
}

/// Which argument of `block_rq_issue` is the request.
#[inline(always)]
pub fn request_is_second_argument() -> bool {
    argument::RQ_ISSUE_RQ.load() != 0
}

/// The operation that a request is counted as.
#[inline(always)]
pub fn counted_as<M: Memory>(operation: u32, bio: Bio<M>) -> u32 {
    if operation == operation::WRITE && bio.is_empty() {
        operation::FLUSH
    } else {
        operation
    }
}

/// # Safety
///
/// `disk` is a `gendisk` or null.
#[inline(always)]
unsafe fn number<M: Memory>(disk: *const u8) -> u32 {
    // SAFETY: by the caller's promise.
    unsafe {
        let major: u32 = M::read(disk, &field::DISK_MAJOR);
        let minor: u32 = M::read(disk, &field::DISK_MINOR);
        major << 20 | minor & 0xf_ffff
    }
}
