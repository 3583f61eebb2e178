//! Who listens on a port, for the message that says why it cannot be had.

use std::{fmt, fs, net::SocketAddr};

use super::{proc, roots::Roots};

/// A process that holds a listening socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its pid.
    pub pid: u32,
    /// Its `comm`; control characters are left out.
    pub comm: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({})", self.pid, self.comm)
    }
}

/// Column of the state in `/proc/net/tcp`, and its value for LISTEN.
const STATE: usize = 3;
const LISTEN: &str = "0A";
/// Column of the socket's inode.
const INODE: usize = 9;

/// The process that listens where `address` would; `None` when it is not visible from here.
#[must_use]
pub fn holder(roots: &Roots, address: SocketAddr) -> Option<Holder> {
    let inodes: Vec<u64> = ["net/tcp", "net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(roots.procfs.join(table)).ok())
        .flat_map(|table| listening_inodes(&table, address.port()))
        .collect();
    proc::pids(roots).into_iter().find_map(|pid| {
        let process = proc::ProcDir::new(roots, pid);
        let holds = inodes.iter().any(|inode| process.holds_socket(*inode));
        holds.then(|| {
            let comm = process.comm().unwrap_or_default();
            Holder {
                pid,
                comm: comm.chars().filter(|c| !c.is_control()).collect(),
            }
        })
    })
}

/// Inodes of the sockets that listen on `port`, whatever the address: one that listens on
/// all addresses stands in the way too.
fn listening_inodes(table: &str, port: u16) -> Vec<u64> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let columns: Vec<&str> = line.split_ascii_whitespace().collect();
            let (_, local_port) = columns.get(1)?.rsplit_once(':')?;
            let is_it = u16::from_str_radix(local_port, 16) == Ok(port)
                && columns.get(STATE) == Some(&LISTEN);
            is_it.then(|| columns.get(INODE)?.parse().ok()).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_test_itself_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let found = holder(&Roots::default(), address).unwrap();
        assert_eq!(found.pid, std::process::id());
        drop(listener);
        assert_eq!(holder(&Roots::default(), address), None);
    }
}
