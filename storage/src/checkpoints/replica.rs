//! Copies of a device's checkpoints on other nodes: what is sent, and what becomes of it there.
//!
//! A copy is a device of the store like any other, under a name of its own ([`replica_name`]), with the records and what is known
//! about them as the device's own node has them. It is compacted and pruned by itself: a checkpoint is the same one wherever its
//! [`Mark`] is the same, whatever it stands on.
//!
//! What is sent comes in [`Piece`]s. Each says of which checkpoint it is, and after which one it was sent: a piece that comes late,
//! twice, or to one that has something else by now, changes nothing. The copy's own draft commits as the device's did.
//!
//! A copy remembers the newest *term* of the device that it has heard of, durably, and takes nothing from one who runs the device
//! in an older one: once another node has begun to run the device, what the one before still sends is not in it.

use std::sync::Arc;

use super::layout::{PartInfo, Reader, empty_chunk, seal, unseal};
use super::{About, Checkpoints, Draft, Error, Kept, Manifest, Part};
use crate::blocks::hold;

const PREFIX: &str = "replica/";

/// The name of the copy of a device's checkpoints, by the device's number in the cluster.
pub fn replica_name(device: u16) -> String {
    format!("{PREFIX}{device}")
}

/// The device of which these are copies; `None` where they are a device's own.
pub fn replica_of(name: &str) -> Option<u16> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// Which checkpoint of its device it is: epochs can come again after an import, and are not of the same moment then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub epoch: u64,
    /// Wall time of the cut, microseconds since the Unix epoch.
    pub at_us: u64,
}

impl Mark {
    pub(super) fn of(manifest: &Manifest) -> Mark {
        Mark { epoch: manifest.epoch, at_us: manifest.at_us }
    }
}

/// Some of a checkpoint, on its way to a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    pub mark: Mark,
    /// What it tells the changes since; `None`: it stands for itself.
    pub base: Option<Mark>,
    /// The newest that the copy had when this was sent.
    pub after: Option<Mark>,
    pub(super) lanes: u32,
    /// Of the whole checkpoint.
    pub(super) bytes: u64,
    /// From 0.
    pub(super) number: u32,
    pub(super) last: bool,
    /// Bytes of parts, by their numbers, in their order.
    pub(super) parts: Vec<(u32, Vec<u8>)>,
}

const PIECE_KEY: &[u8] = b"piece";

impl Piece {
    pub fn to_bytes(&self) -> Vec<u8> {
        let held: usize = self.parts.iter().map(|(_, bytes)| bytes.len() + 8).sum();
        let mut out = Vec::with_capacity(held + 80);
        out.resize(4, 0);
        let mark = |out: &mut Vec<u8>, mark: Option<Mark>| {
            let Mark { epoch, at_us } = mark.unwrap_or(NO_MARK);
            [epoch, at_us].iter().for_each(|word| out.extend(word.to_le_bytes()));
        };
        [Some(self.mark), self.base, self.after].into_iter().for_each(|found| mark(&mut out, found));
        out.extend(self.bytes.to_le_bytes());
        [self.lanes, self.number, u32::from(self.last)].iter().for_each(|word| out.extend(word.to_le_bytes()));
        for (part, bytes) in &self.parts {
            [*part, bytes.len() as u32].iter().for_each(|word| out.extend(word.to_le_bytes()));
            out.extend(bytes);
        }
        seal(PIECE_KEY, &mut out);
        out
    }

    /// # Errors
    /// Where the bytes are not what [`Piece::to_bytes`] made.
    pub fn from_bytes(bytes: &[u8]) -> Result<Piece, Error> {
        let bad = |what: &str| Error::Piece(what.into());
        let mut from = Reader(unseal(PIECE_KEY, bytes).map_err(Error::Piece)?);
        let mut read = || {
            let mut mark = || Some(Mark { epoch: from.u64()?, at_us: from.u64()? });
            let (own, base, after) = (mark()?, mark()?, mark()?);
            let (bytes, lanes, number, last) = (from.u64()?, from.u32()?, from.u32()?, from.u32()?);
            let some = |mark: Mark| (mark != NO_MARK).then_some(mark);
            let mut parts = Vec::new();
            while !from.0.is_empty() {
                let (part, length) = (from.u32()?, from.u32()? as usize);
                parts.push((part, from.take(length)?.to_vec()));
            }
            let (base, after) = (some(base), some(after));
            Some(Piece { mark: own, base, after, lanes, bytes, number, last: last == 1, parts })
        };
        read().ok_or_else(|| bad("is cut short"))
    }

    /// Whether the checkpoint is whole with it.
    pub fn is_last(&self) -> bool {
        self.last
    }
}

/// What stands where there is no mark.
const NO_MARK: Mark = Mark { epoch: u64::MAX, at_us: u64::MAX };

/// A checkpoint that is being sent.
pub struct Sending {
    store: Checkpoints,
    manifest: Arc<Manifest>,
    base: Option<Mark>,
    after: Option<Mark>,
    /// What comes next: a part, by its place, and a chunk of it.
    part: usize,
    chunk: u32,
    number: u32,
    ended: bool,
}

impl Sending {
    pub fn mark(&self) -> Mark {
        Mark::of(&self.manifest)
    }

    /// The next piece, of about so many bytes; `None` after the last.
    ///
    /// # Errors
    /// Where the checkpoint is damaged, or the disk fails.
    pub fn next(&mut self, bytes: usize) -> Result<Option<Piece>, Error> {
        if self.ended {
            return Ok(None);
        }
        let (mut parts, mut held) = (Vec::new(), 0);
        while let Some(info) = self.manifest.parts.get(self.part).copied().filter(|_| held < bytes) {
            if self.chunk == info.chunks {
                (self.part, self.chunk) = (self.part + 1, 0);
                continue;
            }
            let chunk = self.store.0.chunk(&self.manifest, info, self.chunk)?;
            self.chunk += 1;
            held += chunk.len();
            push(&mut parts, info, chunk);
        }
        self.ended = self.part == self.manifest.parts.len();
        self.number += 1;
        Ok(Some(Piece {
            mark: self.mark(),
            base: self.base,
            after: self.after,
            lanes: self.manifest.lanes,
            bytes: self.manifest.bytes(),
            number: self.number - 1,
            last: self.ended,
            parts,
        }))
    }
}

fn push(parts: &mut Vec<(u32, Vec<u8>)>, info: PartInfo, chunk: Vec<u8>) {
    match parts.last_mut() {
        Some((part, bytes)) if *part == info.number => bytes.extend(chunk),
        _ => parts.push((info.number, chunk)),
    }
}

impl Checkpoints {
    /// Which one a device's newest checkpoint is, as far as is known without reading it.
    pub fn newest(&self, device: &str) -> Option<Mark> {
        let state = hold(&self.0.state);
        let (_, kept) = state.devices.get(device)?.epochs.last_key_value()?;
        kept.manifest.as_deref().map(Mark::of)
    }

    /// What a copy lacks of a device's newest checkpoint whose own newest is this one: to be sent in this order. Where that is not
    /// in the newest's chain, it is all of the chain.
    ///
    /// # Errors
    /// Where the device has no checkpoint, or its newest is damaged.
    pub fn lacks(&self, device: &str, has: Option<Mark>) -> Result<Vec<Sending>, Error> {
        let chain = {
            let state = hold(&self.0.state);
            let newest = state.newest(device).ok_or_else(|| Error::Unknown { device: device.into(), epoch: 0 })?;
            state.chain(device, newest)?
        };
        let known = chain.iter().position(|manifest| Some(Mark::of(manifest)) == has);
        let base = has.filter(|_| known.is_some());
        Ok(self.sendings(&chain[..known.unwrap_or(chain.len())], base, has))
    }

    /// All of these, of which the newest is the first, to be sent in this order; what they stand on and follow is there already.
    pub(super) fn sendings(
        &self,
        chain: &[Arc<Manifest>],
        mut base: Option<Mark>,
        mut after: Option<Mark>,
    ) -> Vec<Sending> {
        let mut sendings = Vec::new();
        for manifest in chain.iter().rev() {
            let mark = Mark::of(manifest);
            let base_of = if manifest.base.is_some() { base } else { None };
            let (store, manifest) = (self.clone(), manifest.clone());
            let (part, chunk, number, ended) = Default::default();
            sendings.push(Sending { store, manifest, base: base_of, after, part, chunk, number, ended });
            (base, after) = (Some(mark), Some(mark));
        }
        sendings
    }

    /// The devices of which there are copies here, by their numbers.
    pub fn replicas(&self) -> Vec<u16> {
        hold(&self.0.state).devices.keys().filter_map(|name| replica_of(name)).collect()
    }

    /// Forgets everything there is of a copy.
    pub fn forget_replica(&self, device: u16) -> Result<(), Error> {
        let name = replica_name(device);
        let store = &*self.0;
        {
            let _manifests = hold(&store.manifests);
            let epochs: Vec<u64> = match hold(&store.state).devices.get(&name) {
                Some(device) => device.epochs.keys().rev().copied().collect(),
                None => Vec::new(),
            };
            for epoch in epochs {
                store.blocks.remove(&super::layout::manifest_key(&name, epoch))?;
                let mut state = hold(&store.state);
                let removed = state.devices.get_mut(&name).and_then(|device| device.epochs.remove(&epoch));
                state.loose.extend(removed.and_then(|kept: Kept| kept.manifest).map(super::Loose::from));
            }
            hold(&store.state).devices.remove(&name);
        }
        store.blocks.remove(&term_key(&name))?;
        self.forget_adoptions(&name, u64::MAX)?;
        store.blocks.sync()?;
        store.sweep(u64::MAX)
    }

    /// The newest term of a device that its copy of this name here has heard of; 0 where it has heard of none, as where there has never
    /// been a copy.
    ///
    /// # Errors
    /// Where the disk fails, or what it has of that is damaged.
    pub fn copy_term(&self, name: &str) -> Result<u64, Error> {
        let key = term_key(name);
        let Some(value) = self.0.blocks.get(&key)? else { return Ok(0) };
        let held = unseal(&key, &value).map_err(|what| Error::Term { name: name.into(), what })?;
        Reader(held).u64().ok_or_else(|| Error::Term { name: name.into(), what: "is cut short".into() })
    }

    fn set_term(&self, name: &str, term: u64) -> Result<(), Error> {
        let (key, mut value) = (term_key(name), empty_chunk());
        value.extend(term.to_le_bytes());
        seal(&key, &mut value);
        let reopened = self.0.blocks.reopened();
        self.0.blocks.put(&key, &value)?;
        self.0.blocks.sync()?;
        self.0.check_open(reopened)
    }
}

fn term_key(name: &str) -> Vec<u8> {
    [b"t", name.as_bytes()].concat()
}

/// A node's copy of the checkpoints of another node's device.
pub struct Replica {
    store: Checkpoints,
    name: String,
    term: u64,
    newest: Option<Mark>,
    arriving: Option<Arriving>,
}

/// A checkpoint of which some has come.
struct Arriving {
    mark: Mark,
    after: Option<Mark>,
    draft: Draft,
    about: Vec<u8>,
    /// The number of the next piece.
    next: u32,
    bytes: u64,
}

/// What became of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The next one is awaited.
    Some,
    /// The checkpoint is durable.
    Whole,
    /// It is not what comes next: the copy's newest is this one, and what it lacks is to be sent again.
    Not { newest: Option<Mark> },
}

impl Replica {
    /// The copy of a device's checkpoints, by the device's number. Every byte of its newest one is read and checked.
    pub fn open(store: &Checkpoints, device: u16) -> Result<Replica, Error> {
        let name = replica_name(device);
        let term = store.copy_term(&name)?;
        let found = store.latest(&name)?;
        // Behind damage nothing is built; the next one comes as a whole, and takes the place of all.
        let newest = found.checkpoint.filter(|_| found.passed_over.is_empty()).map(|manifest| Mark::of(&manifest));
        Ok(Replica { store: store.clone(), name, term, newest, arriving: None })
    }

    /// The newest term of the device that it has heard of.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Its newest checkpoint, once one who runs the device in this term has asked for it: one of an older term is refused from
    /// then on.
    ///
    /// # Errors
    /// Where it has heard of a newer term, or the disk fails.
    pub fn hear(&mut self, term: u64) -> Result<Option<Mark>, Error> {
        if term < self.term {
            return Err(Error::OlderTerm { name: self.name.clone(), term, heard: self.term });
        }
        if term > self.term {
            self.store.set_term(&self.name, term)?;
            (self.term, self.arriving) = (term, None);
        }
        Ok(self.newest)
    }

    /// Takes a piece from one who runs the device in this term.
    ///
    /// # Errors
    /// Where it has heard of a newer term, the piece is none of a checkpoint, or the disk fails. What had come of the checkpoint is
    /// given up.
    pub fn take(&mut self, term: u64, piece: Piece) -> Result<Taken, Error> {
        self.hear(term)?;
        let not = Taken::Not { newest: self.newest };
        if piece.after != self.newest || piece.base.is_some_and(|base| Some(base) != self.newest) {
            return Ok(not);
        }
        let mut arriving = match self.arriving.take() {
            _ if piece.number == 0 => match self.begin(&piece)? {
                Some(arriving) => arriving,
                None => return Ok(Taken::Not { newest: self.newest }),
            },
            Some(arriving)
                if (arriving.mark, arriving.after, arriving.next) == (piece.mark, piece.after, piece.number) =>
            {
                arriving
            }
            other => {
                self.arriving = other;
                return Ok(not);
            }
        };
        for (part, bytes) in &piece.parts {
            arriving.bytes += bytes.len() as u64;
            match Part::of(*part) {
                Some(part) => arriving.draft.append(part, bytes)?,
                None => arriving.about.extend(bytes),
            }
        }
        arriving.next += 1;
        if !piece.last {
            self.arriving = Some(arriving);
            return Ok(Taken::Some);
        }
        if arriving.bytes != piece.bytes {
            return Err(Error::Piece(format!("are {} bytes together and not {}", arriving.bytes, piece.bytes)));
        }
        let about = About::from_bytes(piece.mark.at_us, piece.lanes, &arriving.about);
        arriving.draft.commit(about.ok_or_else(|| Error::Piece("say nothing about the checkpoint".into()))?)?;
        self.newest = Some(piece.mark);
        Ok(Taken::Whole)
    }

    /// `None` where the checkpoint has nothing to stand on any more.
    fn begin(&mut self, piece: &Piece) -> Result<Option<Arriving>, Error> {
        let Piece { mark, base, after, .. } = *piece;
        let newest = hold(&self.store.0.state).newest(&self.name);
        let begun = match base {
            None if newest.is_some_and(|newest| newest >= mark.epoch) => {
                self.store.begin_instead(&self.name, mark.epoch)
            }
            _ => self.store.begin(&self.name, mark.epoch, base.map(|base| base.epoch)),
        };
        match begun {
            Ok(draft) => Ok(Some(Arriving { mark, after, draft, about: Vec::new(), next: 0, bytes: 0 })),
            // Found to be damaged since.
            Err(Error::Base { .. } | Error::Stale { .. }) => {
                self.newest = None;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}
