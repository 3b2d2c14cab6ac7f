//! What an actor is and what runs it.
//!
//! This is Ringhold's lowest floor. It holds the words everything else is built from (ids, messages,
//! hybrid logical clocks, schemas), the shared-memory protocol between a node and its devices (segment,
//! rings), and the CPU device. It knows nothing of networks, disks, processes or async runtimes: time is an
//! argument and effects go through two small traits, [`bell::Bell`] and [`clock::Clock`].
//!
//! Read [`actor::Actor`] first (what `#[ringhold::actor]` makes of a module), then [`worker::Worker`] (what
//! runs it).

pub mod actor;
pub mod arith;
pub mod bell;
pub mod checkpoint;
pub mod clock;
#[cfg(not(loom))]
pub mod clock_host;
pub mod clock_map;
#[cfg(not(loom))]
pub mod cpu;
pub mod cuda;
#[cfg(not(loom))]
pub mod emulated;
#[cfg(not(loom))]
mod flit;
#[cfg(not(loom))]
pub mod gpu;
pub mod hlc;
pub mod id;
pub mod json;
#[cfg(not(loom))]
pub mod link;
pub mod message;
pub mod outbox;
pub mod plain;
#[cfg(not(loom))]
pub mod pump;
pub mod queue;
pub mod registry;
pub mod ring;
#[cfg(not(loom))]
pub mod ring_kernel;
pub mod schema;
#[cfg(not(loom))]
pub mod segment;
#[cfg(not(loom))]
pub mod staging;
pub mod suggest;
#[cfg(not(loom))]
pub mod suspects;
pub mod table;
pub mod trial;
#[cfg(not(loom))]
pub mod worker;

pub use ringhold_macros::actor;

/// What the code made by `#[ringhold::actor]` refers to; not for use by hand.
#[doc(hidden)]
pub mod rt {
    pub use crate::actor::{Actor, Context, Fault, FaultKind, Handled, MessageOf};
    pub use crate::arith;
    pub use crate::id::{ActorId, Key, TypeId};
    pub use crate::plain::Plain;
    pub use crate::schema;
}
