//! What is measured and known beside what the cluster has agreed on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::control::state::{DeviceNumber, NodeNumber};

/// What is known of the cluster at the moment of a plan.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Nodes that answer.
    pub alive: BTreeSet<NodeNumber>,
    /// Devices of nodes that answer, that are given up all the same.
    pub failed: BTreeSet<DeviceNumber>,
    /// What is measured of devices. It is to be newer than the last move: after one, loads are others.
    pub devices: BTreeMap<DeviceNumber, DeviceLoad>,
    /// What is measured of shards, where that is known. What is left of a device's is its other shards', to each the same.
    pub shards: BTreeMap<u32, ShardLoad>,
    /// How long ago shards have moved, of those that did so lately.
    pub moved_ago: BTreeMap<u32, Duration>,
    /// Nodes other than its own that hold what a device has.
    pub copies: BTreeMap<DeviceNumber, BTreeSet<NodeNumber>>,
}

/// What is measured of a device; `None` where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceLoad {
    /// Messages that it handles in a second.
    pub per_second: Option<u64>,
    /// For how much of the time its workers hold a message, of 1,000. Where that is known of all devices it counts, and not how
    /// many messages they handle: some take longer than others.
    pub busy_permille: Option<u32>,
    /// What its actors use.
    pub memory_used_bytes: Option<u64>,
    /// What is left for more of them.
    pub memory_free_bytes: Option<u64>,
}

/// What is measured of a shard; `None` where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardLoad {
    /// Messages that it handles in a second.
    pub per_second: Option<u64>,
    /// What its actors use.
    pub memory_bytes: Option<u64>,
}
