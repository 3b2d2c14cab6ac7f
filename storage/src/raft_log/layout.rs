//! How a log lies in [`Blocks`](crate::blocks::Blocks): keys, seals, pieces. The table is in `mod.rs`.

use crate::blocks::VALUE_BYTES_MAX;

/// The format this build reads and writes.
pub const FORMAT: u32 = 1;
/// The largest entry.
pub const ENTRY_BYTES_MAX: usize = 8 << 20;
/// The largest record.
pub const RECORD_BYTES_MAX: usize = VALUE_BYTES_MAX - CRC_BYTES - 1;
/// The largest snapshot.
pub const SNAPSHOT_BYTES_MAX: usize = 64 << 20;

pub(super) const FORMAT_KEY: &[u8] = b"F";
pub(super) const BOUNDS_KEY: &[u8] = b"B";
/// The record that says which snapshot counts.
pub(super) const SNAPSHOT: &str = "snapshot";

const CRC_BYTES: usize = 4;
const PIECE_HEAD_BYTES: usize = 20;
const PIECE_BYTES: usize = VALUE_BYTES_MAX - CRC_BYTES - PIECE_HEAD_BYTES;
pub(super) const SNAPSHOT_PIECE_BYTES: usize = VALUE_BYTES_MAX - CRC_BYTES;

pub(super) fn entry_key(index: u64, piece: u32) -> Vec<u8> {
    numbered(b'e', index, piece)
}

/// The index and the piece in an entry's key.
pub(super) fn entry_of(key: &[u8]) -> Option<(u64, u32)> {
    let (index, piece) = key.strip_prefix(b"e")?.split_first_chunk()?;
    Some((u64::from_be_bytes(*index), u32::from_be_bytes(piece.try_into().ok()?)))
}

pub(super) fn snapshot_key(number: u64, piece: u32) -> Vec<u8> {
    numbered(b's', number, piece)
}

fn numbered(kind: u8, number: u64, piece: u32) -> Vec<u8> {
    [&[kind][..], &number.to_be_bytes(), &piece.to_be_bytes()].concat()
}

pub(super) fn record_key(name: &str) -> Vec<u8> {
    [b"n", name.as_bytes()].concat()
}

pub(super) fn snapshot_pieces(bytes: usize) -> u32 {
    bytes.div_ceil(SNAPSHOT_PIECE_BYTES) as u32
}

/// The number of a snapshot and its bytes, from its record.
pub(super) fn snapshot_of(record: &[u8]) -> Option<(u64, u64)> {
    let (number, bytes) = record.split_first_chunk()?;
    let bytes = u64::from_le_bytes(bytes.try_into().ok()?);
    (bytes <= SNAPSHOT_BYTES_MAX as u64).then_some((u64::from_le_bytes(*number), bytes))
}

/// A value for a key: its checksum, and the parts.
pub(super) fn seal(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut value = vec![0; CRC_BYTES];
    parts.iter().for_each(|part| value.extend_from_slice(part));
    let crc = checksum(key, &value[CRC_BYTES..]);
    value[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
    value
}

/// What is sealed in a key's value; `None` where that is damaged or another key's.
pub(super) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Option<&'a [u8]> {
    let (crc, rest) = value.split_first_chunk()?;
    (u32::from_le_bytes(*crc) == checksum(key, rest)).then_some(rest)
}

fn checksum(key: &[u8], rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(rest);
    hasher.finalize()
}

/// Which entries there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    pub first: u64,
    /// In memory: the index after the last one. On the disk: what it was when the bounds were last written. Later entries are
    /// there where they are right and of this generation.
    pub end: u64,
    pub generation: u64,
}

impl Bounds {
    pub fn read(value: &[u8]) -> Option<Bounds> {
        let numbers = unseal(BOUNDS_KEY, value)?;
        let (first, numbers) = numbers.split_first_chunk()?;
        let (end, generation) = numbers.split_first_chunk()?;
        Some(Bounds {
            first: u64::from_le_bytes(*first),
            end: u64::from_le_bytes(*end),
            generation: u64::from_le_bytes(generation.try_into().ok()?),
        })
    }

    pub fn write(&self) -> Vec<u8> {
        let numbers = [self.first, self.end, self.generation].map(u64::to_le_bytes);
        seal(BOUNDS_KEY, &[numbers.as_flattened()])
    }
}

/// A piece of an entry, or all of it.
pub(super) struct Piece {
    pub generation: u64,
    /// Every entry before this index was durable when this one was written.
    pub durable: u64,
    /// Bytes of the whole entry.
    pub whole: u32,
    pub bytes: Vec<u8>,
}

impl Piece {
    pub fn read(key: &[u8], value: &[u8]) -> Option<Piece> {
        let (generation, rest) = unseal(key, value)?.split_first_chunk()?;
        let (durable, rest) = rest.split_first_chunk()?;
        let (whole, rest) = rest.split_first_chunk()?;
        Some(Piece {
            generation: u64::from_le_bytes(*generation),
            durable: u64::from_le_bytes(*durable),
            whole: u32::from_le_bytes(*whole),
            bytes: rest.to_vec(),
        })
    }

    /// Whether both are of one entry.
    pub fn belongs(&self, other: &Piece) -> bool {
        (self.generation, self.durable, self.whole) == (other.generation, other.durable, other.whole)
            && !other.bytes.is_empty()
    }
}

/// The values that hold an entry.
pub(super) fn pieces(
    index: u64,
    entry: &[u8],
    generation: u64,
    durable: u64,
) -> impl Iterator<Item = (u32, Vec<u8>)> + '_ {
    // An empty entry has a piece, too.
    let count = entry.len().div_ceil(PIECE_BYTES).max(1);
    (0..count).map(move |number| {
        let from = number * PIECE_BYTES;
        let part = &entry[from..(from + PIECE_BYTES).min(entry.len())];
        let head = [&generation.to_le_bytes()[..], &durable.to_le_bytes(), &(entry.len() as u32).to_le_bytes()];
        let number = number as u32;
        (number, seal(&entry_key(index, number), &[head[0], head[1], head[2], part]))
    })
}
