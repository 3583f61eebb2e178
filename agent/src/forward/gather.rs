//! A connection that sends several full HTTP/2 frames by one system call.
//!
//! Servers take frames of 16 KiB as a rule, and HTTP/2 hands each of them to the connection
//! and flushes it: a batch of spans is some twenty calls and as many packets, which took an
//! eighth of the agent's time. After a full frame comes more, or else another flush.

use std::{
    io::{self, IoSlice},
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};

/// Payload of the frames that every HTTP/2 server takes (RFC 9113, 6.5.2).
const FRAME_BYTES: usize = 16 << 10;
/// Most bytes held back.
const MAX_HELD_BYTES: usize = 8 * FRAME_BYTES;

/// See the module's head.
pub(super) struct Gathering<T> {
    inner: T,
    held: Vec<u8>,
    /// Bytes of `held` that are sent already.
    sent: usize,
    /// The last write was a full frame, and no flush came since.
    expects_more: bool,
}

impl<T: Write + Unpin> Gathering<T> {
    pub fn new(inner: T) -> Self {
        Self {
            inner,
            held: Vec::new(),
            sent: 0,
            expects_more: false,
        }
    }

    fn send_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.held.len() {
            let rest = &self.held[self.sent..];
            match ready!(Pin::new(&mut self.inner).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.sent += n,
            }
        }
        self.held.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }
}

impl<T: Write + Unpin> Write for Gathering<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if self.held.len() + length > MAX_HELD_BYTES {
            ready!(self.send_held(cx))?;
        }
        self.expects_more = (FRAME_BYTES..=MAX_HELD_BYTES).contains(&length);
        if self.held.is_empty() && !self.expects_more {
            return Pin::new(&mut self.inner).poll_write_vectored(cx, parts);
        }
        let held = &mut self.held;
        held.reserve_exact(MAX_HELD_BYTES - held.len());
        for part in parts {
            held.extend_from_slice(part);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if mem::take(&mut self.expects_more) {
            // Should nothing follow, the connection's task is run once more, and flushes.
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(self.send_held(cx))?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send_held(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl<T: Read + Unpin> Read for Gathering<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, to)
    }
}

impl<T: Connection> Connection for Gathering<T> {
    fn connected(&self) -> Connected {
        self.inner.connected()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would have been given, call by call; takes `at_once` bytes a call.
    #[derive(Default)]
    struct Calls {
        calls: Vec<Vec<u8>>,
        at_once: usize,
        full: bool,
    }

    impl Write for Calls {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            if self.full {
                return Poll::Pending;
            }
            let taken = bytes.len().min(self.at_once);
            self.calls.push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn gathering(at_once: usize) -> Gathering<Calls> {
        Gathering::new(Calls {
            at_once,
            ..Calls::default()
        })
    }

    fn write(to: &mut Gathering<Calls>, bytes: &[u8]) -> Poll<usize> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let (head, rest) = bytes.split_at(bytes.len().min(9));
        let parts = [IoSlice::new(head), IoSlice::new(rest)];
        Pin::new(to)
            .poll_write_vectored(&mut cx, &parts)
            .map(Result::unwrap)
    }

    fn flush(to: &mut Gathering<Calls>) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        Pin::new(to).poll_flush(&mut cx).is_ready()
    }

    fn frame(n: u8) -> Vec<u8> {
        vec![n; FRAME_BYTES + 9]
    }

    #[test]
    fn full_frames_leave_together_with_the_short_one_that_ends_them() {
        let mut to = gathering(usize::MAX);
        let mut wanted = Vec::new();
        for n in 0..20 {
            assert_eq!(write(&mut to, &frame(n)), Poll::Ready(FRAME_BYTES + 9));
            assert!(flush(&mut to));
            wanted.extend(frame(n));
        }
        assert_eq!(write(&mut to, &[20; 100]), Poll::Ready(100));
        wanted.extend([20; 100]);
        assert!(flush(&mut to));
        assert_eq!(to.inner.calls.len(), 3);
        assert_eq!(to.inner.calls.concat(), wanted);
    }

    #[test]
    fn a_second_flush_sends_what_the_first_held_back() {
        let mut to = gathering(usize::MAX);
        assert!(write(&mut to, &frame(1)).is_ready());
        assert!(flush(&mut to));
        assert!(to.inner.calls.is_empty());
        assert!(flush(&mut to));
        assert_eq!(to.inner.calls, [frame(1)]);
    }

    #[test]
    fn what_is_short_or_huge_is_not_held() {
        let mut to = gathering(usize::MAX);
        for bytes in [&[1; 10][..], &[2; 9], &vec![3; MAX_HELD_BYTES + 1]] {
            let taken = match write(&mut to, bytes) {
                Poll::Ready(taken) => taken,
                Poll::Pending => 0,
            };
            assert_eq!(to.inner.calls.pop().map(|call| call.len()), Some(taken));
        }
    }

    #[test]
    fn nothing_is_lost_where_the_kernel_takes_little_or_nothing() {
        let mut to = gathering(1_000);
        let mut wanted = Vec::new();
        for n in 0..40 {
            to.inner.full = n % 3 == 0;
            if write(&mut to, &frame(n)).is_pending() {
                to.inner.full = false;
                assert!(write(&mut to, &frame(n)).is_ready());
            }
            wanted.extend(frame(n));
            assert!(flush(&mut to));
            assert!(to.held.capacity() <= MAX_HELD_BYTES);
        }
        to.inner.full = true;
        assert!(!flush(&mut to));
        to.inner.full = false;
        assert!(flush(&mut to));
        assert_eq!(to.inner.calls.concat(), wanted);
    }
}
