//! Many histories of nodes whose clocks drift, that are paused, that lose and delay calls, and of leaders that are replaced without
//! knowing it: at no moment of true time do two of them think that they hold the same device.

use std::collections::BTreeMap;

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::{DRIFT_PER_MILLE, Event, Grantor, Holder, Verdict, Voter, at_least, at_most};

const LEASE_US: u64 = 400_000;
const SPARE_US: u64 = 50_000;
const SILENCE_US: u64 = LEASE_US / 2;
/// Any three are a majority, and two majorities may have one node in common.
const NODES: u64 = 5;
const DEVICES: usize = 4;

/// A mistake made on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistake {
    /// A lease counts from when the answer came.
    CountsFromTheAnswer,
    /// A new leader takes what leaders before it have granted for over.
    DoesNotWait,
    /// A leader that has been replaced grants as it did before.
    GrantsWithoutMajority,
    /// Clocks drift by more than is assumed.
    DriftsMore,
    /// What a node knows of itself is not asked.
    GrantsTheGivenUp,
    /// Voters do not wait, and who was elected counts on it.
    ElectsAtOnce,
    /// Who was elected because another handed over counts on voters that have waited.
    CountsWithoutWaiting,
    /// A voter that has started again takes what it does not know for nothing.
    ForgetsWhatItHeard,
}

/// Something that will happen.
#[derive(Clone, Debug)]
enum Next {
    /// A node asks whomever it takes for the leader.
    Asks(u64),
    Arrives {
        from: u64,
        at: u64,
        sent_us: u64,
        given_up: u64,
    },
    Answered {
        node: u64,
        sent_us: u64,
        span_us: u64,
    },
    /// The leader looks whom it gives up.
    Looks(u64),
    /// What a leader decided in a term comes to be agreed on, if it still leads.
    Agreed {
        term: u64,
        leader: u64,
        node: u64,
        to: u64,
    },
    /// A node hears of what has been agreed on.
    Learns {
        node: u64,
        agreed: usize,
    },
    /// A majority acknowledges what the leader of a term sent at this moment.
    Acknowledged {
        term: u64,
        sent: u64,
    },
    Elected,
    /// A node that has been replaced hears of it.
    Deposed {
        node: u64,
        term: u64,
    },
    Pauses,
}

struct Node {
    /// Its clock: where it began, and parts of a thousand that it advances in one of true time.
    began_us: u64,
    rate_per_mille: f64,
    holder: Holder,
    grantor: Grantor,
    voter: Voter,
    /// The term in which it thinks that it leads, and when it had sent the last thing that a majority has acknowledged.
    leads: Option<(u64, u64)>,
    /// So many of the decisions it knows.
    knows: usize,
    paused_until: u64,
}

struct World {
    random: ChaCha8Rng,
    mistake: Option<Mistake>,
    now: u64,
    nodes: Vec<Node>,
    /// By when they are due, and which was planned first.
    next: BTreeMap<(u64, u64), Next>,
    planned: u64,
    /// The last one that was elected, and its term.
    leader: u64,
    term: u64,
    /// Who was given up, for whom, in the order in which that was agreed on.
    agreed: Vec<(u64, u64)>,
}

impl World {
    fn new(seed: u64, mistake: Option<Mistake>) -> World {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let drift = if mistake == Some(Mistake::DriftsMore) { 150.0 } else { DRIFT_PER_MILLE as f64 };
        let mut began_us = || random.next_u64() % 1_000_000_000;
        let began: [u64; NODES as usize] = std::array::from_fn(|_| began_us());
        let nodes = began
            .into_iter()
            .map(|began_us| Node {
                began_us,
                rate_per_mille: 1_000.0 + drift * ((random.next_u64() % 2_001) as f64 / 1_000.0 - 1.0),
                holder: Holder::default(),
                // Nothing may depend on that one is waited for longer than need be.
                grantor: Grantor::new(LEASE_US, 0),
                voter: Voter::new(began_us, SILENCE_US),
                leads: None,
                knows: 0,
                paused_until: 0,
            })
            .collect();
        let mut world = World {
            random,
            mistake,
            now: 0,
            nodes,
            next: BTreeMap::new(),
            planned: 0,
            leader: 0,
            term: 0,
            agreed: Vec::new(),
        };
        (0..NODES).for_each(|node| world.plan(0, Next::Asks(node)));
        (0..NODES).for_each(|node| world.plan(0, Next::Looks(node)));
        world.plan(0, Next::Elected);
        world.plan(0, Next::Pauses);
        world
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.next_u64() % bound
    }

    fn plan(&mut self, after: u64, next: Next) {
        self.planned += 1;
        self.next.insert((self.now + after, self.planned), next);
    }

    /// How long a message takes: most not long, some very.
    fn delay(&mut self) -> u64 {
        match self.below(10) {
            0 => self.below(600_000),
            _ => self.below(30_000),
        }
    }

    /// A node's clock now.
    fn clock(&self, node: u64) -> u64 {
        let node = &self.nodes[node as usize];
        node.began_us + (self.now as f64 * node.rate_per_mille / 1_000.0) as u64
    }

    /// Who has each device, as this many decisions have it.
    fn owners(&self, agreed: usize) -> [u64; DEVICES] {
        let mut owners = std::array::from_fn(|device| device as u64);
        for (node, to) in &self.agreed[..agreed] {
            owners.iter_mut().filter(|owner| *owner == node).for_each(|owner| *owner = *to);
        }
        owners
    }

    fn given_up(&self, node: u64, agreed: usize) -> u64 {
        self.agreed[..agreed].iter().filter(|(given_up, _)| *given_up == node).count() as u64
    }

    /// Goes on to the next thing that happens; says what was decided then.
    fn step(&mut self) {
        let ((due, _), next) = self.next.pop_first().expect("nodes always ask again");
        self.now = due;
        let of = match &next {
            Next::Asks(node) | Next::Looks(node) => Some(*node),
            Next::Arrives { at, .. } => Some(*at),
            Next::Answered { node, .. } | Next::Learns { node, .. } | Next::Deposed { node, .. } => Some(*node),
            Next::Agreed { .. } | Next::Acknowledged { .. } | Next::Elected | Next::Pauses => None,
        };
        // A node that is paused does it when it goes on.
        if let Some(left) =
            of.and_then(|node| self.nodes[node as usize].paused_until.checked_sub(self.now)).filter(|l| *l > 0)
        {
            return self.plan(left, next);
        }
        match next {
            Next::Asks(node) => self.asks(node),
            Next::Arrives { from, at, sent_us, given_up } => self.arrives(from, at, sent_us, given_up),
            Next::Answered { node, sent_us, span_us } => {
                let now_us = self.clock(node);
                let sent_us = if self.mistake == Some(Mistake::CountsFromTheAnswer) { now_us } else { sent_us };
                self.nodes[node as usize].holder.step(now_us, Event::Granted { sent_us, span_us });
            }
            Next::Looks(node) => self.looks(node),
            Next::Agreed { term, leader, node, to } => {
                if term == self.term {
                    self.agreed.push((node, to));
                    let agreed = self.agreed.len();
                    self.nodes[leader as usize].knows = agreed;
                    self.nodes[leader as usize].grantor.settled(term, node);
                    for other in 0..NODES {
                        let delay = self.delay();
                        self.plan(delay, Next::Learns { node: other, agreed });
                    }
                }
            }
            Next::Learns { node, agreed } => {
                let known = &mut self.nodes[node as usize].knows;
                *known = agreed.max(*known);
            }
            Next::Acknowledged { term, sent } => {
                let leader = self.leader as usize;
                // Who has voted for another since does not acknowledge.
                if term == self.term {
                    self.nodes[leader].leads = Some((term, sent));
                    for voter in self.majority(self.leader).into_iter().skip(1) {
                        let now_us = self.clock(voter);
                        self.nodes[voter as usize].voter.hears();
                        self.nodes[voter as usize].voter.heard(now_us, true);
                        let forgets = self.mistake == Some(Mistake::ForgetsWhatItHeard);
                        if self.below(if forgets { 2 } else { 20 }) == 0 {
                            let since_us = if forgets { 0 } else { now_us };
                            self.nodes[voter as usize].voter = Voter::new(since_us, SILENCE_US);
                        }
                    }
                    // At times nobody is reached for a while.
                    let again = if self.below(10) == 0 { self.below(1_500_000) } else { self.below(100_000) };
                    self.plan(again, Next::Acknowledged { term, sent: self.now });
                }
            }
            Next::Elected => self.is_elected(),
            Next::Deposed { node, term } => {
                if self.nodes[node as usize].leads.is_some_and(|(led, _)| led == term) {
                    self.nodes[node as usize].leads = None;
                    self.nodes[node as usize].grantor.follows();
                }
            }
            Next::Pauses => {
                let (node, span) = (self.below(NODES) as usize, self.below(1_500_000));
                self.nodes[node].paused_until = self.now + span;
                let after = self.below(2_000_000);
                self.plan(after, Next::Pauses);
            }
        }
    }

    fn asks(&mut self, node: u64) {
        let again = 80_000 + self.below(40_000);
        self.plan(again, Next::Asks(node));
        let (sent_us, given_up) = (self.clock(node), self.given_up(node, self.nodes[node as usize].knows));
        // It may still ask one that was replaced.
        let at = if self.below(4) == 0 { self.below(NODES) } else { self.leader };
        if self.below(10) > 0 {
            let delay = self.delay();
            self.plan(delay, Next::Arrives { from: node, at, sent_us, given_up });
        }
    }

    fn arrives(&mut self, from: u64, at: u64, sent_us: u64, given_up: u64) {
        let Some((_, acknowledged)) = self.nodes[at as usize].leads else { return };
        let knows = self.nodes[at as usize].knows;
        if given_up != self.given_up(from, knows) && self.mistake != Some(Mistake::GrantsTheGivenUp) {
            return;
        }
        let age = (self.now - acknowledged) as f64 * self.nodes[at as usize].rate_per_mille / 1_000.0;
        let age_us = if self.mistake == Some(Mistake::GrantsWithoutMajority) { 0 } else { age as u64 };
        let now_us = self.clock(at);
        if let Verdict::Granted { span_us } = self.nodes[at as usize].grantor.asked(now_us, from, age_us) {
            self.nodes[at as usize].voter.led(now_us - age_us);
            if self.below(10) > 0 {
                let delay = self.delay();
                self.plan(delay, Next::Answered { node: from, sent_us, span_us });
            }
        }
    }

    /// This node, and others with which it is a majority.
    fn majority(&mut self, node: u64) -> Vec<u64> {
        let mut others: Vec<u64> = (0..NODES).filter(|other| *other != node).collect();
        while others.len() > NODES as usize / 2 {
            let left_out = self.below(others.len() as u64) as usize;
            others.remove(left_out);
        }
        others.insert(0, node);
        others
    }

    fn looks(&mut self, leader: u64) {
        let again = 20_000 + self.below(40_000);
        self.plan(again, Next::Looks(leader));
        let Some((term, _)) = self.nodes[leader as usize].leads else { return };
        let now_us = self.clock(leader);
        let grantor = &mut self.nodes[leader as usize].grantor;
        let given_up = grantor.give_up(now_us, 0..NODES, |_| false);
        let holders = grantor.holders(now_us);
        for node in given_up {
            match holders.iter().next() {
                Some(to) => {
                    let (delay, to) = (self.delay(), *to);
                    self.plan(delay, Next::Agreed { term, leader, node, to });
                }
                None => self.nodes[leader as usize].grantor.settled(term, node),
            }
        }
    }

    /// Somebody asks for votes, by itself or because the leader hands over, and is elected by those who may.
    fn is_elected(&mut self) {
        let candidate = self.below(NODES);
        let handed_over = self.below(4) == 0;
        let voters = self.majority(candidate);
        let may = |voter: &u64| self.nodes[*voter as usize].voter.may_elect(self.clock(*voter));
        if handed_over || self.mistake == Some(Mistake::ElectsAtOnce) || voters.iter().all(may) {
            self.elect(candidate, handed_over);
            let after = 50_000 + self.below(4_000_000);
            self.plan(after, Next::Elected);
        } else {
            let after = self.below(100_000);
            self.plan(after, Next::Elected);
        }
    }

    fn elect(&mut self, leader: u64, handed_over: bool) {
        let (old, old_term) = (self.leader, self.term);
        let hears = self.below(2_000_000);
        self.plan(hears, Next::Deposed { node: old, term: old_term });
        (self.leader, self.term) = (leader, self.term + 1);
        let (leader, agreed) = (self.leader as usize, self.agreed.len());
        let mut now_us = self.clock(self.leader);
        if self.mistake == Some(Mistake::DoesNotWait) {
            now_us = now_us.saturating_sub(at_least(LEASE_US) + SPARE_US);
        }
        // It has applied what was left, and was voted for just now.
        self.nodes[leader].knows = agreed;
        self.nodes[leader].leads = Some((self.term, self.now));
        let waited_us = match self.mistake {
            Some(Mistake::ElectsAtOnce | Mistake::CountsWithoutWaiting) => at_most(SILENCE_US),
            _ if handed_over => 0,
            _ => self.nodes[leader].voter.waited_us(now_us),
        };
        self.nodes[leader].grantor.leads(now_us, self.term, waited_us);
        self.plan(1_000, Next::Acknowledged { term: self.term, sent: self.now });
    }

    /// The device that two nodes think they hold now, if there is one.
    fn held_twice(&self) -> Option<usize> {
        let thinks = |node: u64, device: usize| {
            let about = &self.nodes[node as usize];
            about.holder.until_us() > self.clock(node) && self.owners(about.knows)[device] == node
        };
        (0..DEVICES).find(|device| (0..NODES).filter(|node| thinks(*node, *device)).count() > 1)
    }
}

/// Whether a device was ever held twice in one of so many histories; and how many devices began elsewhere.
fn held_twice(seeds: u64, mistake: Option<Mistake>) -> (bool, usize) {
    let mut moved = 0;
    for seed in 0..seeds {
        let mut world = World::new(seed, mistake);
        while world.now < 20_000_000 {
            world.step();
            if world.held_twice().is_some() {
                return (true, moved);
            }
        }
        moved += world.agreed.len();
    }
    (false, moved)
}

#[test]
fn no_two_nodes_hold_a_device() {
    let (twice, moved) = held_twice(100, None);
    assert!(!twice);
    assert!(moved > 300, "devices began elsewhere only {moved} times");
}

#[test]
fn mistakes_are_noticed() {
    for mistake in [
        Mistake::CountsFromTheAnswer,
        Mistake::DoesNotWait,
        Mistake::GrantsWithoutMajority,
        Mistake::DriftsMore,
        Mistake::GrantsTheGivenUp,
        Mistake::ElectsAtOnce,
        Mistake::CountsWithoutWaiting,
        Mistake::ForgetsWhatItHeard,
    ] {
        assert!(held_twice(200, Some(mistake)).0, "{mistake:?} was not noticed");
    }
}

#[test]
fn spans_are_on_the_safe_side_of_the_drift() {
    for span_us in [0, 1, 99, 100, 101, 399_999, 400_000, 10_000_000] {
        for rate in [0.99, 1.0, 1.01] {
            assert!(at_most(span_us) as f64 / rate <= span_us as f64 + 1e-6, "{span_us} at {rate}");
            assert!(at_least(span_us) as f64 / rate >= span_us as f64, "{span_us} at {rate}");
            assert!(at_least(span_us) as f64 >= span_us as f64 / rate, "{span_us} at {rate}");
        }
    }
}

#[test]
fn a_lease_ends_by_the_clock_of_its_holder_counted_from_the_question() {
    let mut holder = Holder::default();
    assert_eq!(holder.until_us(), 0);
    holder.step(150_000, Event::Granted { sent_us: 100_000, span_us: 400_000 });
    assert_eq!(holder.until_us(), 496_000);
    // An answer to an earlier question, which comes later.
    holder.step(160_000, Event::Granted { sent_us: 50_000, span_us: 400_000 });
    assert_eq!(holder.until_us(), 496_000);
}

#[test]
fn who_votes_alone_holds_its_lease_until_others_are_about_to_vote() {
    let mut holder = Holder::default();
    holder.step(0, Event::Joined { lease_us: LEASE_US });
    assert_eq!(holder, Holder::Without);
    holder.step(0, Event::Alone);
    holder.step(1, Event::Granted { sent_us: 0, span_us: 5 });
    assert_eq!(holder.until_us(), u64::MAX);
    holder.step(1_000_000, Event::Joined { lease_us: LEASE_US });
    assert_eq!(holder.until_us(), 1_396_000);
    holder.step(1_000_000, Event::Joined { lease_us: LEASE_US });
    assert_eq!(holder.until_us(), 1_396_000);
}

/// Looks who is silent, as often as one has to, from one moment to another; says who was given up, and when.
fn look(grantor: &mut Grantor, from_us: u64, until_us: u64) -> Vec<(u64, u64)> {
    let moments = (from_us..=until_us).step_by(10_000);
    moments
        .flat_map(|now_us| grantor.give_up(now_us, [1, 2], |_| false).into_iter().map(move |node| (node, now_us)))
        .collect()
}

#[test]
fn a_silent_node_is_given_up_once_and_granted_nothing_until_that_is_settled() {
    let mut grantor = Grantor::new(LEASE_US, SPARE_US);
    assert_eq!(grantor.asked(0, 1, 0), Verdict::NotNow, "it does not lead");
    grantor.leads(0, 7, 0);
    assert_eq!(grantor.asked(0, 1, 0), Verdict::Granted { span_us: 400_000 });
    assert!(look(&mut grantor, 0, 300_000).is_empty());
    assert_eq!(grantor.asked(300_000, 1, 100_000), Verdict::Granted { span_us: 298_000 });
    assert_eq!(grantor.asked(300_000, 2, 400_000), Verdict::NotNow, "a majority was not heard of for too long");
    // Of node 2 it is not known what leaders before had granted it; and it asked just before.
    let (before, last) = (at_least(LEASE_US) + SPARE_US, 300_000 + at_least(298_000) + SPARE_US);
    let given_up = look(&mut grantor, 310_000, 1_000_000);
    let wanted = [(2, before.max(500_000)), (1, last)];
    assert_eq!(given_up.len(), 2, "once: {given_up:?}");
    for ((node, at_us), (wanted, from_us)) in given_up.iter().zip(wanted) {
        assert!(*node == wanted && (from_us..=from_us + 10_001).contains(at_us), "{given_up:?}");
    }
    let now = 1_000_000;
    assert_eq!(grantor.asked(now, 1, 0), Verdict::NotNow);
    grantor.settled(6, 1);
    assert_eq!(grantor.asked(now, 1, 0), Verdict::NotNow, "that was another leader's");
    grantor.settled(7, 1);
    assert_eq!(grantor.asked(now, 1, 0), Verdict::Granted { span_us: 400_000 });
    assert_eq!(grantor.holders(now + 1).into_iter().collect::<Vec<_>>(), [1]);
    grantor.leads(now + 2, 8, 0);
    assert!(grantor.holders(now + 3).is_empty(), "a new term begins with nothing");
    grantor.follows();
    assert_eq!(grantor.asked(now + 4, 1, 0), Verdict::NotNow);
}

#[test]
fn nobody_is_given_up_for_what_was_the_leaders_own_silence() {
    let mut grantor = Grantor::new(LEASE_US, SPARE_US);
    grantor.leads(0, 7, 0);
    for now_us in (0..=900_000).step_by(100_000) {
        for node in [1, 2] {
            grantor.asked(now_us, node, 0);
        }
        look(&mut grantor, now_us, now_us + 90_000);
    }
    // It is paused; then the first comes to word, and a little later the other.
    let resumed = 3_000_000;
    assert!(look(&mut grantor, resumed, resumed).is_empty());
    grantor.asked(resumed, 1, 0);
    assert!(look(&mut grantor, resumed, resumed + 90_000).is_empty());
    grantor.asked(resumed + 95_000, 2, 0);
    assert!(look(&mut grantor, resumed + 100_000, resumed + 300_000).is_empty());
    // Without a majority nothing is granted, and who asks is not silent.
    for now_us in (resumed + 300_000..resumed + 2_000_000).step_by(100_000) {
        for node in [1, 2] {
            assert_eq!(grantor.asked(now_us, node, 10_000_000), Verdict::NotNow);
        }
        assert!(look(&mut grantor, now_us, now_us + 90_000).is_empty());
    }
    assert_eq!(look(&mut grantor, resumed + 2_000_000, resumed + 3_000_000).len(), 2, "then they are silent");
}
