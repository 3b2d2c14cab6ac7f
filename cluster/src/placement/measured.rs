//! What each shard costs its device, made of what is measured.

use std::collections::BTreeMap;

use super::devices::{Devices, weight};
use super::outcome::{Barred, Measure};
use super::view::{DeviceLoad, ShardLoad, View};
use crate::control::state::{DeviceNumber, State};

/// Load of one message in a second, of one permille of a device of weight 1: fine enough to be shared out among shards.
const PER_SECOND: u64 = 1_000;
const PER_PERMILLE: u64 = 1_000_000;
/// More than this nothing handles in a second.
const PER_SECOND_MAX: u64 = 1_000_000_000_000;

/// Loads of all shards, to be compared with each other.
pub(super) struct Loads {
    pub measure: Measure,
    /// By shard; all 0 where nothing is known.
    pub of_shard: Vec<u64>,
    /// Devices that have shards and of whose load nothing is known.
    pub unknown: Vec<DeviceNumber>,
}

impl Loads {
    /// `shards` are those of each device.
    pub fn of(state: &State, view: &View, devices: &Devices, shards: &BTreeMap<DeviceNumber, Vec<u32>>) -> Loads {
        let gone = |device| matches!(devices.barred.get(device), Some(Barred::NodeGone(_) | Barred::Failed));
        let here = || shards.iter().filter(|(device, shards)| !shards.is_empty() && !gone(device));
        let measured = |device: &DeviceNumber| view.devices.get(device).copied().unwrap_or_default();
        let per_second = |device: &DeviceNumber, shards: &[u32]| {
            let of_shard = |load: &ShardLoad| load.per_second.map(|n| n.min(PER_SECOND_MAX) * PER_SECOND);
            let total = measured(device).per_second.map(|n| n.min(PER_SECOND_MAX) * PER_SECOND);
            spread(total, shards, |shard| view.shards.get(shard).and_then(of_shard))
        };
        let busy = |load: &DeviceLoad| load.busy_permille.map(|busy| u64::from(busy.min(1_000)));
        let mut loads = Loads { measure: Measure::Nothing, of_shard: vec![0; state.shards.len()], unknown: Vec::new() };
        let mut put = |shards: &[u32], loads_of: Vec<u64>| {
            for (shard, load) in shards.iter().zip(loads_of) {
                loads.of_shard[*shard as usize] = load;
            }
        };
        if here().next().is_some() && here().all(|(device, _)| busy(&measured(device)).is_some()) {
            loads.measure = Measure::BusyPermille;
            for (device, shards) in here() {
                let total = busy(&measured(device)).unwrap_or(0) * weight(state, *device).max(1) * PER_PERMILLE;
                let parts = per_second(device, shards).filter(|parts| parts.iter().any(|part| *part > 0));
                put(shards, in_proportion(total, parts.unwrap_or_else(|| vec![1; shards.len()])));
            }
        } else {
            let known = here().map(|(device, shards)| (device, shards, per_second(device, shards)));
            let known: Vec<_> = known.collect();
            loads.unknown = known.iter().filter(|(_, _, load)| load.is_none()).map(|(device, ..)| **device).collect();
            if !loads.unknown.is_empty() || known.is_empty() {
                return loads;
            }
            loads.measure = Measure::PerSecond;
            known.into_iter().for_each(|(_, shards, load)| put(shards, load.unwrap_or_default()));
        }
        // Of what is gone there is nothing to measure: it is taken for as busy as the others.
        let count = here().map(|(_, shards)| shards.len() as u64).sum::<u64>().max(1);
        let total: u128 = loads.of_shard.iter().map(|load| u128::from(*load)).sum();
        let mean = (total / u128::from(count)) as u64;
        for (_, shards) in shards.iter().filter(|(device, _)| gone(device)) {
            shards.iter().for_each(|shard| loads.of_shard[*shard as usize] = mean);
        }
        loads
    }

    /// For people: a sum of loads on a device, by the measure.
    pub fn shown(&self, state: &State, device: DeviceNumber, load: u64) -> Option<u64> {
        match self.measure {
            Measure::Nothing => None,
            Measure::PerSecond => Some(load / PER_SECOND),
            Measure::BusyPermille => Some(load / (PER_PERMILLE * weight(state, device).max(1))),
        }
    }
}

/// What is left of memory, and what shards take of it.
pub(super) struct Memory {
    /// By shard; 0 where nothing is known.
    pub of_shard: Vec<u64>,
    /// What may be given to devices; those of which nothing is known are left out.
    room: BTreeMap<DeviceNumber, u64>,
}

impl Memory {
    /// `shards` are those of each device.
    pub fn of(state: &State, view: &View, shards: &BTreeMap<DeviceNumber, Vec<u32>>) -> Memory {
        let mut memory = Memory { of_shard: vec![0; state.shards.len()], room: BTreeMap::new() };
        for (device, shards) in shards {
            let measured = view.devices.get(device).copied().unwrap_or_default();
            let of_shard = |shard: &u32| view.shards.get(shard).and_then(|load| load.memory_bytes);
            if let Some(bytes) = spread(measured.memory_used_bytes, shards, of_shard) {
                for (shard, bytes) in shards.iter().zip(bytes) {
                    memory.of_shard[*shard as usize] = bytes;
                }
            }
            let used = measured.memory_used_bytes.unwrap_or(0);
            let all = state.devices.get(device).and_then(|device| device.about.memory_bytes);
            if let Some(free) = measured.memory_free_bytes.or_else(|| Some(all?.saturating_sub(used))) {
                // A tenth of a device's memory is left for what its actors make.
                memory.room.insert(*device, free.saturating_sub(free.saturating_add(used) / 10));
            }
        }
        memory
    }

    pub fn fits(&self, device: DeviceNumber, bytes: u64) -> bool {
        self.room.get(&device).is_none_or(|room| bytes <= *room)
    }

    /// What a device gives away makes no room on it: that is so only when all is over.
    pub fn take(&mut self, device: DeviceNumber, bytes: u64) {
        if let Some(room) = self.room.get_mut(&device) {
            *room = room.saturating_sub(bytes);
        }
    }

    /// Undoes a [`Memory::take`].
    pub fn give_back(&mut self, device: DeviceNumber, bytes: u64) {
        if let Some(room) = self.room.get_mut(&device) {
            *room += bytes;
        }
    }
}

/// What each of these shards has of a total: what is known of it, or as much as each of the others of which nothing is known.
/// `None` where nothing is known of any.
fn spread(total: Option<u64>, shards: &[u32], known: impl Fn(&u32) -> Option<u64>) -> Option<Vec<u64>> {
    let each: Vec<Option<u64>> = shards.iter().map(known).collect();
    let sum = each.iter().flatten().fold(0u64, |sum, part| sum.saturating_add(*part));
    let unknown = each.iter().filter(|part| part.is_none()).count() as u64;
    let rest = match total {
        _ if unknown == 0 => 0,
        Some(total) => total.saturating_sub(sum) / unknown,
        None => sum.checked_div(shards.len() as u64 - unknown)?,
    };
    Some(each.into_iter().map(|part| part.unwrap_or(rest)).collect())
}

fn in_proportion(total: u64, parts: Vec<u64>) -> Vec<u64> {
    let sum: u128 = parts.iter().map(|part| u128::from(*part)).sum();
    let part = |part: u64| (u128::from(total) * u128::from(part)).checked_div(sum).unwrap_or(0) as u64;
    parts.into_iter().map(part).collect()
}
