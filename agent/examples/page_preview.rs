//! Shows the web page fed with plausible spans, for working on the page without a kernel
//! sensor: `cargo run --example page_preview -- [ADDRESS] [empty]`.

use std::{net::SocketAddr, time::Duration};

use isostack_agent::{
    export::{HttpConfig, PrometheusConfig, bind},
    time::{MonoNs, UnixNs},
    vocabulary::{Cause, Fault},
};
use tokio_util::sync::CancellationToken;

#[path = "../tests/support/export.rs"]
mod support;

use support::{MS, Plan, cgroup, identity};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let listen: SocketAddr = args.next().as_deref().unwrap_or("127.0.0.1:9464").parse()?;
    let empty = args.next().as_deref() == Some("empty");
    let config = PrometheusConfig {
        node: "node-7".into(),
        ..PrometheusConfig::default()
    };
    let cgroups = vec![
        cgroup(71, &[(16, 12), (17, 40)], &[(2, 9_000), (10, 40)]),
        cgroup(72, &[], &[(1, 3_000), (4, 200)]),
    ];
    let sources = support::sources(&config, cgroups);
    let bound = bind(HttpConfig {
        listen,
        ..HttpConfig::default()
    })
    .await?;
    println!("http://{}/", bound.local_addr());
    let stop = CancellationToken::new();
    let store = sources.store.clone();
    let server = tokio::spawn(bound.serve(sources, stop.clone()));
    let feed = async move {
        for round in 0.. {
            if !empty {
                let (batch, judgements) = support::batch(&plans(round), MonoNs::now());
                store.record(batch, judgements);
            }
            let pause = if round < 3 { 10 } else { 1_500 };
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    };
    tokio::select! {
        () = feed => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    stop.cancel();
    server.await?;
    Ok(())
}

fn plans(round: u64) -> Vec<Plan> {
    let now = UnixNs::now().0;
    let checkout = identity(71, "shop", "checkout-7d9f6c5b4-x2x9q", "checkout");
    let payment = identity(72, "shop", "payment-5c8b77f6d-q8wzr", "payment");
    let long = identity(
        73,
        "a-namespace-with-a-very-long-name",
        "a-pod-with-a-name-that-does-not-end-66d4f7b8c9-zzzzz",
        "recommendation-engine",
    );
    let healthy = |service, operation, ms, identity: &_| Plan {
        service,
        operation,
        seed: round * 16 + ms,
        start: now - 900 * MS,
        duration_ms: ms,
        downstream_ms: ms / 3,
        error: false,
        parts: vec![(Cause::Runqueue, ms / 20), (Cause::SocketWait, ms / 5)],
        verdict: None,
        identity: std::sync::Arc::clone(identity),
    };
    vec![
        healthy("frontend", "GET /", 12, &checkout),
        healthy("payment", "POST /charge", 48, &payment),
        Plan {
            duration_ms: 412 + round % 50,
            downstream_ms: 60,
            parts: vec![
                (Cause::CpuThrottle, 285),
                (Cause::Runqueue, 14),
                (Cause::LockWait, 11),
                (Cause::Unexplained, 4),
            ],
            verdict: Some((Cause::CpuThrottle, Fault::L3, "")),
            ..healthy("checkout", "POST /api/cart/{id}/checkout", 412, &checkout)
        },
        Plan {
            duration_ms: 1_840,
            downstream_ms: 1_200,
            error: true,
            parts: vec![
                (Cause::Runqueue, 390),
                (Cause::CpuThrottle, 120),
                (Cause::BlockDevice, 60),
            ],
            verdict: Some((
                Cause::Runqueue,
                Fault::Host,
                "batch/nightly-report-28812345-abcde/report",
            )),
            ..healthy("payment", "POST /charge", 1_840, &payment)
        },
        Plan {
            duration_ms: 96,
            downstream_ms: 0,
            parts: vec![(Cause::Steal, 51), (Cause::TcpRetransmit, 12)],
            verdict: Some((Cause::Steal, Fault::L1, "")),
            ..healthy(
                "recommendation-engine-with-a-long-service-name",
                "<script>alert(\"x\")</script> GET /recommendations/for/a/very/long/path/that/goes/on",
                96,
                &long,
            )
        },
    ]
}
