//! The splice: what came, byte for byte and in the same order, plus our attributes at the
//! end of each span and our child spans at the end of each resource. Only the length
//! prefixes around an addition are written anew.

use std::{collections::HashMap, ops::Range, sync::Arc};

use bytes::Bytes;

use self::attributes::{put_base, put_verdict};
use super::wire::{Fields, Value, WireError, put_varint, varint_len};
use crate::{
    process::SharedIdentity,
    span::{Joined, SpanBatch},
    verdict::Judgement,
    vocabulary::Confidence,
};

mod attributes;
mod children;

/// What [`enrich`] adds besides the judgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnrichOptions {
    /// Name of this node, for `isostack.node`.
    pub node: String,
    /// Whether child spans are added.
    pub child_spans: bool,
}

/// The batch's request with the judgements added; `judgements[i]` is that of span `i`, and
/// a span without one leaves as it came, as does one that another agent enriched already.
///
/// The result is larger than the payload by what was added; a batch judged in part only, or
/// one that holds nothing to add to, costs one copy at most.
#[must_use]
pub fn enrich(batch: &SpanBatch, judgements: &[Judgement], options: &EnrichOptions) -> Bytes {
    let mut plan = Plan {
        batch,
        judgements,
        options,
        scratch: Vec::new(),
        bases: HashMap::new(),
        last_base: None,
        pieces: Vec::with_capacity(batch.spans.len() + 2 * batch.resources.len()),
        span: 0,
    };
    match plan.request() {
        Ok(0) | Err(_) => batch.payload.clone(),
        Ok(added) => plan.write(added),
    }
}

/// One edit of the payload, in order of place.
enum Piece {
    /// The length prefix at `at..body` (offsets in the payload) becomes `length`.
    Prefix { at: usize, body: usize, length: u64 },
    /// `content` of the scratch buffer is put in at `at`.
    Insert { at: usize, content: Range<usize> },
}

/// An identity, by its address (which the judgements keep alive), and the confidence.
type BaseKey = (usize, Confidence);

fn address(identity: &SharedIdentity) -> usize {
    Arc::as_ptr(identity) as usize
}

struct Plan<'a> {
    batch: &'a SpanBatch,
    judgements: &'a [Judgement],
    options: &'a EnrichOptions,
    /// Encoded additions; pieces refer to parts of it.
    scratch: Vec<u8>,
    /// The encoded first attributes, by what they are made from.
    bases: HashMap<BaseKey, Range<usize>>,
    last_base: Option<(BaseKey, Range<usize>)>,
    pieces: Vec<Piece>,
    /// Index of the next span.
    span: usize,
}

/// A nested message on the walk: its place, and what it grew by.
struct Open {
    prefix: usize,
    body: usize,
    length: usize,
    piece: usize,
}

impl Plan<'_> {
    /// Plans all edits; returns by how many bytes the request grows.
    fn request(&mut self) -> Result<usize, WireError> {
        let batch = self.batch;
        let mut fields = Fields::new(&batch.payload);
        let (mut added, mut resource) = (0, 0);
        while let Some(field) = fields.next_field()? {
            if let (1, Value::Len(body)) = (field.number, field.value) {
                let open = self.open(field.tag_end, fields.position(), body);
                let grown = self.resource_spans(body, open.body, resource)?;
                added += self.close(open, grown);
                resource += 1;
            }
        }
        Ok(added)
    }

    fn resource_spans(
        &mut self,
        body: &[u8],
        base: usize,
        resource: usize,
    ) -> Result<usize, WireError> {
        let (mut fields, mut added) = (Fields::new(body), 0);
        while let Some(field) = fields.next_field()? {
            if let (2, Value::Len(scope)) = (field.number, field.value) {
                let open = self.open(base + field.tag_end, base + fields.position(), scope);
                let grown = self.scope_spans(scope, open.body)?;
                added += self.close(open, grown);
            }
        }
        if self.options.child_spans
            && let Some(resource) = self.batch.resources.get(resource)
        {
            let spans = resource.spans.clone();
            let start = self.scratch.len();
            let judged = spans.filter_map(|i| {
                let judgement = self.judgements.get(i)?;
                let is_ours = judgement.intervals.is_empty() || self.is_enriched(i);
                (!is_ours).then(|| (&self.batch.spans[i], judgement))
            });
            let judged: Vec<_> = judged.collect();
            children::put_scope(&mut self.scratch, &judged);
            added += self.insert(base + body.len(), start..self.scratch.len());
        }
        Ok(added)
    }

    fn scope_spans(&mut self, body: &[u8], base: usize) -> Result<usize, WireError> {
        let (mut fields, mut added) = (Fields::new(body), 0);
        while let Some(field) = fields.next_field()? {
            if let (2, Value::Len(span)) = (field.number, field.value) {
                let open = self.open(base + field.tag_end, base + fields.position(), span);
                let end = open.body + span.len();
                let index = self.span;
                self.span += 1;
                let grown = match self.judgements.get(index) {
                    Some(judgement) if !self.is_enriched(index) => self.attributes(judgement, end),
                    _ => 0,
                };
                added += self.close(open, grown);
            }
        }
        Ok(added)
    }

    fn is_enriched(&self, index: usize) -> bool {
        let span = self.batch.spans.get(index);
        span.is_none_or(|span| span.is_enriched)
    }

    /// Adds the attributes at `at`, the end of the span; returns how many bytes.
    fn attributes(&mut self, judgement: &Judgement, at: usize) -> usize {
        let joined = &judgement.joined;
        let identity = joined.identity.as_ref();
        let key = (identity.map_or(0, address), joined.confidence);
        let base = match &self.last_base {
            // Most batches come from one process.
            Some((last, base)) if *last == key => base.clone(),
            _ => self.base(key, joined),
        };
        let mut added = self.insert(at, base);
        if let Some(verdict) = &judgement.verdict {
            let start = self.scratch.len();
            put_verdict(&mut self.scratch, verdict, judgement.split.as_ref());
            added += self.insert(at, start..self.scratch.len());
        }
        added
    }

    /// The encoded first attributes of `joined`, made once.
    fn base(&mut self, key: BaseKey, joined: &Joined) -> Range<usize> {
        let (scratch, node) = (&mut self.scratch, &self.options.node);
        let base = self.bases.entry(key).or_insert_with(|| {
            let start = scratch.len();
            put_base(scratch, joined, node);
            start..scratch.len()
        });
        self.last_base = Some((key, base.clone()));
        base.clone()
    }

    fn insert(&mut self, at: usize, content: Range<usize>) -> usize {
        let length = content.len();
        if length > 0 {
            self.pieces.push(Piece::Insert { at, content });
        }
        length
    }

    /// Sets a piece aside for the prefix of a message that may grow.
    fn open(&mut self, prefix: usize, end: usize, body: &[u8]) -> Open {
        let body_start = end - body.len();
        self.pieces.push(Piece::Prefix {
            at: prefix,
            body: body_start,
            length: body.len() as u64,
        });
        Open {
            prefix,
            body: body_start,
            length: body.len(),
            piece: self.pieces.len() - 1,
        }
    }

    /// Settles the prefix; returns what the message and its prefix grew by.
    fn close(&mut self, open: Open, grown: usize) -> usize {
        if grown == 0 {
            // Nothing was added inside: no piece after this one, and the prefix stays as is.
            self.pieces.truncate(open.piece);
            return 0;
        }
        let new = (open.length + grown) as u64;
        if let Some(Piece::Prefix { length, .. }) = self.pieces.get_mut(open.piece) {
            *length = new;
        }
        // A prefix that was wider than it had to be shrinks, by at most nine bytes at each of
        // three levels: less than the attributes of a single span take, so never below zero.
        (grown + varint_len(new)).saturating_sub(open.body - open.prefix)
    }

    fn write(self, added: usize) -> Bytes {
        let payload = &self.batch.payload;
        let mut out = Vec::with_capacity(payload.len() + added);
        let mut copied = 0;
        for piece in self.pieces {
            match piece {
                Piece::Prefix { at, body, length } => {
                    out.extend_from_slice(&payload[copied..at]);
                    put_varint(&mut out, length);
                    copied = body;
                }
                Piece::Insert { at, content } => {
                    out.extend_from_slice(&payload[copied..at]);
                    out.extend_from_slice(&self.scratch[content]);
                    copied = at;
                }
            }
        }
        out.extend_from_slice(&payload[copied..]);
        out.into()
    }
}

/// Whether an attribute of this key says that an agent upstream was here: the span is one of
/// its own, or carries its node.
pub(super) fn is_mark(key: &[u8]) -> bool {
    key == attributes::NODE || key == attributes::SYNTHETIC
}

/// Whether the spans of `joined` say more than their node.
fn is_known(joined: &Joined) -> bool {
    joined.confidence != Confidence::Host && joined.identity.is_some()
}

#[cfg(test)]
mod tests;
