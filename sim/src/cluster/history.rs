//! What clients asked of the control plane and heard, as operations of objects; and what was seen of nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use ringhold_cluster::control::state::{Command, DeviceNumber, Outcome, Refused, State};
use ringhold_cluster::control::{Error, Role};

use super::linear::{self, Call, Operation, Verdict};
use super::plan::SHARDS;

/// Configurations that the search for a story may look at.
const STEPS_MAX: usize = 400_000;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A shard's owner is exchanged, if it is who it was thought to be.
    Move {
        shard: u32,
        from: DeviceNumber,
        to: DeviceNumber,
    },
    /// A token is used, if it was not yet.
    Use {
        token: u64,
    },
    Read,
}

/// What it heard.
#[derive(Clone, Debug)]
pub enum Heard {
    Done,
    /// It could not be, as things were.
    Refused,
    Read(Box<Seen>),
    /// It may have been done, or not.
    Unknown,
    /// It was not done.
    Failed,
}

/// What is looked at of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub shards: Vec<Shard>,
    pub tokens: BTreeSet<u64>,
}

/// The owner of a shard, and its term.
pub type Shard = (Option<DeviceNumber>, u64);

impl Seen {
    pub fn of(state: &State) -> Seen {
        let shards = state.shards.iter().take(SHARDS as usize).map(|shard| (shard.owner, shard.term)).collect();
        let token = |serial: &Vec<u8>| Some(u64::from_be_bytes(serial.as_slice().try_into().ok()?));
        Seen { shards, tokens: state.tokens.keys().filter_map(token).collect() }
    }
}

/// A number for a state: another one for what differs in anything that commands of this scenario change.
pub fn digest(state: &State) -> u64 {
    // Its keys are fixed.
    let mut hasher = DefaultHasher::new();
    for (number, member) in &state.nodes {
        (number, &member.id, &member.address, member.draining).hash(&mut hasher);
    }
    for (number, device) in &state.devices {
        (number, device.node, device.term, &device.replicas, &device.in_sync).hash(&mut hasher);
    }
    state.nodes.keys().for_each(|node| state.times_given_up(*node).hash(&mut hasher));
    state.shards.iter().for_each(|shard| (shard.owner, shard.term).hash(&mut hasher));
    (state.settings.voters_max, &state.tokens).hash(&mut hasher);
    hasher.finish()
}

impl Ask {
    pub fn command(&self) -> Option<Command> {
        match *self {
            Ask::Move { shard, from, to } => {
                let shards = ringhold_cluster::control::state::ranges([shard]);
                Some(Command::Move { shards, from, to })
            }
            Ask::Use { token } => {
                Some(Command::UseToken { serial: token.to_be_bytes().into(), expires_s: u64::MAX, now_s: 0 })
            }
            Ask::Read => None,
        }
    }
}

/// What the answer to a command comes to. An answer that none of them can have is a violation.
pub fn heard(answer: Result<Result<Outcome, Refused>, Error>) -> Result<Heard, String> {
    match answer {
        Ok(Ok(Outcome::Done)) => Ok(Heard::Done),
        Ok(Err(Refused::NotOwner { .. } | Refused::TokenUsed)) => Ok(Heard::Refused),
        // A node that is leaving may have been given the device, or one that has left when the device had no shards.
        Ok(Err(Refused::ToDraining { .. } | Refused::NoSuchDevice(_))) => Ok(Heard::Failed),
        Ok(other) => Err(format!("a client was answered {other:?}")),
        Err(Error::Unknown { .. }) => Ok(Heard::Unknown),
        Err(_) => Ok(Heard::Failed),
    }
}

/// A shard, as a register that is exchanged.
#[derive(Clone, Debug)]
enum OfShard {
    Move {
        from: DeviceNumber,
        to: DeviceNumber,
        done: Option<bool>,
    },
    /// Its term may have grown so often besides, with its device on another node.
    Read(Shard, u64),
}

impl Operation for OfShard {
    type State = Shard;

    fn step(&self, state: &Shard) -> Option<Shard> {
        match *self {
            OfShard::Move { from, to, done } => match (state.0 == Some(from), done) {
                (true, Some(true) | None) => Some((Some(to), state.1 + 1)),
                (false, Some(false) | None) => Some(*state),
                (true, Some(false)) | (false, Some(true)) => None,
            },
            OfShard::Read(seen, besides) => {
                let terms = state.1..=state.1 + besides;
                (seen.0 == state.0 && terms.contains(&seen.1)).then_some(seen)
            }
        }
    }
}

/// A token, as a bit that is set once.
#[derive(Clone, Debug)]
enum OfToken {
    Use { done: Option<bool> },
    Read(bool),
}

impl Operation for OfToken {
    type State = bool;

    fn step(&self, used: &bool) -> Option<bool> {
        match *self {
            OfToken::Use { done: Some(done) } => (done != *used).then_some(true),
            OfToken::Use { done: None } => Some(true),
            OfToken::Read(seen) => (seen == *used).then_some(seen),
        }
    }
}

/// Everything that clients did, in the order in which it ended.
#[derive(Debug, Default)]
pub struct History {
    clock: u64,
    calls: Vec<(u64, Option<u64>, Ask, Heard)>,
}

impl History {
    pub fn now(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub fn add(&mut self, began: u64, ask: Ask, heard: Heard) {
        let ended = match heard {
            Heard::Failed => return,
            // A read that came to nothing did nothing.
            Heard::Unknown if ask == Ask::Read => return,
            Heard::Unknown => None,
            Heard::Done | Heard::Refused | Heard::Read(_) => Some(self.now()),
        };
        self.calls.push((began, ended, ask, heard));
    }

    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    pub fn unknown(&self) -> usize {
        self.calls.iter().filter(|(_, ended, ..)| ended.is_none()).count()
    }

    /// What no story explains; and how many objects it was given up for. So often has a device begun on another node.
    pub fn judge(&self, start: &Seen, failovers: u64) -> (Vec<String>, u64) {
        let (mut violations, mut undecided) = (Vec::new(), 0);
        let mut note = |what: String, verdict: Verdict| match verdict {
            Verdict::Linearizable => {}
            Verdict::Not(why) => violations.push(format!("what clients heard of {what} is no one story: {why}")),
            Verdict::Undecided => undecided += 1,
        };
        for (number, shard) in (0..).zip(&start.shards) {
            note(format!("shard {number}"), linear::check(shard, &self.of_shard(number, failovers), STEPS_MAX));
        }
        let tokens: BTreeSet<u64> = self.calls.iter().filter_map(|(_, _, ask, _)| asked_token(ask)).collect();
        for token in tokens {
            note(format!("token {token}"), linear::check(&false, &self.of_token(token), STEPS_MAX));
        }
        (violations, undecided)
    }

    fn of_shard(&self, number: u32, failovers: u64) -> Vec<Call<OfShard>> {
        let of = |(began, ended, ask, heard): &(u64, Option<u64>, Ask, Heard)| {
            let operation = match (ask, heard) {
                (Ask::Move { shard, from, to }, heard) if *shard == number => {
                    OfShard::Move { from: *from, to: *to, done: done(heard) }
                }
                (Ask::Read, Heard::Read(seen)) => OfShard::Read(*seen.shards.get(number as usize)?, failovers),
                _ => return None,
            };
            Some(Call { began: *began, ended: *ended, operation })
        };
        self.calls.iter().filter_map(of).collect()
    }

    fn of_token(&self, number: u64) -> Vec<Call<OfToken>> {
        let of = |(began, ended, ask, heard): &(u64, Option<u64>, Ask, Heard)| {
            let operation = match (ask, heard) {
                (Ask::Use { token }, heard) if *token == number => OfToken::Use { done: done(heard) },
                (Ask::Read, Heard::Read(seen)) => OfToken::Read(seen.tokens.contains(&number)),
                _ => return None,
            };
            Some(Call { began: *began, ended: *ended, operation })
        };
        self.calls.iter().filter_map(of).collect()
    }

    /// Tokens whose use was acknowledged and that are not in the state.
    pub fn lost(&self, state: &Seen) -> Vec<u64> {
        let used = self.calls.iter().filter(|(.., heard)| matches!(heard, Heard::Done));
        used.filter_map(|(_, _, ask, _)| asked_token(ask)).filter(|token| !state.tokens.contains(token)).collect()
    }
}

fn asked_token(ask: &Ask) -> Option<u64> {
    match ask {
        Ask::Use { token } => Some(*token),
        Ask::Move { .. } | Ask::Read => None,
    }
}

/// Whether it was done, where that is known.
fn done(heard: &Heard) -> Option<bool> {
    match heard {
        Heard::Done => Some(true),
        Heard::Refused => Some(false),
        Heard::Read(_) | Heard::Unknown | Heard::Failed => None,
    }
}

/// What was seen of nodes, all of which has to fit.
#[derive(Debug, Default)]
pub struct Nodes {
    /// By index: the hash of the state that the entry left, and the node where that was first seen.
    states: BTreeMap<u64, (u64, u64)>,
    leaders: BTreeMap<u64, u64>,
    /// The last term of each device that there ever was.
    terms_of: BTreeMap<DeviceNumber, u64>,
    pub violations: Vec<String>,
}

impl Nodes {
    pub fn applied(&mut self, number: u64, index: u64, hash: u64) {
        let (known, first) = *self.states.entry(index).or_insert((hash, number));
        if known != hash {
            self.note(format!("after entry {index} node {number} has another state than node {first} had"));
        }
    }

    pub fn role(&mut self, number: u64, role: Role, term: u64) {
        if role != Role::Leader {
            return;
        }
        let first = *self.leaders.entry(term).or_insert(number);
        if first != number {
            self.note(format!("nodes {first} and {number} both lead in term {term}"));
        }
    }

    /// Takes in what devices there are.
    pub fn devices(&mut self, state: &State) {
        for (device, about) in &state.devices {
            let term = self.terms_of.entry(*device).or_default();
            *term = about.term.max(*term);
        }
    }

    /// How often a device has begun on another node.
    pub fn failovers(&self) -> u64 {
        self.terms_of.values().map(|term| term - 1).sum()
    }

    /// Terms in which somebody led.
    pub fn terms(&self) -> usize {
        self.leaders.len()
    }

    pub fn entries(&self) -> u64 {
        self.states.keys().next_back().map_or(0, |last| last + 1)
    }

    /// Once is enough: what follows from it would fill pages.
    fn note(&mut self, violation: String) {
        if self.violations.len() < 5 {
            self.violations.push(violation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(owner: DeviceNumber, term: u64, tokens: &[u64]) -> Heard {
        Heard::Read(Box::new(Seen { shards: vec![(Some(owner), term)], tokens: tokens.iter().copied().collect() }))
    }

    fn judged(calls: &[(Ask, Heard)]) -> usize {
        let mut history = History::default();
        for (ask, heard) in calls {
            let began = history.now();
            history.add(began, ask.clone(), heard.clone());
        }
        history.judge(&Seen { shards: vec![(Some(0), 1)], tokens: BTreeSet::new() }, 0).0.len()
    }

    #[test]
    fn an_exchange_that_was_lost_or_done_twice_is_noticed() {
        let exchange = |from, to| Ask::Move { shard: 0, from, to };
        assert_eq!(judged(&[(exchange(0, 1), Heard::Done), (Ask::Read, seen(1, 2, &[]))]), 0);
        assert_eq!(judged(&[(exchange(0, 1), Heard::Done), (Ask::Read, seen(0, 1, &[]))]), 1, "lost");
        assert_eq!(judged(&[(exchange(0, 1), Heard::Done), (exchange(0, 2), Heard::Done)]), 1, "both");
        assert_eq!(judged(&[(exchange(0, 1), Heard::Failed), (Ask::Read, seen(1, 2, &[]))]), 1, "done, and denied");
        for read in [seen(1, 2, &[]), seen(0, 1, &[])] {
            assert_eq!(judged(&[(exchange(0, 1), Heard::Unknown), (Ask::Read, read)]), 0, "either");
        }
        assert_eq!(judged(&[(exchange(0, 1), Heard::Done), (Ask::Read, seen(1, 3, &[]))]), 1, "done twice");
    }

    #[test]
    fn a_token_that_is_used_stays_so() {
        let uses = || Ask::Use { token: 7 };
        assert_eq!(judged(&[(uses(), Heard::Done), (uses(), Heard::Refused), (Ask::Read, seen(0, 1, &[7]))]), 0);
        assert_eq!(judged(&[(uses(), Heard::Done), (uses(), Heard::Done)]), 1);
        assert_eq!(judged(&[(uses(), Heard::Done), (Ask::Read, seen(0, 1, &[]))]), 1);
        assert_eq!(judged(&[(uses(), Heard::Unknown), (uses(), Heard::Refused)]), 0);
        assert_eq!(judged(&[(uses(), Heard::Refused)]), 1);
    }

    #[test]
    fn what_nodes_show_has_to_fit() {
        let mut nodes = Nodes::default();
        nodes.applied(1, 5, 77);
        nodes.applied(2, 5, 77);
        nodes.role(1, Role::Leader, 3);
        nodes.role(2, Role::Follower, 3);
        assert!(nodes.violations.is_empty());
        nodes.applied(3, 5, 78);
        nodes.role(2, Role::Leader, 3);
        assert_eq!(nodes.violations.len(), 2);
    }
}
