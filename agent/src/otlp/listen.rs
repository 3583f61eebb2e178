//! Where the receiver listens: TCP addresses and Unix sockets.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use http::Uri;
use thiserror::Error;
use tokio::net::{TcpListener, UnixListener};

/// A port in use is tried so often, at this distance.
const BIND_TRIES: u32 = 10;
const BIND_PAUSE: Duration = Duration::from_millis(50);

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `ADDRESS:PORT`, IPv4 or `[IPv6]`; port 0 picks a free one.
    Tcp(SocketAddr),
    /// `unix:PATH`. The socket file is made with mode 0666: whoever reaches its directory
    /// may send, as on a loopback port, and the kernel says who it was.
    Unix(PathBuf),
}

/// Not an address to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not an address to listen on: use ADDRESS:PORT, [IPV6]:PORT or unix:/PATH")]
pub struct ListenParseError(String);

impl FromStr for Listen {
    type Err = ListenParseError;

    fn from_str(text: &str) -> Result<Self, ListenParseError> {
        let error = || ListenParseError(text.to_owned());
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(error()),
            None => text.parse().map(Self::Tcp).map_err(|_| error()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Whether requests to `uri` come to this listener: by an address of this host, or by the
/// name `localhost`. Other names are not resolved.
#[must_use]
pub fn is_reached_by(listener: SocketAddr, uri: &Uri) -> bool {
    let default_port = match uri.scheme_str() {
        Some("https") => 443,
        _ => 80,
    };
    if uri.port_u16().unwrap_or(default_port) != listener.port() {
        return false;
    }
    let host = uri.host().unwrap_or_default();
    if host == "localhost" {
        return listener.ip().is_loopback() || listener.ip().is_unspecified();
    }
    let Ok(host) = host.trim_matches(['[', ']']).parse::<IpAddr>() else {
        return false;
    };
    let (host, own) = (host.to_canonical(), listener.ip().to_canonical());
    host == own
        // A connection to the unspecified address goes to loopback.
        || host.is_unspecified() && own.is_loopback()
        // Only an address of this host can be bound.
        || own.is_unspecified() && UdpSocket::bind((host, 0)).is_ok()
}

/// Why an address cannot be listened on.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another process holds the port; the caller finds out which.
    #[error("{0} is in use by another process; stop it or listen elsewhere")]
    PortInUse(SocketAddr),
    /// Another process answers on the socket.
    #[error("{} is in use by another process; stop it or listen elsewhere", .0.display())]
    SocketInUse(PathBuf),
    /// Something else has that name.
    #[error("{} exists and is not a socket; remove it or listen elsewhere", .0.display())]
    NotASocket(PathBuf),
    /// Anything else.
    #[error("cannot listen on {listen}: {source}; {}", hint(.listen, .source))]
    Io {
        /// The address.
        listen: Listen,
        /// What the kernel said.
        source: io::Error,
    },
}

/// What helps.
pub(crate) fn hint(listen: &Listen, error: &io::Error) -> &'static str {
    match (listen, error.kind()) {
        (Listen::Unix(_), io::ErrorKind::NotFound) => "make the directory first",
        (Listen::Unix(_), io::ErrorKind::PermissionDenied) => {
            "name a file in a directory that the agent may write to"
        }
        (Listen::Unix(_), _) => "name another file",
        (Listen::Tcp(_), io::ErrorKind::AddrNotAvailable) => {
            "name an address of this host, or 0.0.0.0 or [::] for all"
        }
        (Listen::Tcp(_), io::ErrorKind::PermissionDenied) => {
            "a port below 1024 needs CAP_NET_BIND_SERVICE"
        }
        (Listen::Tcp(_), _) => "name another address",
    }
}

/// A bound listener.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        _file: SocketFile,
    },
}

impl Listener {
    /// Binds; returns the address with the port that was picked.
    pub async fn bind(listen: &Listen) -> Result<(Self, Listen), BindError> {
        let io = |source| BindError::Io {
            listen: listen.clone(),
            source,
        };
        match listen {
            Listen::Tcp(address) => {
                let bound = bind_tcp(*address).await;
                let bound = bound.map_err(|error| match error.kind() {
                    io::ErrorKind::AddrInUse => BindError::PortInUse(*address),
                    _ => io(error),
                })?;
                let address = bound.local_addr().map_err(io)?;
                Ok((Self::Tcp(bound), Listen::Tcp(address)))
            }
            Listen::Unix(path) => {
                remove_stale(path)?;
                let bound = UnixListener::bind(path).map_err(io)?;
                let bound = Self::Unix {
                    _file: SocketFile::new(path).map_err(io)?,
                    listener: bound,
                };
                Ok((bound, listen.clone()))
            }
        }
    }
}

/// A process that was just killed holds its ports for some milliseconds more: whoever takes
/// its place must not fail over that.
async fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let mut left = BIND_TRIES;
    loop {
        left -= 1;
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && left > 0 => {
                tokio::time::sleep(BIND_PAUSE).await;
            }
            bound => return bound,
        }
    }
}

/// Removes the socket file that a dead process left.
fn remove_stale(path: &Path) -> Result<(), BindError> {
    let io = |source| BindError::Io {
        listen: Listen::Unix(path.to_owned()),
        source,
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(BindError::NotASocket(path.to_owned()));
        }
        Ok(_) => {}
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(io)
        }
        Err(error) => Err(io(error)),
        Ok(_) => Err(BindError::SocketInUse(path.to_owned())),
    }
}

/// Our socket file: removed on drop, unless another one has taken its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
        let metadata = std::fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            inode: (metadata.dev(), metadata.ino()),
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let is_ours = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.inode);
        if is_ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "Cannot remove the socket");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for text in ["127.0.0.1:4317", "[::1]:0", "unix:/run/isostack/otlp.sock"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        for text in ["4317", "unix:relative", "unix:", "localhost", ""] {
            let error = text.parse::<Listen>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let any = "127.0.0.1:0".parse().unwrap();
        let (_held, address) = Listener::bind(&any).await.unwrap();
        let error = Listener::bind(&address).await.unwrap_err();
        assert!(matches!(error, BindError::PortInUse(_)), "{error}");
        assert!(error.to_string().contains(&address.to_string()));
    }

    #[tokio::test]
    async fn a_port_given_up_meanwhile_is_taken() {
        let any = "127.0.0.1:0".parse().unwrap();
        let (held, address) = Listener::bind(&any).await.unwrap();
        let given_up = async {
            tokio::time::sleep(3 * BIND_PAUSE / 2).await;
            drop(held);
        };
        let (bound, ()) = tokio::join!(Listener::bind(&address), given_up);
        assert_eq!(bound.unwrap().1, address);
    }

    #[test]
    fn own_addresses_are_known_as_such() {
        for (uri, listener, expected) in [
            ("http://127.0.0.1:4317", "127.0.0.1:4317", true),
            ("http://localhost:4317", "[::]:4317", true),
            ("http://0.0.0.0:4317", "127.0.0.1:4317", true),
            ("http://127.0.0.2:4317", "0.0.0.0:4317", true),
            ("http://[::1]:4317", "[::1]:4317", true),
            ("https://localhost", "127.0.0.1:443", true),
            ("http://127.0.0.1:4319", "127.0.0.1:4317", false),
            ("http://203.0.113.7:4317", "0.0.0.0:4317", false),
            ("http://collector:4317", "0.0.0.0:4317", false),
            ("http://127.0.0.2:4317", "127.0.0.1:4317", false),
        ] {
            let reached = is_reached_by(listener.parse().unwrap(), &uri.parse().unwrap());
            assert_eq!(reached, expected, "{uri} {listener}");
        }
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_a_live_one_and_a_file_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("otlp.sock");
        let listen = Listen::Unix(path.clone());

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (held, _) = Listener::bind(&listen).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o666);
        let error = Listener::bind(&listen).await.unwrap_err();
        assert!(matches!(error, BindError::SocketInUse(_)), "{error}");
        drop(held);
        assert!(!path.exists(), "removed at the end");

        std::fs::write(&path, "precious").unwrap();
        let error = Listener::bind(&listen).await.unwrap_err();
        assert!(matches!(error, BindError::NotASocket(_)), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");

        let nowhere = Listen::Unix(dir.path().join("no/such/dir"));
        let error = Listener::bind(&nowhere).await.unwrap_err();
        assert!(matches!(error, BindError::Io { .. }), "{error}");
        assert!(error.to_string().contains("make the directory"), "{error}");
    }

    #[tokio::test]
    async fn an_address_of_somebody_else_says_what_to_do() {
        let elsewhere = "203.0.113.7:0".parse().unwrap();
        let error = Listener::bind(&elsewhere).await.unwrap_err().to_string();
        assert!(error.contains("address of this host"), "{error}");
    }
}
