//! The state machine as openraft wants it: [`State`] in memory, snapshots of it beside the log.

use std::io;
use std::sync::Arc;

use futures_util::{Stream, TryStreamExt};
use openraft::EntryPayload;
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use parking_lot::Mutex;
use ringhold_storage::raft_log::RaftLog;
use serde::{Deserialize, Serialize};

use super::changes::Changes;
use super::disk::{self, Disk};
use super::state::{Outcome, State};
use super::types::{Applied, LogId, Membership, SnapshotMeta, Types, decode, encode};

type Snapshot = openraft::alias::SnapshotOf<Types, Vec<u8>>;

/// A cheap handle.
#[derive(Clone)]
pub struct Machine {
    now: Arc<Mutex<Now>>,
    changes: Arc<Changes>,
    snapshots: Arc<Snapshots>,
}

/// What has been applied.
#[derive(Clone, Default)]
struct Now {
    state: Arc<State>,
    applied: Option<LogId>,
    membership: Membership,
}

struct Snapshots {
    log: Arc<RaftLog>,
    disk: Arc<dyn Disk>,
    /// Up to where the newest one on the disk goes. Held while one is written: an older one must not replace it.
    newest: tokio::sync::Mutex<Option<LogId>>,
}

/// What a snapshot holds.
#[derive(Serialize, Deserialize)]
struct Content {
    meta: SnapshotMeta,
    state: Arc<State>,
}

impl Machine {
    pub(super) fn new(log: Arc<RaftLog>, disk: Arc<dyn Disk>, changes: Arc<Changes>) -> Machine {
        let snapshots = Arc::new(Snapshots { log, disk, newest: tokio::sync::Mutex::new(None) });
        Machine { now: Arc::default(), changes, snapshots }
    }

    pub(super) fn state(&self) -> Arc<State> {
        self.now.lock().state.clone()
    }

    /// The state, and the index of the entry that made it so.
    pub(super) fn seen(&self) -> (Option<u64>, Arc<State>) {
        let now = self.now.lock();
        (now.applied.map(|applied| applied.index()), now.state.clone())
    }

    /// The index of the last entry that was applied.
    pub(super) fn applied(&self) -> Option<u64> {
        self.now.lock().applied.map(|applied| applied.index())
    }
}

impl Snapshots {
    /// Writes a snapshot, unless there is one that goes as far.
    async fn write(&self, meta: &SnapshotMeta, bytes: Vec<u8>) -> io::Result<()> {
        let mut newest = self.newest.lock().await;
        if meta.last_log_id <= *newest {
            return Ok(());
        }
        let log = self.log.clone();
        disk::on(&self.disk, move || log.set_snapshot(&bytes)).await?;
        *newest = meta.last_log_id;
        Ok(())
    }

    async fn read(&self) -> io::Result<Option<(SnapshotMeta, Vec<u8>)>> {
        let mut newest = self.newest.lock().await;
        let log = self.log.clone();
        let Some(bytes) = disk::on(&self.disk, move || log.snapshot()).await? else { return Ok(None) };
        let meta = decode::<Content>(&bytes)?.meta;
        *newest = meta.last_log_id;
        Ok(Some((meta, bytes)))
    }
}

/// What was applied at one moment, to make a snapshot of.
pub struct View {
    now: Now,
    snapshots: Arc<Snapshots>,
}

impl RaftSnapshotBuilder<Types> for View {
    type SnapshotData = Vec<u8>;

    async fn build_snapshot(&mut self) -> io::Result<Snapshot> {
        let Now { state, applied, membership } = self.now.clone();
        let meta = SnapshotMeta { last_log_id: applied, last_membership: membership };
        let content = Content { meta: meta.clone(), state };
        // Megabytes, at most: not in the way of the node's other tasks, and beside the disk's.
        let bytes = disk::on(&self.snapshots.disk, move || Ok(encode(&content))).await??;
        self.snapshots.write(&meta, bytes.clone()).await?;
        Ok(Snapshot { meta, snapshot: bytes })
    }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Vec<u8>;
    type SnapshotBuilder = View;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, Membership)> {
        let now = self.now.lock();
        Ok((now.applied, now.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<Types>>> + Unpin + Send,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let applied = {
                let mut now = self.now.lock();
                now.applied = Some(entry.log_id);
                match entry.payload {
                    EntryPayload::Blank => Ok(Outcome::Done),
                    EntryPayload::Normal(proposal) => Arc::make_mut(&mut now.state).apply(proposal.0),
                    EntryPayload::Membership(membership) => {
                        now.membership = Membership::new(Some(entry.log_id), membership);
                        Ok(Outcome::Done)
                    }
                }
            };
            self.changes.happened();
            if let Some(responder) = responder {
                responder.send(Applied(applied));
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> View {
        View { now: self.now.lock().clone(), snapshots: self.snapshots.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, bytes: Vec<u8>) -> io::Result<()> {
        let content: Content = decode(&bytes)?;
        self.snapshots.write(meta, bytes).await?;
        *self.now.lock() =
            Now { state: content.state, applied: meta.last_log_id, membership: meta.last_membership.clone() };
        self.changes.happened();
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<Snapshot>> {
        Ok(self.snapshots.read().await?.map(|(meta, snapshot)| Snapshot { meta, snapshot }))
    }
}
