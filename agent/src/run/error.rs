//! Why the daemon does not run, and the exit code that says it to machines.

use std::{io, process::ExitCode};

use crate::{
    cli::{EXIT_NO_PRIVILEGE, EXIT_USAGE},
    export,
    forward::ForwardConfigError,
    host::{listening, roots::Roots},
    load::StartError,
    otlp::{listen, receive::NotBound},
    telemetry::TelemetryError,
};

/// See the module's head.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The downstream's configuration.
    #[error(transparent)]
    Forward(#[from] ForwardConfigError),
    /// The log's or the agent's own telemetry's configuration.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The API server's configuration.
    #[error(transparent)]
    Kubernetes(#[from] crate::names::KubernetesError),
    /// The downstream is the agent itself.
    #[error(
        "the downstream {endpoint} is the agent's own listener on {own}, and spans would go \
         round for ever: name another (--export-endpoint, OTEL_EXPORTER_OTLP_ENDPOINT)"
    )]
    Loop {
        /// As configured.
        endpoint: http::Uri,
        /// The listener it leads to.
        own: std::net::SocketAddr,
    },
    /// The sensors.
    #[error(transparent)]
    Sensors(#[from] StartError),
    /// A port or socket of the receiver.
    #[error("{error}{holder}")]
    OtlpBind {
        /// What failed.
        error: NotBound,
        /// Who has it, as the end of the sentence.
        holder: String,
    },
    /// The page's port.
    #[error("{error}{holder}")]
    PageBind {
        /// What failed.
        error: export::BindError,
        /// Who has it, as the end of the sentence.
        holder: String,
    },
    /// The file that the run is to be recorded in.
    #[error(
        "the recording {} cannot be written ({error}): name a file in a directory that exists \
         and is yours",
        file.display()
    )]
    Recording {
        /// As it was asked for.
        file: std::path::PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// An earlier recording would be lost.
    #[error("{} is there already: name another file, or replace it by --force", .0.display())]
    RecordingExists(std::path::PathBuf),
    /// The async runtime.
    #[error("cannot start threads: {0}")]
    Runtime(io::Error),
    /// A task that should run for ever.
    #[error("the {0} ended although it should run: this is a bug; the log above says more")]
    TaskEnded(&'static str),
}

impl RunError {
    /// With the process that has the port, where that can be seen.
    #[must_use]
    pub fn otlp_bind(error: NotBound, roots: &Roots) -> Self {
        let holder = match &error.error {
            listen::BindError::PortInUse(address) => held_by(roots, *address),
            _ => String::new(),
        };
        Self::OtlpBind { error, holder }
    }

    /// With the process that has the port, where that can be seen.
    #[must_use]
    pub fn page_bind(error: export::BindError, roots: &Roots) -> Self {
        let holder = match &error {
            export::BindError::InUse(address) => held_by(roots, *address),
            export::BindError::Other { .. } => String::new(),
        };
        Self::PageBind { error, holder }
    }

    /// 64 for configuration, 77 for privilege, 1 for the rest.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Forward(_)
            | Self::Telemetry(_)
            | Self::Kubernetes(_)
            | Self::Loop { .. }
            | Self::Recording { .. }
            | Self::RecordingExists(_) => EXIT_USAGE.into(),
            Self::Sensors(StartError::NoPrivilege { .. }) => EXIT_NO_PRIVILEGE.into(),
            _ => ExitCode::FAILURE,
        }
    }
}

fn held_by(roots: &Roots, address: std::net::SocketAddr) -> String {
    listening::holder(roots, address).map_or_else(String::new, |h| format!(" (held by {h})"))
}
