//! A log that is agreed on with other nodes: entries by index, small named records, one snapshot.
//!
//! It knows nothing of what is in them. What a call has made durable is there after a power failure; what it was about to
//! do may be there or not, an append of several entries to any length.
//!
//! How a torn write is told from damage: every value has a checksum of its key and of the rest, and every piece of an entry
//! says which index was durable when it was written. Entries up to the greatest of those must be there and right; where one
//! is not, that is damage, and [`Error::Damaged`] says so. What is wrong behind them was never acknowledged, and is left out.
//! Of the last append before a power failure this cannot be known (Alagappan et al., *Protocol-Aware Recovery for
//! Consensus-Based Storage*, FAST 2018, §3.3.3, has why), but sled itself checks, and [`Blocks::lost_syncs`] tells, what its
//! file has lost.
//!
//! How entries that were cut off stay away: a *cut* raises the log's *generation*, which every later entry bears. What is left
//! behind of an older generation does not count, whether the disk has removed it by then or not. Opening is a cut, too.
//!
//! | key | value, after its crc32 |
//! |---|---|
//! | `F` | the format, u32: 1 |
//! | `B` | the *bounds*: first u64, end u64, generation u64 |
//! | `e`, index u64, piece u32 | generation u64, durable u64, bytes of the entry u32, the piece |
//! | `n`, a name | 1, the record; nothing at all where there never was one |
//! | `s`, number u64, piece u32 | a piece of a snapshot |
//!
//! Numbers in keys are big-endian, so that they sort, those in values little-endian. The record `snapshot` has the number of
//! the snapshot, u64, and its bytes, u64.

mod layout;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::blocks::{self, Blocks, hold};
use layout::{Bounds, Piece, SNAPSHOT, entry_key, record_key, seal, snapshot_key, unseal};
pub use layout::{ENTRY_BYTES_MAX, FORMAT, RECORD_BYTES_MAX, SNAPSHOT_BYTES_MAX};

/// A log on a disk. Every call blocks on the disk; those that write take turns.
pub struct RaftLog {
    blocks: Arc<dyn Blocks>,
    /// Where it is, for errors.
    place: PathBuf,
    /// How often the disk had been opened anew when the log was opened.
    reopened: u64,
    /// Held by whoever writes entries, bounds or records.
    writing: Mutex<Writing>,
    /// Held by whoever writes or reads the snapshot.
    snapshot: Mutex<Option<Snapshot>>,
    /// What may be read. Held for moments.
    bounds: Mutex<Bounds>,
}

struct Writing {
    /// A write has failed, and what is on the disk is known only once the log is opened anew.
    failed: bool,
}

#[derive(Clone, Copy)]
struct Snapshot {
    number: u64,
    bytes: u64,
}

/// What can go wrong with the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    #[error(
        "the node's control data in {} is damaged ({what}): what this node has promised its cluster is not known any more, so \
         it must not take part as the same member. Remove the node from the cluster, and let it join anew with an empty data \
         folder; nothing is lost by that as long as a majority of the cluster's voters is well",
        place.display()
    )]
    Damaged { place: PathBuf, what: String },
    #[error(
        "the node's control data in {} has format {found}, and this build of Ringhold reads {FORMAT}: use the Ringhold that \
         wrote it",
        place.display()
    )]
    OtherFormat { place: PathBuf, found: u32 },
    #[error("the folder of the node's control data, {}, holds something else; move it away", .0.display())]
    Foreign(PathBuf),
    #[error(
        "an earlier write of the node's control data in {} has failed: the log has to be opened anew before it is written to",
        .0.display()
    )]
    Failed(PathBuf),
    #[error("{what} of {bytes} bytes is larger than {most}")]
    TooLarge { what: &'static str, bytes: usize, most: usize },
    #[error("entries from {first} on do not follow a log that ends before {end}")]
    Gap { first: u64, end: u64 },
}

impl RaftLog {
    /// Opens the log, making it first where there is none. `place` is where it is, for errors.
    pub fn open(blocks: Arc<dyn Blocks>, place: &Path) -> Result<RaftLog, Error> {
        let damaged = |what: String| Error::Damaged { place: place.into(), what };
        let reopened = blocks.reopened();
        match blocks.lost_syncs() {
            0 => {}
            1 => return Err(damaged("the last write is lost".into())),
            lost => return Err(damaged(format!("the last {lost} writes are lost"))),
        }
        let format = read_format(&*blocks, place)?;
        if format.is_none() {
            create(&*blocks)?;
        }
        let bounds = match blocks.get(layout::BOUNDS_KEY)? {
            Some(value) => Bounds::read(&value),
            None => None,
        };
        let bounds = bounds.ok_or_else(|| damaged("the log's bounds".into()))?;
        let log = RaftLog {
            blocks,
            place: place.into(),
            reopened,
            writing: Mutex::new(Writing { failed: false }),
            snapshot: Mutex::new(None),
            bounds: Mutex::new(bounds),
        };
        log.recover()?;
        Ok(log)
    }

    /// The indexes of the entries that are there. Where there are none, its start is the index of the next.
    pub fn range(&self) -> Range<u64> {
        let bounds = hold(&self.bounds);
        bounds.first..bounds.end
    }

    /// Appends entries, the first of which has the index `first`: that after the last one. All are durable once this has
    /// returned.
    pub fn append(&self, first: u64, entries: &[Vec<u8>]) -> Result<(), Error> {
        if let Some(entry) = entries.iter().find(|entry| entry.len() > ENTRY_BYTES_MAX) {
            return Err(Error::TooLarge { what: "an entry", bytes: entry.len(), most: ENTRY_BYTES_MAX });
        }
        self.write(|| {
            let bounds = *hold(&self.bounds);
            if first != bounds.end {
                return Err(Error::Gap { first, end: bounds.end });
            }
            for (index, entry) in (first..).zip(entries) {
                for (number, value) in layout::pieces(index, entry, bounds.generation, bounds.end) {
                    self.blocks.put(&entry_key(index, number), &value)?;
                }
            }
            self.sync()?;
            hold(&self.bounds).end += entries.len() as u64;
            Ok(())
        })
    }

    /// Removes the entry `from` and all that follow; they stay away once this has returned. There need not be any.
    pub fn truncate(&self, from: u64) -> Result<(), Error> {
        self.write(|| {
            let old = *hold(&self.bounds);
            if from >= old.end {
                return Ok(());
            }
            let end = from.max(old.first);
            self.set_bounds(Bounds { end, generation: old.generation + 1, ..old })?;
            self.remove_entries(end..old.end)
        })
    }

    /// Removes the entry `up_to` and all before it; they stay away once this has returned. Where the log ends before, the
    /// next entry is the one after `up_to`.
    pub fn purge(&self, up_to: u64) -> Result<(), Error> {
        self.write(|| {
            let old = *hold(&self.bounds);
            let first = up_to + 1;
            if first <= old.first {
                return Ok(());
            }
            self.set_bounds(Bounds { first, end: old.end.max(first), ..old })?;
            self.remove_entries(old.first..first.min(old.end))
        })
    }

    /// The entries of a range that are there, in order. At least one, and no more than `bytes_max` have room for.
    pub fn read(&self, range: Range<u64>, bytes_max: usize) -> Result<Vec<Vec<u8>>, Error> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let there = self.range();
        for index in range.start.max(there.start)..range.end.min(there.end) {
            let entry = match self.read_entry(index) {
                Ok(entry) => entry.bytes,
                // It was cut off meanwhile.
                Err(Error::Damaged { .. }) if !self.range().contains(&index) => break,
                Err(e) => return Err(e),
            };
            bytes += entry.len();
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    /// The record of a name, if there ever was one.
    pub fn record(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let key = record_key(name);
        let Some(value) = self.blocks.get(&key)? else { return Ok(None) };
        match unseal(&key, &value) {
            Some([]) => Ok(None),
            Some([1, record @ ..]) => Ok(Some(record.to_vec())),
            _ => Err(self.damaged(format!("the record `{name}`"))),
        }
    }

    /// Replaces the record of a name as a whole. It is durable once this has returned.
    pub fn set_record(&self, name: &str, record: &[u8]) -> Result<(), Error> {
        self.write(|| {
            self.put_record(name, record)?;
            self.sync()
        })
    }

    /// As [`RaftLog::set_record`], but it is durable only once anything else is: until then a power failure leaves the one
    /// before.
    pub fn note_record(&self, name: &str, record: &[u8]) -> Result<(), Error> {
        self.write(|| self.put_record(name, record))
    }

    /// The snapshot, if there is one.
    pub fn snapshot(&self) -> Result<Option<Vec<u8>>, Error> {
        let snapshot = hold(&self.snapshot);
        let Some(Snapshot { number, bytes }) = *snapshot else { return Ok(None) };
        let mut content = Vec::with_capacity(bytes as usize);
        for piece in 0..layout::snapshot_pieces(bytes as usize) {
            let key = snapshot_key(number, piece);
            let value = self.blocks.get(&key)?;
            let part = value.as_deref().and_then(|value| unseal(&key, value));
            content.extend_from_slice(part.ok_or_else(|| self.damaged("the snapshot".into()))?);
        }
        if content.len() as u64 != bytes {
            return Err(self.damaged("the snapshot".into()));
        }
        Ok(Some(content))
    }

    /// Replaces the snapshot as a whole. It is durable once this has returned.
    pub fn set_snapshot(&self, content: &[u8]) -> Result<(), Error> {
        if content.len() > SNAPSHOT_BYTES_MAX {
            return Err(Error::TooLarge { what: "a snapshot", bytes: content.len(), most: SNAPSHOT_BYTES_MAX });
        }
        let mut snapshot = hold(&self.snapshot);
        let old = *snapshot;
        let new = Snapshot { number: old.map_or(0, |old| old.number + 1), bytes: content.len() as u64 };
        // Beside the old one, and beside entries.
        self.check_usable()?;
        let written = (0..layout::snapshot_pieces(content.len())).zip(content.chunks(layout::SNAPSHOT_PIECE_BYTES));
        for (piece, part) in written {
            let key = snapshot_key(new.number, piece);
            let put = self.blocks.put(&key, &seal(&key, &[part]));
            put.inspect_err(|_| hold(&self.writing).failed = true)?;
        }
        self.write(|| {
            self.sync()?;
            self.put_record(SNAPSHOT, &[new.number.to_le_bytes(), new.bytes.to_le_bytes()].concat())?;
            self.sync()?;
            *snapshot = Some(new);
            for piece in old.into_iter().flat_map(|old| 0..layout::snapshot_pieces(old.bytes as usize)) {
                self.blocks.remove(&snapshot_key(new.number - 1, piece))?;
            }
            Ok(())
        })
    }

    /// Bytes on the disk, about.
    pub fn bytes_on_disk(&self) -> u64 {
        self.blocks.bytes_on_disk()
    }

    /// Finds out what is there, and makes it durable.
    fn recover(&self) -> Result<(), Error> {
        let old = *hold(&self.bounds);
        let mut durable = old.end;
        let mut end = old.first;
        // Entries that are right and no others' leftovers, in their order; a gap ends them.
        let mut whole = true;
        let mut loose = Vec::new();
        let mut from = entry_key(0, 0);
        while let Some(key) = self.blocks.first_from(&from)?.filter(|key| key.first() == from.first()) {
            let Some((index, _)) = layout::entry_of(&key) else { return Err(Error::Foreign(self.place.clone())) };
            let entry = match self.read_entry(index) {
                Ok(entry) => Some(entry),
                Err(Error::Damaged { .. }) => None,
                Err(e) => return Err(e),
            };
            // A leftover stands for nothing, whatever it says.
            let counts = |entry: &Piece| index < old.end || entry.generation == old.generation;
            match entry.filter(|entry| index >= old.first && counts(entry)) {
                Some(entry) => {
                    if entry.generation == old.generation {
                        durable = durable.max(entry.durable);
                    }
                    whole &= index == end;
                    if whole {
                        end = index + 1;
                    } else {
                        loose.push(index);
                    }
                }
                None => loose.push(index),
            }
            from = entry_key(index + 1, 0);
        }
        if end < durable {
            return Err(self.damaged(format!("entry {end}")));
        }
        self.recover_snapshot()?;
        for index in loose {
            self.remove_entries(index..index + 1)?;
        }
        self.set_bounds(Bounds { first: old.first, end, generation: old.generation + 1 })
    }

    fn recover_snapshot(&self) -> Result<(), Error> {
        let current = match self.record(SNAPSHOT)? {
            Some(record) => Some(layout::snapshot_of(&record).ok_or_else(|| self.damaged("the snapshot".into()))?),
            None => None,
        };
        let current = current.map(|(number, bytes)| Snapshot { number, bytes });
        let mut from = snapshot_key(0, 0);
        while let Some(key) = self.blocks.first_from(&from)?.filter(|key| key.first() == from.first()) {
            if current.is_none_or(|current| !key.starts_with(&snapshot_key(current.number, 0)[..9])) {
                self.blocks.remove(&key)?;
            }
            from = [key.as_slice(), &[0]].concat();
        }
        *hold(&self.snapshot) = current;
        Ok(())
    }

    /// Reads an entry, and checks that it is whole.
    fn read_entry(&self, index: u64) -> Result<Piece, Error> {
        let damaged = || self.damaged(format!("entry {index}"));
        let mut entry: Option<Piece> = None;
        for number in 0.. {
            let key = entry_key(index, number);
            let value = self.blocks.get(&key)?.ok_or_else(damaged)?;
            let piece = Piece::read(&key, &value).ok_or_else(damaged)?;
            let entry = match &mut entry {
                None => entry.insert(piece),
                Some(entry) if entry.belongs(&piece) => {
                    entry.bytes.extend_from_slice(&piece.bytes);
                    entry
                }
                Some(_) => return Err(damaged()),
            };
            match entry.bytes.len().cmp(&(entry.whole as usize)) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => break,
                std::cmp::Ordering::Greater => return Err(damaged()),
            }
        }
        entry.ok_or_else(damaged)
    }

    /// Removes what is there of entries. It does not matter when the disk gets to it.
    fn remove_entries(&self, range: Range<u64>) -> Result<(), Error> {
        for index in range {
            // Not by what the first piece says: that one may be gone.
            let mut from = entry_key(index, 0);
            while let Some(key) =
                self.blocks.first_from(&from)?.filter(|key| key.starts_with(&entry_key(index, 0)[..9]))
            {
                self.blocks.remove(&key)?;
                from = [key.as_slice(), &[0]].concat();
            }
        }
        Ok(())
    }

    fn set_bounds(&self, bounds: Bounds) -> Result<(), Error> {
        self.blocks.put(layout::BOUNDS_KEY, &bounds.write())?;
        self.sync()?;
        *hold(&self.bounds) = bounds;
        Ok(())
    }

    fn put_record(&self, name: &str, record: &[u8]) -> Result<(), Error> {
        if record.len() > RECORD_BYTES_MAX {
            return Err(Error::TooLarge { what: "a record", bytes: record.len(), most: RECORD_BYTES_MAX });
        }
        let key = record_key(name);
        if self.blocks.get(&key)?.is_none() {
            // A new value may be torn, one that is replaced is not; and this one is too small to be.
            self.blocks.put(&key, &seal(&key, &[]))?;
            self.sync()?;
        }
        Ok(self.blocks.put(&key, &seal(&key, &[&[1], record]))?)
    }

    /// Writes in turn. Where that fails in the middle nothing is written any more.
    fn write(&self, f: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let mut writing = hold(&self.writing);
        if writing.failed {
            return Err(Error::Failed(self.place.clone()));
        }
        let done = f();
        writing.failed = matches!(done, Err(Error::Blocks(_) | Error::Failed(_)));
        done
    }

    fn check_usable(&self) -> Result<(), Error> {
        match hold(&self.writing).failed {
            true => Err(Error::Failed(self.place.clone())),
            false => Ok(()),
        }
    }

    /// Syncs what was written since the log was opened. Where the disk was opened anew meanwhile some of it may be gone.
    fn sync(&self) -> Result<(), Error> {
        self.blocks.sync()?;
        match self.blocks.reopened() == self.reopened {
            true => Ok(()),
            false => Err(Error::Failed(self.place.clone())),
        }
    }

    /// The error for a log whose contents, each right by itself, cannot be together.
    pub fn contradiction(&self, what: &str) -> Error {
        self.damaged(what.into())
    }

    fn damaged(&self, what: String) -> Error {
        Error::Damaged { place: self.place.clone(), what }
    }
}

/// Reads the format; `None` where there is no log yet.
fn read_format(blocks: &dyn Blocks, place: &Path) -> Result<Option<u32>, Error> {
    let damaged = |what: &str| Error::Damaged { place: place.into(), what: what.into() };
    let Some(value) = blocks.get(layout::FORMAT_KEY)? else {
        // Bounds are written first, and nothing else before the format.
        let first = blocks.first_from(&[])?;
        return match first.as_deref() {
            None | Some(layout::BOUNDS_KEY) if blocks.first_from(&[layout::BOUNDS_KEY, &[0]].concat())?.is_none() => {
                Ok(None)
            }
            Some(layout::BOUNDS_KEY) => Err(damaged("its format")),
            _ => Err(Error::Foreign(place.into())),
        };
    };
    let format = unseal(layout::FORMAT_KEY, &value).and_then(|format| format.try_into().ok()).map(u32::from_le_bytes);
    match format {
        Some(FORMAT) => Ok(Some(FORMAT)),
        Some(found) => Err(Error::OtherFormat { place: place.into(), found }),
        None => Err(damaged("its format")),
    }
}

fn create(blocks: &dyn Blocks) -> Result<(), Error> {
    blocks.put(layout::BOUNDS_KEY, &Bounds::default().write())?;
    blocks.sync()?;
    blocks.put(layout::FORMAT_KEY, &seal(layout::FORMAT_KEY, &[&FORMAT.to_le_bytes()]))?;
    Ok(blocks.sync()?)
}
