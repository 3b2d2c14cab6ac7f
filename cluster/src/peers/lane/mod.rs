//! A lane of messages from one node's actors to another's: what is kept, sent again, acknowledged and dropped.
//!
//! The sender packs messages into *batches*, each with a number one greater than the last one's. It keeps a batch until the
//! receiver has acknowledged it, and sends what it keeps again on each new stream ([`LaneStream`]). The receiver hands each
//! batch on once: it knows the last one that it took of a run of the sender's node, and drops what is at or below it. So while
//! both nodes live nothing is lost, doubled or reordered, however often their connection breaks.
//!
//! What either says of itself is forgotten when its node ends. A receiver that has started again takes any batch as its first.
//! What the sender then does about messages that the last one had taken depends on the message. Some are *numbered*, device to
//! device: those the sender's devices keep until a checkpoint of the receiver's has them, and [`Outbound::welcomed`] says when
//! they are to be given to the lane again. The others may be lost or come twice with the node.
//!
//! [`Outbound`] and [`Inbound`] have no socket, task or clock in them.
//!
//! # On the stream
//!
//! Frames as of [`crate::frame`]. From the sender: `mark` is the batch's number, `release` that of the one before the oldest that
//! it keeps, and the body is messages, each behind an [`Envelope`]. From the receiver, at first and then whenever it has more
//! to say: `mark` is the last batch that it has taken, and the body is [`DeviceMark`]s, `count` zero.

mod stream;

use std::collections::VecDeque;

use bytes::Bytes;
use ringhold_kernels::message::{HEADER_BYTES, Header, Kind, append, split_first};

pub use stream::{LaneReader, LaneStream, LaneWriter};

use crate::frame::{FRAME_BYTES_MAX, FRAME_BYTES_TARGET, FrameHeader, MESSAGE_BYTES_MAX};

/// Bytes that a lane keeps before its node takes no more from clients, so that no more is sent here: see `docs/overload.md`.
pub const LANE_BYTES_MAX: usize = 64 << 20;
/// How often a message is passed on from node to node because its shard has moved meanwhile. Beyond it, tables do not agree
/// for longer than any move takes, and it is a dead letter.
pub const HOPS_MAX: u8 = 8;

const ENVELOPE_BYTES: usize = 16;
/// Behind a batch that is just under the target any message still fits.
const _: () = assert!(FRAME_BYTES_TARGET + ENVELOPE_BYTES + MESSAGE_BYTES_MAX <= FRAME_BYTES_MAX);
const _: () = assert!(ENVELOPE_BYTES.is_multiple_of(8));

/// What a message bears between nodes.
///
/// | offset | bytes | field |
/// |---|---|---|
/// | 0 | 1 | `hops` |
/// | 1 | 1 | 1 where it is numbered, else 0 and zeros behind |
/// | 2 | 2 | `from`, a device's number |
/// | 4 | 2 | `to`, a device's number |
/// | 6 | 2 | zero |
/// | 8 | 8 | `number` |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// How many nodes have passed it on.
    pub hops: u8,
    pub numbered: Option<Numbered>,
}

/// Which message of the lane from one device to another it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Numbered {
    pub from: u16,
    pub to: u16,
    pub number: u64,
}

impl Envelope {
    fn to_bytes(self) -> [u8; ENVELOPE_BYTES] {
        let mut bytes = [0; ENVELOPE_BYTES];
        bytes[0] = self.hops;
        if let Some(Numbered { from, to, number }) = self.numbered {
            bytes[1] = 1;
            bytes[2..4].copy_from_slice(&from.to_le_bytes());
            bytes[4..6].copy_from_slice(&to.to_le_bytes());
            bytes[8..16].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8; ENVELOPE_BYTES]) -> Option<Envelope> {
        let [hops, numbered, f0, f1, t0, t1, 0, 0, number @ ..] = *bytes else { return None };
        let (from, to) = (u16::from_le_bytes([f0, f1]), u16::from_le_bytes([t0, t1]));
        let numbered = match (numbered, Numbered { from, to, number: u64::from_le_bytes(number) }) {
            (0, Numbered { from: 0, to: 0, number: 0 }) => None,
            (1, numbered) if numbered.number > 0 => Some(numbered),
            _ => return None,
        };
        Some(Envelope { hops, numbered })
    }
}

/// What a receiving device has of the numbered messages of a sending one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceMark {
    pub from: u16,
    pub to: u16,
    /// The last one that it has taken.
    pub taken: u64,
    /// The last one of which nothing need be kept any more.
    pub covered: u64,
}

const DEVICE_MARK_BYTES: usize = 24;

impl DeviceMark {
    /// Appends it to what a receiver says.
    pub fn push(&self, body: &mut Vec<u8>) {
        body.extend(self.from.to_le_bytes());
        body.extend(self.to.to_le_bytes());
        body.extend([0; 4]);
        body.extend(self.taken.to_le_bytes());
        body.extend(self.covered.to_le_bytes());
    }

    /// What a receiver says.
    ///
    /// # Errors
    /// It is not whole.
    pub fn read(body: &[u8]) -> Result<Vec<DeviceMark>, Wrong> {
        let (marks, []) = body.as_chunks::<DEVICE_MARK_BYTES>() else { return Err(Wrong::Marks) };
        let mark = |bytes: &[u8; DEVICE_MARK_BYTES]| {
            let short = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let long = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
            DeviceMark { from: short(0), to: short(2), taken: long(8), covered: long(16) }
        };
        Ok(marks.iter().map(mark).collect())
    }
}

/// How the other side of a lane broke the rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("a batch's messages and their count do not agree")]
    Batch,
    #[error("a message between nodes is not a tell")]
    Kind,
    #[error("batch {got} follows batch {taken}, and those between were not given up")]
    Gap { taken: u64, got: u64 },
    #[error("batch {acked} is acknowledged, and the last one sent is {sent}")]
    Acked { acked: u64, sent: u64 },
    #[error("what a node says of its devices' marks is not whole")]
    Marks,
}

/// The messages of a batch, each with what it bears. All of it is checked before any is given out.
///
/// # Errors
/// It is no batch.
pub fn messages(body: &[u8], count: u32) -> Result<impl Iterator<Item = (Envelope, Header, &[u8])>, Wrong> {
    let mut rest = body;
    for _ in 0..count {
        let (_, header, _, after) = split(rest).ok_or(Wrong::Batch)?;
        if !header.is(Kind::Tell) || header.to().is_client() {
            return Err(Wrong::Kind);
        }
        rest = after;
    }
    match rest {
        [] => Ok(whole(body)),
        _ => Err(Wrong::Batch),
    }
}

/// The messages of a batch that is known to be one.
fn whole(mut rest: &[u8]) -> impl Iterator<Item = (Envelope, Header, &[u8])> {
    std::iter::from_fn(move || {
        let (envelope, header, payload, after) = split(rest)?;
        rest = after;
        Some((envelope, header, payload))
    })
}

fn split(batch: &[u8]) -> Option<(Envelope, Header, &[u8], &[u8])> {
    let (head, rest) = batch.split_first_chunk::<ENVELOPE_BYTES>()?;
    let envelope = Envelope::from_bytes(head)?;
    let (header, payload, after) = split_first(rest)?;
    Some((envelope, header, payload, after))
}

/// The sending end of a lane.
#[derive(Debug, Default)]
pub struct Outbound {
    /// Batches that are not acknowledged. Their numbers are those up to `last`, without a gap.
    kept: VecDeque<Batch>,
    /// How many of them were written to the present stream.
    written: usize,
    /// What gathers for the next one.
    open: Vec<u8>,
    open_count: u32,
    last: u64,
    /// Of all that is kept or gathers.
    bytes: usize,
    /// Which run of the other node has welcomed this one last.
    welcomed_by: Option<u64>,
    /// Numbered messages were given up: whoever welcomes this next is to be given them again.
    gave_up: bool,
}

#[derive(Clone, Debug)]
struct Batch {
    count: u32,
    body: Bytes,
}

impl Outbound {
    /// Bytes that it keeps.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether all that it was given is acknowledged.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes a message for the next batch.
    pub fn push(&mut self, envelope: Envelope, header: &Header, payload: &[u8]) {
        if self.open.len() >= FRAME_BYTES_TARGET {
            self.seal();
        }
        self.open.extend(envelope.to_bytes());
        append(&mut self.open, header, payload);
        self.open_count += 1;
        self.bytes += ENVELOPE_BYTES + HEADER_BYTES + header.padded_len();
    }

    fn seal(&mut self) {
        let (count, body) = (std::mem::take(&mut self.open_count), std::mem::take(&mut self.open).into());
        self.kept.push_back(Batch { count, body });
        self.last += 1;
    }

    /// The batch that has, or will have, the message that was pushed last.
    pub fn pushed_until_now(&self) -> u64 {
        self.last + u64::from(self.open_count > 0)
    }

    /// The last batch that was acknowledged, or given up.
    pub fn acked_until(&self) -> u64 {
        self.released()
    }

    /// The number before that of the oldest batch that is kept.
    fn released(&self) -> u64 {
        self.last - self.kept.len() as u64
    }

    /// What to write to the present stream now: the next batch that it has not carried; whatever has gathered, where it has
    /// carried all.
    pub fn next_to_write(&mut self) -> Option<(FrameHeader, Bytes)> {
        if self.written == self.kept.len() && self.open_count > 0 {
            self.seal();
        }
        let released = self.released();
        let Batch { count, body } = self.kept.get(self.written)?.clone();
        self.written += 1;
        let (mark, len) = (released + self.written as u64, body.len() as u32);
        Some((FrameHeader { len, flags: 0, count, mark, release: released }, body))
    }

    /// Takes in that there is a new stream, and what its receiver has said at first: which run of its node it is, and the last
    /// batch that it has taken of this run of this node. Returns whether numbered messages are to be given to the lane again,
    /// all that are kept and not covered, in their order, before any other is: those that it had are dropped.
    ///
    /// # Errors
    /// It has taken what was not sent.
    pub fn welcomed(&mut self, by: u64, taken: u64) -> Result<bool, Wrong> {
        self.written = self.kept.len();
        self.acked(taken)?;
        self.written = 0;
        let renewed = self.welcomed_by.replace(by).is_some_and(|before| before != by);
        let again = renewed || std::mem::take(&mut self.gave_up);
        if again {
            self.rebuild(|envelope, _, _| envelope.numbered.is_none());
        }
        Ok(again)
    }

    /// Takes in that the receiver has taken all batches up to this one.
    ///
    /// # Errors
    /// It was not sent.
    pub fn acked(&mut self, number: u64) -> Result<(), Wrong> {
        let sent = self.released() + self.written as u64;
        if number > sent {
            return Err(Wrong::Acked { acked: number, sent });
        }
        while self.released() < number {
            let batch = self.kept.pop_front().expect("batches up to the last are kept");
            self.bytes -= batch.body.len();
            self.written -= 1;
        }
        Ok(())
    }

    /// Gives all up that it keeps: what is not numbered goes to `letter`. What is, whoever has it kept gives again when
    /// [`Outbound::welcomed`] says so.
    pub fn give_up(&mut self, mut letter: impl FnMut(&Envelope, &Header, &[u8])) {
        let mut gave_up = false;
        self.rebuild(|envelope, header, payload| {
            match envelope.numbered {
                Some(_) => gave_up = true,
                None => letter(&envelope, header, payload),
            }
            false
        });
        self.gave_up |= gave_up;
    }

    /// Takes back what another way is found for: of what `goes` says so nothing is kept here any more.
    pub fn take_back(&mut self, mut goes: impl FnMut(&Envelope, &Header, &[u8]) -> bool) {
        self.rebuild(|envelope, header, payload| !goes(&envelope, header, payload));
    }

    /// Packs what is to stay of all messages into batches anew. Their numbers go on from the last one's: what the receiver has
    /// of the old ones it does not take for the new.
    fn rebuild(&mut self, mut stays: impl FnMut(Envelope, &Header, &[u8]) -> bool) {
        let batches = std::mem::take(&mut self.kept);
        let open = std::mem::take(&mut self.open);
        (self.written, self.open_count, self.bytes) = (0, 0, 0);
        for body in batches.iter().map(|batch| &batch.body[..]).chain([&open[..]]) {
            for (envelope, header, payload) in whole(body) {
                if stays(envelope, &header, payload) {
                    self.push(envelope, &header, payload);
                }
            }
        }
    }
}

/// The receiving end of a lane.
#[derive(Debug, Default)]
pub struct Inbound {
    /// Which run of the other node this is of.
    run: u64,
    /// The last batch that was taken; `None` where there was none.
    taken: Option<u64>,
    /// Streams that have begun.
    streams: u64,
}

/// What is to become of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is to be handed on.
    New,
    /// It has been.
    Before,
    /// Another stream has begun since: the batch comes there again, and this one is over.
    Over,
}

impl Inbound {
    /// Takes in that a stream has begun, of this run of the other node: any before it is over. Returns its number.
    pub fn begins(&mut self, run: u64) -> u64 {
        if self.run != run {
            (self.run, self.taken) = (run, None);
        }
        self.streams += 1;
        self.streams
    }

    /// The last batch that was taken.
    pub fn taken(&self) -> u64 {
        self.taken.unwrap_or(0)
    }

    /// Looks at a batch of a stream. One that is new counts as taken.
    ///
    /// # Errors
    /// One before it is missing.
    pub fn takes(&mut self, stream: u64, header: &FrameHeader) -> Result<Taken, Wrong> {
        if stream != self.streams {
            return Ok(Taken::Over);
        }
        let number = header.mark;
        match self.taken {
            Some(taken) if number <= taken => return Ok(Taken::Before),
            Some(taken) if number > taken.max(header.release) + 1 => {
                return Err(Wrong::Gap { taken: taken.max(header.release), got: number });
            }
            _ => self.taken = Some(number),
        }
        Ok(Taken::New)
    }
}

#[cfg(test)]
mod tests;
