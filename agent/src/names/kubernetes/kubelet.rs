//! The pods of this node from its own kubelet, where the API server does not tell: it is asked
//! only then, or always where no API server is asked at all. A kubelet tells of all pods that it
//! was given, with no watch: it is asked over and over.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::{
    client::{Client, Failure},
    config::{KubernetesConfig, KubernetesError, Trust},
};
use crate::{
    names::state::{Source, SourceState},
    workload::{
        NamesFrom,
        directory::Directory,
        pod::{Pod, PodObject},
    },
};

/// The kubelet is asked this often.
const EVERY: Duration = Duration::from_secs(5);
/// The same after it did not answer, and how long it may be refused.
const AFTER_FAILURE: Duration = Duration::from_secs(15);
/// How often it is seen whether it is needed, and how long the API server has to answer first.
const LOOK: Duration = Duration::from_secs(2);

/// See the module's head.
pub(in crate::names) struct Kubelet {
    client: Client,
    source: Arc<Source>,
    /// How the API server does.
    api: Arc<Source>,
}

#[derive(Deserialize)]
struct PodList {
    /// Null from a kubelet that has none.
    items: Option<Vec<PodObject>>,
}

impl Kubelet {
    pub fn new(
        config: KubernetesConfig,
        source: Arc<Source>,
        api: Arc<Source>,
    ) -> Result<Self, KubernetesError> {
        source.at(config.server.to_string());
        if config.trust == Trust::Anybody {
            tracing::warn!(
                kubelet = %config.server,
                "The kubelet's certificate is not checked (--kubelet-insecure): who has its address gets the token"
            );
        }
        Ok(Self {
            client: Client::new(config)?,
            source,
            api,
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
        if self.api.state() == SourceState::Starting {
            tokio::time::sleep(LOOK).await;
        }
        loop {
            let api = self.api.state();
            if api == SourceState::Live {
                let reason = "the API server answers; asked when it does not";
                self.source.standby(reason.to_owned());
                tokio::time::sleep(LOOK).await;
                continue;
            }
            let pause = match self.pods().await {
                Ok(pods) => {
                    // A kubelet that started without its API server knows none but static pods:
                    // while that server is away, who is missing is not gone.
                    let now = Instant::now();
                    if matches!(api, SourceState::Off | SourceState::Denied) {
                        directory.replace(pods, NamesFrom::Kubelet, now);
                    } else {
                        directory.tell(pods, NamesFrom::Kubelet, now);
                    }
                    self.source.live();
                    EVERY
                }
                Err(Failure::Denied(reason)) => {
                    self.source.denied(reason);
                    AFTER_FAILURE
                }
                Err(Failure::Gone) => {
                    self.source.failing("the kubelet answers 410".to_owned());
                    AFTER_FAILURE
                }
                Err(Failure::Other(reason)) => {
                    self.source.failing(reason);
                    AFTER_FAILURE
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn pods(&self) -> Result<Vec<Pod>, Failure> {
        let list: PodList = self.client.read("/pods").await?;
        let pods = list.items.unwrap_or_default().into_iter();
        Ok(pods
            .filter_map(|object| object.into_pod(NamesFrom::Kubelet))
            .collect())
    }
}
