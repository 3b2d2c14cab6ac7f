//! Makes the devices of a node, and what runs them: when the node starts, and while it runs.

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::network::{BoxFuture, Network};
use ringhold_kernels::id::TypeId;
use ringhold_kernels::registry::Registry;
use ringhold_kernels::segment::{Framing, Shape};
use ringhold_storage::checkpoints::Checkpoints;
use tokio::task::{AbortHandle, JoinSet};

use crate::cluster::{Cluster, Copies};
use crate::config::{Config, Device as DeviceConfig, DeviceKind};
use crate::device::cuda::sharers;
use crate::device::door::Keeping;
use crate::device::host::{Devices, Planned};
use crate::device::keeper::{self, Jobs};
use crate::device::supervise::Backend;
use crate::device::supervisor::Limits;
use crate::device::{self, Device, LEAVE_TIMEOUT, Outlet, breaker};
use crate::node::Error;
use crate::shards::Shards;
use crate::vital::Vital;

/// What it takes to make a device.
pub struct Maker {
    pub config: Config,
    pub makers: Arc<dyn Devices>,
    pub registry: Arc<Registry>,
    pub network: Arc<dyn Network>,
    /// Types of which nothing goes out before the checkpoint that covers it.
    pub committed: HashSet<TypeId>,
    /// For how long a message of a type may be in hand.
    pub deadlines: BTreeMap<TypeId, Duration>,
    /// `None` where none are made.
    pub checkpoints: Option<Checkpoints>,
    pub jobs: Arc<dyn Jobs>,
    pub shards: Arc<Shards>,
    /// What the node belongs to, which agrees on who has copies of checkpoints.
    pub cluster: Option<Arc<Cluster>>,
}

/// What is to be made.
pub struct About {
    pub name: String,
    /// Under which name its checkpoints are kept.
    pub kept_as: String,
    /// Its place, and its number: see [`Device`].
    pub index: u16,
    pub number: u16,
}

/// A device that does not run yet.
pub struct Made {
    pub device: Arc<Device>,
    /// Of its checkpoints; `None` where the node stands alone, or makes none.
    copies: Option<Arc<Copies>>,
    /// What it may run with, the preferred one first.
    pub backends: Vec<Backend>,
}

/// How long a device may take until its workers are up; longer where a ring kernel may have to be compiled.
pub fn start_timeout(kind: DeviceKind) -> Duration {
    Duration::from_secs(match kind {
        DeviceKind::Auto | DeviceKind::Cpu => 20,
        DeviceKind::Cuda | DeviceKind::Emulated => 180,
    })
}

impl Maker {
    /// Makes a device, which begins with the newest of its checkpoints.
    ///
    /// # Errors
    /// It cannot be had, or its checkpoints cannot be read.
    pub fn make(&self, About { name, kept_as, index, number }: About, planned: &Planned) -> Result<Made, Error> {
        let device = &planned.device;
        let keeps = match &self.checkpoints {
            Some(store) => Some(self.keeps(&kept_as, number, store)?),
            None => None,
        };
        // Its actors are not left where they are for that; but a device that never was has to be what it is asked to be.
        let falls_back = !planned.fallbacks.is_empty() && keeps.as_ref().is_some_and(|(_, kept)| kept.epoch > 0);
        if let Some(why) = planned.unusable.clone().filter(|_| !falls_back) {
            return Err(device::Error::Gpu { name, gpu: device.gpu, why }.into());
        }
        if keeps.is_none() && !planned.fallbacks.is_empty() {
            tracing::warn!(device = name, "it makes no checkpoints (checkpoints.enabled), and so has no fallback");
        }
        let fallbacks = planned.fallbacks.iter().filter(|_| keeps.is_some());
        let mut backends = Vec::new();
        for backend in std::iter::once(device).chain(fallbacks) {
            backends.push(self.backend(backend, &name)?);
        }
        backends[0].unusable = planned.unusable.clone();
        let copies = keeps.as_ref().and_then(|(options, _)| options.copies.clone());
        let (overflow, shards) = (self.config.queues.overflow, self.shards.clone());
        let about = device::About { name, kept_as, index, number, overflow, keeps, shards };
        let device = Device::new(about, &backends[0], &self.registry, self.network.clone())?;
        Ok(Made { device, copies, backends })
    }

    /// How a device makes checkpoints, and the one that it begins with.
    fn keeps(&self, device: &str, number: u16, store: &Checkpoints) -> Result<(keeper::Options, Keeping), Error> {
        let found = store.latest(device)?;
        if let Some(cost) = found.cost() {
            tracing::error!(device, "{cost}");
        }
        let checkpoints = &self.config.checkpoints;
        let interval = if self.committed.is_empty() { checkpoints.interval } else { checkpoints.committed_interval };
        let options = keeper::Options {
            store: store.clone(),
            jobs: self.jobs.clone(),
            interval,
            newest: found.newest.unwrap_or(0),
            copies: self
                .cluster
                .clone()
                .map(|cluster| Copies::new(cluster, number, device, store.clone(), self.jobs.clone())),
        };
        let keeping = Keeping {
            retained_bytes_max: checkpoints.retained_bytes as usize,
            committed: self.committed.clone(),
            epoch: found.checkpoint.map_or(0, |manifest| manifest.epoch),
            shards: self.shards.clone(),
        };
        Ok((options, keeping))
    }

    fn backend(&self, backend: &DeviceConfig, name: &str) -> Result<Backend, Error> {
        let workers = workers(backend.workers);
        let sharers = sharers(&self.config.devices, backend.gpu).max(1);
        let host = self.makers.host(backend, sharers, workers, &self.registry);
        let host = host.map_err(|e| device::Error::Bells(name.into(), e))?;
        let leave_timeout = if host.switches() { Duration::ZERO } else { LEAVE_TIMEOUT };
        let supervision = &self.config.supervision;
        Ok(Backend {
            name: match backend.kind {
                DeviceKind::Cuda => format!("cuda:{}", backend.gpu),
                kind => kind.word().into(),
            },
            kind: backend.kind,
            shape: self.shape(backend.kind, workers),
            host,
            limits: Limits {
                stalled_after: supervision.stalled_after,
                deadlines: self.deadlines.clone(),
                start_timeout: start_timeout(backend.kind),
                leave_timeout,
                backoff_min: supervision.restart_backoff_min,
                backoff_max: supervision.restart_backoff_max,
            },
            unusable: None,
        })
    }

    fn shape(&self, kind: DeviceKind, workers: usize) -> Shape {
        let queues = &self.config.queues;
        let workers = workers as u32;
        let (lanes, framing) = match kind {
            DeviceKind::Auto | DeviceKind::Cpu => (workers, Framing::Slots),
            DeviceKind::Cuda | DeviceKind::Emulated => (workers.min(KERNEL_LANES_MAX), Framing::Flits),
        };
        Shape {
            workers,
            lanes,
            framing: framing as u32,
            types: self.registry.types().len() as u32,
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

    /// Has a device run, for as long as the node does.
    pub fn run(&self, Made { device, backends, .. }: Made, outlet: &Arc<dyn Outlet>, tasks: &Tasks) {
        let supervision = &self.config.supervision;
        let breaker = breaker::Limits {
            failures: supervision.breaker_failures,
            window: supervision.breaker_window,
            retry_min: supervision.breaker_retry_min,
            retry_max: supervision.breaker_retry_max,
        };
        let name = device.name.clone();
        let spawn = |what, task: BoxFuture<'static, ()>| tasks.spawn(format!("{what} device `{name}`"), task);
        spawn("carries the messages of", Box::pin(device.clone().pump(outlet.clone())));
        spawn("makes the checkpoints of", Box::pin(device.clone().keep(outlet.clone())));
        spawn("keeps alive", Box::pin(device.supervise(backends, breaker, outlet.clone())));
    }
}

impl Made {
    /// Has its checkpoints be copied to other nodes, for as long as the node runs.
    pub fn copy(&self, tasks: &Tasks) -> Option<AbortHandle> {
        let copies = self.copies.clone()?;
        Some(tasks.spawn(format!("copies the checkpoints of device `{}`", self.device.name), copies.run()))
    }
}

/// The tasks that a node cannot be without. They end with it.
#[derive(Default)]
pub struct Tasks {
    tasks: Mutex<JoinSet<()>>,
    vital: Vital,
}

impl Tasks {
    /// Does a task, which `what` says it is, for as long as the node runs; its panic is the node's failure.
    pub fn spawn(&self, what: impl Into<String>, task: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        let (vital, what) = (self.vital.clone(), what.into());
        self.tasks.lock().spawn(async move { vital.watch(what, task).await })
    }

    /// Resolves once one has panicked: which, and with what.
    pub async fn failed(&self) -> String {
        self.vital.failed().await
    }

    /// Ends all of them, and waits until they have.
    pub async fn shutdown(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
    }
}

/// Half of the cores, where the configuration does not say: the node and its clients need some too.
pub fn workers(configured: Option<u32>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    configured.map_or((cores / 2).max(1), |n| n as usize)
}

/// Pairs of rings between a node and a ring kernel, whose workers are many.
const KERNEL_LANES_MAX: u32 = 4;

/// Of each of a lane's staging rings.
const STAGING_BYTES: u32 = 1 << 20;
