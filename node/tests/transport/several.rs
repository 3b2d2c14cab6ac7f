//! Several nodes of one cluster, and a client that talks to all of them while shards move between them. In memory and in
//! paused time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use ringhold::client::{AskError, Client, Error, Options};
use ringhold_cluster::network::Network;
use ringhold_cluster::tls::{Authority, Role};
use ringhold_cluster::wire::{Owners, Refused};
use ringhold_kernels::id::Key;
use ringhold_kernels::message::Reason;
use ringhold_kernels::outbox::{SHARDS, shard_of};
use tokio::time::{Instant, sleep};

use crate::harness::{Node, Number, Shared, serve, until};
use crate::memory::MemoryNetwork;

struct Cluster {
    network: MemoryNetwork,
    shared: Arc<Shared>,
    /// Numbered from 1.
    nodes: Vec<Node>,
    table: Owners,
}

impl Cluster {
    /// So many nodes, to which the shards are dealt out in turn.
    fn new(count: u32) -> Cluster {
        let (network, shared) = (MemoryNetwork::default(), Arc::<Shared>::default());
        let machine: Arc<dyn Network> = Arc::new(network.clone());
        let authority = Arc::new(Authority::in_memory(&*machine).unwrap());
        let node = |number| Node::at(machine.clone(), authority.clone(), Some((shared.clone(), number)));
        let nodes: Vec<Node> = (1..=count).map(node).collect();
        let addresses = (1..).zip(nodes.iter().map(|node| node.server.address().to_string()));
        let shards = Owners::runs((0..SHARDS as u32).map(|shard| shard % count + 1));
        let table = Owners { version: 1, nodes: addresses.collect(), shards };
        nodes.iter().for_each(|node| *node.doors.owners.lock() = table.clone());
        Cluster { network, shared, nodes, table }
    }

    fn node(&self, number: u32) -> &Node {
        &self.nodes[number as usize - 1]
    }

    /// Has each shard be this node's. Only these nodes know yet.
    fn give(&mut self, node_of: impl Fn(usize, u32) -> u32, known_to: &[u32]) {
        let before: Vec<u32> = self.table.of_shards().collect();
        self.table.version += 1;
        self.table.shards = Owners::runs(before.iter().enumerate().map(|(shard, node)| node_of(shard, *node)));
        self.tell(known_to);
    }

    /// Has these nodes know who has which shard.
    fn tell(&self, nodes: &[u32]) {
        // All at once: no two nodes have a shard.
        let mut tables: Vec<_> = nodes.iter().map(|number| self.node(*number).doors.owners.lock()).collect();
        tables.iter_mut().for_each(|table| **table = self.table.clone());
    }

    fn options(&self) -> Options {
        self.nodes[0].options()
    }

    fn hold(&self, hold: bool) {
        self.nodes.iter().for_each(|node| node.doors.hold.store(hold, SeqCst));
    }

    /// What was taken for each key, by whichever node.
    fn by_key(&self) -> BTreeMap<u64, Vec<u64>> {
        let mut keys: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        self.shared.taken.lock().iter().for_each(|(_, key, number)| keys.entry(*key).or_default().push(*number));
        keys
    }

    fn moved_on(&self) -> u64 {
        self.nodes.iter().map(|node| node.counters().moved_on.load(Relaxed)).sum()
    }
}

/// A key whose shard is of this remainder.
fn key(nodes: usize, remainder: usize) -> u64 {
    (0..).find(|key| shard_of(Key(*key)) % nodes == remainder).unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_client_talks_to_every_node_and_has_one_number_everywhere() {
    let cluster = Cluster::new(3);
    let client = Client::connect(cluster.options()).await.unwrap();
    assert_eq!(client.ask(key(3, 0), Number(1)).await.unwrap(), Number(1));
    let sessions = || -> Vec<usize> { cluster.nodes.iter().map(|node| node.server.sessions().len()).collect() };
    sleep(Duration::from_secs(5)).await;
    assert_eq!(sessions(), [1, 0, 0], "a connection is made when there is something to send");
    for i in 0..600 {
        client.tell(i % 60, Number(i)).await.unwrap();
    }
    client.flush().await.unwrap();
    assert_eq!(sessions(), [1, 1, 1]);
    let numbers: Vec<u32> = cluster.nodes.iter().map(|node| node.server.sessions().all()[0].number()).collect();
    assert_eq!((numbers[0] >> 20, numbers[0]), (1, numbers[1]));
    assert_eq!(numbers[1], numbers[2]);
    let taken = cluster.shared.taken.lock().clone();
    assert!(taken.iter().all(|(node, key, _)| *node as usize == shard_of(Key(*key)) % 3 + 1));
    for i in 0..60 {
        assert_eq!(client.ask(i, Number(600 + i)).await.unwrap(), Number(600 + i));
    }
    for (key, numbers) in cluster.by_key().into_iter().skip(1) {
        assert_eq!(numbers.last(), Some(&(600 + key)), "{numbers:?}");
        assert!(numbers.is_sorted() && numbers.len() >= 11);
    }
    assert!(client.settle(Duration::from_secs(1)).await.unwrap().settled);
    client.close().await.unwrap();
    until("all sessions are gone", || sessions() == [0, 0, 0]).await;
    assert_eq!(cluster.moved_on(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_told_and_closed_at_once_reaches_every_node() {
    let mut cluster = Cluster::new(3);
    let client = Client::connect(cluster.options()).await.unwrap();
    cluster.give(|shard, _| (shard as u32 + 1) % 3 + 1, &[1, 2, 3]);
    for i in 0..600 {
        client.tell(i % 60, Number(i)).await.unwrap();
    }
    client.close().await.unwrap();
    assert_eq!(cluster.shared.taken.lock().len(), 600);
}

#[tokio::test(start_paused = true)]
async fn while_shards_move_nothing_is_lost_doubled_or_out_of_order() {
    const KEYS: u64 = 40;
    const MESSAGES: u64 = 30_000;
    let mut cluster = Cluster::new(3);
    for node in &cluster.nodes {
        // Some of what was taken is kept by the client, and comes again.
        node.doors.durable.store(MESSAGES / 2, SeqCst);
    }
    let client = Client::connect(cluster.options()).await.unwrap();
    let teller = tokio::spawn({
        let client = client.clone();
        async move {
            let mut asked = Vec::new();
            for i in 0..MESSAGES {
                if i % 10 == 3 {
                    let ask = client.ask_with(i % KEYS, Number(i), Duration::from_secs(3_600));
                    asked.push((i, tokio::spawn(ask)));
                    // It is sent when it is first polled, and the next message of its key after it.
                    tokio::task::yield_now().await;
                } else {
                    client.tell(i % KEYS, Number(i)).await.unwrap();
                }
                if i % 100 == 0 {
                    sleep(Duration::from_millis(7)).await;
                }
            }
            client.flush().await.unwrap();
            for (i, ask) in asked {
                assert_eq!(ask.await.unwrap().unwrap(), Number(i));
            }
        }
    });
    for round in 0..40u32 {
        let from = round as usize * 1_000 % SHARDS;
        let (to, all) = (round % 3 + 1, [1, 2, 3]);
        let moves = |shard: usize, node: u32| if (from..from + 1_500).contains(&shard) { to } else { node };
        // Those that lose them know first, and the one that gets them later.
        let others: Vec<u32> = all.into_iter().filter(|number| *number != to).collect();
        cluster.give(moves, &others);
        sleep(Duration::from_millis(if round % 4 == 0 { 400 } else { 3 })).await;
        cluster.tell(&all);
        if round % 7 == 5 {
            let address = cluster.node(to).server.address();
            cluster.network.unplug(address);
            sleep(Duration::from_secs(20)).await;
            cluster.network.plug_in();
        }
        sleep(Duration::from_millis(30)).await;
    }
    teller.await.unwrap();
    for (key, numbers) in cluster.by_key() {
        assert!(numbers.iter().copied().eq((0..MESSAGES / KEYS).map(|i| i * KEYS + key)), "{key}: {numbers:?}");
    }
    assert!(cluster.moved_on() > 10, "{}", cluster.moved_on());
    assert_eq!(client.stats().unconfirmed, 0);
}

#[tokio::test(start_paused = true)]
async fn an_ask_that_its_shard_took_along_is_answered_by_the_node_that_has_it_now() {
    let mut cluster = Cluster::new(2);
    cluster.hold(true);
    let client = Client::connect(cluster.options()).await.unwrap();
    let key = key(2, 0);
    let mut asks = Vec::new();
    for i in 0..5 {
        asks.push(tokio::spawn(client.ask_with(key, Number(i), Duration::from_secs(3_600))));
    }
    until("they are taken", || cluster.shared.held.lock().len() == 5).await;
    // All of it is durable, so it does not come again.
    sleep(Duration::from_secs(1)).await;
    cluster.give(|_, _| 2, &[1, 2]);
    client.tell(key, Number(5)).await.unwrap();
    client.flush().await.unwrap();
    assert_eq!(cluster.by_key()[&key], [0, 1, 2, 3, 4, 5]);
    assert_eq!(cluster.shared.taken.lock()[5].0, 2);
    cluster.shared.answer_held();
    for (i, ask) in (0..).zip(asks) {
        assert_eq!(ask.await.unwrap().unwrap(), Number(i));
    }
    assert_eq!((client.stats().answers, client.stats().late_answers), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_for_a_node_that_is_gone_waits_and_goes_to_who_has_its_shards_then() {
    let mut cluster = Cluster::new(3);
    let client = Client::connect(cluster.options()).await.unwrap();
    // Only the first node's address was given, and there is a connection to no other.
    let (gone, alive) = (key(3, 0), key(3, 1));
    client.tell(gone, Number(0)).await.unwrap();
    client.flush().await.unwrap();
    cluster.network.unplug(cluster.node(1).server.address());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(client.ask(alive, Number(1)).await.unwrap(), Number(1), "others do not wait for it");
    client.tell(gone, Number(2)).await.unwrap();
    let error = client.ask_with(gone, Number(3), Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::DeadlineExceeded), "{error}");
    let started = Instant::now();
    let waiting = tokio::spawn(client.ask_with(gone, Number(4), Duration::from_secs(600)));
    cluster.give(|_, node| if node == 1 { 3 } else { node }, &[2, 3]);
    assert_eq!(waiting.await.unwrap().unwrap(), Number(4));
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    client.flush().await.unwrap();
    assert_eq!(cluster.by_key()[&gone], [0, 2, 3, 4]);
    assert_eq!(client.stats().unconfirmed, 0);
    client.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_survives_that_the_first_address_it_was_given_is_dead() {
    let mut cluster = Cluster::new(2);
    cluster.give(|_, _| 2, &[1, 2]);
    cluster.network.unplug(cluster.node(1).server.address());
    let mut options = cluster.options();
    options.addresses.push(cluster.node(2).server.address().to_string());
    let client = Client::connect(options).await.unwrap();
    assert_eq!(client.ask(1, Number(1)).await.unwrap(), Number(1));
    client.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_to_be_reached_for_too_long_ends_the_client_where_there_is_a_limit() {
    let cluster = Cluster::new(2);
    let mut options = cluster.options();
    options.reconnect_limit = Some(Duration::from_secs(30));
    let client = Client::connect(options).await.unwrap();
    cluster.network.unplug(cluster.node(2).server.address());
    let error = client.ask_with(key(2, 1), Number(1), Duration::from_secs(600)).await.unwrap_err();
    assert!(matches!(error, AskError::ConnectionLost { .. }), "{error}");
    let error = client.tell(key(2, 0), Number(1)).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    until("its sessions are gone", || cluster.node(1).server.sessions().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_meant_for_another_says_so() {
    let cluster = Cluster::new(2);
    // What listens where the second node was is the first.
    let first = cluster.node(1);
    let identity = first.authority.identity(Role::Node, &*first.network).unwrap();
    let impostor =
        crate::harness::serve_as(&first.network, identity, first.doors.clone(), "127.0.0.1:0".parse().unwrap(), None);
    let mut table = cluster.table.clone();
    (table.version, table.nodes[1].1) = (2, impostor.address().to_string());
    *first.doors.owners.lock() = table;
    let client = Client::connect(cluster.options()).await.unwrap();
    let error = client.ask_with(key(2, 1), Number(1), Duration::from_secs(5)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::DeadlineExceeded), "{error}");
    assert!(impostor.counters().refused_hello.load(Relaxed) > 0);
    assert!(Refused::OtherNode { wanted: 2, actual: 1 }.to_string().contains("node 1 of its cluster"));
    let second = serve(&first.network, &first.authority, cluster.node(2).doors.clone(), "127.0.0.1:0".parse().unwrap());
    let mut table = cluster.table.clone();
    (table.version, table.nodes[1].1) = (3, second.address().to_string());
    cluster.nodes.iter().for_each(|node| *node.doors.owners.lock() = table.clone());
    assert_eq!(client.ask_with(key(2, 1), Number(2), Duration::from_secs(60)).await.unwrap(), Number(2));
}
