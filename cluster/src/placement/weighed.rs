//! Units of different sizes: groups of shards that stay together, or shards of different loads.
//!
//! Even counts cannot be had of these. Instead units go from the fullest devices to the emptiest as long as that leaves the
//! fuller of the two less full than it was; so it ends, and a second look finds nothing to do.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Want;
use super::devices::{Fullness, Role};
use super::draft::Draft;
use super::outcome::{Obstacle, Why};
use super::settings::Strategy;
use crate::control::state::{DeviceNumber, ranges};

/// Shards that go together.
struct Unit {
    shards: Vec<u32>,
    size: u64,
    bytes: u64,
    /// Where it was before any was moved for balance, and where it is to be.
    home: DeviceNumber,
    at: DeviceNumber,
}

/// What is on the devices, as it changes.
struct Board {
    weights: BTreeMap<DeviceNumber, u64>,
    loads: BTreeMap<DeviceNumber, u64>,
    /// Devices, the emptiest first.
    order: BTreeSet<(Fullness, DeviceNumber)>,
    /// Of the devices by which the mean is taken.
    total: u128,
    weight: u128,
}

/// Decides what is moved where, so that loads are even or groups together.
pub(super) fn plan(draft: &mut Draft<'_>) {
    let settings = &draft.state.settings.placement;
    let by_load = settings.strategy == Strategy::Load;
    // Where nothing is measured shards count, and they break ties where something is.
    let sizes: Vec<u64> = draft.loads.of_shard.iter().map(|load| if by_load { load + 1 } else { 1 }).collect();
    let groups: &[_] = if by_load { &[] } else { &settings.affinity.0 };
    let rest = Duration::from_secs(u64::from(settings.load_rest_s));
    let band = if by_load { u128::from(settings.load_band_percent) } else { 0 };

    let mut board = Board::new(draft, &sizes);
    let (mut units, mut leaving) = (Vec::new(), Vec::new());
    let mut grouped = vec![false; sizes.len()];
    for group in groups {
        let all = group.iter().flat_map(|range| range.start..range.end.min(sizes.len() as u32));
        let all: Vec<u32> = all.filter(|shard| role(draft, *shard).is_some()).collect();
        all.iter().for_each(|shard| grouped[*shard as usize] = true);
        gather(draft, &mut board, all, &sizes, &mut units, &mut leaving);
    }
    for shard in (0..sizes.len() as u32).filter(|shard| !grouped[*shard as usize]) {
        let rests = by_load && draft.view.moved_ago.get(&shard).is_some_and(|ago| *ago < rest);
        match role(draft, shard) {
            Some((from, Role::May)) if !rests => units.push(Unit::new(draft, vec![shard], from, &sizes)),
            Some((_, Role::Must(_))) => leaving.push(vec![shard]),
            _ => {}
        }
    }
    leave(draft, &mut board, leaving, &sizes, &mut units);
    match draft.want {
        Want::Drain(_) | Want::Fill => {}
        Want::Rebalance if by_load && !draft.loads.unknown.is_empty() => {
            draft.obstacles.push(Obstacle::LoadUnknown(draft.loads.unknown.clone()));
        }
        Want::Rebalance => level(draft, &mut board, units, None, band),
        Want::DeviceAdded(added) => level(draft, &mut board, units, Some(added), 0),
    }
}

/// The device of a shard, and what may be done with it.
fn role(draft: &Draft<'_>, shard: u32) -> Option<(DeviceNumber, Role)> {
    let owner = draft.state.shards[shard as usize].owner?;
    draft.roles.get(&owner).map(|role| (owner, *role))
}

fn bytes(draft: &Draft<'_>, shards: &[u32]) -> u64 {
    shards.iter().map(|shard| draft.memory.of_shard[*shard as usize]).sum()
}

/// Why a shard that cannot stay where it is goes.
fn why(draft: &Draft<'_>, shard: u32) -> Why {
    match role(draft, shard) {
        Some((_, Role::Must(barred))) => Why::Barred(barred),
        _ => Why::Together,
    }
}

/// Brings those of a group that may be moved to the device that has most of it.
fn gather(
    draft: &mut Draft<'_>,
    board: &mut Board,
    group: Vec<u32>,
    sizes: &[u64],
    units: &mut Vec<Unit>,
    leaving: &mut Vec<Vec<u32>>,
) {
    let owner = |shard: u32| draft.state.shards[shard as usize].owner;
    let mut counts: BTreeMap<DeviceNumber, u32> = BTreeMap::new();
    for device in group.iter().filter_map(|shard| owner(*shard)).filter(|device| board.weights.contains_key(device)) {
        *counts.entry(device).or_default() += 1;
    }
    let most = counts.iter().max_by_key(|(device, count)| (**count, Reverse(**device))).map(|(device, _)| *device);
    let must = |shard: &u32| matches!(role(draft, *shard), Some((_, Role::Must(_))));
    let may = |shard: &u32| matches!(role(draft, *shard), Some((_, Role::May)));
    let Some(home) = most else {
        let group: Vec<u32> = group.into_iter().filter(must).collect();
        leaving.extend((!group.is_empty()).then_some(group));
        return;
    };
    let astray: Vec<u32> = group.iter().copied().filter(|shard| owner(*shard) != Some(home)).collect();
    let gathers = draft.want == Want::Rebalance;
    let coming: Vec<u32> = astray.iter().copied().filter(|shard| must(shard) || gathers && may(shard)).collect();
    let needed = bytes(draft, &coming);
    if !draft.memory.fits(home, needed) {
        let (must, may): (Vec<u32>, Vec<u32>) = coming.into_iter().partition(must);
        if let Some(from) = may.first().and_then(|shard| owner(*shard)) {
            let shards = ranges(may.into_iter().filter(|shard| owner(*shard) == Some(from)));
            draft.obstacles.push(Obstacle::Memory { shards, from, to: Some(home) });
        }
        leaving.extend((!must.is_empty()).then_some(must));
        return;
    }
    // Only a group that is whole is moved as one.
    let whole = coming.len() == astray.len();
    draft.memory.take(home, needed);
    for shard in coming {
        if let Some(from) = owner(shard) {
            board.shift(Some(from), home, sizes[shard as usize]);
        }
        let why = why(draft, shard);
        draft.send([shard], home, why);
    }
    if whole && matches!(draft.roles[&home], Role::May) {
        units.push(Unit::new(draft, group, home, sizes));
    }
}

/// Finds places for what cannot stay, the largest first.
fn leave(draft: &mut Draft<'_>, board: &mut Board, leaving: Vec<Vec<u32>>, sizes: &[u64], units: &mut Vec<Unit>) {
    let size = |shards: &[u32]| shards.iter().map(|shard| sizes[*shard as usize]).sum::<u64>();
    let mut leaving: Vec<(u64, Vec<u32>)> = leaving.into_iter().map(|shards| (size(&shards), shards)).collect();
    leaving.sort_by(|(a, of_a), (b, of_b)| b.cmp(a).then(of_a.cmp(of_b)));
    let mut candidates: BTreeMap<DeviceNumber, BTreeSet<DeviceNumber>> = BTreeMap::new();
    let mut none: BTreeMap<DeviceNumber, Vec<u32>> = BTreeMap::new();
    for (size, shards) in leaving {
        let from = draft.state.shards[shards[0] as usize].owner.expect("what leaves a device has been there");
        let candidates = candidates.entry(from).or_insert_with(|| draft.candidates(from).into_iter().collect());
        let needed = bytes(draft, &shards);
        let fits = |device: DeviceNumber| draft.memory.fits(device, needed);
        let best = board.emptiest_with(size, |device| candidates.contains(&device) && fits(device));
        let Some(to) = best.or_else(|| board.emptiest_with(size, fits)) else {
            for shard in shards {
                none.entry(draft.state.shards[shard as usize].owner.unwrap_or(from)).or_default().push(shard);
            }
            continue;
        };
        draft.memory.take(to, needed);
        board.shift(None, to, size);
        for shard in &shards {
            let why = why(draft, *shard);
            draft.send([*shard], to, why);
        }
        units.push(Unit::new(draft, shards, to, sizes));
    }
    for (from, mut shards) in none {
        shards.sort_unstable();
        draft.nowhere(&shards, from);
    }
}

/// Moves units from the fullest devices to the emptiest, or only to the one that was added.
fn level(draft: &mut Draft<'_>, board: &mut Board, mut units: Vec<Unit>, added: Option<DeviceNumber>, band: u128) {
    let begun = board.loads.clone();
    let mut held: BTreeMap<DeviceNumber, BTreeSet<(u64, usize)>> = BTreeMap::new();
    for (number, unit) in units.iter().enumerate() {
        held.entry(unit.at).or_default().insert((unit.size, number));
    }
    let (all, all_weight) = (board.total, board.weight);
    // Where there is no band, devices that are too full and cannot give anything say nothing of the others: these are then looked
    // at without them, and once they are even, all are again.
    let (mut moved, mut stuck) = (false, BTreeSet::new());
    loop {
        let (mut moved_now, mut stuck_now) = (false, BTreeSet::new());
        let fullest: Vec<DeviceNumber> = board.order.iter().rev().map(|(_, device)| *device).collect();
        for from in fullest.into_iter().filter(|from| added != Some(*from) && !stuck.contains(from)) {
            if !board.is_over(board.loads[&from], from, 2 * band) {
                continue;
            }
            while board.is_over(board.loads[&from], from, band) {
                let Some((unit, to)) = choose(draft, board, &units, &held, from, added, band) else {
                    stuck_now.insert(from);
                    break;
                };
                let each = &mut units[unit];
                if each.at != each.home {
                    draft.memory.give_back(each.at, each.bytes);
                }
                if to != each.home {
                    draft.memory.take(to, each.bytes);
                }
                each.at = to;
                board.shift(Some(from), to, each.size);
                held.entry(from).or_default().remove(&(each.size, unit));
                held.entry(to).or_default().insert((each.size, unit));
                moved_now = true;
            }
        }
        moved |= moved_now;
        if moved_now {
            continue;
        }
        if band == 0 && !stuck_now.is_empty() {
            stuck_now.iter().for_each(|device| board.leave_out(*device));
            stuck.append(&mut stuck_now);
        } else if moved {
            (board.total, board.weight) = (all, all_weight);
            (moved, stuck) = (false, BTreeSet::new());
        } else {
            break;
        }
    }
    let by_load = draft.state.settings.placement.strategy == Strategy::Load;
    for unit in units.into_iter().filter(|unit| unit.at != unit.home) {
        let (load, weight) = (u128::from(begun[&unit.home]), u128::from(board.weights[&unit.home]));
        let why = match draft.want {
            Want::DeviceAdded(_) => Why::Joined,
            _ if by_load => Why::Load { percent: (load * all_weight * 100 / (all * weight)) as u32 },
            _ => Why::Even { has: load as u32, share: (all * weight / all_weight) as u32 },
        };
        for shard in unit.shards {
            // One that came to its group first has its own reason.
            let why = if draft.is_sent(shard) { self::why(draft, shard) } else { why };
            draft.send([shard], unit.at, why);
        }
    }
}

/// Which unit of a device is best moved, and where to: the smallest that is enough and leaves it with no less than the mean, or
/// else the largest that is not too much, or else the smallest that is.
fn choose(
    draft: &Draft<'_>,
    board: &Board,
    units: &[Unit],
    held: &BTreeMap<DeviceNumber, BTreeSet<(u64, usize)>>,
    from: DeviceNumber,
    added: Option<DeviceNumber>,
    band: u128,
) -> Option<(usize, DeviceNumber)> {
    let takes = |to: DeviceNumber, size: u64| {
        let over = |half_percents| board.is_over(board.loads[&to] + size, to, half_percents);
        let may = match added {
            Some(added) => to == added && !over(0),
            // Nobody is to give away what he has for what he gets, unless it is by counts.
            None => band == 0 || !over(2 * band) || held.get(&to).is_none_or(BTreeSet::is_empty),
        };
        may && board.is_gain(from, to, size, band)
    };
    let anybody = |size: u64| board.emptier_than(from).any(|to| takes(to, size));
    let here = held.get(&from)?;
    // Shards with next to no load are no help to a device with too much.
    let by_load = draft.state.settings.placement.strategy == Strategy::Load;
    let least = if by_load { board.loads[&from] / (here.len().max(1) as u64 * 10) } else { 0 };
    let (smallest, _) = here.range((least, 0)..).next()?;
    if !anybody(*smallest) {
        return None;
    }
    let (enough, most) = (board.excess(from, band).max(least), board.excess(from, 0).max(least));
    let best = here.range((enough, 0)..=(most, usize::MAX));
    let small = here.range((least, 0)..(enough, 0)).rev();
    let large = here.range((most, usize::MAX)..);
    let mut too_large = None;
    for (size, unit) in best.chain(small).chain(large) {
        if too_large == Some(*size) {
            continue;
        }
        let fits = |to: &DeviceNumber| *to == units[*unit].home || draft.memory.fits(*to, units[*unit].bytes);
        if let Some(to) = board.emptier_than(from).find(|to| takes(*to, *size) && fits(to)) {
            return Some((*unit, to));
        }
        too_large = (!anybody(*size)).then_some(*size);
    }
    None
}

impl Unit {
    fn new(draft: &Draft<'_>, shards: Vec<u32>, home: DeviceNumber, sizes: &[u64]) -> Unit {
        let size = shards.iter().map(|shard| sizes[*shard as usize]).sum();
        Unit { bytes: bytes(draft, &shards), shards, size, home, at: home }
    }
}

impl Board {
    fn new(draft: &Draft<'_>, sizes: &[u64]) -> Board {
        let weights = draft.devices.weights.clone();
        let load = |device: &DeviceNumber| draft.shards[device].iter().map(|shard| sizes[*shard as usize]).sum();
        let loads: BTreeMap<DeviceNumber, u64> = weights.keys().map(|device| (*device, load(device))).collect();
        let order = loads.iter().map(|(device, load)| (Fullness { load: *load, weight: weights[device] }, *device));
        Board {
            order: order.collect(),
            total: loads.values().map(|load| u128::from(*load)).sum(),
            weight: weights.values().map(|weight| u128::from(*weight)).sum(),
            loads,
            weights,
        }
    }

    /// So much goes to a device, from another or from where nothing counts.
    fn shift(&mut self, from: Option<DeviceNumber>, to: DeviceNumber, size: u64) {
        let from = from.filter(|from| self.loads.contains_key(from));
        if from.is_none() {
            self.total += u128::from(size);
        }
        for (device, less, more) in from.map(|from| (from, size, 0)).into_iter().chain([(to, 0, size)]) {
            let weight = self.weights[&device];
            let load = self.loads.get_mut(&device).expect("each device that counts has a load");
            self.order.remove(&(Fullness { load: *load, weight }, device));
            *load = *load - less + more;
            self.order.insert((Fullness { load: *load, weight }, device));
        }
    }

    /// The mean is that of the others from now on.
    fn leave_out(&mut self, device: DeviceNumber) {
        self.total -= u128::from(self.loads[&device]);
        self.weight -= u128::from(self.weights[&device]);
    }

    /// Whether so much is over the mean by more than so many half percents of it.
    fn is_over(&self, load: u64, device: DeviceNumber, half_percents: u128) -> bool {
        u128::from(load) * self.weight * 200 > self.total * u128::from(self.weights[&device]) * (200 + half_percents)
    }

    /// By how much a device is over the mean and so many half percents of it.
    fn excess(&self, device: DeviceNumber, half_percents: u128) -> u64 {
        let most = self.total * u128::from(self.weights[&device]) * (200 + half_percents) / (self.weight * 200);
        u128::from(self.loads[&device]).saturating_sub(most) as u64
    }

    /// Whether a device that so much is moved to is then less full than the other was, by so many half percents of the mean.
    fn is_gain(&self, from: DeviceNumber, to: DeviceNumber, size: u64, half_percents: u128) -> bool {
        let (of_from, of_to) = (u128::from(self.weights[&from]), u128::from(self.weights[&to]));
        let (now, then) = (u128::from(self.loads[&from]), u128::from(self.loads[&to] + size));
        let scale = self.weight * 200;
        then * of_from * scale + self.total * half_percents * of_from * of_to < now * of_to * scale
    }

    /// Devices that are less full than this one, the emptiest first.
    fn emptier_than(&self, device: DeviceNumber) -> impl Iterator<Item = DeviceNumber> {
        let full = Fullness { load: self.loads[&device], weight: self.weights[&device] };
        self.order.range(..(full, 0)).map(|(_, device)| *device)
    }

    /// The device that is the least full with so much more, of those that may be it.
    fn emptiest_with(&self, size: u64, may: impl Fn(DeviceNumber) -> bool) -> Option<DeviceNumber> {
        let mut best: Option<(Fullness, DeviceNumber)> = None;
        for (now, device) in &self.order {
            if best.is_some_and(|(best, _)| best < *now) {
                break;
            }
            let then = (Fullness { load: now.load + size, weight: now.weight }, *device);
            if best.is_none_or(|best| then < best) && may(*device) {
                best = Some(then);
            }
        }
        best.map(|(_, device)| device)
    }
}
