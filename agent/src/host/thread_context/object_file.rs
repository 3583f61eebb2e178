//! How a file in the executable format ELF reaches the variable that it exports.

use std::fs::File;

use object::{
    LittleEndian,
    elf::{
        DF_1_PIE, DT_FLAGS_1, EM_X86_64, ET_EXEC, FileHeader64, PT_LOAD, PT_TLS, R_X86_64_DTPMOD64,
        R_X86_64_TLSDESC, R_X86_64_TPOFF64, SHN_UNDEF, SHT_DYNAMIC, SHT_DYNSYM, SHT_RELA, STT_TLS,
    },
    read::{
        ReadCache, ReadRef, SectionIndex,
        elf::{
            Dyn as _, FileHeader as _, ProgramHeader as _, Rela as _, SectionHeader as _,
            SectionTable, Sym as _,
        },
    },
};

/// The variable's name.
const NAME: &[u8] = b"otel_thread_ctx_v1";
/// Bytes of one section that are read.
const SECTION_LIMIT: u64 = 128 << 20;
/// Pages, as far as the first address of a file is concerned.
const PAGE: u64 = 4096;

type Header = FileHeader64<LittleEndian>;

/// The variable in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Address, before it was moved, of what is at the beginning of the file.
    pub first_address: u64,
    /// How it is reached.
    pub access: Access,
}

/// A `slot` is the address, before it was moved, of what the loader writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// In the program's own block, at a fixed offset from the thread pointer.
    Static {
        /// The offset.
        offset: i64,
    },
    /// The slot holds the offset from the thread pointer.
    Offset {
        /// The slot.
        slot: u64,
    },
    /// The slot holds the number of the module and the offset in its block.
    Index {
        /// The slot.
        slot: u64,
    },
    /// The slot holds a function and its argument: an offset from the thread pointer, or the
    /// address of module and offset.
    Descriptor {
        /// The slot.
        slot: u64,
    },
    /// In a way that is not known.
    Unknown,
}

/// Looks for the variable; `None`: the file does not export it.
///
/// # Errors
/// When it is not an ELF file for x86-64, or contradicts itself.
pub fn find(file: &File) -> Result<Option<Variable>, object::Error> {
    let data = &ReadCache::new(file);
    let header = Header::parse(data)?;
    let endian = header.endian()?;
    if header.e_machine(endian) != EM_X86_64 {
        return Ok(None);
    }
    let segments = header.program_headers(endian, data)?;
    let Some(tls) = segments.iter().find(|s| s.p_type(endian) == PT_TLS) else {
        return Ok(None);
    };
    let sections = header.sections(endian, data)?;
    for (_, section) in sections.enumerate() {
        // What is not read does not matter (debug information).
        let is_read = [SHT_DYNSYM, SHT_RELA, SHT_DYNAMIC].contains(&section.sh_type(endian));
        if is_read && section.sh_size(endian) > SECTION_LIMIT {
            return Ok(None);
        }
    }
    let Some((index, value)) = symbol(endian, data, &sections)? else {
        return Ok(None);
    };
    let first = segments.iter().find(|s| s.p_type(endian) == PT_LOAD);
    let first_address = first.map_or(0, |s| {
        (s.p_vaddr(endian) & !(PAGE - 1)).wrapping_sub(s.p_offset(endian) & !(PAGE - 1))
    });
    let access = match relocation(endian, data, &sections, index)? {
        Some(access) => access,
        None if is_program(endian, data, header, &sections)? => {
            // x86-64: the program's block ends at the thread pointer, as its alignment allows.
            let (size, align) = (tls.p_memsz(endian), tls.p_align(endian).max(1));
            let padding = (tls.p_vaddr(endian).wrapping_add(size)).wrapping_neg() & (align - 1);
            let block = size.wrapping_add(padding);
            Access::Static {
                offset: value.wrapping_sub(block) as i64,
            }
        }
        None => Access::Unknown,
    };
    Ok(Some(Variable {
        first_address,
        access,
    }))
}

/// Index and value of the symbol, where the file itself has the variable.
fn symbol<'d, R: ReadRef<'d>>(
    endian: LittleEndian,
    data: R,
    sections: &SectionTable<'d, Header, R>,
) -> Result<Option<(u32, u64)>, object::Error> {
    let symbols = sections.symbols(endian, data, SHT_DYNSYM)?;
    for (index, symbol) in symbols.enumerate() {
        let is_defined = symbol.st_shndx(endian) != SHN_UNDEF;
        if symbol.st_type() == STT_TLS
            && is_defined
            && symbol.name(endian, symbols.strings()) == Ok(NAME)
        {
            return Ok(Some((index.0 as u32, symbol.st_value(endian))));
        }
    }
    Ok(None)
}

/// What the loader is asked to write for the symbol.
fn relocation<'d, R: ReadRef<'d>>(
    endian: LittleEndian,
    data: R,
    sections: &SectionTable<'d, Header, R>,
    symbol: u32,
) -> Result<Option<Access>, object::Error> {
    for (_, section) in sections.enumerate() {
        let Some((relocations, link)) = section.rela(endian, data)? else {
            continue;
        };
        if !is_dynamic(endian, sections, link) {
            continue;
        }
        let of_symbol = relocations
            .iter()
            .filter(|r| r.r_sym(endian, false) == symbol);
        for relocation in of_symbol {
            let slot = relocation.r_offset(endian);
            match relocation.r_type(endian, false) {
                R_X86_64_TLSDESC => return Ok(Some(Access::Descriptor { slot })),
                R_X86_64_DTPMOD64 => return Ok(Some(Access::Index { slot })),
                R_X86_64_TPOFF64 => return Ok(Some(Access::Offset { slot })),
                _ => {}
            }
        }
    }
    Ok(None)
}

fn is_dynamic<'d, R: ReadRef<'d>>(
    endian: LittleEndian,
    sections: &SectionTable<'d, Header, R>,
    link: SectionIndex,
) -> bool {
    let symbols = sections.section(link);
    symbols.is_ok_and(|section| section.sh_type(endian) == SHT_DYNSYM)
}

/// A program, not a library: of a fixed address, or said to be one.
fn is_program<'d, R: ReadRef<'d>>(
    endian: LittleEndian,
    data: R,
    header: &Header,
    sections: &SectionTable<'d, Header, R>,
) -> Result<bool, object::Error> {
    if header.e_type(endian) == ET_EXEC {
        return Ok(true);
    }
    for (_, section) in sections.enumerate() {
        if let Some((entries, _)) = section.dynamic(endian, data)? {
            return Ok(entries.iter().any(|entry| {
                entry.tag(endian) == DT_FLAGS_1
                    && entry.val32(endian).is_some_and(|v| v & DF_1_PIE != 0)
            }));
        }
    }
    Ok(false)
}
