//! Which nodes are to have copies of a device's checkpoints: a pure decision.
//!
//! As many as `replication_factor` says, the device's own among them, where the cluster has as many. Who has a copy keeps it, for
//! another would have to be made. One that is draining, or has not been heard of for long, is replaced where there is another, and
//! keeps its own until those that take its place have everything.

use std::collections::BTreeSet;

use super::state::{Device, DeviceNumber, NodeNumber, State};
use crate::placement;

/// The devices whose copies are to be elsewhere than they are, and where. `lost`: nodes that have not been heard of for long.
pub fn choose(state: &State, lost: &BTreeSet<NodeNumber>) -> Vec<(DeviceNumber, Vec<NodeNumber>)> {
    let devices = state.devices.iter().map(|(number, device)| (*number, device, wanted(state, device, lost)));
    devices
        .filter(|(_, device, wanted)| device.replicas != *wanted)
        .map(|(number, _, wanted)| (number, wanted))
        .collect()
}

fn wanted(state: &State, device: &Device, lost: &BTreeSet<NodeNumber>) -> Vec<NodeNumber> {
    let copies = (state.settings.replication_factor as usize).saturating_sub(1);
    let drains = |node: &NodeNumber| state.nodes.get(node).is_none_or(|member| member.draining);
    let serves = |node: &NodeNumber| !drains(node) && !lost.contains(node);
    let has_all = |node: &NodeNumber| device.in_sync.contains(node);
    // Where there are to be fewer, those stay that have everything.
    let (whole, behind): (Vec<_>, Vec<_>) = device.replicas.iter().copied().partition(has_all);
    let before: Vec<NodeNumber> = whole.into_iter().chain(behind).collect();
    let others = placement::replicas(state, device.node, state.nodes.len());
    let others = others.into_iter().filter(serves);
    // One that is lost may come back, and nobody else can have its place.
    let lost = before.iter().copied().filter(|node| !drains(node) && lost.contains(node));
    let mut stay: Vec<NodeNumber> = Vec::new();
    for node in before.iter().copied().filter(serves).chain(others).chain(lost) {
        if stay.len() < copies && !stay.contains(&node) {
            stay.push(node);
        }
    }
    let in_their_order = |node: &NodeNumber| device.replicas.iter().position(|r| r == node).unwrap_or(usize::MAX);
    stay.sort_by_key(in_their_order);
    let mut missing = stay.iter().filter(|node| !has_all(node)).count();
    for node in device.replicas.iter().filter(|node| has_all(node) && state.nodes.contains_key(node)) {
        if missing > 0 && !stay.contains(node) {
            stay.push(*node);
            missing -= 1;
        }
    }
    stay
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::control::state::{AboutDevice, Admission, Cluster, Command, Member};
    use crate::placement::Place;

    /// A cluster of nodes in these zones, with a device each.
    fn cluster(zones: &[&str]) -> State {
        let mut state = State::default();
        state.apply(Command::Found { cluster: Cluster { id: [7; 16], name: "test".into() }, shards: 16 }).unwrap();
        (1..).zip(zones).for_each(|(number, zone)| join(&mut state, number, zone));
        state
    }

    fn join(state: &mut State, number: u8, zone: &str) {
        let member = Member {
            id: [number; 16],
            incarnation: 1,
            name: format!("n{number}"),
            address: format!("10.0.0.{number}:7000"),
            zone: zone.into(),
            release: "0.1.0".into(),
            versions: (1, 1),
            types: BTreeMap::new(),
            draining: false,
            lease_ms: 400,
        };
        let about = AboutDevice {
            name: "cpu".into(),
            kind: "cpu".into(),
            workers: 1,
            memory_bytes: None,
            place: Place::default(),
        };
        let admission = Admission { cluster: [7; 16], number: None, member, devices: vec![about], fresh: true };
        state.apply(Command::Admit(admission)).unwrap();
    }

    fn agree(state: &mut State) {
        agree_without(state, &[]);
    }

    fn agree_without(state: &mut State, lost: &[NodeNumber]) {
        let lost = lost.iter().copied().collect();
        for (device, replicas) in choose(state, &lost) {
            state.apply(Command::Replicate { device, replicas }).unwrap();
        }
        assert_eq!(choose(state, &lost), [], "once it is so, it stays");
    }

    fn enter(state: &mut State, node: NodeNumber) {
        let Device { term, changes, .. } = state.devices[&0];
        state.apply(Command::InSync { device: 0, term, changes, node, in_sync: true }).unwrap();
    }

    fn set(state: &mut State, factor: u32) {
        state.apply(Command::Set { name: "replication_factor".into(), value: factor.to_string() }).unwrap();
    }

    #[test]
    fn each_device_has_a_copy_as_soon_as_there_is_another_node_and_it_stays_there() {
        let mut state = cluster(&[""]);
        assert_eq!(choose(&state, &BTreeSet::new()), []);
        join(&mut state, 2, "");
        assert_eq!(choose(&state, &BTreeSet::new()), [(0, vec![2]), (1, vec![1])]);
        agree(&mut state);
        join(&mut state, 3, "");
        assert_eq!(choose(&state, &BTreeSet::new()), [(2, vec![1])], "the others have theirs");
        agree(&mut state);
        set(&mut state, 3);
        agree(&mut state);
        assert_eq!(state.devices[&0].replicas, [2, 3]);
        enter(&mut state, 3);
        set(&mut state, 2);
        agree(&mut state);
        assert_eq!(state.devices[&0].replicas, [3], "it has everything, and the other does not");
        set(&mut state, 1);
        agree(&mut state);
        assert!(state.devices[&0].replicas.is_empty());
    }

    #[test]
    fn copies_are_in_other_zones_first() {
        let mut state = cluster(&["a", "a", "b"]);
        agree(&mut state);
        let replicas: Vec<_> = state.devices.values().map(|device| device.replicas.clone()).collect();
        assert_eq!(replicas, [[3], [3], [1]]);
    }

    #[test]
    fn a_draining_node_keeps_its_copy_until_another_has_everything() {
        let mut state = cluster(&["", "", ""]);
        agree(&mut state);
        enter(&mut state, 2);
        state.apply(Command::Drain { node: 2, draining: true }).unwrap();
        agree(&mut state);
        assert_eq!(state.devices[&0].replicas, [3, 2]);
        enter(&mut state, 3);
        agree(&mut state);
        assert_eq!(state.devices[&0].replicas, [3]);
        assert!(state.devices[&0].in_sync.iter().eq(&[1, 3]));
    }

    #[test]
    fn a_removed_nodes_copies_are_made_elsewhere() {
        let mut state = cluster(&["", "", ""]);
        agree(&mut state);
        state.apply(Command::Drain { node: 2, draining: true }).unwrap();
        state.apply(Command::Remove { node: 2 }).unwrap();
        agree(&mut state);
        assert_eq!(state.devices[&0].replicas, [3]);
    }

    #[test]
    fn a_lost_nodes_copies_are_made_elsewhere_where_there_is_another() {
        let mut state = cluster(&["", "", ""]);
        agree(&mut state);
        enter(&mut state, 2);
        agree_without(&mut state, &[2, 3]);
        assert_eq!(state.devices[&0].replicas, [2], "there is no other");
        agree_without(&mut state, &[2]);
        assert_eq!(state.devices[&0].replicas, [3, 2], "it may be back before the other has everything");
        enter(&mut state, 3);
        agree_without(&mut state, &[2]);
        assert_eq!(state.devices[&0].replicas, [3]);
        agree(&mut state);
        assert_eq!(state.devices[&0].replicas, [3], "whoever has a copy keeps it");
        agree_without(&mut state, &[3]);
        assert_eq!(state.devices[&0].replicas, [2, 3]);
        agree(&mut state);
        assert_eq!(state.devices[&0].replicas, [3], "it is back");
    }
}
