//! Actors that send to actors of another node: in this process, over the machine's loopback.

mod ring;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ring::RingDevices;
use ringhold::client::{Client, Options};
use ringhold::config::{self, Config, DeviceKind};
use ringhold::device::keeper::Blocking;
use ringhold::node::{Environment, Error, Node, Storage};
use ringhold::shards::ShardSet;
use ringhold::{Key, Registry};
use ringhold_cluster::control::state::{Command, ranges};
use ringhold_cluster::network::RealNetwork;
use ringhold_cluster::tls::{Authority, Role};
use ringhold_cluster::wire::{LetterFilter, Request, Response};
use ringhold_kernels::message::Reason;
use ringhold_kernels::outbox::{SHARDS, shard_of};
use ringhold_storage::blocks::InMemory;
use ringhold_storage::checkpoints::{self, Checkpoints};
use ringhold_storage::dead_letters::{self, DeadLetters, Filter};
use ringhold_storage::raft_log::RaftLog;

const PATIENCE: Duration = Duration::from_secs(60);

/// Sends numbers to another of its type when it is told to, and looks whether those that it gets are the next.
#[ringhold::actor]
pub mod sure {
    pub struct State {
        pub sent: u32,
        pub next: u32,
        pub out_of_order: u32,
    }

    pub enum Message {
        Send { to: u64, count: u32 },
        Bounce { over: u64, back: u64, count: u32 },
        Got { number: u32 },
        Read,
    }

    pub enum Reply {
        Is { sent: u32, next: u32, out_of_order: u32 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Send { to, count } => {
                let mut i = 0u32;
                while i < count {
                    ctx.send(id(to), Message::Got { number: state.sent });
                    state.sent += 1;
                    i += 1;
                }
            }
            Message::Bounce { over, back, count } => {
                ctx.send(id(over), Message::Send { to: back, count });
            }
            Message::Got { number } => {
                if state.next != number {
                    state.out_of_order += 1;
                }
                state.next = number + 1;
            }
            Message::Read => {
                ctx.reply(Reply::Is { sent: state.sent, next: state.next, out_of_order: state.out_of_order });
            }
        }
    }
}

/// The same, and nothing of it waits for a checkpoint.
#[ringhold::actor]
pub mod quick {
    pub struct State {
        pub sent: u32,
        pub next: u32,
        pub out_of_order: u32,
    }

    pub enum Message {
        Send { to: u64, count: u32 },
        Bounce { over: u64, back: u64, count: u32 },
        Got { number: u32 },
        Read,
    }

    pub enum Reply {
        Is { sent: u32, next: u32, out_of_order: u32 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Send { to, count } => {
                let mut i = 0u32;
                while i < count {
                    ctx.send(id(to), Message::Got { number: state.sent });
                    state.sent += 1;
                    i += 1;
                }
            }
            Message::Bounce { over, back, count } => {
                ctx.send(id(over), Message::Send { to: back, count });
            }
            Message::Got { number } => {
                if state.next != number {
                    state.out_of_order += 1;
                }
                state.next = number + 1;
            }
            Message::Read => {
                ctx.reply(Reply::Is { sent: state.sent, next: state.next, out_of_order: state.out_of_order });
            }
        }
    }
}

/// What a node keeps while it does not run.
#[derive(Clone)]
struct Kept {
    id: u8,
    blocks: Arc<InMemory>,
    log: Arc<InMemory>,
    letters: Arc<dead_letters::InMemory>,
    /// Where others know it.
    listen: String,
}

struct Cluster {
    authority: Authority,
    /// What runs the device of each node.
    kinds: [DeviceKind; 2],
    kept: [Kept; 2],
    nodes: [Option<Node>; 2],
}

impl Cluster {
    /// Two nodes, of which each has half of the shards.
    async fn new() -> Cluster {
        Cluster::of([DeviceKind::Cpu; 2]).await
    }

    async fn of(kinds: [DeviceKind; 2]) -> Cluster {
        let authority = Authority::in_memory(&RealNetwork).unwrap();
        let kept = [1, 2].map(|id| Kept {
            id,
            blocks: Arc::default(),
            log: Arc::default(),
            letters: Arc::new(dead_letters::InMemory::new(10_000)),
            listen: "127.0.0.1:0".into(),
        });
        let mut cluster = Cluster { authority, kinds, kept, nodes: [None, None] };
        cluster.found(0).await;
        let control = cluster.node(0).cluster().unwrap().control().clone();
        // Nobody else goes on with a device whose node is away.
        let alone = Command::Set { name: "replication_factor".into(), value: "1".into() };
        control.propose(alone, PATIENCE).await.unwrap().unwrap();
        cluster.found(1).await;
        let shards = ranges((0..SHARDS as u32).filter(|shard| shard % 2 == 1));
        let moved = control.propose(Command::Move { shards, from: 0, to: 1 }, PATIENCE).await;
        moved.unwrap().unwrap();
        // No actor is there yet; what there is begins with the table.
        for node in [1, 0] {
            cluster.stop(node).await;
        }
        for node in 0..2 {
            cluster.start(node).await;
        }
        cluster
    }

    /// Starts it for the first time.
    async fn found(&mut self, node: usize) {
        self.start(node).await;
        self.kept[node].listen = self.node(node).address().to_string();
    }

    async fn start(&mut self, node: usize) {
        let began = Instant::now();
        loop {
            match self.try_start(node).await {
                Ok(started) => {
                    self.nodes[node] = Some(started);
                    return;
                }
                // The port of one that has ended is free in a moment, and its connections end.
                Err(Error::Transport(_) | Error::Cluster(_)) if began.elapsed() < PATIENCE => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(e) => panic!("{e}"),
            }
        }
    }

    async fn try_start(&self, node: usize) -> Result<Node, Error> {
        let Kept { id, blocks, log, letters, listen } = self.kept[node].clone();
        let device = config::Device {
            kind: self.kinds[node],
            workers: Some(1),
            host: config::Host::InProcess,
            ..Default::default()
        };
        let mut config = Config { devices: config::Devices(vec![device]), ..Config::default() };
        config.node.listen = listen.parse().unwrap();
        config.node.name = Some(format!("n{id}"));
        config.node.drain_timeout = Duration::from_secs(1);
        // It is not given up for having been away.
        config.node.lease = Duration::from_secs(60);
        if node > 0 {
            config.node.join = vec![self.kept[0].listen.clone()];
        }
        config.actors.committed = vec!["sure".into()];
        config.checkpoints.committed_interval = Duration::from_millis(20);
        let mut registry = Registry::new();
        registry.register::<sure::Actor>().unwrap();
        registry.register::<quick::Actor>().unwrap();
        let storage = Storage {
            node_id: uuid::Uuid::from_bytes([id; 16]).to_string(),
            identity: self.authority.identity(Role::Node, &RealNetwork).unwrap(),
            dead_letters: letters,
            checkpoints: Some(Checkpoints::open(blocks, checkpoints::Options::default()).unwrap()),
            shards: None,
            jobs: Arc::new(Blocking),
            control: Some(Arc::new(RaftLog::open(log, Path::new("in memory")).unwrap())),
            folder: None,
        };
        let (network, devices) = (Arc::new(RealNetwork), Arc::new(RingDevices::default()));
        Node::start(&config, registry, Environment { network, devices, storage }).await
    }

    /// Ends it as a crash does.
    fn kill(&mut self, node: usize) {
        self.nodes[node] = None;
    }

    async fn stop(&mut self, node: usize) {
        self.nodes[node].take().unwrap().drain().await;
    }

    fn node(&self, node: usize) -> &Node {
        self.nodes[node].as_ref().unwrap()
    }

    async fn client(&self, node: usize) -> Client {
        let identity = self.authority.identity(Role::Client, &RealNetwork).unwrap();
        let options = Options::new(self.node(node).address().to_string(), identity);
        Client::connect(options.with::<sure::Actor>().with::<quick::Actor>()).await.unwrap()
    }

    /// Ends the connections that each node has made to the other, with all that is on its way.
    fn cut(&self) {
        for (node, other) in [(0, 1), (1, 0)] {
            self.node(node).cluster().unwrap().peers().forget(&self.kept[other].listen);
        }
    }
}

/// Keys of actors of the device that has the odd shards, or the even ones.
fn keys(odd: bool) -> impl Iterator<Item = u64> {
    (0u64..).filter(move |key| (shard_of(Key(*key)) % 2 == 1) == odd)
}

/// Asks until this is so.
async fn until<T: std::fmt::Debug>(what: &str, mut look: impl AsyncFnMut() -> T, is_so: impl Fn(&T) -> bool) {
    let began = Instant::now();
    loop {
        let now = look().await;
        if is_so(&now) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "not yet {what}: {now:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Pairs of actors, the one of this node and the other of that.
const PAIRS: usize = 20;
/// How much each sends in one go, and how often.
const BURST: u32 = 50;
const ROUNDS: u32 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actors_of_two_nodes_send_each_other_everything_once_and_in_order_though_their_connection_breaks() {
    let cluster = Cluster::new().await;
    let clients = [cluster.client(0).await, cluster.client(1).await];
    let pairs: Vec<[u64; 2]> = keys(false).zip(keys(true)).map(|(even, odd)| [even, odd]).take(PAIRS).collect();
    for round in 0..ROUNDS {
        for pair in &pairs {
            for node in 0..2 {
                let (from, to) = (pair[node], pair[1 - node]);
                clients[node].tell(Key(from), sure::Message::Send { to, count: BURST }).await.unwrap();
                clients[node].tell(Key(from), quick::Message::Send { to, count: BURST }).await.unwrap();
            }
        }
        // With much of it on its way, as often as not.
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(1 + u64::from(round % 3))).await;
            cluster.cut();
        }
    }
    for node in 0..2 {
        for pair in &pairs {
            let client = &clients[node];
            let all = BURST * ROUNDS;
            let key = Key(pair[node]);
            let read = async || client.ask(key, sure::Message::Read).await.unwrap();
            until("all that is sure", read, |sure::Reply::Is { next, .. }| *next == all).await;
            let sure::Reply::Is { sent, out_of_order, .. } = read().await;
            assert_eq!((sent, out_of_order), (all, 0));
            let read = async || client.ask(key, quick::Message::Read).await.unwrap();
            until("all that is quick", read, |quick::Reply::Is { next, .. }| *next == all).await;
            let quick::Reply::Is { sent, out_of_order, .. } = read().await;
            assert_eq!((sent, out_of_order), (all, 0));
        }
        assert_eq!(cluster.kept[node].letters.count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_committed_actors_send_arrives_once_though_the_nodes_at_both_ends_die() {
    let mut cluster = Cluster::new().await;
    let clients = [cluster.client(0).await, cluster.client(1).await];
    let pairs: Vec<[u64; 2]> = keys(false).zip(keys(true)).map(|(even, odd)| [even, odd]).take(PAIRS).collect();
    for round in 0..ROUNDS {
        for pair in &pairs {
            for node in 0..2 {
                let (from, to) = (pair[node], pair[1 - node]);
                clients[node].tell(Key(from), sure::Message::Send { to, count: BURST }).await.unwrap();
            }
        }
        // With much of it on its way.
        tokio::time::sleep(Duration::from_millis(u64::from(round % 5))).await;
        // The other goes on meanwhile.
        match round {
            2 | 6 => cluster.kill(1),
            4 | 8 => cluster.start(1).await,
            11 => cluster.kill(0),
            14 => cluster.start(0).await,
            16 => (0..2).for_each(|node| cluster.kill(node)),
            17 => {
                cluster.start(0).await;
                cluster.start(1).await;
            }
            _ => {}
        }
    }
    for node in 0..2 {
        for pair in &pairs {
            let client = &clients[node];
            let all = BURST * ROUNDS;
            let read = async || client.ask(Key(pair[node]), sure::Message::Read).await.unwrap();
            until("all of it", read, |sure::Reply::Is { next, .. }| *next == all).await;
            let sure::Reply::Is { sent, out_of_order, .. } = read().await;
            assert_eq!((sent, out_of_order), (all, 0));
        }
        assert_eq!(cluster.kept[node].letters.count(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_out_of_reach_was_sent_becomes_dead_letters_but_for_what_is_committed() {
    const COUNT: u32 = 10;
    let mut cluster = Cluster::new().await;
    let client = cluster.client(0).await;
    let (from, to) = (keys(false).next().unwrap(), keys(true).next().unwrap());
    cluster.stop(1).await;
    client.tell(Key(from), quick::Message::Send { to, count: COUNT }).await.unwrap();
    client.tell(Key(from), sure::Message::Send { to, count: COUNT }).await.unwrap();
    let letters = cluster.kept[0].letters.clone();
    let listed = || letters.list(&Filter::default(), 100).unwrap().letters;
    until("letters", async || listed().len(), |count| *count == COUNT as usize).await;
    assert!(listed().iter().all(|(_, letter)| letter.reason == Reason::Unreachable));
    // Sent again, they wait for it with the others.
    cluster.start(1).await;
    let there = cluster.client(1).await;
    let read = async || there.ask(Key(to), sure::Message::Read).await.unwrap();
    until("what is sure", read, |sure::Reply::Is { next, .. }| *next == COUNT).await;
    let sure::Reply::Is { out_of_order, .. } = read().await;
    assert_eq!(out_of_order, 0);
    let retry = Request::RetryDeadLetters { filter: LetterFilter::default(), timeout_ms: 10_000 };
    match client.request(retry, PATIENCE).await.unwrap() {
        Response::DeadLettersDone(done) => assert_eq!((done.matching, done.done), (COUNT.into(), COUNT.into())),
        other => panic!("{other:?}"),
    }
    let read = async || there.ask(Key(to), quick::Message::Read).await.unwrap();
    until("what is quick", read, |quick::Reply::Is { next, .. }| *next == COUNT).await;

    // Nor is anything lost in silence where the sender ends meanwhile.
    cluster.stop(1).await;
    client.tell(Key(from), quick::Message::Send { to, count: COUNT }).await.unwrap();
    client.flush().await.unwrap();
    cluster.stop(0).await;
    assert_eq!(listed().len(), COUNT as usize);
    assert!(listed().iter().all(|(_, letter)| letter.reason == Reason::Stopping));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_move_between_nodes_while_actors_of_both_send_to_them_and_they_to_those() {
    move_between_nodes([DeviceKind::Cpu; 2]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_move_between_a_ring_kernel_and_another_node_while_actors_of_both_send_to_them_and_they_to_those() {
    move_between_nodes([DeviceKind::Emulated, DeviceKind::Cpu]).await;
}

/// Of what moves, and of what does not: with the client of the node that has them now, all is counted, once and in order.
async fn move_between_nodes(kinds: [DeviceKind; 2]) {
    const MOVES: usize = 6;
    let cluster = Cluster::of(kinds).await;
    let clients = [cluster.client(0).await, cluster.client(1).await];
    // Three of each: those that stay at the one node, those that stay at the other, and those that move between them.
    let mut even = keys(false);
    let movers: Vec<u64> = even.by_ref().take(PAIRS).collect();
    let shards: ShardSet = movers.iter().map(|key| shard_of(Key(*key))).collect();
    let stays: Vec<[u64; 2]> =
        even.filter(|key| !shards.has(Key(*key))).zip(keys(true)).map(|(a, b)| [a, b]).take(2 * PAIRS).collect();
    let stop = AtomicBool::new(false);
    // To each mover one actor sends, of the one node or the other; and each mover sends to one, which it is told by that one.
    let drive = async {
        let mut sent = 0;
        while !stop.load(SeqCst) || sent == 0 {
            for (number, mover) in movers.iter().enumerate() {
                let node = number % 2;
                let from = Key(stays[number][node]);
                for client in [&clients[node]] {
                    client.tell(from, sure::Message::Send { to: *mover, count: 5 }).await.unwrap();
                    client.tell(from, quick::Message::Send { to: *mover, count: 5 }).await.unwrap();
                    let (over, back) = (*mover, stays[PAIRS + number][1 - node]);
                    let other = Key(stays[PAIRS + number][node]);
                    client.tell(other, sure::Message::Bounce { over, back, count: 3 }).await.unwrap();
                    client.tell(other, quick::Message::Bounce { over, back, count: 3 }).await.unwrap();
                }
            }
            sent += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        sent
    };
    let mover = async {
        for number in 0..MOVES {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let (from, to) = (number % 2, 1 - number % 2);
            let router = cluster.node(from).router();
            let moved =
                router.migrate_away(shards.clone(), to as u16).await.unwrap_or_else(|e| panic!("move {number}: {e}"));
            println!("move {number}: {moved:?}");
            assert_eq!((moved.shards, moved.bytes > 0), (shards.len(), true));
        }
        stop.store(true, SeqCst);
    };
    let (rounds, ()) = tokio::join!(drive, mover);
    // They are back where they were.
    for (number, key) in movers.iter().enumerate() {
        let all = rounds * 5;
        let read = async || clients[0].ask_with(Key(*key), sure::Message::Read, PATIENCE).await.unwrap();
        until("all that is sure", read, |sure::Reply::Is { next, .. }| *next == all).await;
        let sure::Reply::Is { sent, out_of_order, .. } = read().await;
        assert_eq!((sent, out_of_order), (rounds * 3, 0), "{number}");
        let read = async || clients[0].ask_with(Key(*key), quick::Message::Read, PATIENCE).await.unwrap();
        until("all that is quick", read, |quick::Reply::Is { next, .. }| *next == all).await;
        let quick::Reply::Is { sent, out_of_order, .. } = read().await;
        assert_eq!((sent, out_of_order), (rounds * 3, 0), "{number}");
        let node = 1 - number % 2;
        let back = Key(stays[PAIRS + number][node]);
        let read = async || clients[node].ask(back, sure::Message::Read).await.unwrap();
        until("all that came back", read, |sure::Reply::Is { next, .. }| *next == rounds * 3).await;
        let sure::Reply::Is { out_of_order, .. } = read().await;
        assert_eq!(out_of_order, 0, "{number}");
        let read = async || clients[node].ask(back, quick::Message::Read).await.unwrap();
        until("all that came back", read, |quick::Reply::Is { next, .. }| *next == rounds * 3).await;
        let quick::Reply::Is { out_of_order, .. } = read().await;
        assert_eq!(out_of_order, 0, "{number}");
    }
    assert!((0..2).all(|node| cluster.kept[node].letters.count() == 0));
}

/// Which node has a shard, as this one knows.
fn owner(cluster: &Cluster, node: usize, shard: usize) -> usize {
    usize::from(cluster.node(node).cluster().unwrap().state().shards[shard].owner.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shards_are_where_the_cluster_says_though_a_node_dies_while_they_move() {
    const MOVES: u64 = 8;
    let mut cluster = Cluster::new().await;
    let clients = [cluster.client(0).await, cluster.client(1).await];
    let mut even = keys(false);
    let movers: Vec<u64> = even.by_ref().take(PAIRS).collect();
    let shards: ShardSet = movers.iter().map(|key| shard_of(Key(*key))).collect();
    let first = shards.iter().next().unwrap();
    let stays: Vec<[u64; 2]> =
        even.filter(|key| !shards.has(Key(*key))).zip(keys(true)).map(|(a, b)| [a, b]).take(PAIRS).collect();
    let mut rounds = 0;
    let mut moved = 0;
    for number in 0..MOVES {
        for _ in 0..3 {
            for (mover, stays) in movers.iter().zip(&stays) {
                let node = (*mover % 2) as usize;
                let send = sure::Message::Send { to: *mover, count: 5 };
                clients[node].tell(Key(stays[node]), send).await.unwrap();
            }
            rounds += 1;
        }
        let giver = owner(&cluster, 0, first);
        let router = cluster.node(giver).router().clone();
        let (set, to) = (shards.clone(), 1 - giver as u16);
        let moving = tokio::spawn(async move { router.migrate_away(set, to).await.is_ok() });
        // The one that gives, and the one that is given, at different moments of it.
        tokio::time::sleep(Duration::from_millis(4 * number)).await;
        let dies = match number % 2 {
            0 => giver,
            _ => 1 - giver,
        };
        cluster.kill(dies);
        tokio::time::sleep(Duration::from_millis(100)).await;
        cluster.start(dies).await;
        moved += usize::from(moving.await.unwrap_or(false));
    }
    println!("{moved} of {MOVES} went to their end");
    let has = owner(&cluster, 0, first);
    for mover in &movers {
        let all = rounds * 5;
        let read = async || clients[has].ask(Key(*mover), sure::Message::Read).await.unwrap();
        until("all of it", read, |sure::Reply::Is { next, .. }| *next == all).await;
        let sure::Reply::Is { out_of_order, .. } = read().await;
        assert_eq!(out_of_order, 0);
    }
    assert!((0..2).all(|node| cluster.kept[node].letters.count() == 0));
}
