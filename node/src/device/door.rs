//! The node's door to one device: what may go in, what waits, what came out, what is owed.
//!
//! No clock, task or socket in it: the caller brings the time and carries away what comes out.

use std::collections::{BTreeMap, HashSet};

use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::link::{Link, Reading, Refused};
use ringhold_kernels::message::{Header, Kind, Reason, append};
use ringhold_kernels::queue::Queue;

use crate::config::Overflow;

/// Messages taken out of a device in one go, from each worker.
const COLLECT_MAX: usize = 1024;

/// See the module's documentation.
pub struct Door {
    link: Link,
    overflow: Overflow,
    /// From clients, where the policy is to drop the oldest: at most as many as the ingress rings hold.
    waiting: Queue,
    waiting_max: usize,
    /// From other devices of this node. They go in before anything new from outside.
    transit: Queue,
    /// Asks and inspects that went in and have no answer yet, by the key of who waits.
    asks: HashSet<u64>,
    /// So many that the egress rings always have room for all answers.
    asks_max: usize,
    /// The clock of this door: every message that goes in gets a stamp of it.
    clock: Hlc,
    past: Totals,
    type_past: Vec<(u64, u64)>,
    unhandled: BTreeMap<Reason, u64>,
    /// Answers to asks that were not waiting any more.
    stray: u64,
}

/// What the hosts before the present one did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub finished: u64,
    pub sent: u64,
    pub faults: u64,
    pub dead: u64,
    pub replies: u64,
    pub created: u64,
    pub spilled: u64,
}

impl Totals {
    fn add(&mut self, r: &Reading) {
        self.finished += r.finished;
        self.sent += r.sent;
        self.faults += r.faults;
        self.dead += r.dead;
        self.replies += r.replies;
        self.created += r.created;
        self.spilled += r.spilled;
    }
}

/// What became of a message at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It is on its way.
    Taken,
    /// There is no room now, and the policy is to wait.
    Full,
    /// It is not let in: its asker is owed an error, or it is a dead letter.
    Refused(Reason),
}

/// What came out of a device. Batches as made by [`append`].
#[derive(Default)]
pub struct Outcome {
    /// Answers, addressed to who waits for them.
    pub answers: Vec<u8>,
    /// Messages for actors of other devices.
    pub away: Vec<u8>,
    pub letters: Vec<Letter>,
}

/// A message that nobody handled.
pub struct Letter {
    pub header: Header,
    pub payload: Vec<u8>,
    pub reason: Reason,
}

/// What was lost with a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    pub actors: u64,
    /// Messages it had taken and not finished.
    pub in_hand: u64,
    /// Of those, how many were asks, which have been answered with an error.
    pub asks: u64,
}

impl Door {
    pub fn new(link: Link, overflow: Overflow) -> Door {
        let shape = *link.segment().shape();
        Door {
            overflow,
            waiting: Queue::default(),
            waiting_max: shape.ingress_slots as usize * shape.workers as usize,
            transit: Queue::default(),
            asks: HashSet::new(),
            asks_max: (shape.egress_slots / 2) as usize,
            clock: Hlc::default(),
            past: Totals::default(),
            type_past: vec![(0, 0); shape.types as usize],
            unhandled: BTreeMap::new(),
            stray: 0,
            link,
        }
    }

    pub fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// Lets a message from outside in, if the policy allows.
    pub fn admit(&mut self, header: &Header, payload: &[u8], now: Hlc, letters: &mut Vec<Letter>) -> Admitted {
        let asks = header.is(Kind::Ask) || header.is(Kind::Inspect);
        if asks && self.asks.len() >= self.asks_max {
            return self.no_room();
        }
        let mut header = *header;
        self.clock = self.clock.tick(now);
        header.hlc = self.clock.0;
        let refused = if self.transit.is_empty() && self.waiting.is_empty() {
            self.link.push(&header, payload).err()
        } else {
            Some(Refused::Full)
        };
        match refused {
            None => {}
            Some(Refused::TooLarge) => return self.refuse(Reason::TooLarge),
            Some(Refused::NotHere) => return self.refuse(Reason::NoDevice),
            Some(Refused::Full) if self.overflow == Overflow::DropOldest => self.wait(&header, payload, letters),
            Some(Refused::Full) => return self.no_room(),
        }
        if asks {
            self.asks.insert(header.from().key.0);
        }
        Admitted::Taken
    }

    fn no_room(&mut self) -> Admitted {
        match self.overflow {
            Overflow::Block => Admitted::Full,
            Overflow::Reject => self.refuse(Reason::Rejected),
            Overflow::DropNewest => self.refuse(Reason::DroppedNewest),
            // Only asks come here: their answers could not leave.
            Overflow::DropOldest => Admitted::Full,
        }
    }

    fn refuse(&mut self, reason: Reason) -> Admitted {
        *self.unhandled.entry(reason).or_default() += 1;
        Admitted::Refused(reason)
    }

    /// Puts a message behind those that wait, for which the oldest may have to go.
    fn wait(&mut self, header: &Header, payload: &[u8], letters: &mut Vec<Letter>) {
        if self.waiting.len() >= self.waiting_max {
            let mut first = true;
            let unhandled = &mut self.unhandled;
            self.waiting.drain(|header, payload| {
                if std::mem::take(&mut first) {
                    *unhandled.entry(Reason::DroppedOldest).or_default() += 1;
                    letters.push(Letter { header: *header, payload: payload.to_vec(), reason: Reason::DroppedOldest });
                    return true;
                }
                false
            });
        }
        self.waiting.push(header, payload);
    }

    /// Takes a message from another device of this node; it keeps its stamp.
    pub fn pass_on(&mut self, header: &Header, payload: &[u8]) {
        self.clock = self.clock.merge(Hlc(header.hlc));
        self.transit.push(header, payload);
        self.let_in();
    }

    /// Moves what waits into the rings, as far as there is room.
    pub fn let_in(&mut self) {
        let link = &mut self.link;
        let mut push = |header: &Header, payload: &[u8]| link.push(header, payload).is_ok();
        self.transit.drain(&mut push);
        if self.transit.is_empty() {
            self.waiting.drain(&mut push);
        }
        self.link.ring();
    }

    /// Asks for the bell once there is room, if it is not here already.
    pub fn want_room(&mut self) {
        self.link.want_room();
        self.let_in();
    }

    /// Takes what the device has sent. Returns how many messages there were.
    pub fn collect(&mut self, out: &mut Outcome) -> usize {
        let Door { link, asks, unhandled, stray, .. } = self;
        link.drain(COLLECT_MAX, |header, payload| match header.kind() {
            Some(Kind::Reply | Kind::Error | Kind::Inspected) => {
                if asks.remove(&header.to().key.0) {
                    if let (Some(Kind::Error), Some(reason)) = (header.kind(), header.reason()) {
                        *unhandled.entry(reason).or_default() += 1;
                    }
                    append(&mut out.answers, header, payload);
                } else {
                    *stray += 1;
                }
            }
            Some(Kind::DeadLetter) => {
                let reason = header.reason().unwrap_or(Reason::Malformed);
                *unhandled.entry(reason).or_default() += 1;
                out.letters.push(Letter { header: *header, payload: payload.to_vec(), reason });
            }
            Some(Kind::Tell) => append(&mut out.away, header, payload),
            Some(Kind::Ask | Kind::Inspect) | None => *stray += 1,
        })
    }

    /// Takes in that the host is gone: what it had sent is collected, and who waits for what it held gets an error.
    /// What still lies in the ingress rings stays there for the next host.
    pub fn lose(&mut self, out: &mut Outcome) -> Loss {
        while self.collect(out) > 0 {}
        let readings = self.link.read();
        let begun: u64 = readings.iter().map(|r| r.accepted + r.sent).sum();
        let finished: u64 = readings.iter().map(|r| r.finished).sum();
        let mut queued = HashSet::new();
        self.link.for_each_waiting(|header, _| {
            queued.insert(header.from().key.0);
        });
        self.waiting.for_each(|header, _| {
            queued.insert(header.from().key.0);
        });
        let mut lost: Vec<u64> = self.asks.iter().copied().filter(|key| !queued.contains(key)).collect();
        // A set has no order, and a run must repeat.
        lost.sort_unstable();
        for key in &lost {
            self.asks.remove(key);
            let to = ringhold_cluster::frame::client_id((key >> 32) as u32, *key as u32);
            let header = Header::new(Kind::Error, to, Default::default(), 0, self.clock);
            append(&mut out.answers, &header.with_reason(Reason::StateLost), &[]);
        }
        *self.unhandled.entry(Reason::StateLost).or_default() += lost.len() as u64;
        readings.iter().for_each(|r| self.past.add(r));
        for (past, (_, handled, faults)) in self.type_past.iter_mut().zip(self.link.type_counts()) {
            past.0 += handled;
            past.1 += faults;
        }
        let actors = readings.iter().map(|r| r.actors).sum();
        Loss { actors, in_hand: begun.saturating_sub(finished), asks: lost.len() as u64 }
    }

    /// Whether nothing is on its way in, out or inside.
    pub fn is_quiet(&mut self) -> bool {
        self.transit.is_empty() && self.waiting.is_empty() && self.link.is_quiet()
    }

    /// Messages between this door and its actors.
    pub fn queued(&self) -> u64 {
        let inside: u64 = self.link.read().iter().map(|r| r.queued + r.ingress_waiting).sum();
        inside + (self.transit.len() + self.waiting.len()) as u64
    }

    pub fn readings(&self) -> Vec<Reading> {
        self.link.read()
    }

    /// Of all hosts, the present one included.
    pub fn totals(&self) -> Totals {
        let mut totals = self.past;
        self.link.read().iter().for_each(|r| totals.add(r));
        totals
    }

    /// For each actor type, in the registry's order: actors now; messages handled and faults ever.
    pub fn type_counts(&self) -> Vec<(u64, u64, u64)> {
        let now = self.link.type_counts();
        now.iter().zip(&self.type_past).map(|(n, past)| (n.0, n.1 + past.0, n.2 + past.1)).collect()
    }

    pub fn unhandled(&self) -> &BTreeMap<Reason, u64> {
        &self.unhandled
    }
}
