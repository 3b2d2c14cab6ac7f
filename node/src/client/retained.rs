//! What a client has written to one node and may have to write again: kept until what it did there is durable.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::routes::frames_numbers;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Retained {
    buffers: VecDeque<Written>,
    bytes: usize,
    /// The last message that may have been written, ever.
    written: u64,
    /// The last message of which it is known that the node has taken it, or that nobody can know.
    confirmed: u64,
    /// Grows when messages come to it that are not its last: what was written before, and what is heard of that, counts no more.
    generation: u64,
}

/// Frames, as they were written.
pub(super) struct Written {
    /// The message before their first, and their last.
    pub before: u64,
    pub end: u64,
    pub tells: u64,
    pub frames: Bytes,
}

impl Retained {
    /// The last message that may have been written, ever.
    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.buffers.is_empty()
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// The first message that a new connection carries. Where only some of a buffer are durable, it comes again whole: the
    /// node knows what it has.
    pub fn first(&self) -> u64 {
        self.buffers.front().map_or(self.written, |front| front.before) + 1
    }

    /// Adds frames.
    pub fn push(&mut self, written: Written) {
        self.written = written.end;
        self.bytes += written.frames.len();
        self.buffers.push_back(written);
    }

    /// Takes in that the node has taken messages up to this one. Returns whether that is new.
    pub fn confirm(&mut self, number: u64) -> bool {
        let new = self.confirmed < number;
        self.confirmed = self.confirmed.max(number);
        new
    }

    /// Takes in that there is another connection: what was confirmed and is not durable may have died with the node, and counts again
    /// once it is there again.
    pub fn resume(&mut self) {
        self.confirmed = self.first() - 1;
    }

    /// Lets go of what is durable. Returns whether there was any.
    pub fn cover(&mut self, number: u64) -> bool {
        let before = self.bytes;
        while let Some(covered) = self.buffers.pop_front_if(|front| front.end <= number) {
            self.bytes -= covered.frames.len();
        }
        self.bytes < before
    }

    /// Everything to be written again, in order.
    pub fn again(&self) -> Vec<Bytes> {
        self.buffers.iter().map(|written| written.frames.clone()).collect()
    }

    /// Those of these messages that it has.
    pub fn has(&self, numbers: &BTreeSet<u64>) -> BTreeSet<u64> {
        let of_some = |written: &&Written| numbers.range(written.before + 1..=written.end).next().is_some();
        let all = self.buffers.iter().filter(of_some).flat_map(|written| frames_numbers(&written.frames));
        all.filter(|number| numbers.contains(number)).collect()
    }

    /// Tells that the node is not known to have taken. A buffer counts whole.
    pub fn unconfirmed_tells(&self) -> u64 {
        self.buffers.iter().filter(|written| written.end > self.confirmed).map(|written| written.tells).sum()
    }

    /// Lets go of everything: it will not be written again, and has met its fate.
    pub fn clear(&mut self) {
        self.buffers.clear();
        self.bytes = 0;
        self.confirmed = self.confirmed.max(self.written);
    }

    /// The same for everything but these, which are another's.
    pub fn clear_but(&mut self, strays: Vec<Written>) {
        self.clear();
        self.leave(strays);
    }

    /// What it has, to look at or to change: it must be given back, in its order.
    pub fn buffers(&self) -> impl Iterator<Item = &Written> {
        self.buffers.iter()
    }

    /// Has these instead of what it had, which are among those.
    pub fn leave(&mut self, buffers: Vec<Written>) {
        self.buffers = buffers.into();
        self.bytes = self.buffers.iter().map(|written| written.frames.len()).sum();
    }

    /// Has these instead of what it had, which with others are among these: a new connection carries them.
    pub fn begin_anew(&mut self, buffers: Vec<Written>) {
        self.written = buffers.last().map_or(0, |last| last.end).max(self.written);
        self.leave(buffers);
        self.confirmed = self.confirmed.min(self.first() - 1);
        self.generation += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_durable_is_written_again_in_order() {
        let mut retained = Retained::default();
        assert_eq!((retained.first(), retained.written()), (1, 0));
        for (before, end, tells, frames) in [(0, 3, 2, "abc"), (3, 4, 1, "d"), (7, 11, 0, "efgh")] {
            retained.push(Written { before, end, tells, frames: Bytes::from(frames) });
        }
        assert_eq!((retained.written(), retained.bytes(), retained.first()), (11, 8, 1));
        assert!(!retained.cover(2), "a buffer goes whole");
        assert!(retained.cover(3));
        assert_eq!((retained.first(), retained.bytes()), (4, 5));
        assert_eq!(retained.again(), ["d", "efgh"]);
        assert!(retained.confirm(3) && !retained.confirm(2));
        assert_eq!(retained.unconfirmed_tells(), 1);
        retained.confirm(4);
        assert_eq!(retained.unconfirmed_tells(), 0);
        assert!(retained.cover(4));
        assert_eq!(retained.first(), 8, "those between are another lane's");
        assert!(retained.cover(100));
        assert_eq!((retained.first(), retained.bytes(), retained.again().len()), (12, 0, 0));
    }
}
