//! A disk for checkpoints and logs that loses what power failures lose, and the jobs that wait for it, on simulated time.
//!
//! Until it is synced each write is lost or kept by itself, and what was written where nothing had been may be there in
//! part. The disk can fail in the middle of a checkpoint, at any of its writes, and be full for a while.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringhold::device::keeper::Jobs;
use ringhold_cluster::control;
use ringhold_cluster::network::BoxFuture;
use ringhold_storage::blocks::{Blocks, Error};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::random::{Random, Stream};
use crate::trace::Trace;

/// A disk. It stays while machines lose their power; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    inner: Arc<Mutex<Inner>>,
    /// The power has failed at a write.
    failed: Arc<Notify>,
    /// It is held no more.
    goes_on: Arc<Notify>,
}

/// How a disk behaves.
#[derive(Clone, Debug)]
pub struct Plan {
    /// There is no room on it at these times.
    pub full: Vec<Range<Duration>>,
    /// A job takes up to so long.
    pub job_max: Duration,
    /// A mistake on purpose: manifests are synced, and the chunks before them are not.
    pub manifests_first: bool,
    /// A mistake on purpose: what has keys that begin so is never synced, whatever a sync says.
    pub forgets: Option<&'static [u8]>,
    /// A mistake on purpose: when its power fails it has what it had some syncs before, as a backup that is taken for the disk.
    pub goes_back: bool,
}

struct Inner {
    plan: Plan,
    random: Random,
    trace: Trace,
    synced: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What was written to a key since, the oldest first; `None` is a removal.
    unsynced: BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>>,
    /// What it goes back to, where it does.
    before: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How often the power was there; handles of earlier times are dead.
    life: u64,
    powered: bool,
    /// It begins no job.
    held: bool,
    /// So many writes more, and the power fails.
    fails_after: Option<u64>,
    off: Box<dyn Fn() + Send>,
    /// The newest epoch of each device whose manifest was synced.
    epochs: BTreeMap<Vec<u8>, u64>,
    /// Epochs that did not grow.
    violations: Vec<String>,
    figures: Figures,
}

/// What happened to the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub syncs: u64,
    /// Writes that a power failure cost, and those of which it left a part.
    pub lost: u64,
    pub torn: u64,
    pub full: u64,
}

impl SimDisk {
    /// An empty disk without power; `off` is called the moment it fails.
    pub fn new(seed: u64, plan: Plan, trace: Trace, off: Box<dyn Fn() + Send>) -> SimDisk {
        let inner = Inner {
            plan,
            random: Random::new(seed, Stream::Disk, 0),
            trace,
            synced: BTreeMap::new(),
            unsynced: BTreeMap::new(),
            before: BTreeMap::new(),
            life: 0,
            powered: false,
            held: false,
            fails_after: None,
            off,
            epochs: BTreeMap::new(),
            violations: Vec::new(),
            figures: Figures::default(),
        };
        SimDisk { inner: Arc::new(Mutex::new(inner)), failed: Arc::default(), goes_on: Arc::default() }
    }

    /// Gives it power. `fails_after`: at which write from now on the power fails.
    pub fn power_on(&self, fails_after: Option<u64>) -> Handle {
        let mut inner = self.inner.lock();
        inner.life += 1;
        (inner.powered, inner.fails_after) = (true, fails_after);
        if inner.plan.goes_back {
            inner.before = inner.synced.clone();
        }
        Handle { disk: self.clone(), life: inner.life }
    }

    /// Has the power fail at a write: so many from now on.
    pub fn fail_at_write(&self, writes: u64) {
        self.inner.lock().fails_after = Some(writes);
    }

    /// Has it do no job, or go on with those that wait.
    pub fn hold(&self, hold: bool) {
        self.inner.lock().held = hold;
        self.goes_on.notify_waiters();
    }

    async fn goes_on(&self) {
        loop {
            let goes_on = self.goes_on.notified();
            if !self.inner.lock().held {
                return;
            }
            goes_on.await;
        }
    }

    /// Takes its power away.
    pub fn power_off(&self) {
        let mut inner = self.inner.lock();
        if inner.powered {
            inner.fail();
        }
    }

    pub fn has_power(&self) -> bool {
        self.inner.lock().powered
    }

    /// Resolves once it has no power.
    pub async fn failure(&self) {
        while self.has_power() {
            self.failed.notified().await;
        }
    }

    /// A number up to this one, of the disk's own.
    pub fn draw(&self, most: u64) -> u64 {
        self.inner.lock().random.below(most + 1)
    }

    /// The newest epoch of a device of which the disk has said that it is durable.
    pub fn epoch(&self, device: &str) -> u64 {
        self.inner.lock().epochs.get(device.as_bytes()).copied().unwrap_or(0)
    }

    pub fn violations(&self) -> Vec<String> {
        self.inner.lock().violations.clone()
    }

    pub fn figures(&self) -> Figures {
        self.inner.lock().figures
    }
}

/// The disk as one start of a machine has it.
#[derive(Clone)]
pub struct Handle {
    disk: SimDisk,
    life: u64,
}

impl Inner {
    /// What the power failure leaves: of each key what was synced or any one of the later writes.
    fn fail(&mut self) {
        self.powered = false;
        let mut kept = 0;
        for (key, mut writes) in std::mem::take(&mut self.unsynced) {
            let picked = self.random.below(writes.len() as u64 + 1) as usize;
            let Some(written) = picked.checked_sub(1).map(|picked| writes.swap_remove(picked)) else {
                self.figures.lost += 1;
                continue;
            };
            kept += 1;
            match written {
                None => {
                    self.synced.remove(&key);
                }
                Some(mut value) => {
                    // A value is replaced as a whole, but one that is new may be there in part. What says the format is
                    // written before there is anything else, and too small to be torn.
                    if !self.synced.contains_key(&key) && value.len() > 8 && self.random.per_mille(200) {
                        value.truncate(self.random.below(value.len() as u64) as usize);
                        self.figures.torn += 1;
                    }
                    self.synced.insert(key, value);
                }
            }
        }
        if self.plan.goes_back {
            self.synced = std::mem::take(&mut self.before);
        }
        self.trace.event(format_args!("power fails; the disk keeps {kept} unsynced writes"));
        (self.off)();
    }

    fn last(&self, key: &[u8]) -> Option<&Vec<u8>> {
        match self.unsynced.get(key).and_then(|writes| writes.last()) {
            Some(written) => written.as_ref(),
            None => self.synced.get(key),
        }
    }

    /// What was written to keys that begin so is durable.
    fn sync(&mut self, folder: &[u8]) {
        self.figures.syncs += 1;
        if self.plan.goes_back && self.figures.syncs.is_multiple_of(20) {
            self.before = self.synced.clone();
        }
        let mut all: BTreeMap<_, _> = self.unsynced.extract_if(.., |key, _| key.starts_with(folder)).collect();
        if self.plan.manifests_first {
            let later = |key: &Vec<u8>| !key.starts_with(b"m") && !key.starts_with(b"f");
            self.unsynced.extend(all.extract_if(.., |key, _| later(key)));
        }
        if let Some(forgotten) = self.plan.forgets {
            self.unsynced.extend(all.extract_if(.., |key, _| key.starts_with(forgotten)));
        }
        for (key, mut writes) in all {
            match writes.pop().expect("a key is there for a write") {
                None => {
                    self.synced.remove(&key);
                }
                Some(value) => {
                    if let Some((device, epoch)) = manifest_of(&key) {
                        let newest = self.epochs.entry(device.to_vec()).or_default();
                        // A compaction writes the manifest of its newest once more.
                        let again = self.synced.contains_key(&key);
                        if epoch < *newest || (epoch == *newest && !again) {
                            self.violations.push(format!("checkpoint {epoch} was made after {newest}"));
                        }
                        *newest = epoch.max(*newest);
                    }
                    self.synced.insert(key, value);
                }
            }
        }
    }
}

/// The device and the epoch in a manifest's key.
fn manifest_of(key: &[u8]) -> Option<(&[u8], u64)> {
    let (name, epoch) = key.strip_prefix(b"m")?.split_last_chunk()?;
    Some((name.strip_suffix(b"\0")?, u64::from_be_bytes(*epoch)))
}

fn path() -> PathBuf {
    PathBuf::from("the simulated disk")
}

impl Handle {
    /// Whether its power has not failed.
    pub fn has_power(&self) -> bool {
        let inner = self.disk.inner.lock();
        inner.powered && inner.life == self.life
    }

    fn with<T>(&self, doing: &'static str, f: impl FnOnce(&mut Inner) -> T) -> Result<T, Error> {
        let mut inner = self.disk.inner.lock();
        if !inner.powered || inner.life != self.life {
            return Err(Error::Io { doing, path: path(), source: io::Error::other("it has no power") });
        }
        Ok(f(&mut inner))
    }

    /// As [`Handle::with`], for what may be the last that the disk does.
    fn write(&self, doing: &'static str, f: impl FnOnce(&mut Inner) -> Result<(), Error>) -> Result<(), Error> {
        let failed = self.with(doing, |inner| {
            if let Some(left) = &mut inner.fails_after {
                *left = left.saturating_sub(1);
            }
            let fails = inner.fails_after == Some(0);
            // Where the power fails while it syncs nothing was synced for sure.
            if !fails || doing != "sync" {
                f(inner)?;
            }
            if fails {
                inner.fail();
            }
            Ok(fails)
        })??;
        if failed {
            self.disk.failed.notify_one();
            return Err(Error::Io { doing, path: path(), source: io::Error::other("its power fails") });
        }
        Ok(())
    }
}

impl Handle {
    fn sync_folder(&self, folder: &[u8]) -> Result<(), Error> {
        self.write("sync", |inner| {
            inner.sync(folder);
            Ok(())
        })
    }
}

/// A folder of a disk, which is synced by itself.
pub struct Folder {
    pub disk: Handle,
    /// No other folder's begins with it.
    pub name: &'static str,
}

impl Folder {
    fn key(&self, key: &[u8]) -> Vec<u8> {
        [self.name.as_bytes(), b"/", key].concat()
    }
}

impl Blocks for Folder {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.disk.get(&self.key(key))
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.disk.put(&self.key(key), value)
    }

    fn remove(&self, key: &[u8]) -> Result<(), Error> {
        self.disk.remove(&self.key(key))
    }

    fn first_from(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let found = self.disk.first_from(&self.key(key))?;
        Ok(found.and_then(|found| Some(found.strip_prefix(&*self.key(b""))?.to_vec())))
    }

    fn sync(&self) -> Result<(), Error> {
        self.disk.sync_folder(&self.key(b""))
    }

    fn bytes_on_disk(&self) -> u64 {
        self.disk.bytes_on_disk()
    }
}

impl Blocks for Handle {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.with("read", |inner| inner.last(key).cloned())
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.write("write to", |inner| {
            let now = inner.trace.elapsed();
            if inner.plan.full.iter().any(|full| full.contains(&now)) {
                inner.figures.full += 1;
                return Err(Error::DiskFull(path()));
            }
            inner.unsynced.entry(key.to_vec()).or_default().push(Some(value.to_vec()));
            Ok(())
        })
    }

    fn remove(&self, key: &[u8]) -> Result<(), Error> {
        self.write("write to", |inner| {
            inner.unsynced.entry(key.to_vec()).or_default().push(None);
            Ok(())
        })
    }

    fn first_from(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.with("read", |inner| {
            let there = |key: &&Vec<u8>| inner.last(key).is_some();
            let synced = inner.synced.range(key.to_vec()..).map(|(key, _)| key).find(there);
            let unsynced = inner.unsynced.range(key.to_vec()..).map(|(key, _)| key).find(there);
            synced.into_iter().chain(unsynced).min().cloned()
        })
    }

    fn sync(&self) -> Result<(), Error> {
        self.sync_folder(b"")
    }

    fn bytes_on_disk(&self) -> u64 {
        self.disk.inner.lock().synced.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() as u64
    }
}

impl control::Disk for Handle {
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        Jobs::run(self, job)
    }
}

/// Jobs are done in one go, after a while; without power never.
impl Jobs for Handle {
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let handle = self.clone();
        Box::pin(async move {
            let wait_us = {
                let mut inner = handle.disk.inner.lock();
                let most = inner.plan.job_max.as_micros() as u64;
                inner.random.below(most + 1)
            };
            sleep(Duration::from_micros(wait_us)).await;
            handle.disk.goes_on().await;
            if !handle.has_power() {
                return std::future::pending().await;
            }
            job();
        })
    }

    // A job takes no simulated time but what it was given before.
    fn rest(&self, _: Duration) {}
}
