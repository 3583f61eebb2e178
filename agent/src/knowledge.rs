//! What the product knows, as data.

pub mod log_rules;
