//! What the types of settings allow and their meaning does not. Nothing is started or bound
//! before all of it holds.

use std::{net::IpAddr, time::Duration};

use super::{Config, ConfigError};
use crate::{
    address::{PORTS, has_impossible_port},
    otlp::listen::Listen,
};

/// Spans are never held longer than this before they are judged.
const MAX_SETTLE: Duration = Duration::from_secs(60);
/// The receiver's largest request (20 MiB over HTTP).
const MIN_QUEUE_BYTES: usize = 20 << 20;
/// Bytes of a node's name, as in Kubernetes.
pub(super) const MAX_NODE_NAME: usize = 253;

impl Config {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if let Some((key, path)) = self.roots.missing() {
            return Err(ConfigError::Value {
                key,
                value: path.display().to_string(),
                reason: "there is no such folder; mount the host's there".to_owned(),
            });
        }
        check_node_name(&self.node)?;
        if let Some(url) = &self.jaeger_url {
            check_link("jaeger_url", url)?;
        }
        if let Ok(cri) = &self.cri
            && !cri.socket.is_absolute()
        {
            return Err(ConfigError::Value {
                key: "cri_endpoint",
                value: cri.socket.display().to_string(),
                reason: "write off, or a socket, as in unix:/run/containerd/containerd.sock"
                    .to_owned(),
            });
        }
        if self.settle > MAX_SETTLE {
            return Err(ConfigError::Value {
                key: "settle",
                value: format!("{:?}", self.settle),
                reason: format!("at most {MAX_SETTLE:?}: spans are held for so long"),
            });
        }
        if self.export_queue_bytes < MIN_QUEUE_BYTES {
            return Err(ConfigError::Value {
                key: "export_queue_size",
                value: self.export_queue_bytes.to_string(),
                reason: format!(
                    "at least {} MiB, so that the largest request that is accepted fits",
                    MIN_QUEUE_BYTES >> 20
                ),
            });
        }
        if self.export_queue_bytes > u32::MAX as usize {
            return Err(ConfigError::Value {
                key: "export_queue_size",
                value: self.export_queue_bytes.to_string(),
                reason: "less than 4 GiB".to_owned(),
            });
        }
        for pattern in &self.log_globs {
            if let Err(error) = glob::Pattern::new(pattern) {
                return Err(ConfigError::Value {
                    key: "log_file",
                    value: pattern.clone(),
                    reason: format!("it is no pattern of file names: {error}"),
                });
            }
        }
        let listeners = [
            ("http_listen", Listen::Tcp(self.http_listen)),
            ("otlp_grpc_listen", self.otlp_grpc_listen.clone()),
            ("otlp_http_listen", self.otlp_http_listen.clone()),
        ];
        for (index, (key, listen)) in listeners.iter().enumerate() {
            let other = listeners[..index].iter().find(|(_, l)| collide(l, listen));
            if let Some((other, _)) = other {
                return Err(ConfigError::Value {
                    key,
                    value: listen.to_string(),
                    reason: format!("{other} has the same address: give each its own"),
                });
            }
        }
        Ok(())
    }
}

/// The name goes on every span and metric.
fn check_node_name(name: &str) -> Result<(), ConfigError> {
    let reason = if name.trim().is_empty() {
        "it is empty: name the node, or leave it out for the host name".to_owned()
    } else if name.len() > MAX_NODE_NAME {
        format!("at most {MAX_NODE_NAME} bytes")
    } else if name.chars().any(char::is_control) {
        "control characters cannot be part of it".to_owned()
    } else {
        return Ok(());
    };
    Err(ConfigError::Value {
        key: "node_name",
        value: format!("{:?}", name.chars().take(MAX_NODE_NAME).collect::<String>()),
        reason,
    })
}

/// An address that links on the page begin with.
fn check_link(key: &'static str, url: &str) -> Result<(), ConfigError> {
    let refuse = |value: &str, reason: &str| ConfigError::Value {
        key,
        value: value.to_owned(),
        reason: reason.to_owned(),
    };
    if url.contains('@') {
        return Err(refuse(
            "(not shown)",
            "it is shown on the page: leave user and password out",
        ));
    }
    let is_base = |uri: &http::Uri| {
        let scheme = uri.scheme_str();
        matches!(scheme, Some("http" | "https")) && uri.query().is_none() && !url.contains('#')
    };
    match url.parse::<http::Uri>() {
        Ok(uri) if has_impossible_port(&uri) => Err(refuse(url, PORTS)),
        Ok(uri) if is_base(&uri) => Ok(()),
        _ => Err(refuse(url, "write an address like http://jaeger:16686")),
    }
}

/// Whether both cannot be listened on at once: the unspecified address has the others' ports
/// too, that of IPv6 also those of IPv4.
fn collide(a: &Listen, b: &Listen) -> bool {
    match (a, b) {
        (Listen::Tcp(a), Listen::Tcp(b)) => {
            let (x, y) = (a.ip(), b.ip());
            let covers =
                |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
            a.port() != 0 && a.port() == b.port() && (x == y || covers(x, y) || covers(y, x))
        }
        (Listen::Unix(a), Listen::Unix(b)) => a == b,
        _ => false,
    }
}
