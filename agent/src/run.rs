//! The daemon: starts everything, connects the stages, stops in order.
//!
//! Start: check privilege, bind every port, load the sensors, then accept. Stop: refuse new
//! requests, finish those under way, judge what waits, deliver it within the drain timeout,
//! say what could not be delivered.

pub mod attribute;
mod error;
mod housekeeping;
mod intake;
mod judging;
mod known;
mod publishing;
mod recorded;
mod status;
mod supporting;
mod tracking;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub use self::error::RunError;
use self::{
    attribute::Attributor,
    housekeeping::Housekeeping,
    intake::{LogLines, SpanIntake},
    judging::Judging,
    recorded::Recorded,
    status::Status,
    tracking::Tracking,
};
use crate::{
    config::{self, Config, suspicious_variables},
    export::{
        self, ExportSources, Exposition, HttpConfig, PrometheusConfig, Store, StoreConfig,
        prometheus::SpanMetrics,
    },
    forward::{ForwardConfig, Forwarder},
    host::{capabilities, identify::Identifier, kmsg},
    join::{JoinConfig, Joiner},
    load::{self, Sensors},
    logs::{Board, LogSettings, Logs},
    metrics::AgentMetrics,
    names::{Names, NamesConfig},
    otlp::{
        Signal,
        listen::is_reached_by,
        receive::{Receiver, ReceiverConfig},
    },
    pipeline::PipelineConfig,
    recording::{
        recorder::{Recorder, RecorderConfig},
        write,
    },
    sensor::{self, SensorState, seccomp::SeccompMode},
    telemetry::{self, LogConfig, SelfTelemetryConfig, TelemetryGuard},
    time::{MonoNs, UnixNs},
};

/// Batches of kernel events that may wait for the pipeline; more are dropped and counted.
const EVENT_BATCHES: usize = 1024;

/// Where a run is to be recorded.
#[derive(Clone, Debug)]
pub struct RecordTo {
    /// The file; it has another name until the recording is complete.
    pub file: PathBuf,
    /// Its largest size in bytes.
    pub max_bytes: u64,
    /// For how long; `None`: until the agent is stopped or the file is full.
    pub duration: Option<Duration>,
    /// Whether an earlier recording may be replaced.
    pub force: bool,
}

/// Runs the daemon until SIGTERM, SIGINT or SIGHUP, or until the recording ends.
///
/// # Errors
/// When it cannot start, or one of its tasks ends although it should run.
pub fn run(config: Config, record: Option<RecordTo>) -> Result<(), RunError> {
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
        // A batch passes through few tasks, one after the other, and each hand-over to a second
        // thread wakes a CPU: that cost more than the step. ARCHITECTURE.md says what runs elsewhere.
        .worker_threads(1)
        .thread_name("isostack")
        .enable_all()
        .build()
        .map_err(RunError::Runtime)?;
    runtime.block_on(serve(config, forward, record))
}

async fn serve(
    config: Config,
    forward: Option<ForwardConfig>,
    record: Option<RecordTo>,
) -> Result<(), RunError> {
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

    let own = own_listeners(&receiver, page.local_addr());
    if let Some(forward) = &forward {
        refuse_loops(forward, &own)?;
    }
    let telemetry = start_telemetry(&config, own)?;
    telemetry.observe(&metrics);
    for (variable, key) in suspicious_variables(std::env::vars_os()) {
        tracing::warn!(%variable, "No such setting: was ISOSTACK_{} meant?", key.to_uppercase());
    }

    let recorded_all = CancellationToken::new();
    let pipeline = start_pipeline(&config, record.as_ref(), &metrics, &recorded_all)?;
    let (events, events_in) = mpsc::channel(EVENT_BATCHES);
    let (identifier, sensors) = start_sensing(&config, &metrics, events).await?;
    let names = Names::start(names_config(&config), identifier.naming().directory())?;
    let names = Arc::new(names);
    let tracking = Arc::new(Tracking::new(Arc::clone(&sensors), config.roots.clone()));
    let board = Arc::new(Board::new(&config.node, metrics.clone()));
    let logs = start_logs(&config, &sensors, &identifier, &board, &metrics);
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
        &names,
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
    let judging = Judging::new(
        &config,
        pipeline,
        Arc::clone(&store),
        handle.clone(),
        Arc::clone(&board),
    );
    let mut judging = tokio::spawn(judging.run(events_in, batches_in));

    let budget = Arc::new(Semaphore::new(config.export_queue_bytes));
    let log_lines = logs.is_some().then(|| LogLines::new(&board, &metrics));
    let intake = SpanIntake::new(joiner, Arc::clone(&budget), batches, handle, log_lines);
    let stop_receiving = CancellationToken::new();
    let mut receiving =
        tokio::spawn(receiver.run(intake.clone(), metrics.clone(), stop_receiving.clone()));

    let sources = ExportSources {
        store,
        host: status.host_source(),
        sensors: status::sensors_source(&sensors),
        counted: status::counted_source(&sensors),
        log_matches: {
            let board = Arc::clone(&board);
            Arc::new(move |limit| board.recent(limit))
        },
        label: status::label_source(&identifier),
        stack: status::stack_source(&identifier),
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
    let housekeeping = Housekeeping {
        export_queue_bytes: config.export_queue_bytes,
        identifier: Arc::clone(&identifier),
        tracking: Arc::clone(&tracking),
        sensors: Arc::clone(&sensors),
        names: Arc::clone(&names),
        budget: Arc::clone(&budget),
        metrics,
    };
    let housekeeping = tokio::spawn(housekeeping.run());
    status.log_start(&config, &sensors, forward.as_ref());
    status.ready();

    let ended = tokio::select! {
        () = stop_signal() => None,
        () = end_of_recording(record.as_ref(), recorded_all) => None,
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
    // It writes where it was in each file.
    drop(logs);
    // The last senders of the pipeline's channels go: it judges what it has, and returns.
    drop(intake);
    finished("pipeline", judging).await;
    if let Some(forwarder) = forwarder {
        // It says itself what it could not deliver.
        forwarder.drain(config.drain_timeout).await;
    }
    stop_page.cancel();
    finished("page", serving).await;
    names.stop().await;
    tracing::info!("Stopped");
    telemetry.shutdown().await;
    Ok(())
}

/// The pipeline, and the recorder that is told all that it is told.
fn start_pipeline(
    config: &Config,
    record: Option<&RecordTo>,
    metrics: &AgentMetrics,
    recorded_all: &CancellationToken,
) -> Result<Recorded, RunError> {
    let pipeline = PipelineConfig {
        settle: config.settle,
        ..PipelineConfig::default()
    };
    let clocks = (MonoNs::now(), UnixNs::now());
    let start = |record: &RecordTo| {
        if let Some(earlier) = write::earlier(&record.file).filter(|_| !record.force) {
            return Err(RunError::RecordingExists(earlier));
        }
        let settings = RecorderConfig {
            max_bytes: record.max_bytes,
            node: config.node.clone(),
            child_spans: config.child_spans,
        };
        let ended = recorded_all.clone();
        Recorder::start(&record.file, settings, &pipeline, clocks, ended).map_err(|error| {
            RunError::Recording {
                file: record.file.clone(),
                error,
            }
        })
    };
    let recorder = record.map(start).transpose()?;
    Ok(Recorded::new(pipeline, clocks, recorder, metrics.clone()))
}

/// Until the time that was asked for is over, or nothing more can be written; never when
/// nothing is recorded.
async fn end_of_recording(record: Option<&RecordTo>, recorded_all: CancellationToken) {
    let Some(record) = record else {
        return std::future::pending().await;
    };
    tracing::info!(file = %record.file.display(), "Recording");
    match record.duration {
        Some(duration) => {
            let _ = tokio::time::timeout(duration, recorded_all.cancelled()).await;
        }
        None => recorded_all.cancelled().await,
    }
}

fn own_listeners(receiver: &Receiver, page: SocketAddr) -> Vec<SocketAddr> {
    let otlp = [receiver.grpc_address(), receiver.http_address()];
    let otlp = otlp.into_iter().filter_map(config::tcp);
    otlp.chain([page]).collect()
}

/// A downstream that is plainly the agent itself; [`SpanIntake`] refuses what comes back by
/// names and ways that cannot be seen from here.
fn refuse_loops(forward: &ForwardConfig, own: &[SocketAddr]) -> Result<(), RunError> {
    let signals = [Signal::Traces, Signal::Metrics, Signal::Logs];
    for target in signals.into_iter().filter_map(|s| forward.target(s)) {
        if let Some(own) = own
            .iter()
            .find(|own| is_reached_by(**own, &target.endpoint))
        {
            return Err(RunError::Loop {
                endpoint: target.endpoint.clone(),
                own: *own,
            });
        }
    }
    Ok(())
}

/// The log, and the agent's own traces and metrics where wanted; they must not come back
/// to the agent itself.
fn start_telemetry(
    config: &Config,
    own_listeners: Vec<SocketAddr>,
) -> Result<TelemetryGuard, RunError> {
    let log = LogConfig {
        level: config.log_level.clone(),
        format: config.log_format,
    };
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
        let identifier = Arc::new(
            Identifier::new(config.roots.clone(), metrics.clone())
                .with_overrides(config.overrides.clone()),
        );
        let settings = load::Settings {
            selection: config.sensors.clone(),
            roots: config.roots.clone(),
            sensor_budget_cores: config.sensor_budget_cores,
            seccomp: config.seccomp,
            kernel_debug: config.log_level.contains("debug") || config.log_level.contains("trace"),
            ..load::Settings::default()
        };
        let attributor = Attributor::new(Arc::clone(&identifier), events, metrics.clone());
        let sensors = Sensors::start_telling(&settings, metrics, attributor)?;
        let told = sensors
            .statuses()
            .iter()
            .any(|status| status.name == sensor::process::NAME && status.state != SensorState::Off);
        identifier.changes_are_told(told);
        if config.seccomp == SeccompMode::On {
            require(&sensors, "seccomp")?;
        }
        Ok::<_, RunError>((identifier, Arc::new(sensors)))
    });
    started
        .await
        .map_err(|_| RunError::TaskEnded("start of the sensors"))?
}

/// The reader of logs, unless the sensor is off; without it there are merely no lines.
fn start_logs(
    config: &Config,
    sensors: &Sensors,
    identifier: &Arc<Identifier>,
    board: &Arc<Board>,
    metrics: &AgentMetrics,
) -> Option<Logs> {
    let status = sensors.statuses().into_iter().find(|s| s.name == "logs")?;
    if status.state == SensorState::Off {
        return None;
    }
    let settings = LogSettings {
        kmsg: kmsg::PATH.into(),
        globs: config.log_globs.clone(),
        state_dir: config.state_dir.clone(),
    };
    Logs::start(
        settings,
        Arc::clone(identifier),
        Arc::clone(board),
        metrics.clone(),
    )
    .inspect_err(|error| tracing::error!(%error, "Log lines are not read"))
    .ok()
}

/// As [`load`] does for a sensor that `--sensors` names.
fn require(sensors: &Sensors, name: &str) -> Result<(), load::StartError> {
    let status = sensors.statuses().into_iter().find(|s| s.name == name);
    match status.filter(|status| status.state == SensorState::Off) {
        None => Ok(()),
        Some(status) => Err(load::StartError::Required {
            name: status.name,
            reason: status.reason.clone(),
            fix: status.fix.clone(),
        }),
    }
}

fn names_config(config: &Config) -> NamesConfig {
    NamesConfig {
        node: config.node.clone(),
        kubernetes: config.kubernetes.clone(),
        kubelet: config.kubelet.clone(),
        cri: config.cri.clone(),
        state_dir: config.state_dir.clone(),
    }
}

async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt), Ok(mut hang_up)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        // Of a terminal that is closed: spans held are worth as much then.
        signal(SignalKind::hangup()),
    ) else {
        // Without handlers the signals' default action ends the process anyway.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hang_up.recv() => {}
    }
}
