//! Through a collector, or from where the sender cannot be seen: the process that holds the
//! connection which a span says it was about.

use super::{Found, Judge, Question, is_proxy};
use crate::{
    host::peer::{Peer, SocketEnds},
    join::sighting::Holder,
    otlp::ends::Ends,
    process::{ProcessKey, SharedIdentity},
    vocabulary::Confidence,
    workload::path::place::is_below,
};

/// Who holds them: for each list the first socket of it that is there.
pub(in crate::join) type Sockets<'a> = &'a dyn Fn(&[Vec<SocketEnds>]) -> Vec<Option<ProcessKey>>;

impl Judge<'_> {
    /// The one process that holds all the connections that the spans name and that are there.
    /// `container`: what the resource names, which it must be in.
    pub(super) fn by_socket(
        &self,
        node_name: &str,
        question: &Question,
        container: Option<&SharedIdentity>,
        sockets: Sockets<'_>,
    ) -> Option<Found> {
        let node = &self.resource.node;
        let is_elsewhere = !node.is_empty() && node != node_name;
        // A sender that is known and is no collector speaks of itself: it was not believed.
        let by_itself = !question.several_services
            && !question.sighting.holders.is_empty()
            && !question.sighting.holders.iter().any(is_proxy);
        if is_elsewhere || by_itself || question.sighting.peer == Peer::Vanished {
            return None;
        }
        let mut found: Option<ProcessKey> = None;
        let wanted: Vec<_> = question.ends.iter().map(wanted).collect();
        for key in sockets(&wanted).into_iter().flatten() {
            if *found.get_or_insert(key) != key {
                return None; // of two processes: whose spans they are is not told
            }
        }
        let holder = Holder::look(self.identifier, found?)?;
        let identity = &holder.identity;
        let is_named = |pid: u32| holder.inner_pid == Some(pid) || identity.process.pid == pid;
        let is_in = |named: &SharedIdentity| is_below(&identity.cgroup_path, &named.cgroup_path);
        let agrees = !is_proxy(&holder)
            && !self.contradicts(&identity.workload)
            && self.resource.pid.is_none_or(is_named)
            && container.is_none_or(is_in);
        agrees.then_some((holder.identity, Confidence::Socket))
    }
}

/// The connection, else (of a server's, which may be over) what listens where it was accepted.
fn wanted(ends: &Ends) -> Vec<SocketEnds> {
    let connected = ends.remote.map(|remote| SocketEnds {
        own: ends.own,
        // What a server is called may have another port than it listens on.
        own_port: ends.own_port.filter(|_| ends.own.is_some()),
        remote: Some(remote),
    });
    let has_listened = ends.is_server && ends.own.is_some() && ends.own_port.is_some();
    let listens = has_listened.then_some(SocketEnds {
        own: ends.own,
        own_port: ends.own_port,
        remote: None,
    });
    connected.into_iter().chain(listens).collect()
}
