//! The end: what is under way is finished, what comes later is not accepted.

use std::time::Duration;

use http::StatusCode;
use isostack_agent::{metrics::Encoding, otlp::receive::Stopped};
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_request_under_way_is_finished() {
    let mut config = config("127.0.0.1:0", "127.0.0.1:0");
    config.drain_timeout = Duration::from_secs(60);
    let agent = start_with(config).await;
    agent.state.gate.acquire().await.unwrap().forget();
    let payload = request(vec![span("last")]);
    let http = agent.post("/v1/traces", PROTOBUF, &[], payload.clone());
    let grpc = agent.call(TRACES, &[], frame(0, &payload));
    let stop = async {
        let both = agent.state.entered.acquire_many(2).await.unwrap();
        both.forget();
        agent.stop.cancel();
        // The listener is closed before the requests are through.
        while TcpStream::connect(agent.http.to_string()).await.is_ok() {
            tokio::task::yield_now().await;
        }
        agent.state.gate.add_permits(1);
    };
    let (http, grpc, ()) = tokio::join!(http, grpc, stop);
    assert_eq!(http.status, StatusCode::OK);
    assert_eq!(grpc.grpc_status(), 0);
    assert_eq!(agent.spans().len(), 2);
    assert_eq!(agent.ended.await.unwrap(), Stopped { cut: 0 });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_never_ends_is_cut_at_the_deadline() {
    let mut config = config("127.0.0.1:0", "127.0.0.1:0");
    config.drain_timeout = Duration::from_millis(50);
    let agent = start_with(config).await;
    agent.state.gate.acquire().await.unwrap().forget();
    let url = agent.http.to_string();
    let state = agent.state.clone();
    let client = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = TcpStream::connect(url).await.unwrap();
        let head = "POST /v1/traces HTTP/1.1\r\nhost: a\r\n\
                    content-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    });
    state.entered.acquire().await.unwrap().forget();
    agent.stop.cancel();
    assert_eq!(agent.ended.await.unwrap(), Stopped { cut: 1 });
    assert_eq!(
        client.await.unwrap(),
        b"",
        "no answer is better than a wrong one"
    );
}

#[tokio::test]
async fn what_a_sender_sent_whole_counts_though_it_is_gone() {
    let agent = start().await;
    agent.state.gate.acquire().await.unwrap().forget();
    let body = request(vec![span("last words")]);
    let head = format!(
        "POST /v1/traces HTTP/1.1\r\nHost: agent\r\nContent-Type: {PROTOBUF}\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut sender = TcpStream::connect(agent.http.to_string()).await.unwrap();
    sender.write_all(head.as_bytes()).await.unwrap();
    sender.write_all(&body).await.unwrap();
    agent.state.entered.acquire().await.unwrap().forget();
    drop(sender);
    // Time for the end of the connection to be noticed.
    tokio::time::sleep(Duration::from_millis(200)).await;
    agent.state.gate.add_permits(1);
    let accepted = async {
        while agent.received(Encoding::HttpProtobuf) == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), accepted)
        .await
        .expect("the spans are accepted");
    assert_eq!(agent.spans().len(), 1);
}
