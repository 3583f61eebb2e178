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
    /// For each of `wanted`, a list of sockets of which the first counts that is there: the one
    /// process of this host that holds it; `None` where there is none, or several have one. All
    /// are looked for at once, as each look reads the tables of all sockets.
    ///
    /// Loopback addresses mean something else in every network namespace: they are looked for in
    /// the agent's own only.
    #[must_use]
    pub fn holders_of(&self, wanted: &[Vec<SocketEnds>]) -> Vec<Option<ProcessKey>> {
        let start = Instant::now();
        let deadline = start + self.budget;
        // The last list usually has all processes; if not, some are younger than the list.
        let known = self.namespaces.known();
        let known = known.map(|list| self.holders_in(&list, wanted, deadline));
        let known = known.unwrap_or_else(|| vec![None; wanted.len()]);
        if known.iter().all(Option::is_some) {
            return known;
        }
        let missing = |(ends, key): (&Vec<SocketEnds>, &Option<_>)| match key {
            Some(_) => Vec::new(),
            None => ends.clone(),
        };
        let missing: Vec<_> = wanted.iter().zip(&known).map(missing).collect();
        let list = self.namespaces.list(start, deadline);
        let found = self.holders_in(&list, &missing, deadline);
        known.into_iter().zip(found).map(|(a, b)| a.or(b)).collect()
    }

    fn holders_in(
        &self,
        list: &[Namespace],
        wanted: &[Vec<SocketEnds>],
        deadline: Instant,
    ) -> Vec<Option<ProcessKey>> {
        let own_namespace = self.namespaces.own();
        let mut looked_for: Vec<LookedFor> = wanted
            .iter()
            .flatten()
            .copied()
            .map(LookedFor::new)
            .collect();
        for namespace in list {
            let is_own = Some(namespace.inode) == own_namespace;
            let inodes = self.sockets_in(namespace, is_own, &looked_for);
            for (of, inodes) in looked_for.iter_mut().zip(inodes) {
                for inode in inodes {
                    of.is_held_by(&self.holding(inode, &namespace.pids, deadline));
                }
            }
            if Instant::now() >= deadline {
                // A part does not tell whether it is the only one.
                return vec![None; wanted.len()];
            }
        }
        let mut looked_for = looked_for.into_iter();
        let found = wanted.iter().map(|ends| {
            // All of them, so that the next one's follow.
            let of_this: Vec<_> = looked_for.by_ref().take(ends.len()).collect();
            LookedFor::first(&of_this)
        });
        found.collect()
    }

    /// Inodes of the namespace's sockets that fit, for each of those looked for.
    fn sockets_in(
        &self,
        namespace: &Namespace,
        is_own: bool,
        looked_for: &[LookedFor],
    ) -> Vec<Vec<u64>> {
        let some = namespace.pids.iter().take(3);
        for process in some.map(|pid| ProcDir::new(&self.roots, *pid)) {
            let may_be_here = |of: &LookedFor| {
                (is_own || !of.ends.is_loopback())
                    && of
                        .ends
                        .own
                        .is_none_or(|own| addresses::may_have(&process, own))
            };
            let here: Vec<_> = looked_for
                .iter()
                .map(|of| may_be_here(of).then_some(&of.ends))
                .collect();
            if here.iter().all(Option::is_none) {
                continue;
            }
            if let Some(inodes) = sockets(&process, &here) {
                return inodes;
            }
        }
        Vec::new()
    }
}

impl SocketEnds {
    fn is_loopback(&self) -> bool {
        let ends = [self.own, self.remote.map(|remote| remote.ip())];
        ends.into_iter().flatten().any(|ip| ip.is_loopback())
    }
}

/// A socket that is looked for, and who holds what fits.
struct LookedFor {
    ends: SocketEnds,
    holder: Option<ProcessKey>,
    /// Several hold one, or somebody who is not found.
    is_unclear: bool,
}

impl LookedFor {
    const fn new(ends: SocketEnds) -> Self {
        Self {
            ends,
            holder: None,
            is_unclear: false,
        }
    }

    /// One that fits is held by these.
    fn is_held_by(&mut self, keys: &[ProcessKey]) {
        let holder = &mut self.holder;
        self.is_unclear |=
            keys.is_empty() || keys.iter().any(|key| *holder.get_or_insert(*key) != *key);
    }

    /// One that fits is there, whoever holds it.
    const fn is_there(&self) -> bool {
        self.is_unclear || self.holder.is_some()
    }

    /// The holder of the first that is there: a connection that somebody has who is not found is not
    /// its listener's.
    fn first(these: &[Self]) -> Option<ProcessKey> {
        these.iter().find(|of| of.is_there())?.holder()
    }

    /// The only one.
    fn holder(&self) -> Option<ProcessKey> {
        self.holder.filter(|_| !self.is_unclear)
    }
}

/// For each of `ends`, inodes of the sockets of the process's namespace that fit; `None` where
/// its tables cannot be read.
fn sockets(process: &ProcDir, ends: &[Option<&SocketEnds>]) -> Option<Vec<Vec<u64>>> {
    let mut inodes = vec![Vec::new(); ends.len()];
    let mut is_read = false;
    for table in ["net/tcp", "net/tcp6"] {
        if let Ok(file) = File::open(process.path(table)) {
            is_read = true;
            scan(file.take(LIMIT), ends, &mut inodes);
        }
    }
    is_read.then_some(inodes)
}

fn scan(table: impl Read, ends: &[Option<&SocketEnds>], inodes: &mut [Vec<u64>]) {
    let mut reader = BufReader::with_capacity(64 * 1024, table);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(4096).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let Some(row) = Row::read(&line) else {
            continue;
        };
        for (ends, inodes) in ends.iter().zip(&mut *inodes) {
            if ends.is_some_and(|ends| row.fits(ends)) && inodes.len() < MAX_SOCKETS {
                inodes.push(row.inode);
            }
        }
    }
}

/// A line of a table: a socket that somebody holds.
struct Row {
    own: SocketAddr,
    /// `None`: it listens.
    remote: Option<SocketAddr>,
    inode: u64,
}

impl Row {
    fn read(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|b| *b == b' ').filter(|field| !field.is_empty());
        let (own, remote, state) = (fields.nth(1)?, fields.next()?, fields.next()?);
        let remote = match state {
            LISTEN => None,
            _ => Some(tcp_table::address(remote)?),
        };
        let inode = std::str::from_utf8(fields.nth(5)?).ok()?.parse().ok()?;
        let own = tcp_table::address(own)?;
        (inode != 0).then_some(Self { own, remote, inode })
    }

    fn fits(&self, ends: &SocketEnds) -> bool {
        let fits = |wanted: IpAddr| {
            let is = self.own.ip();
            wanted == is || (self.remote.is_none() && is.is_unspecified())
        };
        self.remote == ends.remote
            && ends.own.is_none_or(fits)
            && ends.own_port.is_none_or(|port| port == self.own.port())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        time::Duration,
    };

    use super::*;
    use crate::host::roots::Roots;

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
        let mut inodes = [Vec::new()];
        let ends = SocketEnds {
            own: own.map(|own| own.parse().unwrap()),
            own_port,
            remote: remote.map(|remote| remote.parse().unwrap()),
        };
        scan(TABLE.as_bytes(), &[Some(&ends)], &mut inodes);
        let [inodes] = inodes;
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

    #[test]
    fn of_several_each_has_its_own_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap();
        let stream = TcpStream::connect(own).unwrap();
        let ends = |remote| SocketEnds {
            own: Some(own.ip()),
            own_port: Some(own.port()),
            remote,
        };
        let over = ends(Some(SocketAddr::new(own.ip(), 1)));
        let client = SocketEnds {
            remote: Some(own),
            own_port: None,
            own: None,
        };
        let wanted = [
            vec![over, ends(None)],
            vec![over],
            Vec::new(),
            vec![client],
            vec![ends(None)],
        ];
        let finder = PeerFinder::new(Roots::default(), Duration::from_secs(20));
        let me = ProcDir::new(&Roots::default(), std::process::id()).key();
        let me = Some(me.unwrap());
        assert_eq!(finder.holders_of(&wanted), [me, None, None, me, me]);
        drop(stream);
    }

    #[test]
    fn a_connection_of_somebody_who_is_not_found_is_not_its_listeners() {
        let key = |pid| ProcessKey {
            pid,
            start_ticks: 1,
        };
        let held_by = |holders: &[&[ProcessKey]]| {
            let mut of = LookedFor::new(SocketEnds {
                own: None,
                own_port: Some(8080),
                remote: None,
            });
            holders.iter().for_each(|keys| of.is_held_by(keys));
            of
        };
        let (worker, master) = (key(7), key(3));
        for (connection, expected) in [
            (held_by(&[&[worker]]), Some(worker)),
            // Nobody has it any more: who listened there.
            (held_by(&[]), Some(master)),
            // A worker that is younger than the list of processes.
            (held_by(&[&[]]), None),
            (held_by(&[&[worker, master]]), None),
        ] {
            let chain = [connection, held_by(&[&[master]])];
            assert_eq!(LookedFor::first(&chain), expected);
        }
    }
}
