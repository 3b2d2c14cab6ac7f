//! What operators ask of a cluster, at any of its nodes, and the answers: see [`crate::wire::Request::Cluster`].

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::state::{DeviceNumber, NodeNumber};
use crate::placement::{Place, Plan};
use crate::wire;

/// A question about the cluster, or a change to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// How the cluster does; a majority of its voters is asked whether that is the newest, for so long.
    Status { within_ms: u64 },
    /// How each node does.
    Statuses,
    /// Who owns which shard.
    Shards,
    /// Sets a setting.
    Set { name: String, value: String },
    /// Nothing more is given to a node, or it may be again.
    Drain { node: NodeNumber, draining: bool },
    /// A node is no member any more.
    Remove { node: NodeNumber },
    /// Makes a token by which one node can join, good for so long.
    Token { valid_s: u64 },
    /// What would be best moved between the devices of a node, or of all that answer; nothing is moved.
    Plan { node: Option<NodeNumber> },
    /// Moves shards, all of which one device has, to another device.
    Migrate { shards: Vec<Range<u32>>, to: DeviceNumber },
    /// Begins a backup: pins the newest checkpoints of all devices at one moment. All of it has to be done within so long.
    BackUp { within_ms: u64 },
    /// The item of this number, from 0, of what is pinned of a device, which runs on that node: one after the other.
    BackupPart { id: u64, node: NodeNumber, device: DeviceNumber, number: u64 },
    /// Nothing more is wanted of a backup.
    EndBackup { id: u64 },
}

/// The answer to a [`Request`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    Status(Box<Status>),
    Statuses {
        /// When they were asked, microseconds since the Unix epoch.
        at_us: u64,
        nodes: Vec<NodeStatus>,
    },
    Shards(Vec<Owned>),
    Done,
    /// The token as text, and when it expires: seconds since the Unix epoch.
    Token {
        text: String,
        expires_s: u64,
    },
    Plans(Vec<NodePlan>),
    Migrated(Migrated),
    BackupBegun(Box<BackupBegun>),
    /// The bytes of an item; `None` after the last.
    BackupPart(Option<Vec<u8>>),
}

/// A cluster at one moment, as the node knows it that was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub name: String,
    /// A UUID.
    pub id: String,
    /// The node that was asked.
    pub asked: NodeNumber,
    pub leader: Option<NodeNumber>,
    /// Grows with each election.
    pub term: u64,
    /// Whether a majority of the voters has said just now that this is the newest state.
    pub agreed: bool,
    /// Why not, where it has not.
    pub why_not: String,
    /// The last entries of the log that this node has, has applied, and has in its last snapshot.
    pub last_log: u64,
    pub applied: u64,
    pub snapshot: u64,
    pub shards: u32,
    pub nodes: Vec<Node>,
    pub devices: Vec<Device>,
    pub types: Vec<ActorType>,
    pub settings: Vec<Setting>,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub node: NodeNumber,
    pub name: String,
    /// Or why it says nothing.
    pub status: Result<Box<wire::Status>, String>,
}

/// A node in a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    pub number: NodeNumber,
    /// A UUID.
    pub id: String,
    pub name: String,
    pub address: String,
    pub zone: String,
    pub release: String,
    pub role: Role,
    pub draining: bool,
    /// How long ago the leader last heard of it; 0 for itself. `None`: the leader has not heard of it, or could not be asked.
    pub heard_ms: Option<u64>,
    pub devices: u32,
    pub shards: u32,
}

/// A node's part in agreeing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It is not given the log yet.
    #[default]
    Joining,
    /// It is told what the voters agree on.
    Learner,
    Voter,
    Leader,
}

/// A device in a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    pub number: DeviceNumber,
    pub node: NodeNumber,
    pub name: String,
    pub kind: String,
    pub workers: u32,
    pub memory_bytes: Option<u64>,
    /// Where in its node's machine it is, as far as that is known.
    pub place: Place,
    pub shards: u32,
    /// Grows with each change of the node that runs it.
    pub term: u64,
    /// The nodes that are to have copies of its checkpoints, beside its own.
    pub replicas: Vec<NodeNumber>,
    /// The nodes that have all of what it has committed, its own among them.
    pub in_sync: Vec<NodeNumber>,
}

/// An actor type in a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorType {
    pub name: String,
    pub layout_hash: u64,
    pub nodes: Vec<NodeNumber>,
}

/// A setting in a [`Status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub name: String,
    pub value: String,
    pub about: String,
    /// What it may be.
    pub rule: String,
}

/// Shards that belong to one device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// `None`: nobody owns them.
    pub device: Option<DeviceNumber>,
    pub shards: Vec<Range<u32>>,
    /// The largest of their terms.
    pub term: u64,
}

/// What would be best moved between the devices of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePlan {
    pub node: NodeNumber,
    pub plan: Result<Plan, String>,
}

/// Shards that have moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migrated {
    pub shards: u32,
    /// Of all that was carried.
    pub bytes: u64,
    /// How long no message was let in for them.
    pub stood_us: u64,
    /// From begin to end.
    pub took_us: u64,
}

/// A backup that has begun.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupBegun {
    pub id: u64,
    /// The moment: what was made durable before it is in the backup, and nothing else. By the clock of the node that was asked,
    /// microseconds since the Unix epoch.
    pub at_us: u64,
    /// For how long no device committed anything.
    pub held_us: u64,
    /// What the cluster had agreed on: see [`State::to_bytes`](super::state::State::to_bytes).
    pub state: Vec<u8>,
    /// By number.
    pub devices: Vec<BackupDevice>,
}

/// A device in a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupDevice {
    pub device: DeviceNumber,
    /// That runs it.
    pub node: NodeNumber,
    /// Its checkpoint and when that was cut, microseconds since the Unix epoch; `None` where it has none.
    pub checkpoint: Option<(u64, u64)>,
    /// About so many will come.
    pub bytes: u64,
}
