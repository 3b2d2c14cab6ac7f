//! Commands and reads, wherever the leader is, and what this node answers others.

use std::sync::Arc;
use std::time::Duration;

use openraft::errors::{ClientWriteError, LinearizableReadError, RaftError};
use openraft::raft::{AppendEntriesResponse, ReadPolicy};
use ringhold_storage::raft_log;
use tokio::time::{Instant, timeout};

use super::network::{self, Answer, Message, Piece, Request, Rpc};
use super::state::{Command, Outcome, Refused, State};
use super::types::{Applied, BYTES_MAX, Proposal, Types, decode, encode};
use super::{Control, Error};

/// How long one leader is asked what is newest, at least where elections are as quick.
const READ_LIMIT: Duration = Duration::from_millis(500);

impl Control {
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

    /// The state of a moment that is no earlier than this call: everything that was done before is in it.
    pub async fn read(&self, within: Duration) -> Result<Arc<State>, Error> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.no_leader(within));
            }
            let seen = self.0.changes.count();
            // One that has died is not waited for to the end: another may lead by then.
            let once = left.min(READ_LIMIT.max(self.0.timing.election_min));
            let index = match self.find_leader(once).await {
                Some(leader) if leader == self.0.number => self.read_index_here(once).await?,
                Some(leader) => match self.ask_leader(leader, &Request::ReadIndex { within: once }, once).await {
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

    /// Answers what another node's [`Calls`](super::Calls) has brought.
    pub async fn answer(&self, request: Vec<u8>) -> Vec<u8> {
        let answer = match decode(&request) {
            Ok(Message { from, request }) => {
                self.0.links.heard_from(from);
                self.answer_to(request).await
            }
            Err(e) => Answer::Failed(format!("node {} cannot read the request: {e}", self.0.number)),
        };
        encode(&answer).unwrap_or_else(|e| {
            let failed = Answer::Unknown(format!("node {} cannot write its answer: {e}", self.0.number));
            encode(&failed).expect("a short text can be written")
        })
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
            Request::Renew { node, start, ends } => Answer::Renewed(self.renew_here(node, start, ends)),
            Request::Ended { node, start } => self.ended_here(node, start).await,
            Request::Who => Answer::Who { number: self.0.number, log: self.0.identity, leader: self.leader() },
        }
    }

    async fn answer_raft(&self, rpc: Rpc) -> Result<Answer, String> {
        let raft = &self.0.raft;
        Ok(match rpc {
            Rpc::Append(request) => {
                let mut hearing = self.0.tenure.hears();
                let response = raft.append_entries(request).await.map_err(|e| e.to_string())?;
                match response {
                    AppendEntriesResponse::HigherVote(_) => hearing.refuses(),
                    _ => self.0.leading.heard(),
                }
                Answer::Append(response)
            }
            Rpc::Vote(request) => {
                let handed_over = request.leadership_transfer;
                let mut response = raft.vote(request).await.map_err(|e| e.to_string())?;
                // What it has acknowledged is known by now: it acknowledges nothing more of the one before.
                response.vote_granted &= handed_over || self.0.tenure.may_elect();
                Answer::Vote(response)
            }
            Rpc::PreVote(request) => Answer::Vote(raft.pre_vote(request).await.map_err(|e| e.to_string())?),
            Rpc::Transfer(request) => {
                Answer::Transfer(raft.handle_transfer_leader(request).await.map_err(|e| e.to_string())?)
            }
            Rpc::Snapshot(piece) => match self.0.arriving.take(piece)? {
                None => Answer::More,
                Some(Piece { vote, meta, bytes, .. }) => {
                    let _hearing = self.0.tenure.hears();
                    let snapshot = openraft::alias::SnapshotOf::<Types, Vec<u8>> { meta, snapshot: bytes };
                    Answer::Snapshot(raft.install_full_snapshot(vote, snapshot).await.map_err(|e| e.to_string())?)
                }
            },
        })
    }

    /// Proposes on this node, which must lead.
    pub(super) async fn propose_here(&self, command: Command, within: Duration) -> Result<Applied, Error> {
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
    pub(super) async fn read_index_here(&self, within: Duration) -> Result<Option<u64>, Error> {
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
    pub(super) async fn applied_by(&self, index: u64, deadline: Instant) -> Result<bool, Error> {
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
    pub(super) async fn ask_leader(&self, leader: u64, request: &Request, within: Duration) -> Result<Answer, Error> {
        let Some(peer) = self.metrics(|metrics| metrics.membership_config.membership().get_node(&leader).cloned())
        else {
            return Ok(Answer::NotLeader);
        };
        let asked = self.0.links.ask(leader, &peer.address, request, within).await;
        asked.map_err(|why| Error::Unknown { leader, why })
    }

    /// Who leads, by the word of others where this node does not know: they may not know where it is.
    pub(super) async fn find_leader(&self, within: Duration) -> Option<u64> {
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
    pub(super) async fn pause(&self, seen: u64, deadline: Instant) {
        let until = deadline.min(Instant::now() + self.0.timing.heartbeat);
        let _ = tokio::time::timeout_at(until, self.changed(seen)).await;
    }

    pub(super) fn no_leader(&self, within: Duration) -> Error {
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
}

/// Entries have to fit the log and a call with room to spare.
fn check_size(command: &Command) -> Result<(), Error> {
    let most = raft_log::ENTRY_BYTES_MAX / 2;
    let bytes = encode(command).map_or(BYTES_MAX, |bytes| bytes.len());
    if bytes <= most { Ok(()) } else { Err(Error::TooLarge { bytes, most }) }
}
