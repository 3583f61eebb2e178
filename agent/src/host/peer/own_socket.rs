//! The process whose socket has the ends that somebody names.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{PeerFinder, addresses, namespaces::Namespace, tcp_table};
use crate::{host::proc::ProcDir, process::ProcessKey};

/// Sockets with the same ends that are looked at: one process's pool of connections.
const MAX_SOCKETS: usize = 64;
/// Bytes read of one table.
const LIMIT: u64 = 64 << 20;
/// `TCP_LISTEN` in a table.
const LISTEN: &[u8] = b"0A";

/// What is known of a socket; `None` fits any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketEnds {
    /// Its own address.
    pub own: Option<IpAddr>,
    /// Its own port.
    pub own_port: Option<u16>,
    /// The other end; `None`: one that listens.
    pub remote: Option<SocketAddr>,
}

impl PeerFinder {
    /// The one process of this host that holds such a socket; `None` where there is none, or
    /// several have one.
    ///
    /// Loopback addresses mean something else in every network namespace: they are looked for in
    /// the agent's own only.
    #[must_use]
    pub fn holder_of(&self, ends: &SocketEnds) -> Option<ProcessKey> {
        let start = Instant::now();
        let deadline = start + self.budget;
        // The last list usually has all processes; if not, some are younger than the list.
        if let Some(list) = self.namespaces.known()
            && let Holders::One(key) = self.holders_in(&list, ends, deadline)
        {
            return Some(key);
        }
        let list = self.namespaces.list(start, deadline);
        match self.holders_in(&list, ends, deadline) {
            Holders::One(key) => Some(key),
            Holders::Unclear => None,
        }
    }

    fn holders_in(&self, list: &[Namespace], ends: &SocketEnds, deadline: Instant) -> Holders {
        let own_namespace = self.namespaces.own();
        let is_loopback = [ends.own, ends.remote.map(|remote| remote.ip())]
            .into_iter()
            .flatten()
            .any(|address| address.is_loopback());
        let mut holder = None;
        for namespace in list {
            if is_loopback && Some(namespace.inode) != own_namespace {
                continue;
            }
            let mut processes = namespace
                .pids
                .iter()
                .take(3)
                .map(|pid| ProcDir::new(&self.roots, *pid))
                .filter(|p| ends.own.is_none_or(|own| addresses::may_have(p, own)));
            let Some(inodes) = processes.find_map(|process| sockets(&process, ends)) else {
                continue;
            };
            for inode in inodes {
                let keys = self.holding(inode, &namespace.pids, deadline);
                // Whoever holds one and is not found may be another.
                if keys.is_empty() || keys.iter().any(|key| *holder.get_or_insert(*key) != *key) {
                    return Holders::Unclear;
                }
            }
            if Instant::now() >= deadline {
                return Holders::Unclear; // a part does not tell whether it is the only one
            }
        }
        holder.map_or(Holders::Unclear, Holders::One)
    }
}

/// Who holds the sockets that fit.
enum Holders {
    /// All of them.
    One(ProcessKey),
    /// Several, or nobody that is found.
    Unclear,
}

/// Inodes of the sockets of the process's namespace that fit; `None` where it cannot be read.
fn sockets(process: &ProcDir, ends: &SocketEnds) -> Option<Vec<u64>> {
    let mut inodes = Vec::new();
    let mut is_read = false;
    for table in ["net/tcp", "net/tcp6"] {
        if let Ok(file) = File::open(process.path(table)) {
            is_read = true;
            scan(file.take(LIMIT), ends, &mut inodes);
        }
    }
    is_read.then_some(inodes)
}

fn scan(table: impl Read, ends: &SocketEnds, inodes: &mut Vec<u64>) {
    let mut reader = BufReader::with_capacity(64 * 1024, table);
    let mut line = Vec::new();
    while inodes.len() < MAX_SOCKETS {
        line.clear();
        match reader.by_ref().take(4096).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        if let Some(inode) = fitting(&line, ends) {
            inodes.push(inode);
        }
    }
}

fn fitting(line: &[u8], ends: &SocketEnds) -> Option<u64> {
    let mut fields = line.split(|b| *b == b' ').filter(|field| !field.is_empty());
    let (own, remote, state) = (fields.nth(1)?, fields.next()?, fields.next()?);
    let is_listener = state == LISTEN;
    if is_listener != ends.remote.is_none() {
        return None;
    }
    let own = tcp_table::address(own)?;
    let fits = |wanted: Option<IpAddr>, is: IpAddr| {
        wanted.is_none_or(|wanted| wanted == is || (is_listener && is.is_unspecified()))
    };
    if !fits(ends.own, own.ip()) || ends.own_port.is_some_and(|port| port != own.port()) {
        return None;
    }
    if ends.remote.is_some() && tcp_table::address(remote) != ends.remote {
        return None;
    }
    let inode = std::str::from_utf8(fields.nth(5)?).ok()?.parse().ok()?;
    (inode != 0).then_some(inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [u64; 0] = [];
    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 x
   1: 0500000A:1F90 0700000A:9C40 01 00000000:00000000 02:000007C9 00000000     0        0 12 2 x
   2: 0500000A:1F90 0800000A:9C40 01 00000000:00000000 02:000007C9 00000000     0        0 13 2 x
   3: 0500000A:1F90 0900000A:9C40 06 00000000:00000000 03:0000138A 00000000     0        0 0 3 x
   4: 0500000A:ADFC 0100600A:1538 01 00000000:00000000 03:0000138A 00000000     0        0 14 3 x
   5: 0500000A:ADFE 0100600A:1538 01 00000000:00000000 03:0000138A 00000000     0        0 15 3 x
garbage
";

    fn found(own: Option<&str>, own_port: Option<u16>, remote: Option<&str>) -> Vec<u64> {
        let mut inodes = Vec::new();
        let ends = SocketEnds {
            own: own.map(|own| own.parse().unwrap()),
            own_port,
            remote: remote.map(|remote| remote.parse().unwrap()),
        };
        scan(TABLE.as_bytes(), &ends, &mut inodes);
        inodes
    }

    #[test]
    fn by_as_much_as_is_known() {
        let own = Some("10.0.0.5");
        assert_eq!(found(own, Some(8080), Some("10.0.0.7:40000")), [12]);
        assert_eq!(found(None, None, Some("10.0.0.8:40000")), [13]);
        assert_eq!(found(None, Some(80), Some("10.0.0.8:40000")), NONE);
        assert_eq!(found(own, None, Some("10.0.0.9:40000")), NONE, "TIME_WAIT");
        let pool = Some("10.96.0.1:5432");
        assert_eq!(found(None, None, pool), [14, 15]);
        assert_eq!(found(own, Some(8080), None), [11], "listens on any address");
        assert_eq!(found(own, Some(9090), None), NONE);
    }
}
