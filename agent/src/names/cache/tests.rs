use std::fs;

use super::{super::state::SourceState, *};
use crate::workload::pod::PodContainer;

fn cache(dir: &Path, node: &str) -> Cache {
    Cache::new(dir, node, Arc::new(Source::new("cache")))
}

fn directory() -> Directory {
    let directory = Directory::default();
    let pod = Pod {
        uid: "u".into(),
        name: "web\n\"0".into(),
        namespace: "shop".into(),
        containers: vec![PodContainer {
            id: "c".into(),
            name: "http".into(),
        }],
        ..Pod::default()
    };
    directory.apply(pod, NamesFrom::Api);
    directory
}

#[test]
fn what_is_written_is_read_again_as_cached() {
    let dir = tempfile::tempdir().unwrap();
    let known = directory();
    cache(dir.path(), "n1").write(&known).unwrap();
    cache(dir.path(), "n1").write(&known).unwrap();
    let restored = Directory::default();
    cache(dir.path(), "n1").load(&restored);
    let pod = restored.pod_of_container("c").unwrap();
    assert_eq!(pod.pod, known.pod("u").unwrap().pod);
    assert_eq!(pod.from, NamesFrom::Cache);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs::metadata(dir.path().join(FILE)).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn what_is_not_ours_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let restored = Directory::default();
    cache(dir.path(), "n1").load(&restored);
    cache(dir.path(), "n2").write(&directory()).unwrap();
    cache(dir.path(), "n1").load(&restored);
    fs::write(dir.path().join(FILE), "{ half a fi").unwrap();
    cache(dir.path(), "n1").load(&restored);
    assert_eq!(restored.size().live, 0);
    assert!(
        cache(Path::new("/nowhere/at/all"), "n")
            .write(&restored)
            .is_err()
    );
}

#[tokio::test]
async fn whether_names_can_be_kept_is_known_before_there_are_any() {
    let dir = tempfile::tempdir().unwrap();
    let not_there = dir.path().join("a/b");
    for (directory, state, said) in [
        (dir.path(), SourceState::Live, ""),
        (&not_there, SourceState::Failing, "--state-dir"),
    ] {
        let source = Arc::new(Source::new("cache"));
        let cache = Cache::new(directory, "n1", Arc::clone(&source));
        let stop = CancellationToken::new();
        let kept = tokio::spawn(cache.keep(Arc::default(), stop.clone()));
        while source.state() == SourceState::Starting {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        kept.await.unwrap();
        assert_eq!(source.state(), state);
        assert!(source.view().reason.contains(said), "{:?}", source.view());
    }
    assert!(!not_there.exists());
}
