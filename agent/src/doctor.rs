//! `isostack-agent doctor`: what each sensor can do here, and why not more.
