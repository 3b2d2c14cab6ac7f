//! How checkpoints lie in [`Blocks`](crate::blocks::Blocks): keys, chunks, manifests. `docs/storage.md` has the tables.
//!
//! Every value starts with the crc32 of its key and of all that follows in it, and a chunk's covers the checkpoint's
//! name too: a value that is right is also in its right place.

use std::fmt;

use ringhold_kernels::id::TypeId;
use ringhold_kernels::registry::ActorType;

use crate::blocks::VALUE_BYTES_MAX;

/// The format this build reads and writes.
pub const FORMAT: u32 = 1;

pub(super) const FORMAT_KEY: &[u8] = b"f";
const CRC_BYTES: usize = 4;
/// The most a chunk carries.
pub(super) const CHUNK_BYTES: usize = VALUE_BYTES_MAX - CRC_BYTES;
/// Parts a checkpoint may have, so that its manifest fits a value.
pub const PARTS_MAX: usize = 2_000;
const MANIFEST_BYTES: usize = 36;
const PART_BYTES: usize = 16;
const _: () = assert!(CRC_BYTES + MANIFEST_BYTES + PARTS_MAX * PART_BYTES <= VALUE_BYTES_MAX);
pub const DEVICE_NAME_BYTES_MAX: usize = 255;

/// A part of a checkpoint: its records are kept in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// What one of the device's lanes gave.
    Lane(u32),
    /// What the node added.
    Node,
}

/// The number of the part that holds an [`About`].
pub(crate) const ABOUT: u32 = 0;

impl Part {
    /// The number under which a part is kept.
    pub(crate) fn number(self) -> u32 {
        match self {
            Part::Node => 1,
            Part::Lane(lane) => lane.checked_add(2).expect("a device has no such number of lanes"),
        }
    }

    pub(crate) fn of(number: u32) -> Option<Part> {
        match number {
            ABOUT => None,
            1 => Some(Part::Node),
            number => Some(Part::Lane(number - 2)),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Lane(lane) => write!(f, "lane {lane}"),
            Part::Node => f.write_str("the node's part"),
        }
    }
}

/// What a checkpoint consists of: enough to find every byte of it and to see whether it is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    pub device: String,
    pub epoch: u64,
    /// The epoch that this checkpoint tells the changes since; `None` for a full one.
    pub base: Option<u64>,
    /// Wall time of the cut, microseconds since the Unix epoch.
    pub at_us: u64,
    /// Lanes that the device had.
    pub lanes: u32,
    /// Under which number its chunks are.
    pub(super) set: u64,
    pub(super) parts: Vec<PartInfo>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartInfo {
    pub number: u32,
    pub chunks: u32,
    pub bytes: u64,
}

/// What is known of a checkpoint beside its records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// Wall time of the cut, microseconds since the Unix epoch.
    pub at_us: u64,
    /// Lanes that the device has.
    pub lanes: u32,
    /// The actor types that the device was built with.
    pub types: Vec<Type>,
    /// The node's own, opaque here.
    pub node: Vec<u8>,
}

/// An actor type as it was when a checkpoint was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Type {
    pub name: String,
    pub type_id: TypeId,
    pub layout_hash: u64,
    pub state_bytes: u32,
    /// Actors of the type in this checkpoint. The store counts them.
    pub actors: u64,
    /// Messages to actors of the type in this checkpoint. The store counts them.
    pub messages: u64,
}

impl From<&ActorType> for Type {
    fn from(actor: &ActorType) -> Type {
        Type {
            name: actor.schema.name.clone(),
            type_id: actor.type_id,
            layout_hash: actor.layout_hash,
            state_bytes: actor.state_bytes as u32,
            actors: 0,
            messages: 0,
        }
    }
}

impl Manifest {
    /// Bytes of its records and of what is known about it.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes).sum()
    }

    pub fn chunks(&self) -> u64 {
        self.parts.iter().map(|part| part.chunks as u64).sum()
    }

    /// The parts that hold records.
    pub fn parts(&self) -> impl Iterator<Item = (Part, u64)> + '_ {
        self.parts.iter().filter_map(|part| Some((Part::of(part.number)?, part.bytes)))
    }

    pub(super) fn key(&self) -> Vec<u8> {
        manifest_key(&self.device, self.epoch)
    }

    pub(super) fn to_value(&self) -> Vec<u8> {
        let mut value = vec![0; CRC_BYTES];
        value.extend(FORMAT.to_le_bytes());
        let base = self.base.unwrap_or(u64::MAX);
        [self.set, base, self.at_us].iter().for_each(|word| value.extend(word.to_le_bytes()));
        [self.lanes, self.parts.len() as u32].iter().for_each(|word| value.extend(word.to_le_bytes()));
        for part in &self.parts {
            [part.number, part.chunks].iter().for_each(|word| value.extend(word.to_le_bytes()));
            value.extend(part.bytes.to_le_bytes());
        }
        seal(&self.key(), &mut value);
        value
    }

    pub(super) fn from_value(device: &str, epoch: u64, value: &[u8]) -> Result<Manifest, String> {
        let mut from = Reader(unseal(&manifest_key(device, epoch), value)?);
        let short = || "its manifest is cut short".to_string();
        let format = from.u32().ok_or_else(short)?;
        if format != FORMAT {
            return Err(format!("its manifest has format {format}, and this build of Ringhold reads {FORMAT}"));
        }
        let mut read = || {
            let (set, base, at_us) = (from.u64()?, from.u64()?, from.u64()?);
            let (lanes, count) = (from.u32()?, from.u32()?);
            let part =
                |from: &mut Reader<'_>| Some(PartInfo { number: from.u32()?, chunks: from.u32()?, bytes: from.u64()? });
            let parts = (0..count).map(|_| part(&mut from)).collect::<Option<_>>()?;
            let base = (base != u64::MAX).then_some(base);
            from.0.is_empty().then_some(Manifest { device: device.into(), epoch, base, at_us, lanes, set, parts })
        };
        read().ok_or_else(short)
    }
}

impl About {
    /// All but what the manifest has.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((self.types.len() as u32).to_le_bytes());
        for found in &self.types {
            bytes.extend(found.type_id.0.to_le_bytes());
            bytes.extend(found.state_bytes.to_le_bytes());
            [found.layout_hash, found.actors, found.messages].iter().for_each(|word| bytes.extend(word.to_le_bytes()));
            bytes.extend((found.name.len() as u32).to_le_bytes());
            bytes.extend(found.name.as_bytes());
        }
        bytes.extend(&self.node);
        bytes
    }

    pub(crate) fn from_bytes(at_us: u64, lanes: u32, bytes: &[u8]) -> Option<About> {
        let mut from = Reader(bytes);
        let count = from.u32()?;
        let read = |from: &mut Reader<'_>| {
            let (type_id, state_bytes) = (TypeId(from.u32()?), from.u32()?);
            let (layout_hash, actors, messages) = (from.u64()?, from.u64()?, from.u64()?);
            let name_bytes = from.u32()? as usize;
            let name = String::from_utf8(from.take(name_bytes)?.to_vec()).ok()?;
            Some(Type { name, type_id, layout_hash, state_bytes, actors, messages })
        };
        let types = (0..count).map(|_| read(&mut from)).collect::<Option<_>>()?;
        Some(About { at_us, lanes, types, node: from.0.to_vec() })
    }
}

pub(super) fn manifest_key(device: &str, epoch: u64) -> Vec<u8> {
    [b"m", device.as_bytes(), b"\0", &epoch.to_be_bytes()].concat()
}

/// The device and the epoch in a manifest's key, or `None` where it is none.
pub(super) fn manifest_of(key: &[u8]) -> Option<(String, u64)> {
    let (name, epoch) = key.strip_prefix(b"m")?.split_last_chunk()?;
    let device = String::from_utf8(name.strip_suffix(b"\0")?.to_vec()).ok()?;
    Some((device, u64::from_be_bytes(*epoch)))
}

pub(super) fn chunk_key(set: u64, part: u32, number: u32) -> [u8; 17] {
    let mut key = [b'c'; 17];
    key[1..9].copy_from_slice(&set.to_be_bytes());
    key[9..13].copy_from_slice(&part.to_be_bytes());
    key[13..].copy_from_slice(&number.to_be_bytes());
    key
}

/// The set in a chunk's key, or `None` where it is none.
pub(super) fn set_of(key: &[u8]) -> Option<u64> {
    let rest: &[u8; 16] = key.strip_prefix(b"c")?.try_into().ok()?;
    Some(u64::from_be_bytes(*rest.first_chunk().expect("sixteen bytes have eight")))
}

/// What a chunk's checksum covers besides its bytes.
pub(super) fn chunk_name(device: &str, epoch: u64, key: &[u8; 17]) -> Vec<u8> {
    [manifest_key(device, epoch).as_slice(), key].concat()
}

/// An empty chunk, to be filled and sealed.
pub(super) fn empty_chunk() -> Vec<u8> {
    let mut chunk = Vec::with_capacity(VALUE_BYTES_MAX);
    chunk.resize(CRC_BYTES, 0);
    chunk
}

/// How much has been put into a chunk.
pub(super) fn carried(chunk: &[u8]) -> usize {
    chunk.len() - CRC_BYTES
}

/// Writes the checksum of a value that is stored under a name into the value's first bytes.
pub(super) fn seal(name: &[u8], value: &mut [u8]) {
    let crc = checksum(name, &value[CRC_BYTES..]);
    value[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
}

/// What a value holds, or what is wrong with it.
pub(super) fn unseal<'a>(name: &[u8], value: &'a [u8]) -> Result<&'a [u8], String> {
    let (crc, held) = value.split_first_chunk().ok_or("is too short for its checksum")?;
    let (expected, found) = (u32::from_le_bytes(*crc), checksum(name, held));
    if expected == found { Ok(held) } else { Err(format!("has the checksum {found:08x} and not {expected:08x}")) }
}

fn checksum(name: &[u8], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(name);
    hasher.update(bytes);
    hasher.finalize()
}

/// Numbers from the front of bytes, little-endian.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_le_bytes(bytes.try_into().expect("two bytes")))
    }

    pub fn u32(&mut self) -> Option<u32> {
        self.take(4).map(|bytes| u32::from_le_bytes(bytes.try_into().expect("four bytes")))
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.take(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
    }
}
