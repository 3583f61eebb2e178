//! The agent's own log.

use tracing_subscriber::EnvFilter;

/// Why.
#[derive(Debug, thiserror::Error)]
#[error("log_level = {0} is no level and no filter")]
pub struct TelemetryError(String);

/// Starts the log.
///
/// # Errors
/// When the filter cannot be read.
pub fn init(level: &str, json: bool) -> Result<(), TelemetryError> {
    let filter = EnvFilter::try_new(level).map_err(|_| TelemetryError(level.to_owned()))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if json {
        builder.json().init()
    } else {
        builder.init()
    }
    Ok(())
}
