//! Loads and attaches the eBPF object; the only file that talks to aya's loader.
