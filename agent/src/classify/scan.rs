//! A block of lines -> where in it the literals of rules are: the one pass over every byte.
//!
//! An automaton waits for each state before it can look up the next one, so a single walk
//! leaves the processor idle most of the time. A block is walked in several places at once.

use std::{array, ops::Range};

use aho_corasick::{
    Anchored,
    automaton::{Automaton as _, StateID},
    dfa::DFA,
};
use memchr::memchr;

/// Walks at once; with more of them the registers do not suffice.
const WALKS: usize = 6;
/// Below this a block is not worth being divided.
const DIVIDED_BYTES: usize = 4 * 1024;

/// The place that one walk has reached.
#[derive(Clone, Copy, Debug)]
struct Walk {
    start: StateID,
    state: StateID,
    at: usize,
    end: usize,
}

/// Ends of literals in a block, used again for the next block. At most one for each line, so
/// they are bounded by the size of the block.
#[derive(Debug, Default)]
pub struct Marks([Vec<usize>; WALKS]);

impl Marks {
    /// In the order of the block.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().flatten().copied()
    }

    /// Marks, for each line that has a literal, the end of that which ends first. No literal
    /// holds a line feed.
    pub fn find(&mut self, literals: &DFA, block: &[u8]) {
        let start = literals
            .start_state(Anchored::No)
            .expect("the automaton was built for searches that are not anchored");
        let parts = divide(block);
        let mut walks = parts.map(|part| Walk {
            start,
            state: start,
            at: part.start,
            end: part.end,
        });
        self.0.iter_mut().for_each(Vec::clear);
        go(literals, block, &mut walks, &mut self.0);
        for (walk, marks) in walks.iter_mut().zip(&mut self.0) {
            go(
                literals,
                block,
                array::from_mut(walk),
                array::from_mut(marks),
            );
        }
    }
}

/// Goes on with all walks until one of them is at its end.
fn go<const N: usize>(
    literals: &DFA,
    block: &[u8],
    walks: &mut [Walk; N],
    marks: &mut [Vec<usize>; N],
) {
    let shortest = |walks: &[Walk; N]| walks.iter().map(|walk| walk.end - walk.at).min();
    while let Some(bytes @ 1..) = shortest(walks) {
        step(literals, block, walks, bytes);
        for (walk, marks) in walks.iter_mut().zip(&mut *marks) {
            if literals.is_match(walk.state) {
                marks.push(walk.at);
                let feed = memchr(b'\n', &block[walk.at..walk.end]);
                walk.at = feed.map_or(walk.end, |feed| walk.at + feed + 1);
                walk.state = walk.start;
            }
        }
    }
}

/// So many bytes further with each walk, or less: until any of them is at a literal's end.
fn step<const N: usize>(literals: &DFA, block: &[u8], walks: &mut [Walk; N], bytes: usize) {
    let inputs: [&[u8]; N] = array::from_fn(|n| &block[walks[n].at..][..bytes]);
    let mut states = walks.map(|walk| walk.state);
    let mut done = 0;
    while done < bytes {
        let mut special = false;
        for (state, input) in states.iter_mut().zip(&inputs) {
            *state = literals.next_state(Anchored::No, *state, input[done]);
            special |= literals.is_special(*state);
        }
        done += 1;
        if special {
            break;
        }
    }
    for (walk, state) in walks.iter_mut().zip(states) {
        (walk.state, walk.at) = (state, walk.at + done);
    }
}

/// Parts of about the same size that begin where lines do.
fn divide(block: &[u8]) -> [Range<usize>; WALKS] {
    let mut from = 0;
    array::from_fn(|part| {
        let about = if block.len() < DIVIDED_BYTES {
            block.len()
        } else {
            block.len() * (part + 1) / WALKS
        };
        let about = about.max(from);
        let feed = memchr(b'\n', &block[about..]);
        let to = feed.map_or(block.len(), |feed| about + feed + 1);
        let range = from..to;
        from = to;
        range
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn literals() -> DFA {
        DFA::builder()
            .ascii_case_insensitive(true)
            .prefilter(false)
            .build(["gofer", "ferry", "vf reset", "sev"])
            .unwrap()
    }

    /// The same, line by line.
    fn one_after_the_other(literals: &DFA, block: &[u8]) -> Vec<usize> {
        let mut begin = 0;
        let lines = block.split_inclusive(|byte| *byte == b'\n');
        let marks = lines.filter_map(|line| {
            let found = literals.try_find(&aho_corasick::Input::new(line)).unwrap();
            let mark = found.map(|found| begin + found.end());
            begin += line.len();
            mark
        });
        marks.collect()
    }

    #[test]
    fn a_block_is_divided_where_lines_begin() {
        let block = b"0123456789abcde\n".repeat(1000);
        let parts = divide(&block);
        assert_eq!((parts[0].start, parts[WALKS - 1].end), (0, block.len()));
        for pair in parts.windows(2) {
            assert_eq!(pair[0].end, pair[1].start);
            assert_eq!(block[pair[0].end - 1], b'\n');
            assert!(pair[0].len() > block.len() / WALKS / 2, "{pair:?}");
        }
        assert_eq!(divide(&block[..100])[0], 0..100, "too short");
        let one_line = vec![b'x'; 2 * DIVIDED_BYTES];
        assert_eq!(divide(&one_line)[0], 0..one_line.len());
        assert_eq!(divide(b"")[WALKS - 1], 0..0);
    }

    proptest! {
        #[test]
        fn several_walks_find_what_one_finds(
            lines in prop::collection::vec(
                prop_oneof![
                    prop::collection::vec(any::<u8>(), 0..300),
                    "[ -~]{0,200}(goFer|SEV|VF reset|gofe|vf)[ -~]{0,60}(ferry)?".prop_map(String::into_bytes),
                ],
                0..120,
            ),
        ) {
            let (literals, block) = (literals(), lines.join(&b'\n'));
            // Used a second time, they hold nothing of the first.
            let mut marks = Marks::default();
            marks.find(&literals, b"sev\nsev");
            marks.find(&literals, &block);
            let marks: Vec<usize> = marks.iter().collect();
            prop_assert_eq!(marks, one_after_the_other(&literals, &block));
        }
    }
}
