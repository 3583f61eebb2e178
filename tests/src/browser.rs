//! A real browser without a window, told what to do by the DevTools protocol over a pipe: JSON
//! messages, each with a zero byte after it.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{peers, wait};

/// Names that distributions give it.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// It takes its orders from descriptor 3 and answers on 4; the shell lays them there.
const ON_A_PIPE: &str = "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1";

/// The program, where there is one.
#[must_use]
pub fn program() -> Option<&'static str> {
    PROGRAMS.into_iter().find(|program| peers::has(program))
}

/// One page of a browser of our own; it ends with this value, and with this process.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    orders: ChildStdin,
    said: Receiver<Value>,
    session: String,
    last: u64,
    errors: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts it with an empty page.
    ///
    /// # Errors
    /// When there is none, or it does not start.
    pub fn start() -> anyhow::Result<Self> {
        let program = program().context("there is no Chromium on the path")?;
        let profile = tempfile::tempdir()?;
        let mut command = Command::new("sh");
        command
            .args(["-c", ON_A_PIPE, "sh", program])
            // Root is not let into its sandbox; what is shown is our own.
            .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
            .args(["--no-first-run", "--disable-dev-shm-usage"])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .args(["--remote-debugging-pipe", "--window-size=1280,900"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot run sh")?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take());
        let (tell, said) = channel();
        let answers = answers.context("its output is piped")?;
        thread::spawn(move || hear(answers, &tell));
        let mut browser = Self {
            child,
            orders: orders.context("its input is piped")?,
            said,
            session: String::new(),
            last: 0,
            errors: Vec::new(),
            _profile: profile,
        };
        let page = browser.ask("Target.createTarget", &json!({"url": "about:blank"}))?;
        let how = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.ask("Target.attachToTarget", &how)?;
        let session = attached["sessionId"].as_str().context("no session")?;
        session.clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Log"] {
            browser.ask(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(browser)
    }

    /// Opens an address, as if a person had typed it.
    ///
    /// # Errors
    /// When it cannot be shown.
    pub fn open(&mut self, url: &str) -> anyhow::Result<()> {
        let shown = self.ask("Page.navigate", &json!({"url": url}))?;
        let error = shown["errorText"].as_str();
        ensure!(error.is_none(), "{url}: {error:?}");
        Ok(())
    }

    /// The value of an expression in the page.
    ///
    /// # Errors
    /// When it throws.
    pub fn evaluate(&mut self, expression: &str) -> anyhow::Result<Value> {
        let what = json!({"expression": expression, "returnByValue": true});
        let answer = self.ask("Runtime.evaluate", &what)?;
        let thrown = &answer["exceptionDetails"];
        ensure!(thrown.is_null(), "{expression}: {thrown}");
        Ok(answer["result"]["value"].clone())
    }

    /// Waits until an expression has a value that is not null, false or empty.
    ///
    /// # Errors
    /// When it never has: with what is on the page.
    pub fn wait_for(&mut self, expression: &str) -> anyhow::Result<Value> {
        let end = Instant::now() + wait::PATIENCE;
        loop {
            // While a page goes and another one comes there is nothing that could be asked.
            let value = self.evaluate(expression).unwrap_or_default();
            if !matches!(&value, Value::Null | Value::Bool(false)) && value != "" {
                return Ok(value);
            }
            if Instant::now() > end {
                let shown = self.evaluate("document.body.innerText")?;
                bail!("never {expression}; the page shows {shown}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Presses the mouse's button on the element that an expression gives, once it is there and
    /// nothing else lies on it.
    ///
    /// # Errors
    /// When it is not there, or cannot be hit.
    pub fn click(&mut self, element: &str) -> anyhow::Result<()> {
        let place = self.wait_for(&format!(
            "(() => {{
               const e = {element};
               if (!e) return null;
               e.scrollIntoView({{ block: 'center', behavior: 'instant' }});
               const r = e.getBoundingClientRect();
               const x = r.left + r.width / 2, y = r.top + r.height / 2;
               const hit = document.elementFromPoint(x, y);
               return hit && (e === hit || e.contains(hit)) ? [x, y] : null;
             }})()"
        ))?;
        for kind in ["mousePressed", "mouseReleased"] {
            let what = json!({"type": kind, "x": place[0], "y": place[1], "button": "left",
                "clickCount": 1});
            self.ask("Input.dispatchMouseEvent", &what)?;
        }
        Ok(())
    }

    /// What the page's own code did wrong so far: exceptions that nobody caught, and what the
    /// browser logs as an error.
    #[must_use]
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// Gives an order and waits for its answer.
    fn ask(&mut self, method: &str, params: &Value) -> anyhow::Result<Value> {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let order = format!("{message}\0");
        self.orders
            .write_all(order.as_bytes())
            .context("it ended")?;
        let end = Instant::now() + wait::PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let said = self.said.recv_timeout(left);
            let said = said.with_context(|| format!("no answer to {method}"))?;
            if said["id"] == self.last {
                ensure!(said["error"].is_null(), "{method}: {}", said["error"]);
                return Ok(said["result"].clone());
            }
            let is_error = said["params"]["entry"]["level"] == "error";
            if said["method"] == "Runtime.exceptionThrown" || is_error {
                self.errors.push(said["params"].to_string());
            }
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // In order, so that its own children end, too; it ends by itself when the pipe does.
        let _ = self
            .orders
            .write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let ended = wait::until("its end", Duration::from_secs(5), || {
            self.child.try_wait().ok().flatten()
        });
        if ended.is_err() {
            // Fails only when it is gone already.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Passes every message on, until the browser ends or nobody listens.
fn hear(answers: ChildStdout, tell: &Sender<Value>) {
    let messages = BufReader::new(answers).split(0).map_while(Result::ok);
    for message in messages {
        let Ok(message) = serde_json::from_slice(&message) else {
            continue;
        };
        if tell.send(message).is_err() {
            return;
        }
    }
}
