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
    /// A node says that it has ended, and still holds its lease.
    EndsTooEarly,
    /// What one start of a node has said counts for the next.
    TakesStartsForOne,
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
        start: Start,
    },
    Answered {
        node: u64,
        run: u64,
        sent_us: u64,
        span_us: u64,
    },
    /// One of the nodes ends in good order.
    Ends,
    /// It is known where it says so.
    EndArrives {
        from: u64,
        at: u64,
        start: Start,
    },
    /// It is started again.
    Starts(u64),
    /// The leader looks whom it gives up.
    Looks(u64),
    /// What a leader decided in a term of a start of a node comes to be agreed on, if it still leads. `ended`: that one has said so.
    Agreed {
        term: u64,
        leader: u64,
        node: u64,
        start: Start,
        ended: bool,
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

/// What is agreed on.
#[derive(Clone, Copy, Debug)]
enum Decision {
    /// Another node has the devices of this one.
    GivenUp { node: u64, to: u64 },
    /// A node was started once more.
    Started(u64),
}

/// A start of a node: which, and how often the node had been given up as far as it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    run: u64,
    given_up: u64,
}

struct Node {
    /// It was started so often again; and it has ended, and was not started since.
    run: u64,
    has_ended: bool,
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
    /// In the order in which it was agreed on.
    agreed: Vec<Decision>,
    /// Devices that began elsewhere because their node had ended.
    handed_on: usize,
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
                run: 0,
                has_ended: false,
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
            handed_on: 0,
        };
        (0..NODES).for_each(|node| world.plan(0, Next::Asks(node)));
        (0..NODES).for_each(|node| world.plan(0, Next::Looks(node)));
        world.plan(0, Next::Elected);
        world.plan(0, Next::Pauses);
        world.plan(0, Next::Ends);
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
        for decision in &self.agreed[..agreed] {
            if let Decision::GivenUp { node, to } = decision {
                owners.iter_mut().filter(|owner| *owner == node).for_each(|owner| *owner = *to);
            }
        }
        owners
    }

    /// The last start of a node, as this many decisions have it.
    fn start_of(&self, node: u64, agreed: usize) -> Start {
        let mut start = Start { run: 0, given_up: 0 };
        for decision in &self.agreed[..agreed] {
            match decision {
                Decision::GivenUp { node: given_up, .. } => start.given_up += u64::from(*given_up == node),
                Decision::Started(started) => start.run += u64::from(*started == node),
            }
        }
        start
    }

    /// What a node knows of its own.
    fn own_start(&self, node: u64) -> Start {
        let about = &self.nodes[node as usize];
        Start { run: about.run, ..self.start_of(node, about.knows) }
    }

    /// Has a decision be agreed on that a leader has proposed.
    fn agree(&mut self, decision: Decision) {
        self.agreed.push(decision);
        let agreed = self.agreed.len();
        self.nodes[self.leader as usize].knows = agreed;
        for other in 0..NODES {
            let delay = self.delay();
            self.plan(delay, Next::Learns { node: other, agreed });
        }
    }

    /// Goes on to the next thing that happens; says what was decided then.
    fn step(&mut self) {
        let ((due, _), next) = self.next.pop_first().expect("nodes always ask again");
        self.now = due;
        let of = match &next {
            Next::Asks(node) | Next::Looks(node) => Some(*node),
            Next::Arrives { at, .. } | Next::EndArrives { at, .. } => Some(*at),
            Next::Answered { node, .. } | Next::Learns { node, .. } | Next::Deposed { node, .. } => Some(*node),
            Next::Starts(node) => Some(*node),
            Next::Agreed { .. } | Next::Acknowledged { .. } | Next::Elected | Next::Pauses | Next::Ends => None,
        };
        // A node that is paused does it when it goes on.
        if let Some(left) =
            of.and_then(|node| self.nodes[node as usize].paused_until.checked_sub(self.now)).filter(|l| *l > 0)
        {
            return self.plan(left, next);
        }
        match next {
            Next::Asks(node) => self.asks(node),
            Next::Arrives { from, at, sent_us, start } => self.arrives(from, at, sent_us, start),
            // Another process has asked.
            Next::Answered { node, run, .. } if self.nodes[node as usize].run != run => {}
            Next::Answered { node, sent_us, span_us, .. } => {
                let now_us = self.clock(node);
                let sent_us = if self.mistake == Some(Mistake::CountsFromTheAnswer) { now_us } else { sent_us };
                self.nodes[node as usize].holder.step(now_us, Event::Granted { sent_us, span_us });
            }
            Next::Looks(node) => self.looks(node),
            Next::Ends => self.ends(),
            Next::EndArrives { from, at, start } => self.end_arrives(from, at, start),
            Next::Starts(node) => {
                self.agree(Decision::Started(node));
                let knows = self.agreed.len();
                let about = &mut self.nodes[node as usize];
                (about.run, about.has_ended, about.holder, about.knows) =
                    (about.run + 1, false, Holder::default(), knows);
            }
            Next::Agreed { term, leader, node, start, ended, to } => {
                if term == self.term {
                    let now = self.start_of(node, self.agreed.len());
                    let other = ended && self.mistake != Some(Mistake::TakesStartsForOne) && now.run != start.run;
                    if now.given_up == start.given_up && !other {
                        self.handed_on += usize::from(ended);
                        self.agree(Decision::GivenUp { node, to });
                    }
                    self.nodes[leader as usize].grantor.settled(term, node);
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
        if self.nodes[node as usize].has_ended {
            return;
        }
        let (sent_us, start) = (self.clock(node), self.own_start(node));
        // It may still ask one that was replaced.
        let at = if self.below(4) == 0 { self.below(NODES) } else { self.leader };
        if self.below(10) > 0 {
            let delay = self.delay();
            self.plan(delay, Next::Arrives { from: node, at, sent_us, start });
        }
    }

    fn arrives(&mut self, from: u64, at: u64, sent_us: u64, start: Start) {
        let Some((_, acknowledged)) = self.nodes[at as usize].leads else { return };
        let known = self.start_of(from, self.nodes[at as usize].knows);
        let given_up = start.given_up != known.given_up && self.mistake != Some(Mistake::GrantsTheGivenUp);
        if given_up || start.run != known.run {
            return;
        }
        let age = (self.now - acknowledged) as f64 * self.nodes[at as usize].rate_per_mille / 1_000.0;
        let age_us = if self.mistake == Some(Mistake::GrantsWithoutMajority) { 0 } else { age as u64 };
        let now_us = self.clock(at);
        let run = start.run;
        if let Verdict::Granted { span_us } = self.nodes[at as usize].grantor.asked(now_us, (from, run), age_us) {
            self.nodes[at as usize].voter.led(now_us - age_us);
            if self.below(10) > 0 {
                let delay = self.delay();
                self.plan(delay, Next::Answered { node: from, run, sent_us, span_us });
            }
        }
    }

    fn ends(&mut self) {
        let after = self.below(2_000_000);
        self.plan(after, Next::Ends);
        let node = self.below(NODES);
        if self.nodes[node as usize].has_ended {
            return;
        }
        let (now_us, start) = (self.clock(node), self.own_start(node));
        if self.mistake != Some(Mistake::EndsTooEarly) {
            self.nodes[node as usize].holder.step(now_us, Event::Ended);
        }
        self.nodes[node as usize].has_ended = true;
        // Said more than once, for it may be lost.
        for _ in 0..2 {
            let at = if self.below(4) == 0 { self.below(NODES) } else { self.leader };
            let delay = self.delay();
            self.plan(delay, Next::EndArrives { from: node, at, start });
        }
        let down = self.below(800_000);
        self.plan(down, Next::Starts(node));
    }

    fn end_arrives(&mut self, from: u64, at: u64, start: Start) {
        let Some((term, _)) = self.nodes[at as usize].leads else { return };
        let known = self.start_of(from, self.nodes[at as usize].knows);
        let other = start.run != known.run && self.mistake != Some(Mistake::TakesStartsForOne);
        if start.given_up != known.given_up || other {
            return;
        }
        let now_us = self.clock(at);
        let grantor = &mut self.nodes[at as usize].grantor;
        grantor.ended(from, start.run);
        if let Some(to) = grantor.holders(now_us).into_iter().find(|to| *to != from) {
            let delay = self.delay();
            self.plan(delay, Next::Agreed { term, leader: at, node: from, start, ended: true, to });
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
        let runs = (0..NODES).map(|node| (node, self.start_of(node, self.nodes[leader as usize].knows).run));
        let runs: Vec<_> = runs.collect();
        let grantor = &mut self.nodes[leader as usize].grantor;
        let given_up: Vec<_> =
            grantor.give_up(now_us, runs, |_| false).into_iter().map(|node| (node, grantor.has_ended(node))).collect();
        let holders = grantor.holders(now_us);
        for (node, ended) in given_up {
            let start = self.start_of(node, self.nodes[leader as usize].knows);
            match holders.iter().next() {
                Some(to) => {
                    let (delay, to) = (self.delay(), *to);
                    self.plan(delay, Next::Agreed { term, leader, node, start, ended, to });
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

/// Whether a device was ever held twice in one of so many histories; and how many devices began elsewhere, for what was silent and for
/// what had ended.
fn held_twice(seeds: u64, mistake: Option<Mistake>) -> (bool, [usize; 2]) {
    let mut moved = [0; 2];
    for seed in 0..seeds {
        let mut world = World::new(seed, mistake);
        while world.now < 20_000_000 {
            world.step();
            if world.held_twice().is_some() {
                return (true, moved);
            }
        }
        let given_up = |decision: &&Decision| matches!(decision, Decision::GivenUp { .. });
        moved[0] += world.agreed.iter().filter(given_up).count() - world.handed_on;
        moved[1] += world.handed_on;
    }
    (false, moved)
}

#[test]
fn no_two_nodes_hold_a_device() {
    let (twice, moved) = held_twice(100, None);
    assert!(!twice);
    assert!(moved[0] > 300 && moved[1] > 300, "devices began elsewhere only {moved:?} times");
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
        Mistake::EndsTooEarly,
        Mistake::TakesStartsForOne,
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

#[test]
fn who_has_ended_holds_no_lease_whatever_comes_late() {
    for before in [Holder::Without, Holder::Until(1_000), Holder::Alone] {
        let mut holder = before;
        holder.step(0, Event::Ended);
        holder.step(0, Event::Granted { sent_us: 0, span_us: LEASE_US });
        holder.step(0, Event::Joined { lease_us: LEASE_US });
        holder.step(0, Event::Alone);
        assert_eq!(holder.until_us(), 0, "{before:?}");
    }
}

/// Looks who is silent, as often as one has to, from one moment to another; says who was given up, and when.
fn look(grantor: &mut Grantor, from_us: u64, until_us: u64) -> Vec<(u64, u64)> {
    let moments = (from_us..=until_us).step_by(10_000);
    moments
        .flat_map(|now_us| {
            grantor.give_up(now_us, [(1, 0), (2, 0)], |_| false).into_iter().map(move |node| (node, now_us))
        })
        .collect()
}

#[test]
fn a_silent_node_is_given_up_once_and_granted_nothing_until_that_is_settled() {
    let mut grantor = Grantor::new(LEASE_US, SPARE_US);
    assert_eq!(grantor.asked(0, (1, 0), 0), Verdict::NotNow, "it does not lead");
    grantor.leads(0, 7, 0);
    assert_eq!(grantor.asked(0, (1, 0), 0), Verdict::Granted { span_us: 400_000 });
    assert!(look(&mut grantor, 0, 300_000).is_empty());
    assert_eq!(grantor.asked(300_000, (1, 0), 100_000), Verdict::Granted { span_us: 298_000 });
    assert_eq!(grantor.asked(300_000, (2, 0), 400_000), Verdict::NotNow, "a majority was not heard of for too long");
    // Of node 2 it is not known what leaders before had granted it; and it asked just before.
    let (before, last) = (at_least(LEASE_US) + SPARE_US, 300_000 + at_least(298_000) + SPARE_US);
    let given_up = look(&mut grantor, 310_000, 1_000_000);
    let wanted = [(2, before.max(500_000)), (1, last)];
    assert_eq!(given_up.len(), 2, "once: {given_up:?}");
    for ((node, at_us), (wanted, from_us)) in given_up.iter().zip(wanted) {
        assert!(*node == wanted && (from_us..=from_us + 10_001).contains(at_us), "{given_up:?}");
    }
    let now = 1_000_000;
    assert_eq!(grantor.asked(now, (1, 0), 0), Verdict::NotNow);
    grantor.settled(6, 1);
    assert_eq!(grantor.asked(now, (1, 0), 0), Verdict::NotNow, "that was another leader's");
    grantor.settled(7, 1);
    assert_eq!(grantor.asked(now, (1, 0), 0), Verdict::Granted { span_us: 400_000 });
    assert_eq!(grantor.holders(now + 1).into_iter().collect::<Vec<_>>(), [1]);
    grantor.leads(now + 2, 8, 0);
    assert!(grantor.holders(now + 3).is_empty(), "a new term begins with nothing");
    grantor.follows();
    assert_eq!(grantor.asked(now + 4, (1, 0), 0), Verdict::NotNow);
}

#[test]
fn nobody_is_given_up_for_what_was_the_leaders_own_silence() {
    let mut grantor = Grantor::new(LEASE_US, SPARE_US);
    grantor.leads(0, 7, 0);
    for now_us in (0..=900_000).step_by(100_000) {
        for node in [1, 2] {
            grantor.asked(now_us, (node, 0), 0);
        }
        look(&mut grantor, now_us, now_us + 90_000);
    }
    // It is paused; then the first comes to word, and a little later the other.
    let resumed = 3_000_000;
    assert!(look(&mut grantor, resumed, resumed).is_empty());
    grantor.asked(resumed, (1, 0), 0);
    assert!(look(&mut grantor, resumed, resumed + 90_000).is_empty());
    grantor.asked(resumed + 95_000, (2, 0), 0);
    assert!(look(&mut grantor, resumed + 100_000, resumed + 300_000).is_empty());
    // Without a majority nothing is granted, and who asks is not silent.
    for now_us in (resumed + 300_000..resumed + 2_000_000).step_by(100_000) {
        for node in [1, 2] {
            assert_eq!(grantor.asked(now_us, (node, 0), 10_000_000), Verdict::NotNow);
        }
        assert!(look(&mut grantor, now_us, now_us + 90_000).is_empty());
    }
    assert_eq!(look(&mut grantor, resumed + 2_000_000, resumed + 3_000_000).len(), 2, "then they are silent");
}

#[test]
fn what_a_node_says_of_its_end_is_good_for_that_start_of_it() {
    let mut grantor = Grantor::new(LEASE_US, SPARE_US);
    grantor.leads(0, 7, 0);
    let holders = |grantor: &Grantor, now_us| grantor.holders(now_us).into_iter().collect::<Vec<_>>();
    for node in [1, 2] {
        assert_eq!(grantor.asked(0, (node, 5), 0), Verdict::Granted { span_us: LEASE_US });
    }
    grantor.ends(1, 5);
    assert_eq!(holders(&grantor, 1), [2], "nothing is given to it");
    assert_eq!(grantor.asked(1, (1, 5), 0), Verdict::Granted { span_us: LEASE_US }, "and it runs what it has");
    grantor.ended(1, 5);
    assert_eq!(grantor.asked(2, (1, 5), 0), Verdict::NotNow, "a question that comes late");
    grantor.ends(1, 5);
    assert_eq!(grantor.asked(3, (1, 5), 0), Verdict::NotNow);
    assert!(grantor.is_ending(1) && holders(&grantor, 4) == [2]);
    assert_eq!(grantor.asked(5, (1, 6), 0), Verdict::Granted { span_us: LEASE_US }, "it was started again");
    assert!(!grantor.is_ending(1) && holders(&grantor, 6) == [1, 2]);
    // What could not be given to others at once is as soon as that can be.
    grantor.ended(1, 6);
    assert_eq!(grantor.give_up(7, [(1, 6), (2, 5)], |_| false), [1]);
    assert!(grantor.give_up(8, [(1, 6), (2, 5)], |_| false).is_empty(), "that is under way");
    grantor.settled(7, 1);
    assert_eq!(grantor.give_up(9, [(1, 6), (2, 5)], |_| false), [1]);
    grantor.settled(7, 1);
    assert!(grantor.give_up(10, [(1, 7), (2, 5)], |_| false).is_empty(), "it was started again");
}
