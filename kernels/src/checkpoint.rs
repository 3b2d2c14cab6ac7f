//! The records a checkpoint is made of: the same bytes on every kind of device, in staging rings, on disks, in exports.
//!
//! A checkpoint is a stream of records. Each is a head of 8 bytes, a body, and zeros up to the next multiple of eight;
//! all numbers are little-endian:
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | `kind` |
//! | 1 | 1 | `phase`: of `Queued`, 0 goes first and 1 after all of phase 0; 0 elsewhere |
//! | 2 | 2 | zero |
//! | 4 | 4 | `len`: bytes of the body, without the zeros behind it |
//! | 8 | `len` | the body |
//!
//! | kind | | body |
//! |---|---|---|
//! | 1 | `Actor` | key u64, type id u32, faults u32, handled u64; the state |
//! | 2 | `Removed` | key u64, type id u32, zero u32: the actor was there at the base and is not any more |
//! | 3 | `Queued` | a message that an actor of this device has still to handle; the order within a phase counts |
//! | 4 | `Timer` | due u64 (wall time, µs since the Unix epoch); a message to be sent then |
//! | 5 | `Out` | a message that was not in the egress ring yet; the order counts |
//! | 6 | `Cut` | epoch u64, lane u32, zero u32, ingress u64, egress u64, hlc u64: the last record of a lane's part |
//! | 7 to 15 | | the node's own |
//!
//! A message is its header, `lap` zero, and `header.len` bytes of payload. `Actor` and `Removed` may be incremental:
//! only what changed since an earlier checkpoint, the *base*. Everything else is whole in every checkpoint.
//!
//! Every byte has one meaning, and one that has none is an error: what reads back is what was written.

use std::ops::RangeInclusive;

use crate::id::{ActorId, Key, TypeId};
use crate::message::{HEADER_BYTES, Header};

/// What a record says; the node's own kinds ([`NODE_KINDS`]) are beside these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Actor = 1,
    Removed = 2,
    Queued = 3,
    Timer = 4,
    Out = 5,
    Cut = 6,
}

/// Kinds whose bodies only the node knows.
pub const NODE_KINDS: RangeInclusive<u8> = 7..=15;

/// Bytes of a record before its body.
pub const HEAD_BYTES: usize = 8;
/// Bytes of an actor's record before its state.
pub const ACTOR_BYTES: usize = HEAD_BYTES + 24;
pub const REMOVED_BYTES: usize = HEAD_BYTES + 16;
/// Bytes of a timer's record before its message.
pub const TIMER_BYTES: usize = HEAD_BYTES + 8;
pub const CUT_BYTES: usize = HEAD_BYTES + 40;
/// The largest body.
pub const BODY_BYTES_MAX: usize = 1 << 30;

const _: () = assert!(ACTOR_BYTES.is_multiple_of(8) && TIMER_BYTES.is_multiple_of(8) && HEADER_BYTES.is_multiple_of(8));

/// A record, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// An actor: what it has handled, faults included, and its state.
    Actor { id: ActorId, handled: u64, faults: u32, state: &'a [u8] },
    /// An actor that is not there any more.
    Removed { id: ActorId },
    /// A message to be handled.
    Queued { phase: u8, header: Header, payload: &'a [u8] },
    /// A message to be sent at a wall time.
    Timer { due_us: u64, header: Header, payload: &'a [u8] },
    /// A message on its way out of the device.
    Out { header: Header, payload: &'a [u8] },
    /// The end of a lane's part.
    Cut(Cut),
    /// One of the node's own: see [`NODE_KINDS`].
    Node { kind: u8, body: &'a [u8] },
}

/// Where a lane stood at the cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    pub epoch: u64,
    pub lane: u32,
    /// Messages taken from the lane's ingress ring since the ring's beginning.
    pub ingress: u64,
    /// Messages put into the lane's egress ring since the ring's beginning.
    pub egress: u64,
    /// The largest stamp given out or seen.
    pub hlc: u64,
}

/// Bytes that are no record, and where they stand: counted from the beginning of what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record at byte {at} {problem}")]
pub struct Error {
    pub at: u64,
    pub problem: Problem,
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("has the kind {0}, which is none")]
    Kind(u8),
    #[error("has the phase {0}, which its kind does not have")]
    Phase(u8),
    #[error("has a body of {0} bytes, which its kind does not have")]
    Length(u32),
    #[error("has something else than zeros where there must be zeros")]
    Zeros,
    #[error("is of an actor without a type")]
    NoType,
    #[error("holds a message of no kind")]
    Message,
    #[error("is cut short")]
    CutShort,
}

/// Appends an actor with a state of so many zeros, and returns the state for the caller to write.
///
/// # Panics
/// Where the state is larger than [`BODY_BYTES_MAX`] allows.
pub fn push_actor(out: &mut Vec<u8>, id: ActorId, handled: u64, faults: u32, state_bytes: usize) -> &mut [u8] {
    let at = out.len() + ACTOR_BYTES;
    let len = ACTOR_BYTES - HEAD_BYTES + state_bytes;
    out.reserve(HEAD_BYTES + len.next_multiple_of(8));
    push_head(out, Kind::Actor as u8, 0, len);
    out.extend(id.key.0.to_le_bytes());
    out.extend(id.type_id.0.to_le_bytes());
    out.extend(faults.to_le_bytes());
    out.extend(handled.to_le_bytes());
    out.resize(at + state_bytes.next_multiple_of(8), 0);
    &mut out[at..at + state_bytes]
}

/// Appends that an actor is not there any more.
pub fn push_removed(out: &mut Vec<u8>, id: ActorId) {
    push_head(out, Kind::Removed as u8, 0, REMOVED_BYTES - HEAD_BYTES);
    out.extend(id.key.0.to_le_bytes());
    out.extend((id.type_id.0 as u64).to_le_bytes());
}

/// Appends a message that is `Queued`, in its phase, or `Out`, in phase 0.
///
/// # Panics
/// Where the kind is another, or has no such phase.
pub fn push_message(out: &mut Vec<u8>, kind: Kind, phase: u8, header: &Header, payload: &[u8]) {
    assert!(kind == Kind::Queued && phase <= 1 || kind == Kind::Out && phase == 0, "{kind:?} in phase {phase}");
    push_head(out, kind as u8, phase, HEADER_BYTES + payload.len());
    message(out, header, payload);
}

/// Appends a message that is to be sent at a wall time.
pub fn push_timer(out: &mut Vec<u8>, due_us: u64, header: &Header, payload: &[u8]) {
    push_head(out, Kind::Timer as u8, 0, TIMER_BYTES - HEAD_BYTES + HEADER_BYTES + payload.len());
    out.extend(due_us.to_le_bytes());
    message(out, header, payload);
}

/// Appends the end of a lane's part.
pub fn push_cut(out: &mut Vec<u8>, cut: &Cut) {
    push_head(out, Kind::Cut as u8, 0, CUT_BYTES - HEAD_BYTES);
    for word in [cut.epoch, cut.lane as u64, cut.ingress, cut.egress, cut.hlc] {
        out.extend(word.to_le_bytes());
    }
}

/// Appends a record of the node's own.
///
/// # Panics
/// Where the kind is none of [`NODE_KINDS`], or the body is larger than [`BODY_BYTES_MAX`].
pub fn push_node(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    assert!(NODE_KINDS.contains(&kind), "{kind} is no kind of the node's");
    push_head(out, kind, 0, body.len());
    out.extend(body);
    out.resize(out.len().next_multiple_of(8), 0);
}

fn push_head(out: &mut Vec<u8>, kind: u8, phase: u8, len: usize) {
    debug_assert!(out.len().is_multiple_of(8), "records are aligned");
    assert!(len <= BODY_BYTES_MAX, "a record's body has at most {BODY_BYTES_MAX} bytes, not {len}");
    out.extend([kind, phase, 0, 0]);
    out.extend((len as u32).to_le_bytes());
}

/// The message as it is outside rings, padded.
fn message(out: &mut Vec<u8>, header: &Header, payload: &[u8]) {
    let mut outside = *header;
    outside.lap = 0;
    crate::message::append(out, &outside, payload);
}

/// The records of a whole stream, in order. An error is the last item.
pub fn records(bytes: &[u8]) -> Records<'_> {
    Records { bytes, at: 0 }
}

/// See [`records`].
#[derive(Clone, Debug)]
pub struct Records<'a> {
    /// What is left.
    bytes: &'a [u8],
    at: u64,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        let first = split_first(self.bytes).and_then(|first| first.ok_or(Problem::CutShort));
        let Ok((record, whole)) = first else {
            self.bytes = &[];
            return Some(first.map(|(record, _)| record).map_err(|problem| Error { at: self.at, problem }));
        };
        self.bytes = &self.bytes[whole..];
        self.at += whole as u64;
        Some(Ok(record))
    }
}

/// Cuts a stream that comes in slices of any lengths into its records.
///
/// It keeps no more than one record that is not whole yet. After an error it is of no use any more.
#[derive(Clone, Debug, Default)]
pub struct Splitter {
    /// The beginning of a record whose end has not come yet.
    begun: Vec<u8>,
    /// Bytes of the records passed on.
    passed: u64,
}

impl Splitter {
    /// Takes the next bytes, and passes each record on that is whole now, with all its bytes.
    ///
    /// # Errors
    /// [`Error`], counted from the first byte ever fed, or what `each` returned.
    pub fn feed<E: From<Error>>(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Record<'_>, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while !self.begun.is_empty() && !bytes.is_empty() {
            let missing = bytes_wanted(&self.begun).map_err(|problem| self.error(problem))? - self.begun.len();
            let (taken, rest) = bytes.split_at(missing.min(bytes.len()));
            self.begun.extend(taken);
            bytes = rest;
            if let Some((record, whole)) = split_first(&self.begun).map_err(|problem| self.error(problem))? {
                each(record, &self.begun)?;
                self.passed += whole as u64;
                self.begun.clear();
            }
        }
        while let Some((record, whole)) = split_first(bytes).map_err(|problem| self.error(problem))? {
            each(record, &bytes[..whole])?;
            self.passed += whole as u64;
            bytes = &bytes[whole..];
        }
        self.begun.extend(bytes);
        Ok(())
    }

    /// Whether the stream may end here.
    ///
    /// # Errors
    /// Where the last record is not whole.
    pub fn finish(&self) -> Result<(), Error> {
        if self.begun.is_empty() { Ok(()) } else { Err(self.error(Problem::CutShort)) }
    }

    fn error(&self, problem: Problem) -> Error {
        Error { at: self.passed, problem }
    }
}

/// How many bytes the record that begins here has at least, and once its head is there, has.
fn bytes_wanted(bytes: &[u8]) -> Result<usize, Problem> {
    let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else { return Ok(HEAD_BYTES) };
    let len = u32_at(head, 4);
    if len as usize > BODY_BYTES_MAX {
        return Err(Problem::Length(len));
    }
    Ok(HEAD_BYTES + (len as usize).next_multiple_of(8))
}

/// The first record and its bytes in all, or `None` where it is not whole yet.
fn split_first(bytes: &[u8]) -> Result<Option<(Record<'_>, usize)>, Problem> {
    let whole = bytes_wanted(bytes)?;
    let Some((head, rest)) = bytes.get(..whole).and_then(|record| record.split_first_chunk::<HEAD_BYTES>()) else {
        return Ok(None);
    };
    let (body, padding) = rest.split_at(u32_at(head, 4) as usize);
    if u16_at(head, 2) != 0 || padding.iter().any(|byte| *byte != 0) {
        return Err(Problem::Zeros);
    }
    Ok(Some((read(head[0], head[1], body)?, whole)))
}

fn read(kind: u8, phase: u8, body: &[u8]) -> Result<Record<'_>, Problem> {
    let length = Problem::Length(body.len() as u32);
    if phase > (kind == Kind::Queued as u8) as u8 {
        return Err(Problem::Phase(phase));
    }
    match kind {
        1 => {
            let (fixed, state) = body.split_at_checked(ACTOR_BYTES - HEAD_BYTES).ok_or(length)?;
            Ok(Record::Actor { id: actor_id(fixed)?, faults: u32_at(fixed, 12), handled: u64_at(fixed, 16), state })
        }
        2 => match body.len() == REMOVED_BYTES - HEAD_BYTES {
            true if u32_at(body, 12) == 0 => Ok(Record::Removed { id: actor_id(body)? }),
            true => Err(Problem::Zeros),
            false => Err(length),
        },
        3 => read_message(body).map(|(header, payload)| Record::Queued { phase, header, payload }),
        4 => {
            let (fixed, message) = body.split_at_checked(TIMER_BYTES - HEAD_BYTES).ok_or(length)?;
            let (header, payload) = read_message(message).map_err(|problem| match problem {
                Problem::Length(_) => length,
                problem => problem,
            })?;
            Ok(Record::Timer { due_us: u64_at(fixed, 0), header, payload })
        }
        5 => read_message(body).map(|(header, payload)| Record::Out { header, payload }),
        6 => match body.len() == CUT_BYTES - HEAD_BYTES {
            true if u32_at(body, 12) == 0 => Ok(Record::Cut(Cut {
                epoch: u64_at(body, 0),
                lane: u32_at(body, 8),
                ingress: u64_at(body, 16),
                egress: u64_at(body, 24),
                hlc: u64_at(body, 32),
            })),
            true => Err(Problem::Zeros),
            false => Err(length),
        },
        kind if NODE_KINDS.contains(&kind) => Ok(Record::Node { kind, body }),
        kind => Err(Problem::Kind(kind)),
    }
}

/// The id that `Actor` and `Removed` begin with.
fn actor_id(body: &[u8]) -> Result<ActorId, Problem> {
    let id = ActorId::new(TypeId(u32_at(body, 8)), Key(u64_at(body, 0)));
    if id.is_client() { Err(Problem::NoType) } else { Ok(id) }
}

fn read_message(bytes: &[u8]) -> Result<(Header, &[u8]), Problem> {
    let length = Problem::Length(bytes.len() as u32);
    let (header, payload) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(length)?;
    let header = Header::from_bytes(header);
    if header.len as usize != payload.len() {
        return Err(length);
    }
    if header.lap != 0 {
        return Err(Problem::Zeros);
    }
    header.kind().ok_or(Problem::Message)?;
    Ok((header, payload))
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::{RngCore, SeedableRng};

    use super::*;
    use crate::hlc::Hlc;
    use crate::message;

    fn random_message(random: &mut ChaCha8Rng) -> (Header, Vec<u8>) {
        let payload: Vec<u8> = (0..random.next_u32() % 70).map(|_| random.next_u32() as u8).collect();
        let to = ActorId::new(TypeId(random.next_u32() | 1), Key(random.next_u64()));
        let kind = message::Kind::from_u8(1 + (random.next_u32() % 7) as u8).unwrap();
        (Header::new(kind, to, ActorId::default(), payload.len(), Hlc(random.next_u64())), payload)
    }

    /// Appends a random record, and returns what it reads as, with `Debug`.
    fn push_random(random: &mut ChaCha8Rng, out: &mut Vec<u8>) -> String {
        let id = ActorId::new(TypeId(random.next_u32() | 1), Key(random.next_u64()));
        let (header, payload) = random_message(random);
        match random.next_u32() % 7 {
            0 => {
                let state: Vec<u8> = (0..random.next_u32() % 300).map(|_| random.next_u32() as u8).collect();
                let (handled, faults) = (random.next_u64(), random.next_u32());
                push_actor(out, id, handled, faults, state.len()).copy_from_slice(&state);
                format!("{:?}", Record::Actor { id, handled, faults, state: &state })
            }
            1 => {
                push_removed(out, id);
                format!("{:?}", Record::Removed { id })
            }
            2 => {
                let phase = (random.next_u32() % 2) as u8;
                push_message(out, Kind::Queued, phase, &header, &payload);
                format!("{:?}", Record::Queued { phase, header, payload: &payload })
            }
            3 => {
                let due_us = random.next_u64();
                push_timer(out, due_us, &header, &payload);
                format!("{:?}", Record::Timer { due_us, header, payload: &payload })
            }
            4 => {
                // As it lay in a ring: the lap stays there.
                let mut in_a_ring = header;
                in_a_ring.lap = 77;
                push_message(out, Kind::Out, 0, &in_a_ring, &payload);
                format!("{:?}", Record::Out { header, payload: &payload })
            }
            5 => {
                let [epoch, ingress, egress, hlc] = [(); 4].map(|()| random.next_u64());
                let cut = Cut { epoch, lane: random.next_u32(), ingress, egress, hlc };
                push_cut(out, &cut);
                format!("{:?}", Record::Cut(cut))
            }
            _ => {
                let kind = 7 + (random.next_u32() % 9) as u8;
                push_node(out, kind, &payload);
                format!("{:?}", Record::Node { kind, body: &payload })
            }
        }
    }

    fn random_stream(random: &mut ChaCha8Rng) -> (Vec<u8>, Vec<String>) {
        let mut bytes = Vec::new();
        let written = (0..random.next_u32() % 40).map(|_| push_random(random, &mut bytes)).collect();
        assert!(bytes.len().is_multiple_of(8));
        (bytes, written)
    }

    /// Feeds the bytes in slices of random lengths.
    fn split(random: &mut ChaCha8Rng, mut bytes: &[u8]) -> Result<(Vec<String>, Vec<u8>), Error> {
        let (mut read, mut passed) = (Vec::new(), Vec::new());
        let mut splitter = Splitter::default();
        let longest = [1, 5, 64, 4096][random.next_u32() as usize % 4];
        while !bytes.is_empty() {
            let (slice, rest) = bytes.split_at((random.next_u32() as usize % (longest + 1)).min(bytes.len()));
            splitter.feed(slice, |record, whole| {
                read.push(format!("{record:?}"));
                passed.extend(whole);
                Ok::<_, Error>(())
            })?;
            bytes = rest;
        }
        splitter.finish()?;
        Ok((read, passed))
    }

    #[test]
    fn what_was_written_is_read_however_it_is_cut() {
        for seed in 0..500 {
            let random = &mut ChaCha8Rng::seed_from_u64(seed);
            let (bytes, written) = random_stream(random);
            let read: Vec<String> = records(&bytes).map(|record| format!("{:?}", record.unwrap())).collect();
            assert_eq!(read, written, "seed {seed}");
            assert_eq!(split(random, &bytes), Ok((written, bytes)), "seed {seed}");
        }
    }

    #[test]
    fn a_stream_that_ends_too_early_is_an_error_with_its_place() {
        let random = &mut ChaCha8Rng::seed_from_u64(1);
        let (bytes, _) = random_stream(random);
        let mut ends = vec![0];
        let mut note = |_: Record<'_>, whole: &[u8]| {
            ends.push(ends.last().unwrap() + whole.len());
            Ok::<_, Error>(())
        };
        Splitter::default().feed(&bytes, &mut note).unwrap();
        for length in 0..bytes.len() {
            let expected = match ends.binary_search(&length) {
                Ok(_) => None,
                Err(next) => Some(Error { at: ends[next - 1] as u64, problem: Problem::CutShort }),
            };
            assert_eq!(records(&bytes[..length]).find_map(Result::err), expected);
            assert_eq!(split(random, &bytes[..length]).err(), expected);
        }
    }

    #[test]
    fn bytes_that_are_no_records_are_errors_and_both_readers_agree() {
        let mut refused = 0;
        for seed in 0..3_000 {
            let random = &mut ChaCha8Rng::seed_from_u64(seed);
            let (mut bytes, _) = random_stream(random);
            match seed % 3 {
                0 => random.fill_bytes(&mut bytes),
                // Small numbers, so that kinds and lengths are often good.
                1 => bytes.iter_mut().for_each(|byte| *byte = (random.next_u32() % 50).saturating_sub(40) as u8),
                _ if bytes.is_empty() => {}
                _ => {
                    let at = random.next_u32() as usize % bytes.len();
                    bytes[at] ^= 1 << (random.next_u32() % 8);
                }
            }
            let whole: Result<Vec<String>, Error> =
                records(&bytes).map(|record| record.map(|record| format!("{record:?}"))).collect();
            refused += whole.is_err() as u32;
            assert_eq!(split(random, &bytes).map(|(read, _)| read), whole, "seed {seed}");
        }
        assert!(refused > 1_500, "{refused}");
    }

    #[test]
    fn every_rule_of_the_format_is_kept() {
        let id = ActorId::new(TypeId(3), Key(4));
        let header = Header::new(message::Kind::Tell, id, id, 3, Hlc(5));
        let mut good: Vec<Vec<u8>> = vec![Vec::new(); 5];
        push_actor(&mut good[0], id, 1, 2, 5).fill(9);
        push_removed(&mut good[1], id);
        push_message(&mut good[2], Kind::Queued, 1, &header, &[1, 2, 3]);
        push_timer(&mut good[3], 6, &header, &[1, 2, 3]);
        push_cut(&mut good[4], &Cut { lane: 1, ..Cut::default() });
        assert_eq!(good.iter().map(Vec::len).collect::<Vec<_>>(), [40, REMOVED_BYTES, 56, 64, CUT_BYTES]);
        let broken = |record: usize, at: usize, byte: u8| {
            let mut bytes = good[record].clone();
            assert_ne!(bytes[at], byte);
            bytes[at] = byte;
            records(&bytes).next().unwrap().unwrap_err().problem
        };
        assert_eq!(broken(0, 0, 0), Problem::Kind(0));
        assert_eq!(broken(0, 0, 16), Problem::Kind(16));
        assert_eq!(broken(0, 1, 1), Problem::Phase(1));
        assert_eq!(broken(2, 1, 2), Problem::Phase(2));
        assert_eq!(broken(0, 2, 1), Problem::Zeros);
        assert_eq!(broken(0, 4, 28), Problem::Zeros, "the last byte of the state would be padding");
        assert_eq!(broken(0, 4, 16), Problem::Length(16));
        assert_eq!(broken(0, 7, 0x40), Problem::Length(0x4000_001d));
        assert_eq!(broken(0, 16, 0), Problem::NoType);
        assert_eq!(broken(0, 39, 1), Problem::Zeros, "padding");
        assert_eq!(broken(1, 20, 1), Problem::Zeros);
        assert_eq!(broken(1, 4, 15), Problem::Length(15));
        assert_eq!(broken(2, 8, 1), Problem::Zeros, "the lap");
        assert_eq!(broken(2, 12, 4), Problem::Length(43));
        assert_eq!(broken(2, 14, 0), Problem::Message);
        assert_eq!(broken(3, 20, 4), Problem::Length(51));
        assert_eq!(broken(4, 20, 1), Problem::Zeros);
        assert_eq!(broken(4, 4, 39), Problem::Length(39));
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let id = ActorId::new(TypeId(0x0403_0201), Key(0x1817_1615_1413_1211));
        let mut bytes = Vec::new();
        push_actor(&mut bytes, id, 0x2827_2625_2423_2221, 0x3433_3231, 3).copy_from_slice(&[7, 8, 9]);
        let expected: [u8; 40] = [
            1, 0, 0, 0, 27, 0, 0, 0, // head
            0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, // key
            1, 2, 3, 4, 0x31, 0x32, 0x33, 0x34, // type id, faults
            0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28, // handled
            7, 8, 9, 0, 0, 0, 0, 0, // state
        ];
        assert_eq!(bytes, expected);
        bytes.clear();
        push_cut(&mut bytes, &Cut { epoch: 1, lane: 2, ingress: 3, egress: 4, hlc: 5 });
        let words: Vec<u64> = bytes.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        assert_eq!(words, [6 | 40 << 32, 1, 2, 3, 4, 5]);
    }
}
