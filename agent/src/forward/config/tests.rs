use std::collections::HashMap;

use super::*;

fn config(
    endpoint: Option<&str>,
    protocol: Option<&str>,
    env: &[(&str, &str)],
) -> Result<Option<ForwardConfig>, ForwardConfigError> {
    let env: HashMap<&str, &str> = env.iter().copied().collect();
    ForwardConfig::from_env_and_flags(endpoint, protocol, |key| {
        env.get(key).map(|v| (*v).to_owned())
    })
}

fn some(endpoint: Option<&str>, protocol: Option<&str>, env: &[(&str, &str)]) -> ForwardConfig {
    config(endpoint, protocol, env).unwrap().unwrap()
}

fn error(endpoint: Option<&str>, protocol: Option<&str>, env: &[(&str, &str)]) -> String {
    config(endpoint, protocol, env).unwrap_err().to_string()
}

fn traces(config: &ForwardConfig) -> (String, Protocol) {
    let target = config.traces.as_ref().unwrap();
    (target.endpoint.to_string(), target.protocol)
}

#[test]
fn nothing_named_means_no_forwarding() {
    assert!(config(None, None, &[]).unwrap().is_none());
    let empty = [("OTEL_EXPORTER_OTLP_ENDPOINT", " ")];
    assert!(config(Some(""), None, &empty).unwrap().is_none());
    // A protocol alone is no endpoint.
    assert!(config(None, Some("grpc"), &[]).unwrap().is_none());
}

#[test]
fn protocol_by_flag_then_variable_then_port() {
    let by_port = |endpoint| traces(&some(Some(endpoint), None, &[])).1;
    assert_eq!(by_port("http://c:4318"), Protocol::HttpProtobuf);
    assert_eq!(by_port("http://c:4317"), Protocol::Grpc);
    assert_eq!(by_port("http://c"), Protocol::Grpc);
    let env = [("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")];
    let by_env = some(Some("http://c:4317"), None, &env);
    assert_eq!(
        traces(&by_env),
        ("http://c:4317/v1/traces".to_owned(), Protocol::HttpProtobuf)
    );
    let by_flag = some(Some("http://c:4318"), Some("grpc"), &env);
    assert_eq!(
        traces(&by_flag),
        ("http://c:4318/".to_owned(), Protocol::Grpc)
    );
}

#[test]
fn general_endpoint_is_a_base_and_a_signals_own_is_used_as_it_is() {
    let env = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://general:4318/prefix/"),
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://logs:4318/in?"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://metrics:4317"),
    ];
    let config = some(None, None, &env[..1]);
    assert_eq!(traces(&config).0, "http://general:4318/prefix/v1/traces");
    let logs = config.logs.unwrap();
    assert_eq!(logs.endpoint, "http://general:4318/prefix/v1/logs");

    assert!(error(None, None, &env).contains("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"));
    let env = [
        env[0],
        ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://logs:4318/in"),
        env[2],
    ];
    let config = some(None, None, &env);
    assert_eq!(traces(&config).0, "http://general:4318/prefix/v1/traces");
    let logs = config.logs.unwrap();
    assert_eq!(logs.endpoint, "https://logs:4318/in");
    assert!(logs.tls.is_some());
    assert_eq!(config.metrics.unwrap().protocol, Protocol::Grpc);

    // The flag stands above all of them.
    let config = some(Some("http://flag:4318"), None, &env);
    assert_eq!(config.logs.unwrap().endpoint, "http://flag:4318/v1/logs");
}

#[test]
fn only_a_signals_endpoint_leaves_the_others_without() {
    let env = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://jaeger:4317")];
    let config = some(None, None, &env);
    assert!(config.traces.is_some() && config.metrics.is_none() && config.logs.is_none());
}

#[test]
fn without_scheme() {
    let scheme = |endpoint, env: &[(&str, &str)]| {
        let config = some(endpoint, None, env);
        traces(&config).0
    };
    let secure = ("OTEL_EXPORTER_OTLP_INSECURE", "false");
    let insecure = ("OTEL_EXPORTER_OTLP_INSECURE", "TRUE");
    let by_env = ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317");
    assert_eq!(scheme(Some("c:4317"), &[]), "http://c:4317/");
    assert_eq!(scheme(Some("c:4317"), &[secure]), "https://c:4317/");
    assert_eq!(scheme(None, &[by_env]), "https://c:4317/");
    assert_eq!(scheme(None, &[by_env, insecure]), "http://c:4317/");
    assert!(error(Some("c:4318"), None, &[]).contains("write http://c:4318"));
    assert!(
        error(
            Some("c:4317"),
            None,
            &[("OTEL_EXPORTER_OTLP_INSECURE", "yes")]
        )
        .contains("true or false")
    );
}

#[test]
fn headers_are_decoded_and_never_shown() {
    let env = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-ignored=1"),
        (
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
            " Authorization = Bearer%20s3cret , x-tenant=a%2Cb,x-tenant=c=d,",
        ),
    ];
    let config = some(Some("http://c:4317"), None, &env);
    let target = config.traces.as_ref().unwrap();
    assert_eq!(target.headers["authorization"], "Bearer s3cret");
    let tenants: Vec<_> = target.headers.get_all("x-tenant").iter().collect();
    assert_eq!(tenants, ["a,b", "c=d"]);
    assert!(!target.headers.contains_key("x-ignored"));
    assert!(
        config
            .metrics
            .as_ref()
            .unwrap()
            .headers
            .contains_key("x-ignored")
    );
    assert!(!format!("{config:?}").contains("s3cret"));

    for bad in ["tok3n", "a b=tok3n", "a=%0atok3n", "content-type=tok3n"] {
        let message = error(Some("c:1"), None, &[("OTEL_EXPORTER_OTLP_HEADERS", bad)]);
        assert!(message.contains("OTEL_EXPORTER_OTLP_HEADERS"), "{message}");
        assert!(!message.contains("tok3n"), "{message}");
    }
}

#[test]
fn compression_and_timeout() {
    let env = [
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "none"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "2500"),
    ];
    let config = some(Some("http://c:4317"), None, &env);
    let traces = config.traces.unwrap();
    assert_eq!(traces.compression, Compression::Gzip);
    assert_eq!(traces.timeout, Duration::from_millis(2500));
    assert_eq!(config.logs.unwrap().compression, Compression::None);
    for (key, bad) in [
        ("TIMEOUT", "10s"),
        ("TIMEOUT", "0"),
        ("COMPRESSION", "zstd"),
    ] {
        let key = format!("OTEL_EXPORTER_OTLP_{key}");
        let message = error(Some("http://c:4317"), None, &[(&key, bad)]);
        assert!(message.contains(&key) && message.contains(bad), "{message}");
    }
}

#[test]
fn bad_endpoints_say_what_to_write() {
    for (bad, hint) in [
        ("ftp://c:21", "scheme ftp"),
        ("http://", "write an address"),
        ("/just/a/path", "no host"),
        ("http://c:99999", "port"),
        ("http://c:x", "port"),
        ("http://c:0", "port"),
        ("http://c:4317/v1/traces", "no path"),
        ("http://c:4318/v1/traces", "leave out /v1/traces"),
        ("http://c:4318/?a=b", "query"),
        ("http://c d:4317", "not an address"),
        ("foo", "neither scheme nor port"),
        ("[::1]", "neither scheme nor port"),
    ] {
        let message = error(Some(bad), None, &[]);
        assert!(message.contains(hint), "{bad}: {message}");
        assert!(message.starts_with("--export-endpoint"), "{message}");
    }
    let message = error(Some("http://me:pa55@c:4317"), None, &[]);
    assert!(
        !message.contains("pa55") && message.contains("HEADERS"),
        "{message}"
    );
    assert!(error(Some("c:1"), Some("http/json"), &[]).contains("http/protobuf"));
    assert!(error(Some("c:1"), Some("udp"), &[]).contains("grpc"));
}

#[test]
fn files_of_tls_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca.pem");
    std::fs::write(&path, "not a certificate").unwrap();
    let path = path.to_str().unwrap();
    let secure = Some("https://c:4317");
    let message = error(secure, None, &[("OTEL_EXPORTER_OTLP_CERTIFICATE", path)]);
    assert!(message.contains("no certificate"), "{message}");
    let missing = [("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "/nowhere/ca.pem")];
    let message = error(secure, None, &missing);
    assert!(message.contains("/nowhere/ca.pem") && message.contains("cannot be read"));
    let half = [("OTEL_EXPORTER_OTLP_CLIENT_KEY", path)];
    assert!(error(secure, None, &half).contains("CLIENT_CERTIFICATE"));
    // Without TLS the files are not looked at.
    assert!(config(Some("http://c:4317"), None, &missing).is_ok());
}
