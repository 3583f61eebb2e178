//! Sockets, packets and network devices. All reads go through the helper: the hooks that come
//! here are rare or thin themselves out.

use aya_ebpf::{
    Global,
    helpers::{bpf_probe_read_kernel, bpf_probe_read_kernel_str_bytes},
};

use agent_common::device::{DeviceFacts, NAME_BYTES, device_id};

use super::{Memory as _, Probed, field, has};

/// `IPPROTO_TCP`.
pub const TCP: u16 = 6;
/// `IPPROTO_UDP`.
pub const UDP: u16 = 17;

/// `AF_INET`.
const AF_INET: u16 = 2;
/// `AF_INET6`.
const AF_INET6: u16 = 10;

/// `TCP_ESTABLISHED`.
pub const ESTABLISHED: u32 = 1;
/// `TCP_SYN_SENT`.
pub const SYN_SENT: u32 = 2;
/// `TCP_SYN_RECV`: of a socket, the moment at which it is made for a new connection.
pub const SYN_RECV: u32 = 3;
/// `TCP_TIME_WAIT`: no socket any more.
pub const TIME_WAIT: u32 = 6;
/// `TCP_CLOSE`.
pub const CLOSE: u32 = 7;
/// `TCP_LISTEN`.
pub const LISTEN: u32 = 10;
/// `TCP_NEW_SYN_RECV`: no socket yet.
pub const NEW_SYN_RECV: u32 = 12;

/// Inodes of namespaces begin here: what has none was no device. Most are from 0xf0000000
/// (`PROC_DYNAMIC_FIRST`) on; since 6.18 those of the first namespaces are just below
/// (`include/uapi/linux/nsfs.h`: `MNT_NS_INIT_INO` and its like).
const FIRST_NAMESPACE: u32 = 0xefff_fff0;

/// Bytes of a `struct netdev_queue`; 0 where not known.
#[unsafe(no_mangle)]
static NETDEV_QUEUE_BYTES: Global<u64> = Global::new(0);

/// Which way a segment went that somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Sent by the socket.
    Out,
    /// Sent to it.
    In,
}

/// `struct sock`, of TCP where the member asked for is.
#[derive(Clone, Copy)]
pub struct Sock(*const u8);

/// `struct net_device`.
#[derive(Clone, Copy)]
pub struct Device(*const u8);

/// `struct netdev_queue`: a transmit queue.
#[derive(Clone, Copy)]
pub struct TxQueue(*const u8);

/// `struct sk_buff`.
#[derive(Clone, Copy)]
pub struct Packet(*const u8);

impl Sock {
    /// Any address: what is not there reads as 0.
    #[inline(always)]
    pub fn at(address: u64) -> Self {
        Self(address as *const u8)
    }

    #[inline(always)]
    fn get<T: Copy + Default>(self, field: &Global<u32>) -> T {
        // SAFETY: `Probed` copes with any address.
        unsafe { Probed::read(self.0, field) }
    }

    /// The address.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    /// One of the constants above.
    #[inline(always)]
    pub fn state(self) -> u32 {
        self.get::<u8>(&field::SOCK_STATE).into()
    }

    /// It is a socket of a process, not a remainder or a request of one.
    #[inline(always)]
    pub fn is_full(self) -> bool {
        let state = self.state();
        state != 0 && state != TIME_WAIT && state != NEW_SYN_RECV
    }

    /// Its packets are of IPv4 or IPv6; also where the kernel does not say.
    #[inline(always)]
    pub fn is_ip(self) -> bool {
        let family = self.get::<u16>(&field::SOCK_FAMILY);
        !has(&field::SOCK_FAMILY) || family == AF_INET || family == AF_INET6
    }

    /// `IPPROTO_`; only of a full socket.
    #[inline(always)]
    pub fn protocol(self) -> u16 {
        self.get(&field::SOCK_PROTOCOL)
    }

    /// A process works on it now, so that `current` is that process. In an interrupt it is
    /// not: there the socket is only taken when no process has it.
    #[inline(always)]
    pub fn is_in_process(self) -> bool {
        self.get::<u32>(&field::SOCK_OWNED) != 0
    }

    /// Inode of its network namespace.
    #[inline(always)]
    pub fn netns(self) -> u32 {
        // SAFETY: `Probed` copes with any address.
        unsafe { Probed::read(Probed::pointer(self.0, &field::SOCK_NET), &field::NET_INUM) }
    }

    /// The device that it sends through; null while it has no route.
    #[inline(always)]
    pub fn device(self) -> Device {
        // SAFETY: `Probed` copes with any address. The lowest bit of the route is a mark.
        unsafe {
            let route = Probed::read::<usize>(self.0, &field::SOCK_DST) & !1;
            if route == 0 {
                return Device(core::ptr::null());
            }
            Device(Probed::pointer(route as *const u8, &field::DST_DEV))
        }
    }

    /// Index of the device that it received from last; 0 where not known.
    #[inline(always)]
    pub fn rx_ifindex(self) -> u32 {
        if has(&field::SOCK_RX_IFINDEX) {
            self.get(&field::SOCK_RX_IFINDEX)
        } else {
            0
        }
    }

    /// Smoothed round trip in microseconds; 0 before the first one.
    #[inline(always)]
    pub fn srtt_us(self) -> u32 {
        self.get::<u32>(&field::TCP_SRTT) >> 3
    }

    /// The shortest round trip of the last minutes, microseconds.
    #[inline(always)]
    pub fn min_rtt_us(self) -> u32 {
        // When, and how long.
        self.get::<[u32; 2]>(&field::TCP_RTT_MIN)[1]
    }

    /// The retransmission timer that runs or has just expired, microseconds.
    #[inline(always)]
    pub fn rto_us(self) -> u64 {
        let srtt = self.srtt_us();
        // The kernel's own sum (`__tcp_set_rto`); before the first round trip, a second.
        let rto = if srtt == 0 {
            1_000_000
        } else {
            u64::from(srtt) + u64::from(self.get::<u32>(&field::TCP_RTTVAR))
        };
        (rto << (self.get::<u8>(&field::CSK_BACKOFF) & 15)).min(120_000_000)
    }

    /// The retransmission timer has expired since the last progress.
    #[inline(always)]
    pub fn timer_expired(self) -> bool {
        self.get::<u8>(&field::CSK_RETRANSMITS) != 0
    }

    /// Segments that were sent and not acknowledged.
    #[inline(always)]
    pub fn packets_out(self) -> u32 {
        self.get(&field::TCP_PACKETS_OUT)
    }

    /// Segments that arrived at the other end.
    #[inline(always)]
    pub fn delivered(self) -> u32 {
        self.get(&field::TCP_DELIVERED)
    }

    /// When the last of them was acknowledged, or, if nothing was under way since, when the first
    /// one was sent that is; 0 where the kernel does not say. Nanoseconds of the monotonic clock.
    ///
    /// kernel: v5.10.. net/ipv4/tcp_rate.c: tcp_rate_skb_sent, tcp_rate_skb_delivered
    #[inline(always)]
    pub fn last_progress_ns(self) -> u64 {
        self.stamp_ns(&field::TCP_PROGRESS)
    }

    /// When the segment that was acknowledged last, or else the first of those under way, was sent;
    /// 0 where the kernel does not say. Nanoseconds of the monotonic clock.
    ///
    /// kernel: v5.10.. net/ipv4/tcp_rate.c, as above
    #[inline(always)]
    pub fn sent_ns(self) -> u64 {
        self.stamp_ns(&field::TCP_FIRST_SENT)
    }

    #[inline(always)]
    fn stamp_ns(self, field: &Global<u32>) -> u64 {
        if has(field) {
            self.get::<u64>(field).wrapping_mul(1000)
        } else {
            0
        }
    }

    /// A number for this end of the connection and one for the other, which has the same two the
    /// other way round, unless addresses are translated in between; 0 where not known.
    #[inline(always)]
    pub fn ends(self) -> (u64, u64) {
        let (port, remote_port) = (
            self.port(),
            u16::from_be(self.get(&field::SOCK_REMOTE_PORT)),
        );
        if !has(&field::SOCK_FAMILY) || port == 0 || remote_port == 0 {
            return (0, 0);
        }
        let mut local = [0, self.get::<u32>(&field::SOCK_ADDRESS).into()];
        let mut remote = [0, self.get::<u32>(&field::SOCK_REMOTE_ADDRESS).into()];
        if self.get::<u16>(&field::SOCK_FAMILY) == AF_INET6 {
            let remote_v6 = self.get::<[u64; 2]>(&field::SOCK_REMOTE_ADDRESS_V6);
            // ::ffff:0:0/96 is IPv4 by a socket that can do both.
            if remote_v6[0] != 0 || (remote_v6[1] as u32).swap_bytes() != 0xffff {
                local = self.get::<[u64; 2]>(&field::SOCK_ADDRESS_V6);
                remote = remote_v6;
            }
        }
        (end(local, port), end(remote, remote_port))
    }

    /// The next byte that it has not got; 0 where the kernel does not say.
    #[inline(always)]
    pub fn expects(self) -> u32 {
        if has(&field::TCP_RCV_NXT) {
            self.get::<u32>(&field::TCP_RCV_NXT)
        } else {
            0
        }
    }

    /// What this socket expects next lies in what the other one has sent and was told of: it is
    /// the other end of this connection, whoever else has the same addresses elsewhere.
    #[inline(always)]
    pub fn receives_from(self, other: Self) -> bool {
        let next = self.get::<u32>(&field::TCP_RCV_NXT);
        let first = other.get::<u32>(&field::TCP_SND_UNA);
        let sent = other.get::<u32>(&field::TCP_SND_NXT).wrapping_sub(first);
        has(&field::TCP_RCV_NXT) && next.wrapping_sub(first) <= sent
    }

    /// Ticks so far in which the other end's window let nothing be sent; the present such time is
    /// added at its end.
    ///
    /// kernel: v5.10.. net/ipv4/tcp_output.c: tcp_chrono_stop, TCP_CHRONO_RWND_LIMITED
    #[inline(always)]
    pub fn window_limited_ticks(self) -> u32 {
        if has(&field::TCP_CHRONO_STAT) {
            self.get::<[u32; 3]>(&field::TCP_CHRONO_STAT)[1]
        } else {
            0
        }
    }

    /// Where its window ends, if it has told the other end that there is no room in it. No other
    /// closed window of the connection ends there before 4 GiB were sent.
    ///
    /// kernel: v5.10.. net/ipv4/tcp_output.c: tcp_select_window
    #[inline(always)]
    pub fn closed_window(self) -> Option<u32> {
        let known = has(&field::TCP_RCV_WUP) && has(&field::TCP_RCV_WND);
        (known && self.get::<u32>(&field::TCP_RCV_WND) == 0).then(|| self.get(&field::TCP_RCV_WUP))
    }

    /// Of one that listens: connections that it did not take so far.
    ///
    /// kernel: v5.10.. include/net/tcp.h: tcp_listendrop
    #[inline(always)]
    pub fn drops(self) -> u32 {
        if has(&field::SOCK_DROPS) {
            self.get(&field::SOCK_DROPS)
        } else {
            0
        }
    }

    /// It was accepted rather than connected; false where the kernel does not say. An accepted
    /// connection shares the local port with who listens on it; one that was connected got a
    /// port that is marked as picked for that.
    ///
    /// kernel: v5.10.. net/ipv4/inet_hashtables.c: __inet_inherit_port, __inet_hash_connect
    #[inline(always)]
    pub fn is_accepted(self) -> bool {
        if !has(&field::CSK_BIND_HASH) || !has(&field::BIND_FASTREUSE) {
            return false;
        }
        // SAFETY: `Probed` copes with any address.
        unsafe {
            let port = Probed::pointer(self.0, &field::CSK_BIND_HASH);
            !port.is_null() && Probed::read::<u8>(port, &field::BIND_FASTREUSE) < 0x80
        }
    }

    /// Its local port.
    #[inline(always)]
    pub fn port(self) -> u16 {
        self.get(&field::SOCK_PORT)
    }

    /// Its local port as others know it: one that is closed has it still, where its own is lost.
    ///
    /// kernel: v5.10.. net/ipv4/inet_hashtables.c: __inet_put_port
    #[inline(always)]
    pub fn port_to_others(self) -> u16 {
        match self.port() {
            0 if has(&field::INET_SPORT) => self.get::<u16>(&field::INET_SPORT).swap_bytes(),
            port => port,
        }
    }

    /// The queue of its device that it sends through; of a device with one only, any number.
    #[inline(always)]
    pub fn tx_queue(self) -> u32 {
        self.get::<u16>(&field::SOCK_TX_QUEUE).into()
    }

    /// Low half of the tick at which it sent data last.
    #[inline(always)]
    pub fn last_sent_tick(self) -> u32 {
        self.get(&field::TCP_LAST_SENT)
    }

    /// Low half of the tick at which data came last; `None` where the kernel does not say.
    #[inline(always)]
    pub fn last_received_tick(self) -> Option<u32> {
        has(&field::CSK_LAST_RECEIVED).then(|| self.get(&field::CSK_LAST_RECEIVED))
    }

    /// Segments sent again so far.
    #[inline(always)]
    pub fn total_retransmits(self) -> u32 {
        self.get(&field::TCP_TOTAL_RETRANS)
    }
}

impl Device {
    #[inline(always)]
    fn get<T: Copy + Default>(self, field: &Global<u32>) -> T {
        // SAFETY: `Probed` copes with any address.
        unsafe { Probed::read(self.0, field) }
    }

    #[inline(always)]
    fn pointer(self, field: &Global<u32>) -> *const u8 {
        // SAFETY: as above.
        unsafe { Probed::pointer(self.0, field) }
    }

    /// Any address: what is not there reads as 0.
    #[inline(always)]
    pub fn at(address: u64) -> Self {
        Self(address as *const u8)
    }

    /// None.
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// See [`device_id`]; 0 where there is no device at the address.
    #[inline(always)]
    pub fn id(self) -> u64 {
        let ifindex = self.get::<u32>(&field::DEV_IFINDEX);
        // SAFETY: `Probed` copes with any address.
        let netns = unsafe { Probed::read(self.pointer(&field::DEV_NET), &field::NET_INUM) };
        if ifindex == 0 || netns < FIRST_NAMESPACE {
            return 0;
        }
        device_id(netns, ifindex)
    }

    /// Transmit queues in use.
    #[inline(always)]
    pub fn tx_queues(self) -> u32 {
        self.get(&field::DEV_TX_QUEUES)
    }

    /// Ticks that a queue may stand still before the watchdog says so; 0 where not known.
    #[inline(always)]
    pub fn watchdog_ticks(self) -> u32 {
        if !has(&field::DEV_WATCHDOG_TIMEO) {
            return 0;
        }
        self.get(&field::DEV_WATCHDOG_TIMEO)
    }

    /// One of them; null where it cannot be found.
    #[inline(always)]
    pub fn tx_queue(self, index: u32) -> TxQueue {
        let bytes = NETDEV_QUEUE_BYTES.load();
        if bytes == 0 || !has(&field::DEV_TX) || !has(&field::TXQ_TRANS_START) {
            return TxQueue(core::ptr::null());
        }
        let first = self.pointer(&field::DEV_TX);
        TxQueue(first.wrapping_add((u64::from(index) * bytes) as usize))
    }

    /// What it is.
    #[inline(always)]
    pub fn describe(self, facts: &mut DeviceFacts) {
        facts.name = self.get::<[u8; NAME_BYTES]>(&field::DEV_NAME);
        facts.hardware = self.get::<u16>(&field::DEV_TYPE).into();
        let ops = self.pointer(&field::DEV_LINK_OPS);
        if !ops.is_null() {
            text(ops, &field::LINK_OPS_KIND, &mut facts.kind);
        }
        let parent = self.pointer(&field::DEV_PARENT);
        if !parent.is_null() {
            text(parent, &field::DEVICE_NAME, &mut facts.parent);
        }
    }
}

impl TxQueue {
    /// Any address: what is not there reads as 0.
    #[inline(always)]
    pub fn at(address: u64) -> Self {
        Self(address as *const u8)
    }

    /// The address.
    #[inline(always)]
    pub fn address(self) -> u64 {
        self.0 as u64
    }

    /// Low half of the tick at which it transmitted last.
    #[inline(always)]
    pub fn last_tick(self) -> u32 {
        // SAFETY: `Probed` copes with any address.
        unsafe { Probed::read::<u64>(self.0, &field::TXQ_TRANS_START) as u32 }
    }
}

impl Packet {
    /// Any address: what is not there reads as 0.
    #[inline(always)]
    pub fn at(address: u64) -> Self {
        Self(address as *const u8)
    }

    /// The device that it is on. Some layers keep other things there, which then have no
    /// [`Device::id`].
    #[inline(always)]
    pub fn device(self) -> Device {
        // SAFETY: `Probed` copes with any address.
        Device(unsafe { Probed::pointer(self.0, &field::SKB_DEV) })
    }

    /// The socket that sent it, while it is on its way out.
    #[inline(always)]
    pub fn socket(self) -> Sock {
        // SAFETY: as above.
        Sock(unsafe { Probed::pointer(self.0, &field::SKB_SK) })
    }

    /// Index of the device that it came in by.
    #[inline(always)]
    pub fn in_ifindex(self) -> u32 {
        // SAFETY: as above.
        unsafe { Probed::read(self.0, &field::SKB_IIF) }
    }

    /// Which way it goes as a segment of this socket, if it carries data or asks for a connection;
    /// `None` for what nobody waits for (an acknowledgement), and where that is not known.
    #[inline(always)]
    pub fn way(self, sock: Sock) -> Option<Way> {
        const NOT_SET: u16 = u16::MAX;
        const SYN: u8 = 2;
        if !has(&field::SKB_TRANSPORT) || !has(&field::SKB_HEAD) || !has(&field::SOCK_PORT) {
            return None;
        }
        // SAFETY: `Probed` and the helper cope with any address.
        unsafe {
            let offset = Probed::read::<u16>(self.0, &field::SKB_TRANSPORT);
            if offset == NOT_SET {
                return None;
            }
            let tcp = Probed::pointer(self.0, &field::SKB_HEAD).wrapping_add(offset.into());
            // Source port, destination port, two numbers, length in words, flags.
            let header = bpf_probe_read_kernel(tcp.cast::<[u8; 14]>()).ok()?;
            let before = (tcp as i64) - (Probed::pointer(self.0, &field::SKB_DATA) as i64);
            let bytes = i64::from(Probed::read::<u32>(self.0, &field::SKB_LEN))
                - before
                - i64::from(header[12] >> 4) * 4;
            if bytes <= 0 && header[13] & SYN == 0 {
                return None;
            }
            let port = sock.port();
            if u16::from_be_bytes([header[0], header[1]]) == port {
                Some(Way::Out)
            } else if u16::from_be_bytes([header[2], header[3]]) == port {
                Some(Way::In)
            } else {
                None
            }
        }
    }

    /// Segments that it stands for, while TCP has it.
    #[inline(always)]
    pub fn tcp_segments(self) -> u32 {
        let cb = self.0.wrapping_add(field::SKB_CB.load() as usize);
        // SAFETY: as above.
        unsafe { Probed::read::<u16>(cb, &field::TCP_CB_SEGMENTS) }.into()
    }
}

/// One end's number.
#[inline(always)]
fn end(address: [u64; 2], port: u16) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut mixed = u64::from(port).wrapping_mul(ODD);
    mixed = (mixed.rotate_left(29) ^ address[0]).wrapping_mul(ODD);
    (mixed.rotate_left(29) ^ address[1]).wrapping_mul(ODD)
}

#[inline(always)]
fn text<const N: usize>(base: *const u8, field: &Global<u32>, out: &mut [u8; N]) {
    // SAFETY: `Probed` copes with any address, and so does the helper.
    unsafe {
        let from = Probed::pointer(base, field);
        let _ = bpf_probe_read_kernel_str_bytes(from, out);
    }
}
