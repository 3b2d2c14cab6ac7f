//! What nodes of a cluster ask each other, beside what Raft has to say.

use std::ops::Range;

use ringhold_cluster::control::state::{AboutDevice, DeviceNumber, Member, NodeNumber, Refused};
use ringhold_cluster::wire;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::replicas::{Asked, Copied};

/// A question to another node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Message {
    /// From one node's control plane to the other's.
    Raft(Vec<u8>),
    /// A node wants to become a member.
    Join(Box<Join>),
    /// Who is there?
    Present,
    /// When did you last hear from the others? To the leader.
    Heard,
    /// A client has asked another node what only this one knows.
    Request(Box<wire::Request>),
    /// From the node that runs a device, in this term, to one that has a copy of its checkpoints.
    Replica { device: DeviceNumber, term: u64, asked: Asked },
    /// From the node that moves shards to another one.
    Moving(Moving),
    /// From the node that was asked for a backup.
    Backup(Backing),
}

/// What the node that was asked for a backup asks of those that run devices: see `router/backup.rs`. `id` says which backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backing {
    /// Let no device commit anything more, until you are told to go on, or some seconds have passed.
    Hold { id: u64 },
    /// All hold: pin the newest checkpoint of each of your devices.
    Pin { id: u64 },
    /// Go on. Was nothing committed until now?
    Release { id: u64 },
    /// The item of this number of what is pinned of a device.
    Part { id: u64, device: DeviceNumber, number: u64 },
    /// Nothing more is wanted.
    End { id: u64 },
}

/// The answer to a [`Backing`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Backed {
    Holds,
    Pinned(Vec<PinnedDevice>),
    /// Whether nothing was committed since it has held.
    Released(bool),
    /// `None` after the last.
    Part(Option<Vec<u8>>),
    Ended,
}

/// A device of which the newest checkpoint is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedDevice {
    pub device: DeviceNumber,
    /// In which the node runs it.
    pub term: u64,
    /// Its checkpoint, and when that was cut, microseconds since the Unix epoch; `None` where it has none.
    pub checkpoint: Option<(u64, u64)>,
    pub bytes: u64,
}

/// What the node whose device gives shards asks of others: see `router/away.rs`, and `router/retire.rs` for the last. `id` says which migration.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Moving {
    /// Send nothing more to these shards, and say when all that was sent has arrived. To the target's node: prepare for them. `run` is
    /// the incarnation of the node that asks.
    Hold { id: u64, run: u64, shards: Vec<Range<u32>>, from: DeviceNumber, to: DeviceNumber },
    /// The next part of what is carried.
    Carry { id: u64, at: u64, bytes: Vec<u8>, last: bool },
    /// The shards are the target's: say when they are at work there.
    Arrive { id: u64 },
    /// From a node that holds what it would send: is that still needed?
    Look { id: u64 },
    /// What do your devices keep for this one, by what was agreed on until then?
    Keeps { device: DeviceNumber, version: u64 },
}

/// The answer to a [`Moving`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Moves {
    /// Nothing is on its way any more. `adoption` is the number of what is to be carried, from the target's node.
    Holds {
        adoption: u64,
    },
    Carried,
    Arrived,
    Stage(Stage),
    Keeps {
        messages: u64,
    },
}

/// How far a migration is, as far as the node that gives knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    UnderWay,
    CalledOff,
    Moved,
    /// It has started again since, or made many others.
    Unknown,
}

/// A node that wants to become a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Join {
    /// The name of the cluster that it means.
    pub cluster_name: String,
    pub member: Member,
    pub devices: Vec<AboutDevice>,
}

/// The answer to a [`Message`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    Raft(Vec<u8>),
    Joined(Result<Joined, NotJoined>),
    Present,
    /// For each node, how long ago in milliseconds; `None` of one that does not lead.
    Heard(Option<Vec<(NodeNumber, u64)>>),
    Response(Box<wire::Response>),
    Replica(Copied),
    Moves(Result<Moves, String>),
    Backup(Result<Backed, String>),
}

/// A node that has become a member.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Joined {
    pub number: NodeNumber,
    pub cluster: [u8; 16],
    pub cluster_name: String,
}

/// Why it has not.
#[derive(Clone, Debug, Serialize, Deserialize, thiserror::Error)]
pub enum NotJoined {
    #[error(
        "it means cluster `{wanted}`, and this is `{actual}`: write that in its configuration (`node.cluster`), or join another node"
    )]
    OtherName { wanted: String, actual: String },
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It may be tried again.
    #[error("{0}")]
    NotNow(String),
}

/// The bytes of a message or a reply.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
    let mut bytes = wire::encode(value).map_err(|e| e.to_string())?;
    // A request has its own length on the wire.
    bytes.drain(..4);
    Ok(bytes)
}

/// What such bytes say.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    wire::decode(bytes).map_err(|e| e.to_string())
}
