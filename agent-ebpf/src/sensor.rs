//! The programs, one module per sensor.

mod cpu;
