//! Actors that live on GPUs.
//!
//! Write an actor once, under [`actor`]; register it in a [`Registry`]; hand that to [`cli::main`] in your own `main`,
//! and the binary is a node, its device hosts and its command line. Talk to it through [`client::Client`].
//!
//! Read [`client::Client`] first to use a node, [`node::Node`] to embed one.

// What `#[ringhold::actor]` emits names this crate from outside; the shipped actors are inside.
extern crate self as ringhold;

pub mod backup;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod device;
pub mod health;
pub mod logs;
mod make;
mod memory;
pub mod node;
mod progress;
pub mod router;
pub mod server;
pub mod shards;
pub mod shed;
pub mod shipped;
pub mod vital;

pub use ringhold_kernels::id::{ActorId, Key};
pub use ringhold_kernels::registry::Registry;
#[doc(hidden)]
pub use ringhold_kernels::rt;
pub use ringhold_macros::actor;

/// The chapters of the book that have code in them, compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../docs/first-actor.md")]
struct FirstActor;

#[cfg(doctest)]
#[doc = include_str!("../../docs/wide-actors.md")]
struct WideActors;
