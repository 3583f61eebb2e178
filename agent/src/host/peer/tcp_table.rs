//! `/proc/PID/net/tcp` and `tcp6`: the socket with a given local address.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::host::proc::ProcDir;

/// Bytes read of one table: some 400 000 sockets.
const LIMIT: u64 = 64 << 20;
/// Candidates kept of one table.
const MAX_MATCHES: usize = 8;

/// States that have no process: TIME_WAIT, SYN_RECV, LISTEN, NEW_SYN_RECV.
const WITHOUT_OWNER: &[&[u8]] = &[b"06", b"03", b"0A", b"0C"];

/// A socket whose local address is the one looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Match {
    /// Inode of the socket.
    pub inode: u64,
    /// Its remote end is the agent's address too.
    pub exact: bool,
}

/// Sockets of the process's network namespace whose local end is `peer`; an exact one alone.
pub(super) fn find(
    process: &ProcDir,
    local: SocketAddr,
    peer: SocketAddr,
) -> io::Result<Vec<Match>> {
    let mut matches = Vec::new();
    // A connection over IPv4 may be a tcp6 socket's (mapped), never the other way round.
    let tables: &[&str] = match peer {
        SocketAddr::V4(_) => &["net/tcp", "net/tcp6"],
        SocketAddr::V6(_) => &["net/tcp6"],
    };
    let mut failed = None;
    for table in tables {
        match File::open(process.path(table)) {
            Ok(file) => scan(file.take(LIMIT), local, peer, &mut matches)?,
            Err(error) => failed = Some(error),
        }
        if let Some(exact) = matches.iter().find(|found| found.exact) {
            return Ok(vec![*exact]);
        }
    }
    match failed {
        Some(error) if matches.is_empty() => Err(error),
        _ => Ok(matches),
    }
}

fn scan(
    table: impl Read,
    local: SocketAddr,
    peer: SocketAddr,
    matches: &mut Vec<Match>,
) -> io::Result<()> {
    let port = format!(":{:04X}", peer.port()).into_bytes();
    let mut reader = BufReader::with_capacity(64 * 1024, table);
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(4096).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let mut fields = line.split(|b| *b == b' ').filter(|field| !field.is_empty());
        let (Some(own), Some(remote), Some(state)) = (fields.nth(1), fields.next(), fields.next())
        else {
            continue;
        };
        if !own.ends_with(&port) || WITHOUT_OWNER.contains(&state) {
            continue;
        }
        let inode = fields
            .nth(5)
            .and_then(|field| std::str::from_utf8(field).ok());
        let inode = inode.and_then(|field| field.parse().ok()).unwrap_or(0);
        if inode != 0 && address(own) == Some(peer) && matches.len() < MAX_MATCHES {
            matches.push(Match {
                inode,
                exact: address(remote) == Some(local),
            });
        }
    }
}

/// `0100007F:10DD`, `00000000000000000000000001000000:10DD`: 32-bit words in host byte
/// order, the port in hexadecimal.
pub(super) fn address(text: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = std::str::from_utf8(text).ok()?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |i: usize| {
        let word = u32::from_str_radix(ip.get(i * 8..i * 8 + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let mut bytes = [0; 16];
            for (i, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(i)?);
            }
            IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:10DD 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 x
   1: 0500000A:ADF8 0100600A:10DD 01 00000000:00000000 02:000007C9 00000000     0        0 12 2 x
   2: 0500000A:ADF8 0700000A:10DD 01 00000000:00000000 02:000007C9 00000000     0        0 13 2 x
   3: 0500000A:ADFA 0700000A:10DD 06 00000000:00000000 03:0000138A 00000000     0        0 0 3 x
   4: 0000000000000000FFFF00000500000A:ADFC 0000000000000000FFFF00000700000A:10DD 01 0:0 0:0 0 0 0 14 1 x
garbage
";

    fn matches(local: &str, peer: &str) -> Vec<Match> {
        let mut matches = Vec::new();
        let (local, peer) = (local.parse().unwrap(), peer.parse().unwrap());
        scan(TABLE.as_bytes(), local, peer, &mut matches).unwrap();
        matches
    }

    #[test]
    fn exact_translated_mapped_and_absent() {
        let of = |inode, exact| Match { inode, exact };
        let found = matches("10.0.0.7:4317", "10.0.0.5:44536");
        assert_eq!(found, [of(12, false), of(13, true)]);
        assert_eq!(matches("10.0.0.7:4317", "10.0.0.5:44538"), [], "TIME_WAIT");
        assert_eq!(matches("10.0.0.7:4317", "10.0.0.5:44540"), [of(14, true)]);
        assert_eq!(
            matches("10.0.0.7:4317", "10.0.0.6:44536"),
            [],
            "other address"
        );
        assert_eq!(matches("10.0.0.7:4317", "127.0.0.1:4317"), [], "LISTEN");
    }

    #[test]
    fn addresses() {
        let parse = |text: &str| address(text.as_bytes()).map(|a| a.to_string());
        assert_eq!(parse("0100007F:0016").unwrap(), "127.0.0.1:22");
        let loopback = parse("00000000000000000000000001000000:10DE").unwrap();
        assert_eq!(loopback, "[::1]:4318");
        assert_eq!(parse("0100007F"), None);
        assert_eq!(parse("xyz:1"), None);
    }
}
