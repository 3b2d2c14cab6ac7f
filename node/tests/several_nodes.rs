//! A client and two real nodes, each with a part of the shards.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringhold::client::{Client, Options};
use ringhold::config::{self, Config};
use ringhold::device::host::{DeviceHost, Devices, Planned, RealDevices};
use ringhold::device::keeper::{Blocking, Jobs};
use ringhold::node::{Environment, Node, Storage};
use ringhold::shards::{ELSEWHERE, ShardSet};
use ringhold::{Key, Registry};
use ringhold_cluster::control::failover;
use ringhold_cluster::control::state::{Command, NodeNumber, State, ranges};
use ringhold_cluster::network::{BoxFuture, RealNetwork};
use ringhold_cluster::placement;
use ringhold_cluster::tls::{Authority, Role};
use ringhold_kernels::outbox::{SHARDS, shard_of};
use ringhold_storage::blocks::InMemory;
use ringhold_storage::checkpoints::{self, Checkpoints};
use ringhold_storage::dead_letters;
use ringhold_storage::raft_log::RaftLog;
use tokio::task::JoinSet;

/// Counts, and says where messages did not come in their order.
#[ringhold::actor]
pub mod tally {
    pub struct State {
        pub next: u32,
        pub out_of_order: u32,
    }

    pub enum Message {
        Put { number: u32 },
        Read {},
    }

    pub enum Reply {
        Next { number: u32, out_of_order: u32 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Put { number } => {
                if state.next != number {
                    state.out_of_order += 1;
                }
                state.next += 1;
            }
            Message::Read {} => {}
        }
        ctx.reply(Reply::Next { number: state.next, out_of_order: state.out_of_order });
    }
}

const KEYS: u64 = 40;
const PATIENCE: Duration = Duration::from_secs(60);
const LEASE: Duration = Duration::from_secs(10);
/// What is done so soon has waited for nobody's lease.
const SOON: Duration = Duration::from_secs(6);

/// What a node has, though it ends.
struct Place {
    id: String,
    name: &'static str,
    lease: Duration,
    /// From one checkpoint of its device to the next.
    interval: Duration,
    checkpoints: Arc<InMemory>,
    log: Arc<InMemory>,
}

impl Place {
    fn new(name: &'static str, lease: Duration) -> Place {
        let id = format!("00000000-0000-4000-8000-0000000000{:02x}", name.as_bytes()[0]);
        let interval = Duration::from_secs(1);
        Place { id, name, lease, interval, checkpoints: Arc::default(), log: Arc::default() }
    }

    async fn start(&self, authority: &Authority, join: Option<&Node>) -> Node {
        self.start_with(Arc::new(RealDevices::default()), authority, join).await
    }

    async fn start_with(&self, devices: Arc<dyn Devices>, authority: &Authority, join: Option<&Node>) -> Node {
        self.start_on(devices, Arc::new(Blocking), authority, join).await
    }

    async fn start_on(
        &self,
        devices: Arc<dyn Devices>,
        jobs: Arc<dyn Jobs>,
        authority: &Authority,
        join: Option<&Node>,
    ) -> Node {
        let (kind, host) = (config::DeviceKind::Cpu, config::Host::InProcess);
        let device = config::Device { kind, workers: Some(1), host, ..Default::default() };
        let mut config = Config { devices: config::Devices(vec![device]), ..Config::default() };
        config.node.listen = "127.0.0.1:0".parse().unwrap();
        config.node.name = Some(self.name.into());
        config.node.lease = self.lease;
        config.checkpoints.committed_interval = self.interval;
        config.actors.committed = vec!["tally".into()];
        config.node.join = join.map(|node| node.address().to_string()).into_iter().collect();
        let mut registry = Registry::new();
        registry.register::<tally::Actor>().unwrap();
        let checkpoints = Checkpoints::open(self.checkpoints.clone(), checkpoints::Options::default()).unwrap();
        let storage = Storage {
            node_id: self.id.clone(),
            identity: authority.identity(Role::Node, &RealNetwork).unwrap(),
            dead_letters: Arc::new(dead_letters::InMemory::new(100)),
            checkpoints: Some(checkpoints),
            shards: None,
            jobs,
            control: Some(Arc::new(RaftLog::open(self.log.clone(), Path::new("log")).unwrap())),
            folder: None,
        };
        let network = Arc::new(RealNetwork);
        Node::start(&config, registry, Environment { network, devices, storage }).await.unwrap()
    }
}

/// A machine that says where its devices are.
struct Slot(&'static str);

impl Devices for Slot {
    fn plan(&self, devices: &config::Devices) -> Result<Vec<Planned>, ringhold::device::Error> {
        let place = placement::Place { pci: Some(self.0.into()), ..Default::default() };
        let planned = RealDevices::default().plan(devices)?;
        Ok(planned.into_iter().map(|planned| Planned { place: place.clone(), ..planned }).collect())
    }

    fn host(
        &self,
        config: &config::Device,
        sharers: u32,
        workers: usize,
        registry: &Arc<Registry>,
    ) -> std::io::Result<Box<dyn DeviceHost>> {
        RealDevices::default().host(config, sharers, workers, registry)
    }
}

async fn read(client: &Client, key: u64) -> (u32, u32) {
    let tally::Reply::Next { number, out_of_order } =
        client.ask_with(Key(key), tally::Message::Read {}, PATIENCE).await.unwrap();
    (number, out_of_order)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_client_that_knows_one_node_reaches_the_actors_of_both_and_follows_shards_from_one_to_the_other() {
    let authority = Authority::in_memory(&RealNetwork).unwrap();
    let places = ["a", "b"].map(|name| Place::new(name, LEASE));
    let a = places[0].start(&authority, None).await;
    // Nobody else goes on with a device whose node is away.
    let alone = Command::Set { name: "replication_factor".into(), value: "1".into() };
    a.cluster().unwrap().control().propose(alone, PATIENCE).await.unwrap().unwrap();
    let b = places[1].start(&authority, Some(&a)).await;
    let identity = authority.identity(Role::Client, &RealNetwork).unwrap();
    let options = |node: &Node| Options::new(node.address().to_string(), identity.clone()).with::<tally::Actor>();
    let client = Client::connect(options(&a)).await.unwrap();
    // One that comes to a node without actors learns there where they are.
    let other = Client::connect(options(&b)).await.unwrap();
    assert_eq!(read(&other, 1_000_000).await, (0, 0));

    // No actor of these has ever been: the shards move empty.
    let moved: ShardSet = (0..SHARDS).filter(|shard| shard % 2 == 1 && *shard != shard_of(Key(1_000_000))).collect();
    let control = a.cluster().unwrap().control();
    let move_shards = Command::Move { shards: ranges(moved.iter().map(|shard| shard as u32)), from: 0, to: 1 };
    control.propose(move_shards, PATIENCE).await.unwrap().unwrap();
    a.router().shards().give(&moved, ELSEWHERE);
    b.drain().await;
    // It is at another port now, and the others learn that.
    let b = places[1].start(&authority, Some(&a)).await;
    assert_eq!(b.router().shards().owned_by(0).len(), moved.len());

    // The client's table is an old one.
    for number in 0..100 {
        for key in 0..KEYS {
            client.tell(Key(key), tally::Message::Put { number }).await.unwrap();
        }
    }
    client.flush().await.unwrap();
    for key in 0..KEYS {
        assert_eq!(read(&client, key).await, (100, 0), "key {key}");
    }
    let here = (0..KEYS).filter(|key| moved.has(Key(*key))).count() as u64;
    let actors = |node: &Node| node.router().devices()[0].status().actors;
    assert_eq!((actors(&a), actors(&b)), (KEYS - here + 1, here));
    assert_eq!(client.stats().unconfirmed, 0);

    // The node that it did not come to at first goes, and is there again.
    let teller = tokio::spawn({
        let client = client.clone();
        async move {
            for number in 100..2_000 {
                for key in 0..KEYS {
                    client.tell(Key(key), tally::Message::Put { number }).await.unwrap();
                }
                if number % 50 == 0 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
            client.flush().await.unwrap();
        }
    });
    b.drain().await;
    let b = places[1].start(&authority, Some(&a)).await;
    teller.await.unwrap();
    for key in 0..KEYS {
        assert_eq!(read(&client, key).await, (2_000, 0), "key {key}");
    }
    assert_eq!(client.stats().unconfirmed, 0);
    assert!(client.settle(PATIENCE).await.unwrap().settled);
    client.close().await.unwrap();
    other.close().await.unwrap();
    drop((a, b));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_device_that_was_put_into_another_slot_is_the_same_and_the_cluster_knows_where_it_is() {
    let authority = Authority::in_memory(&RealNetwork).unwrap();
    let kept = Place::new("a", LEASE);
    for slot in ["0000:3b:00.0", "0000:af:00.0"] {
        let node = kept.start_with(Arc::new(Slot(slot)), &authority, None).await;
        let state = node.cluster().unwrap().control().state();
        let known: Vec<_> = state.devices.values().map(|device| device.about.place.pci.as_deref()).collect();
        assert_eq!(known, [Some(slot)]);
        assert_eq!(state.shard_counts()[&0], SHARDS as u32);
        node.drain().await;
    }
}

/// Nodes that run, by number.
struct Running {
    nodes: BTreeMap<NodeNumber, Node>,
    client: Client,
    /// How many messages each actor has had.
    puts: u32,
}

impl Running {
    fn state(&self) -> Arc<State> {
        self.nodes.values().next().unwrap().cluster().unwrap().state()
    }

    fn leader(&self) -> Option<NodeNumber> {
        self.nodes.values().next().unwrap().cluster().unwrap().control().leader().map(|leader| leader as NodeNumber)
    }

    /// The node that has all shards.
    fn owner(&self) -> NodeNumber {
        self.state().devices[&0].node
    }

    /// Waits until all nodes vote and hold their leases, and three have everything of the first device.
    async fn are_well(&self) {
        let since = Instant::now();
        loop {
            let control = |node: &Node| node.cluster().unwrap().control().clone();
            let all_vote = |node: &Node| control(node).members().voters.len() == 5 && !control(node).members().changing;
            if self.state().devices[&0].in_sync.len() == 3
                && self.nodes.values().all(|node| all_vote(node) && control(node).lease().holds())
            {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "they are not well: {:#?}", self.state().devices);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Each actor gets a message, and has had all that were before.
    async fn put(&mut self) {
        let number = self.puts;
        self.puts += 1;
        let asks = (0..KEYS).map(|key| self.client.ask_with(Key(key), tally::Message::Put { number }, PATIENCE));
        for answer in asks.collect::<JoinSet<_>>().join_all().await {
            let tally::Reply::Next { number, out_of_order } = answer.unwrap();
            assert_eq!((number, out_of_order), (self.puts, 0));
        }
    }

    /// Stops these at once, in good order, while actors are asked; none of it takes long.
    async fn stop(&mut self, stopped: &[NodeNumber]) {
        let since = Instant::now();
        let ends = stopped.iter().map(|number| self.nodes.remove(number).unwrap().drain());
        let ended = ends.collect::<JoinSet<_>>();
        if !self.nodes.is_empty() {
            self.put().await;
        }
        let ended = ended.join_all().await;
        assert!(ended.iter().all(|drained| drained.complete), "{ended:?}");
        let (took, ended) = (since.elapsed(), Instant::now());
        if !self.nodes.is_empty() {
            self.put().await;
            println!("all actors have answered {} ms after nodes {stopped:?} had ended", ended.elapsed().as_millis());
        }
        println!("nodes {stopped:?} had ended after {} ms", took.as_millis());
        assert!(since.elapsed() < SOON, "{stopped:?} took {:?}", since.elapsed());
    }
}

/// A disk for which everything takes its time.
struct SlowDisk;

impl Jobs for SlowDisk {
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Blocking.run(job).await;
        })
    }

    fn rest(&self, span: Duration) {
        Blocking.rest(span);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_stopped_node_ran_goes_on_elsewhere_without_waiting_for_its_lease() {
    let authority = Authority::in_memory(&RealNetwork).unwrap();
    let places = ["a", "b", "c", "d", "e"].map(|name| Place::new(name, LEASE));
    let a = places[0].start(&authority, None).await;
    let thrice = Command::Set { name: "replication_factor".into(), value: "3".into() };
    a.cluster().unwrap().control().propose(thrice, PATIENCE).await.unwrap().unwrap();
    let mut nodes = BTreeMap::from([(1, a)]);
    for (number, place) in (2..).zip(&places[1..]) {
        let node = place.start(&authority, nodes.get(&1)).await;
        nodes.insert(number, node);
    }
    let identity = authority.identity(Role::Client, &RealNetwork).unwrap();
    let mut options = Options::new("", identity).with::<tally::Actor>();
    options.addresses = nodes.values().map(|node| node.address().to_string()).collect();
    let client = Client::connect(options).await.unwrap();
    let mut cluster = Running { nodes, client, puts: 0 };
    cluster.are_well().await;
    cluster.put().await;

    // The one that leads, which has everything.
    assert_eq!((cluster.leader(), cluster.owner()), (Some(1), 1));
    cluster.stop(&[1]).await;
    assert_ne!(cluster.owner(), 1);

    // It comes back as a member. The next to be stopped is one that does not lead, and with it the one that would be the first to go on.
    let a = places[0].start(&authority, None).await;
    assert_eq!(a.cluster().unwrap().state().times_given_up(1), 1);
    cluster.nodes.insert(1, a);
    cluster.are_well().await;
    cluster.put().await;
    let (state, owner) = (cluster.state(), cluster.owner());
    while cluster.leader() == Some(owner) {
        let _ = cluster.nodes[&owner].cluster().unwrap().control().hand_over().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (in_sync, term) = (&state.devices[&0].in_sync, state.devices[&0].term);
    let first = failover::choose(&state, owner, in_sync)[&0];
    cluster.stop(&[owner, first]).await;
    assert!(in_sync.contains(&cluster.owner()) && ![owner, first].contains(&cluster.owner()));
    assert_eq!(cluster.state().devices[&0].term, term + 1, "nothing was given to the other");

    // Three of the five voters are left, and one more is stopped: the other two could not run what it has.
    let (before, last) = (cluster.state(), cluster.owner());
    let drained = cluster.nodes.remove(&last).unwrap().drain().await;
    assert!(drained.complete, "{drained:?}");
    let state = cluster.state();
    assert_eq!((state.devices[&0].node, state.devices[&0].term), (last, before.devices[&0].term));
    assert_eq!(state.times_given_up(last), before.times_given_up(last));

    // And all that are left.
    let left: Vec<NodeNumber> = cluster.nodes.keys().copied().collect();
    cluster.stop(&left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_replica_comes_in_though_checkpoints_are_made_faster_than_it_takes_them() {
    let authority = Authority::in_memory(&RealNetwork).unwrap();
    let places = ["a", "b"].map(|name| Place { interval: Duration::from_millis(10), ..Place::new(name, LEASE) });
    let a = places[0].start(&authority, None).await;
    let identity = authority.identity(Role::Client, &RealNetwork).unwrap();
    let options = Options::new(a.address().to_string(), identity).with::<tally::Actor>();
    let client = Client::connect(options).await.unwrap();
    let teller = tokio::spawn({
        let client = client.clone();
        async move {
            for number in 0.. {
                client.tell(Key(7), tally::Message::Put { number }).await.unwrap();
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let b = places[1].start_on(Arc::new(RealDevices::default()), Arc::new(SlowDisk), &authority, Some(&a)).await;
    let comes_in = async {
        let control = a.cluster().unwrap().control();
        let mut seen = control.changes();
        while !control.state().devices[&0].in_sync.contains(&2) {
            seen = control.changed(seen).await;
        }
    };
    tokio::time::timeout(PATIENCE, comes_in).await.expect("it comes in while the client sends");
    assert!(!teller.is_finished());
    teller.abort();
    client.flush().await.unwrap();
    let (number, out_of_order) = read(&client, 7).await;
    assert!(number > 0 && out_of_order == 0, "{number}, {out_of_order}");
    client.close().await.unwrap();
    drop((a, b));
}

/// Two nodes lose their power at once, and one of them its checkpoints besides, but not the cluster's log.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_whose_copies_are_gone_does_not_begin_a_device_with_nothing() {
    let authority = Authority::in_memory(&RealNetwork).unwrap();
    let mut places = ["a", "b", "c"].map(|name| Place::new(name, Duration::from_millis(600)));
    let a = places[0].start(&authority, None).await;
    let b = places[1].start(&authority, Some(&a)).await;
    let c = places[2].start(&authority, Some(&a)).await;
    let control = c.cluster().unwrap().control().clone();
    let eventually = async |what: &str, is_so: &dyn Fn() -> bool| {
        let since = Instant::now();
        while !is_so() {
            assert!(since.elapsed() < PATIENCE, "{what}: {:#?}", control.state().devices);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let both = BTreeSet::from([1, 2]);
    let is_well = || control.state().devices[&0].in_sync == both && control.members().voters.len() == 3;
    eventually("b has a copy, and all vote", &is_well).await;
    let identity = authority.identity(Role::Client, &RealNetwork).unwrap();
    let options = Options::new(a.address().to_string(), identity).with::<tally::Actor>();
    let client = Client::connect(options).await.unwrap();
    for number in 0..10 {
        client.ask_with(Key(7), tally::Message::Put { number }, PATIENCE).await.unwrap();
    }
    let _ = client.close().await;

    drop((a, b));
    places[1].checkpoints = Arc::default();
    let b = places[1].start(&authority, Some(&c)).await;
    // So long that it would be given up, if anybody could go on with its device.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let state = control.state();
    assert_eq!((state.devices[&0].node, &state.devices[&0].in_sync), (1, &BTreeSet::from([1])));
    drop((b, c));
}
