//! What the store is held against: devices whose state is known at each epoch.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use ringhold_kernels::checkpoint::{self, Cut, Kind, Record};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::message::{self, Header};
use ringhold_storage::checkpoints::{About, Checkpoints, Draft, Error, Part, Type};

pub const LANES: u32 = 2;
pub const NAME: &str = "storage.test";
const TYPE: TypeId = TypeId::of(NAME);

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

/// A device at an epoch: what its checkpoint stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    pub actors: BTreeMap<u64, Vec<u8>>,
    /// Everything else, as it was appended.
    pub others: Vec<(Part, Vec<u8>)>,
}

/// A device that changes from epoch to epoch.
#[derive(Clone, Debug, Default)]
pub struct Device {
    pub epoch: u64,
    pub content: Content,
    /// What was changed since the base; a state, or that it was removed.
    changed: BTreeMap<u64, Option<Vec<u8>>>,
}

impl Device {
    /// The next epoch: some actors changed, some gone, other messages under way.
    pub fn step(&mut self, random: &mut Random, actors: usize, state_bytes: usize) {
        self.epoch += 1;
        self.changed.clear();
        for _ in 0..random.below(4) {
            let key = random.below(actors) as u64;
            let state = vec![self.epoch as u8; random.below(state_bytes)];
            let gone = random.below(4) == 0;
            // One that never was is not removed.
            if gone && !self.content.actors.contains_key(&key) {
                continue;
            }
            self.changed.insert(key, (!gone).then_some(state));
        }
        for (key, state) in &self.changed {
            match state {
                Some(state) => self.content.actors.insert(*key, state.clone()),
                None => self.content.actors.remove(key),
            };
        }
        self.content.others.clear();
        for lane in 0..LANES {
            let mut bytes = Vec::new();
            for n in 0..random.below(3) {
                let (header, payload) = message(self.epoch, n as u64);
                checkpoint::push_message(&mut bytes, Kind::Queued, 0, &header, &payload);
            }
            let (header, payload) = message(self.epoch, 9);
            checkpoint::push_timer(&mut bytes, self.epoch * 1_000, &header, &payload);
            checkpoint::push_cut(&mut bytes, &Cut { epoch: self.epoch, lane, ..Cut::default() });
            self.content.others.push((Part::Lane(lane), bytes));
        }
        let mut bytes = Vec::new();
        checkpoint::push_node(&mut bytes, 7, &self.epoch.to_le_bytes());
        self.content.others.push((Part::Node, bytes));
    }

    /// Writes the whole device, or what has changed, in pieces.
    pub fn write(&self, draft: &mut Draft, full: bool, random: &mut Random) -> Result<(), Error> {
        let whole: BTreeMap<u64, Option<Vec<u8>>>;
        let actors = if full {
            whole = self.content.actors.iter().map(|(key, state)| (*key, Some(state.clone()))).collect();
            &whole
        } else {
            &self.changed
        };
        let mut lanes = vec![Vec::new(); LANES as usize];
        for (key, state) in actors {
            let (lane, id) = (&mut lanes[*key as usize % LANES as usize], ActorId::new(TYPE, Key(*key)));
            match state {
                Some(state) => {
                    checkpoint::push_actor(lane, id, *key, 0, state.len()).copy_from_slice(state);
                }
                None => checkpoint::push_removed(lane, id),
            }
        }
        let lanes = lanes.into_iter().enumerate().map(|(lane, bytes)| (Part::Lane(lane as u32), bytes));
        for (part, mut bytes) in lanes.chain(self.content.others.iter().cloned()) {
            while !bytes.is_empty() {
                let rest = bytes.split_off((1 + random.below(5_000)).min(bytes.len()));
                draft.append(part, &bytes)?;
                bytes = rest;
            }
        }
        Ok(())
    }
}

fn message(epoch: u64, n: u64) -> (Header, Vec<u8>) {
    let to = ActorId::new(TYPE, Key(n));
    let payload = vec![epoch as u8; n as usize];
    (Header::new(message::Kind::Tell, to, to, payload.len(), Hlc(epoch)), payload)
}

pub fn about(epoch: u64) -> About {
    let kept = Type { name: NAME.into(), type_id: TYPE, layout_hash: 17, state_bytes: 8, actors: 0, messages: 0 };
    About { at_us: epoch * 1_000, lanes: LANES, types: vec![kept], node: epoch.to_le_bytes().to_vec() }
}

/// What the store says a checkpoint stands for.
pub fn read(checkpoints: &Checkpoints, device: &str, epoch: u64) -> Result<Content, Error> {
    let mut content = Content::default();
    checkpoints.visit(device, epoch, |part, record, bytes| {
        match record {
            Record::Actor { id, state, .. } => {
                let twice = content.actors.insert(id.key.0, state.to_vec());
                assert!(twice.is_none() && content.others.is_empty(), "each actor once, and before everything else");
            }
            _ => match content.others.last_mut() {
                Some((last, so_far)) if *last == part => so_far.extend(bytes),
                _ => content.others.push((part, bytes.to_vec())),
            },
        }
        Ok::<_, Error>(())
    })?;
    content.others.sort_by_key(|(part, _)| *part);
    Ok(content)
}
