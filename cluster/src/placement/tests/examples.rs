//! Small clusters, looked at closely.

use std::time::Duration;

use super::*;
use crate::control::state::{Device, ranges};

fn cpus(count: usize) -> Vec<AboutDevice> {
    (0..count).map(|number| about(&format!("d{number}"), "cpu", 1)).collect()
}

/// Two nodes with a device each; the first owns all of 12 shards.
fn pair(strategy: &str) -> (State, View) {
    let mut state = founded(12);
    admit(&mut state, "", cpus(1));
    admit(&mut state, "", cpus(1));
    set(&mut state, "placement", strategy);
    let view = well(&state);
    (state, view)
}

fn per_second(view: &mut View, loads: &[u64]) {
    let load = |load: &u64| ShardLoad { per_second: Some(*load), memory_bytes: None };
    view.shards = (0..).zip(loads.iter().map(load)).collect();
}

fn counts(state: &State, plan: &Plan) -> Vec<u32> {
    done(state, plan).shard_counts().into_values().collect()
}

#[test]
fn a_plan_says_what_moves_why_and_what_comes_of_it() {
    let (mut state, view) = pair("round-robin");
    set(&mut state, "weights", "0=2");
    let rebalance = plan(&state, &view, Want::Rebalance);
    assert_eq!(
        rebalance.to_string(),
        "4 shards move:\n  \
         1. 4 shards (0-3) from device 0 to device 1, of another node: it has 12 shards and its share is 8\n\
         device 0: 12 shards; then 8\n\
         device 1: 0 shards; then 4\n"
    );
    let settled = done(&state, &rebalance);
    assert!(plan(&settled, &view, Want::Rebalance).to_string().starts_with("Nothing is moved.\n"));
    let alone = View { alive: [1].into(), ..View::default() };
    let drain = plan(&settled, &alone, Want::Drain(1));
    assert!(drain.moves.is_empty());
    let said = "8 shards (4-11) of device 0 have nowhere to go: device 1, node 2 does not answer";
    assert_eq!(drain.obstacles[0].to_string(), said);
    let gone = plan(&settled, &alone, Want::Drain(2));
    assert_eq!((gone.moves, gone.obstacles), (Vec::new(), vec![Obstacle::NodeGone(2)]));
    assert_eq!(plan(&settled, &view, Want::Drain(9)).obstacles, [Obstacle::NoSuchNode(9)]);
    assert_eq!(plan(&settled, &view, Want::DeviceAdded(9)).obstacles, [Obstacle::NoSuchDevice(9)]);
}

#[test]
fn a_stand_in_is_emptied_where_there_is_another_device_and_nobody_has_set_its_weight() {
    let (mut state, view) = pair("round-robin");
    let Device { term, changes, .. } = state.devices[&0];
    state.apply(Command::Replicate { device: 0, replicas: vec![2] }).unwrap();
    state.apply(Command::InSync { device: 0, term, changes: changes + 1, node: 2, in_sync: true }).unwrap();
    state.apply(Command::GiveUp { node: 1, times: 0, devices: BTreeMap::from([(0, 2)]) }).unwrap();
    let rebalance = plan(&state, &view, Want::Rebalance);
    assert_eq!(counts(&state, &rebalance), [0, 12]);
    assert_eq!(rebalance.moves[0].why, Why::Barred(Barred::StandsIn));
    // Where the node's own device can be given nothing it keeps them.
    let broken = View { failed: [1].into(), ..view.clone() };
    assert!(plan(&state, &broken, Want::Rebalance).moves.is_empty());
    set(&mut state, "weights", "0=1");
    assert_eq!(counts(&state, &plan(&state, &view, Want::Rebalance)), [6, 6]);
}

#[test]
fn only_devices_of_the_kinds_that_are_set_keep_shards() {
    let mut state = founded(12);
    admit(&mut state, "", vec![about("cpu", "cpu", 4), about("gpu", "cuda", 128)]);
    let view = well(&state);
    set(&mut state, "kinds", "cuda");
    let gpus = plan(&state, &view, Want::Rebalance);
    assert_eq!(counts(&state, &gpus), [0, 12]);
    assert_eq!(gpus.moves[0].why, Why::Barred(Barred::Kind));
    let added = plan(&state, &view, Want::DeviceAdded(0));
    assert_eq!(added.obstacles, [Obstacle::Barred { device: 0, why: Barred::Kind }]);
    set(&mut state, "weights", "1=0");
    let nowhere = plan(&state, &view, Want::Rebalance);
    assert!(nowhere.moves.is_empty());
    assert_eq!(nowhere.obstacles.len(), 2, "{nowhere}");
    assert!(nowhere.obstacles[0].to_string().ends_with("have nowhere to go: device 1, its weight is 0"), "{nowhere}");
}

#[test]
fn shards_of_what_is_gone_go_where_copies_are_and_wait_until_they_are_asked_for() {
    for strategy in STRATEGIES {
        let mut state = founded(12);
        for _ in 0..4 {
            admit(&mut state, "", cpus(1));
        }
        set(&mut state, "placement", strategy);
        let mut view = well(&state);
        view.alive.remove(&1);
        view.copies.insert(0, [3].into());
        assert!(plan(&state, &view, Want::Rebalance).moves.is_empty(), "node 1 may be back in a moment");
        let fill = plan(&state, &view, Want::Fill);
        assert_eq!(counts(&state, &fill), [0, 0, 12, 0], "{strategy}");
        assert_eq!(fill.moves[0].why, Why::Barred(Barred::NodeGone(1)));
        view.copies.clear();
        assert_eq!(counts(&state, &plan(&state, &view, Want::Fill)), [0, 4, 4, 4], "{strategy}");
        view.alive.insert(1);
        view.failed.insert(0);
        assert_eq!(counts(&state, &plan(&state, &view, Want::Fill)), [0, 4, 4, 4], "{strategy}");
    }
}

#[test]
fn load_counts_and_not_shards() {
    let (mut state, mut view) = pair("load");
    per_second(&mut view, &[600, 100, 100, 100, 100, 100, 100, 0, 0, 0, 0, 0]);
    let rebalance = plan(&state, &view, Want::Rebalance);
    assert_eq!(rebalance.moves.len(), 1);
    assert_eq!(rebalance.moves[0].shards, ranges([0]), "one shard is half of the load");
    assert_eq!(rebalance.moves[0].why, Why::Load { percent: 200 });
    assert_eq!(rebalance.measure, Measure::PerSecond);
    assert_eq!(rebalance.after[&1], Share { shards: 1, load: Some(600) });
    view.moved_ago.insert(0, Duration::from_secs(299));
    assert!(!moved(&plan(&state, &view, Want::Rebalance)).contains(&0), "it has moved lately");
    set(&mut state, "load_rest_s", "299");
    assert!(moved(&plan(&state, &view, Want::Rebalance)).contains(&0));
}

#[test]
fn idle_shards_are_not_moved_for_load() {
    let (state, mut view) = pair("load");
    per_second(&mut view, &[5_000, 400, 500, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let rebalance = plan(&state, &view, Want::Rebalance);
    assert_eq!(moved(&rebalance), [1, 2].into(), "the hot shard helps nobody elsewhere: {rebalance}");
}

#[test]
fn within_the_band_nothing_moves() {
    let (mut state, mut view) = pair("load");
    let half = Command::Move { shards: std::iter::once(0..6).collect(), from: 0, to: 1 };
    state.apply(half).unwrap();
    per_second(&mut view, &[118, 118, 118, 118, 118, 118, 82, 82, 82, 82, 82, 82]);
    assert!(plan(&state, &view, Want::Rebalance).moves.is_empty(), "18 % over the mean");
    set(&mut state, "load_band_percent", "17");
    let tight = plan(&state, &view, Want::Rebalance);
    assert_eq!((tight.count(), tight.moves[0].from), (1, 1), "{tight}");
}

#[test]
fn how_busy_devices_are_counts_more_than_how_much_they_handle() {
    let (mut state, mut view) = pair("load");
    let half = Command::Move { shards: std::iter::once(0..6).collect(), from: 0, to: 1 };
    state.apply(half).unwrap();
    let load =
        |per_second, busy| DeviceLoad { per_second: Some(per_second), busy_permille: busy, ..DeviceLoad::default() };
    view.devices = BTreeMap::from([(0, load(1_000, None)), (1, load(200, None))]);
    let by_count = plan(&state, &view, Want::Rebalance);
    assert!(by_count.moves.iter().all(|each| each.from == 0) && by_count.count() > 0, "{by_count}");
    // Its messages are few and take long.
    view.devices = BTreeMap::from([(0, load(1_000, Some(100))), (1, load(200, Some(900)))]);
    let by_time = plan(&state, &view, Want::Rebalance);
    assert_eq!(by_time.measure, Measure::BusyPermille);
    assert_eq!(by_time.before[&1].load, Some(900));
    assert!(by_time.moves.iter().all(|each| each.from == 1) && by_time.count() > 0, "{by_time}");
    view.devices.remove(&1);
    let unknown = plan(&state, &view, Want::Rebalance);
    assert_eq!((unknown.moves, unknown.obstacles), (Vec::new(), vec![Obstacle::LoadUnknown(vec![1])]));
}

#[test]
fn what_is_not_known_of_shards_is_what_is_left_of_their_device() {
    let (state, mut view) = pair("load");
    view.devices.insert(0, DeviceLoad { per_second: Some(1_100), ..DeviceLoad::default() });
    view.shards.insert(3, ShardLoad { per_second: Some(550), memory_bytes: None });
    let rebalance = plan(&state, &view, Want::Rebalance);
    assert_eq!(rebalance.moves[0].shards, ranges([3]), "{rebalance}");
    assert_eq!(rebalance.before[&0].load, Some(1_100));
}

#[test]
fn a_group_is_gathered_where_most_of_it_is_and_moves_whole() {
    let mut state = founded(12);
    admit(&mut state, "", cpus(3));
    set(&mut state, "placement", "affinity");
    set(&mut state, "affinity", "0-1,3;4-5");
    let view = well(&state);
    let gathered = plan(&state, &view, Want::Rebalance);
    let together = done(&state, &gathered);
    let owners = |shards: &[usize]| shards.iter().map(|shard| together.shards[*shard].owner).collect::<Vec<_>>();
    assert_eq!(owners(&[0, 1, 3]), [Some(0); 3], "device 0 had two of the three");
    assert_eq!(owners(&[4, 5]), [Some(1); 2], "as many on each: the lower number");
    assert!(gathered.moves.iter().any(|each| each.why == Why::Together), "{gathered}");
    assert_eq!(together.shard_counts().into_values().collect::<Vec<_>>(), [4, 4, 4]);
}

#[test]
fn one_large_group_does_not_keep_the_others_from_being_even() {
    let mut state = founded(60);
    admit(&mut state, "", cpus(4));
    set(&mut state, "placement", "affinity");
    set(&mut state, "affinity", "0-29");
    let view = well(&state);
    let mut even = counts(&state, &plan(&state, &view, Want::Rebalance));
    even.sort_unstable();
    assert_eq!(even, [10, 10, 10, 30]);
}

#[test]
fn shards_go_to_the_nearest_device_that_is_to_have_more() {
    let mut state = founded(64);
    let placed = |name: &str, numa, switch: Option<&str>, nvlinks: &[&str]| {
        let mut about = about(name, "cuda", 1);
        about.place = Place {
            numa_node: Some(numa),
            pci: Some(name.into()),
            pcie_switch: switch.map(String::from),
            nvlinks: nvlinks.iter().map(|link| link.to_string()).collect(),
        };
        about
    };
    let devices = vec![
        placed("a", 0, Some("s"), &["nvswitch"]),
        placed("b", 1, None, &[]),
        placed("c", 0, None, &[]),
        placed("d", 0, Some("s"), &[]),
        placed("e", 1, None, &["nvswitch"]),
        placed("f", 1, None, &["a"]),
    ];
    admit(&mut state, "x", devices);
    admit(&mut state, "y", cpus(1));
    admit(&mut state, "x", cpus(1));
    let expected = [Near::Node, Near::Numa, Near::PcieSwitch, Near::Nvlink, Near::Nvlink, Near::Apart, Near::Zone];
    for (to, expected) in (1..).zip(expected) {
        assert_eq!(near(&state, 0, to), expected, "device {to}");
        assert_eq!(near(&state, to, 0), expected, "device {to}");
    }
    // One that stands in has come from another machine, and with it what it said of where it is.
    let mut stands_in = state.clone();
    stands_in.devices.get_mut(&4).unwrap().adopted = true;
    assert_eq!((near(&stands_in, 0, 4), near(&stands_in, 4, 0)), (Near::Node, Near::Node));
    set(&mut state, "placement", "topology");
    for from in 1..6 {
        let shards = crate::control::state::ranges(state.shards_of(from));
        state.apply(Command::Move { shards, from, to: 0 }).unwrap();
    }
    // Of each two that are to have the same, the nearer is asked first.
    let view = View { failed: [0].into(), ..well(&state) };
    for (weights, nearest) in [
        ("1=1;2=1;3=1;4=1;5=0;6=1;7=1", 4),
        ("1=1;2=1;3=1;4=0;5=0;6=1;7=1", 3),
        ("1=1;2=1;3=0;4=0;5=0;6=1;7=1", 2),
        ("1=1;2=0;3=0;4=0;5=0;6=1;7=1", 1),
        ("1=0;2=0;3=0;4=0;5=0;6=1;7=1", 7),
    ] {
        set(&mut state, "weights", weights);
        let fill = plan(&state, &view, Want::Fill);
        assert_eq!(fill.moves[0].to, nearest, "{fill}");
        assert!(fill.moves.is_sorted_by_key(|each| each.near), "{fill}");
    }
}

#[test]
fn copies_go_to_other_zones_first() {
    let mut state = founded(4);
    for zone in ["a", "a", "b", "b", "c"] {
        admit(&mut state, zone, cpus(1));
    }
    assert_eq!(replicas(&state, 1, 2), [3]);
    assert_eq!(replicas(&state, 1, 3), [3, 5], "each in a zone of its own");
    assert_eq!(replicas(&state, 1, 4), [3, 5, 4], "then other zones than the owner's");
    assert_eq!(replicas(&state, 1, 9), [3, 5, 4, 2]);
    assert_eq!(replicas(&state, 4, 2), [5], "what follows by number");
    assert_eq!(replicas(&state, 5, 2), [1], "and around");
    state.apply(Command::Drain { node: 3, draining: true }).unwrap();
    assert_eq!(replicas(&state, 1, 2), [4]);
    assert_eq!((replicas(&state, 1, 1), replicas(&state, 9, 2)), (vec![], vec![]));
}

#[test]
fn a_shard_that_no_device_owns_is_named() {
    let state = founded(4);
    let nobody = plan(&state, &View::default(), Want::Fill);
    assert_eq!(nobody.obstacles[0].to_string(), "4 shards (0-3) belong to no device of the cluster");
}
