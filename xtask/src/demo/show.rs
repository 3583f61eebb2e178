//! A verdict as a few lines for the terminal.

use std::fmt::Write as _;

use serde_json::Value;

/// Renders one element of `/api/v1/verdicts`.
pub fn verdict(verdict: &Value, page: &str) -> String {
    let text = |key: &str| clean(verdict[key].as_str().unwrap_or_default());
    let number = |key: &str| verdict[key].as_f64().unwrap_or_default();
    let share = number("share") * 100.0;
    let mut out = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {name:<10}{value}");
    };
    line("trace", text("trace_id"));
    line("hop", format!("{}: {}", text("service"), text("operation")));
    line(
        "layer",
        format!("{} (fault), seen from {}", text("fault"), text("layer")),
    );
    line(
        "cause",
        format!(
            "{}, {share:.0} % of {:.0} ms self time",
            text("cause"),
            number("self_time_ms")
        ),
    );
    line(
        "when",
        format!("{}, for {:.0} ms", when(verdict), number("duration_ms")),
    );
    if !text("culprit").is_empty() {
        line("culprit", text("culprit"));
    }
    if !text("summary").is_empty() {
        line("in short", text("summary"));
    }
    if !text("remedy").is_empty() {
        line("remedy", text("remedy"));
    }
    line("page", page.to_owned());
    out
}

/// The start as UTC time of day. JSON numbers of this size may come as text.
fn when(verdict: &Value) -> String {
    let value = &verdict["start_unix_nano"];
    let nanos = value
        .as_u64()
        .or_else(|| value.as_str()?.parse().ok())
        .unwrap_or_default();
    let (seconds, millis) = (nanos / 1_000_000_000, nanos / 1_000_000 % 1_000);
    let day = seconds % 86_400;
    format!(
        "{:02}:{:02}:{:02}.{millis:03} UTC",
        day / 3600,
        day / 60 % 60,
        day % 60
    )
}

/// Names come from applications: nothing of them may steer the terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn says_hop_cause_share_and_time() {
        let shown = verdict(
            &json!({
                "trace_id": "0af7", "span_id": "b7", "service": "shop", "operation": "price\u{1b}[2J",
                "start_unix_nano": 1_700_000_000_123_456_789_u64, "duration_ms": 400.0,
                "self_time_ms": 390.0, "fault": "L-3", "cause": "cpu_throttle", "share": 0.83,
                "layer": "L-3", "culprit": ""
            }),
            "http://127.0.0.1:9464/",
        );
        assert!(shown.contains("cpu_throttle, 83 % of 390 ms"), "{shown}");
        assert!(shown.contains("22:13:20.123 UTC, for 400 ms"), "{shown}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
        assert!(!shown.contains("culprit"), "{shown}");
    }
}
