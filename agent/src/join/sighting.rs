//! What was seen at the other end of a connection, kept while the sender was alive: a batch
//! may be joined after its sender ended.

use std::sync::Arc;

use crate::{
    host::{
        identify::Identifier,
        peer::Peer,
        proc::{self, ProcDir, Stat},
    },
    process::{ProcessKey, SharedIdentity},
};

/// The result of a search.
#[derive(Debug)]
pub(super) struct Sighting {
    pub peer: Peer,
    /// Those of a local peer's processes that could still be looked at.
    pub holders: Vec<Holder>,
    /// The agent itself is among the local peer's processes.
    pub is_agent: bool,
}

/// A process that holds the connection.
#[derive(Clone, Debug)]
pub(super) struct Holder {
    pub identity: SharedIdentity,
    /// Its pid in its own pid namespace.
    pub inner_pid: Option<u32>,
    pub pid_namespace: Option<u64>,
    /// Target of its `exe` link.
    pub exe: String,
}

impl Sighting {
    /// Looks at the processes of a search's result.
    pub fn new(identifier: &Identifier, peer: Peer) -> Self {
        let keys = match &peer {
            Peer::Local(keys) => &keys[..],
            Peer::Vanished | Peer::Remote => &[],
        };
        let agent = proc::own_pid(identifier.roots());
        Self {
            holders: keys
                .iter()
                .filter_map(|key| Holder::look(identifier, *key))
                .collect(),
            is_agent: keys.iter().any(|key| Some(key.pid) == agent),
            peer,
        }
    }

    /// The same with what its processes are now: one may run another program by now, or be in
    /// another cgroup. What is gone stays what it was.
    pub fn now(self: &Arc<Self>, identifier: &Identifier) -> Arc<Self> {
        let now = |holder: &Holder| {
            let identity = identifier.identify_key(holder.identity.process)?;
            let same = Arc::ptr_eq(&identity, &holder.identity);
            (!same).then(|| Holder::look(identifier, identity.process))?
        };
        let changed: Vec<Option<Holder>> = self.holders.iter().map(now).collect();
        if changed.iter().all(Option::is_none) {
            return Arc::clone(self);
        }
        let holders = changed.into_iter().zip(&self.holders);
        Arc::new(Self {
            peer: self.peer.clone(),
            holders: holders
                .map(|(changed, known)| changed.unwrap_or_else(|| known.clone()))
                .collect(),
            is_agent: self.is_agent,
        })
    }

    /// Whether all of its processes have ended: then others may have inherited the connection.
    pub fn has_ended(&self, identifier: &Identifier) -> bool {
        let lives = |holder: &Holder| {
            let key = holder.identity.process;
            let dir = ProcDir::new(identifier.roots(), key.pid);
            // One that nobody has waited for yet has no descriptors any more.
            let lives = |stat: Stat| stat.key(key.pid) == key && !matches!(stat.state, 'Z' | 'X');
            dir.stat().is_ok_and(lives)
        };
        !self.holders.is_empty() && !self.holders.iter().any(lives)
    }

    /// Nothing is known.
    pub const fn nothing() -> Self {
        Self {
            peer: Peer::Vanished,
            holders: Vec::new(),
            is_agent: false,
        }
    }
}

impl Holder {
    /// `None` when the process is gone.
    pub fn look(identifier: &Identifier, key: ProcessKey) -> Option<Self> {
        let dir = ProcDir::new(identifier.roots(), key.pid);
        let holder = Self {
            identity: identifier.identify_key(key)?,
            inner_pid: dir.status().ok()?.ns_pids.last().copied(),
            pid_namespace: dir.namespace("pid"),
            exe: dir.exe().unwrap_or_default(),
        };
        // All of it is of this process only if the pid still is.
        (dir.key().ok()? == key).then_some(holder)
    }
}
