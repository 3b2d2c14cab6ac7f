//! Devices that the cluster gives to the node while it runs.
//!
//! A device whose node is gone goes on where its checkpoints are: it keeps its number, its marks and its lanes, and begins with its
//! last checkpoint, as after the end of any host. What is new is that it has to find its place among those that run here already.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ringhold_cluster::control::state::{self, DeviceNumber};
use ringhold_storage::checkpoints::replica_name;
use tokio::time::timeout;

use super::Router;
use crate::cluster::Cluster;
use crate::config::{self, DeviceKind};
use crate::device::keeper::on;
use crate::device::{self, Device, Outlet};
use crate::make::{self, Made, Maker, Tasks};
use crate::node;
use crate::shards::{ELSEWHERE, ShardSet};

/// How soon it is tried again to begin what could not.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Begins the devices that the node's cluster gives to it.
pub struct Beginner {
    pub router: Weak<Router>,
    pub cluster: Arc<Cluster>,
    pub maker: Arc<Maker>,
    pub tasks: Weak<Tasks>,
}

impl Beginner {
    /// Does it for as long as the node runs.
    pub async fn run(self) {
        loop {
            let seen = self.cluster.changes();
            self.begin_given().await;
            // What cannot begin may be able to later.
            let _ = timeout(AGAIN_AFTER, self.cluster.changed(seen)).await;
        }
    }

    /// Begins what has been given to the node and does not run here yet.
    pub async fn begin_given(&self) {
        let (state, own) = (self.cluster.state(), self.cluster.own_devices());
        let Some(router) = self.router.upgrade().filter(|router| !router.draining.load(SeqCst)) else { return };
        router.follow(&self.cluster);
        let given = state.adopted_by(self.cluster.number()).into_keys().filter(|number| !own.contains(number));
        for number in given {
            let device = &state.devices[&number];
            let shards = state.shards_of(number).map(|shard| shard as usize).collect();
            let name = &device.about.name;
            match self.begin(number, device, &shards).await {
                Ok(()) => tracing::warn!(
                    device = name,
                    shards = shards.len(),
                    "the device runs on this node from now on, and goes on from its last checkpoint"
                ),
                Err(e) => tracing::error!(device = name, "the device was given to this node, and cannot begin: {e}"),
            }
        }
        router.end_doubts();
    }

    async fn begin(&self, number: DeviceNumber, given: &state::Device, shards: &ShardSet) -> Result<(), node::Error> {
        let (Some(router), Some(tasks)) = (self.router.upgrade(), self.tasks.upgrade()) else { return Ok(()) };
        // Nobody else adds any while the node runs. Until it is at its place nobody finds it there.
        let place = router.devices.next()?;
        self.cluster.runs(number, place);
        router.shards.runs(number);
        let state = self.cluster.state();
        let term = |shard: usize| state.shards.get(shard).map_or(0, |shard| shard.term as u32);
        router.shards.take(shards, place, term);
        let mut copying = None;
        let begun = async {
            self.cluster.close_copy(number, given.term).await?;
            // Its checkpoints may be many bytes, and whoever keeps the node's lease is not to wait for them.
            let (maker, begins) = (self.maker.clone(), given.clone());
            let made = on(&*self.maker.jobs, move || make(&maker, number, &begins, place)).await?;
            copying = made.copy(&tasks);
            let (device, name) = (&made.device, &given.about.name);
            let say = |why| tracing::warn!(device = name, "it waits for copies of what it begins with: {why}");
            let committed = device.begins_committed(say).await;
            committed.map_err(|e| device::Error::Checkpoint(name.clone(), e))?;
            Ok::<_, node::Error>(made)
        };
        let begun = begun.await;
        let made = begun.inspect_err(|_| {
            if let Some(copying) = &copying {
                copying.abort();
            }
            router.shards.take(shards, ELSEWHERE, term);
            router.shards.runs_no_more();
            self.cluster.runs_no_more(number);
        })?;
        router.meet(&made.device);
        let mut letters = Vec::new();
        router.settle_in(&made.device, &mut letters)?;
        router.keep(&made.device.name, letters);
        made.device.hand_on_taken_up(&*router);
        let outlet: Arc<dyn Outlet> = router.clone();
        self.maker.run(made, &outlet, &tasks);
        outlet.room();
        Ok(())
    }
}

fn make(maker: &Maker, number: DeviceNumber, given: &state::Device, index: u16) -> Result<Made, node::Error> {
    // A ring kernel needs room on its GPU that others have been given: what comes later runs on the CPU.
    // A program that has its devices in its own process may be none that is their host, too.
    let host = maker.config.devices.0.first().map_or(config::Host::Process, |own| own.host);
    let cpu = config::Device { kind: DeviceKind::Cpu, host, ..config::Device::default() };
    let planned = maker.makers.plan(&config::Devices(vec![cpu]))?;
    let (name, kept_as) = (given.about.name.clone(), replica_name(number));
    maker.make(make::About { name, kept_as, index, number }, &planned[0])
}

impl Router {
    /// Makes a device and those that run here already known to each other, and present clients to it.
    fn meet(&self, device: &Device) {
        for other in &self.devices {
            for (from, to) in [(&**other, device), (device, &**other)] {
                let taken = to.door.lock().taken_from(from.number);
                from.door.lock().skip_away(to.number, taken);
            }
        }
        let mut door = device.door.lock();
        let clients = door.clients();
        self.sessions.remember(clients.clients(), clients.forgotten(), self.network.steady_us());
    }
}
