//! Where to send, and how: flags first, then the variables of the OTLP exporter
//! specification (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).
//!
//! Every key exists once in general (`OTEL_EXPORTER_OTLP_HEADERS`) and once per signal
//! (`OTEL_EXPORTER_OTLP_TRACES_HEADERS`), the latter winning. An empty variable counts as
//! unset. An endpoint given by flag stands above all endpoint variables, for all signals.
//!
//! * Protocol: flag, variable, else `http/protobuf` when the endpoint's port is 4318,
//!   else `grpc`.
//! * Path, HTTP only: a general endpoint (flag too) is a base that `/v1/<signal>` is added
//!   to; an endpoint of one signal is used as it is.
//! * No scheme (`collector:4317`), gRPC only: by flag plain text unless
//!   `OTEL_EXPORTER_OTLP_INSECURE=false`; by variable TLS unless `..._INSECURE=true`, as the
//!   specification has it.

mod endpoint;

use std::{fmt, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use thiserror::Error;

use self::endpoint::{Setting, grpc_endpoint, http_endpoint, parse_uri};
use super::{
    signal::{Named, SIGNALS},
    tls::{self, TlsFiles},
};
use crate::otlp::Signal;

/// Default of `max_batch_bytes`: well below the 4 MiB that gRPC servers take by default.
const MAX_BATCH_BYTES: usize = 1 << 20;
/// Default of `max_in_flight`.
const MAX_IN_FLIGHT: usize = 4;
/// The specification's default of `OTEL_EXPORTER_OTLP_TIMEOUT`.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Headers that the forwarder sets itself.
const OWN_HEADERS: [&str; 7] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
];

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// `POST` of protobuf.
    HttpProtobuf,
}

impl Protocol {
    /// The word of the flag and the variable.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        }
    }
}

/// How bodies are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip, at its fastest level.
    Gzip,
}

/// Where one signal goes.
#[derive(Clone)]
pub struct Target {
    /// For gRPC the server, for HTTP the full address; always with scheme and host, never
    /// with credentials in it, so that it may be shown.
    pub endpoint: Uri,
    /// See [`Protocol`].
    pub protocol: Protocol,
    /// Added to every request; values marked sensitive.
    pub headers: HeaderMap,
    /// See [`Compression`].
    pub compression: Compression,
    /// How long one attempt may take, connecting included.
    pub timeout: Duration,
    /// Present exactly when the scheme is `https`.
    pub tls: Option<rustls::ClientConfig>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("endpoint", &self.endpoint)
            .field("protocol", &self.protocol)
            .field("headers", &self.headers)
            .field("compression", &self.compression)
            .field("timeout", &self.timeout)
            .field("tls", &self.tls.is_some())
            .finish()
    }
}

/// The forwarder's configuration. A signal without target is not forwarded: its receiver
/// must refuse it ([`super::ForwardHandle::takes`]).
#[derive(Clone, Debug)]
pub struct ForwardConfig {
    /// Where spans go.
    pub traces: Option<Target>,
    /// Where metrics go.
    pub metrics: Option<Target>,
    /// Where logs go.
    pub logs: Option<Target>,
    /// Up to this many bytes, uncompressed, are joined into one request.
    pub max_batch_bytes: usize,
    /// Requests on their way at once, per signal.
    pub max_in_flight: usize,
}

/// Why a configuration is refused.
#[derive(Debug, Error)]
pub enum ForwardConfigError {
    /// The value of an endpoint, protocol, header, ... cannot be used.
    #[error("{key} = {value:?}: {reason}")]
    Value {
        /// The flag or variable.
        key: String,
        /// What it holds; a stand-in for secrets.
        value: String,
        /// What is wrong and what to write instead.
        reason: String,
    },
    /// A file of certificates or keys cannot be used.
    #[error("{key} = {path:?}: {reason}")]
    File {
        /// The variable.
        key: String,
        /// What it holds.
        path: String,
        /// What is wrong and what to do.
        reason: String,
    },
}

impl ForwardConfig {
    /// The configuration that flags and environment ask for; `None` when neither names an
    /// endpoint. `endpoint` and `protocol` are `--export-endpoint` and `--export-protocol`.
    ///
    /// # Errors
    /// When a value cannot be used or a file of certificates cannot be read.
    pub fn from_env_and_flags(
        endpoint: Option<&str>,
        protocol: Option<&str>,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, ForwardConfigError> {
        let source = Source {
            endpoint,
            protocol,
            env: &env,
        };
        // Refused also where nothing is sent: it would be wrong on the day that something is.
        source.protocol_flag()?;
        let config = Self {
            traces: source.target(Signal::Traces)?,
            metrics: source.target(Signal::Metrics)?,
            logs: source.target(Signal::Logs)?,
            max_batch_bytes: MAX_BATCH_BYTES,
            max_in_flight: MAX_IN_FLIGHT,
        };
        let any = SIGNALS.iter().any(|s| config.target(*s).is_some());
        Ok(any.then_some(config))
    }

    /// Where `signal` goes.
    #[must_use]
    pub const fn target(&self, signal: Signal) -> Option<&Target> {
        match signal {
            Signal::Traces => self.traces.as_ref(),
            Signal::Metrics => self.metrics.as_ref(),
            Signal::Logs => self.logs.as_ref(),
        }
    }
}

fn parse_protocol(setting: Setting) -> Result<Protocol, ForwardConfigError> {
    match setting.value.as_str() {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        "http/json" => Err(setting.refuse(
            "JSON is received but not sent: write http/protobuf, which the same port takes",
        )),
        _ => Err(setting.refuse("write grpc or http/protobuf")),
    }
}

struct Source<'a> {
    endpoint: Option<&'a str>,
    protocol: Option<&'a str>,
    env: &'a dyn Fn(&str) -> Option<String>,
}

impl Source<'_> {
    fn target(&self, signal: Signal) -> Result<Option<Target>, ForwardConfigError> {
        let Some((endpoint, base)) = self.endpoint(signal) else {
            return Ok(None);
        };
        let given = parse_uri(&endpoint)?;
        let protocol = self.protocol(signal, &given)?;
        let endpoint = match protocol {
            Protocol::Grpc => grpc_endpoint(&endpoint, given, || self.insecure(signal, &endpoint))?,
            Protocol::HttpProtobuf => http_endpoint(signal, &endpoint, given, base)?,
        };
        let tls = if endpoint.scheme_str() == Some("https") {
            let file = |key| self.env(signal, key).map(|s| (s.key, s.value));
            Some(tls::client_config(&TlsFiles {
                authorities: file("CERTIFICATE"),
                certificate: file("CLIENT_CERTIFICATE"),
                key: file("CLIENT_KEY"),
            })?)
        } else {
            None
        };
        Ok(Some(Target {
            endpoint,
            protocol,
            headers: self.headers(signal)?,
            compression: self.compression(signal)?,
            timeout: self.timeout(signal)?,
            tls,
        }))
    }

    /// The endpoint, and whether it is a base that the signal's path is added to.
    fn endpoint(&self, signal: Signal) -> Option<(Setting, bool)> {
        if let Some(value) = non_empty(self.endpoint) {
            let key = "--export-endpoint".to_owned();
            return Some((Setting { key, value }, true));
        }
        let setting = self.env(signal, "ENDPOINT")?;
        let base = setting.key == general("ENDPOINT");
        Some((setting, base))
    }

    /// The signal's own variable, else the general one.
    fn env(&self, signal: Signal, key: &str) -> Option<Setting> {
        let own = format!("OTEL_EXPORTER_OTLP_{}_{key}", signal.upper());
        [own, general(key)].into_iter().find_map(|key| {
            let value = non_empty((self.env)(&key).as_deref())?;
            Some(Setting { key, value })
        })
    }

    fn protocol(&self, signal: Signal, endpoint: &Uri) -> Result<Protocol, ForwardConfigError> {
        if let Some(protocol) = self.protocol_flag()? {
            return Ok(protocol);
        }
        match self.env(signal, "PROTOCOL") {
            Some(setting) => parse_protocol(setting),
            None if endpoint.port_u16() == Some(4318) => Ok(Protocol::HttpProtobuf),
            None => Ok(Protocol::Grpc),
        }
    }

    fn protocol_flag(&self) -> Result<Option<Protocol>, ForwardConfigError> {
        let flag = non_empty(self.protocol).map(|value| Setting {
            key: "--export-protocol".to_owned(),
            value,
        });
        flag.map(parse_protocol).transpose()
    }

    /// Whether an endpoint without scheme is plain text.
    fn insecure(&self, signal: Signal, endpoint: &Setting) -> Result<bool, ForwardConfigError> {
        match self.env(signal, "INSECURE") {
            None => Ok(endpoint.key.starts_with("--")),
            Some(s) if s.value.eq_ignore_ascii_case("true") => Ok(true),
            Some(s) if s.value.eq_ignore_ascii_case("false") => Ok(false),
            Some(s) => Err(s.refuse("write true or false")),
        }
    }

    fn headers(&self, signal: Signal) -> Result<HeaderMap, ForwardConfigError> {
        let mut headers = HeaderMap::new();
        let Some(mut setting) = self.env(signal, "HEADERS") else {
            return Ok(headers);
        };
        // The value holds tokens more often than not: it is never part of a message.
        let list = std::mem::replace(&mut setting.value, "(not shown)".to_owned());
        for (position, pair) in list.split(',').enumerate() {
            let pair = pair.trim();
            if pair.is_empty() {
                continue;
            }
            let nth = position + 1;
            let Some((name, value)) = pair.split_once('=') else {
                return Err(setting.refuse(format!(
                    "entry {nth} has no '=': write name=value,name=value with special \
                     characters percent-encoded"
                )));
            };
            let name = percent_decode_str(name.trim()).decode_utf8_lossy();
            let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
                return Err(setting.refuse(format!("entry {nth} has no valid header name")));
            };
            if OWN_HEADERS.contains(&name.as_str()) {
                return Err(setting.refuse(format!(
                    "the header {name} is set by the agent itself: leave it out"
                )));
            }
            let value: Vec<u8> = percent_decode_str(value.trim()).collect();
            let Ok(mut value) = HeaderValue::from_bytes(&value) else {
                return Err(setting.refuse(format!(
                    "the value of {name} has characters that no header may hold"
                )));
            };
            value.set_sensitive(true);
            headers.append(name, value);
        }
        Ok(headers)
    }

    fn compression(&self, signal: Signal) -> Result<Compression, ForwardConfigError> {
        match self.env(signal, "COMPRESSION") {
            None => Ok(Compression::None),
            Some(s) if s.value == "gzip" => Ok(Compression::Gzip),
            Some(s) if s.value == "none" => Ok(Compression::None),
            Some(s) => Err(s.refuse("write gzip or none")),
        }
    }

    fn timeout(&self, signal: Signal) -> Result<Duration, ForwardConfigError> {
        let Some(setting) = self.env(signal, "TIMEOUT") else {
            return Ok(TIMEOUT);
        };
        match setting.value.parse::<u64>() {
            Ok(ms) if (1..=3_600_000).contains(&ms) => Ok(Duration::from_millis(ms)),
            _ => Err(setting.refuse("write milliseconds, 1 to 3600000")),
        }
    }
}

fn general(key: &str) -> String {
    format!("OTEL_EXPORTER_OTLP_{key}")
}

fn non_empty(value: Option<&str>) -> Option<String> {
    let value = value?.trim();
    (!value.is_empty()).then(|| value.to_owned())
}

#[cfg(test)]
mod tests;
