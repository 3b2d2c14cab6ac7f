//! The proof that an actor is the same on every device: its native handler against its generated C++.
//!
//! A [`Subject`] is an actor type with its native side behind plain functions; a [`Library`] is the C++ of
//! many, compiled by the host's compiler and loaded. [`mod@compare`] runs both on the same random messages, from
//! the same states, and wants the same bytes back: state, replies, sends, faults. `docs/sameness.md` says what
//! that proves.

pub mod compare;
pub mod host;
pub mod nvrtc;
pub mod programs;
pub mod random;
pub mod values;

pub use compare::{Mismatch, Plan, Tally, compare};
pub use host::Library;

use ringhold_kernels::actor::Actor;
use ringhold_kernels::cuda::Source;
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::ActorId;
use ringhold_kernels::plain::Plain;
use ringhold_kernels::schema::Schema;
use ringhold_kernels::trial::{self, Outcome};

/// An actor type whose two sides are compared.
pub struct Subject {
    pub source: Source,
    pub schema: fn() -> Schema,
    /// Runs the native handler.
    pub run: fn(&mut [u8], &[u8], ActorId, ActorId, Hlc) -> Outcome,
    /// Whether bytes are a message, by the native reader.
    pub accepts: fn(&[u8]) -> bool,
}

impl Subject {
    pub fn of<A: Actor>() -> Subject {
        Subject {
            source: Source::of::<A>(),
            schema: A::schema,
            run: trial::run::<A>,
            accepts: |bytes| A::Message::from_bytes(bytes).is_some(),
        }
    }
}
