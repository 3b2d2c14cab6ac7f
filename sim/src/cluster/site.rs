//! A node's machine: what stays of it when its power fails, and the node that is started on it again and again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::control::{Control, Options, Role, Timing};
use ringhold_storage::raft_log::RaftLog;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::World;
use super::history::digest;
use super::leases;
use super::wires::{From, Wires};
use crate::disk::{self, Figures, Handle, SimDisk};
use crate::network::Machine;
use crate::random::{Random, Stream};

/// See the module.
pub struct Site {
    pub number: u64,
    network: Arc<Machine>,
    timing: Timing,
    state: Mutex<State>,
    /// The number of the start of the node of which its cluster knows: another one after each that has ended in good order.
    run: AtomicU64,
    /// The node has died.
    dead: Notify,
    ordered: Notify,
    /// Its disk was lost, so it must not take part any more.
    pub wiped: AtomicBool,
}

struct State {
    address: String,
    moves: u16,
    disk: SimDisk,
    /// Those of disks that were lost.
    figures: Vec<Figures>,
    node: Option<Control>,
    order: Option<Order>,
    random: Random,
}

/// What is to become of a node.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    Crash {
        down: Duration,
    },
    Move {
        down: Duration,
    },
    Wipe,
    /// In good order.
    End {
        down: Duration,
    },
    /// For ever.
    Stop,
}

impl Site {
    pub fn new(world: &World, number: u64) -> Arc<Site> {
        let random = Random::new(world.seed, Stream::Chaos, 100 + number);
        let network = world.net.machine(number as u8, 0);
        network.set_drift(world.plan.drift_of(world.seed, number));
        Arc::new(Site {
            number,
            network,
            timing: world.plan.timing_of(world.seed, number),
            state: Mutex::new(State {
                address: format!("10.0.0.{number}:7000"),
                moves: 0,
                disk: world.disk(number, 0),
                figures: Vec::new(),
                node: None,
                order: None,
                random,
            }),
            run: AtomicU64::new(1),
            dead: Notify::new(),
            ordered: Notify::new(),
            wiped: AtomicBool::new(false),
        })
    }

    /// The node, while it runs.
    pub fn node(&self) -> Option<Control> {
        self.state.lock().node.clone()
    }

    pub fn run(&self) -> u64 {
        self.run.load(Relaxed)
    }

    pub fn address(&self) -> String {
        self.state.lock().address.clone()
    }

    pub fn order(&self, order: Order) {
        self.state.lock().order = Some(order);
        self.ordered.notify_one();
    }

    /// Whether its log has anything that others count on.
    pub fn is_in(&self) -> bool {
        self.node().is_some_and(|node| node.status().last_log.is_some())
    }

    /// Resolves once this node is not the running one any more.
    pub async fn death(&self, node: &Control) {
        loop {
            let dead = self.dead.notified();
            if !self.state.lock().node.as_ref().is_some_and(|running| running.is(node)) {
                return;
            }
            dead.await;
        }
    }

    pub fn figures(&self) -> Figures {
        let state = self.state.lock();
        let mut sum = state.disk.figures();
        for lost in &state.figures {
            sum.syncs += lost.syncs;
            sum.lost += lost.lost;
            sum.torn += lost.torn;
        }
        sum
    }

    /// Starts the node, again after each time that its power has failed, until it is told to stop.
    pub async fn keep(self: Arc<Site>, world: Arc<World>) {
        loop {
            let (disk, fails) = {
                let mut state = self.state.lock();
                let fails = !world.is_calm() && state.random.per_mille(world.plan.failing_per_mille);
                let writes = state.random.between(5, 600);
                (state.disk.clone(), fails.then_some(writes))
            };
            let handle = disk.power_on(fails);
            let down = tokio::select! {
                biased;
                () = disk.failure() => Some(Duration::from_millis(self.state.lock().random.between(10, 3_000))),
                down = self.live(&world, handle) => down,
            };
            self.die(&world);
            let Some(down) = down else { return };
            sleep(down).await;
        }
    }

    /// A life of the node; how long it is down after it.
    async fn live(self: &Arc<Site>, world: &Arc<World>, handle: Handle) -> Option<Duration> {
        match self.start(world, handle).await {
            Ok(node) => {
                world.trace.event(format_args!("node {} runs at {}", self.number, self.address()));
                node.advertise(&self.address());
                world.wires.connect(&self.address(), &node);
                self.state.lock().node = Some(node.clone());
                tokio::spawn(watch(self.clone(), world.clone(), node.clone()));
                tokio::spawn(keep_members(self.clone(), world.wires.clone(), node.clone()));
                tokio::spawn(leases::take_part(self.clone(), world.clone(), node));
            }
            Err(e) => world.violation(format!("node {} did not start: {e}", self.number)),
        }
        loop {
            self.ordered.notified().await;
            let Some(order) = self.state.lock().order.take() else { continue };
            world.trace.event(format_args!("node {}: {order:?}", self.number));
            if let Order::End { down } = order {
                if let Some(node) = self.node() {
                    world.wires.while_awake(self.number, leases::end(self, world, &node)).await;
                    // What it said is of this start of it, also where nobody has heard it.
                    self.run.fetch_add(1, Relaxed);
                    // That it has been given up, as it may have heard, is nothing to its next start.
                    self.state.lock().order.take_if(|order| matches!(order, Order::Crash { .. }));
                }
                return Some(down);
            }
            let mut state = self.state.lock();
            match order {
                Order::Crash { down } => return Some(down),
                Order::Move { down } => {
                    state.moves += 1;
                    state.address = format!("10.0.0.{}:{}", self.number, 7_000 + state.moves);
                    return Some(down);
                }
                Order::Wipe => {
                    self.wiped.store(true, Relaxed);
                    let old = std::mem::replace(&mut state.disk, world.disk(self.number, 1));
                    state.figures.push(old.figures());
                    if world.options.plant == Some(super::Plant::SameIdentity) {
                        world.copy_identity(&old, &state.disk);
                    }
                    return Some(Duration::from_millis(500));
                }
                Order::End { .. } | Order::Stop => return None,
            }
        }
    }

    async fn start(&self, world: &World, handle: Handle) -> Result<Control, String> {
        let log = RaftLog::open(Arc::new(handle.clone()), Path::new("the simulated disk")).map_err(|e| e.to_string());
        let log = match log {
            Ok(log) => log,
            // Its power has failed meanwhile.
            Err(_) if !handle.has_power() => return std::future::pending().await,
            Err(e) => return Err(e),
        };
        let calls = Arc::new(From { wires: world.wires.clone(), number: self.number });
        let (network, timing) = (self.network.clone(), self.timing);
        let options =
            Options { number: self.number, log: Arc::new(log), disk: Arc::new(handle.clone()), calls, network, timing };
        match Control::start(options).await {
            Err(_) if !handle.has_power() => std::future::pending().await,
            started => started.map_err(|e| e.to_string()),
        }
    }

    fn die(&self, world: &World) {
        world.wires.disconnect(self.number);
        let (node, disk) = {
            let mut state = self.state.lock();
            (state.node.take(), state.disk.clone())
        };
        disk.power_off();
        if let Some(node) = node {
            node.end();
        }
        self.dead.notify_waiters();
    }
}

/// Looks at every change of a node.
async fn watch(site: Arc<Site>, world: Arc<World>, node: Control) {
    let empty = site.wiped.load(Relaxed);
    let look = async {
        let mut seen = 0;
        loop {
            seen = node.changed(seen).await;
            let (index, state) = node.state_at();
            let (role, term) = node.role();
            let mut nodes = world.nodes.lock();
            if let Some(index) = index {
                let hash = digest(&state);
                world
                    .trace
                    .event(format_args!("node {} applied {index}: {hash:016x}, {role:?} in {term}", site.number));
                nodes.applied(site.number, index, hash);
                nodes.devices(&state);
            }
            nodes.role(site.number, role, term);
            drop(nodes);
            leases::check(&world);
            let mut nodes = world.nodes.lock();
            // Without power it has to.
            if role == Role::Stopped && site.state.lock().disk.has_power() {
                let why = node.status().stopped;
                nodes.violations.push(format!("the control plane of node {} has stopped: {why:?}", site.number));
                return;
            }
            if empty && index.is_some() {
                nodes.violations.push(format!("node {} takes part after it has lost its disk", site.number));
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = site.death(&node) => {}
        () = look => {}
    }
}

async fn keep_members(site: Arc<Site>, wires: Wires, node: Control) {
    tokio::select! {
        biased;
        () = site.death(&node) => {}
        () = wires.while_awake(site.number, node.keep_members()) => {}
    }
}

/// The disk of a node.
pub fn disk(world: &World, number: u64, which: u64) -> SimDisk {
    let plan = disk::Plan {
        full: Vec::new(),
        job_max: world.plan.job_max,
        manifests_first: false,
        forgets: match world.options.plant {
            Some(super::Plant::ForgetsEntries) => Some(b"e"),
            Some(super::Plant::ForgetsVotes) => Some(b"nvote"),
            _ => None,
        },
        goes_back: world.options.plant == Some(super::Plant::GoesBack),
    };
    SimDisk::new(world.seed ^ (number << 32) ^ (which << 48), plan, world.trace.clone(), Box::new(|| ()))
}
