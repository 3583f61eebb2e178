//! `net`: packets dropped, with the kernel's own reason; stuck transmit queues; who sends UDP.
//!
//! A packet that reached its end is freed on another path and never comes here. Those that
//! do come are counted under their reason, device and, where a process owns the socket, its
//! cgroup; single ones are told at most once a tick of the clock for each of these, as a
//! flood drops hundreds of thousands a second.

pub mod stall;
mod udp;

use agent_common::{
    device::device_id,
    event::{
        Record,
        net::{KIND_DROP, KIND_TX_TIMEOUT},
        sensor,
    },
    series::{SeriesKey, family},
};
use aya_ebpf::{
    Global,
    helpers::{bpf_get_smp_processor_id, bpf_jiffies64, bpf_ktime_get_ns},
    macros::{map, raw_tracepoint},
    maps::Array,
    programs::RawTracePointContext,
};

use super::tcp::{Flow, Owner, flow_of};
use crate::{
    device, emit,
    kernel::{
        argument,
        net::{Device, Packet, Sock, Way},
    },
    series,
};

/// Reasons below 64 that are normal life, one bit each; user space knows their numbers.
#[unsafe(no_mangle)]
static DROPS_NORMAL_LOW: Global<u64> = Global::new(u64::MAX);
/// Those from 64 to 127.
#[unsafe(no_mangle)]
static DROPS_NORMAL_HIGH: Global<u64> = Global::new(u64::MAX);

/// Entries of [`LAST_TOLD`]; a power of two.
const TOLD: u32 = 1024;

/// The last tick at which a drop was told, by some bits of its reason, device and cgroup.
#[map]
static LAST_TOLD: Array<u64> = Array::with_max_entries(TOLD, 0);

/// kernel: v5.17.. include/trace/events/skb.h: kfree_skb(struct sk_buff *skb, void *location,
/// enum skb_drop_reason reason, struct sock *rx_sk); the last from 6.11 on. Before 5.17 there
/// was no reason, nor a way to tell a drop from any other end of a packet.
#[raw_tracepoint(tracepoint = "kfree_skb")]
pub fn net_drop(ctx: RawTracePointContext) -> u32 {
    let reason: u64 = ctx.arg(2);
    let reason = reason as u32;
    if is_normal(reason) {
        return 0;
    }
    let receiver = if argument::KFREE_SKB_SOCKET.load() != 0 {
        ctx.arg(3)
    } else {
        0
    };
    dropped(ctx.arg(0), receiver, reason)
}

#[inline(never)]
fn dropped(packet: u64, receiver: u64, reason: u32) -> u32 {
    let packet = Packet::at(packet);
    let sock = if receiver != 0 {
        Sock::at(receiver)
    } else {
        packet.socket()
    };
    let flow = flow_of(sock);
    let owner = match flow {
        // SAFETY: a map's value; it is copied out at once.
        Some(flow) => unsafe { (*flow).owner },
        None => Owner::NOBODY,
    };
    let mut device = device::meet(packet.device());
    if device == 0 && sock.address() != 0 {
        if !sock.is_ip() {
            return 0; // a message that crosses no network, of a kernel that names no reason for it
        }
        // On its way out it is on none yet; further in, a protocol keeps other things there.
        let ifindex = packet.in_ifindex();
        device = if ifindex != 0 {
            device_id(sock.netns(), ifindex)
        } else if sock.is_full() {
            device::meet(sock.device())
        } else {
            0
        };
        if device == 0 {
            device = device_id(sock.netns(), 0);
        }
    }
    let key = SeriesKey {
        cgroup_id: owner.cgroup_id,
        family: family::NET_DROPS,
        a: reason,
        b: device,
    };
    series::count(sensor::NET, &key, 1);
    if let Some(flow) = flow
        && let Some(way) = packet.way(sock)
    {
        note(flow, (way, sock), device, reason);
    }
    if owner.pid != 0 && is_worth_telling(&key) {
        tell(KIND_DROP, owner, device, reason);
    }
    0
}

/// Keeps with the connection what somebody may wait for now; how long, the `tcp` sensor tells.
#[inline(always)]
fn note(flow: *mut Flow, (way, sock): (Way, Sock), device: u64, reason: u32) {
    // SAFETY: returns a number.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a map's value. The socket's lock need not be held here: when its owner tells of a
    // drop at the same time, this one is told with it or not at all.
    let dropped = unsafe { &mut (*flow).dropped };
    match way {
        Way::Out => {
            dropped.last_out_ns = now_ns;
            if dropped.out_ns == 0 {
                dropped.out_ns = now_ns;
                dropped.is_alone = (sock.packets_out() == 0).into();
            }
            (dropped.out_device, dropped.out_reason) = (device, reason);
        }
        Way::In => {
            if dropped.in_ns == 0 {
                dropped.in_ns = now_ns;
                dropped.in_next = sock.expects();
            }
            (dropped.in_device, dropped.in_reason) = (device, reason);
        }
    }
}

/// kernel: v5.10.. include/trace/events/net.h: net_dev_xmit_timeout(struct net_device *dev,
/// int queue_index)
#[raw_tracepoint(tracepoint = "net_dev_xmit_timeout")]
pub fn net_tx_timeout(ctx: RawTracePointContext) -> u32 {
    let (device, queue): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    timed_out(Device::at(device), queue as u32)
}

#[inline(never)]
fn timed_out(stuck: Device, queue: u32) -> u32 {
    let device = device::meet(stuck);
    let key = SeriesKey {
        cgroup_id: 0,
        family: family::NET_TX_TIMEOUTS,
        a: 0,
        b: device,
    };
    series::count(sensor::NET, &key, 1);
    let since_ns = stall::found(stuck, device, queue);
    tell_from(since_ns, KIND_TX_TIMEOUT, Owner::NOBODY, device, queue);
    0
}

#[inline(always)]
fn is_normal(reason: u32) -> bool {
    let mask = match reason {
        0..64 => DROPS_NORMAL_LOW.load(),
        64..128 => DROPS_NORMAL_HIGH.load(),
        _ => return false,
    };
    mask >> (reason & 63) & 1 != 0
}

#[inline(always)]
fn is_worth_telling(key: &SeriesKey) -> bool {
    // SAFETY: returns a number.
    let tick = unsafe { bpf_jiffies64() };
    let bits = key.b ^ key.b >> 32 ^ key.cgroup_id ^ u64::from(key.a) << 4;
    let Some(last) = LAST_TOLD.get_ptr_mut(bits as u32 & (TOLD - 1)) else {
        return false; // cannot be: the index is masked to the table's length
    };
    // SAFETY: a map's value; when others write it at the same time, one drop more is told.
    unsafe {
        let told = *last == tick;
        *last = tick;
        !told
    }
}

#[inline(always)]
fn tell(kind: u32, owner: Owner, device: u64, extra: u32) {
    tell_from(u64::MAX, kind, owner, device, extra);
}

/// From then until now; of a time to come, of this moment.
#[inline(always)]
fn tell_from(start_ns: u64, kind: u32, owner: Owner, device: u64, extra: u32) {
    // SAFETY: return numbers.
    let (now_ns, cpu) = unsafe { (bpf_ktime_get_ns(), bpf_get_smp_processor_id()) };
    emit::record(&Record {
        sensor: sensor::NET,
        kind,
        start_ns: start_ns.min(now_ns),
        end_ns: now_ns,
        cgroup_id: owner.cgroup_id,
        detail: device,
        leader_start_boottime_ns: owner.leader_start_boottime_ns,
        pid: owner.pid,
        tid: owner.tid,
        cpu,
        extra,
    });
}
