//! Configuration: flags, environment, one TOML file.
