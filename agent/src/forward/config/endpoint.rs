//! Addresses: what is accepted, and what is made of it. [`super`] has the rules.

use http::Uri;

use super::ForwardConfigError;
use crate::{
    address::{PORTS, has_impossible_port},
    forward::signal::{Named, SIGNALS},
    otlp::Signal,
};

/// A value and the flag or variable it came from, for the message.
pub(super) struct Setting {
    pub key: String,
    pub value: String,
}

impl Setting {
    pub fn refuse(&self, reason: impl Into<String>) -> ForwardConfigError {
        ForwardConfigError::Value {
            key: self.key.clone(),
            value: self.value.clone(),
            reason: reason.into(),
        }
    }
}

/// What was written, as far as it is an address at all.
pub(super) fn parse_uri(setting: &Setting) -> Result<Uri, ForwardConfigError> {
    const EXAMPLE: &str = "write an address like http://collector:4317 or https://host:4318";
    // Checked first, so that a password is not repeated in any message.
    if setting.value.contains('@') {
        return Err(ForwardConfigError::Value {
            key: setting.key.clone(),
            value: "(not shown)".to_owned(),
            reason: "credentials in an address would be shown in logs: pass them in \
                     OTEL_EXPORTER_OTLP_HEADERS"
                .to_owned(),
        });
    }
    let uri: Uri = setting
        .value
        .parse()
        .map_err(|e| setting.refuse(format!("not an address ({e}): {EXAMPLE}")))?;
    match uri.scheme_str() {
        None | Some("http" | "https") => {}
        Some(other) => {
            return Err(setting.refuse(format!("the scheme {other} is not known: {EXAMPLE}")));
        }
    }
    if uri.host().is_none_or(str::is_empty) {
        return Err(setting.refuse(format!("no host in it: {EXAMPLE}")));
    }
    if has_impossible_port(&uri) {
        return Err(setting.refuse(PORTS));
    }
    if uri.port_u16().is_none() && uri.scheme().is_none() {
        return Err(setting.refuse(format!("neither scheme nor port in it: {EXAMPLE}")));
    }
    Ok(uri)
}

/// The address that requests of `signal` go to; `base`: that the signal's path is added to.
pub(super) fn http_endpoint(
    signal: Signal,
    setting: &Setting,
    uri: Uri,
    base: bool,
) -> Result<Uri, ForwardConfigError> {
    let Some(scheme) = uri.scheme_str() else {
        return Err(setting.refuse(format!(
            "no scheme in it: write http://{0} or https://{0}",
            setting.value
        )));
    };
    if uri.query().is_some() {
        return Err(setting.refuse("an endpoint has no query: leave out what follows the '?'"));
    }
    let path = uri.path();
    if !base {
        return build(setting, scheme, &uri, path);
    }
    let trimmed = path.trim_end_matches('/');
    if SIGNALS.iter().any(|s| trimmed.ends_with(s.path())) {
        return Err(setting.refuse(format!(
            "the path of the signal is added by the agent: leave out {}, or set it as \
             OTEL_EXPORTER_OTLP_{}_ENDPOINT",
            signal.path(),
            signal.upper()
        )));
    }
    build(
        setting,
        scheme,
        &uri,
        &format!("{trimmed}{}", signal.path()),
    )
}

/// The server that requests go to; `insecure` says whether one without scheme is plain text.
pub(super) fn grpc_endpoint(
    setting: &Setting,
    uri: Uri,
    insecure: impl FnOnce() -> Result<bool, ForwardConfigError>,
) -> Result<Uri, ForwardConfigError> {
    if !matches!(uri.path(), "" | "/") {
        return Err(setting.refuse(
            "a gRPC endpoint has no path: write only scheme, host and port, or choose the \
             protocol http/protobuf",
        ));
    }
    let scheme = match uri.scheme_str() {
        Some(scheme) => scheme,
        None if insecure()? => "http",
        None => "https",
    };
    build(setting, scheme, &uri, "/")
}

fn build(
    setting: &Setting,
    scheme: &str,
    uri: &Uri,
    path: &str,
) -> Result<Uri, ForwardConfigError> {
    let authority = uri.authority().map_or("", |a| a.as_str());
    Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path)
        .build()
        .map_err(|e| setting.refuse(format!("not an address ({e})")))
}
