//! The control plane: what the nodes of a cluster agree on.
//!
//! [`state::State`] is a pure state machine; Raft (openraft) gives every node the same commands in the same order. [`Control`] is
//! the handle to both: it proposes commands, says what has been agreed, and answers what other nodes ask.
//!
//! | where | what |
//! |---|---|
//! | `state.rs` | the state machine |
//! | `voters.rs` | which nodes vote: a pure decision; `members.rs` does it |
//! | `store.rs`, `machine.rs` | openraft's log and state machine, over [`RaftLog`]; `disk.rs` waits for it |
//! | `network.rs` | what nodes say to each other; [`Calls`] carries it |
//! | `tasks.rs` | the runtime of openraft's tasks |
//!
//! # Who is who
//!
//! A node's number is given out once. With its log a node makes an identity for that log, which the membership keeps beside the
//! number, and every message between members names both. So a node that comes back under its number with an empty disk is not
//! taken for the one that has promised things: nobody answers it, it answers nobody, and it has to join under a new number.

mod changes;
mod disk;
mod machine;
mod members;
mod network;
pub mod state;
mod store;
mod tasks;
mod types;
pub mod voters;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::metrics::RaftMetrics;
use openraft::raft::ReadPolicy;
use openraft::{Config, Instant as _, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use ringhold_storage::raft_log::{self, RaftLog};
use tokio::time::{Instant, timeout};

use crate::network::{BoxFuture, Network};
use changes::Changes;
pub use disk::{Blocking, Disk};
use machine::Machine;
pub use members::Members;
use network::{Answer, Arriving, Links, Piece, Request, Rpc};
use state::{Command, Outcome, Refused, State};
use store::Store;
use tasks::Life;
use types::{Applied, BYTES_MAX, Peer, Proposal, Raft, Types, decode, encode};

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
    /// Without one, others try to become leader after a time that is drawn between these two.
    pub election_min: Duration,
    pub election_max: Duration,
    /// How long a node may take for entries until they are sent anew. Its disk may be slow.
    pub append: Duration,
    /// The same for 4 MiB of a snapshot.
    pub snapshot: Duration,
    /// How long a change of members may take.
    pub change: Duration,
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
    pub log: RaftLog,
    pub disk: Arc<dyn Disk>,
    pub calls: Arc<dyn Calls>,
    pub network: Arc<dyn Network>,
    pub timing: Timing,
}

/// What can go wrong. `Display` is meant to be shown as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the log of what the cluster has agreed on cannot be used: {0}")]
    Log(io::Error),
    #[error(
        "the control data in this node's data folder is that of node {found}, and it was started as node {number}: give it its own \
         data folder, or an empty one to join as a new node"
    )]
    OtherNumber { number: u64, found: u64 },
    #[error("the timing of the control plane cannot be: {0}")]
    Timing(String),
    #[error("{}", no_leader(*within, silent))]
    NoLeader {
        within: Duration,
        /// Voters that could not be reached, or refused to answer, when last asked: number, address, why.
        silent: Vec<(u64, String, String)>,
    },
    #[error(
        "node {leader} leads the cluster and was asked, and it is not known whether it was done ({why}): look at what the cluster has \
         agreed on before you ask again"
    )]
    Unknown { leader: u64, why: String },
    #[error("a command of {bytes} bytes is larger than {most}")]
    TooLarge { bytes: usize, most: usize },
    #[error("the control plane of this node has stopped: {0}")]
    Stopped(String),
    #[error("{}", not_leader(*.0))]
    NotLeader(Option<u64>),
    #[error("node {number} at {address} cannot be reached: {why}")]
    Unreachable { number: u64, address: String, why: String },
    #[error("at {address} is node {found}, and not node {number}: the address of one of the two is wrong")]
    OtherNode { number: u64, address: String, found: u64 },
    #[error(
        "node {number} at {address} has lost its control data, or has another data folder than before: what it had promised the \
         cluster is not known any more. Remove node {number}, and let it join anew with an empty data folder"
    )]
    OtherLog { number: u64, address: String },
    #[error(
        "node {0} votes: others have to take its place first, which happens by itself once it is draining and there are any"
    )]
    Votes(u64),
    #[error("the members of the cluster could not be changed: {0}")]
    Change(String),
}

fn no_leader(within: Duration, silent: &[(u64, String, String)]) -> String {
    let mut text = format!(
        "the cluster has had no leader for {} ms: a majority of its voters must reach each other",
        within.as_millis()
    );
    for (number, address, why) in silent {
        text += &format!("; from here node {number} at {address} cannot be reached ({why})");
    }
    text
}

fn not_leader(leader: Option<u64>) -> String {
    match leader {
        Some(leader) => format!("this node does not lead the cluster; node {leader} does"),
        None => "this node does not lead the cluster, and knows of nobody that does".into(),
    }
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
        let log = Arc::new(log);
        let identity = identity(&log, &disk, number, &*network).await?;
        let changes = Arc::new(Changes::default());
        let store = Store::open(log.clone(), disk.clone()).await.map_err(Error::Log)?;
        let machine = Machine::new(log.clone(), disk, changes.clone());
        let links = Links::new(calls, timing);
        let life = Life::default();
        let mut seed = [0; 8];
        network.random(&mut seed);
        let started = Raft::new(number, config, links.clone(), store, machine.clone());
        let raft = life.begin(u64::from_le_bytes(seed), started).await.map_err(|e| Error::Log(io::Error::other(e)))?;
        let raft = Arc::new(raft);
        links.attach(&raft);
        let leading = Arc::new(Leading { timing, heard: Mutex::new(None) });
        let watch = tokio::spawn(watch(raft.metrics(), leading.clone(), changes.clone()));
        life.add(watch.abort_handle());
        let arriving = Arriving::default();
        Ok(Control(Arc::new(Inner {
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
            life,
        })))
    }

    /// This node's number.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// Makes a cluster of this node alone. `address`: where others are to reach it. Refused where the node is in a cluster already.
    pub async fn initialize(&self, address: &str) -> Result<(), Error> {
        let peer = Peer { address: address.into(), log: self.0.identity };
        self.0.raft.initialize(BTreeMap::from([(self.0.number, peer)])).await.map_err(|e| match e {
            RaftError::Fatal(e) => Error::Stopped(e.to_string()),
            RaftError::APIError(e) => Error::Change(e.to_string()),
        })
    }

    /// Has a command done by the leader, whoever that is, and says what became of it.
    ///
    /// # Errors
    ///
    /// After [`Error::Unknown`] it may have been done or may still be; after every other error it was not and will not be.
    pub async fn propose(&self, command: Command, within: Duration) -> Result<Result<Outcome, Refused>, Error> {
        check_size(&command)?;
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.no_leader(within));
            }
            let seen = self.0.changes.count();
            match self.find_leader(left).await {
                Some(leader) if leader == self.0.number => match self.propose_here(command.clone(), left).await {
                    Err(Error::NotLeader(_)) => {}
                    done => return done.map(|applied| applied.0),
                },
                Some(leader) => {
                    let request = Request::Propose { command: command.clone(), within: left };
                    match self.ask_leader(leader, &request, left).await? {
                        Answer::Applied(applied) => return Ok(applied.0),
                        Answer::Unknown(why) => return Err(Error::Unknown { leader, why }),
                        // It was not done.
                        _ => {}
                    }
                }
                None => {}
            }
            self.pause(seen, deadline).await;
        }
    }

    /// What the cluster has agreed on, as far as this node knows.
    pub fn state(&self) -> Arc<State> {
        self.0.machine.state()
    }

    /// The state of a moment that is no earlier than this call: everything that was done before is in it.
    pub async fn read(&self, within: Duration) -> Result<Arc<State>, Error> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.no_leader(within));
            }
            let seen = self.0.changes.count();
            let index = match self.find_leader(left).await {
                Some(leader) if leader == self.0.number => self.read_index_here(left).await?,
                Some(leader) => match self.ask_leader(leader, &Request::ReadIndex { within: left }, left).await {
                    Ok(Answer::ReadIndex(index)) => Some(index),
                    // Nothing is done by a question that is asked twice.
                    Ok(_) | Err(Error::Unknown { .. }) => None,
                    Err(e) => return Err(e),
                },
                None => None,
            };
            match index {
                Some(index) if self.applied_by(index, deadline).await? => return Ok(self.state()),
                _ => self.pause(seen, deadline).await,
            }
        }
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

    /// How the control plane is.
    pub fn status(&self) -> Status {
        let leader = self.leader();
        let members = self.members();
        self.metrics(|metrics| Status {
            number: self.0.number,
            role: match metrics.state {
                ServerState::Leader => Role::Leader,
                ServerState::Follower => Role::Follower,
                ServerState::Candidate => Role::Candidate,
                ServerState::Learner => Role::Learner,
                ServerState::Shutdown => Role::Stopped,
            },
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

    /// Answers what another node's [`Calls`] has brought.
    pub async fn answer(&self, request: Vec<u8>) -> Vec<u8> {
        let answer = match decode(&request) {
            Ok(request) => self.answer_to(request).await,
            Err(e) => Answer::Failed(format!("node {} cannot read the request: {e}", self.0.number)),
        };
        encode(&answer).unwrap_or_else(|e| {
            let failed = Answer::Unknown(format!("node {} cannot write its answer: {e}", self.0.number));
            encode(&failed).expect("a short text can be written")
        })
    }

    /// Ends it: nothing is written to the log after this has returned.
    pub async fn shutdown(&self) {
        // A disk that does not answer is not waited for.
        let _ = timeout(self.0.timing.append, self.0.raft.shutdown()).await;
        self.0.life.end();
        self.0.changes.happened();
    }

    async fn answer_to(&self, request: Request) -> Answer {
        let failed = |why: String| Answer::Failed(format!("node {}: {why}", self.0.number));
        match request {
            Request::Raft { to, log, rpc } if to == self.0.number && log == self.0.identity => {
                match self.answer_raft(rpc).await {
                    Ok(answer) => answer,
                    Err(why) => failed(why),
                }
            }
            Request::Raft { to, .. } if to == self.0.number => failed(network::OTHER_LOG.into()),
            Request::Raft { to, .. } => failed(format!("it is not node {to}")),
            Request::Propose { command, within } => match self.propose_here(command, within).await {
                Ok(applied) => Answer::Applied(applied),
                Err(Error::NotLeader(_)) => Answer::NotLeader,
                Err(Error::Unknown { why, .. }) => Answer::Unknown(why),
                Err(e) => failed(e.to_string()),
            },
            Request::ReadIndex { within } => match self.read_index_here(within).await {
                Ok(Some(index)) => Answer::ReadIndex(index),
                Ok(None) => Answer::NotLeader,
                Err(e) => failed(e.to_string()),
            },
            Request::Who => Answer::Who { number: self.0.number, log: self.0.identity, leader: self.leader() },
        }
    }

    async fn answer_raft(&self, rpc: Rpc) -> Result<Answer, String> {
        let raft = &self.0.raft;
        Ok(match rpc {
            Rpc::Append(request) => {
                let response = raft.append_entries(request).await.map_err(|e| e.to_string())?;
                if response.is_success() {
                    *self.0.leading.heard.lock() = Some(Instant::now());
                }
                Answer::Append(response)
            }
            Rpc::Vote(request) => Answer::Vote(raft.vote(request).await.map_err(|e| e.to_string())?),
            Rpc::PreVote(request) => Answer::Vote(raft.pre_vote(request).await.map_err(|e| e.to_string())?),
            Rpc::Transfer(request) => {
                Answer::Transfer(raft.handle_transfer_leader(request).await.map_err(|e| e.to_string())?)
            }
            Rpc::Snapshot(piece) => match self.0.arriving.take(piece)? {
                None => Answer::More,
                Some(Piece { vote, meta, bytes, .. }) => {
                    let snapshot = openraft::alias::SnapshotOf::<Types, Vec<u8>> { meta, snapshot: bytes };
                    Answer::Snapshot(raft.install_full_snapshot(vote, snapshot).await.map_err(|e| e.to_string())?)
                }
            },
        })
    }

    /// Proposes on this node, which must lead.
    async fn propose_here(&self, command: Command, within: Duration) -> Result<Applied, Error> {
        check_size(&command)?;
        let unknown = |why: String| Error::Unknown { leader: self.0.number, why };
        if self.leader() != Some(self.0.number) {
            return Err(Error::NotLeader(self.leader()));
        }
        match timeout(within, self.0.raft.client_write(Proposal(command))).await {
            Ok(Ok(response)) => Ok(response.data),
            Ok(Err(RaftError::Fatal(e))) => Err(unknown(e.to_string())),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => Err(Error::NotLeader(to.leader_id)),
            Ok(Err(RaftError::APIError(e))) => Err(unknown(e.to_string())),
            Err(_) => Err(unknown(format!("no majority has agreed within {} ms", within.as_millis()))),
        }
    }

    /// Up to which index must be applied what is read now; `None` if this node does not lead.
    async fn read_index_here(&self, within: Duration) -> Result<Option<u64>, Error> {
        match timeout(within, self.0.raft.get_read_linearizer(ReadPolicy::ReadIndex)).await {
            Ok(Ok(linearizer)) => Ok(Some(linearizer.read_log_id().index())),
            Ok(Err(RaftError::Fatal(e))) => Err(Error::Stopped(e.to_string())),
            Ok(Err(RaftError::APIError(
                LinearizableReadError::ForwardToLeader(_) | LinearizableReadError::QuorumNotEnough(_),
            )))
            | Err(_) => Ok(None),
        }
    }

    /// Waits until an entry is applied here; false if it was not in time.
    async fn applied_by(&self, index: u64, deadline: Instant) -> Result<bool, Error> {
        let mut seen = self.changes();
        while self.0.machine.applied() < Some(index) {
            if let Some(why) = self.metrics(|metrics| metrics.running_state.as_ref().err().map(|e| e.to_string())) {
                return Err(Error::Stopped(why));
            }
            match tokio::time::timeout_at(deadline, self.changed(seen)).await {
                Ok(count) => seen = count,
                Err(_) => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Asks another node as the leader. Where it cannot be known whether it got the question, that is [`Error::Unknown`].
    async fn ask_leader(&self, leader: u64, request: &Request, within: Duration) -> Result<Answer, Error> {
        let Some(peer) = self.metrics(|metrics| metrics.membership_config.membership().get_node(&leader).cloned())
        else {
            return Ok(Answer::NotLeader);
        };
        let asked = self.0.links.ask(leader, &peer.address, request, within).await;
        asked.map_err(|why| Error::Unknown { leader, why })
    }

    /// Who leads, by the word of others where this node does not know: they may not know where it is.
    async fn find_leader(&self, within: Duration) -> Option<u64> {
        if let Some(leader) = self.leader() {
            return Some(leader);
        }
        let members = self.members();
        let within = within.min(self.0.timing.election_min);
        let others = members.voters.iter().filter(|number| **number != self.0.number);
        let asked = others.filter_map(|number| {
            let address = members.addresses.get(number)?;
            Some(self.0.links.ask(*number, address, &Request::Who, within))
        });
        let answers = futures_util::future::join_all(asked).await;
        let mut named = answers.into_iter().filter_map(|answer| match answer {
            Ok(Answer::Who { leader, .. }) => leader,
            _ => None,
        });
        // Of itself it knows better.
        let named = named.rfind(|leader| *leader != self.0.number);
        self.leader().or(named)
    }

    /// Waits for a change, and at most for a heartbeat.
    async fn pause(&self, seen: u64, deadline: Instant) {
        let until = deadline.min(Instant::now() + self.0.timing.heartbeat);
        let _ = tokio::time::timeout_at(until, self.changed(seen)).await;
    }

    fn no_leader(&self, within: Duration) -> Error {
        let stopped = self.metrics(|metrics| metrics.running_state.as_ref().err().map(|e| e.to_string()));
        if let Some(why) = stopped {
            return Error::Stopped(why);
        }
        let members = self.members();
        let silent = members.voters.iter().filter_map(|number| {
            let why = self.0.links.silence(*number)?;
            Some((*number, members.addresses.get(number)?.clone(), why))
        });
        Error::NoLeader { within, silent: silent.collect() }
    }

    fn metrics<T>(&self, f: impl FnOnce(&RaftMetrics<Types>) -> T) -> T {
        f(&self.0.raft.metrics().borrow_watched())
    }
}

/// Entries have to fit the log and a call with room to spare.
fn check_size(command: &Command) -> Result<(), Error> {
    let most = raft_log::ENTRY_BYTES_MAX / 2;
    let bytes = encode(command).map_or(BYTES_MAX, |bytes| bytes.len());
    if bytes <= most { Ok(()) } else { Err(Error::TooLarge { bytes, most }) }
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

/// Who leads, by what was heard of it.
struct Leading {
    timing: Timing,
    /// When a leader was last heard of.
    heard: Mutex<Option<Instant>>,
}

impl Leading {
    fn leader(&self, metrics: &RaftMetrics<Types>) -> Option<u64> {
        let leader = metrics.current_leader.filter(|_| metrics.running_state.is_ok())?;
        let counts = match leader == metrics.id {
            true => {
                let acked = metrics.last_quorum_acked.map(|acked| acked.elapsed());
                // Who votes alone is asked by nobody.
                let by_itself = metrics.membership_config.membership().voter_ids().eq([leader]);
                by_itself || acked.is_some_and(|acked| acked <= self.timing.election_max)
            }
            false => self.heard.lock().is_some_and(|heard| heard.elapsed() <= self.timing.election_max * 2),
        };
        counts.then_some(leader)
    }
}

/// Tells of new leaders and members, and of the end. Entries that are applied the state machine tells of.
async fn watch(
    mut metrics: impl WatchReceiver<tasks::Watched, RaftMetrics<Types>>,
    leading: Arc<Leading>,
    changes: Arc<Changes>,
) {
    let about = |metrics: &RaftMetrics<Types>| {
        let members = *metrics.membership_config.log_id();
        (leading.leader(metrics), metrics.current_term, members, metrics.running_state.is_ok())
    };
    let mut last = None;
    // Silence is no change of the metrics, and one of the leader.
    while !matches!(timeout(leading.timing.election_min, metrics.changed()).await, Ok(Err(_))) {
        let now = Some(about(&metrics.borrow_and_update()));
        if now != last {
            last = now;
            changes.happened();
        }
    }
    changes.happened();
}
