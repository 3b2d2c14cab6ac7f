//! A node: devices, the router between them, and the server in front.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use ringhold_cluster::control::Dismissed;
use ringhold_cluster::control::state::AboutDevice;
use ringhold_cluster::network::{Network, RealNetwork};
use ringhold_cluster::tls::{self, Authority, Files, Identity, Role};
use ringhold_cluster::transport;
use ringhold_cluster::wire::NodeName;
use ringhold_kernels::id::TypeId;
use ringhold_kernels::outbox::SHARDS;
use ringhold_kernels::registry::Registry;
use ringhold_storage::blocks::{self, Reopening};
use ringhold_storage::checkpoints::{self, Checkpoints};
use ringhold_storage::dead_letters::{self, DeadLetters};
use ringhold_storage::folder::{self, DataFolder};
use ringhold_storage::raft_log::{self, RaftLog};
use tokio::time::{Instant, timeout};

use crate::cluster::{self, AgreedTable, Cluster, Held, Inlet};
use crate::config::{self, Config, DeviceKind};
use crate::device::host::{Devices, Planned, RealDevices};
use crate::device::keeper::{Blocking, Jobs};
use crate::device::places::NoPlace;
use crate::device::{self, LEAVE_TIMEOUT, Outlet};
use crate::health::http::{self, Http};
use crate::make::{self, Made, Maker, Tasks, start_timeout, workers};
use crate::router::begin::Beginner;
use crate::router::migrate::{self, Moved};
use crate::router::{Parts, Router};
use crate::server::{self, Doors, Server, Sessions};
use crate::shards::{self, ELSEWHERE, ShardSet, ShardTable, Shards, Stored};

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
    /// Who says which device has which shard; `None` where the node does by itself, beside its checkpoints.
    pub shards: Option<Arc<dyn ShardTable>>,
    /// Who writes checkpoints.
    pub jobs: Arc<dyn Jobs>,
    /// What the node's cluster has agreed on; `None` where the node stands alone, with all shards for itself.
    pub control: Option<Arc<RaftLog>>,
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
        let letters = dead_letters::Store::open(&folder.dead_letters_path(), config.dead_letters.kept)?;
        let checkpoints = match config.checkpoints.enabled {
            true => {
                let blocks = Arc::new(Reopening::open(&folder.checkpoints_path())?);
                Some(Checkpoints::open(blocks, checkpoints::Options { kept: config.checkpoints.kept as usize })?)
            }
            false => None,
        };
        let control = folder.control_path();
        let control = RaftLog::open(Arc::new(Reopening::open(&control)?), &control)?;
        Ok(Storage {
            checkpoints,
            shards: None,
            jobs: Arc::new(Blocking),
            control: Some(Arc::new(control)),
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
            // One of its own would be a stranger's there.
            if !config.node.join.is_empty() && !own.join("ca.pem").exists() {
                return Err(Error::NoCertificates);
            }
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
    #[error(transparent)]
    Control(#[from] raft_log::Error),
    #[error(transparent)]
    Cluster(#[from] cluster::Error),
    #[error(
        "the data folder has checkpoints of device `{0}`, and there is no device of that name: its actors would be left out. \
         Start with the devices as they were: \
         `name` of a [[devices]] table is that of its checkpoints; or save them with `ringhold storage export`, and use another folder"
    )]
    LeftOut(String),
    #[error(
        "shards have moved to the {0}. device, and there are {1}: start with as many devices as there were, in the same order"
    )]
    TooFewDevices(u16, usize),
    #[error("{}, and this binary has no such actor type: it has {known}", unknown.join(", "))]
    NoSuchType { unknown: Vec<String>, known: String },
    #[error(
        "the node is to join a cluster and has no certificate of its authority: give it a token (`ringhold cluster token` at one of the \
         cluster's nodes, then `--token`), or certificates of that authority (`tls` in its configuration)"
    )]
    NoCertificates,
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
    #[error(
        "the node was silent for longer than its lease as it started, and its cluster has given it up: other nodes go on with its devices. \
         Started again, it is a member as before, with devices that have no actors yet"
    )]
    TakenForDead,
    #[error(transparent)]
    NoPlace(#[from] NoPlace),
    #[error("device `{0}` is given up: {1}")]
    GivenUp(String, String),
    #[error("health cannot be told at {listen} ({source}): choose another address for health.listen, or leave it out")]
    Health { listen: std::net::SocketAddr, source: std::io::Error },
    #[error("{0}: this is a bug of Ringhold")]
    Failed(String),
}

/// A running node. Dropping it ends its tasks and kills its device hosts: [`Node::drain`] first.
pub struct Node {
    server: Server,
    router: Arc<Router>,
    tasks: Arc<Tasks>,
    /// Where health is told over HTTP.
    health: Option<Http>,
    /// What it belongs to.
    cluster: Option<Arc<Cluster>>,
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
        let mut planned = makers.plan(&config.devices)?;
        if let Some(devices) =
            storage.checkpoints.as_ref().and_then(|s| as_they_were(&config.devices, &planned, &s.devices()))
        {
            planned = makers.plan(&devices)?;
        }
        let decided = config::Devices(planned.iter().map(|planned| planned.device.clone()).collect());
        let config = &Config { devices: decided, ..config.clone() };
        let (committed, deadlines) = by_type(config, &registry)?;
        if let Some(store) = &storage.checkpoints {
            let keeps = |name: &String| (0..config.devices.0.len()).any(|index| config.device_name(index) == *name);
            if let Some(left_out) = store.devices().into_iter().find(|name| !keeps(name)) {
                return Err(Error::LeftOut(left_out));
            }
        }
        // The port before all else: when it is taken, nothing has happened yet.
        let cluster = member(config, &planned, &registry, &storage, &network);
        let sessions = Arc::new(Sessions::default());
        let options = server::Options {
            listen: config.node.listen,
            identity: storage.identity.clone(),
            network: network.clone(),
            sessions_max: config.limits.sessions as usize,
            peers: cluster.as_ref().map(|cluster| cluster.peers().clone()),
        };
        let server = Server::listen(options, sessions.clone())?;
        let tasks = Arc::new(Tasks::default());
        let numbers = match &cluster {
            Some(cluster) => cluster.start(address(config, server.address()), &server).await?,
            None => (0..planned.len() as u16).collect(),
        };
        if let Some(cluster) = &cluster {
            for device in cluster.devices_lost()? {
                tracing::warn!(device, "other nodes have gone on with what this one had of it: it begins with nothing");
                if let Some(store) = &storage.checkpoints {
                    store.forget_device(&device)?;
                }
            }
            cluster.keep_devices()?;
            // From here on the others know that it is there, however long its devices take.
            tasks.spawn("keeps the members of the cluster", cluster.clone().run());
        }
        let mut made = Vec::new();
        let (table, shards) = match &cluster {
            Some(cluster) => {
                let table = AgreedTable::new(cluster.clone());
                let shards = table.owners();
                (storage.checkpoints.is_some().then(|| Arc::new(table) as Arc<dyn ShardTable>), shards)
            }
            None => {
                let table = shard_table(&storage, planned.len())?;
                let shards = table.as_ref().map_or_else(|| shards::dealt(planned.len()), |table| table.owners());
                (table, shards)
            }
        };
        let here = |device: &u16| *device != ELSEWHERE && usize::from(*device) >= planned.len();
        if let Some(owner) = shards.iter().map(|owner| owner.device).find(here) {
            return Err(Error::TooFewDevices(owner + 1, planned.len()));
        }
        let shards = Arc::new(match &cluster {
            Some(cluster) => {
                let state = cluster.state();
                Shards::in_cluster(&shards, numbers.clone(), |shard| state.shards.get(shard)?.owner)
            }
            None => Shards::new(&shards),
        });
        let maker = Arc::new(Maker {
            config: config.clone(),
            makers,
            registry: registry.clone(),
            network: network.clone(),
            committed,
            deadlines,
            checkpoints: storage.checkpoints.clone(),
            jobs: storage.jobs.clone(),
            shards: shards.clone(),
            cluster: cluster.clone(),
        });
        for (index, planned) in planned.iter().enumerate() {
            let name = config.device_name(index);
            let about = make::About { kept_as: name.clone(), name, index: index as u16, number: numbers[index] };
            made.push(maker.make(about, planned)?);
        }
        let router = Router::new(Parts {
            name: name(config, &storage.node_id),
            registry,
            slot_bytes: config.queues.slot_bytes,
            devices: made.iter().map(|made| made.device.clone()).collect(),
            shards,
            table,
            sessions: sessions.clone(),
            letters: storage.dead_letters.clone(),
            network: network.clone(),
            jobs: storage.jobs.clone(),
            cluster: cluster.clone(),
        });
        if let Some(cluster) = &cluster {
            router.follow(cluster);
        }
        let outlet: Arc<dyn Outlet> = router.clone();
        made.iter().for_each(|made| drop(made.copy(&tasks)));
        let beginner = cluster.as_ref().map(|cluster| Beginner {
            router: Arc::downgrade(&router),
            cluster: cluster.clone(),
            maker: maker.clone(),
            tasks: Arc::downgrade(&tasks),
        });
        let begun = async {
            // What a device begins with may not have been committed: nobody is to see anything of it before it is.
            for Made { device, .. } in &made {
                let say = |why: String| {
                    let what = "copies of what the device begins with";
                    tracing::warn!(device = device.name, "the node waits for {what}: {why}");
                    server.waits_for(format!("it waits for {what}, `{}`: {why}", device.name));
                };
                if let Err(e) = device.begins_committed(say).await {
                    tracing::error!(device = device.name, "there are no copies of what the device begins with: {e}");
                }
                device.hand_on_taken_up(&*router);
            }
            if let Some(beginner) = &beginner {
                // What was given to it before it was started last.
                beginner.begin_given().await;
            }
        };
        let dismissed = async {
            match &cluster {
                Some(cluster) => cluster.dismissed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = dismissed => return Err(Error::TakenForDead),
            () = begun => {}
        }
        let doors: Arc<dyn Doors> = router.clone();
        if let Some(cluster) = &cluster {
            let inlet: Arc<dyn Inlet> = router.clone();
            cluster.open(&doors, &inlet);
        }
        server.open(doors);
        let start_timeout = config.devices.0.iter().map(|device| start_timeout(device.kind)).max().unwrap_or_default();
        // Before the devices too, so that it is told how they come up.
        let health = match config.health.listen {
            Some(listen) => {
                let looked_at = router.clone();
                let look = Box::new(move || looked_at.health());
                let about = http::About { pulse: router.pulse.clone(), look };
                Some(Http::start(listen, about).map_err(|source| Error::Health { listen, source })?)
            }
            None => None,
        };
        tasks.spawn("sheds load of the node", router.clone().shed_load(config.limits.memory_bytes));
        tasks.spawn("tells whether the node lives", router.pulse.clone().beat(storage.jobs.clone()));
        if cluster.is_some() {
            tasks.spawn("carries messages to other nodes", router.clone().carry_between_nodes());
            tasks.spawn("lets go of devices that are not needed any more", router.clone().retire_stand_ins());
        }
        if let Some(beginner) = beginner {
            tasks.spawn("begins the devices that the cluster gives to the node", beginner.run());
        }
        for made in made {
            maker.run(made, &outlet, &tasks);
        }
        let node = Node { server, router, tasks, health, cluster, storage, drain_timeout: config.node.drain_timeout };
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
            tokio::select! {
                biased;
                why = self.failed() => return Err(Error::Failed(why)),
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
        Ok(())
    }

    /// Where clients reach it.
    pub fn address(&self) -> std::net::SocketAddr {
        self.server.address()
    }

    /// Where it is told over HTTP how the node does.
    pub fn health_address(&self) -> Option<std::net::SocketAddr> {
        self.health.as_ref().map(Http::address)
    }

    pub fn id(&self) -> &str {
        &self.storage.node_id
    }

    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// The cluster that it belongs to; `None` where it stands alone.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        self.cluster.as_ref()
    }

    /// Moves shards, all of which one device has, to the device of this name: see [`Router::migrate`].
    ///
    /// # Errors
    /// The shards are where they were.
    pub async fn migrate(&self, shards: ShardSet, to: &str) -> Result<Moved, migrate::Error> {
        self.router.migrate(shards, to).await
    }

    /// Resolves when a client has asked the node to stop.
    pub async fn drain_asked(&self) {
        self.router.drain_asked.notified().await;
    }

    /// Resolves once a task that the node cannot be without has panicked: which, and with what. Drop the node then, and start
    /// another: it goes on from its last checkpoints.
    pub async fn failed(&self) -> String {
        self.tasks.failed().await
    }

    /// Resolves once the cluster has given the node up, because it was silent for longer than its lease, or has removed it: its devices
    /// may run on other nodes. Drop it then, for nothing of it counts any more. Of one that was given up start another: that one's
    /// devices are new.
    pub async fn dismissed(&self) -> Dismissed {
        match &self.cluster {
            Some(cluster) => cluster.dismissed().await,
            None => std::future::pending().await,
        }
    }

    /// Takes nothing new, finishes what there is, and ends. After the configured time it ends regardless.
    pub async fn drain(self) -> Drained {
        let started = Instant::now();
        let left = |limit: Duration| limit.saturating_sub(started.elapsed());
        self.router.draining.store(true, SeqCst);
        if let Some(cluster) = &self.cluster {
            cluster.prepare_to_end().await;
        }
        self.router.devices().iter().for_each(|device| device.will_end());
        let drained = self.server.finish(self.drain_timeout).await;
        if let Some(cluster) = &self.cluster {
            // What is taken from here on would not be in the last checkpoint.
            cluster.close();
        }
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
        let mut nothing_runs = in_order;
        // Workers that hold a message for ever do not end by themselves; they are killed with the tasks.
        if !in_order && self.router.devices().iter().filter(|device| device.leave()).count() > 0 {
            nothing_runs = timeout(LEAVE_TIMEOUT, ended()).await.is_ok();
        }
        self.tasks.shutdown().await;
        self.router.give_up_lanes();
        if let Some(cluster) = &self.cluster {
            cluster.end(nothing_runs).await;
        }
        self.server.close().await;
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

/// What the configuration says by the names of actor types: those whose outputs wait for a checkpoint, and for how long a
/// message of which may be in hand.
fn by_type(config: &Config, registry: &Registry) -> Result<(HashSet<TypeId>, BTreeMap<TypeId, Duration>), Error> {
    let mut unknown = Vec::new();
    let mut id = |field: &str, name: &String| {
        let found = registry.by_name(name).map(|actor| actor.type_id);
        if found.is_none() {
            unknown.push(format!("actors.{field} names `{name}`"));
        }
        found
    };
    let actors = &config.actors;
    let committed = actors.committed.iter().filter_map(|name| id("committed", name)).collect();
    let deadlines = actors.deadlines.iter().filter_map(|(name, span)| Some((id("deadlines", name)?, *span))).collect();
    if unknown.is_empty() {
        return Ok((committed, deadlines));
    }
    let known: Vec<&str> = registry.types().iter().map(|t| t.schema.name.as_str()).collect();
    Err(Error::NoSuchType { unknown, known: known.join(", ") })
}

/// What `auto` came to before, where a GPU is gone since: devices of which there are checkpoints, and which are not planned now.
fn as_they_were(devices: &config::Devices, planned: &[Planned], kept: &[String]) -> Option<config::Devices> {
    let decided = config::Devices(planned.iter().map(|planned| planned.device.clone()).collect());
    let is_planned = |name: &String| (0..planned.len()).any(|index| decided.name(index) == *name);
    let gone = kept.iter().filter(|name| !is_planned(name));
    let gpus: Option<Vec<u32>> = gone.map(|name| name.strip_prefix(DeviceKind::Cuda.word())?.parse().ok()).collect();
    let last = gpus?.into_iter().max()?;
    let auto = |device: &config::Device| device.kind == DeviceKind::Auto && device.name.is_none();
    let place = devices.0.iter().position(auto)?;
    let cuda = |gpu| config::Device { kind: DeviceKind::Cuda, gpu, ..devices.0[place].clone() };
    let mut all = devices.0.clone();
    all.splice(place..=place, (0..=last).map(cuda));
    Some(config::Devices(all))
}

/// Who says which device has which shard; nobody where nothing is kept: then they do not move.
fn shard_table(storage: &Storage, devices: usize) -> Result<Option<Arc<dyn ShardTable>>, Error> {
    Ok(match (&storage.shards, &storage.checkpoints) {
        (_, None) => None,
        (Some(table), _) => Some(table.clone()),
        (None, Some(store)) => Some(Arc::new(Stored::open(store.clone(), storage.jobs.clone(), devices)?)),
    })
}

/// Makes a data folder that of the first node of a new cluster, and returns the cluster's id.
///
/// # Errors
/// Where the folder is of a cluster already.
pub fn found(config: &Config, storage: &Storage, network: &dyn Network) -> Result<String, Error> {
    let log = storage.control.as_ref().expect("a data folder has a control plane");
    Ok(cluster::found(log, &config.node.cluster, network)?)
}

/// The node as a member of a cluster, where it is one.
fn member(
    config: &Config,
    planned: &[Planned],
    registry: &Registry,
    storage: &Storage,
    network: &Arc<dyn Network>,
) -> Option<Arc<Cluster>> {
    let log = storage.control.clone()?;
    let devices = planned.iter().enumerate().map(|(index, Planned { device, place, .. })| AboutDevice {
        name: config.device_name(index),
        kind: device.kind.word().into(),
        workers: workers(device.workers) as u32,
        memory_bytes: device.memory_bytes,
        place: place.clone(),
    });
    Some(Cluster::new(cluster::Options {
        id: storage.node_id.parse::<uuid::Uuid>().map(uuid::Uuid::into_bytes).unwrap_or_default(),
        node: name(config, &storage.node_id),
        named: config.node.name.is_some(),
        zone: config.node.zone.clone().unwrap_or_default(),
        join: config.node.join.clone(),
        identity: storage.identity.clone(),
        network: network.clone(),
        log,
        jobs: storage.jobs.clone(),
        types: registry.types().iter().map(|t| (t.schema.name.clone(), t.layout_hash)).collect(),
        devices: devices.collect(),
        fresh: storage.checkpoints.as_ref().is_none_or(|store| store.devices().is_empty()),
        lease: config.node.lease,
        shards: SHARDS as u32,
        held: storage.checkpoints.clone().map(|store| Held::new(store, storage.jobs.clone())),
    }))
}

/// Where other nodes reach this one.
fn address(config: &Config, listens: SocketAddr) -> String {
    match (&config.node.advertise, listens.ip().is_unspecified()) {
        (Some(advertised), _) => advertised.clone(),
        (None, true) => format!("{}:{}", host_name(), listens.port()),
        (None, false) => listens.to_string(),
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn name(config: &Config, node_id: &str) -> NodeName {
    NodeName {
        id: node_id.into(),
        name: config.node.name.clone().unwrap_or_else(host_name),
        cluster: config.node.cluster.clone(),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}
