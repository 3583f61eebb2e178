//! What this process may do.
