//! The proof that an actor is the same on every device: its native handler against its generated C++.
//!
//! A [`Subject`] is an actor type with its native side behind plain functions; a [`Library`] is the C++ of
//! many, compiled by the host's compiler and loaded. [`mod@compare`] runs both on the same random messages, from
//! the same states, and wants the same bytes back: state, replies, sends, faults. `docs/sameness.md` says what
//! that proves.

pub mod compare;
pub mod device;
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
use ringhold_kernels::registry::{self, Registry};
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
    /// The same state with zeros between its values, and behind those of a variant that is shorter than another.
    pub tidy: fn(&[u8]) -> Vec<u8>,
    pub register: fn(&mut Registry) -> Result<(), registry::Error>,
}

impl Subject {
    pub fn of<A: Actor>() -> Subject {
        Subject {
            source: Source::of::<A>(),
            schema: A::schema,
            run: trial::run::<A>,
            accepts: |bytes| A::Message::from_bytes(bytes).is_some(),
            tidy: |state| A::State::from_bytes(state).expect("the bytes of a state").to_bytes(),
            register: |registry| registry.register::<A>().map(drop),
        }
    }
}
