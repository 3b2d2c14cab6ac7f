//! What was sent into a lane of a device and is in no checkpoint yet: kept, so that it can be sent again.
//!
//! Messages have numbers, counted from the lane's first. The log is read at one place, its *next*, behind which lies what the
//! present host has been given, and it is cut off at its front when a checkpoint covers that.

use std::collections::VecDeque;

use ringhold_kernels::message::{HEADER_BYTES, Header, append, split_first};

const CHUNK_BYTES: usize = 64 * 1024;
/// Empty chunks kept for later.
const SPARE_MAX: usize = 64;

/// See the module's documentation.
#[derive(Default)]
pub struct Retained {
    chunks: VecDeque<Chunk>,
    spare: Vec<Vec<u8>>,
    /// The oldest message that is not covered, and the number of the next one to come.
    first: u64,
    end: u64,
    next: Place,
    bytes: usize,
}

struct Chunk {
    first: u64,
    messages: Vec<u8>,
}

/// A place in the log: a message's number, and where it lies.
#[derive(Clone, Copy, Default)]
struct Place {
    number: u64,
    /// Counted from the front chunk that there is.
    chunk: usize,
    offset: usize,
}

impl Retained {
    /// Bytes kept; more than of what is not covered, by less than a chunk.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages kept that the present host has not been given yet.
    pub fn unsent(&self) -> u64 {
        self.end - self.next.number
    }

    /// The number of the next message to be given to the present host.
    pub fn next(&self) -> u64 {
        self.next.number
    }

    /// Adds a message at the end.
    pub fn push(&mut self, header: &Header, payload: &[u8]) {
        let room = HEADER_BYTES + header.padded_len();
        if self.chunks.back().is_none_or(|chunk| chunk.messages.len() + room > CHUNK_BYTES) {
            let messages = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES));
            self.chunks.push_back(Chunk { first: self.end, messages });
            if self.next.number == self.end {
                self.next = Place { number: self.end, chunk: self.chunks.len() - 1, offset: 0 };
            }
        }
        let chunk = self.chunks.back_mut().expect("one was added where there was none");
        append(&mut chunk.messages, header, payload);
        self.bytes += room;
        self.end += 1;
    }

    /// The next message for the present host, if there is one.
    pub fn peek(&self) -> Option<(Header, &[u8])> {
        if self.next.number == self.end {
            return None;
        }
        let messages = &self.chunks[self.next.chunk].messages[self.next.offset..];
        let (header, payload, _) = split_first(messages).expect("the log holds whole messages");
        Some((header, payload))
    }

    /// Says that the host was given the next message.
    pub fn sent(&mut self) {
        let (header, _) = self.peek().expect("only what is there can have been sent");
        self.next.number += 1;
        self.next.offset += HEADER_BYTES + header.padded_len();
        if self.next.offset == self.chunks[self.next.chunk].messages.len() && self.next.chunk + 1 < self.chunks.len() {
            (self.next.chunk, self.next.offset) = (self.next.chunk + 1, 0);
        }
    }

    /// Adds a message at the end that the host is given at the same time; nothing may be unsent.
    pub fn push_sent(&mut self, header: &Header, payload: &[u8]) {
        debug_assert_eq!(self.unsent(), 0);
        self.push(header, payload);
        self.next.number = self.end;
        self.next.chunk = self.chunks.len() - 1;
        self.next.offset = self.chunks[self.next.chunk].messages.len();
    }

    /// Starts over for another host: at the oldest message that is not covered.
    pub fn rewind(&mut self) {
        self.next = Place { number: self.end, chunk: 0, offset: 0 };
        let Some(front) = self.chunks.front() else { return };
        self.next.number = front.first;
        while self.next.number < self.first {
            self.sent();
        }
    }

    /// Lets go of all messages before this one.
    pub fn cover(&mut self, number: u64) {
        debug_assert!(number <= self.next.number);
        self.first = self.first.max(number);
        // A chunk may go once the next one begins at or before the mark, or all there is lies before it.
        while let Some(front) = self.chunks.front() {
            let end = self.chunks.get(1).map_or(self.end, |chunk| chunk.first);
            if end > self.first || (self.chunks.len() > 1 && self.next.chunk == 0) {
                return;
            }
            if self.chunks.len() == 1 && self.next.number < self.end {
                return;
            }
            self.bytes -= front.messages.len();
            let mut emptied = self.chunks.pop_front().expect("there is a front").messages;
            emptied.clear();
            if self.spare.len() < SPARE_MAX {
                self.spare.push(emptied);
            }
            self.next.chunk = self.next.chunk.saturating_sub(1);
            if self.chunks.is_empty() {
                self.next = Place { number: self.end, chunk: 0, offset: 0 };
            }
        }
    }

    /// Looks at the messages from this number on.
    pub fn for_each_from(&self, number: u64, mut f: impl FnMut(&Header, &[u8])) {
        for chunk in &self.chunks {
            let (mut at, mut rest) = (chunk.first, &chunk.messages[..]);
            while let Some((header, payload, after)) = split_first(rest) {
                if at >= number.max(self.first) {
                    f(&header, payload);
                }
                (at, rest) = (at + 1, after);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ringhold_kernels::hlc::Hlc;
    use ringhold_kernels::id::ActorId;
    use ringhold_kernels::message::Kind;

    use super::*;

    fn message(number: u64) -> (Header, Vec<u8>) {
        let payload = vec![number as u8; (number * 7 % 900) as usize];
        (Header::new(Kind::Tell, ActorId::default(), ActorId::default(), payload.len(), Hlc(number)), payload)
    }

    #[test]
    fn it_is_a_log_with_a_front_an_end_and_a_place_in_it() {
        let mut random = 7u64;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (random >> 33) % bound
        };
        let mut log = Retained::default();
        let (mut first, mut next, mut end) = (0u64, 0u64, 0u64);
        for _ in 0..20_000 {
            match below(5) {
                0 | 1 if next == end && below(2) == 0 => {
                    let (header, payload) = message(end);
                    log.push_sent(&header, &payload);
                    (next, end) = (next + 1, end + 1);
                }
                0 | 1 => {
                    let (header, payload) = message(end);
                    log.push(&header, &payload);
                    end += 1;
                }
                2 => {
                    let there = log.peek().map(|(header, payload)| (header.hlc, payload.to_vec()));
                    assert_eq!(there, (next < end).then(|| (next, message(next).1)));
                    if there.is_some() {
                        log.sent();
                        next += 1;
                    }
                }
                3 if below(30) == 0 => {
                    log.rewind();
                    next = first;
                }
                _ => {
                    first += below(next - first + 1).min(below(20));
                    log.cover(first);
                }
            }
            assert_eq!((log.next(), log.unsent()), (next, end - next));
            if below(50) == 0 {
                let (mut seen, from) = (Vec::new(), first + below(end - first + 1));
                log.for_each_from(from, |header, _| seen.push(header.hlc));
                assert_eq!(seen, (from..end).collect::<Vec<_>>());
            }
        }
        log.rewind();
        while log.peek().is_some() {
            log.sent();
        }
        log.cover(end);
        assert_eq!(log.bytes(), 0, "nothing is kept of what is covered");
    }
}
