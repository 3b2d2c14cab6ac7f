//! A device's checkpoints on their way to its replicas, and who is waited for before one is committed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::control::state::{Command, Device, DeviceNumber, NodeNumber};
use ringhold_storage::checkpoints::{self, Checkpoints, Mark};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::super::Cluster;
use super::super::message::{Message, Reply};
use super::known::{Copy, Known};
use super::rounds::Rounds;
use super::{Asked, Copied};
use crate::device::keeper::{Jobs, on};
use crate::device::mistake::{self, Mistake};

/// A replica that has not answered for so long is put out of those that are in sync.
const SILENT_MAX: Duration = Duration::from_secs(2);
/// How long the cluster has to agree on who is in sync until it is asked again.
const AGREE_LIMIT: Duration = Duration::from_secs(3);
/// Between two attempts, from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(500);
/// One that was put out stays out for so long at least: a disk that is now and then slow is not to be waited for each time.
const OUT_MIN: Duration = Duration::from_secs(2);
/// How much of a checkpoint is sent at once: what is more urgent does not wait behind it for long.
const PIECE_BYTES: usize = 1 << 20;
/// How long a node that ends may have been without a lease until it waits for no copies.
const ALONE_LIMIT: Duration = Duration::from_secs(1);
/// A commit that has waited for so long says so.
const SAY_AFTER: Duration = Duration::from_millis(500);

/// The copies of one device's checkpoints on other nodes. Shared by its keeper and the task that sends.
pub struct Copies {
    cluster: Arc<Cluster>,
    device: DeviceNumber,
    /// The device's checkpoints' in the store.
    name: String,
    store: Checkpoints,
    jobs: Arc<dyn Jobs>,
    known: Mutex<Known>,
    /// There is a newer checkpoint.
    made: Notify,
    /// What is known of a replica is otherwise.
    changed: Notify,
    /// The node ends.
    ending: AtomicBool,
    /// The device is not there any more.
    gone: AtomicBool,
}

/// Why a checkpoint is not on every node that is in sync.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCopied {
    /// One that has everything is to be made.
    #[error("what is to be copied to other nodes cannot be read: {0}")]
    Unreadable(String),
    /// The device was retired: there is nothing of it to be kept.
    #[error("the device is not there any more")]
    Gone,
    /// The node ends, and no majority answers it.
    #[error(
        "it is on this node's disk alone: {0}; and no majority of the nodes answers that could agree to go on without"
    )]
    Alone(String),
}

impl Copies {
    pub fn new(
        cluster: Arc<Cluster>,
        device: DeviceNumber,
        name: &str,
        store: Checkpoints,
        jobs: Arc<dyn Jobs>,
    ) -> Arc<Copies> {
        let (known, made, changed, ending, gone) = Default::default();
        Arc::new(Copies { cluster, device, name: name.into(), store, jobs, known, made, changed, ending, gone })
    }

    /// Resolves once every node that is in sync has the device's newest checkpoint, which is durable here. `say` is told what it
    /// waits for, where that takes its time.
    ///
    /// # Errors
    /// Where the checkpoint cannot be read again, or the node ends and nobody is there to copy to.
    pub async fn copied(&self, say: impl Fn(String)) -> Result<(), NotCopied> {
        let (began, mut said, mut alone) = (Instant::now(), String::new(), None);
        self.known.lock().unreadable = None;
        self.made.notify_waiters();
        loop {
            let changed = self.changed.notified();
            let seen = self.cluster.control().changes();
            if self.gone.load(SeqCst) {
                return Err(NotCopied::Gone);
            }
            let lacking = self.lacking().filter(|_| !mistake::is_made(Mistake::CommitsAlone));
            let Some(why) = lacking else { return Ok(()) };
            if let Some(unreadable) = self.known.lock().unreadable.clone() {
                return Err(NotCopied::Unreadable(unreadable));
            }
            // Without a majority nobody goes on with the device elsewhere either: this node's disk is what counts.
            alone = match self.cluster.lease().is_some_and(|lease| lease.holds()) {
                true => None,
                false => alone.or_else(|| Some(Instant::now())),
            };
            if self.ending.load(SeqCst) && alone.is_some_and(|since| since.elapsed() >= ALONE_LIMIT) {
                return Err(NotCopied::Alone(why));
            }
            if began.elapsed() >= SAY_AFTER && why != said {
                said.clone_from(&why);
                say(why);
            }
            tokio::select! {
                biased;
                () = changed => {}
                _ = self.cluster.control().changed(seen) => {}
                () = sleep(SAY_AFTER) => {}
            }
        }
    }

    /// The node ends: nobody is waited for any more who cannot be reached, where that cannot be agreed on.
    pub fn end(&self) {
        self.ending.store(true, SeqCst);
    }

    /// The device is not there any more: nothing of it is waited for.
    pub fn retire(&self) {
        self.gone.store(true, SeqCst);
        self.changed.notify_waiters();
    }

    /// As [`Copies::copied`], where there is an adoption since.
    pub async fn adoption_copied(&self) -> Result<(), NotCopied> {
        self.known.lock().adoptions += 1;
        self.copied(|why| tracing::warn!(device = self.name, "shards that move here wait: {why}")).await
    }

    /// The newest checkpoint that is durable here.
    fn newest(&self) -> Option<Mark> {
        self.store.newest(&self.name)
    }

    /// Why the newest checkpoint is not committed, if it is not.
    fn lacking(&self) -> Option<String> {
        let state = self.cluster.state();
        let own = self.cluster.number();
        let Some(device) = state.devices.get(&self.device).filter(|device| device.node == own) else {
            return Some(format!("the cluster has given device {} to another node", self.device));
        };
        let newest = self.newest();
        let known = self.known.lock();
        let name = |node: &NodeNumber| state.nodes.get(node).map_or("?", |member| member.name.as_str());
        let others = known.copies.iter().filter(|(node, copy)| copy.is_needed(&state, device, **node));
        let needed = device.in_sync.iter().chain(others.map(|(node, _)| node)).filter(|node| **node != own);
        needed
            .filter(|node| known.copies.get(node).is_none_or(|copy| !copy.is_whole(newest, known.adoptions)))
            .map(|node| {
                let why = known.copies.get(node).map_or("", |copy| copy.why.as_str());
                let why = if why.is_empty() { "it is being sent" } else { why };
                format!("node {node} (`{}`) does not have the newest one yet: {why}", name(node))
            })
            .next()
    }

    /// Sends the replicas what they lack, for as long as the node runs.
    pub async fn run(self: Arc<Copies>) {
        let control = self.cluster.control();
        let mut following = BTreeMap::new();
        let mut tasks = JoinSet::new();
        loop {
            let seen = control.changes();
            let state = control.state();
            let own = self.cluster.number();
            let device = state.devices.get(&self.device).filter(|device| device.node == own);
            let replicas = device.map_or(&[][..], |device| &device.replicas);
            following.retain(|node, task: &mut tokio::task::AbortHandle| {
                let stays = replicas.contains(node);
                if !stays {
                    task.abort();
                    // Who has copies has changed, so what was proposed of it does not come true any more.
                    self.known.lock().copies.remove(node);
                }
                stays
            });
            for node in replicas {
                following.entry(*node).or_insert_with(|| {
                    self.known.lock().copies.insert(*node, Copy::default());
                    tasks.spawn(self.clone().follow(*node))
                });
            }
            self.changed.notify_waiters();
            tokio::select! {
                biased;
                Some(ended) = tasks.join_next(), if !tasks.is_empty() => {
                    if let Err(e) = ended && e.is_panic() {
                        std::panic::resume_unwind(e.into_panic());
                    }
                }
                _ = control.changed(seen) => {}
            }
        }
    }

    /// Brings one replica up to date, over and over, and has the cluster agree on whether it is in sync.
    async fn follow(self: Arc<Copies>, node: NodeNumber) {
        // Since when it has not answered, and until when it is not to come in again.
        let (mut silent, mut out_until) = (None, None);
        let mut pause = PAUSE_MIN;
        // How often it was given up; and that it was while this looked, and has not answered since.
        let mut times = self.cluster.state().times_given_up(node);
        let mut is_gone = false;
        loop {
            let made = self.made.notified();
            let seen = self.cluster.control().changes();
            let began = Instant::now();
            let brought = tokio::select! {
                biased;
                now = self.given_up(node, times) => {
                    (times, is_gone) = (now, true);
                    Err(Failed::There { why: "it was silent, and was given up".into(), answered: None })
                }
                brought = self.bring(node, out_until, is_gone) => brought,
            };
            match brought {
                Ok(()) => {
                    is_gone = false;
                    (silent, pause) = (None, PAUSE_MIN);
                    if out_until.is_none_or(|until| Instant::now() >= until) {
                        self.enter(node, times).await;
                    }
                    let state = self.cluster.state();
                    let is_agreed =
                        state.devices.get(&self.device).is_some_and(|device| device.in_sync.contains(&node));
                    tokio::select! {
                        biased;
                        () = made => {}
                        _ = self.cluster.control().changed(seen) => {}
                        () = sleep(PAUSE_MAX), if !is_agreed => {}
                    }
                }
                Err(Failed::Here(why)) => {
                    self.known.lock().unreadable = Some(why);
                    self.changed.notify_waiters();
                    sleep(PAUSE_MAX).await;
                }
                Err(Failed::There { why, answered }) => {
                    // It is asked anew what it has; and it was waited for in vain.
                    let mut was_awaited = false;
                    self.update(node, |copy| {
                        was_awaited = copy.awaited.take().is_some();
                        (copy.has, copy.adopted, copy.why) = (None, None, why.clone());
                    });
                    if was_awaited {
                        out_until = Some(Instant::now() + OUT_MIN);
                    }
                    silent = answered.or(silent).or(Some(began));
                    let since = silent.unwrap_or(began);
                    if (is_gone || since.elapsed() >= SILENT_MAX) && self.is_in(node) {
                        tracing::warn!(
                            device = self.name,
                            node,
                            "a replica does not take the device's checkpoints, and is to be out of those that are waited for: {why}"
                        );
                        match self.leave(node).await {
                            Ok(()) => out_until = Some(Instant::now() + OUT_MIN),
                            Err(not) => self.update(node, |copy| {
                                copy.why = format!("{why}; and that it is not waited for is not agreed on: {not}");
                            }),
                        }
                    }
                    tokio::select! {
                        biased;
                        _ = self.given_up(node, times) => {}
                        () = sleep(pause) => {}
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    /// Resolves once a node was given up more often than so many times: how often.
    async fn given_up(&self, node: NodeNumber, times: u64) -> u64 {
        let control = self.cluster.control();
        loop {
            let seen = control.changes();
            let now = control.state().times_given_up(node);
            if now > times {
                return now;
            }
            control.changed(seen).await;
        }
    }

    /// Sends a replica all that it lacks. Unless it is still to stay out, the device waits for it in the end. One that may be gone has
    /// a lease to say that it is not.
    async fn bring(&self, node: NodeNumber, out_until: Option<Instant>, may_be_gone: bool) -> Result<(), Failed> {
        let mut rounds = Rounds::default();
        let mut has = self.known.lock().copies.get(&node).and_then(|copy| copy.has);
        let mut answered = None;
        if has.is_none() {
            let lease = || Some(self.cluster.state().nodes.get(&node)?.lease_ms.into());
            let patience = lease().filter(|_| may_be_gone).map_or(SILENT_MAX, Duration::from_millis);
            has = match self.ask_within(node, Asked::Newest, patience.min(SILENT_MAX)).await {
                Ok(Copied::Has(newest)) => newest.map(|(epoch, at_us)| Mark { epoch, at_us }),
                Ok(_) => return Err(Failed::There { why: "it answered another question".into(), answered }),
                Err(why) => return Err(Failed::There { why, answered }),
            };
        }
        loop {
            let began = Instant::now();
            if !self.has_newest(node, has) {
                self.bring_checkpoints(node, &mut has, &mut answered).await?;
            } else if self.bring_adoptions(node).await? {
                return Ok(());
            }
            let is_behind = !self.has_newest(node, has) || !self.has_adoptions(node);
            let may_enter = out_until.is_none_or(|until| Instant::now() >= until);
            if is_behind && rounds.ended(began.elapsed()) && may_enter {
                let times = self.cluster.state().times_given_up(node);
                self.update(node, |copy| copy.awaited = Some(times));
            }
        }
    }

    /// Sends a replica the checkpoints that there are now, and notes which of them it has.
    async fn bring_checkpoints(
        &self,
        node: NodeNumber,
        has: &mut Option<Mark>,
        answered: &mut Option<Instant>,
    ) -> Result<(), Failed> {
        let here = |why: checkpoints::Error| Failed::Here(why.to_string());
        let (store, name, before) = (self.store.clone(), self.name.clone(), *has);
        for mut sending in on(&*self.jobs, move || store.lacks(&name, before)).await.map_err(here)? {
            let mark = sending.mark();
            loop {
                let next = on(&*self.jobs, move || {
                    let piece = sending.next(PIECE_BYTES).map(|piece| piece.map(|piece| piece.to_bytes()));
                    (sending, piece)
                });
                let piece;
                (sending, piece) = next.await;
                let Some(piece) = piece.map_err(here)? else { break };
                match self.ask(node, Asked::Piece(piece)).await {
                    Ok(Copied::Some) => {}
                    Ok(Copied::Whole) => *has = Some(mark),
                    // It has lost what it had, or something has come late: once more, from what it has.
                    Ok(Copied::Has(_)) => {
                        let why = "it did not take what was sent, and is asked anew what it has".into();
                        return Err(Failed::There { why, answered: *answered });
                    }
                    Err(why) => return Err(Failed::There { why, answered: *answered }),
                }
                *answered = Some(Instant::now());
            }
        }
        Ok(())
    }

    /// Sends a replica the adoptions that there are; false where there is something new meanwhile.
    async fn bring_adoptions(&self, node: NodeNumber) -> Result<bool, Failed> {
        let adoptions = {
            let known = self.known.lock();
            match known.copies.get(&node) {
                Some(copy) if copy.adopted != Some(known.adoptions) => known.adoptions,
                _ => return Ok(true),
            }
        };
        let (store, name) = (self.store.clone(), self.name.clone());
        let found = on(&*self.jobs, move || store.adoptions_after(&name, 0)).await;
        for (number, bytes) in found.map_err(|why| Failed::Here(why.to_string()))? {
            let (total, mut from) = (bytes.len() as u64, 0);
            let mut chunks = bytes.chunks(PIECE_BYTES);
            loop {
                let bytes = chunks.next().unwrap_or_default().to_vec();
                let next = from + bytes.len() as u64;
                let failed = |why| Failed::There { why, answered: None };
                match self.ask(node, Asked::Adoption { number, total, from, bytes }).await.map_err(failed)? {
                    Copied::Whole => break,
                    Copied::Some => from = next,
                    Copied::Has(_) => return Err(failed("it did not take what has moved, and is asked anew".into())),
                }
            }
        }
        self.update(node, |copy| copy.adopted = Some(adoptions));
        Ok(false)
    }

    fn has_adoptions(&self, node: NodeNumber) -> bool {
        let known = self.known.lock();
        known.copies.get(&node).is_some_and(|copy| copy.adopted == Some(known.adoptions))
    }

    /// Notes what a replica has, and whether that is the newest.
    fn has_newest(&self, node: NodeNumber, has: Option<Mark>) -> bool {
        let newest = self.newest();
        self.update(node, |copy| {
            copy.has = has;
            if has == newest {
                copy.why.clear();
            }
        });
        has == newest
    }

    async fn ask(&self, node: NodeNumber, asked: Asked) -> Result<Copied, String> {
        self.ask_within(node, asked, SILENT_MAX).await
    }

    async fn ask_within(&self, node: NodeNumber, asked: Asked, limit: Duration) -> Result<Copied, String> {
        let state = self.cluster.state();
        let (Some(member), Some(device)) = (state.nodes.get(&node), state.devices.get(&self.device)) else {
            return Err(format!("there is no node {node}, or no device {}", self.device));
        };
        if device.node != self.cluster.number() {
            return Err(format!("node {} runs device {}", device.node, self.device));
        }
        let message = Message::Replica { device: self.device, term: device.term, asked };
        match self.cluster.call(&member.address, &message, limit).await {
            Ok(Reply::Replica(copied)) => Ok(copied),
            Ok(_) => Err("it answered another question".into()),
            Err(why) => Err(why.to_string()),
        }
    }

    fn is_in(&self, node: NodeNumber) -> bool {
        let state = self.cluster.state();
        let Some(device) = state.devices.get(&self.device) else { return false };
        let known = self.known.lock();
        device.in_sync.contains(&node) || known.copies.get(&node).is_some_and(|copy| copy.may_enter(device))
    }

    /// Has a replica be in sync that has everything, unless it is, or was given up more often than so many times: then it has not said
    /// so since.
    async fn enter(&self, node: NodeNumber, times: u64) {
        let state = self.cluster.state();
        if state.times_given_up(node) != times {
            return;
        }
        let own = self.cluster.number();
        let behind = |device: &&Device| device.node == own && !device.in_sync.contains(&node);
        let Some(device) = state.devices.get(&self.device).filter(behind) else {
            return self.update(node, |copy| copy.awaited = None);
        };
        {
            // Whatever is committed from here on waits for it.
            let mut known = self.known.lock();
            let (newest, adoptions) = (self.newest(), known.adoptions);
            let copy = known.copies.get_mut(&node).filter(|copy| copy.is_whole(newest, adoptions));
            let Some(copy) = copy else { return };
            (copy.entering, copy.awaited) = (Some(device.changes), None);
        }
        if let Err(why) = self.propose(device, node, true).await {
            tracing::debug!(device = self.name, node, "that a replica is in sync is not agreed on yet: {why}");
        } else {
            tracing::info!(device = self.name, node, "a replica has all of the device's checkpoints, and is in sync");
        }
    }

    /// Has a replica be in sync no more; one that was to come in does not, from then on.
    async fn leave(&self, node: NodeNumber) -> Result<(), String> {
        let state = self.cluster.state();
        match state.devices.get(&self.device).filter(|device| device.node == self.cluster.number()) {
            Some(device) => self.propose(device, node, false).await,
            None => Ok(()),
        }
    }

    /// Has the cluster agree that a replica is in sync, or no more, where who is has not changed since the device was like this.
    async fn propose(&self, device: &Device, node: NodeNumber, in_sync: bool) -> Result<(), String> {
        let Device { term, changes, .. } = *device;
        let command = Command::InSync { device: self.device, term, changes, node, in_sync };
        match self.cluster.control().propose(command, AGREE_LIMIT).await {
            Ok(Ok(_)) => {
                self.told(changes).await;
                Ok(())
            }
            Ok(Err(refused)) => Err(refused.to_string()),
            Err(why) => Err(why.to_string()),
        }
    }

    /// Waits until this node has been told of a change after so many; not for ever.
    async fn told(&self, changes: u64) {
        let control = self.cluster.control();
        let told = async {
            let mut seen = control.changes();
            while control.state().devices.get(&self.device).is_some_and(|device| device.changes <= changes) {
                seen = control.changed(seen).await;
            }
        };
        let _ = timeout(AGREE_LIMIT, told).await;
    }

    fn update(&self, node: NodeNumber, change: impl FnOnce(&mut Copy)) {
        if let Some(copy) = self.known.lock().copies.get_mut(&node) {
            change(copy);
        }
        self.changed.notify_waiters();
    }
}

/// Why a replica does not have everything.
enum Failed {
    /// What it lacks cannot be read.
    Here(String),
    There {
        why: String,
        /// When it last took something.
        answered: Option<Instant>,
    },
}
