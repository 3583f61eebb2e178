//! Processes of a user that call the host's own programs with somebody else's id.

use super::*;
use crate::host::platform::Namespaces;

/// A container of another that the user would like to be.
const VICTIM: &str = "payments";
const USERS_GROUP: &str = "/user.slice/user-1000.slice/user@1000.service/app.slice/x.service";
const ROOTS_FILE: Option<ExeFile> = Some(ExeFile {
    owner: 0,
    writable: false,
    on_host: Some(true),
});

fn host() -> HostFacts {
    HostFacts {
        init_namespaces: namespaces(1),
        ..HostFacts::default()
    }
}

fn namespaces(all: u64) -> Namespaces {
    Namespaces {
        mnt: Some(all),
        pid: Some(all),
        user: Some(all),
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// A call of a program of root's by whoever has these capabilities in this user namespace.
fn call(cmdline: &str, capabilities: u64, user: u64) -> Ancestor {
    let name = cmdline.split(' ').next().unwrap_or_default();
    Ancestor {
        pid: 10,
        exe: format!("/usr/bin/{name}"),
        exe_file: ROOTS_FILE,
        cmdline: words(cmdline),
        cgroup_path: "/elsewhere".to_owned(),
        namespaces: Namespaces {
            user: Some(user),
            ..namespaces(1)
        },
        capabilities,
    }
}

/// Those who called, and whether that makes a name: a user, a user that is root in a user
/// namespace of its own, root.
const CALLERS: &[(u64, u64, bool)] = &[(0, 1, false), (!0, 2, false), (!0, 1, true)];

#[test]
fn the_id_that_a_user_gives_to_runc_names_nobody() {
    for (capabilities, user, named) in CALLERS {
        let cmdline = format!("runc run --bundle b {VICTIM}");
        let facts = ProcessFacts {
            pid: 11,
            exe: "/bin/busybox".to_owned(),
            cgroup_path: USERS_GROUP.to_owned(),
            namespaces: namespaces(3),
            ancestors: vec![call(&cmdline, *capabilities, *user)],
            ..ProcessFacts::default()
        };
        let stack = process_stack(&facts, &host()).to_string();
        assert!(stack.starts_with("L-3:runc"), "it is one: {stack}");
        let workload = process_workload(&facts, &host());
        let expected = match named {
            true => (VICTIM, ""),
            false => ("", "user@1000.service/x.service"),
        };
        assert_eq!((&*workload.container_id, &*workload.unit), expected);
    }
}

#[test]
fn the_id_that_a_user_gives_to_runsc_names_nobody() {
    let sentry = |uid, uid_map: &str, ancestors| ProcessFacts {
        pid: 11,
        exe: "/usr/bin/runsc".to_owned(),
        exe_file: ROOTS_FILE,
        cmdline: words(&format!("runsc-sandbox --platform=systrap boot {VICTIM}")),
        cgroup_path: USERS_GROUP.to_owned(),
        namespaces: namespaces(1),
        uid,
        uid_map: uid_map.to_owned(),
        seccomp_mode: 2,
        ancestors,
        ..ProcessFacts::default()
    };
    let id = |facts: &ProcessFacts| {
        let workload = process_workload(facts, &host());
        (workload.container_id, workload.unit)
    };
    let named = (VICTIM.to_owned(), String::new());
    let nobody = (String::new(), "user@1000.service/x.service".to_owned());
    assert_eq!(id(&sentry(0, "", Vec::new())), named);
    assert_eq!(id(&sentry(1000, "", Vec::new())), nobody);
    assert_eq!(id(&sentry(0, "0 0 1", Vec::new())), nobody);
    for (capabilities, user, is_named) in CALLERS {
        let parent = call(&format!("runsc run {VICTIM}"), *capabilities, *user);
        let expected = if *is_named { &named } else { &nobody };
        assert_eq!(id(&sentry(1000, "", vec![parent])), *expected);
    }
}
