//! A checkpoint that is being written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ringhold_kernels::checkpoint::{self, Record, Splitter};
use ringhold_kernels::id::TypeId;

use super::layout::{ABOUT, CHUNK_BYTES, PartInfo, carried, chunk_key, chunk_name, empty_chunk, manifest_key, seal};
use super::{About, Error, Kept, Loose, Manifest, PARTS_MAX, Part, Store};
use crate::blocks::hold;

/// A checkpoint that is being written. Dropped, it leaves nothing behind.
pub struct Draft {
    store: Arc<Store>,
    place: Place,
    device: String,
    epoch: u64,
    base: Option<u64>,
    set: u64,
    /// How often the store had been opened anew when this began.
    reopened: u64,
    parts: BTreeMap<u32, Writing>,
    /// Actors, and messages to them.
    counts: HashMap<TypeId, (u64, u64)>,
}

/// Where a draft goes when it commits.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// After all checkpoints of its device.
    Newest,
    /// In place of the one of its epoch.
    Own,
    /// In place of all of its device.
    Alone,
}

#[derive(Default)]
struct Writing {
    splitter: Splitter,
    chunk: Vec<u8>,
    chunks: u32,
    /// Chunks whose keys are there, with a value or none yet.
    keys: u32,
    bytes: u64,
}

/// From so many chunks on a part's keys are made, so many at once, ahead of their values.
///
/// sled writes a page of up to 16 values anew for every ten or so that come to it, and when it divides the page. Where the
/// page has its keys, and is divided, before the values come, a checkpoint of 16 MiB takes less than half the time.
const KEYS_AHEAD_FROM: u32 = 32;
const KEYS_AHEAD: u32 = 64;

/// Of what older checkpoints leave behind, a commit removes as many chunks as this beside twice those it wrote: so there
/// is never more to remove than was ever kept, and a commit takes no longer for it than for its own.
const SWEPT_MIN: u64 = 16;

impl Draft {
    pub(super) fn new(store: Arc<Store>, place: Place, device: &str, epoch: u64, base: Option<u64>) -> Draft {
        let set = {
            let mut state = hold(&store.state);
            state.next_set += 1;
            state.next_set - 1
        };
        let (parts, counts) = Default::default();
        let reopened = store.blocks.reopened();
        Draft { store, place, device: device.into(), epoch, base, set, reopened, parts, counts }
    }

    /// Appends bytes of records to a part; a record may come in several pieces.
    ///
    /// # Errors
    /// Where the bytes are no records, or the disk fails. The draft is of no use any more then.
    pub fn append(&mut self, part: Part, bytes: &[u8]) -> Result<(), Error> {
        if bytes.is_empty() {
            return Ok(());
        }
        if !self.parts.contains_key(&part.number()) && self.parts.len() + 1 == PARTS_MAX {
            return Err(Error::Parts { device: self.device.clone(), epoch: self.epoch });
        }
        let counts = &mut self.counts;
        let splitter = &mut self.parts.entry(part.number()).or_default().splitter;
        let counted = splitter.feed(bytes, |record, _| {
            let (id, actor) = match record {
                Record::Actor { id, .. } => (id, 1),
                Record::Queued { header, .. } | Record::Timer { header, .. } | Record::Out { header, .. } => {
                    (header.to(), 0)
                }
                Record::Removed { .. } | Record::Cut(_) | Record::Node { .. } => return Ok(()),
            };
            let (actors, messages) = counts.entry(id.type_id).or_default();
            *actors += actor;
            *messages += 1 - actor;
            Ok::<_, checkpoint::Error>(())
        });
        counted.map_err(|source| self.no_records(part, source))?;
        self.write(part.number(), bytes)
    }

    /// Makes the checkpoint durable. It is there, as a whole, once this has returned; where this fails, it may be.
    pub fn commit(mut self, mut about: About) -> Result<Arc<Manifest>, Error> {
        for (number, part) in &self.parts {
            let part_of = Part::of(*number).expect("only records were appended");
            part.splitter.finish().map_err(|source| self.no_records(part_of, source))?;
        }
        for found in &mut about.types {
            (found.actors, found.messages) = self.counts.get(&found.type_id).copied().unwrap_or_default();
        }
        self.write(ABOUT, &about.to_bytes())?;
        for (number, part) in &mut self.parts {
            if carried(&part.chunk) > 0 {
                let key = chunk_key(self.set, *number, part.chunks);
                seal(&chunk_name(&self.device, self.epoch, &key), &mut part.chunk);
                part.chunks += 1;
                self.store.blocks.put(&key, &part.chunk)?;
            }
            for ahead in part.chunks..part.keys {
                self.store.blocks.remove(&chunk_key(self.set, *number, ahead))?;
            }
            part.keys = part.chunks;
        }
        self.store.blocks.sync()?;
        self.store.check_open(self.reopened)?;
        let manifest = Arc::new(self.manifest(about.at_us, about.lanes));
        let published = self.store.publish(&manifest, self.place, self.reopened);
        if matches!(published, Ok(()) | Err(Error::Blocks(_) | Error::Reopened)) {
            // The chunks are the checkpoint's now. Where the disk has failed its manifest may be there all the same.
            self.parts.clear();
        }
        published?;
        self.store.prune(&manifest.device);
        // It is committed: what is in the way of removing will be in the way of the next one, too.
        let _ = self.store.sweep(SWEPT_MIN + 2 * manifest.chunks());
        Ok(manifest)
    }

    fn write(&mut self, number: u32, mut bytes: &[u8]) -> Result<(), Error> {
        let part = self.parts.entry(number).or_default();
        part.bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            if part.chunk.is_empty() {
                part.chunk = empty_chunk();
            }
            let (taken, rest) = bytes.split_at(bytes.len().min(CHUNK_BYTES - carried(&part.chunk)));
            part.chunk.extend(taken);
            bytes = rest;
            if carried(&part.chunk) == CHUNK_BYTES {
                if part.chunks >= KEYS_AHEAD_FROM.max(part.keys) {
                    part.keys = part.chunks + KEYS_AHEAD;
                    for ahead in part.chunks..part.keys {
                        self.store.blocks.put(&chunk_key(self.set, number, ahead), &[])?;
                    }
                }
                let key = chunk_key(self.set, number, part.chunks);
                seal(&chunk_name(&self.device, self.epoch, &key), &mut part.chunk);
                part.chunks += 1;
                self.store.blocks.put(&key, &part.chunk)?;
                part.chunk.truncate(part.chunk.len() - CHUNK_BYTES);
            }
        }
        Ok(())
    }

    fn manifest(&self, at_us: u64, lanes: u32) -> Manifest {
        let info = |(number, part): (&u32, &Writing)| PartInfo {
            number: *number,
            chunks: part.chunks.max(part.keys),
            bytes: part.bytes,
        };
        Manifest {
            device: self.device.clone(),
            epoch: self.epoch,
            base: self.base,
            at_us,
            lanes,
            set: self.set,
            parts: self.parts.iter().map(info).collect(),
        }
    }

    fn no_records(&self, part: Part, source: checkpoint::Error) -> Error {
        Error::Records { device: self.device.clone(), epoch: self.epoch, part, source }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.parts.is_empty() {
            hold(&self.store.state).loose.push(Loose::from(Arc::new(self.manifest(0, 0))));
        }
    }
}

impl Store {
    /// What was written before the store was opened anew need not be there, though a later sync succeeds.
    pub(super) fn check_open(&self, reopened: u64) -> Result<(), Error> {
        match self.blocks.reopened() == reopened {
            true => Ok(()),
            false => Err(Error::Reopened),
        }
    }

    /// Writes a manifest, whose chunks are durable, and syncs it.
    fn publish(&self, manifest: &Arc<Manifest>, place: Place, reopened: u64) -> Result<(), Error> {
        let _manifests = hold(&self.manifests);
        // Those whose places it takes.
        let mut over: BTreeMap<u64, Option<Arc<Manifest>>> = BTreeMap::new();
        {
            let state = hold(&self.state);
            let device = state.devices.get(&manifest.device);
            match (place, device) {
                (Place::Newest, _) => state.admit(&manifest.device, manifest.epoch, manifest.base)?,
                (Place::Alone, Some(device)) => {
                    over.extend(device.epochs.iter().map(|(epoch, entry)| (*epoch, entry.manifest.clone())));
                }
                (Place::Alone, None) | (Place::Own, _) => {}
            }
        }
        for epoch in over.keys() {
            self.blocks.remove(&manifest_key(&manifest.device, *epoch))?;
        }
        self.blocks.put(&manifest.key(), &manifest.to_value())?;
        self.blocks.sync()?;
        self.check_open(reopened)?;
        let mut state = hold(&self.state);
        let device = state.devices.entry(manifest.device.clone()).or_default();
        let newest = device.epochs.keys().next_back().copied();
        // A checkpoint on top of the newest one leaves nothing over.
        device.unpruned |= manifest.base.is_none() || manifest.base != newest;
        device.epochs.retain(|epoch, _| !over.contains_key(epoch));
        let old = device.epochs.insert(manifest.epoch, Kept { manifest: Some(manifest.clone()), damage: None });
        over.extend(old.map(|entry| (manifest.epoch, entry.manifest)));
        state.loose.extend(over.into_values().flatten().map(Loose::from));
        Ok(())
    }
}
