//! The HTTP server: bound early, so that a port in use is known before anything is loaded;
//! served until told to stop.

mod guard;
mod json;
mod routes;

use std::{io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use rustix::net::sockopt;
use thiserror::Error;
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;

use super::ExportSources;
use crate::otlp::listen::{self, Listen};

/// How the HTTP port is served.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names under which a browser may ask for the page, beside addresses and `localhost`:
    /// the node's. Checked on loopback only, where a foreign page could otherwise reach it
    /// through a name of its own (DNS rebinding).
    pub allowed_hosts: Vec<String>,
    /// Connections open at a time; more are closed at once and counted.
    pub max_connections: usize,
    /// Clients of the event stream at a time; more are answered 503.
    pub max_stream_clients: usize,
    /// A client that takes in nothing for this long is cut off.
    pub client_timeout: Duration,
    /// How long answers in progress may take once told to stop.
    pub stop_within: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            allowed_hosts: Vec::new(),
            max_connections: 256,
            max_stream_clients: 64,
            client_timeout: Duration::from_secs(20),
            stop_within: Duration::from_secs(2),
        }
    }
}

/// How long a connection may be idle or a client take over the head of a request: longer than
/// usual scrape intervals, so that Prometheus keeps its connection.
const HEADERS_WITHIN: Duration = Duration::from_secs(75);

/// Why the port could not be had.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another socket has it.
    #[error(
        "{0} (--http-listen) is in use: stop who listens there, or give another port (0 picks a free one)"
    )]
    InUse(SocketAddr),
    /// Anything else.
    #[error(
        "cannot listen on {address} (--http-listen): {source}; {}",
        listen::hint(&Listen::Tcp(*.address), .source)
    )]
    Other {
        /// As configured.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A bound port that nobody answers on yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    config: HttpConfig,
}

/// Takes the port.
///
/// # Errors
/// When it is in use, or the address is not this host's.
pub async fn bind(config: HttpConfig) -> Result<Bound, BindError> {
    let address = config.listen;
    let other = |source| BindError::Other { address, source };
    let listener = TcpListener::bind(address)
        .await
        .map_err(|e| match e.kind() {
            io::ErrorKind::AddrInUse => BindError::InUse(address),
            _ => other(e),
        })?;
    let address = listener.local_addr().map_err(other)?;
    Ok(Bound {
        listener,
        address,
        config,
    })
}

impl Bound {
    /// The address in use, a free port filled in.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is cancelled, then ends streams, finishes answers in progress and
    /// returns, at the latest after `stop_within`.
    pub async fn serve(self, sources: ExportSources, stop: CancellationToken) {
        let metrics = sources.metrics.clone();
        let router = routes::router(sources, &self.config, self.address, stop.clone());
        let service = TowerToHyperService::new(router);
        let places = Arc::new(Semaphore::new(self.config.max_connections));
        let graceful = GracefulShutdown::new();
        let mut stopped = pin!(stop.cancelled());
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = &mut stopped => break,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // The usual reason is a lack of file descriptors: wait for some.
                    tracing::warn!(%error, "Cannot accept an HTTP connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                metrics.http_refused.inc();
                continue;
            };
            // A client that is slow with its request or does not read the answer must not
            // keep its place: the kernel ends the latter, as nobody polls a blocked write.
            let timeout_ms = self
                .config
                .client_timeout
                .as_millis()
                .min(u128::from(u32::MAX));
            if let Err(error) = sockopt::set_tcp_user_timeout(&stream, timeout_ms as u32) {
                tracing::debug!(%error, "A client that stops reading will keep its connection");
            }
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_WITHIN)
                .serve_connection(TokioIo::new(stream), service.clone());
            let connection = graceful.watch(connection);
            let timeouts = metrics.http_timeouts.clone();
            tokio::spawn(async move {
                // What goes wrong on one connection is the client's matter.
                if connection.await.is_err_and(|e| is_timeout(&e)) {
                    timeouts.inc();
                }
                drop(place);
            });
        }
        drop(self.listener);
        if tokio::time::timeout(self.config.stop_within, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("HTTP answers in progress were cut off by the stop");
        }
    }
}

/// Whether the client did not take in the answer in time.
fn is_timeout(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let io = source.and_then(|s| s.downcast_ref::<io::Error>());
    io.is_some_and(|e| e.kind() == io::ErrorKind::TimedOut)
}
