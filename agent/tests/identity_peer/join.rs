use std::{
    process::Command,
    sync::{Arc, Mutex},
};

use isostack_agent::{
    event::Change,
    host::{identify::Identifier, proc::ProcDir, roots::Roots},
    join::{JoinConfig, Joiner, Sender},
    metrics::AgentMetrics,
    otlp::{Connection, ends::Ends},
    process::ProcessKey,
    span::{Joined, Resource, ResourceSpans},
    vocabulary::Confidence,
};

use crate::lab::{Net, Running, Server, connecting, descendants, key, start};

pub struct Lab {
    pub joiner: Joiner,
    pub identifier: Arc<Identifier>,
    announced: Arc<Mutex<Vec<ProcessKey>>>,
}

pub fn lab() -> Lab {
    let identifier = Arc::new(Identifier::new(Roots::default(), AgentMetrics::default()));
    let announced = Arc::new(Mutex::new(Vec::new()));
    let mut config = JoinConfig::new("this-node".into());
    // The machine may be busy; what is tested is the answer, not the time.
    config.wait = std::time::Duration::from_secs(30);
    config.search_budget = config.wait;
    let list = announced.clone();
    let joiner = Joiner::new(identifier.clone(), config, move |key| {
        list.lock().unwrap().push(key);
    });
    Lab {
        joiner,
        identifier,
        announced,
    }
}

impl Lab {
    pub async fn resolve(&self, sender: &Arc<Sender>, resource: &Arc<Resource>) -> Joined {
        self.resolve_with(sender, resource, &[]).await
    }

    /// The same with spans that name these connections.
    pub async fn resolve_with(
        &self,
        sender: &Arc<Sender>,
        resource: &Arc<Resource>,
        ends: &[Ends],
    ) -> Joined {
        let mut resources = [of(resource)];
        let named = |_: &ResourceSpans| ends.to_vec();
        self.joiner.join(sender, &mut resources, &named).await;
        let [spans] = resources;
        spans.joined
    }

    pub async fn join(&self, connection: &Connection, resource: Resource) -> Joined {
        let sender = self.joiner.connected(connection.clone());
        self.resolve(&sender, &Arc::new(resource)).await
    }
}

fn of(resource: &Arc<Resource>) -> ResourceSpans {
    ResourceSpans {
        spans: 0..1,
        resource: resource.clone(),
        joined: Joined {
            identity: None,
            confidence: Confidence::Host,
        },
    }
}

pub fn shop() -> Resource {
    Resource {
        service: "shop".into(),
        ..Resource::default()
    }
}

fn of_pid(pid: u32) -> Resource {
    Resource {
        pid: Some(pid),
        ..shop()
    }
}

pub fn process(joined: &Joined) -> (Option<ProcessKey>, Confidence) {
    (
        joined.identity.as_ref().map(|i| i.process),
        joined.confidence,
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_process_at_the_other_end_and_the_callers_hook() {
    let lab = lab();
    let server = Server::on("127.0.0.1:0");
    let child = start("bash", &["-c", &connecting(server.address(), "read")]);
    let (_stream, connection) = server.accept();
    let expected = (Some(key(child.pid())), Confidence::Process);
    let sender = lab.joiner.connected(connection);
    let resource = Arc::new(shop());
    for _ in 0..3 {
        let joined = lab.resolve(&sender, &resource).await;
        assert_eq!(process(&joined), expected);
    }
    assert_eq!(
        *lab.announced.lock().unwrap(),
        [key(child.pid())],
        "announced once"
    );
    // A second service over the same connection: a collector, not the service.
    let other = Resource {
        service: "other".into(),
        ..Resource::default()
    };
    let joined = lab.resolve(&sender, &Arc::new(other)).await;
    assert_eq!(process(&joined), (None, Confidence::Host));
    let joined = lab.resolve(&sender, &resource).await;
    assert_eq!(process(&joined), (None, Confidence::Host));
    // But whoever proves its pid is still itself.
    let joined = lab.resolve(&sender, &Arc::new(of_pid(child.pid()))).await;
    assert_eq!(process(&joined), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pid_from_inside_a_pid_namespace_is_corrected() {
    let lab = lab();
    let net = Net::new();
    let server = Server::on(&format!("{}:0", net.host_address));
    let script = connecting(server.address(), "read");
    let unshare = [
        "unshare",
        "--fork",
        "--pid",
        "--mount-proc",
        "bash",
        "-c",
        &script,
    ];
    let mut args = vec!["netns", "exec", &net.name];
    args.extend(unshare);
    let child = start("ip", &args);
    let (_stream, connection) = server.accept();
    let joined = lab.join(&connection, of_pid(1)).await;
    let inner = *descendants(child.pid()).last().unwrap();
    assert_eq!(process(&joined), (Some(key(inner)), Confidence::Process));
    let stack = &joined.identity.unwrap().stack;
    assert_eq!(stack.0[0].technology, "namespaces", "{stack}");
    // Pid 1 of the host is not what was meant, and 4 000 000 is nobody.
    let joined = lab.join(&connection, of_pid(4_000_000)).await;
    assert_eq!(process(&joined), (None, Confidence::Host));
}

#[tokio::test(flavor = "multi_thread")]
async fn forked_workers_are_told_apart_by_their_stated_pid() {
    let lab = lab();
    let server = Server::on("127.0.0.1:0");
    // Subshells: the same program, as pre-fork servers are.
    let work = "(sleep 600 3>&-; :) & ";
    let script = connecting(server.address(), &format!("{work}{work} echo; wait"));
    let mut child = start("bash", &["-c", &script]);
    let (_stream, connection) = server.accept();
    child.line();
    let workers = ProcDir::new(&Roots::default(), child.pid()).children();
    let workers = workers.unwrap();
    assert_eq!(workers.len(), 2);
    for pid in workers.iter().chain([&child.pid()]) {
        let joined = lab.join(&connection, of_pid(*pid)).await;
        assert_eq!(process(&joined), (Some(key(*pid)), Confidence::Process));
    }
    // Without a pid nobody is blamed: the root cgroup is not a workload.
    let joined = lab.join(&connection, shop()).await;
    assert_ne!(joined.confidence, Confidence::Process, "{joined:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_from_before_the_fork_joins_the_holder() {
    let lab = lab();
    let server = Server::on("127.0.0.1:0");
    // Only the worker connects; it states the pid that its parent read.
    let script = format!(
        "({}) & wait",
        connecting(server.address(), "sleep 600 3>&-; :")
    );
    let parent = start("bash", &["-c", &script]);
    let (_stream, connection) = server.accept();
    let worker = descendants(parent.pid())[0];
    let joined = lab.join(&connection, of_pid(parent.pid())).await;
    assert_eq!(process(&joined), (Some(key(worker)), Confidence::Process));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_collector_is_not_the_service() {
    let lab = lab();
    let dir = tempfile::tempdir().unwrap();
    let collector = dir.path().join("otelcol-contrib");
    // Not by this process: a child forked meanwhile would keep the file busy.
    let copied = Command::new("cp").arg("/bin/bash").arg(&collector).status();
    assert!(copied.unwrap().success());
    let server = Server::on("127.0.0.1:0");
    let script = connecting(server.address(), "read");
    let child = start(collector.to_str().unwrap(), &["-c", &script]);
    let (_stream, connection) = server.accept();
    let joined = lab.join(&connection, of_pid(child.pid())).await;
    assert_eq!(process(&joined), (None, Confidence::Host));
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_of_another_node_are_nobodys_here() {
    let lab = lab();
    let connection = Connection::Tcp {
        local: "192.0.2.1:4317".parse().unwrap(),
        peer: "198.51.100.7:55555".parse().unwrap(),
    };
    let elsewhere = Resource {
        node: "other-node".into(),
        pod_uid: "4053557b-d6c9-4ef9-818e-131c4cf4f220".into(),
        pid: Some(std::process::id()),
        ..shop()
    };
    let joined = lab.join(&connection, elsewhere).await;
    assert_eq!(process(&joined), (None, Confidence::Host));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_joined_after_its_sender_ended() {
    let lab = lab();
    let server = Server::on("127.0.0.1:0");
    let mut child = start("bash", &["-c", &connecting(server.address(), "read")]);
    let (_stream, connection) = server.accept();
    let expected = (Some(key(child.pid())), Confidence::Process);
    let sender = lab.joiner.connected(connection);
    let joined = lab.resolve(&sender, &Arc::new(shop())).await;
    assert_eq!(process(&joined), expected);
    let pid = child.pid();
    child.kill();
    // Another resource of the same service: nothing of it is in memory yet.
    let joined = lab.resolve(&sender, &Arc::new(of_pid(pid))).await;
    assert_eq!(process(&joined), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_a_child_inherited_is_the_childs() {
    let lab = lab();
    let server = Server::on("127.0.0.1:0");
    // A service that becomes a daemon: the child has the connection, the parent ends.
    let then = "read; (read <&3; :) & echo; read; exit 0";
    let mut parent = start("bash", &["-c", &connecting(server.address(), then)]);
    let (stream, connection) = server.accept();
    let sender = lab.joiner.connected(connection);
    let joined = lab.resolve(&sender, &Arc::new(shop())).await;
    let expected = (Some(key(parent.pid())), Confidence::Process);
    assert_eq!(process(&joined), expected);
    parent.send("");
    parent.line();
    let daemon = key(descendants(parent.pid())[0]);
    parent.send("");
    let dir = ProcDir::new(&Roots::default(), parent.pid());
    // Until nothing of it is left but its status for this process.
    while dir.stat().unwrap().state != 'Z' {
        std::thread::yield_now();
    }
    // What comes then is the child's, also from a resource that names no pid.
    let joined = lab.resolve(&sender, &Arc::new(shop())).await;
    assert_eq!(process(&joined), (Some(daemon), Confidence::Process));
    let joined = lab.resolve(&sender, &Arc::new(of_pid(daemon.pid))).await;
    assert_eq!(process(&joined), (Some(daemon), Confidence::Process));
    drop(stream); // ends the child
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_was_closed_at_once_is_joined_by_what_is_provable() {
    let lab = lab();
    let server = Server::on("127.0.0.1:0");
    let to = server.address();
    let again = format!(
        "exec 4<>/dev/tcp/{}/{}; exec 4>&-; echo; read",
        to.ip(),
        to.port()
    );
    let mut child = start("bash", &["-c", &connecting(to, &again)]);
    let (_stream, first) = server.accept();
    let (_stream, second) = server.accept();
    child.line();
    let resource = of_pid(child.pid());
    let joined = lab.join(&second, resource.clone()).await;
    assert_eq!(
        process(&joined),
        (None, Confidence::Host),
        "a pid alone proves nothing"
    );
    let expected = (Some(key(child.pid())), Confidence::Process);
    assert_eq!(process(&lab.join(&first, resource.clone()).await), expected);
    assert_eq!(process(&lab.join(&second, resource).await), expected);
    let joined = lab.join(&second, of_pid(child.pid() + 1)).await;
    assert_eq!(process(&joined), (None, Confidence::Host));
    let joined = lab.join(&second, shop()).await;
    assert_eq!(process(&joined), (None, Confidence::Host));
}

/// Makes the kernel hand out `pid` next; others on the machine may be faster.
fn start_as(pid: u32, script: &str) -> Option<Running> {
    for _ in 0..200 {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let child = start("bash", &["-c", script]);
        if child.pid() == pid {
            return Some(child);
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reused_pid_is_another_process() {
    let lab = lab();
    let server = Server::on("127.0.0.1:0");
    let script = connecting(server.address(), "read");
    let mut first = start("bash", &["-c", &script]);
    let pid = first.pid();
    let (_stream, connection) = server.accept();
    let sender = lab.joiner.connected(connection);
    let resource = Arc::new(of_pid(pid));
    let before = lab.resolve(&sender, &resource).await;
    let old = key(pid);
    assert_eq!(process(&before), (Some(old), Confidence::Process));
    first.kill();
    // The start time counts hundredths of a second.
    while Command::new("true").status().is_ok() && uptime_ticks() <= old.start_ticks + 1 {}
    let _second = start_as(pid, &script).expect("no pid was reused in 200 attempts");
    let (_stream, connection) = server.accept();
    let new = key(pid);
    assert_ne!(old, new);
    // The new one's connection is the new one's, what the old one sent stays the old one's.
    let joined = lab.join(&connection, of_pid(pid)).await;
    assert_eq!(process(&joined), (Some(new), Confidence::Process));
    let late = lab.resolve(&sender, &Arc::new(of_pid(pid))).await;
    assert_eq!(process(&late), (Some(old), Confidence::Process));
    assert_eq!(lab.identifier.identify_key(old).unwrap().process, old);
}

fn uptime_ticks() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 100 + now.tv_nsec as u64 / 10_000_000
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_became_another_program_is_that_one() {
    let lab = lab();
    lab.identifier.changes_are_told(true);
    let server = Server::on("127.0.0.1:0");
    let mut child = start(
        "bash",
        &["-c", &connecting(server.address(), "read; exec sleep 60")],
    );
    let (_stream, connection) = server.accept();
    let sender = lab.joiner.connected(connection);
    let resource = Arc::new(shop());
    let comm = |joined: Joined| joined.identity.map(|identity| identity.comm.clone());
    let joined = lab.resolve(&sender, &resource).await;
    assert_eq!(comm(joined).as_deref(), Some("bash"));
    let process = key(child.pid());
    child.send("");
    let roots = Roots::default();
    while ProcDir::new(&roots, child.pid()).comm().unwrap() != "sleep" {
        std::thread::yield_now();
    }
    // As the kernel tells of it.
    lab.identifier.on_change(Change::Process {
        process,
        cgroup_id: 0,
    });
    // A look is believed for a moment, whatever is told.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let joined = lab.resolve(&sender, &resource).await;
    assert_eq!(
        comm(joined).as_deref(),
        Some("sleep"),
        "the same connection"
    );
}
