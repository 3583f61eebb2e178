//! What the daemon says of itself: addresses, readiness, health.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use parking_lot::Mutex;

use crate::{
    config::Config,
    export::{
        Downstream, Health, HostView, LabelSource, Listeners, NamesView, Readiness, Source,
        StackSource,
    },
    forward::{ForwardConfig, ForwardHandle},
    host::identify::Identifier,
    load::Sensors,
    names::Names,
    otlp::{Signal, receive::Receiver},
    sensor::{Counted, SENSORS, SensorState, SensorStatus},
    state_file,
    time::UnixNs,
};

/// What `/readyz` waits for until [`Status::ready`].
const STARTING: &str = "start: the agent is still starting";
/// What `/readyz` waits for from [`Status::stopping`] on.
const STOPPING: &str = "nothing: the agent is stopping";

/// See the module's head.
pub struct Status {
    host: HostView,
    names: Arc<Names>,
    forward: Option<ForwardHandle>,
    waiting_for: Mutex<BTreeSet<&'static str>>,
}

impl Status {
    /// Not ready yet.
    #[must_use]
    pub fn new(
        config: &Config,
        receiver: &Receiver,
        page: SocketAddr,
        identifier: &Identifier,
        names: &Arc<Names>,
        forward: Option<ForwardHandle>,
    ) -> Self {
        let uname = rustix::system::uname();
        let host = HostView {
            node: config.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel: uname.release().to_string_lossy().into_owned(),
            architecture: uname.machine().to_string_lossy().into_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            started_unix_nano: UnixNs::now().0.to_string(),
            listen: Listeners {
                http: page.to_string(),
                otlp_grpc: receiver.grpc_address().to_string(),
                otlp_http: receiver.http_address().to_string(),
            },
            downstream: Vec::new(),
            jaeger_url: config.jaeger_url.clone().unwrap_or_default(),
            stack: identifier.host_stack().0.clone(),
            names: NamesView::default(),
        };
        Self {
            host,
            names: Arc::clone(names),
            forward,
            waiting_for: Mutex::new(BTreeSet::from([STARTING])),
        }
    }

    /// Everything runs.
    pub fn ready(&self) {
        self.waiting_for.lock().clear();
    }

    /// No service from now on.
    pub fn stopping(&self) {
        self.waiting_for.lock().insert(STOPPING);
    }

    /// For `/api/v1/host`.
    #[must_use]
    pub fn host_source(self: &Arc<Self>) -> Source<HostView> {
        let status = Arc::clone(self);
        Arc::new(move || {
            let mut host = status.host.clone();
            host.downstream = status.downstream();
            let size = status.names.directory().size();
            host.names = NamesView {
                pods: size.live,
                pods_gone: size.dead,
                containers: size.containers,
                sources: status.names.views(),
            };
            host
        })
    }

    /// Where things are sent on to.
    fn downstream(&self) -> Vec<Downstream> {
        let state = self.forward.as_ref().map(ForwardHandle::state);
        let signals = state.into_iter().flat_map(|state| state.signals);
        signals.map(Downstream::from).collect()
    }

    /// For `/readyz`. Whoever is downstream does not count: spans are accepted and kept, and a
    /// restart would lose those.
    #[must_use]
    pub fn readiness_source(self: &Arc<Self>) -> Source<Readiness> {
        let status = Arc::clone(self);
        Arc::new(move || {
            let downstream = status.downstream().into_iter();
            let failing = downstream.filter(|to| !to.reason.is_empty());
            let waiting_for = status.waiting_for.lock();
            Readiness {
                waiting_for: waiting_for.iter().map(|&s| s.to_owned()).collect(),
                degraded: failing
                    .map(|to| format!("{} to {}: {}", to.signal, to.endpoint, to.reason))
                    .collect(),
            }
        })
    }

    /// For `/healthz`: a task that ends takes the process down, so while there is an
    /// answer, all run.
    #[must_use]
    pub fn health_source(&self) -> Source<Health> {
        Arc::new(Health::default)
    }

    /// What a person needs to know at the start.
    pub fn log_start(&self, config: &Config, sensors: &Sensors, forward: Option<&ForwardConfig>) {
        for sensor in &sensors.statuses() {
            let SensorStatus {
                name,
                hook,
                reason,
                loses,
                fix,
                ..
            } = sensor;
            // Not every host has what the others look at (virtual machines, a kernel log).
            let matters = SENSORS.iter().any(|s| s.name == *name && s.core);
            match sensor.state {
                SensorState::On => tracing::info!(sensor = name, %hook, "Sensor on"),
                SensorState::Reduced if matters => {
                    tracing::warn!(sensor = name, %hook, %reason, %loses, "Sensor reduced");
                }
                SensorState::Reduced => {
                    tracing::info!(sensor = name, %hook, %reason, %loses, "Sensor reduced");
                }
                SensorState::Off if matters && config.sensors.wants(name) => {
                    tracing::warn!(sensor = name, %reason, %loses, %fix, "Sensor off");
                }
                SensorState::Off => tracing::info!(sensor = name, %reason, "Sensor off"),
            }
        }
        if let Some(dir) = &config.state_dir
            && let Err(error) = state_file::prepare(dir)
        {
            tracing::warn!(
                directory = %dir.display(), %error,
                "Names, positions in log files and what is usual are not kept over a restart; \
                 give --state-dir a directory that can be written"
            );
        }
        match forward.and_then(|f| f.target(Signal::Traces)) {
            Some(target) => tracing::info!(
                endpoint = %target.endpoint, protocol = target.protocol.as_str(), "Spans are sent on"
            ),
            None => tracing::info!(
                "Spans are analysed and shown here only; --export-endpoint sends them on"
            ),
        }
        let Listeners {
            http,
            otlp_grpc,
            otlp_http,
        } = &self.host.listen;
        tracing::info!(%http, %otlp_grpc, %otlp_http, "Listening");
    }
}

/// For `/api/v1/sensors`.
#[must_use]
pub fn sensors_source(sensors: &Arc<Sensors>) -> Source<Vec<SensorStatus>> {
    let sensors = Arc::clone(sensors);
    Arc::new(move || sensors.statuses())
}

/// For the workload series of `/metrics`.
#[must_use]
pub fn counted_source(sensors: &Arc<Sensors>) -> Source<Counted> {
    let sensors = Arc::clone(sensors);
    Arc::new(move || sensors.counted())
}

/// The layers around who lives in a cgroup.
#[must_use]
pub fn stack_source(identifier: &Arc<Identifier>) -> StackSource {
    let identifier = Arc::clone(identifier);
    Arc::new(move |cgroup_id| identifier.stack_of_cgroup(cgroup_id))
}

/// Names for cgroups.
#[must_use]
pub fn label_source(identifier: &Arc<Identifier>) -> LabelSource {
    let identifier = Arc::clone(identifier);
    Arc::new(move |cgroup_id| identifier.inhabitant_of_cgroup(cgroup_id))
}
