//! Which devices shards may be given to, and what each is to get beside the others.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::Want;
use super::outcome::Barred;
use super::settings::WEIGHT_MAX;
use super::view::View;
use crate::control::state::{DeviceNumber, State};

/// The devices of a cluster, as placement sees them.
pub(super) struct Devices {
    /// What those weigh that shards may be given to; never 0.
    pub weights: BTreeMap<DeviceNumber, u64>,
    /// The others.
    pub barred: BTreeMap<DeviceNumber, Barred>,
}

/// What a plan may do with the shards of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// They stay.
    Stays,
    /// They may be moved.
    May,
    /// They cannot stay.
    Must(Barred),
}

impl Devices {
    pub fn of(state: &State, view: &View, want: Want) -> Devices {
        let settings = &state.settings.placement;
        let (mut weights, mut barred, mut stand_ins) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (number, device) in &state.devices {
            let node = device.node;
            let draining = want == Want::Drain(node) || state.nodes.get(&node).is_some_and(|member| member.draining);
            let weight = weight(state, *number);
            let why = if !view.alive.contains(&node) {
                Barred::NodeGone(node)
            } else if view.failed.contains(number) {
                Barred::Failed
            } else if draining {
                Barred::Draining(node)
            } else if !settings.kinds.allow(&device.about.kind) {
                Barred::Kind
            } else if weight == 0 {
                Barred::Weight
            } else if device.adopted && !settings.weights.0.contains_key(number) {
                stand_ins.insert(*number, weight);
                continue;
            } else {
                weights.insert(*number, weight);
                continue;
            };
            barred.insert(*number, why);
        }
        // What went on beside a node's own devices goes to these, unless somebody has said what it weighs.
        match weights.is_empty() {
            true => weights = stand_ins,
            false => barred.extend(stand_ins.into_keys().map(|number| (number, Barred::StandsIn))),
        }
        Devices { weights, barred }
    }

    /// What the plan may do with the shards of a device.
    ///
    /// Those of a device that is gone are left alone unless that is what is wanted: it may be back in a moment, with all they have.
    pub fn role(&self, state: &State, want: Want, device: DeviceNumber) -> Role {
        let barred = self.barred.get(&device).copied();
        match (want, barred) {
            (Want::Rebalance | Want::DeviceAdded(_), None) if self.weights.contains_key(&device) => Role::May,
            (Want::Rebalance, Some(why @ (Barred::Draining(_) | Barred::Kind | Barred::Weight | Barred::StandsIn))) => {
                Role::Must(why)
            }
            (Want::Drain(node), Some(why)) if state.devices[&device].node == node => Role::Must(why),
            (Want::Fill, Some(why @ (Barred::NodeGone(_) | Barred::Failed))) => Role::Must(why),
            _ => Role::Stays,
        }
    }
}

/// What a device weighs: what is set, or its workers.
pub(super) fn weight(state: &State, device: DeviceNumber) -> u64 {
    let set = state.settings.placement.weights.0.get(&device).copied();
    u64::from(set.unwrap_or(state.devices[&device].about.workers.clamp(1, WEIGHT_MAX)))
}

/// So much on a device of such a weight.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fullness {
    pub load: u64,
    pub weight: u64,
}

impl Ord for Fullness {
    fn cmp(&self, other: &Fullness) -> Ordering {
        let (here, there) = (u128::from(self.load), u128::from(other.load));
        (here * u128::from(other.weight)).cmp(&(there * u128::from(self.weight)))
    }
}

impl PartialOrd for Fullness {
    fn partial_cmp(&self, other: &Fullness) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Fullness {
    fn eq(&self, other: &Fullness) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Fullness {}
