//! A wire between two of a guest's network cards, which stands still when it is asked to: then
//! the emulator cannot get rid of what the guest sends, the ring of that card fills, and the
//! guest's queue is stuck as it is over a back end that has stopped.
//!
//! The guest asks by a datagram of its own, see `agent/tests/net_sensor/stuck.rs`.

use std::{
    io::{self, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

/// What a packet says that shall hold up all those that follow it the same way, and then the
/// milliseconds as text.
const STAND_STILL: &[u8] = b"isostack wire stands still ms=";
/// Longest that is believed.
const MAX_STILL: Duration = Duration::from_secs(60);
/// Longest frame that an emulator sends: a packet that still is to be segmented.
const MAX_FRAME: usize = 1 << 17;

/// The two ends, as QEMU connects to them; gone with the guest's directory.
pub struct Wire([PathBuf; 2]);

impl Wire {
    /// One whose sockets are in `dir`. It serves one guest, and ends with that.
    ///
    /// # Errors
    /// When the sockets cannot be made.
    pub fn lay(dir: &Path) -> anyhow::Result<Self> {
        let paths = ["wire-a", "wire-b"].map(|name| dir.join(name));
        let a = UnixListener::bind(&paths[0])?;
        let b = UnixListener::bind(&paths[1])?;
        thread::spawn(move || {
            // Without a guest that connects there is nothing to do; with one, until it ends.
            let ends = a.accept().and_then(|a| Ok((a.0, b.accept()?.0)));
            let both = ends.and_then(|(a, b)| Ok([(a.try_clone()?, b.try_clone()?), (b, a)]));
            for (from, to) in both.into_iter().flatten() {
                thread::spawn(move || pass(from, to));
            }
        });
        Ok(Self(paths))
    }

    /// What tells QEMU of the two cards. Their addresses are how a test knows them.
    pub fn arguments(&self) -> Vec<String> {
        let ends = self.0.iter().zip(1..);
        let of = |(path, n): (&PathBuf, u32)| {
            let path = path.display();
            [
                "-netdev".to_owned(),
                format!("stream,id=wire{n},server=off,addr.type=unix,addr.path={path}"),
                "-device".to_owned(),
                format!("virtio-net-pci,netdev=wire{n},mac=52:54:00:69:73:0{n},romfile="),
            ]
        };
        ends.flat_map(of).collect()
    }
}

/// Passes frames on, each behind its length in four bytes, until one of the ends goes.
fn pass(mut from: UnixStream, mut to: UnixStream) -> io::Result<()> {
    let mut frame = Vec::new();
    loop {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let bytes = u32::from_be_bytes(length) as usize;
        if bytes > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        frame.resize(bytes, 0);
        from.read_exact(&mut frame)?;
        if let Some(still) = asked_for(&frame) {
            thread::sleep(still.min(MAX_STILL));
        }
        to.write_all(&length)?;
        to.write_all(&frame)?;
    }
}

/// How long the frame asks to stand still.
fn asked_for(frame: &[u8]) -> Option<Duration> {
    let at = frame
        .windows(STAND_STILL.len())
        .position(|bytes| bytes == STAND_STILL)?;
    let digits = frame[at + STAND_STILL.len()..].iter();
    let digits = digits.take_while(|byte| byte.is_ascii_digit());
    let digits: String = digits.map(|byte| char::from(*byte)).collect();
    digits.parse().ok().map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_asks_for_it_stands_still() {
        let asked = |frame: &str| asked_for(frame.as_bytes());
        let eight = Some(Duration::from_secs(8));
        assert_eq!(asked("....isostack wire stands still ms=8000"), eight);
        assert_eq!(asked("isostack wire stands still ms=8000\n.."), eight);
        assert_eq!(asked("isostack wire stands still ms="), None);
        assert_eq!(asked("isostack wire"), None);
        assert_eq!(asked(""), None);
    }

    #[test]
    fn frames_arrive_as_they_were_sent_and_those_after_a_request_late() {
        let dir = tempfile::tempdir().unwrap();
        let wire = Wire::lay(dir.path()).unwrap();
        let [a, b] = &wire.0;
        let (mut a, mut b) = (
            UnixStream::connect(a).unwrap(),
            UnixStream::connect(b).unwrap(),
        );
        let framed = |frame: &[u8]| [&(frame.len() as u32).to_be_bytes(), frame].concat();
        let sent = [
            framed(b"first"),
            framed(b"isostack wire stands still ms=5"),
            framed(b""),
            framed(b"last"),
        ]
        .concat();
        a.write_all(&sent).unwrap();
        let mut seen = vec![0; sent.len()];
        b.read_exact(&mut seen).unwrap();
        assert_eq!(seen, sent);
        b.write_all(&framed(b"back")).unwrap();
        let mut seen = [0; 8];
        a.read_exact(&mut seen).unwrap();
        assert_eq!(&seen[4..], b"back");
    }
}
