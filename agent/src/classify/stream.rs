//! Bytes as they come -> the lines that say something, with their numbers. Memory does not
//! grow: neither with the length of a line nor with the number of lines.

use std::{io, ops::ControlFlow};

use memchr::{memchr, memchr_iter, memrchr};

use super::{Classifier, Hit, OVERLAP_BYTES, Only, scan::Marks};

/// Bytes held; also the most that is read at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// A line that says something.
#[derive(Debug)]
pub struct Found<'a> {
    /// From 1.
    pub line_number: u64,
    /// The line without its end; of a line longer than the buffer the part that matched.
    pub line: &'a [u8],
    /// What it says.
    pub hit: Hit,
}

/// One stream of lines.
#[derive(Debug)]
pub struct Stream<'o> {
    classifier: &'static Classifier,
    only: Only<'o>,
    marks: Marks,
    buffer: Box<[u8]>,
    filled: usize,
    /// Lines that ended before the first byte of the buffer.
    lines: u64,
    /// The buffer begins within a line that was too long for it, ...
    within_line: bool,
    /// ... of which a part matched already.
    reported: bool,
}

impl<'o> Stream<'o> {
    /// An empty one.
    #[must_use]
    pub fn new(only: Only<'o>) -> Self {
        Self::with_buffer(only, BUFFER_BYTES)
    }

    /// The same with a buffer of another size, for whoever has many streams; at least twice
    /// what parts of a long line share.
    #[must_use]
    pub fn with_buffer(only: Only<'o>, bytes: usize) -> Self {
        Self {
            classifier: Classifier::get(),
            only,
            marks: Marks::default(),
            buffer: vec![0; bytes.max(2 * OVERLAP_BYTES)].into_boxed_slice(),
            filled: 0,
            lines: 0,
            within_line: false,
            reported: false,
        }
    }

    /// Bytes that came but belong to a line that has not ended.
    #[must_use]
    pub const fn pending(&self) -> usize {
        self.filled
    }

    /// Where the next bytes go; never empty. Say with [`Self::advance`] how many came.
    pub fn space(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled..]
    }

    /// `n` bytes were written to [`Self::space`]; gives the lines that they complete.
    ///
    /// # Errors
    /// What `sink` breaks with.
    ///
    /// # Panics
    /// If `n` is more than the space.
    pub fn advance<B>(
        &mut self,
        n: usize,
        sink: &mut impl FnMut(Found<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        assert!(n <= self.buffer.len() - self.filled, "more than the space");
        let fresh = self.filled;
        self.filled += n;
        if let Some(end) = memrchr(b'\n', &self.buffer[fresh..self.filled]) {
            self.complete(fresh + end + 1, sink)?;
        }
        if self.filled == self.buffer.len() {
            self.part_of_a_long_line(sink)?;
        }
        ControlFlow::Continue(())
    }

    /// There is no more: what is left is the last line.
    ///
    /// # Errors
    /// What `sink` breaks with.
    pub fn finish<B>(
        &mut self,
        sink: &mut impl FnMut(Found<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if self.filled > 0 {
            self.complete(self.filled, sink)?;
        }
        (self.within_line, self.reported) = (false, false);
        ControlFlow::Continue(())
    }

    /// Reads until the end.
    ///
    /// # Errors
    /// When reading fails.
    pub fn read_all<B>(
        &mut self,
        mut from: impl io::Read,
        sink: &mut impl FnMut(Found<'_>) -> ControlFlow<B>,
    ) -> io::Result<ControlFlow<B>> {
        loop {
            let step = match from.read(self.space()) {
                Ok(0) => return Ok(self.finish(sink)),
                Ok(n) => self.advance(n, sink),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if step.is_break() {
                return Ok(step);
            }
        }
    }

    /// The first `end` bytes are whole lines.
    fn complete<B>(
        &mut self,
        end: usize,
        sink: &mut impl FnMut(Found<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let block = &self.buffer[..end];
        let (mut begin, mut counted) = (0, 0);
        if self.within_line && self.reported {
            // The rest of a line that was reported already.
            begin = memchr(b'\n', block).map_or(end, |feed| feed + 1);
        }
        self.marks.find(&self.classifier.literals, &block[begin..]);
        for literal in self.marks.iter() {
            let literal = begin + literal;
            let first = memrchr(b'\n', &block[..literal]).map_or(0, |feed| feed + 1);
            let last = memchr(b'\n', &block[literal..]).map_or(end, |feed| literal + feed);
            let line = block[first..last]
                .strip_suffix(b"\r")
                .unwrap_or(&block[first..last]);
            // The automaton stops at the first end of a literal.
            let hit = self
                .classifier
                .classify_from(line, literal - 1 - first, self.only);
            if let Some(hit) = hit {
                self.lines += feeds(&block[counted..first]);
                counted = first;
                let line_number = self.lines + 1;
                sink(Found {
                    line_number,
                    line,
                    hit,
                })?;
            }
        }
        self.lines += feeds(&block[counted..]);
        (self.within_line, self.reported) = (false, false);
        self.buffer.copy_within(end..self.filled, 0);
        self.filled -= end;
        ControlFlow::Continue(())
    }

    /// The buffer is full of one line: looks at it, keeps its tail.
    fn part_of_a_long_line<B>(
        &mut self,
        sink: &mut impl FnMut(Found<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let part = &self.buffer[..self.filled];
        if !self.reported
            && let Some(hit) = self.classifier.classify(part, self.only)
        {
            self.reported = true;
            let line_number = self.lines + 1;
            sink(Found {
                line_number,
                line: part,
                hit,
            })?;
        }
        self.within_line = true;
        self.buffer.copy_within(self.filled - OVERLAP_BYTES.., 0);
        self.filled = OVERLAP_BYTES;
        ControlFlow::Continue(())
    }
}

fn feeds(bytes: &[u8]) -> u64 {
    memchr_iter(b'\n', bytes).count() as u64
}
