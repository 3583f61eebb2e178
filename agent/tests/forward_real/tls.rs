//! TLS by the scheme of the address: own authority, client certificate, wrong authority.

use std::{path::PathBuf, sync::Arc};

use isostack_agent::forward::Health;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    server::WebPkiClientVerifier,
};
use tempfile::TempDir;

use crate::{
    PROTOCOLS,
    agent::Agent,
    downstream::{Downstream, ok},
};

/// An authority made for one test, and the files it writes.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
            dir: TempDir::new().unwrap(),
        }
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn file(&self, name: &str, pem: &str) -> String {
        let path: PathBuf = self.dir.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn certificate_file(&self) -> String {
        self.file("ca.pem", &self.issuer.pem())
    }

    /// Demands a certificate of this authority from clients.
    fn server(&self) -> ServerConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .build()
            .unwrap();
        let (certificate, key) = self.issue("localhost");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}

#[tokio::test]
async fn both_ends_show_certificates() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue("agent");
    let ca = authority.certificate_file();
    let certificate = authority.file("client.pem", &certificate.pem());
    let key = authority.file("client.key", &key.serialize_pem());
    let env = [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", &*ca),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &certificate),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", &key),
    ];
    for protocol in PROTOCOLS {
        let server = Some(authority.server());
        let downstream = Downstream::start_on("127.0.0.1:0", server, |_, _| ok()).await;
        let url = format!("https://localhost:{}", downstream.address.port());
        let agent = Agent::at(&url, protocol, &env, |_| {});
        let sent = agent.send(0..5);
        agent.settled().await;
        assert_eq!(downstream.bytes(), sent);
    }
}

#[tokio::test]
async fn a_server_of_another_authority_gets_nothing() {
    let (theirs, ours) = (Authority::new(), Authority::new());
    let ca = ours.certificate_file();
    for protocol in PROTOCOLS {
        let server = Some(theirs.server());
        let downstream = Downstream::start_on("127.0.0.1:0", server, |_, _| ok()).await;
        let url = format!("https://localhost:{}", downstream.address.port());
        // With the system's authorities, and with one that is not the server's.
        for env in [&[][..], &[("OTEL_EXPORTER_OTLP_CERTIFICATE", &*ca)]] {
            let agent = Agent::at(&url, protocol, env, |_| {});
            agent.send(0..5);
            agent.until(|a| a.retries("connection") >= 2).await;
            let Health::Failing { last_error, .. } = agent.health("traces") else {
                panic!("not failing");
            };
            assert!(last_error.contains("certificate"), "{last_error}");
            assert_eq!(agent.metrics.forward_queue.get(), 1);
        }
        assert!(downstream.received().is_empty());
    }
}
