//! A node's machine: what stays of it when its power fails, and the node that is started on it again and again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use ringhold::cluster::Cluster;
use ringhold::node::{self, Environment, Node, Storage};
use ringhold::router::Router;
use ringhold_cluster::network::Network;
use ringhold_cluster::tls::{Identity, Role};
use ringhold_storage::checkpoints::{self, Checkpoints};
use ringhold_storage::dead_letters::InMemory;
use ringhold_storage::raft_log::RaftLog;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::{World, plan};
use crate::devices::SimDevices;
use crate::disk::{self, Folder, Handle, SimDisk};
use crate::network::Machine;
use crate::recovery::clients::registry;

/// See the module.
pub struct Site {
    pub number: u8,
    pub machine: Arc<Machine>,
    identity: Identity,
    pub disk: SimDisk,
    pub letters: Arc<InMemory>,
    state: Mutex<State>,
    /// It has another node, or none.
    changed: Notify,
    ordered: Notify,
    /// It is not started again.
    pub lost: AtomicBool,
}

#[derive(Default)]
struct State {
    node: Option<Running>,
    order: Option<Order>,
    /// Those of each start.
    devices: Vec<Arc<SimDevices>>,
}

/// What others see of a node that runs.
#[derive(Clone)]
pub struct Running {
    pub router: Arc<Router>,
    pub cluster: Arc<Cluster>,
}

/// What is to become of a node. `down`: how long it stays away; `None` for ever.
#[derive(Clone, Copy, Debug)]
pub enum Order {
    Crash {
        down: Option<Duration>,
    },
    /// In good order.
    Stop {
        down: Duration,
    },
}

/// How soon what watches over a process starts another.
const RESTART: Duration = Duration::from_millis(200);
/// In simulated time: a node that reaches the others is up so soon after it was started.
const UP_BUDGET: Duration = Duration::from_secs(20);

impl Site {
    pub fn new(world: &World, number: u8) -> Arc<Site> {
        let (skew_us, fast_per_mille) = world.plan.clocks[usize::from(number) - 1];
        let machine = world.net.machine(number, skew_us);
        machine.set_drift(fast_per_mille);
        let (net, off) = (world.net.clone(), machine.clone());
        let plan = disk::Plan {
            full: Vec::new(),
            job_max: world.plan.job_max,
            manifests_first: false,
            forgets: None,
            goes_back: false,
        };
        let off = Box::new(move || net.power_off(&off));
        let seed = world.seed ^ u64::from(number) << 32;
        Arc::new(Site {
            number,
            identity: world.authority.identity(Role::Node, &*machine).expect("an identity can be made"),
            machine,
            disk: SimDisk::new(seed, plan, world.trace.clone(), off),
            letters: Arc::new(InMemory::new(world.plan.config.dead_letters.kept)),
            state: Mutex::default(),
            changed: Notify::new(),
            ordered: Notify::new(),
            lost: AtomicBool::new(false),
        })
    }

    pub fn name(&self) -> String {
        plan::name(self.number)
    }

    /// The node, once it has started and while it runs.
    pub fn node(&self) -> Option<Running> {
        self.state.lock().node.clone()
    }

    pub fn order(&self, order: Order) {
        self.state.lock().order = Some(order);
        self.ordered.notify_one();
    }

    /// Has the node stand still, or go on: see [`Net::hold`] and [`SimDisk::hold`].
    ///
    /// [`Net::hold`]: crate::network::Net::hold
    pub fn pause(&self, world: &World, paused: bool) {
        world.net.hold(&self.machine, paused);
        self.disk.hold(paused);
    }

    /// Those of each start of the node.
    pub fn devices(&self) -> Vec<Arc<SimDevices>> {
        self.state.lock().devices.clone()
    }

    /// Resolves once there is another node than this one, or none.
    pub async fn death(&self, node: &Running) {
        loop {
            let changed = self.changed.notified();
            if !self.state.lock().node.as_ref().is_some_and(|running| Arc::ptr_eq(&running.router, &node.router)) {
                return;
            }
            changed.await;
        }
    }

    /// Starts the node, again each time that it has ended, until it is not to be any more.
    pub async fn keep(self: Arc<Site>, world: Arc<World>) {
        loop {
            let handle = self.disk.power_on(None);
            let down = tokio::select! {
                biased;
                () = self.disk.failure() => Some(Duration::from_millis(self.disk.draw(2_000))),
                down = self.live(&world, handle) => down,
            };
            let node = self.state.lock().node.take();
            self.changed.notify_waiters();
            world.net.power_off(&self.machine);
            self.disk.power_off();
            if let Some(node) = node {
                node.cluster.control().end();
            }
            match down {
                Some(down) => sleep(down).await,
                None => return self.lost.store(true, Relaxed),
            }
        }
    }

    /// A life of the node; how long it is down after it.
    async fn live(&self, world: &World, handle: Handle) -> Option<Duration> {
        let began = Instant::now();
        let node = match self.start(world, &handle).await {
            Ok(node) => node,
            Err(_) if !handle.has_power() => return std::future::pending().await,
            Err(node::Error::TakenForDead) => {
                world.trace.event(format_args!("node {} was given up as it started", self.number));
                return Some(RESTART);
            }
            Err(e) => {
                world.violation(format!("node {} did not start: {e}", self.number));
                return Some(RESTART * 10);
            }
        };
        if world.is_calm() && began.elapsed() > UP_BUDGET {
            world.violation(format!("node {} took {} ms to start", self.number, began.elapsed().as_millis()));
        }
        let cluster = node.cluster().expect("it has a control plane").clone();
        world.trace.event(format_args!("node {} is up, with devices {:?}", self.number, cluster.own_devices()));
        self.state.lock().node = Some(Running { router: node.router().clone(), cluster });
        self.changed.notify_waiters();
        let order = tokio::select! {
            biased;
            _ = node.dismissed() => {
                world.trace.event(format_args!("node {} was given up, and ends", self.number));
                world.figures.lock().given_up += 1;
                return Some(RESTART);
            }
            why = node.failed() => {
                world.violation(format!("node {} has failed: {why}", self.number));
                return Some(RESTART);
            }
            order = self.ordered() => order,
        };
        world.trace.event(format_args!("node {}: {order:?}", self.number));
        match order {
            Order::Crash { down } => down,
            Order::Stop { down } => {
                let drained = node.drain().await;
                world.trace.event(format_args!("node {}: {drained:?}", self.number));
                Some(down)
            }
        }
    }

    async fn ordered(&self) -> Order {
        loop {
            self.ordered.notified().await;
            if let Some(order) = self.state.lock().order.take() {
                return order;
            }
        }
    }

    async fn start(&self, world: &World, handle: &Handle) -> Result<Node, node::Error> {
        self.machine.begin_process();
        let network: Arc<dyn Network> = self.machine.clone();
        let config = world.plan.config_of(self.number);
        let options = checkpoints::Options { kept: config.checkpoints.kept as usize };
        let folder = |name| Arc::new(Folder { disk: handle.clone(), name });
        let checkpoints = Checkpoints::open(folder("checkpoints"), options)?;
        let control = RaftLog::open(folder("control"), Path::new("the simulated disk"))?;
        let number = self.state.lock().devices.len() as u64;
        let plans = world.plan.devices_of(world.seed, self.number, number);
        let seed = world.seed ^ u64::from(self.number) << 40 ^ number << 48;
        let devices = SimDevices::new(seed, self.machine.clone(), world.trace.clone(), plans);
        let devices = Arc::new(devices.with_later(1, world.plan.later()));
        if world.is_calm() {
            devices.disarm();
        }
        self.state.lock().devices.push(devices.clone());
        let storage = Storage {
            node_id: format!("00000000-0000-4000-8000-0000000000{:02}", self.number),
            identity: self.identity.clone(),
            dead_letters: self.letters.clone(),
            checkpoints: Some(checkpoints),
            shards: None,
            jobs: Arc::new(handle.clone()),
            control: Some(Arc::new(control)),
            folder: None,
        };
        Node::start(&config, registry(), Environment { network, devices, storage }).await
    }
}
