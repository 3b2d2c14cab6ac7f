//! The control plane: what the nodes of a cluster agree on.
//!
//! [`state::State`] is a pure state machine; Raft (openraft) gives every node the same commands in the same order. [`Control`] is
//! the handle to both: it proposes commands, says what has been agreed, and answers what other nodes ask.
//!
//! | where | what |
//! |---|---|
//! | `state.rs` | the state machine |
//! | `voters.rs` | which nodes vote: a pure decision; `members.rs` does it |
//! | `failover.rs` | where the devices of a node begin that was given up: a pure decision; `tenure.rs` does it |
//! | `replicas.rs` | which nodes are to have copies of a device's checkpoints: a pure decision; `members.rs` does it |
//! | `store.rs`, `machine.rs` | openraft's log and state machine, over [`RaftLog`]; `disk.rs` waits for it |
//! | `asks.rs` | commands and reads, wherever the leader is; what is answered to other nodes |
//! | `network.rs` | what nodes say to each other; [`Calls`] carries it |
//! | `leading.rs` | who leads, as far as a node can tell |
//! | `lease/` | who may run a node's devices, and until when: pure; `tenure.rs` does it |
//! | `ending.rs` | what a node says that ends in good order |
//! | `tasks.rs` | the runtime of openraft's tasks |
//!
//! # Who is who
//!
//! A node's number is given out once. With its log a node makes an identity for that log, which the membership keeps beside the
//! number, and every message between members names both. So a node that comes back under its number with an empty disk is not
//! taken for the one that has promised things: nobody answers it, it answers nobody, and it has to join under a new number.

pub mod admin;
mod asks;
mod changes;
mod disk;
mod ending;
mod error;
pub mod failover;
mod leading;
pub mod lease;
mod machine;
mod members;
pub mod mistake;
mod network;
pub mod replicas;
pub mod state;
mod store;
mod tasks;
mod tenure;
mod types;
pub mod voters;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::RaftError;
use openraft::metrics::RaftMetrics;
use openraft::{Config, ServerState, SnapshotPolicy};
use ringhold_storage::raft_log::RaftLog;
use tokio::time::timeout;

use crate::network::{BoxFuture, Network};
use changes::Changes;
pub use disk::{Blocking, Disk};
pub use error::Error;
use leading::Leading;
use machine::Machine;
pub use members::Members;
pub use network::Start;
use network::{Arriving, Links};
use state::State;
use store::Store;
use tasks::Life;
use tenure::Tenure;
pub use tenure::{Dismissed, Lease};
use types::{Peer, Raft, Types};

/// How nodes reach each other.
pub trait Calls: Send + Sync + 'static {
    /// Sends a request to the node at `host:port`, which gives it to its [`Control::answer`], and brings the answer. Both have up
    /// to 64 MiB. An error says why there is none, for people; the request may have been answered for all that.
    fn call<'a>(
        &'a self,
        address: &'a str,
        request: Vec<u8>,
        within: Duration,
    ) -> BoxFuture<'a, Result<Vec<u8>, String>>;
}

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From one sign of life of the leader to the next.
    pub heartbeat: Duration,
    /// Without one, others try to become leader after a time that is drawn between these two. Nobody gives its vote to another before
    /// the longer is over, and leases count on that: it is the same on all nodes of a cluster.
    pub election_min: Duration,
    pub election_max: Duration,
    /// How long a node may take for entries until they are sent anew. Its disk may be slow.
    pub append: Duration,
    /// The same for 4 MiB of a snapshot.
    pub snapshot: Duration,
    /// How long a change of members may take.
    pub change: Duration,
    /// For how long a node that has asked may run its devices, at most. It is the same on all nodes of a cluster.
    pub lease: Duration,
    /// How much longer a node that is silent is waited for until its devices begin elsewhere.
    pub spare: Duration,
    /// A snapshot is made after so many entries, and as many are kept before it, for nodes that are a little behind.
    pub snapshot_entries: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(400),
            election_max: Duration::from_millis(800),
            append: Duration::from_secs(1),
            snapshot: Duration::from_secs(10),
            change: Duration::from_secs(10),
            lease: Duration::from_millis(400),
            spare: Duration::from_millis(100),
            snapshot_entries: 1_000,
        }
    }
}

impl Timing {
    fn config(&self) -> Result<Config, Error> {
        let ms = |span: Duration| span.as_millis() as u64;
        let config = Config {
            cluster_name: "ringhold".into(),
            heartbeat_interval: ms(self.heartbeat),
            election_timeout_min: ms(self.election_min),
            election_timeout_max: ms(self.election_max),
            install_snapshot_timeout: ms(self.snapshot),
            snapshot_policy: SnapshotPolicy::LogsSinceLast(self.snapshot_entries),
            max_in_snapshot_log_to_keep: self.snapshot_entries,
            // Each purge is two syncs.
            purge_batch_size: (self.snapshot_entries / 4).max(1),
            replication_lag_threshold: self.snapshot_entries * 4,
            // A node that was cut off must not unseat the leader when it is back.
            enable_pre_vote: Some(true),
            ..Config::default()
        };
        config.validate().map_err(|e| Error::Timing(e.to_string()))
    }
}

/// What a [`Control`] is made of.
pub struct Options {
    /// The node's number: from the cluster when it was admitted, 1 where it founds one.
    pub number: u64,
    pub log: Arc<RaftLog>,
    pub disk: Arc<dyn Disk>,
    pub calls: Arc<dyn Calls>,
    pub network: Arc<dyn Network>,
    pub timing: Timing,
}

/// How the control plane is, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub number: u64,
    pub role: Role,
    pub leader: Option<u64>,
    pub term: u64,
    /// Indexes: the last entry of the log, the last one that was applied, the last one that the newest snapshot covers.
    pub last_log: Option<u64>,
    pub applied: Option<u64>,
    pub snapshot: Option<u64>,
    pub log_bytes: u64,
    pub members: Members,
    /// Why it has stopped, if it has.
    pub stopped: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Leader,
    Follower,
    Candidate,
    Learner,
    Stopped,
}

/// The control plane of a node. Clones are the same one; it ends with the last of them, or by [`Control::shutdown`].
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    number: u64,
    /// The identity of this node's log.
    identity: [u8; 16],
    raft: Arc<Raft>,
    log: Arc<RaftLog>,
    machine: Machine,
    links: Links,
    changes: Arc<Changes>,
    arriving: Arriving,
    timing: Timing,
    leading: Arc<Leading>,
    tenure: Tenure,
    life: Life,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.life.end();
    }
}

impl Control {
    /// Starts with what is in the log. A node whose log is empty waits until it is initialized or added.
    pub async fn start(options: Options) -> Result<Control, Error> {
        let Options { number, log, disk, calls, network, timing } = options;
        let config = Arc::new(timing.config()?);
        let identity = identity(&log, &disk, number, &*network).await?;
        let changes = Arc::new(Changes::default());
        let store = Store::open(log.clone(), disk.clone(), number).await.map_err(Error::Log)?;
        let machine = Machine::new(log.clone(), disk, changes.clone());
        let links = Links::new(calls, timing, number, identity);
        let life = Life::default();
        let mut seed = [0; 8];
        network.random(&mut seed);
        let started = Raft::new(number, config, links.clone(), store, machine.clone());
        let raft = life.begin(u64::from_le_bytes(seed), started).await.map_err(|e| Error::Log(io::Error::other(e)))?;
        let raft = Arc::new(raft);
        links.attach(&raft);
        let leading = Arc::new(Leading::new(timing));
        let watch = tokio::spawn(leading::watch(raft.metrics(), leading.clone(), changes.clone()));
        life.add(watch.abort_handle());
        let arriving = Arriving::default();
        let control = Control(Arc::new(Inner {
            number,
            identity,
            raft,
            log,
            machine,
            links,
            changes,
            arriving,
            timing,
            leading,
            tenure: Tenure::new(&timing, network),
            life,
        }));
        if control.members().voters.iter().eq([&number]) {
            // Nobody else can lead, so there is nobody to wait for.
            let elected = control.0.raft.trigger().elect(false).await;
            elected.map_err(|e| Error::Stopped(e.to_string()))?;
        }
        Ok(control)
    }

    /// This node's number.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Says where others reach this node: they are told with every request, and so find a member that has moved, also where too few
    /// find each other to agree on that.
    pub fn advertise(&self, address: &str) {
        self.0.links.advertise(address);
    }

    /// Whether both are handles of one start of a node.
    pub fn is(&self, other: &Control) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Makes a cluster of this node alone. `address`: where others are to reach it. Refused where the node is in a cluster already.
    pub async fn initialize(&self, address: &str) -> Result<(), Error> {
        self.advertise(address);
        let peer = Peer { address: address.into(), log: self.0.identity };
        self.0.raft.initialize(BTreeMap::from([(self.0.number, peer)])).await.map_err(|e| match e {
            RaftError::Fatal(e) => Error::Stopped(e.to_string()),
            RaftError::APIError(e) => Error::Change(e.to_string()),
        })
    }

    /// What the cluster has agreed on, as far as this node knows.
    pub fn state(&self) -> Arc<State> {
        self.0.machine.state()
    }

    /// The same, and the index of the entry of the log that made it so: at one index it is the same on every node.
    pub fn state_at(&self) -> (Option<u64>, Arc<State>) {
        self.0.machine.seen()
    }

    /// A count of changes, for [`Control::changed`].
    pub fn changes(&self) -> u64 {
        self.0.changes.count()
    }

    /// Resolves once anything has changed since the count was `seen` (the state, the leader, the members), and says the new count.
    pub async fn changed(&self, seen: u64) -> u64 {
        self.0.changes.since(seen).await
    }

    /// The node that leads the cluster, as far as this one knows. Nobody does of whom nothing was heard for two elections; and a leader
    /// that has not heard of a majority for one does not count on itself.
    pub fn leader(&self) -> Option<u64> {
        self.metrics(|metrics| self.0.leading.leader(metrics))
    }

    /// What this node is to Raft, and in which term.
    pub fn role(&self) -> (Role, u64) {
        self.metrics(|metrics| (role(metrics), metrics.current_term))
    }

    /// How the control plane is.
    pub fn status(&self) -> Status {
        let leader = self.leader();
        let members = self.members();
        self.metrics(|metrics| Status {
            number: self.0.number,
            role: role(metrics),
            leader,
            term: metrics.current_term,
            last_log: metrics.last_log_index,
            applied: metrics.last_applied.map(|id| id.index()),
            snapshot: metrics.snapshot.map(|id| id.index()),
            log_bytes: self.0.log.bytes_on_disk(),
            members: members.clone(),
            stopped: metrics.running_state.as_ref().err().map(|e| e.to_string()),
        })
    }

    /// Resolves once the control plane has stopped by itself, and says why: the disk failed, or what is on it cannot be.
    pub async fn stopped(&self) -> String {
        let mut seen = self.changes();
        loop {
            if let Some(why) = self.metrics(|metrics| metrics.running_state.as_ref().err().map(|e| e.to_string())) {
                return why;
            }
            seen = self.changed(seen).await;
        }
    }

    /// Ends it: nothing is written to the log after this has returned.
    pub async fn shutdown(&self) {
        // A disk that does not answer is not waited for.
        let _ = timeout(self.0.timing.append, self.0.raft.shutdown()).await;
        self.end();
    }

    /// Ends it at once, whatever it is at, as the death of the process would.
    pub fn end(&self) {
        self.0.life.end();
        self.0.changes.happened();
    }

    fn metrics<T>(&self, f: impl FnOnce(&RaftMetrics<Types>) -> T) -> T {
        f(&self.0.raft.metrics().borrow_watched())
    }
}

fn role(metrics: &RaftMetrics<Types>) -> Role {
    match metrics.state {
        ServerState::Leader => Role::Leader,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Learner => Role::Learner,
        ServerState::Shutdown => Role::Stopped,
    }
}

/// The identity of this log, made with it.
async fn identity(
    log: &Arc<RaftLog>,
    disk: &Arc<dyn Disk>,
    number: u64,
    network: &dyn Network,
) -> Result<[u8; 16], Error> {
    const RECORD: &str = "identity";
    let mut fresh = [0; 16];
    network.random(&mut fresh);
    let log = log.clone();
    let kept = disk::on(disk, move || {
        if let Some(record) = log.record(RECORD)? {
            return Ok(record);
        }
        if !log.range().is_empty() {
            return Err(log.contradiction("its entries are there, and whose they are is not"));
        }
        let record = [&number.to_le_bytes()[..], &fresh].concat();
        log.set_record(RECORD, &record)?;
        Ok(record)
    });
    let record = kept.await.map_err(Error::Log)?;
    let (found, identity) =
        record.split_first_chunk().ok_or_else(|| Error::Log(io::Error::other("whose log it is")))?;
    let found = u64::from_le_bytes(*found);
    if found != number {
        return Err(Error::OtherNumber { number, found });
    }
    identity.try_into().map_err(|_| Error::Log(io::Error::other("whose log it is")))
}
