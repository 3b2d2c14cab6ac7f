//! Checkpoints of a whole node, in this process, on a store that fails when it is told to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use ringhold::client::{Client, Options};
use ringhold::config::{self, Config};
use ringhold::device::host::{DeviceBells, DeviceHost, Devices, NotifyBell, RealDevices};
use ringhold::device::keeper::Blocking;
use ringhold::device::supervisor::Over;
use ringhold::node::{Environment, Error, Node, Storage};
use ringhold::shipped::counter;
use ringhold::{Key, Registry};
use ringhold_cluster::network::{BoxFuture, RealNetwork};
use ringhold_cluster::tls::{Authority, Role};
use ringhold_cluster::wire::{CheckpointStatus, DeviceStatus, Request, Response};
use ringhold_kernels::bell::Bell;
use ringhold_kernels::checkpoint::{self, Cut};
use ringhold_kernels::segment::{Pulse, Segment};
use ringhold_kernels::staging;
use ringhold_storage::blocks::{self, Blocks, InMemory};
use ringhold_storage::checkpoints::{self, Checkpoints};
use ringhold_storage::dead_letters;

/// In memory, and full for the puts that come after so many.
#[derive(Default)]
struct Full {
    blocks: InMemory,
    /// Puts until it is full; it is not where this is as large as can be.
    room: AtomicU64,
    refused: AtomicU64,
}

impl Blocks for Full {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, blocks::Error> {
        self.blocks.get(key)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), blocks::Error> {
        let room = self.room.fetch_update(SeqCst, SeqCst, |room| room.checked_sub(1));
        if room.is_err() {
            self.refused.fetch_add(1, SeqCst);
            return Err(blocks::Error::DiskFull("the test's".into()));
        }
        self.blocks.put(key, value)
    }

    fn remove(&self, key: &[u8]) -> Result<(), blocks::Error> {
        self.blocks.remove(key)
    }

    fn first_from(&self, key: &[u8]) -> Result<Option<Vec<u8>>, blocks::Error> {
        self.blocks.first_from(key)
    }

    fn sync(&self) -> Result<(), blocks::Error> {
        self.blocks.sync()
    }

    fn bytes_on_disk(&self) -> u64 {
        self.blocks.bytes_on_disk()
    }
}

/// With so many CPU devices in this process.
async fn start(blocks: &Arc<Full>, authority: &Authority, devices: usize) -> Result<Node, Error> {
    // Long enough that much changes in it, and a cut is more than comes up in one piece.
    let configure = |config: &mut Config| config.checkpoints.interval = Duration::from_millis(400);
    start_on(Arc::new(RealDevices::default()), configure, blocks, authority, devices).await
}

async fn start_on(
    hosts: Arc<dyn Devices>,
    configure: impl FnOnce(&mut Config),
    blocks: &Arc<Full>,
    authority: &Authority,
    devices: usize,
) -> Result<Node, Error> {
    let network = Arc::new(RealNetwork);
    let device = config::Device {
        kind: config::DeviceKind::Cpu,
        workers: Some(1),
        host: config::Host::InProcess,
        ..Default::default()
    };
    let mut config = Config { devices: config::Devices(vec![device; devices]), ..Config::default() };
    config.node.listen = "127.0.0.1:0".parse().unwrap();
    configure(&mut config);
    let mut registry = Registry::new();
    registry.register::<counter::Actor>().unwrap();
    let checkpoints = Checkpoints::open(blocks.clone(), checkpoints::Options::default()).unwrap();
    let storage = Storage {
        node_id: "test".into(),
        identity: authority.identity(Role::Node, &RealNetwork).unwrap(),
        dead_letters: Arc::new(dead_letters::InMemory::new(100)),
        checkpoints: Some(checkpoints),
        shards: None,
        jobs: Arc::new(Blocking),
        control: None,
        folder: None,
    };
    Node::start(&config, registry, Environment { network, devices: hosts, storage }).await
}

async fn client(node: &Node, authority: &Authority) -> Client {
    let identity = authority.identity(Role::Client, &RealNetwork).unwrap();
    Client::connect(Options::new(node.address().to_string(), identity).with::<counter::Actor>()).await.unwrap()
}

async fn add(client: &Client, keys: std::ops::Range<u64>) {
    for key in keys {
        client.tell(Key(key), counter::Message::Add { amount: key }).await.unwrap();
    }
    client.flush().await.unwrap();
}

async fn device(client: &Client) -> DeviceStatus {
    match client.request(Request::Devices, Duration::from_secs(5)).await.unwrap() {
        Response::Devices(mut devices) => devices.remove(0),
        other => panic!("{other:?}"),
    }
}

async fn checkpoints(client: &Client) -> CheckpointStatus {
    device(client).await.checkpoints.unwrap()
}

async fn until(client: &Client, what: &str, holds: impl Fn(&CheckpointStatus) -> bool) -> CheckpointStatus {
    let began = Instant::now();
    loop {
        let now = checkpoints(client).await;
        if holds(&now) {
            return now;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{what}: {now:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What has come of a cut when the disk fails is no part of the next checkpoint, and what has not is not lost with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_go_on_after_the_disk_was_full_in_the_middle_of_one() {
    const ACTORS: u64 = 100_000;
    let authority = Authority::in_memory(&RealNetwork).unwrap();
    let blocks = Arc::new(Full { room: AtomicU64::new(u64::MAX), ..Full::default() });
    let node = start(&blocks, &authority, 1).await.unwrap();
    let ours = client(&node, &authority).await;
    add(&ours, 0..1).await;
    until(&ours, "a first checkpoint", |status| status.count > 0).await;
    // Some chunks of the next one find room.
    blocks.room.store(5, SeqCst);
    add(&ours, 0..ACTORS).await;
    until(&ours, "a failure", |status| status.failed.is_some()).await;
    assert!(blocks.refused.load(SeqCst) > 0);
    blocks.room.store(u64::MAX, SeqCst);
    let failed = checkpoints(&ours).await.count;
    until(&ours, "no checkpoint since", |status| status.failed.is_none() && status.count > failed).await;
    assert_eq!(device(&ours).await.restarts, 0, "its workers have not noticed");
    ours.close().await.unwrap();
    assert!(node.drain().await.complete);

    let node = start(&blocks, &authority, 1).await.unwrap();
    let ours = client(&node, &authority).await;
    for key in (0..ACTORS).step_by(997) {
        let counter::Reply::Count { count } = ours.ask(Key(key), counter::Message::Read).await.unwrap();
        assert_eq!(count, key, "of actor {key}");
    }
    ours.close().await.unwrap();
    node.drain().await;
}

/// Actors belong to devices by their keys. Where there are more or fewer devices, some would be nobody's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_other_devices_than_its_checkpoints_does_not_start() {
    let authority = Authority::in_memory(&RealNetwork).unwrap();
    for (before, after, said) in [(1, 2, "belong to another device now"), (2, 1, "`cpu1`")] {
        let blocks = Arc::new(Full { room: AtomicU64::new(u64::MAX), ..Full::default() });
        let node = start(&blocks, &authority, before).await.unwrap();
        let ours = client(&node, &authority).await;
        add(&ours, 0..100).await;
        ours.close().await.unwrap();
        assert!(node.drain().await.complete);
        let refused = start(&blocks, &authority, after).await.err().expect("it would leave actors out").to_string();
        assert!(refused.contains(said), "{refused}");
        let node = start(&blocks, &authority, before).await.unwrap();
        let ours = client(&node, &authority).await;
        let counter::Reply::Count { count } = ours.ask(Key(99), counter::Message::Read).await.unwrap();
        assert_eq!(count, 99, "nothing was lost by it");
        ours.close().await.unwrap();
        node.drain().await;
    }
}

/// Hosts that have no actors and take part in cuts, and say that all of one has come up only once the node has taken all of it.
#[derive(Default)]
struct LateHosts {
    killed: Arc<AtomicU64>,
}

struct LateHost {
    killed: Arc<AtomicU64>,
    /// Of the host that runs.
    end: Option<Arc<AtomicBool>>,
    worker: Arc<NotifyBell>,
    node: Arc<NotifyBell>,
}

impl Devices for LateHosts {
    fn host(&self, _: &config::Device, _: u32, _: usize, _: &Arc<Registry>) -> io::Result<Box<dyn DeviceHost>> {
        let killed = self.killed.clone();
        Ok(Box::new(LateHost { killed, end: None, worker: Arc::default(), node: Arc::default() }))
    }
}

impl DeviceHost for LateHost {
    fn bells(&self) -> DeviceBells {
        DeviceBells { workers: Arc::new(vec![self.worker.clone()]), node: self.node.clone() }
    }

    fn start(&mut self, segment: &Arc<Segment>) -> io::Result<Option<u32>> {
        let (segment, node, end) = (segment.clone(), self.node.clone(), Arc::new(AtomicBool::new(false)));
        self.end = Some(end.clone());
        std::thread::spawn(move || {
            let (mut up, mut down) = staging::host(&segment, 0);
            segment.worker(0).telemetry.pulse.store(Pulse::Idle as u32, SeqCst);
            segment.device().running_term.store(segment.node().term.load(SeqCst) as u32, SeqCst);
            let (mut epoch, mut bytes) = (segment.node().epoch.load(SeqCst), Vec::new());
            while !end.load(SeqCst) && segment.node().stop.load(SeqCst) == 0 {
                std::thread::sleep(Duration::from_millis(1));
                down.read(&mut Vec::new(), 1 << 20);
                let wanted = segment.node().epoch.load(SeqCst);
                if wanted == epoch {
                    continue;
                }
                epoch = wanted;
                bytes.clear();
                checkpoint::push_cut(&mut bytes, &Cut { epoch, lane: 0, ingress: 0, egress: 0, hlc: 0 });
                assert_eq!(up.write(&bytes), bytes.len(), "it is empty");
                node.ring();
                let words = segment.staging(0);
                while words.node.0.taken.load(SeqCst) < up.position() && !end.load(SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                // It looks in vain meanwhile.
                std::thread::sleep(Duration::from_millis(30));
                words.host.0.end.store(up.position(), SeqCst);
                words.host.0.epoch.store(epoch, SeqCst);
                node.ring();
            }
            end.store(true, SeqCst);
        });
        Ok(None)
    }

    fn over(&mut self) -> BoxFuture<'_, Over> {
        Box::pin(async {
            let Some(end) = &self.end else { return std::future::pending().await };
            while !end.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.end = None;
            "ended".into()
        })
    }

    fn kill(&mut self) {
        self.killed.fetch_add(1, SeqCst);
        if let Some(end) = &self.end {
            end.store(true, SeqCst);
        }
    }
}

/// Nothing is awaited of a device once its cut is there, so it is not taken for stalled for saying no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_is_not_killed_after_a_cut_whose_end_it_told_late() {
    let authority = Authority::in_memory(&RealNetwork).unwrap();
    let blocks = Arc::new(Full { room: AtomicU64::new(u64::MAX), ..Full::default() });
    let hosts = Arc::new(LateHosts::default());
    let configure = |config: &mut Config| {
        config.checkpoints.interval = Duration::from_millis(20);
        config.supervision.stalled_after = Duration::from_millis(200);
    };
    let node = start_on(hosts.clone(), configure, &blocks, &authority, 1).await.unwrap();
    let ours = client(&node, &authority).await;
    // The first one there is in any case; nothing happens that would have a second made.
    until(&ours, "a first checkpoint", |status| status.count > 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((hosts.killed.load(SeqCst), device(&ours).await.restarts), (0, 0));
    ours.close().await.unwrap();
    node.drain().await;
}
