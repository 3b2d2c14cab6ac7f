//! What a client has written and may have to write again: kept until what it did on the node is durable.

use std::collections::VecDeque;

use bytes::Bytes;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Retained {
    buffers: VecDeque<Written>,
    bytes: usize,
    /// The last message written, ever.
    written: u64,
}

/// Frames, as they were written.
struct Written {
    /// The message before their first, and their last.
    before: u64,
    end: u64,
    tells: u64,
    frames: Bytes,
}

impl Retained {
    /// The last message written, ever.
    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first message that a new connection carries. Where only some of a buffer are durable, it comes again whole: the
    /// node knows what it has.
    pub fn first(&self) -> u64 {
        self.buffers.front().map_or(self.written, |front| front.before) + 1
    }

    /// Adds frames with so many messages, of which so many are tells.
    pub fn push(&mut self, messages: u64, tells: u64, frames: Bytes) {
        let before = self.written;
        self.written += messages;
        self.bytes += frames.len();
        self.buffers.push_back(Written { before, end: self.written, tells, frames });
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

    /// Tells that the node is not known to have taken, where it has taken messages up to this one. A buffer counts whole.
    pub fn tells_after(&self, taken: u64) -> u64 {
        self.buffers.iter().filter(|written| written.end > taken).map(|written| written.tells).sum()
    }

    /// Lets go of everything: it will not be written again.
    pub fn clear(&mut self) {
        self.buffers.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_durable_is_written_again_in_order() {
        let mut retained = Retained::default();
        assert_eq!((retained.first(), retained.written()), (1, 0));
        for (messages, tells, frames) in [(3, 2, "abc"), (1, 1, "d"), (4, 0, "efgh")] {
            retained.push(messages, tells, Bytes::from(frames));
        }
        assert_eq!((retained.written(), retained.bytes(), retained.first()), (8, 8, 1));
        assert!(!retained.cover(2), "a buffer goes whole");
        assert!(retained.cover(3));
        assert_eq!((retained.first(), retained.bytes()), (4, 5));
        assert_eq!(retained.again(), ["d", "efgh"]);
        assert_eq!((retained.tells_after(3), retained.tells_after(4)), (1, 0));
        assert!(retained.cover(100));
        assert_eq!((retained.first(), retained.bytes(), retained.again().len()), (9, 0, 0));
    }
}
