//! What is sent as one request: one accepted request, or several of one signal joined.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Outgoing, split};

/// One request to downstream and its history.
#[derive(Debug)]
pub(super) struct Batch {
    /// In order of arrival; sent as their concatenation.
    pub parts: Vec<Outgoing>,
    /// Place in the order of arrival.
    pub seq: u64,
    /// Refusals that looked as if they were about this one.
    pub suspicions: u32,
    /// Tries that ended in a refusal that may be about this one.
    pub refusals: u32,
    /// Deliveries of the lane at the last such refusal.
    pub deliveries_seen: u64,
}

impl Batch {
    fn new(parts: Vec<Outgoing>, seq: u64) -> Self {
        Self {
            parts,
            seq,
            suspicions: 0,
            refusals: 0,
            deliveries_seen: 0,
        }
    }

    /// Takes the oldest requests of `queue`, at least one, up to `max_bytes` together.
    pub fn take(queue: &mut VecDeque<Outgoing>, max_bytes: usize, seq: u64) -> Option<Self> {
        let first = queue.pop_front()?;
        let mut bytes = first.payload.len();
        let mut parts = vec![first];
        while let Some(next) = queue.front()
            && bytes + next.payload.len() <= max_bytes
        {
            bytes += next.payload.len();
            parts.extend(queue.pop_front());
        }
        Some(Self::new(parts, seq))
    }

    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.payload.len()).sum()
    }

    pub fn items(&self) -> usize {
        self.parts.iter().map(|part| part.items).sum()
    }

    pub fn payloads(&self) -> Vec<Bytes> {
        self.parts.iter().map(|part| part.payload.clone()).collect()
    }

    /// Joined requests, in two; a single one is given back.
    pub fn part(mut self) -> Result<(Self, Self), Self> {
        if self.parts.len() < 2 {
            return Err(self);
        }
        let second = self.parts.split_off(self.parts.len() / 2);
        Ok((Self::new(self.parts, self.seq), Self::new(second, self.seq)))
    }

    /// As [`Self::part`], but cuts a single request too. One that cannot be cut is given back.
    pub fn cut(self) -> Result<(Self, Self), Self> {
        let mut single = match self.part() {
            Err(single) => single,
            halves => return halves,
        };
        let Some((first, second)) = single
            .parts
            .first()
            .and_then(|only| split::halve(&only.payload))
        else {
            return Err(single);
        };
        let Some(mut only) = single.parts.pop() else {
            return Err(single);
        };
        let counted = only.items > 0;
        let items = |half: &Bytes| if counted { split::count(half) } else { 0 };
        let permit = only.permit.as_mut().and_then(|permit| {
            let half = permit.num_permits() / 2;
            permit.split(half)
        });
        let second = Outgoing {
            signal: only.signal,
            items: items(&second),
            payload: second,
            permit,
        };
        only.items = items(&first);
        only.payload = first;
        Ok((
            Self::new(vec![only], single.seq),
            Self::new(vec![second], single.seq),
        ))
    }
}
