//! What a client asks of a node, and the answers that are no status.

use ringhold_kernels::id::{Key, TypeId};
use ringhold_kernels::message::Reason;
use ringhold_kernels::schema::Schema;
use serde::{Deserialize, Serialize};

#[cfg(doc)]
use super::Close;
use super::{DeadLetters, DeviceStatus, Health, LetterFilter, LettersDone, Owners, Status};
use crate::control::admin;

/// What a client asks of a node, one to a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Status,
    Devices,
    /// How the node does.
    Health,
    /// Every actor type with its schema and figures.
    ActorTypes,
    /// The state of one actor.
    Inspect {
        type_id: TypeId,
        key: Key64,
    },
    /// Waits until nothing that was admitted before is still queued anywhere on the node.
    Settle {
        timeout_ms: u64,
    },
    /// The newest messages that nobody handled, of those that the filter takes.
    DeadLetters {
        filter: LetterFilter,
        limit: u32,
    },
    /// Somebody has seen to what was wrong with a device's backends: those that were left alone are tried again now.
    Retry {
        device: String,
    },
    /// Sends messages that nobody handled again, the oldest first, as tells. Each is kept until its device has taken it.
    RetryDeadLetters {
        filter: LetterFilter,
        /// How long to wait for room.
        timeout_ms: u64,
    },
    /// Forgets messages that nobody handled.
    DropDeadLetters {
        filter: LetterFilter,
    },
    /// Stops the node in good order, as SIGTERM does.
    Drain {
        timeout_ms: u64,
    },
    /// Which node has which shard.
    Owners,
    /// About the cluster, or a change to it.
    Cluster(admin::Request),
    /// Somebody wants to see to the backend that runs a device: the device goes on with another until it is to be tried again.
    LeaveBackend {
        device: String,
    },
}

/// A [`Key`] on a control stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key64(pub u64);

impl From<Key> for Key64 {
    fn from(key: Key) -> Key64 {
        Key64(key.0)
    }
}

impl From<Key64> for Key {
    fn from(key: Key64) -> Key {
        Key(key.0)
    }
}

/// The answer to a [`Request`], variant for variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    Status(Box<Status>),
    Devices(Vec<DeviceStatus>),
    Health(Health),
    ActorTypes(Vec<ActorType>),
    Inspected(ActorState),
    Settled(Settled),
    /// The names of the device's backends that had been left alone.
    Retrying(Vec<String>),
    DeadLetters(DeadLetters),
    /// To both retry and drop.
    DeadLettersDone(LettersDone),
    /// The drain has begun; the connection will close with [`Close::Stopping`].
    Draining,
    Failed(Failed),
    Owners(Owners),
    Cluster(admin::Response),
    /// The backend that the device is to go on with.
    LeavingBackend(String),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Failed {
    /// The [`Reason`] as a number, where there is one.
    pub reason: Option<u8>,
    /// What was asked, what went wrong and what to do.
    pub text: String,
}

impl Failed {
    pub fn new(reason: Reason, text: impl Into<String>) -> Failed {
        Failed { reason: Some(reason as u8), text: text.into() }
    }

    pub fn text(text: impl Into<String>) -> Failed {
        Failed { reason: None, text: text.into() }
    }

    pub fn reason(&self) -> Option<Reason> {
        self.reason.and_then(Reason::from_u8)
    }
}

/// An actor type on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActorType {
    pub type_id: TypeId,
    pub layout_hash: u64,
    pub schema: Schema,
    pub actors: u64,
    pub handled: u64,
    pub faults: u64,
}

/// The state of one actor, whole and of one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorState {
    pub type_id: TypeId,
    pub key: Key64,
    pub device: String,
    pub worker: u32,
    pub handled: u64,
    pub faults: u32,
    pub layout_hash: u64,
    /// In the layout of the type's schema.
    pub state: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Whether everything admitted before had been handled by then; timers that wait do not count.
    pub settled: bool,
    /// What was still queued.
    pub queued: u64,
    pub waited_ms: u64,
}
