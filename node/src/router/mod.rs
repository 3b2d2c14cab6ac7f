//! From a client's message to a device's door, and from a device to who waits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use ringhold_cluster::control::Lease;
use ringhold_cluster::frame::{client_id, session_and_number};
use ringhold_cluster::network::{BoxFuture, Network};
use ringhold_cluster::wire::{
    ActorState, ActorType, Failed, NodeName, NodeState, Owners, Request, Response, Settled, Status, TypeLayout,
};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::ActorId;
use ringhold_kernels::message::{Header, Inspected, Kind, Reason, append, payload_bytes_max, split_first};
use ringhold_kernels::outbox::shard_of;
use ringhold_kernels::registry::Registry;
use ringhold_storage::dead_letters::{self, DeadLetters};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::device::door::{Admitted, Door, Known, Letter, Outcome, Sender};
use crate::device::keeper::Jobs;
use crate::device::places::Places;
use crate::device::{Device, Outlet};
use crate::health::Pulse;
use crate::server::{self, About, Client, Doors, Gone, Remembered, Session, Sessions};
use crate::shards::{ShardTable, Shards};
use crate::shed::Level;

mod away;
mod backup;
pub mod begin;
pub mod lanes;
mod letters;
pub mod migrate;
mod placing;
mod pressure;
mod retire;

/// Knows which device owns which shard, and who waits for what.
pub struct Router {
    pub name: NodeName,
    registry: Arc<Registry>,
    slot_bytes: u32,
    devices: Places,
    shards: Arc<Shards>,
    /// Who says so durably which device owns each shard, where that may change.
    table: Option<Arc<dyn ShardTable>>,
    /// Held while shards move.
    migrating: Arc<tokio::sync::Mutex<()>>,
    /// When shards have moved.
    moved: Mutex<BTreeMap<u32, Instant>>,
    /// For what goes on though nobody waits for it.
    me: Weak<Router>,
    /// What the node belongs to.
    cluster: Option<Arc<Cluster>>,
    /// To and from other nodes.
    lanes: lanes::Lanes,
    between: away::Between,
    /// What is held and pinned for backups.
    backups: Arc<backup::Sessions>,
    sessions: Arc<Sessions>,
    letters: Arc<dyn DeadLetters>,
    letters_lost: AtomicU64,
    network: Arc<dyn Network>,
    jobs: Arc<dyn Jobs>,
    pub pulse: Arc<Pulse>,
    pressure: pressure::State,
    /// Held while dead letters are sent again or dropped, so that none is sent twice.
    handling_letters: tokio::sync::Mutex<()>,
    reading_letters: Arc<Semaphore>,
    room: Notify,
    /// Asks of which no device that is here knows, while another begins that may.
    doubts: Mutex<Vec<Doubt>>,
    /// The node's own questions to actors, by ticket.
    pending: Mutex<HashMap<u32, Waiter>>,
    next_ticket: AtomicU32,
    pub draining: AtomicBool,
    pub drain_asked: Notify,
    started: Instant,
}

/// Asks that a client waits for, whose answers are owed by its session.
struct Doubt {
    session: Arc<Session>,
    asks: BTreeSet<u64>,
}

/// Tells a client the answers to those of its asks that a device knows of, or has it wait for them. The others are left.
fn find_asks(door: &mut Door, session: &Session, asks: &mut BTreeSet<u64>) {
    asks.retain(|number| match door.known(session.number(), *number) {
        Known::Waits => {
            door.clients().wait_for(session.number(), *number);
            false
        }
        Known::Answered(answer, payload) => {
            session.answer(answer, &payload);
            false
        }
        Known::Nothing => true,
    });
}

/// Takes the answer to one of the node's own questions.
type Waiter = oneshot::Sender<(Header, Vec<u8>)>;

/// The session number of the node's own questions, and of no client.
const OWN_SESSION: u32 = 0;
/// How often a settling node looks again.
const SETTLE_EVERY: Duration = Duration::from_millis(1);
/// How long the node waits for an actor's state.
const INSPECT_DEADLINE: Duration = Duration::from_secs(5);
/// How often it starts over because the actor handled a message between two parts of its state.
const INSPECT_TRIES: usize = 20;

/// What a router is made of.
pub struct Parts {
    pub name: NodeName,
    pub registry: Arc<Registry>,
    pub slot_bytes: u32,
    pub devices: Vec<Arc<Device>>,
    pub shards: Arc<Shards>,
    /// Who says so durably which device owns each shard; `None` where nothing is kept.
    pub table: Option<Arc<dyn ShardTable>>,
    pub sessions: Arc<Sessions>,
    pub letters: Arc<dyn DeadLetters>,
    pub network: Arc<dyn Network>,
    /// Who reads dead letters.
    pub jobs: Arc<dyn Jobs>,
    /// What the node belongs to; `None` where it stands alone.
    pub cluster: Option<Arc<Cluster>>,
}

impl Router {
    pub fn new(parts: Parts) -> Arc<Router> {
        let Parts { name, registry, slot_bytes, devices, shards, table, sessions, letters, network, jobs, cluster } =
            parts;
        for (from, to) in pairs(&devices) {
            let taken = to.door.lock().taken_from(from.number);
            from.door.lock().skip_away(to.number, taken);
        }
        // Answers to questions of an earlier start may still come out of a checkpoint.
        let mut first_ticket = [0; 4];
        network.random(&mut first_ticket);
        Arc::new_cyclic(|me: &Weak<Router>| Router {
            name,
            registry,
            slot_bytes,
            devices: Places::new(devices),
            shards,
            table,
            migrating: Arc::default(),
            moved: Mutex::default(),
            me: me.clone(),
            cluster,
            lanes: Default::default(),
            between: Default::default(),
            backups: Default::default(),
            sessions,
            letters,
            letters_lost: AtomicU64::new(0),
            network,
            jobs,
            pulse: Arc::default(),
            pressure: pressure::State::default(),
            handling_letters: Default::default(),
            reading_letters: Arc::new(Semaphore::new(letters::READERS_MAX)),
            room: Notify::new(),
            doubts: Mutex::default(),
            pending: Mutex::default(),
            next_ticket: AtomicU32::new(u32::from_le_bytes(first_ticket)),
            draining: AtomicBool::new(false),
            drain_asked: Notify::new(),
            started: Instant::now(),
        })
    }

    /// Which device has which shard now.
    pub fn shards(&self) -> &Shards {
        &self.shards
    }

    /// The devices that the node runs.
    pub fn devices(&self) -> &Places {
        &self.devices
    }

    /// Those of them that are there: what has had its place and went keeps it.
    fn present(&self) -> impl Iterator<Item = &Arc<Device>> {
        self.devices.iter().filter(|device| !device.is_retired())
    }

    /// The place of the device that has an actor's shard; `None` where it is of another node.
    fn device_of(&self, to: ActorId) -> Option<usize> {
        let owner = usize::from(self.shards.of(to.key));
        // One that is about to begin is not there yet.
        (owner < self.devices.len()).then_some(owner)
    }

    /// Whether somebody has an actor's shard, as the cluster has agreed, and whether that is this node.
    fn owned(&self, to: ActorId) -> Option<bool> {
        let cluster = self.cluster.as_ref()?;
        Some(cluster.owner(shard_of(to.key))? == cluster.number())
    }

    fn now(&self) -> Hlc {
        Hlc::at_us(self.network.wall_us())
    }

    /// Keeps dead letters. That the disk may refuse them must not stop anything else: then they are counted alone.
    /// An ask is none: its asker is told.
    fn keep(&self, device: &str, letters: Vec<Letter>) {
        let (asks, letters): (Vec<_>, Vec<_>) =
            letters.into_iter().partition(|l| l.header.is(Kind::Ask) || l.header.is(Kind::Inspect));
        let mut answers = Vec::new();
        for Letter { header, reason, .. } in asks {
            let answer = Header::new(Kind::Error, header.from(), header.to(), 0, self.now()).with_reason(reason);
            append(&mut answers, &answer, &[]);
        }
        self.deliver(&answers);
        if letters.is_empty() {
            return;
        }
        let at_us = self.network.wall_us();
        let letters: Vec<_> = letters
            .into_iter()
            .map(|l| dead_letters::DeadLetter {
                header: l.header,
                payload: l.payload,
                reason: l.reason,
                at_us,
                device: device.into(),
                history: l.history,
            })
            .collect();
        if let Err(e) = self.letters.append(&letters) {
            let lost = match &e {
                dead_letters::Error::NoRoom { lost, .. } => *lost,
                _ => letters.len() as u64,
            };
            let before = self.letters_lost.fetch_add(lost, SeqCst);
            // One line for each doubling: they may be many.
            if before == 0 || (before + lost).ilog2() > before.ilog2() {
                tracing::error!(lost = before + lost, "dead letters could not be kept, only counted: {e}");
            }
        }
    }

    /// Answers an ask that no device took, or makes a dead letter of a tell.
    fn turn_away(&self, header: &Header, payload: &[u8], reason: Reason, letters: &mut Vec<Letter>) {
        if header.is(Kind::Ask) || header.is(Kind::Inspect) {
            let answer = Header::new(Kind::Error, header.from(), header.to(), 0, self.now()).with_reason(reason);
            self.sessions.answer(answer, &[]);
        } else {
            letters.push(Letter::new(header, payload, reason));
        }
    }

    /// Carries messages from one device of this node to others, and to other nodes.
    fn pass_on(&self, batch: &[u8]) {
        let mut letters = Vec::new();
        let mut rest = batch;
        while let Some((header, payload, after)) = split_first(rest) {
            rest = match self.door_of(header.to()) {
                Some((_, mut door)) => {
                    door.pass_on(&header, payload, &mut letters);
                    after
                }
                None => self.send_first(rest, &mut letters),
            };
        }
        self.keep("", letters);
    }

    /// The device that has an actor's shard, and its door, locked: as long as it is, the shard does not move.
    /// `None` where it is of another node.
    fn door_of(&self, to: ActorId) -> Option<(&Device, MutexGuard<'_, Door>)> {
        loop {
            let number = self.device_of(to)?;
            let door = self.devices[number].door.lock();
            if self.device_of(to) == Some(number) {
                return Some((&self.devices[number], door));
            }
        }
    }

    /// Lets a device let go of what another has of it.
    fn let_go(&self, from: &Device, to: &Device) {
        let covered = to.door.lock().covered_from(from.number);
        from.door.lock().cover_away(to.number, covered);
    }

    /// Tells a client again the answers to asks that came before; those that still wait will get theirs. `first` is the first
    /// message that has yet to come on the session's connection, or one before.
    fn tell_again(&self, session: &Arc<Session>, first: u64, mut asks: BTreeSet<u64>) {
        // Before the devices that are here: one that begins meanwhile finds what nobody here knows.
        let mut doubts = self.doubts.lock();
        let begins = self.begins_devices();
        // All of them, in their order: an ask that moves is seen at one of its two devices, and its answer is told here or later.
        let mut doors: Vec<MutexGuard<'_, Door>> = self.devices.iter().map(|device| device.door.lock()).collect();
        for door in &mut doors {
            door.clients().attach(session.number(), first);
            find_asks(door, session, &mut asks);
        }
        match begins && !asks.is_empty() {
            true => doubts.push(Doubt { session: session.clone(), asks }),
            false => asks.into_iter().for_each(|number| session.answer(server::lost(session, number), &[])),
        }
    }

    /// Whether the node is to run a device that is not at its place yet.
    fn begins_devices(&self) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        cluster.state().devices_of(cluster.number()).any(|(number, _)| self.place_of(number).is_none())
    }

    /// Tells clients that nobody knows of what no device here does, once no other begins.
    fn end_doubts(&self) {
        let mut doubts = self.doubts.lock();
        if self.begins_devices() {
            return;
        }
        for Doubt { session, asks } in doubts.drain(..) {
            asks.into_iter().for_each(|number| session.answer(server::lost(&session, number), &[]));
        }
    }

    /// Hands answers to sessions, and the node's own to whoever of its tasks waits.
    fn deliver(&self, answers: &[u8]) {
        if self.pending.lock().is_empty() {
            return self.sessions.deliver(answers);
        }
        let mut rest = answers;
        while let Some((header, payload, after)) = split_first(rest) {
            match session_and_number(header.to()) {
                (OWN_SESSION, ticket) => {
                    if let Some(waiter) = self.pending.lock().remove(&ticket) {
                        // Who gave up waiting has dropped the receiver.
                        let _ = waiter.send((header, payload.to_vec()));
                    }
                }
                _ => self.sessions.answer(header, payload),
            }
            rest = after;
        }
    }

    async fn inspect(&self, id: ActorId) -> Result<ActorState, Failed> {
        let Some(actor) = self.registry.get(id.type_id) else {
            return Err(Failed::new(Reason::UnknownType, format!("no actor type {:?} is registered here", id.type_id)));
        };
        let Some(device) = self.device_of(id).map(|number| &self.devices[number]) else {
            return self.inspect_elsewhere(id).await;
        };
        for _ in 0..INSPECT_TRIES {
            let (mut state, mut first) = (Vec::new(), None);
            while let Some((about, bytes)) = self.inspect_part(id, state.len() as u32).await.map(Some)? {
                let first = *first.get_or_insert(about);
                if about.handled != first.handled {
                    break;
                }
                state.extend_from_slice(&bytes);
                if state.len() as u32 >= about.state_bytes {
                    return Ok(ActorState {
                        type_id: id.type_id,
                        key: id.key.into(),
                        device: device.name.clone(),
                        worker: about.worker,
                        handled: about.handled,
                        faults: about.faults,
                        layout_hash: actor.layout_hash,
                        state,
                    });
                }
            }
        }
        Err(Failed::text(
            "the actor is too busy to be looked at whole: its state is larger than a slot and changes all the time",
        ))
    }

    /// Asks the node that has the actor.
    async fn inspect_elsewhere(&self, id: ActorId) -> Result<ActorState, Failed> {
        let nobody = || Failed::new(Reason::NoDevice, "no device owns the actor's shard");
        let cluster = self.cluster.as_ref().ok_or_else(nobody)?;
        let request = Request::Inspect { type_id: id.type_id, key: id.key.into() };
        match cluster.ask_owner(shard_of(id.key), request).await.ok_or_else(nobody)?? {
            Response::Inspected(state) => Ok(state),
            Response::Failed(failed) => Err(failed),
            _ => Err(Failed::text("the node that has the actor answered another question")),
        }
    }

    async fn inspect_part(&self, id: ActorId, offset: u32) -> Result<(Inspected, Vec<u8>), Failed> {
        let ticket = self.next_ticket.fetch_add(1, SeqCst);
        let (send, receive) = oneshot::channel();
        self.pending.lock().insert(ticket, send);
        let header = Header::new(Kind::Inspect, id, client_id(OWN_SESSION, ticket), 4, self.now());
        let deadline = Instant::now() + INSPECT_DEADLINE;
        let mut letters = vec![];
        let device = loop {
            let (device, admitted) = {
                let Some((device, mut door)) = self.door_of(id) else {
                    return Err(Failed::new(Reason::NoDevice, "the actor has just moved to another node: ask again"));
                };
                let admitted = door.admit(&header, &offset.to_le_bytes(), None, self.now(), &mut letters);
                door.link().ring();
                (device, admitted)
            };
            match admitted {
                Admitted::Taken | Admitted::Answered(..) | Admitted::Unknown => break device,
                Admitted::Refused(reason) => return Err(Failed::new(reason, reason.to_string())),
                Admitted::Full if Instant::now() >= deadline => break device,
                Admitted::Full => tokio::time::sleep(SETTLE_EVERY).await,
            }
        };
        self.keep(&device.name, letters);
        let answer = tokio::time::timeout_at(deadline, receive).await;
        self.pending.lock().remove(&ticket);
        let Ok(Ok((header, payload))) = answer else {
            let text = format!("device `{}` did not answer within {} s", device.name, INSPECT_DEADLINE.as_secs());
            return Err(Failed::new(Reason::DeadlineExceeded, text));
        };
        if let Some(reason) = header.reason() {
            return Err(Failed::new(reason, reason.to_string()));
        }
        let held = async {
            if let Some(lease) = self.lease() {
                lease.held().await;
            }
        };
        if tokio::time::timeout_at(deadline, held).await.is_err() {
            return Err(Failed::text(
                "the node does not hold its lease, and another may have its actors by now: ask again",
            ));
        }
        let (about, bytes) =
            Inspected::split(&payload).ok_or_else(|| Failed::text("the device's answer is too short"))?;
        Ok((about, bytes.to_vec()))
    }

    async fn settle(&self, timeout: Duration) -> Settled {
        let started = Instant::now();
        loop {
            // Two quiet looks between which nothing was handled anywhere: nothing was on its way between two doors.
            let first = self.quiet();
            let settled = first.is_some() && first == self.quiet();
            let waited = started.elapsed();
            if settled || waited >= timeout {
                let queued = self.devices.iter().map(|d| d.door.lock().queued()).sum();
                return Settled { settled, queued, waited_ms: waited.as_millis() as u64 };
            }
            tokio::time::sleep(SETTLE_EVERY).await;
        }
    }

    /// Messages handled so far by each device, if each has nothing to do, and nothing is on its way to other nodes.
    fn quiet(&self) -> Option<Vec<u64>> {
        if !self.lanes.are_quiet() {
            return None;
        }
        self.devices.iter().map(|d| d.quiet()).collect()
    }

    /// Waits until nothing is queued on any device, as far as the time allows.
    pub async fn settled(&self, timeout: Duration) -> bool {
        self.settle(timeout).await.settled
    }

    fn status(&self) -> Status {
        let totals = self.letters.totals();
        let running = self.present().all(|d| d.is_running() && !d.has_fallen_back());
        Status {
            node: self.name.clone(),
            state: match (self.draining.load(SeqCst), running) {
                (true, _) => NodeState::Draining,
                (false, true) => NodeState::Running,
                (false, false) => NodeState::Degraded,
            },
            pid: self.network.process_id(),
            at_us: self.network.wall_us(),
            uptime_ms: self.started.elapsed().as_millis() as u64,
            slot_bytes: self.slot_bytes,
            payload_bytes_max: payload_bytes_max(self.slot_bytes as usize) as u32,
            actor_types: self.registry.types().len() as u32,
            devices: self.present().map(|d| d.status()).collect(),
            dead_letters_kept: self.letters.count(),
            dead_letters: totals.appended() + self.letters_lost.load(SeqCst),
            dead_letters_lost: self.letters_lost.load(SeqCst),
            dead_letters_failed: self.letters.failed(),
            shedding: self.shedding(),
            sessions: self.sessions.status(),
            // Address and transport are the server's to fill in.
            ..Status::default()
        }
    }

    fn retry(&self, name: &str) -> Response {
        match self.device_called(name) {
            Ok(device) => Response::Retrying(device.try_again()),
            Err(failed) => Response::Failed(failed),
        }
    }

    fn leave_backend(&self, name: &str) -> Response {
        let leaving = self.device_called(name).and_then(|device| device.leave_backend().map_err(Failed::text));
        match leaving {
            Ok(to) => Response::LeavingBackend(to),
            Err(failed) => Response::Failed(failed),
        }
    }

    fn device_called(&self, name: &str) -> Result<&Arc<Device>, Failed> {
        self.present().find(|device| device.name == name).ok_or_else(|| {
            let names: Vec<&str> = self.present().map(|device| device.name.as_str()).collect();
            Failed::text(format!("there is no device `{name}`: the node has {}", names.join(", ")))
        })
    }

    fn actor_types(&self) -> Vec<ActorType> {
        let mut counts = vec![(0, 0, 0); self.registry.types().len()];
        for device in &self.devices {
            for (sum, (actors, handled, faults)) in counts.iter_mut().zip(device.door.lock().type_counts()) {
                *sum = (sum.0 + actors, sum.1 + handled, sum.2 + faults);
            }
        }
        let types = self.registry.types().iter().zip(counts);
        types
            .map(|(t, (actors, handled, faults))| ActorType {
                type_id: t.type_id,
                layout_hash: t.layout_hash,
                schema: t.schema.clone(),
                actors,
                handled,
                faults,
            })
            .collect()
    }
}

/// Each device with each, and itself: what it had numbered for another may be for it by now.
fn pairs(devices: &[Arc<Device>]) -> impl Iterator<Item = (&Device, &Device)> {
    devices.iter().flat_map(move |from| devices.iter().map(move |to| (&**from, &**to)))
}

/// Which message of its client a header is of.
fn sender(session: &Session, header: &Header) -> Sender {
    let (client, low) = session_and_number(header.from());
    let number = session.whole_number(low);
    Sender { client, connection: session.connection(), number, again: session.comes_again(number) }
}

impl Doors for Router {
    fn admit(&self, session: &Arc<Session>, batch: &[u8]) -> usize {
        let mut letters = Vec::new();
        let mut rest = batch;
        // What they would have actors send could not go on.
        let mut full = self.lanes.are_crowded();
        let now = self.now();
        let shed = self.sheds();
        // One lock for each run of messages to one device.
        while let Some((first, _, _)) = split_first(rest)
            && !full
        {
            let Some(number) = self.device_of(first.to()) else {
                // It is not turned away where somebody has it, be it a device here that is about to take it over.
                if self.owned(first.to()).is_some() {
                    break;
                }
                let Some((header, payload, after)) = split_first(rest) else { break };
                self.turn_away(&header, payload, Reason::NoDevice, &mut letters);
                rest = after;
                continue;
            };
            let device = &self.devices[number];
            let mut door = device.door.lock();
            let mut unknown = None;
            // None at all where its shard has just moved.
            while let Some((header, payload, after)) = split_first(rest)
                && self.device_of(header.to()) == Some(number)
            {
                let sender = sender(session, &header);
                // It is no new load, and its client may have its answer, and would not hear that it was refused now.
                let shed = if sender.again { Level::Nothing } else { shed };
                let admitted = match self.shed(shed, &header) {
                    Ok(header) => {
                        let admitted = door.admit(&header, payload, Some(sender), now, &mut letters);
                        if admitted == Admitted::Full {
                            // Ask for the bell, then try once more: room made in between rings none.
                            device.wants_room.store(true, SeqCst);
                            door.want_room();
                            door.admit(&header, payload, Some(sender), now, &mut letters)
                        } else {
                            admitted
                        }
                    }
                    // Unless it has come before: it is not told that it was not handled where it was.
                    Err(reason) => door.turn_away(&header, sender, reason, now),
                };
                match admitted {
                    Admitted::Taken => {}
                    Admitted::Answered(answer, payload) => session.answer(answer, &payload),
                    Admitted::Refused(reason) => {
                        self.count_shed(reason, &header);
                        self.turn_away(&header, payload, reason, &mut letters);
                    }
                    Admitted::Full => {
                        full = true;
                        break;
                    }
                    Admitted::Unknown => {
                        (unknown, rest) = (Some(sender.number), after);
                        break;
                    }
                }
                rest = after;
            }
            door.link().ring();
            device.look_for_early(&door);
            drop(door);
            if let Some(number) = unknown {
                self.tell_again(session, number + 1, [number].into());
            }
        }
        self.keep("", letters);
        batch.len() - rest.len()
    }

    fn lease(&self) -> Option<Lease> {
        self.cluster.as_ref()?.lease()
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.room.notified())
    }

    fn dead_letters(&self, batch: &[u8], reason: Reason) {
        let mut letters = Vec::new();
        let mut rest = batch;
        while let Some((header, payload, after)) = split_first(rest) {
            if header.is(Kind::Tell) {
                letters.push(Letter::new(&header, payload, reason));
            }
            rest = after;
        }
        self.keep("", letters);
    }

    fn refuse(&self, session: &Arc<Session>, batch: &[u8], reason: Reason) -> u64 {
        let mut letters = Vec::new();
        let (mut rest, mut refused) = (batch, 0);
        while let Some((header, payload, after)) = split_first(rest) {
            let sender = sender(session, &header);
            let admitted = match self.door_of(header.to()) {
                Some((_, mut door)) => door.turn_away(&header, sender, reason, self.now()),
                None => Admitted::Refused(Reason::NoDevice),
            };
            match admitted {
                Admitted::Taken | Admitted::Full => {}
                Admitted::Unknown => self.tell_again(session, sender.number + 1, [sender.number].into()),
                Admitted::Answered(answer, payload) => session.answer(answer, &payload),
                Admitted::Refused(reason) => self.turn_away(&header, payload, reason, &mut letters),
            }
            refused += 1;
            rest = after;
        }
        self.keep("", letters);
        refused
    }

    fn remembered(&self) -> Remembered {
        let mut remembered = Remembered::default();
        let mut clients: BTreeMap<u32, Client> = BTreeMap::new();
        for device in &self.devices {
            let mut door = device.door.lock();
            remembered.forgotten = remembered.forgotten.max(door.clients().forgotten());
            remembered.reserved.extend(door.awaited());
            for client in door.clients().clients() {
                let known = clients.entry(client.number).or_insert(client);
                known.seen_us = known.seen_us.max(client.seen_us);
            }
        }
        // Whom one of the devices has forgotten, the node has.
        let forgot = |door: &mut Door, client: &Client| {
            client.born <= door.clients().forgotten()
                && !door.clients().clients().any(|known| known.number == client.number)
        };
        for client in clients.into_values() {
            let forgotten = self.devices.iter().any(|device| forgot(&mut device.door.lock(), &client));
            match forgotten {
                true => self.forget(Gone { number: client.number, for_good: false }),
                false => remembered.clients.push(client),
            }
        }
        remembered
    }

    fn detach(&self, client: Client, connection: u64) {
        self.devices.iter().for_each(|device| device.door.lock().clients().detach(client, connection));
    }

    fn attach(&self, session: &Arc<Session>, first: u64, waiting: &mut dyn Iterator<Item = u64>) {
        self.tell_again(session, first, waiting.collect());
    }

    fn knows(&self, table: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let Some(cluster) = &self.cluster else { return };
            let mut seen = cluster.changes();
            while cluster.control().state_at().0.unwrap_or(0) < table {
                seen = cluster.changed(seen).await;
            }
        })
    }

    fn release(&self, client: u32, number: u64) {
        self.devices.iter().for_each(|device| device.door.lock().clients().release(client, number));
    }

    fn covered(&self, client: u32, taken: u64) -> u64 {
        let uncovered = self.devices.iter().filter_map(|device| device.door.lock().uncovered(client));
        uncovered.min().map_or(taken, |first| taken.min(first - 1))
    }

    fn hurry(&self) {
        self.devices.iter().for_each(|device| device.hurry());
    }

    fn forget(&self, gone: Gone) {
        self.devices.iter().for_each(|device| device.door.lock().clients().forget(gone.number, gone.for_good));
    }

    fn request(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            match request {
                Request::Status => Response::Status(Box::new(self.status())),
                Request::Health => Response::Health(self.health()),
                Request::Devices => Response::Devices(self.present().map(|d| d.status()).collect()),
                Request::ActorTypes => Response::ActorTypes(self.actor_types()),
                Request::Inspect { type_id, key } => match self.inspect(ActorId::new(type_id, key.into())).await {
                    Ok(state) => Response::Inspected(state),
                    Err(failed) => Response::Failed(failed),
                },
                Request::Settle { timeout_ms } => {
                    Response::Settled(self.settle(Duration::from_millis(timeout_ms)).await)
                }
                Request::Retry { device } => self.retry(&device),
                Request::LeaveBackend { device } => self.leave_backend(&device),
                Request::DeadLetters { filter, limit } => letters::response(self.list_letters(filter, limit).await),
                Request::RetryDeadLetters { filter, timeout_ms } => {
                    letters::response(self.retry_letters(filter, Duration::from_millis(timeout_ms)).await)
                }
                Request::DropDeadLetters { filter } => letters::response(self.drop_letters(filter).await),
                Request::Drain { .. } => {
                    self.drain_asked.notify_one();
                    Response::Draining
                }
                Request::Owners => Response::Owners(self.owners()),
                Request::Cluster(request) => match self.about_cluster(request).await {
                    Ok(response) => Response::Cluster(response),
                    Err(failed) => Response::Failed(failed),
                },
            }
        })
    }

    fn refuses_session(&self) -> Option<String> {
        self.refuses_new_session()
    }

    fn home(&self) -> server::Home {
        match &self.cluster {
            Some(cluster) => server::Home { id: cluster.id(), number: cluster.number() },
            None => server::Home { id: self.name.id.clone(), number: 0 },
        }
    }

    fn owners(&self) -> Owners {
        self.cluster.as_ref().map(|cluster| cluster.owners()).unwrap_or_default()
    }

    fn is_elsewhere(&self, to: ActorId) -> bool {
        self.device_of(to).is_none() && self.owned(to) == Some(false)
    }

    fn about(&self) -> About {
        About {
            node: self.name.clone(),
            payload_bytes_max: payload_bytes_max(self.slot_bytes as usize) as u32,
            types: self.registry.types().iter().map(|t| TypeLayout::of(&t.schema)).collect(),
        }
    }
}

impl Outlet for Router {
    fn carry(&self, from: &Device, out: &mut Outcome) {
        self.deliver(&out.answers);
        out.answers.clear();
        if !out.away.is_empty() {
            self.pass_on(&out.away);
            out.away.clear();
        }
        if !out.numbered.is_empty() {
            self.pass_on_numbered(from, &out.numbered);
            out.numbered.clear();
        }
        self.keep(&from.name, std::mem::take(&mut out.letters));
    }

    fn committed(&self, device: &Device) {
        for other in &self.devices {
            self.let_go(device, other);
            self.let_go(other, device);
        }
        self.lanes.tell_covered();
        self.sessions.forget_old(self.network.steady_us()).into_iter().for_each(|gone| self.forget(gone));
        for session in self.sessions.all() {
            // Taken first: what is taken meanwhile is not looked at.
            let taken = session.taken();
            session.cover(self.covered(session.number(), taken));
        }
    }

    fn room(&self) {
        self.room.notify_waiters();
        // For a session that has been refused room and is about to wait.
        self.room.notify_one();
    }
}
