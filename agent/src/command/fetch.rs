//! `GET`, for the commands that ask a running agent or a trace store. Bounded in time and in
//! bytes; redirects are not followed, as they may lead anywhere.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, crypto::ring};
use thiserror::Error;
use tokio::{runtime, time::timeout};

use crate::address::{PORTS, has_impossible_port};

const USER_AGENT: &str = concat!("isostack-agent/", env!("CARGO_PKG_VERSION"));
/// A connection is there within this time, or there is none.
const CONNECT: Duration = Duration::from_secs(5);
/// An answer is complete within this time.
const ANSWER: Duration = Duration::from_secs(60);
/// Most bytes of an answer: a trace of 200 000 spans with few attributes each.
pub const MAX_BYTES: usize = 256 << 20;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The address is none.
    #[error("{what} is not an address ({why}): write one like {example}")]
    Address {
        /// As given, without a password.
        what: String,
        /// What is wrong with it.
        why: String,
        /// One that is right.
        example: &'static str,
    },
    /// A header is none.
    #[error("`{0}` is not a header: write NAME=VALUE")]
    Header(String),
    /// Nobody there.
    #[error("{url} cannot be reached: {why}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        why: String,
    },
    /// Somebody there who does not answer, or not to the end.
    #[error("{url} did not answer within {} s", ANSWER.as_secs())]
    Slow {
        /// Where.
        url: String,
    },
    /// An answer that is too large.
    #[error("the answer of {url} is larger than {} MiB, which is more than is looked at", MAX_BYTES >> 20)]
    TooLarge {
        /// Where.
        url: String,
    },
}

/// A server's base address, checked.
#[derive(Clone, Debug)]
pub struct Server {
    base: String,
    headers: HeaderMap,
}

/// An answer of whatever status.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
}

impl Server {
    /// Of an address and headers as flags have them.
    ///
    /// # Errors
    /// When one of them cannot be meant.
    pub fn new(
        address: &str,
        headers: &[String],
        example: &'static str,
    ) -> Result<Self, FetchError> {
        let refuse = |what: &str, why: String| FetchError::Address {
            what: what.escape_debug().to_string(),
            why,
            example,
        };
        if address.contains('@') {
            let why = "credentials in it would be shown to other users: pass them by --header";
            return Err(refuse("(not shown)", why.to_owned()));
        }
        let uri: Uri = address
            .parse()
            .map_err(|error| refuse(address, format!("{error}")))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) {
            return Err(refuse(address, "no http:// or https:// in it".to_owned()));
        }
        if has_impossible_port(&uri) {
            return Err(refuse(address, PORTS.to_owned()));
        }
        if uri.query().is_some() || uri.host().is_none_or(str::is_empty) {
            return Err(refuse(
                address,
                "only scheme, host, port and path".to_owned(),
            ));
        }
        let mut map = HeaderMap::new();
        map.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        map.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        for text in headers.iter().filter(|text| !text.trim().is_empty()) {
            let (name, value) = parse_header(text).ok_or_else(|| {
                // The value may be a secret.
                let name = text.split('=').next().unwrap_or_default();
                FetchError::Header(name.escape_debug().to_string())
            })?;
            map.insert(name, value);
        }
        Ok(Self {
            base: address.trim_end_matches('/').to_owned(),
            headers: map,
        })
    }

    /// The address of a path below it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// `GET`, blocking; an answer of any status is one.
    ///
    /// # Errors
    /// When there is no answer within the bounds.
    pub fn get(&self, path: &str) -> Result<Answer, FetchError> {
        let unreachable = |why: String| FetchError::Unreachable {
            url: self.url(path),
            why,
        };
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| unreachable(error.to_string()))?;
        let answer = runtime.block_on(self.ask(path));
        // A name server that does not answer must not hold the command up.
        runtime.shutdown_background();
        answer
    }

    /// The same for who has a runtime.
    ///
    /// # Errors
    /// When there is no answer within the bounds.
    pub async fn ask(&self, path: &str) -> Result<Answer, FetchError> {
        let url = self.url(path);
        match timeout(ANSWER, self.request(&url)).await {
            Ok(answer) => answer,
            Err(_) => Err(FetchError::Slow { url }),
        }
    }

    async fn request(&self, url: &str) -> Result<Answer, FetchError> {
        let unreachable = |why: String| FetchError::Unreachable {
            url: url.to_owned(),
            why,
        };
        let mut request = Request::get(url)
            .body(Empty::<Bytes>::new())
            .map_err(|error| unreachable(error.to_string()))?;
        *request.headers_mut() = self.headers.clone();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls())
            .https_or_http()
            .enable_all_versions()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        let response = client
            .request(request)
            .await
            .map_err(|error| unreachable(chain(&error)))?;
        let (head, body) = response.into_parts();
        match Limited::new(body, MAX_BYTES).collect().await {
            Ok(body) => Ok(Answer {
                status: head.status,
                body: body.to_bytes(),
            }),
            Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge {
                url: url.to_owned(),
            }),
            Err(error) => Err(unreachable(error.to_string())),
        }
    }
}

fn parse_header(text: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.split_once('=')?;
    let name = HeaderName::try_from(name.trim()).ok()?;
    let mut value = HeaderValue::try_from(value.trim()).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

/// The system's authorities; Mozilla's where it has none.
fn tls() -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3");
    match builder.clone().with_native_roots() {
        Ok(native) => native,
        Err(_) => builder.with_webpki_roots(),
    }
    .with_no_client_auth()
}

/// What the outermost error says is only that there was one.
fn chain(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(address: &str, headers: &[&str]) -> String {
        let headers: Vec<_> = headers.iter().map(|h| (*h).to_owned()).collect();
        Server::new(address, &headers, "http://127.0.0.1:9464")
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn what_cannot_be_meant_is_refused_without_repeating_secrets() {
        for address in [
            "localhost:9464",
            "ftp://x",
            "http://",
            "http://h/?q=1",
            "http://h:99999",
            "\u{1b}[",
        ] {
            let said = refusal(address, &[]);
            assert!(said.contains("http://127.0.0.1:9464"), "{said}");
            assert!(!said.contains('\u{1b}'), "{said}");
        }
        assert!(!refusal("http://me:secret@host", &[]).contains("secret"));
        let said = refusal("http://host", &["Bad Name=secret"]);
        assert!(
            said.contains("NAME=VALUE") && !said.contains("secret"),
            "{said}"
        );
    }

    #[test]
    fn nobody_there_is_told_with_the_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let server = Server::new(&address, &[], "").unwrap();
        let said = server.get("/api").unwrap_err().to_string();
        assert!(said.contains(address.trim_end_matches('/')), "{said}");
        assert!(said.contains("refused"), "{said}");
    }
}
