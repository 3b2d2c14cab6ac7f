//! Devices that stand in for those of a node that was given up go once they have nothing any more.
//!
//! Such a device goes on beside the node's own ([`super::begin`]), and a rebalancing moves its shards to others. What may be left of
//! it then: what it has sent to others and they do not have durably yet, and the same of what others have sent to it. It keeps the one,
//! and they keep the other, until a checkpoint has it. So once nobody keeps anything, who knows whose its shards are, nobody ever
//! will: numbers are given by the owner of a shard. From there on all that is left is a process and copies, and they go; its place among
//! the node's devices, and its door, stay for as long as the node runs.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use ringhold_cluster::control::state::{self, DeviceNumber};
use tokio::time::{Instant, sleep, timeout};

use super::Router;
use super::away::others;
use crate::cluster::{Cluster, Moves, Moving};
use crate::device::Device;

/// How often it is looked for such devices.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long one has had no shards before it goes: whoever moves them back and forth need not wait for processes.
const EMPTY_MIN: Duration = Duration::from_secs(5);
/// How long another node may take to say what it keeps.
const ASK_LIMIT: Duration = Duration::from_secs(3);

fn go(device: &Device) {
    device.retire();
    tracing::info!(device = device.name, "the device had nothing any more, and is not there from now on");
}

impl Router {
    /// Has them go, for as long as the node runs.
    pub async fn retire_stand_ins(self: Arc<Router>) {
        let Some(cluster) = self.cluster.clone() else { return std::future::pending().await };
        let mut empty: BTreeMap<DeviceNumber, Instant> = BTreeMap::new();
        loop {
            sleep(LOOK_EVERY).await;
            if self.draining.load(SeqCst) {
                continue;
            }
            let (state, own) = (cluster.state(), cluster.number());
            for device in self.present().filter(|device| device.stands_in()) {
                match state.devices.get(&device.number) {
                    // That it goes was agreed on, though it was not known here.
                    None if state.nodes.contains_key(&own) => go(device),
                    Some(agreed)
                        if agreed.node == own && agreed.adopted && state.shards_of(device.number).next().is_none() =>
                    {
                        let since = *empty.entry(device.number).or_insert_with(Instant::now);
                        if since.elapsed() < EMPTY_MIN {
                            continue;
                        }
                        match self.retire(&cluster, device, agreed).await {
                            Ok(()) => go(device),
                            Err(why) => tracing::debug!(
                                device = device.name,
                                "the device has no shards, and is still needed: {why}"
                            ),
                        }
                    }
                    _ => drop(empty.remove(&device.number)),
                }
            }
        }
    }

    async fn retire(&self, cluster: &Cluster, device: &Device, agreed: &state::Device) -> Result<(), String> {
        let left = |why: &str| Err(why.to_string());
        let Ok(_alone) = self.migrating.clone().try_lock_owned() else { return left("shards are just moving") };
        if !device.has_nothing() {
            return left("it has something that is not in a checkpoint yet");
        }
        if self.begins_devices() {
            return left("another device is about to begin here");
        }
        let (version, state) = cluster.control().state_at();
        for node in others(&state, cluster) {
            let asked = Moving::Keeps { device: device.number, version: version.unwrap_or(0) };
            match cluster.ask_moving(node, asked, ASK_LIMIT).await? {
                Moves::Keeps { messages: 0 } => {}
                Moves::Keeps { messages } => return Err(format!("node {node} keeps {messages} messages for it")),
                _ => return Err(format!("node {node} answered another question")),
            }
        }
        if self.keeps(device.number) > 0 {
            return left("other devices here keep messages for it");
        }
        // Nobody has sent it anything meanwhile, for it had no shards.
        if !device.has_nothing() {
            return left("it has been sent something");
        }
        cluster.retire(device.number, agreed.term).await
    }

    /// Answers a node that asks what devices here keep for one of its own, once this node knows what was agreed on until `version`.
    pub(super) async fn keeps_by(&self, device: DeviceNumber, version: u64) -> Result<Moves, String> {
        let cluster = self.cluster.as_ref().ok_or("it stands alone")?;
        let known = async {
            loop {
                let seen = cluster.changes();
                if cluster.control().state_at().0.is_some_and(|now| now >= version) {
                    return;
                }
                cluster.changed(seen).await;
            }
        };
        timeout(ASK_LIMIT, known).await.map_err(|_| "it does not know yet what was agreed on")?;
        self.follow(cluster);
        if self.begins_devices() {
            return Err("a device is about to begin there".into());
        }
        if self.between.held.lock().is_some() {
            return Err("shards are just moving there".into());
        }
        Ok(Moves::Keeps { messages: self.keeps(device) })
    }

    /// Messages that devices of this node keep for one.
    fn keeps(&self, device: DeviceNumber) -> u64 {
        self.present().map(|own| own.door.lock().keeps_for(device) as u64).sum()
    }
}
