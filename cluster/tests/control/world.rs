//! Nodes in one process: their control planes, disks that survive them, and the calls between them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quinn::{AsyncUdpSocket, Runtime};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use ringhold_cluster::control::state::{AboutDevice, Admission, Cluster, Command, Member, Outcome, Refused, State};
use ringhold_cluster::control::{Calls, Control, Disk, Error, Options, Timing};
use ringhold_cluster::network::{BoxFuture, Network, RealNetwork};
use ringhold_storage::blocks::InMemory;
use ringhold_storage::raft_log::RaftLog;
use rustls::crypto::CryptoProvider;
use rustls::time_provider::TimeProvider;
use tokio::time::{Instant, sleep};

pub const CLUSTER: [u8; 16] = [3; 16];
pub const SOON: Duration = Duration::from_secs(10);

/// What everybody shares.
#[derive(Clone)]
pub struct World(Arc<Mutex<Inner>>);

struct Inner {
    random: ChaCha8Rng,
    began: Instant,
    timing: Timing,
    /// Who is where now.
    there: BTreeMap<String, Control>,
    /// Pairs of addresses of which the first does not reach the second.
    cut: BTreeSet<(String, String)>,
    disks: BTreeMap<String, Arc<InMemory>>,
    /// Bytes of requests that were brought.
    brought: usize,
    /// What a line takes in a second.
    bytes_per_s: u64,
}

impl World {
    pub fn new(seed: u64, timing: Timing) -> World {
        World(Arc::new(Mutex::new(Inner {
            random: ChaCha8Rng::seed_from_u64(seed),
            began: Instant::now(),
            timing,
            there: BTreeMap::new(),
            cut: BTreeSet::new(),
            disks: BTreeMap::new(),
            brought: 0,
            bytes_per_s: u64::MAX,
        })))
    }

    /// Starts a node on its disk.
    pub async fn start(&self, number: u64, address: &str) -> Result<Control, Error> {
        let log = self.log_of(number);
        self.start_on(number, address, log).await
    }

    /// The log on a node's disk.
    pub fn log_of(&self, number: u64) -> RaftLog {
        let blocks = self.0.lock().unwrap().disks.entry(disk_name(number)).or_default().clone();
        RaftLog::open(blocks, Path::new("/data/control")).unwrap()
    }

    pub async fn start_on(&self, number: u64, address: &str, log: RaftLog) -> Result<Control, Error> {
        let timing = self.0.lock().unwrap().timing;
        let calls = Arc::new(From { world: self.clone(), address: address.into() });
        let network = Arc::new(Random(self.clone()));
        let control =
            Control::start(Options { number, log: Arc::new(log), disk: Arc::new(Quick), calls, network, timing })
                .await?;
        control.advertise(address);
        self.0.lock().unwrap().there.insert(address.into(), control.clone());
        Ok(control)
    }

    /// A node's process ends, and its machine loses its power.
    pub async fn crash(&self, control: Control) {
        let number = control.number();
        control.shutdown().await;
        let mut inner = self.0.lock().unwrap();
        inner.there.retain(|_, there| there.number() != number);
        let Inner { random, disks, .. } = &mut *inner;
        disks[&disk_name(number)].crash(|bound| (random.next_u64() % bound as u64) as usize);
    }

    pub fn lose_disk(&self, number: u64) {
        self.0.lock().unwrap().disks.remove(&disk_name(number));
    }

    /// Nobody outside reaches these, and they reach nobody outside.
    pub fn cut_off(&self, addresses: &[String]) {
        let mut inner = self.0.lock().unwrap();
        let all: Vec<String> = inner.there.keys().cloned().collect();
        for outside in all.iter().filter(|address| !addresses.contains(address)) {
            for inside in addresses {
                inner.cut.insert((outside.clone(), inside.clone()));
                inner.cut.insert((inside.clone(), outside.clone()));
            }
        }
    }

    /// Has all lines take so many bytes in a second.
    pub fn narrow(&self, bytes_per_s: u64) {
        self.0.lock().unwrap().bytes_per_s = bytes_per_s;
    }

    /// Takes as long as a message of so many bytes does. One that does not get there takes for ever.
    async fn travel(&self, from: &str, to: &str, bytes: usize) {
        let (delay, cut) = {
            let mut inner = self.0.lock().unwrap();
            let delay = 500 + inner.random.next_u64() % 2_000 + bytes as u64 * 1_000_000 / inner.bytes_per_s;
            (Duration::from_micros(delay), inner.cut.contains(&(from.into(), to.into())))
        };
        if cut {
            std::future::pending::<()>().await;
        }
        sleep(delay).await;
    }

    pub fn heal(&self) {
        self.0.lock().unwrap().cut.clear();
    }

    pub fn brought(&self) -> usize {
        self.0.lock().unwrap().brought
    }
}

fn disk_name(number: u64) -> String {
    format!("disk of {number}")
}

pub fn address(number: u64) -> String {
    format!("10.0.0.{number}:7000")
}

/// Calls of the node with this address.
struct From {
    world: World,
    address: String,
}

impl Calls for From {
    fn call<'a>(&'a self, to: &'a str, request: Vec<u8>, _: Duration) -> BoxFuture<'a, Result<Vec<u8>, String>> {
        Box::pin(async move {
            assert!(request.len() < 17 << 20, "a call of {} bytes", request.len());
            let bytes = request.len();
            self.world.0.lock().unwrap().brought += bytes;
            self.world.travel(&self.address, to, bytes).await;
            let there = self.world.0.lock().unwrap().there.get(to).cloned();
            let answer = there.ok_or("nobody is there")?.answer(request).await;
            self.world.travel(to, &self.address, answer.len()).await;
            Ok(answer)
        })
    }
}

/// A disk that takes half a millisecond.
struct Quick;

impl Disk for Quick {
    fn run(&self, job: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            sleep(Duration::from_micros(500)).await;
            job();
        })
    }
}

/// The machine's network, but for its randomness, and for the time, which may be tokio's.
struct Random(World);

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Random")
    }
}

impl Network for Random {
    fn bind(&self, address: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        RealNetwork.bind(address)
    }

    fn runtime(&self) -> Arc<dyn Runtime> {
        RealNetwork.runtime()
    }

    fn resolve<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<Vec<SocketAddr>>> {
        RealNetwork.resolve(address)
    }

    fn random(&self, bytes: &mut [u8]) {
        self.0.0.lock().unwrap().random.fill_bytes(bytes);
    }

    fn wall_us(&self) -> u64 {
        RealNetwork.wall_us()
    }

    fn steady_us(&self) -> u64 {
        self.0.0.lock().unwrap().began.elapsed().as_micros() as u64
    }

    fn crypto_provider(&self) -> Arc<CryptoProvider> {
        RealNetwork.crypto_provider()
    }

    fn time_provider(&self) -> Arc<dyn TimeProvider> {
        RealNetwork.time_provider()
    }
}

pub fn admission(number: u64) -> Command {
    let member = Member {
        id: [number as u8; 16],
        incarnation: 1,
        name: format!("n{number}"),
        address: address(number),
        zone: String::new(),
        release: "0.1.0".into(),
        versions: (1, 1),
        types: BTreeMap::new(),
        draining: false,
        lease_ms: 400,
    };
    let device = AboutDevice {
        name: "cpu0".into(),
        kind: "cpu".into(),
        workers: 1,
        memory_bytes: None,
        place: Default::default(),
    };
    Command::Admit(Admission { number: None, cluster: CLUSTER, member, devices: vec![device], fresh: false })
}

/// A command that shows in the state: token `n` is used.
pub fn token(n: u64) -> Command {
    Command::UseToken { serial: n.to_be_bytes().to_vec(), expires_s: 1_000, now_s: 1 }
}

pub fn has_token(state: &State, n: u64) -> bool {
    state.tokens.contains_key(n.to_be_bytes().as_slice())
}

/// A cluster of so many nodes, the first of which founded it, with their voters settled.
pub async fn cluster(world: &World, count: u64) -> Vec<Control> {
    let first = world.start(1, &address(1)).await.unwrap();
    first.initialize(&address(1)).await.unwrap();
    let found = Command::Found { cluster: Cluster { id: CLUSTER, name: "test".into() }, shards: 16 };
    first.propose(found, SOON).await.unwrap().unwrap();
    first.propose(admission(1), SOON).await.unwrap().unwrap();
    let mut nodes = vec![first];
    for number in 2..=count {
        let outcome = nodes[0].propose(admission(number), SOON).await.unwrap().unwrap();
        assert!(matches!(outcome, Outcome::Admitted { node, .. } if u64::from(node) == number));
        nodes.push(world.start(number, &address(number)).await.unwrap());
    }
    for node in &nodes {
        keep_members(node);
    }
    let voters = if count % 2 == 1 { count } else { count - 1 }.min(5);
    until("the voters are settled", || {
        nodes.iter().all(|node| {
            let members = node.members();
            members.voters.len() as u64 == voters && !members.changing && members.addresses.len() as u64 == count
        })
    })
    .await;
    nodes
}

/// Looks after the members for as long as the node is there.
pub fn keep_members(node: &Control) {
    let node = node.clone();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = node.stopped() => {}
            () = node.keep_members() => {}
        }
    });
}

/// Waits until something is so.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < Duration::from_secs(120), "{what}: it never came to that");
        sleep(Duration::from_millis(20)).await;
    }
}

/// The node that leads, by the word of more than half of these.
pub async fn leader_of(nodes: &[Control]) -> Control {
    let mut found = None;
    until("somebody leads", || {
        found = nodes.iter().find(|node| {
            let led = nodes.iter().filter(|other| other.leader() == Some(node.number())).count();
            node.leader() == Some(node.number()) && led > nodes.len() / 2
        });
        found.is_some()
    })
    .await;
    found.unwrap().clone()
}

/// Waits until all have applied the same, and says what.
pub async fn converged(nodes: &[Control]) -> Arc<State> {
    until("all agree", || {
        let applied: BTreeSet<_> = nodes.iter().map(|node| node.status().applied).collect();
        let leads: BTreeSet<_> = nodes.iter().map(Control::leader).collect();
        applied.len() == 1 && leads.len() == 1 && leads.first() != Some(&None)
    })
    .await;
    for node in nodes {
        assert_eq!(node.state(), nodes[0].state(), "node {}", node.number());
    }
    nodes[0].state()
}

pub async fn proposed(node: &Control, command: Command) -> Result<Outcome, Refused> {
    node.propose(command, SOON).await.unwrap_or_else(|e| panic!("node {}: {e}", node.number()))
}
