//! Whether a network namespace has an address: a cheap look before the dear one at its
//! sockets.

use std::{
    fs::File,
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use crate::host::proc::ProcDir;

/// A longer table is not read to its end.
const LIMIT: u64 = 1 << 20;

/// Whether the process's namespace may have `address`: yes, where that cannot be read.
pub(super) fn may_have(process: &ProcDir, address: IpAddr) -> bool {
    let table = match address {
        IpAddr::V4(_) => "net/fib_trie",
        IpAddr::V6(_) => "net/if_inet6",
    };
    let mut text = String::new();
    let read =
        File::open(process.path(table)).and_then(|file| file.take(LIMIT).read_to_string(&mut text));
    match (read, address) {
        (Err(_), _) => true,
        (Ok(bytes), _) if bytes as u64 == LIMIT => true,
        (Ok(_), IpAddr::V4(address)) => in_trie(&text, address),
        (Ok(_), IpAddr::V6(address)) => in_list(&text, address),
    }
}

/// Lines of leaves, each followed by those of its routes: `|-- 10.0.0.1`, `/32 host LOCAL`.
fn in_trie(table: &str, address: Ipv4Addr) -> bool {
    // All of 127.0.0.0/8 is local, but not listed one by one.
    if address.is_loopback() {
        return true;
    }
    let leaf = format!("|-- {address}");
    let mut of_leaf = false;
    table.lines().any(|line| {
        let line = line.trim();
        if line.starts_with("|--") || line.starts_with("+--") {
            of_leaf = line == leaf;
        }
        of_leaf && line.ends_with("host LOCAL")
    })
}

/// Lines that begin with the address in hexadecimal.
fn in_list(table: &str, address: Ipv6Addr) -> bool {
    let hex = format!("{:032x}", u128::from(address));
    table.lines().any(|line| line.starts_with(&hex))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::roots::Roots;

    const TRIE: &str = "Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     +-- 10.1.2.0/24 2 0 1
        |-- 10.1.2.0
           /24 link UNICAST
        |-- 10.1.2.3
           /32 host LOCAL
        |-- 10.1.2.255
           /32 link BROADCAST
";

    #[test]
    fn only_own_addresses_count() {
        for (address, expected) in [
            ("10.1.2.3", true),
            ("10.1.2.0", false),
            ("10.1.2.255", false),
            ("10.1.2.30", false),
            ("0.1.2.3", false),
            ("127.0.0.9", true),
        ] {
            assert_eq!(
                in_trie(TRIE, address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
        let list = "fe80000000000000001122fffe334455 02 40 20 80     eth0\n";
        assert!(in_list(list, "fe80::11:22ff:fe33:4455".parse().unwrap()));
        assert!(!in_list(list, "fe80::11:22ff:fe33:4456".parse().unwrap()));
    }

    #[test]
    fn this_machine_has_loopback_and_not_a_documentation_address() {
        let own = ProcDir::new(&Roots::default(), std::process::id());
        assert!(may_have(&own, "127.0.0.1".parse().unwrap()));
        assert!(!may_have(&own, "203.0.113.77".parse().unwrap()));
        let gone = ProcDir::new(&Roots::default(), u32::MAX);
        assert!(may_have(&gone, "203.0.113.77".parse().unwrap()));
    }
}
