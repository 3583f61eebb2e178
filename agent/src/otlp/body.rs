//! Request bodies: read within limits of size, time and memory, and decompressed within
//! the same.

use std::{
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http_body::Body;
use http_body_util::BodyExt;
use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

/// Room made for a body before it comes.
const MAX_RESERVE_BYTES: usize = 1 << 20;
/// Of a body that is too large, so much is still read and thrown away, as a sender that is
/// cut off in the middle often never sees the answer.
const MAX_DISCARD_BYTES: usize = 64 << 20;

/// What a body may take.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    /// Bytes on the wire, and bytes after decompression.
    pub max_bytes: usize,
    /// Until the last byte is there.
    pub timeout: Duration,
    /// Bytes that all bodies together may take.
    pub budget: Arc<Semaphore>,
}

/// Why there is no body.
#[derive(Debug, Error)]
pub(super) enum BodyError {
    #[error("the request is larger than {0} bytes; send smaller batches")]
    TooLarge(usize),
    #[error("the request did not come within {0:?}")]
    Timeout(Duration),
    #[error("the receiver holds as many bytes as it may; try again")]
    Full,
    #[error("the request broke off: {0}")]
    Broken(String),
    #[error("the gzip data are damaged: {0}")]
    Gzip(io::Error),
}

/// A body, and what it takes of the budget while it lives.
#[derive(Debug)]
pub(super) struct Held {
    pub bytes: Bytes,
    _permits: Vec<OwnedSemaphorePermit>,
}

/// Reads a body. `expected` guesses its length from its first bytes.
pub(super) async fn read<B>(
    body: B,
    limits: &Limits,
    expected: impl Fn(&[u8]) -> usize,
) -> Result<Held, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let deadline = Instant::now() + limits.timeout;
    let timed = |_| BodyError::Timeout(limits.timeout);
    let mut body = body;
    let (mut all, mut permits) = (BytesMut::new(), Vec::new());
    loop {
        let frame = timeout_at(deadline, body.frame()).await.map_err(timed)?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|error| BodyError::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if all.len() + data.len() > limits.max_bytes {
            drop(all);
            discard(body, deadline).await;
            return Err(BodyError::TooLarge(limits.max_bytes));
        }
        permits.extend(limits.reserve(data.len())?);
        if all.is_empty() {
            let size = body
                .size_hint()
                .exact()
                .map_or(0, |rest| rest as usize + data.len());
            let size = size.max(expected(&data)).max(data.len());
            all.reserve(size.min(MAX_RESERVE_BYTES).max(data.len()));
        }
        all.extend_from_slice(&data);
    }
    Ok(Held {
        bytes: all.freeze(),
        _permits: permits,
    })
}

async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B, deadline: Instant) {
    let mut left = MAX_DISCARD_BYTES;
    while let Ok(Some(Ok(frame))) = timeout_at(deadline, body.frame()).await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            break;
        }
    }
}

impl Limits {
    fn reserve(&self, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, BodyError> {
        let permits = u32::try_from(bytes).map_err(|_| BodyError::Full)?;
        if permits == 0 {
            return Ok(None);
        }
        let permit = Arc::clone(&self.budget).try_acquire_many_owned(permits);
        permit.map(Some).map_err(|_| BodyError::Full)
    }
}

/// Decompresses; never holds more than the limit and one buffer, whatever the input.
pub(super) fn gunzip(compressed: &[u8], limits: &Limits) -> Result<Held, BodyError> {
    const STEP_BYTES: usize = 64 * 1024;
    let mut decoder = MultiGzDecoder::new(compressed);
    let (mut out, mut permits) = (
        Vec::with_capacity(4 * compressed.len().min(STEP_BYTES)),
        Vec::new(),
    );
    loop {
        let before = out.len();
        let mut step = (&mut decoder).take(STEP_BYTES as u64);
        step.read_to_end(&mut out).map_err(BodyError::Gzip)?;
        let grown = out.len() - before;
        if grown == 0 {
            break;
        }
        if out.len() > limits.max_bytes {
            return Err(BodyError::TooLarge(limits.max_bytes));
        }
        permits.extend(limits.reserve(grown)?);
    }
    Ok(Held {
        bytes: out.into(),
        _permits: permits,
    })
}

#[cfg(test)]
mod tests;
