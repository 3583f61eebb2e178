//! The daemon: starts everything, connects the stages, stops in order.
//!
//! Start: check privilege, bind every port, load the sensors, then accept. Stop: refuse new
//! requests, finish those under way, judge what waits, deliver it within the drain timeout,
//! say what could not be delivered.

mod attribute;
mod error;
mod intake;
mod judging;
mod status;
mod tracking;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub use self::error::RunError;
use self::{
    attribute::Attributor, intake::SpanIntake, judging::Judging, status::Status, tracking::Tracking,
};
use crate::{
    config::{self, Config, suspicious_variables},
    export::{
        self, ExportSources, Exposition, HttpConfig, PrometheusConfig, Store, StoreConfig,
        prometheus::SpanMetrics,
    },
    forward::{ForwardConfig, Forwarder},
    host::{capabilities, identify::Identifier},
    join::{JoinConfig, Joiner},
    load::{self, Sensors},
    metrics::AgentMetrics,
    otlp::receive::{Receiver, ReceiverConfig},
    telemetry::{self, LogConfig, SelfTelemetryConfig, TelemetryGuard},
};

/// Batches of kernel events that may wait for the pipeline; more are dropped and counted.
const EVENT_BATCHES: usize = 1024;
/// Steal is polled this often: well within the time that a span waits to be judged.
const HOUSEKEEPING: Duration = Duration::from_millis(200);
/// The dead are forgotten every so many rounds of housekeeping.
const FORGET_EVERY: u64 = 75;

/// Runs the daemon until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or one of its tasks ends although it should run.
pub fn run(config: Config) -> Result<(), RunError> {
    let forward = ForwardConfig::from_env_and_flags(
        config.export_endpoint.as_deref(),
        config.export_protocol.as_deref(),
        |name| std::env::var(name).ok(),
    )?;
    let (essential, helpful): (Vec<_>, Vec<_>) = capabilities::missing()
        .into_iter()
        .partition(|need| need.essential);
    if !essential.is_empty() {
        return Err(load::StartError::NoPrivilege {
            missing: capabilities::sentence(&essential),
        }
        .into());
    }
    if !helpful.is_empty() {
        tracing::warn!(
            "Without it spans of other users' processes are not joined: {}",
            capabilities::sentence(&helpful)
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4)))
        .thread_name("isostack")
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    runtime.block_on(serve(config, forward))
}

async fn serve(config: Config, forward: Option<ForwardConfig>) -> Result<(), RunError> {
    let metrics = AgentMetrics::default();
    let receiver = Receiver::bind(ReceiverConfig::new(
        config.otlp_grpc_listen.clone(),
        config.otlp_http_listen.clone(),
    ))
    .await
    .map_err(|error| RunError::otlp_bind(error, &config.roots))?;
    let page = export::bind(HttpConfig {
        listen: config.http_listen,
        allowed_hosts: vec![config.node.clone()],
        ..HttpConfig::default()
    })
    .await
    .map_err(|error| RunError::page_bind(error, &config.roots))?;

    let telemetry = start_telemetry(&config, &receiver, page.local_addr())?;
    telemetry.observe(&metrics);
    for (variable, key) in suspicious_variables(std::env::vars_os()) {
        tracing::warn!(%variable, "No such setting: was ISOSTACK_{} meant?", key.to_uppercase());
    }

    let (events, events_in) = mpsc::channel(EVENT_BATCHES);
    let (identifier, sensors) = start_sensing(&config, &metrics, events.clone()).await?;
    let tracking = Arc::new(Tracking::new(Arc::clone(&sensors)));
    let joiner = Joiner::new(
        Arc::clone(&identifier),
        JoinConfig::new(config.node.clone()),
        {
            let tracking = Arc::clone(&tracking);
            move |process| tracking.add(process)
        },
    );

    let forwarder = forward
        .as_ref()
        .map(|config| Forwarder::start(config, metrics.clone()));
    let handle = forwarder.as_ref().map(Forwarder::handle);
    let page_address = page.local_addr();
    let status = Arc::new(Status::new(
        &config,
        &receiver,
        page_address,
        &identifier,
        handle.clone(),
    ));
    let prometheus = PrometheusConfig {
        node: config.node.clone(),
        ..PrometheusConfig::default()
    };
    let span_metrics = Arc::new(SpanMetrics::new(&prometheus, &metrics));
    let store = Arc::new(Store::new(
        StoreConfig::default(),
        Arc::clone(&span_metrics),
    ));

    let (batches, batches_in) = mpsc::unbounded_channel();
    let judging = Judging::new(&config, Arc::clone(&store), handle.clone(), metrics.clone());
    let mut judging = tokio::spawn(judging.run(events_in, batches_in));

    let budget = Arc::new(Semaphore::new(config.export_queue_bytes));
    let intake = SpanIntake::new(
        joiner,
        Arc::clone(&budget),
        batches,
        handle,
        metrics.clone(),
    );
    let stop_receiving = CancellationToken::new();
    let mut receiving =
        tokio::spawn(receiver.run(intake.clone(), metrics.clone(), stop_receiving.clone()));

    let sources = ExportSources {
        store,
        host: status.host_source(),
        sensors: status::sensors_source(&sensors),
        cgroups: status::cgroups_source(&sensors),
        label: status::label_source(&identifier),
        exposition: Arc::new(Exposition::new(
            &prometheus,
            &metrics,
            &span_metrics,
            status::sensors_source(&sensors),
        )),
        metrics: metrics.clone(),
        health: status.health_source(),
        readiness: status.readiness_source(),
    };
    let stop_page = CancellationToken::new();
    let mut serving = tokio::spawn(page.serve(sources, stop_page.clone()));
    let housekeeping = tokio::spawn(housekeeping(
        config.clone(),
        Arc::clone(&identifier),
        Arc::clone(&tracking),
        Arc::clone(&sensors),
        events,
        Arc::clone(&budget),
        metrics,
    ));
    status.log_start(&sensors, forward.as_ref());
    status.ready();

    let ended = tokio::select! {
        () = stop_signal() => None,
        _ = &mut judging => Some("pipeline"),
        _ = &mut receiving => Some("receiver"),
        _ = &mut serving => Some("page"),
    };
    if let Some(task) = ended {
        // A bug; ending loudly, so that whoever supervises starts a healthy one.
        return Err(RunError::TaskEnded(task));
    }

    tracing::info!("Stopping: spans held are judged and delivered first");
    tokio::spawn(async {
        stop_signal().await;
        tracing::warn!("Second signal: stopping at once");
        std::process::exit(1);
    });
    status.stopping();
    intake.stop();
    stop_receiving.cancel();
    finished("receiver", receiving).await;
    housekeeping.abort();
    // The last senders of the pipeline's channels go: it judges what it has, and returns.
    drop(intake);
    finished("pipeline", judging).await;
    if let Some(forwarder) = forwarder {
        let left = forwarder.drain(config.drain_timeout).await;
        if left.requests > 0 {
            tracing::error!(
                spans = left.items,
                requests = left.requests,
                "Not delivered within the drain timeout and lost: downstream did not take them"
            );
        }
    }
    stop_page.cancel();
    finished("page", serving).await;
    tracing::info!("Stopped");
    telemetry.shutdown().await;
    Ok(())
}

/// The log, and the agent's own traces and metrics where wanted; they must not come back
/// to the agent itself.
fn start_telemetry(
    config: &Config,
    receiver: &Receiver,
    page: SocketAddr,
) -> Result<TelemetryGuard, RunError> {
    let log = LogConfig {
        level: config.log_level.clone(),
        format: config.log_format,
    };
    let listeners = [receiver.grpc_address(), receiver.http_address()];
    let own_listeners = listeners
        .into_iter()
        .filter_map(config::tcp)
        .chain([page])
        .collect();
    let own = config
        .self_telemetry_endpoint
        .as_ref()
        .map(|endpoint| SelfTelemetryConfig {
            endpoint: endpoint.clone(),
            node: config.node.clone(),
            own_listeners,
        });
    Ok(telemetry::init(&log, own.as_ref())?)
}

async fn finished<T>(name: &'static str, task: JoinHandle<T>) {
    if let Err(error) = task.await {
        tracing::error!(%error, "The {name} did not end well");
    }
}

/// The parts that read the host: off the async threads, as `/proc` and BTF take a while.
async fn start_sensing(
    config: &Config,
    metrics: &AgentMetrics,
    events: mpsc::Sender<Vec<crate::event::Event>>,
) -> Result<(Arc<Identifier>, Arc<Sensors>), RunError> {
    let (config, metrics) = (config.clone(), metrics.clone());
    let started = tokio::task::spawn_blocking(move || {
        let identifier = Arc::new(Identifier::new(config.roots.clone(), metrics.clone()));
        let settings = load::Settings {
            selection: config.sensors.clone(),
            roots: config.roots.clone(),
            kernel_debug: config.log_level.contains("debug") || config.log_level.contains("trace"),
            ..load::Settings::default()
        };
        let mut attributor = Attributor::new(Arc::clone(&identifier), events, metrics.clone());
        let sensors = Sensors::start(&settings, metrics, move |events| attributor.take(events))?;
        Ok::<_, RunError>((identifier, Arc::new(sensors)))
    });
    started
        .await
        .map_err(|_| RunError::TaskEnded("start of the sensors"))?
}

/// What has to be done regularly and depends on no request.
async fn housekeeping(
    config: Config,
    identifier: Arc<Identifier>,
    tracking: Arc<Tracking>,
    sensors: Arc<Sensors>,
    events: mpsc::Sender<Vec<crate::event::Event>>,
    budget: Arc<Semaphore>,
    metrics: AgentMetrics,
) {
    let mut steal = attribute::StealSource::new(&config.roots, events, metrics.clone());
    let mut tick = tokio::time::interval(HOUSEKEEPING);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    for round in 0u64.. {
        tick.tick().await;
        steal.poll();
        let held = config
            .export_queue_bytes
            .saturating_sub(budget.available_permits());
        metrics
            .held_bytes
            .set(i64::try_from(held).unwrap_or(i64::MAX));
        if round % FORGET_EVERY == FORGET_EVERY - 1 {
            let (identifier, tracking) = (Arc::clone(&identifier), Arc::clone(&tracking));
            let sensors = Arc::clone(&sensors);
            let pruned = tokio::task::spawn_blocking(move || {
                tracking.forget_dead(identifier.roots());
                sensors.prune_cgroups(|id| identifier.cgroups().path_by_id(id).is_some());
            });
            if let Err(error) = pruned.await {
                tracing::error!(%error, "Housekeeping failed");
            }
        }
    }
}

async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        // Without handlers the signals' default action ends the process anyway.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
