//! Asks for names: of pods and containers, from those who run them. Each source is a task that
//! writes into the [`Directory`]; none is needed, and none takes the agent down. What was
//! learned is kept on disk, so that names are there before the API is.

mod cache;
mod cri;
mod kubernetes;
mod state;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::{
    cache::Cache,
    cri::Cri,
    kubernetes::{Kubelet, Kubernetes},
    state::Source,
};
pub use self::{
    cri::CriConfig,
    kubernetes::{KubernetesConfig, KubernetesError},
    state::{SourceState, SourceView},
};
use crate::{metrics::AgentMetrics, workload::directory::Directory};

/// Whom to ask.
#[derive(Clone, Debug)]
pub struct NamesConfig {
    /// Name of this node, as Kubernetes has it.
    pub node: String,
    /// The API server; `Err` says why there is none to ask.
    pub kubernetes: Result<KubernetesConfig, String>,
    /// The node's kubelet, where the API server does not tell; `Err` says why it is not asked.
    pub kubelet: Result<KubernetesConfig, String>,
    /// The container runtime; `Err` says why none is asked.
    pub cri: Result<CriConfig, String>,
    /// Where names are kept over a restart.
    pub state_dir: Option<PathBuf>,
}

/// The running sources. Dropping it stops them.
pub struct Names {
    sources: Vec<Arc<Source>>,
    directory: Arc<Directory>,
    stop: CancellationToken,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    /// Pods not taken, as far as they are counted.
    refused: AtomicU64,
}

impl Names {
    /// Starts the sources; must be called in a tokio runtime.
    ///
    /// # Errors
    /// Kubernetes was asked for by hand and the settings cannot be used.
    pub fn start(config: NamesConfig, directory: &Arc<Directory>) -> Result<Self, KubernetesError> {
        let stop = CancellationToken::new();
        let mut names = Self {
            sources: Vec::new(),
            directory: Arc::clone(directory),
            stop: stop.clone(),
            tasks: Mutex::default(),
            refused: AtomicU64::new(0),
        };
        if let Some(dir) = &config.state_dir {
            let cache = Cache::new(dir, &config.node, names.source("cache"));
            cache.load(directory);
            names.spawn(cache.keep(Arc::clone(directory), stop.clone()));
        }
        let api = names.source("api");
        match config.kubernetes {
            Ok(kubernetes) => {
                let kubernetes = Kubernetes::new(kubernetes, &config.node, Arc::clone(&api))?;
                names.spawn(kubernetes.follow(Arc::clone(directory), stop.clone()));
            }
            Err(reason) => api.off(reason),
        }
        let source = names.source("kubelet");
        match config.kubelet {
            Ok(kubelet) => {
                let kubelet = Kubelet::new(kubelet, source, api)?;
                names.spawn(kubelet.follow(Arc::clone(directory), stop.clone()));
            }
            Err(reason) => source.off(reason),
        }
        let source = names.source("cri");
        match config.cri {
            Ok(cri) => {
                let cri = Cri::new(cri, source);
                names.spawn(cri.follow(Arc::clone(directory), stop));
            }
            Err(reason) => source.off(reason),
        }
        Ok(names)
    }

    /// How each source does.
    #[must_use]
    pub fn views(&self) -> Vec<SourceView> {
        self.sources.iter().map(|source| source.view()).collect()
    }

    /// How much is known.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Brings the agent's own counters up to date.
    pub fn observe(&self, metrics: &AgentMetrics) {
        let size = self.directory.size();
        metrics
            .named_pods
            .set(i64::try_from(size.live + size.dead).unwrap_or(i64::MAX));
        let counted = self.refused.swap(size.refused, Relaxed);
        metrics
            .named_pods_refused
            .inc_by(size.refused.saturating_sub(counted));
    }

    /// Ends the tasks; the last names are written.
    pub async fn stop(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "A source of names did not end well");
            }
        }
    }

    fn source(&mut self, name: &'static str) -> Arc<Source> {
        let source = Arc::new(Source::new(name));
        self.sources.push(Arc::clone(&source));
        source
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().push(tokio::spawn(task));
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
