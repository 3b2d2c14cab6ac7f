//! Keys and small values on a disk, behind a narrow trait: what checkpoints are kept in.
//!
//! A write may be lost by a power failure until [`Blocks::sync`] has returned, each by itself and in any order; what was
//! synced is not. [`Sled`] keeps that promise on top of sled 0.34, whose edges it keeps to itself:
//!
//! - `flush` is no fsync on Linux: it hands data to the disk, but neither the file's length nor the disk's own cache. So
//!   the file is fsynced beside it.
//! - It reuses parts of its file (*segments*) once what they held has been written elsewhere, which it takes for durable
//!   after `flush`. A power failure could then cost what was synced long ago. Therefore the file is also fsynced each
//!   time that an eighth of a segment has been put: a segment is reused a whole segment later at the earliest.
//! - Pages over a quarter of a segment go to files of their own, which are not fsynced and leak. A page has about twenty
//!   values at most, so 4 MiB segments and values of at most 32 KiB make none. Larger ones would do, but a commit waits
//!   for the segment that is being written.
//! - A damaged log ends, for it, at the damage, and what comes after is dropped in silence. [`Blocks::lost_syncs`] tells:
//!   the number of the last sync stands in sled and in a file beside it.
//! - Opening fails while an earlier handle is still closing, so it is tried again; and it can panic over a damaged file,
//!   which is made an error.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// The largest value.
pub const VALUE_BYTES_MAX: usize = 32 * 1024;

/// Keys and values that survive. All of it may be called from several threads; all of it blocks.
pub trait Blocks: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// Replaces the value as a whole. It has at most [`VALUE_BYTES_MAX`] bytes.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error>;

    /// Removes the value; there need not be one.
    fn remove(&self, key: &[u8]) -> Result<(), Error>;

    /// The first key that is not before the given one.
    fn first_from(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error>;

    /// Everything written before survives a power failure once this has returned.
    fn sync(&self) -> Result<(), Error>;

    fn bytes_on_disk(&self) -> u64;

    /// How many of the newest syncs the disk has lost by now, because it is damaged. 0 where all is well.
    fn lost_syncs(&self) -> u64 {
        0
    }

    /// How often it has been opened anew since a failure. What had been written and not synced before may be gone.
    fn reopened(&self) -> u64 {
        0
    }
}

/// What can go wrong. After any of these the store is to be opened anew before it is written to: [`Reopening`] does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no space is left on the disk of {}: free some, and it goes on; what is committed there is whole", .0.display())]
    DiskFull(PathBuf),
    #[error("{} is in use by another process: stop it, or use another folder", .0.display())]
    InUse(PathBuf),
    #[error(
        "{} is damaged ({what}): where it can still be opened, `ringhold storage verify` says what is lost and \
         `ringhold storage export` saves the rest; then move it away",
        path.display()
    )]
    Damaged { path: PathBuf, what: String },
    #[error("could not {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// The store in a folder.
///
/// | name | what |
/// |---|---|
/// | `sled/` | sled's files |
/// | `SYNCED` | the number of the last sync, u64, and the crc32 of these eight bytes, u32; little-endian |
pub struct Sled {
    path: PathBuf,
    db: sled::Db,
    /// Holds the number of the last sync.
    syncs: sled::Tree,
    /// sled's file, for fsync.
    log: File,
    synced: File,
    /// The number of the last sync. Held while syncing, so that numbers are written in their order.
    count: Mutex<u64>,
    segment_bytes: usize,
    /// Bytes written since the log was last fsynced, about.
    unsynced: AtomicUsize,
    lost_syncs: u64,
    /// A sync has failed: what the system then still holds of it may never reach the disk, and nobody would say so.
    failed: AtomicBool,
    /// The file as it was last fsynced, where a test wants to know.
    #[cfg(test)]
    fsynced: Option<Mutex<Vec<u8>>>,
}

const SEGMENT_BYTES: usize = 4 << 20;
const CACHE_BYTES: u64 = 32 << 20;
const OPEN_ATTEMPTS: u32 = 40;
const OPEN_PAUSE: Duration = Duration::from_millis(50);
const SYNCS_KEY: &[u8] = b"syncs";

impl Sled {
    /// Opens the store, making it first where there is none.
    pub fn open(path: &Path) -> Result<Sled, Error> {
        Sled::open_sized(path, SEGMENT_BYTES)
    }

    fn open_sized(path: &Path, segment_bytes: usize) -> Result<Sled, Error> {
        let folder = path.join("sled");
        DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(io_at("make the folder", &folder))?;
        let config = sled::Config::new().path(&folder).segment_size(segment_bytes).cache_capacity(CACHE_BYTES);
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let db = open_patiently(&config)?;
            let syncs = db.open_tree(SYNCS_KEY)?;
            let count = syncs.get(SYNCS_KEY)?;
            Ok((db, syncs, count))
        }));
        let (db, syncs, count) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(error)) if is_locked(&error) => return Err(Error::InUse(path.into())),
            Ok(Err(error)) => return Err(sled_at("open", path)(error)),
            Err(_) => return Err(damaged(path, "sled panicked over it".into())),
        };
        let count = match count {
            Some(bytes) => u64::from_le_bytes(
                bytes.as_ref().try_into().map_err(|_| damaged(path, "the number of its last sync".into()))?,
            ),
            None => 0,
        };
        let log = folder.join("db");
        let log = File::open(&log).map_err(io_at("open", &log))?;
        let synced_path = path.join("SYNCED");
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let synced = options.open(&synced_path).map_err(io_at("open", &synced_path))?;
        let witnessed = read_witness(&synced).map_err(io_at("read", &synced_path))?;
        // sled makes files and renames them when it opens, and at no other time.
        sync_tree(path).map_err(io_at("sync", path))?;
        Ok(Sled {
            path: path.into(),
            db,
            syncs,
            log,
            synced,
            count: Mutex::new(count.max(witnessed)),
            segment_bytes,
            unsynced: AtomicUsize::new(0),
            lost_syncs: witnessed.saturating_sub(count),
            failed: AtomicBool::new(false),
            #[cfg(test)]
            fsynced: None,
        })
    }

    fn wrote(&self, bytes: usize) -> Result<(), Error> {
        if self.unsynced.fetch_add(bytes, Ordering::Relaxed) + bytes < self.segment_bytes / 8 {
            return Ok(());
        }
        self.unsynced.store(0, Ordering::Relaxed);
        self.fsync()
    }

    fn fsync(&self) -> Result<(), Error> {
        let done = self.log.sync_data().map_err(io_at("sync", &self.path));
        self.failed.fetch_or(done.is_err(), Ordering::Relaxed);
        #[cfg(test)]
        if let Some(fsynced) = &self.fsynced {
            *hold(fsynced) = fs::read(self.path.join("sled/db")).unwrap();
        }
        done
    }
}

impl Blocks for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.db.get(key).map_err(sled_at("read", &self.path))?.map(|value| value.to_vec()))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        assert!(value.len() <= VALUE_BYTES_MAX, "a value of {} bytes", value.len());
        self.db.insert(key, value).map_err(sled_at("write to", &self.path))?;
        self.wrote(value.len())
    }

    fn remove(&self, key: &[u8]) -> Result<(), Error> {
        self.db.remove(key).map_err(sled_at("write to", &self.path))?;
        // A page is written anew after some removals from it: for each, half a value of the largest size at most.
        self.wrote(self.segment_bytes / 256)
    }

    fn first_from(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let first = self.db.range(key..).keys().next().transpose();
        Ok(first.map_err(sled_at("read", &self.path))?.map(|key| key.to_vec()))
    }

    fn sync(&self) -> Result<(), Error> {
        let mut count = hold(&self.count);
        if self.failed.load(Ordering::Relaxed) {
            let source = io::Error::other("an earlier sync failed, and what it would have kept may be lost");
            return Err(Error::Io { doing: "sync", path: self.path.clone(), source });
        }
        let next = *count + 1;
        let flushed = self.syncs.insert(SYNCS_KEY, &next.to_le_bytes()).and_then(|_| self.db.flush());
        self.failed.fetch_or(flushed.is_err(), Ordering::Relaxed);
        flushed.map_err(sled_at("sync", &self.path))?;
        self.fsync()?;
        *count = next;
        // After the fsync, so that it never stands for more than is there. It need not be durable itself: it is for
        // damage, and not for power failures.
        let witness = self.synced.write_all_at(&witness(next), 0);
        witness.map_err(io_at("write to", &self.path.join("SYNCED")))
    }

    fn bytes_on_disk(&self) -> u64 {
        tree_bytes(&self.path)
    }

    fn lost_syncs(&self) -> u64 {
        self.lost_syncs
    }
}

/// A [`Sled`] that is opened anew after its disk has failed, with the first call that succeeds in it: it goes on by itself
/// once there is room.
pub struct Reopening {
    path: PathBuf,
    /// `None` from a failure on. Held for writing while it is opened, when nobody may have a handle.
    sled: RwLock<Option<Sled>>,
    reopened: AtomicU64,
}

impl Reopening {
    /// As [`Sled::open`].
    pub fn open(path: &Path) -> Result<Reopening, Error> {
        let sled = RwLock::new(Some(Sled::open(path)?));
        Ok(Reopening { path: path.into(), sled, reopened: AtomicU64::new(0) })
    }

    fn with<T>(&self, what: impl FnOnce(&Sled) -> Result<T, Error>) -> Result<T, Error> {
        let done = {
            let mut sled = self.sled.read().unwrap_or_else(PoisonError::into_inner);
            if sled.is_none() {
                drop(sled);
                self.reopen()?;
                sled = self.sled.read().unwrap_or_else(PoisonError::into_inner);
            }
            match &*sled {
                Some(sled) => what(sled),
                None => return Err(self.failed_again()),
            }
        };
        // Sled does nothing any more once a write has failed, whatever its disk could do by then.
        if matches!(done, Err(Error::DiskFull(_) | Error::Io { .. })) {
            *self.sled.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        done
    }

    fn reopen(&self) -> Result<(), Error> {
        let mut sled = self.sled.write().unwrap_or_else(PoisonError::into_inner);
        if sled.is_some() {
            return Ok(());
        }
        let opened = Sled::open(&self.path)?;
        if opened.lost_syncs > 0 {
            return Err(damaged(&self.path, format!("{} syncs are lost", opened.lost_syncs)));
        }
        // Before anybody can write to it.
        self.reopened.fetch_add(1, Ordering::SeqCst);
        *sled = Some(opened);
        Ok(())
    }

    fn failed_again(&self) -> Error {
        let source = io::Error::other("it failed again as soon as it was open");
        Error::Io { doing: "open", path: self.path.clone(), source }
    }
}

impl Blocks for Reopening {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.with(|sled| sled.get(key))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.with(|sled| sled.put(key, value))
    }

    fn remove(&self, key: &[u8]) -> Result<(), Error> {
        self.with(|sled| sled.remove(key))
    }

    fn first_from(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.with(|sled| sled.first_from(key))
    }

    fn sync(&self) -> Result<(), Error> {
        self.with(Sled::sync)
    }

    fn bytes_on_disk(&self) -> u64 {
        tree_bytes(&self.path)
    }

    fn lost_syncs(&self) -> u64 {
        self.sled.read().unwrap_or_else(PoisonError::into_inner).as_ref().map_or(0, Sled::lost_syncs)
    }

    fn reopened(&self) -> u64 {
        self.reopened.load(Ordering::SeqCst)
    }
}

/// Opens a sled folder that another handle may still be closing.
pub(crate) fn open_patiently(config: &sled::Config) -> Result<sled::Db, sled::Error> {
    let mut attempts = 1;
    loop {
        match config.open() {
            Err(error) if is_locked(&error) && attempts < OPEN_ATTEMPTS => {
                attempts += 1;
                std::thread::sleep(OPEN_PAUSE);
            }
            opened => return opened,
        }
    }
}

/// Whether another handle has the folder: sled has no kind for that, but a text.
fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().starts_with("could not acquire lock"))
}

fn witness(count: u64) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&count.to_le_bytes());
    bytes[8..].copy_from_slice(&crc32fast::hash(&count.to_le_bytes()).to_le_bytes());
    bytes
}

/// The number in the file; 0 where there is none, or a damaged one.
fn read_witness(file: &File) -> io::Result<u64> {
    let mut bytes = [0; 12];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
        Err(error) => return Err(error),
    }
    let count = u64::from_le_bytes(*bytes.first_chunk().expect("twelve bytes have eight"));
    Ok(if witness(count) == bytes { count } else { 0 })
}

/// Fsyncs everything in the folder, the folder, and that it is there.
fn sync_tree(path: &Path) -> io::Result<()> {
    fn sync(path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            if path.is_dir() { sync(&path)? } else { File::open(&path)?.sync_all()? }
        }
        File::open(path)?.sync_all()
    }
    sync(path)?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn tree_bytes(path: &Path) -> u64 {
    let Ok(metadata) = fs::symlink_metadata(path) else { return 0 };
    let within = if metadata.is_dir() { fs::read_dir(path).ok() } else { None };
    let within: u64 = within.into_iter().flatten().flatten().map(|entry| tree_bytes(&entry.path())).sum();
    within + metadata.blocks() * 512
}

fn damaged(path: &Path, what: String) -> Error {
    Error::Damaged { path: path.into(), what }
}

fn sled_at(doing: &'static str, path: &Path) -> impl FnOnce(sled::Error) -> Error {
    let path = path.to_path_buf();
    move |error| match error {
        sled::Error::Io(source) => io_at(doing, &path)(source),
        sled::Error::Corruption { .. } => damaged(&path, "sled found a checksum that is wrong".into()),
        other => damaged(&path, other.to_string()),
    }
}

fn io_at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::DiskFull(path),
        _ => Error::Io { doing, path, source },
    }
}

/// A panic elsewhere leaves what the lock guards as it was before or after a whole step.
pub(crate) fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The store in memory: for nodes without a data folder, and, since it can lose what was not synced, for tests and
/// simulation.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    synced: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What was written to a key since, the oldest first; `None` is a removal.
    unsynced: BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>>,
}

impl InMemory {
    /// What a power failure leaves: of each key what was synced or any one of the later writes. `pick` chooses, from 0 up
    /// to and not including its argument.
    pub fn crash(&self, mut pick: impl FnMut(usize) -> usize) {
        let mut memory = hold(&self.0);
        for (key, mut writes) in std::mem::take(&mut memory.unsynced) {
            match pick(writes.len() + 1) {
                0 => {}
                kept => memory.settle(key, writes.swap_remove(kept - 1)),
            }
        }
    }
}

impl Memory {
    fn settle(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        match value {
            Some(value) => self.synced.insert(key, value),
            None => self.synced.remove(&key),
        };
    }

    fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.unsynced.entry(key.to_vec()).or_default().push(value.map(<[u8]>::to_vec));
    }

    fn get(&self, key: &[u8]) -> Option<&Vec<u8>> {
        match self.unsynced.get(key).and_then(|writes| writes.last()) {
            Some(written) => written.as_ref(),
            None => self.synced.get(key),
        }
    }
}

impl Blocks for InMemory {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        Ok(hold(&self.0).get(key).cloned())
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        assert!(value.len() <= VALUE_BYTES_MAX, "a value of {} bytes", value.len());
        hold(&self.0).write(key, Some(value));
        Ok(())
    }

    fn remove(&self, key: &[u8]) -> Result<(), Error> {
        hold(&self.0).write(key, None);
        Ok(())
    }

    fn first_from(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let memory = hold(&self.0);
        let synced = memory.synced.range(key.to_vec()..).map(|(key, _)| key).find(|key| memory.get(key).is_some());
        let unsynced = memory.unsynced.range(key.to_vec()..).map(|(key, _)| key).find(|key| memory.get(key).is_some());
        Ok(synced.into_iter().chain(unsynced).min().cloned())
    }

    fn sync(&self) -> Result<(), Error> {
        let mut memory = hold(&self.0);
        for (key, mut writes) in std::mem::take(&mut memory.unsynced) {
            let last = writes.pop().expect("a key is there for a write");
            memory.settle(key, last);
        }
        Ok(())
    }

    fn bytes_on_disk(&self) -> u64 {
        let memory = hold(&self.0);
        let synced = memory.synced.iter().map(|(key, value)| key.len() + value.len());
        let unsynced = memory
            .unsynced
            .iter()
            .flat_map(|(key, writes)| writes.iter().map(|value| key.len() + value.as_ref().map_or(0, Vec::len)));
        synced.chain(unsynced).sum::<usize>() as u64
    }
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::{RngCore, SeedableRng};

    use super::*;

    fn keys(blocks: &dyn Blocks) -> Vec<Vec<u8>> {
        let (mut keys, mut from) = (Vec::new(), Vec::new());
        while let Some(key) = blocks.first_from(&from).unwrap() {
            from = [key.as_slice(), &[0]].concat();
            keys.push(key);
        }
        keys
    }

    /// Against a map, with random keys that are often each other's neighbours.
    fn is_a_map(blocks: &dyn Blocks) {
        let random = &mut ChaCha8Rng::seed_from_u64(1);
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for _ in 0..3_000 {
            let key = vec![(random.next_u32() % 3) as u8; (random.next_u32() % 4) as usize];
            match random.next_u32() % 4 {
                0 => {
                    blocks.remove(&key).unwrap();
                    model.remove(&key);
                }
                1 => blocks.sync().unwrap(),
                _ => {
                    let value = vec![random.next_u32() as u8; random.next_u32() as usize % 100];
                    blocks.put(&key, &value).unwrap();
                    model.insert(key.clone(), value);
                }
            }
            assert_eq!(blocks.get(&key).unwrap(), model.get(&key).cloned());
            assert_eq!(blocks.first_from(&key).unwrap().as_ref(), model.range(key..).next().map(|(key, _)| key));
        }
        assert_eq!(keys(blocks), model.into_keys().collect::<Vec<_>>());
        assert!(blocks.bytes_on_disk() > 0);
    }

    #[test]
    fn both_stores_are_maps() {
        is_a_map(&InMemory::default());
        let scratch = tempfile::tempdir().unwrap();
        is_a_map(&Sled::open(scratch.path()).unwrap());
    }

    #[test]
    fn memory_loses_unsynced_writes_one_by_one_and_no_others() {
        let disk = InMemory::default();
        disk.put(b"a", b"synced").unwrap();
        disk.put(b"b", b"synced").unwrap();
        disk.sync().unwrap();
        disk.put(b"a", b"1").unwrap();
        disk.put(b"a", b"2").unwrap();
        disk.remove(b"b").unwrap();
        disk.put(b"c", b"new").unwrap();
        assert_eq!(keys(&disk), [b"a", b"c"]);
        // Of a the first write, of b none, of c the only one.
        let mut kept = [1, 0, 1].into_iter();
        disk.crash(|bound| kept.next().filter(|kept| *kept < bound).unwrap());
        let values = [&b"a"[..], b"b", b"c"].map(|key| disk.get(key).unwrap().unwrap());
        assert_eq!(values, [&b"1"[..], b"synced", b"new"]);
    }

    #[test]
    fn values_survive_a_reopening_and_the_folder_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("checkpoints");
        for n in 0..3u8 {
            let store = Sled::open(&path).unwrap();
            assert_eq!((keys(&store).len(), store.lost_syncs()), (n as usize, 0));
            store.put(&[n], &vec![n; VALUE_BYTES_MAX]).unwrap();
            store.sync().unwrap();
            assert_eq!(store.get(&[n]).unwrap(), Some(vec![n; VALUE_BYTES_MAX]));
        }
        assert_eq!(fs::metadata(path.join("sled")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_an_error_means_is_told_apart() {
        let path = Path::new("/x");
        let full = |code| sled_at("write to", path)(sled::Error::Io(io::Error::from_raw_os_error(code)));
        assert!(matches!(full(28), Error::DiskFull(_)) && matches!(full(122), Error::DiskFull(_)));
        assert!(full(28).to_string().contains("no space is left on the disk of /x"));
        assert!(full(5).to_string().contains("could not write to /x"), "{}", full(5));
        let damaged = sled_at("read", path)(sled::Error::Corruption { at: None, bt: () });
        assert!(damaged.to_string().contains("/x is damaged") && damaged.to_string().contains("storage verify"));
    }

    /// Pages of the file that sled wrote after the last fsync reach the disk or not, each by itself, as in a power failure;
    /// and the file has its length of then or of now.
    ///
    /// With small segments, so that many are used again between two syncs.
    #[test]
    fn a_power_failure_costs_nothing_that_was_synced() {
        const SEGMENT: usize = 512 << 10;
        const PAGE: usize = 4096;
        let mut overwritten = 0;
        for seed in 0..40 {
            let random = &mut ChaCha8Rng::seed_from_u64(seed);
            let mut below = |bound: u64| random.next_u64() % bound;
            let scratch = tempfile::tempdir().unwrap();
            let path = scratch.path().join("store");
            let mut store = Sled::open_sized(&path, SEGMENT).unwrap();
            store.fsynced = Some(Mutex::default());
            let value = |key: u64| {
                let mut value = vec![key as u8; 1_000 + (key.wrapping_mul(0x9e37_79b9) % 3_000) as usize];
                value[..8].copy_from_slice(&key.to_le_bytes());
                value
            };
            let mut synced: Vec<u64> = Vec::new();
            let mut next = 0;
            for _ in 0..20 + below(40) {
                for _ in 0..1 + below(40) {
                    store.put(&u64::to_be_bytes(next), &value(next)).unwrap();
                    synced.push(next);
                    next += 1;
                }
                while synced.len() > 60 {
                    store.remove(&synced.remove(below(30) as usize).to_be_bytes()).unwrap();
                }
                store.sync().unwrap();
            }
            let at_sync = hold(store.fsynced.as_ref().unwrap()).clone();
            // Nothing of this is synced; what is removed is not looked for below.
            for _ in 0..below(2_000) {
                store.put(&u64::to_be_bytes(next), &value(next)).unwrap();
                next += 1;
                if !synced.is_empty() && below(40) == 0 {
                    store.remove(&synced.remove(below(synced.len() as u64) as usize).to_be_bytes()).unwrap();
                }
            }
            store.db.flush().unwrap();
            let before = hold(store.fsynced.as_ref().unwrap()).clone();
            let after = fs::read(path.join("sled/db")).unwrap();
            overwritten += (at_sync != after[..at_sync.len().min(after.len())]) as u32;
            let mut left = before.clone();
            left.resize(if below(2) == 0 { before.len() } else { after.len() }, 0);
            for (n, page) in left.chunks_mut(PAGE).enumerate() {
                let written = after.get(n * PAGE..n * PAGE + page.len());
                if let Some(written) = written.filter(|_| below(3) == 0) {
                    page.copy_from_slice(written);
                }
            }
            let torn = scratch.path().join("torn");
            fs::create_dir_all(torn.join("sled/blobs")).unwrap();
            fs::copy(path.join("sled/conf"), torn.join("sled/conf")).unwrap();
            fs::copy(path.join("SYNCED"), torn.join("SYNCED")).unwrap();
            fs::write(torn.join("sled/db"), left).unwrap();
            let torn = Sled::open_sized(&torn, SEGMENT).unwrap();
            assert_eq!(torn.lost_syncs(), 0);
            for key in synced {
                assert_eq!(torn.get(&key.to_be_bytes()).unwrap(), Some(value(key)), "seed {seed}");
            }
        }
        assert!(overwritten > 10, "{overwritten}");
    }
}
