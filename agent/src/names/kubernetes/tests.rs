//! Against an API server of the test's own, so that what a real one does once a day can be had
//! at once.

mod kubelet;

use std::{io, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{
    config::{Trust, Whom},
    *,
};
use crate::names::SourceState;

/// Answers each request with the next of its answers; the last is never ended.
struct Server {
    address: std::net::SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    async fn start(answers: Vec<(u16, String)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            for (index, (status, body)) in answers.iter().enumerate() {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = request(&mut stream).await.unwrap();
                seen.lock().push(request);
                let head = format!("HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                // Piece by piece: events end where they like.
                for piece in body.as_bytes().chunks(7.max(body.len() / 1000)) {
                    let chunk =
                        [format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat();
                    // Who has had enough hangs up.
                    if stream.write_all(&chunk).await.is_err() {
                        break;
                    }
                }
                if index + 1 == answers.len() {
                    std::future::pending::<()>().await;
                }
                let _ = stream.write_all(b"0\r\n\r\n").await;
            }
        });
        Self { address, requests }
    }
}

async fn request(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

fn list(version: u32, pods: &[&str]) -> (u16, String) {
    let items: Vec<_> = pods
        .iter()
        .map(|uid| object(uid, "listed", version))
        .collect();
    let list = serde_json::json!({
        "kind": "PodList", "metadata": { "resourceVersion": version.to_string() }, "items": items,
    });
    (200, list.to_string())
}

fn object(uid: &str, name: &str, version: u32) -> serde_json::Value {
    serde_json::json!({ "metadata": {
        "uid": uid, "name": name, "namespace": "shop", "resourceVersion": version.to_string(),
    } })
}

fn event(kind: &str, object: &serde_json::Value) -> String {
    format!(
        "{}\n",
        serde_json::json!({ "type": kind, "object": object })
    )
}

async fn follow(server: &Server, token_file: Option<PathBuf>) -> (Arc<Directory>, Arc<Source>) {
    let config = KubernetesConfig {
        whom: Whom::Api,
        server: format!("http://{}", server.address).parse().unwrap(),
        token_file,
        trust: Trust::System,
    };
    let source = Arc::new(Source::new("api"));
    let kubernetes = Kubernetes::new(config, "node 1", Arc::clone(&source)).unwrap();
    let directory = Arc::<Directory>::default();
    let stop = CancellationToken::new();
    tokio::spawn(kubernetes.follow(Arc::clone(&directory), stop));
    (directory, source)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..600 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 12 s: {what}");
}

#[tokio::test]
async fn a_list_then_what_changes_then_where_it_ended() {
    let events = event("ADDED", &object("b", "new", 6))
        + "\n"
        + &event("UNKNOWN", &object("c", "ignored", 7))
        + &event("DELETED", &object("a", "listed", 8))
        + &event(
            "BOOKMARK",
            &serde_json::json!({ "metadata": { "resourceVersion": "11" } }),
        );
    let server = Server::start(vec![list(5, &["a"]), (200, events), (200, String::new())]).await;
    let (directory, source) = follow(&server, None).await;
    until("the second watch", || server.requests.lock().len() == 3).await;
    let size = directory.size();
    assert_eq!((size.live, size.dead), (1, 1));
    assert_eq!(directory.pod("b").unwrap().pod.name, "new");
    assert_eq!(directory.pod("b").unwrap().from, NamesFrom::Api);
    until("live", || source.view().state == SourceState::Live).await;
    let requests = server.requests.lock();
    assert!(
        requests[0].contains("fieldSelector=spec.nodeName%3Dnode%201&"),
        "{}",
        requests[0]
    );
    assert!(requests[0].contains("resourceVersion=0"), "{}", requests[0]);
    assert!(
        requests[1].contains("watch=1") && requests[1].contains("resourceVersion=5 "),
        "{}",
        requests[1]
    );
    assert!(
        requests[2].contains("resourceVersion=11 "),
        "{}",
        requests[2]
    );
    assert!(!requests[0].to_lowercase().contains("authorization"));
}

#[tokio::test]
async fn a_forgotten_position_is_a_new_list() {
    let gone = serde_json::json!({ "kind": "Status", "status": "Failure", "code": 410, "message": "too old" });
    for gone in [(200, event("ERROR", &gone)), (410, gone.to_string())] {
        let server = Server::start(vec![
            list(5, &["a"]),
            gone,
            list(9, &["b"]),
            (200, event("ADDED", &object("c", "new", 10))),
        ])
        .await;
        let (directory, _) = follow(&server, None).await;
        until("the new list and watch", || directory.pod("c").is_some()).await;
        let size = directory.size();
        assert_eq!((size.live, size.dead), (2, 1), "a is gone, and still known");
        let requests = server.requests.lock();
        assert!(
            !requests[2].contains("resourceVersion=0"),
            "{}",
            requests[2]
        );
        assert!(
            requests[3].contains("resourceVersion=9 "),
            "{}",
            requests[3]
        );
    }
}

#[tokio::test]
async fn a_pod_that_calls_itself_a_mirror_takes_no_static_pod_along() {
    const HASH: &str = "0f2e1f0a5d4b3c2e1f0a5d4b3c2e1f0a";
    let mirror = |uid, name, version| {
        let mut object = object(uid, name, version);
        object["metadata"]["annotations"] =
            serde_json::json!({ "kubernetes.io/config.mirror": HASH });
        object
    };
    let events = event("ADDED", &mirror("m", "etcd", 6))
        + &event("ADDED", &mirror("e", "evil", 7))
        + &event("DELETED", &mirror("e", "evil", 8))
        + &event("ADDED", &object("b", "new", 9));
    let server = Server::start(vec![list(5, &[]), (200, events)]).await;
    let (directory, _) = follow(&server, None).await;
    until("the last event", || directory.pod("b").is_some()).await;
    assert_eq!(directory.pod(HASH).unwrap().pod.name, "etcd");
    let size = directory.size();
    assert_eq!((size.live, size.dead), (2, 0), "etcd lives");
}

#[tokio::test]
async fn a_refusal_is_said_and_the_token_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "old\n").unwrap();
    let forbidden = serde_json::json!({ "message": "User \"x\" cannot list resource \"pods\"" });
    let server = Server::start(vec![
        (403, forbidden.to_string()),
        (401, "no JSON".to_owned()),
        (500, String::new()),
        list(1, &["a"]),
        (200, event("ADDED", &object("b", "n", 2))),
    ])
    .await;
    let (directory, source) = follow(&server, Some(token.clone())).await;
    until("the refusal", || source.view().state == SourceState::Denied).await;
    let reason = source.view().reason;
    assert!(
        reason.contains("cannot list resource") && reason.contains("rbac.yaml"),
        "{reason}"
    );
    std::fs::write(&token, "new").unwrap();
    until("the list", || directory.pod("b").is_some()).await;
    assert_eq!(directory.pod("b").unwrap().from, NamesFrom::Api);
    assert_eq!(source.view().state, SourceState::Live);
    let requests = server.requests.lock();
    assert!(requests[0].contains("Bearer old\r\n"), "{}", requests[0]);
    assert!(requests[3].contains("Bearer new\r\n"), "{}", requests[3]);
}

#[tokio::test]
async fn what_was_told_before_a_refusal_is_no_longer_the_api_s_word() {
    let forbidden = serde_json::json!({ "message": "no more" });
    let server = Server::start(vec![
        list(1, &["a"]),
        (200, event("ADDED", &object("b", "n", 2))),
        (403, forbidden.to_string()),
        (500, String::new()),
    ])
    .await;
    let (directory, source) = follow(&server, None).await;
    until("the refusal", || source.view().state == SourceState::Denied).await;
    let from = |uid| directory.pod(uid).map(|known| known.from);
    until("the doubt", || from("a") == Some(NamesFrom::Cache)).await;
    assert_eq!(from("b"), Some(NamesFrom::Cache));
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_not_kept() {
    let mut endless = "{ \"items\": [".to_owned();
    endless.push_str(&" ".repeat(17 << 20));
    let event = event("ADDED", &object("b", "n", 2));
    let server = Server::start(vec![(200, endless), list(1, &["a"]), (200, event)]).await;
    let (directory, source) = follow(&server, None).await;
    until("the failure", || {
        source.view().reason.contains("more than 16 MiB")
    })
    .await;
    until("the next list", || directory.pod("a").is_some()).await;
}

#[tokio::test]
async fn nonsense_costs_an_attempt() {
    let pages = serde_json::json!({ "metadata": { "continue": "more/+", "resourceVersion": "3" }, "items": [object("p", "first", 3)] });
    let server = Server::start(vec![
        (200, "<html>".to_owned()),
        list(1, &["a"]),
        (200, "{ half\n".to_owned()),
        (200, event("ERROR", &serde_json::json!({ "code": 410 }))),
        (200, pages.to_string()),
        list(4, &["q"]),
        (200, event("ADDED", &object("b", "n", 5))),
    ])
    .await;
    let (directory, _) = follow(&server, None).await;
    until("the last watch", || directory.pod("b").is_some()).await;
    assert!(
        directory.pod("p").is_some() && directory.pod("q").is_some(),
        "both pages"
    );
    let requests = server.requests.lock();
    assert!(
        requests[5].contains("continue=more%2F%2B"),
        "{}",
        requests[5]
    );
}

#[test]
fn whom_to_ask() {
    let none = |_: &str| None;
    let ask = |api: Option<&str>| KubernetesConfig::new(api, None, None, none);
    assert!(ask(None).unwrap().unwrap_err().contains("--kubernetes-api"));
    assert!(ask(Some("off")).unwrap().is_err());
    let given = ask(Some("https://[::1]:6443/")).unwrap().unwrap();
    assert_eq!(given.server.authority().unwrap().as_str(), "[::1]:6443");
    for wrong in [
        "10.0.0.1:6443",
        "ftp://x",
        "https://x/api",
        "https://x?y",
        "https://a b",
    ] {
        let error = ask(Some(wrong)).unwrap_err().to_string();
        assert!(error.contains(wrong), "{error}");
    }
    for wrong in ["https://me:secret@x:6443", "ftp://secret@x:6443"] {
        let error = ask(Some(wrong)).unwrap_err().to_string();
        assert!(
            error.contains("@x:6443") && !error.contains("secret"),
            "{error}"
        );
    }
    let pod = |name: &str| (name == "KUBERNETES_SERVICE_HOST").then(|| "fd00::1".to_owned());
    let in_pod = KubernetesConfig::new(None, Some("/token".into()), None, pod);
    let server = in_pod.unwrap().unwrap().server;
    assert_eq!(server.to_string(), "https://[fd00::1]:443/");
    let config = KubernetesConfig {
        whom: Whom::Api,
        server: "https://x".parse().unwrap(),
        token_file: None,
        trust: Trust::Authorities("/nowhere".into()),
    };
    let error = Api::new(config, "n").err().unwrap().to_string();
    assert!(
        error.contains("/nowhere") && error.contains("--kubernetes-ca-file"),
        "{error}"
    );
}
