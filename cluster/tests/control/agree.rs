//! What has been agreed stays so, whoever dies or is cut off.

use std::time::Duration;

use ringhold_cluster::control::state::{Command, Outcome, Refused};
use ringhold_cluster::control::{Control, Error, Role, Timing};
use tokio::time::Instant;

use crate::world::*;

fn others(nodes: &[Control], than: &Control) -> Vec<Control> {
    nodes.iter().filter(|node| node.number() != than.number()).cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn every_node_takes_commands_and_all_see_them() {
    let nodes = cluster(&World::new(1, Timing::default()), 3).await;
    for (n, node) in (0..).zip(nodes.iter().cycle().take(9)) {
        assert_eq!(proposed(node, token(n)).await, Ok(Outcome::Done));
        assert_eq!(proposed(node, token(n)).await, Err(Refused::TokenUsed), "a refusal is told as one");
        for reader in &nodes {
            assert!(has_token(&reader.read(SOON).await.unwrap(), n), "what was done is read everywhere");
        }
    }
    let state = converged(&nodes).await;
    assert_eq!(state.tokens.len(), 9);
    let roles: Vec<Role> = nodes.iter().map(|node| node.status().role).collect();
    assert_eq!(roles.iter().filter(|role| **role == Role::Leader).count(), 1, "{roles:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_is_replaced_and_neither_does_nor_tells_anything() {
    for (seed, count) in [(2, 3), (3, 5)] {
        let world = World::new(seed, Timing::default());
        let nodes = cluster(&world, count).await;
        let old = leader_of(&nodes).await;
        world.cut_off(&[address(old.number())]);
        let rest = others(&nodes, &old);
        // Before it knows, and when it does.
        let early = old.propose(token(1), Duration::from_millis(300)).await;
        assert!(matches!(early, Err(Error::Unknown { .. } | Error::NoLeader { .. })), "{early:?}");
        let read = old.read(Duration::from_millis(300)).await;
        assert!(matches!(read, Err(Error::NoLeader { .. })), "{read:?}");
        let began = Instant::now();
        let new = leader_of(&rest).await;
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        assert!(new.status().term > old.status().term);
        for node in &rest {
            proposed(node, token(10 + node.number())).await.unwrap();
        }
        let late = old.propose(token(2), Duration::from_secs(2)).await.unwrap_err();
        let Error::NoLeader { silent, .. } = &late else { panic!("{late:?}") };
        assert_eq!(silent.len() as u64, count - 1, "it says whom it cannot reach: {late}");
        assert!(!has_token(&old.state(), 10 + new.number()));
        world.heal();
        let state = converged(&nodes).await;
        assert!(!has_token(&state, 2), "what was refused is never done");
        assert!(rest.iter().all(|node| has_token(&state, 10 + node.number())));
        assert!(leader_of(&nodes).await.status().term >= new.status().term);
    }
}

#[tokio::test(start_paused = true)]
async fn a_minority_decides_nothing_and_says_so() {
    let world = World::new(4, Timing::default());
    let nodes = cluster(&world, 5).await;
    world.cut_off(&[address(4), address(5)]);
    for node in &nodes[3..] {
        let error = node.propose(token(1), Duration::from_secs(3)).await.unwrap_err();
        assert!(matches!(error, Error::NoLeader { .. } | Error::Unknown { .. }), "{error}");
        assert!(node.read(Duration::from_secs(3)).await.is_err());
    }
    proposed(&nodes[0], token(2)).await.unwrap();
    world.heal();
    let state = converged(&nodes).await;
    assert!(has_token(&state, 2));
}

#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_survives_the_death_of_all_nodes() {
    for seed in 10..14 {
        let timing = Timing { snapshot_entries: 20, ..Timing::default() };
        let world = World::new(seed, timing);
        let mut nodes = cluster(&world, 3).await;
        for n in 0..60 {
            proposed(&nodes[n as usize % 3], token(n)).await.unwrap();
            if n % 15 == 7 {
                for node in nodes.drain(..) {
                    world.crash(node).await;
                }
                for number in 1..=3 {
                    nodes.push(world.start(number, &address(number)).await.unwrap());
                }
            }
        }
        let state = converged(&nodes).await;
        assert!((0..60).all(|n| has_token(&state, n)), "seed {seed}");
        let status = nodes[0].status();
        assert!(status.snapshot > Some(20), "{status:?}");
    }
}

/// A leader that goes on in its old term after a start does not know that its last entries were committed.
#[tokio::test(start_paused = true)]
async fn what_was_acknowledged_is_read_right_after_a_restart_of_all() {
    for seed in 30..40 {
        let world = World::new(seed, Timing::default());
        let nodes = cluster(&world, 3).await;
        let leader = leader_of(&nodes).await;
        proposed(&leader, token(seed)).await.unwrap();
        for node in nodes {
            world.crash(node).await;
        }
        let mut nodes = Vec::new();
        for number in 1..=3 {
            nodes.push(world.start(number, &address(number)).await.unwrap());
        }
        let read = futures_util::future::join_all(nodes.iter().map(|node| node.read(SOON))).await;
        for state in read {
            assert!(has_token(&state.unwrap(), seed), "seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_gets_what_it_missed() {
    let timing = Timing { snapshot_entries: 30, ..Timing::default() };
    let world = World::new(5, timing);
    let mut nodes = cluster(&world, 3).await;
    let away = nodes.pop().unwrap();
    world.cut_off(&[address(3)]);
    // More than a call has room for, in entries and, later, in a snapshot of many pieces.
    let large = |n: u64| {
        let serial = [vec![n as u8; 1_500_000], n.to_be_bytes().to_vec()].concat();
        Command::UseToken { serial, expires_s: 1_000, now_s: 1 }
    };
    for n in 0..14 {
        proposed(&nodes[0], large(n)).await.unwrap();
    }
    world.heal();
    nodes.push(away);
    let state = converged(&nodes).await;
    assert_eq!(state.tokens.len(), 14);
    let status = nodes[2].status();
    assert_eq!(status.snapshot, None, "it got entries: {status:?}");

    world.cut_off(&[address(3)]);
    for n in 0..100 {
        proposed(&nodes[0], token(n)).await.unwrap();
    }
    let before = world.brought();
    world.heal();
    converged(&nodes).await;
    assert!(nodes[2].status().snapshot > Some(40), "it got a snapshot: {:?}", nodes[2].status());
    assert!(world.brought() - before > 14 * 1_500_000, "whole");
    // And it is on its disk, too.
    let node = nodes.pop().unwrap();
    world.crash(node).await;
    nodes.push(world.start(3, &address(3)).await.unwrap());
    converged(&nodes).await;
}

/// Whatever is too much to get there in the time that a call has.
#[tokio::test(start_paused = true)]
async fn a_node_gets_what_it_missed_over_a_narrow_line_too() {
    let timing = Timing { snapshot_entries: 300, ..Timing::default() };
    let world = World::new(7, timing);
    let mut nodes = cluster(&world, 3).await;
    let large = |n: u64| {
        let serial = [vec![n as u8; 20_000], n.to_be_bytes().to_vec()].concat();
        Command::UseToken { serial, expires_s: 1_000, now_s: 1 }
    };
    let away = nodes.pop().unwrap();
    world.cut_off(&[address(3)]);
    for n in 0..100 {
        proposed(&nodes[0], large(n)).await.unwrap();
    }
    world.narrow(300_000);
    world.heal();
    nodes.push(away);
    let status = nodes[2].status();
    converged(&nodes).await;
    assert_eq!(status.snapshot, nodes[2].status().snapshot, "it got entries");

    // Ten seconds are too few for a piece of a snapshot, too.
    world.cut_off(&[address(3)]);
    world.narrow(u64::MAX);
    for n in 100..800 {
        proposed(&nodes[0], large(n)).await.unwrap();
    }
    world.narrow(300_000);
    world.heal();
    converged(&nodes).await;
    assert!(nodes[2].status().snapshot > status.snapshot, "it got a snapshot: {:?}", nodes[2].status());
}

#[tokio::test(start_paused = true)]
async fn a_node_without_its_disk_is_not_who_it_was() {
    let world = World::new(6, Timing::default());
    let mut nodes = cluster(&world, 3).await;
    converged(&nodes).await;
    // Node 3 misses what nodes 1 and 2 agree on; then node 2 loses all of it.
    world.cut_off(&[address(3)]);
    proposed(&nodes[0], token(1)).await.unwrap();
    world.crash(nodes.remove(1)).await;
    world.lose_disk(2);
    let empty = world.start(2, &address(2)).await.unwrap();
    world.heal();
    world.cut_off(&[address(1)]);
    // Nodes 2 and 3 would be a majority that knows nothing of it.
    until("node 3 misses the leader", || nodes[1].leader().is_none()).await;
    let cut = nodes[1].propose(token(2), Duration::from_secs(20)).await.unwrap_err();
    let Error::NoLeader { silent, .. } = &cut else { panic!("{cut:?}") };
    assert!(silent.iter().any(|(number, _, why)| *number == 2 && why.contains("has to be removed")), "{cut}");
    assert_eq!(empty.status().last_log, None);
    assert_eq!(nodes[1].leader(), None);
    world.heal();
    let state = converged(&nodes).await;
    assert!(has_token(&state, 1) && !has_token(&state, 2));
    // The leader does not take it for the old one, either; it has to come as another.
    let leader = leader_of(&nodes).await;
    let error = leader.add_learner(2, &address(2)).await.unwrap_err();
    assert!(matches!(error, Error::OtherLog { number: 2, .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_change_is_woken_by_it() {
    let world = World::new(7, Timing::default());
    let nodes = cluster(&world, 3).await;
    converged(&nodes).await;
    let seen = nodes[2].changes();
    let waits = tokio::spawn({
        let node = nodes[2].clone();
        async move {
            let mut seen = seen;
            while !has_token(&node.state(), 5) {
                seen = node.changed(seen).await;
            }
            Instant::now()
        }
    });
    let began = Instant::now();
    proposed(&nodes[0], token(5)).await.unwrap();
    assert!(waits.await.unwrap() - began < Duration::from_millis(300));
    // And by a leader that comes or goes.
    let leader = leader_of(&nodes).await;
    let rest = others(&nodes, &leader);
    let seen = rest[0].changes();
    world.crash(leader).await;
    tokio::time::timeout(SOON, rest[0].changed(seen)).await.expect("an election is a change");
}

#[tokio::test(start_paused = true)]
async fn a_folder_is_one_node_s_and_one_cluster_s() {
    let world = World::new(8, Timing::default());
    let nodes = cluster(&world, 1).await;
    let again = nodes[0].initialize(&address(1)).await.unwrap_err();
    assert!(matches!(again, Error::Change(_)), "{again}");
    let node = nodes.into_iter().next().unwrap();
    world.crash(node).await;
    let log = world.log_of(1);
    let error = world.start_on(2, &address(2), log).await.err().unwrap();
    assert!(matches!(error, Error::OtherNumber { number: 2, found: 1 }), "{error}");
    let big = Command::Set { name: "x".repeat(5 << 20), value: String::new() };
    let node = world.start(1, &address(1)).await.unwrap();
    assert!(matches!(node.propose(big, SOON).await, Err(Error::TooLarge { .. })));
}
