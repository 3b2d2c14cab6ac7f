//! A node's part in its cluster: how it comes to belong to one, and what it does there.
//!
//! Every node belongs to a cluster. One that was not told to join any founds one of its own, of which it is the only member, so
//! there is one way of working and not two. What the cluster agrees on is in [`ringhold_cluster::control`]; this module asks for
//! it to be changed, carries the messages of it between nodes, and answers operators.

mod admin;
mod join;
mod message;
mod replicas;
mod table;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use ringhold_cluster::control::state::{
    AboutDevice, Admission, Command, DeviceNumber, NodeNumber, Outcome, Refused, Shard, State, id_text,
};
use ringhold_cluster::control::{Calls, Control, Dismissed, Lease, Start};
use ringhold_cluster::fault::Fault;
use ringhold_cluster::network::{BoxFuture, Network};
use ringhold_cluster::peers::lane::LaneStream;
use ringhold_cluster::peers::{CallError, PeerHello, PeerName, PeerRefused, PeerService, Peers};
use ringhold_cluster::tls::Identity;
use ringhold_cluster::wire::{Failed, NodeName, Owners, Request, Response};
use ringhold_storage::checkpoints;
use ringhold_storage::raft_log::RaftLog;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::timeout;

pub use join::{Error, found, restore};
pub use message::{Backed, Backing, Moves, Moving, PinnedDevice, Stage};
use message::{Join, Joined, Message, NotJoined, Reply};
pub use replicas::{Copies, Held, NotCopied};
pub use table::AgreedTable;
pub(crate) use table::has;

use crate::device::keeper::Jobs;
use crate::server::{Doors, Server};

/// How a node belongs to a cluster.
pub struct Options {
    /// The node's id, which `node` has as text.
    pub id: [u8; 16],
    pub node: NodeName,
    /// Somebody has given it its name; where nobody has, another will do as well.
    pub named: bool,
    pub zone: String,
    /// Nodes to join.
    pub join: Vec<String>,
    pub identity: Identity,
    pub network: Arc<dyn Network>,
    pub log: Arc<RaftLog>,
    /// Who does what waits for the log's disk.
    pub jobs: Arc<dyn Jobs>,
    /// The layout hashes of the node's actor types, by name.
    pub types: BTreeMap<String, u64>,
    pub devices: Vec<AboutDevice>,
    /// Its devices keep nothing from before.
    pub fresh: bool,
    /// For how long it may run its devices without hearing from the leader.
    pub lease: Duration,
    /// That a cluster has which it founds.
    pub shards: u32,
    /// Where copies of other nodes' devices' checkpoints are; `None` where the node keeps none.
    pub held: Option<Held>,
}

/// A node's membership. Shared by its tasks, the router, and the connections of other nodes.
pub struct Cluster {
    options: Options,
    incarnation: u64,
    peers: Peers,
    control: OnceLock<Control>,
    /// Who answers what clients ask, once the node is open.
    doors: OnceLock<Weak<dyn Doors>>,
    /// Who takes what actors of other nodes send to this one's, once it is open.
    inlet: OnceLock<Weak<dyn Inlet>>,
    known: Mutex<Known>,
    /// The node has to end.
    dismissed: (OnceLock<Dismissed>, Notify),
    /// The node ends: nothing is taken for its actors any more.
    closed: (AtomicBool, Notify),
    /// It runs nothing any more, nor does it keep anything up to date.
    over: AtomicBool,
}

/// Who takes what actors of other nodes send to this one's.
pub trait Inlet: Send + Sync {
    /// Takes what comes on a stream of a node's, until it ends.
    fn take_from(&self, node: NodeNumber, stream: LaneStream) -> BoxFuture<'_, Result<(), Fault>>;

    /// Answers a node that moves shards.
    fn moving(&self, node: NodeNumber, asked: Moving) -> BoxFuture<'_, Result<Moves, String>>;

    /// Answers a node that was asked for a backup.
    fn backing(&self, asked: Backing) -> BoxFuture<'_, Result<Backed, String>>;
}

/// What becomes known of a node as it starts.
struct Known {
    name: String,
    /// Where others reach it.
    address: String,
    /// Once it belongs to one.
    belongs: Option<Belongs>,
    /// The numbers of its devices, by their places.
    devices: Vec<DeviceNumber>,
    /// How often it had been given up when it was told of its devices.
    given_up: u64,
}

/// Which cluster a node belongs to, and as what: kept beside its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Belongs {
    cluster: [u8; 16],
    cluster_name: String,
    number: NodeNumber,
    /// It founds it.
    founder: bool,
}

/// How long the cluster has to agree that a device is not there any more.
const RETIRE_LIMIT: Duration = Duration::from_secs(3);
/// How long a node that leads has for handing that over as it ends.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(2);
/// How long a node that has ended has for saying so.
const ENDED_LIMIT: Duration = Duration::from_millis(1_500);
/// How long another may take to take over until it is asked again.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(500);

impl Cluster {
    /// A node that belongs to no cluster yet, and answers other nodes already.
    pub fn new(options: Options) -> Arc<Cluster> {
        let mut incarnation = [0; 8];
        options.network.random(&mut incarnation);
        let known = Known {
            name: options.node.name.clone(),
            address: String::new(),
            belongs: None,
            devices: Vec::new(),
            given_up: 0,
        };
        Arc::new_cyclic(|cluster: &Weak<Cluster>| Cluster {
            peers: Peers::new(options.network.clone(), options.identity.clone(), cluster.clone()),
            incarnation: u64::from_le_bytes(incarnation),
            options,
            control: OnceLock::new(),
            doors: OnceLock::new(),
            inlet: OnceLock::new(),
            known: Mutex::new(known),
            dismissed: Default::default(),
            closed: Default::default(),
            over: AtomicBool::new(false),
        })
    }

    /// Comes to belong to a cluster, for the first time or again, and returns the numbers of the node's devices, in their order,
    /// once the cluster has it among its members. `address` is where others reach it; the server, which listens there already,
    /// is told what this waits for.
    pub async fn start(&self, address: String, server: &Server) -> Result<Vec<DeviceNumber>, Error> {
        self.known.lock().address = address;
        let devices = join::start(self, server).await?;
        self.known.lock().devices = devices.clone();
        Ok(devices)
    }

    /// Has other nodes' clients' questions answered, and their actors' messages taken, from now on.
    pub fn open(&self, doors: &Arc<dyn Doors>, inlet: &Arc<dyn Inlet>) {
        // Nobody else sets them.
        let _ = self.doors.set(Arc::downgrade(doors));
        let _ = self.inlet.set(Arc::downgrade(inlet));
    }

    /// Grows with each change of what this node knows to be agreed on.
    pub fn changes(&self) -> u64 {
        self.control().changes()
    }

    /// Waits until it has grown beyond this.
    pub async fn changed(&self, seen: u64) -> u64 {
        self.control().changed(seen).await
    }

    /// What this node knows the cluster to have agreed on.
    pub fn state(&self) -> Arc<State> {
        self.control().state()
    }

    /// The node's number.
    pub fn number(&self) -> NodeNumber {
        self.known.lock().belongs.as_ref().expect("a cluster that was started is belonged to").number
    }

    /// The node's devices by their numbers in the cluster, in the order of their places.
    pub fn own_devices(&self) -> Vec<DeviceNumber> {
        self.known.lock().devices.clone()
    }

    /// The place of a device that this node runs.
    pub fn place_of(&self, device: DeviceNumber) -> Option<u16> {
        let known = self.known.lock();
        known.devices.iter().position(|own| *own == device).map(|place| place as u16)
    }

    /// Takes in that the node runs a device at its next place.
    pub(crate) fn runs(&self, device: DeviceNumber, place: u16) {
        let devices = &mut self.known.lock().devices;
        assert_eq!(devices.len(), usize::from(place), "devices get their places in turn");
        devices.push(device);
    }

    /// Takes in that the device which was given the last place does not run after all.
    pub(crate) fn runs_no_more(&self, device: DeviceNumber) {
        let last = self.known.lock().devices.pop();
        assert_eq!(last, Some(device), "it was given its place just now");
    }

    /// Names of the node's devices of which it has something from before that is another node's by now: the node was given up. To be
    /// forgotten, before [`Cluster::keep_devices`].
    pub fn devices_lost(&self) -> Result<Vec<String>, Error> {
        join::devices_lost(&self.options.log, &self.named_devices())
    }

    /// From now on what the node has of its devices is of those that it has now.
    pub fn keep_devices(&self) -> Result<(), Error> {
        join::keep_devices(&self.options.log, &self.named_devices())
    }

    fn named_devices(&self) -> Vec<(String, DeviceNumber)> {
        let names = self.options.devices.iter().map(|about| about.name.clone());
        names.zip(self.own_devices()).collect()
    }

    /// Asks another node what a client has asked this one.
    pub async fn ask_node(&self, node: NodeNumber, request: Request) -> Result<Response, Failed> {
        let state = self.state();
        let Some(member) = state.nodes.get(&node) else {
            return Err(Failed::text(Refused::NoSuchNode(node).to_string()));
        };
        let asked = self.call(&member.address, &Message::Request(Box::new(request)), OWNER_LIMIT).await;
        match asked {
            Ok(Reply::Response(response)) => Ok(*response),
            Ok(_) => Err(Failed::text(format!("node `{}` answered another question", member.name))),
            Err(why) => Err(Failed::text(format!("node `{}` could not be asked: {why}", member.name))),
        }
    }

    /// Asks another node about shards that move. It is waited for as long as it is not given up.
    pub(crate) async fn ask_moving(&self, node: NodeNumber, asked: Moving, within: Duration) -> Result<Moves, String> {
        let state = self.state();
        let member = state.nodes.get(&node).ok_or_else(|| Refused::NoSuchNode(node).to_string())?;
        let message = Message::Moving(asked);
        let answered = tokio::select! {
            biased;
            answered = self.call(&member.address, &message, within) => answered,
            () = self.is_given_up(node) => return Err(format!("node `{}` was given up meanwhile", member.name)),
        };
        match answered {
            Ok(Reply::Moves(answer)) => answer.map_err(|why| format!("node `{}`: {why}", member.name)),
            Ok(_) => Err(format!("node `{}` answered another question", member.name)),
            Err(why) => Err(format!("node `{}` could not be asked: {why}", member.name)),
        }
    }

    /// Asks another node for its part in a backup.
    pub(crate) async fn ask_backing(
        &self,
        node: NodeNumber,
        asked: Backing,
        within: Duration,
    ) -> Result<Backed, String> {
        let state = self.state();
        let member = state.nodes.get(&node).ok_or_else(|| Refused::NoSuchNode(node).to_string())?;
        match self.call(&member.address, &Message::Backup(asked), within).await {
            Ok(Reply::Backup(answer)) => answer.map_err(|why| format!("node `{}`: {why}", member.name)),
            Ok(_) => Err(format!("node `{}` answered another question", member.name)),
            Err(why) => Err(format!("node `{}` could not be asked: {why}", member.name)),
        }
    }

    /// Resolves once a node runs no devices, which are other nodes' then.
    async fn is_given_up(&self, node: NodeNumber) {
        let mut seen = self.changes();
        while self.state().devices_of(node).next().is_some() {
            seen = self.changed(seen).await;
        }
    }

    /// Asks the node whose device owns a shard; `None` where that is this node, or nobody.
    pub async fn ask_owner(&self, shard: usize, request: Request) -> Option<Result<Response, Failed>> {
        let state = self.state();
        let device = state.devices.get(&state.shards.get(shard)?.owner?)?;
        match device.node != self.number() {
            true => Some(self.ask_node(device.node, request).await),
            false => None,
        }
    }

    /// The id of the cluster.
    pub fn id(&self) -> String {
        id_text(&self.known.lock().belongs.as_ref().expect("a cluster that was started is belonged to").cluster)
    }

    /// Which node has which shard.
    pub fn owners(&self) -> Owners {
        let (version, state) = self.control().state_at();
        let node = |shard: &Shard| Some(state.devices.get(&shard.owner?)?.node);
        Owners {
            version: version.unwrap_or(0),
            nodes: state.nodes.iter().map(|(number, member)| (*number, member.address.clone())).collect(),
            shards: Owners::runs(state.shards.iter().map(|shard| node(shard).unwrap_or(0))),
        }
    }

    /// The node that has a shard; `None` where nobody does.
    pub fn owner(&self, shard: usize) -> Option<NodeNumber> {
        let state = self.state();
        Some(state.devices.get(&state.shards.get(shard)?.owner?)?.node)
    }

    /// Its connections with other nodes.
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Does what a node has to do for its cluster, for as long as the node runs.
    pub async fn run(self: Arc<Cluster>) {
        let control = self.control();
        tokio::select! {
            biased;
            why = control.stopped() => {
                tracing::error!(
                    "the node takes no part in what its cluster agrees on any more ({why}): shards cannot move, and where others vote \
                     its actors stand still. See to that, and start it again"
                );
                std::future::pending().await
            }
            why = control.keep_lease(self.this_start()) => {
                // It is kept once.
                let _ = self.dismissed.0.set(why);
                self.dismissed.1.notify_waiters();
                std::future::pending().await
            }
            () = control.keep_leases() => {}
            () = control.keep_members() => {}
            () = self.forget_copies() => {}
        }
    }

    /// Forgets copies that are to be elsewhere. It does not end.
    async fn forget_copies(&self) {
        match &self.options.held {
            Some(held) => held.forget_unwanted(self.control()).await,
            None => std::future::pending().await,
        }
    }

    /// Of which devices of others the cluster thinks that this node has everything, while it has never had a copy of them: they were on a
    /// disk that it has no more.
    pub async fn copies_lost(&self) -> Result<Vec<DeviceNumber>, checkpoints::Error> {
        let (state, own) = (self.state(), self.number());
        let in_sync = state.devices.iter().filter(|(_, device)| device.node != own && device.in_sync.contains(&own));
        let in_sync: Vec<DeviceNumber> = in_sync.map(|(number, _)| *number).collect();
        match &self.options.held {
            Some(held) if !in_sync.is_empty() => held.never_had(in_sync).await,
            _ => Ok(Vec::new()),
        }
    }

    /// Takes nothing more of a device that begins here in this term from who has run it before.
    pub async fn close_copy(&self, device: DeviceNumber, term: u64) -> Result<(), checkpoints::Error> {
        match &self.options.held {
            Some(held) => held.close(device, term).await,
            None => Ok(()),
        }
    }

    /// Has the cluster agree that a device of this node, which it runs in this term, is not there any more.
    pub(crate) async fn retire(&self, device: DeviceNumber, term: u64) -> Result<(), String> {
        match self.control().propose(Command::Retire { device, term }, RETIRE_LIMIT).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(refused)) => Err(refused.to_string()),
            Err(why) => Err(why.to_string()),
        }
    }

    /// The lease under which the node runs its devices, once it belongs to a cluster.
    pub fn lease(&self) -> Option<Lease> {
        self.control.get().map(Control::lease)
    }

    /// Resolves once the node was given up, or removed: its devices may run elsewhere, and it has to end.
    pub async fn dismissed(&self) -> Dismissed {
        loop {
            let told = self.dismissed.1.notified();
            if let Some(why) = self.dismissed.0.get() {
                return *why;
            }
            told.await;
        }
    }

    /// The node is about to end: nothing is given to it any more, and another is to lead, and to vote in its place where it is to leave.
    pub async fn prepare_to_end(&self) {
        let control = self.control();
        control.will_end();
        // Now, so that nothing is given to it; and to whom it has handed over.
        control.say_that_it_ends(self.this_start()).await;
        let leaves = self.state().nodes.get(&self.number()).is_some_and(|member| member.draining);
        if leaves && let Ok(Err(why)) = timeout(HAND_OVER_LIMIT, control.look_after_voters()).await {
            tracing::debug!("who votes in place of this node was not agreed on: {why}");
        }
        let _ = timeout(HAND_OVER_LIMIT, self.hand_over()).await;
        control.say_that_it_ends(self.this_start()).await;
    }

    /// From now on nothing is taken of what other nodes have for this one's actors. What concerns the cluster, and copies of checkpoints,
    /// goes on.
    pub fn close(&self) {
        self.closed.0.store(true, SeqCst);
        self.closed.1.notify_waiters();
    }

    /// Resolves once [`Cluster::close`] was called.
    async fn closed(&self) {
        loop {
            let told = self.closed.1.notified();
            if self.closed.0.load(SeqCst) {
                return;
            }
            told.await;
        }
    }

    /// Ends the node's part: where it leads it has another lead, so that nobody waits for an election; and where it runs no device any
    /// more it says so, so that nobody waits for its lease.
    pub async fn end(&self, nothing_runs: bool) {
        let control = self.control();
        self.over.store(true, SeqCst);
        let ending = async {
            let _ = timeout(HAND_OVER_LIMIT, self.hand_over()).await;
            if self.state().nodes.len() == 1 {
                return;
            }
            let said = match nothing_runs {
                true => control.ended(self.this_start(), ENDED_LIMIT).await.map_err(|why| why.to_string()),
                false => Err("not all of its devices have ended in order".into()),
            };
            match said {
                Ok(()) => tracing::info!("the cluster knows that the node has ended"),
                Err(why) => {
                    tracing::info!(
                        "its devices begin on other nodes, where there are copies, once its lease has run out: {why}"
                    );
                }
            }
        };
        tokio::select! {
            biased;
            // Others may end too, and have nobody else to say it to.
            () = control.keep_leases() => {}
            () = ending => {}
        }
        control.shutdown().await;
        self.peers.stop();
    }

    fn this_start(&self) -> Start {
        Start { run: self.incarnation, given_up: self.known.lock().given_up }
    }

    /// Returns once another leads, or nobody can.
    async fn hand_over(&self) {
        let control = self.control();
        while self.leads() && control.members().voters.len() > 1 {
            let seen = control.changes();
            if control.hand_over().await.is_err() {
                return;
            }
            let _ = timeout(HAND_OVER_PAUSE, control.changed(seen)).await;
        }
    }

    /// What the cluster has agreed on, and how it is changed.
    ///
    /// # Panics
    /// Before [`Cluster::start`].
    pub fn control(&self) -> &Control {
        self.control.get().expect("it is there before anybody asks for it")
    }

    fn address(&self) -> String {
        self.known.lock().address.clone()
    }

    /// Asks another node.
    async fn call(&self, address: &str, message: &Message, within: Duration) -> Result<Reply, CallError> {
        let bad = |text: String| CallError::Answered { address: address.into(), text };
        let request = message::encode(message).map_err(bad)?;
        let reply = self.peers.call(address, None, request, within).await?;
        message::decode(&reply).map_err(bad)
    }

    /// Answers another node.
    async fn reply(&self, from: PeerName, message: Message) -> Result<Reply, String> {
        match message {
            Message::Moving(asked) => {
                let node = self.control.get().and_then(|control| Some(control.state().by_id(&from.id)?.0));
                match (self.inlet.get().and_then(Weak::upgrade), node) {
                    (Some(inlet), Some(node)) => Ok(Reply::Moves(inlet.moving(node, asked).await)),
                    _ => Err("the node is starting".into()),
                }
            }
            Message::Backup(asked) => match self.inlet.get().and_then(Weak::upgrade) {
                Some(inlet) => Ok(Reply::Backup(inlet.backing(asked).await)),
                None => Err("the node is starting".into()),
            },
            Message::Present => Ok(Reply::Present),
            Message::Raft(request) => match self.control.get() {
                Some(control) => Ok(Reply::Raft(control.answer(request).await)),
                None => Err("the node is starting".into()),
            },
            Message::Heard => Ok(Reply::Heard(self.leads().then(|| self.heard_here().into_iter().collect()))),
            Message::Join(join) => Ok(Reply::Joined(self.let_join(*join).await)),
            Message::Request(request) => match self.doors.get().and_then(Weak::upgrade) {
                Some(doors) => Ok(Reply::Response(Box::new(doors.request(*request).await))),
                None => Err("the node is starting".into()),
            },
            Message::Replica { .. } if self.over.load(SeqCst) => Err(STOPPING.into()),
            Message::Replica { device, term, asked } => match (&self.options.held, self.control.get()) {
                (Some(held), Some(control)) => {
                    let own = control.number() as NodeNumber;
                    held.answer(&control.state(), own, device, term, asked).await.map(Reply::Replica)
                }
                (None, _) => Err("it keeps no checkpoints (checkpoints.enabled)".into()),
                (_, None) => Err("the node is starting".into()),
            },
        }
    }

    fn leads(&self) -> bool {
        self.control.get().is_some_and(|control| control.leader() == Some(control.number()))
    }

    /// Makes another node a member.
    async fn let_join(&self, Join { cluster_name, member, devices }: Join) -> Result<Joined, NotJoined> {
        let not_now = |why: &str| NotJoined::NotNow(why.into());
        let control = self.control.get().ok_or_else(|| not_now("it is starting itself"))?;
        let state = control.read(JOIN_LIMIT).await.map_err(|e| not_now(&e.to_string()))?;
        let founded = state.cluster.as_ref().filter(|_| !state.nodes.is_empty());
        // Whoever is the first member gets the founder's number.
        let cluster = founded.ok_or_else(|| not_now("its cluster is being founded"))?;
        if cluster.name != cluster_name {
            return Err(NotJoined::OtherName { wanted: cluster_name, actual: cluster.name.clone() });
        }
        let admission = Admission { cluster: cluster.id, number: None, member, devices, fresh: true };
        match control.propose(Command::Admit(admission), JOIN_LIMIT).await {
            Ok(Ok(Outcome::Admitted { node, .. })) => {
                Ok(Joined { number: node, cluster: cluster.id, cluster_name: cluster.name.clone() })
            }
            Ok(Ok(Outcome::Done)) => Err(not_now("it answered another question")),
            Ok(Err(refused)) => Err(refused.into()),
            Err(why) => Err(not_now(&why.to_string())),
        }
    }
}

/// How long the node may take that has an actor which another is asked for: its state may come in many parts, each of which waits for
/// a commit. Whoever asks has a deadline of his own.
const OWNER_LIMIT: Duration = Duration::from_secs(30);
/// What another node is answered once this one ends.
const STOPPING: &str = "the node is stopping";
/// How long the members may take to agree on another.
const JOIN_LIMIT: Duration = Duration::from_secs(4);

impl PeerService for Cluster {
    fn about(&self) -> PeerHello {
        let known = self.known.lock();
        let belongs = known.belongs.as_ref();
        let node = PeerName {
            id: self.options.id,
            incarnation: self.incarnation,
            number: belongs.map(|belongs| belongs.number),
            name: known.name.clone(),
            address: known.address.clone(),
        };
        PeerHello {
            cluster: belongs.map(|belongs| belongs.cluster),
            cluster_name: belongs.map_or(&self.options.node.cluster, |belongs| &belongs.cluster_name).clone(),
            ..PeerHello::new(format!("ringhold {}", self.options.node.version), node)
        }
    }

    fn judge(&self, hello: &PeerHello, _from: SocketAddr) -> Result<(), PeerRefused> {
        let Some(control) = self.control.get() else { return Ok(()) };
        let state = control.state();
        match hello.node.number {
            Some(number) if state.was_removed(number) => {
                Err(PeerRefused::Service(Refused::Removed(number).to_string()))
            }
            Some(number) => match state.nodes.get(&number) {
                Some(member) if member.id != hello.node.id => Err(PeerRefused::Service(format!(
                    "it says that it is node {number}, and that is another ({})",
                    id_text(&member.id)
                ))),
                _ => Ok(()),
            },
            None => Ok(()),
        }
    }

    fn answer(&self, from: PeerName, request: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, String>> {
        Box::pin(async move {
            let message = message::decode(&request)?;
            let is_for_actors = matches!(message, Message::Moving(_) | Message::Backup(_) | Message::Request(_));
            let reply = tokio::select! {
                biased;
                () = self.closed(), if is_for_actors => Err(STOPPING.into()),
                reply = self.reply(from, message) => reply,
            };
            message::encode(&reply?)
        })
    }

    fn take_lane(&self, stream: LaneStream) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            // Until both are so, the stream ends, and the other node opens another.
            let Some(inlet) = self.inlet.get().and_then(Weak::upgrade) else { return Ok(()) };
            let node = self.state().by_id(&stream.node.id).map(|(number, _)| number);
            let Some(node) = node else { return Ok(()) };
            tokio::select! {
                biased;
                () = self.closed() => Ok(()),
                taken = inlet.take_from(node, stream) => taken,
            }
        })
    }

    fn use_token(&self, serial: Vec<u8>, expires_us: u64) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            let control = self.control.get().ok_or("the node is starting")?;
            let now_s = self.options.network.wall_us() / 1_000_000;
            let used = Command::UseToken { serial, expires_s: expires_us / 1_000_000 + 1, now_s };
            match control.propose(used, TOKEN_LIMIT).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(refused)) => Err(refused.to_string()),
                Err(why) => Err(why.to_string()),
            }
        })
    }
}

/// How long the cluster may take to agree that a token is used.
const TOKEN_LIMIT: Duration = Duration::from_secs(5);

impl Calls for Peering {
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: Vec<u8>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Vec<u8>, String>> {
        Box::pin(async move {
            let request = message::encode(&Message::Raft(request))?;
            let reply = self.0.call(address, None, request, within).await.map_err(|e| e.to_string())?;
            match message::decode(&reply)? {
                Reply::Raft(reply) => Ok(reply),
                _ => Err("it answered another question".into()),
            }
        })
    }
}

/// How a control plane reaches those of other nodes.
struct Peering(Peers);
