//! What a node says that ends in good order: that it is about to, so that nothing is given to it; and that it has, so that others go on
//! with its devices without waiting for its lease. See [`super::lease`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::lease::Event;
use super::network::{Answer, Request, Start};
use super::state::{Command, DeviceNumber, NodeNumber, Refused};
use super::tenure::Halves;
use super::{Control, Error, Role, failover};

/// How long a node that is about to end waits until the leader knows.
const TOLD_WITHIN: Duration = Duration::from_millis(200);
/// A leader may just have been elected. It waits so long to hear of nodes that could go on with what is another's.
const MEETS_WITHIN: Duration = Duration::from_secs(1);
/// From one look for them to the next.
const MEETS_AGAIN: Duration = Duration::from_millis(10);

impl Control {
    /// The node is about to end: from now on it gives no other up, though it may still lead, and says to whoever leads that nothing is to
    /// be given to it.
    pub fn will_end(&self) {
        self.0.tenure.ending.store(true, SeqCst);
    }

    /// Has whoever leads know of [`Control::will_end`] now, and not only with the next question for this node's lease. It is not waited
    /// for long.
    pub async fn say_that_it_ends(&self, start: Start) {
        if let Some(leader) = self.leader() {
            let _ = timeout(TOLD_WITHIN, self.renew(leader, self.number() as NodeNumber, start)).await;
        }
    }

    /// This start of the node runs nothing any more: it drops its lease for good, and has whoever leads give its devices to others.
    /// Returns once that is agreed on.
    ///
    /// # Errors
    /// Nobody who leads has said so in time: its lease has to run out first, as far as is known.
    pub async fn ended(&self, start: Start, within: Duration) -> Result<(), Error> {
        self.take_in(&mut self.0.tenure.halves.lock(), Event::Ended);
        let deadline = Instant::now() + within;
        let request = Request::Ended { node: self.number() as NodeNumber, start };
        let mut last = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(last.unwrap_or_else(|| self.no_leader(within)));
            }
            // What it decides itself nobody can go on with once it is gone.
            if self.role().0 == Role::Leader {
                return Err(Error::NoOther);
            }
            let seen = self.changes();
            if let Some(leader) = self.find_leader(left).await {
                // One that is gone is not waited for to the end: another may lead by then, and this may be said as often as need be.
                match self.ask_leader(leader, &request, left.min(within / 2)).await {
                    Ok(Answer::Ended) => return Ok(()),
                    Ok(Answer::Unknown(why) | Answer::Failed(why)) => last = Some(Error::Unknown { leader, why }),
                    Ok(_) => {}
                    Err(why) => last = Some(why),
                }
            }
            self.pause(seen, deadline).await;
        }
    }

    /// Which of these nodes have said that they end, where this one leads.
    pub(super) fn ending(&self, nodes: &BTreeSet<u64>) -> BTreeSet<u64> {
        let halves = self.0.tenure.halves.lock();
        nodes.iter().copied().filter(|node| halves.grantor.is_ending(*node)).collect()
    }

    /// Whether it is known here that a node ends.
    fn ends(&self, halves: &Halves, node: u64) -> bool {
        match node == self.number() {
            true => self.0.tenure.ending.load(SeqCst),
            false => halves.grantor.is_ending(node),
        }
    }

    /// Answers a node that has ended. The answer may be asked for once more, and what was begun for it dropped at any time.
    pub(super) async fn ended_here(&self, node: NodeNumber, start: Start) -> Answer {
        let (began, mut unknown) = (Instant::now(), String::new());
        while began.elapsed() < MEETS_WITHIN + self.0.timing.append {
            let meets = began.elapsed() < MEETS_WITHIN;
            let devices = match self.others_go_on(node, start, meets) {
                Next::Agree(devices) => devices,
                Next::Meet => {
                    sleep(MEETS_AGAIN).await;
                    continue;
                }
                Next::Answer(answer) => return answer,
            };
            let Start { run, given_up: times } = start;
            let command = Command::Ended { node, run, times, devices };
            match self.propose_here(command, self.0.timing.append).await {
                Ok(applied) => match applied.0 {
                    Ok(_) => return Answer::Ended,
                    // Of another decision, which came first.
                    Err(Refused::CannotBegin { .. } | Refused::NoSuchDevice(_)) => sleep(MEETS_AGAIN).await,
                    Err(refused) => {
                        tracing::debug!("that node {node} has ended is nothing to the cluster any more: {refused}");
                        return Answer::Ended;
                    }
                },
                Err(Error::NotLeader(_)) => return Answer::NotLeader,
                Err(why) => {
                    unknown = why.to_string();
                    sleep(MEETS_AGAIN).await;
                }
            }
        }
        Answer::Unknown(unknown)
    }

    /// Who goes on with which device of a node that has ended. `meets`: others are waited for of whom nothing was heard yet.
    fn others_go_on(&self, node: NodeNumber, start: Start, meets: bool) -> Next {
        let mut halves = self.0.tenure.halves.lock();
        let (role, term) = self.role();
        if role != Role::Leader || halves.serving != Some(term) {
            return Next::Answer(Answer::NotLeader);
        }
        let state = self.state();
        let Start { run, given_up } = start;
        let counts = state.nodes.get(&node).is_some_and(|member| member.incarnation == run);
        if !counts || state.times_given_up(node) != given_up {
            return Next::Answer(Answer::Ended);
        }
        let heard = self.heard();
        let stays = |voter: u64| {
            let is_live = heard.get(&voter).is_some_and(|heard| *heard < self.0.timing.election_max);
            voter != u64::from(node) && is_live && !self.ends(&halves, voter)
        };
        if !majority_stays(&self.members().voters, stays) {
            // None of those that are left could run them.
            return Next::Answer(Answer::Failed(format!("without node {node} there is no majority of the voters")));
        }
        halves.grantor.ended(node.into(), run);
        let live = self.live(&halves, self.0.tenure.now_us());
        let devices = failover::choose(&state, node, &live);
        let may_come =
            |other: &NodeNumber| *other != node && !self.ends(&halves, (*other).into()) && !live.contains(other);
        let left = || state.devices_of(node).filter(|(number, _)| !devices.contains_key(number));
        if meets && left().any(|(_, device)| device.in_sync.iter().any(may_come)) {
            return Next::Meet;
        }
        let shards: usize = devices.keys().map(|device| state.shards_of(*device).count()).sum();
        tracing::info!(
            "node {node} has ended in good order: {} of its {} devices, with {shards} shards, begin elsewhere",
            devices.len(),
            state.devices_of(node).count()
        );
        Next::Agree(devices)
    }
}

/// Whether those of the voters that stay are a majority of them.
fn majority_stays(voters: &BTreeSet<u64>, stays: impl Fn(u64) -> bool) -> bool {
    2 * voters.iter().filter(|voter| stays(**voter)).count() > voters.len()
}

/// What a leader does about a node that has ended.
enum Next {
    /// Has the cluster agree that these devices begin on these nodes.
    Agree(BTreeMap<DeviceNumber, NodeNumber>),
    /// Waits for others to ask for their leases.
    Meet,
    Answer(Answer),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_left_has_to_be_a_majority_of_those_that_vote() {
        let stay = |voters: u64, stay: &[u64]| majority_stays(&(1..=voters).collect(), |voter| stay.contains(&voter));
        assert!(stay(1, &[1]) && stay(3, &[2, 3]) && stay(5, &[1, 2, 5]));
        assert!(!stay(1, &[]) && !stay(3, &[2]) && !stay(4, &[1, 2]) && !stay(5, &[3, 4]));
        assert!(!stay(3, &[1, 4, 5]), "others do not count");
    }
}
