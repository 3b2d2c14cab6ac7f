//! What nodes do about their leases: they ask for theirs, and the one that leads grants them. See [`super::lease`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use openraft::metrics::RaftMetrics;
use openraft::{Instant as _, ServerState};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

use super::lease::{Event, Grantor, Holder, LOOKS_PER_LEASE, Verdict, Voter};
use super::mistake::{self, Mistake};
use super::network::{Answer, Renewal, Request, Start};
use super::state::{Command, DeviceNumber, NodeNumber};
use super::types::{LogId, Types};
use super::{Control, Role, Timing, failover};
use crate::network::Network;

/// A node asks so often while it holds its lease once.
const ASKS_PER_LEASE: u32 = 4;
/// Questions that are on their way at a time, at most.
const ASKS_MAX: usize = 8;

/// Which node is given which device.
type Given = BTreeMap<DeviceNumber, NodeNumber>;

/// Whether a node may run its devices now. Clones are the same one.
#[derive(Clone)]
pub struct Lease(Arc<Shown>);

struct Shown {
    network: Arc<dyn Network>,
    /// By [`Network::steady_us`].
    until_us: AtomicU64,
    granted: Notify,
}

impl Lease {
    fn new(network: Arc<dyn Network>) -> Lease {
        Lease(Arc::new(Shown { network, until_us: AtomicU64::new(0), granted: Notify::new() }))
    }

    /// Whether the node holds it at this moment. What was there before the question may go out: it was made while nobody else could
    /// have the devices.
    pub fn holds(&self) -> bool {
        // Read before the time: what is granted between the two counts the next time.
        let until_us = self.0.until_us.load(SeqCst);
        let goes_on = until_us > 0 && mistake::is_made(Mistake::GoesOnWithout);
        goes_on || until_us > self.0.network.steady_us()
    }

    /// Resolves once the node holds it.
    pub async fn held(&self) {
        loop {
            let granted = self.0.granted.notified();
            if self.holds() {
                return;
            }
            granted.await;
        }
    }

    fn show(&self, until_us: u64) {
        if self.0.until_us.swap(until_us, SeqCst) != until_us {
            self.0.granted.notify_waiters();
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Lease(until {} us)", self.0.until_us.load(SeqCst))
    }
}

/// Why a node has to end: it holds no lease any more, and will hold none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dismissed {
    /// It was given up while it was silent: its devices may run elsewhere.
    GivenUp,
    /// It is no member of the cluster any more.
    Removed,
}

/// The parts of leases at one node.
pub(super) struct Tenure {
    lease: Lease,
    /// The node is about to end: that others do not reach it any more says nothing of them.
    pub(super) ending: AtomicBool,
    pub(super) halves: Mutex<Halves>,
}

pub(super) struct Halves {
    holder: Holder,
    pub(super) grantor: Grantor,
    voter: Voter,
    /// The term in which this node leads and has applied all that was left by leaders before.
    pub(super) serving: Option<u64>,
    /// Others are about to vote: that is being agreed on.
    joining: bool,
    /// Others were to vote beside these members, and whether they may elect another is not known as long as no other members are.
    joined: Option<Option<LogId>>,
}

impl Tenure {
    pub fn new(timing: &Timing, network: Arc<dyn Network>) -> Tenure {
        let us = |span: Duration| span.as_micros() as u64;
        let grantor = Grantor::new(us(timing.lease), us(timing.spare));
        let voter = Voter::new(network.steady_us(), us(timing.election_max));
        let halves = Halves { holder: Holder::default(), grantor, voter, serving: None, joining: false, joined: None };
        Tenure { lease: Lease::new(network), ending: AtomicBool::new(false), halves: Mutex::new(halves) }
    }

    pub(super) fn now_us(&self) -> u64 {
        self.lease.0.network.steady_us()
    }

    /// Something of a leader has come. What is returned is dropped before that is acknowledged.
    pub fn hears(&self) -> Hearing<'_> {
        self.halves.lock().voter.hears();
        Hearing { tenure: self, acknowledged: true }
    }

    /// Whether somebody may be elected with the vote that this node has just given.
    pub fn may_elect(&self) -> bool {
        let halves = self.halves.lock();
        halves.voter.may_elect(self.now_us())
    }
}

/// Something of a leader is being taken in.
pub(super) struct Hearing<'a> {
    tenure: &'a Tenure,
    /// As long as nobody knows better.
    acknowledged: bool,
}

impl Hearing<'_> {
    /// It is not acknowledged.
    pub fn refuses(&mut self) {
        self.acknowledged = false;
    }
}

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        let mut halves = self.tenure.halves.lock();
        halves.voter.heard(self.tenure.now_us(), self.acknowledged);
    }
}

impl Halves {
    /// Whether the node leads and votes alone, and that cannot change without it.
    fn is_alone(&self, metrics: &RaftMetrics<Types>) -> bool {
        let membership = &metrics.membership_config;
        metrics.state == ServerState::Leader
            && membership.membership().voter_ids().eq([metrics.id])
            && !self.joining
            && self.joined != Some(*membership.log_id())
    }

    /// How long ago this node sent the last thing by which a majority has acknowledged that it leads, if it serves.
    fn age(&self, metrics: &RaftMetrics<Types>) -> Option<Duration> {
        let leads = metrics.state == ServerState::Leader && metrics.running_state.is_ok();
        if !leads || self.serving != Some(metrics.current_term) {
            return None;
        }
        match self.is_alone(metrics) || mistake::is_made(Mistake::GrantsWithoutMajority) {
            true => Some(Duration::ZERO),
            false => metrics.last_quorum_acked.map(|acked| acked.elapsed()),
        }
    }
}

impl Control {
    /// The lease under which this node runs its devices.
    pub fn lease(&self) -> Lease {
        self.0.tenure.lease.clone()
    }

    /// Keeps the lease of this start of the node, until the node must end, because it was given up or removed.
    pub async fn keep_lease(&self, start: Start) -> Dismissed {
        let given_up = start.given_up;
        let own = self.number() as NodeNumber;
        let mut asks = FuturesUnordered::new();
        let mut due = interval(self.0.timing.lease / ASKS_PER_LEASE);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut is_due, mut asked) = (true, None);
        // Whoever has just been elected may have to find out first what leaders before it have left.
        let (mut again, mut is_again) = (Instant::now(), false);
        loop {
            let seen = self.changes();
            if self.state().times_given_up(own) > given_up {
                self.0.tenure.lease.show(0);
                return Dismissed::GivenUp;
            }
            let leader = self.leader();
            // Whoever has just been elected is asked at once.
            let alone = self.is_alone();
            if !alone && (is_due || leader != asked) && asks.len() < ASKS_MAX {
                (is_due, is_again, asked) = (false, false, leader);
                if let Some(leader) = leader {
                    asks.push(self.renew(leader, own, start));
                }
            }
            tokio::select! {
                biased;
                Some((sent_us, renewal)) = asks.next() => match renewal {
                    Renewal::Granted { span_us } => {
                        let late = mistake::is_made(Mistake::CountsFromTheAnswer);
                        let sent_us = if late { self.0.tenure.now_us() } else { sent_us };
                        self.take_in(&mut self.0.tenure.halves.lock(), Event::Granted { sent_us, span_us });
                    }
                    Renewal::NotNow => (again, is_again) = (Instant::now() + self.0.timing.heartbeat, true),
                    Renewal::GivenUp { times } => {
                        tracing::warn!("the node was given up {times} times, and knows of {given_up}");
                        self.0.tenure.lease.show(0);
                        return Dismissed::GivenUp;
                    }
                    Renewal::Removed => {
                        self.0.tenure.lease.show(0);
                        return Dismissed::Removed;
                    }
                },
                // Whoever votes alone asks nobody, and need not wake for it.
                _ = due.tick(), if !alone => is_due = true,
                () = sleep_until(again), if !alone && is_again => (is_due, is_again) = (true, false),
                _ = self.changed(seen) => {}
            }
        }
    }

    /// Asks for this node's lease; says when, and what it was answered.
    pub(super) async fn renew(&self, leader: u64, node: NodeNumber, start: Start) -> (u64, Renewal) {
        let sent_us = self.0.tenure.now_us();
        let ends = self.0.tenure.ending.load(SeqCst);
        if leader == self.number() {
            return (sent_us, self.renew_here(node, start, ends));
        }
        let Some(peer) = self.peer(leader) else { return (sent_us, Renewal::NotNow) };
        let request = Request::Renew { node, start, ends };
        match self.0.links.ask(leader, &peer.address, &request, self.0.timing.lease).await {
            Ok(Answer::Renewed(renewal)) => (sent_us, renewal),
            _ => (sent_us, Renewal::NotNow),
        }
    }

    /// Answers a node that asks for its lease.
    pub(super) fn renew_here(&self, node: NodeNumber, start: Start, ends: bool) -> Renewal {
        let Start { run, given_up } = start;
        let mut halves = self.0.tenure.halves.lock();
        let now_us = self.0.tenure.now_us();
        let age = self.metrics(|metrics| halves.age(metrics));
        let Some(age) = age else { return Renewal::NotNow };
        // As it is now: what was decided about the node before is in it, or nothing is granted.
        let state = self.state();
        let times = state.times_given_up(node);
        if times > given_up {
            return Renewal::GivenUp { times };
        }
        if state.was_removed(node) {
            return Renewal::Removed;
        }
        // Nor does one that has been started again since hold anything.
        if times < given_up || state.nodes.get(&node).is_none_or(|member| member.incarnation != run) {
            return Renewal::NotNow;
        }
        if ends {
            halves.grantor.ends(node.into(), run);
        }
        let age_us = age.as_micros() as u64;
        match halves.grantor.asked(now_us, (node.into(), run), age_us) {
            Verdict::Granted { span_us } => {
                halves.voter.led(now_us.saturating_sub(age_us));
                Renewal::Granted { span_us }
            }
            Verdict::NotNow => Renewal::NotNow,
        }
    }

    /// Whether this node leads and votes alone. Its lease is its own then.
    fn is_alone(&self) -> bool {
        let mut halves = self.0.tenure.halves.lock();
        let alone = self.metrics(|metrics| halves.is_alone(metrics));
        match (alone, halves.holder == Holder::Alone) {
            (true, false) => self.take_in(&mut halves, Event::Alone),
            (false, true) => self.take_in(&mut halves, self.joined()),
            (true, true) | (false, false) => {}
        }
        alone
    }

    fn joined(&self) -> Event {
        Event::Joined { lease_us: self.0.timing.lease.as_micros() as u64 }
    }

    pub(super) fn take_in(&self, halves: &mut Halves, event: Event) {
        let now_us = self.0.tenure.now_us();
        if let Event::Joined { .. } = event {
            halves.voter.led(now_us);
        }
        halves.holder.step(now_us, event);
        self.0.tenure.lease.show(halves.holder.until_us());
    }

    /// Others are about to vote: from now on they may elect another.
    pub(super) fn others_will_vote(&self) {
        let mut halves = self.0.tenure.halves.lock();
        halves.joining = true;
        self.take_in(&mut halves, self.joined());
    }

    /// What came of that: it is known that nothing did, or it has been agreed on, or may still be.
    pub(super) fn others_vote(&self, refused: bool) {
        let mut halves = self.0.tenure.halves.lock();
        halves.joining = false;
        if !refused {
            halves.joined = Some(self.metrics(|metrics| *metrics.membership_config.log_id()));
        }
    }

    /// Grants leases wherever this node leads, and has the devices of who is silent begin elsewhere. It does not end.
    pub async fn keep_leases(&self) {
        let mut decided = FuturesUnordered::new();
        let mut silent = BTreeSet::new();
        loop {
            let seen = self.changes();
            let role = self.role();
            // Who leads itself alone has nobody to tell that it lives, so there is nothing to wake for.
            let others = role.0 != Role::Leader || self.members().addresses.len() > 1;
            self.0.raft.runtime_config().tick(others);
            match role {
                (Role::Leader, term) => {
                    self.serve(term).await;
                    for (node, ended, devices) in self.give_up(&mut silent) {
                        decided.push(self.begin_elsewhere(term, node, ended, devices));
                    }
                }
                _ => {
                    self.serves(None);
                    silent.clear();
                }
            }
            tokio::select! {
                biased;
                Some((term, node)) = decided.next() => self.0.tenure.halves.lock().grantor.settled(term, node.into()),
                _ = self.changed(seen) => {}
                () = sleep(self.0.timing.lease / (2 * LOOKS_PER_LEASE as u32)), if self.state().nodes.len() > 1 => {}
            }
        }
    }

    fn serves(&self, term: Option<u64>) {
        let mut halves = self.0.tenure.halves.lock();
        halves.serving = term;
        match term {
            Some(term) => {
                let early = mistake::is_made(Mistake::DoesNotWait);
                let before_us = if early { 2 * self.0.timing.lease.as_micros() as u64 } else { 0 };
                let now_us = self.0.tenure.now_us();
                let handed_over = self.0.links.was_handed_over(term);
                let waited_us = if handed_over { 0 } else { halves.voter.waited_us(now_us) };
                halves.grantor.leads(now_us - before_us, term, waited_us);
            }
            None => halves.grantor.follows(),
        }
    }

    /// Grants nothing in a term before all that was left by leaders before is applied.
    async fn serve(&self, term: u64) {
        if self.0.tenure.halves.lock().serving == Some(term) {
            return;
        }
        let within = self.0.timing.election_min;
        let deadline = Instant::now() + within;
        let read = self.read_index_here(within).await;
        // One that has started again goes on in its term: what its log has from before may still come to be agreed on.
        let last = self.metrics(|metrics| metrics.last_log_index);
        if let Ok(Some(index)) = read
            && let Ok(true) = self.applied_by(last.unwrap_or(0).max(index), deadline).await
            && self.role() == (Role::Leader, term)
        {
            self.serves(Some(term));
        }
    }

    /// Who has been silent for too long, or which start of it has ended, and where which of its devices begin. `silent`: of whom that has
    /// been said.
    fn give_up(&self, silent: &mut BTreeSet<NodeNumber>) -> Vec<(NodeNumber, Option<u64>, Given)> {
        let mut halves = self.0.tenure.halves.lock();
        let now_us = self.0.tenure.now_us();
        let state = self.state();
        let Some(term) = halves.serving.filter(|_| !self.0.tenure.ending.load(SeqCst)) else { return Vec::new() };
        // Itself it cannot: without a majority it decides nothing, and with one it has its lease.
        let nodes = state.nodes.iter().map(|(node, member)| (u64::from(*node), member.incarnation));
        let nodes = nodes.filter(|(node, _)| *node != self.number());
        let heard = self.heard();
        let shows_life = |node| heard.get(&node).is_some_and(|heard| *heard < self.0.timing.election_max);
        let given_up: Vec<_> =
            halves.grantor.give_up(now_us, nodes, shows_life).into_iter().map(|node| node as NodeNumber).collect();
        let live = self.live(&halves, now_us);
        silent.retain(|node| !live.contains(node));
        let mut decided = Vec::new();
        for node in given_up {
            let devices = failover::choose(&state, node, &live);
            let ended = halves.grantor.has_ended(node.into()).then(|| state.nodes[&node].incarnation);
            if silent.insert(node) && ended.is_none() {
                let (all, shards) = state.devices_of(node).fold((0, 0), |(devices, shards), (device, _)| {
                    (devices + 1, shards + state.shards_of(device).count())
                });
                tracing::warn!(
                    "node {node} is silent, and its lease has run out: {} of its {all} devices begin elsewhere; it has {shards} shards",
                    devices.len()
                );
            }
            match devices.is_empty() {
                // There is nothing to be done about it.
                true => halves.grantor.settled(term, node.into()),
                false => decided.push((node, ended, devices)),
            }
        }
        decided
    }

    /// Nodes to which something can be given.
    pub(super) fn live(&self, halves: &Halves, now_us: u64) -> BTreeSet<NodeNumber> {
        let mut live: BTreeSet<_> = halves.grantor.holders(now_us).into_iter().map(|node| node as NodeNumber).collect();
        // Who votes alone asks nobody for its lease.
        if self.0.tenure.lease.holds() && !self.0.tenure.ending.load(SeqCst) {
            live.insert(self.number() as NodeNumber);
        }
        live
    }

    /// Has the cluster agree on it. Resolves once it is known what became of that, or that this node does not lead in the term any
    /// more: then it is nothing to its leases.
    async fn begin_elsewhere(
        &self,
        term: u64,
        node: NodeNumber,
        ended: Option<u64>,
        devices: Given,
    ) -> (u64, NodeNumber) {
        let times = self.state().times_given_up(node);
        let command = match ended {
            Some(run) => Command::Ended { node, run, times, devices },
            None => Command::GiveUp { node, times, devices },
        };
        while self.role() == (Role::Leader, term) {
            // What may have been done already is refused the second time.
            match self.propose_here(command.clone(), self.0.timing.append).await {
                Ok(applied) => {
                    if let Err(refused) = applied.0 {
                        tracing::warn!("node {node} was not given up: {refused}");
                    }
                    break;
                }
                Err(why) => tracing::debug!("whether node {node} is given up is not known yet: {why}"),
            }
            sleep(self.0.timing.heartbeat).await;
        }
        (term, node)
    }
}
