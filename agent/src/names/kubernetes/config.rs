//! Where the API server and the kubelet are, and how to show who asks.

use std::path::PathBuf;

use http::{Uri, uri::Scheme};

use crate::address::{PORTS, has_impossible_port};

/// Where Kubernetes mounts a pod's service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// A server of Kubernetes to ask.
#[derive(Clone, Debug)]
pub struct KubernetesConfig {
    /// Which one.
    pub whom: Whom,
    /// `http://` or `https://`, host and port.
    pub server: Uri,
    /// File with the bearer token; read again for each request, as it is changed while in use.
    pub token_file: Option<PathBuf>,
    /// Whose certificate is believed.
    pub trust: Trust,
}

/// Which server of Kubernetes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// The API server.
    Api,
    /// The node's kubelet.
    Kubelet,
}

/// What a server's certificate is checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The system's authorities.
    System,
    /// The authorities in this file (PEM); read again for each request.
    Authorities(PathBuf),
    /// Nothing.
    Anybody,
}

impl Trust {
    fn of(file: Option<PathBuf>) -> Self {
        file.map_or(Self::System, Self::Authorities)
    }
}

/// Why a server of Kubernetes cannot be asked. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// The address.
    #[error("{key} = {address} is not possible: {reason}")]
    Address {
        /// The setting.
        key: &'static str,
        /// As given.
        address: String,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// A file.
    #[error("{path}: {reason}; check {flag}")]
    File {
        /// The setting.
        flag: &'static str,
        /// Its path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Two settings that exclude each other.
    #[error(
        "kubelet_insecure = true and kubelet_ca_file = {path} exclude each other: leave one out"
    )]
    Contradiction {
        /// The file.
        path: String,
    },
}

impl Whom {
    /// What to call it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Api => "the API server",
            Self::Kubelet => "the kubelet",
        }
    }

    pub(super) const fn authorities_flag(self) -> &'static str {
        match self {
            Self::Api => "--kubernetes-ca-file",
            Self::Kubelet => "--kubelet-ca-file",
        }
    }

    /// What an account must be allowed to.
    pub(super) const fn right(self) -> &'static str {
        match self {
            Self::Api => "list and watch pods, as deploy/kubernetes/rbac.yaml does",
            Self::Kubelet => {
                "get nodes/pods (before Kubernetes 1.33: nodes/proxy), as \
                 deploy/kubernetes/kubelet/rbac.yaml does"
            }
        }
    }

    /// What to do about a certificate that is not believed; empty for other failures.
    pub(super) fn help_with_tls(self, error: &str) -> &'static str {
        match self {
            Self::Kubelet if error.contains("certificate") => {
                "; a kubelet signs its own certificate unless serverTLSBootstrap is set: \
                 --kubelet-ca-file takes a copy of it, --kubelet-insecure true believes any"
            }
            _ => "",
        }
    }
}

impl KubernetesConfig {
    /// From the settings and the environment; the inner `Err` says why there is nobody to ask.
    ///
    /// # Errors
    /// An address was given that is none.
    pub fn new(
        api: Option<&str>,
        token_file: Option<PathBuf>,
        ca_file: Option<PathBuf>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Result<Self, String>, KubernetesError> {
        match api {
            Some("off") => return Ok(Err("--kubernetes-api off".to_owned())),
            Some(address) => {
                return Ok(Ok(Self {
                    whom: Whom::Api,
                    server: server("kubernetes_api", address)?,
                    token_file,
                    trust: Trust::of(ca_file),
                }));
            }
            None => {}
        }
        let (host, port) = (
            variable("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty()),
            variable("KUBERNETES_SERVICE_PORT_HTTPS")
                .or_else(|| variable("KUBERNETES_SERVICE_PORT")),
        );
        let Some(host) = host else {
            let reason = "this is no pod, and --kubernetes-api names no server";
            return Ok(Err(reason.to_owned()));
        };
        let token_file = token_file.or_else(|| account("token"));
        if token_file.is_none() {
            let reason = format!(
                "no token at {ACCOUNT}/token: set automountServiceAccountToken, as \
                 deploy/kubernetes does"
            );
            return Ok(Err(reason));
        }
        let host = match host.contains(':') {
            true => format!("[{host}]"),
            false => host,
        };
        let port = port.unwrap_or_else(|| "443".to_owned());
        Ok(Ok(Self {
            whom: Whom::Api,
            server: server("kubernetes_api", &format!("https://{host}:{port}"))?,
            token_file,
            trust: Trust::of(ca_file.or_else(|| account("ca.crt"))),
        }))
    }

    /// The kubelet, from the settings; the inner `Err` says why none is asked. Its authorities
    /// are the cluster's where no others are named.
    ///
    /// # Errors
    /// An address was given that is none, or authorities for a certificate that is not checked.
    pub fn kubelet(
        address: Option<&str>,
        token_file: Option<PathBuf>,
        ca_file: Option<PathBuf>,
        cluster_ca_file: Option<PathBuf>,
        insecure: bool,
    ) -> Result<Result<Self, String>, KubernetesError> {
        let server = match address {
            None => return Ok(Err("--kubelet names none".to_owned())),
            Some("off") => return Ok(Err("--kubelet off".to_owned())),
            Some(address) => server("kubelet", address)?,
        };
        let trust = match (insecure, ca_file) {
            (true, Some(path)) => {
                return Err(KubernetesError::Contradiction {
                    path: path.display().to_string(),
                });
            }
            (true, None) => Trust::Anybody,
            (false, ca_file) => {
                let cluster = || cluster_ca_file.or_else(|| account("ca.crt"));
                Trust::of(ca_file.or_else(cluster))
            }
        };
        // Its port without authentication takes no token, and a token is not for the clear.
        let encrypted = server.scheme() == Some(&Scheme::HTTPS);
        Ok(Ok(Self {
            whom: Whom::Kubelet,
            token_file: token_file
                .or_else(|| account("token"))
                .filter(|_| encrypted),
            server,
            trust,
        }))
    }
}

/// A file of the pod's service account.
fn account(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(ACCOUNT).join(name);
    path.exists().then_some(path)
}

fn server(key: &'static str, address: &str) -> Result<Uri, KubernetesError> {
    // What stands before the @ may be a password: it is not repeated.
    let shown = address
        .rsplit_once('@')
        .map_or(address.to_owned(), |(_, host)| format!("...@{host}"));
    let refuse = |reason| KubernetesError::Address {
        key,
        address: shown.clone(),
        reason,
    };
    let uri: Uri = address
        .trim_end_matches('/')
        .parse()
        .map_err(|_| refuse("write off, or an address like https://10.0.0.1:6443"))?;
    match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => {}
        _ => {
            return Err(refuse(
                "begin it with https:// (or http:// for a local proxy)",
            ));
        }
    }
    if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
        return Err(refuse(
            "leave user and password out: who asks is shown by the token of --kubernetes-token-file",
        ));
    }
    if has_impossible_port(&uri) {
        return Err(refuse(PORTS));
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err(refuse("leave the path out"));
    }
    Ok(uri)
}
