use std::{io::Write, sync::Arc};

use parking_lot::Mutex;

use super::*;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What the log says while `f` runs.
fn logged(level: &str, format: LogFormat, f: impl FnOnce()) -> String {
    // The bridge is of the process; another test may have installed it.
    let _ = tracing_log::LogTracer::init();
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let subscriber = tracing_subscriber::registry()
        .with(filter(level).unwrap())
        .with(lines(format, move || writer.clone()));
    tracing::subscriber::with_default(subscriber, f);
    let bytes = buffer.0.lock().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn text_json_and_the_log_crate() {
    let speak = || {
        tracing::info!(answer = 42, "Hello");
        tracing::debug!("Not shown");
        tracing_log::log::warn!(target: "aya_log", "from the kernel");
    };
    let text = logged("info", LogFormat::Text, speak);
    assert!(text.contains("Hello answer=42"), "{text}");
    assert!(
        text.contains("aya_log") && text.contains("from the kernel"),
        "{text}"
    );
    assert!(!text.contains("Not shown"), "{text}");

    let json = logged("info", LogFormat::Json, speak);
    let lines: Vec<serde_json::Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{json}");
    assert_eq!(lines[0]["message"], "Hello");
    assert_eq!(lines[0]["answer"], 42);
}

#[test]
fn directives_select_by_module() {
    let text = logged("warn,chatty=debug", LogFormat::Text, || {
        tracing::debug!(target: "chatty", "one");
        tracing::debug!(target: "quiet", "two");
    });
    assert!(text.contains("one") && !text.contains("two"), "{text}");
}

#[test]
fn text_of_others_cannot_forge_lines_or_escape() {
    let text = logged("info", LogFormat::Text, || {
        tracing::info!(error = %"\u{1b}[2Jgone\n2026 ERROR forged", "Failed");
    });
    assert!(!text.contains('\u{1b}'), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(lines[0].ends_with(r"error=\u{1b}[2Jgone"), "{text}");
    assert_eq!(lines[1], "    2026 ERROR forged");
}

#[test]
fn levels_that_are_none_are_refused() {
    for good in [
        "off",
        "ERROR",
        " debug ",
        "trace",
        "info,h2=off",
        "a::b=trace",
    ] {
        assert!(filter(good).is_ok(), "{good}");
    }
    for bad in ["", "inof", "verbose", "info,a=loud", "a=b=c"] {
        let message = filter(bad).expect_err(bad).to_string();
        assert!(message.contains("write off, error"), "{message}");
    }
}

#[test]
fn endpoints() {
    let refused = |endpoint: &str, listeners: &[&str]| {
        channel(&SelfTelemetryConfig {
            endpoint: endpoint.to_owned(),
            node: "n".to_owned(),
            own_listeners: listeners.iter().map(|l| l.parse().unwrap()).collect(),
        })
        .err()
        .map(|error| error.to_string())
    };
    for bad in ["collector:4317", "ftp://c:1", "http//c", ""] {
        assert!(refused(bad, &[]).unwrap().contains("http"), "{bad}");
    }
    let message = refused("http://c:99999", &[]).unwrap();
    assert!(message.contains("1 to 65535"), "{message}");
    for (endpoint, listener) in [
        ("http://127.0.0.1:4317", "127.0.0.1:4317"),
        ("http://localhost:4317", "127.0.0.1:4317"),
        ("http://localhost:4317", "[::]:4317"),
        ("http://127.0.0.1:4317", "0.0.0.0:4317"),
        ("http://[::1]:4317", "[::1]:4317"),
    ] {
        let message = refused(endpoint, &["127.0.0.1:1", listener]);
        assert!(
            message.unwrap().contains("own receiver"),
            "{endpoint} {listener}"
        );
    }
}

#[tokio::test]
async fn endpoints_beside_the_own_receiver_are_fine() {
    for endpoint in [
        "http://127.0.0.1:4319",
        "http://10.0.0.1:4317",
        "https://collector:4317",
    ] {
        let config = SelfTelemetryConfig {
            endpoint: endpoint.to_owned(),
            node: "n".to_owned(),
            own_listeners: vec!["127.0.0.1:4317".parse().unwrap()],
        };
        assert!(channel(&config).is_ok(), "{endpoint}");
    }
}
