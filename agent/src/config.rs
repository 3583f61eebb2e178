//! Configuration of the daemon: one struct read from flags, `ISOSTACK_*` variables and a
//! TOML file, then checked whole before anything is loaded or bound.

use std::{
    ffi::OsString,
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use clap::Args;
use serde::Deserialize;

use crate::{
    host::roots::Roots,
    load::DEFAULT_SENSOR_BUDGET_CORES,
    names::{CriConfig, KubernetesConfig, KubernetesError},
    otlp::listen::Listen,
    sensor::{Selection, seccomp::SeccompMode},
    stack::overrides::Overrides,
    state_file,
    telemetry::LogFormat,
};

mod check;
mod value;
pub use value::{Address, ByteSize, Percent, Span};

/// Declares the settings once: each is a flag, an environment variable and a TOML key.
macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $name:ident: $type:ty, $env:literal, $value:literal;)+) => {
        /// Settings as given, before defaults; the same keys in all three sources.
        #[derive(Args, Clone, Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Settings {
            $(
                $(#[doc = $doc])+
                #[arg(long, env = $env, value_name = $value)]
                #[serde(default)]
                pub $name: Option<$type>,
            )+
        }

        impl Settings {
            /// Every key's name, as in the TOML file.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($name),)+];

            /// `self` where set, else `other`.
            #[must_use]
            fn or(self, other: Self) -> Self {
                Self { $($name: self.$name.or(other.$name),)+ }
            }
        }
    };
}

settings! {
    /// Name of this node on spans and metrics [default: the host name]
    node_name: String, "ISOSTACK_NODE_NAME", "NAME";
    /// Web page, metrics and API [default: 127.0.0.1:9464]
    http_listen: Address, "ISOSTACK_HTTP_LISTEN", "ADDR:PORT";
    /// OTLP over gRPC, a TCP address or unix:PATH [default: 127.0.0.1:4317]
    otlp_grpc_listen: Listen, "ISOSTACK_OTLP_GRPC_LISTEN", "ADDR:PORT";
    /// OTLP over HTTP, a TCP address or unix:PATH [default: 127.0.0.1:4318]
    otlp_http_listen: Listen, "ISOSTACK_OTLP_HTTP_LISTEN", "ADDR:PORT";
    /// Where the enriched spans go [default: OTEL_EXPORTER_OTLP_ENDPOINT, else nowhere]
    export_endpoint: String, "ISOSTACK_EXPORT_ENDPOINT", "URL";
    /// grpc or http/protobuf [default: OTEL_EXPORTER_OTLP_PROTOCOL, else by the port]
    export_protocol: String, "ISOSTACK_EXPORT_PROTOCOL", "PROTOCOL";
    /// Most bytes of spans held for settling and for downstream; past it senders are told to
    /// wait [default: 32MiB]
    export_queue_size: ByteSize, "ISOSTACK_EXPORT_QUEUE_SIZE", "BYTES";
    /// How long a stop may take to deliver what is left [default: 5s]
    drain_timeout: Span, "ISOSTACK_DRAIN_TIMEOUT", "DURATION";
    /// auto, or names separated by commas; a named sensor is mandatory [default: auto]
    sensors: Selection, "ISOSTACK_SENSORS", "auto|NAME,...";
    /// Whether child spans that show when time was lost are added [default: true]
    child_spans: bool, "ISOSTACK_CHILD_SPANS", "true|false";
    /// How long a span waits for late events and children [default: 500ms]
    settle: Span, "ISOSTACK_SETTLE", "DURATION";
    /// What each sensor may cost, in per cent of a core; above it tells of fewer single events
    /// [default: 1]
    sensor_budget: Percent, "ISOSTACK_SENSOR_BUDGET", "PERCENT";
    /// off, auto or on: when the seccomp sensor runs [default: auto]
    seccomp: SeccompMode, "ISOSTACK_SECCOMP", "off|auto|on";
    /// Kubernetes API server that is asked for the names of this node's pods, or off [default:
    /// the pod's own, where the agent runs in one]
    kubernetes_api: String, "ISOSTACK_KUBERNETES_API", "URL|off";
    /// Bearer token for it [default: the service account's, in a pod]
    kubernetes_token_file: PathBuf, "ISOSTACK_KUBERNETES_TOKEN_FILE", "FILE";
    /// Authorities that its certificate is checked with [default: the service account's, in a
    /// pod, else the system's]
    kubernetes_ca_file: PathBuf, "ISOSTACK_KUBERNETES_CA_FILE", "FILE";
    /// The node's kubelet, asked for the names of its pods while the API server does not tell, e.g.
    /// https://10.0.0.7:10250, or off; with the same token [default: off]
    kubelet: String, "ISOSTACK_KUBELET", "URL|off";
    /// Authorities that the kubelet's certificate is checked with [default: those of the API server]
    kubelet_ca_file: PathBuf, "ISOSTACK_KUBELET_CA_FILE", "FILE";
    /// Take any certificate of the kubelet's: whoever has its address gets the token [default:
    /// false]
    kubelet_insecure: bool, "ISOSTACK_KUBELET_INSECURE", "true|false";
    /// Socket of the container runtime (CRI) that is asked for names, or off [default: that of
    /// containerd or CRI-O, where there is one]
    cri_endpoint: String, "ISOSTACK_CRI_ENDPOINT", "unix:PATH|off";
    /// Where names, the positions in log files and what is usual of each operation are kept over
    /// a restart [default: /var/lib/isostack, where it can be written]
    state_dir: PathBuf, "ISOSTACK_STATE_DIR", "DIR";
    /// Address of Jaeger's page, for links from the agent's own [default: none]
    jaeger_url: String, "ISOSTACK_JAEGER_URL", "URL";
    /// Where the agent's own traces and metrics go [default: nowhere]
    self_telemetry_endpoint: String, "ISOSTACK_SELF_TELEMETRY_ENDPOINT", "URL";
    /// Log files to read beside the kernel's log, e.g. '/var/log/pods/*/*/*.log'; may be given
    /// several times [default: none]
    log_file: Vec<String>, "ISOSTACK_LOG_FILE", "GLOB";
    /// error, warn, info, debug, trace, or a filter such as info,isostack_agent::join=debug
    /// [default: info]
    log_level: String, "ISOSTACK_LOG_LEVEL", "LEVEL";
    /// text or json [default: text]
    log_format: LogFormat, "ISOSTACK_LOG_FORMAT", "text|json";
    /// The host's procfs [default: /proc]
    procfs: PathBuf, "ISOSTACK_PROCFS", "DIR";
    /// The host's sysfs [default: /sys]
    sysfs: PathBuf, "ISOSTACK_SYSFS", "DIR";
    /// The host's cgroup file system [default: /sys/fs/cgroup]
    cgroupfs: PathBuf, "ISOSTACK_CGROUPFS", "DIR";
    /// TOML file that says what the isolation stack of some processes really is [default:
    /// none]
    stack_override: PathBuf, "ISOSTACK_STACK_OVERRIDE", "FILE";
}

/// The daemon's configuration, complete and checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name of this node.
    pub node: String,
    /// Address of page, metrics and API.
    pub http_listen: SocketAddr,
    /// OTLP over gRPC.
    pub otlp_grpc_listen: Listen,
    /// OTLP over HTTP.
    pub otlp_http_listen: Listen,
    /// As given; the environment's `OTEL_EXPORTER_OTLP_*` complete it.
    pub export_endpoint: Option<String>,
    /// As given.
    pub export_protocol: Option<String>,
    /// Most bytes of spans held.
    pub export_queue_bytes: usize,
    /// Longest stop.
    pub drain_timeout: Duration,
    /// Sensors to run.
    pub sensors: Selection,
    /// Add child spans.
    pub child_spans: bool,
    /// Wait for late events and children.
    pub settle: Duration,
    /// What each sensor may cost, in cores.
    pub sensor_budget_cores: f64,
    /// See [`SeccompMode`].
    pub seccomp: SeccompMode,
    /// The Kubernetes API server; `Err` says why none is asked.
    pub kubernetes: Result<KubernetesConfig, String>,
    /// The node's kubelet; `Err` says why it is not asked.
    pub kubelet: Result<KubernetesConfig, String>,
    /// The container runtime; `Err` says why none is asked.
    pub cri: Result<CriConfig, String>,
    /// Where state is kept; `None`: nowhere.
    pub state_dir: Option<PathBuf>,
    /// For links.
    pub jaeger_url: Option<String>,
    /// The agent's own telemetry.
    pub self_telemetry_endpoint: Option<String>,
    /// Names of log files to read, with wildcards.
    pub log_globs: Vec<String>,
    /// Level or filter.
    pub log_level: String,
    /// Form of the log.
    pub log_format: LogFormat,
    /// The host's file systems.
    pub roots: Roots,
    /// Where a person disagrees with what is inferred.
    pub overrides: Overrides,
}

/// Why a configuration is refused. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration file {path} cannot be read ({source}): check --config")]
    Unreadable {
        /// Its path.
        path: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the configuration file {path} is not valid: {message}")]
    Invalid {
        /// Its path.
        path: String,
        /// What and where, and the nearest right key for an unknown one.
        message: String,
    },
    /// The Kubernetes API server cannot be asked like this.
    #[error(transparent)]
    Kubernetes(#[from] KubernetesError),
    /// A value that its type allows but its meaning does not.
    #[error("{key} = {value} is not possible: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
        /// Why, and what to do.
        reason: String,
    },
}

impl Config {
    /// Completes `settings` (flags and environment) with the file and the defaults.
    ///
    /// # Errors
    /// An unreadable or invalid file, or a value that cannot be.
    pub fn resolve(settings: Settings, file: Option<&Path>) -> Result<Self, ConfigError> {
        let settings = match file {
            Some(path) => settings.or(read_file(path)?),
            None => settings,
        };
        let roots = Roots::default();
        let overrides = match &settings.stack_override {
            Some(path) => Overrides::read(path).map_err(|reason| ConfigError::Value {
                key: "stack_override",
                value: path.display().to_string(),
                reason: reason.to_string(),
            })?,
            None => Overrides::default(),
        };
        let config = Self {
            node: settings.node_name.unwrap_or_else(host_name),
            http_listen: settings
                .http_listen
                .map_or(SocketAddr::from(([127, 0, 0, 1], 9464)), |address| {
                    address.0
                }),
            otlp_grpc_listen: settings.otlp_grpc_listen.unwrap_or(loopback(4317)),
            otlp_http_listen: settings.otlp_http_listen.unwrap_or(loopback(4318)),
            export_endpoint: given(settings.export_endpoint),
            export_protocol: given(settings.export_protocol),
            export_queue_bytes: settings.export_queue_size.map_or(32 << 20, |size| size.0),
            drain_timeout: settings
                .drain_timeout
                .map_or(Duration::from_secs(5), |t| t.0),
            sensors: settings.sensors.unwrap_or_default(),
            child_spans: settings.child_spans.unwrap_or(true),
            settle: settings.settle.map_or(Duration::from_millis(500), |t| t.0),
            sensor_budget_cores: settings
                .sensor_budget
                .map_or(DEFAULT_SENSOR_BUDGET_CORES, |percent| percent.0 / 100.0),
            seccomp: settings.seccomp.unwrap_or_default(),
            kubelet: KubernetesConfig::kubelet(
                given(settings.kubelet).as_deref(),
                settings.kubernetes_token_file.clone(),
                settings.kubelet_ca_file,
                settings.kubernetes_ca_file.clone(),
                settings.kubelet_insecure.unwrap_or(false),
            )?,
            kubernetes: KubernetesConfig::new(
                given(settings.kubernetes_api).as_deref(),
                settings.kubernetes_token_file,
                settings.kubernetes_ca_file,
                |name| std::env::var(name).ok(),
            )?,
            cri: CriConfig::new(given(settings.cri_endpoint).as_deref()),
            state_dir: settings.state_dir.or_else(|| {
                let usual = PathBuf::from(STATE_DIR);
                state_file::check(&usual).is_ok().then_some(usual)
            }),
            jaeger_url: given(settings.jaeger_url),
            self_telemetry_endpoint: given(settings.self_telemetry_endpoint),
            log_globs: settings.log_file.unwrap_or_default(),
            log_level: given(settings.log_level).unwrap_or_else(|| "info".to_owned()),
            log_format: settings.log_format.unwrap_or_default(),
            roots: Roots {
                procfs: settings.procfs.unwrap_or(roots.procfs),
                sysfs: settings.sysfs.unwrap_or(roots.sysfs),
                cgroupfs: settings.cgroupfs.unwrap_or(roots.cgroupfs),
            },
            overrides,
        };
        config.check()?;
        Ok(config)
    }
}

/// Where state is kept if nothing else is said and it exists.
const STATE_DIR: &str = "/var/lib/isostack";

fn loopback(port: u16) -> Listen {
    Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], port)))
}

/// The TCP address, where it is one.
#[must_use]
pub fn tcp(listen: &Listen) -> Option<SocketAddr> {
    match listen {
        Listen::Tcp(address) => Some(*address),
        Listen::Unix(_) => None,
    }
}

/// An empty value in the environment or the file means "not set".
fn given(value: Option<String>) -> Option<String> {
    value.filter(|v| !v.is_empty())
}

fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

fn read_file(path: &Path) -> Result<Settings, ConfigError> {
    let shown = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
        path: shown.clone(),
        source,
    })?;
    toml::from_str(&text).map_err(|error| {
        let hint = error
            .message()
            .strip_prefix("unknown field `")
            .and_then(|rest| rest.split('`').next())
            .and_then(|key| nearest(key, Settings::KEYS))
            .map(|key| format!("did you mean `{key}`?"))
            .unwrap_or_default();
        ConfigError::Invalid {
            path: shown,
            message: format!("{error}{hint}"),
        }
    })
}

/// The known name that `wrong` was most likely meant to be.
pub(crate) fn nearest(wrong: &str, known: &'static [&'static str]) -> Option<&'static str> {
    known
        .iter()
        .map(|name| (strsim::jaro_winkler(wrong, name), *name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// `ISOSTACK_*` variables that no setting has but that look like one misspelt: said, not
/// refused, as Kubernetes sets variables of this form for a Service named `isostack-...`.
#[must_use]
pub fn suspicious_variables(
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<(String, &'static str)> {
    variables
        .filter_map(|(name, _)| name.into_string().ok())
        .filter_map(|name| {
            let key = name.strip_prefix("ISOSTACK_")?.to_lowercase();
            if key == "config" || Settings::KEYS.contains(&key.as_str()) {
                return None;
            }
            let known = nearest(&key, Settings::KEYS)?;
            (strsim::levenshtein(&key, known) <= 3).then_some((name, known))
        })
        .collect()
}

/// Parses from a string in flags, environment and TOML alike.
macro_rules! deserialize_from_str {
    ($($type:ty),+) => {$(
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::from_str(&text).map_err(serde::de::Error::custom)
            }
        }
    )+};
}
deserialize_from_str!(Address, ByteSize, Listen, Percent, Span);

impl<'de> Deserialize<'de> for Selection {
    /// As the flag has it, or as a list.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "write names separated by commas, as in \"cpu,tcp\", or a list of them"
        )]
        enum Names {
            Text(String),
            List(Vec<String>),
        }
        let names = match Names::deserialize(deserializer)? {
            Names::Text(names) => names,
            Names::List(names) => names.join(","),
        };
        Self::parse(&names).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for SeccompMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Auto => "auto",
            Self::On => "on",
        })
    }
}

#[cfg(test)]
mod tests;
