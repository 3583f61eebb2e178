//! A tiny HTTP/1.0 client: enough for loopback APIs, no dependency.

use std::{
    io::{Read as _, Write as _},
    net::{TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use anyhow::{Context as _, bail};

/// Longest wait for one read; long enough for a heavily throttled service.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// Largest answer taken.
const MAX_BYTES: u64 = 64 << 20;

/// An answer.
#[derive(Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header lines as they came.
    pub head: String,
    /// Body, lossy UTF-8.
    pub body: String,
}

impl Response {
    /// The body as JSON.
    ///
    /// # Errors
    /// When the status is no success or the body is no JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        if !(200..300).contains(&self.status) {
            bail!("status {}: {}", self.status, self.body);
        }
        serde_json::from_str(&self.body).with_context(|| self.body.clone())
    }
}

/// `GET url`.
///
/// # Errors
/// When there is no connection or no HTTP answer.
pub fn get(url: &str) -> anyhow::Result<Response> {
    request("GET", url, &[], b"")
}

/// Any request with a body.
///
/// # Errors
/// When there is no connection or no HTTP answer.
pub fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> anyhow::Result<Response> {
    let rest = url
        .strip_prefix("http://")
        .with_context(|| format!("{url}: not http://"))?;
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let address = authority
        .to_socket_addrs()
        .with_context(|| authority.to_owned())?
        .next()
        .with_context(|| format!("{authority} has no address"))?;
    let mut stream = TcpStream::connect(address).with_context(|| url.to_owned())?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    let mut head = format!("{method} {path} HTTP/1.0\r\nhost: {authority}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream
        .take(MAX_BYTES)
        .read_to_end(&mut answer)
        .with_context(|| url.to_owned())?;
    parse(&answer).with_context(|| format!("{url}: no HTTP answer"))
}

fn parse(answer: &[u8]) -> Option<Response> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let body = String::from_utf8_lossy(&answer[end + 4..]).into_owned();
    Some(Response { status, head, body })
}
