//! The one table of kernel structure members that the programs read.
//!
//! The daemon resolves each in the running kernel's BTF and hands the byte offset to the
//! programs as a constant of the same name; what the kernel does not have is [`ABSENT`],
//! and the verifier then removes the code that would have used it. A path goes through
//! embedded structures (`se.cfs_rq`), anonymous members are searched, `[name]` is an array
//! element whose index is the value of an enumerator, and the size is checked so that a
//! member that became something else counts as absent.

/// Offset of a member that the running kernel does not have.
pub const ABSENT: u32 = u32::MAX;

/// In [`KernelField::needed_by`]: no sensor works without it.
pub const EVERY_SENSOR: &str = "every";
/// In [`KernelField::needed_by`]: every sensor can do without it, some less well.
pub const NOBODY: &str = "optional";

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelField {
    /// Name of the constant in the eBPF object.
    pub symbol: &'static str,
    /// The structure.
    pub structure: &'static str,
    /// Path of the member.
    pub path: &'static str,
    /// Its size in bytes; 0: it is a single bit, and the constant is its offset in bits.
    pub size: u32,
    /// Who cannot work without it: a sensor's name, [`EVERY_SENSOR`] or [`NOBODY`].
    pub needed_by: &'static str,
}

/// Calls the macro `$then` with every row:
/// `CONSTANT: "structure" "path" bytes who, "what it is";`, where who is the
/// sensor that needs it, `every` or `optional`.
#[macro_export]
macro_rules! for_each_kernel_field {
    ($then:ident) => {
        $then! {
            // Tasks and cgroups: every sensor.
            TASK_PID: "task_struct" "pid" 4 every, "thread id";
            TASK_TGID: "task_struct" "tgid" 4 every, "thread group id";
            TASK_GROUP_LEADER: "task_struct" "group_leader" 8 every, "first thread of the group";
            TASK_START_BOOTTIME: "task_struct" "start_boottime" 8 every, "ns since boot; 5.5";
            TASK_CFS_RQ: "task_struct" "se.cfs_rq" 8 cpu, "queue of the task's group on its CPU; FAIR_GROUP_SCHED";
            TASK_SE_PARENT: "task_struct" "se.parent" 8 optional, "what stands for its group in the queue above; null in the root group";
            SE_PARENT: "sched_entity" "parent" 8 optional, "likewise, one level up";
            SE_CFS_RQ: "sched_entity" "cfs_rq" 8 optional, "the queue that it stands in";
            TASK_CGROUPS: "task_struct" "cgroups" 8 every, "its css_set";
            TASK_LAST_QUEUED: "task_struct" "sched_info.last_queued" 8 cpu, "rq clock at which it became runnable; SCHED_INFO";
            TASK_LAST_ARRIVAL: "task_struct" "sched_info.last_arrival" 8 cpu, "rq clock at which it last got a CPU";
            TASK_RUN_DELAY: "task_struct" "sched_info.run_delay" 8 cpu, "ns waited so far, throttle included";
            TASK_PCOUNT: "task_struct" "sched_info.pcount" 8 cpu, "times it got a CPU";
            TASK_THROTTLED: "task_struct" "throttled" 1 optional, "taken off its queue by a quota; 6.18";
            TASK_CPUS_ALLOWED: "task_struct" "nr_cpus_allowed" 4 optional, "how many CPUs it may run on, also such that are not there";
            TASK_CPUS: "task_struct" "cpus_ptr" 8 optional, "which, a bit each";
            CFS_RQ_RQ: "cfs_rq" "rq" 8 cpu, "the CPU's queue";
            CFS_RQ_TG: "cfs_rq" "tg" 8 optional, "its group";
            CFS_RQ_THROTTLE_COUNT: "cfs_rq" "throttle_count" 4 optional, "throttled groups among it and its ancestors";
            CFS_RQ_SELF_CLOCK: "cfs_rq" "throttled_clock_self" 8 optional, "rq clock since which it is held back, by itself or an ancestor; 6.6";
            CFS_RQ_SELF_TIME: "cfs_rq" "throttled_clock_self_time" 8 optional, "ns held back so far, without the present throttle; 6.6";
            CFS_RQ_PELT_CLOCK: "cfs_rq" "throttled_clock_pelt" 8 optional, "load-tracking clock at the start of the last throttle";
            CFS_RQ_PELT_TIME: "cfs_rq" "throttled_clock_pelt_time" 8 optional, "as the self time, in the load-tracking clock";
            RQ_CLOCK: "rq" "clock" 8 cpu, "the clock of everything above";
            RQ_CLOCK_PELT: "rq" "clock_pelt" 8 optional, "load-tracking clock, lost idle time included";
            RQ_LOST_IDLE_TIME: "rq" "lost_idle_time" 8 optional, "what to subtract from it";
            TG_CGROUP: "task_group" "css.cgroup" 8 optional, "its cgroup";
            CSS_SET_DFL_CGRP: "css_set" "dfl_cgrp" 8 every, "cgroup in the unified hierarchy";
            CSS_SET_CPU: "css_set" "subsys[cpu_cgrp_id]" 8 every, "state in the CPU controller's hierarchy; CGROUP_SCHED";
            CSS_CGROUP: "cgroup_subsys_state" "cgroup" 8 every, "the cgroup of a state";
            CGROUP_KN: "cgroup" "kn" 8 every, "its directory";
            KERNFS_NODE_ID: "kernfs_node" "id" 8 every, "inode; 5.5";
            // tcp
            SOCK_STATE: "sock_common" "skc_state" 1 tcp, "TCP_ESTABLISHED ..";
            SOCK_NET: "sock_common" "skc_net.net" 8 tcp, "its network namespace";
            SOCK_OWNED: "sock" "sk_lock.owned" 4 tcp, "1 while a process holds its lock, 0 in interrupts";
            SOCK_FAMILY: "sock_common" "skc_family" 2 optional, "AF_";
            SOCK_PORT: "sock_common" "skc_num" 2 optional, "local port";
            INET_SPORT: "inet_sock" "inet_sport" 2 optional, "local port as others know it, big endian";
            SOCK_REMOTE_PORT: "sock_common" "skc_dport" 2 optional, "the other end's, big endian";
            SOCK_ADDRESS: "sock_common" "skc_rcv_saddr" 4 optional, "local address";
            SOCK_REMOTE_ADDRESS: "sock_common" "skc_daddr" 4 optional, "the other end's";
            SOCK_ADDRESS_V6: "sock_common" "skc_v6_rcv_saddr" 16 optional, "local address; IPV6";
            SOCK_REMOTE_ADDRESS_V6: "sock_common" "skc_v6_daddr" 16 optional, "the other end's; IPV6";
            SOCK_PROTOCOL: "sock" "sk_protocol" 2 tcp, "IPPROTO_; a bit-field before 5.6";
            SOCK_DST: "sock" "sk_dst_cache" 8 tcp, "the route that it sends by";
            SOCK_RX_IFINDEX: "sock" "sk_rx_dst_ifindex" 4 optional, "device that it received from; 5.17";
            CSK_BIND_HASH: "inet_connection_sock" "icsk_bind_hash" 8 optional, "who else has its local port";
            BIND_FASTREUSE: "inet_bind_bucket" "fastreuse" 1 optional, "-1: the port was picked for a connect()";
            CSK_BACKOFF: "inet_connection_sock" "icsk_backoff" 1 tcp, "times that the timer was doubled";
            CSK_RETRANSMITS: "inet_connection_sock" "icsk_retransmits" 1 tcp, "times that the timer expired";
            TCP_SRTT: "tcp_sock" "srtt_us" 4 tcp, "smoothed round trip, us times 8";
            TCP_RTTVAR: "tcp_sock" "rttvar_us" 4 tcp, "variance times 4, at least the minimal timer, us";
            TCP_RTT_MIN: "tcp_sock" "rtt_min" 24 tcp, "shortest round trips of late, the first is the shortest";
            TCP_PACKETS_OUT: "tcp_sock" "packets_out" 4 tcp, "segments under way";
            TCP_DELIVERED: "tcp_sock" "delivered" 4 tcp, "segments that arrived";
            TCP_PROGRESS: "tcp_sock" "delivered_mstamp" 8 optional, "when the last of them was known to have, or sending began anew, us";
            TCP_FIRST_SENT: "tcp_sock" "first_tx_mstamp" 8 optional, "when what was acknowledged last, or the first of what is under way, was sent, us";
            TCP_TOTAL_RETRANS: "tcp_sock" "total_retrans" 4 tcp, "segments sent again";
            TCP_SND_UNA: "tcp_sock" "snd_una" 4 optional, "first byte sent that is not acknowledged";
            TCP_SND_NXT: "tcp_sock" "snd_nxt" 4 optional, "next byte to send";
            TCP_RCV_NXT: "tcp_sock" "rcv_nxt" 4 optional, "next byte expected";
            TCP_RCV_WUP: "tcp_sock" "rcv_wup" 4 optional, "next byte expected when a window was last announced";
            TCP_RCV_WND: "tcp_sock" "rcv_wnd" 4 optional, "that window, bytes";
            TCP_CHRONO_STAT: "tcp_sock" "chrono_stat" 12 optional, "ticks in which it had data to send, could not for the other end's window, could not for its own buffer";
            SOCK_DROPS: "sock" "sk_drops" 4 optional, "of one that listens: connections that it did not take";
            TCP_CB_SEGMENTS: "tcp_skb_cb" "tcp_gso_segs" 2 tcp, "segments in one buffer";
            SKB_CB: "sk_buff" "cb" 48 tcp, "where that is";
            NET_INUM: "net" "ns.inum" 4 tcp, "inode of the namespace";
            DST_DEV: "dst_entry" "dev" 8 tcp, "device of a route";
            DEV_IFINDEX: "net_device" "ifindex" 4 tcp, "its index";
            DEV_NET: "net_device" "nd_net.net" 8 tcp, "its namespace";
            DEV_NAME: "net_device" "name" 16 tcp, "its name";
            DEV_TYPE: "net_device" "type" 2 tcp, "ARPHRD_";
            DEV_LINK_OPS: "net_device" "rtnl_link_ops" 8 tcp, "of software devices";
            DEV_PARENT: "net_device" "dev.parent" 8 tcp, "bus device";
            LINK_OPS_KIND: "rtnl_link_ops" "kind" 8 tcp, "veth, bridge, ..";
            DEVICE_NAME: "device" "kobj.name" 8 tcp, "name of a bus device";

            // net
            SKB_DEV: "sk_buff" "dev" 8 net, "device that it is on; shared with other uses";
            SKB_IIF: "sk_buff" "skb_iif" 4 net, "device that it came in by";
            SOCKET_SK: "socket" "sk" 8 optional, "what is behind a program's socket";
            SKB_SK: "sk_buff" "sk" 8 net, "socket that it belongs to";
            SKB_LEN: "sk_buff" "len" 4 optional, "bytes from its data on";
            SKB_HEAD: "sk_buff" "head" 8 optional, "its memory";
            SKB_DATA: "sk_buff" "data" 8 optional, "where whoever has it now begins to read";
            SKB_TRANSPORT: "sk_buff" "transport_header" 2 optional, "where TCP begins, from its memory's begin";
            SOCK_TX_QUEUE: "sock_common" "skc_tx_queue_mapping" 2 optional, "queue that it sends through";
            TCP_LAST_SENT: "tcp_sock" "lsndtime" 4 optional, "tick at which it sent data last";
            CSK_LAST_RECEIVED: "inet_connection_sock" "icsk_ack.lrcvtime" 4 optional, "tick at which data came last";
            DEV_TX: "net_device" "_tx" 8 optional, "its transmit queues";
            DEV_TX_QUEUES: "net_device" "real_num_tx_queues" 4 optional, "how many are in use";
            DEV_WATCHDOG_TIMEO: "net_device" "watchdog_timeo" 4 optional, "ticks that a queue may stand still";
            TXQ_TRANS_START: "netdev_queue" "trans_start" 8 optional, "tick at which it transmitted last";

            // block
            RQ_QUEUE: "request" "q" 8 block, "its queue";
            RQ_FLAGS: "request" "cmd_flags" 4 block, "operation and flags";
            RQ_DATA_LEN: "request" "__data_len" 4 block, "bytes not completed yet";
            RQ_BIO: "request" "bio" 8 block, "the first I/O merged into it that is not completed yet";
            RQ_START: "request" "start_time_ns" 8 block, "monotonic clock at its allocation; 0 without statistics";
            RQ_IO_START: "request" "io_start_time_ns" 8 optional, "at which the device got it; 0 where nobody asked the kernel to note it";
            RQ_DISK: "request" "rq_disk" 8 optional, "its disk; until 5.16";
            QUEUE_DISK: "request_queue" "disk" 8 optional, "its disk; 5.15";
            DISK_MAJOR: "gendisk" "major" 4 block, "major number";
            DISK_MINOR: "gendisk" "first_minor" 4 block, "minor number of the whole disk";
            BIO_NEXT: "bio" "bi_next" 8 block, "the next of the same request";
            BIO_VCNT: "bio" "bi_vcnt" 2 block, "pieces of memory; none for a flush";
            BIO_BDEV: "bio" "bi_bdev" 8 optional, "its device; 5.12";
            BIO_DISK: "bio" "bi_disk" 8 optional, "its disk; until 5.11";
            BDEV_DISK: "block_device" "bd_disk" 8 optional, "its disk";
            BIO_OPF: "bio" "bi_opf" 4 block, "operation and flags";
            BIO_BLKG: "bio" "bi_blkg" 8 optional, "its cgroup's share of the queue; BLK_CGROUP";
            BIO_ISSUE: "bio" "bi_issue.value" 8 optional, "low bits: monotonic clock at submission; until 6.17";
            BLKG_BLKCG: "blkcg_gq" "blkcg" 8 optional, "that cgroup's state";
            BLKCG_CGROUP: "blkcg" "css.cgroup" 8 optional, "the cgroup";
            BIO_IO_VEC: "bio" "bi_io_vec" 8 optional, "its pieces of memory";
            BVEC_PAGE: "bio_vec" "bv_page" 8 optional, "page of a piece";
            PAGE_COMPOUND_HEAD: "page" "compound_head" 8 optional, "low bit: the rest is the first page of the same folio; until 6.18";
            FOLIO_MEMCG: "folio" "memcg_data" 8 optional, "low bits: flags, the rest is who it is charged to; 5.16";
            PAGE_MEMCG: "page" "memcg_data" 8 optional, "likewise; 5.11";
            MEMCG_CGROUP: "mem_cgroup" "css.cgroup" 8 optional, "its cgroup";
            CSS_SET_IO: "css_set" "subsys[io_cgrp_id]" 8 optional, "state in the I/O controller's hierarchy";
            TASK_STATE: "task_struct" "__state" 4 optional, "0 while runnable; 5.14";
            TASK_STATE_LONG: "task_struct" "state" 8 optional, "likewise; before";
            TASK_FLAGS: "task_struct" "flags" 4 block, "PF_ flags";
            TASK_WORKER_PRIVATE: "task_struct" "worker_private" 8 optional, "struct kthread; 5.17";
            TASK_SET_CHILD_TID: "task_struct" "set_child_tid" 8 optional, "likewise for a kernel thread; before";
            KTHREAD_DATA: "kthread" "data" 8 optional, "struct worker for a worker";
            WORKER_PWQ: "worker" "current_pwq" 8 optional, "whose work it does";
            PWQ_WQ: "pool_workqueue" "wq" 8 optional, "the work queue";
            WQ_NAME: "workqueue_struct" "name" 24 optional, "its name; until 6.9";
            WQ_NAME_LONG: "workqueue_struct" "name" 32 optional, "its name; 6.10";

            // seccomp and wait: the system call that a thread is in
            PT_REGS_ORIG_AX: "pt_regs" "orig_ax" 8 optional, "x86: number of the system call, or a fault's error code";
            PT_REGS_AX: "pt_regs" "ax" 8 optional, "x86: its result";
            PT_REGS_CX: "pt_regs" "cx" 8 optional, "x86: in a system call the same as ip";
            PT_REGS_IP: "pt_regs" "ip" 8 optional, "x86: where it was made";
            PT_REGS_DI: "pt_regs" "di" 8 optional, "x86: its first argument";
            PT_REGS_SYSCALLNO: "pt_regs" "syscallno" 4 optional, "arm64: number of the system call, -1 outside";
            PT_REGS_ORIG_X0: "pt_regs" "orig_x0" 8 optional, "arm64: its first argument";
            PT_REGS_CS: "pt_regs" "cs" 8 optional, "x86: whose code it was";
            PT_REGS_SS: "pt_regs" "ss" 8 optional, "x86: what lies highest";
            TASK_STACK: "task_struct" "stack" 8 optional, "its stack in the kernel, the registers at its top";
            TASK_THREAD_STATUS: "task_struct" "thread_info.status" 4 optional, "x86: bit 1 in a 32-bit call";
            // seccomp
            TASK_SECCOMP_MODE: "task_struct" "seccomp.mode" 4 seccomp, "2: filtered, 3: to be killed";
            TASK_MM: "task_struct" "mm" 8 optional, "its address space";
            MM_EXE_FILE: "mm_struct" "exe_file" 8 optional, "the program";
            FILE_DENTRY: "file" "f_path.dentry" 8 optional, "its name";
            DENTRY_NAME: "dentry" "d_name.name" 8 optional, "as text";
            // memory
            TASK_NVCSW: "task_struct" "nvcsw" 8 optional, "times it gave up the CPU by itself";
            PROCESS_TIMER_TASK: "process_timer" "task" 8 optional, "who sleeps until the timer expires";
            // wait
            TASK_IN_IOWAIT: "task_struct" "in_iowait" 0 optional, "blocked on a disk";
            TASK_IN_MEMSTALL: "task_struct" "in_memstall" 0 optional, "blocked for lack of memory; PSI";
            TASK_FILES: "task_struct" "files" 8 optional, "its table of files";
            FILES_FDT: "files_struct" "fdt" 8 optional, "the table itself";
            FDTABLE_MAX_FDS: "fdtable" "max_fds" 4 optional, "its length";
            FDTABLE_FD: "fdtable" "fd" 8 optional, "its entries";
            FILE_INODE: "file" "f_inode" 8 optional, "what is open";
            INODE_MODE: "inode" "i_mode" 2 optional, "its kind";
            // context
            TASK_FSBASE: "task_struct" "thread.fsbase" 8 context, "x86-64: its thread pointer";
            // kvm

        }
    };
}

macro_rules! table {
    ($($name:ident: $structure:literal $path:literal $size:literal $need:ident, $what:literal;)+) => {
        /// Every member that the programs read.
        pub const KERNEL_FIELDS: &[KernelField] = &[$(KernelField {
            symbol: stringify!($name),
            structure: $structure,
            path: $path,
            size: $size,
            needed_by: stringify!($need),
        },)+];
    };
}

for_each_kernel_field!(table);

/// One row of the table of tracepoint arguments: prototypes changed over the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelArgument {
    /// Name of the constant in the eBPF object: 1 if the running kernel has it, else 0.
    pub symbol: &'static str,
    /// The tracepoint.
    pub tracepoint: &'static str,
    /// Which argument, from 0.
    pub index: u32,
    /// The structure that it points to; empty where any type will do.
    pub structure: &'static str,
}

/// Calls the macro `$then` with every row:
/// `CONSTANT: "tracepoint" index "structure or empty", "what it is";`
#[macro_export]
macro_rules! for_each_kernel_argument {
    ($then:ident) => {
        $then! {
            // tcp

            // net
            KFREE_SKB_SOCKET: "kfree_skb" 3 "sock", "socket that did not take it; 6.11";

            // block
            BIO_QUEUE_BIO: "block_bio_queue" 1 "bio", "before it came the queue; until 5.10";
            RQ_ISSUE_RQ: "block_rq_issue" 1 "request", "likewise";

            // memory
            MARK_VICTIM_TASK: "mark_victim" 0 "task_struct", "before, the thread id; 6.8";
            // kvm

        }
    };
}

macro_rules! arguments {
    ($($name:ident: $tracepoint:literal $index:literal $structure:literal, $what:literal;)+) => {
        /// Every argument that not all kernels have.
        pub const KERNEL_ARGUMENTS: &[KernelArgument] = &[$(KernelArgument {
            symbol: stringify!($name),
            tracepoint: $tracepoint,
            index: $index,
            structure: $structure,
        },)+];
    };
}

for_each_kernel_argument!(arguments);
