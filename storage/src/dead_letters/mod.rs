//! Messages that nobody handled, kept with the reason: a bounded queue that the oldest leave.
//!
//! A letter leaves it in one of three ways: newer ones need its place, it has been sent again, or somebody has dropped it. All
//! are counted. [`Store`] keeps the queue in a folder; [`InMemory`] is for simulation, and for nodes without one.

mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ringhold_kernels::id::TypeId;
use ringhold_kernels::message::{HEADER_BYTES, Header, Reason};

use crate::blocks::hold;

pub use store::Store;

/// The largest letter: its payload, the device's name, its history and 60 bytes.
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
    /// The device hosts that it ended, the first one first.
    pub history: Vec<Strike>,
}

/// A device host that ended with a message in hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strike {
    /// Wall time, microseconds since the Unix epoch.
    pub at_us: u64,
    /// Which of its device's hosts, counted from the node's start.
    pub term: u64,
    /// How it ended, for people.
    pub how: String,
}

/// Which letters are meant: those that all of it is true of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these numbers.
    pub numbers: Option<BTreeSet<u64>>,
    /// Only numbers up to this one: what has come since a look at the queue is left alone.
    pub newest: Option<u64>,
    /// Only messages to actors of this type.
    pub to_type: Option<TypeId>,
    pub reason: Option<Reason>,
}

impl Filter {
    fn takes_number(&self, number: u64) -> bool {
        self.newest.is_none_or(|newest| number <= newest)
            && self.numbers.as_ref().is_none_or(|numbers| numbers.contains(&number))
    }

    fn takes(&self, letter: &DeadLetter) -> bool {
        self.to_type.is_none_or(|to_type| letter.header.to().type_id == to_type)
            && self.reason.is_none_or(|reason| letter.reason == reason)
    }

    /// Whether it takes every letter up to its newest number, so that none has to be read for it.
    fn takes_any(&self) -> bool {
        self.to_type.is_none() && self.reason.is_none()
    }
}

/// Letters that a filter takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The numbers of all that it takes, the newest first.
    pub numbers: Vec<u64>,
    /// The newest of them with their numbers, the newest first.
    pub letters: Vec<(u64, DeadLetter)>,
}

/// Why letters are taken out of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// They have been sent again.
    Retried,
    /// Nobody wants them any more.
    Dropped,
}

/// What a queue of dead letters has seen since the data folder was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Letters appended, by reason; those that have left the queue included.
    pub by_reason: BTreeMap<Reason, u64>,
    /// Letters that left the queue for newer ones.
    pub evicted: u64,
    pub retried: u64,
    pub dropped: u64,
    /// Letters that could not be kept, and are in none of the other counts.
    pub lost: u64,
}

impl Totals {
    pub fn appended(&self) -> u64 {
        self.by_reason.values().sum()
    }
}

/// A bounded queue of dead letters. Numbers grow by one a letter and are never used again.
pub trait DeadLetters: Send + Sync {
    /// Keeps the letters, the oldest first, and lets as many of the oldest kept go as are too many. Does not wait for a disk.
    fn append(&self, letters: &[DeadLetter]) -> Result<(), Error>;

    /// How many are kept now.
    fn count(&self) -> u64;

    /// Finds those that the filter takes, and reads the newest of them, so many. May wait for a disk.
    fn list(&self, filter: &Filter, limit: usize) -> Result<Listed, Error>;

    /// Takes letters out of the queue. Returns how many of them were still there.
    fn remove(&self, numbers: &BTreeSet<u64>, why: Removal) -> u64;

    fn totals(&self) -> Totals;

    /// Why the disk does not take letters now, if it does not: they wait for it in memory.
    fn failed(&self) -> Option<String> {
        None
    }

    /// Hands everything to the operating system, and waits for that. Enough against a killed process; no fsync.
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
    #[error(
        "the disk of {} takes no dead letters ({why}), and no more of them fit into memory: {lost} could not be kept. Free some space",
        path.display()
    )]
    NoRoom { path: PathBuf, why: String, lost: u64 },
    #[error("{waiting} dead letters are not on the disk of {}: {why}", path.display())]
    NotFlushed { path: PathBuf, why: String, waiting: u64 },
}

/// Where the queue stands: what both implementations count in the same way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Position {
    /// Those kept.
    numbers: BTreeSet<u64>,
    /// The number of the next letter.
    next: u64,
    totals: Totals,
}

impl Position {
    /// Counts a letter in. Returns its number.
    fn append(&mut self, letter: &DeadLetter) -> u64 {
        *self.totals.by_reason.entry(letter.reason).or_default() += 1;
        self.numbers.insert(self.next);
        self.next += 1;
        self.next - 1
    }

    /// Counts the oldest out that are too many. Returns their numbers.
    fn trim(&mut self, kept_max: u64) -> Vec<u64> {
        let out = (self.numbers.len() as u64).saturating_sub(kept_max);
        self.totals.evicted += out;
        (0..out).filter_map(|_| self.numbers.pop_first()).collect()
    }

    /// Counts those out that are there. Returns their numbers.
    fn remove(&mut self, numbers: &BTreeSet<u64>, why: Removal) -> Vec<u64> {
        let out: Vec<u64> = numbers.iter().copied().filter(|number| self.numbers.remove(number)).collect();
        *match why {
            Removal::Retried => &mut self.totals.retried,
            Removal::Dropped => &mut self.totals.dropped,
        } += out.len() as u64;
        out
    }
}

/// Refuses all of them where one is too large.
fn check(letters: &[DeadLetter]) -> Result<(), Error> {
    match letters.iter().map(DeadLetter::bytes).find(|bytes| *bytes > LETTER_BYTES_MAX) {
        Some(bytes) => Err(Error::TooLarge(bytes)),
        None => Ok(()),
    }
}

/// The queue in memory: for simulation, and for nodes without a data folder.
#[derive(Debug)]
pub struct InMemory {
    kept_max: u64,
    inner: Mutex<(Position, BTreeMap<u64, DeadLetter>)>,
}

impl InMemory {
    pub fn new(kept_max: u64) -> InMemory {
        InMemory { kept_max, inner: Mutex::default() }
    }
}

impl DeadLetters for InMemory {
    fn append(&self, letters: &[DeadLetter]) -> Result<(), Error> {
        check(letters)?;
        let (position, kept) = &mut *hold(&self.inner);
        for letter in letters {
            kept.insert(position.append(letter), letter.clone());
            position.trim(self.kept_max).iter().for_each(|number| drop(kept.remove(number)));
        }
        Ok(())
    }

    fn count(&self) -> u64 {
        hold(&self.inner).1.len() as u64
    }

    fn list(&self, filter: &Filter, limit: usize) -> Result<Listed, Error> {
        let (_, kept) = &*hold(&self.inner);
        let mut listed = Listed::default();
        for (number, letter) in kept.iter().rev().filter(|(number, _)| filter.takes_number(**number)) {
            if filter.takes(letter) {
                listed.numbers.push(*number);
                if listed.letters.len() < limit {
                    listed.letters.push((*number, letter.clone()));
                }
            }
        }
        Ok(listed)
    }

    fn remove(&self, numbers: &BTreeSet<u64>, why: Removal) -> u64 {
        let (position, kept) = &mut *hold(&self.inner);
        let out = position.remove(numbers, why);
        out.iter().for_each(|number| drop(kept.remove(number)));
        out.len() as u64
    }

    fn totals(&self) -> Totals {
        hold(&self.inner).0.totals.clone()
    }

    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// at_us, header, reason, length of the device's name; the name, the history where there is one, and the payload follow.
const FIXED_BYTES: usize = 8 + HEADER_BYTES + 1 + 4;
/// Beside the reason: a history follows. Releases that kept none never set it.
const HAS_HISTORY: u8 = 0x80;
/// Of a strike: at_us, term, length of how.
const STRIKE_BYTES: usize = 8 + 8 + 4;

impl DeadLetter {
    /// As it is kept.
    fn bytes(&self) -> usize {
        let strikes: usize = self.history.iter().map(|strike| STRIKE_BYTES + strike.how.len()).sum();
        let history = if self.history.is_empty() { 0 } else { 1 + strikes };
        FIXED_BYTES + self.device.len() + history + self.payload.len()
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.bytes());
        bytes.extend(self.at_us.to_le_bytes());
        bytes.extend(self.header.as_bytes());
        bytes.push(self.reason as u8 | if self.history.is_empty() { 0 } else { HAS_HISTORY });
        bytes.extend((self.device.len() as u32).to_le_bytes());
        bytes.extend(self.device.as_bytes());
        if !self.history.is_empty() {
            debug_assert!(self.history.len() <= usize::from(u8::MAX));
            bytes.push(self.history.len() as u8);
        }
        for strike in &self.history {
            bytes.extend(strike.at_us.to_le_bytes());
            bytes.extend(strike.term.to_le_bytes());
            bytes.extend((strike.how.len() as u32).to_le_bytes());
            bytes.extend(strike.how.as_bytes());
        }
        bytes.extend(&self.payload);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<DeadLetter> {
        let (at_us, bytes) = bytes.split_first_chunk()?;
        let (header, bytes) = bytes.split_first_chunk()?;
        let (reason, bytes) = bytes.split_first()?;
        let (device, mut bytes) = split_text(bytes)?;
        let mut history = Vec::new();
        if reason & HAS_HISTORY != 0 {
            let (count, rest) = bytes.split_first()?;
            bytes = rest;
            for _ in 0..*count {
                let (at_us, rest) = bytes.split_first_chunk()?;
                let (term, rest) = rest.split_first_chunk()?;
                let (how, rest) = split_text(rest)?;
                bytes = rest;
                history.push(Strike { at_us: u64::from_le_bytes(*at_us), term: u64::from_le_bytes(*term), how });
            }
        }
        Some(DeadLetter {
            header: Header::from_bytes(header),
            payload: bytes.to_vec(),
            reason: Reason::from_u8(*reason & !HAS_HISTORY)?,
            at_us: u64::from_le_bytes(*at_us),
            device,
            history,
        })
    }
}

/// A text behind its length, and what follows.
fn split_text(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (len, bytes) = bytes.split_first_chunk()?;
    let (text, bytes) = bytes.split_at_checked(u32::from_le_bytes(*len) as usize)?;
    Some((String::from_utf8(text.to_vec()).ok()?, bytes))
}

fn damaged(path: &Path, what: String) -> Error {
    Error::Damaged { path: path.into(), what }
}

#[cfg(test)]
mod tests;
