//! The process at the other end of an accepted connection, on the same host: found in the
//! socket tables of the network namespaces and among the descriptors of their processes.
//! Needs no namespace switch, only to read `/proc/PID/{net,fd}` of others (CAP_SYS_PTRACE).
//!
//! Blocks on file reads: call it from a thread that may block.

mod addresses;
mod diag;
mod namespaces;
mod own_socket;
mod tcp_table;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

pub use self::own_socket::SocketEnds;
use self::{
    namespaces::{Namespace, Namespaces},
    tcp_table::{Match, find},
};
use crate::{
    host::{
        identify::cache::Generations,
        proc::{self, ProcDir},
        roots::Roots,
    },
    otlp::Connection,
    process::ProcessKey,
};

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process of this host; several when they share the socket (forked workers), lowest
    /// pid first. Never empty.
    Local(Vec<ProcessKey>),
    /// The connection comes from this host, but its process could not be found: it went
    /// away, or may not be looked at. Or the time was over before all was looked at; then it
    /// may come from elsewhere too.
    Vanished,
    /// No socket of this host: another machine, or an address translated on the way.
    Remote,
}

/// Addresses whose processes are remembered.
const MAX_HINTS: usize = 4096;
/// Processes remembered for one address.
const MAX_PIDS_PER_HINT: usize = 16;

/// Finds peers; thread-safe, with bounded caches.
#[derive(Debug)]
pub struct PeerFinder {
    roots: Roots,
    namespaces: Namespaces,
    /// Pids that were last found behind an address, to be tried first.
    hints: Mutex<Generations<IpAddr, Vec<u32>>>,
    budget: Duration,
}

impl PeerFinder {
    /// `budget` bounds the time of one search.
    #[must_use]
    pub fn new(roots: Roots, budget: Duration) -> Self {
        Self {
            namespaces: Namespaces::new(roots.clone()),
            roots,
            hints: Mutex::new(Generations::new(MAX_HINTS)),
            budget,
        }
    }

    /// Finds the process at the other end.
    #[must_use]
    pub fn find(&self, connection: &Connection) -> Peer {
        match connection {
            Connection::Unix { pid } => self.unix(*pid),
            Connection::Tcp { local, peer } => self.tcp(canonical(*local), canonical(*peer)),
        }
    }

    /// `SO_PEERCRED` numbers the pid as the agent's pid namespace does, which may be another
    /// one than that of the proc file system read.
    fn unix(&self, pid: u32) -> Peer {
        if pid == 0 {
            return Peer::Vanished;
        }
        let own = std::process::id();
        let seen_as = proc::own_pid(&self.roots);
        let host_pid = if seen_as.is_none_or(|seen| seen == own) {
            Some(pid)
        } else {
            let namespace =
                seen_as.and_then(|seen| ProcDir::new(&self.roots, seen).namespace("pid"));
            proc::pids(&self.roots).into_iter().find(|candidate| {
                let dir = ProcDir::new(&self.roots, *candidate);
                dir.namespace("pid") == namespace
                    && dir.status().is_ok_and(|s| s.ns_pids.last() == Some(&pid))
            })
        };
        match host_pid.map(|pid| ProcDir::new(&self.roots, pid).key()) {
            Some(Ok(key)) => Peer::Local(vec![key]),
            _ => Peer::Vanished,
        }
    }

    fn tcp(&self, local: SocketAddr, peer: SocketAddr) -> Peer {
        let start = Instant::now();
        let deadline = start + self.budget;
        // The last list usually has the sender; if not, it may be younger than the list.
        let found = self
            .namespaces
            .known()
            .and_then(|list| self.in_list(&list, local, peer, deadline));
        if let Some(found @ Peer::Local(_)) = found {
            return found;
        }
        let list = self.namespaces.list(start, deadline);
        self.in_list(&list, local, peer, deadline)
            .unwrap_or_else(|| match Instant::now() < deadline {
                true => self.without_socket(local.ip(), peer.ip()),
                // Not all was looked at: that it comes from elsewhere is not known.
                false => Peer::Vanished,
            })
    }

    /// No such socket (any more): from here all the same, if the address is.
    fn without_socket(&self, local: IpAddr, peer: IpAddr) -> Peer {
        let hinted = self.hints.lock().get(&peer).unwrap_or_default();
        let seen_here = hinted
            .iter()
            .any(|pid| ProcDir::new(&self.roots, *pid).stat().is_ok());
        if peer.is_loopback() || peer == local || seen_here {
            Peer::Vanished
        } else {
            Peer::Remote
        }
    }

    /// `None` when none of these namespaces has the sender's socket.
    fn in_list(
        &self,
        list: &[Namespace],
        local: SocketAddr,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Option<Peer> {
        let (socket, namespace) = self.socket(list, local, peer, deadline)?;
        let holders = self.holders(socket.inode, namespace, peer.ip(), deadline);
        if holders.is_empty() {
            return Some(Peer::Vanished);
        }
        let pids = holders.iter().map(|key| key.pid);
        let pids = pids.take(MAX_PIDS_PER_HINT).collect();
        self.hints.lock().insert(peer.ip(), pids);
        Some(Peer::Local(holders))
    }

    /// The sender's socket and the network namespace it is in.
    fn socket<'a>(
        &self,
        list: &'a [Namespace],
        local: SocketAddr,
        peer: SocketAddr,
        deadline: Instant,
    ) -> Option<(Match, &'a Namespace)> {
        let own = self.namespaces.own();
        let hinted = self.hints.lock().get(&peer.ip()).unwrap_or_default();
        // Loopback addresses mean something else in every namespace: only the agent's own.
        let mut order: Vec<&Namespace> = list
            .iter()
            .filter(|ns| Some(ns.inode) == own || !peer.ip().is_loopback())
            .collect();
        order.sort_by_key(|ns| {
            let known = ns.pids.iter().any(|pid| hinted.contains(pid));
            (!known, Some(ns.inode) != own)
        });
        let mut translated = Vec::new();
        for namespace in order {
            if Instant::now() >= deadline {
                return None;
            }
            if Some(namespace.inode) == own
                && proc::is_live(&self.roots)
                && let Ok(Some(inode)) = diag::inode(peer, local)
            {
                return Some((Match { inode, exact: true }, namespace));
            }
            let mut processes = namespace
                .pids
                .iter()
                .take(3)
                .map(|pid| ProcDir::new(&self.roots, *pid))
                .filter(|process| addresses::may_have(process, peer.ip()));
            let Some(found) = processes.find_map(|process| find(&process, local, peer).ok()) else {
                continue;
            };
            for socket in found {
                if socket.exact {
                    return Some((socket, namespace));
                }
                translated.push((socket, namespace));
            }
        }
        // The sender may have connected to a Service address: its remote end differs, its
        // own does not. Two such sockets cannot be told apart.
        (translated.len() == 1).then(|| translated.remove(0))
    }

    /// Every process of the namespace that holds the socket.
    fn holders(
        &self,
        inode: u64,
        namespace: &Namespace,
        address: IpAddr,
        deadline: Instant,
    ) -> Vec<ProcessKey> {
        let hinted = self.hints.lock().get(&address).unwrap_or_default();
        let known: Vec<u32> = hinted
            .iter()
            .copied()
            .filter(|pid| namespace.pids.contains(pid))
            .collect();
        let holders = self.holding(inode, &known, deadline);
        // A socket is shared through fork: its other holders are relatives of a holder.
        if let Some(relatives) = self.relatives(&holders) {
            let mut all = holders;
            let more: Vec<u32> = relatives
                .into_iter()
                .filter(|p| !known.contains(p))
                .collect();
            all.extend(self.holding(inode, &more, deadline));
            all.sort_unstable();
            all.dedup();
            return all;
        }
        let mut all = self.holding(inode, &namespace.pids, deadline);
        all.sort_unstable();
        all
    }

    /// Parents, siblings and children of the holders; `None` when there is no holder or the
    /// kernel does not list children, so that everything must be searched.
    fn relatives(&self, holders: &[ProcessKey]) -> Option<Vec<u32>> {
        let mut pids = Vec::new();
        holders.first()?;
        for holder in holders {
            let dir = ProcDir::new(&self.roots, holder.pid);
            let parent = dir.stat().ok()?.ppid;
            pids.extend(dir.children()?);
            if parent > 1 {
                pids.push(parent);
                pids.extend(ProcDir::new(&self.roots, parent).children()?);
            }
        }
        pids.sort_unstable();
        pids.dedup();
        Some(pids)
    }

    fn holding(&self, inode: u64, pids: &[u32], deadline: Instant) -> Vec<ProcessKey> {
        let mut holders = Vec::new();
        for pid in pids {
            if Instant::now() >= deadline {
                break;
            }
            let dir = ProcDir::new(&self.roots, *pid);
            // The key from before the look and after it is the same, or the pid was reused.
            let Ok(key) = dir.key() else { continue };
            if dir.holds_socket(inode) && dir.key().is_ok_and(|after| after == key) {
                holders.push(key);
            }
        }
        holders
    }
}

/// IPv4-mapped IPv6 addresses as the IPv4 addresses that they are.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
