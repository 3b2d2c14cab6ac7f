//! A disk whose power fails at any call, that loses each write since the last sync by itself, and tears what is new.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use ringhold_storage::blocks::{Blocks, Error};

/// Numbers that a seed determines.
pub struct Random(ChaCha8Rng);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(ChaCha8Rng::seed_from_u64(seed))
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound as u64) as usize
    }
}

#[derive(Clone, Default)]
pub struct Disk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    synced: BTreeMap<Vec<u8>, Vec<u8>>,
    unsynced: BTreeMap<Vec<u8>, Vec<Option<Vec<u8>>>>,
    /// How many calls it has power for.
    left: usize,
    /// A mistake on purpose: a sync does nothing.
    forgetful: bool,
}

impl Disk {
    pub fn power(&self, calls: usize) {
        self.0.lock().unwrap().left = calls;
    }

    pub fn forget_syncs(&self) {
        self.0.lock().unwrap().forgetful = true;
    }

    /// What a power failure leaves.
    pub fn crash(&self, random: &mut Random) {
        let mut inner = self.0.lock().unwrap();
        for (key, mut writes) in std::mem::take(&mut inner.unsynced) {
            let picked = random.below(writes.len() + 1);
            match picked.checked_sub(1).map(|picked| writes.swap_remove(picked)) {
                None => {}
                Some(None) => drop(inner.synced.remove(&key)),
                Some(Some(mut value)) => {
                    if !inner.synced.contains_key(&key) && value.len() > 8 && random.below(4) == 0 {
                        value.truncate(random.below(value.len()));
                    }
                    inner.synced.insert(key, value);
                }
            }
        }
    }

    /// Every value, as it is now.
    pub fn values(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let inner = self.0.lock().unwrap();
        let mut values = inner.synced.clone();
        for (key, writes) in &inner.unsynced {
            match writes.last().unwrap() {
                Some(value) => drop(values.insert(key.clone(), value.clone())),
                None => drop(values.remove(key)),
            }
        }
        values
    }

    /// A disk with these values.
    pub fn with(values: BTreeMap<Vec<u8>, Vec<u8>>) -> Disk {
        Disk(Arc::new(Mutex::new(Inner { synced: values, left: usize::MAX, ..Inner::default() })))
    }

    fn call<T>(&self, f: impl FnOnce(&mut Inner) -> T) -> Result<T, Error> {
        let mut inner = self.0.lock().unwrap();
        if inner.left == 0 {
            return Err(Error::DiskFull("the power is gone".into()));
        }
        inner.left -= 1;
        Ok(f(&mut inner))
    }
}

impl Inner {
    fn last(&self, key: &[u8]) -> Option<&Vec<u8>> {
        match self.unsynced.get(key).and_then(|writes| writes.last()) {
            Some(written) => written.as_ref(),
            None => self.synced.get(key),
        }
    }
}

impl Blocks for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.call(|inner| inner.last(key).cloned())
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        assert!(value.len() <= ringhold_storage::blocks::VALUE_BYTES_MAX);
        self.call(|inner| inner.unsynced.entry(key.to_vec()).or_default().push(Some(value.to_vec())))
    }

    fn remove(&self, key: &[u8]) -> Result<(), Error> {
        self.call(|inner| inner.unsynced.entry(key.to_vec()).or_default().push(None))
    }

    fn first_from(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.call(|inner| {
            let keys = inner.synced.range(key.to_vec()..).map(|(key, _)| key);
            let synced = keys.filter(|key| inner.last(key).is_some()).min();
            let keys = inner.unsynced.range(key.to_vec()..).map(|(key, _)| key);
            let unsynced = keys.filter(|key| inner.last(key).is_some()).min();
            synced.into_iter().chain(unsynced).min().cloned()
        })
    }

    fn sync(&self) -> Result<(), Error> {
        self.call(|inner| {
            if inner.forgetful {
                return;
            }
            for (key, mut writes) in std::mem::take(&mut inner.unsynced) {
                match writes.pop().unwrap() {
                    Some(value) => drop(inner.synced.insert(key, value)),
                    None => drop(inner.synced.remove(&key)),
                }
            }
        })
    }

    fn bytes_on_disk(&self) -> u64 {
        0
    }
}
