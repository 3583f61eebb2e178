//! Each gets the status that the specification names, its counter goes up, and the agent
//! takes the next good request.

use std::time::Duration;

use http::StatusCode;
use isostack_agent::otlp::Refusal;
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::Span,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic_types::StatusExt;

use crate::harness::*;

const MIB: usize = 1 << 20;
const GZIP: &[(&str, &str)] = &[("content-encoding", "gzip")];
const GRPC_GZIP: &[(&str, &str)] = &[("grpc-encoding", "gzip")];

#[tokio::test(flavor = "multi_thread")]
async fn over_http() {
    let agent = start().await;
    let good = request(vec![span("good")]);
    let truncated = good[..good.len() - 3].to_vec();
    let bomb = gzip(&vec![0; 200 * MIB]);
    assert!(bomb.len() < MIB, "small on the wire");
    let big = vec![0x0a; 21 * MIB];
    let cases: Vec<(&str, &str, &str, &[(&str, &str)], Vec<u8>, u16, &str)> = vec![
        (
            "POST",
            "/v1/traces",
            PROTOBUF,
            &[],
            truncated,
            400,
            "protobuf",
        ),
        (
            "POST",
            "/v1/traces",
            PROTOBUF,
            &[],
            b"{}".to_vec(),
            400,
            "protobuf",
        ),
        (
            "POST",
            "/v1/metrics",
            PROTOBUF,
            &[],
            vec![0x0a, 5, 1],
            400,
            "protobuf",
        ),
        (
            "POST",
            "/v1/traces",
            JSON,
            &[],
            b"{\"resourceSpans\":".to_vec(),
            400,
            "json",
        ),
        (
            "POST",
            "/v1/traces",
            JSON,
            &[],
            b"{\"resourceSpans\":7}".to_vec(),
            400,
            "json",
        ),
        ("POST", "/v1/logs", JSON, &[], good.clone(), 400, "json"),
        (
            "POST",
            "/v1/traces",
            "text/plain",
            &[],
            good.clone(),
            415,
            "content_type",
        ),
        (
            "POST",
            "/v1/traces",
            "",
            &[],
            good.clone(),
            415,
            "content_type",
        ),
        (
            "POST",
            "/v1/traces",
            PROTOBUF,
            &[("content-encoding", "br")],
            good.clone(),
            415,
            "content_encoding",
        ),
        (
            "POST",
            "/v1/traces",
            PROTOBUF,
            GZIP,
            good.clone(),
            400,
            "gzip",
        ),
        (
            "POST",
            "/v1/traces",
            PROTOBUF,
            GZIP,
            gzip(&good)[..20].to_vec(),
            400,
            "gzip",
        ),
        (
            "POST",
            "/v1/traces",
            PROTOBUF,
            GZIP,
            bomb.clone(),
            413,
            "too_large",
        ),
        ("POST", "/v1/traces", JSON, GZIP, bomb, 413, "too_large"),
        ("POST", "/v1/traces", PROTOBUF, &[], big, 413, "too_large"),
        ("GET", "/v1/traces", PROTOBUF, &[], vec![], 405, "method"),
        (
            "PUT",
            "/v1/traces",
            JSON,
            &[],
            b"{}".to_vec(),
            405,
            "method",
        ),
        (
            "POST",
            "/v1/trace",
            PROTOBUF,
            &[],
            good.clone(),
            404,
            "path",
        ),
        ("POST", "/", JSON, &[], good.clone(), 404, "path"),
    ];
    for (method, path, content_type, headers, body, status, reason) in cases {
        let case = format!("{method} {path} {content_type} {headers:?} -> {status} {reason}");
        let before = agent.malformed(reason);
        let answer = agent.http(method, path, content_type, headers, body).await;
        assert_eq!(answer.status.as_u16(), status, "{case}: {answer:?}");
        let wanted = if content_type == PROTOBUF {
            PROTOBUF
        } else {
            JSON
        };
        assert_eq!(answer.header("content-type"), wanted, "{case}");
        let (code, message) = answer.rpc_status();
        assert!(code != 0 && message.len() > 10, "{case}: {code} {message}");
        assert_eq!(agent.malformed(reason), before + 1, "{case}");
        match status {
            405 => assert_eq!(answer.header("allow"), "POST"),
            415 if reason == "content_encoding" => {
                assert_eq!(answer.header("accept-encoding"), "gzip, identity");
            }
            _ => {}
        }
    }
    assert!(agent.state.batches.lock().is_empty());
    agent.is_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn over_grpc() {
    let agent = start().await;
    let good = request(vec![span("good")]);
    let bomb = gzip(&vec![0; 100 * MIB]);
    let cases: Vec<(&str, &[(&str, &str)], Vec<u8>, i32, &str)> = vec![
        (
            TRACES,
            &[],
            frame(0, &good[..good.len() - 3]),
            3,
            "protobuf",
        ),
        (METRICS, &[], frame(0, &[0x0a, 5, 1]), 3, "protobuf"),
        (TRACES, &[], vec![], 13, "frame"),
        (TRACES, &[], frame(0, &good)[..20].to_vec(), 13, "frame"),
        (
            TRACES,
            &[],
            [frame(0, &good), frame(0, &good)].concat(),
            13,
            "frame",
        ),
        (TRACES, &[], frame(1, &gzip(&good)), 13, "frame"),
        (TRACES, &[], frame(7, &good), 13, "frame"),
        (TRACES, GRPC_GZIP, frame(1, &good), 3, "gzip"),
        (TRACES, GRPC_GZIP, frame(1, &bomb), 8, "too_large"),
        (TRACES, &[], frame(0, &vec![0; 4 * MIB + 1]), 8, "too_large"),
        (
            TRACES,
            &[("grpc-encoding", "zstd")],
            frame(1, &good),
            12,
            "content_encoding",
        ),
        (
            "/opentelemetry.proto.collector.trace.v1.TraceService/Import",
            &[],
            frame(0, &good),
            12,
            "path",
        ),
        (
            "/grpc.health.v1.Health/Check",
            &[],
            frame(0, &[]),
            12,
            "path",
        ),
    ];
    for (path, headers, body, status, reason) in cases {
        let case = format!("{path} {headers:?} -> {status} {reason}");
        let before = agent.malformed(reason);
        let answer = agent.call(path, headers, body).await;
        assert_eq!(answer.grpc_status(), status, "{case}: {answer:?}");
        assert!(answer.grpc("grpc-message").len() > 10, "{case}");
        assert_eq!(agent.malformed(reason), before + 1, "{case}");
        if reason == "content_encoding" {
            assert_eq!(answer.grpc("grpc-accept-encoding"), "identity,gzip");
        }
    }
    assert!(agent.state.batches.lock().is_empty());
    agent.is_alive().await;
}

/// 20 MiB and 4 MiB are still taken, and so is gzip that is worth it.
#[tokio::test(flavor = "multi_thread")]
async fn up_to_the_limit_is_taken() {
    let agent = start().await;
    let of_size = |size: usize| {
        let with_name = |length| request(vec![span(&"x".repeat(length))]);
        let shorter = with_name(size - 100);
        let bytes = with_name(size - 100 + size - shorter.len());
        assert_eq!(bytes.len(), size);
        bytes
    };
    let (grpc, http) = (of_size(4 * MIB), of_size(20 * MIB));
    let answer = agent.call(TRACES, &[], frame(0, &grpc)).await;
    assert_eq!(answer.grpc_status(), 0);
    let answer = agent.call(TRACES, GRPC_GZIP, frame(1, &gzip(&grpc))).await;
    assert_eq!(answer.grpc_status(), 0);
    let answer = agent.post("/v1/traces", PROTOBUF, &[], http.clone()).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body.len(), 0, "an empty response message");
    let answer = agent.post("/v1/traces", PROTOBUF, GZIP, gzip(&http)).await;
    assert_eq!(answer.status, StatusCode::OK);
    let batches = agent.state.batches.lock();
    let payloads: Vec<_> = batches.iter().map(|(_, payload)| payload).collect();
    assert!(payloads == [&grpc, &grpc, &http, &http]);
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_spans_are_forwarded_unharmed() {
    let agent = start().await;
    let with_times = |start, end| Span {
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        ..span("odd")
    };
    let many = (0..10_000).map(|i| KeyValue {
        key: format!("key.{i}"),
        value: Some(AnyValue {
            value: Some(Value::IntValue(i)),
        }),
        ..KeyValue::default()
    });
    let spans = vec![
        with_times(0, 0),
        with_times(u64::MAX - 1, u64::MAX),
        with_times(1_700_000_000_000_000_000, 0),
        with_times(9, 3),
        span("twin"),
        span("twin"),
        Span::default(),
        Span {
            trace_id: vec![1],
            span_id: vec![1; 99],
            ..span("wrong ids")
        },
        Span {
            attributes: many.collect(),
            ..span("many")
        },
    ];
    // And a field that OTLP does not know, and a name that is not UTF-8.
    let mut payload = request(spans);
    payload.extend([0xfa, 0x3e, 3, b'n', b'e', b'w']);
    payload.extend([0x0a, 8, 0x12, 6, 0x12, 4, 0x2a, 2, 0xff, 0xfe]);
    let answer = agent
        .post("/v1/traces", PROTOBUF, &[], payload.clone())
        .await;
    assert_eq!(answer.status, StatusCode::OK);
    let answer = agent.call(TRACES, &[], frame(0, &payload)).await;
    assert_eq!(answer.grpc_status(), 0);
    let batches = agent.state.batches.lock();
    assert!(batches.iter().all(|(_, got)| *got == payload) && batches.len() == 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_said_in_the_words_of_the_protocol() {
    let agent = start().await;
    let busy = Refusal::Busy {
        retry_after: Duration::from_millis(1500),
    };
    let payload = request(vec![span("a"), span("b")]);
    *agent.state.refuse.lock() = Some(busy);
    let answer = agent
        .post("/v1/traces", PROTOBUF, &[], payload.clone())
        .await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.header("retry-after"), "2");
    assert_eq!(answer.rpc_status().0, 14);
    let answer = agent.call(TRACES, &[], frame(0, &payload)).await;
    assert_eq!(answer.grpc_status(), 14);
    let status = tonic::Status::from_header_map(&answer.headers).unwrap();
    let retry = status.get_details_retry_info().unwrap();
    assert_eq!(retry.retry_delay, Some(Duration::from_millis(1500)));
    assert_eq!(agent.refused("busy"), 4, "two spans, twice");

    *agent.state.refuse.lock() = Some(Refusal::Stopping);
    let answer = agent
        .post("/v1/traces", PROTOBUF, &[], payload.clone())
        .await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    let answer = agent.call(TRACES, &[], frame(0, &payload)).await;
    assert_eq!(answer.grpc_status(), 14);
    assert_eq!(agent.refused("stopping"), 4);

    *agent.state.refuse.lock() = Some(Refusal::NoDownstream);
    let answer = agent.post("/v1/logs", JSON, &[], b"{}".to_vec()).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(answer.rpc_status().1.contains("--export-endpoint"));
    let answer = agent.call(METRICS, &[], frame(0, &[])).await;
    assert_eq!(answer.grpc_status(), 12);
    assert!(answer.grpc("grpc-message").contains("metrics"));

    *agent.state.refuse.lock() = None;
    agent.is_alive().await;
}

/// When all unfinished requests together take too much, the last ones are told to wait.
#[tokio::test(flavor = "multi_thread")]
async fn the_memory_of_unfinished_requests_is_bounded() {
    let mut config = config("127.0.0.1:0", "127.0.0.1:0");
    config.max_unfinished_bytes = 3 * MIB;
    let agent = start_with(config).await;
    agent.state.gate.acquire().await.unwrap().forget();
    let payload = request(vec![span(&"x".repeat(2 * MIB))]);
    let first = agent.post("/v1/traces", PROTOBUF, &[], payload.clone());
    let second = async {
        agent.state.entered.acquire().await.unwrap().forget();
        let answer = agent.call(TRACES, &[], frame(0, &payload)).await;
        assert_eq!(answer.grpc_status(), 14, "{answer:?}");
        let bomb = gzip(&vec![0; 4 * MIB]);
        let answer = agent.post("/v1/traces", PROTOBUF, GZIP, bomb).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(agent.refused("receiver_full"), 2);
        agent.state.gate.add_permits(1);
    };
    let (first, ()) = tokio::join!(first, second);
    assert_eq!(first.status, StatusCode::OK);
    agent.is_alive().await;
}

/// A sender that never ends its request is let go; silence and nonsense cost nothing.
#[tokio::test(flavor = "multi_thread")]
async fn slow_and_senseless_senders_are_let_go() {
    let mut config = config("127.0.0.1:0", "127.0.0.1:0");
    config.body_timeout = Duration::from_millis(200);
    config.idle_timeout = Duration::from_millis(200);
    let agent = start_with(config).await;
    let connect = || TcpStream::connect(agent.http.to_string());

    let mut slow = connect().await.unwrap();
    let head = "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\n\
                content-length: 1000\r\n\r\nabc";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(agent.malformed("timeout"), 1);

    for bytes in [
        &b""[..],
        b"POST /v1/tr",
        b"PRI * HTT",
        b"\x16\x03\x01\x02\x00\x01",
    ] {
        let mut stream = connect().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // The agent closes; a reset is as good.
        let _ = stream.read_to_end(&mut rest).await;
    }
    agent.is_alive().await;
}
