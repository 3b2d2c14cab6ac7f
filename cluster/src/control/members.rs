//! Who is a member, and who votes: what the leader does about it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use openraft::errors::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};
use tokio::time::{Instant, timeout};

use super::network::{Answer, Request};
use super::state::{Command, NodeNumber};
use super::types::{Peer, Types};
use super::voters::{self, Candidate};
use super::{Control, Error, replicas};

/// From one look at who votes to the next.
const LOOK: Duration = Duration::from_secs(1);

/// The members of the cluster, as Raft has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// While voters change: those of before and those to come.
    pub voters: BTreeSet<u64>,
    /// They get everything and do not vote.
    pub learners: BTreeSet<u64>,
    /// Of both.
    pub addresses: BTreeMap<u64, String>,
    /// Voters are about to change.
    pub changing: bool,
}

impl Control {
    /// The members, as far as this node knows.
    pub fn members(&self) -> Members {
        self.metrics(|metrics| {
            let membership = metrics.membership_config.membership();
            Members {
                voters: membership.voter_ids().collect(),
                learners: membership.learner_ids().collect(),
                addresses: membership.nodes().map(|(number, peer)| (*number, peer.address.clone())).collect(),
                changing: membership.get_joint_config().len() > 1,
            }
        })
    }

    /// How long ago this node, if it leads, heard of each member that it ever heard of.
    pub fn heard(&self) -> BTreeMap<u64, Duration> {
        self.metrics(|metrics| {
            let heard = metrics.heartbeat.iter().flatten();
            let mut heard: BTreeMap<_, _> =
                heard.filter_map(|(number, at)| Some((*number, at.as_ref()?.elapsed()))).collect();
            if metrics.heartbeat.is_some() {
                heard.insert(self.number(), Duration::ZERO);
            }
            heard
        })
    }

    /// Adds a node that gets everything and does not vote. It must run, and have the number. One that is there already may have
    /// come to another address, but not have lost its log.
    ///
    /// This and what follows is for the leader.
    pub async fn add_learner(&self, number: u64, address: &str) -> Result<(), Error> {
        let peer = self.meet(number, address).await?;
        match self.peer(number) {
            Some(known) if known == peer => Ok(()),
            Some(_) => self.set_peer(number, peer).await,
            None => self.change(ChangeMembers::AddNodes([(number, peer)].into()), true).await,
        }
    }

    /// From now on a member is reached there. It must run there.
    pub async fn set_address(&self, number: u64, address: &str) -> Result<(), Error> {
        if self.peer(number).is_none() {
            return Err(Error::Change(format!("node {number} is no member")));
        }
        let peer = self.meet(number, address).await?;
        self.set_peer(number, peer).await
    }

    /// These vote from now on. Each must be a member; who does not vote any more is a learner.
    pub async fn change_voters(&self, voters: BTreeSet<u64>) -> Result<(), Error> {
        if voters.iter().eq([&self.number()]) {
            return self.change(ChangeMembers::ReplaceAllVoters(voters), true).await;
        }
        self.others_will_vote();
        let began = Instant::now();
        let changed = self.change(ChangeMembers::ReplaceAllVoters(voters), true).await;
        // What there was no time for may still come to be agreed on.
        self.others_vote(changed.is_err() && began.elapsed() < self.0.timing.change);
        changed
    }

    /// A learner is no member any more.
    pub async fn remove(&self, number: u64) -> Result<(), Error> {
        if self.members().voters.contains(&number) {
            return Err(Error::Votes(number));
        }
        self.change(ChangeMembers::RemoveNodes([number].into()), true).await
    }

    /// Has another voter lead, if this node does: for a node that is about to stop. Nothing is waited for.
    pub async fn hand_over(&self) -> Result<(), Error> {
        let voters = self.members().voters;
        self.hand_over_to(&voters).await.map(|_| ())
    }

    /// Keeps the members those of the state, and the voters those that should be, wherever this node leads. It does not end.
    pub async fn keep_members(&self) {
        // Of whom this node has not heard since it leads, it knows nothing from before.
        let mut leads_since = None;
        loop {
            tokio::time::sleep(LOOK).await;
            // What fails now is tried again; whoever cannot be reached is seen in `heard`.
            leads_since = match self.leader() == Some(self.number()) {
                true => leads_since.or(Some(Instant::now())),
                false => None,
            };
            if let Some(since) = leads_since
                && let Err(why) = self.look_after_members(since.elapsed()).await
            {
                tracing::debug!("the members could not be brought up to date, which is tried again: {why}");
            }
            if let Some(since) = leads_since
                && let Err(why) = self.look_after_replicas(since.elapsed()).await
            {
                tracing::debug!("who is to have copies could not be agreed on, which is tried again: {why}");
            }
        }
    }

    /// Has voters be those that should be, if this node leads, without waiting for the next look: for one that is about to leave.
    ///
    /// # Errors
    /// Where that could not be agreed on.
    pub async fn look_after_voters(&self) -> Result<(), Error> {
        match self.leader() == Some(self.number()) {
            true => self.look_after_members(Duration::ZERO).await,
            false => Ok(()),
        }
    }

    /// One round of [`Control::keep_members`]: at most one change of each kind. This node has led for so long.
    async fn look_after_members(&self, led: Duration) -> Result<(), Error> {
        let state = self.state();
        let nodes: BTreeMap<u64, _> = state.nodes.iter().map(|(number, member)| (u64::from(*number), member)).collect();
        let members = self.members();
        let elsewhere =
            |(number, address): &(u64, &str)| members.addresses.get(number).is_none_or(|known| known != address);
        let mut failed = Ok(());
        let wanted = nodes.iter().map(|(number, member)| (*number, member.address.as_str()));
        for (number, address) in wanted.filter(elsewhere) {
            let added = self.add_learner(number, address).await;
            failed = failed.and(added);
        }
        let heard = self.heard();
        let candidates = nodes.iter().filter(|(number, _)| members.addresses.contains_key(number));
        let candidates = candidates.map(|(number, member)| {
            let heard = Some(heard.get(number).copied().unwrap_or(led));
            (*number, Candidate { zone: member.zone.clone(), serving: !member.draining, heard })
        });
        let voters = voters::choose(&candidates.collect(), &members.voters, state.settings.voters_max);
        if !voters.contains(&self.number()) && self.hand_over_to(&voters).await? {
            // The next leader goes on.
            return failed;
        }
        if voters != members.voters || members.changing {
            self.change_voters(voters).await?;
        }
        // Before there is a first node in the state, the one that founds the cluster is in none.
        let gone = members.learners.iter().find(|number| !nodes.is_empty() && !nodes.contains_key(number));
        if let Some(gone) = gone {
            self.remove(*gone).await?;
        }
        failed
    }

    /// Has the cluster agree on who is to have copies of which device's checkpoints, where that has changed. This
    /// node has led for so long.
    async fn look_after_replicas(&self, led: Duration) -> Result<(), Error> {
        let (state, heard) = (self.state(), self.heard());
        let silent = |node: &NodeNumber| heard.get(&u64::from(*node)).copied().unwrap_or(led) > voters::LOST_AFTER;
        let lost = state.nodes.keys().copied().filter(silent).collect();
        for (device, replicas) in replicas::choose(&state, &lost) {
            let command = Command::Replicate { device, replicas };
            if let Err(refused) = self.propose(command, self.0.timing.change).await? {
                tracing::debug!("who has copies stays as it is: {refused}");
            }
        }
        Ok(())
    }

    /// Has that one of these lead that votes, was heard of, goes on, and has most of the log; false if there is none.
    async fn hand_over_to(&self, voters: &BTreeSet<u64>) -> Result<bool, Error> {
        let heard = self.heard();
        // One that ends itself would have to hand over again.
        let ending = self.ending(voters);
        let to = self.metrics(|metrics| {
            let matching = |number: &u64| metrics.replication.as_ref()?.get(number).copied().flatten();
            let live = |number: &u64| heard.get(number).is_some_and(|heard| *heard < self.0.timing.election_min);
            let able = |number: &u64| *number != self.number() && voters.contains(number) && live(number);
            let able = metrics.membership_config.membership().voter_ids().filter(able);
            able.max_by_key(|number| (!ending.contains(number), matching(number)))
        });
        let Some(to) = to else { return Ok(false) };
        self.0.raft.trigger().transfer_leader(to).await.map_err(|e| Error::Stopped(e.to_string()))?;
        Ok(true)
    }

    pub(super) fn peer(&self, number: u64) -> Option<Peer> {
        self.metrics(|metrics| metrics.membership_config.membership().get_node(&number).cloned())
    }

    /// Asks who is there, and checks that it is who it should be.
    async fn meet(&self, number: u64, address: &str) -> Result<Peer, Error> {
        let unreachable = |why| Error::Unreachable { number, address: address.into(), why };
        let answer = match number == self.number() {
            true => Ok(Answer::Who { number, log: self.0.identity, leader: None }),
            false => self.0.links.ask_address(address, &Request::Who, self.0.timing.append).await,
        };
        let (found, log) = match answer {
            Ok(Answer::Who { number, log, .. }) => (number, log),
            Ok(Answer::Failed(why) | Answer::Unknown(why)) | Err(why) => return Err(unreachable(why)),
            Ok(_) => return Err(unreachable("its answer is to something else".into())),
        };
        if found != number {
            return Err(Error::OtherNode { number, address: address.into(), found });
        }
        match self.peer(number) {
            Some(known) if known.log != log => Err(Error::OtherLog { number, address: address.into() }),
            _ => Ok(Peer { address: address.into(), log }),
        }
    }

    /// Only for a member whose log is known to be the same: else there could be two of one number.
    async fn set_peer(&self, number: u64, peer: Peer) -> Result<(), Error> {
        self.change(ChangeMembers::SetNodes([(number, peer)].into()), true).await
    }

    async fn change(&self, change: ChangeMembers<u64, Peer>, retain: bool) -> Result<(), Error> {
        if self.leader() != Some(self.number()) {
            return Err(Error::NotLeader(self.leader()));
        }
        self.bounded(self.0.raft.change_membership(change, retain)).await
    }

    async fn bounded<T>(
        &self,
        change: impl Future<Output = Result<T, RaftError<Types, ClientWriteError<Types>>>>,
    ) -> Result<(), Error> {
        let within = self.0.timing.change;
        match timeout(within, change).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::Fatal(e))) => Err(Error::Stopped(e.to_string())),
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to)))) => Err(Error::NotLeader(to.leader_id)),
            Ok(Err(RaftError::APIError(e))) => Err(Error::Change(e.to_string())),
            Err(_) => Err(Error::Change(format!("no majority has agreed within {} ms", within.as_millis()))),
        }
    }
}
