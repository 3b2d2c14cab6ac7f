//! A plan that is being made.

use std::collections::BTreeMap;

use super::Want;
use super::devices::{Devices, Fullness, Role};
use super::measured::{Loads, Memory};
use super::near::near;
use super::outcome::{Barred, Measure, Move, Obstacle, Plan, Share, Why};
use super::view::View;
use crate::control::state::{DeviceNumber, State, ranges};

/// What is known, and what has been decided so far.
pub(super) struct Draft<'a> {
    pub state: &'a State,
    pub view: &'a View,
    pub want: Want,
    pub devices: Devices,
    /// Shards of each device that the cluster has, by number.
    pub shards: BTreeMap<DeviceNumber, Vec<u32>>,
    pub roles: BTreeMap<DeviceNumber, Role>,
    pub loads: Loads,
    pub memory: Memory,
    pub obstacles: Vec<Obstacle>,
    to: BTreeMap<u32, (DeviceNumber, Why)>,
}

impl<'a> Draft<'a> {
    pub fn new(state: &'a State, view: &'a View, want: Want) -> Draft<'a> {
        let devices = Devices::of(state, view, want);
        let mut shards: BTreeMap<DeviceNumber, Vec<u32>> =
            state.devices.keys().map(|device| (*device, Vec::new())).collect();
        let mut orphans = Vec::new();
        for (number, shard) in (0..).zip(&state.shards) {
            match shard.owner.and_then(|owner| shards.get_mut(&owner)) {
                Some(of_device) => of_device.push(number),
                None => orphans.push(number),
            }
        }
        let roles = state.devices.keys().map(|device| (*device, devices.role(state, want, *device))).collect();
        let loads = Loads::of(state, view, &devices, &shards);
        let memory = Memory::of(state, view, &shards);
        let obstacles = if orphans.is_empty() { Vec::new() } else { vec![Obstacle::NoOwner(ranges(orphans))] };
        Draft { state, view, want, devices, shards, roles, loads, memory, obstacles, to: BTreeMap::new() }
    }

    /// Decides that shards go to a device. That they fit into its memory is for the caller to have seen to.
    pub fn send(&mut self, shards: impl IntoIterator<Item = u32>, to: DeviceNumber, why: Why) {
        for shard in shards {
            self.to.insert(shard, (to, why));
        }
    }

    /// Whether a shard has been sent anywhere.
    pub fn is_sent(&self, shard: u32) -> bool {
        self.to.contains_key(&shard)
    }

    /// Devices whose shards cannot stay, and that have any.
    pub fn barred(&self) -> Vec<DeviceNumber> {
        let barred = self.roles.iter().filter(|(_, role)| matches!(role, Role::Must(_))).map(|(device, _)| *device);
        barred.filter(|device| !self.shards[device].is_empty()).collect()
    }

    /// Where shards of a device are best sent: to those whose nodes hold what it has, if it is gone and there are any.
    pub fn candidates(&self, from: DeviceNumber) -> Vec<DeviceNumber> {
        let all = || self.devices.weights.keys().copied();
        let gone = matches!(self.devices.barred.get(&from), Some(Barred::NodeGone(_)));
        let holders = self.view.copies.get(&from).filter(|_| gone);
        let holds =
            |device: &DeviceNumber| holders.is_some_and(|nodes| nodes.contains(&self.state.devices[device].node));
        let holding: Vec<DeviceNumber> = all().filter(holds).collect();
        if holding.is_empty() { all().collect() } else { holding }
    }

    /// Says that shards of a device have nowhere to go.
    pub fn nowhere(&mut self, shards: &[u32], from: DeviceNumber) {
        let shards = ranges(shards.iter().copied());
        self.obstacles.push(if self.devices.weights.is_empty() {
            Obstacle::Nowhere { shards, from, barred: self.devices.barred.clone() }
        } else {
            Obstacle::Memory { shards, from, to: None }
        });
    }

    /// The plan that has been decided on.
    pub fn finish(self) -> Plan {
        let owner = |shard: u32| self.state.shards[shard as usize].owner;
        let mut moves: BTreeMap<(DeviceNumber, DeviceNumber, Why), Vec<u32>> = BTreeMap::new();
        for (shard, (to, why)) in &self.to {
            if let Some(from) = owner(*shard).filter(|from| from != to) {
                moves.entry((from, *to, *why)).or_default().push(*shard);
            }
        }
        let (before, after) = (self.loaded(|_| None), self.loaded(|shard| self.to.get(&shard).map(|(to, _)| *to)));
        let mut moves: Vec<Move> = moves
            .into_iter()
            .map(|((from, to, why), shards)| Move {
                shards: ranges(shards),
                from,
                to,
                why,
                near: near(self.state, from, to),
            })
            .collect();
        // What cannot stay first, then what helps most: from the fullest device.
        let fullness = |device: DeviceNumber| {
            let (shards, load) = before[&device];
            let load = if self.loads.measure == Measure::Nothing { u64::from(shards) } else { load };
            Fullness { load, weight: self.devices.weights.get(&device).copied().unwrap_or(1) }
        };
        moves.sort_by_key(|each| {
            let barred = matches!(each.why, Why::Barred(_));
            (!barred, std::cmp::Reverse(fullness(each.from)), each.from, each.near, each.to)
        });
        let shown = |all: &BTreeMap<DeviceNumber, (u32, u64)>| {
            let share = |(device, (shards, load)): (&DeviceNumber, &(u32, u64))| {
                (*device, Share { shards: *shards, load: self.loads.shown(self.state, *device, *load) })
            };
            all.iter().map(share).collect()
        };
        Plan {
            moves,
            measure: self.loads.measure,
            before: shown(&before),
            after: shown(&after),
            obstacles: self.obstacles,
        }
    }

    /// Shards of each device and their loads, where some of them are elsewhere.
    fn loaded(&self, elsewhere: impl Fn(u32) -> Option<DeviceNumber>) -> BTreeMap<DeviceNumber, (u32, u64)> {
        let mut loaded: BTreeMap<DeviceNumber, (u32, u64)> =
            self.state.devices.keys().map(|device| (*device, (0, 0))).collect();
        for (from, shards) in &self.shards {
            for shard in shards {
                let device = elsewhere(*shard).unwrap_or(*from);
                if let Some((count, load)) = loaded.get_mut(&device) {
                    *count += 1;
                    *load += self.loads.of_shard[*shard as usize];
                }
            }
        }
        loaded
    }

    /// How many shards those devices have that may be given more.
    pub fn counts(&self) -> BTreeMap<DeviceNumber, u64> {
        self.devices.weights.keys().map(|device| (*device, self.shards[device].len() as u64)).collect()
    }

    /// Devices whose shards cannot stay, by where these may go.
    pub fn barred_by_candidates(&self) -> BTreeMap<Vec<DeviceNumber>, Vec<DeviceNumber>> {
        let mut alike: BTreeMap<Vec<DeviceNumber>, Vec<DeviceNumber>> = BTreeMap::new();
        for device in self.barred() {
            alike.entry(self.candidates(device)).or_default().push(device);
        }
        alike
    }
}
