//! Reads of `/proc/PID`.
