//! What the actors should do, written a second time and plainly: one message after the other, no device.

use ringhold::ActorId;
use ringhold_kernels::actor::Actor;
use ringhold_kernels::message::Reason;
use ringhold_kernels::plain::Plain;

use super::actors::{ledger, sequencer};

/// Which message: the client that began it, which of its operations, and which that follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id {
    pub source: u32,
    pub seq: u32,
    pub part: u32,
}

impl Id {
    pub fn root(source: u32, seq: u32) -> Id {
        Id { source, seq, part: 0 }
    }
}

/// A message of either actor type.
#[derive(Clone, Copy)]
pub enum Message {
    Ledger(ledger::Message),
    Sequencer(sequencer::Message),
}

impl Message {
    /// The message these bytes are to an actor of the id's type.
    pub fn read(to: ActorId, bytes: &[u8]) -> Option<Message> {
        if to.type_id == ledger::Actor::TYPE && bytes.len() == ledger::Message::SIZE {
            return ledger::Message::from_bytes(bytes).map(Message::Ledger);
        }
        if to.type_id == sequencer::Actor::TYPE && bytes.len() == sequencer::Message::SIZE {
            return sequencer::Message::from_bytes(bytes).map(Message::Sequencer);
        }
        None
    }

    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Message::Ledger(message) => message.to_bytes(),
            Message::Sequencer(message) => message.to_bytes(),
        }
    }

    pub fn id(&self) -> Id {
        use ledger::Message as L;
        use sequencer::Message as S;
        let (source, seq, part) = match *self {
            Message::Ledger(L::Transfer { source, seq, hop, .. }) => (source, seq, hop),
            Message::Ledger(L::Credit { source, seq, part, .. }) => (source, seq, part),
            Message::Ledger(
                L::Post { source, seq, .. }
                | L::Burst { source, seq, .. }
                | L::Divide { source, seq, .. }
                | L::Mark { source, seq, .. }
                | L::Note { source, seq, .. }
                | L::Silent { source, seq }
                | L::Close { source, seq },
            ) => (source, seq, 0),
            Message::Sequencer(S::Note { source, seq, part }) => (source, seq, part),
            Message::Sequencer(S::Fired { source, seq }) => (source, seq, 1),
            Message::Sequencer(S::Later { source, seq, .. } | S::Stop { source, seq }) => (source, seq, 0),
        };
        Id { source, seq, part }
    }
}

/// What one message came to.
#[derive(Default)]
pub struct Outcome {
    pub fault: Option<Reason>,
    pub sends: Vec<Send>,
    pub reply: Option<Vec<u8>>,
    pub stops: bool,
}

pub struct Send {
    pub to: ActorId,
    pub message: Message,
    pub delay_us: u64,
    /// The id is of another type than the message: it becomes a dead letter.
    pub wrong_type: bool,
}

impl Send {
    fn now(to: ActorId, message: Message) -> Send {
        let wanted = match message {
            Message::Ledger(_) => ledger::Actor::TYPE,
            Message::Sequencer(_) => sequencer::Actor::TYPE,
        };
        Send { to, message, delay_us: 0, wrong_type: to.type_id != wanted }
    }
}

/// The state of one actor.
#[derive(Clone)]
pub enum State {
    Ledger(Ledger),
    Sequencer(Sequencer),
}

#[derive(Clone, Default)]
pub struct Ledger {
    balance: i64,
    quotient: i64,
    posts: u32,
    credits: u32,
    transfers: u32,
    marks: u32,
    trail: [u64; 8],
}

#[derive(Clone, Default)]
pub struct Sequencer {
    seen: u32,
    fired: u32,
    order: u64,
    last: [u32; 4],
}

impl State {
    /// That of an actor to which nothing was sent yet.
    pub fn new(id: ActorId) -> State {
        if id.type_id == ledger::Actor::TYPE {
            State::Ledger(Ledger::default())
        } else {
            State::Sequencer(Sequencer::default())
        }
    }

    /// In the layout of the actor's state.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            State::Ledger(Ledger { balance, quotient, posts, credits, transfers, marks, trail }) => ledger::State {
                balance: *balance,
                quotient: *quotient,
                posts: *posts,
                credits: *credits,
                transfers: *transfers,
                marks: *marks,
                trail: *trail,
            }
            .to_bytes(),
            State::Sequencer(Sequencer { seen, fired, order, last }) => {
                sequencer::State { seen: *seen, fired: *fired, order: *order, last: *last }.to_bytes()
            }
        }
    }

    /// Handles a message. On a fault the state is as before.
    pub fn handle(&mut self, me: ActorId, message: Message) -> Outcome {
        match (self, message) {
            (State::Ledger(state), Message::Ledger(message)) => state.handle(message),
            (State::Sequencer(state), Message::Sequencer(message)) => state.handle(me, message),
            _ => unreachable!("messages are read by the type of the actor"),
        }
    }
}

impl Ledger {
    fn handle(&mut self, message: ledger::Message) -> Outcome {
        use ledger::Message as M;
        let mut out = Outcome::default();
        let mut replies = true;
        match message {
            M::Post { source, seq, amount } => {
                self.posts += 1;
                self.balance += amount;
                self.follow(source % 4, seq);
            }
            M::Transfer { source, seq, hop, hops, amount, route } => {
                self.transfers += 1;
                if hop > 0 {
                    self.balance += amount;
                }
                if hop < hops {
                    self.balance -= amount;
                    let to = ledger::id(route >> (4 * hop) & 0xf);
                    let next = M::Transfer { source, seq, hop: hop + 1, hops, amount, route };
                    out.sends.push(Send::now(to, Message::Ledger(next)));
                }
            }
            M::Burst { source, seq, count, to } => {
                self.balance -= i64::from(count);
                out.sends.extend((1..=count).map(|part| {
                    let credit = M::Credit { source, seq, part, amount: 1 };
                    Send::now(ledger::id(to), Message::Ledger(credit))
                }));
            }
            M::Credit { source, seq, part, amount } => {
                self.credits += 1;
                self.balance += amount;
                let what = source.wrapping_mul(1_000_003).wrapping_add(seq.wrapping_mul(1009)).wrapping_add(part);
                self.follow(7, what);
            }
            M::Divide { by: 0, .. } => {
                out.fault = Some(Reason::FaultDivisionByZero);
                return out;
            }
            M::Divide { source, seq, by } => {
                self.balance += 1;
                self.quotient = 1_000_000 / by;
                let note = sequencer::Message::Note { source, seq, part: 1 };
                out.sends.push(Send::now(sequencer::id(u64::from(source)), Message::Sequencer(note)));
            }
            M::Mark { source, seq, at } => match self.trail.get_mut(at as usize) {
                None => {
                    out.fault = Some(Reason::FaultIndexOutOfBounds);
                    return out;
                }
                Some(trail) => {
                    *trail = trail.wrapping_add(u64::from(source + seq));
                    self.marks += 1;
                }
            },
            M::Note { source, seq, to } => {
                let note = sequencer::Message::Note { source, seq, part: 1 };
                out.sends.push(Send::now(to, Message::Sequencer(note)));
            }
            M::Silent { source, seq } => {
                self.follow(source % 4, seq);
                replies = false;
            }
            M::Close { source, seq } => {
                self.follow(source % 4, seq);
                out.stops = true;
            }
        }
        let reply = ledger::Reply::Balance { balance: self.balance, posts: self.posts };
        out.reply = replies.then(|| reply.to_bytes());
        out
    }

    fn follow(&mut self, at: u32, what: u32) {
        let trail = &mut self.trail[at as usize];
        *trail = (*trail ^ u64::from(what)).wrapping_mul(ledger::PRIME);
    }
}

impl Sequencer {
    fn handle(&mut self, me: ActorId, message: sequencer::Message) -> Outcome {
        use sequencer::Message as M;
        let mut out = Outcome::default();
        match message {
            M::Note { source, seq, part } => {
                self.seen += 1;
                self.last[source as usize % 4] = seq;
                let what = u64::from(source) << 40 | u64::from(part) << 32 | u64::from(seq);
                self.order = (self.order ^ what).wrapping_mul(31);
            }
            M::Later { source, seq, delay_us } => {
                let fired = Message::Sequencer(M::Fired { source, seq });
                out.sends.push(Send { delay_us: delay_us.into(), ..Send::now(me, fired) });
            }
            M::Fired { source, seq } => {
                self.fired += 1;
                self.order = (self.order ^ (u64::from(source) << 48 | u64::from(seq))).wrapping_mul(37);
            }
            M::Stop { source, seq } => {
                self.last[source as usize % 4] = seq;
                out.stops = true;
            }
        }
        out.reply = Some(sequencer::Reply::Seen { seen: self.seen, order: self.order }.to_bytes());
        out
    }
}
