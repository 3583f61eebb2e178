//! Whose connection it is: processes that live a moment, and sockets that are handed over.
//! Each process is in a cgroup of its own, by which it is recognised.

use std::{
    io::{IoSlice, IoSliceMut, Read as _, Write as _},
    mem::MaybeUninit,
    net::{TcpListener, TcpStream},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use isostack_agent::vocabulary::Cause;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::{
    CONNECT, RETRANSMITS,
    cgroup::Group,
    netns::Pair,
    traffic::{connect_to, listen, own_cgroup, tcp_info},
    watch::Watch,
};

/// Set in a process that a test started from its own program.
const ROLE: &str = "ISOSTACK_TEST_ROLE";
const BYTES: usize = 2 << 20;

#[test]
fn a_hundred_processes_that_live_a_moment() {
    let watch = Watch::start(&["tcp"]);
    let pair = Pair::new();
    let (listener, address) = listen(&pair.b, pair.b.address.into());
    let groups: Vec<Group> = (0..100).map(|_| Group::new()).collect();
    let script = format!(
        "for group; do (echo $BASHPID > $group/cgroup.procs; \
         exec 3<>/dev/tcp/{}/{}; echo hello >&3; read -r -u 3 line) & done; wait",
        address.ip(),
        address.port()
    );
    let server = thread::spawn(move || {
        for _ in 0..100 {
            let (mut socket, _) = listener.accept().unwrap();
            let mut line = [0; 6];
            socket.read_exact(&mut line).unwrap();
            socket.write_all(&line).unwrap();
        }
    });
    let done = Command::new("nsenter")
        .args([&pair.a.net(), "bash", "-c", &script, "bash"])
        .args(groups.iter().map(|group| &group.path))
        .status()
        .unwrap();
    assert!(done.success());
    server.join().unwrap();

    let counted = watch.counted();
    let netns = pair.a.inode();
    let of = |group: &Group| counted.count(CONNECT, netns, group.id());
    let told: u64 = groups.iter().map(of).sum();
    assert!(groups.iter().all(|group| of(group) <= 1));
    let all = counted.of(CONNECT, netns).count() as u64;
    assert_eq!(all, told, "and nobody else");
    // The kernel runs no program that was interrupted in the middle of itself on that CPU, as
    // when an answer arrives while another connection begins: that it counts.
    let (missing, lost) = (100 - told, watch.lost());
    println!("{missing} not told, {lost} said to be lost");
    assert!(
        missing <= lost,
        "{missing} not told, {lost} said to be lost"
    );
}

/// The parent connects, the child inherits the socket and only writes to it.
#[test]
fn a_socket_inherited_by_a_child() {
    let watch = Watch::start(&["tcp"]);
    let (pair, group) = (Pair::new(), Group::new());
    let (listener, address) = listen(&pair.b, pair.b.address.into());
    let client = connect_to(&pair.a, address).unwrap();
    let (server, _) = listener.accept().unwrap();
    pair.b.lose_every(20);
    let script = format!("head -c {BYTES} /dev/zero");
    let output = Stdio::from(OwnedFd::from(client.try_clone().unwrap()));
    let mut child = in_group(&group, &script).stdout(output).spawn().unwrap();
    swallow(server, BYTES);
    assert!(child.wait().unwrap().success());
    let truth = tcp_info(&client).tcpi_total_retrans;
    expect_only(watch, pair.a.inode(), &group, truth);
}

/// One process connects and passes the socket through a Unix socket to another.
#[test]
fn a_socket_passed_by_scm_rights() {
    if std::env::var(ROLE).is_ok() {
        let mut socket = receive_socket();
        socket.write_all(&vec![0; BYTES]).unwrap();
        return;
    }
    let watch = Watch::start(&["tcp"]);
    let (pair, group) = (Pair::new(), Group::new());
    let (listener, address) = listen(&pair.b, pair.b.address.into());
    let client = connect_to(&pair.a, address).unwrap();
    let (server, _) = listener.accept().unwrap();
    pair.b.lose_every(20);
    let (near, far) = UnixStream::pair().unwrap();
    let mut child = again(
        &group,
        "owner::a_socket_passed_by_scm_rights",
        far.into(),
        Path::new("."),
    );
    send_socket(&near, &client);
    swallow(server, BYTES);
    assert!(child.wait().unwrap().success());
    let truth = tcp_info(&client).tcpi_total_retrans;
    expect_only(watch, pair.a.inode(), &group, truth);
}

/// One process listens, another is started with the listening socket and accepts, as systemd
/// does it.
#[test]
fn a_listening_socket_handed_to_a_service() {
    if std::env::var(ROLE).is_ok() {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
        let (mut socket, _) = TcpListener::from(stdin).accept().unwrap();
        socket.write_all(&vec![0; BYTES]).unwrap();
        // The other end has everything.
        socket.read_exact(&mut [0]).unwrap();
        let truth = tcp_info(&socket).tcpi_total_retrans;
        std::fs::write(std::env::var(ROLE).unwrap(), truth.to_string()).unwrap();
        // Nothing more happens on the connection until the other end closes it.
        let _ = socket.read(&mut [0]);
        return;
    }
    let watch = Watch::start(&["tcp"]);
    let (pair, group) = (Pair::new(), Group::new());
    let (listener, address) = listen(&pair.b, pair.b.address.into());
    let name = "owner::a_listening_socket_handed_to_a_service";
    let told = tempfile::NamedTempFile::new().unwrap();
    let mut child = again(&group, name, listener.into(), told.path());
    let mut client = connect_to(&pair.a, address).unwrap();
    pair.a.lose_every(20);
    let mut bytes = vec![0; BYTES];
    client.read_exact(&mut bytes).unwrap();
    pair.a.run("iptables -F INPUT");
    client.write_all(b".").unwrap();
    let truth = loop {
        let text = std::fs::read_to_string(told.path()).unwrap();
        if let Ok(truth) = text.parse() {
            break truth;
        }
        assert!(child.try_wait().unwrap().is_none(), "the service failed");
        thread::sleep(Duration::from_millis(10));
    };
    expect_only(watch, pair.b.inode(), &group, truth);
    drop(client);
    assert!(child.wait().unwrap().success());
}

/// All of the retransmissions in the namespace were this group's.
fn expect_only(watch: Watch, netns: u64, group: &Group, truth: u32) {
    assert!(truth > 0, "nothing was lost");
    let counted = watch.counted();
    assert_eq!(
        counted.count(RETRANSMITS, netns, group.id()),
        u64::from(truth)
    );
    assert_eq!(counted.count(RETRANSMITS, netns, own_cgroup()), 0);
    let delays = watch.finish();
    // Only waits of a millisecond and more are told of a process that sends no spans.
    let told = delays.iter().filter(|d| d.cause == Cause::TcpRetransmit);
    for delay in told {
        assert_eq!(delay.cgroup_id, group.id(), "{delay:?}");
    }
}

/// Reads so many bytes.
fn swallow(mut socket: TcpStream, bytes: usize) {
    socket.read_exact(&mut vec![0; bytes]).unwrap();
}

/// A shell in the group that becomes `command`.
fn in_group(group: &Group, command: &str) -> Command {
    let script = format!(
        "echo $$ > {}/cgroup.procs; exec {command}",
        group.path.display()
    );
    let mut shell = Command::new("bash");
    shell.args(["-c", &script]);
    shell
}

/// This program again, in the group, with one test, a standard input and a file to write to.
fn again(group: &Group, test: &str, stdin: OwnedFd, file: &Path) -> Child {
    let program = std::env::current_exe().unwrap();
    in_group(group, &format!("{} --exact {test}", program.display()))
        .env(ROLE, file)
        .stdin(stdin)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn send_socket(through: &UnixStream, socket: &TcpStream) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let sockets = [socket.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&sockets)));
    let data = [IoSlice::new(b".")];
    sendmsg(through, &data, &mut control, SendFlags::empty()).unwrap();
}

fn receive_socket() -> TcpStream {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    recvmsg(
        std::io::stdin(),
        &mut data,
        &mut control,
        RecvFlags::empty(),
    )
    .unwrap();
    let mut sockets = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut sockets) => sockets.next(),
        _ => None,
    });
    sockets.next().unwrap().into()
}
