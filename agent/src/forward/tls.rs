//! TLS towards downstream: rustls with ring; a given authority replaces the system's.

use std::fs;

use hyper_rustls::ConfigBuilderExt;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::config::ForwardConfigError;

/// Files that the configuration names: the variable and the path it holds.
pub(super) struct TlsFiles {
    /// Certificates (PEM) of the authorities to trust, in place of the system's.
    pub authorities: Option<(String, String)>,
    /// The certificate chain (PEM) to show.
    pub certificate: Option<(String, String)>,
    /// Its private key (PEM).
    pub key: Option<(String, String)>,
}

/// Reads the files and puts them together. Protocol negotiation is left to the client.
pub(super) fn client_config(files: &TlsFiles) -> Result<ClientConfig, ForwardConfigError> {
    let builder = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3");
    let builder = match &files.authorities {
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|e| {
                    refuse(
                        file,
                        format!("holds a certificate that is no authority: {e}"),
                    )
                })?;
            }
            builder.with_root_certificates(roots)
        }
        // A minimal image has no authorities of its own; Mozilla's are compiled in.
        None => match builder.clone().with_native_roots() {
            Ok(native) => native,
            Err(_) => builder.with_webpki_roots(),
        },
    };
    match (&files.certificate, &files.key) {
        (None, None) => Ok(builder.with_no_client_auth()),
        (Some(chain), Some(key)) => builder
            .with_client_auth_cert(certificates(chain)?, private_key(key)?)
            .map_err(|e| refuse(chain, format!("does not go with the key {:?}: {e}", key.1))),
        (Some(only), None) => Err(refuse(only, "needs its key: set ..._CLIENT_KEY as well")),
        (None, Some(only)) => Err(refuse(
            only,
            "needs its certificate: set ..._CLIENT_CERTIFICATE as well",
        )),
    }
}

/// For a connector that only meets plain `http`, but must have a configuration.
pub(super) fn trusting_none() -> ClientConfig {
    ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth()
}

fn certificates(
    file: &(String, String),
) -> Result<Vec<CertificateDer<'static>>, ForwardConfigError> {
    let pem = read(file)?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|e| refuse(file, format!("not PEM: {e}")))?;
    if certificates.is_empty() {
        return Err(refuse(file, "no certificate (BEGIN CERTIFICATE) in it"));
    }
    Ok(certificates)
}

fn private_key(file: &(String, String)) -> Result<PrivateKeyDer<'static>, ForwardConfigError> {
    let pem = read(file)?;
    PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|e| refuse(file, format!("no private key in PEM in it: {e}")))
}

fn read(file: &(String, String)) -> Result<Vec<u8>, ForwardConfigError> {
    fs::read(&file.1).map_err(|e| {
        refuse(
            file,
            format!("cannot be read ({e}): name a file of PEM that the agent may read"),
        )
    })
}

fn refuse(file: &(String, String), reason: impl Into<String>) -> ForwardConfigError {
    ForwardConfigError::File {
        key: file.0.clone(),
        path: file.1.clone(),
        reason: reason.into(),
    }
}
