//! OpenMetrics text to Prometheus' classic text format: the same series under the same
//! names, without what the older format does not know (units, exemplars, the end mark).

/// Rewrites a page that was made here.
pub(super) fn from_openmetrics(page: &str) -> String {
    let mut out = String::with_capacity(page.len());
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // Name and type are needed together: a counter's family is named by its sample.
            let kind = lines
                .peek()
                .and_then(|l| l.rsplit(' ').next())
                .unwrap_or("");
            let (name, help) = rest.split_once(' ').unwrap_or((rest, ""));
            push(&mut out, &["# HELP ", name, suffix(kind), " ", help]);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let old_kind = if kind == "info" { "gauge" } else { kind };
            push(&mut out, &["# TYPE ", name, suffix(kind), " ", old_kind]);
        } else if !line.starts_with('#') {
            push(&mut out, &[sample(line)]);
        }
    }
    out
}

/// What the samples of a type add to the family's name.
fn suffix(kind: &str) -> &'static str {
    match kind {
        "counter" => "_total",
        "info" => "_info",
        _ => "",
    }
}

/// A sample line without its exemplar: ` # {` outside of quotes begins one.
fn sample(line: &str) -> &str {
    let mut quoted = false;
    let mut escaped = false;
    for (i, byte) in line.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = quoted,
            b'"' => quoted = !quoted,
            b'#' if !quoted => return line[..i].trim_end(),
            _ => {}
        }
    }
    line
}

fn push(out: &mut String, parts: &[&str]) {
    out.extend(parts.iter().copied());
    out.push('\n');
}
