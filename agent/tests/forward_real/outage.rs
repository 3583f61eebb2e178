//! Downstream is away, comes and goes, or loses answers.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use isostack_agent::forward::Health;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use parking_lot::Mutex;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpSocket},
    runtime::Runtime,
};
use tokio_stream::wrappers::TcpListenerStream;

use crate::{
    PROTOCOLS,
    agent::{Agent, ids},
    downstream::{Downstream, Reply, ok},
};

/// An address that nobody listens on and nobody else gets: the socket is kept.
fn closed_port() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn waits_for_a_downstream_that_is_not_there_yet() {
    for protocol in PROTOCOLS {
        let (socket, address) = closed_port();
        let agent = Agent::new(address, protocol, &[]);
        let mut sent = agent.send(0..5).to_vec();
        agent.until(|a| a.retries("connection") >= 2).await;
        sent.extend(agent.send(5..9));
        assert!(matches!(
            agent.health("traces"),
            Health::Failing {
                reason: "connection",
                ..
            }
        ));
        drop(socket);
        let downstream = Downstream::start_on(&address.to_string(), None, |_, _| ok()).await;
        agent.settled().await;
        assert_eq!(downstream.bytes(), sent);
        assert_eq!(agent.health("traces"), Health::Connected);
    }
}

#[tokio::test]
async fn a_lost_answer_means_a_duplicate_and_no_loss() {
    for protocol in PROTOCOLS {
        let downstream = Downstream::replying([ok(), Reply::Hang]).await;
        let agent = Agent::new(downstream.address, protocol, &[]);
        agent.send(0..1);
        agent.settled().await;
        let sent = agent.send(1..5);
        agent.settled().await;
        let received = downstream.received();
        assert_eq!(received.len(), 3);
        assert_eq!(received[1].message, sent);
        assert_eq!(received[2].message, sent);
        assert_eq!(agent.forwarded(), 5);
    }
}

#[tokio::test]
async fn a_downstream_slower_than_the_timeout_gets_it_again() {
    let env = [("OTEL_EXPORTER_OTLP_TIMEOUT", "100")];
    for protocol in PROTOCOLS {
        let downstream = Downstream::replying([Reply::Wait]).await;
        let agent = Agent::new(downstream.address, protocol, &env);
        let sent = agent.send(0..5);
        agent.until(|a| a.retries("timeout") >= 1).await;
        agent.settled().await;
        assert_eq!(downstream.received()[1].message, sent);
        assert_eq!(agent.forwarded(), 5);
    }
}

#[tokio::test]
async fn something_that_is_not_a_server_of_http_loses_nothing() {
    for protocol in PROTOCOLS {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let talker = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(b"220 mail.example ready\r\n").await;
            }
        });
        let agent = Agent::new(address, protocol, &[]);
        let sent = agent.send(0..5);
        agent.until(|a| a.retries("connection") >= 2).await;
        talker.abort();
        let _ = talker.await;
        let downstream = Downstream::start_on(&address.to_string(), None, |_, _| ok()).await;
        agent.settled().await;
        assert_eq!(downstream.received()[0].message, sent);
    }
}

/// The service as upstream's generated server has it.
#[derive(Clone, Default)]
struct Traces(Arc<Mutex<Vec<u64>>>);

#[tonic::async_trait]
impl TraceService for Traces {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let request = prost::Message::encode_to_vec(request.get_ref());
        self.0.lock().extend(ids(&request));
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A server with a runtime of its own: ending that closes its connections too, as a kill does.
struct Server {
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Server {
    async fn start(address: &str, traces: &Traces) -> Self {
        // The port of one just killed is free in a moment.
        let listener = loop {
            match std::net::TcpListener::bind(address) {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        };
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(traces.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            address,
            runtime: Some(runtime),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_restarted_in_the_middle_of_a_run() {
    const SPANS: u64 = 4000;
    let traces = Traces::default();
    let mut server = Server::start("127.0.0.1:0", &traces).await;
    let address = server.address;
    let agent = Agent::new(address, "grpc", &[]);
    for n in 0..SPANS / 10 {
        agent.send(n * 10..(n + 1) * 10);
        if n % 100 == 50 {
            // Dead with requests under way, for long enough that the agent has noticed.
            drop(server);
            let before = agent.retries("connection");
            agent.send(SPANS + n..SPANS + n + 1);
            agent.until(|a| a.retries("connection") > before).await;
            server = Server::start(&address.to_string(), &traces).await;
        }
        tokio::task::yield_now().await;
    }
    agent.settled().await;
    drop(server);
    let mut arrived = traces.0.lock().clone();
    arrived.sort_unstable();
    arrived.dedup();
    let kills = (0..SPANS / 10).filter(|n| n % 100 == 50);
    let expected: Vec<u64> = (0..SPANS).chain(kills.map(|n| SPANS + n)).collect();
    assert_eq!(arrived, expected);
    assert_eq!(agent.forwarded(), expected.len() as u64);
    assert_eq!(agent.lost("rejected") + agent.lost("too_large"), 0);
}
