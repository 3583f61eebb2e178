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
