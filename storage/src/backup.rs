//! Files of a backup of a whole cluster: one for each device, and one for what the cluster has agreed on.
//!
//! Each has a head of 20 bytes, then frames; all numbers are little-endian:
//!
//! | offset | bytes | head |
//! |---|---|---|
//! | 0 | 8 | `rhbackup` |
//! | 8 | 4 | format version |
//! | 12 | 4 | whose it is: a device's number, or `0xffffffff` for what is agreed on |
//! | 16 | 4 | crc32 of the bytes before |
//!
//! | offset | bytes | frame |
//! |---|---|---|
//! | 0 | 4 | crc32 of the frame's number in the file (u64, from 0) and of all that follows |
//! | 4 | 4 | bytes of the content; 0 in the last frame, which ends the file |
//! | 8 | | the content |
//!
//! A device's frames are [`Item`]s: its newest checkpoint with all that this one stands on, the oldest first, each as it goes to a
//! copy on another node; then what the device is to take in beside it. Unlike an [`export`](crate::export), which is of a node that
//! does not run, this can be read while the device goes on, and has adoptions.

use std::io::{self, Read, Write};

use crate::checkpoints::{self, Checkpoints, Following, Item, Mark, Replica, Taken, Type, replica_name};

/// The format this build reads and writes.
pub const FORMAT: u32 = 1;
/// Whose the file is that has what the cluster has agreed on.
pub const AGREED: u32 = u32::MAX;

const MAGIC: &[u8; 8] = b"rhbackup";
const HEAD_BYTES: usize = 20;
const FRAME_BYTES: usize = 8;
/// More than any item, and more than what a cluster agrees on.
const CONTENT_BYTES_MAX: usize = 64 << 20;

/// What can go wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Checkpoints(#[from] checkpoints::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is no file of a backup of Ringhold's")]
    Foreign,
    #[error("it has format {0}, and this build of Ringhold reads {FORMAT}: use the Ringhold that made the backup")]
    OtherFormat(u32),
    #[error("it is damaged: {0}; take another backup")]
    Damaged(String),
}

/// A file's bytes, and the crc32 of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub bytes: u64,
    pub crc32: u32,
}

/// The crc32 of bytes.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Writes a file.
pub struct Writer<W> {
    out: W,
    number: u64,
    bytes: u64,
    hasher: crc32fast::Hasher,
}

impl<W: Write> Writer<W> {
    /// Begins the file of a device, by its number, or [`AGREED`].
    pub fn begin(out: W, of: u32) -> io::Result<Writer<W>> {
        let mut head = [MAGIC.as_slice(), &FORMAT.to_le_bytes(), &of.to_le_bytes()].concat();
        head.extend(crc32fast::hash(&head).to_le_bytes());
        let mut writer = Writer { out, number: 0, bytes: 0, hasher: crc32fast::Hasher::new() };
        writer.write(&head)?;
        Ok(writer)
    }

    /// Writes one frame.
    pub fn put(&mut self, content: &[u8]) -> io::Result<()> {
        let length = (content.len() as u32).to_le_bytes();
        self.write(&checksum(self.number, &length, content).to_le_bytes())?;
        self.write(&length)?;
        self.number += 1;
        self.write(content)
    }

    /// Ends the file.
    pub fn end(mut self) -> io::Result<(W, Sum)> {
        self.put(&[])?;
        Ok((self.out, Sum { bytes: self.bytes, crc32: self.hasher.finalize() }))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
        self.out.write_all(bytes)
    }
}

/// Reads and checks a whole file of a device, by its number, or of [`AGREED`]; passes on its frames.
pub fn read(from: &mut impl Read, of: u32, each: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<Sum, Error> {
    let mut summed = Summed { from, sum: Sum::default(), hasher: crc32fast::Hasher::new() };
    let mut head = [0; HEAD_BYTES];
    summed.read(&mut head)?;
    let field = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().expect("four bytes"));
    if !head.starts_with(MAGIC) {
        return Err(Error::Foreign);
    }
    // The format first: of another one nothing else is known.
    if field(8) != FORMAT {
        return Err(Error::OtherFormat(field(8)));
    }
    if crc32fast::hash(&head[..16]) != field(16) {
        return Err(damaged("its head has another checksum"));
    }
    if field(12) != of {
        return Err(damaged("it is another one's"));
    }
    let mut content = Vec::new();
    for number in 0.. {
        let mut head = [0; FRAME_BYTES];
        summed.read(&mut head)?;
        let (crc, length) = head.split_at(4);
        let bytes = u32::from_le_bytes(length.try_into().expect("four bytes")) as usize;
        if bytes > CONTENT_BYTES_MAX {
            return Err(damaged(&format!("frame {number} is too long")));
        }
        content.resize(bytes, 0);
        summed.read(&mut content)?;
        if checksum(number, length, &content).to_le_bytes() != crc {
            return Err(damaged(&format!("frame {number} has another checksum")));
        }
        if content.is_empty() {
            break;
        }
        each(&content)?;
    }
    match summed.from.read(&mut [0])? {
        0 => Ok(Sum { crc32: summed.hasher.finalize(), ..summed.sum }),
        _ => Err(damaged("it goes on behind its end")),
    }
}

/// Reads and checks the file of what the cluster has agreed on, and returns that.
pub fn read_agreed(from: &mut impl Read) -> Result<(Sum, Vec<u8>), Error> {
    let mut agreed = Vec::new();
    let sum = read(from, AGREED, &mut |content| {
        agreed.extend(content);
        Ok(())
    })?;
    Ok((sum, agreed))
}

/// What is in a file of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    pub sum: Sum,
    /// The checkpoint; `None` where the device had none.
    pub mark: Option<Mark>,
    /// The actor types of it and of all that it stands on.
    pub types: Vec<Type>,
}

/// Reads and checks a whole file of a device, and says what is in it. `progress` is told the bytes read.
pub fn look(from: &mut impl Read, device: u16, progress: &mut dyn FnMut(u64)) -> Result<Contents, Error> {
    let (mut following, mut done) = (Following::default(), 0);
    let sum = read(from, device.into(), &mut |content| {
        done += content.len() as u64;
        progress(done);
        following.take(&Item::from_bytes(content).map_err(item)?).map_err(item)
    })?;
    let (mark, types) = following.end().map_err(item)?;
    Ok(Contents { sum, mark, types })
}

/// Makes a copy of a device's checkpoints of its file, from which the device can begin in this term. [`look`] at the file first.
/// `progress` is told the bytes done.
pub fn restore(
    store: &Checkpoints,
    device: u16,
    term: u64,
    from: &mut impl Read,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let mut replica = Replica::open(store, device)?;
    replica.hear(term)?;
    let (mut adopting, mut done) = (Vec::new(), 0);
    read(from, device.into(), &mut |content| {
        done += content.len() as u64;
        progress(done);
        match Item::from_bytes(content)? {
            Item::Piece(piece) => match replica.take(term, piece)? {
                Taken::Some | Taken::Whole => Ok(()),
                Taken::Not { .. } => Err(damaged("a piece is not what comes next")),
            },
            Item::Adoption { number, last, bytes } => {
                adopting.extend(bytes);
                if last {
                    store.put_adoption(&replica_name(device), number, &std::mem::take(&mut adopting))?;
                }
                Ok(())
            }
        }
    })?;
    Ok(())
}

/// A source whose bytes are counted and summed.
struct Summed<'a, R> {
    from: &'a mut R,
    sum: Sum,
    hasher: crc32fast::Hasher,
}

impl<R: Read> Summed<'_, R> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.from.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it is cut short"),
            _ => error.into(),
        })?;
        self.sum.bytes += bytes.len() as u64;
        self.hasher.update(bytes);
        Ok(())
    }
}

fn checksum(number: u64, length: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    [&number.to_le_bytes(), length, content].iter().for_each(|bytes| hasher.update(bytes));
    hasher.finalize()
}

/// An item that cannot be is damage of the file.
fn item(error: checkpoints::Error) -> Error {
    match error {
        checkpoints::Error::Piece(what) => damaged(&format!("its pieces {what}")),
        error => error.into(),
    }
}

fn damaged(what: &str) -> Error {
    Error::Damaged(what.into())
}
