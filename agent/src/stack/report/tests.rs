use super::*;
use crate::{process::ProcessKey, stack::Stack};

fn identity() -> Identity {
    Identity {
        process: ProcessKey {
            pid: 1,
            start_ticks: 2,
        },
        comm: "we\"ird\n\u{202e}x".into(),
        cgroup_id: 7,
        cgroup_path: "/x".into(),
        workload: Workload {
            container_id: "ab".into(),
            runtime: "runc".into(),
            process: "hidden".into(),
            cgroup_id: 7,
            ..Workload::default()
        },
        stack: Stack(vec![StackEntry {
            layer: Layer::Container,
            technology: "runc".into(),
            evidence: "state /run/runc/ab".into(),
        }]),
    }
}

#[test]
fn json_has_the_contracts_shape() {
    let report = ProcessReport::from(&identity());
    assert_eq!(
        serde_json::to_string(&report).unwrap(),
        concat!(
            r#"{"pid":1,"comm":"we\"ird\n"#,
            "\u{202e}",
            r#"x","layer":"L-3","stack":[{"layer":"L-3","technology":"runc","#,
            r#""evidence":"state /run/runc/ab"}],"workload":{"namespace":"","pod":"","#,
            r#""pod_uid":"","container":"","container_id":"ab","unit":"","runtime":"runc","#,
            r#""cgroup_id":7}}"#
        )
    );
    let mut host = HostReport {
        host: Vec::new(),
        workloads: None,
    };
    assert_eq!(serde_json::to_string(&host).unwrap(), r#"{"host":[]}"#);
    host.workloads = Some(Vec::new());
    let text = serde_json::to_string(&host).unwrap();
    assert_eq!(text, r#"{"host":[],"workloads":[]}"#);
}

#[test]
fn nothing_that_a_process_calls_itself_reaches_the_terminal_raw() {
    let table = ProcessReport::from(&identity()).table();
    assert!(
        table.starts_with("we\"ird\\u{a}\\u{202e}x (pid 1) of ab: layer L-3\n"),
        "{table}"
    );
    assert_eq!(table.lines().count(), 3, "{table}");
    assert_eq!(visible(&"x".repeat(4096)).chars().count(), 201);
}

#[test]
fn the_tree_groups_workloads_and_shows_what_stands_above_the_host() {
    let host = StackEntry {
        layer: Layer::HardwareAssist,
        technology: "svm".into(),
        evidence: "CPU flag svm".into(),
    };
    let report = |pid: u32, namespace: &str, pod: &str, container: &str, unit: &str| {
        let mut report = ProcessReport::from(&identity());
        report.pid = pid;
        report.comm = "app".into();
        report.workload = Workload {
            namespace: namespace.into(),
            pod: pod.into(),
            container: container.into(),
            unit: unit.into(),
            process: "app".into(),
            runtime: if unit.ends_with(".service") {
                "systemd"
            } else {
                ""
            }
            .into(),
            ..Workload::default()
        };
        report.stack.push(host.clone());
        report
    };
    let mut plain = report(1, "", "", "", "");
    plain.stack.remove(0);
    plain.layer = Layer::HardwareAssist;
    let workloads = vec![
        plain,
        report(2, "shop", "web-0", "http", ""),
        report(3, "shop", "web-0", "side\ncar", ""),
        report(4, "", "", "", "nginx.service"),
        report(5, "", "", "", "nginx.service"),
    ];
    let all = HostReport {
        host: vec![host],
        workloads: Some(workloads),
    };
    let table = all.table();
    // Each column stands below its head.
    let head = table.lines().nth(3).unwrap();
    for (column, starts) in [("LAYER", "L-"), ("PROCESS", "app (pid")] {
        let at = head.find(column).unwrap();
        let rows = table.lines().filter(|line| line.contains("(pid "));
        for row in rows {
            assert!(row[at..].starts_with(starts), "{column}: {table}");
        }
    }
    let tree: Vec<String> = table
        .lines()
        .skip(4)
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        tree,
        [
            "pods",
            "shop/web-0",
            "http L-3 L-3:runc app (pid 2)",
            "side\\u{a}car L-3 L-3:runc app (pid 3)",
            "processes",
            "app L-0 - app (pid 1)",
            "units",
            "nginx.service L-3 L-3:runc app (pid 4)",
            "nginx.service (pid 5) L-3 L-3:runc app (pid 5)",
        ],
        "{table}"
    );
}

#[test]
fn a_document_shows_what_it_says() {
    let names = "a\u{202e}b\u{85}\u{feff}\u{e9}\n\"";
    let document = serde_json::to_string_pretty(&serde_json::json!({ "names": names })).unwrap();
    let plain = plain_json(&document);
    assert!(plain.contains(r#"a\u202eb\u0085\ufeff"#), "{plain}");
    assert!(plain.contains('\u{e9}'), "{plain}");
    let back: serde_json::Value = serde_json::from_str(&plain).unwrap();
    assert_eq!(back["names"], names);
}
