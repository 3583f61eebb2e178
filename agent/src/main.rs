//! `isostack-agent`.

fn main() {}
