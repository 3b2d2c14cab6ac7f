//! Backups of a whole cluster while it runs: `ringhold cluster backup`.
//!
//! A backup is what a power failure of all machines at one moment would leave: the newest durable checkpoint of each device, with what
//! the cluster has agreed on. Whatever moment that is, all devices recover from it with what is promised of any recovery, for nothing
//! goes out of a device that depends on what is not durable yet (`docs/recovery.md`). So all that is needed is one moment:
//!
//! | | the node that was asked | each node that runs devices |
//! |---|---|---|
//! | 1 | asks all to hold | no checkpoint is under way, nor begins; no shard is about to move |
//! | 2 | once **all** hold: asks all to pin | pins the newest checkpoint of each device that it holds |
//! | 3 | reads what the cluster has agreed on | |
//! | 4 | asks all to go on | goes on, and says whether it has held until now |
//! | 5 | | hands out what is pinned, piece by piece |
//!
//! **Why it is one moment.** From the last answer of 1 to the first question of 4 nothing becomes durable that is not so before. What
//! is agreed on, 3, is read after everything is pinned: a device that another node runs by now, or in another term, is seen there, and
//! the backup is called off. No shard moves meanwhile, for that needs all nodes that run devices, and none of them takes part.
//!
//! A node holds for [`HOLD_LIMIT`](sessions) at most; one that goes on by itself says so at 4.

mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ringhold_cluster::control::admin::{BackupBegun, BackupDevice};
use ringhold_cluster::control::state::{DeviceNumber, NodeNumber, State};
use ringhold_cluster::wire::Failed;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::Router;
use crate::cluster::{Backed, Backing, Cluster, PinnedDevice};
pub(super) use sessions::Sessions;
use sessions::{HOLD_LIMIT, Hold};

/// How long a node may need until no checkpoint is under way and no shard is about to move.
const STILL_LIMIT: Duration = Duration::from_secs(2);
/// How long it may take to say so, and anything else on the way to a backup.
const ASK_LIMIT: Duration = Duration::from_secs(3);
/// How long it may take to read a part.
const PART_LIMIT: Duration = Duration::from_secs(5);
/// How long a backup may take to begin, at most.
const BEGIN_LIMIT_MAX: Duration = Duration::from_secs(30);
const _: () = assert!(STILL_LIMIT.as_secs() < ASK_LIMIT.as_secs() && ASK_LIMIT.as_secs() < HOLD_LIMIT.as_secs());

impl Router {
    /// Pins the newest checkpoints of all devices of the cluster at one moment.
    pub(super) async fn back_up(&self, cluster: &Arc<Cluster>, within: Duration) -> Result<BackupBegun, Failed> {
        let mut id = [0; 8];
        self.network.random(&mut id);
        let (id, within) = (u64::from_le_bytes(id), within.min(BEGIN_LIMIT_MAX));
        let nodes: BTreeSet<NodeNumber> = cluster.state().devices.values().map(|device| device.node).collect();
        let begun = match timeout(within, self.begin_backup(cluster, id, &nodes)).await {
            Ok(begun) => begun,
            Err(_) => Err(format!("not all nodes were ready for it within {} ms; try again", within.as_millis())),
        };
        begun.map_err(|why| {
            self.end_backup(cluster, id);
            Failed::text(format!("there is no backup: {why}"))
        })
    }

    async fn begin_backup(
        &self,
        cluster: &Arc<Cluster>,
        id: u64,
        nodes: &BTreeSet<NodeNumber>,
    ) -> Result<BackupBegun, String> {
        let began = Instant::now();
        self.ask_all(cluster, nodes, Backing::Hold { id }).await?;
        let mut pinned = BTreeMap::new();
        for (node, answer) in self.ask_all(cluster, nodes, Backing::Pin { id }).await? {
            let Backed::Pinned(devices) = answer else { return Err(another_answer(node)) };
            pinned.insert(node, devices);
        }
        let at_us = self.network.wall_us();
        let state = cluster.control().read(ASK_LIMIT).await.map_err(|e| e.to_string())?;
        let devices = all_pinned(&state, &pinned)?;
        for (node, answer) in self.ask_all(cluster, nodes, Backing::Release { id }).await? {
            if answer != Backed::Released(true) {
                return Err(format!("node {node} has not held until the others did; try again"));
            }
        }
        let held_us = began.elapsed().as_micros() as u64;
        let mut agreed = State::clone(&state);
        // They are good for nobody, and may be many.
        agreed.tokens.clear();
        let state = agreed.to_bytes().map_err(|e| e.to_string())?;
        tracing::info!(devices = devices.len(), held_us, "a backup has begun");
        Ok(BackupBegun { id, at_us, held_us, state, devices })
    }

    /// Asks all of these nodes the same, at once.
    async fn ask_all(
        &self,
        cluster: &Arc<Cluster>,
        nodes: &BTreeSet<NodeNumber>,
        asked: Backing,
    ) -> Result<BTreeMap<NodeNumber, Backed>, String> {
        let mut asking = JoinSet::new();
        for node in nodes.iter().copied() {
            let (cluster, router) = (cluster.clone(), self.me.upgrade().ok_or("the node is stopping")?);
            asking.spawn(async move {
                let answer = match node == cluster.number() {
                    true => router.answer_backing(asked).await,
                    false => cluster.ask_backing(node, asked, ASK_LIMIT).await,
                };
                (node, answer)
            });
        }
        let mut answers = BTreeMap::new();
        while let Some(answer) = asking.join_next().await {
            let (node, answer) = answer.map_err(|e| e.to_string())?;
            answers.insert(node, answer?);
        }
        Ok(answers)
    }

    /// An item of what is pinned of a device, which that node runs.
    pub(super) async fn backup_part(
        &self,
        cluster: &Cluster,
        node: NodeNumber,
        part: Backing,
    ) -> Result<Option<Vec<u8>>, Failed> {
        let answer = match node == cluster.number() {
            true => self.answer_backing(part).await,
            false => cluster.ask_backing(node, part, PART_LIMIT).await,
        };
        match answer.map_err(Failed::text)? {
            Backed::Part(item) => Ok(item),
            _ => Err(Failed::text(another_answer(node))),
        }
    }

    /// Has all nodes let go of a backup. Nobody waits for it: who does not hear of it lets go by itself.
    pub(super) fn end_backup(&self, cluster: &Arc<Cluster>, id: u64) {
        let (cluster, me) = (cluster.clone(), self.me.clone());
        self.run_with_node(async move {
            let mut ending = JoinSet::new();
            for node in cluster.state().nodes.keys().copied() {
                let (cluster, Some(router)) = (cluster.clone(), me.upgrade()) else { return };
                // Each by itself: one that does not answer is no reason for others to hold on.
                ending.spawn(async move {
                    let _ = router.ask_all(&cluster, &BTreeSet::from([node]), Backing::End { id }).await;
                });
            }
            ending.join_all().await;
        });
    }

    /// Answers a node that was asked for a backup.
    pub(super) async fn answer_backing(&self, asked: Backing) -> Result<Backed, String> {
        match asked {
            Backing::Hold { id } => self.hold_for_backup(id).await.map(|()| Backed::Holds),
            Backing::Pin { id } => self.pin_for_backup(id).await.map(Backed::Pinned),
            Backing::Release { id } => Ok(Backed::Released(self.backups.release(id))),
            Backing::Part { id, device, number } => {
                let mut reading = self.backups.reading(id, device)?.lock_owned().await;
                let place = self.place_of(device).ok_or_else(|| format!("device {device} runs there no more"))?;
                // It goes on to its end though nobody waits for it.
                self.devices[place].on_store(move |_, _| reading.item(number)).await.map(Backed::Part)
            }
            Backing::End { id } => {
                self.backups.end(id);
                Ok(Backed::Ended)
            }
        }
    }

    async fn hold_for_backup(&self, id: u64) -> Result<(), String> {
        if self.table.is_none() {
            return Err("it makes no checkpoints (checkpoints.enabled)".into());
        }
        let until = Instant::now() + STILL_LIMIT;
        let moving = || "shards are about to move there: try again".to_string();
        let alone = timeout_at(until, self.migrating.clone().lock_owned()).await.map_err(|_| moving())?;
        if self.is_between() {
            return Err(moving());
        }
        let (mut guards, mut devices) = (vec![alone], Vec::new());
        for device in self.present() {
            let still = timeout_at(until, device.hold_checkpoints()).await;
            let why = || format!("device `{}` was still making a checkpoint after 2 s: try again", device.name);
            guards.push(still.map_err(|_| why())?);
            devices.push(device.number);
        }
        let watching = self.backups.begin(id, Hold { devices, guards })?;
        self.run_with_node(watching);
        Ok(())
    }

    async fn pin_for_backup(&self, id: u64) -> Result<Vec<PinnedDevice>, String> {
        let cluster = self.cluster.as_ref().ok_or("it stands alone")?;
        let (mut pins, mut pinned) = (BTreeMap::new(), Vec::new());
        for device in self.backups.held(id)? {
            let term = cluster.state().devices.get(&device).map_or(0, |device| device.term);
            let place = self.place_of(device).ok_or_else(|| format!("device {device} runs there no more"))?;
            let pin = self.devices[place].on_store(|store, name| store.pin(name)).await.map_err(|e| e.to_string())?;
            let checkpoint = pin.mark().map(|mark| (mark.epoch, mark.at_us));
            pinned.push(PinnedDevice { device, term, checkpoint, bytes: pin.bytes() });
            pins.insert(device, pin);
        }
        self.backups.pin(id, pins)?;
        Ok(pinned)
    }
}

fn another_answer(node: NodeNumber) -> String {
    format!("node {node} answered another question")
}

/// The devices of a backup, where each was pinned by the node that runs it, in its term, as the cluster has agreed since.
fn all_pinned(state: &State, pinned: &BTreeMap<NodeNumber, Vec<PinnedDevice>>) -> Result<Vec<BackupDevice>, String> {
    let of = |(number, device): (&DeviceNumber, &ringhold_cluster::control::state::Device)| {
        let by = pinned.get(&device.node).and_then(|of_it| of_it.iter().find(|pinned| pinned.device == *number));
        match by.filter(|pinned| pinned.term == device.term) {
            Some(pinned) => Ok(BackupDevice {
                device: *number,
                node: device.node,
                checkpoint: pinned.checkpoint,
                bytes: pinned.bytes,
            }),
            None => Err(format!(
                "device {number} (`{}`) has just begun on node {} or does not run there yet; try again",
                device.about.name, device.node
            )),
        }
    };
    state.devices.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use ringhold_cluster::control::state::{AboutDevice, Device};
    use ringhold_cluster::placement::Place;

    use super::*;

    #[test]
    fn each_device_is_pinned_by_the_node_that_runs_it_in_its_term() {
        let about = |name: &str| AboutDevice {
            name: name.into(),
            kind: "cpu".into(),
            workers: 1,
            memory_bytes: None,
            place: Place::default(),
        };
        let mut state = State::default();
        state.devices.insert(0, Device::new(1, about("a")));
        state.devices.insert(1, Device { term: 4, ..Device::new(2, about("b")) });
        let pin = |device, term| PinnedDevice { device, term, checkpoint: Some((9, 99)), bytes: 5 };
        let pins = |one: Vec<PinnedDevice>, two: Vec<PinnedDevice>| BTreeMap::from([(1, one), (2, two)]);
        let all = all_pinned(&state, &pins(vec![pin(0, 1)], vec![pin(1, 4)])).unwrap();
        assert_eq!(all.iter().map(|device| (device.device, device.node)).collect::<Vec<_>>(), [(0, 1), (1, 2)]);
        // Its node has been given up meanwhile, or the node that has it now has not begun, or has just.
        assert!(all_pinned(&state, &pins(vec![pin(0, 1)], vec![pin(1, 3)])).is_err());
        assert!(all_pinned(&state, &pins(vec![pin(0, 1), pin(1, 4)], vec![])).is_err());
        let error = all_pinned(&state, &BTreeMap::from([(1, vec![pin(0, 1)])])).unwrap_err();
        assert!(error.contains("device 1 (`b`)") && error.contains("try again"), "{error}");
    }
}
