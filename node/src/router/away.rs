//! Moves shards from a device of this node to one of another while both nodes, and all others, are at work.
//!
//! The node that gives leads. Others are asked by calls ([`Moving`]); the target's has a part of its own.
//!
//! | | here | at the target's node | at every other |
//! |---|---|---|---|
//! | 1 | no checkpoint begins; what actors of the shards send is held; what they had sent has arrived | | |
//! | 2 | | no checkpoint begins; the target has taken what it was sent, and is cut: what its actors send to the shards is *parked* in its workers | no checkpoint begins |
//! | 3 | | what others send to the shards is *held*; what was sent before has arrived | the same |
//! | 4 | nothing is let in for the shards; asks of clients that were let in are handled; the source is cut, and the shards leave | | |
//! | 5 | what left is sent to the target's node | it is made durable, an *adoption* | |
//! | 6 | **the cluster agrees that the shards are the target's** | | |
//! | 7 | doors and router go by that; what was blocked goes on to the target's node | doors and router go by that, once it knows; the target is cut: the shards arrive; what was held is let in | what was held goes to the target's node, once it knows |
//! | 8 | the source is cut: what its actors have sent to the shards meanwhile goes on | | |
//!
//! **Why nothing overtakes.** At 6 nothing is on its way to the shards anywhere, so that no old road is in use when a new one is
//! taken: what nodes had sent is at the source's door since 3, and what they send is with them until they know better. A node that
//! knows of the move before the target's does sends to that one, which holds it too. Of what the shards had sent, all has arrived
//! since 1, and the rest goes along. Nor does a checkpoint number anything by the old owner meanwhile, for none begins.
//!
//! **Why nothing is done twice or lost.** Until 6 the source's checkpoints have everything, and the shards come back where it is
//! called off. From 6 on the target has its checkpoint and the adoption, whatever happens. A change that is still to be agreed on when
//! either node ends is refused ([`Command::MoveBetween`]), so a target that starts again may forget what is not its own, and a
//! source that does so has its shards.
//!
//! **Clients.** Answers to what a client sent to this node go out here: each ask that was let in is handled before the cut. What
//! is known of clients goes along, their marks and the answers that they may not have.
//!
//! **Who holds**, and is not told of the end, looks: it asks this node every [`LOOK_EVERY`]. Where that cannot be reached for
//! [`LOST_LIMIT`], a node goes on; then alone the order is not kept of what it sends to these shards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::control::state::{Command, DeviceNumber, NodeNumber, State, ranges};
use ringhold_cluster::network::BoxFuture;
use ringhold_cluster::peers::lane::Envelope;
use ringhold_cluster::wire::PEER_REQUEST_BYTES_MAX;
use ringhold_kernels::message::Header;
use ringhold_kernels::outbox::{AWAY, Owner, Owners, PARKED};
use tokio::sync::{Notify, OwnedMutexGuard, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::Router;
use super::migrate::{Error, Moved, taken};
use crate::cluster::{Cluster, Moves, Moving, Stage, has};
use crate::device::door::{Left, Outcome};
use crate::device::switch::{Carried, LeftLane, Switch};
use crate::device::{Device, Outlet};
use crate::shards::{NotMoved, ShardSet};

/// How long all other nodes have until nothing is on its way any more.
const HOLD_LIMIT: Duration = Duration::from_secs(5);
/// How long one may take for a part of what is carried, or to say that it has arrived.
const CARRY_LIMIT: Duration = Duration::from_secs(30);
/// How long asks that were let in may take to be handled.
const HANDLED_LIMIT: Duration = Duration::from_secs(2);
/// How long a node waits for an earlier migration.
const BUSY_LIMIT: Duration = Duration::from_secs(1);
/// How often it is looked whether something is so.
const POLL_EVERY: Duration = Duration::from_millis(1);
/// How often a node that holds asks whether it still has to.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long it asks in vain.
const LOST_LIMIT: Duration = Duration::from_secs(10);
/// Bytes of what is carried in one request.
const PART_BYTES: usize = 8 << 20;
const _: () = assert!(PART_BYTES < PEER_REQUEST_BYTES_MAX / 2);
/// Migrations of which the outcome is remembered.
const REMEMBERED_MAX: usize = 64;

/// What a node knows of migrations between nodes.
#[derive(Default)]
pub(super) struct Between {
    /// Those that it leads or has led.
    led: Mutex<BTreeMap<u64, Stage>>,
    /// What is sent to shards that are about to move from one node to another.
    pub held: Mutex<Option<Held>>,
    /// What it is about to be given.
    arriving: Mutex<Option<Arriving>>,
    /// To be run, by who carries between nodes.
    pub tasks: Mutex<Vec<BoxFuture<'static, ()>>>,
    pub more_tasks: Notify,
}

/// Messages for shards that are about to move, of this node's actors or on their way through.
pub(super) struct Held {
    id: u64,
    pub shards: ShardSet,
    pub messages: Vec<(Envelope, Header, Vec<u8>)>,
}

/// Shards that a device of this node is about to be given.
struct Arriving {
    id: u64,
    shards: ShardSet,
    target: Arc<Device>,
    adoption: u64,
    bytes: Vec<u8>,
    /// All of it is durable.
    whole: bool,
}

impl Router {
    /// Moves shards, all of which one device of this node has, to the device of this number, of another node. It goes on to its
    /// end, or is called off, whether its caller waits or not.
    ///
    /// # Errors
    /// The shards are where they were.
    pub async fn migrate_away(self: &Arc<Router>, shards: ShardSet, to: DeviceNumber) -> Result<Moved, Error> {
        let (router, (done, moved)) = (self.clone(), oneshot::channel());
        self.run_with_node(async move {
            // Who does not wait any more has dropped the receiver.
            let _ = done.send(router.migrate_between(shards, to).await);
        });
        moved.await.unwrap_or_else(|_| Err(Error::Node("the node stops".into())))
    }

    /// Runs what goes on though nobody waits for it, and ends with the node.
    pub(super) fn run_with_node(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.between.tasks.lock().push(Box::pin(task));
        self.between.more_tasks.notify_one();
    }

    async fn migrate_between(self: Arc<Router>, shards: ShardSet, to: DeviceNumber) -> Result<Moved, Error> {
        let _alone = self.migrating.clone().lock_owned().await;
        let began = Instant::now();
        let table = self.table.clone().ok_or(Error::NoCheckpoints)?;
        let cluster = self.cluster.clone().ok_or_else(|| Error::Node("the node stands alone".into()))?;
        let source = self.source_of(&shards)?;
        let state = cluster.state();
        let target = state.devices.get(&to).ok_or_else(|| Error::Node(format!("there is no device {to}")))?;
        table.ready().await.map_err(Error::Table)?;
        let _still = self.hold_all_checkpoints().await;
        movable(&source)?;
        let mut id = [0; 8];
        self.network.random(&mut id);
        let run = |node| incarnation(&state, node).unwrap_or(0);
        let before = source.door.lock().link().segment().owners();
        let mut giving = Giving {
            id: u64::from_le_bytes(id),
            router: &self,
            cluster: &cluster,
            before,
            runs: (run(cluster.number()), run(target.node)),
            target: target.node,
            to,
            source,
            shards,
            closed: None,
            left: None,
        };
        let mut moved = giving.run(&state).await?;
        moved.took = began.elapsed();
        self.note_moved(&giving.shards);
        tracing::info!(
            from = giving.source.name,
            to,
            node = giving.target,
            shards = moved.shards,
            bytes = moved.bytes,
            stood_us = moved.stood.as_micros(),
            "shards have moved to another node"
        );
        Ok(moved)
    }

    /// Whether shards are about to move between other nodes and this one, or are held for.
    pub(super) fn is_between(&self) -> bool {
        self.between.held.lock().is_some() || self.between.arriving.lock().is_some()
    }

    async fn hold_all_checkpoints(&self) -> Vec<OwnedMutexGuard<()>> {
        let mut still = Vec::new();
        for device in self.present().filter(|_| self.table.is_some()) {
            still.push(device.hold_checkpoints().await);
        }
        still
    }

    /// Answers a node that gives shards, or one that holds for those that this one gives.
    pub(super) async fn answer_moving(self: Arc<Router>, from: NodeNumber, asked: Moving) -> Result<Moves, String> {
        match asked {
            Moving::Hold { id, run, shards, from: device, to } => {
                let shards = shards.into_iter().flatten().map(|shard| shard as usize).collect();
                let router = self.clone();
                let (done, holds) = oneshot::channel();
                // Though the other node gives up waiting: what is held is let go of in any case.
                self.run_with_node(async move {
                    let _ = done.send(router.hold((from, run), id, shards, device, to).await);
                });
                holds.await.map_err(|_| "the node stops".to_string())?
            }
            Moving::Carry { id, at, bytes, last } => self.take_part(id, at, bytes, last).await,
            Moving::Arrive { id } => {
                while self.between.arriving.lock().as_ref().is_some_and(|arriving| arriving.id == id) {
                    sleep(POLL_EVERY).await;
                }
                Ok(Moves::Arrived)
            }
            Moving::Keeps { device, version } => self.keeps_by(device, version).await,
            Moving::Look { id } => {
                Ok(Moves::Stage(self.between.led.lock().get(&id).copied().unwrap_or(Stage::Unknown)))
            }
        }
    }

    /// Holds what is sent to these shards; once it has answered, until they have moved or will not.
    async fn hold(
        self: Arc<Router>,
        (giver, run): (NodeNumber, u64),
        id: u64,
        shards: ShardSet,
        from: DeviceNumber,
        to: DeviceNumber,
    ) -> Result<Moves, String> {
        let busy = "another migration, or a backup, is under way there: try again";
        // Not for long: of two nodes that wait for each other one at least goes on.
        let alone = timeout(BUSY_LIMIT, self.migrating.clone().lock_owned()).await.map_err(|_| busy)?;
        let cluster = self.cluster.clone().ok_or("it stands alone")?;
        let target = self.place_of(to).map(|place| self.devices[place].clone());
        if target.is_some() && self.table.is_none() {
            return Err("it makes no checkpoints (checkpoints.enabled)".into());
        }
        if self.is_between() {
            return Err(busy.into());
        }
        let still = self.hold_all_checkpoints().await;
        // That may have waited for the giver, which has started again since: nobody would ever say what became of this.
        let until = Instant::now() + BUSY_LIMIT;
        while incarnation(&cluster.state(), giver) != Some(run) {
            if Instant::now() >= until {
                return Err(format!("node {giver} has started again since it asked"));
            }
            sleep(POLL_EVERY).await;
        }
        if let Some(target) = &target {
            movable(target).map_err(|e| e.to_string())?;
            taken(target).await.map_err(|e| e.to_string())?;
            let parked = self.table_of(target, &shards, |_| PARKED);
            if let Err(e) = target.switch(&*self, &mut Switch::new(parked)).await {
                self.unpark(target, &shards).await;
                return Err(format!("device `{}` could not be cut: {e}", target.name));
            }
        }
        *self.between.held.lock() = Some(Held { id, shards: shards.clone(), messages: Vec::new() });
        let mut adoption = 0;
        if let Some(target) = target {
            adoption = target.door.lock().adopted().0 + 1;
            let arriving = Arriving { id, shards: shards.clone(), target, adoption, bytes: Vec::new(), whole: false };
            *self.between.arriving.lock() = Some(arriving);
        }
        let (sent, until) = (self.lanes.sent_until_now(giver), Instant::now() + HOLD_LIMIT);
        while !self.lanes.has_arrived(giver, sent) {
            if Instant::now() >= until {
                let why = format!("what it has sent to node {giver} has not arrived in {} s", HOLD_LIMIT.as_secs());
                self.let_go_of_held(id).await;
                return Err(why);
            }
            sleep(POLL_EVERY).await;
        }
        let router = self.clone();
        let decided = router.hold_until_decided(cluster, (giver, run), id, shards, (from, to), (alone, still));
        self.run_with_node(decided);
        Ok(Moves::Holds { adoption })
    }

    async fn hold_until_decided(
        self: Arc<Router>,
        cluster: Arc<Cluster>,
        (giver, run): (NodeNumber, u64),
        id: u64,
        shards: ShardSet,
        (from, to): (DeviceNumber, DeviceNumber),
        guards: (OwnedMutexGuard<()>, Vec<OwnedMutexGuard<()>>),
    ) {
        let mut reached = Instant::now();
        let mut guards = Some(guards);
        loop {
            let (seen, state) = (cluster.changes(), cluster.state());
            let moved = has(&state, &shards, to);
            // Of a node that has started again the cluster takes no change that was begun before.
            // Nor of one that does not run the device any more.
            let gives = state.devices.get(&from).is_some_and(|device| device.node == giver);
            if moved || !gives || !has(&state, &shards, from) || incarnation(&state, giver) != Some(run) {
                let still = match &guards {
                    Some(_) => Vec::new(),
                    None => self.hold_all_checkpoints().await,
                };
                match moved {
                    true => self.arrive_or_release(&state, id).await,
                    false => self.let_go_of_held(id).await,
                }
                break drop(still);
            }
            tokio::select! {
                biased;
                _ = cluster.changed(seen) => continue,
                () = sleep(LOOK_EVERY) => {}
            }
            match cluster.ask_moving(giver, Moving::Look { id }, LOOK_EVERY * 5).await {
                Ok(Moves::Stage(Stage::CalledOff)) => {
                    let still = match &guards {
                        Some(_) => Vec::new(),
                        None => self.hold_all_checkpoints().await,
                    };
                    self.let_go_of_held(id).await;
                    break drop(still);
                }
                // The change is on its way here.
                Ok(Moves::Stage(Stage::UnderWay | Stage::Moved)) => reached = Instant::now(),
                Ok(_) | Err(_) if reached.elapsed() < LOST_LIMIT => {}
                Ok(_) | Err(_) => {
                    if guards.take().is_some() {
                        tracing::warn!(node = giver, "a node that was giving shards to another is out of reach");
                    }
                    if self.between.arriving.lock().is_none() {
                        break self.let_go_of_held(id).await;
                    }
                }
            }
        }
    }

    /// Takes in that shards have moved: here, where this node's device is the target; else what was held for them goes there.
    async fn arrive_or_release(self: &Arc<Router>, state: &State, id: u64) {
        let arriving = self.between.arriving.lock().as_ref().map(|a| (a.target.clone(), a.shards.clone(), a.adoption));
        let Some((target, shards, adoption)) = arriving else {
            if let Some(cluster) = &self.cluster {
                self.follow(cluster);
            }
            return self.let_go_of_held(id).await;
        };
        let bytes = self.between.arriving.lock().as_mut().map(|a| std::mem::take(&mut a.bytes)).unwrap_or_default();
        let workers = target.door.lock().link().segment().shape().workers as usize;
        let mut next = 0;
        let arrived = self.table_of(&target, &shards, |_| {
            next += 1;
            ((next - 1) % workers) as Owner
        });
        let (mut letters, mut others) = (Vec::new(), Vec::new());
        loop {
            let is_beginning = {
                // All that was held goes before whatever comes from now on.
                let mut held = self.between.held.lock();
                let mut door = target.door.lock();
                // A host that begins goes by the table from before, and has no shards let in for.
                let is_beginning = target.is_beginning(&mut door);
                if !is_beginning {
                    let term = |shard: usize| state.shards[shard].term as u32;
                    door.take_over(&shards, target.index, term, adoption, &bytes, arrived.clone());
                    for (envelope, header, payload) in held.take().map(|held| held.messages).unwrap_or_default() {
                        match envelope.numbered {
                            // The giver, for whose device it was numbered, has yet to take it.
                            Some(numbered) if numbered.to != target.number => others.push((envelope, header, payload)),
                            Some(numbered) if !door.takes(numbered.from, numbered.number) => {}
                            _ => door.pass_on(&header, &payload, &mut letters),
                        }
                    }
                }
                is_beginning
            };
            if !is_beginning {
                break;
            }
            sleep(POLL_EVERY).await;
        }
        for (envelope, header, payload) in others {
            self.send_now(envelope, &header, &payload, &mut letters);
        }
        self.keep(&target.name, letters);
        let mut switch = Switch::new(arrived);
        (switch.arriving, switch.opens) = (bytes, true);
        if let Err(e) = target.switch(&**self, &mut switch).await {
            tracing::warn!(device = target.name, "shards have arrived from another node, and {e}");
        }
        {
            let mut door = target.door.lock();
            door.has_adopted(adoption);
            // Where its host has ended the next one begins with them, and then with what is let in meanwhile.
            door.open_shards();
        }
        Outlet::room(&**self);
        self.note_moved(&shards);
        *self.between.arriving.lock() = None;
        tracing::info!(device = target.name, shards = shards.len(), "shards have arrived from another node");
        target.hurry();
    }

    /// Sends what was held to whoever has the shards, and lets go of what this node was to be given.
    async fn let_go_of_held(self: &Arc<Router>, id: u64) {
        let arriving = self.between.arriving.lock().take_if(|arriving| arriving.id == id);
        if let Some(Arriving { target, shards, adoption, .. }) = arriving {
            let _ = target.on_store(move |store, name| store.forget_adoption(name, adoption)).await;
            self.unpark(&target, &shards).await;
        }
        let mut letters = Vec::new();
        {
            let mut held = self.between.held.lock();
            let Some(Held { messages, .. }) = held.take_if(|held| held.id == id) else { return };
            for (envelope, header, payload) in messages {
                self.send_now(envelope, &header, &payload, &mut letters);
            }
        }
        self.keep("", letters);
    }

    /// Has a device's workers send to shards again that are not its own.
    async fn unpark(&self, device: &Device, shards: &ShardSet) {
        let away = self.table_of(device, shards, |_| AWAY);
        if let Err(e) = device.switch(self, &mut Switch::new(away)).await {
            tracing::warn!(device = device.name, "shards have not arrived, and {e}");
        }
    }

    /// Takes a part of what this node is given, and makes it durable once it is whole.
    async fn take_part(&self, id: u64, at: u64, mut part: Vec<u8>, last: bool) -> Result<Moves, String> {
        let (target, adoption, bytes) = {
            let mut arriving = self.between.arriving.lock();
            let arriving = arriving.as_mut().filter(|a| a.id == id).ok_or("it is not prepared for these shards")?;
            if arriving.bytes.len() as u64 != at || arriving.whole {
                return Err("a part of what is carried is missing".into());
            }
            arriving.bytes.append(&mut part);
            if !last {
                return Ok(Moves::Carried);
            }
            arriving.whole = true;
            (arriving.target.clone(), arriving.adoption, std::mem::take(&mut arriving.bytes))
        };
        let bytes = Carried(bytes).rebased(self.network.steady_us()).ok_or("what is carried is not whole")?.0;
        if let Some(arriving) = self.between.arriving.lock().as_mut().filter(|arriving| arriving.id == id) {
            arriving.bytes = bytes.clone();
        }
        let put = target.on_store(move |store, name| store.put_adoption(name, adoption, &bytes)).await;
        put.map_err(|e| e.to_string())?;
        // Other nodes that have copies of the target are to have it before the shards are the target's.
        target.adoption_copied().await.map_err(|e| e.to_string())?;
        Ok(Moves::Carried)
    }

    /// The table by which a device's workers go, but for these shards.
    fn table_of(&self, device: &Device, shards: &ShardSet, mut owner: impl FnMut(usize) -> Owner) -> Owners {
        let now = device.door.lock().link().segment().owners();
        Owners::from_fn(|shard| if shards.contains(shard) { owner(shard) } else { now.of_shard(shard) })
    }
}

/// In which of its lives a node is, as agreed.
fn incarnation(state: &State, node: NodeNumber) -> Option<u64> {
    state.nodes.get(&node).map(|member| member.incarnation)
}

/// Whether a device can give and take shards now.
fn movable(device: &Device) -> Result<(), Error> {
    if !device.has_running_host() {
        return Err(Error::NotRunning(device.name.clone()));
    }
    Ok(())
}

/// The other nodes from which something may be on its way. One that runs no device was given up, and has not come back since: it has
/// no lease by which it could send anything, and what was on its way from its devices comes again from where they run now.
pub(super) fn others(state: &State, cluster: &Cluster) -> impl Iterator<Item = NodeNumber> {
    let own = cluster.number();
    state.nodes.keys().copied().filter(move |node| *node != own && state.devices_of(*node).next().is_some())
}

/// A migration, at the node that gives.
struct Giving<'a> {
    id: u64,
    router: &'a Arc<Router>,
    cluster: &'a Arc<Cluster>,
    source: Arc<Device>,
    target: NodeNumber,
    to: DeviceNumber,
    /// The incarnations of both nodes.
    runs: (u64, u64),
    shards: ShardSet,
    /// By which the source's workers went.
    before: Owners,
    /// Since when nothing is let in for the shards.
    closed: Option<Instant>,
    /// What the source's workers had of them, once they have let go.
    left: Option<Vec<LeftLane>>,
}

impl Giving<'_> {
    async fn run(&mut self, state: &State) -> Result<Moved, Error> {
        self.stage(Stage::UnderWay);
        self.source.door.lock().prepare_to_leave(&self.shards);
        // What had come out before is where it belongs, from here on.
        drop(self.source.carry.lock());
        match self.leave(state).await {
            Ok(bytes) => {
                let moved = self.hand_over(bytes).await;
                self.stage(Stage::Moved);
                Ok(moved)
            }
            Err(why) => {
                self.call_off().await;
                self.stage(Stage::CalledOff);
                tracing::warn!(from = self.source.name, to = self.to, "no shards have moved: {why}");
                Err(why)
            }
        }
    }

    fn stage(&self, stage: Stage) {
        let mut led = self.router.between.led.lock();
        led.insert(self.id, stage);
        while led.len() > REMEMBERED_MAX {
            let other = led.keys().copied().find(|id| *id != self.id).expect("there are others");
            led.remove(&other);
        }
    }

    /// Up to where the cluster has agreed that the shards are the target's. Returns how many bytes were carried.
    async fn leave(&mut self, state: &State) -> Result<u64, Error> {
        self.arrived_elsewhere(state).await?;
        let adoption = self.hold_elsewhere(state).await?;
        self.source.door.lock().close_shards(true);
        self.closed = Some(Instant::now());
        let mut asks = self.source.door.lock().asks();
        taken(&self.source).await?;
        let until = Instant::now() + HANDLED_LIMIT;
        loop {
            self.source.door.lock().leave_out_handled(&mut asks);
            match asks.is_empty() {
                true => break,
                false if Instant::now() >= until => return Err(Error::TooBusy(self.source.name.clone())),
                false => sleep(POLL_EVERY).await,
            }
        }
        let cut_us = self.router.network.steady_us();
        let mut switch = Switch::new(self.router.table_of(&self.source, &self.shards, |_| PARKED));
        switch.leaving = Some(self.shards.clone());
        let cut = self.cut(&mut switch).await;
        let lanes = self.left.insert(switch.left);
        if !switch.done {
            self.left = None;
            return Err(cut.err().unwrap_or(Error::NotRunning(self.source.name.clone())));
        }
        cut?;
        let left = {
            let mut door = self.source.door.lock();
            let mut left = door.carry_off();
            left.clients.extend(door.carry_answers());
            left
        };
        let carried = Carried::new(adoption, cut_us, &self.shards, lanes, &left).0;
        let bytes = carried.len();
        for (number, part) in carried.chunks(PART_BYTES).enumerate() {
            let at = number * PART_BYTES;
            let last = at + part.len() == bytes;
            let part = Moving::Carry { id: self.id, at: at as u64, bytes: part.into(), last };
            self.cluster.ask_moving(self.target, part, CARRY_LIMIT).await.map_err(Error::Node)?;
        }
        let ranges = ranges(self.shards.iter().map(|shard| shard as u32));
        let (from, to, runs) = (self.source.number, self.to, self.runs);
        let command = Command::MoveBetween { shards: ranges, from, to, runs };
        self.cluster.agree_on_move(command, &self.shards, self.to).await.map_err(Error::Table)?;
        Ok(bytes as u64)
    }

    /// Waits until other nodes have all that was sent to them until now.
    async fn arrived_elsewhere(&self, state: &State) -> Result<(), Error> {
        let until = Instant::now() + HOLD_LIMIT;
        let sent: Vec<_> =
            others(state, self.cluster).map(|node| (node, self.router.lanes.sent_until_now(node))).collect();
        for (node, sent) in sent {
            while !self.router.lanes.has_arrived(node, sent) {
                let why = match others(&self.cluster.state(), self.cluster).any(|other| other == node) {
                    true if Instant::now() < until => {
                        sleep(POLL_EVERY).await;
                        continue;
                    }
                    true => format!("what was sent to node {node} has not arrived in {} s", HOLD_LIMIT.as_secs()),
                    false => format!("node {node} was given up meanwhile"),
                };
                return Err(Error::Node(why));
            }
        }
        Ok(())
    }

    /// Has all other nodes hold what they would send to the shards. Returns the number of the adoption.
    async fn hold_elsewhere(&self, state: &State) -> Result<u64, Error> {
        let mut holding = JoinSet::new();
        for node in others(state, self.cluster) {
            let shards = ranges(self.shards.iter().map(|shard| shard as u32));
            let (id, run) = (self.id, self.runs.0);
            let hold = Moving::Hold { id, run, shards, from: self.source.number, to: self.to };
            let cluster = self.cluster.clone();
            holding.spawn(async move { (node, cluster.ask_moving(node, hold, HOLD_LIMIT * 2).await) });
        }
        let mut adoption = None;
        while let Some(held) = holding.join_next().await {
            match held.map_err(|e| Error::Node(e.to_string()))? {
                (node, Ok(Moves::Holds { adoption: number })) if node == self.target => adoption = Some(number),
                (_, Ok(Moves::Holds { .. })) => {}
                (node, Ok(_)) => return Err(Error::Node(format!("node {node} answered another question"))),
                (_, Err(why)) => return Err(Error::Node(why)),
            }
        }
        adoption.ok_or_else(|| Error::Table(NotMoved("the target's node is no member any more".into())))
    }

    /// From where the shards are the target's: whatever happens, they are.
    async fn hand_over(&mut self, bytes: u64) -> Moved {
        let gone = self.router.table_of(&self.source, &self.shards, |_| AWAY);
        let (router, index) = (&self.router, self.source.index);
        let leave = || self.source.door.lock().hand_over_elsewhere(index, self.to, gone.clone());
        // The target's node may have died since, and the target have begun on another: on this one, too.
        match router.place_of(self.to) {
            None => router.lanes.push_first(router.node_of(self.to).unwrap_or(self.target), leave),
            Some(_) => {
                let mut letters = Vec::new();
                for (header, payload) in leave() {
                    router.pass_on_one(Envelope::default(), &header, &payload, &mut letters);
                }
                router.keep(&self.source.name, letters);
            }
        }
        Outlet::room(&**self.router);
        if let Err(e) = self.cut(&mut Switch::new(gone)).await {
            tracing::warn!(device = self.source.name, "shards have left, and {e}");
        }
        // One that has lost the target since has nothing to say.
        if router.node_of(self.to) == Some(self.target)
            && let Err(why) = self.cluster.ask_moving(self.target, Moving::Arrive { id: self.id }, CARRY_LIMIT).await
        {
            tracing::warn!(
                node = self.target,
                "shards are another node's, which does not say that they are at work: {why}"
            );
        }
        let stood = self.closed.map_or(Duration::ZERO, |closed| closed.elapsed());
        Moved { shards: self.shards.len(), bytes, stood, took: Duration::ZERO }
    }

    /// The shards stay, and come back to the source's workers where they had left them.
    async fn call_off(&mut self) {
        if let Some(lanes) = self.left.take() {
            let mut switch = Switch::new(self.before.clone());
            switch.arriving = Carried::new(0, 0, &self.shards, &lanes, &Left::default()).0;
            switch.returns = true;
            if let Err(e) = self.cut(&mut switch).await {
                tracing::warn!(device = self.source.name, "shards have come back, and {e}");
            }
        }
        let mut out = Outcome::default();
        {
            // Behind what the pump has in hand, and before what comes out from now on.
            let _carry = self.source.carry.lock();
            self.source.door.lock().call_off(&mut out);
            self.router.carry(&self.source, &mut out);
        }
        Outlet::room(&**self.router);
    }

    async fn cut(&self, switch: &mut Switch) -> Result<(), Error> {
        let made = self.source.switch(&**self.router, switch).await;
        made.map_err(|e| Error::Cut(self.source.name.clone(), e))
    }
}
