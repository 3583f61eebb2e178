//! One TCP socket of the agent's own network namespace, asked of the kernel by its two ends.
//!
//! The table in `/proc/net/tcp` costs the kernel a walk through all buckets of its hash, 5 to
//! 10 ms on a machine of 24 GiB however few the sockets; this costs some microseconds.
//!
//! <https://man7.org/linux/man-pages/man7/sock_diag.7.html>

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const IPPROTO_TCP: u8 = 6;
/// `nlmsghdr` and `inet_diag_req_v2`.
const REQUEST_BYTES: usize = 16 + 56;
/// In the answer: the type in its `nlmsghdr`, and in its `inet_diag_msg` the remote port and
/// the inode.
const TYPE: usize = 4;
const REMOTE_PORT: usize = 16 + 6;
const INODE: usize = 16 + 68;

/// Inode of the socket with these ends; `None` when there is none that has an owner.
///
/// # Errors
/// When the kernel does not answer such questions.
pub(super) fn inode(own: SocketAddr, remote: SocketAddr) -> io::Result<Option<u64>> {
    let flags = SocketFlags::CLOEXEC;
    let protocol = Some(netlink::SOCK_DIAG);
    let netlink = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, protocol)?;
    send(&netlink, &request(own, remote), SendFlags::empty())?;
    let mut answer = [0; 512];
    // The answer is there when the question has been put.
    let (_, length) = recv(&netlink, &mut answer[..], RecvFlags::DONTWAIT)?;
    let answer = &answer[..length.min(answer.len())];
    // An error answers too: there is no such socket.
    if field(answer, TYPE).map(u16::from_ne_bytes) != Some(SOCK_DIAG_BY_FAMILY) {
        return Ok(None);
    }
    // Where no connection has these ends, the kernel names who listens on the first.
    if field(answer, REMOTE_PORT).map(u16::from_be_bytes) != Some(remote.port()) {
        return Ok(None);
    }
    let inode = field(answer, INODE).map(u32::from_ne_bytes);
    Ok(inode.filter(|inode| *inode != 0).map(u64::from))
}

fn field<const N: usize>(answer: &[u8], at: usize) -> Option<[u8; N]> {
    answer.get(at..at + N)?.try_into().ok()
}

fn request(own: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let family = match own {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let mut request = Vec::with_capacity(REQUEST_BYTES);
    request.extend((REQUEST_BYTES as u32).to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    // Sequence number and sender: one question, one answer.
    request.extend([0; 8]);
    request.extend([family.as_raw() as u8, IPPROTO_TCP, 0, 0]);
    // Every state.
    request.extend([0xff; 4]);
    request.extend(own.port().to_be_bytes());
    request.extend(remote.port().to_be_bytes());
    for address in [own.ip(), remote.ip()] {
        let mut bytes = [0; 16];
        match address {
            IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => bytes = v6.octets(),
        }
        request.extend(bytes);
    }
    // Any device, no cookie.
    request.extend([0; 4]);
    request.extend([0xff; 8]);
    request
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::AsRawFd,
    };

    use super::*;

    #[test]
    fn a_connection_is_found_by_its_ends_and_not_its_listener() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (_server, _) = listener.accept().unwrap();
            let ends = (client.local_addr().unwrap(), client.peer_addr().unwrap());
            let link = std::fs::read_link(format!("/proc/self/fd/{}", client.as_raw_fd()));
            let found = inode(ends.0, ends.1).unwrap().unwrap();
            assert_eq!(link.unwrap().to_str(), Some(&*format!("socket:[{found}]")));
            // The listener has the port, but no such connection.
            let stranger = SocketAddr::new(ends.0.ip(), 1);
            assert_eq!(inode(ends.1, stranger).unwrap(), None);
        }
    }
}
