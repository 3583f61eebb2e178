//! Against a kubelet of the test's own.

use std::path::Path;

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::json;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::workload::pod::Pod;

fn pods(uids: &[&str]) -> (u16, String) {
    let items: Vec<_> = uids.iter().map(|uid| object(uid, "told", 1)).collect();
    (
        200,
        json!({ "kind": "PodList", "items": items }).to_string(),
    )
}

/// What is known, how the kubelet does, and how the API server does, for the kubelet to see.
struct Asked {
    directory: Arc<Directory>,
    source: Arc<Source>,
    api: Arc<Source>,
}

impl Asked {
    fn start(config: KubernetesConfig) -> Self {
        let (source, api) = (Source::new("kubelet"), Source::new("api"));
        let (source, api) = (Arc::new(source), Arc::new(api));
        api.failing("by the test".to_owned());
        let kubelet = Kubelet::new(config, Arc::clone(&source), Arc::clone(&api)).unwrap();
        let directory = Arc::<Directory>::default();
        let told = Arc::clone(&directory);
        tokio::spawn(kubelet.follow(told, CancellationToken::new()));
        Self {
            directory,
            source,
            api,
        }
    }

    async fn state(&self, state: SourceState) {
        until("the state", || self.source.view().state == state).await;
    }
}

fn settings(address: &str, token: Option<&Path>, ca: Option<&Path>) -> KubernetesConfig {
    let (token, ca) = (token.map(PathBuf::from), ca.map(PathBuf::from));
    let config = KubernetesConfig::kubelet(Some(address), token, ca, None, false);
    config.unwrap().unwrap()
}

#[tokio::test]
async fn it_is_asked_while_the_api_does_not_tell() {
    let empty = (200, json!({ "items": null }).to_string());
    let server = Server::start(vec![pods(&["a"]), pods(&["b"]), empty.clone(), empty]).await;
    let asked = Asked::start(settings(&format!("http://{}", server.address), None, None));
    let directory = &asked.directory;
    let earlier = Pod {
        uid: "e".to_owned(),
        name: "earlier".to_owned(),
        ..Pod::default()
    };
    directory.apply(earlier, NamesFrom::Cache);
    until("the first list", || directory.pod("a").is_some()).await;
    let known = directory.pod("a").unwrap();
    assert_eq!((&*known.pod.name, known.from), ("told", NamesFrom::Kubelet));
    asked.state(SourceState::Live).await;
    let size = directory.size();
    assert_eq!(
        (size.live, size.dead),
        (2, 0),
        "a kubelet without its API server may know less than runs"
    );
    // An API server that refuses is there: its kubelet knows all.
    asked.api.denied("by the test".to_owned());
    until("the second list", || directory.pod("b").is_some()).await;
    let size = directory.size();
    assert_eq!((size.live, size.dead), (1, 2), "a and e are gone");
    asked.api.live();
    asked.state(SourceState::Standby).await;
    let requests = server.requests.lock();
    assert_eq!(requests.len(), 2, "{requests:?}");
    assert!(requests.iter().all(|r| r.starts_with("GET /pods HTTP")));
}

#[tokio::test]
async fn its_refusal_says_which_right_is_missing() {
    let said = "Forbidden (user=x, verb=get, resource=nodes)\n\u{202e}".to_owned();
    let server = Server::start(vec![(403, said.clone()), (403, said)]).await;
    let asked = Asked::start(settings(&format!("http://{}", server.address), None, None));
    asked.state(SourceState::Denied).await;
    let reason = asked.source.view().reason;
    assert!(
        reason.contains("nodes/pods") && reason.contains("user=x"),
        "{reason}"
    );
    assert!(!reason.contains('\u{202e}'), "{reason:?}");
}

/// A kubelet with a certificate that it signed itself; answers everybody with one pod.
async fn with_own_certificate() -> (String, rcgen::CertifiedKey<rcgen::KeyPair>, Requests) {
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not believe the certificate ends here.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            seen.lock().push(String::from_utf8(head).unwrap());
            let (_, body) = pods(&["a"]);
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (format!("https://localhost:{port}"), own, requests)
}

type Requests = Arc<Mutex<Vec<String>>>;

#[tokio::test]
async fn its_own_certificate_is_believed_by_a_word_only() {
    let dir = tempfile::tempdir().unwrap();
    let (token, ca) = (dir.path().join("token"), dir.path().join("ca"));
    std::fs::write(&token, "secret").unwrap();
    let (address, own, requests) = with_own_certificate().await;

    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&ca, other.cert.pem()).unwrap();
    let asked = Asked::start(settings(&address, Some(&token), Some(&ca)));
    asked.state(SourceState::Failing).await;
    let reason = asked.source.view().reason;
    for flag in ["--kubelet-ca-file", "--kubelet-insecure"] {
        assert!(reason.contains(flag), "{reason}");
    }
    assert!(requests.lock().is_empty(), "the token was not shown");

    std::fs::write(&ca, own.cert.pem()).unwrap();
    let asked = Asked::start(settings(&address, Some(&token), Some(&ca)));
    asked.state(SourceState::Live).await;
    assert!(asked.directory.pod("a").is_some());

    let any = KubernetesConfig::kubelet(Some(&address), Some(token), None, None, true);
    let asked = Asked::start(any.unwrap().unwrap());
    asked.state(SourceState::Live).await;
    let requests = requests.lock();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|r| r.contains("Bearer secret\r\n")));
}

#[test]
fn which_kubelet_to_ask() {
    let kubelet = |address: Option<&str>, ca: Option<PathBuf>, insecure| {
        let (token, cluster) = (Some("/token".into()), Some("/cluster".into()));
        KubernetesConfig::kubelet(address, token, ca, cluster, insecure)
    };
    for none in [None, Some("off")] {
        let reason = kubelet(none, None, false).unwrap().unwrap_err();
        assert!(reason.contains("--kubelet"), "{reason}");
    }
    let usual = kubelet(Some("https://[fd00::7]:10250"), None, false);
    let usual = usual.unwrap().unwrap();
    assert_eq!(usual.trust, Trust::Authorities("/cluster".into()));
    assert_eq!(usual.token_file, Some("/token".into()));
    let own = kubelet(Some("https://n"), Some("/own".into()), false);
    let own = own.unwrap().unwrap();
    assert_eq!(own.trust, Trust::Authorities("/own".into()));
    // Without authentication and encryption.
    let open = kubelet(Some("http://127.0.0.1:10255"), None, false);
    assert_eq!(open.unwrap().unwrap().token_file, None);
    for (address, ca, insecure, word) in [
        ("10.0.0.7:10250", None, false, "kubelet = 10.0.0.7:10250"),
        ("https://fd00::7:10250", None, false, "kubelet"),
        ("https://n", Some("/own".into()), true, "kubelet_insecure"),
    ] {
        let error = kubelet(Some(address), ca, insecure).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}
