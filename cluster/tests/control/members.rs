//! Nodes come, go, move and are replaced.

use std::time::Duration;

use ringhold_cluster::control::state::{Command, ranges};
use ringhold_cluster::control::{Error, Timing};
use tokio::time::{Instant, sleep};

use crate::world::*;

#[tokio::test(start_paused = true)]
async fn twenty_nodes_have_five_voters_and_all_learn_everything() {
    let world = World::new(20, Timing::default());
    let nodes = cluster(&world, 20).await;
    for (n, node) in (0..).zip(&nodes) {
        proposed(node, token(n)).await.unwrap();
    }
    let state = converged(&nodes).await;
    assert_eq!((state.tokens.len(), state.nodes.len()), (20, 20));
    let leader = leader_of(&nodes).await;
    sleep(Duration::from_secs(1)).await;
    let heard = leader.heard();
    assert_eq!(heard.len(), 20, "{heard:?}");
    assert!(heard.values().all(|heard| *heard < Duration::from_millis(500)), "{heard:?}");
    let follower = nodes.iter().find(|node| node.number() != leader.number()).unwrap();
    assert_eq!(follower.heard().len(), 0, "only the leader knows");
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_stays_away_is_replaced_and_stays_a_member() {
    let world = World::new(21, Timing::default());
    let mut nodes = cluster(&world, 4).await;
    proposed(&nodes[0], Command::Set { name: "voters_max".into(), value: "3".into() }).await.unwrap();
    let voters = leader_of(&nodes).await.members().voters;
    assert_eq!(voters, [1, 2, 3].into());
    let gone = nodes.remove(1);
    world.crash(gone).await;
    let began = Instant::now();
    until("node 4 votes", || nodes[0].members().voters == [1, 3, 4].into() && !nodes[0].members().changing).await;
    assert!(began.elapsed() > Duration::from_secs(25), "it had time to come back: {:?}", began.elapsed());
    nodes.push(world.start(2, &address(2)).await.unwrap());
    converged(&nodes).await;
    let leader = leader_of(&nodes).await;
    assert!(leader.members().learners.contains(&2));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_drained_then_removed_the_leader_too() {
    let world = World::new(22, Timing::default());
    let nodes = cluster(&world, 5).await;
    let leader = leader_of(&nodes).await;
    let number = leader.number();
    let refused = leader.remove(number).await.unwrap_err();
    assert!(matches!(refused, Error::Votes(n) if n == number), "{refused}");
    // The first node's devices own the shards, so that one cannot go before they are moved.
    if number == 1 {
        proposed(&nodes[1], Command::Move { shards: ranges(0..16), from: 0, to: 1 }).await.unwrap();
    }
    proposed(&leader, Command::Drain { node: number as u32, draining: true }).await.unwrap();
    let rest: Vec<_> = nodes.iter().filter(|node| node.number() != number).cloned().collect();
    until("three others vote", || {
        rest.iter().all(|node| {
            let members = node.members();
            members.voters.len() == 3 && !members.voters.contains(&number) && !members.changing
        })
    })
    .await;
    let new = leader_of(&rest).await;
    assert_ne!(new.number(), number);
    proposed(&new, Command::Remove { node: number as u32 }).await.unwrap();
    until("it is no member", || rest.iter().all(|node| !node.members().addresses.contains_key(&number))).await;
    proposed(&rest[0], token(1)).await.unwrap();
    converged(&rest).await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_comes_back_elsewhere_is_found_there() {
    let world = World::new(23, Timing::default());
    let mut nodes = cluster(&world, 3).await;
    let node = nodes.remove(2);
    world.crash(node).await;
    let back = world.start(3, "10.9.9.9:1").await.unwrap();
    let leader = leader_of(&nodes).await;
    let wrong = leader.set_address(3, &address(2)).await.unwrap_err();
    assert!(matches!(wrong, Error::OtherNode { number: 3, found, .. } if found == 2 || found == 1), "{wrong}");
    // As the node itself would: it asks to be admitted again, and says where it is.
    let Command::Admit(mut again) = admission(3) else { unreachable!("it is one") };
    again.member.address = "10.9.9.9:1".into();
    proposed(&back, Command::Admit(again)).await.unwrap();
    nodes.push(back);
    until("it is known there", || nodes.iter().all(|node| node.members().addresses[&3] == "10.9.9.9:1")).await;
    proposed(&nodes[2], token(1)).await.unwrap();
    converged(&nodes).await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_all_of_whose_nodes_come_back_elsewhere_finds_itself() {
    let world = World::new(25, Timing::default());
    let mut nodes = cluster(&world, 3).await;
    for node in nodes.split_off(1) {
        world.crash(node).await;
    }
    // The one that stayed cannot agree with anybody on where the others are.
    for number in 2..=3 {
        nodes.push(world.start(number, &format!("10.9.9.{number}:1")).await.unwrap());
    }
    for (n, node) in (0..).zip(&nodes) {
        proposed(node, token(n)).await.unwrap();
    }
    converged(&nodes).await;
}

#[tokio::test(start_paused = true)]
async fn only_the_leader_changes_members_and_only_with_those_that_are_there() {
    let world = World::new(24, Timing::default());
    let nodes = cluster(&world, 3).await;
    let leader = leader_of(&nodes).await;
    let other = nodes.iter().find(|node| node.number() != leader.number()).unwrap();
    let refused = other.add_learner(4, &address(4)).await;
    assert!(matches!(refused, Err(Error::Unreachable { number: 4, .. })), "{refused:?}");
    let refused = other.change_voters([other.number()].into()).await;
    assert!(matches!(refused, Err(Error::NotLeader(Some(n))) if n == leader.number()), "{refused:?}");
    let error = leader.add_learner(4, &address(4)).await.unwrap_err();
    assert!(error.to_string().contains("nobody is there"), "{error}");
    assert!(matches!(leader.change_voters([9].into()).await, Err(Error::Change(_))));
}
