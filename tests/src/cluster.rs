//! A real Kubernetes node by KUBECONFIG: objects, images, and its own programs stopped and
//! started. Where images come from and where its programs are is the cluster's affair: it is
//! taken as the test cluster has it, in folders beside the kubeconfig.

use std::{
    env, fs,
    net::IpAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::{artifact, peers, wait};

/// The cluster that KUBECONFIG names.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
}

impl Cluster {
    /// `None`, with a word on the terminal, when there is none.
    #[must_use]
    pub fn reach() -> Option<Self> {
        match env::var_os("KUBECONFIG") {
            Some(path) if peers::has("kubectl") => Some(Self {
                kubeconfig: path.into(),
            }),
            Some(_) => {
                eprintln!("skipped: KUBECONFIG is set and kubectl is not on the path");
                None
            }
            None => {
                eprintln!("skipped: KUBECONFIG is not set");
                None
            }
        }
    }

    /// Runs kubectl; its output without the last newline.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("kubectl")
            .args(arguments)
            .output()
            .context("kubectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {arguments:?}: {said}");
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// When kubectl refuses them.
    pub fn apply(&self, manifest: &str) -> anyhow::Result<()> {
        let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
        fs::write(file.path(), manifest)?;
        self.kubectl(&["apply", "-f", &file.path().display().to_string()])
            .map(drop)
    }

    /// Address of the node, where its pods reach it.
    ///
    /// # Errors
    /// When it has none.
    pub fn node_address(&self) -> anyhow::Result<IpAddr> {
        let path = "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}";
        let address = self.kubectl(&["get", "nodes", "-o", path])?;
        address.parse().with_context(|| address.clone())
    }

    /// Name of the node.
    ///
    /// # Errors
    /// When it has none.
    pub fn node_name(&self) -> anyhow::Result<String> {
        self.kubectl(&["get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"])
    }

    /// URL of the API server.
    ///
    /// # Errors
    /// When the kubeconfig has none.
    pub fn server(&self) -> anyhow::Result<String> {
        let path = "jsonpath={.clusters[0].cluster.server}";
        self.kubectl(&["config", "view", "--minify", "-o", path])
    }

    /// Builds the image of a program by the project's recipe and imports it.
    ///
    /// # Errors
    /// When either fails.
    pub fn import(&self, program: &str) -> anyhow::Result<()> {
        let archive = tempfile::Builder::new().suffix(".tar").tempfile()?;
        let mut image = Command::new("cargo");
        image.current_dir(artifact::root());
        image
            .args([
                "xtask",
                "image",
                "--debug",
                "--program",
                program,
                "--output",
            ])
            .arg(archive.path());
        peers::run(&mut image)?;
        let mut ctr = Command::new("ctr");
        ctr.arg("-a").arg(self.state().join("run/containerd.sock"));
        peers::run(
            ctr.args(["-n", "k8s.io", "images", "import"])
                .arg(archive.path()),
        )
    }

    /// The folder of the cluster's own files.
    #[must_use]
    pub fn state(&self) -> &Path {
        self.kubeconfig.parent().unwrap_or(Path::new("/"))
    }

    /// Kills one of the cluster's programs (`apiserver`, `kubelet`), to be started again. Asked
    /// to end, the API server would take its time until its watches are over.
    ///
    /// # Errors
    /// When it is not running.
    pub fn stop(&self, name: &str) -> anyhow::Result<Stopped> {
        let noted = self.state().join("pid").join(name);
        let text = fs::read_to_string(&noted).with_context(|| noted.display().to_string())?;
        let pid = text.split(' ').next().unwrap_or_default().trim().to_owned();
        let proc = Path::new("/proc").join(&pid);
        let read = |file: &str| -> anyhow::Result<Vec<String>> {
            let bytes = fs::read(proc.join(file)).with_context(|| format!("{name} is not up"))?;
            let words = bytes.split(|b| *b == 0).filter(|word| !word.is_empty());
            Ok(words
                .map(|word| String::from_utf8_lossy(word).into_owned())
                .collect())
        };
        let stopped = Stopped {
            name: name.to_owned(),
            command: read("cmdline")?,
            environment: read("environ")?,
            state: self.state().to_owned(),
        };
        let pid = pid.parse().ok().and_then(Pid::from_raw).context("a pid")?;
        kill_process(pid, Signal::KILL)?;
        wait::until(&format!("the end of {name}"), wait::PATIENCE, || {
            let status = fs::read_to_string(proc.join("stat")).unwrap_or_default();
            let zombie = status.contains(") Z ");
            (zombie || test_kill_process(pid).is_err()).then_some(())
        })?;
        Ok(stopped)
    }
}

/// A program of the cluster that was ended; started again when dropped.
#[derive(Debug)]
pub struct Stopped {
    name: String,
    command: Vec<String>,
    environment: Vec<String>,
    state: PathBuf,
}

impl Stopped {
    fn start_again(&self) -> anyhow::Result<()> {
        // The mount namespace that the cluster's kubelet and runtime live in.
        let mounts = fs::read_to_string(self.state.join("pid/mounts"))?;
        let mounts = mounts.split(' ').next().unwrap_or_default();
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.state.join("log").join(format!("{}.log", self.name)))?;
        let mut command = match self.name.as_str() {
            "kubelet" => {
                let mut inside = Command::new("nsenter");
                inside.arg(format!("--mount=/proc/{}/ns/mnt", mounts.trim()));
                inside.arg("--").args(&self.command);
                inside
            }
            _ => {
                let mut plain = Command::new(&self.command[0]);
                plain.args(&self.command[1..]);
                plain
            }
        };
        command
            .env_clear()
            .envs(self.environment.iter().filter_map(|v| v.split_once('=')))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let child = command.spawn().with_context(|| self.name.clone())?;
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id()))?;
        let birth = stat
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(19))
            .context("a start time")?;
        let noted = format!("{} {birth}\n", child.id());
        fs::write(self.state.join("pid").join(&self.name), noted)?;
        Ok(())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Err(error) = self.start_again() {
            eprintln!("{} of the cluster stays down: {error:#}", self.name);
            return;
        }
        let answers = wait::until("the cluster to be whole again", A_WHILE, || {
            let ready = ["get", "--raw", "/readyz", "--request-timeout=2s"];
            let output = Command::new("kubectl").args(ready).output().ok()?;
            output.status.success().then_some(())
        });
        if let Err(error) = answers {
            eprintln!("{error:#}");
        }
    }
}

/// Deletes a namespace and the objects of files (`-f`, `-k`), also when a test fails.
#[derive(Debug)]
pub struct CleanUp<'a> {
    cluster: &'a Cluster,
    what: Vec<[String; 2]>,
}

impl<'a> CleanUp<'a> {
    /// Of these, in this order.
    #[must_use]
    pub fn new(cluster: &'a Cluster, what: &[[&str; 2]]) -> Self {
        let what = what.iter().map(|pair| pair.map(str::to_owned)).collect();
        Self { cluster, what }
    }
}

impl Drop for CleanUp<'_> {
    fn drop(&mut self) {
        for [kind, name] in &self.what {
            let delete = [
                "delete",
                "--ignore-not-found",
                "--wait",
                "--timeout=240s",
                kind,
                name,
            ];
            if let Err(error) = self.cluster.kubectl(&delete) {
                eprintln!("left in the cluster: {error:#}");
            }
        }
    }
}

/// Generous against what the kubelet needs to notice a changed file or to give a container
/// another life, on a machine where pods get little of the processors.
pub const A_WHILE: Duration = Duration::from_secs(240);
