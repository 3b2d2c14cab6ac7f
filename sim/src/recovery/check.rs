//! What a run must have kept, judged from what the clients heard and what the actors had written down in the end.

use std::collections::{BTreeMap, BTreeSet};

use ringhold::ActorId;
use ringhold_kernels::actor::Actor;
use ringhold_kernels::id::{Key, TypeId};
use ringhold_kernels::message::Reason;
use ringhold_kernels::outbox::shard_of;
use ringhold_kernels::plain::Plain;

use super::actors::{journal, sketch};
use super::plan::{Does, OWN, Operation};
use crate::scenario::check::Said;

/// Everything that was seen of a run.
pub struct Evidence {
    /// The types of which nothing goes out before it is durable.
    pub committed: BTreeSet<TypeId>,
    /// To how many devices shards were dealt out, and stayed; `None` where they may have moved.
    pub devices: Option<usize>,
    /// What each client did, in its order, and what it heard.
    pub operations: Vec<Vec<(Operation, Said)>>,
    /// What the node refused to do, because it was short of something.
    pub refused: BTreeSet<u32>,
    /// What each actor had written down at the end; `None` where there is no such actor.
    pub states: Vec<(ActorId, Option<Vec<u8>>)>,
    /// How often a node's power failed, and whether a device's host died.
    pub failures: u64,
    /// Nodes were stopped in good order while clients went on: each refuses what it cannot let in within its time.
    pub stops: bool,
    pub crashed: bool,
}

/// What an actor has written down.
#[derive(Clone, Debug, Default)]
struct Log {
    entries: Vec<u32>,
    /// The hash that it had after each.
    trails: Vec<u64>,
}

/// A message that followed another: at what place its sender has the first and its receiver the second, and which the first is.
type Sent = (usize, usize, u32);

impl Log {
    fn read(id: ActorId, bytes: &[u8]) -> Option<Log> {
        let (count, trail, entries) = if id.type_id == journal::Actor::TYPE {
            let state = journal::State::from_bytes(bytes)?;
            (state.count, state.trail, state.entries)
        } else {
            let state = sketch::State::from_bytes(bytes)?;
            (state.count, state.trail, state.entries)
        };
        let entries = entries.get(..count as usize)?.to_vec();
        let mut hash = 0u64;
        let step = |what: &u32| {
            hash = (hash ^ u64::from(*what)).wrapping_mul(0x0000_0100_0000_01b3);
            hash
        };
        let trails: Vec<u64> = entries.iter().map(step).collect();
        (trails.last().copied().unwrap_or(0) == trail).then_some(Log { entries, trails })
    }
}

/// An actor: its type and its key.
type Place = (u32, u64);

fn place_of(id: ActorId) -> Place {
    (id.type_id.0, id.key.0)
}

struct Judge<'a> {
    evidence: &'a Evidence,
    logs: BTreeMap<Place, Log>,
    /// Where each word was put.
    places: BTreeMap<u32, Vec<(Place, usize)>>,
    violations: Vec<String>,
}

/// Violations that are told of one run: the first ones say what is to be known.
const VIOLATIONS_MAX: usize = 12;

/// Judges a run. What it says is empty where everything was kept.
pub fn check(evidence: &Evidence) -> Vec<String> {
    let mut judge = Judge { evidence, logs: BTreeMap::new(), places: BTreeMap::new(), violations: Vec::new() };
    judge.begin();
    judge.places();
    judge.follow();
    judge.answers();
    judge.orders();
    judge.own();
    judge.violations
}

impl Judge<'_> {
    fn violated(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what);
        }
    }

    /// All operations, in the order of each client.
    fn operations(&self) -> impl Iterator<Item = &(Operation, Said)> {
        self.evidence.operations.iter().flatten()
    }

    fn begin(&mut self) {
        let evidence = self.evidence;
        for (id, bytes) in &evidence.states {
            let Some(bytes) = bytes else { continue };
            match Log::read(*id, bytes) {
                Some(log) => {
                    self.logs.insert(place_of(*id), log);
                }
                None => self.violated(format!("the state of {} is half of one", name(place_of(*id)))),
            }
        }
        for (id, log) in &self.logs {
            for (at, what) in log.entries.iter().enumerate() {
                self.places.entry(*what).or_default().push((*id, at));
            }
        }
    }

    /// What a type that need not wait for it has sent to another device may be lost or come twice, where a node's power fails or a
    /// host dies.
    fn is_between_devices(&self, operation: &Operation) -> bool {
        let Does::Follow(next) = operation.does else { return false };
        let held = self.evidence.committed.contains(&operation.to.type_id);
        let kept = held || (self.evidence.failures == 0 && !self.evidence.crashed);
        let (from, to) = (shard_of(operation.to.key), shard_of(next.key));
        let apart = match self.evidence.devices {
            Some(devices) => from % devices != to % devices,
            // They may have been anywhere, but those of one shard together.
            None => from != to,
        };
        !kept && apart
    }

    /// Everything was put where it was sent to, and once.
    fn places(&mut self) {
        let mut known: BTreeMap<u32, (Place, bool)> = BTreeMap::new();
        for (operation, said) in self.operations() {
            if *said != Said::NotSent {
                known.insert(operation.what, (place_of(operation.to), false));
                if let Does::Follow(next) = operation.does {
                    known.insert(operation.what + 1, (place_of(next), self.is_between_devices(operation)));
                }
            }
        }
        let mut wrong = Vec::new();
        for (what, places) in &self.places {
            match known.get(what) {
                None => wrong.push(format!("{} was put, and nobody sent it", word(*what))),
                Some((to, loose)) => {
                    if let Some((id, _)) = places.iter().find(|(id, _)| id != to) {
                        wrong.push(format!("{} was put by {}, and sent to {}", word(*what), name(*id), name(*to)));
                    }
                    if places.len() > 1 && !loose {
                        wrong.push(format!("{} was put twice, by {}", word(*what), name(*to)));
                    }
                }
            }
        }
        wrong.into_iter().for_each(|wrong| self.violated(wrong));
    }

    /// What follows from an operation is there if the operation is, and not otherwise.
    fn follow(&mut self) {
        let mut wrong = Vec::new();
        for (operation, _) in self.operations() {
            if !matches!(operation.does, Does::Follow(_)) || self.is_between_devices(operation) {
                continue;
            }
            let there = |what| self.places.contains_key(&what);
            if there(operation.what) != there(operation.what + 1) {
                wrong.push(format!("{} was done by half", word(operation.what)));
            }
        }
        wrong.into_iter().for_each(|wrong| self.violated(wrong));
    }

    /// What was answered is kept where that was promised, and as it was said to be.
    fn answers(&mut self) {
        let evidence = self.evidence;
        let mut wrong = Vec::new();
        for (operation, said) in self.operations() {
            let what = word(operation.what);
            let committed = evidence.committed.contains(&operation.to.type_id);
            let (at, trail) = match said {
                Said::Told | Said::NotSent | Said::Error(Reason::Overloaded) => continue,
                // It had not been let in, or was on its way to another node, which may have it.
                Said::Error(Reason::Stopping) if evidence.stops => continue,
                Said::Reply(bytes) => match journal::Reply::from_bytes(bytes) {
                    Some(journal::Reply::Put { at, trail }) => (at as usize, trail),
                    None => {
                        wrong.push(format!("{what} was answered with nonsense"));
                        continue;
                    }
                },
                said => {
                    wrong.push(format!("the client of {what} heard {said:?}"));
                    continue;
                }
            };
            if operation.to.key >= Key(OWN) {
                continue;
            }
            let places = self.places.get(&operation.what);
            if places.is_none() {
                wrong.push(format!("{what} was answered, and is not there"));
            }
            let exact = committed || (evidence.failures == 0 && !evidence.crashed);
            let is = places.map(|places| places[0]);
            if exact && let Some((id, place)) = is {
                let kept = self.logs[&id].trails[place];
                if (place, kept) != (at, trail) {
                    wrong.push(format!("{what} was said to be put at {at} ({trail:x}), and is at {place} ({kept:x})"));
                }
            }
        }
        wrong.into_iter().for_each(|wrong| self.violated(wrong));
    }

    /// What one sends another is put in its order, all of it.
    fn orders(&mut self) {
        let mut wrong = Vec::new();
        let mut last: BTreeMap<(usize, Place), usize> = BTreeMap::new();
        for (client, operations) in self.evidence.operations.iter().enumerate() {
            for (operation, said) in operations {
                if operation.to.key >= Key(OWN) || *said == Said::NotSent {
                    continue;
                }
                let pair = (client, place_of(operation.to));
                let Some(places) = self.places.get(&operation.what) else {
                    if self.evidence.refused.contains(&operation.what) {
                        continue;
                    }
                    wrong.push(format!("{} was sent, and is not there", word(operation.what)));
                    continue;
                };
                let place = places[0].1;
                if last.insert(pair, place).is_some_and(|last| last > place) {
                    wrong.push(format!("{} was put before what its client had sent first", word(operation.what)));
                }
            }
        }
        // From one actor to another: in the order in which the first has them.
        let mut sent: BTreeMap<(Place, Place), Vec<Sent>> = BTreeMap::new();
        for (operation, _) in self.operations() {
            let Does::Follow(next) = operation.does else { continue };
            let (from, to) = (self.places.get(&operation.what), self.places.get(&(operation.what + 1)));
            if let (Some(from), Some(to)) = (from, to)
                && next != operation.to
                && !self.is_between_devices(operation)
            {
                sent.entry((place_of(operation.to), place_of(next))).or_default().push((
                    from[0].1,
                    to[0].1,
                    operation.what,
                ));
            }
        }
        for mut pairs in sent.into_values() {
            pairs.sort_unstable();
            for pair in pairs.windows(2).filter(|pair| pair[0].1 > pair[1].1) {
                wrong.push(format!("what follows from {} overtook what its actor had sent first", word(pair[1].2)));
            }
        }
        wrong.into_iter().for_each(|wrong| self.violated(wrong));
    }

    /// Actors with one client each, that end now and then: they have what came after the last end.
    fn own(&mut self) {
        let mut wrong = Vec::new();
        for (id, _) in self.evidence.states.iter().filter(|(id, _)| id.key >= Key(OWN)) {
            let entries = self.logs.get(&place_of(*id)).map(|log| log.entries.as_slice()).unwrap_or_default();
            let done = |operation: &Operation| {
                !self.evidence.refused.contains(&operation.what) || self.places.contains_key(&operation.what)
            };
            let of: Vec<&(Operation, Said)> = self
                .operations()
                .filter(|(operation, said)| operation.to == *id && *said != Said::NotSent && done(operation))
                .collect();
            let last_end = of.iter().rposition(|(operation, _)| operation.does == Does::Close);
            let kept: Vec<u32> =
                of[last_end.map_or(0, |at| at + 1)..].iter().map(|(operation, _)| operation.what).collect();
            if entries != kept {
                wrong.push(format!("{} has {entries:x?}, and was sent {kept:x?} since its end", name(place_of(*id))));
            }
        }
        wrong.into_iter().for_each(|wrong| self.violated(wrong));
    }
}

fn word(what: u32) -> String {
    let (source, seq) = (what >> 24, what >> 1 & 0x7f_ffff);
    format!("operation {seq} of client {source}{}", if what & 1 == 1 { ", what follows," } else { "" })
}

fn name((type_id, key): Place) -> String {
    let of = if type_id == journal::Actor::TYPE.0 { "journal" } else { "sketch" };
    format!("{of} {key}")
}
