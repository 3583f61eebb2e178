//! How a server of Kubernetes is asked, the API's or a kubelet: whose certificate is believed,
//! who asks, and what an answer may cost.

mod tls;

use std::{fs, io::Read, path::Path, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::config::{KubernetesConfig, KubernetesError};

const USER_AGENT: &str = concat!("isostack-agent/", env!("CARGO_PKG_VERSION"));
/// A connection has to be there within this time.
const CONNECT: Duration = Duration::from_secs(10);
/// An answer has to begin, and a document to be complete, within this time.
const ANSWER: Duration = Duration::from_secs(60);
/// Most bytes of a document: a page of the API server's, or all pods of a kubelet, of which it has
/// 110 as a rule; a pod usually has 10 kB.
const MAX_DOCUMENT: usize = 16 << 20;
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

/// See the module's head.
pub(super) struct Client(KubernetesConfig);

type Https = legacy::Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

impl Client {
    /// Reads the files once, so that a wrong setting is told at the start.
    pub fn new(config: KubernetesConfig) -> Result<Self, KubernetesError> {
        let client = Self(config);
        client.connector()?;
        Ok(client)
    }

    /// A whole document.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let document = async {
            let body = Limited::new(self.get(path).await?.into_body(), MAX_DOCUMENT);
            let body = body.collect().await;
            body.map(|body| body.to_bytes()).map_err(|error| {
                let is_long = error.is::<LengthLimitError>();
                Failure::Other(match is_long {
                    true => format!("the list has more than {} MiB", MAX_DOCUMENT >> 20),
                    false => format!("the list broke off: {error}"),
                })
            })
        };
        let document = timeout(ANSWER, document).await.map_err(|_| slow())??;
        serde_json::from_slice(&document)
            .map_err(|error| Failure::Other(format!("the list cannot be read: {}", quoted(&error))))
    }

    /// The beginning of an answer.
    pub async fn get(&self, path: &str) -> Result<Response<Incoming>, Failure> {
        let answer = timeout(ANSWER, self.ask(path));
        answer.await.map_err(|_| slow())?
    }

    async fn ask(&self, path: &str) -> Result<Response<Incoming>, Failure> {
        let other = |error: String| Failure::Other(error);
        // The authorities change too: a new client for each of the rare requests.
        let client = self.connector().map_err(|error| other(error.to_string()))?;
        let Self(config) = self;
        let server = &config.server;
        let uri = Uri::builder()
            .scheme(server.scheme_str().unwrap_or("https"))
            .authority(server.authority().map_or("", |a| a.as_str()))
            .path_and_query(path)
            .build()
            .map_err(|error| other(error.to_string()))?;
        let mut request = Request::get(uri)
            .header(header::USER_AGENT, USER_AGENT)
            .header(header::ACCEPT, "application/json");
        if let Some(path) = &config.token_file {
            request = request.header(header::AUTHORIZATION, bearer(path).map_err(other)?);
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| other(error.to_string()))?;
        let answer = client.request(request).await;
        let answer = answer.map_err(|error| {
            let help = config.whom.help_with_tls(&chain(&error));
            other(format!("{server}: {}{help}", chain(&error)))
        })?;
        let (name, right) = (config.whom.name(), config.whom.right());
        match answer.status() {
            StatusCode::OK => Ok(answer),
            StatusCode::GONE => Err(Failure::Gone),
            status => {
                let said = message(answer).await;
                Err(match status {
                    StatusCode::FORBIDDEN => Failure::Denied(format!(
                        "{name} refuses the list of pods ({said}): allow the agent's service \
                         account to {right}"
                    )),
                    StatusCode::UNAUTHORIZED => Failure::Denied(format!(
                        "{name} does not accept the token ({said}): it is read again with each \
                         attempt, see --kubernetes-token-file"
                    )),
                    status => other(format!("{name} answers {status} ({said})")),
                })
            }
        }
    }

    fn connector(&self) -> Result<Https, KubernetesError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        http.set_keepalive(Some(Duration::from_secs(20)));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls::config(&self.0)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Ok(legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(0)
            .build(https))
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

/// What the server says about a refusal: a `Status` object or, as kubelets do, plain text.
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
    let body = body.ok().and_then(Result::ok);
    let body = body.map(http_body_util::Collected::to_bytes);
    let body = body.unwrap_or_default();
    let said = match serde_json::from_slice::<Status>(&body) {
        Ok(status) => status.message,
        Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
    };
    match said.is_empty() {
        true => status.to_string(),
        false => quoted(&said),
    }
}

/// What another program says, as far as it fits into a sentence, and on one line.
pub(super) fn quoted(said: &impl ToString) -> String {
    let said = said.to_string();
    said[..said.floor_char_boundary(300)]
        .escape_debug()
        .to_string()
}

/// An error and what caused it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
