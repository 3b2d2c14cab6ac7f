//! Messages that nobody handled.

use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, TypeId};
#[cfg(doc)]
use ringhold_kernels::message::Reason;
use serde::{Deserialize, Serialize};

use super::Key64;

/// Which dead letters are meant: those that all of it is true of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterFilter {
    pub numbers: Option<Vec<u64>>,
    /// Only up to this number.
    pub newest: Option<u64>,
    pub to_type: Option<TypeId>,
    /// [`Reason`] as a number.
    pub reason: Option<u8>,
}

/// Dead letters that a filter takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetters {
    /// All that it takes.
    pub matching: u64,
    /// The newest of them all; `None` where there is none.
    pub newest: Option<u64>,
    /// The newest of them, the newest first.
    pub letters: Vec<DeadLetter>,
}

/// What became of dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LettersDone {
    /// All that the filter took.
    pub matching: u64,
    /// Sent again, or dropped.
    pub done: u64,
    /// Still kept, because they could not be sent: how many, for each [`Reason`] (as a number).
    pub left: Vec<(u8, u64)>,
}

/// Dead letters in one answer, at most.
pub const LETTERS_MAX: u32 = 1_000;

/// A message that nobody handled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub number: u64,
    /// When it was given up, microseconds since the Unix epoch.
    pub at_us: u64,
    /// The device that gave it up; empty if none had it.
    pub device: String,
    /// The device hosts that it ended.
    pub history: Vec<LetterStrike>,
    pub hlc: Hlc,
    /// [`Reason`] as a number.
    pub reason: u8,
    pub to_type: TypeId,
    pub to_key: Key64,
    pub from_type: TypeId,
    pub from_key: Key64,
    pub payload: Vec<u8>,
}

/// A device host that ended with a message in hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterStrike {
    pub at_us: u64,
    /// Which of its device's hosts since the node's start.
    pub term: u64,
    pub how: String,
}

impl DeadLetter {
    pub fn to(&self) -> ActorId {
        ActorId::new(self.to_type, self.to_key.into())
    }

    pub fn from(&self) -> ActorId {
        ActorId::new(self.from_type, self.from_key.into())
    }
}
