//! Accepting connections and serving each until it ends.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::Request;
use hyper::{
    body::Incoming,
    rt::{Read, Write},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{Core, ReceiverConfig};
use crate::otlp::{Connection, Intake, grpc, http as otlp_http, listen::Listener};

/// Flow-control windows of HTTP/2: with the standard's 64 KiB, a batch of a few hundred
/// spans waits for window updates several times.
const WINDOW_BYTES: u32 = 1 << 20;
/// Larger frames than the standard's 16 KiB mean fewer of them per batch.
const FRAME_BYTES: u32 = 256 << 10;
/// A dead HTTP/2 peer is noticed after these two.
const PING_INTERVAL: Duration = Duration::from_secs(60);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// When the process has no file descriptors left, for example.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until `stop`, then drains; returns how many connections had to be cut.
pub(super) async fn accept<I: Intake>(
    listener: Listener,
    core: Arc<Core<I>>,
    config: &ReceiverConfig,
    stop: CancellationToken,
) -> usize {
    let builder = builder(config);
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(config.max_connections));
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let permit = tokio::select! {
            permit = Arc::clone(&room).acquire_owned() => permit,
            () = stop.cancelled() => break,
        };
        let accepted = tokio::select! {
            accepted = next(&listener) => accepted,
            () = stop.cancelled() => break,
        };
        let (io, connection) = match accepted {
            Ok(Some(accepted)) => accepted,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(%error, "Cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let sender = core.intake.connected(connection);
        let watcher = graceful.watcher();
        let (core, builder, idle) = (Arc::clone(&core), builder.clone(), config.idle_timeout);
        tasks.spawn(async move {
            let _permit = permit;
            let served = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&served);
            let service = service_fn(move |request| {
                seen.store(true, Ordering::Relaxed);
                serve(Arc::clone(&core), Arc::clone(&sender), request)
            });
            let connection = builder.serve_connection(io, service).into_owned();
            let mut connection = pin!(watcher.watch(connection));
            let ended = tokio::select! {
                ended = &mut connection => ended,
                // Not a single request: whoever only holds the place makes room.
                () = unused(&served, idle) => return,
            };
            if let Err(error) = ended {
                tracing::debug!(error, "A connection ended early");
            }
        });
    }
    drop(listener);
    let drained = tokio::time::timeout(config.drain_timeout, graceful.shutdown());
    if drained.await.is_ok() {
        return 0;
    }
    while tasks.try_join_next().is_some() {}
    let cut = tasks.len();
    tasks.shutdown().await;
    cut
}

/// Ends when `idle` is over and nothing was served; else never.
async fn unused(served: &AtomicBool, idle: Duration) {
    tokio::time::sleep(idle).await;
    if served.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

fn builder(config: &ReceiverConfig) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // A sender that ends after its last request is not told, but its spans count.
        .half_close(true)
        .header_read_timeout(config.idle_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(2 * WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .max_concurrent_streams(config.max_streams)
        .max_header_list_size(16 << 10)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

async fn serve<I: Intake>(
    core: Arc<Core<I>>,
    sender: Arc<I::Sender>,
    request: Request<Incoming>,
) -> Result<http::Response<crate::otlp::answer::AnswerBody>, Infallible> {
    Ok(match grpc::is_grpc(&request) {
        true => grpc::serve(&core, &sender, request).await,
        false => otlp_http::serve(&core, &sender, request).await,
    })
}

/// Either kind of stream.
trait Io: Read + Write + Unpin + Send {}
impl<T: Read + Write + Unpin + Send> Io for T {}

/// The next connection; `None` when it was gone before it was looked at.
async fn next(listener: &Listener) -> std::io::Result<Option<(Box<dyn Io>, Connection)>> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            let (Ok(()), Ok(local)) = (stream.set_nodelay(true), stream.local_addr()) else {
                return Ok(None);
            };
            let io: Box<dyn Io> = Box::new(TokioIo::new(stream));
            Ok(Some((io, Connection::Tcp { local, peer })))
        }
        Listener::Unix { listener, .. } => {
            let (stream, _) = listener.accept().await?;
            let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
            let pid = pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
            let io: Box<dyn Io> = Box::new(TokioIo::new(stream));
            Ok(Some((io, Connection::Unix { pid })))
        }
    }
}
