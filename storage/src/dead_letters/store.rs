//! The queue in a folder, in sled 0.34, whose edges this module keeps to itself:
//!
//! - Values over 64 KiB leak space, so a letter has a limit of its own.
//! - Opening fails while an earlier handle is still closing, so it is tried again.
//! - A write reaches the operating system with `flush`, and survives a killed process from then on; that is no fsync on Linux,
//!   so a power cut may cost the last letters. The queue itself stays readable.
//! - Once a write has failed, sled does nothing any more: it is opened anew.
//!
//! A thread writes. Whoever appends leaves letters in memory and goes on; they stay there until they are flushed, so that a
//! disk that is slow or full holds nobody up, and costs no letter as long as memory allows.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringhold_kernels::message::Reason;

use super::{DeadLetter, DeadLetters, Error, Filter, Listed, Position, Removal, Totals, check, damaged};
use crate::blocks::{hold, open_patiently};

/// The queue in a folder. See the module's documentation.
pub struct Store {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

struct Shared {
    path: PathBuf,
    kept_max: u64,
    waiting_bytes_max: usize,
    state: Mutex<State>,
    /// There is something to write, or the store closes.
    wake: Condvar,
    /// Something has been written, or could not be.
    written: Condvar,
    /// `None` from a failure on, until it is opened anew.
    db: Mutex<Option<sled::Db>>,
}

#[derive(Default)]
struct State {
    position: Position,
    /// What is not known to be flushed.
    waiting: BTreeMap<u64, DeadLetter>,
    waiting_bytes: usize,
    /// Numbers that may be on the disk still, and are kept no more.
    removed: BTreeSet<u64>,
    /// The position is not the one on the disk.
    moved: bool,
    failed: Option<String>,
    closing: bool,
}

/// Letters are under their numbers, big-endian; everything else is under these keys, which are longer.
const POSITION_KEY: &[u8] = b"queue position";
const TOTALS_KEY: &[u8] = b"queue totals";
const CACHE_BYTES: u64 = 16 << 20;
/// What waits in memory for a disk that takes nothing, at most.
const WAITING_BYTES_MAX: usize = 64 << 20;
/// In one go.
const BATCH_LETTERS: usize = 4_096;
/// A disk that has failed is tried again so often.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long a flush waits for the disk.
const FLUSH_LIMIT: Duration = Duration::from_secs(10);

impl Store {
    /// Opens the queue, making it first where there is none. Where it holds more than `kept_max`, the oldest go.
    pub fn open(path: &Path, kept_max: u64) -> Result<Store, Error> {
        Store::open_sized(path, kept_max, WAITING_BYTES_MAX)
    }

    pub(super) fn open_sized(path: &Path, kept_max: u64, waiting_bytes_max: usize) -> Result<Store, Error> {
        let db = open(path)?;
        let mut position = read_position(&db, path)?;
        let out = position.trim(kept_max);
        let state = State { moved: !out.is_empty(), removed: out.into_iter().collect(), position, ..State::default() };
        let shared = Arc::new(Shared {
            path: path.into(),
            kept_max,
            waiting_bytes_max,
            state: Mutex::new(state),
            wake: Condvar::new(),
            written: Condvar::new(),
            db: Mutex::new(Some(db)),
        });
        let theirs = shared.clone();
        let writer = std::thread::Builder::new().name("dead letters".into()).spawn(move || theirs.write_on());
        let source = |e: std::io::Error| Error::Store { doing: "opened", path: path.into(), source: e.into() };
        Ok(Store { shared, writer: Some(writer.map_err(source)?) })
    }
}

impl Drop for Store {
    /// Writes what waits, if the disk takes it.
    fn drop(&mut self) {
        hold(&self.shared.state).closing = true;
        self.shared.wake.notify_all();
        if let Some(writer) = self.writer.take() {
            // A writer that has panicked has said so.
            let _ = writer.join();
        }
    }
}

impl Shared {
    /// Writes what there is to write until the store closes.
    fn write_on(&self) {
        let mut not_before = None;
        loop {
            let closing = self.wait(not_before);
            let more = self.write();
            if closing && !matches!(more, Ok(true)) {
                return;
            }
            not_before = more.is_err().then(|| Instant::now() + RETRY_EVERY);
        }
    }

    /// Waits until there is something to write and the disk may be tried. True once the store closes.
    fn wait(&self, not_before: Option<Instant>) -> bool {
        let mut state = hold(&self.state);
        loop {
            let pause = not_before.map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
            if state.closing || (state.moved && pause.is_zero()) {
                return state.closing;
            }
            state = match state.moved {
                true => self.wake.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner).0,
                false => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Writes a batch, and says whether there is more. What went wrong is in the state, too.
    fn write(&self) -> Result<bool, ()> {
        let (position, letters, removed) = {
            let state = hold(&self.state);
            if !state.moved {
                return Ok(false);
            }
            let letters: Vec<_> = state.waiting.iter().take(BATCH_LETTERS).map(|(n, l)| (*n, l.to_bytes())).collect();
            (state.position.clone_counts(), letters, state.removed.clone())
        };
        let mut batch = sled::Batch::default();
        for number in &removed {
            batch.remove(&number.to_be_bytes());
        }
        for (number, bytes) in &letters {
            batch.insert(&number.to_be_bytes(), bytes.as_slice());
        }
        batch.insert(POSITION_KEY, position.to_bytes());
        batch.insert(TOTALS_KEY, position.more_to_bytes());
        let done = self.with_db(|db| db.apply_batch(batch).and_then(|()| db.flush()).map(drop), "written");
        let mut state = hold(&self.state);
        let more = match done {
            Ok(()) => {
                for (number, _) in &letters {
                    if let Some(letter) = state.waiting.remove(number) {
                        state.waiting_bytes -= letter.bytes();
                    }
                }
                // What left the queue while it was being written is to be removed with the next batch.
                state.removed.retain(|number| !removed.contains(number));
                state.moved = !state.waiting.is_empty()
                    || !state.removed.is_empty()
                    || (state.position.next, &state.position.totals) != (position.next, &position.totals);
                state.failed = None;
                Ok(state.moved)
            }
            Err(e) => {
                state.failed = Some(e.to_string());
                Err(())
            }
        };
        drop(state);
        self.written.notify_all();
        more
    }

    /// Does something with the store, opened anew if it has failed before.
    fn with_db<T>(
        &self,
        what: impl FnOnce(&sled::Db) -> Result<T, sled::Error>,
        doing: &'static str,
    ) -> Result<T, Error> {
        let mut db = hold(&self.db);
        if db.is_none() {
            *db = Some(open(&self.path)?);
        }
        let done = match &*db {
            Some(db) => what(db),
            None => return Err(damaged(&self.path, "it closed as soon as it was open".into())),
        };
        if done.is_err() {
            *db = None;
        }
        done.map_err(store(doing, &self.path))
    }
}

impl DeadLetters for Store {
    fn append(&self, letters: &[DeadLetter]) -> Result<(), Error> {
        check(letters)?;
        let shared = &*self.shared;
        let mut state = hold(&shared.state);
        let mut lost = 0;
        for letter in letters {
            // They wait so long only where the disk does not take them.
            if state.waiting_bytes + letter.bytes() > shared.waiting_bytes_max {
                lost += 1;
                continue;
            }
            let number = state.position.append(letter);
            state.waiting_bytes += letter.bytes();
            state.waiting.insert(number, letter.clone());
            for out in state.position.trim(shared.kept_max) {
                state.let_go(out);
            }
        }
        state.position.totals.lost += lost;
        state.moved = true;
        let why = state.failed.clone();
        drop(state);
        shared.wake.notify_one();
        if lost == 0 {
            return Ok(());
        }
        let why = why.unwrap_or_else(|| "it is slower than they come".into());
        Err(Error::NoRoom { path: shared.path.clone(), why, lost })
    }

    fn count(&self) -> u64 {
        hold(&self.shared.state).position.numbers.len() as u64
    }

    fn list(&self, filter: &Filter, limit: usize) -> Result<Listed, Error> {
        let shared = &*self.shared;
        let (numbers, waiting): (Vec<u64>, BTreeMap<u64, DeadLetter>) = {
            let state = hold(&shared.state);
            let numbers = state.position.numbers.iter().rev().copied().filter(|number| filter.takes_number(*number));
            (numbers.collect(), state.waiting.clone())
        };
        let mut listed = Listed::default();
        for number in numbers {
            let full = listed.letters.len() >= limit;
            if full && filter.takes_any() {
                listed.numbers.push(number);
                continue;
            }
            let letter = match waiting.get(&number) {
                Some(letter) => letter.clone(),
                None => match shared.with_db(|db| db.get(number.to_be_bytes()), "read")? {
                    Some(bytes) => DeadLetter::from_bytes(&bytes)
                        .ok_or_else(|| damaged(&shared.path, format!("number {number}")))?,
                    // It has left the queue since.
                    None if !hold(&shared.state).position.numbers.contains(&number) => continue,
                    None => return Err(damaged(&shared.path, format!("number {number} is missing"))),
                },
            };
            if filter.takes(&letter) {
                listed.numbers.push(number);
                if !full {
                    listed.letters.push((number, letter));
                }
            }
        }
        Ok(listed)
    }

    fn remove(&self, numbers: &BTreeSet<u64>, why: Removal) -> u64 {
        let mut state = hold(&self.shared.state);
        let out = state.position.remove(numbers, why);
        out.iter().for_each(|number| state.let_go(*number));
        state.moved |= !out.is_empty();
        drop(state);
        self.shared.wake.notify_one();
        out.len() as u64
    }

    fn totals(&self) -> Totals {
        hold(&self.shared.state).position.totals.clone()
    }

    fn failed(&self) -> Option<String> {
        hold(&self.shared.state).failed.clone()
    }

    fn flush(&self) -> Result<(), Error> {
        let shared = &*self.shared;
        let until = Instant::now() + FLUSH_LIMIT;
        let mut state = hold(&shared.state);
        while state.moved && state.failed.is_none() && Instant::now() < until {
            let left = until.saturating_duration_since(Instant::now());
            state = shared.written.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        if !state.moved {
            return Ok(());
        }
        let why = state.failed.clone().unwrap_or_else(|| "it does not answer".into());
        Err(Error::NotFlushed { path: shared.path.clone(), why, waiting: state.waiting.len() as u64 })
    }
}

impl State {
    /// Forgets a letter that has left the queue. It may be on the disk, or just be written.
    fn let_go(&mut self, number: u64) {
        if let Some(letter) = self.waiting.remove(&number) {
            self.waiting_bytes -= letter.bytes();
        }
        self.removed.insert(number);
    }
}

fn open(path: &Path) -> Result<sled::Db, Error> {
    let config = sled::Config::new().path(path).cache_capacity(CACHE_BYTES);
    match catch_unwind(AssertUnwindSafe(|| open_patiently(&config))) {
        Ok(opened) => opened.map_err(store("opened", path)),
        Err(_) => Err(damaged(path, "sled panicked over it".into())),
    }
}

fn read_position(db: &sled::Db, path: &Path) -> Result<Position, Error> {
    let get = |key| db.get(key).map_err(store("read", path));
    let mut position = match get(POSITION_KEY)? {
        Some(bytes) => Position::from_bytes(&bytes).ok_or_else(|| damaged(path, "its position".into()))?,
        None => Position::default(),
    };
    if let Some(bytes) = get(TOTALS_KEY)? {
        position.more_from_bytes(&bytes).ok_or_else(|| damaged(path, "its totals".into()))?;
    }
    for key in db.iter().keys() {
        let key = key.map_err(store("read", path))?;
        if let Ok(number) = <[u8; 8]>::try_from(key.as_ref()) {
            position.numbers.insert(u64::from_be_bytes(number));
        }
    }
    Ok(position)
}

fn store(doing: &'static str, path: &Path) -> impl FnOnce(sled::Error) -> Error {
    let path = path.to_path_buf();
    move |source| Error::Store { doing, path, source }
}

impl Position {
    /// Without the numbers, which stand on the disk by themselves.
    fn clone_counts(&self) -> Position {
        let first = self.numbers.first().copied();
        Position { numbers: first.into_iter().collect(), next: self.next, totals: self.totals.clone() }
    }

    fn to_bytes(&self) -> Vec<u8> {
        // Releases in which letters left the queue only at its front knew by the first word which are there.
        let first = self.numbers.first().copied().unwrap_or(self.next);
        let counts = self.totals.by_reason.iter().flat_map(|(reason, count)| [*reason as u64, *count]);
        [first, self.next, self.totals.evicted].into_iter().chain(counts).flat_map(u64::to_le_bytes).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Position> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let ([first, next, evicted], counts) = words.split_first_chunk()?;
        let (pairs, []) = counts.as_chunks::<2>() else { return None };
        let count = |[reason, count]: &[u64; 2]| Some((Reason::from_u8(u8::try_from(*reason).ok()?)?, *count));
        let by_reason = pairs.iter().map(count).collect::<Option<_>>()?;
        let totals = Totals { by_reason, evicted: *evicted, ..Totals::default() };
        (first <= next).then_some(Position { numbers: BTreeSet::new(), next: *next, totals })
    }

    fn more_to_bytes(&self) -> Vec<u8> {
        [self.totals.retried, self.totals.dropped, self.totals.lost].into_iter().flat_map(u64::to_le_bytes).collect()
    }

    fn more_from_bytes(&mut self, bytes: &[u8]) -> Option<()> {
        let (words, []) = bytes.as_chunks::<8>() else { return None };
        let [retried, dropped, lost] = words else { return None };
        let totals = &mut self.totals;
        (totals.retried, totals.dropped, totals.lost) =
            (u64::from_le_bytes(*retried), u64::from_le_bytes(*dropped), u64::from_le_bytes(*lost));
        Some(())
    }
}

#[cfg(test)]
impl Store {
    pub(super) fn entries(&self) -> usize {
        self.flush().unwrap();
        self.shared.with_db(|db| Ok(db.len()), "read").unwrap()
    }

    pub(super) fn put(&self, key: &[u8], value: &[u8]) {
        self.shared.with_db(|db| db.insert(key, value), "written").unwrap();
    }
}
