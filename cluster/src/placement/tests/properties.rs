//! What holds for every cluster.

use std::time::{Duration, Instant};

use super::*;

const CASES: u64 = 400;

/// Runs a check on many random clusters and says which seed failed.
fn each(odds: Odds, strategies: &[&str], check: impl Fn(&State, &View, &mut Random)) {
    struct Seed<'a>(&'a str, u64);
    impl Drop for Seed<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("strategy {}, seed {}", self.0, self.1);
            }
        }
    }
    for strategy in strategies {
        for seed in 0..CASES {
            let _said = Seed(strategy, seed);
            let mut random = Random(seed);
            let (state, view) = super::random(&mut random, strategy, odds);
            check(&state, &view, &mut random);
        }
    }
}

fn any_want(state: &State, random: &mut Random) -> Want {
    let nodes: Vec<NodeNumber> = state.nodes.keys().copied().collect();
    let devices: Vec<DeviceNumber> = state.devices.keys().copied().collect();
    match random.below(4) {
        0 => Want::Drain(*random.pick(&nodes)),
        1 if !devices.is_empty() => Want::DeviceAdded(*random.pick(&devices)),
        2 => Want::Fill,
        _ => Want::Rebalance,
    }
}

#[test]
fn a_plan_is_made_of_valid_moves_to_devices_that_may_have_them() {
    let odds = [(false, false), (true, false), (false, true), (true, true)];
    for (loads, memory) in odds {
        each(Odds { trouble: true, loads, memory }, &STRATEGIES, |state, view, random| {
            let want = any_want(state, random);
            let plan = plan(state, view, want);
            assert_eq!(plan, super::plan(&state.clone(), &view.clone(), want), "the same again");
            let after = done(state, &plan);
            assert_eq!(moved(&plan).len() as u32, plan.count(), "each once");
            let open = open(state, view);
            for each in &plan.moves {
                assert!(open.contains_key(&each.to), "{each}");
                assert!(each.from != each.to && each.count() > 0, "{each}");
                assert_ne!(Want::Drain(state.devices[&each.to].node), want, "{each}");
            }
            let counts = |shares: &BTreeMap<DeviceNumber, Share>| -> BTreeMap<DeviceNumber, u32> {
                shares.iter().map(|(device, share)| (*device, share.shards)).collect()
            };
            assert_eq!(counts(&plan.before), state.shard_counts());
            assert_eq!(counts(&plan.after), after.shard_counts());
            let first = plan.moves.iter().take_while(|each| matches!(each.why, Why::Barred(_))).count();
            assert!(
                plan.moves[first..].iter().all(|each| !matches!(each.why, Why::Barred(_))),
                "what must go goes first"
            );
            assert!(plan.to_string().lines().count() >= plan.moves.len() + plan.obstacles.len());
        });
    }
}

#[test]
fn even_counts_are_within_one_of_the_share_and_as_few_shards_move_as_can_be() {
    each(Odds { trouble: true, ..CALM }, &["round-robin", "topology"], |state, view, _| {
        let open = open(state, view);
        let plan = plan(state, view, Want::Rebalance);
        if open.is_empty() {
            return assert!(plan.moves.is_empty());
        }
        let (before, after) = (state.shard_counts(), done(state, &plan).shard_counts());
        let total: u64 = open.keys().map(|device| u64::from(after[device])).sum();
        let weight: u64 = open.values().sum();
        for (device, own) in &open {
            let (has, share) = (u64::from(after[device]) * weight, total * own);
            assert!(has.abs_diff(share) < weight, "device {device} has {} of {total}", after[device]);
        }
        // Whatever has more than its share rounded down must give that, but for one shard where shares are rounded up.
        let floor = |device: &DeviceNumber| total * open[device] / weight;
        let spare = total - open.keys().map(floor).sum::<u64>();
        let rounded = |device: &&DeviceNumber| !(total * open[*device]).is_multiple_of(weight);
        let over = |device: &DeviceNumber| u64::from(before[device]).saturating_sub(floor(device));
        let kept = open.keys().filter(rounded).filter(|device| over(device) > 0).count() as u64;
        let stay: u64 = open.keys().map(|device| u64::from(before[device])).sum();
        let least = open.keys().map(over).sum::<u64>() - kept.min(spare) + (total - stay);
        assert_eq!(u64::from(plan.count()), least, "{plan}");
    });
}

#[test]
fn a_second_plan_right_after_the_first_is_empty() {
    for trouble in [false, true] {
        each(Odds { trouble, loads: true, memory: false }, &STRATEGIES, |state, view, _| {
            let first = plan(state, view, Want::Rebalance);
            let second = plan(&done(state, &first), view, Want::Rebalance);
            assert!(second.moves.is_empty(), "first {first}, then {second}");
        });
    }
}

#[test]
fn what_leaves_goes_as_a_whole_and_nothing_else_moves() {
    each(Odds { trouble: true, ..CALM }, &STRATEGIES, |state, view, random| {
        let open = open(state, view);
        let gone =
            |device: &DeviceNumber| !view.alive.contains(&state.devices[device].node) || view.failed.contains(device);
        let node = *random.pick(&state.nodes.keys().copied().collect::<Vec<_>>());
        for want in [Want::Fill, Want::Drain(node)] {
            let leaving = |device: &DeviceNumber| match want {
                Want::Drain(node) => view.alive.contains(&node) && state.devices[device].node == node,
                _ => gone(device),
            };
            let to = open.keys().filter(|device| want != Want::Drain(state.devices[device].node)).count();
            let leaving: BTreeSet<u32> = state
                .devices
                .keys()
                .filter(|device| leaving(device))
                .flat_map(|device| state.shards_of(device.to_owned()))
                .collect();
            let plan = plan(state, view, want);
            if to == 0 {
                assert!(plan.moves.is_empty());
                let nowhere = |obstacle: &Obstacle| matches!(obstacle, Obstacle::Nowhere { .. });
                assert!(leaving.is_empty() || plan.obstacles.iter().any(nowhere), "{plan}");
            } else {
                assert_eq!(moved(&plan), leaving, "{want:?}: {plan}");
            }
        }
    });
}

#[test]
fn a_device_that_comes_gets_its_share_and_nobody_else_anything() {
    for loads in [false, true] {
        each(Odds { loads, ..CALM }, &STRATEGIES, |state, view, random| {
            if state.devices.is_empty() {
                return;
            }
            let mut state = done(state, &plan(state, view, Want::Rebalance));
            let node = admit(&mut state, "a", vec![about("new", "cpu", 1 + random.below(8) as u32)]);
            let mut view = view.clone();
            view.alive.insert(node);
            let new = *state.devices.keys().last().unwrap();
            let plan = plan(&state, &view, Want::DeviceAdded(new));
            assert!(plan.moves.iter().all(|each| each.to == new && each.why == Why::Joined), "{plan}");
            let open = open(&state, &view);
            let after = done(&state, &plan);
            let share = state.shards.len() as u64 * open[&new] / open.values().sum::<u64>();
            if ["round-robin", "topology"].contains(&state.settings.get("placement").unwrap().as_str()) {
                assert!((share..=share + 1).contains(&u64::from(plan.count())), "{share}: {plan}");
                let (counts, weight) = (after.shard_counts(), open.values().sum::<u64>());
                for (device, own) in &open {
                    let (has, share) = (u64::from(counts[device]) * weight, state.shards.len() as u64 * own);
                    assert!(has.abs_diff(share) < 2 * weight, "device {device} has {}: {plan}", counts[device]);
                }
            }
            let again = super::plan(&after, &view, Want::DeviceAdded(new));
            assert!(again.moves.is_empty(), "{plan} and then {again}");
        });
    }
}

#[test]
fn groups_are_brought_together_and_stay_together() {
    let apart = |state: &State| {
        let groups = state.settings.placement.affinity.0.iter();
        let owners = groups.map(|group| {
            let shards = group.iter().flat_map(|range| range.start..range.end.min(state.shards.len() as u32));
            shards.map(|shard| state.shards[shard as usize].owner).collect::<BTreeSet<_>>()
        });
        owners.filter(|owners| owners.len() > 1).count()
    };
    each(CALM, &["affinity"], |state, view, random| {
        let plan = plan(state, view, Want::Rebalance);
        let together = done(state, &plan);
        assert_eq!(apart(&together), 0, "{plan}");
        let devices: Vec<DeviceNumber> = state.devices.keys().copied().collect();
        if devices.is_empty() {
            return;
        }
        let (node, device) = (state.devices[random.pick(&devices)].node, *random.pick(&devices));
        let failed = View { failed: [device].into(), ..view.clone() };
        for (view, want) in [(view, Want::Drain(node)), (&failed, Want::Fill), (view, Want::DeviceAdded(device))] {
            let plan = super::plan(&together, view, want);
            assert_eq!(apart(&done(&together, &plan)), 0, "{want:?}: {plan}");
        }
    });
}

#[test]
fn load_is_moved_only_from_devices_over_the_band_and_makes_the_fullest_less_full() {
    each(Odds { loads: true, ..CALM }, &["load"], |state, view, random| {
        let mut state = state.clone();
        let band = 1 + random.below(100);
        set(&mut state, "load_band_percent", &band.to_string());
        let mut view = view.clone();
        for shard in 0..state.shards.len() as u32 {
            if random.chance(20) {
                view.moved_ago.insert(shard, Duration::from_secs(random.below(600)));
            }
        }
        let plan = plan(&state, &view, Want::Rebalance);
        let load = |state: &State, device: &DeviceNumber| -> u64 {
            state.shards_of(*device).map(|shard| view.shards[&shard].per_second.unwrap()).sum()
        };
        let open = open(&state, &view);
        let (total, weight) = (open.keys().map(|device| load(&state, device)).sum::<u64>(), open.values().sum::<u64>());
        // A shard weighs a thousandth of a message in a second, too.
        let over = |device: &DeviceNumber| {
            load(&state, device) * weight * 100 * 1_000 > total * open[device] * (100 + band) * 998
        };
        for each in &plan.moves {
            assert!(over(&each.from), "device {} is within {band} %: {plan}", each.from);
        }
        for shard in moved(&plan) {
            let ago = view.moved_ago.get(&shard);
            assert!(ago.is_none_or(|ago| ago.as_secs() >= 300), "shard {shard} moved {ago:?} ago");
        }
        let fullest = |state: &State| {
            open.iter().map(|(device, own)| load(state, device) as f64 / *own as f64).fold(0.0, f64::max)
        };
        let (before, after) = (fullest(&state), fullest(&done(&state, &plan)));
        assert!(after <= before * 1.001, "{before} became {after}");
    });
}

#[test]
fn nothing_is_given_more_than_its_memory_holds() {
    each(Odds { trouble: true, loads: true, memory: true }, &STRATEGIES, |state, view, random| {
        let plan = plan(state, view, any_want(state, random));
        let mut given: BTreeMap<DeviceNumber, u64> = BTreeMap::new();
        for each in &plan.moves {
            let bytes = each.shards.iter().cloned().flatten().map(|shard| view.shards[&shard].memory_bytes.unwrap());
            *given.entry(each.to).or_default() += bytes.sum::<u64>();
        }
        for (device, given) in given {
            let of = view.devices[&device];
            if let Some(free) = of.memory_free_bytes {
                let tenth = (free + of.memory_used_bytes.unwrap()) / 10;
                assert!(given == 0 || given + tenth <= free, "device {device} has {free} free and got {given}: {plan}");
            }
        }
    });
}

#[test]
fn copies_are_on_other_nodes_and_in_as_many_zones_as_there_are() {
    each(Odds { trouble: true, ..CALM }, &["round-robin"], |state, _, random| {
        for (owner, own) in &state.nodes {
            let factor = random.below(5) as usize;
            let replicas = replicas(state, *owner, factor);
            let others: Vec<_> =
                state.nodes.iter().filter(|(node, member)| *node != owner && !member.draining).collect();
            assert_eq!(replicas.len(), others.len().min(factor.saturating_sub(1)));
            assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), replicas.len());
            assert!(replicas.iter().all(|node| node != owner && !state.nodes[node].draining));
            // A node without a zone counts as one.
            let zones = |nodes: &mut dyn Iterator<Item = NodeNumber>| -> usize {
                let zone = |node: NodeNumber| match state.nodes[&node].zone.as_str() {
                    "" => node.to_string(),
                    zone => zone.to_string(),
                };
                let own = if own.zone.is_empty() { owner.to_string() } else { own.zone.clone() };
                nodes.map(zone).filter(|zone| *zone != own).collect::<BTreeSet<_>>().len()
            };
            let most = zones(&mut others.iter().map(|(node, _)| **node));
            assert_eq!(zones(&mut replicas.iter().copied()), most.min(replicas.len()));
        }
    });
}

#[test]
fn a_thousand_devices_and_65536_shards_are_planned_at_once() {
    let mut state = founded(65_536);
    for node in 0..125 {
        admit(&mut state, ["a", "b", "c"][node % 3], (0..8).map(|n| about(&format!("d{n}"), "cuda", 132)).collect());
    }
    let mut random = Random(1);
    let mut view = well(&state);
    let mut load = |_| ShardLoad { per_second: Some(random.below(1_000)), memory_bytes: Some(1_000) };
    view.shards = (0..65_536).map(|shard| (shard, load(shard))).collect();
    for strategy in STRATEGIES {
        set(&mut state, "placement", strategy);
        set(&mut state, "affinity", "0-63;64-127;1000-1999");
        let timed = |what: &str, state: &State, view: &View, want| {
            let begun = Instant::now();
            let plan = plan(state, view, want);
            let took = begun.elapsed();
            println!("{strategy}, {what}: {} shards in {} ms", plan.count(), took.as_millis());
            assert!(took < Duration::from_secs(5), "{strategy}, {what}: {took:?}");
            plan
        };
        // The first node has everything, as in a cluster that grows.
        let spread = done(&state, &timed("all from the first node", &state, &view, Want::Rebalance));
        timed("nothing to do", &spread, &view, Want::Rebalance);
        timed("drain", &spread, &view, Want::Drain(7));
        let mut less = view.clone();
        less.alive.retain(|node| node % 2 == 0);
        timed("half of the nodes are gone", &spread, &less, Want::Fill);
        let mut more = spread.clone();
        let mut with = view.clone();
        with.alive.insert(admit(&mut more, "a", vec![about("new", "cuda", 132)]));
        timed("a device comes", &more, &with, Want::DeviceAdded(1_000));
    }
}
