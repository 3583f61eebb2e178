//! The containers of this node, from the container runtime (containerd, CRI-O) by the container
//! runtime interface: right also where there is no Kubernetes API to ask. Only lists are asked
//! for.

mod proto;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    io::ErrorKind,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    transport::{Channel, Endpoint, Uri},
};
use tonic_prost::ProstCodec;

use self::proto::{
    ListContainersRequest, ListContainersResponse, ListPodSandboxRequest, ListPodSandboxResponse,
};
use super::state::Source;
use crate::workload::{
    NamesFrom,
    directory::Directory,
    pod::{Pod, PodContainer, select_labels},
};

/// The runtime is asked this often.
const EVERY: Duration = Duration::from_secs(5);
/// The same after it did not answer.
const AFTER_FAILURE: Duration = Duration::from_secs(15);
/// An answer has to be there within this time.
const ANSWER: Duration = Duration::from_secs(10);
/// Most bytes of an answer.
const MAX_ANSWER: usize = 16 << 20;
/// Where runtimes listen.
const USUAL: &[&str] = &[
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/var/run/cri-dockerd.sock",
];

/// The runtime to ask.
#[derive(Clone, Debug)]
pub struct CriConfig {
    /// Its socket.
    pub socket: PathBuf,
    /// Whether somebody asked for it, or it was found.
    pub asked_for: bool,
}

impl CriConfig {
    /// From the setting: `off`, a socket, or nothing for the first of the usual ones that is
    /// there. `Err` says why there is nobody to ask.
    ///
    /// # Errors
    /// See above; nothing is wrong then.
    pub fn new(endpoint: Option<&str>) -> Result<Self, String> {
        let socket = match endpoint {
            Some("off") => return Err("--cri-endpoint off".to_owned()),
            Some(given) => PathBuf::from(
                given
                    .strip_prefix("unix://")
                    .or_else(|| given.strip_prefix("unix:"))
                    .unwrap_or(given),
            ),
            None => USUAL
                .iter()
                .map(PathBuf::from)
                .find(|path| path.exists())
                .ok_or("no containerd or CRI-O listens here; --cri-endpoint names a socket")?,
        };
        Ok(Self {
            socket,
            asked_for: endpoint.is_some(),
        })
    }
}

/// See the module's head.
pub(super) struct Cri {
    config: CriConfig,
    source: Arc<Source>,
}

impl Cri {
    pub fn new(config: CriConfig, source: Arc<Source>) -> Self {
        source.at(format!("unix:{}", config.socket.display()));
        Self { config, source }
    }

    /// Keeps the directory up to date until the agent stops, or the runtime says that it
    /// cannot tell.
    pub async fn follow(self, directory: Arc<Directory>, stop: CancellationToken) {
        tokio::select! {
            () = self.follow_for_ever(&directory) => {}
            () = stop.cancelled() => {}
        }
    }

    async fn follow_for_ever(&self, directory: &Directory) {
        let socket = &self.config.socket;
        // The socket is root's. An agent that is not has the engine's files to go by.
        if !self.config.asked_for
            && let Err(error) = UnixStream::connect(socket).await
            && error.kind() == ErrorKind::PermissionDenied
        {
            self.source.off(format!(
                "{}: {error}; --cri-endpoint names another socket",
                socket.display()
            ));
            return;
        }
        let channel = channel(socket.clone());
        loop {
            let pause = match pods(&channel).await {
                Ok(pods) => {
                    directory.replace(pods, NamesFrom::Cri, Instant::now());
                    self.source.live();
                    EVERY
                }
                Err(status) if status.code() == Code::Unimplemented => {
                    self.source.off(format!(
                        "{} serves no container runtime interface, v1",
                        self.config.socket.display()
                    ));
                    return;
                }
                Err(status) => {
                    self.source.failing(reason(&self.config, &status));
                    AFTER_FAILURE
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}

fn reason(config: &CriConfig, status: &Status) -> String {
    let mut text = format!("{}: {}", config.socket.display(), status.message());
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Connects at the first request, and again when the runtime was restarted.
fn channel(socket: PathBuf) -> Channel {
    // The address is never used: the connector knows the way.
    let endpoint = Endpoint::from_static("http://cri");
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move {
            let stream = UnixStream::connect(socket).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    endpoint
        .timeout(ANSWER)
        .connect_timeout(ANSWER)
        .connect_with_connector_lazy(connect)
}

async fn call<Q, A>(channel: &Channel, method: &'static str, question: Q) -> Result<A, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = Grpc::new(channel.clone()).max_decoding_message_size(MAX_ANSWER);
    grpc.ready()
        .await
        .map_err(|error| Status::from_error(error.into()))?;
    let method = PathAndQuery::from_static(method);
    let codec = ProstCodec::<Q, A>::default();
    let answer = grpc.unary(Request::new(question), method, codec).await?;
    Ok(answer.into_inner())
}

async fn pods(channel: &Channel) -> Result<Vec<Pod>, Status> {
    let containers: ListContainersResponse = call(
        channel,
        "/runtime.v1.RuntimeService/ListContainers",
        ListContainersRequest {},
    )
    .await?;
    // Asked for second: a container's pod is then among them, unless it was taken away.
    let sandboxes: ListPodSandboxResponse = call(
        channel,
        "/runtime.v1.RuntimeService/ListPodSandbox",
        ListPodSandboxRequest {},
    )
    .await?;
    Ok(assemble(sandboxes, containers))
}

/// One pod for each uid: it has several sandboxes when its first one was lost.
fn assemble(sandboxes: ListPodSandboxResponse, containers: ListContainersResponse) -> Vec<Pod> {
    let mut pods: HashMap<String, Pod> = HashMap::new();
    let mut uids = HashMap::new();
    for sandbox in sandboxes.items {
        let Some(metadata) = sandbox.metadata else {
            continue;
        };
        uids.insert(sandbox.id.clone(), metadata.uid.clone());
        let labels: BTreeMap<_, _> = sandbox.labels.into_iter().collect();
        let pod = pods.entry(metadata.uid.clone()).or_insert_with(|| Pod {
            uid: metadata.uid,
            namespace: metadata.namespace,
            name: metadata.name,
            labels: select_labels(&labels),
            ..Pod::default()
        });
        pod.containers.push(PodContainer {
            id: sandbox.id,
            name: String::new(),
        });
    }
    for container in containers.containers {
        let uid = uids.get(&container.pod_sandbox_id);
        if let (Some(pod), Some(metadata)) =
            (uid.and_then(|uid| pods.get_mut(uid)), container.metadata)
        {
            pod.containers.push(PodContainer {
                id: container.id,
                name: metadata.name,
            });
        }
    }
    pods.into_values().filter_map(Pod::bounded).collect()
}
