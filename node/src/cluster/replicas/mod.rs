//! Copies of devices' checkpoints on other nodes.
//!
//! The cluster agrees on which nodes are to have copies of a device's checkpoints (its *replicas*), and which of them are *in sync*:
//! a checkpoint is committed once all of these have it durable. The node that runs the device sends each replica what it lacks, and
//! has the cluster agree on who is in sync: one that has everything comes in; one that does not answer is put out, and only once
//! that is agreed on does anything commit without it. So whoever is in sync has all that is committed, whatever has failed since.
//!
//! | | file |
//! |---|---|
//! | the device's node: what is sent, who is waited for | `sending.rs`, `known.rs` |
//! | when it waits for one that is not in sync yet | `rounds.rs` |
//! | the replica's node: what is kept, whom it refuses | `held.rs` |

mod held;
mod known;
mod rounds;
mod sending;

use ringhold_storage::checkpoints::{Mark, Taken};
use serde::{Deserialize, Serialize};

pub use held::Held;
pub use sending::{Copies, NotCopied};

/// What a device's node says to one that has a copy of its checkpoints.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Asked {
    /// What is your newest?
    Newest,
    /// Take this of one that you lack: a [`Piece`](ringhold_storage::checkpoints::Piece).
    Piece(Vec<u8>),
    /// Take this of what the device is to take in beside its last checkpoint, because shards have moved to it: some of so many bytes,
    /// from there on.
    Adoption { number: u64, total: u64, from: u64, bytes: Vec<u8> },
}

/// The answer: epochs, with the times of their cuts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Copied {
    /// The copy's newest is this one, and what it lacks is to be sent.
    Has(Option<(u64, u64)>),
    /// The next piece is awaited.
    Some,
    /// The checkpoint, or the adoption, is durable.
    Whole,
}

impl From<Option<Mark>> for Copied {
    fn from(newest: Option<Mark>) -> Copied {
        Copied::Has(newest.map(|Mark { epoch, at_us }| (epoch, at_us)))
    }
}

impl From<Taken> for Copied {
    fn from(taken: Taken) -> Copied {
        match taken {
            Taken::Some => Copied::Some,
            Taken::Whole => Copied::Whole,
            Taken::Not { newest } => newest.into(),
        }
    }
}
