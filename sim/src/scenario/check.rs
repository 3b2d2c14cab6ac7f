//! What a run must have kept, judged from everything that was seen of it.
//!
//! The runs of handlers, in the order in which they happened, are one possible order of the whole. The model goes
//! through them one by one, and says of each what it must have come to and what it must have sent; afterwards each
//! message that was sent has to have had exactly one fate.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringhold::ActorId;
use ringhold::client::Stats;
use ringhold::config::Overflow;
use ringhold_kernels::message::Reason;
use ringhold_kernels::outbox::shard_of;
use ringhold_kernels::plain::Plain;
use ringhold_storage::dead_letters::DeadLetter;

use super::actors::sequencer;
use super::model::{Id, Message, State};
use super::plan::{Operation, PATIENCE, Plan, UNKNOWN, Wish};
use crate::observed::Run;

/// What a client heard of one of its messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A tell that the client took.
    Told,
    /// The client refused it.
    NotSent,
    Reply(Vec<u8>),
    Error(Reason),
    Deadline,
    /// Nobody listened any more.
    Left,
    /// The client says that the reply was no reply.
    Nonsense(String),
}

/// Everything that was seen of a run.
pub struct Evidence<'a> {
    pub plan: &'a Plan,
    /// What each client did, in its order, and what it heard.
    pub operations: Vec<Vec<(Operation, Said)>>,
    pub stats: Vec<Stats>,
    pub runs: Vec<Run>,
    pub letters: Vec<DeadLetter>,
    /// What the node said was lost with devices' hosts.
    pub reported_lost: u64,
    /// How many hosts each device had.
    pub terms: Vec<u32>,
    /// Whether a host of the device came to an end that was not asked for.
    pub crashed: Vec<bool>,
    /// The state of each actor at the end; `None` where there is none. Empty if nobody could look.
    pub states: Vec<(ActorId, Option<Vec<u8>>)>,
    /// The model is wrong on purpose.
    pub wrong_model: bool,
}

/// Who sent a message: a client, or an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sender {
    Client(u32),
    Actor(u32, u64),
}

/// One message, and what became of it.
struct Sent {
    by: Sender,
    /// Of the device that sent it.
    from_device: Option<u16>,
    /// It was sent beyond doubt: by a handler whose step came to its end, or by a client.
    certain: bool,
    /// Its place among the messages of its sender to its receiver; `None` for timers.
    order: Option<u64>,
    /// It is handled after this stamp, and not before this time.
    stamp: u64,
    not_before: Duration,
    wrong_type: bool,
    is_ask: bool,
    /// Runs that came to their end without a fault; with one; that did not come to their end.
    handled: u32,
    faulted: u32,
    broken: u32,
    faults: BTreeSet<Reason>,
    replies: Vec<Option<Vec<u8>>>,
    letters: Vec<Reason>,
}

/// An actor: its type and its key.
type Place = (u32, u64);
type Key = (Id, u32, u64);

fn key(id: Id, to: ActorId) -> Key {
    (id, to.type_id.0, to.key.0)
}

fn actor(id: ActorId) -> Place {
    (id.type_id.0, id.key.0)
}

struct Judge<'a> {
    evidence: &'a Evidence<'a>,
    sent: BTreeMap<Key, Sent>,
    states: BTreeMap<Place, (State, u16, u32)>,
    /// Messages each actor has sent to each other so far.
    pairs: BTreeMap<(Place, Place), u64>,
    /// Up to where each receiver has each sender's messages.
    orders: BTreeMap<(Sender, Place), u64>,
    stamps: BTreeMap<(u16, u32, usize), u64>,
    violations: Vec<String>,
}

/// Violations that are told of one run: the first ones say what is to be known.
const VIOLATIONS_MAX: usize = 12;

/// Judges a run. What it says is empty where everything was kept.
pub fn check(evidence: &Evidence<'_>) -> Vec<String> {
    let mut judge = Judge {
        evidence,
        sent: BTreeMap::new(),
        states: BTreeMap::new(),
        pairs: BTreeMap::new(),
        orders: BTreeMap::new(),
        stamps: BTreeMap::new(),
        violations: Vec::new(),
    };
    judge.begin();
    for run in &evidence.runs {
        judge.run(run);
    }
    judge.letters();
    judge.answers();
    judge.fates();
    judge.restarts();
    judge.final_states();
    judge.violations
}

impl Judge<'_> {
    fn violated(&mut self, what: String) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(what);
        }
    }

    fn device_of(&self, to: Place) -> usize {
        shard_of(to.1.into()) % self.evidence.terms.len()
    }

    fn crashed(&self, device: usize) -> bool {
        self.evidence.crashed[device]
    }

    /// What the clients sent.
    fn begin(&mut self) {
        for (operation, said) in self.evidence.operations.iter().flatten() {
            let root = Sent {
                by: Sender::Client(operation.id.source),
                from_device: None,
                certain: *said != Said::NotSent,
                order: Some(u64::from(operation.id.seq)),
                stamp: 0,
                not_before: Duration::ZERO,
                wrong_type: false,
                is_ask: operation.wish != Wish::Tell,
                handled: 0,
                faulted: 0,
                broken: 0,
                faults: BTreeSet::new(),
                replies: Vec::new(),
                letters: Vec::new(),
            };
            self.sent.insert(key(operation.id, operation.to), root);
        }
    }

    fn run(&mut self, run: &Run) {
        let Some(message) = Message::read(run.id, &run.message) else {
            return self.violated(format!("{:?} was given what is no message of its type", run.id));
        };
        let id = message.id();
        let what = format!("{id:?} at {:?} ({:?})", run.id, run.at);
        let place = (run.place.device, run.place.term);
        if self.device_of(actor(run.id)) != usize::from(run.place.device) {
            self.violated(format!("{what} ran on device {}, which does not own it", run.place.device));
        }
        let last = self.stamps.entry((place.0, place.1, run.place.worker)).or_default();
        let last = std::mem::replace(last, run.stamp);
        if run.stamp <= last {
            self.violated(format!("{what} has stamp {:x}, and its worker was at {last:x} before", run.stamp));
        }

        // The state-lost rule: a new host has new actors.
        let (mut state, ..) = match self.states.remove(&actor(run.id)) {
            Some(held) if (held.1, held.2) == place => held,
            _ => (State::new(run.id), 0, 0),
        };
        let mut outcome = state.handle(run.id, message);
        if self.evidence.wrong_model && run.fault {
            outcome.fault = None;
        }
        if run.fault != outcome.fault.is_some() {
            self.violated(format!("{what}: fault is {}, and the model says {:?}", run.fault, outcome.fault));
        } else if !run.fault && run.state != state.bytes() {
            self.violated(format!("{what}: the state differs from the model's"));
        }
        if !outcome.stops {
            self.states.insert(actor(run.id), (state, place.0, place.1));
        }
        self.note_run(run, &what, &message, &outcome);
        self.note_sends(run, outcome);
    }

    fn note_run(&mut self, run: &Run, what: &str, message: &Message, outcome: &super::model::Outcome) {
        let mut wrong = Vec::new();
        let Some(sent) = self.sent.get_mut(&key(message.id(), run.id)) else {
            return self.violated(format!("{what} was handled, and nobody sent it"));
        };
        let by = match run.sender.is_client() {
            true => Sender::Client(message.id().source),
            false => Sender::Actor(run.sender.type_id.0, run.sender.key.0),
        };
        if by != sent.by {
            wrong.push(format!("came from {by:?}, and {:?} sent it", sent.by));
        }
        if run.stamp <= sent.stamp {
            wrong.push(format!("is stamped {:x}, before what caused it: {:x}", run.stamp, sent.stamp));
        }
        if run.at < sent.not_before {
            wrong.push(format!("came before its time, {:?}", sent.not_before));
        }
        if let Some(order) = sent.order {
            let last = self.orders.entry((sent.by, actor(run.id))).or_default();
            if order <= *last {
                wrong.push(format!("is number {order} of its sender, and {last} was handled before"));
            }
            if run.completed {
                *last = order.max(*last);
            }
        }
        sent.faults.extend(outcome.fault);
        if outcome.fault.is_none() {
            sent.replies.push(outcome.reply.clone());
        }
        match (run.completed, run.fault) {
            (false, _) => sent.broken += 1,
            (true, true) => sent.faulted += 1,
            (true, false) => sent.handled += 1,
        }
        if sent.handled + sent.faulted > 1 {
            wrong.push("was handled twice".into());
        }
        for wrong in wrong {
            self.violated(format!("{what} {wrong}"));
        }
    }

    fn note_sends(&mut self, run: &Run, outcome: super::model::Outcome) {
        for send in outcome.sends {
            let order = (send.delay_us == 0).then(|| {
                let number = self.pairs.entry((actor(run.id), actor(send.to))).or_default();
                *number += 1;
                *number
            });
            let sent = Sent {
                by: Sender::Actor(run.id.type_id.0, run.id.key.0),
                from_device: Some(run.place.device),
                certain: run.completed,
                order,
                stamp: run.stamp,
                // The clocks of the simulation tick in milliseconds.
                not_before: run.at + Duration::from_micros(send.delay_us),
                wrong_type: send.wrong_type,
                is_ask: false,
                handled: 0,
                faulted: 0,
                broken: 0,
                faults: BTreeSet::new(),
                replies: Vec::new(),
                letters: Vec::new(),
            };
            self.sent.insert(key(send.message.id(), send.to), sent);
        }
    }

    fn letters(&mut self) {
        let policy = self.evidence.plan.config.queues.overflow;
        let drained = self.evidence.plan.drain_early.is_some();
        for letter in &self.evidence.letters {
            let (to, reason) = (letter.header.to(), letter.reason);
            let Some(id) = letter_id(letter) else {
                self.violated(format!("a dead letter to {to:?} ({reason}) is of nobody's making"));
                continue;
            };
            let what = format!("dead letter {id:?} to {to:?}, because {reason},");
            let Some(sent) = self.sent.get_mut(&key(id, to)) else {
                self.violated(format!("{what} was never sent"));
                continue;
            };
            sent.letters.push(reason);
            let fits = match reason {
                Reason::WrongType => sent.wrong_type,
                Reason::UnknownType => to.type_id == UNKNOWN,
                Reason::Malformed => to.type_id != UNKNOWN && Message::read(to, &letter.payload).is_none(),
                Reason::FaultDivisionByZero | Reason::FaultIndexOutOfBounds => sent.faults.contains(&reason),
                Reason::Rejected => policy == Overflow::Reject,
                Reason::DroppedOldest => policy == Overflow::DropOldest,
                Reason::DroppedNewest => policy == Overflow::DropNewest,
                Reason::Stopping => drained,
                _ => false,
            };
            let is_ask = sent.is_ask;
            if !fits {
                self.violated(format!("{what} has a reason that does not apply"));
            }
            if is_ask {
                self.violated(format!("{what} is an ask: its asker should have been told"));
            }
        }
    }

    /// Whether what each asker heard is what happened.
    fn answers(&mut self) {
        let policy = self.evidence.plan.config.queues.overflow;
        for (operation, said) in self.evidence.operations.iter().flatten() {
            let sent = &self.sent[&key(operation.id, operation.to)];
            let done = sent.handled + sent.faulted;
            let device = self.device_of(actor(operation.to));
            let cuts = &self.evidence.plan.clients[operation.id.source as usize].cuts;
            let disturbed = self.evidence.plan.drain_early.is_some() || !cuts.is_empty();
            let fits = match said {
                Said::Told | Said::Left => true,
                Said::NotSent => done == 0,
                Said::Nonsense(_) => false,
                Said::Reply(bytes) => sent.replies.iter().any(|reply| reply.as_ref() == Some(bytes)),
                Said::Deadline => operation.wish != Wish::Ask(PATIENCE),
                Said::Error(reason) => match reason {
                    Reason::FaultDivisionByZero | Reason::FaultIndexOutOfBounds => sent.faults.contains(reason),
                    Reason::NoReply => sent.replies.contains(&None),
                    Reason::UnknownType => operation.to.type_id == UNKNOWN,
                    Reason::Malformed => operation.message.is_none() && operation.to.type_id != UNKNOWN,
                    Reason::Rejected => policy == Overflow::Reject && done == 0,
                    Reason::DroppedOldest => policy == Overflow::DropOldest && done == 0,
                    Reason::DroppedNewest => policy == Overflow::DropNewest && done == 0,
                    Reason::Stopping => self.evidence.plan.drain_early.is_some() && done == 0,
                    Reason::StateLost => self.crashed(device),
                    Reason::ConnectionLost => disturbed,
                    _ => false,
                },
            };
            if !fits {
                let (id, to) = (operation.id, operation.to);
                let runs = (sent.handled, sent.faulted, sent.broken);
                self.violated(format!("the client of {id:?} to {to:?} heard {said:?}, and its runs were {runs:?}"));
            }
        }
    }

    /// Whether each message had one fate, and those without one are among what was reported lost.
    fn fates(&mut self) {
        let lost_with_connections: Vec<u64> = self.evidence.stats.iter().map(|s| s.unconfirmed).collect();
        let (mut missing_from_clients, mut missing) = (vec![0; lost_with_connections.len()], 0);
        let mut wrong = Vec::new();
        for ((id, to_type, to_key), sent) in &self.sent {
            let fates = u64::from(sent.handled) + sent.letters.len() as u64;
            let what = || format!("{id:?} to {to_type:08x}/{to_key}");
            if fates > 1 {
                wrong.push(format!(
                    "{} had {fates} fates: handled {}, letters {:?}",
                    what(),
                    sent.handled,
                    sent.letters
                ));
            }
            if fates > 0 || sent.is_ask || !sent.certain {
                continue;
            }
            let device = self.device_of((*to_type, *to_key));
            let with_device = self.crashed(device) || sent.from_device.is_some_and(|d| self.crashed(usize::from(d)));
            match sent.by {
                Sender::Client(source) if !with_device && lost_with_connections[source as usize] > 0 => {
                    missing_from_clients[source as usize] += 1;
                }
                _ if with_device => missing += 1,
                _ => wrong.push(format!("{} was lost, and nobody said so", what())),
            }
        }
        let unconfirmed: u64 = lost_with_connections.iter().sum();
        if missing > self.evidence.reported_lost + unconfirmed {
            let reported = self.evidence.reported_lost;
            wrong.push(format!("{missing} messages were lost with devices, and only {reported} reported"));
        }
        for (client, (missing, reported)) in missing_from_clients.iter().zip(lost_with_connections).enumerate() {
            if *missing > reported {
                wrong.push(format!("{missing} tells of client {client} were lost, and only {reported} reported"));
            }
        }
        for wrong in wrong {
            self.violated(wrong);
        }
    }

    /// A device to which nothing happened is not restarted.
    fn restarts(&mut self) {
        for (device, (plan, terms)) in self.evidence.plan.devices.iter().zip(&self.evidence.terms).enumerate() {
            let most = plan.mishaps.len() as u32 + 1;
            if *terms > most {
                self.violated(format!("device {device} had {terms} hosts, and {} mishaps", plan.mishaps.len()));
            }
        }
    }

    fn was_sent_nonsense(&self, id: ActorId) -> bool {
        let mut operations = self.evidence.operations.iter().flatten();
        operations.any(|(operation, _)| operation.message.is_none() && operation.to == id)
    }

    fn final_states(&mut self) {
        for (id, found) in &self.evidence.states {
            let device = self.device_of(actor(*id));
            let state = self.states.get(&actor(*id)).filter(|(.., term)| *term == self.evidence.terms[device]);
            let mut model = state.map(|(state, ..)| state.bytes());
            if model.is_none() && self.was_sent_nonsense(*id) {
                // What is no message makes an actor too, and then changes nothing in it.
                model = found.is_some().then(|| State::new(*id).bytes());
            }
            if *found != model {
                self.violated(format!("{id:?} ended as {found:x?}, and in the model as {model:x?}"));
            }
        }
    }
}

fn letter_id(letter: &DeadLetter) -> Option<Id> {
    if letter.reason == Reason::WrongType && letter.payload.len() == sequencer::Message::SIZE {
        return sequencer::Message::from_bytes(&letter.payload).map(|m| Message::Sequencer(m).id());
    }
    if let Some(message) = Message::read(letter.header.to(), &letter.payload) {
        return Some(message.id());
    }
    let (_, tail) = letter.payload.split_last_chunk::<8>()?;
    let word = |at: usize| u32::from_le_bytes(tail[at..at + 4].try_into().expect("four bytes"));
    Some(Id::root(word(0), word(4)))
}
