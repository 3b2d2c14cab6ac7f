//! A power failure at any point of anything, on a disk that loses what was not synced, each write by itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ringhold_storage::blocks::{self, Blocks, InMemory};
use ringhold_storage::checkpoints::{Checkpoints, Error, Options};

use crate::model::{Content, Device, Random, about, read};

/// A disk on which nothing works any more after so many calls.
struct Failing {
    disk: Arc<InMemory>,
    left: AtomicI64,
}

impl Failing {
    fn call(&self) -> Result<(), blocks::Error> {
        if self.left.fetch_sub(1, Ordering::Relaxed) > 0 { Ok(()) } else { Err(blocks::Error::DiskFull("gone".into())) }
    }
}

impl Blocks for Failing {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, blocks::Error> {
        self.call()?;
        self.disk.get(key)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), blocks::Error> {
        self.call()?;
        self.disk.put(key, value)
    }

    fn remove(&self, key: &[u8]) -> Result<(), blocks::Error> {
        self.call()?;
        self.disk.remove(key)
    }

    fn first_from(&self, key: &[u8]) -> Result<Option<Vec<u8>>, blocks::Error> {
        self.call()?;
        self.disk.first_from(key)
    }

    fn sync(&self) -> Result<(), blocks::Error> {
        self.call()?;
        self.disk.sync()
    }

    fn bytes_on_disk(&self) -> u64 {
        self.disk.bytes_on_disk()
    }
}

/// A device, and what is known of its checkpoints.
#[derive(Default)]
struct Tracked {
    device: Device,
    /// The newest checkpoint whose commit returned.
    committed: Option<u64>,
    /// What each checkpoint stands for, committed or begun.
    contents: BTreeMap<u64, Content>,
}

impl Tracked {
    /// Makes a checkpoint: a full one, one on top of the newest or an older one, or one that is given up.
    fn checkpoint(&mut self, name: &str, store: &Checkpoints, random: &mut Random) -> Result<(), Error> {
        // Several chunks now and then.
        let state_bytes = if random.below(4) == 0 { 60_000 } else { 300 };
        self.device.step(random, 6, state_bytes);
        let epoch = self.device.epoch;
        let base = self.committed.filter(|base| base + 1 == epoch && random.below(8) > 0);
        self.contents.insert(epoch, self.device.content.clone());
        let mut draft = store.begin(name, epoch, base)?;
        self.device.write(&mut draft, base.is_none(), random)?;
        if random.below(6) > 0 {
            draft.commit(about(epoch))?;
            self.committed = Some(epoch);
        }
        Ok(())
    }

    /// After a power failure: what was committed is there, and whole; or something newer that was begun.
    fn check(&mut self, name: &str, store: &Checkpoints, seed: u64) {
        let found = store.latest(name).unwrap();
        assert_eq!(found.passed_over, [], "seed {seed}");
        assert_eq!(found.cost(), None);
        let newest = found.checkpoint.map(|manifest| manifest.epoch);
        assert!(newest >= self.committed, "seed {seed}: {newest:?} is older than {:?}", self.committed);
        if let Some(epoch) = newest {
            assert_eq!(read(store, name, epoch).unwrap(), self.contents[&epoch], "seed {seed}");
            // The device goes on from there.
            self.device.content = self.contents[&epoch].clone();
        }
        self.committed = newest;
        self.device.epoch = self.device.epoch.max(newest.unwrap_or(0));
    }
}

pub fn open(disk: &Arc<InMemory>, calls: usize) -> Result<Checkpoints, Error> {
    Checkpoints::open(Arc::new(Failing { disk: disk.clone(), left: AtomicI64::new(calls as i64) }), Options::default())
}

fn work(store: &Checkpoints, tracked: &mut [Tracked; 2], random: &mut Random) -> Result<(), Error> {
    for _ in 0..1 + random.below(25) {
        let n = random.below(2);
        let name = ["cpu0", "cpu1"][n];
        if random.below(5) > 0 {
            tracked[n].checkpoint(name, store, random)?;
            continue;
        }
        // Commits go on in the middle of a compaction.
        let mut outcome = Ok(());
        let mut at = random.below(40);
        store.compact(name, &mut |_| {
            if at == 0 && outcome.is_ok() {
                outcome = tracked[n].checkpoint(name, store, random);
                at = random.below(40);
            }
            at = at.saturating_sub(1);
        })?;
        outcome?;
    }
    Ok(())
}

pub fn keys(disk: &InMemory) -> usize {
    let (mut count, mut from) = (0, Vec::new());
    while let Some(key) = disk.first_from(&from).unwrap() {
        count += 1;
        from = [key.as_slice(), &[0]].concat();
    }
    count
}

#[test]
fn what_was_committed_survives_a_power_failure_at_any_point() {
    let mut crashes = 0;
    for seed in 0..1_500 {
        let random = &mut Random::new(seed);
        let disk = Arc::new(InMemory::default());
        let mut tracked = [Tracked::default(), Tracked::default()];
        for _ in 0..6 {
            // Half of the failures come at once after work that went well.
            let calls = if random.below(2) == 0 { 400 } else { 100_000 };
            let calls = random.below(calls);
            let outcome = open(&disk, calls).and_then(|store| work(&store, &mut tracked, random));
            assert!(matches!(outcome, Ok(()) | Err(Error::Blocks(_) | Error::Damaged(_))), "seed {seed}: {outcome:?}");
            crashes += outcome.is_err() as u32;
            disk.crash(|bound| random.below(bound));
            let store = open(&disk, usize::MAX >> 1).unwrap();
            for (tracked, name) in tracked.iter_mut().zip(["cpu0", "cpu1"]) {
                tracked.check(name, &store, seed);
            }
            for verified in store.verify(&mut |_| ()).unwrap() {
                assert_eq!(verified.damage, None, "seed {seed}");
            }
            // Nothing is left of drafts, and of what was removed.
            for name in store.devices() {
                store.compact(&name, &mut |_| ()).unwrap();
            }
            let held: u64 = store.manifests().iter().map(|manifest| manifest.chunks() + 1).sum();
            assert_eq!(keys(&disk) as u64, held + 1, "seed {seed}");
        }
    }
    assert!(crashes > 1_500, "{crashes}");
}
