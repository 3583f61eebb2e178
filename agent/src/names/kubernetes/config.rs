//! Where the API server is and how to show who asks.

use std::path::PathBuf;

use http::{Uri, uri::Scheme};

/// Where Kubernetes mounts a pod's service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The API server to ask.
#[derive(Clone, Debug)]
pub struct KubernetesConfig {
    /// `http://` or `https://`, host and port.
    pub server: Uri,
    /// File with the bearer token; read again for each request, as it is changed while in use.
    pub token_file: Option<PathBuf>,
    /// File with the authorities (PEM) that the server's certificate is checked with; the
    /// system's without.
    pub ca_file: Option<PathBuf>,
}

/// Why the API server cannot be asked. The message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// The address.
    #[error("kubernetes_api = {address} is not possible: {reason}")]
    Address {
        /// As given.
        address: String,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// A file.
    #[error("{path}: {reason}; check --kubernetes-ca-file")]
    File {
        /// Its path.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
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
        let account = |name: &str| {
            let path = PathBuf::from(ACCOUNT).join(name);
            path.exists().then_some(path)
        };
        match api {
            Some("off") => return Ok(Err("--kubernetes-api off".to_owned())),
            Some(address) => {
                return Ok(Ok(Self {
                    server: server(address)?,
                    token_file,
                    ca_file,
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
            server: server(&format!("https://{host}:{port}"))?,
            token_file,
            ca_file: ca_file.or_else(|| account("ca.crt")),
        }))
    }
}

fn server(address: &str) -> Result<Uri, KubernetesError> {
    let refuse = |reason| KubernetesError::Address {
        address: address.to_owned(),
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
    if uri.path() != "/" || uri.query().is_some() {
        return Err(refuse("leave the path out"));
    }
    Ok(uri)
}
