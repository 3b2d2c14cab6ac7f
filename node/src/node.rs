//! A node: devices, the router between them, and the server in front.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use ringhold_cluster::network::{Network, RealNetwork};
use ringhold_cluster::tls::{self, Authority, Files, Identity, Role};
use ringhold_cluster::transport;
use ringhold_cluster::wire::NodeName;
use ringhold_kernels::id::TypeId;
use ringhold_kernels::outbox::{AWAY, Owner, Owners, SHARDS};
use ringhold_kernels::registry::Registry;
use ringhold_kernels::segment::{Framing, Shape};
use ringhold_storage::blocks::{self, Reopening};
use ringhold_storage::checkpoints::{self, Checkpoints};
use ringhold_storage::dead_letters::{self, DeadLetters};
use ringhold_storage::folder::{self, DataFolder};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::config::{Config, DeviceKind};
use crate::device::cuda::sharers;
use crate::device::door::Keeping;
use crate::device::host::{Devices, RealDevices};
use crate::device::keeper::{self, Blocking, Jobs};
use crate::device::supervisor::Limits;
use crate::device::{self, About, Device, Outlet, leave_timeout};
use crate::router::{Parts, Router};
use crate::server::{self, Doors, Server, Sessions};

/// The world a node lives in: the machine's, or the simulator's.
pub struct Environment {
    pub network: Arc<dyn Network>,
    pub devices: Arc<dyn Devices>,
    pub storage: Storage,
}

/// What a node keeps, and who it is.
pub struct Storage {
    pub node_id: String,
    pub identity: Identity,
    pub dead_letters: Arc<dyn DeadLetters>,
    /// `None` where the configuration has them off.
    pub checkpoints: Option<Checkpoints>,
    /// Who writes checkpoints.
    pub jobs: Arc<dyn Jobs>,
    /// Holds the data folder's lock for as long as the node runs.
    pub folder: Option<DataFolder>,
}

impl Environment {
    /// The machine's network and devices, and the data folder that the configuration names.
    pub fn real(config: &Config) -> Result<Environment, Error> {
        let network: Arc<dyn Network> = Arc::new(RealNetwork);
        let storage = Storage::open(config, &*network)?;
        let kernels = storage.folder.as_ref().map(DataFolder::kernels_path).unwrap_or_default();
        Ok(Environment { network, devices: Arc::new(RealDevices { kernels }), storage })
    }
}

impl Storage {
    /// Opens the data folder, making what is missing.
    pub fn open(config: &Config, network: &dyn Network) -> Result<Storage, Error> {
        let folder = DataFolder::open(&config.node.data_dir, || {
            let mut bytes = [0; 16];
            network.random(&mut bytes);
            bytes
        })?;
        let identity = identity(config, &folder.tls_path(), network)?;
        let letters = dead_letters::Sled::open(&folder.dead_letters_path(), config.dead_letters.kept)?;
        let checkpoints = match config.checkpoints.enabled {
            true => {
                let blocks = Arc::new(Reopening::open(&folder.checkpoints_path())?);
                Some(Checkpoints::open(blocks, checkpoints::Options { kept: config.checkpoints.kept as usize })?)
            }
            false => None,
        };
        Ok(Storage {
            checkpoints,
            jobs: Arc::new(Blocking),
            node_id: folder.node_id().to_string(),
            identity,
            dead_letters: Arc::new(letters),
            folder: Some(folder),
        })
    }
}

/// The configured certificates, or those of an authority of the node's own.
fn identity(config: &Config, own: &Path, network: &dyn Network) -> Result<Identity, Error> {
    let tls = &config.tls;
    let files = match (&tls.ca_file, &tls.certificate_file, &tls.key_file) {
        (Some(ca), Some(certificate), Some(key)) => {
            Files { ca: ca.clone(), own: Some((certificate.clone(), key.clone())) }
        }
        // The check of the configuration has refused anything between all and none.
        _ => {
            Authority::open_or_create(own, network)?;
            Files::node(own)
        }
    };
    Ok(Identity::load(files, Role::Node, network)?)
}

/// Why a node did not start. It has left nothing running.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Folder(#[from] folder::Error),
    #[error(transparent)]
    DeadLetters(#[from] dead_letters::Error),
    #[error(transparent)]
    Checkpoints(#[from] checkpoints::Error),
    #[error(transparent)]
    Blocks(#[from] blocks::Error),
    #[error(
        "the data folder has checkpoints of device `{0}`, and there is no CPU device of that name: its actors would be left out. \
         Start with the devices as they were; or save them with `ringhold storage export`, and use another folder"
    )]
    LeftOut(String),
    #[error("actors.committed names `{0}`, and this binary has no such actor type: it has {1}")]
    NoSuchType(String, String),
    #[error(transparent)]
    Tls(#[from] tls::Error),
    #[error(transparent)]
    Transport(#[from] transport::Error),
    #[error(transparent)]
    Device(#[from] device::Error),
    #[error("no actor type is registered: register at least one before the node starts")]
    NoActorTypes,
    #[error(
        "actor type `{0}` is run by {1} threads an actor, and actors.threads_per_actor allows {2}: raise it, or write \
         fewer in the type's attribute"
    )]
    TooManyThreads(String, u32, u32),
    #[error("the devices were not all up after {0} s; the log says what each waited for")]
    NotUp(u64),
    #[error("device `{0}` is given up: {1}")]
    GivenUp(String, String),
}

/// A running node. Dropping it ends its tasks and kills its device hosts: [`Node::drain`] first.
pub struct Node {
    server: Server,
    router: Arc<Router>,
    tasks: JoinSet<()>,
    storage: Storage,
    drain_timeout: Duration,
}

/// How a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Everything admitted was handled and everything asked was answered.
    pub complete: bool,
    pub unanswered: u64,
    pub took: Duration,
}

/// How long a device may take until its workers are up; longer where a ring kernel may have to be compiled.
fn start_timeout(config: &Config) -> Duration {
    let compiles = config.devices.0.iter().any(|device| device.kind != DeviceKind::Cpu);
    Duration::from_secs(if compiles { 180 } else { 20 })
}

impl Node {
    /// Starts a node and waits until its devices are up and it listens.
    pub async fn start(config: &Config, registry: Registry, environment: Environment) -> Result<Node, Error> {
        if registry.types().is_empty() {
            return Err(Error::NoActorTypes);
        }
        let most = config.actors.threads_per_actor;
        if let Some(wide) = registry.types().iter().find(|t| t.schema.threads_per_actor > most) {
            let threads = wide.schema.threads_per_actor;
            return Err(Error::TooManyThreads(wide.schema.name.clone(), threads, most));
        }
        let Environment { network, devices: makers, storage } = environment;
        let registry = Arc::new(registry);
        let config = &Config { devices: makers.plan(&config.devices)?, ..config.clone() };
        let counts: Vec<usize> = config.devices.0.iter().map(|d| workers(d.workers)).collect();
        let committed = committed(config, &registry)?;
        if let Some(store) = &storage.checkpoints {
            let keeps = |name: &String| {
                let devices = config.devices.0.iter().enumerate();
                devices.into_iter().any(|(index, d)| d.kind == DeviceKind::Cpu && config.device_name(index) == *name)
            };
            if let Some(left_out) = store.devices().into_iter().find(|name| !keeps(name)) {
                return Err(Error::LeftOut(left_out));
            }
        }
        let mut made = Vec::new();
        let owners_of_shards: Arc<[u16]> = (0..SHARDS).map(|shard| (shard % counts.len()) as u16).collect();
        for (index, device) in config.devices.0.iter().enumerate() {
            let sharers = sharers(&config.devices, device.gpu);
            let host = makers.host(device, sharers, counts[index], &registry);
            let shape = shape(config, device.kind, counts[index], &registry);
            let owners = owners_of(index, &counts);
            let (name, overflow) = (config.device_name(index), config.queues.overflow);
            let keeps = match &storage.checkpoints {
                Some(store) if device.kind == DeviceKind::Cpu => {
                    Some(keeps(config, &name, store, &storage, &committed, &owners_of_shards)?)
                }
                _ => None,
            };
            let about = About { name, index: index as u16, kind: device.kind, overflow, keeps };
            made.push(Device::new(about, shape, &owners, &registry, host, network.clone())?);
        }
        let sessions = Arc::new(Sessions::default());
        let router = Arc::new(Router::new(Parts {
            name: name(config, &storage.node_id),
            registry,
            slot_bytes: config.queues.slot_bytes,
            devices: made.iter().map(|(device, _)| device.clone()).collect(),
            owners: owners_of_shards,
            sessions: sessions.clone(),
            letters: storage.dead_letters.clone(),
            network: network.clone(),
        }));
        // The port before the devices: when it is taken, nothing else has happened yet.
        let options = server::Options {
            listen: config.node.listen,
            identity: storage.identity.clone(),
            network,
            sessions_max: config.limits.sessions as usize,
        };
        let doors: Arc<dyn Doors> = router.clone();
        let server = Server::start(options, sessions, doors)?;
        let mut tasks = JoinSet::new();
        for (device, _) in &made {
            device.hand_on_taken_up(&*router);
        }
        let start_timeout = start_timeout(config);
        let limits = |kind| Limits {
            stalled_after: config.supervision.stalled_after,
            start_timeout,
            leave_timeout: leave_timeout(kind),
            backoff_min: config.supervision.restart_backoff_min,
            backoff_max: config.supervision.restart_backoff_max,
        };
        for (device, host) in made {
            let outlet: Arc<dyn Outlet> = router.clone();
            tasks.spawn(device.clone().pump(outlet.clone()));
            tasks.spawn(device.clone().keep(outlet.clone()));
            let limits = limits(device.kind);
            tasks.spawn(device.supervise(host, limits, outlet));
        }
        let node = Node { server, router, tasks, storage, drain_timeout: config.node.drain_timeout };
        // A host that does not come up is followed by another; the start fails with that one.
        node.wait_until_up(start_timeout * 2 + Duration::from_secs(1)).await?;
        Ok(node)
    }

    async fn wait_until_up(&self, limit: Duration) -> Result<(), Error> {
        let restored = || self.router.devices().iter().map(|d| d.restored()).sum::<u64>();
        let (mut deadline, mut before) = (Instant::now() + limit, 0);
        while !self.router.devices().iter().all(|d| d.is_running()) {
            if let Some((name, why)) = self.router.devices().iter().find_map(|d| Some((&d.name, d.given_up()?))) {
                return Err(Error::GivenUp(name.clone(), why));
            }
            // A large state takes its time.
            if restored() != before {
                (deadline, before) = (Instant::now() + limit, restored());
            }
            if Instant::now() >= deadline {
                return Err(Error::NotUp(limit.as_secs()));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Where clients reach it.
    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    pub fn id(&self) -> &str {
        &self.storage.node_id
    }

    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// Resolves when a client has asked the node to stop.
    pub async fn drain_asked(&self) {
        self.router.drain_asked.notified().await;
    }

    /// Takes nothing new, finishes what there is, and ends. After the configured time it ends regardless.
    pub async fn drain(mut self) -> Drained {
        let started = Instant::now();
        let left = |limit: Duration| limit.saturating_sub(started.elapsed());
        self.router.draining.store(true, SeqCst);
        let drained = self.server.drain(self.drain_timeout).await;
        let settled = self.router.settled(left(self.drain_timeout)).await;
        for device in self.router.devices() {
            // So that the next start begins with all of it.
            device.last_checkpoint(&*self.router, left(self.drain_timeout)).await;
        }
        for device in self.router.devices() {
            device.stop();
        }
        let ended = async || {
            for device in self.router.devices() {
                device.ended().await;
            }
        };
        let in_order = timeout(left(self.drain_timeout).max(Duration::from_secs(1)), ended()).await.is_ok();
        // Workers that hold a message for ever do not end by themselves; they are killed with the tasks.
        if !in_order && self.router.devices().iter().filter(|device| device.leave()).count() > 0 {
            let _ = timeout(leave_timeout(DeviceKind::Cuda), ended()).await;
        }
        self.tasks.shutdown().await;
        if let Err(e) = self.storage.dead_letters.flush() {
            tracing::error!("the dead letters could not be flushed: {e}");
        }
        Drained {
            complete: drained.complete && settled && in_order,
            unanswered: drained.unanswered,
            took: started.elapsed(),
        }
    }
}

/// The types whose outputs wait for a checkpoint.
fn committed(config: &Config, registry: &Registry) -> Result<HashSet<TypeId>, Error> {
    let of = |name: &String| match registry.by_name(name) {
        Some(actor) => Ok(actor.type_id),
        None => {
            let names: Vec<&str> = registry.types().iter().map(|t| t.schema.name.as_str()).collect();
            Err(Error::NoSuchType(name.clone(), names.join(", ")))
        }
    };
    config.actors.committed.iter().map(of).collect()
}

/// How a device makes checkpoints, and the one that it begins with.
fn keeps(
    config: &Config,
    device: &str,
    store: &Checkpoints,
    storage: &Storage,
    committed: &HashSet<TypeId>,
    owners: &Arc<[u16]>,
) -> Result<(keeper::Options, Keeping), Error> {
    let found = store.latest(device)?;
    if let Some(cost) = found.cost() {
        tracing::error!(device, "{cost}");
    }
    let checkpoints = &config.checkpoints;
    let interval = if committed.is_empty() { checkpoints.interval } else { checkpoints.committed_interval };
    let options = keeper::Options {
        store: store.clone(),
        jobs: storage.jobs.clone(),
        interval,
        newest: found.newest.unwrap_or(0),
    };
    let keeping = Keeping {
        retained_bytes_max: checkpoints.retained_bytes as usize,
        committed: committed.clone(),
        epoch: found.checkpoint.map_or(0, |manifest| manifest.epoch),
        owners: owners.clone(),
    };
    Ok((options, keeping))
}

/// Half of the cores, where the configuration does not say: the node and its clients need some too.
fn workers(configured: Option<u32>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    configured.map_or((cores / 2).max(1), |n| n as usize)
}

/// Pairs of rings between a node and a ring kernel, whose workers are many.
const KERNEL_LANES_MAX: u32 = 4;

/// Of each of a lane's staging rings.
const STAGING_BYTES: u32 = 1 << 20;

fn shape(config: &Config, kind: DeviceKind, workers: usize, registry: &Registry) -> Shape {
    let queues = &config.queues;
    let workers = workers as u32;
    let (lanes, framing) = match kind {
        DeviceKind::Auto | DeviceKind::Cpu => (workers, Framing::Slots),
        DeviceKind::Cuda | DeviceKind::Emulated => (workers.min(KERNEL_LANES_MAX), Framing::Flits),
    };
    Shape {
        workers,
        lanes,
        framing: framing as u32,
        types: registry.types().len() as u32,
        slot_bytes: queues.slot_bytes,
        ingress_slots: queues.ingress_slots,
        egress_slots: queues.egress_slots,
        inbox_slots: queues.inbox_slots,
        batch: queues.batch_messages,
        high_water_percent: queues.high_water_percent,
        low_water_percent: queues.low_water_percent,
        staging_bytes: STAGING_BYTES,
    }
}

/// Shards are dealt out to devices in turn, and a device's to its workers in turn.
fn owners_of(device: usize, workers: &[usize]) -> Owners {
    let devices = workers.len();
    Owners::from_fn(|shard| match shard % devices == device {
        true => (shard / devices % workers[device]) as Owner,
        false => AWAY,
    })
}

fn name(config: &Config, node_id: &str) -> NodeName {
    let host = || {
        let uname = rustix::system::uname();
        uname.nodename().to_string_lossy().into_owned()
    };
    NodeName {
        id: node_id.into(),
        name: config.node.name.clone().unwrap_or_else(host),
        cluster: config.node.cluster.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}
