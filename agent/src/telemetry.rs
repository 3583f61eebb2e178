//! The agent's own log, traces and metrics.
