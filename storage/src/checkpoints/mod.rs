//! Checkpoints of devices: written as drafts, committed as a whole, chained, compacted, checked, found again.
//!
//! A checkpoint is a *manifest* and *chunks* (`layout.rs`). A [`Draft`] writes chunks; when it commits it syncs them, then
//! writes the manifest, and syncs that: a manifest that is there stands for chunks that are all there. Chunks without a
//! manifest are what an unfinished draft left, and are removed when the store is opened.
//!
//! An incremental checkpoint has a *base*, that may have one too: a *chain*, which ends in a full checkpoint. A checkpoint
//! is *whole* where every byte of its chain is there and has its checksum. [`Checkpoints::compact`] turns a chain into one
//! full checkpoint of the same epoch, beside commits. What is kept is the newest checkpoint with its chain, and as many
//! older ones as are asked for that share no byte with it or with each other; everything else is removed, the manifests
//! first. A power failure in the middle of that leaves some of it, and the next start removes it.

mod draft;
mod forget;
mod layout;
mod moves;
mod pinned;
mod replica;

use std::collections::hash_map::{Entry, HashMap};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex};

use ringhold_kernels::checkpoint::{self, Record, Splitter};
use ringhold_kernels::registry::Registry;

use crate::blocks::{self, Blocks, hold};
pub use draft::Draft;
pub(crate) use layout::{ABOUT, Reader};
pub use layout::{About, DEVICE_NAME_BYTES_MAX, FORMAT, Manifest, PARTS_MAX, Part, Type};
use layout::{FORMAT_KEY, PartInfo, chunk_key, chunk_name, manifest_of, set_of, unseal};
pub use moves::Ownership;
pub use pinned::{Following, Item, Pinned};
pub use replica::{Mark, Piece, Replica, Sending, Taken, replica_name, replica_of};

/// What can be configured.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many independent restore points each device has; at least 1.
    pub kept: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options { kept: 2 }
    }
}

/// A chain this long is due to be compacted, whatever it holds.
const CHAIN_MAX: usize = 4_096;
/// A chain whose increments are smaller than this is not yet due.
const INCREMENTS_BYTES_MIN: u64 = 1 << 20;
/// What a checkpoint costs beside its bytes, about.
const CHECKPOINT_BYTES: u64 = 4_096;
/// Manifests that one commit, or one step of a compaction, removes at most.
const PRUNED_MAX: usize = 64;

/// The checkpoints of a node's devices. A cheap handle; every call blocks on the disk.
#[derive(Clone)]
pub struct Checkpoints(Arc<Store>);

struct Store {
    blocks: Arc<dyn Blocks>,
    options: Options,
    /// Held while manifests are written or removed.
    manifests: Mutex<()>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    devices: BTreeMap<String, Device>,
    next_set: u64,
    /// Chunks to be removed.
    loose: Vec<Loose>,
}

#[derive(Default)]
struct Device {
    epochs: BTreeMap<u64, Kept>,
    /// There may be checkpoints to remove.
    unpruned: bool,
}

struct Kept {
    /// `None` where it cannot be read.
    manifest: Option<Arc<Manifest>>,
    /// What is known to be wrong with the checkpoint.
    damage: Option<String>,
}

/// Chunks of a checkpoint that is gone.
struct Loose {
    /// Whoever still reads the checkpoint has it too.
    manifest: Arc<Manifest>,
    /// What is left.
    parts: Vec<PartInfo>,
}

/// What can go wrong with checkpoints.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    #[error("the disk failed while the checkpoint was written, and has been opened anew since")]
    Reopened,
    #[error(
        "the checkpoints have format {found}, and this build of Ringhold reads {FORMAT}: use the Ringhold that wrote them"
    )]
    OtherFormat { found: u32 },
    #[error("the folder of the checkpoints holds something else: {0}; move it away")]
    Foreign(String),
    #[error(transparent)]
    Damaged(#[from] Damage),
    #[error("no checkpoint {epoch} of `{device}` is kept: `ringhold storage list` shows those that are")]
    Unknown { device: String, epoch: u64 },
    #[error("checkpoint {epoch} of `{device}` is none after {newest}: epochs grow")]
    Stale { device: String, epoch: u64, newest: u64 },
    #[error("checkpoint {epoch} of `{device}` cannot tell changes since {base} ({why}): take a full one")]
    Base { device: String, epoch: u64, base: u64, why: String },
    #[error("`{0}` is no name of a device: it has 1 to {DEVICE_NAME_BYTES_MAX} bytes, none of them zero")]
    Device(String),
    #[error("{part} of checkpoint {epoch} of `{device}` is given what is no record: {source}")]
    Records { device: String, epoch: u64, part: Part, source: checkpoint::Error },
    #[error(
        "the table of which device has which shards is damaged ({0}): nothing else says it; take the last export to a new \
         folder, or another folder"
    )]
    ShardTable(String),
    #[error("what was sent of a checkpoint is none: its pieces {0}")]
    Piece(String),
    #[error("`{name}` takes nothing of term {term}: its device is in term {heard} by now, and another node may run it")]
    OlderTerm { name: String, term: u64, heard: u64 },
    #[error("the term that `{name}` has heard of last {what}: have its copy made anew")]
    Term { name: String, what: String },
    #[error("checkpoint {epoch} of `{device}` has more than {PARTS_MAX} parts")]
    Parts { device: String, epoch: u64 },
    #[error("checkpoint {epoch} of `{device}` holds actors that this binary runs otherwise: {}", list(mismatches))]
    Types { device: String, epoch: u64, mismatches: Vec<Mismatch> },
}

/// What is wrong with a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("checkpoint {epoch} of `{device}` is damaged: {what}")]
pub struct Damage {
    pub device: String,
    pub epoch: u64,
    pub what: String,
}

/// An actor type whose states in a checkpoint are none of this binary's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub name: String,
    /// The layout hash in the checkpoint.
    pub kept: u64,
    /// This binary's; `None` where it has no such type.
    pub built: Option<u64>,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch { name, kept, built } = self;
        match built {
            Some(built) => write!(
                f,
                "`{name}` has the layout {kept:016x} there and {built:016x} here: run the binary that wrote it, or give \
                 the changed type another name"
            ),
            None => write!(f, "`{name}` (layout {kept:016x}) is not in this binary: register it"),
        }
    }
}

/// Those of these types that are held, and are none of the registry's.
pub fn mismatches(types: &[Type], registry: &Registry) -> Vec<Mismatch> {
    let mut mismatches: Vec<Mismatch> = Vec::new();
    for kept in types {
        let built = registry.get(kept.type_id).map(|built| built.layout_hash);
        let known = mismatches.iter().any(|mismatch| mismatch.name == kept.name);
        if kept.actors + kept.messages > 0 && built != Some(kept.layout_hash) && !known {
            mismatches.push(Mismatch { name: kept.name.clone(), kept: kept.layout_hash, built });
        }
    }
    mismatches
}

fn list(mismatches: &[Mismatch]) -> String {
    mismatches.iter().map(Mismatch::to_string).collect::<Vec<_>>().join("; ")
}

/// The checkpoint to recover a device from.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The newest whole one; `None` where there is none.
    pub checkpoint: Option<Arc<Manifest>>,
    /// The newest epoch of the device, whole or not: the next one is greater.
    pub newest: Option<u64>,
    /// When that was cut, where it can be read.
    pub newest_at_us: Option<u64>,
    /// Newer ones that are not whole, the newest first.
    pub passed_over: Vec<Damage>,
    /// Syncs that the disk has lost: there may have been newer checkpoints of which nothing is left.
    pub lost_syncs: u64,
}

impl Found {
    /// What recovering from this checkpoint costs, in sentences; `None` where it costs nothing.
    pub fn cost(&self) -> Option<String> {
        let mut cost: Vec<String> = self.passed_over.iter().map(|damage| format!("{damage}.")).collect();
        if self.lost_syncs > 0 {
            cost.push(format!(
                "The store has lost the last {} of its syncs, two for each checkpoint of any device: the newest \
                 checkpoints may be gone without a trace.",
                self.lost_syncs
            ));
        }
        if cost.is_empty() {
            return None;
        }
        cost.push(match (&self.checkpoint, self.newest) {
            (Some(found), Some(newest)) if newest > found.epoch => {
                let span = self.newest_at_us.map_or(String::new(), |at_us| {
                    format!(": {} ms of work", at_us.saturating_sub(found.at_us).div_ceil(1_000))
                });
                format!(
                    "Everything that was committed after checkpoint {}, up to {newest}, is lost{span}.",
                    found.epoch
                )
            }
            (Some(found), _) => format!("What is left is checkpoint {}.", found.epoch),
            (None, _) => "No whole checkpoint is left: the actors start anew.".into(),
        });
        Some(cost.join(" "))
    }
}

/// What a compaction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    pub epoch: u64,
    /// Checkpoints in the chain that is one now.
    pub checkpoints: usize,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// A checkpoint, and what is known of it.
#[derive(Clone, Debug)]
pub struct Looked {
    pub device: String,
    pub epoch: u64,
    /// `None` where it cannot be read.
    pub manifest: Option<Arc<Manifest>>,
    /// What is wrong with it or with one it stands on; `None` where it is whole.
    pub damage: Option<Damage>,
}

impl Checkpoints {
    /// Opens the store, making it first where there is none. What unfinished drafts left is removed.
    pub fn open(blocks: Arc<dyn Blocks>, options: Options) -> Result<Checkpoints, Error> {
        check_format(&*blocks)?;
        let mut state = State::default();
        let mut sets = HashSet::new();
        for key in keys(&*blocks, b"m") {
            let key = key?;
            let (device, epoch) = manifest_of(&key).ok_or_else(|| Error::Foreign("a key that is none".into()))?;
            let read = read_manifest(&*blocks, &device, epoch, &key);
            sets.extend(read.as_ref().ok().map(|manifest| manifest.set));
            let device = state.devices.entry(device).or_insert_with(|| Device { unpruned: true, ..Device::default() });
            device.epochs.insert(
                epoch,
                match read {
                    Ok(manifest) => Kept { manifest: Some(Arc::new(manifest)), damage: None },
                    Err(what) => Kept { manifest: None, damage: Some(what) },
                },
            );
        }
        // Chunks that seem to be nobody's may be those of a manifest that cannot be read: they stay as long as it does.
        let damaged = state.devices.values().flat_map(|device| device.epochs.values()).any(|e| e.manifest.is_none());
        let mut last = sets.iter().max().copied().unwrap_or(0);
        let mut from = chunk_key(0, 0, 0);
        while let Some(set) = blocks.first_from(&from)?.as_deref().and_then(set_of) {
            last = last.max(set);
            if !sets.contains(&set) && !damaged {
                for key in keys(&*blocks, &chunk_key(set, 0, 0)[..9]) {
                    blocks.remove(&key?)?;
                }
            }
            from = chunk_key(set + 1, 0, 0);
        }
        state.next_set = last + 1;
        let devices: Vec<String> = state.devices.keys().cloned().collect();
        devices.iter().for_each(|device| state.spread_damage(device));
        let (manifests, state) = (Mutex::default(), Mutex::new(state));
        let store = Store { blocks, options, manifests, state };
        // Of checkpoints that were being removed some may be there and others not, which is no damage.
        devices.iter().for_each(|device| while store.prune(device) {});
        Ok(Checkpoints(Arc::new(store)))
    }

    /// Begins a checkpoint: a full one, or one that tells the changes since its base.
    pub fn begin(&self, device: &str, epoch: u64, base: Option<u64>) -> Result<Draft, Error> {
        check_name(device)?;
        hold(&self.0.state).admit(device, epoch, base)?;
        Ok(Draft::new(self.0.clone(), draft::Place::Newest, device, epoch, base))
    }

    /// As [`Checkpoints::begin`], for a full one that takes the place of all others of its device when it commits,
    /// whatever their epochs.
    pub fn begin_instead(&self, device: &str, epoch: u64) -> Result<Draft, Error> {
        check_name(device)?;
        Ok(Draft::new(self.0.clone(), draft::Place::Alone, device, epoch, None))
    }

    /// The names of the devices that have checkpoints, but for those of which there are only copies here.
    pub fn devices(&self) -> Vec<String> {
        let own = |name: &&String| replica_of(name).is_none();
        hold(&self.0.state).devices.keys().filter(own).cloned().collect()
    }

    /// The manifests that can be read, by device and epoch.
    pub fn manifests(&self) -> Vec<Arc<Manifest>> {
        let state = hold(&self.0.state);
        let entries = state.devices.values().flat_map(|device| device.epochs.values());
        entries.filter_map(|entry| entry.manifest.clone()).collect()
    }

    /// What is known of a checkpoint beside its records.
    pub fn about(&self, manifest: &Manifest) -> Result<About, Error> {
        self.0.about(manifest)
    }

    /// The manifests of a checkpoint's chain, the newest, its own, first.
    pub fn chain(&self, device: &str, epoch: u64) -> Result<Vec<Arc<Manifest>>, Error> {
        hold(&self.0.state).chain(device, epoch)
    }

    /// Finds the newest whole checkpoint of a device. Every byte of its chain is read and checked.
    pub fn latest(&self, device: &str) -> Result<Found, Error> {
        let mut found = Found { lost_syncs: self.0.blocks.lost_syncs(), ..Found::default() };
        let mut epochs: Vec<u64> = Vec::new();
        if let Some(device) = hold(&self.0.state).devices.get(device) {
            epochs.extend(device.epochs.keys().rev());
            let newest = device.epochs.last_key_value();
            found.newest = newest.map(|(epoch, _)| *epoch);
            found.newest_at_us = newest.and_then(|(_, kept)| Some(kept.manifest.as_ref()?.at_us));
        }
        let mut checked = HashMap::new();
        for epoch in epochs {
            match self.0.check_chain(device, epoch, &mut checked, &mut |_| ()) {
                Ok(manifest) => {
                    found.checkpoint = Some(manifest);
                    break;
                }
                Err(Error::Damaged(damage)) => found.passed_over.push(damage),
                // Removed meanwhile.
                Err(Error::Unknown { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Refuses a checkpoint that holds actors, or messages to them, of types that are not the registry's.
    ///
    /// A type counts as held where any checkpoint of the chain holds one.
    pub fn check_types(&self, device: &str, epoch: u64, registry: &Registry) -> Result<(), Error> {
        let mut types = Vec::new();
        for manifest in self.chain(device, epoch)? {
            types.extend(self.about(&manifest)?.types);
        }
        let mismatches = mismatches(&types, registry);
        if mismatches.is_empty() { Ok(()) } else { Err(Error::Types { device: device.into(), epoch, mismatches }) }
    }

    /// Passes on what a checkpoint stands for: each actor once, in its newest state, then every other record of the
    /// checkpoint itself, part by part, in the order in which it was appended.
    ///
    /// It keeps the ids of the actors that it has seen: some 20 bytes for each.
    pub fn visit<E: From<Error>>(
        &self,
        device: &str,
        epoch: u64,
        mut each: impl FnMut(Part, Record<'_>, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        self.0.visit(&self.chain(device, epoch)?, &mut |_| (), &mut each)
    }

    /// The devices whose chains are so long that compacting them is worth its while.
    pub fn due(&self) -> Vec<String> {
        let state = hold(&self.0.state);
        let due = |device: &&String| {
            let Some(newest) = state.newest(device) else { return false };
            let Ok(chain) = state.chain(device, newest) else { return false };
            let (full, increments) = chain.split_last().expect("a chain holds its own checkpoint");
            let bytes: u64 = increments.iter().map(|manifest| manifest.bytes() + CHECKPOINT_BYTES).sum();
            bytes > full.bytes().max(INCREMENTS_BYTES_MIN) || chain.len() >= CHAIN_MAX
        };
        state.devices.keys().filter(due).cloned().collect()
    }

    /// Turns the chain of a device's newest checkpoint into one full checkpoint in its place, and removes what is not
    /// kept any more. Commits go on meanwhile. `None` where there was nothing to do.
    ///
    /// `progress` is told the bytes done, of as many as the chain has. It may rest, to leave the disk to commits.
    pub fn compact(&self, device: &str, progress: &mut dyn FnMut(u64)) -> Result<Option<Compacted>, Error> {
        let chain = {
            // As one look: a commit beside this may make another the newest, and prune this one.
            let state = hold(&self.0.state);
            let newest = state.newest(device);
            newest.map(|epoch| state.chain(device, epoch)).transpose()?.unwrap_or_default()
        };
        let mut compacted = None;
        if chain.len() > 1 {
            let newest = &chain[0];
            let about = self.about(newest)?;
            let mut draft = Draft::new(self.0.clone(), draft::Place::Own, device, newest.epoch, None);
            let bytes_before = chain.iter().map(|manifest| manifest.bytes()).sum();
            let copied = self.0.visit(&chain, progress, &mut |part, _, record| draft.append(part, record));
            if let Err(Error::Damaged(damage)) = &copied {
                self.0.note(damage);
            }
            copied?;
            let full = draft.commit(about)?;
            let (epoch, bytes_after) = (full.epoch, full.bytes());
            compacted = Some(Compacted { epoch, checkpoints: chain.len(), bytes_before, bytes_after });
        }
        drop(chain);
        while self.0.prune(device) {}
        self.0.sweep(u64::MAX)?;
        Ok(compacted)
    }

    /// Every checkpoint that is kept, by device and epoch, and what is known of it without reading it.
    pub fn looked(&self) -> Vec<Looked> {
        let state = hold(&self.0.state);
        let mut looked = Vec::new();
        for (device, kept) in &state.devices {
            looked.extend(kept.epochs.iter().map(|(epoch, Kept { manifest, damage })| {
                let damage = damage.clone().map(|what| Damage { device: device.clone(), epoch: *epoch, what });
                Looked { device: device.clone(), epoch: *epoch, manifest: manifest.clone(), damage }
            }));
        }
        looked
    }

    /// Reads everything that is kept, and says of each checkpoint whether it is whole, by device and epoch.
    ///
    /// `progress` is told the bytes done, of as many as all manifests together have.
    pub fn verify(&self, progress: &mut dyn FnMut(u64)) -> Result<Vec<Looked>, Error> {
        let (mut checked, mut done) = (HashMap::new(), 0);
        let mut looked = self.looked();
        for Looked { device, epoch, damage, .. } in &mut looked {
            let mut read = |bytes| {
                done += bytes;
                progress(done);
            };
            *damage = match self.0.check_chain(device, *epoch, &mut checked, &mut read) {
                Ok(_) => None,
                Err(Error::Damaged(damage)) => Some(damage),
                Err(error) => return Err(error),
            };
        }
        Ok(looked)
    }

    /// Syncs that the disk has lost: see [`Blocks::lost_syncs`].
    pub fn lost_syncs(&self) -> u64 {
        self.0.blocks.lost_syncs()
    }

    pub fn bytes_on_disk(&self) -> u64 {
        self.0.blocks.bytes_on_disk()
    }
}

fn check_name(device: &str) -> Result<(), Error> {
    let fits = (1..=DEVICE_NAME_BYTES_MAX).contains(&device.len()) && !device.contains('\0');
    if fits { Ok(()) } else { Err(Error::Device(device.into())) }
}

fn check_format(blocks: &dyn Blocks) -> Result<(), Error> {
    let found = match blocks.get(FORMAT_KEY)? {
        Some(value) => value,
        None if blocks.first_from(&[])?.is_none() => {
            let mut value = [[0; 4], FORMAT.to_le_bytes()].concat();
            layout::seal(FORMAT_KEY, &mut value);
            blocks.put(FORMAT_KEY, &value)?;
            return Ok(blocks.sync()?);
        }
        None => return Err(Error::Foreign("it says no format".into())),
    };
    let held = unseal(FORMAT_KEY, &found).map_err(|what| Error::Foreign(format!("its format {what}")))?;
    match held.try_into().map(u32::from_le_bytes) {
        Ok(FORMAT) => Ok(()),
        Ok(found) => Err(Error::OtherFormat { found }),
        Err(_) => Err(Error::Foreign("its format is no number".into())),
    }
}

/// The keys that start with the prefix, in order.
fn keys<'a>(blocks: &'a dyn Blocks, prefix: &'a [u8]) -> impl Iterator<Item = Result<Vec<u8>, blocks::Error>> + 'a {
    let mut from = prefix.to_vec();
    std::iter::from_fn(move || {
        let key = match blocks.first_from(&from).transpose()? {
            Ok(key) => key,
            Err(error) => return Some(Err(error)),
        };
        from = [key.as_slice(), b"\0"].concat();
        key.starts_with(prefix).then_some(Ok(key))
    })
}

fn read_manifest(blocks: &dyn Blocks, device: &str, epoch: u64, key: &[u8]) -> Result<Manifest, String> {
    let value = blocks.get(key).map_err(|error| format!("its manifest cannot be read: {error}"))?;
    let manifest = Manifest::from_value(device, epoch, &value.ok_or("its manifest is missing")?)
        .map_err(|what| if what.starts_with("its") { what } else { format!("its manifest {what}") })?;
    match manifest.base {
        Some(base) if base >= epoch => Err(format!("its base, {base}, is not before it")),
        _ => Ok(manifest),
    }
}

impl State {
    fn newest(&self, device: &str) -> Option<u64> {
        self.devices.get(device)?.epochs.keys().next_back().copied()
    }

    /// Whether a checkpoint may be made.
    fn admit(&self, device: &str, epoch: u64, base: Option<u64>) -> Result<(), Error> {
        if let Some(newest) = self.newest(device).filter(|newest| *newest >= epoch) {
            return Err(Error::Stale { device: device.into(), epoch, newest });
        }
        let Some(base) = base else { return Ok(()) };
        let why = match self.devices.get(device).and_then(|device| device.epochs.get(&base)) {
            Some(Kept { damage: None, .. }) => return Ok(()),
            Some(Kept { damage: Some(what), .. }) => what.clone(),
            None => "it is not kept".into(),
        };
        Err(Error::Base { device: device.into(), epoch, base, why })
    }

    /// As far as is known without reading chunks.
    fn chain(&self, device: &str, epoch: u64) -> Result<Vec<Arc<Manifest>>, Error> {
        let unknown = || Error::Unknown { device: device.into(), epoch };
        let epochs = &self.devices.get(device).ok_or_else(unknown)?.epochs;
        let mut entry = epochs.get(&epoch).ok_or_else(unknown)?;
        let mut chain: Vec<Arc<Manifest>> = Vec::new();
        loop {
            let manifest = match entry {
                Kept { manifest: Some(manifest), damage: None } => manifest,
                Kept { damage, .. } => {
                    let what = damage.clone().expect("what cannot be read is damaged");
                    return Err(Damage { device: device.into(), epoch, what }.into());
                }
            };
            chain.push(manifest.clone());
            let Some(base) = manifest.base else { return Ok(chain) };
            entry = epochs.get(&base).expect("without its base it would be damaged");
        }
    }

    /// Marks what stands on damaged or missing checkpoints as damaged, too.
    fn spread_damage(&mut self, device: &str) {
        let Some(device) = self.devices.get_mut(device) else { return };
        let mut damaged: HashMap<u64, String> = HashMap::new();
        let all: HashSet<u64> = device.epochs.keys().copied().collect();
        // Bases come before what stands on them.
        for (epoch, entry) in &mut device.epochs {
            let base = entry.manifest.as_ref().and_then(|manifest| manifest.base);
            let below = base.and_then(|base| match damaged.get(&base) {
                Some(what) => Some(format!("it stands on checkpoint {base}: {what}")),
                None => (!all.contains(&base)).then(|| format!("it stands on checkpoint {base}, which is missing")),
            });
            if entry.damage.is_none() {
                entry.damage = below;
            }
            damaged.extend(entry.damage.clone().map(|what| (*epoch, what)));
        }
    }

    /// The checkpoints of a device that are not to be kept, the newest first: each before what it stands on.
    fn unwanted(&self, device: &str, kept: usize) -> Vec<u64> {
        let Some(found) = self.devices.get(device) else { return Vec::new() };
        let mut wanted = BTreeSet::new();
        let (mut points, mut unwanted) = (0, Vec::new());
        for epoch in found.epochs.keys().rev() {
            if wanted.contains(epoch) {
                continue;
            }
            match self.chain(device, *epoch) {
                _ if points >= kept.max(1) => unwanted.push(*epoch),
                Ok(chain) if chain.iter().all(|manifest| !wanted.contains(&manifest.epoch)) => {
                    wanted.extend(chain.iter().map(|manifest| manifest.epoch));
                    points += 1;
                }
                Ok(_) => unwanted.push(*epoch),
                // It stays until there are newer ones enough: somebody may want to look at it.
                Err(_) => {}
            }
        }
        unwanted
    }
}

impl Store {
    /// Removes at most so many chunks of checkpoints that are gone and that nobody reads.
    fn sweep(&self, mut budget: u64) -> Result<(), Error> {
        while budget > 0 {
            let mut loose = {
                let mut state = hold(&self.state);
                let free = state.loose.iter().position(|loose| Arc::strong_count(&loose.manifest) == 1);
                let Some(free) = free else { break };
                state.loose.swap_remove(free)
            };
            let mut swept = Ok(());
            while let Some(part) = loose.parts.last_mut().filter(|_| budget > 0 && swept.is_ok()) {
                if part.chunks == 0 {
                    loose.parts.pop();
                    continue;
                }
                swept = self.blocks.remove(&chunk_key(loose.manifest.set, part.number, part.chunks - 1));
                part.chunks -= swept.is_ok() as u32;
                budget -= 1;
            }
            if !loose.parts.is_empty() {
                hold(&self.state).loose.push(loose);
            }
            swept?;
        }
        Ok(())
    }

    /// Removes manifests of a device that are not to be kept, at most [`PRUNED_MAX`], and says whether there are more.
    fn prune(&self, device: &str) -> bool {
        let _manifests = hold(&self.manifests);
        let mut state = hold(&self.state);
        if !state.devices.get(device).is_some_and(|device| device.unpruned) {
            return false;
        }
        let unwanted = state.unwanted(device, self.options.kept);
        let more = unwanted.len() > PRUNED_MAX;
        for epoch in unwanted.into_iter().take(PRUNED_MAX) {
            // One that cannot be removed stays, and its chunks with it: the next commit meets the same error.
            if self.blocks.remove(&layout::manifest_key(device, epoch)).is_err() {
                return false;
            }
            let removed = state.devices.get_mut(device).and_then(|device| device.epochs.remove(&epoch));
            state.loose.extend(removed.and_then(|entry| entry.manifest).map(Loose::from));
        }
        state.devices.get_mut(device).expect("it is there").unpruned = more;
        more
    }

    fn chunk(&self, manifest: &Manifest, part: PartInfo, number: u32) -> Result<Vec<u8>, Error> {
        let key = chunk_key(manifest.set, part.number, number);
        let damage = |what: String| {
            let part = Part::of(part.number).map_or("what is known about it".into(), |part| part.to_string());
            let what = format!("chunk {number} of {part} {what}");
            Damage { device: manifest.device.clone(), epoch: manifest.epoch, what }
        };
        let value = self.blocks.get(&key).map_err(|error| damage(format!("cannot be read: {error}")))?;
        let mut value = value.ok_or_else(|| damage("is missing".into()))?;
        unseal(&chunk_name(&manifest.device, manifest.epoch, &key), &value).map_err(damage)?;
        value.drain(..value.len() - layout::carried(&value));
        Ok(value)
    }

    /// Passes on a part's bytes.
    fn read<E: From<Error>>(
        &self,
        manifest: &Manifest,
        part: PartInfo,
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut bytes = 0;
        for number in 0..part.chunks {
            let chunk = self.chunk(manifest, part, number)?;
            bytes += chunk.len() as u64;
            each(&chunk)?;
        }
        if bytes == part.bytes {
            return Ok(());
        }
        let what = format!("a part has {bytes} bytes and not {}", part.bytes);
        Err(Error::from(Damage { device: manifest.device.clone(), epoch: manifest.epoch, what }).into())
    }

    /// Passes on a part's records.
    fn records<E: From<Error>>(
        &self,
        manifest: &Manifest,
        part: PartInfo,
        mut each: impl FnMut(Record<'_>, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        enum Stop<E> {
            Record(checkpoint::Error),
            Other(E),
        }
        impl<E> From<checkpoint::Error> for Stop<E> {
            fn from(error: checkpoint::Error) -> Stop<E> {
                Stop::Record(error)
            }
        }
        impl<E: From<Error>> From<Error> for Stop<E> {
            fn from(error: Error) -> Stop<E> {
                Stop::Other(error.into())
            }
        }
        let mut splitter = Splitter::default();
        let read = self.read(manifest, part, |bytes| {
            splitter.feed(bytes, |record, whole| each(record, whole).map_err(Stop::Other))
        });
        read.and_then(|()| Ok(splitter.finish()?)).map_err(|stop| match stop {
            Stop::Record(error) => {
                let what = error.to_string();
                Error::from(Damage { device: manifest.device.clone(), epoch: manifest.epoch, what }).into()
            }
            Stop::Other(error) => error,
        })
    }

    fn about(&self, manifest: &Manifest) -> Result<About, Error> {
        let mut bytes = Vec::new();
        for part in manifest.parts.iter().filter(|part| part.number == ABOUT) {
            self.read(manifest, *part, |chunk| {
                bytes.extend(chunk);
                Ok::<_, Error>(())
            })?;
        }
        About::from_bytes(manifest.at_us, manifest.lanes, &bytes).ok_or_else(|| {
            let what = "what is known about it cannot be read".into();
            Damage { device: manifest.device.clone(), epoch: manifest.epoch, what }.into()
        })
    }

    /// `progress` is told the bytes done, of as many as the chain has.
    fn visit<E: From<Error>>(
        &self,
        chain: &[Arc<Manifest>],
        progress: &mut dyn FnMut(u64),
        each: &mut impl FnMut(Part, Record<'_>, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let parts = |manifest: &Manifest| -> Vec<(Part, PartInfo)> {
            manifest.parts.iter().filter_map(|info| Some((Part::of(info.number)?, *info))).collect()
        };
        let (mut seen, mut done) = (HashSet::new(), 0);
        for manifest in chain {
            for (part, info) in parts(manifest) {
                self.records(manifest, info, |record, whole| {
                    done += whole.len() as u64;
                    progress(done);
                    match record {
                        Record::Actor { id, .. } if seen.insert(id) => each(part, record, whole),
                        Record::Removed { id } => {
                            seen.insert(id);
                            Ok(())
                        }
                        _ => Ok(()),
                    }
                })?;
            }
        }
        drop(seen);
        let newest = chain.first().expect("a chain holds its own checkpoint");
        for (part, info) in parts(newest) {
            self.records(newest, info, |record, whole| match record {
                Record::Actor { .. } | Record::Removed { .. } => Ok(()),
                _ => each(part, record, whole),
            })?;
        }
        Ok(())
    }

    /// Reads and checks every byte of a chain, but of those checkpoints that were already `checked`, by their set.
    fn check_chain(
        &self,
        device: &str,
        epoch: u64,
        checked: &mut HashMap<u64, Option<Damage>>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Arc<Manifest>, Error> {
        let chain = hold(&self.state).chain(device, epoch)?;
        // The oldest first: that is where several have their damage.
        for manifest in chain.iter().rev() {
            let damage = match checked.entry(manifest.set) {
                Entry::Occupied(damage) => damage.into_mut(),
                Entry::Vacant(unknown) => unknown.insert(match self.check(manifest, progress) {
                    Ok(()) => None,
                    Err(Error::Damaged(damage)) => Some(damage),
                    Err(error) => return Err(error),
                }),
            };
            if let Some(damage) = damage {
                self.note(damage);
                // What it says of this one, which stands on that.
                hold(&self.state).chain(device, epoch)?;
                return Err(Error::Unknown { device: device.into(), epoch });
            }
        }
        Ok(chain[0].clone())
    }

    fn check(&self, manifest: &Manifest, progress: &mut dyn FnMut(u64)) -> Result<(), Error> {
        self.about(manifest)?;
        for part in &manifest.parts {
            if part.number != ABOUT {
                self.records(manifest, *part, |_, record| {
                    progress(record.len() as u64);
                    Ok::<_, Error>(())
                })?;
            } else {
                progress(part.bytes);
            }
        }
        Ok(())
    }

    /// Remembers what turned out to be damaged, so that nothing is built on it.
    fn note(&self, damage: &Damage) {
        let mut state = hold(&self.state);
        let device = state.devices.get_mut(&damage.device);
        if let Some(entry) = device.and_then(|device| device.epochs.get_mut(&damage.epoch)) {
            entry.damage = Some(damage.what.clone());
            state.spread_damage(&damage.device);
        }
    }
}

impl From<Arc<Manifest>> for Loose {
    fn from(manifest: Arc<Manifest>) -> Loose {
        Loose { parts: manifest.parts.clone(), manifest }
    }
}
