//! Where the sensors' words go.

use crate::event::{Change, Event};

/// Called on the thread that empties the ring buffer.
pub trait Sink: Send {
    /// A batch of events, in the order of the ring.
    fn events(&mut self, batch: Vec<Event>);

    /// Somebody is no longer what he was; told before the batch that it was read with, as what
    /// comes late is told of who he is now.
    fn change(&mut self, _change: Change) {}
}

/// A closure for who wants nothing but events.
pub struct EventsOnly<F>(pub F);

impl<F: FnMut(Vec<Event>) + Send> Sink for EventsOnly<F> {
    fn events(&mut self, batch: Vec<Event>) {
        self.0(batch);
    }
}
