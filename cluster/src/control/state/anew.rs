//! A cluster that begins with what another had: that of a backup.

use std::collections::BTreeSet;

use super::{Cluster, Command, NodeNumber, Outcome, Refused, State, VERSION, VERSION_MIN};
use crate::wire;

/// The first node of every cluster.
const FIRST: NodeNumber = 1;

/// Why bytes are no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error(
        "what the cluster had agreed on has version {0}, and this build of Ringhold reads {VERSION_MIN} to {VERSION}: use a release that \
         is at most one behind or ahead of it"
    )]
    OtherVersion(u16),
    #[error("what the cluster had agreed on cannot be read: {0}")]
    Bad(String),
}

impl State {
    /// Its bytes: the version, then the state.
    ///
    /// # Errors
    /// Where it is larger than what nodes send each other.
    pub fn to_bytes(&self) -> Result<Vec<u8>, wire::ControlError> {
        let mut bytes = wire::encode(self)?;
        // The length is not needed.
        bytes.splice(..4, VERSION.to_le_bytes());
        Ok(bytes)
    }

    /// The state of such bytes.
    ///
    /// # Errors
    /// Where they are those of no state, or of one of a version that this build does not read.
    pub fn from_bytes(bytes: &[u8]) -> Result<State, Unreadable> {
        let (version, bytes) = bytes.split_first_chunk().ok_or_else(|| Unreadable::Bad("it is empty".into()))?;
        match u16::from_le_bytes(*version) {
            VERSION_MIN..=VERSION => wire::decode(bytes).map_err(|e| Unreadable::Bad(e.to_string())),
            other => Err(Unreadable::OtherVersion(other)),
        }
    }

    /// What a new cluster begins with that goes on with the devices of this one: all of them are its first node's, as if the nodes
    /// that ran them had been given up. That node is yet to come, and no other is known.
    pub fn anew(mut self, cluster: Cluster) -> State {
        self.cluster = Some(cluster);
        (self.nodes, self.tokens, self.given_up, self.last_node) = Default::default();
        for (number, device) in &mut self.devices {
            if !device.adopted {
                // There may be one of its name.
                device.about.name = format!("{}@{number}", device.about.name);
            }
            device.begin_on(FIRST);
            (device.replicas, device.in_sync) = (Vec::new(), BTreeSet::from([FIRST]));
        }
        self.shards.iter_mut().for_each(|shard| shard.term += 1);
        self
    }

    pub(super) fn restore(&mut self, restored: State) -> Result<Outcome, Refused> {
        match &self.cluster {
            None => *self = restored,
            Some(founded) if restored.cluster.as_ref().is_some_and(|cluster| cluster.id == founded.id) => {}
            Some(founded) => return Err(Refused::Founded(founded.name.clone())),
        }
        Ok(Outcome::Done)
    }
}

impl From<State> for Command {
    /// What founds a cluster that begins with this.
    fn from(state: State) -> Command {
        Command::Restore(Box::new(state))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{AboutDevice, Admission, Member, ranges};
    use super::*;
    use crate::placement::Place;

    fn admission(cluster: [u8; 16], node: u8, fresh: bool) -> Command {
        let member = Member {
            id: [node; 16],
            incarnation: 1,
            name: format!("n{node}"),
            address: format!("10.0.0.{node}:7000"),
            zone: String::new(),
            release: "0.1.0".into(),
            versions: (VERSION_MIN, VERSION),
            types: BTreeMap::new(),
            draining: false,
            lease_ms: 400,
        };
        let about = AboutDevice {
            name: "cpu0".into(),
            kind: "cpu".into(),
            workers: 1,
            memory_bytes: None,
            place: Place::default(),
        };
        Command::Admit(Admission { cluster, number: Some(node.into()), member, devices: vec![about], fresh })
    }

    #[test]
    fn a_cluster_begins_with_the_devices_of_another_and_its_first_nodes_own_has_nothing() {
        let cluster = |id| Cluster { id: [id; 16], name: "test".into() };
        let mut before = State::default();
        before.apply(Command::Found { cluster: cluster(7), shards: 16 }).unwrap();
        for node in 1..=3 {
            before.apply(admission([7; 16], node, true)).unwrap();
        }
        before.apply(Command::Move { shards: ranges(3..8), from: 0, to: 2 }).unwrap();
        before.apply(Command::Set { name: "voters_max".into(), value: "3".into() }).unwrap();
        before.apply(Command::UseToken { serial: vec![1], expires_s: 9, now_s: 1 }).unwrap();

        let anew = before.clone().anew(cluster(8));
        let anew = State::from_bytes(&anew.to_bytes().unwrap()).unwrap();
        let mut state = State::default();
        state.apply(anew.clone().into()).unwrap();
        assert_eq!(state.apply(anew.into()), Ok(Outcome::Done), "once more changes nothing");
        assert!(state.apply(before.clone().anew(cluster(9)).into()).is_err());
        let admitted = state.apply(admission([8; 16], 1, true)).unwrap();
        assert_eq!(admitted, Outcome::Admitted { node: 1, devices: vec![3] }, "a number that no device had");
        assert_eq!(state.shard_counts(), BTreeMap::from([(0, 11), (1, 0), (2, 5), (3, 0)]));
        assert_eq!(state.adopted_by(1), BTreeMap::from([(0, 2), (1, 2), (2, 2)]));
        assert_eq!(state.devices[&2].about.name, "cpu0@2");
        assert!((0..3).all(|device| state.devices[&device].in_sync == BTreeSet::from([1])));
        let grown = before.shards.iter().zip(&state.shards).all(|(before, now)| now.term == before.term + 1);
        assert!(grown, "what comes from before counts no more");
        assert_eq!((state.settings.voters_max, state.tokens.len()), (3, 0));
        assert!(!state.was_removed(2), "others get the numbers that follow");
    }

    #[test]
    fn a_state_of_another_version_is_not_read() {
        let mut bytes = State::default().to_bytes().unwrap();
        assert_eq!(State::from_bytes(&bytes), Ok(State::default()));
        bytes[0] += 1;
        assert_eq!(State::from_bytes(&bytes), Err(Unreadable::OtherVersion(VERSION + 1)));
        assert!(matches!(State::from_bytes(&[1, 0, 9]), Err(Unreadable::Bad(_))));
        assert!(matches!(State::from_bytes(&[1]), Err(Unreadable::Bad(_))));
    }
}
