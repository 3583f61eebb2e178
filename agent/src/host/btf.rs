//! Kernel types by name: offsets of structure members and values of enumerators, from BTF.

use std::path::{Path, PathBuf};

use agent_common::kernel_fields::{
    ABSENT, EVERY_SENSOR, KERNEL_ARGUMENTS, KERNEL_FIELDS, KernelArgument, KernelField,
};
use btf_rs::{Backend, Btf, BtfType, Type};

/// BTF cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the kernel's type information {path}: {source}", path = path.display())]
pub struct NoBtf {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: btf_rs::Error,
}

/// The running kernel's types.
pub struct KernelTypes(Btf);

/// Where every row of [`KERNEL_FIELDS`] is in the running kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldOffsets(Vec<u32>);

/// How large a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Bytes(u32),
    Bit,
}

/// How deep structures may nest, and typedefs and qualifiers chain: more is a broken file.
const MAX_DEPTH: usize = 16;

impl KernelTypes {
    /// Reads `kernel/btf/vmlinux` under `sysfs`.
    ///
    /// # Errors
    ///
    /// If there is no such file or it is malformed.
    pub fn read(sysfs: &Path) -> Result<Self, NoBtf> {
        let path = sysfs.join("kernel/btf/vmlinux");
        // Mapping the file spares tens of megabytes, but kernels before 6.16 refuse it.
        Btf::from_file_with_backend(&path, Backend::Mmap)
            .or_else(|_| Btf::from_file_with_backend(&path, Backend::Cache))
            .map(Self)
            .map_err(|source| NoBtf { path, source })
    }

    /// The types of a module, `None` where it is not loaded or has none of its own (built in).
    #[must_use]
    pub fn module(&self, sysfs: &Path, name: &str) -> Option<Self> {
        let path = sysfs.join("kernel/btf").join(name);
        Btf::from_split_file(path, &self.0).ok().map(Self)
    }

    /// Offset in bytes of a member, if the kernel has it in the size stated; of a single bit,
    /// if size 0 is stated, in bits. Structures of the same name that disagree count as not having it.
    #[must_use]
    pub fn offset(&self, field: &KernelField) -> Option<u32> {
        let mut found = None;
        for r#type in self.0.resolve_types_by_name(field.structure).ok()? {
            let Type::Struct(structure) = r#type else {
                continue;
            };
            let offset = match self.member(&structure, field.path, 0)? {
                (bits, Width::Bytes(size)) => {
                    (bits % 8 == 0 && size == field.size).then_some(bits / 8)?
                }
                (bits, Width::Bit) => (field.size == 0).then_some(bits)?,
            };
            if found.is_some_and(|other| other != offset) {
                return None;
            }
            found = Some(offset);
        }
        found
    }

    /// Size in bytes of a structure; `None` if there is none of the name, or several that differ.
    #[must_use]
    pub fn size_of(&self, structure: &str) -> Option<u32> {
        let types = self.0.resolve_types_by_name(structure).ok()?;
        let is_struct = |of: &&Type| matches!(of, Type::Struct(_));
        let mut sizes = types.iter().filter(is_struct).map(|of| self.size(of, 0));
        let first = sizes.next()??;
        sizes.all(|size| size == Some(first)).then_some(first)
    }

    /// Value of an enumerator, wherever it is declared.
    #[must_use]
    pub fn enumerator(&self, of: &str, name: &str) -> Option<u32> {
        self.0
            .resolve_types_by_name(of)
            .ok()?
            .into_iter()
            .find_map(|r#type| {
                let Type::Enum(list) = r#type else {
                    return None;
                };
                list.members
                    .iter()
                    .find(|member| self.0.resolve_name(*member).is_ok_and(|n| n == name))
                    .map(btf_rs::EnumMember::val)
            })
    }

    /// Offsets of all rows of the table.
    #[must_use]
    pub fn fields(&self) -> FieldOffsets {
        FieldOffsets(
            KERNEL_FIELDS
                .iter()
                .map(|field| self.offset(field).unwrap_or(ABSENT))
                .collect(),
        )
    }

    /// Names and values of an enumeration's members; empty where the kernel has none of the
    /// name.
    #[must_use]
    pub fn enumerators(&self, of: &str) -> Vec<(String, u32)> {
        let types = self.0.resolve_types_by_name(of).unwrap_or_default();
        let list = types.into_iter().find_map(|r#type| match r#type {
            Type::Enum(list) => Some(list),
            _ => None,
        });
        let members = list.map(|list| list.members).unwrap_or_default();
        let name = |member| self.0.resolve_name(member).ok();
        members
            .iter()
            .filter_map(|member| Some((name(member)?, member.val())))
            .collect()
    }

    /// For each row of [`KERNEL_ARGUMENTS`] the constant's name and its value.
    #[must_use]
    pub fn arguments(&self) -> Vec<(&'static str, u32)> {
        KERNEL_ARGUMENTS
            .iter()
            .map(|row| (row.symbol, u32::from(self.has_argument(row))))
            .collect()
    }

    /// Whether the kernel has the tracepoint.
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        let types = self.0.resolve_types_by_name(&format!("btf_trace_{name}"));
        types.is_ok_and(|types| !types.is_empty())
    }

    /// Whether the tracepoint has the argument. (Its prototype is behind the type that the
    /// kernel names after it; the first parameter there is not an argument.)
    #[must_use]
    pub fn has_argument(&self, row: &KernelArgument) -> bool {
        self.argument(row).is_some()
    }

    fn argument(&self, row: &KernelArgument) -> Option<()> {
        let name = format!("btf_trace_{}", row.tracepoint);
        let typedef = self
            .0
            .resolve_types_by_name(&name)
            .ok()?
            .into_iter()
            .next()?;
        let Type::Typedef(typedef) = typedef else {
            return None;
        };
        let Type::Ptr(pointer) = self.0.resolve_chained_type(&typedef).ok()? else {
            return None;
        };
        let Type::FuncProto(prototype) = self.0.resolve_chained_type(&pointer).ok()? else {
            return None;
        };
        let parameter = prototype.parameters.get(row.index as usize + 1)?;
        if row.structure.is_empty() {
            return Some(());
        }
        let Type::Ptr(pointer) = self.resolved(parameter)? else {
            return None;
        };
        let Type::Struct(structure) = self.resolved(&pointer)? else {
            return None;
        };
        (self.0.resolve_name(&structure).ok()? == row.structure).then_some(())
    }

    /// Offset in bits and width of `path` within `structure`.
    fn member(&self, structure: &btf_rs::Struct, path: &str, depth: usize) -> Option<(u32, Width)> {
        if depth > MAX_DEPTH {
            return None;
        }
        let (step, rest) = match path.split_once('.') {
            Some((step, rest)) => (step, Some(rest)),
            None => (path, None),
        };
        let (name, index) = match step.split_once('[') {
            Some((name, index)) => (name, Some(index.strip_suffix(']')?)),
            None => (step, None),
        };
        for member in &structure.members {
            let inner = self.resolved(member)?;
            let member_name = self.0.resolve_name(member).unwrap_or_default();
            if member_name.is_empty() {
                if let Type::Struct(inner) | Type::Union(inner) = &inner
                    && let Some((bits, size)) = self.member(inner, path, depth + 1)
                {
                    return Some((member.bit_offset() + bits, size));
                }
                continue;
            }
            if member_name != name {
                continue;
            }
            match member.bitfield_size() {
                None | Some(0) => {}
                Some(1) if rest.is_none() => return Some((member.bit_offset(), Width::Bit)),
                Some(_) => return None,
            }
            let (mut bits, mut inner) = (member.bit_offset(), inner);
            if let Some(index) = index {
                let Type::Array(array) = &inner else {
                    return None;
                };
                let index = self.enumerator("cgroup_subsys_id", index)?;
                let element = self.resolved(array)?;
                bits += index * self.size(&element, 0)? * 8;
                inner = element;
            }
            return match (rest, inner) {
                (None, inner) => Some((bits, Width::Bytes(self.size(&inner, 0)?))),
                (Some(rest), Type::Struct(inner) | Type::Union(inner)) => self
                    .member(&inner, rest, depth + 1)
                    .map(|(more, size)| (bits + more, size)),
                (Some(_), _) => None,
            };
        }
        None
    }

    /// The type behind typedefs and qualifiers.
    fn resolved(&self, of: &dyn BtfType) -> Option<Type> {
        let mut r#type = self.0.resolve_chained_type(of).ok()?;
        for _ in 0..MAX_DEPTH {
            r#type = match &r#type {
                Type::Typedef(t) => self.0.resolve_chained_type(t),
                Type::Volatile(t) => self.0.resolve_chained_type(t),
                Type::Const(t) => self.0.resolve_chained_type(t),
                Type::Restrict(t) => self.0.resolve_chained_type(t),
                Type::TypeTag(t) => self.0.resolve_chained_type(t),
                _ => return Some(r#type),
            }
            .ok()?;
        }
        None
    }

    /// Size in bytes.
    fn size(&self, r#type: &Type, depth: usize) -> Option<u32> {
        if depth > MAX_DEPTH {
            return None;
        }
        match r#type {
            Type::Int(t) => u32::try_from(t.size()).ok(),
            Type::Ptr(_) => Some(8),
            Type::Struct(t) | Type::Union(t) => u32::try_from(t.size()).ok(),
            Type::Enum(t) => u32::try_from(t.size()).ok(),
            Type::Array(t) => {
                let element = self.size(&self.resolved(t)?, depth + 1)?;
                element.checked_mul(u32::try_from(t.len()).ok()?)
            }
            _ => None,
        }
    }
}

impl FieldOffsets {
    /// Name of the constant in the eBPF object and the offset, row by row.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &u32)> {
        KERNEL_FIELDS
            .iter()
            .map(|field| field.symbol)
            .zip(self.0.iter())
    }

    /// Whether the kernel has the member behind the constant `symbol`.
    #[must_use]
    pub fn has(&self, symbol: &str) -> bool {
        self.iter()
            .any(|(s, offset)| s == symbol && *offset != ABSENT)
    }

    /// The rows that this sensor needs and the kernel does not have, as `structure.path`.
    #[must_use]
    pub fn missing(&self, sensor: &str) -> Vec<String> {
        KERNEL_FIELDS
            .iter()
            .zip(&self.0)
            .filter(|(field, offset)| {
                **offset == ABSENT && [sensor, EVERY_SENSOR].contains(&field.needed_by)
            })
            .map(|(field, _)| format!("{}.{}", field.structure, field.path))
            .collect()
    }
}

#[cfg(test)]
mod tests;
