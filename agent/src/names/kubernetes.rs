//! The pods of this node, from the Kubernetes API: a list, then a watch from there, over and
//! over. Only `list` and `watch` on pods are asked for. Or, where the API does not tell, from the
//! node's kubelet ([`Kubelet`]).
//!
//! Written on the HTTP client that the agent has anyway: the `kube` crate would bring some
//! sixty more crates into a privileged daemon for two GET requests.

mod api;
mod client;
mod config;
mod event;
mod kubelet;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

pub use self::config::{KubernetesConfig, KubernetesError};
pub(super) use self::kubelet::Kubelet;
use self::{api::Api, client::Failure, event::WatchEvent};
use super::state::Source;
use crate::workload::{NamesFrom, directory::Directory};

/// First wait after a failure; doubled with each more.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest wait after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// See the module's head.
pub(super) struct Kubernetes {
    api: Api,
    source: Arc<Source>,
}

impl Kubernetes {
    pub fn new(
        config: KubernetesConfig,
        node: &str,
        source: Arc<Source>,
    ) -> Result<Self, KubernetesError> {
        source.at(config.server.to_string());
        Ok(Self {
            api: Api::new(config, node)?,
            source,
        })
    }

    /// Keeps the directory up to date until the agent stops.
    pub async fn follow(self, directory: Arc<Directory>, stop: CancellationToken) {
        tokio::select! {
            () = self.follow_for_ever(&directory) => {}
            () = stop.cancelled() => {}
        }
    }

    async fn follow_for_ever(&self, directory: &Directory) {
        let mut pause = FIRST_PAUSE;
        // Where the last watch ended; none: a list is due.
        let mut position: Option<String> = None;
        let mut latest_wanted = false;
        loop {
            let began = Instant::now();
            let ended = self.session(directory, &mut position, latest_wanted).await;
            if began.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            match ended {
                // The server's own end of a watch; one at once, again and again, is none.
                Ok(()) if began.elapsed() > LONGEST_PAUSE => continue,
                Ok(()) => {}
                Err(Failure::Gone) => {
                    // The history was thrown away: that is no fault, but it must not spin.
                    tracing::debug!("The API server forgot the position: pods are listed anew");
                    position = None;
                    latest_wanted = true;
                }
                Err(Failure::Denied(reason)) => {
                    self.source.denied(reason);
                    directory.fell_silent(NamesFrom::Api);
                }
                Err(Failure::Other(reason)) => self.source.failing(reason),
            }
            let jitter = pause.mul_f64(rand::random::<f64>() / 2.0);
            tokio::time::sleep(pause + jitter).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// A list if one is due, and one watch to its end.
    async fn session(
        &self,
        directory: &Directory,
        position: &mut Option<String>,
        latest: bool,
    ) -> Result<(), Failure> {
        let from = match position.as_ref() {
            Some(position) => position.clone(),
            None => {
                let list = self.api.list(latest).await?;
                let pods = list.pods.into_iter();
                let pods = pods.filter_map(|object| object.into_pod(NamesFrom::Api));
                directory.replace(pods.collect(), NamesFrom::Api, Instant::now());
                *position = Some(list.version.clone());
                list.version
            }
        };
        let mut watch = self.api.watch(&from).await?;
        self.source.live();
        while let Some(event) = watch.next().await? {
            if let Some(version) = event.version() {
                *position = Some(version.to_owned());
            }
            match event {
                WatchEvent::Present(object) => {
                    if let Some(pod) = object.into_pod(NamesFrom::Api) {
                        directory.tell(vec![pod], NamesFrom::Api, Instant::now());
                    }
                }
                WatchEvent::Deleted(object) => {
                    // Its last state may hold containers that no earlier one did.
                    if let Some(pod) = object.into_pod(NamesFrom::Api) {
                        // By its own uid: a mirror takes nobody along but whom it was taken for.
                        let uid = match pod.mirror_uid.is_empty() {
                            true => pod.uid.clone(),
                            false => pod.mirror_uid.clone(),
                        };
                        directory.apply(pod, NamesFrom::Api);
                        directory.remove(&uid, Instant::now());
                    }
                }
                WatchEvent::Bookmark(_) => directory.forget(Instant::now()),
            }
        }
        Ok(())
    }
}
