//! A client and two real nodes, each with a part of the shards.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ringhold::client::{Client, Options};
use ringhold::config::{self, Config};
use ringhold::device::host::{DeviceHost, Devices, Planned, RealDevices};
use ringhold::device::keeper::{Blocking, Jobs};
use ringhold::node::{Environment, Node, Storage};
use ringhold::shards::{ELSEWHERE, ShardSet};
use ringhold::{Key, Registry};
use ringhold_cluster::control::state::{Command, ranges};
use ringhold_cluster::network::{BoxFuture, RealNetwork};
use ringhold_cluster::placement;
use ringhold_cluster::tls::{Authority, Role};
use ringhold_kernels::outbox::{SHARDS, shard_of};
use ringhold_storage::blocks::InMemory;
use ringhold_storage::checkpoints::{self, Checkpoints};
use ringhold_storage::dead_letters;
use ringhold_storage::raft_log::RaftLog;

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

/// What a node has, though it ends.
struct Place {
    id: &'static str,
    name: &'static str,
    /// From one checkpoint of its device to the next.
    interval: Duration,
    checkpoints: Arc<InMemory>,
    log: Arc<InMemory>,
}

impl Place {
    fn new(id: &'static str, name: &'static str) -> Place {
        Place { id, name, interval: Duration::from_secs(1), checkpoints: Arc::default(), log: Arc::default() }
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
        // Nobody else goes on with its device while it is away.
        config.node.lease = Duration::from_secs(60);
        config.checkpoints.interval = self.interval;
        config.node.join = join.map(|node| node.address().to_string()).into_iter().collect();
        let mut registry = Registry::new();
        registry.register::<tally::Actor>().unwrap();
        let checkpoints = Checkpoints::open(self.checkpoints.clone(), checkpoints::Options::default()).unwrap();
        let storage = Storage {
            node_id: self.id.into(),
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
    let places = [
        Place::new("00000000-0000-4000-8000-00000000000a", "a"),
        Place::new("00000000-0000-4000-8000-00000000000b", "b"),
    ];
    let a = places[0].start(&authority, None).await;
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
    let kept = Place::new("00000000-0000-4000-8000-00000000000a", "a");
    for slot in ["0000:3b:00.0", "0000:af:00.0"] {
        let node = kept.start_with(Arc::new(Slot(slot)), &authority, None).await;
        let state = node.cluster().unwrap().control().state();
        let known: Vec<_> = state.devices.values().map(|device| device.about.place.pci.as_deref()).collect();
        assert_eq!(known, [Some(slot)]);
        assert_eq!(state.shard_counts()[&0], SHARDS as u32);
        node.drain().await;
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
async fn a_replica_comes_in_though_checkpoints_are_made_faster_than_it_takes_them() {
    let authority = Authority::in_memory(&RealNetwork).unwrap();
    let places = [
        Place::new("00000000-0000-4000-8000-00000000000a", "a"),
        Place::new("00000000-0000-4000-8000-00000000000b", "b"),
    ]
    .map(|place| Place { interval: Duration::from_millis(10), ..place });
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
