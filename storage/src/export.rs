//! Checkpoints in one file: to keep elsewhere, to move a node to another machine.
//!
//! The file has a head of 40 bytes, then frames; all numbers are little-endian:
//!
//! | offset | bytes | head |
//! |---|---|---|
//! | 0 | 8 | `rhexport` |
//! | 8 | 4 | format version |
//! | 12 | 4 | checkpoints in the file |
//! | 16 | 16 | the node's id |
//! | 32 | 4 | zero |
//! | 36 | 4 | crc32 of the bytes before |
//!
//! | offset | bytes | frame |
//! |---|---|---|
//! | 0 | 4 | crc32 of the frame's number in the file (u64, from 0) and of all that follows |
//! | 4 | 4 | what it holds |
//! | 8 | 4 | `len`, at most 65,536 |
//! | 12 | `len` | the content |
//!
//! | holds | content |
//! |---|---|
//! | `0xffffffff` | a checkpoint begins: epoch u64, time u64 (µs since the Unix epoch), lanes u32; the device's name |
//! | 0, 1, 2 + lane | what is known about it, the node's part, a lane's part: see `docs/storage.md` |
//! | `0xfffffffe` | the checkpoint ends |
//! | `0xfffffffd` | the file ends |
//!
//! Each checkpoint stands for itself: a chain is exported as the one full checkpoint that it stands for. The frames of a
//! part are in order; parts may lie between each other's frames.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use uuid::Uuid;

use crate::checkpoints::{self, About, Checkpoints, Part, Reader};

/// The format this build reads and writes.
pub const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"rhexport";
const HEAD_BYTES: usize = 40;
const FRAME_BYTES: usize = 12;
const CONTENT_BYTES_MAX: usize = 64 * 1024;
const BEGINS: u32 = u32::MAX;
const ENDS: u32 = u32::MAX - 1;
const FILE_ENDS: u32 = u32::MAX - 2;

/// What can go wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Checkpoints(#[from] checkpoints::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is no export of Ringhold's")]
    Foreign,
    #[error("it has format {0}, and this build of Ringhold reads {FORMAT}: use the Ringhold that wrote it")]
    OtherFormat(u32),
    #[error("it is damaged: {0}; export it again, or take an older file")]
    Damaged(String),
}

/// A checkpoint in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    pub device: String,
    pub epoch: u64,
    pub at_us: u64,
    pub lanes: u32,
    /// Bytes of its records.
    pub bytes: u64,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    pub node_id: Uuid,
    pub checkpoints: Vec<Exported>,
}

/// Writes the checkpoints, each as a full one. `progress` is told the bytes of records written.
pub fn write(
    store: &Checkpoints,
    node_id: Uuid,
    checkpoints: &[(String, u64)],
    out: &mut impl Write,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Error> {
    let mut head = [MAGIC.as_slice(), &FORMAT.to_le_bytes(), &(checkpoints.len() as u32).to_le_bytes()].concat();
    head.extend(node_id.as_bytes());
    head.extend([0; 4]);
    head.extend(crc32fast::hash(&head).to_le_bytes());
    out.write_all(&head)?;
    let (mut frames, mut done) = (Frames { out, number: 0 }, 0);
    for (device, epoch) in checkpoints {
        let manifest = store.chain(device, *epoch)?.remove(0);
        let mut begins = [epoch.to_le_bytes(), manifest.at_us.to_le_bytes()].concat();
        begins.extend(manifest.lanes.to_le_bytes());
        begins.extend(device.as_bytes());
        frames.write(BEGINS, &begins)?;
        for content in store.about(&manifest)?.to_bytes().chunks(CONTENT_BYTES_MAX) {
            frames.write(checkpoints::ABOUT, content)?;
        }
        // What has come of each part and is no whole frame yet.
        let mut gathered: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        store.visit(device, *epoch, |part, _, mut record| {
            done += record.len() as u64;
            progress(done);
            let gathered = gathered.entry(part.number()).or_default();
            while !record.is_empty() {
                let (taken, rest) = record.split_at(record.len().min(CONTENT_BYTES_MAX - gathered.len()));
                gathered.extend(taken);
                record = rest;
                if gathered.len() == CONTENT_BYTES_MAX {
                    frames.write(part.number(), gathered)?;
                    gathered.clear();
                }
            }
            Ok::<_, Error>(())
        })?;
        for (part, content) in gathered.iter().filter(|(_, content)| !content.is_empty()) {
            frames.write(*part, content)?;
        }
        frames.write(ENDS, &[])?;
    }
    frames.write(FILE_ENDS, &[])
}

/// Reads and checks a whole file, and says what is in it. `progress` is told the bytes of records read.
pub fn look(from: &mut impl Read, progress: &mut dyn FnMut(u64)) -> Result<Contents, Error> {
    let mut found: Vec<Exported> = Vec::new();
    let mut done = 0;
    let node_id = read(from, &mut |event| {
        match event {
            Event::Begins(manifest) => found.push(manifest),
            Event::Part(_, content) => {
                done += content.len() as u64;
                found.last_mut().expect("a checkpoint has begun").bytes += content.len() as u64;
                progress(done);
            }
            Event::Ends(_) => {}
        }
        Ok(())
    })?;
    Ok(Contents { node_id, checkpoints: found })
}

/// Puts each checkpoint of a file in the place of all that the store has of its device. What has been put there stays
/// where the file turns out to be damaged further on: [`look`] at it first. `progress` is told the bytes of records
/// written.
pub fn import(store: &Checkpoints, from: &mut impl Read, progress: &mut dyn FnMut(u64)) -> Result<(), Error> {
    let mut draft = None;
    let mut done = 0;
    read(from, &mut |event| {
        match event {
            Event::Begins(begun) => draft = Some(store.begin_instead(&begun.device, begun.epoch)?),
            Event::Part(part, content) => {
                done += content.len() as u64;
                progress(done);
                draft.as_mut().expect("a checkpoint has begun").append(part, content)?;
            }
            Event::Ends(about) => drop(draft.take().expect("a checkpoint has begun").commit(about)?),
        }
        Ok(())
    })?;
    Ok(())
}

enum Event<'a> {
    Begins(Exported),
    Part(Part, &'a [u8]),
    Ends(About),
}

/// Passes on what a file holds, and returns the id of the node that it is of.
fn read(from: &mut impl Read, each: &mut dyn FnMut(Event<'_>) -> Result<(), Error>) -> Result<Uuid, Error> {
    let mut head = [0; HEAD_BYTES];
    let (magic, rest) = head.split_at_mut(MAGIC.len());
    match from.read_exact(magic) {
        Ok(()) if magic == MAGIC => {}
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error.into()),
        _ => return Err(Error::Foreign),
    }
    from.read_exact(rest).map_err(cut_short)?;
    let mut fields = Reader(&head[MAGIC.len()..]);
    let mut field = || fields.u32().expect("the head has its length");
    let (format, count) = (field(), field());
    // The format first: of another one nothing else is known.
    if format != FORMAT {
        return Err(Error::OtherFormat(format));
    }
    let (bytes, crc) = head.split_at(HEAD_BYTES - 4);
    if crc32fast::hash(bytes).to_le_bytes() != crc {
        return Err(damaged("its head has another checksum"));
    }
    let node_id = Uuid::from_slice(&head[16..32]).expect("sixteen bytes");
    let (mut number, mut content, mut ended) = (0u64, Vec::new(), 0);
    let mut open: Option<(Exported, Vec<u8>)> = None;
    loop {
        let holds = read_frame(from, number, &mut content)?;
        number += 1;
        match (holds, &mut open) {
            (BEGINS, None) => {
                let begun = begins(&content).ok_or_else(|| damaged("a checkpoint has no name"))?;
                open = Some((begun.clone(), Vec::new()));
                each(Event::Begins(begun))?;
            }
            (ENDS, Some((begun, about))) => {
                let about = About::from_bytes(begun.at_us, begun.lanes, about);
                each(Event::Ends(about.ok_or_else(|| damaged("what is known about a checkpoint cannot be read"))?))?;
                (open, ended) = (None, ended + 1);
            }
            (FILE_ENDS, None) if ended == count => break,
            (checkpoints::ABOUT, Some((_, about))) => about.extend(&content),
            (part, Some(_)) if part < FILE_ENDS => {
                each(Event::Part(Part::of(part).expect("it is not about it"), &content))?;
            }
            (holds, _) => return Err(damaged(&format!("frame {} holds {holds:#x} where it cannot", number - 1))),
        }
    }
    match from.read(&mut [0])? {
        0 => Ok(node_id),
        _ => Err(damaged("it goes on behind its end")),
    }
}

fn begins(content: &[u8]) -> Option<Exported> {
    let mut from = Reader(content);
    let (epoch, at_us, lanes) = (from.u64()?, from.u64()?, from.u32()?);
    let device = String::from_utf8(from.0.to_vec()).ok()?;
    Some(Exported { device, epoch, at_us, lanes, bytes: 0 })
}

fn read_frame(from: &mut impl Read, number: u64, content: &mut Vec<u8>) -> Result<u32, Error> {
    let mut head = [0; FRAME_BYTES];
    from.read_exact(&mut head).map_err(cut_short)?;
    let mut fields = Reader(&head);
    let mut field = || fields.u32().expect("a frame's head has its length");
    let (crc, holds, len) = (field(), field(), field() as usize);
    if len > CONTENT_BYTES_MAX {
        return Err(damaged(&format!("frame {number} is too long")));
    }
    content.resize(len, 0);
    from.read_exact(content).map_err(cut_short)?;
    if checksum(number, &head[4..], content) != crc {
        return Err(damaged(&format!("frame {number} has another checksum")));
    }
    Ok(holds)
}

struct Frames<'a, W> {
    out: &'a mut W,
    number: u64,
}

impl<W: Write> Frames<'_, W> {
    fn write(&mut self, holds: u32, content: &[u8]) -> Result<(), Error> {
        let head = [holds.to_le_bytes(), (content.len() as u32).to_le_bytes()].concat();
        self.out.write_all(&checksum(self.number, &head, content).to_le_bytes())?;
        self.out.write_all(&head)?;
        self.out.write_all(content)?;
        self.number += 1;
        Ok(())
    }
}

fn checksum(number: u64, head: &[u8], content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    [&number.to_le_bytes(), head, content].iter().for_each(|bytes| hasher.update(bytes));
    hasher.finalize()
}

fn cut_short(error: io::Error) -> Error {
    if error.kind() == io::ErrorKind::UnexpectedEof { damaged("it is cut short") } else { error.into() }
}

fn damaged(what: &str) -> Error {
    Error::Damaged(what.into())
}
