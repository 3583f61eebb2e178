//! Timeline, correlation, judgement: no I/O, no clock.
