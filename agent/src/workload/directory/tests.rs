use super::*;

fn pod(uid: &str, name: &str, containers: &[(&str, &str)]) -> Pod {
    Pod {
        uid: uid.into(),
        namespace: "shop".into(),
        name: name.into(),
        containers: containers
            .iter()
            .map(|(id, name)| PodContainer {
                id: (*id).into(),
                name: (*name).into(),
            })
            .collect(),
        ..Pod::default()
    }
}

fn name_of(directory: &Directory, id: &str) -> Option<(String, String)> {
    let known = directory.pod_of_container(id)?;
    let container = known.pod.container(id).unwrap_or_default().to_owned();
    Some((known.pod.name.clone(), container))
}

#[test]
fn the_dead_are_known_for_a_bounded_time() {
    let directory = Directory::default();
    let start = Instant::now();
    directory.apply(pod("u1", "web-0", &[("c1", "http")]), NamesFrom::Api);
    directory.remove("u1", start);
    directory.apply(pod("u2", "web-0", &[("c2", "http")]), NamesFrom::Api);
    let named = |id| name_of(&directory, id);
    assert_eq!(named("c1"), Some(("web-0".into(), "http".into())));
    assert_eq!(directory.uid_of("shop", "web-0").as_deref(), Some("u2"));
    directory.forget(start + GRACE - Duration::from_secs(1));
    assert!(directory.pod("u1").is_some());
    directory.forget(start + GRACE);
    assert!(directory.pod("u1").is_none());
    assert_eq!(named("c1"), None);
    assert_eq!(named("c2"), Some(("web-0".into(), "http".into())));
}

#[test]
fn a_restarted_container_keeps_the_name_of_its_last_life() {
    let directory = Directory::default();
    directory.apply(pod("u", "web", &[("c1", "http")]), NamesFrom::Api);
    directory.apply(pod("u", "web", &[("c2", "http")]), NamesFrom::Api);
    assert_eq!(
        name_of(&directory, "c1"),
        Some(("web".into(), "http".into()))
    );
    assert_eq!(
        name_of(&directory, "c2"),
        Some(("web".into(), "http".into()))
    );
    for life in 3..1000 {
        let id = format!("c{life}");
        directory.apply(pod("u", "web", &[(&id, "http")]), NamesFrom::Api);
    }
    assert_eq!(directory.pod("u").unwrap().pod.containers.len(), 64);
    assert_eq!(directory.size().containers, 64);
    assert!(name_of(&directory, "c999").is_some(), "the newest is kept");
}

#[test]
fn a_complete_list_says_who_is_gone() {
    let directory = Directory::default();
    let now = Instant::now();
    directory.apply(pod("cached", "old", &[("c", "a")]), NamesFrom::Cache);
    directory.apply(pod("kept", "old", &[("k", "a")]), NamesFrom::Cache);
    directory.replace(vec![pod("kept", "new", &[])], NamesFrom::Api, now);
    let size = directory.size();
    assert_eq!((size.live, size.dead, size.containers), (1, 1, 2));
    assert_eq!(directory.pod("kept").unwrap().from, NamesFrom::Api);
    assert_eq!(name_of(&directory, "k"), Some(("new".into(), "a".into())));
    assert_eq!(name_of(&directory, "c"), Some(("old".into(), "a".into())));
    // The runtime's list does not say that the API's pods are gone.
    directory.replace(Vec::new(), NamesFrom::Cri, now);
    assert_eq!(directory.size().live, 1);
}

#[test]
fn a_weaker_word_adds_and_changes_nothing() {
    let directory = Directory::default();
    directory.apply(pod("u", "right", &[("c1", "http")]), NamesFrom::Api);
    directory.apply(pod("u", "wrong", &[("c2", "side")]), NamesFrom::Cri);
    assert_eq!(
        name_of(&directory, "c2"),
        Some(("right".into(), "side".into()))
    );
    assert_eq!(directory.pod("u").unwrap().from, NamesFrom::Api);
    let version = directory.version();
    directory.apply(pod("u", "wrong", &[("c2", "side")]), NamesFrom::Cri);
    assert_eq!(directory.version(), version, "nothing new");
}

#[test]
fn bounded_in_number() {
    let directory = Directory::default();
    let now = Instant::now();
    for n in 0..MAX_LIVE + 10 {
        directory.apply(
            pod(&format!("u{n}"), "p", &[(&format!("c{n}"), "a")]),
            NamesFrom::Api,
        );
    }
    assert_eq!(
        (directory.size().live, directory.size().refused),
        (MAX_LIVE, 10)
    );
    directory.replace(Vec::new(), NamesFrom::Api, now);
    let one_more = vec![pod("x", "p", &[("cx", "a")])];
    directory.replace(one_more, NamesFrom::Api, now);
    directory.replace(Vec::new(), NamesFrom::Api, now);
    let size = directory.size();
    assert_eq!(
        (size.live, size.dead, size.containers),
        (0, MAX_DEAD, MAX_DEAD)
    );
}

#[test]
fn a_name_in_two_namespaces_is_nobody_s() {
    let directory = Directory::default();
    directory.apply(pod("u1", "web", &[]), NamesFrom::Api);
    let mut other = pod("u2", "web", &[]);
    other.namespace = "other".into();
    other.mirror_uid = "m2".into();
    directory.apply(other, NamesFrom::Api);
    assert_eq!(directory.uid_of("", "web"), None);
    assert_eq!(directory.uid_of("other", "web").as_deref(), Some("u2"));
    assert_eq!(directory.cgroup_uid("m2").as_deref(), Some("u2"));
    directory.remove("m2", Instant::now());
    assert_eq!(directory.uid_of("", "web").as_deref(), Some("u1"));
}

#[test]
fn a_pod_that_is_annotated_as_a_mirror_takes_no_static_pods_name() {
    const HASH: &str = "0f2e1f0a5d4b3c2e1f0a5d4b3c2e1f0a";
    let mirror = |name, uid: &str| Pod {
        mirror_uid: uid.into(),
        owner: format!("Node/{uid}"),
        ..pod(HASH, name, &[])
    };
    let told = |words: &[(Pod, NamesFrom)]| {
        let directory = Directory::default();
        for (pod, from) in words {
            directory.apply(pod.clone(), *from);
        }
        let known = directory.pod(HASH).unwrap();
        (known.pod.name.clone(), known.pod.mirror_uid.clone())
    };
    let node = |from| (pod(HASH, "etcd", &[]), from);
    let (real, evil) = (mirror("etcd", "m"), mirror("evil", "e"));
    let (real, evil) = ((real, NamesFrom::Api), (evil, NamesFrom::Api));
    let etcd = |uid: &str| ("etcd".to_owned(), uid.to_owned());
    for from in [NamesFrom::Cri, NamesFrom::Kubelet] {
        assert_eq!(told(&[node(from), evil.clone()]), etcd(""));
        assert_eq!(told(&[evil.clone(), node(from)]), etcd(""));
        let all = [evil.clone(), node(from), evil.clone(), real.clone()];
        assert_eq!(told(&all), etcd("m"));
    }
    assert_eq!(told(&[real, evil]), etcd("m"));
}

#[test]
fn what_the_api_told_before_it_refused_goes_stale() {
    let directory = Directory::default();
    let now = Instant::now();
    let kept = || pod("kept", "db", &[("k", "main")]);
    let told = vec![pod("old", "web-0", &[("o", "http")]), kept()];
    directory.replace(told, NamesFrom::Api, now);
    directory.replace(vec![kept()], NamesFrom::Kubelet, now);
    assert_eq!(directory.size().live, 2, "the API's word counts more");
    directory.fell_silent(NamesFrom::Api);
    assert_eq!(directory.pod("old").unwrap().from, NamesFrom::Cache);
    directory.replace(vec![kept()], NamesFrom::Kubelet, now);
    let size = directory.size();
    assert_eq!((size.live, size.dead), (1, 1));
    assert_eq!(directory.pod("kept").unwrap().from, NamesFrom::Kubelet);
    assert_eq!(directory.uid_of("shop", "web-0").as_deref(), Some("old"));
}

#[test]
fn a_new_pod_takes_the_place_of_its_namesake() {
    let directory = Directory::default();
    let now = Instant::now();
    directory.replace(vec![pod("u1", "web-0", &[])], NamesFrom::Api, now);
    // The runtime lists the sandboxes of both, in any order: that says nothing.
    directory.tell(vec![pod("u0", "web-0", &[])], NamesFrom::Cri, now);
    assert_eq!(directory.size().live, 2);
    assert_eq!(directory.uid_of("shop", "web-0"), None, "two live");
    directory.tell(vec![pod("u2", "web-0", &[])], NamesFrom::Kubelet, now);
    assert_eq!(directory.uid_of("shop", "web-0").as_deref(), Some("u2"));
    assert_eq!(directory.size().dead, 2);
    // One that ends while the next one waits is listed with it.
    let both = vec![pod("u2", "web-0", &[]), pod("u3", "web-0", &[])];
    directory.tell(both, NamesFrom::Kubelet, now);
    assert_eq!(directory.uid_of("shop", "web-0"), None);
    directory.remove("u2", now);
    assert_eq!(directory.uid_of("shop", "web-0").as_deref(), Some("u3"));
    directory.remove("u3", now);
    assert_eq!(directory.uid_of("shop", "web-0"), None, "several dead ones");
}
