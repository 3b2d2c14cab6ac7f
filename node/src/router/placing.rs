//! What operators ask about shards: what would be best moved, and that some are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ringhold_cluster::control::admin::{self, Migrated, NodePlan, NodeStatus};
use ringhold_cluster::control::state::{DeviceNumber, NodeNumber};
use ringhold_cluster::placement::{self, DeviceLoad, View, Want};
use ringhold_cluster::wire::{DeviceState, DeviceStatus, Failed, Request, Response};
use ringhold_kernels::outbox::SHARDS;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::Router;
use crate::cluster::{Backing, Cluster};
use crate::shards::ShardSet;

/// How long a node has to say how it does.
const STATUS_LIMIT: Duration = Duration::from_secs(1);

impl Router {
    /// Answers what an operator asks about the cluster.
    pub(super) async fn about_cluster(&self, request: admin::Request) -> Result<admin::Response, Failed> {
        let Some(cluster) = &self.cluster else {
            return Err(Failed::text("the node stands alone: it belongs to no cluster"));
        };
        match request {
            admin::Request::Statuses => Ok(self.statuses(cluster).await),
            admin::Request::Plan { node: Some(node) } if node == cluster.number() => {
                let plan = Ok(self.plan(cluster));
                Ok(admin::Response::Plans(vec![NodePlan { node, plan }]))
            }
            admin::Request::Plan { node: Some(node) } => {
                self.ask_other(cluster, node, admin::Request::Plan { node: Some(node) }).await
            }
            admin::Request::Plan { node: None } => Ok(admin::Response::Plans(self.plan_for_all(cluster).await)),
            admin::Request::Migrate { shards, to } => {
                let state = cluster.state();
                let Some(device) = state.devices.get(&to) else {
                    return Err(Failed::text(format!(
                        "there is no device {to}: `ringhold cluster devices` lists them"
                    )));
                };
                let count = state.shards.len() as u32;
                if shards.is_empty() || shards.iter().any(|range| range.is_empty() || range.end > count) {
                    return Err(Failed::text(format!(
                        "shards are numbered from 0 to {}: name some of these",
                        count - 1
                    )));
                }
                let all = || shards.iter().flat_map(|range| range.clone());
                let owner = |shard: u32| state.devices.get(&state.shards[shard as usize].owner?);
                let Some(source) = all().next().and_then(owner).map(|owner| owner.node) else {
                    return Err(Failed::text("no device has these shards yet"));
                };
                if let Some(other) = all().find(|shard| owner(*shard).is_none_or(|owner| owner.node != source)) {
                    return Err(Failed::text(format!(
                        "shard {other} is of another device than the others: move those of one device at a time"
                    )));
                }
                if source != cluster.number() {
                    return self.ask_other(cluster, source, admin::Request::Migrate { shards, to }).await;
                }
                let set: ShardSet = all().map(|shard| shard as usize).filter(|shard| *shard < SHARDS).collect();
                match device.node == source {
                    true => self.move_from_here(set, Ok(&device.about.name)).await,
                    false => self.move_from_here(set, Err(to)).await,
                }
            }
            admin::Request::BackUp { within_ms } => {
                let begun = self.back_up(cluster, Duration::from_millis(within_ms)).await?;
                Ok(admin::Response::BackupBegun(Box::new(begun)))
            }
            admin::Request::BackupPart { id, node, device, number } => {
                let part = Backing::Part { id, device, number };
                Ok(admin::Response::BackupPart(self.backup_part(cluster, node, part).await?))
            }
            admin::Request::EndBackup { id } => {
                self.end_backup(cluster, id);
                Ok(admin::Response::Done)
            }
            request => cluster.answer_admin(request).await,
        }
    }

    /// Asks every node how it does, all at once.
    async fn statuses(&self, cluster: &Arc<Cluster>) -> admin::Response {
        let at_us = self.network.wall_us();
        let mut asked = JoinSet::new();
        for (node, member) in &cluster.state().nodes {
            let (node, name, cluster) = (*node, member.name.clone(), cluster.clone());
            let here = (node == cluster.number()).then(|| Box::new(self.status()));
            asked.spawn(async move {
                let status = match here {
                    Some(status) => Ok(status),
                    None => match timeout(STATUS_LIMIT, cluster.ask_node(node, Request::Status)).await {
                        Ok(Ok(Response::Status(status))) => Ok(status),
                        Ok(Ok(_)) => Err("it answered another question".into()),
                        Ok(Err(failed)) => Err(failed.text),
                        Err(_) => Err(format!("it has not answered within {} s", STATUS_LIMIT.as_secs())),
                    },
                };
                NodeStatus { node, name, status }
            });
        }
        let mut nodes = asked.join_all().await;
        nodes.sort_by_key(|status| status.node);
        admin::Response::Statuses { at_us, nodes }
    }

    async fn ask_other(
        &self,
        cluster: &Cluster,
        node: NodeNumber,
        request: admin::Request,
    ) -> Result<admin::Response, Failed> {
        match cluster.ask_node(node, Request::Cluster(request)).await? {
            Response::Cluster(response) => Ok(response),
            Response::Failed(failed) => Err(failed),
            _ => Err(Failed::text(format!("node {node} answered another question"))),
        }
    }

    /// Moves shards to a device of this node, by its name, or to one of another, by its number.
    async fn move_from_here(
        &self,
        shards: ShardSet,
        to: Result<&str, DeviceNumber>,
    ) -> Result<admin::Response, Failed> {
        let router = self.me.upgrade().ok_or_else(|| Failed::text("the node is stopping"))?;
        let moved = match to {
            Ok(name) => router.migrate(shards, name).await,
            Err(number) => router.migrate_away(shards, number).await,
        };
        let moved = moved.map_err(|e| Failed::text(e.to_string()))?;
        Ok(admin::Response::Migrated(Migrated {
            shards: moved.shards as u32,
            bytes: moved.bytes,
            stood_us: moved.stood.as_micros() as u64,
            took_us: moved.took.as_micros() as u64,
        }))
    }

    /// What would be best moved between the devices of this node.
    fn plan(&self, cluster: &Cluster) -> placement::Plan {
        let devices = self.present().map(|device| device.status()).collect();
        self.plan_of(cluster, BTreeMap::from([(cluster.number(), devices)]))
    }

    /// The same between the devices of all nodes that answer; and which do not.
    async fn plan_for_all(&self, cluster: &Arc<Cluster>) -> Vec<NodePlan> {
        let own = cluster.number();
        let mut asking = JoinSet::new();
        for node in cluster.state().nodes.keys().copied().filter(|node| *node != own) {
            let cluster = cluster.clone();
            asking.spawn(async move {
                let answer = timeout(STATUS_LIMIT, cluster.ask_node(node, Request::Devices)).await;
                let silent = || Failed::text(format!("it has not answered within {} s", STATUS_LIMIT.as_secs()));
                (node, answer.unwrap_or_else(|_| Err(silent())))
            });
        }
        let mut devices = BTreeMap::from([(own, self.present().map(|device| device.status()).collect())]);
        let mut silent = BTreeMap::new();
        while let Some(asked) = asking.join_next().await {
            match asked {
                Ok((node, Ok(Response::Devices(of_it)))) => drop(devices.insert(node, of_it)),
                Ok((node, Err(failed))) => drop(silent.insert(node, failed.text)),
                Ok((node, Ok(_))) => drop(silent.insert(node, "it answered another question".into())),
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            }
        }
        let mut plans = vec![NodePlan { node: own, plan: Ok(self.plan_of(cluster, devices)) }];
        plans.extend(silent.into_iter().map(|(node, why)| NodePlan { node, plan: Err(why) }));
        plans
    }

    /// What would be best moved between the devices of these nodes: those of others are left alone.
    fn plan_of(&self, cluster: &Cluster, nodes: BTreeMap<NodeNumber, Vec<DeviceStatus>>) -> placement::Plan {
        let state = cluster.state();
        let (mut loads, mut cannot) = (BTreeMap::new(), BTreeSet::new());
        for (node, devices) in &nodes {
            for (number, device) in state.devices_of(*node) {
                let Some(status) = devices.iter().find(|status| status.name == device.about.name) else { continue };
                let load = DeviceLoad {
                    per_second: Some(status.handled_per_s),
                    memory_used_bytes: Some(status.memory_bytes),
                    ..DeviceLoad::default()
                };
                loads.insert(number, load);
                if status.state != DeviceState::Running || status.checkpoints.is_none() {
                    cannot.insert(number);
                }
            }
        }
        let view = View {
            alive: nodes.into_keys().collect(),
            failed: cannot,
            devices: loads,
            moved_ago: self.moved.lock().iter().map(|(shard, at)| (*shard, at.elapsed())).collect(),
            ..View::default()
        };
        placement::plan(&state, &view, Want::Rebalance)
    }

    /// Takes in that shards have moved just now.
    pub(super) fn note_moved(&self, shards: &ShardSet) {
        let now = Instant::now();
        self.moved.lock().extend(shards.iter().map(|shard| (shard as u32, now)));
    }
}
