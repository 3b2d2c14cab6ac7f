//! Random clusters, and what a plan for any of them must be.

mod examples;
mod properties;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::control::state::{AboutDevice, Admission, Cluster, Command, Member};

const CLUSTER: [u8; 16] = [7; 16];

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

fn founded(shards: u32) -> State {
    let mut state = State::default();
    state.apply(Command::Found { cluster: Cluster { id: CLUSTER, name: "test".into() }, shards }).unwrap();
    state
}

fn about(name: &str, kind: &str, workers: u32) -> AboutDevice {
    AboutDevice { name: name.into(), kind: kind.into(), workers, memory_bytes: None, place: Place::default() }
}

/// Lets a node in; its number is given.
fn admit(state: &mut State, zone: &str, devices: Vec<AboutDevice>) -> NodeNumber {
    let number = state.nodes.keys().last().map_or(1, |last| last + 1);
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let member = Member {
        id,
        incarnation: 1,
        name: format!("n{number}"),
        address: format!("host{number}:7000"),
        zone: zone.into(),
        release: "0.1.0".into(),
        versions: (1, 1),
        types: BTreeMap::new(),
        draining: false,
        lease_ms: 400,
    };
    state.apply(Command::Admit(Admission { cluster: CLUSTER, number: None, member, devices, fresh: false })).unwrap();
    number
}

fn set(state: &mut State, name: &str, value: &str) {
    state.apply(Command::Set { name: name.into(), value: value.into() }).unwrap();
}

/// A view in which everything is well and nothing is measured.
fn well(state: &State) -> View {
    View { alive: state.nodes.keys().copied().collect(), ..View::default() }
}

/// What is done when a plan is.
fn done(state: &State, plan: &Plan) -> State {
    let mut state = state.clone();
    for each in &plan.moves {
        state.apply(each.command()).unwrap_or_else(|refused| panic!("{each}: {refused}"));
    }
    state
}

/// What a random cluster may have.
#[derive(Clone, Copy)]
struct Odds {
    /// Nodes that are draining or dead, devices that are given up, of a kind that is not wanted or of weight 0.
    trouble: bool,
    /// Loads of shards.
    loads: bool,
    /// Bounds of memory.
    memory: bool,
}

const CALM: Odds = Odds { trouble: false, loads: false, memory: false };

fn random(random: &mut Random, strategy: &str, odds: Odds) -> (State, View) {
    let shards = 1 + random.below(200) as u32;
    let mut state = founded(shards);
    for _ in 0..1 + random.below(7) {
        let zone = *random.pick(&["", "a", "b", "c"]);
        let devices = (0..random.below(5)).map(|number| {
            let kind = *random.pick(&["cpu", "cuda"]);
            let mut about = about(&format!("d{number}"), kind, 1 + random.below(8) as u32);
            let place = &mut about.place;
            place.numa_node = random.chance(70).then(|| random.below(2) as u32);
            place.pcie_switch = random.chance(50).then(|| format!("switch{}", random.below(2)));
            place.pci = (kind == "cuda").then(|| format!("gpu{number}"));
            if random.chance(30) {
                place.nvlinks.insert(format!("gpu{}", random.below(5)));
            }
            about
        });
        let devices = devices.collect();
        admit(&mut state, zone, devices);
    }
    let devices: Vec<DeviceNumber> = state.devices.keys().copied().collect();
    if !devices.is_empty() {
        // Few or many of them have been elsewhere.
        for _ in 0..random.below(300) {
            let shard = random.below(u64::from(shards)) as u32;
            let from = state.shards[shard as usize].owner.unwrap();
            let moved =
                Command::Move { shards: std::iter::once(shard..shard + 1).collect(), from, to: *random.pick(&devices) };
            state.apply(moved).unwrap();
        }
    }
    let mut view = well(&state);
    if odds.trouble {
        for node in state.nodes.keys().copied().collect::<Vec<_>>() {
            if random.chance(15) {
                view.alive.remove(&node);
            }
            if random.chance(15) {
                state.apply(Command::Drain { node, draining: true }).unwrap();
            }
        }
        view.failed.extend(devices.iter().filter(|_| random.chance(8)));
        if random.chance(20) {
            set(&mut state, "kinds", random.pick::<&str>(&["cuda", "cpu"]));
        }
        for device in &devices {
            let nodes = state.nodes.keys().copied().filter(|_| random.chance(30));
            view.copies.insert(*device, nodes.collect());
        }
    }
    if random.chance(50) {
        let weight = |random: &mut Random| if odds.trouble { random.below(5) } else { 1 + random.below(5) };
        let weights = devices.iter().map(|device| format!("{device}={}", weight(random))).collect::<Vec<_>>();
        set(&mut state, "weights", &weights.join(";"));
    }
    let mut next = 0;
    let mut groups = Vec::new();
    while next < shards && groups.len() < 12 {
        let last = next + random.below(12) as u32;
        groups.push(format!("{next}-{last}"));
        next = last + 1 + random.below(8) as u32;
    }
    set(&mut state, "affinity", &groups.join(";"));
    set(&mut state, "placement", strategy);
    for shard in 0..shards {
        let load = ShardLoad {
            per_second: odds.loads.then(|| if random.chance(10) { random.below(100_000) } else { random.below(1_000) }),
            memory_bytes: odds.memory.then(|| random.below(1_000)),
        };
        view.shards.insert(shard, load);
    }
    if odds.memory {
        for device in &devices {
            let used = state.shards_of(*device).map(|shard| view.shards[&shard].memory_bytes.unwrap()).sum();
            let (memory_used_bytes, memory_free_bytes) = (Some(used), random.chance(80).then(|| random.below(20_000)));
            view.devices.insert(*device, DeviceLoad { memory_used_bytes, memory_free_bytes, ..DeviceLoad::default() });
        }
    }
    (state, view)
}

const STRATEGIES: [&str; 4] = ["round-robin", "load", "affinity", "topology"];

/// Devices that may be given shards, written down a second time.
fn open(state: &State, view: &View) -> BTreeMap<DeviceNumber, u64> {
    let settings = &state.settings.placement;
    let mut open = BTreeMap::new();
    for (number, device) in &state.devices {
        let weight = u64::from(*settings.weights.0.get(number).unwrap_or(&device.about.workers));
        let kinds = &settings.kinds.0;
        let fine = view.alive.contains(&device.node)
            && !state.nodes[&device.node].draining
            && !view.failed.contains(number)
            && (kinds.is_empty() || kinds.contains(&device.about.kind));
        if fine && weight > 0 {
            open.insert(*number, weight);
        }
    }
    open
}

fn moved(plan: &Plan) -> BTreeSet<u32> {
    plan.moves.iter().flat_map(|each| each.shards.iter().cloned().flatten()).collect()
}
