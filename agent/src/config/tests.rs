use super::*;

fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    file
}

fn resolve_file(text: &str) -> Result<Config, ConfigError> {
    Config::resolve(Settings::default(), Some(file(text).path()))
}

#[test]
fn defaults_are_those_of_the_design() {
    let config = Config::resolve(Settings::default(), None).unwrap();
    assert_eq!(config.http_listen.to_string(), "127.0.0.1:9464");
    assert_eq!(config.otlp_grpc_listen.to_string(), "127.0.0.1:4317");
    assert_eq!(config.otlp_http_listen.to_string(), "127.0.0.1:4318");
    assert_eq!(config.settle, Duration::from_millis(500));
    assert!(
        config.child_spans && config.sensors == Selection::Auto && config.export_endpoint.is_none()
    );
}

#[test]
fn a_flag_wins_over_the_file() {
    let file = file("settle = \"1s\"\nnode_name = \"from-file\"\nchild_spans = false\n");
    let flags = Settings {
        node_name: Some("flag".into()),
        ..Settings::default()
    };
    let config = Config::resolve(flags, Some(file.path())).unwrap();
    assert_eq!(config.node, "flag");
    assert_eq!(config.settle, Duration::from_secs(1));
    assert!(!config.child_spans);
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest() {
    let error = resolve_file("http_listn = \"127.0.0.1:1\"")
        .unwrap_err()
        .to_string();
    assert!(error.contains("did you mean `http_listen`?"), "{error}");
}

#[test]
fn impossible_values_say_what_is_allowed() {
    for (text, said) in [
        ("settle = \"500\"", "500ms"),
        ("sensor_budget = \"0\"", "above 0"),
        ("sensor_budget = \"lots\"", "per cent"),
        ("settle = \"2m\"", "at most"),
        ("sensors = \"cpu,cpuu\"", "cpuu"),
        ("otlp_grpc_listen = \"localhost\"", "ADDRESS:PORT"),
        ("otlp_grpc_listen = \"unix:\"", "unix:/PATH"),
        ("export_queue_size = \"1MiB\"", "at least"),
        ("export_queue_size = \"1MB\"", "MiB"),
        ("http_listen = \"127.0.0.1:4317\"", "same address"),
        ("http_listen = \"0.0.0.0:4317\"", "otlp_grpc_listen"),
        ("http_listen = \"[::]:4318\"", "http_listen"),
        (
            "otlp_grpc_listen = \"unix:/a\"\notlp_http_listen = \"unix:/a\"",
            "otlp_grpc_listen",
        ),
        ("seccomp = \"maybe\"", "maybe"),
        ("sensors = 3", "a list"),
        ("sensors = [\"cpu\", \"cpuu\"]", "cpuu"),
        ("node_name = \"\"", "host name"),
        ("node_name = \" \"", "host name"),
        ("node_name = \"a\\nb\"", "control"),
        ("cri_endpoint = \"foo\"", "unix:/run"),
        ("cri_endpoint = \"tcp://127.0.0.1:1\"", "unix:/run"),
        ("jaeger_url = \"foo\"", "http://jaeger"),
        ("jaeger_url = \"jaeger:16686\"", "http://jaeger"),
        (
            "jaeger_url = \"javascript://x/%0aalert(1)\"",
            "http://jaeger",
        ),
        ("jaeger_url = \"http://j/?a=b\"", "http://jaeger"),
        ("jaeger_url = \"http://j:99999\"", "1 to 65535"),
        ("kubernetes_api = \"https://k:99999\"", "1 to 65535"),
        ("kubelet = \"https://k:99999\"", "1 to 65535"),
    ] {
        let error = resolve_file(text).unwrap_err().to_string();
        assert!(error.contains(said), "{text}: {error}");
    }
}

#[test]
fn what_is_shown_to_all_is_no_password() {
    let error = resolve_file("jaeger_url = \"http://me:pa55@jaeger:16686\"");
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("password") && !error.contains("pa55"),
        "{error}"
    );
}

#[test]
fn a_node_name_is_bounded() {
    let named = |bytes: usize| resolve_file(&format!("node_name = \"{}\"", "n".repeat(bytes)));
    assert!(named(check::MAX_NODE_NAME).is_ok());
    let error = named(check::MAX_NODE_NAME + 1).unwrap_err().to_string();
    assert!(error.contains("at most 253"), "{error}");
}

#[test]
fn usual_addresses_and_lists_are_taken() {
    for text in [
        "jaeger_url = \"https://traces.example/jaeger/\"",
        "jaeger_url = \"\"",
        "cri_endpoint = \"off\"",
        "cri_endpoint = \"/run/crio/crio.sock\"",
        "cri_endpoint = \"unix:///run/crio/crio.sock\"",
    ] {
        resolve_file(text).expect(text);
    }
    let listed = resolve_file("sensors = [\"cpu\", \"auto\"]").unwrap();
    assert_eq!(listed.sensors, Selection::parse("cpu,auto").unwrap());
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::resolve(Settings::default(), Some(Path::new("/nonexistent/a.toml")));
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("/nonexistent/a.toml")
    );
}

#[test]
fn near_misses_in_the_environment_are_found_and_service_variables_are_not() {
    let names = [
        "ISOSTACK_SETLE",
        "ISOSTACK_AGENT_SERVICE_HOST",
        "ISOSTACK_SETTLE",
        "HOME",
    ];
    let found = suspicious_variables(names.into_iter().map(|n| (n.into(), "".into())));
    assert_eq!(found, [("ISOSTACK_SETLE".to_owned(), "settle")]);
}

#[test]
fn free_ports_and_other_addresses_do_not_collide() {
    for text in [
        "http_listen = \"127.0.0.1:0\"\notlp_grpc_listen = \"127.0.0.1:0\"",
        "http_listen = \"127.0.0.2:4317\"",
        "otlp_grpc_listen = \"unix:/a\"\notlp_http_listen = \"unix:/b\"",
    ] {
        resolve_file(text).expect(text);
    }
}
