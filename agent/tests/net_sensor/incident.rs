//! The first reference incident with its full virtio queue, through the whole agent: one service
//! is throttled, one is refused a call by its filter, and one waits for a queue that a neighbour
//! has filled. Runs where [`super::stuck`] does. With `ISOSTACK_TEST_RECORDING=FILE` the agent's
//! recording of the run is left there (docs/recordings.md).

use std::{
    env, fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    cgroup::Group,
    child,
    netns::Pair,
    stuck::{STILL, cards, stand_still},
    watch::turn,
};

/// How long the agent may take for anything: the guests are emulated.
const PATIENCE: Duration = Duration::from_secs(90);

/// What every service does: it sends a span when it starts, and one of its work when it is told to
/// go; both by the same connection, so that it is known whose they are.
const SERVICE: &str = r#"
  exec 3<>/dev/tcp/127.0.0.1/4318
  now() { echo -n; t=${EPOCHREALTIME/[.,]/}000; }
  send() {
    printf -v id '%016x' $((RANDOM << 15 | RANDOM | 1))
    body='{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"'$1'"}}]},
      "scopeSpans":[{"spans":[{"traceId":"6f72646572206170692069732073656e","spanId":"'$id'","name":"'$2'",
      "kind":2,"startTimeUnixNano":"'$3'","endTimeUnixNano":"'$4'"}]}]}]}'
    printf 'POST /v1/traces HTTP/1.1\r\nHost: agent\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s' \
      ${#body} "$body" >&3
    while read -r line <&3; do
      case $line in [Cc]ontent-[Ll]ength:*) length=${line#*: }; length=${length%$'\r'};; $'\r') break;; esac
    done
    [ "$length" = 0 ] || read -r -N "$length" answer <&3
  }
  now; send $NAME start $t $t
  echo ready
  read -r go
  now; start=$t
  work
  now; send $NAME "$OPERATION" $start $t
  echo done
  read -r end
"#;

/// Uses a CPU for a while, of which its quota allows little.
const PAYMENT: &str =
    "work() { now; until=$((t + 1800000000)); while ((t < until)); do now; done; }";
/// Tries to connect, is refused, and tries again.
const SANDBOX: &str = "work() { for i in {1..12}; do { :; } 2>/dev/null 5<>/dev/tcp/::1/9; \
                       read -r -t 0.02 -u 3 nothing; done; }";
/// Asks over the wire.
const ORDER: &str = "exec 4<>/dev/tcp/$BANK; \
                     work() { printf x >&4; read -r -N 1 -u 4 answer; }; work";

/// A running service.
struct Service {
    child: Child,
    say: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Service {
    fn start(name: &str, operation: &str, work: &str, group: &Group, filtered: bool) -> Self {
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("{work}\n{SERVICE}")])
            .env("NAME", name)
            .env("OPERATION", operation)
            .env("BANK", format!("198.18.0.2/{BANK_PORT}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let procs = std::ffi::CString::new(group.path.join("cgroup.procs").to_str().unwrap());
        let procs = procs.unwrap();
        // SAFETY: only system calls between fork and exec.
        unsafe {
            command.pre_exec(move || {
                let file = libc::open(procs.as_ptr(), libc::O_WRONLY);
                if file < 0 || libc::write(file, c"0".as_ptr().cast(), 1) != 1 {
                    return Err(std::io::Error::last_os_error());
                }
                libc::close(file);
                if filtered { refuse_ipv6() } else { Ok(()) }
            });
        }
        let mut child = command.spawn().unwrap();
        let (say, said) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut service = Self {
            child,
            say,
            said: BufReader::new(said),
        };
        service.wait_for("ready");
        service
    }

    /// One whose spans the agent joins with it: where the machine is very busy, who sends on a new
    /// connection may not be found in time, and is then not looked for again.
    fn joined(name: &str, operation: &str, work: &str, group: &Group, filtered: bool) -> Self {
        for _ in 0..5 {
            let service = Self::start(name, operation, work, group, filtered);
            let began = Instant::now();
            while began.elapsed() < PATIENCE / 10 {
                let body = get(&format!("/api/v1/spans?service={name}")).unwrap_or_default();
                let document: Value = serde_json::from_str(&body).unwrap_or_default();
                match document["spans"][0]["confidence"].as_str() {
                    Some("process") => return service,
                    Some(_) => break,
                    None => thread::sleep(Duration::from_millis(200)),
                }
            }
        }
        panic!("{name} is not known as the sender of its spans");
    }

    fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), word);
    }

    fn go(&mut self) {
        self.say.write_all(b"go\n").unwrap();
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Refuses connections with addresses of 28 bytes, which those of IPv6 have.
fn refuse_ipv6() -> std::io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let row = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut rows = [
        row(LOAD, 0, 0, 0), // seccomp_data.nr
        row(IF_EQUAL, 0, 3, libc::SYS_connect as u32),
        row(LOAD, 0, 0, 32), // the low half of its third argument
        row(IF_EQUAL, 0, 1, 28),
        row(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        row(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: rows.len() as u16,
        filter: rows.as_mut_ptr(),
    };
    // SAFETY: plain numbers, and a filter that outlives the call.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const filter,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

const BANK_PORT: u16 = 8_080;
const HTTP: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 9_464);

/// The agent, which records.
struct Agent(Child);

impl Agent {
    fn start(recording: &Path) -> Self {
        // In a guest it is not where it was built.
        let built = Path::new(env!("CARGO_BIN_EXE_isostack-agent"));
        let program = if built.exists() {
            built
        } else {
            Path::new("isostack-agent")
        };
        let agent = Command::new(program)
            .arg("record")
            .arg(recording)
            .args([
                "--sensors",
                "cpu,tcp,net,wait,seccomp,logs",
                "--sensor-budget",
                "10",
            ])
            .args(["--otlp-grpc-listen", "127.0.0.1:0", "--node-name", "guest"])
            .args(["--log-level", "warn"])
            .spawn()
            .unwrap();
        let agent = Self(agent);
        let began = Instant::now();
        while TcpStream::connect(HTTP).is_err() || get("/readyz").is_none() {
            assert!(began.elapsed() < PATIENCE, "the agent is not ready");
            thread::sleep(Duration::from_millis(200));
        }
        agent
    }

    fn finish(mut self) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The body of a good answer.
fn get(path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(HTTP).ok()?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:9464\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
}

/// The verdict on the service's work, once it is there.
fn verdict(service: &str) -> Value {
    let began = Instant::now();
    loop {
        let body = get(&format!("/api/v1/verdicts?service={service}")).unwrap_or_default();
        let document: Value = serde_json::from_str(&body).unwrap_or_default();
        if let Some(first) = document["verdicts"].as_array().and_then(|all| all.first()) {
            return first.clone();
        }
        assert!(
            began.elapsed() < PATIENCE / 3,
            "no verdict on {service}: {}",
            get(&format!("/api/v1/spans?service={service}")).unwrap_or_default()
        );
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn the_first_incident_with_its_full_queue() {
    let Some([one, other]) = cards() else {
        return;
    };
    let _turn = turn();
    let far = Pair::one_over([&one, &other]);
    let bank = far.enter(|| TcpListener::bind(("0.0.0.0", BANK_PORT)).unwrap());
    let receiver = far.enter(|| UdpSocket::bind("0.0.0.0:9000").unwrap());
    thread::spawn(move || {
        for client in bank.incoming() {
            let mut client = client.unwrap();
            let mut byte = [0];
            while client.read_exact(&mut byte).is_ok() {
                client.write_all(&byte).unwrap();
            }
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let recording = env::var_os("ISOSTACK_TEST_RECORDING").map(PathBuf::from);
    let recording = recording.unwrap_or_else(|| directory.path().join("incident.jsonl.gz"));
    // Of an earlier run.
    let _ = fs::remove_file(&recording);
    let agent = Agent::start(&recording);

    let groups = [Group::new(), Group::new(), Group::new(), Group::new()];
    let [small, sandbox, usual, neighbour] = &groups;
    let mut payment = Service::joined("payment", "POST /pay", PAYMENT, small, false);
    let mut checkout = Service::joined("checkout", "POST /check", SANDBOX, sandbox, true);
    let mut order = Service::joined("order", "POST /order", ORDER, usual, false);
    small.limit(10_000);
    // Until they are known as senders of spans.
    thread::sleep(Duration::from_secs(3));
    payment.go();
    payment.wait_for("done");
    checkout.go();
    checkout.wait_for("done");

    let sockets: Vec<UdpSocket> = (0..16)
        .map(|_| {
            let socket = UdpSocket::bind("198.18.0.1:0").unwrap();
            socket.connect(("198.18.0.2", 9_000)).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let flood = child::Child::start(neighbour, || {
        loop {
            for socket in &sockets {
                for _ in 0..8 {
                    // It is full now and then.
                    let _ = socket.send(&[0; 1_200]);
                }
            }
            thread::sleep(Duration::from_millis(5));
        }
    });
    thread::sleep(Duration::from_millis(2_500));
    stand_still(&sockets[0]);
    // What asks for it lies behind what is in the queue already.
    thread::sleep(Duration::from_secs(4));
    order.go();
    thread::sleep(STILL / 2);
    drop(flood);
    order.wait_for("done");
    drop(receiver);

    for (service, fault, cause) in [
        ("payment", "L-3", "cpu_throttle"),
        ("checkout", "L-4", "seccomp_denied"),
        ("order", "L-2", "virtqueue"),
    ] {
        let verdict = verdict(service);
        println!("{verdict}");
        assert_eq!(verdict["cause"], cause, "{verdict}");
        assert_eq!(verdict["fault"], fault, "{verdict}");
        if service == "order" {
            let evidence = &verdict["evidence"];
            // What the kernel's log said of it at the same time.
            let lines = evidence["log_virtio_net_tx_timeout_lines"].as_f64();
            assert!(lines >= Some(1.0), "{verdict}");
            let sensors = get("/api/v1/sensors").unwrap();
            let knows_senders = !sensors.contains("who sends how much UDP");
            let culprit = verdict["culprit"].as_str().unwrap_or_default();
            assert_eq!(!culprit.is_empty(), knows_senders, "{verdict}");
        }
    }
    agent.finish();
    assert!(fs::metadata(&recording).unwrap().len() > 0);
}
