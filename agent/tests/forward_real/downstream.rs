//! A downstream on a real socket that answers by script and keeps what it got: HTTP/1.1 and
//! HTTP/2, OTLP over HTTP and gRPC (framed by hand, so that wrong answers can be given too).

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::Read,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::{Notify, watch},
    task::JoinHandle,
};

/// One request as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    /// The message, unframed and uncompressed.
    pub message: Bytes,
    pub compressed: bool,
}

/// One answer.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Success with this body.
    Ok(Vec<u8>),
    /// Status, headers, body; for gRPC, `grpc-*` headers are sent as trailers.
    Http(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// gRPC code, message, details.
    Grpc(u32, String, Vec<u8>),
    /// Reads the request, then closes the connection without an answer.
    Hang,
    /// Reads the request and answers success when [`Downstream::release`] is called.
    Wait,
}

pub type Script = dyn Fn(usize, &Received) -> Reply + Send + Sync;

struct Inner {
    script: Box<Script>,
    received: Mutex<Vec<Received>>,
    came: Notify,
    released: watch::Sender<bool>,
}

pub struct Downstream {
    pub address: SocketAddr,
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl Drop for Downstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Downstream {
    /// Answers the n-th request (from 0) by `script`.
    pub async fn start(script: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_on("127.0.0.1:0", None, script).await
    }

    /// Gives the replies in turn, then success.
    pub async fn replying(replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies = Mutex::new(replies.into_iter().collect::<VecDeque<_>>());
        Self::start(move |_, _| replies.lock().pop_front().unwrap_or(ok())).await
    }

    pub async fn start_on(
        address: &str,
        tls: Option<rustls::ServerConfig>,
        script: impl Fn(usize, &Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner {
            script: Box::new(script),
            received: Mutex::default(),
            came: Notify::new(),
            released: watch::Sender::new(false),
        });
        let task = tokio::spawn(accept(listener, tls, Arc::clone(&inner)));
        Self {
            address,
            inner,
            task,
        }
    }

    pub fn received(&self) -> Vec<Received> {
        self.inner.received.lock().clone()
    }

    /// All messages, joined in order of arrival.
    pub fn bytes(&self) -> Vec<u8> {
        let received = self.inner.received.lock();
        received.iter().flat_map(|r| r.message.clone()).collect()
    }

    /// Waits until this many requests came.
    pub async fn requests(&self, count: usize) -> Vec<Received> {
        loop {
            let came = self.inner.came.notified();
            let received = self.received();
            if received.len() >= count {
                return received;
            }
            came.await;
        }
    }

    /// Lets all [`Reply::Wait`] answer.
    pub fn release(&self) {
        self.inner.released.send_replace(true);
    }
}

pub fn ok() -> Reply {
    Reply::Ok(Vec::new())
}

async fn accept(listener: TcpListener, tls: Option<rustls::ServerConfig>, inner: Arc<Inner>) {
    // Dropped with the task, which ends the connections: that is how a server is killed.
    let mut connections = tokio::task::JoinSet::new();
    let tls = tls.map(|config| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
    while let Ok((stream, _)) = listener.accept().await {
        let inner = Arc::clone(&inner);
        let tls = tls.clone();
        connections.spawn(async move {
            match tls {
                None => serve(stream, inner).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, inner).await;
                    }
                }
            }
        });
    }
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, inner: Arc<Inner>) {
    let service = service_fn(|request| answer(request, Arc::clone(&inner)));
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(
    request: Request<Incoming>,
    inner: Arc<Inner>,
) -> Result<Response<Frames>, std::io::Error> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map_err(std::io::Error::other)?
        .to_bytes();
    let grpc = head
        .headers
        .get("content-type")
        .is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
    let (compressed, message) = if grpc {
        let length = u32::from_be_bytes(body[1..5].try_into().unwrap());
        assert_eq!(length as usize, body.len() - 5);
        (body[0] == 1, body.slice(5..))
    } else {
        (head.headers.contains_key("content-encoding"), body)
    };
    let message = if compressed {
        gunzip(&message)
    } else {
        message
    };
    let received = Received {
        path: head.uri.path().to_owned(),
        headers: head.headers,
        message,
        compressed,
    };
    let reply = {
        let mut all = inner.received.lock();
        let reply = (inner.script)(all.len(), &received);
        all.push(received);
        reply
    };
    inner.came.notify_waiters();
    let reply = match reply {
        Reply::Hang => return Err(std::io::Error::other("hanging up")),
        Reply::Wait => {
            let mut released = inner.released.subscribe();
            let _ = released.wait_for(|released| *released).await;
            ok()
        }
        reply => reply,
    };
    Ok(if grpc {
        grpc_response(reply)
    } else {
        http_response(reply)
    })
}

fn grpc_response(reply: Reply) -> Response<Frames> {
    let mut trailers = HeaderMap::new();
    let mut frames = VecDeque::new();
    let mut response = Response::builder().header("content-type", "application/grpc");
    match reply {
        Reply::Ok(body) => {
            let mut framed = vec![0];
            framed.extend((body.len() as u32).to_be_bytes());
            framed.extend(body);
            frames.push_back(Frame::data(Bytes::from(framed)));
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
        }
        Reply::Grpc(code, message, details) => {
            tonic::Status::with_details(tonic::Code::from(code as i32), message, details.into())
                .add_header(&mut trailers)
                .unwrap();
        }
        Reply::Http(status, headers, body) => {
            response = Response::builder().status(status);
            for (name, value) in headers {
                response = response.header(name, value);
            }
            frames.push_back(Frame::data(Bytes::from(body)));
        }
        Reply::Hang | Reply::Wait => unreachable!("handled before"),
    }
    if !trailers.is_empty() {
        frames.push_back(Frame::trailers(trailers));
    }
    response.body(Frames(frames)).unwrap()
}

fn http_response(reply: Reply) -> Response<Frames> {
    let (status, headers, body) = match reply {
        Reply::Ok(body) => {
            let kind = ("content-type", "application/x-protobuf".to_owned());
            (200, vec![kind], body)
        }
        Reply::Http(status, headers, body) => (status, headers, body),
        other => unreachable!("no answer of HTTP: {other:?}"),
    };
    let mut response = Response::new(Frames([Frame::data(body.into())].into()));
    *response.status_mut() = status.try_into().unwrap();
    for (name, value) in headers {
        let name = HeaderName::from_static(name);
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

fn gunzip(body: &[u8]) -> Bytes {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(body)
        .read_to_end(&mut out)
        .unwrap();
    out.into()
}

struct Frames(VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}
