//! Where the devices of a node begin that was given up: a pure decision.
//!
//! Each on a node that has everything of it and holds its lease, so that nothing that was committed is lost; of several, where it finds
//! a device of its kind, then where the fewest devices are. One that nobody else has everything of stays where it is: its shards are
//! away until its node is back.

use std::collections::{BTreeMap, BTreeSet};

use super::state::{Device, DeviceNumber, NodeNumber, State};

/// For each device of the node that can begin elsewhere, on which of the nodes that live.
pub fn choose(state: &State, node: NodeNumber, live: &BTreeSet<NodeNumber>) -> BTreeMap<DeviceNumber, NodeNumber> {
    let mut counts: BTreeMap<NodeNumber, usize> =
        live.iter().map(|live| (*live, state.devices_of(*live).count())).collect();
    let mut chosen = BTreeMap::new();
    for (number, device) in state.devices_of(node) {
        let able = device.in_sync.iter().filter(|other| **other != node && live.contains(other));
        let able = able.filter_map(|other| Some((*other, state.nodes.get(other)?)));
        let best = able.min_by_key(|(other, member)| {
            (member.draining, !has_one_like(state, *other, device), counts[other], *other)
        });
        if let Some((best, _)) = best {
            *counts.entry(best).or_default() += 1;
            chosen.insert(number, best);
        }
    }
    chosen
}

/// Whether the node has a device of the same kind.
fn has_one_like(state: &State, node: NodeNumber, device: &Device) -> bool {
    state.devices_of(node).any(|(_, other)| other.about.kind == device.about.kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::state::{AboutDevice, Admission, Cluster, Command, Member};
    use crate::placement::Place;

    /// A cluster of nodes with devices of these kinds.
    fn cluster(nodes: &[&[&str]]) -> State {
        let mut state = State::default();
        state.apply(Command::Found { cluster: Cluster { id: [7; 16], name: "test".into() }, shards: 16 }).unwrap();
        for (number, kinds) in (1..).zip(nodes) {
            let member = Member {
                id: [number; 16],
                incarnation: 1,
                name: format!("n{number}"),
                address: format!("10.0.0.{number}:7000"),
                zone: String::new(),
                release: "0.1.0".into(),
                versions: (1, 1),
                types: BTreeMap::new(),
                draining: false,
                lease_ms: 400,
            };
            let about = |(place, kind): (usize, &&str)| AboutDevice {
                name: format!("{kind}{place}"),
                kind: (*kind).into(),
                workers: 1,
                memory_bytes: None,
                place: Place::default(),
            };
            let devices = kinds.iter().enumerate().map(about).collect();
            let admission = Admission { cluster: [7; 16], number: None, member, devices, fresh: true };
            state.apply(Command::Admit(admission)).unwrap();
        }
        state
    }

    /// These nodes have everything of a device.
    fn replicate(state: &mut State, device: DeviceNumber, replicas: &[NodeNumber]) {
        state.apply(Command::Replicate { device, replicas: replicas.into() }).unwrap();
        for node in replicas {
            let Device { term, changes, .. } = state.devices[&device];
            state.apply(Command::InSync { device, term, changes, node: *node, in_sync: true }).unwrap();
        }
    }

    #[test]
    fn a_device_begins_where_everything_of_it_is_and_on_its_own_kind_first() {
        let mut state = cluster(&[&["cuda", "cpu", "cpu"], &["cpu"], &["cuda", "cpu", "cpu"], &["cpu", "cpu"]]);
        let live = BTreeSet::from([2, 3, 4]);
        assert_eq!(choose(&state, 1, &live), BTreeMap::new(), "nobody else has anything");
        replicate(&mut state, 0, &[2, 3]);
        replicate(&mut state, 1, &[2, 3, 4]);
        assert_eq!(choose(&state, 1, &live), BTreeMap::from([(0, 3), (1, 2)]));
        replicate(&mut state, 2, &[2, 4]);
        assert_eq!(
            choose(&state, 1, &live),
            BTreeMap::from([(0, 3), (1, 2), (2, 2)]),
            "two are as many as there are on 4"
        );
        assert_eq!(choose(&state, 1, &BTreeSet::from([4])), BTreeMap::from([(1, 4), (2, 4)]));
        state.apply(Command::Drain { node: 2, draining: true }).unwrap();
        assert_eq!(choose(&state, 1, &live), BTreeMap::from([(0, 3), (1, 4), (2, 4)]));
        assert_eq!(
            choose(&state, 1, &BTreeSet::from([2])),
            BTreeMap::from([(0, 2), (1, 2), (2, 2)]),
            "rather that than nowhere"
        );
    }
}
