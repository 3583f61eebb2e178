//! The whole agent with services that send it spans, in guests that have a shell and no more.

#![allow(dead_code, reason = "each test file uses what it needs")]

use std::{
    env,
    ffi::CString,
    fs,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long the agent may take for anything: the guests are emulated.
const PATIENCE: Duration = Duration::from_secs(90);

/// What every service does: it sends a span when it starts, and one of its work when it is told to
/// go; both by the same connection, so that it is known whose they are.
const SERVICE: &str = r#"
  exec 3<>/dev/tcp/127.0.0.1/$OTLP_PORT
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

/// The clock, for whatever is done before the rest, too.
const NOW: &str = "now() { echo -n; t=${EPOCHREALTIME/[.,]/}000; }";

/// A service to be.
#[derive(Default)]
pub struct Plan<'a> {
    /// Its name, and that of its one operation.
    pub names: [&'a str; 2],
    /// Lines of bash that define `work`.
    pub work: &'a str,
    /// What these lines are told.
    pub told: Vec<(&'a str, String)>,
    /// The files by which its cgroups are entered.
    pub procs: Vec<PathBuf>,
    /// Done in its process before it begins: system calls only.
    pub before: Option<fn() -> io::Result<()>>,
}

/// A running service.
pub struct Service {
    child: Child,
    say: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Service {
    fn start(plan: &Plan<'_>, agent: &Agent) -> Self {
        let [name, operation] = plan.names;
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!("{NOW}\n{}\n{SERVICE}", plan.work)])
            .env("NAME", name)
            .env("OPERATION", operation)
            .env("OTLP_PORT", agent.otlp.to_string())
            .envs(plan.told.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let procs = plan.procs.iter();
        let procs: Vec<CString> = procs
            .map(|file| CString::new(file.as_os_str().as_bytes()).unwrap())
            .collect();
        let before = plan.before;
        // SAFETY: only system calls between fork and exec.
        unsafe {
            command.pre_exec(move || {
                for file in &procs {
                    let file = libc::open(file.as_ptr(), libc::O_WRONLY);
                    if file < 0 || libc::write(file, c"0".as_ptr().cast(), 1) != 1 {
                        return Err(io::Error::last_os_error());
                    }
                    libc::close(file);
                }
                before.map_or(Ok(()), |before| before())
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
    pub fn joined(plan: &Plan<'_>, agent: &Agent) -> Self {
        let name = plan.names[0];
        for _ in 0..5 {
            let service = Self::start(plan, agent);
            let began = Instant::now();
            while began.elapsed() < PATIENCE / 10 {
                let body = agent.get(&format!("/api/v1/spans?service={name}"));
                let document: Value =
                    serde_json::from_str(&body.unwrap_or_default()).unwrap_or_default();
                match document["spans"][0]["confidence"].as_str() {
                    Some("process") => return service,
                    Some(_) => break,
                    None => thread::sleep(Duration::from_millis(200)),
                }
            }
        }
        panic!("{name} is not known as the sender of its spans");
    }

    /// Its next word.
    pub fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), word);
    }

    /// Lets it do its work.
    pub fn go(&mut self) {
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

/// The agent, which records.
pub struct Agent {
    child: Child,
    http: u16,
    otlp: u16,
    recording: PathBuf,
    _dir: tempfile::TempDir,
}

impl Agent {
    /// With these sensors. `ISOSTACK_TEST_RECORDING=FILE` has its recording left there
    /// (docs/recordings.md).
    pub fn start(sensors: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let recording = env::var_os("ISOSTACK_TEST_RECORDING").map(PathBuf::from);
        let recording = recording.unwrap_or_else(|| dir.path().join("run.jsonl.gz"));
        // Of an earlier run.
        let _ = fs::remove_file(&recording);
        // In a guest it is not where it was built.
        let built = Path::new(env!("CARGO_BIN_EXE_isostack-agent"));
        let program = if built.exists() {
            built
        } else {
            Path::new("isostack-agent")
        };
        let [http, otlp] = free_ports();
        let child = Command::new(program)
            .arg("record")
            .arg(&recording)
            .args(["--sensors", sensors, "--sensor-budget", "10"])
            .args(["--http-listen", &format!("127.0.0.1:{http}")])
            .args(["--otlp-http-listen", &format!("127.0.0.1:{otlp}")])
            .args(["--otlp-grpc-listen", "127.0.0.1:0", "--node-name", "guest"])
            .arg("--state-dir")
            .arg(dir.path().join("state"))
            .args(["--log-level", "warn"])
            .spawn()
            .unwrap();
        let agent = Self {
            child,
            http,
            otlp,
            recording,
            _dir: dir,
        };
        let began = Instant::now();
        while agent.get("/readyz").is_none() {
            assert!(began.elapsed() < PATIENCE, "the agent is not ready");
            thread::sleep(Duration::from_millis(200));
        }
        agent
    }

    /// The body of a good answer.
    pub fn get(&self, path: &str) -> Option<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.http));
        let mut stream = TcpStream::connect(address).ok()?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.starts_with("HTTP/1.1 200").then(|| body.to_owned())
    }

    /// The verdict on the service's work, once it is there.
    pub fn verdict(&self, service: &str) -> Value {
        let began = Instant::now();
        loop {
            let body = self.get(&format!("/api/v1/verdicts?service={service}"));
            let document: Value =
                serde_json::from_str(&body.unwrap_or_default()).unwrap_or_default();
            if let Some(first) = document["verdicts"].as_array().and_then(|all| all.first()) {
                println!("{first}");
                return first.clone();
            }
            assert!(
                began.elapsed() < PATIENCE / 3,
                "no verdict on {service}: {}",
                self.get(&format!("/api/v1/spans?service={service}"))
                    .unwrap_or_default()
            );
            thread::sleep(Duration::from_millis(500));
        }
    }

    /// Ends it as a user would; its recording is whole then.
    pub fn finish(mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        assert!(self.child.wait().unwrap().success());
        assert!(fs::metadata(&self.recording).unwrap().len() > 0);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Fails only when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two that were free a moment ago.
fn free_ports() -> [u16; 2] {
    let held = [0; 2].map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}
