//! Sends what was accepted to the downstream: bounded, with retries, in order of arrival.

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;

use crate::otlp::Signal;

/// One export request on its way out, protobuf.
#[derive(Debug)]
pub struct Outgoing {
    /// Which endpoint it goes to.
    pub signal: Signal,
    /// The request message. Two requests of one signal may be joined by concatenation:
    /// their only field is repeated.
    pub payload: Bytes,
    /// Items in it (spans; 0 where not counted), for the counters.
    pub items: usize,
    /// What it holds of the receiver's byte budget; given back when this is dropped.
    pub permit: Option<OwnedSemaphorePermit>,
}
