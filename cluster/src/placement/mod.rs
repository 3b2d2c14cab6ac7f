//! Placement: which shards are best moved to which devices.
//!
//! [`plan`] is a pure function of what the cluster has agreed on ([`State`]) and what is measured ([`View`]): the same of both
//! gives the same [`Plan`], to the bit. It moves as little as it can, and changes nothing itself: each of its moves is a
//! [`Command::Move`](crate::control::state::Command::Move) that whoever asked for it may issue, or not.
//!
//! | idea | file |
//! |---|---|
//! | what operators set | `settings.rs` |
//! | what is measured, and what it comes to for each shard | `view.rs`, `measured.rs` |
//! | which devices are given anything | `devices.rs` |
//! | even counts (`round-robin`, `topology`) | `even.rs` |
//! | groups and loads (`affinity`, `load`) | `weighed.rs` |
//! | who is near to whom, and who is far enough to hold copies | `near.rs` |
//! | what comes of it, in words too | `draft.rs`, `outcome.rs` |

mod devices;
mod draft;
mod even;
mod measured;
mod near;
mod outcome;
pub mod settings;
mod view;
mod weighed;

#[cfg(test)]
mod tests;

pub use near::{Near, Place, near, replicas};
pub use outcome::{Barred, Measure, Move, Obstacle, Plan, Share, Why};
pub use settings::Strategy;
pub use view::{DeviceLoad, ShardLoad, View};

use draft::Draft;

use crate::control::state::{DeviceNumber, NodeNumber, State};

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Every device is to have what its weight says. What devices own that are gone stays where it is.
    Rebalance,
    /// A node that answers is to own nothing.
    Drain(NodeNumber),
    /// A device that came is to have its share, and nothing else is moved.
    DeviceAdded(DeviceNumber),
    /// What devices own that are gone is to go to others. What runs stays where it is.
    Fill,
}

/// Plans what is to be moved, by the strategy that is set.
pub fn plan(state: &State, view: &View, want: Want) -> Plan {
    let mut draft = Draft::new(state, view, want);
    let cannot = match want {
        Want::Drain(node) if !state.nodes.contains_key(&node) => Some(Obstacle::NoSuchNode(node)),
        Want::Drain(node) if !view.alive.contains(&node) => Some(Obstacle::NodeGone(node)),
        Want::DeviceAdded(device) if !state.devices.contains_key(&device) => Some(Obstacle::NoSuchDevice(device)),
        Want::DeviceAdded(device) => {
            draft.devices.barred.get(&device).map(|why| Obstacle::Barred { device, why: *why })
        }
        Want::Rebalance | Want::Drain(_) | Want::Fill => None,
    };
    if let Some(obstacle) = cannot {
        draft.obstacles.push(obstacle);
    } else if draft.devices.weights.is_empty() {
        for device in draft.barred() {
            let shards = draft.shards[&device].clone();
            draft.nowhere(&shards, device);
        }
    } else {
        match state.settings.placement.strategy {
            Strategy::RoundRobin | Strategy::Topology => even::plan(&mut draft),
            Strategy::Load | Strategy::Affinity => weighed::plan(&mut draft),
        }
    }
    draft.finish()
}
