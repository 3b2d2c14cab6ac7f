//! What may be agreed on, and what is refused.

use super::*;
use crate::control::failover;

const CLUSTER: [u8; 16] = [7; 16];

fn founded() -> State {
    let mut state = State::default();
    state.apply(Command::Found { cluster: Cluster { id: CLUSTER, name: "test".into() }, shards: 16 }).unwrap();
    state
}

fn member(number: u8) -> Member {
    Member {
        id: [number; 16],
        incarnation: 1,
        name: format!("n{number}"),
        address: format!("10.0.0.{number}:7000"),
        zone: String::new(),
        release: "0.1.0".into(),
        versions: (1, 1),
        types: BTreeMap::from([("bank.account".into(), 5)]),
        draining: false,
        lease_ms: 400,
    }
}

fn device(name: &str) -> AboutDevice {
    AboutDevice {
        name: name.into(),
        kind: "cpu".into(),
        workers: 1,
        memory_bytes: None,
        place: placement::Place::default(),
    }
}

fn admission(number: u8, devices: &[&str]) -> Admission {
    let devices = devices.iter().map(|name| device(name)).collect();
    Admission { cluster: CLUSTER, number: None, member: member(number), devices, fresh: false }
}

fn admit(state: &mut State, number: u8, devices: &[&str]) -> Result<Outcome, Refused> {
    state.apply(Command::Admit(admission(number, devices)))
}

#[test]
fn the_first_nodes_devices_own_everything_in_turn_and_later_ones_nothing() {
    let mut state = founded();
    assert_eq!(admit(&mut state, 1, &["a", "b"]), Ok(Outcome::Admitted { node: 1, devices: vec![0, 1] }));
    assert_eq!(admit(&mut state, 2, &["a"]), Ok(Outcome::Admitted { node: 2, devices: vec![2] }));
    assert_eq!(state.shard_counts(), BTreeMap::from([(0, 8), (1, 8), (2, 0)]));
    assert!(state.shards_of(1).eq((0..16).filter(|n| n % 2 == 1)));
    assert!(state.shards.iter().all(|shard| shard.term == 1));
}

#[test]
fn a_node_that_comes_back_is_the_same_with_its_devices() {
    let mut state = founded();
    admit(&mut state, 1, &["a", "b"]).unwrap();
    let mut again = admission(1, &["b", "a", "c"]);
    again.member.address = "10.9.9.9:1".into();
    assert_eq!(state.apply(Command::Admit(again)), Ok(Outcome::Admitted { node: 1, devices: vec![1, 0, 2] }));
    assert_eq!(state.nodes[&1].address, "10.9.9.9:1");
    assert_eq!(state.shard_counts()[&2], 0, "what its devices keep stays with them");
    let error = admit(&mut state, 1, &["a", "c"]).unwrap_err();
    assert_eq!(error, Refused::DeviceGone { name: "b".into(), shards: 8 });
    assert_eq!(state.devices.len(), 3, "and nothing has changed");
    admit(&mut state, 1, &["a", "b"]).unwrap();
    assert_eq!(state.devices.len(), 2, "one that owned nothing may go");
    let fresh = Admission { fresh: true, ..admission(1, &["a", "d"]) };
    assert_eq!(state.apply(Command::Admit(fresh)), Ok(Outcome::Admitted { node: 1, devices: vec![0, 3] }));
    assert_eq!(state.shard_counts(), BTreeMap::from([(0, 8), (3, 8)]));
}

#[test]
fn a_device_that_is_in_another_slot_of_its_machine_is_the_same_and_known_to_be_there() {
    let mut state = founded();
    let at = |pci: Option<&str>, incarnation| {
        let mut admission = admission(1, &["a"]);
        admission.member.incarnation = incarnation;
        admission.devices[0].place.pci = pci.map(String::from);
        Command::Admit(admission)
    };
    for (incarnation, pci) in (1..).zip([Some("0000:3b:00.0"), Some("0000:af:00.0"), None]) {
        assert_eq!(state.apply(at(pci, incarnation)), Ok(Outcome::Admitted { node: 1, devices: vec![0] }));
        assert_eq!(state.devices[&0].place().unwrap().pci.as_deref(), pci);
        assert_eq!((state.devices[&0].term, state.shard_counts()[&0]), (1, 16), "nothing else of it has changed");
    }
}

#[test]
fn who_does_not_fit_is_refused_and_told_why() {
    let mut state = founded();
    admit(&mut state, 1, &["a"]).unwrap();
    let before = state.clone();
    let mut refuse = |change: &dyn Fn(&mut Admission)| {
        let mut admission = admission(2, &["a"]);
        change(&mut admission);
        state.apply(Command::Admit(admission)).unwrap_err()
    };
    assert!(matches!(refuse(&|a| a.cluster = [8; 16]), Refused::OtherCluster { .. }));
    assert_eq!(refuse(&|a| a.member.name = "n1".into()), Refused::NameTaken { name: "n1".into(), other: 1 });
    let same = refuse(&|a| a.member.address = "10.0.0.1:7000".into());
    assert!(matches!(same, Refused::AddressTaken { other: 1, .. }));
    assert!(matches!(refuse(&|a| a.member.versions = (2, 3)), Refused::Version { .. }));
    assert!(matches!(refuse(&|a| a.member.name = String::new()), Refused::BadName { .. }));
    assert!(matches!(refuse(&|a| a.devices = vec![device("x"); 2]), Refused::SameDevice(_)));
    assert!(matches!(refuse(&|a| a.devices = vec![device("x"); 65]), Refused::TooMany { .. }));
    let layout = refuse(&|a| *a.member.types.get_mut("bank.account").unwrap() = 6);
    assert!(layout.to_string().contains("0000000000000006 here and 0000000000000005 on node 1"), "{layout}");
    assert_eq!(state, before);
    assert_eq!(State::default().apply(Command::Admit(admission(1, &[]))), Err(Refused::NotFounded));
    // A cluster of one may redefine its types: there is nobody to disagree.
    let mut other = admission(1, &["a"]);
    *other.member.types.get_mut("bank.account").unwrap() = 6;
    state.apply(Command::Admit(other)).unwrap();
}

#[test]
fn shards_move_only_from_their_owner_and_their_term_grows() {
    let mut state = founded();
    admit(&mut state, 1, &["a"]).unwrap();
    admit(&mut state, 2, &["a"]).unwrap();
    let to_second = |shards: Vec<Range<u32>>| Command::Move { shards, from: 0, to: 1 };
    state.apply(to_second(vec![0..2, 5..6])).unwrap();
    assert!(state.shards_of(1).eq([0, 1, 5]));
    assert_eq!((state.shards[0].term, state.shards[2].term), (2, 1));
    let before = state.clone();
    let refused = state.apply(to_second(vec![1..3, 5..6])).unwrap_err();
    assert_eq!(refused, Refused::NotOwner { shards: "1,5".into(), from: 0 });
    assert!(matches!(state.apply(to_second(ranges([15, 16]))), Err(Refused::NoSuchShards { .. })));
    let backwards = Range { start: 3, end: 2 };
    assert!(matches!(state.apply(to_second(vec![backwards])), Err(Refused::NoSuchShards { .. })));
    assert_eq!(state.apply(Command::Move { shards: ranges([3]), from: 0, to: 9 }), Err(Refused::NoSuchDevice(9)));
    assert_eq!(state, before);
    let between = |runs| Command::MoveBetween { shards: ranges([3]), from: 0, to: 1, runs };
    assert_eq!(state.apply(between((2, 1))), Err(Refused::StartedAgain(1)));
    assert_eq!(state.apply(between((1, 2))), Err(Refused::StartedAgain(2)));
    assert_eq!(state, before);
    state.apply(between((1, 1))).unwrap();
    assert!(state.shards_of(1).eq([0, 1, 3, 5]));
    state.apply(Command::Drain { node: 2, draining: true }).unwrap();
    assert_eq!(state.apply(to_second(ranges([4]))), Err(Refused::ToDraining { to: 1, node: 2 }));
}

#[test]
fn only_a_node_that_owns_nothing_goes_and_numbers_are_not_given_again() {
    let mut state = founded();
    admit(&mut state, 1, &["a"]).unwrap();
    assert_eq!(state.apply(Command::Remove { node: 1 }), Err(Refused::LastNode(1)));
    admit(&mut state, 2, &["a"]).unwrap();
    assert_eq!(state.apply(Command::Remove { node: 1 }), Err(Refused::StillOwns { node: 1, shards: 16 }));
    state.apply(Command::Remove { node: 2 }).unwrap();
    assert_eq!(state.apply(Command::Remove { node: 2 }), Err(Refused::NoSuchNode(2)));
    let back = Admission { number: Some(2), ..admission(2, &["a"]) };
    assert_eq!(state.apply(Command::Admit(back)), Err(Refused::Removed(2)));
    assert_eq!(admit(&mut state, 2, &["a"]), Ok(Outcome::Admitted { node: 3, devices: vec![2] }));
}

/// A cluster of three nodes with a device each.
fn three() -> State {
    let mut state = founded();
    (1..=3).for_each(|number| drop(admit(&mut state, number, &["a"]).unwrap()));
    state
}

fn in_sync(state: &State, device: DeviceNumber, node: NodeNumber, in_sync: bool) -> Command {
    let Device { term, changes, .. } = state.devices[&device];
    Command::InSync { device, term, changes, node, in_sync }
}

#[test]
fn a_replica_is_in_sync_once_its_devices_node_has_said_so_in_its_present_term() {
    let mut state = three();
    assert_eq!((state.devices[&0].term, &state.devices[&0].in_sync), (1, &BTreeSet::from([1])));
    let early = in_sync(&state, 0, 2, true);
    assert_eq!(state.apply(early), Err(Refused::NotReplica { device: 0, node: 2 }));
    state.apply(Command::Replicate { device: 0, replicas: vec![2, 3] }).unwrap();
    let enters = in_sync(&state, 0, 2, true);
    state.apply(enters.clone()).unwrap();
    assert_eq!(state.devices[&0].in_sync, BTreeSet::from([1, 2]));
    let before = state.clone();
    assert_eq!(state.apply(enters), Err(Refused::Changed { device: 0 }), "what was given up and comes late");
    let own = in_sync(&state, 0, 1, false);
    assert_eq!(state.apply(own), Err(Refused::NotReplica { device: 0, node: 1 }));
    let Device { changes, .. } = state.devices[&0];
    let other = Command::InSync { device: 0, term: 2, changes, node: 3, in_sync: true };
    assert_eq!(state.apply(other), Err(Refused::OtherTerm { device: 0, term: 2, now: 1 }));
    assert_eq!(state, before);
    let leaves = in_sync(&state, 0, 2, false);
    state.apply(leaves).unwrap();
    assert_eq!(state.devices[&0].in_sync, BTreeSet::from([1]));
    assert_eq!(state.devices[&0].replicas, [2, 3], "it is to come back");
    // One that was to come in, and is not to any more.
    let (enters, leaves) = (in_sync(&state, 0, 2, true), in_sync(&state, 0, 2, false));
    state.apply(leaves).unwrap();
    assert_eq!(state.apply(enters), Err(Refused::Changed { device: 0 }));
    let unknown = in_sync(&state, 0, 2, true);
    let Command::InSync { term, changes, node, in_sync, .. } = unknown else { unreachable!() };
    let unknown = Command::InSync { device: 9, term, changes, node, in_sync };
    assert_eq!(state.apply(unknown), Err(Refused::NoSuchDevice(9)));
}

#[test]
fn a_node_that_was_given_up_still_has_everything_of_a_device_whose_node_has_died_as_well() {
    let mut state = three();
    state.apply(Command::Replicate { device: 0, replicas: vec![2] }).unwrap();
    let enters = in_sync(&state, 0, 2, true);
    state.apply(enters).unwrap();
    let late = in_sync(&state, 0, 2, true);
    state.apply(Command::GiveUp { node: 2, times: 0, devices: BTreeMap::new() }).unwrap();
    assert_eq!(state.apply(late), Err(Refused::Changed { device: 0 }), "what was said of it before is old");
    // Node 1 says that it goes on without it where it lives. Here it does not.
    assert_eq!(state.devices[&0].in_sync, BTreeSet::from([1, 2]));
    assert_eq!(failover::choose(&state, 1, &BTreeSet::from([3])), BTreeMap::new(), "not before it is back");
    let begins = failover::choose(&state, 1, &BTreeSet::from([2, 3]));
    assert_eq!(begins, BTreeMap::from([(0, 2)]));
    state.apply(Command::GiveUp { node: 1, times: 0, devices: begins }).unwrap();
    assert_eq!(state.devices[&0].node, 2);
}

#[test]
fn all_nodes_have_the_same_lease() {
    let mut state = three();
    let mut other = admission(4, &["a"]);
    other.member.lease_ms = 900;
    let refused = Refused::OtherLease { leases: (900, 400), other: 1 };
    assert_eq!(state.apply(Command::Admit(other)), Err(refused));
}

#[test]
fn who_is_no_replica_any_more_is_not_in_sync_and_who_is_removed_is_neither() {
    let mut state = three();
    state.apply(Command::Replicate { device: 0, replicas: vec![2, 3] }).unwrap();
    for node in [2, 3] {
        let enters = in_sync(&state, 0, node, true);
        state.apply(enters).unwrap();
    }
    let late = in_sync(&state, 0, 3, false);
    state.apply(Command::Replicate { device: 0, replicas: vec![3] }).unwrap();
    assert_eq!(state.devices[&0].in_sync, BTreeSet::from([1, 3]));
    assert_eq!(state.apply(late), Err(Refused::Changed { device: 0 }));
    let before = state.clone();
    for (replicas, refused) in [
        (vec![9], Refused::NoSuchNode(9)),
        (vec![1], Refused::BadReplicas { device: 0, replicas: vec![1], why: "node 1 runs it".into() }),
        (vec![2, 2], Refused::BadReplicas { device: 0, replicas: vec![2, 2], why: "one is named twice".into() }),
    ] {
        assert_eq!(state.apply(Command::Replicate { device: 0, replicas }), Err(refused));
    }
    assert_eq!(state, before);
    state.apply(Command::Remove { node: 3 }).unwrap();
    assert_eq!((&state.devices[&0].replicas[..], &state.devices[&0].in_sync), (&[][..], &BTreeSet::from([1])));
}

#[test]
fn a_node_that_comes_back_keeps_its_replicas_unless_it_has_lost_what_they_are_copies_of() {
    let mut state = three();
    state.apply(Command::Replicate { device: 0, replicas: vec![2] }).unwrap();
    let enters = in_sync(&state, 0, 2, true);
    state.apply(enters).unwrap();
    let before = state.devices[&0].clone();
    state.apply(Command::Admit(Admission { fresh: false, ..admission(1, &["a"]) })).unwrap();
    assert_eq!(state.devices[&0], before);
    let mut anew = Admission { fresh: true, ..admission(1, &["a"]) };
    state.apply(Command::Admit(anew.clone())).unwrap();
    assert_eq!(state.devices[&0], before, "it is the same start of it");
    anew.member.incarnation = 2;
    state.apply(Command::Admit(anew.clone())).unwrap();
    state.apply(Command::Admit(anew)).unwrap();
    let Device { term, replicas, in_sync, .. } = &state.devices[&0];
    assert_eq!((*term, &replicas[..], in_sync), (2, &[2][..], &BTreeSet::from([1])));
}

#[test]
fn settings_are_checked() {
    let mut state = founded();
    let set = |name: &str, value: &str| Command::Set { name: name.into(), value: value.into() };
    for setting in SETTINGS {
        let value = state.settings.get(setting.name).expect("each has a value");
        state.apply(set(setting.name, &value)).unwrap();
    }
    state.apply(set("voters_max", "3")).unwrap();
    assert_eq!(state.settings.voters_max, 3);
    for wrong in ["2", "9", "", "three"] {
        assert!(matches!(state.apply(set("voters_max", wrong)), Err(Refused::BadSetting { .. })));
    }
    state.apply(set("replication_factor", "3")).unwrap();
    assert_eq!(state.settings.replication_factor, 3);
    for wrong in ["0", "4", "two"] {
        assert!(matches!(state.apply(set("replication_factor", wrong)), Err(Refused::BadSetting { .. })));
    }
    assert_eq!(state.apply(set("voters", "3")), Err(Refused::NoSuchSetting("voters".into())));
}

#[test]
fn a_token_is_good_once_and_until_it_expires() {
    let mut state = founded();
    let token = |serial: u8, expires_s, now_s| Command::UseToken { serial: vec![serial], expires_s, now_s };
    state.apply(token(1, 100, 50)).unwrap();
    assert_eq!(state.apply(token(1, 100, 51)), Err(Refused::TokenUsed));
    assert_eq!(state.apply(token(2, 100, 100)), Err(Refused::TokenExpired));
    state.apply(token(3, 300, 200)).unwrap();
    assert_eq!(state.tokens.len(), 1, "what has expired needs no memory");
}

#[test]
fn ids_and_ranges_read_well() {
    assert_eq!(id_text(&[0xab; 16]), "abababab-abab-abab-abab-abababababab");
    assert_eq!(Ranges(&ranges([0, 1, 2, 5, 7, 8])).to_string(), "0-2,5,7-8");
    assert_eq!(Ranges(&[]).to_string(), "");
}

#[test]
fn the_devices_of_a_node_that_is_given_up_begin_where_everything_of_them_is() {
    let mut state = three();
    state.apply(Command::Replicate { device: 0, replicas: vec![2, 3] }).unwrap();
    state.apply(in_sync(&state, 0, 2, true)).unwrap();
    let give_up = |times, to| Command::GiveUp { node: 1, times, devices: BTreeMap::from([(0, to)]) };
    let before = state.clone();
    for (command, why) in [
        (give_up(0, 3), "that node has not everything of it"),
        (give_up(0, 1), "that is the node that was given up"),
        (give_up(0, 9), "there is no such node"),
        (give_up(1, 2), "was given up 0 times"),
        (Command::GiveUp { node: 1, times: 0, devices: BTreeMap::from([(1, 3)]) }, "node 2 runs it"),
        (Command::GiveUp { node: 8, times: 0, devices: BTreeMap::new() }, "there is no node 8"),
    ] {
        let refused = state.apply(command).unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
    }
    assert_eq!(state, before);
    state.apply(give_up(0, 2)).unwrap();
    let device = &state.devices[&0];
    assert_eq!((device.node, device.term, &device.replicas[..]), (2, before.devices[&0].term + 1, &[3][..]));
    assert!(device.in_sync.iter().eq(&[2]), "what the silent node has is not all any more");
    assert_eq!(state.shards_of(0).count(), 16, "the device still has its shards");
    assert!(state.shards.iter().zip(&before.shards).all(|(now, before)| now.term == before.term + 1));
    assert_eq!((state.times_given_up(1), state.times_given_up(2)), (1, 0));
    assert!(matches!(state.apply(give_up(0, 2)), Err(Refused::GivenUp { .. })), "once");
    assert!(matches!(state.apply(in_sync(&before, 0, 3, true)), Err(Refused::OtherTerm { .. })), "its word is old");
}

#[test]
fn a_node_that_was_given_up_comes_back_with_devices_that_are_new() {
    let mut state = three();
    state.apply(Command::Replicate { device: 0, replicas: vec![2] }).unwrap();
    state.apply(in_sync(&state, 0, 2, true)).unwrap();
    state.apply(Command::GiveUp { node: 1, times: 0, devices: BTreeMap::from([(0, 2)]) }).unwrap();
    assert_eq!(admit(&mut state, 2, &["a"]), Ok(Outcome::Admitted { node: 2, devices: vec![1] }), "it has its own");
    assert_eq!(state.devices_of(2).map(|(number, _)| number).collect::<Vec<_>>(), [0, 1], "and the other");
    assert_eq!(state.adopted_by(2), BTreeMap::from([(0, state.devices[&0].term)]));
    assert_eq!(admit(&mut state, 1, &["a"]), Ok(Outcome::Admitted { node: 1, devices: vec![3] }));
    assert_eq!((state.shards_of(0).count(), state.shards_of(3).count()), (16, 0));
    assert_eq!(admit(&mut state, 1, &["a"]), Ok(Outcome::Admitted { node: 1, devices: vec![3] }));
    // It goes once it has nothing, and what a node comes with does not.
    let (term, mut emptied) = (state.devices[&0].term, state.clone());
    let retire = |device, term| Command::Retire { device, term };
    assert!(matches!(emptied.apply(retire(0, term)), Err(Refused::CannotRetire { .. })), "it has shards");
    emptied.apply(Command::Move { shards: ranges(0..16), from: 0, to: 3 }).unwrap();
    assert!(matches!(emptied.apply(retire(0, term - 1)), Err(Refused::OtherTerm { .. })));
    assert!(matches!(emptied.apply(retire(1, 1)), Err(Refused::CannotRetire { .. })));
    assert_eq!(emptied.apply(retire(0, term)), Ok(Outcome::Done));
    assert_eq!(emptied.apply(retire(0, term)), Err(Refused::NoSuchDevice(0)));
    assert!(emptied.adopted_by(2).is_empty());
    // Back to where it came from it is not what that node comes with.
    state.apply(Command::Replicate { device: 0, replicas: vec![1] }).unwrap();
    state.apply(in_sync(&state, 0, 1, true)).unwrap();
    state.apply(Command::GiveUp { node: 2, times: 0, devices: BTreeMap::from([(0, 1)]) }).unwrap();
    assert_eq!(admit(&mut state, 1, &["a"]), Ok(Outcome::Admitted { node: 1, devices: vec![3] }));
    assert_eq!(state.devices_of(1).count(), 2);
}

#[test]
fn a_node_that_has_ended_is_given_up_at_once_and_only_the_start_of_it_that_said_so() {
    let mut state = three();
    state.apply(Command::Replicate { device: 0, replicas: vec![2] }).unwrap();
    state.apply(in_sync(&state, 0, 2, true)).unwrap();
    let run = state.nodes[&1].incarnation;
    let ended = |run| Command::Ended { node: 1, run, times: 0, devices: BTreeMap::from([(0, 2)]) };
    // It has been started again meanwhile, and its devices run.
    let mut again = state.clone();
    let mut admission = Admission { fresh: false, ..admission(1, &["a"]) };
    admission.member.incarnation = run + 1;
    again.apply(Command::Admit(admission.clone())).unwrap();
    let before = again.clone();
    assert_eq!(again.apply(ended(run)), Err(Refused::StartedAgain(1)));
    assert_eq!(again, before);

    // A copy that was about to be in sync there is not any more.
    state.apply(Command::Replicate { device: 1, replicas: vec![1] }).unwrap();
    let late = in_sync(&state, 1, 1, true);
    state.apply(ended(run)).unwrap();
    assert_eq!((state.devices[&0].node, state.times_given_up(1)), (2, 1));
    assert_eq!(state.apply(late), Err(Refused::Changed { device: 1 }));
    assert!(matches!(state.apply(ended(run)), Err(Refused::GivenUp { .. })), "once");
    // It comes back as a member with devices that have nothing yet.
    assert_eq!(state.apply(Command::Admit(admission)), Ok(Outcome::Admitted { node: 1, devices: vec![3] }));
    assert!(matches!(state.apply(ended(run)), Err(Refused::StartedAgain(1))));
}
