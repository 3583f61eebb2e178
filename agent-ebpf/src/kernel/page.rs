//! Pages of files in memory, in folios of one or more.

use aya_ebpf::Global;

use super::{Memory as _, Probed, field, has};

/// Which bit of a folio's flags says that it has more than one page; [`NO_BIT`]: the kernel does
/// not tell.
#[unsafe(no_mangle)]
static PG_HEAD: Global<u64> = Global::new(NO_BIT);
const NO_BIT: u64 = 64;

/// Flags in the low bits of who a folio is charged to.
const CHARGE_FLAGS: u64 = 7;

/// `struct folio`, before 5.16 a `struct page`.
#[derive(Clone, Copy)]
pub struct Folio(*const u8);

impl Folio {
    /// # Safety
    ///
    /// `folio` is one that lives as long as the program runs.
    #[inline(always)]
    pub unsafe fn new(folio: *const u8) -> Self {
        Self(folio)
    }

    #[inline(always)]
    fn get<T: Copy + Default>(self, field: &Global<u32>) -> T {
        // SAFETY: `new` promised a folio, and `Probed` copes with any address.
        unsafe { Probed::read(self.0, field) }
    }

    /// The same as that of `struct page` on kernels without folios.
    #[inline(always)]
    fn either<T: Copy + Default>(self, of_folio: &Global<u32>, of_page: &Global<u32>) -> T {
        if has(of_folio) {
            self.get(of_folio)
        } else if has(of_page) {
            self.get(of_page)
        } else {
            T::default()
        }
    }

    /// How many pages it has; 1 where the kernel does not say.
    #[inline(always)]
    pub fn pages(self) -> u64 {
        let head = PG_HEAD.load();
        if head >= NO_BIT || !has(&field::FOLIO_FLAGS) {
            return 1;
        }
        if self.get::<u64>(&field::FOLIO_FLAGS) >> head & 1 == 0 {
            return 1;
        }
        let pages: u32 = self.either(&field::FOLIO_PAGES, &field::FOLIO_PAGES_OLD);
        u64::from(pages).max(1)
    }

    /// Number of its first page in its file.
    #[inline(always)]
    pub fn index(self) -> u64 {
        self.either(&field::FOLIO_INDEX, &field::PAGE_INDEX)
    }

    /// What tells its file from all others, also from a later one that has its inode's address or
    /// its inode's number; 0 where that is not known.
    #[inline(always)]
    pub fn file(self) -> u64 {
        if !has(&field::MAPPING_INODE) || !has(&field::INODE_NUMBER) {
            return 0;
        }
        let mapping: u64 = self.either(&field::FOLIO_MAPPING, &field::PAGE_MAPPING);
        if mapping == 0 {
            return 0;
        }
        // SAFETY: `Probed` copes with any address.
        let (inode, number, generation) = unsafe {
            let inode = Probed::pointer(mapping as *const u8, &field::MAPPING_INODE);
            let generation: u32 = if has(&field::INODE_GENERATION) {
                Probed::read(inode, &field::INODE_GENERATION)
            } else {
                0
            };
            let number: u64 = Probed::read(inode, &field::INODE_NUMBER);
            (inode as u64, number, generation)
        };
        inode ^ number.rotate_left(20) ^ u64::from(generation) << 32
    }

    /// Who it is charged to, as a number that means nothing else; the same for all where the
    /// kernel does not say.
    #[inline(always)]
    pub fn charged_to(self) -> u64 {
        self.either::<u64>(&field::FOLIO_MEMCG, &field::PAGE_MEMCG) & !CHARGE_FLAGS
    }
}
