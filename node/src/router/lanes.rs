//! Messages from this node's actors to those of other nodes, and back.
//!
//! For each node that something was sent to there is a lane, kept by a task for as long as this node runs: it opens a stream to
//! the other node, again whenever one has ended, and writes what has gathered. What is kept, sent again and dropped is decided in
//! [`ringhold_cluster::peers::lane`]; this module ties it to the router's doors.
//!
//! A message goes to the node whose device has its actor's shard, as far as this node knows. Where the shard has moved, that node
//! passes it on ([`HOPS_MAX`] times at most), so tables need not change everywhere at the same moment.
//!
//! What committed actors send is numbered from device to device, and kept by the sending device until a checkpoint of the
//! receiving one has it. What a receiver has, its node says with its acknowledgements. Where the receiver's node has started again
//! since, all that is kept and not covered goes into the lane anew, before anything that is numbered later: under the lane's lock,
//! which nobody waits for who holds a door's.
//!
//! A lane is bounded: where one keeps more than [`LANE_BYTES_MAX`], nothing more is taken from clients. Actors themselves cannot be
//! held back, as they cannot for each other's inboxes; a lane that outgrows its bound by what they send alone is said in the log. A
//! node that is not reached for [`UNREACHABLE_LIMIT`], or was removed, has what is kept for it made dead letters, but for what is
//! numbered, which stays with its device.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::{from_fn, once};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard, RwLock};
use ringhold_cluster::control::Lease;
use ringhold_cluster::control::state::{NodeNumber, State};
use ringhold_cluster::fault::Fault;
use ringhold_cluster::frame::{FrameHeader, LaneError};
use ringhold_cluster::network::BoxFuture;
use ringhold_cluster::peers::lane::{
    DeviceMark, Envelope, HOPS_MAX, Inbound, LANE_BYTES_MAX, LaneReader, LaneStream, LaneWriter, Numbered, Outbound,
    Taken, Wrong, messages,
};
use ringhold_cluster::wire::Close;
use ringhold_kernels::message::{Header, Reason, payload_bytes_max, split_first};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Doubt, Router, find_asks};
use crate::cluster::{Backed, Backing, Cluster, Inlet, Moves, Moving};
use crate::device::door::{Door, Letter};
use crate::device::lanes::Away;
use crate::device::places::NoPlace;
use crate::device::{Device, Outlet};

/// How long a node may be out of reach before what is kept for it is given up.
pub const UNREACHABLE_LIMIT: Duration = Duration::from_secs(30);
/// From asking for a stream to hearing what the other node has.
const OPEN_LIMIT: Duration = Duration::from_secs(5);
/// Before a stream is asked for again. Connections have a longer pause of their own.
const REOPEN_PAUSE: Duration = Duration::from_millis(20);
/// Messages that wait at one door until no more is read from other nodes, and how often it is looked whether they still do.
const WAITING_MAX: usize = 65_536;
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long what is numbered for a device may be here before that is: nodes do not all know at once where one begins.
const BEGIN_LIMIT: Duration = Duration::from_secs(5);

/// What became of a batch.
enum Batch {
    Taken,
    /// A device that it is for is not here yet.
    Waits,
    /// Another stream has begun since.
    Over,
}

/// The lanes of a node to and from others.
#[derive(Default)]
pub(super) struct Lanes {
    to: Mutex<BTreeMap<NodeNumber, Arc<To>>>,
    from: Mutex<BTreeMap<NodeNumber, Arc<From>>>,
    /// To which node goes what is for the device of each number: as agreed, once what was on its way to where the device was before
    /// has been given to where it is. Held while something is sent.
    nodes: RwLock<BTreeMap<u16, NodeNumber>>,
    /// Held while that, and which shards are elsewhere, follows what was agreed on.
    following: Mutex<()>,
    /// There is another one.
    begun: Notify,
    /// How many keep more than they should.
    crowded: AtomicUsize,
}

/// A lane to a node.
struct To {
    node: NodeNumber,
    out: Mutex<Outbound>,
    /// There is more to write.
    more: Notify,
    crowded: AtomicBool,
    /// It has a stream now.
    flows: AtomicBool,
}

/// A lane from a node.
#[derive(Default)]
struct From {
    inbound: Mutex<Inbound>,
    /// There is more to tell the other node, on the newest stream.
    tell: Mutex<Arc<Notify>>,
}

impl Lanes {
    fn to(&self, node: NodeNumber) -> Arc<To> {
        let mut lanes = self.to.lock();
        if let Some(lane) = lanes.get(&node) {
            return lane.clone();
        }
        let lane = Arc::new(To {
            node,
            out: Mutex::default(),
            more: Notify::new(),
            crowded: AtomicBool::new(false),
            flows: AtomicBool::new(false),
        });
        lanes.insert(node, lane.clone());
        self.begun.notify_one();
        lane
    }

    fn all(&self) -> Vec<Arc<To>> {
        self.to.lock().values().cloned().collect()
    }

    fn from(&self, node: NodeNumber) -> Arc<From> {
        self.from.lock().entry(node).or_default().clone()
    }

    /// Whether one of them keeps so much that no more should come.
    pub(super) fn are_crowded(&self) -> bool {
        self.crowded.load(SeqCst) > 0
    }

    /// Whether nothing is on its way to a node that can be reached.
    pub(super) fn are_quiet(&self) -> bool {
        self.all().iter().all(|lane| !lane.flows.load(SeqCst) || lane.out.lock().is_empty())
    }

    /// How far what was sent to a node goes, for [`Lanes::has_arrived`].
    pub(super) fn sent_until_now(&self, node: NodeNumber) -> u64 {
        let lane = self.to.lock().get(&node).cloned();
        lane.map_or(0, |lane| lane.out.lock().pushed_until_now())
    }

    /// Whether a node has all that was sent to it until then.
    pub(super) fn has_arrived(&self, node: NodeNumber, until: u64) -> bool {
        let lane = self.to.lock().get(&node).cloned();
        lane.is_none_or(|lane| lane.out.lock().acked_until() >= until)
    }

    /// Sends messages to a node, before whatever is sent once they are there.
    pub(super) fn push_first(&self, node: NodeNumber, messages: impl FnOnce() -> Vec<(Header, Vec<u8>)>) {
        let lane = self.to(node);
        {
            let mut out = lane.out.lock();
            for (header, payload) in messages() {
                out.push(Envelope::default(), &header, &payload);
            }
        }
        lane.more.notify_one();
    }

    /// Takes in that a checkpoint of this node covers more than before.
    pub(super) fn tell_covered(&self) {
        self.from.lock().values().for_each(|lane| lane.tell.lock().notify_one());
    }

    fn push<'a>(&self, node: NodeNumber, messages: impl Iterator<Item = (Envelope, Header, &'a [u8])>) {
        let lane = self.to(node);
        let bytes = {
            let mut out = lane.out.lock();
            messages.for_each(|(envelope, header, payload)| out.push(envelope, &header, payload));
            out.bytes()
        };
        lane.more.notify_one();
        if bytes > LANE_BYTES_MAX && !lane.crowded.swap(true, SeqCst) {
            self.crowded.fetch_add(1, SeqCst);
            tracing::warn!(
                node,
                bytes,
                "what is kept for another node is over its bound ({LANE_BYTES_MAX}): nothing is taken from clients until it has \
                 taken some"
            );
        }
    }
}

impl Router {
    /// The place of the device of this number, if it is this node's.
    pub(super) fn place_of(&self, number: u16) -> Option<usize> {
        self.devices.iter().position(|device| device.number == number)
    }

    /// Sends a message to the node that has its actor's shard; a dead letter where none is known.
    pub(super) fn send_elsewhere(
        &self,
        envelope: Envelope,
        header: &Header,
        payload: &[u8],
        letters: &mut Vec<Letter>,
    ) {
        // Kept until it is in its lane: who has what is sent held waits for what is there.
        let mut held = self.between.held.lock();
        match held.as_mut().filter(|held| held.shards.has(header.to().key)) {
            Some(held) => held.messages.push((envelope, *header, payload.to_vec())),
            None => self.send_now(envelope, header, payload, letters),
        }
    }

    /// Sends the first of these messages, none of which was on its way before, and in one go with it those that follow and are for
    /// the same node. Returns what is left.
    pub(super) fn send_first<'a>(&self, batch: &'a [u8], letters: &mut Vec<Letter>) -> &'a [u8] {
        let held = self.between.held.lock();
        let nodes = self.lanes.nodes.read();
        let this = self.cluster.as_ref().map(|cluster| cluster.number());
        let node_of = |header: &Header| {
            let node = *nodes.get(&self.shards.number_of(header.to().key))?;
            (held.is_none() && Some(node) != this && self.device_of(header.to()).is_none()).then_some(node)
        };
        let (mut rest, mut to) = (batch, None);
        while let Some((header, _, after)) = split_first(rest)
            && let Some(node) = node_of(&header)
            && *to.get_or_insert(node) == node
        {
            rest = after;
        }
        if let Some(node) = to {
            let mut sent = &batch[..batch.len() - rest.len()];
            let message = || {
                let (header, payload, after) = split_first(sent)?;
                sent = after;
                Some((Envelope::default(), header, payload))
            };
            self.lanes.push(node, from_fn(message));
            return rest;
        }
        // It is held, or for a device that has just begun here, or for nobody.
        drop((nodes, held));
        let Some((header, payload, after)) = split_first(batch) else { return batch };
        self.send_elsewhere(Envelope::default(), &header, payload, letters);
        after
    }

    /// The same, though its shard is about to move.
    pub(super) fn send_now(&self, envelope: Envelope, header: &Header, payload: &[u8], letters: &mut Vec<Letter>) {
        let device = self.bound_for(&envelope, header);
        let nodes = self.lanes.nodes.read();
        match nodes.get(&device).copied().filter(|_| envelope.hops <= HOPS_MAX) {
            Some(node) if !self.is_this(node) => self.lanes.push(node, once((envelope, *header, payload))),
            // It has just begun here.
            Some(_) if self.place_of(device).is_some() => {
                drop(nodes);
                self.take_now(envelope, header, payload, letters);
            }
            _ => self.turn_away(header, payload, Reason::NoDevice, letters),
        }
    }

    /// As [`Router::take_one`], of what may be held no more.
    fn take_now(&self, envelope: Envelope, header: &Header, payload: &[u8], letters: &mut Vec<Letter>) {
        if let Some((place, numbered)) = envelope.numbered.and_then(|n| Some((self.place_of(n.to)?, n)))
            && self.let_in_numbered(place, numbered, header, payload, letters)
        {
            return;
        }
        if !self.let_in(header, payload, letters) {
            self.send_now(Envelope { hops: envelope.hops + 1, numbered: None }, header, payload, letters);
        }
    }

    /// Marks a message as taken by the device at this place, for which it was numbered, and lets it have it. False where its shard is
    /// another one's by now, which is to have it.
    fn let_in_numbered(
        &self,
        place: usize,
        numbered: Numbered,
        header: &Header,
        payload: &[u8],
        letters: &mut Vec<Letter>,
    ) -> bool {
        // Mark and message in one go, for a checkpoint must not have the one without the other.
        let mut door = self.devices[place].door.lock();
        if !door.takes(numbered.from, numbered.number) {
            return true;
        }
        match self.device_of(header.to()) {
            Some(now) if now == place => door.pass_on(header, payload, letters),
            // Its shard has moved since it was numbered.
            None if door.forwards(header, payload) => self.devices[place].look_for_early(&door),
            _ => return false,
        }
        true
    }

    /// Lets the device of this node have a message that has its actor's shard. False where none has.
    fn let_in(&self, header: &Header, payload: &[u8], letters: &mut Vec<Letter>) -> bool {
        match self.door_of(header.to()) {
            // Nodes may have slots of different sizes.
            Some(_) if payload.len() > payload_bytes_max(self.slot_bytes as usize) => {
                letters.push(Letter::new(header, payload, Reason::TooLarge));
            }
            Some((_, mut door)) => door.pass_on(header, payload, letters),
            None => return false,
        }
        true
    }

    /// Whether this node is to run the device of this number, as agreed; it may be about to begin.
    fn is_to_run(&self, number: u16) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        cluster.state().devices.get(&number).is_some_and(|device| device.node == cluster.number())
    }

    /// The number of the device that a message goes to.
    fn bound_for(&self, envelope: &Envelope, header: &Header) -> u16 {
        envelope.numbered.map_or_else(|| self.shards.number_of(header.to().key), |numbered| numbered.to)
    }

    fn is_this(&self, node: NodeNumber) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.number() == node)
    }

    /// The other node that has the device of this number.
    pub(super) fn node_of(&self, number: u16) -> Option<NodeNumber> {
        let node = *self.lanes.nodes.read().get(&number)?;
        (!self.is_this(node)).then_some(node)
    }

    /// Passes on what a device has numbered.
    pub(super) fn pass_on_numbered(&self, from: &Device, batch: &[Away]) {
        let mut letters = Vec::new();
        for away in batch {
            let numbered = Numbered { from: from.number, to: away.device, number: away.number };
            // First: who begins here meanwhile is at its place once it is no other node's.
            let node = self.node_of(away.device);
            match (self.place_of(away.device), node) {
                (Some(place), _) => {
                    self.take_numbered(place, numbered, 0, &away.header, &away.payload, &mut letters);
                }
                (None, Some(_)) => {
                    let envelope = Envelope { hops: 0, numbered: Some(numbered) };
                    self.send_elsewhere(envelope, &away.header, &away.payload, &mut letters);
                }
                // What is kept for it is given to it as it begins here.
                (None, None) if self.is_to_run(away.device) => {}
                // There is no such device any more: nobody will ever say that it has it.
                (None, None) => {
                    from.door.lock().cover_away(away.device, away.number);
                    self.pass_on_one(Envelope::default(), &away.header, &away.payload, &mut letters);
                }
            }
        }
        self.keep("", letters);
    }

    /// Lets the device at this place have a message that was numbered for it, if it has not come before.
    fn take_numbered(
        &self,
        place: usize,
        numbered: Numbered,
        hops: u8,
        header: &Header,
        payload: &[u8],
        letters: &mut Vec<Letter>,
    ) {
        // Of shards that are about to be this device's: they are taken once they are.
        if let Some(held) = self.between.held.lock().as_mut().filter(|held| held.shards.has(header.to().key)) {
            let envelope = Envelope { hops, numbered: Some(numbered) };
            return held.messages.push((envelope, *header, payload.to_vec()));
        }
        if !self.let_in_numbered(place, numbered, header, payload, letters) {
            self.pass_on_one(Envelope { hops, numbered: None }, header, payload, letters);
        }
    }

    /// Passes a message on to the device that has its actor's shard.
    pub(super) fn pass_on_one(&self, envelope: Envelope, header: &Header, payload: &[u8], letters: &mut Vec<Letter>) {
        if !self.let_in(header, payload, letters) {
            self.send_elsewhere(Envelope { hops: envelope.hops + 1, ..envelope }, header, payload, letters);
        }
    }

    /// Carries messages to other nodes, for as long as the node runs, and follows where shards are.
    pub async fn carry_between_nodes(self: Arc<Router>) {
        let Some(cluster) = self.cluster.clone() else { return std::future::pending().await };
        let (mut carrying, mut carried) = (JoinSet::new(), BTreeSet::new());
        let mut seen = cluster.changes();
        loop {
            self.follow(&cluster);
            for lane in self.lanes.all() {
                if carried.insert(lane.node) {
                    carrying.spawn(self.clone().carry_to(cluster.clone(), lane));
                }
            }
            self.between.tasks.lock().drain(..).for_each(|task| drop(carrying.spawn(task)));
            tokio::select! {
                biased;
                () = self.lanes.begun.notified() => {}
                () = self.between.more_tasks.notified() => {}
                now = cluster.changed(seen) => seen = now,
                Some(Err(ended)) = carrying.join_next() => std::panic::resume_unwind(ended.into_panic()),
            }
        }
    }

    /// Takes in which devices of other nodes have which shards, and where devices are, by the newest that this node knows.
    pub fn follow(&self, cluster: &Cluster) {
        // One at a time, or an older one may come after a newer one.
        let _one = self.lanes.following.lock();
        let state = &*cluster.state();
        self.follow_devices(state);
        for (number, shard) in state.shards.iter().enumerate() {
            self.shards.has_elsewhere(number, shard.owner, shard.term as u32);
        }
    }

    /// Takes in which node has which device. What was on its way to where one was before goes to where it is, and behind that what is
    /// sent from now on. One that is to begin here is followed as it does: see [`Router::settle_in`].
    fn follow_devices(&self, state: &State) {
        let is_new = |nodes: &BTreeMap<u16, NodeNumber>| {
            let here = |number| self.place_of(number).is_some();
            let moved = state.devices.iter().filter(|(number, device)| {
                // What is known of one that runs here is newer than a state in which it does not.
                nodes.get(number) != Some(&device.node) && self.is_this(device.node) == here(**number)
            });
            moved.map(|(number, device)| (*number, device.node)).collect::<Vec<_>>()
        };
        if is_new(&self.lanes.nodes.read()).is_empty() {
            return;
        }
        let mut nodes = self.lanes.nodes.write();
        for (number, node) in is_new(&nodes) {
            let before = nodes.insert(number, node).filter(|_| !self.is_this(node));
            let Some(before) = before else { continue };
            let plain = self.taken_back(before, number);
            let lane = self.lanes.to(node);
            {
                let mut out = lane.out.lock();
                for device in &self.devices {
                    for away in device.door.lock().kept_after(number, 0) {
                        let numbered = Some(Numbered { from: device.number, to: number, number: away.number });
                        out.push(Envelope { hops: 0, numbered }, &away.header, &away.payload);
                    }
                }
                plain.iter().for_each(|(envelope, header, payload)| out.push(*envelope, header, payload));
            }
            lane.more.notify_one();
        }
    }

    /// What was on its way to a device at the node where it is no more, but for what is numbered: that is kept by who has sent it.
    fn taken_back(&self, node: NodeNumber, device: u16) -> Vec<(Envelope, Header, Vec<u8>)> {
        let mut plain = Vec::new();
        if !self.is_this(node) {
            self.lanes.to(node).out.lock().take_back(|envelope, header, payload| {
                let goes = self.bound_for(envelope, header) == device;
                if goes && envelope.numbered.is_none() {
                    plain.push((*envelope, *header, payload.to_vec()));
                }
                goes
            });
        }
        plain
    }

    /// Has a device that begins here be found, with all that devices of this node keep for it and that was on its way to where it was.
    pub(super) fn settle_in(&self, device: &Arc<Device>, letters: &mut Vec<Letter>) -> Result<(), NoPlace> {
        let mut elsewhere = Vec::new();
        let mut nodes = self.lanes.nodes.write();
        for other in &self.devices {
            let kept: Vec<Away> = other.door.lock().kept_after(device.number, 0).cloned().collect();
            let mut door = device.door.lock();
            for Away { number, header, payload, .. } in kept {
                if !door.takes(other.number, number) {
                    continue;
                }
                match self.shards.of(header.to().key) == device.index {
                    true => door.pass_on(&header, &payload, letters),
                    // Its shard is another device's by now.
                    false if door.forwards(&header, &payload) => {}
                    false => elsewhere.push((Envelope::default(), header, payload)),
                }
            }
        }
        let before = nodes.get(&device.number).copied();
        for (envelope, header, payload) in before.map(|b| self.taken_back(b, device.number)).unwrap_or_default() {
            match self.shards.of(header.to().key) == device.index {
                true => device.door.lock().pass_on(&header, &payload, letters),
                false => elsewhere.push((envelope, header, payload)),
            }
        }
        {
            // A client that comes meanwhile waits for the door, and is met by it either way.
            let mut doubts = self.doubts.lock();
            let mut door = device.door.lock();
            self.devices.add(device.clone())?;
            for session in self.sessions.all() {
                door.clients().detach(session.client(), session.connection());
                door.clients().attach(session.number(), session.taken() + 1);
                let mine = |doubt: &&mut Doubt| Arc::ptr_eq(&doubt.session, &session);
                doubts.iter_mut().filter(mine).for_each(|doubt| find_asks(&mut door, &session, &mut doubt.asks));
            }
            door.clients().begin_here(&self.shards.owned_by(device.index));
        }
        if let Some(cluster) = &self.cluster {
            nodes.insert(device.number, cluster.number());
        }
        drop(nodes);
        for (envelope, header, payload) in elsewhere {
            self.pass_on_one(envelope, &header, &payload, letters);
        }
        Ok(())
    }

    /// Keeps a stream to a node. An idle one, too: it is by its stream that a node that has started again is noticed.
    async fn carry_to(self: Arc<Router>, cluster: Arc<Cluster>, lane: Arc<To>) {
        let mut lost = None;
        loop {
            let Err(why) = self.carry_on_a_stream(&cluster, &lane, &mut lost).await;
            lane.flows.store(false, SeqCst);
            let since: Instant = *lost.get_or_insert_with(Instant::now);
            let removed = !cluster.state().nodes.contains_key(&lane.node);
            if removed || since.elapsed() >= UNREACHABLE_LIMIT {
                self.give_up(&lane, Reason::Unreachable, &why);
            }
            sleep(REOPEN_PAUSE).await;
        }
    }

    /// Opens a stream and uses it until it ends; says why it did.
    async fn carry_on_a_stream(
        &self,
        cluster: &Cluster,
        lane: &To,
        lost: &mut Option<Instant>,
    ) -> Result<std::convert::Infallible, String> {
        let state = cluster.state();
        let member = state.nodes.get(&lane.node).ok_or("it was removed from the cluster")?;
        let opened = cluster.peers().open_lane(&member.address, member.id, OPEN_LIMIT).await;
        let LaneStream { node, writer, mut reader } = opened.map_err(|e| e.to_string())?;
        let first = timeout(OPEN_LIMIT, reader.next()).await.map_err(|_| "it does not say what it has")?;
        match first.map_err(|e| e.to_string())? {
            Some((header, body)) => self.welcomed(lane, node.incarnation, &header, body),
            None => return Err("it takes no messages now".into()),
        }
        .map_err(|e| e.to_string())?;
        *lost = None;
        lane.flows.store(true, SeqCst);
        tokio::select! {
            biased;
            ended = self.hear(lane, reader) => ended,
            ended = write(lane, writer, cluster.lease()) => ended.map_err(|e| e.to_string()),
        }
    }

    /// Takes in what another node has, at the begin of a stream; and gives it again what it may need.
    fn welcomed(&self, lane: &To, run: u64, header: &FrameHeader, body: &[u8]) -> Result<(), Wrong> {
        let marks = DeviceMark::read(body)?;
        // Of the devices that what is sent to goes to that node now, which may be fewer than when the stream was asked for.
        let nodes = self.lanes.nodes.read();
        let mut out = lane.out.lock();
        let again = out.welcomed(run, header.mark)?;
        self.cover(&marks);
        for device in self.devices.iter().filter(|_| again) {
            let door = device.door.lock();
            for to in nodes.iter().filter(|(_, node)| **node == lane.node).map(|(to, _)| *to) {
                let taken = marks.iter().find(|mark| (mark.from, mark.to) == (device.number, to));
                for away in door.kept_after(to, taken.map_or(0, |mark| mark.taken)) {
                    let numbered = Some(Numbered { from: device.number, to, number: away.number });
                    out.push(Envelope { hops: 0, numbered }, &away.header, &away.payload);
                }
            }
        }
        drop((out, nodes));
        self.look_for_room(lane);
        Ok(())
    }

    /// Lets this node's devices let go of what those of another have.
    fn cover(&self, marks: &[DeviceMark]) {
        for mark in marks {
            if let Some(place) = self.place_of(mark.from) {
                let mut door = self.devices[place].door.lock();
                door.skip_away(mark.to, mark.taken);
                door.cover_away(mark.to, mark.covered);
            }
        }
    }

    /// Takes in what another node says of what it was sent, until its stream ends.
    async fn hear(&self, lane: &To, mut reader: LaneReader) -> Result<std::convert::Infallible, String> {
        while let Some((header, body)) = reader.next().await.map_err(|e| e.to_string())? {
            let marks = DeviceMark::read(body).map_err(|e| e.to_string())?;
            lane.out.lock().acked(header.mark).map_err(|e| e.to_string())?;
            self.cover(&marks);
            self.look_for_room(lane);
        }
        Err("it has ended the stream".into())
    }

    fn look_for_room(&self, lane: &To) {
        if lane.crowded.load(SeqCst) && lane.out.lock().bytes() <= LANE_BYTES_MAX {
            lane.crowded.store(false, SeqCst);
            self.lanes.crowded.fetch_sub(1, SeqCst);
            Outlet::room(self);
        }
    }

    /// Makes dead letters of what is kept for a node, but for what has another way by now.
    fn give_up(&self, lane: &To, reason: Reason, why: &str) {
        let mut given_up = Vec::new();
        lane.out.lock().give_up(|envelope, header, payload| given_up.push((*envelope, *header, payload.to_vec())));
        self.look_for_room(lane);
        if given_up.is_empty() {
            return;
        }
        let mut letters = Vec::new();
        for (envelope, header, payload) in given_up {
            let is_there = self.node_of(self.shards.number_of(header.to().key)).is_none_or(|now| now == lane.node);
            match self.device_of(header.to()).is_none() && is_there {
                true => letters.push(Letter::new(&header, &payload, reason)),
                false => self.pass_on_one(envelope, &header, &payload, &mut letters),
            }
        }
        tracing::warn!(
            node = lane.node,
            letters = letters.len(),
            "messages for another node are given up, and kept as dead letters: {why}"
        );
        self.keep("", letters);
    }

    /// Gives up what no other node has taken, as this one ends.
    pub fn give_up_lanes(&self) {
        self.lanes.all().iter().for_each(|lane| self.give_up(lane, Reason::Stopping, "this node stops"));
    }

    /// Takes a batch of another node's actors' messages, unless some are numbered for a device that is not here, and may be about to
    /// begin: then it is taken where there is no `patience` any more.
    fn take_batch(
        &self,
        lane: &From,
        stream: u64,
        (header, body): (&FrameHeader, &[u8]),
        patience: bool,
    ) -> Result<Batch, Wrong> {
        let misses = |envelope: &Envelope| envelope.numbered.is_some_and(|n| self.place_of(n.to).is_none());
        let begins = |envelope: &Envelope| envelope.numbered.is_some_and(|n| self.is_to_run(n.to));
        let waits = |envelope: &Envelope| misses(envelope) && (patience || begins(envelope));
        if messages(body, header.count)?.any(|(envelope, ..)| waits(&envelope)) {
            return Ok(Batch::Waits);
        }
        let messages = messages(body, header.count)?;
        // Until they are at their doors: what is taken is acknowledged.
        let mut inbound = lane.inbound.lock();
        match inbound.takes(stream, header)? {
            Taken::New => {}
            Taken::Before => return Ok(Batch::Taken),
            Taken::Over => return Ok(Batch::Over),
        }
        let mut letters = Vec::new();
        // The device that the last message was for, and its door, which stays locked while what follows is for it too.
        let mut open: Option<(usize, Inside)> = None;
        for (envelope, header, payload) in messages {
            let place = self.device_of(header.to()).filter(|_| envelope.numbered.is_none());
            if open.as_ref().map(|(place, _)| *place) != place {
                drop(open.take());
                open = place.map(|place| (place, Inside(self.devices[place].door.lock())));
            }
            match &mut open {
                // Looked at again: as long as the door is locked the shard does not move.
                Some((place, inside))
                    if self.device_of(header.to()) == Some(*place)
                        && payload.len() <= payload_bytes_max(self.slot_bytes as usize) =>
                {
                    inside.0.take_in(&header, payload, &mut letters);
                }
                _ => {
                    drop(open.take());
                    self.take_one(envelope, &header, payload, &mut letters);
                }
            }
        }
        drop(open);
        self.keep("", letters);
        Ok(Batch::Taken)
    }

    /// Takes a message that has come to this node.
    fn take_one(&self, envelope: Envelope, header: &Header, payload: &[u8], letters: &mut Vec<Letter>) {
        match envelope.numbered.and_then(|numbered| Some((self.place_of(numbered.to)?, numbered))) {
            Some((place, numbered)) => self.take_numbered(place, numbered, envelope.hops, header, payload, letters),
            // The device is another node's by now, and who has numbered it for the device keeps it, and gives it to that node too: under
            // its number it is taken once.
            None if envelope.numbered.is_some_and(|numbered| self.node_of(numbered.to).is_some()) => {
                self.send_elsewhere(Envelope { hops: envelope.hops + 1, ..envelope }, header, payload, letters);
            }
            None => self.pass_on_one(Envelope { numbered: None, ..envelope }, header, payload, letters),
        }
    }

    /// Takes what comes on a stream of another node, until it ends.
    async fn take_from_stream(
        &self,
        lane: &From,
        number: u64,
        tell: &Notify,
        mut reader: LaneReader,
    ) -> Result<(), Fault> {
        loop {
            match reader.next().await {
                Ok(Some((header, body))) => {
                    let since = Instant::now();
                    loop {
                        match self.take_batch(lane, number, (&header, body), since.elapsed() < BEGIN_LIMIT) {
                            Ok(Batch::Taken) => break tell.notify_one(),
                            Ok(Batch::Waits) => sleep(LOOK_EVERY).await,
                            Ok(Batch::Over) => return Ok(()),
                            Err(e) => return Err(Fault::new(Close::Frame, e.to_string())),
                        }
                    }
                }
                Err(LaneError::Frame(e)) => return Err(Fault::new(Close::Frame, e.to_string())),
                Ok(None) | Err(_) => return Ok(()),
            }
            // Where a device does not keep up, the other node keeps what it has.
            while self.devices.iter().any(|device| device.door.lock().waits() > WAITING_MAX) {
                sleep(LOOK_EVERY).await;
            }
        }
    }

    /// Tells another node what was taken of its messages, and what it need not keep any more.
    async fn tell(&self, node: NodeNumber, lane: &From, tell: &Notify, mut writer: LaneWriter) -> Result<(), Fault> {
        let (mut told, mut told_taken) = (BTreeMap::new(), None);
        loop {
            let mark = lane.inbound.lock().taken();
            let (mut body, mut marks) = (Vec::new(), self.marks_for(node));
            marks.retain(|mark| told.insert((mark.from, mark.to), *mark) != Some(*mark));
            marks.iter().for_each(|mark| mark.push(&mut body));
            if told_taken != Some(mark) || !body.is_empty() {
                let header = FrameHeader { len: body.len() as u32, mark, ..FrameHeader::default() };
                if writer.write(header, body.into()).await.is_err() {
                    return Ok(());
                }
                told_taken = Some(mark);
            }
            tell.notified().await;
        }
    }

    /// What this node's devices have of those of another.
    fn marks_for(&self, node: NodeNumber) -> Vec<DeviceMark> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        let mut marks = Vec::new();
        for (from, _) in cluster.state().devices_of(node) {
            for device in &self.devices {
                let door = device.door.lock();
                let (taken, covered) = (door.taken_from(from), door.covered_from(from));
                marks.push(DeviceMark { from, to: device.number, taken, covered: covered.min(taken) });
            }
        }
        marks.retain(|mark| mark.taken > 0);
        marks
    }
}

/// A device's door, into which messages are taken: as it is left, they are let in.
struct Inside<'a>(MutexGuard<'a, Door>);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.let_in_taken();
    }
}

/// Writes what gathers in a lane, until its stream ends.
async fn write(lane: &To, mut writer: LaneWriter, lease: Option<Lease>) -> Result<std::convert::Infallible, LaneError> {
    loop {
        let next = lane.out.lock().next_to_write();
        match next {
            Some((header, body)) => {
                // After it was taken: what came about while nobody else could have this node's devices may go out however late.
                if let Some(lease) = &lease {
                    lease.held().await;
                }
                writer.write(header, body).await?;
            }
            None => lane.more.notified().await,
        }
    }
}

impl Inlet for Router {
    fn take_from(&self, node: NodeNumber, stream: LaneStream) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let lane = self.lanes.from(node);
            let number = lane.inbound.lock().begins(stream.node.incarnation);
            let tell = Arc::new(Notify::new());
            *lane.tell.lock() = tell.clone();
            tokio::select! {
                biased;
                ended = self.take_from_stream(&lane, number, &tell, stream.reader) => ended,
                ended = self.tell(node, &lane, &tell, stream.writer) => ended,
            }
        })
    }

    fn moving(&self, node: NodeNumber, asked: Moving) -> BoxFuture<'_, Result<Moves, String>> {
        Box::pin(async move {
            let router = self.me.upgrade().ok_or("the node is stopping")?;
            router.answer_moving(node, asked).await
        })
    }

    fn backing(&self, asked: Backing) -> BoxFuture<'_, Result<Backed, String>> {
        Box::pin(self.answer_backing(asked))
    }
}
