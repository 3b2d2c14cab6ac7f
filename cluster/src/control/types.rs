//! What openraft is told of the cluster's types, and how they are written down.

use std::fmt;
use std::io;

use openraft::alias::{EntryOf, LogIdOf, SnapshotMetaOf, StoredMembershipOf, VoteOf};
use openraft::impls::leader_id_std;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::state::{Command, Outcome, Refused, VERSION, VERSION_MIN};
use super::tasks::Tasks;

openraft::declare_raft_types!(
    /// Raft as it is here: at most one leader a term.
    pub Types:
        D = Proposal,
        R = Applied,
        NodeId = u64,
        Node = Peer,
        LeaderId = leader_id_std::LeaderId<u64, u64>,
        AsyncRuntime = Tasks,
);

pub(super) type Raft = openraft::Raft<Types, super::machine::Machine>;
pub(super) type Entry = EntryOf<Types>;
pub(super) type LogId = LogIdOf<Types>;
pub(super) type Vote = VoteOf<Types>;
pub(super) type Membership = StoredMembershipOf<Types>;
pub(super) type SnapshotMeta = SnapshotMetaOf<Types>;

/// A command in the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proposal(pub Command);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// What became of an entry.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Applied(pub Result<Outcome, Refused>);

/// A node as the log's membership has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Where others reach it: `host:port`.
    pub address: String,
    /// Made once, with the node's log, and kept beside it. A node that has lost its log has another, and takes no part as the
    /// one it was: what that one had promised is not known any more.
    pub log: [u8; 16],
}

/// No message between nodes, and no value that is encoded, is larger.
pub(super) const BYTES_MAX: usize = 64 << 20;

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<BYTES_MAX>()
}

/// The version, then the value.
pub(super) fn encode<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    bincode::serde::encode_into_std_write(value, &mut bytes, config()).map_err(io::Error::other)?;
    Ok(bytes)
}

/// The value that these bytes are, and nothing else, in a version that this build reads.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    let (version, bytes) = bytes.split_first_chunk().ok_or_else(|| io::Error::other("it is empty"))?;
    let version = u16::from_le_bytes(*version);
    if !(VERSION_MIN..=VERSION).contains(&version) {
        return Err(io::Error::other(format!(
            "it has version {version} of the cluster's state, and this build of Ringhold reads {VERSION_MIN} to {VERSION}: use a \
             release that is at most one behind or ahead of the others"
        )));
    }
    let (value, used) = bincode::serde::decode_from_slice(bytes, config()).map_err(io::Error::other)?;
    match used == bytes.len() {
        true => Ok(value),
        false => Err(io::Error::other(format!("{} bytes are left over", bytes.len() - used))),
    }
}
