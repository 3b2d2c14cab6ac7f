//! What the node that runs a device knows of its replicas.

use std::collections::BTreeMap;

use ringhold_cluster::control::state::{Device, NodeNumber, State};
use ringhold_storage::checkpoints::Mark;

/// What is known of all of them, and of what they are to have.
#[derive(Default)]
pub struct Known {
    /// Why the newest checkpoint cannot be read to be sent, if it cannot.
    pub unreadable: Option<String>,
    /// How often there has been another adoption: what is to be taken in beside that checkpoint.
    pub adoptions: u64,
    pub copies: BTreeMap<NodeNumber, Copy>,
}

/// What is known of one replica.
#[derive(Default)]
pub struct Copy {
    /// The newest that it has said it has.
    pub has: Option<Mark>,
    /// It has all adoptions that there were when this was their count.
    pub adopted: Option<u64>,
    /// It was proposed to be in sync, when who is had changed so many times: until it has changed once more, it may be.
    pub entering: Option<u64>,
    /// It lacks little, and nothing is committed that it does not have, so that it can come in: for as long as the node is not given
    /// up, which had happened so many times.
    pub awaited: Option<u64>,
    /// Why it does not have the newest.
    pub why: String,
}

impl Copy {
    /// Whether it has everything there is.
    pub fn is_whole(&self, newest: Option<Mark>, adoptions: u64) -> bool {
        self.has == newest && self.adopted == Some(adoptions)
    }

    /// Whether it may be in sync though this node's state does not say so yet.
    pub fn may_enter(&self, device: &Device) -> bool {
        self.entering.is_some_and(|changes| changes >= device.changes)
    }

    /// Whether nothing is committed without the node's copy, though it is not in sync.
    pub fn is_needed(&self, state: &State, device: &Device, node: NodeNumber) -> bool {
        self.may_enter(device) || self.awaited == Some(state.times_given_up(node))
    }
}
