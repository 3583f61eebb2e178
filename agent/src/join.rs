//! Which process stands behind a resource's spans.
//!
//! What the kernel shows (who holds the other end of the connection) is stronger than what
//! a resource claims. Claims choose among what the kernel allows, or name a container that
//! exists here; they never make a process the sender of what it cannot have sent.

mod allowance;
mod decide;
mod memory;
mod owners;
mod sighting;

use std::{
    fmt,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use self::{
    allowance::Allowance,
    decide::{ContainerIndex, Decision, Question, decide},
    memory::{Answer, Look, SenderState},
    sighting::Sighting,
};
use crate::{
    host::{
        identify::{Identifier, cache::Generations},
        peer::{Peer, PeerFinder},
    },
    otlp::{Connection, ends::Ends},
    process::ProcessKey,
    span::{Joined, ResourceSpans},
    vocabulary::Confidence,
};

/// Limits of the join.
#[derive(Clone, Debug)]
pub struct JoinConfig {
    /// Name of this node, against `k8s.node.name`.
    pub node_name: String,
    /// How long a request waits for the search for its sender's process.
    pub wait: Duration,
    /// How long that search may take.
    pub search_budget: Duration,
}

impl JoinConfig {
    /// The usual limits.
    #[must_use]
    pub fn new(node_name: String) -> Self {
        Self {
            node_name,
            wait: Duration::from_millis(1500),
            search_budget: Duration::from_secs(2),
        }
    }
}

/// Searches that run at the same time; the rest queue.
const PARALLEL_SEARCHES: usize = 4;
/// Senders remembered beyond their connection.
const MAX_RECENT: usize = 4096;

/// Called once for each process that was joined.
type OnJoined = Box<dyn Fn(ProcessKey) + Send + Sync>;

/// What makes a sender the same again on another connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RecentKey {
    address: IpAddr,
    service: String,
    instance_id: String,
    pid: Option<u32>,
}

/// What is joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    /// Their process's kernel events are wanted.
    Spans,
    /// Only whose they are is asked.
    Logs,
}

/// Joins resources to processes; cheap to clone.
#[derive(Clone)]
pub struct Joiner {
    shared: Arc<Shared>,
}

struct Shared {
    identifier: Arc<Identifier>,
    finder: PeerFinder,
    config: JoinConfig,
    containers: ContainerIndex,
    searches: Arc<Semaphore>,
    allowance: Mutex<Allowance>,
    recent: Mutex<Generations<RecentKey, ProcessKey>>,
    announced: Mutex<Generations<ProcessKey, ()>>,
    on_joined: OnJoined,
}

impl fmt::Debug for Joiner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Joiner")
            .field("config", &self.shared.config)
            .finish_non_exhaustive()
    }
}

/// One accepted connection and what was found out about its other end.
#[derive(Debug)]
pub struct Sender {
    connection: Connection,
    /// `None` until the search has ended.
    peer: watch::Receiver<Option<Arc<Sighting>>>,
    state: Arc<Mutex<SenderState>>,
}

/// Which connections a resource's spans name.
type EndsOf<'a> = &'a (dyn Fn(&ResourceSpans) -> Vec<Ends> + Sync);

impl Sender {
    /// The two ends.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Whether the agent itself is known to be at the other end: its downstream leads back
    /// to it.
    #[must_use]
    pub fn is_agent(&self) -> bool {
        let later = self.state.lock().heirs().0;
        let is_agent = |sighting: &Arc<Sighting>| sighting.is_agent;
        self.peer.borrow().as_ref().is_some_and(is_agent) || later.as_ref().is_some_and(is_agent)
    }
}

impl Joiner {
    /// `on_joined` is called with each process when it is first joined (again, if very many
    /// others were meanwhile): its kernel events are wanted in detail from then on. It must
    /// not block.
    pub fn new(
        identifier: Arc<Identifier>,
        config: JoinConfig,
        on_joined: impl Fn(ProcessKey) + Send + Sync + 'static,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                finder: PeerFinder::new(identifier.roots().clone(), config.search_budget),
                identifier,
                config,
                containers: ContainerIndex::default(),
                searches: Arc::new(Semaphore::new(PARALLEL_SEARCHES)),
                allowance: Mutex::new(Allowance::new(Instant::now())),
                recent: Mutex::new(Generations::new(MAX_RECENT)),
                announced: Mutex::new(Generations::new(MAX_RECENT)),
                on_joined: Box::new(on_joined),
            }),
        }
    }

    /// Starts the search for the process at the other end. Does not block; must be called
    /// inside a tokio runtime.
    #[must_use]
    pub fn connected(&self, connection: Connection) -> Arc<Sender> {
        let (found, peer) = watch::channel(None);
        self.search(connection.clone(), found);
        Arc::new(Sender {
            connection,
            peer,
            state: Arc::default(),
        })
    }

    fn search(&self, connection: Connection, found: watch::Sender<Option<Arc<Sighting>>>) {
        let shared = self.shared.clone();
        tokio::spawn(async move {
            let Ok(permit) = shared.searches.clone().acquire_owned().await else {
                return; // the semaphore is never closed
            };
            // The sender is gone and nobody waits: no need to look.
            while !found.is_closed() {
                let wait = shared.allowance.lock().wait(Instant::now());
                if wait.is_zero() {
                    break;
                }
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = found.closed() => {}
                }
            }
            if found.is_closed() {
                return;
            }
            let search = tokio::task::spawn_blocking(move || {
                let sighting = shared.look(&connection);
                drop(permit);
                sighting
            });
            let sighting = search.await.unwrap_or(Sighting::nothing());
            found.send_replace(Some(Arc::new(sighting)));
        });
    }

    /// Fills in the process behind each of the resources that came over this connection.
    /// Waits for the search at most [`JoinConfig::wait`], however many there are; a resource
    /// (the same `Arc`) that came before is answered from memory. `ends` says which connections
    /// a resource's spans name; it is asked only of those that are not.
    pub async fn join(&self, sender: &Sender, resources: &mut [ResourceSpans], ends: EndsOf<'_>) {
        self.join_those(Of::Spans, sender, resources, ends).await;
    }

    async fn join_those(
        &self,
        of: Of,
        sender: &Sender,
        resources: &mut [ResourceSpans],
        ends: EndsOf<'_>,
    ) {
        let identifier = &self.shared.identifier;
        let (open, services) = sender
            .state
            .lock()
            .answer_known(of, resources, identifier, ends);
        if open.is_empty() {
            return;
        }
        let (sighting, settled) = self.sighting(sender).await;
        let (sighting, as_of) = self.holding(sender, sighting).await;
        let ask = |index: &usize| Question {
            connection: sender.connection.clone(),
            resource: resources[*index].resource.clone(),
            sighting: sighting.clone(),
            several_services: services > 1,
            ends: ends(&resources[*index]),
        };
        let questions: Vec<Question> = open.iter().map(ask).collect();
        let named: Vec<bool> = questions.iter().map(|q| !q.ends.is_empty()).collect();
        let shared = self.shared.clone();
        let answers = tokio::task::spawn_blocking(move || {
            let answers = questions.into_iter().map(|mut question| {
                question.sighting = question.sighting.now(&shared.identifier);
                let joined = shared.answer(of, &question);
                let process = joined.identity.as_ref().map(|identity| identity.process);
                let looked = process.and_then(|key| shared.identifier.known(key));
                (joined, looked)
            });
            answers.collect::<Vec<_>>()
        });
        let answers = answers.await.unwrap_or_default();
        let mut state = sender.state.lock();
        for ((index, is_named), (joined, looked)) in open.into_iter().zip(named).zip(answers) {
            let spans = &mut resources[index];
            if settled {
                let answer = Answer {
                    resource: spans.resource.clone(),
                    joined: joined.clone(),
                    looked,
                    is_named,
                    at: Instant::now(),
                    services,
                    of,
                };
                state.remember(answer, as_of);
            }
            spans.joined = joined;
        }
    }

    /// Who holds the connection by now, where first `sighting` did, and as of which change. Sees to
    /// whether that is somebody else from time to time. Who was never found is searched for beside
    /// the requests, which are joined meanwhile as those of an unknown one are; for who inherited a
    /// connection the request waits, as else its spans would be told of a process that has ended.
    async fn holding(&self, sender: &Sender, sighting: Arc<Sighting>) -> (Arc<Sighting>, u64) {
        let (heirs, as_of) = sender.state.lock().heirs();
        let sighting = heirs.unwrap_or(sighting);
        if !sender.state.lock().is_look_due(Instant::now()) {
            return (sighting, as_of);
        }
        let (shared, state) = (self.shared.clone(), sender.state.clone());
        let (connection, before) = (sender.connection.clone(), sighting.clone());
        let look = tokio::task::spawn_blocking(move || {
            let look = shared.look_again(&connection, &before);
            state.lock().looked(look, Instant::now());
        });
        if sighting.peer == Peer::Vanished {
            return (sighting, as_of);
        }
        // Too late is as good as nobody.
        let _ = tokio::time::timeout(self.shared.config.wait, look).await;
        let (heirs, as_of) = sender.state.lock().heirs();
        (heirs.unwrap_or(sighting), as_of)
    }

    /// Waits, as [`Joiner::join`] does, until it is known who the sender is; for requests
    /// that are not joined.
    pub async fn look_at(&self, sender: &Sender) {
        self.sighting(sender).await;
    }

    /// What the search found, and whether it has ended.
    async fn sighting(&self, sender: &Sender) -> (Arc<Sighting>, bool) {
        if let Some(found) = &*sender.peer.borrow() {
            return (found.clone(), true);
        }
        let mut peer = sender.peer.clone();
        let found = tokio::time::timeout(self.shared.config.wait, peer.wait_for(Option::is_some));
        let found = match found.await {
            Ok(Ok(found)) => found.clone(),
            // The search was given up, or takes too long.
            Ok(Err(_)) | Err(_) => None,
        };
        match found {
            Some(sighting) => (sighting, true),
            None => (Arc::new(Sighting::nothing()), false),
        }
    }
}

/// Processor time of this thread.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.try_into().unwrap_or_default()
}

impl Shared {
    /// Who holds a connection whose processes have all ended, or whose process was not found in
    /// time, if anybody does: it sends all the same. Blocks on reads of `/proc`.
    fn look_again(&self, connection: &Connection, before: &Sighting) -> Look {
        let is_unknown = before.peer == Peer::Vanished;
        if !is_unknown && !before.has_ended(&self.identifier) {
            return Look::None;
        }
        // Those who connect come first, and none of this is urgent.
        let Ok(_permit) = self.searches.clone().try_acquire_owned() else {
            return Look::None;
        };
        if !self.allowance.lock().wait(Instant::now()).is_zero() {
            return Look::None;
        }
        let sighting = self.look(connection);
        // That it comes from elsewhere is an answer too, where not all was looked at before.
        let is_told = !sighting.holders.is_empty() || is_unknown && sighting.peer == Peer::Remote;
        match is_told {
            true => Look::Found(Arc::new(sighting)),
            false => Look::Nobody,
        }
    }

    /// One search, at the expense of all.
    fn look(&self, connection: &Connection) -> Sighting {
        let before = processor_time();
        let peer = self.finder.find(connection);
        tracing::debug!(?peer, "Looked for a sender's process");
        let sighting = Sighting::new(&self.identifier, peer);
        let spent = processor_time().saturating_sub(before);
        self.allowance.lock().spent(spent);
        sighting
    }

    /// Whether it was not announced yet, or not lately; it is from now on.
    fn is_new(&self, process: ProcessKey) -> bool {
        let mut announced = self.announced.lock();
        let new = announced.get(&process).is_none();
        announced.insert(process, ());
        new
    }

    /// Blocks on reads of `/proc`.
    fn answer(&self, of: Of, question: &Question) -> Joined {
        let recent_key = question.address().map(|address| RecentKey {
            address,
            service: question.resource.service.clone(),
            instance_id: question.resource.instance_id.clone(),
            pid: question.resource.pid,
        });
        let recent = recent_key
            .as_ref()
            .and_then(|key| self.recent.lock().get(key));
        let Decision {
            identity,
            confidence,
        } = decide(
            &self.identifier,
            &self.containers,
            &self.config.node_name,
            question,
            recent,
            &|wanted| {
                // A flood of spans must not turn into a flood of reads either.
                if wanted.is_empty() || !self.allowance.lock().wait(Instant::now()).is_zero() {
                    return Vec::new();
                }
                let before = processor_time();
                let holders = self.finder.holders_of(wanted);
                let spent = processor_time().saturating_sub(before);
                tracing::debug!(?wanted, ?holders, ?spent, "Looked for connections of spans");
                self.allowance.lock().spent(spent);
                holders
            },
        );
        if let Some(identity) = &identity
            && matches!(confidence, Confidence::Process | Confidence::Socket)
        {
            let key = identity.process;
            if let Some(recent_key) = recent_key.filter(|_| confidence == Confidence::Process) {
                self.recent.lock().insert(recent_key, key);
            }
            if of == Of::Spans && self.is_new(key) {
                (self.on_joined)(key);
            }
        }
        Joined {
            identity,
            confidence,
        }
    }
}

#[cfg(test)]
mod tests;
