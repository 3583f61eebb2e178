//! One attempt at sending one request, by either protocol, over a connection that is kept.
//!
//! Both use the same HTTP client: gRPC is tonic's framing on top of it, with a codec that
//! passes bytes through, as they are protobuf already.

use std::{io::Write, time::SystemTime};

use bytes::{Buf, BufMut, Bytes};
use flate2::{Compression as Level, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Request, Uri, header, uri::PathAndQuery};
use http_body_util::{BodyExt, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{Client as Hyper, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::net::TcpStream;
use tonic::{
    Status,
    client::Grpc,
    codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
};
use tower::{ServiceExt, util::MapResponse};

use super::{
    answer::{self, Answer, MAX_ANSWER_BYTES},
    body::Chunks,
    checked::Checked,
    config::{Compression, Protocol, Target},
    gather::Gathering,
    signal::Named,
};
use crate::otlp::Signal;

const USER_AGENT: &str = concat!("isostack-agent/", env!("CARGO_PKG_VERSION"));
/// A connection that is silent this long is asked whether it is still there (HTTP/2), so
/// that a peer gone without a word is noticed by more than time-outs.
const KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(20);

/// Sends requests of one signal to one target.
pub(super) enum Client {
    Grpc {
        grpc: Box<Grpc<Checked>>,
        method: PathAndQuery,
        metadata: MetadataMap,
    },
    Http {
        hyper: Box<Hyper<Connector, Chunks>>,
        endpoint: Uri,
        headers: HeaderMap,
        compression: Compression,
    },
}

pub(super) type Connector =
    MapResponse<HttpsConnector<HttpConnector>, fn(Stream) -> Gathering<Stream>>;
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

impl Client {
    /// Connects at the first request, not here.
    pub fn new(target: &Target, signal: Signal) -> Self {
        let mut builder = Hyper::builder(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_only(target.protocol == Protocol::Grpc);
        let mut headers = target.headers.clone();
        headers
            .entry(header::USER_AGENT)
            .or_insert(HeaderValue::from_static(USER_AGENT));
        match target.protocol {
            Protocol::Grpc => {
                let checked = Checked(builder.build(connector(target)));
                let mut grpc = Grpc::with_origin(checked, target.endpoint.clone())
                    .accept_compressed(CompressionEncoding::Gzip)
                    .max_decoding_message_size(MAX_ANSWER_BYTES);
                if target.compression == Compression::Gzip {
                    grpc = grpc.send_compressed(CompressionEncoding::Gzip);
                }
                Self::Grpc {
                    grpc: Box::new(grpc),
                    method: PathAndQuery::from_static(signal.method()),
                    metadata: MetadataMap::from_headers(headers),
                }
            }
            Protocol::HttpProtobuf => {
                headers.insert(
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/x-protobuf"),
                );
                if target.compression == Compression::Gzip {
                    let gzip = HeaderValue::from_static("gzip");
                    headers.insert(header::CONTENT_ENCODING, gzip);
                }
                Self::Http {
                    hyper: Box::new(builder.build(connector(target))),
                    endpoint: target.endpoint.clone(),
                    headers,
                    compression: target.compression,
                }
            }
        }
    }

    /// One attempt; `parts` are sent as one message.
    pub async fn send(&self, parts: Vec<Bytes>) -> Answer {
        match self {
            Self::Grpc {
                grpc,
                method,
                metadata,
            } => {
                let mut grpc = grpc.clone();
                let mut request = tonic::Request::new(parts);
                *request.metadata_mut() = metadata.clone();
                match grpc.unary(request, method.clone(), Raw).await {
                    Ok(response) => answer::from_body(&response.into_inner()),
                    Err(status) => answer::from_status(&status),
                }
            }
            Self::Http {
                hyper,
                endpoint,
                headers,
                compression,
            } => {
                let body = match compression {
                    Compression::None => Chunks::new(parts),
                    Compression::Gzip => match gzip(&parts) {
                        Ok(body) => Chunks::new(vec![body]),
                        Err(error) => return answer::no_connection(&error),
                    },
                };
                let mut request = Request::post(endpoint.clone())
                    .body(body)
                    .expect("method and address are valid");
                *request.headers_mut() = headers.clone();
                match hyper.request(request).await {
                    Ok(response) => read_answer(response).await,
                    Err(error) => answer::no_connection(&error),
                }
            }
        }
    }
}

pub(super) async fn read_answer(response: http::Response<hyper::body::Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    if !head.status.is_success() {
        // The status says enough; the body is only for people.
        let body = body.map(|b| b.to_bytes()).unwrap_or_default();
        return answer::from_http(head.status, &head.headers, &body, SystemTime::now());
    }
    let body = match body {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return answer::garbage(format!("more than {MAX_ANSWER_BYTES} bytes"));
        }
        Err(error) => return answer::no_connection(&*error),
    };
    answer::from_http_success(&head.headers, &body)
}

fn connector(target: &Target) -> Connector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(target.timeout));
    // A plain-text target never meets this configuration: it has no roots to trust.
    let tls = target.tls.clone().unwrap_or_else(super::tls::trusting_none);
    let builder = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http();
    let connector = match target.protocol {
        Protocol::Grpc => builder.enable_http2().wrap_connector(tcp),
        Protocol::HttpProtobuf => builder.enable_all_versions().wrap_connector(tcp),
    };
    connector.map_response(Gathering::new)
}

fn gzip(parts: &[Bytes]) -> std::io::Result<Bytes> {
    let length: usize = parts.iter().map(Bytes::len).sum();
    let mut encoder = GzEncoder::new(Vec::with_capacity(length / 4), Level::fast());
    for part in parts {
        encoder.write_all(part)?;
    }
    Ok(encoder.finish()?.into())
}

/// Passes bytes through; several are one message.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<Bytes>;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<Bytes>;
    type Error = Status;

    fn encode(&mut self, parts: Vec<Bytes>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(parts.iter().map(Bytes::len).sum());
        for part in parts {
            to.put_slice(&part);
        }
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
