//! The two requests.

use std::{fs, io::Read, path::Path, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    config::{KubernetesConfig, KubernetesError},
    event::WatchEvent,
};
use crate::workload::pod::PodObject;

const USER_AGENT: &str = concat!("isostack-agent/", env!("CARGO_PKG_VERSION"));
/// A connection has to be there within this time.
const CONNECT: Duration = Duration::from_secs(10);
/// An answer has to begin, and a list to be complete, within this time.
const ANSWER: Duration = Duration::from_secs(60);
/// The server ends a watch after this time; the next one goes on where it ended.
const WATCH_SECONDS: u32 = 290;
/// The server marks its position about once a minute; silent for longer, it is not there.
const SILENCE: Duration = Duration::from_secs(150);
/// Pods of one page.
const PAGE: u32 = 250;
/// Pages of one list.
const MAX_PAGES: usize = 64;
/// Most bytes of a page; an object has at most 1.5 MB in etcd, and usually 10 kB.
const MAX_PAGE: usize = 64 << 20;
/// Most bytes of a line of a watch.
const MAX_LINE: usize = 8 << 20;
/// Most bytes of a token.
const MAX_TOKEN: u64 = 64 << 10;
/// Most bytes of an error's text that are read.
const MAX_ERROR: usize = 16 << 10;

/// Why a request got no answer that helps.
#[derive(Debug)]
pub(super) enum Failure {
    /// The position is too old: list anew.
    Gone,
    /// Not allowed.
    Denied(String),
    /// Anything else.
    Other(String),
}

type Https = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// The API server, asked about the pods of one node.
pub(super) struct Api {
    config: KubernetesConfig,
    selector: String,
}

/// A complete list.
#[derive(Debug, Default)]
pub(super) struct List {
    pub pods: Vec<PodObject>,
    pub version: String,
}

#[derive(Deserialize)]
struct PodList {
    #[serde(default)]
    metadata: ListMetadata,
    #[serde(default)]
    items: Vec<PodObject>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ListMetadata {
    #[serde(rename = "resourceVersion")]
    version: String,
    #[serde(rename = "continue")]
    rest: String,
}

impl Api {
    /// Reads the files once, so that a wrong setting is told at the start.
    pub fn new(config: KubernetesConfig, node: &str) -> Result<Self, KubernetesError> {
        let api = Self {
            selector: format!(
                "fieldSelector=spec.nodeName%3D{}",
                utf8_percent_encode(node, NON_ALPHANUMERIC)
            ),
            config,
        };
        api.client()?;
        Ok(api)
    }

    /// All pods of the node. `latest`: not what the server has at hand, which may be older
    /// than what was forgotten.
    pub async fn list(&self, latest: bool) -> Result<List, Failure> {
        let mut list = List::default();
        let mut rest = String::new();
        for _ in 0..MAX_PAGES {
            let mut query = format!("{}&limit={PAGE}", self.selector);
            if !rest.is_empty() {
                let rest = utf8_percent_encode(&rest, NON_ALPHANUMERIC);
                query.push_str(&format!("&continue={rest}"));
            } else if !latest {
                query.push_str("&resourceVersion=0");
            }
            let page = timeout(ANSWER, async {
                let answer = self.get(&query).await?;
                let body = Limited::new(answer.into_body(), MAX_PAGE);
                let body = body.collect().await;
                body.map(|body| body.to_bytes())
                    .map_err(|error| Failure::Other(format!("the list broke off: {error}")))
            });
            let page = page.await.map_err(|_| slow())??;
            let page: PodList = serde_json::from_slice(&page)
                .map_err(|error| Failure::Other(format!("the list cannot be read: {error}")))?;
            list.pods.extend(page.items);
            list.version = page.metadata.version;
            rest = page.metadata.rest;
            if rest.is_empty() {
                return Ok(list);
            }
        }
        Err(Failure::Other(format!(
            "the list has more than {MAX_PAGES} pages of {PAGE} pods: is --node-name one node's?"
        )))
    }

    /// What happens after `version`.
    pub async fn watch(&self, version: &str) -> Result<Watching, Failure> {
        let query = format!(
            "{}&watch=1&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECONDS}&resourceVersion={}",
            self.selector,
            utf8_percent_encode(version, NON_ALPHANUMERIC)
        );
        let answer = timeout(ANSWER, self.get(&query));
        let answer = answer.await.map_err(|_| slow())??;
        Ok(Watching {
            body: answer.into_body(),
            buffer: BytesMut::new(),
            searched: 0,
        })
    }

    async fn get(&self, query: &str) -> Result<Response<Incoming>, Failure> {
        let other = |error: String| Failure::Other(error);
        // The authorities change too: a new client for each of the rare requests.
        let client = self.client().map_err(|error| other(error.to_string()))?;
        let server = &self.config.server;
        let uri = Uri::builder()
            .scheme(server.scheme_str().unwrap_or("https"))
            .authority(server.authority().map_or("", |a| a.as_str()))
            .path_and_query(format!("/api/v1/pods?{query}"))
            .build()
            .map_err(|error| other(error.to_string()))?;
        let mut request = Request::get(uri)
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, "application/json");
        if let Some(path) = &self.config.token_file {
            request = request.header(header::AUTHORIZATION, bearer(path).map_err(other)?);
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| other(error.to_string()))?;
        let answer = client.request(request).await;
        let answer = answer.map_err(|error| other(format!("{server}: {}", chain(&error))))?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::GONE => Err(Failure::Gone),
            status => {
                let said = message(answer).await;
                Err(match status {
                    StatusCode::FORBIDDEN => Failure::Denied(format!(
                        "the API server refuses the list of pods ({said}): allow the agent's \
                         service account to list and watch pods, as deploy/kubernetes/rbac.yaml does"
                    )),
                    StatusCode::UNAUTHORIZED => Failure::Denied(format!(
                        "the API server does not accept the token ({said}): it is read again \
                         with each attempt, see --kubernetes-token-file"
                    )),
                    status => other(format!("the API server answers {status} ({said})")),
                })
            }
        }
    }

    fn client(&self) -> Result<Https, KubernetesError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        http.set_keepalive(Some(Duration::from_secs(20)));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls(self.config.ca_file.as_deref())?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Ok(Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(0)
            .build(https))
    }
}

/// A watch that is under way.
pub(super) struct Watching {
    body: Incoming,
    buffer: BytesMut,
    /// Bytes of the buffer without a line's end.
    searched: usize,
}

impl Watching {
    /// The next event; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<WatchEvent>, Failure> {
        loop {
            if let Some(end) = self.buffer[self.searched..]
                .iter()
                .position(|b| *b == b'\n')
            {
                let line = self.buffer.split_to(self.searched + end);
                self.buffer.advance(1);
                self.searched = 0;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                match WatchEvent::parse(&line)? {
                    Some(event) => return Ok(Some(event)),
                    None => continue,
                }
            }
            self.searched = self.buffer.len();
            if self.buffer.len() > MAX_LINE {
                return Err(Failure::Other(format!(
                    "the watch sent a line of more than {MAX_LINE} bytes"
                )));
            }
            let frame = timeout(SILENCE, self.body.frame());
            let Ok(frame) = frame.await else {
                return Err(Failure::Other(format!(
                    "the watch was silent for {SILENCE:?}"
                )));
            };
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                Some(Err(error)) => {
                    return Err(Failure::Other(format!(
                        "the watch broke off: {}",
                        chain(&error)
                    )));
                }
            }
        }
    }
}

fn slow() -> Failure {
    Failure::Other(format!("no answer within {ANSWER:?}"))
}

fn bearer(path: &Path) -> Result<HeaderValue, String> {
    let mut token = String::new();
    let read =
        fs::File::open(path).and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut token));
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .map_err(|_| format!("{} holds no token", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls(authorities: Option<&Path>) -> Result<ClientConfig, KubernetesError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the cipher suites of TLS 1.2 and 1.3");
    let Some(path) = authorities else {
        return Ok(match builder.clone().with_native_roots() {
            Ok(native) => native.with_no_client_auth(),
            Err(_) => builder.with_webpki_roots().with_no_client_auth(),
        });
    };
    let refuse = |reason: String| KubernetesError::File {
        path: path.display().to_string(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|e| refuse(e.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|e| refuse(e.to_string()))?;
        roots.add(certificate).map_err(|e| refuse(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(refuse("no certificate in it".to_owned()));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// What the server says about a refusal.
async fn message(answer: Response<Incoming>) -> String {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    let status = answer.status();
    let body = timeout(
        ANSWER,
        Limited::new(answer.into_body(), MAX_ERROR).collect(),
    )
    .await;
    let status_text = body
        .ok()
        .and_then(Result::ok)
        .and_then(|body| serde_json::from_slice::<Status>(&body.to_bytes()).ok());
    status_text.map_or_else(
        || status.to_string(),
        |status| shortened(&status.message).to_owned(),
    )
}

/// What another program says, as far as it fits into a sentence.
pub(super) fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(300)]
}

/// An error and what caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
