//! Finds and caches the identity of processes.
