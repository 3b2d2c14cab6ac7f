//! The log as openraft wants it, over [`RaftLog`].

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use ringhold_storage::raft_log::RaftLog;

use super::disk::{self, Disk};
use super::types::{Entry, LogId, Types, Vote, decode, encode};

/// Entries that are kept in memory, too: the newest, of so many bytes.
const KEPT_BYTES_MAX: usize = 8 << 20;
/// What one read takes from the disk at once.
const READ_BYTES_MAX: usize = 16 << 20;

const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";

/// A cheap handle.
#[derive(Clone)]
pub(super) struct Store {
    log: Arc<RaftLog>,
    disk: Arc<dyn Disk>,
    known: Arc<Mutex<Known>>,
}

/// What is known without asking the disk.
#[derive(Default)]
struct Known {
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    committed: Option<LogId>,
    /// The newest entries, with their bytes on the disk.
    entries: BTreeMap<u64, (Entry, usize)>,
    bytes: usize,
}

impl Known {
    fn keep(&mut self, entry: Entry, bytes: usize) {
        self.last = Some(entry.log_id());
        self.entries.insert(entry.log_id().index(), (entry, bytes));
        self.bytes += bytes;
        while self.bytes > KEPT_BYTES_MAX
            && let Some((_, (_, bytes))) = self.entries.pop_first()
        {
            self.bytes -= bytes;
        }
    }

    fn forget(&mut self, gone: BTreeMap<u64, (Entry, usize)>) {
        self.bytes -= gone.values().map(|(_, bytes)| bytes).sum::<usize>();
    }
}

impl Store {
    /// Reads what must be known. A log that contradicts itself is an error that says so.
    ///
    /// A node that led when it stopped does not lead any more, though openraft would have it go on in its old term: it may have
    /// forgotten how far entries were committed, and would let others read what was before.
    pub async fn open(log: Arc<RaftLog>, disk: Arc<dyn Disk>, number: u64) -> io::Result<Store> {
        let opened = log.clone();
        let (vote, committed, purged, last) = disk::on(&disk, move || {
            let range = opened.range();
            let last = opened.read(range.end.saturating_sub(1)..range.end, usize::MAX)?.pop();
            Ok((opened.record(VOTE)?, opened.record(COMMITTED)?, opened.record(PURGED)?, last))
        })
        .await?;
        let vote = vote.as_deref().map(decode::<Vote>).transpose()?;
        let mut known = Known {
            vote: vote
                .map(|vote| if vote.leader_id.voted_for == number { Vote { committed: false, ..vote } } else { vote }),
            purged: purged.as_deref().map(decode).transpose()?,
            ..Known::default()
        };
        let range = log.range();
        let next = known.purged.map_or(0, |purged: LogId| purged.index() + 1);
        // The record is written first, so the log may be behind it, and only that.
        if next > range.start {
            let (log, up_to) = (log.clone(), next - 1);
            disk::on(&disk, move || log.purge(up_to)).await?;
        }
        // The first entry of a cluster is there before anybody has voted.
        if next < range.start || (known.vote.is_none() && range.end > 1) {
            return Err(io::Error::other(log.contradiction("its entries are there, and what it promised is not")));
        }
        let last = last.filter(|_| range.end > next).map(|entry| decode::<Entry>(&entry)).transpose()?;
        known.last = last.map(|entry| entry.log_id()).or(known.purged);
        let mut store = Store { log, disk, known: Arc::new(Mutex::new(known)) };
        // It may be durable while entries that are committed elsewhere were not yet here.
        if let Some(committed) = committed.as_deref().map(decode::<LogId>).transpose()? {
            let there = store.try_get_log_entries(committed.index()..=committed.index()).await?;
            if there.first().is_some_and(|entry| entry.log_id() == committed) {
                store.known.lock().committed = Some(committed);
            }
        }
        Ok(store)
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        job: impl FnOnce(&RaftLog) -> Result<T, ringhold_storage::raft_log::Error> + Send + 'static,
    ) -> io::Result<T> {
        let log = self.log.clone();
        disk::on(&self.disk, move || job(&log)).await
    }
}

impl RaftLogReader<Types> for Store {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        let there = self.log.range();
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start + 1,
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end + 1,
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let (start, end) = (start.max(there.start), end.min(there.end));
        if start >= end {
            return Ok(Vec::new());
        }
        let kept: Vec<Entry> = {
            let known = self.known.lock();
            known.entries.range(start..end).map(|(_, (entry, _))| entry.clone()).collect()
        };
        // Those that are kept are the newest ones.
        let mut next = start;
        let until = kept.first().map_or(end, |entry| entry.log_id().index());
        let mut entries = Vec::new();
        while next < until {
            let read = self.on_disk(move |log| log.read(next..until, READ_BYTES_MAX)).await?;
            if read.is_empty() {
                return Err(io::Error::other(format!("entry {next} of the log is gone while it is read")));
            }
            next += read.len() as u64;
            for entry in read {
                entries.push(decode(&entry)?);
            }
        }
        entries.extend(kept);
        Ok(entries)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.known.lock().vote)
    }
}

impl RaftLogStorage<Types> for Store {
    type LogReader = Store;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let known = self.known.lock();
        Ok(LogState { last_purged_log_id: known.purged, last_log_id: known.last })
    }

    async fn get_log_reader(&mut self) -> Store {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let bytes = encode(vote)?;
        self.on_disk(move |log| log.set_record(VOTE, &bytes)).await?;
        self.known.lock().vote = Some(*vote);
        Ok(())
    }

    /// Durable with the next entries: a node that forgets it only starts with what is a little older.
    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let Some(committed) = committed else { return Ok(()) };
        let bytes = encode(&committed)?;
        self.on_disk(move |log| log.note_record(COMMITTED, &bytes)).await?;
        self.known.lock().committed = Some(committed);
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.known.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let encoded = entries.iter().map(encode).collect::<io::Result<Vec<_>>>()?;
        if let Some(first) = entries.first().map(|entry| entry.log_id().index()) {
            let sizes: Vec<usize> = encoded.iter().map(Vec::len).collect();
            self.on_disk(move |log| log.append(first, &encoded)).await?;
            let mut known = self.known.lock();
            entries.into_iter().zip(sizes).for_each(|(entry, bytes)| known.keep(entry, bytes));
        }
        callback.io_completed(Ok(()));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index() + 1);
        {
            let mut known = self.known.lock();
            let gone = known.entries.split_off(&from);
            known.forget(gone);
            known.last = last.max(known.purged);
        }
        self.on_disk(move |log| log.truncate(from)).await
    }

    async fn purge(&mut self, up_to: LogId) -> io::Result<()> {
        let bytes = encode(&up_to)?;
        self.on_disk(move |log| {
            // In this order: see `Store::open`.
            log.set_record(PURGED, &bytes)?;
            log.purge(up_to.index())
        })
        .await?;
        let mut known = self.known.lock();
        let left = known.entries.split_off(&(up_to.index() + 1));
        let gone = std::mem::replace(&mut known.entries, left);
        known.forget(gone);
        known.purged = Some(up_to);
        known.last = known.last.max(Some(up_to));
        Ok(())
    }
}
