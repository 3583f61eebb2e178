use super::{
    proto::{Container, ContainerMetadata, PodSandbox, PodSandboxMetadata},
    *,
};
use crate::names::SourceState;

fn sandbox(id: &str, uid: &str) -> PodSandbox {
    PodSandbox {
        id: id.into(),
        metadata: Some(PodSandboxMetadata {
            name: "web".into(),
            uid: uid.into(),
            namespace: "shop".into(),
        }),
        labels: [("app".to_owned(), "web".to_owned())].into(),
    }
}

fn container(id: &str, sandbox: &str, name: &str) -> Container {
    Container {
        id: id.into(),
        pod_sandbox_id: sandbox.into(),
        metadata: Some(ContainerMetadata { name: name.into() }),
    }
}

#[test]
fn pods_with_all_their_sandboxes_and_containers() {
    let sandboxes = ListPodSandboxResponse {
        items: vec![
            sandbox("s1", "u1"),
            sandbox("s1b", "u1"),
            sandbox("s2", "u2"),
            PodSandbox::default(),
        ],
    };
    let containers = ListContainersResponse {
        containers: vec![
            container("c1", "s1b", "http"),
            container("c2", "s2", "db"),
            container("lost", "nowhere", "x"),
        ],
    };
    let mut pods = assemble(sandboxes, containers);
    pods.sort_by(|a, b| a.uid.cmp(&b.uid));
    assert_eq!(pods.len(), 2);
    assert_eq!((&*pods[0].namespace, &*pods[0].name), ("shop", "web"));
    assert_eq!(pods[0].container("c1"), Some("http"));
    assert_eq!(pods[0].container("s1"), Some(""), "the sandbox has no name");
    assert_eq!(pods[0].container("s1b"), Some(""));
    assert_eq!(pods[1].container("c2"), Some("db"));
    assert_eq!(pods[0].labels.iter().next(), Some(("app", "web")));
}

#[tokio::test]
async fn a_socket_where_nobody_listens_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let config = CriConfig::new(dir.path().join("no.sock").to_str()).unwrap();
    let source = Arc::new(Source::new("cri"));
    let stop = CancellationToken::new();
    let cri = Cri::new(config, Arc::clone(&source));
    let task = tokio::spawn(cri.follow(Arc::default(), stop.clone()));
    while source.view().state == SourceState::Starting {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let view = source.view();
    assert_eq!(view.state, SourceState::Failing);
    assert!(view.reason.contains("no.sock"), "{}", view.reason);
    stop.cancel();
    task.await.unwrap();
}

#[test]
fn the_setting() {
    assert!(CriConfig::new(Some("off")).is_err());
    for given in ["unix:///run/x.sock", "unix:/run/x.sock", "/run/x.sock"] {
        let config = CriConfig::new(Some(given)).unwrap();
        assert_eq!(config.socket, PathBuf::from("/run/x.sock"), "{given}");
    }
}
