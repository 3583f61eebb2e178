//! How a source of names does, for people; said in the log once when it changes.

use parking_lot::Mutex;
use serde::Serialize;

/// How a source of names does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceState {
    /// Nothing was heard yet.
    Starting,
    /// What it says is up to date.
    Live,
    /// It does not answer, or not as it should; what was known stays.
    Failing,
    /// It refuses to tell.
    Denied,
    /// It is asked when a better one does not answer.
    Standby,
    /// It is not asked.
    Off,
}

/// A source, as `/api/v1/host` shows it.
#[derive(Clone, Debug, Serialize)]
pub struct SourceView {
    /// `cache`, `api`, `kubelet`, `cri`.
    pub source: &'static str,
    /// See [`SourceState`].
    pub state: SourceState,
    /// Why it is not live, and what would help; empty when it is.
    pub reason: String,
    /// Where it is; empty when it is nowhere.
    pub endpoint: String,
}

#[derive(Debug)]
pub(super) struct Source {
    name: &'static str,
    inner: Mutex<(SourceState, String, String)>,
}

impl Source {
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            inner: Mutex::new((SourceState::Starting, String::new(), String::new())),
        }
    }

    pub fn at(&self, endpoint: String) {
        self.inner.lock().2 = endpoint;
    }

    pub fn live(&self) {
        if self.change(SourceState::Live, String::new()) {
            tracing::info!(source = self.name, "Names of workloads are up to date");
        }
    }

    pub fn failing(&self, reason: String) {
        if self.change(SourceState::Failing, reason.clone()) {
            tracing::warn!(
                source = self.name,
                %reason,
                "Names of workloads are not up to date: those known stay, new ones are missing"
            );
        }
    }

    /// Of the file that names are kept in.
    pub fn kept(&self) {
        if self.change(SourceState::Live, String::new()) {
            tracing::info!(
                source = self.name,
                "Names of workloads are kept over a restart"
            );
        }
    }

    /// Of the file that names are kept in.
    pub fn not_kept(&self, reason: String) {
        if self.change(SourceState::Failing, reason.clone()) {
            tracing::warn!(
                source = self.name,
                %reason,
                "Names of workloads are not kept over a restart"
            );
        }
    }

    pub fn denied(&self, reason: String) {
        if self.change(SourceState::Denied, reason.clone()) {
            tracing::warn!(
                source = self.name,
                %reason,
                "Names of workloads are refused: pods are shown by the node's own files, or by id"
            );
        }
    }

    pub fn off(&self, reason: String) {
        if self.change(SourceState::Off, reason.clone()) {
            tracing::info!(source = self.name, %reason, "Not asked for names of workloads");
        }
    }

    pub fn standby(&self, reason: String) {
        if self.change(SourceState::Standby, reason.clone()) {
            tracing::info!(source = self.name, %reason, "Not asked for names of workloads at present");
        }
    }

    pub fn state(&self) -> SourceState {
        self.inner.lock().0
    }

    pub fn view(&self) -> SourceView {
        let inner = self.inner.lock();
        SourceView {
            source: self.name,
            state: inner.0,
            reason: inner.1.clone(),
            endpoint: inner.2.clone(),
        }
    }

    /// Whether the state is another one now; a new reason alone is not said again.
    fn change(&self, state: SourceState, reason: String) -> bool {
        let mut inner = self.inner.lock();
        let changed = inner.0 != state;
        inner.0 = state;
        inner.1 = reason;
        changed
    }
}
