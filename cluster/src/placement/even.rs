//! Even counts: how many shards each device is to have, who gives how many to whom, and which.
//!
//! How many is decided first and without a look at who is near to whom, so nearness never costs balance.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use super::Want;
use super::devices::{Fullness, Role};
use super::draft::Draft;
use super::near::{Near, near};
use super::outcome::{Barred, Obstacle, Why};
use super::settings::Strategy;
use crate::control::state::{DeviceNumber, ranges};

type Counts = BTreeMap<DeviceNumber, u64>;

/// Decides what is moved where, so that counts are even.
pub(super) fn plan(draft: &mut Draft<'_>) {
    let mut counts = draft.counts();
    let owned: Counts = draft.shards.iter().map(|(device, shards)| (*device, shards.len() as u64)).collect();
    let count = |device: DeviceNumber| (device, owned[&device]);
    match draft.want {
        Want::Rebalance | Want::DeviceAdded(_) => {
            let leaving: Counts = draft.barred().into_iter().map(count).collect();
            let total = counts.values().chain(leaving.values()).sum();
            let added = match draft.want {
                Want::DeviceAdded(added) => Some(added),
                Want::Rebalance | Want::Drain(_) | Want::Fill => None,
            };
            let shares = shares(total, &counts, &draft.devices.weights, added);
            let surplus = counts.iter().map(|(device, count)| (*device, count.saturating_sub(shares[device])));
            let mut give: Counts = surplus.chain(leaving).filter(|(_, count)| *count > 0).collect();
            let lack = shares.iter().map(|(device, share)| (*device, share.saturating_sub(counts[device])));
            let mut take: Counts = lack.filter(|(_, count)| *count > 0).collect();
            if let Some(added) = added {
                take.retain(|device, _| *device == added);
                give = largest(give, take.values().sum());
            }
            carry(draft, &mut counts, give, take, &shares);
        }
        Want::Drain(_) | Want::Fill => {
            for (candidates, from) in draft.barred_by_candidates() {
                let give: Counts = from.into_iter().map(count).collect();
                let mut poured = counts.clone();
                poured.retain(|device, _| candidates.contains(device));
                let take = pour(give.values().sum(), poured, &draft.devices.weights);
                carry(draft, &mut counts, give, take, &Counts::new());
            }
        }
    }
}

/// How many of `total` shards each device is to have: what its weight says, rounded down or up. Up where it has more than that
/// already, so that as few move as can be; then for one that was added, as others are given nothing; then where most was lost by
/// rounding; then by number.
fn shares(total: u64, counts: &Counts, weights: &Counts, added: Option<DeviceNumber>) -> Counts {
    let all: u128 = weights.values().map(|weight| u128::from(*weight)).sum();
    let exact = |weight: u64| u128::from(total) * u128::from(weight);
    let down = |weight: u64| (exact(weight) / all) as u64;
    let mut shares: Counts = weights.iter().map(|(device, weight)| (*device, down(*weight))).collect();
    let left = total - shares.values().sum::<u64>();
    let mut rounded: Vec<_> = weights
        .iter()
        .map(|(device, weight)| {
            (counts[device] <= shares[device], added != Some(*device), Reverse(exact(*weight) % all), *device)
        })
        .filter(|(_, _, Reverse(lost), _)| *lost > 0)
        .collect();
    rounded.sort();
    for (_, _, _, device) in rounded.into_iter().take(left as usize) {
        *shares.entry(device).or_default() += 1;
    }
    shares
}

/// What devices get of `more` shards, one after the other to the one that has least by its weight. Nobody loses any.
fn pour(more: u64, mut counts: Counts, weights: &Counts) -> Counts {
    let full =
        |device: DeviceNumber, count: u64| Reverse((Fullness { load: count + 1, weight: weights[&device] }, device));
    let mut next: BinaryHeap<_> = counts.iter().map(|(device, count)| full(*device, *count)).collect();
    let mut take = Counts::new();
    for _ in 0..more {
        let Some(Reverse((_, device))) = next.pop() else {
            break;
        };
        let count = counts.entry(device).or_default();
        *count += 1;
        next.push(full(device, *count));
        *take.entry(device).or_default() += 1;
    }
    take
}

/// Of what may be given, `most` at most: one after the other from whoever can spare most.
fn largest(give: Counts, most: u64) -> Counts {
    let mut spare: BinaryHeap<_> = give.into_iter().map(|(device, spare)| (spare, Reverse(device))).collect();
    let mut given = Counts::new();
    for _ in 0..most {
        let Some((left @ 1.., device)) = spare.pop() else {
            break;
        };
        spare.push((left - 1, device));
        *given.entry(device.0).or_default() += 1;
    }
    given
}

/// Who gives how many to whom: the nearest first, then by number.
fn pairs(
    give: &Counts,
    take: &Counts,
    near: impl Fn(DeviceNumber, DeviceNumber) -> Near,
) -> Vec<(DeviceNumber, DeviceNumber, u64)> {
    let (mut give, mut take) = (give.clone(), take.clone());
    let mut all: Vec<_> = give.keys().flat_map(|from| take.keys().map(|to| (near(*from, *to), *from, *to))).collect();
    all.sort_unstable();
    let mut pairs = Vec::new();
    for (_, from, to) in all {
        let count = give[&from].min(take[&to]);
        if count > 0 {
            give.entry(from).and_modify(|left| *left -= count);
            take.entry(to).and_modify(|left| *left -= count);
            pairs.push((from, to, count));
        }
    }
    pairs
}

/// Chooses which shards go: those of low numbers that fit into memory.
fn carry(draft: &mut Draft<'_>, counts: &mut Counts, give: Counts, take: Counts, shares: &Counts) {
    let topology = draft.state.settings.placement.strategy == Strategy::Topology;
    let state = draft.state;
    let pairs = pairs(&give, &take, |from, to| if topology { near(state, from, to) } else { Near::Apart });
    let mut left: BTreeMap<DeviceNumber, VecDeque<u32>> =
        give.keys().map(|from| (*from, draft.shards[from].iter().copied().collect())).collect();
    let least: BTreeMap<DeviceNumber, u64> = left
        .iter()
        .map(|(from, shards)| (*from, shards.iter().map(|s| draft.memory.of_shard[*s as usize]).min().unwrap_or(0)))
        .collect();
    for (from, to, count) in pairs {
        let why = match (draft.want, draft.roles[&from]) {
            (_, Role::Must(why)) => Why::Barred(why),
            (Want::DeviceAdded(_), _) => Why::Joined,
            _ => Why::Even { has: draft.shards[&from].len() as u32, share: shares[&from] as u32 },
        };
        let shards = left.get_mut(&from).expect("who gives has shards");
        let (mut more, mut large) = (count, Vec::new());
        while more > 0 && draft.memory.fits(to, least[&from]) {
            let Some(shard) = shards.pop_front() else {
                break;
            };
            let bytes = draft.memory.of_shard[shard as usize];
            if draft.memory.fits(to, bytes) {
                draft.memory.take(to, bytes);
                draft.send([shard], to, why);
                *counts.entry(to).or_default() += 1;
                more -= 1;
            } else {
                large.push(shard);
            }
        }
        large.into_iter().rev().for_each(|shard| shards.push_front(shard));
        if more > 0 && matches!(draft.roles[&from], Role::May) {
            let shards = ranges(shards.iter().copied().take(more as usize));
            draft.obstacles.push(Obstacle::Memory { shards, from, to: Some(to) });
        }
    }
    for (from, shards) in left {
        if let Role::Must(why) = draft.roles[&from] {
            wherever(draft, counts, from, why, shards);
        }
    }
}

/// Finds places for shards that cannot stay and did not fit where they would have gone.
fn wherever(draft: &mut Draft<'_>, counts: &mut Counts, from: DeviceNumber, why: Barred, shards: VecDeque<u32>) {
    let (best, all) = (draft.candidates(from), draft.devices.weights.keys().copied().collect::<Vec<_>>());
    let mut none = Vec::new();
    for shard in shards {
        let bytes = draft.memory.of_shard[shard as usize];
        let fullness = |device| Fullness { load: counts[&device] + 1, weight: draft.devices.weights[&device] };
        let emptiest = |devices: &[DeviceNumber]| {
            let fitting = devices.iter().copied().filter(|device| draft.memory.fits(*device, bytes));
            fitting.min_by_key(|device| (fullness(*device), *device))
        };
        let Some(to) = emptiest(&best).or_else(|| emptiest(&all)) else {
            none.push(shard);
            continue;
        };
        draft.memory.take(to, bytes);
        draft.send([shard], to, Why::Barred(why));
        *counts.entry(to).or_default() += 1;
    }
    if !none.is_empty() {
        draft.nowhere(&none, from);
    }
}
