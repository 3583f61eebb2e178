//! Whether a port is free, and if not, who has it.

use std::{fs, net::TcpListener, path::Path};

/// The agent's ports: page, OTLP over gRPC, OTLP over HTTP.
pub const DEFAULT: [u16; 3] = [9464, 4317, 4318];

/// Who listens on this port of 127.0.0.1; `None` when it is free.
pub fn holder(port: u16) -> Option<String> {
    TcpListener::bind(("127.0.0.1", port)).err()?;
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| listening_inode(&fs::read_to_string(table).ok()?, port));
    Some(
        inode
            .and_then(owner)
            .unwrap_or_else(|| "another process".to_owned()),
    )
}

/// The inode of the socket in state LISTEN (0A) on `port`.
fn listening_inode(table: &str, port: u16) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (_, local_port) = fields.get(1)?.split_once(':')?;
        let matches = u16::from_str_radix(local_port, 16) == Ok(port) && *fields.get(3)? == "0A";
        matches.then(|| fields.get(9)?.parse().ok()).flatten()
    })
}

fn owner(inode: u64) -> Option<String> {
    let target = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let holds = fs::read_dir(entry.path().join("fd"))
            .ok()?
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|link| link == Path::new(&target)));
        if !holds {
            return None;
        }
        let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        Some(format!("{} (pid {pid})", name.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_process_that_listens() -> anyhow::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let pid = format!("(pid {})", std::process::id());
        let holder = holder(port).unwrap_or_default();
        assert!(holder.ends_with(&pid), "{holder}");
        Ok(())
    }
}
