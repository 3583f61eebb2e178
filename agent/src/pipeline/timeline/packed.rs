//! Intervals in order of their end, packed: five to seven bytes each instead of 24, as a timeline of two
//! minutes at 50 000 events a second is six million of them. Their times are whole microseconds
//! ([`whole`]); beyond that nothing is lost.
//!
//! The latest are kept as they are, since another CPU's buffer may bring some that belong
//! between them. What is older goes into blocks of [`BLOCK`]: a block is the table of its
//! threads with their CPUs, the table of its causes with their particulars, and for each
//! interval, as numbers (times in microseconds) of as many bytes as they need:
//! - which thread and cause;
//! - its end, from the end of the one before;
//! - its start, from where the same thread's last interval of the block ended (what a thread
//!   does follows on what it did, so this mostly is 0) or, where that is shorter, its length.
//!
//! A query unpacks only the blocks that overlap what it asks for, and not those that the queries
//! just before it unpacked ([`Unpacked`]): the spans of a batch ask for the same time.

use std::{cell::RefCell, collections::VecDeque, sync::Arc};

use super::track::Entry;
use crate::vocabulary::Cause;

/// Intervals of a block,
const BLOCK: usize = 96;
/// and from [`MANY`] blocks on, so that each has less of what a block takes.
const LARGE: usize = 224;
/// Blocks of a process that is heard of often.
const MANY: usize = 16;
/// One that got late ones may have as many.
const MOST: usize = 2 * LARGE;
/// Latest intervals that are not packed before so many more are there. With a block's a power
/// of two, to which the list of them grows: a process that is heard of now and then has little else.
const LOOSE: usize = 32;
/// What times are kept in.
const UNIT_NS: u64 = 1_000;
/// What the allocator takes for itself with each block.
const ALLOCATION_BYTES: usize = 16 + SHARED_BYTES;
/// The two counters of an [`Arc`].
const SHARED_BYTES: usize = 2 * size_of::<usize>();

/// A time as it is kept. What follows on another still does, as both become the same.
pub(super) const fn whole(ns: u64) -> u64 {
    ns / UNIT_NS * UNIT_NS
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Packed {
    blocks: VecDeque<Block>,
    loose: Vec<Entry>,
    len: usize,
    bytes: usize,
    longest_ns: u64,
}

/// Blocks unpacked at once: one of the short, one of the long intervals, and where a time lies
/// across two.
const UNPACKED: usize = 4;

/// The blocks that were asked for last, as they were before they were packed.
#[derive(Debug, Default)]
pub(super) struct Unpacked(RefCell<VecDeque<UnpackedBlock>>);

/// What it was unpacked from, and what that came to.
type UnpackedBlock = (Arc<[u8]>, Vec<Entry>);

/// [`BLOCK`] intervals, in order of their end.
#[derive(Debug)]
struct Block {
    /// Shared with who keeps it unpacked, by which it is known again.
    packed: Arc<[u8]>,
    first_end: u64,
    last_end: u64,
    first_start: u64,
    count: u16,
}

impl Unpacked {
    /// Calls `f` with the intervals of a block.
    fn of(&self, block: &Block, f: &mut dyn FnMut(&[Entry])) {
        let is = |(packed, _): &UnpackedBlock| Arc::ptr_eq(packed, &block.packed);
        let Ok(mut blocks) = self.0.try_borrow_mut() else {
            // Asked for while another's are gone through.
            let mut entries = Vec::with_capacity(block.count.into());
            block.unpack(&mut |entry| entries.push(*entry));
            return f(&entries);
        };
        if let Some((_, entries)) = blocks.iter().find(|known| is(known)) {
            return f(entries);
        }
        let oldest = match blocks.len() {
            UNPACKED => blocks.pop_front(),
            _ => None,
        };
        let mut entries = oldest.map_or_else(Vec::new, |(_, entries)| entries);
        entries.clear();
        block.unpack(&mut |entry| entries.push(*entry));
        f(&entries);
        blocks.push_back((block.packed.clone(), entries));
    }
}

impl Packed {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Bytes of the heap that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
            + self.blocks.capacity() * size_of::<Block>()
            + self.loose.capacity() * size_of::<Entry>()
    }

    pub(super) fn first_end(&self) -> Option<u64> {
        let block = self.blocks.front().map(|block| block.first_end);
        block.or_else(|| self.loose.first().map(|entry| entry.end))
    }

    pub(super) fn last_end(&self) -> Option<u64> {
        let loose = self.loose.last().map(|entry| entry.end);
        loose.or_else(|| self.blocks.back().map(|block| block.last_end))
    }

    /// Takes an interval; of those that end together, the one that came last is last.
    pub(super) fn insert(&mut self, entry: Entry) {
        self.longest_ns = self.longest_ns.max(entry.end - entry.start);
        self.len += 1;
        let at = self.blocks.partition_point(|b| b.last_end <= entry.end);
        if at < self.blocks.len() {
            return self.insert_late(at, entry);
        }
        let at = match self.loose.last() {
            Some(last) if last.end > entry.end => {
                self.loose.partition_point(|e| e.end <= entry.end)
            }
            _ => self.loose.len(),
        };
        self.loose.insert(at, entry);
        let size = if self.blocks.len() < MANY {
            BLOCK
        } else {
            LARGE
        };
        if self.loose.len() >= size + LOOSE {
            let block = Block::pack(&self.loose[..size]);
            self.loose.drain(..size);
            self.bytes += block.bytes();
            self.blocks.push_back(block);
        }
    }

    /// Puts one into a block: a buffer was read so late that others are packed already.
    fn insert_late(&mut self, at: usize, entry: Entry) {
        let mut entries = Vec::with_capacity(MOST);
        self.blocks[at].unpack(&mut |e| entries.push(*e));
        let place = entries.partition_point(|e| e.end <= entry.end);
        entries.insert(place, entry);
        self.bytes -= self.blocks[at].bytes();
        if entries.len() >= MOST {
            let second = Block::pack(&entries[LARGE..]);
            self.bytes += second.bytes();
            self.blocks.insert(at + 1, second);
            entries.truncate(LARGE);
        }
        let block = Block::pack(&entries);
        self.bytes += block.bytes();
        self.blocks[at] = block;
    }

    /// Calls `f` with each that overlaps `[start, end)`, in order of their ends.
    pub(super) fn overlapping(
        &self,
        (start, end): (u64, u64),
        unpacked: &Unpacked,
        f: &mut dyn FnMut(&Entry),
    ) {
        let last_end = end.saturating_add(self.longest_ns);
        let mut visit = |entries: &[Entry]| {
            let first = entries.partition_point(|e| e.end <= start);
            let about = entries[first..].iter().take_while(|e| e.end < last_end);
            about.filter(|e| e.start < end).for_each(&mut *f);
        };
        let first = self.blocks.partition_point(|b| b.last_end <= start);
        for block in self.blocks.range(first..) {
            if block.first_end >= last_end {
                return;
            }
            if block.first_start < end {
                unpacked.of(block, &mut visit);
            }
        }
        visit(&self.loose);
    }

    /// Forgets what ended before `horizon`, block by block: a few that are older may stay with
    /// the rest of theirs. Returns how many went.
    pub(super) fn expire(&mut self, horizon: u64) -> usize {
        let before = self.len;
        while self.blocks.front().is_some_and(|b| b.last_end < horizon) {
            self.forget_block();
        }
        if self.blocks.is_empty() {
            let old = self.loose.partition_point(|e| e.end < horizon);
            self.forget_loose(old);
        }
        if self.blocks.capacity() > 16 && self.blocks.len() < self.blocks.capacity() / 4 {
            self.blocks.shrink_to(self.blocks.len() * 2);
        }
        before - self.len
    }

    /// Forgets the oldest block, or of those not packed at most `count`. Returns how many went.
    pub(super) fn evict(&mut self, count: usize) -> usize {
        let before = self.len;
        if self.blocks.is_empty() {
            self.forget_loose(count.min(self.loose.len()));
        } else {
            self.forget_block();
        }
        before - self.len
    }

    fn forget_block(&mut self) {
        if let Some(block) = self.blocks.pop_front() {
            self.len -= usize::from(block.count);
            self.bytes -= block.bytes();
        }
        self.rest();
    }

    fn forget_loose(&mut self, count: usize) {
        self.loose.drain(..count);
        self.len -= count;
        if self.loose.capacity() > 16 && self.loose.len() < self.loose.capacity() / 4 {
            self.loose.shrink_to(self.loose.len() * 2);
        }
        self.rest();
    }

    fn rest(&mut self) {
        if self.len == 0 {
            self.longest_ns = 0;
        }
    }
}

/// What tells threads, and causes, apart in a block.
type Thread = (u32, u16);
type Kind = (Cause, u8);

impl Block {
    /// Of at least one interval, in order of their ends.
    fn pack(entries: &[Entry]) -> Self {
        let mut threads: Vec<Thread> = Vec::new();
        let mut kinds: Vec<Kind> = Vec::new();
        for entry in entries {
            place(&mut threads, (entry.tid, entry.cpu));
            place(&mut kinds, (entry.cause, entry.particulars));
        }
        let first_end = entries.first().map_or(0, |e| e.end);
        let mut out = Vec::with_capacity(entries.len() * 8 + threads.len() * 6);
        put(&mut out, threads.len() as u64);
        for (tid, cpu) in &threads {
            put(&mut out, u64::from(*tid));
            put(&mut out, u64::from(*cpu));
        }
        put(&mut out, kinds.len() as u64);
        for (cause, particulars) in &kinds {
            out.extend([*cause as u8, *particulars]);
        }
        let mut last_of = vec![first_end; threads.len()];
        let mut last = first_end;
        for entry in entries {
            let thread = place(&mut threads, (entry.tid, entry.cpu));
            let kind = place(&mut kinds, (entry.cause, entry.particulars));
            put(&mut out, (thread * kinds.len() + kind) as u64);
            put(&mut out, (entry.end - last) / UNIT_NS);
            put_start(&mut out, entry, last_of[thread]);
            last = entry.end;
            last_of[thread] = entry.end;
        }
        Self {
            packed: out.into(),
            first_end,
            last_end: last,
            first_start: entries.iter().map(|e| e.start).min().unwrap_or(0),
            count: entries.len() as u16,
        }
    }

    fn bytes(&self) -> usize {
        self.packed.len() + ALLOCATION_BYTES
    }

    /// Calls `f` with each.
    fn unpack(&self, f: &mut dyn FnMut(&Entry)) {
        let mut threads = [((0, 0), self.first_end); MOST];
        let mut kinds = [(Cause::Unexplained, 0); MOST];
        let mut bytes = Bytes(&self.packed);
        let thread_count = (bytes.number() as usize).min(threads.len());
        for (thread, _) in &mut threads[..thread_count] {
            *thread = (bytes.number() as u32, bytes.number() as u16);
        }
        let kind_count = (bytes.number() as usize).clamp(1, kinds.len());
        for kind in &mut kinds[..kind_count] {
            let cause = Cause::ALL.get(usize::from(bytes.byte()));
            *kind = (cause.copied().unwrap_or(Cause::Unexplained), bytes.byte());
        }
        let mut end = self.first_end;
        for _ in 0..self.count {
            let which = bytes.number() as usize;
            let (cause, particulars) = kinds[which % kind_count];
            let ((tid, cpu), last) = &mut threads[(which / kind_count) % MOST];
            end += bytes.number() * UNIT_NS;
            let coded = bytes.number();
            let start = match coded & 1 {
                0 => *last + (coded >> 1) * UNIT_NS,
                _ => end - (coded >> 1) * UNIT_NS,
            };
            *last = end;
            f(&Entry {
                start,
                end,
                tid: *tid,
                cpu: *cpu,
                cause,
                particulars,
            });
        }
    }
}

/// Where it is in the table; it is put there if it is not.
fn place<T: PartialEq>(table: &mut Vec<T>, item: T) -> usize {
    table.iter().position(|t| *t == item).unwrap_or_else(|| {
        table.push(item);
        table.len() - 1
    })
}

/// The start, from the end of the thread's last (even) or by the length (odd), whichever is
/// less. An interval of more than 2^63 ns (292 years) cannot be: its end is in the past.
fn put_start(out: &mut Vec<u8>, entry: &Entry, last_of_thread: u64) {
    let length = (entry.end - entry.start) / UNIT_NS;
    let gap = entry.start.checked_sub(last_of_thread);
    match gap.map(|gap| gap / UNIT_NS) {
        Some(gap) if gap <= length => put(out, gap << 1),
        _ => put(out, length << 1 | 1),
    }
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// What [`put`] wrote, from the front.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    #[inline]
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *byte
    }

    #[inline]
    fn number(&mut self) -> u64 {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte();
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        number
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(packed: &Packed) -> Vec<Entry> {
        let mut all = Vec::new();
        packed.overlapping((0, u64::MAX), &Unpacked::default(), &mut |e| all.push(*e));
        all
    }

    fn any_entry() -> impl Strategy<Value = Entry> {
        let cause = prop::sample::select(Cause::ALL);
        let length = prop_oneof![0u64..100, 0u64..1_000_000, 0u64..(1 << 40)];
        (
            any::<u32>(),
            any::<u16>(),
            cause,
            any::<u8>(),
            0u64..(1 << 41),
            length,
        )
            .prop_map(|(tid, cpu, cause, particulars, start, length)| Entry {
                start: whole(start),
                end: whole(start + length),
                tid: tid % 5,
                cpu: cpu % 7,
                cause,
                particulars,
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Packed or not, in whatever order they came: the same as of a sorted list.
        #[test]
        fn what_is_packed_comes_back_whole(
            entries in prop::collection::vec(any_entry(), 0..3_000),
            sorted in any::<bool>(),
            query in (0u64..(1 << 41), 1u64..(1 << 40)),
        ) {
            let mut entries = entries;
            if sorted {
                entries.sort_by_key(|e| e.end);
            }
            let mut packed = Packed::default();
            for entry in &entries {
                packed.insert(*entry);
            }
            entries.sort_by_key(|e| e.end);
            prop_assert_eq!(packed.len(), entries.len());
            prop_assert_eq!(packed.first_end(), entries.first().map(|e| e.end));
            prop_assert_eq!(packed.last_end(), entries.last().map(|e| e.end));
            let (start, end) = (query.0, query.0 + query.1);
            let mut found = Vec::new();
            let unpacked = Unpacked::default();
            packed.overlapping((0, end / 2), &unpacked, &mut |_| {});
            packed.overlapping((start, end), &unpacked, &mut |e| found.push(*e));
            let overlaps = |e: &&Entry| e.start < end && e.end > start;
            let expected: Vec<Entry> = entries.iter().filter(overlaps).copied().collect();
            prop_assert_eq!(found, expected);
            let horizon = query.0;
            let gone = packed.expire(horizon);
            prop_assert_eq!(packed.len() + gone, entries.len());
            let kept = all(&packed);
            let lost = entries.iter().filter(|e| e.end >= horizon && e.end > 0);
            prop_assert!(lost.count() <= kept.len());
            while packed.len() > 0 {
                prop_assert!(packed.evict(7) > 0);
            }
            prop_assert_eq!(packed.bytes, 0);
        }
    }

    #[test]
    fn a_thread_that_waits_and_runs_takes_a_few_bytes_each_time() {
        let mut packed = Packed::default();
        let mut at = 1_000_000_000_000;
        for n in 0..100_000u64 {
            let length = 20_000 + n * 7_919 % 400_000;
            packed.insert(Entry {
                start: whole(at),
                end: whole(at + length),
                tid: 4_711,
                cpu: 3,
                cause: if n % 2 == 0 {
                    Cause::Runqueue
                } else {
                    Cause::OnCpu
                },
                particulars: u8::MAX,
            });
            at += length;
        }
        let each = packed.bytes() as f64 / 100_000.0;
        assert!(each < 5.5, "{each}");
    }
}
