//! Kernel types by name: offsets of struct members from BTF.
