//! The two requests to the API server.

use std::time::Duration;

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    client::{Client, Failure, chain},
    config::{KubernetesConfig, KubernetesError},
    event::WatchEvent,
};
use crate::workload::pod::PodObject;

/// The server ends a watch after this time; the next one goes on where it ended.
const WATCH_SECONDS: u32 = 290;
/// The server marks its position about once a minute; silent for longer, it is not there.
const SILENCE: Duration = Duration::from_secs(150);
/// Pods of one page.
const PAGE: u32 = 250;
/// Pages of one list.
const MAX_PAGES: usize = 64;
/// Most bytes of a line of a watch.
const MAX_LINE: usize = 8 << 20;

/// The API server, asked about the pods of one node.
pub(super) struct Api {
    client: Client,
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
    pub fn new(config: KubernetesConfig, node: &str) -> Result<Self, KubernetesError> {
        Ok(Self {
            selector: format!(
                "fieldSelector=spec.nodeName%3D{}",
                utf8_percent_encode(node, NON_ALPHANUMERIC)
            ),
            client: Client::new(config)?,
        })
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
            let page: PodList = self.client.read(&format!("/api/v1/pods?{query}")).await?;
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
        let answer = self.client.get(&format!("/api/v1/pods?{query}")).await?;
        Ok(Watching {
            body: answer.into_body(),
            buffer: BytesMut::new(),
            searched: 0,
        })
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
