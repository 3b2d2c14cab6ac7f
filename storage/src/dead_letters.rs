//! Messages that nobody handled, kept with the reason: a bounded queue that the oldest leave.
//!
//! In sled 0.34, whose edges this module keeps to itself:
//!
//! - Values over 64 KiB leak space, so a letter has a limit of its own ([`LETTER_BYTES_MAX`]).
//! - Opening fails while an earlier handle is still closing, so it is tried again.
//! - A write reaches the disk within half a second and survives a killed process at once, but `flush` is no
//!   fsync on Linux: a power cut may cost the last letters. The queue itself stays readable.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ringhold_kernels::message::{HEADER_BYTES, Header, Reason};

use crate::blocks::{hold, open_patiently};

/// The largest letter: its payload, the device's name and 60 bytes.
pub const LETTER_BYTES_MAX: usize = 64 * 1024;

/// A message that nobody handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub header: Header,
    pub payload: Vec<u8>,
    pub reason: Reason,
    /// Wall time when it was given up, microseconds since the Unix epoch.
    pub at_us: u64,
    /// The device that gave it up; empty if none had it.
    pub device: String,
}

/// What a queue of dead letters has seen since the data folder was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Letters appended, by reason; those that have left the queue included.
    pub by_reason: BTreeMap<Reason, u64>,
    /// Letters that left the queue for newer ones.
    pub evicted: u64,
}

impl Totals {
    pub fn appended(&self) -> u64 {
        self.by_reason.values().sum()
    }
}

/// A bounded queue of dead letters. Numbers grow by one a letter and are never used again.
pub trait DeadLetters: Send + Sync {
    /// Keeps the letters, the oldest first, and lets as many of the oldest kept go as are too many.
    fn append(&self, letters: &[DeadLetter]) -> Result<(), Error>;

    /// How many are kept now.
    fn count(&self) -> u64;

    /// The newest letters with their numbers, the newest first.
    fn list(&self, limit: usize) -> Result<Vec<(u64, DeadLetter)>, Error>;

    fn totals(&self) -> Totals;

    /// Hands everything to the operating system. Enough against a killed process; no fsync.
    fn flush(&self) -> Result<(), Error>;
}

/// What can go wrong with the queue.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the dead letters in {} could not be {doing}: {source}", path.display())]
    Store { doing: &'static str, path: PathBuf, source: sled::Error },
    #[error("the dead letters in {} hold an entry that is none: {what}; move the folder away to go on without them", path.display())]
    Damaged { path: PathBuf, what: String },
    #[error("a dead letter of {0} bytes is over the limit of {LETTER_BYTES_MAX}")]
    TooLarge(usize),
}

/// Where the queue stands: what both implementations count in the same way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Position {
    /// The number of the oldest letter kept.
    first: u64,
    /// The number of the next letter.
    next: u64,
    totals: Totals,
}

impl Position {
    /// Counts the letters in, and the oldest out: the new position, and which of the letters stay.
    fn append(&self, letters: &[DeadLetter], kept_max: u64) -> Result<(Position, usize), Error> {
        let mut after = self.clone();
        for letter in letters {
            let bytes = letter.payload.len() + letter.device.len() + FIXED_BYTES;
            if bytes > LETTER_BYTES_MAX {
                return Err(Error::TooLarge(bytes));
            }
            *after.totals.by_reason.entry(letter.reason).or_default() += 1;
        }
        after.next += letters.len() as u64;
        after.trim(kept_max);
        let skipped = after.first.saturating_sub(self.next) as usize;
        Ok((after, skipped))
    }

    fn trim(&mut self, kept_max: u64) {
        let first = self.first.max(self.next.saturating_sub(kept_max));
        self.totals.evicted += first - self.first;
        self.first = first;
    }
}

/// The queue in memory: for simulation, and for nodes without a data folder.
#[derive(Debug)]
pub struct InMemory {
    kept_max: u64,
    inner: Mutex<(Position, VecDeque<DeadLetter>)>,
}

impl InMemory {
    pub fn new(kept_max: u64) -> InMemory {
        InMemory { kept_max, inner: Mutex::default() }
    }
}

impl DeadLetters for InMemory {
    fn append(&self, letters: &[DeadLetter]) -> Result<(), Error> {
        let (position, kept) = &mut *hold(&self.inner);
        let (after, skipped) = position.append(letters, self.kept_max)?;
        kept.extend(letters[skipped..].iter().cloned());
        kept.drain(..kept.len() - (after.next - after.first) as usize);
        *position = after;
        Ok(())
    }

    fn count(&self) -> u64 {
        hold(&self.inner).1.len() as u64
    }

    fn list(&self, limit: usize) -> Result<Vec<(u64, DeadLetter)>, Error> {
        let (position, kept) = &*hold(&self.inner);
        Ok((position.first..position.next).rev().zip(kept.iter().rev().cloned()).take(limit).collect())
    }

    fn totals(&self) -> Totals {
        hold(&self.inner).0.totals.clone()
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// The queue in a sled folder.
pub struct Sled {
    path: PathBuf,
    kept_max: u64,
    db: sled::Db,
    position: Mutex<Position>,
}

/// Letters are under their numbers, big-endian; everything else is under this key.
const POSITION_KEY: &[u8] = b"queue position";
const CACHE_BYTES: u64 = 16 << 20;

impl Sled {
    /// Opens the queue, making it first where there is none. Where it holds more than `kept_max`, the oldest go.
    pub fn open(path: &Path, kept_max: u64) -> Result<Sled, Error> {
        let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES);
        let db = open_patiently(&config).map_err(store("opened", path))?;
        let position = match db.get(POSITION_KEY).map_err(store("read", path))? {
            Some(bytes) => Position::from_bytes(&bytes).ok_or_else(|| damaged(path, "its position".into()))?,
            None => Position::default(),
        };
        let queue = Sled { path: path.into(), kept_max, db, position: Mutex::default() };
        let mut trimmed = position.clone();
        trimmed.trim(kept_max);
        queue.write(&position, &trimmed, &[])?;
        *hold(&queue.position) = trimmed;
        Ok(queue)
    }

    /// One atomic batch from one position to the next: the letters that are new, the oldest out.
    fn write(&self, before: &Position, after: &Position, new: &[DeadLetter]) -> Result<(), Error> {
        let mut batch = sled::Batch::default();
        for number in before.first..after.first.min(before.next) {
            batch.remove(&number.to_be_bytes());
        }
        for (number, letter) in (after.next - new.len() as u64..).zip(new) {
            batch.insert(&number.to_be_bytes(), letter.to_bytes());
        }
        batch.insert(POSITION_KEY, after.to_bytes());
        self.db.apply_batch(batch).map_err(store("written", &self.path))
    }
}

impl DeadLetters for Sled {
    fn append(&self, letters: &[DeadLetter]) -> Result<(), Error> {
        let mut position = hold(&self.position);
        let (after, skipped) = position.append(letters, self.kept_max)?;
        self.write(&position, &after, &letters[skipped..])?;
        *position = after;
        Ok(())
    }

    fn count(&self) -> u64 {
        let position = hold(&self.position);
        position.next - position.first
    }

    fn list(&self, limit: usize) -> Result<Vec<(u64, DeadLetter)>, Error> {
        // Held while reading, so that none leaves between two reads.
        let position = hold(&self.position);
        let read = |number: u64| {
            let bytes = self.db.get(number.to_be_bytes()).map_err(store("read", &self.path))?;
            let letter = bytes.as_deref().and_then(DeadLetter::from_bytes);
            Ok((number, letter.ok_or_else(|| damaged(&self.path, format!("number {number}")))?))
        };
        (position.first..position.next).rev().take(limit).map(read).collect()
    }

    fn totals(&self) -> Totals {
        hold(&self.position).totals.clone()
    }

    fn flush(&self) -> Result<(), Error> {
        self.db.flush().map(drop).map_err(store("flushed", &self.path))
    }
}

fn store(doing: &'static str, path: &Path) -> impl FnOnce(sled::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Store { doing, path, source }
}

fn damaged(path: &Path, what: String) -> Error {
    Error::Damaged { path: path.into(), what }
}

/// at_us, header, reason, length of the device's name; the name and the payload follow.
const FIXED_BYTES: usize = 8 + HEADER_BYTES + 1 + 4;

impl DeadLetter {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.device.len() + self.payload.len());
        bytes.extend(self.at_us.to_le_bytes());
        bytes.extend(self.header.as_bytes());
        bytes.push(self.reason as u8);
        bytes.extend((self.device.len() as u32).to_le_bytes());
        bytes.extend(self.device.as_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<DeadLetter> {
        let (at_us, bytes) = bytes.split_first_chunk()?;
        let (header, bytes) = bytes.split_first_chunk()?;
        let (reason, bytes) = bytes.split_first()?;
        let (device_bytes, bytes) = bytes.split_first_chunk()?;
        let (device, payload) = bytes.split_at_checked(u32::from_le_bytes(*device_bytes) as usize)?;
        Some(DeadLetter {
            header: Header::from_bytes(header),
            payload: payload.to_vec(),
            reason: Reason::from_u8(*reason)?,
            at_us: u64::from_le_bytes(*at_us),
            device: String::from_utf8(device.to_vec()).ok()?,
        })
    }
}

impl Position {
    fn to_bytes(&self) -> Vec<u8> {
        let counts = self.totals.by_reason.iter().flat_map(|(reason, count)| [*reason as u64, *count]);
        [self.first, self.next, self.totals.evicted].into_iter().chain(counts).flat_map(u64::to_le_bytes).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Position> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let ([first, next, evicted], counts) = words.split_first_chunk()?;
        let (pairs, []) = counts.as_chunks::<2>() else { return None };
        let count = |[reason, count]: &[u64; 2]| Some((Reason::from_u8(u8::try_from(*reason).ok()?)?, *count));
        let by_reason = pairs.iter().map(count).collect::<Option<_>>()?;
        (first <= next).then_some(Position {
            first: *first,
            next: *next,
            totals: Totals { by_reason, evicted: *evicted },
        })
    }
}

#[cfg(test)]
mod tests {
    use ringhold_kernels::hlc::Hlc;
    use ringhold_kernels::id::{ActorId, Key, TypeId};
    use ringhold_kernels::message::Kind;

    use super::*;

    fn letter(n: u64, reason: Reason) -> DeadLetter {
        let payload = vec![n as u8; n as usize % 50];
        let to = ActorId::new(TypeId(1), Key(n));
        let header = Header::new(Kind::Tell, to, ActorId::default(), payload.len(), Hlc(n));
        DeadLetter { header, payload, reason, at_us: 1_000 + n, device: format!("cpu{}", n % 3) }
    }

    fn letters(numbers: std::ops::Range<u64>) -> Vec<DeadLetter> {
        numbers.map(|n| letter(n, if n % 2 == 0 { Reason::NoActor } else { Reason::Rejected })).collect()
    }

    fn check(queue: &dyn DeadLetters, appended: u64, kept: u64) {
        let newest: Vec<u64> = (appended - kept..appended).rev().collect();
        let listed = queue.list(1_000).unwrap();
        assert_eq!(listed.iter().map(|(number, _)| *number).collect::<Vec<_>>(), newest);
        assert!(listed.iter().all(|(number, found)| *found == letters(*number..number + 1)[0]));
        assert_eq!(queue.count(), kept);
        let totals = queue.totals();
        assert_eq!((totals.appended(), totals.evicted), (appended, appended - kept));
        assert_eq!(totals.by_reason.get(&Reason::NoActor).copied().unwrap_or(0), appended.div_ceil(2));
    }

    fn keeps_the_newest(queue: &dyn DeadLetters) {
        check(queue, 0, 0);
        queue.append(&letters(0..3)).unwrap();
        check(queue, 3, 3);
        queue.append(&letters(3..12)).unwrap();
        check(queue, 12, 10);
        queue.append(&[]).unwrap();
        // More at once than are kept at all: those in the middle are counted and never stored.
        queue.append(&letters(12..55)).unwrap();
        check(queue, 55, 10);
        assert_eq!(queue.list(2).unwrap().len(), 2);
    }

    #[test]
    fn the_newest_are_kept_and_the_rest_counted() {
        keeps_the_newest(&InMemory::new(10));
        let scratch = tempfile::tempdir().unwrap();
        let queue = Sled::open(&scratch.path().join("dead-letters"), 10).unwrap();
        keeps_the_newest(&queue);
        assert_eq!(queue.db.len(), 11, "ten letters and the position");
    }

    #[test]
    fn letters_and_counts_survive_a_reopening_and_a_smaller_bound() {
        let scratch = tempfile::tempdir().unwrap();
        for (bound, appended, kept) in [(10, 4, 4), (10, 15, 10), (5, 15, 5), (20, 20, 10)] {
            let queue = Sled::open(scratch.path(), bound).unwrap();
            let already = queue.totals().appended();
            queue.append(&letters(already..appended)).unwrap();
            check(&queue, appended, kept);
        }
    }

    #[test]
    fn a_letter_over_the_limit_is_refused_whole() {
        let queue = InMemory::new(10);
        let mut big = letter(1, Reason::TooLarge);
        big.payload = vec![0; LETTER_BYTES_MAX];
        assert!(matches!(queue.append(&[letter(0, Reason::NoActor), big]), Err(Error::TooLarge(_))));
        check(&queue, 0, 0);
    }

    #[test]
    fn a_damaged_entry_is_reported_not_skipped() {
        let scratch = tempfile::tempdir().unwrap();
        let queue = Sled::open(scratch.path(), 10).unwrap();
        queue.append(&letters(0..2)).unwrap();
        queue.db.insert(1u64.to_be_bytes(), b"short").unwrap();
        let text = queue.list(10).unwrap_err().to_string();
        assert!(text.contains("number 1"), "{text}");
        queue.db.insert(POSITION_KEY, b"short").unwrap();
        drop(queue);
        assert!(matches!(Sled::open(scratch.path(), 10), Err(Error::Damaged { .. })));
    }
}
