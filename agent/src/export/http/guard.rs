//! What every answer and every request has in common: headers that keep a browser from
//! doing more than the page needs, and a check of the name it was asked under.

use std::{net::IpAddr, sync::Arc};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// Names that are answered to; `None`: all, as the port is not on loopback.
pub(super) type AllowedHosts = Option<Arc<[String]>>;

/// Everything the page needs is its own; nothing is inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

/// Refuses requests under a foreign name and adds the headers.
pub(super) async fn guard(
    State(allowed): State<AllowedHosts>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match &allowed {
        Some(names) if !is_allowed(request.headers(), names) => (
            StatusCode::MISDIRECTED_REQUEST,
            "This port answers to its address, to localhost and to the node's name only.\n",
        )
            .into_response(),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Addresses cannot be rebound; `localhost` and its subdomains are the browser's own.
fn is_allowed(headers: &HeaderMap, names: &[String]) -> bool {
    let Some(host) = headers.get(header::HOST) else {
        return true; // HTTP/1.0: no browser
    };
    let Ok(host) = host.to_str() else {
        return false;
    };
    let name = without_port(host);
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.to_ascii_lowercase().ends_with(".localhost")
        || names.iter().any(|n| n.eq_ignore_ascii_case(name))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_name_is_refused() {
        let names = ["node-7".to_owned()];
        let allowed = |host: &str| {
            let value = HeaderValue::from_str(host).unwrap();
            is_allowed(&HeaderMap::from_iter([(header::HOST, value)]), &names)
        };
        for good in [
            "127.0.0.1:9464",
            "[::1]:9464",
            "[::1]",
            "localhost",
            "LOCALHOST:1",
            "node-7:9464",
            "a.localhost",
        ] {
            assert!(allowed(good), "{good}");
        }
        for bad in [
            "evil.example:9464",
            "evil.example",
            "127.0.0.1.evil.example",
            "xlocalhost",
            "node-7.evil",
            "",
        ] {
            assert!(!allowed(bad), "{bad}");
        }
        assert!(is_allowed(&HeaderMap::new(), &names));
    }
}
