//! The node's door to one device: what may go in, what waits, what came out, what is owed.
//!
//! No clock, task or socket in it: the caller brings the time and carries away what comes out.

mod moves;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use ringhold_kernels::checkpoint::{self, Cut, Record};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::link::{Link, Reading, Refused};
use ringhold_kernels::message::{Header, Kind, Reason, append, split_first};
use ringhold_kernels::queue::Queue;
use ringhold_kernels::segment::Pulse;
use ringhold_kernels::suspects::{self, Suspect};
use ringhold_storage::dead_letters::Strike;

use super::desk::Desk;
pub use super::desk::Known;
use super::lanes::{self, Away, ClientLanes, DeviceLanes, Seen};
use super::mistake::{self, Mistake};
use super::poison::Poison;
use super::retained::Retained;
use crate::config::Overflow;
use crate::shards::Shards;
use moves::Moving;
pub use moves::{Left, Taken};

/// Messages taken out of a device in one go, from each worker.
const COLLECT_MAX: usize = 1024;

/// See the module's documentation.
pub struct Door {
    link: Link,
    overflow: Overflow,
    /// From clients, where the policy is to drop the oldest: at most as many as the ingress rings hold.
    waiting: Queue,
    waiting_max: usize,
    /// From other devices. They go in before anything new from outside.
    transit: Queue,
    /// What was let in before for shards that take nothing now, whoever sent it.
    blocked: Queue,
    /// Shards that are about to leave, or to arrive.
    moving: Option<Moving>,
    desk: Desk,
    /// To and from other devices.
    lanes: DeviceLanes,
    /// So many asks wait at most that the egress rings always have room for all answers.
    asks_max: usize,
    /// The clock of this door: every message that goes in gets a stamp of it.
    clock: Hlc,
    past: Totals,
    type_past: Vec<(u64, u64)>,
    /// Why nothing is let in any more: there is no host, and there will be none.
    closed: Option<Reason>,
    /// Where checkpoints are made: what it takes to go on from the last one.
    kept: Option<Kept>,
    /// A host has this term and is not known to have ended.
    has_host: bool,
    /// Whatever comes out is held for the next checkpoint, as that of committed types always is: the device is about to go on
    /// elsewhere from there.
    holds_all: bool,
    /// The same for another reason: the device is about to stand still.
    holds_to_stand: bool,
}

/// How a door keeps what its device may have to do again.
#[derive(Clone, Debug)]
pub struct Keeping {
    /// Bytes of messages that it keeps before it takes no more from outside until there is a checkpoint.
    pub retained_bytes_max: usize,
    /// The actor types of which nothing goes out before the checkpoint that covers it is durable.
    pub committed: HashSet<TypeId>,
    /// The checkpoint that the first host begins with; 0 is the empty one that a new device begins with.
    pub epoch: u64,
    /// Which device owns each shard.
    pub shards: Arc<Shards>,
}

struct Kept {
    keeping: Keeping,
    lanes: Vec<KeptLane>,
    /// A cut whose checkpoint is being made durable.
    closing: Option<Closing>,
    poison: Poison,
    /// For other devices: messages that the last checkpoint has, and that have no number yet. The next one numbers them.
    unnumbered: VecDeque<(Header, Vec<u8>)>,
    /// The last adoption that the device's host has taken in, and that of the last durable checkpoint.
    adopted: u64,
    adopted_durably: u64,
    /// The last adoption that there is.
    adoption: u64,
    /// The checkpoint that was taken up has actors of shards that have moved to another device since.
    passed_over: bool,
}

/// What a checkpoint covers, once it is durable.
struct Closing {
    epoch: u64,
    /// For each lane of the cut, the log's number of the first message that the device had not taken.
    marks: Vec<(usize, u64)>,
    /// What was held for it, with its lane.
    outputs: Vec<(usize, Held)>,
    /// Likewise, for actors of other devices: with its lane, and its number in the egress ring.
    away: Vec<(usize, u64, Away)>,
    /// Of those, what an earlier checkpoint had without a number.
    again: Vec<Away>,
    /// Of shards that leave by this cut: what they have sent to other devices, and leaves with them.
    leaving: Vec<(usize, Held)>,
    adopted: u64,
}

/// What is kept of one lane.
#[derive(Default)]
struct KeptLane {
    log: Retained,
    /// Which message of the log the present host was given first, and what number that had in the ring.
    log_base: u64,
    ring_base: u64,
    /// What came out and may not go on before the checkpoint that covers it.
    held: VecDeque<Held>,
}

/// A message that came out, and its number in the egress ring.
struct Held {
    in_ring: u64,
    header: Header,
    payload: Vec<u8>,
}

impl Kept {
    fn bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.log.bytes()).sum()
    }

    /// Whether this may go on only once it is covered: by the type that sent it, or of a dead letter, that did not handle it.
    fn holds(&self, header: &Header) -> bool {
        let by = if header.is(Kind::DeadLetter) { header.to() } else { header.from() };
        self.keeping.committed.contains(&by.type_id) && !mistake::is_made(Mistake::ReleasesEarly)
    }
}

/// Which device what was held goes to, if it goes to one.
fn goes_to(shards: &Shards, header: &Header) -> Option<u16> {
    header.is(Kind::Tell).then(|| shards.number_of(header.to().key))
}

const ELSEWHERE: &str = "it holds actors that belong to another device now: start with as many devices as there were, in the same \
                         order";

/// The kinds of records that the door adds to a checkpoint, beside those of its lanes ([`lanes::record`]).
mod node_record {
    /// A message that had been admitted and that no worker had taken: for its lane, in order.
    pub const ADMITTED: u8 = 7;
    /// A message that was held back for the checkpoint that has this record; one for another device has no number yet.
    pub const HELD: u8 = 8;
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

/// Which message of which client a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The session number.
    pub client: u32,
    /// Which of the client's connections it came on.
    pub connection: u64,
    pub number: u64,
    /// An earlier connection has carried it. It may have been answered, so no policy turns it away: it waits until there is room.
    pub again: bool,
}

/// What became of a message at the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admitted {
    /// It is on its way, or has been.
    Taken,
    /// It is an ask that came before, and this is the answer.
    Answered(Header, Vec<u8>),
    /// There is no room now, and the policy is to wait; or its shard is on its way.
    Full,
    /// It is an ask that came before, when its shard may have been another device's: what became of it, one of the others may
    /// know.
    Unknown,
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
    /// Such as are numbered.
    pub numbered: Vec<Away>,
    pub letters: Vec<Letter>,
}

/// A message that nobody handled.
pub struct Letter {
    pub header: Header,
    pub payload: Vec<u8>,
    pub reason: Reason,
    /// Of a message that was put aside: the hosts that it ended.
    pub history: Vec<Strike>,
}

impl Letter {
    pub fn new(header: &Header, payload: &[u8], reason: Reason) -> Letter {
        Letter { header: *header, payload: payload.to_vec(), reason, history: Vec::new() }
    }
}

/// What was lost with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    pub actors: u64,
    /// Messages it had taken or made and not handed on, at most: a batch that it was at counts whole.
    pub in_hand: u64,
    /// The actors whose messages the workers ran when it ended.
    pub hands: Vec<ActorId>,
    /// Those messages, as far as the workers say what they are.
    pub in_hand_now: Vec<Suspect>,
    /// Messages that waited for their time.
    pub timers: u64,
    /// Of those, how many were asks, which have been answered with an error.
    pub asks: u64,
}

impl Door {
    /// A door that keeps, where `keeping` says how, what its device may have to do again.
    pub fn new(link: Link, overflow: Overflow, keeping: Option<Keeping>) -> Door {
        let shape = *link.segment().shape();
        let lanes = || (0..link.lanes()).map(|_| KeptLane::default()).collect();
        Door {
            kept: keeping.map(|keeping| Kept {
                keeping,
                lanes: lanes(),
                closing: None,
                poison: Poison::default(),
                unnumbered: VecDeque::new(),
                adopted: 0,
                adopted_durably: 0,
                adoption: 0,
                passed_over: false,
            }),
            has_host: false,
            holds_all: false,
            holds_to_stand: false,
            overflow,
            waiting: Queue::default(),
            waiting_max: shape.ingress_slots as usize * shape.workers as usize,
            transit: Queue::default(),
            blocked: Queue::default(),
            moving: None,
            desk: Desk::default(),
            lanes: DeviceLanes::default(),
            asks_max: (shape.egress_slots / 2) as usize,
            clock: Hlc::default(),
            past: Totals::default(),
            type_past: vec![(0, 0); shape.types as usize],
            closed: None,
            link,
        }
    }

    pub fn link(&mut self) -> &mut Link {
        &mut self.link
    }

    /// Lets a message from outside in, if it has not come before and the policy allows. `sender` is `None` where the node itself
    /// sends it.
    pub fn admit(
        &mut self,
        header: &Header,
        payload: &[u8],
        sender: Option<Sender>,
        now: Hlc,
        letters: &mut Vec<Letter>,
    ) -> Admitted {
        match sender {
            Some(sender) => {
                let overflow = if sender.again { Overflow::Block } else { self.overflow };
                self.once(header, sender, now, |door| door.admit_new(header, payload, overflow, now, letters))
            }
            None => self.admit_new(header, payload, self.overflow, now, letters),
        }
    }

    /// Turns a message from a client away, if it has not come before.
    pub fn turn_away(&mut self, header: &Header, sender: Sender, reason: Reason, now: Hlc) -> Admitted {
        self.once(header, sender, now, |door| door.refuse(reason))
    }

    /// Does with a message what is to be done, if it has not come before.
    fn once(
        &mut self,
        header: &Header,
        Sender { client, connection, number, .. }: Sender,
        now: Hlc,
        admit: impl FnOnce(&mut Door) -> Admitted,
    ) -> Admitted {
        match self.desk.clients.look(client, connection, number, header.to().key) {
            Seen::New => {}
            Seen::Before if is_ask(header) => {
                return match self.desk.known(client, number) {
                    Known::Waits => Admitted::Taken,
                    Known::Answered(header, payload) => Admitted::Answered(header, payload),
                    Known::Nothing => Admitted::Unknown,
                };
            }
            Seen::Before | Seen::Elsewhere => return Admitted::Taken,
        }
        let admitted = admit(self);
        if admitted != Admitted::Full {
            self.desk.clients.take(client, number, header.to().key, now.us());
        }
        if let Admitted::Refused(reason) = admitted
            && is_ask(header)
        {
            // Its answer goes the short way; it is kept for the case that the connection is lost.
            self.desk.clients.answer(&error_to(header, reason, self.clock), &[]);
        }
        admitted
    }

    fn admit_new(
        &mut self,
        header: &Header,
        payload: &[u8],
        overflow: Overflow,
        now: Hlc,
        letters: &mut Vec<Letter>,
    ) -> Admitted {
        if let Some(reason) = self.closed {
            return self.refuse(reason);
        }
        if self.takes_none(header) {
            return Admitted::Full;
        }
        let asks = is_ask(header);
        if asks && self.desk.asks.len() >= self.asks_max {
            return self.no_room(overflow);
        }
        let mut header = *header;
        self.clock = self.clock.tick(now);
        header.hlc = self.clock.0;
        let refused = if self.transit.is_empty() && self.waiting.is_empty() {
            if self.keeps_too_much() {
                return Admitted::Full;
            }
            push(&mut self.link, &mut self.kept, &header, payload).err()
        } else {
            Some(Refused::Full)
        };
        match refused {
            None => {}
            Some(Refused::TooLarge) => return self.refuse(Reason::TooLarge),
            Some(Refused::NotHere) => return self.refuse(Reason::NoDevice),
            Some(Refused::Full) if overflow == Overflow::DropOldest => self.wait(&header, payload, letters),
            Some(Refused::Full) => return self.no_room(overflow),
        }
        if asks {
            self.desk.asks.insert(header.from().key.0);
        }
        Admitted::Taken
    }

    /// Whether it waits for a checkpoint before it takes more. No policy drops anything for that: the wait is short.
    fn keeps_too_much(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| kept.bytes() + self.lanes.bytes() >= kept.keeping.retained_bytes_max)
    }

    fn no_room(&mut self, overflow: Overflow) -> Admitted {
        match overflow {
            Overflow::Block => Admitted::Full,
            Overflow::Reject => self.refuse(Reason::Rejected),
            Overflow::DropNewest => self.refuse(Reason::DroppedNewest),
            // Only asks come here: their answers could not leave.
            Overflow::DropOldest => Admitted::Full,
        }
    }

    fn refuse(&mut self, reason: Reason) -> Admitted {
        self.desk.count(reason);
        Admitted::Refused(reason)
    }

    /// Puts a message behind those that wait, for which the oldest may have to go. Where that was an ask, its letter
    /// is for its asker.
    fn wait(&mut self, header: &Header, payload: &[u8], letters: &mut Vec<Letter>) {
        if self.waiting.len() >= self.waiting_max {
            let mut first = true;
            let Door { desk, .. } = self;
            self.waiting.drain(|header, payload| {
                if std::mem::take(&mut first) {
                    desk.count(Reason::DroppedOldest);
                    if is_ask(header) {
                        desk.asks.remove(&header.from().key.0);
                    }
                    letters.push(Letter::new(header, payload, Reason::DroppedOldest));
                    return true;
                }
                false
            });
        }
        self.waiting.push(header, payload);
        self.let_in();
    }

    /// Takes a message from another device; it keeps its stamp.
    pub fn pass_on(&mut self, header: &Header, payload: &[u8], letters: &mut Vec<Letter>) {
        self.take_in(header, payload, letters);
        self.let_in_taken();
    }

    /// The same for whoever takes several: it waits for [`Door::let_in_taken`].
    pub fn take_in(&mut self, header: &Header, payload: &[u8], letters: &mut Vec<Letter>) {
        if let Some(reason) = self.closed {
            self.refuse(reason);
            return letters.push(Letter::new(header, payload, reason));
        }
        self.clock = self.clock.merge(Hlc(header.hlc));
        if self.takes_none(header) {
            return self.blocked.push(header, payload);
        }
        self.transit.push(header, payload);
    }

    /// Lets in what was taken.
    pub fn let_in_taken(&mut self) {
        if !self.transit.is_empty() {
            self.let_in();
        }
    }

    /// Whether a numbered message from another device, to be passed on, has not come before.
    pub fn takes(&mut self, from: u16, number: u64) -> bool {
        self.lanes.takes(from, number)
    }

    /// Takes a numbered message, which has not come before, for an actor that has moved to a device of another node since: the
    /// next checkpoint has it, and numbers it for that one. False where there will be none; then it is not taken.
    pub fn forwards(&mut self, header: &Header, payload: &[u8]) -> bool {
        let covers = self.covers();
        self.clock = self.clock.merge(Hlc(header.hlc));
        let Some(kept) = self.kept.as_mut().filter(|_| covers) else { return false };
        kept.unnumbered.push_back((*header, payload.to_vec()));
        true
    }

    /// What this device keeps of what it has numbered for another, behind this number.
    pub fn kept_after(&self, device: u16, number: u64) -> impl Iterator<Item = &Away> {
        self.lanes.kept_after(device, number)
    }

    /// Messages for a device that may be sent to it again, or will be kept for it once a checkpoint is durable.
    pub fn keeps_for(&self, device: u16) -> usize {
        let closing = self.kept.as_ref().and_then(|kept| kept.closing.as_ref());
        let closing = closing.map_or(0, |closing| {
            let numbered = closing.away.iter().map(|(_, _, away)| away).chain(&closing.again);
            numbered.filter(|away| away.device == device).count()
        });
        self.lanes.keeps_for(device) + closing
    }

    /// Whether there are no actors and no timers, all that came or went is in a durable checkpoint of whoever has it, and no client waits
    /// for an answer or may not have read one.
    pub fn has_nothing(&self) -> bool {
        let Some(kept) = &self.kept else { return false };
        let held = kept.lanes.iter().any(|lane| !lane.held.is_empty()) || !kept.unnumbered.is_empty();
        let here = self.link.read().iter().any(|r| r.actors + r.timers > 0);
        let asked = !self.desk.asks.is_empty() || self.desk.clients.keep_answers();
        let moving = kept.closing.is_some() || kept.adopted_durably != kept.adoption.max(kept.adopted);
        !held && !here && !asked && !moving && self.queued() == 0 && self.retained_bytes() == 0
    }

    /// Messages that wait for room in its device.
    pub fn waits(&self) -> usize {
        self.transit.len() + self.blocked.len()
    }

    /// Moves what waits into the rings, as far as there is room; the bell tells when there is more.
    pub fn let_in(&mut self) {
        if !self.move_in() {
            self.want_room();
        }
        self.link.ring();
    }

    /// Asks for the bell once there is room, if it is not here already.
    pub fn want_room(&mut self) {
        self.link.want_room();
        // Once more: room made before the request rings no bell.
        self.move_in();
    }

    /// Whether nothing waits any more.
    fn move_in(&mut self) -> bool {
        let Door { link, kept, transit, waiting, .. } = self;
        // First what an earlier host was given too.
        for lane in kept.iter_mut().flat_map(|kept| &mut kept.lanes) {
            while let Some((header, payload)) = lane.log.peek()
                && link.push(&header, payload).is_ok()
            {
                lane.log.sent();
            }
        }
        let mut push = |header: &Header, payload: &[u8]| push(link, kept, header, payload).is_ok();
        transit.drain(&mut push);
        if transit.is_empty() {
            waiting.drain(&mut push);
        }
        self.transit.is_empty() && self.waiting.is_empty() && self.unsent() == 0
    }

    /// Messages that an earlier host was given and the present one is still to be.
    fn unsent(&self) -> u64 {
        self.kept.iter().flat_map(|kept| &kept.lanes).map(|lane| lane.log.unsent()).sum()
    }

    /// Takes what the device has sent. Returns how many messages there were.
    pub fn collect(&mut self, out: &mut Outcome) -> usize {
        let first = out.letters.len();
        let Door { link, kept, desk, holds_all, holds_to_stand, moving, .. } = self;
        let (moving, holds_all) = (moving.as_ref(), *holds_all || *holds_to_stand);
        let collected = link.drain_lanes(COLLECT_MAX, |lane, number, header, payload| match kept {
            Some(kept)
                if holds_all || kept.holds(header) || moving.is_some_and(|moving| moving.leaves_with(header)) =>
            {
                kept.lanes[lane].held.push_back(Held { in_ring: number, header: *header, payload: payload.to_vec() });
            }
            _ => desk.hand_on(header, payload, out),
        });
        self.judge(out, first);
        collected
    }

    /// Takes in that the host is gone: what it had sent is collected, and who waits for what it held gets an error.
    /// What still lies in the ingress rings stays there for the next host.
    pub fn lose(&mut self, out: &mut Outcome) -> Loss {
        self.has_host = false;
        while self.collect(out) > 0 {}
        let readings = self.link.read();
        if let Some(kept) = &mut self.kept
            && !mistake::is_made(Mistake::KeepsHeld)
        {
            // What was held is not covered, and will be made again.
            kept.lanes.iter_mut().for_each(|lane| lane.held.clear());
        }
        (self.holds_all, self.holds_to_stand) = (false, false);
        // Not `finished`, which is ahead while a batch runs: what the batch came to is lost with it.
        let begun: u64 = readings.iter().map(|r| r.accepted + r.sent + r.away_waiting).sum();
        let finished: u64 = readings.iter().map(|r| r.finished_published).sum();
        let mut queued = HashSet::new();
        let mut note = |header: &Header, _: &[u8]| {
            if is_ask(header) {
                queued.insert(header.from().key.0);
            }
        };
        self.link.for_each_waiting(&mut note);
        self.waiting.for_each(&mut note);
        self.blocked.for_each(&mut note);
        let forgotten = |key: &u64| self.kept.is_none() && !queued.contains(key);
        let mut lost: Vec<u64> = self.desk.asks.iter().copied().filter(forgotten).collect();
        // A set has no order, and a run must repeat.
        lost.sort_unstable();
        for key in &lost {
            self.desk.asks.remove(key);
            self.desk.fail(*key, Reason::StateLost, self.clock, out);
        }
        readings.iter().for_each(|r| self.past.add(r));
        for (past, (_, handled, faults)) in self.type_past.iter_mut().zip(self.link.type_counts()) {
            past.0 += handled;
            past.1 += faults;
        }
        let actors = readings.iter().map(|r| r.actors).sum();
        let timers = readings.iter().map(|r| r.timers).sum();
        let busy = readings.iter().filter(|r| r.pulse == Pulse::Busy && r.hand_type != 0);
        let message = |r: &Reading| Suspect {
            actor: ActorId::new(TypeId(r.hand_type), Key(r.hand_key)),
            hlc: r.hand_hlc,
            hash: r.hand_hash,
            condemned: false,
        };
        let in_hand_now = busy.clone().filter(|r| r.hand_hlc != 0).map(message).collect();
        let hands = busy.map(|r| ActorId::new(TypeId(r.hand_type), Key(r.hand_key))).collect();
        // Counted just now, and not once more while there is no other host.
        self.link.segment().reset_telemetry();
        Loss { actors, in_hand: begun.saturating_sub(finished), hands, in_hand_now, timers, asks: lost.len() as u64 }
    }

    /// Takes in that there will be no other host, for this reason: what it would have taken is not handled any more, and
    /// nothing is let in. An ask among the letters is for its asker.
    pub fn give_up(&mut self, reason: Reason, out: &mut Outcome) {
        // Since the first time nothing has come in.
        if self.closed.replace(reason).is_some() {
            return;
        }
        if self.kept.is_some() {
            // The next start of the node begins with it; but who waits now need not wait on.
            let mut asks: Vec<u64> = self.desk.asks.drain().collect();
            asks.sort_unstable();
            asks.into_iter().for_each(|key| self.desk.fail(key, reason, self.clock, out));
            return;
        }
        let Door { link, waiting, transit, blocked, desk, .. } = self;
        let mut give_up = |header: &Header, payload: &[u8]| {
            desk.count(reason);
            if is_ask(header) {
                desk.asks.remove(&header.from().key.0);
            }
            out.letters.push(Letter::new(header, payload, reason));
        };
        link.for_each_waiting(&mut give_up);
        for queue in [transit, blocked, waiting] {
            queue.drain(|header, payload| {
                give_up(header, payload);
                true
            });
        }
    }

    /// Whether nothing is on its way in, out or inside.
    pub fn is_quiet(&mut self) -> bool {
        if self.closed.is_some() {
            return true;
        }
        let held = self.kept.iter().flat_map(|kept| &kept.lanes).any(|lane| !lane.held.is_empty());
        let waits = !(self.transit.is_empty() && self.blocked.is_empty() && self.waiting.is_empty());
        let unnumbered = self.kept.as_ref().is_some_and(|kept| !kept.unnumbered.is_empty());
        !held && !waits && !unnumbered && self.moving.is_none() && self.unsent() == 0 && self.link.is_quiet()
    }

    /// Begins the term of a new host: from the last checkpoint, where there are any.
    pub fn begin_term(&mut self) -> u64 {
        self.has_host = true;
        let Some(kept) = &mut self.kept else { return self.link.begin_term() };
        suspects::write(self.link.segment(), &kept.poison.suspects(), kept.poison.take_careful());
        let term = self.link.begin_restored_term(kept.keeping.epoch);
        self.start_over();
        term
    }

    /// What the host of the present term has been given: nothing yet.
    fn start_over(&mut self) {
        for (number, lane) in self.kept.iter_mut().flat_map(|kept| &mut kept.lanes).enumerate() {
            lane.log.rewind();
            (lane.log_base, lane.ring_base) = (lane.log.next(), self.link.pushed(number));
        }
    }

    /// Begins the next term in a segment beside the present one, whose host runs on: the other one comes up and waits for what
    /// it is to begin with. See [`Door::go_on`].
    pub fn begin_beside(&self, beside: &mut Link) -> u64 {
        let kept = self.kept.as_ref().expect("only a device that keeps can go on elsewhere");
        suspects::write(beside.segment(), &kept.poison.suspects(), false);
        beside.set_term(self.link.term());
        beside.begin_restored_term(kept.keeping.epoch)
    }

    /// Has everything that comes out wait for a checkpoint, or no more than ever. What was held for it waits for the next one
    /// in either case.
    pub fn hold_all(&mut self, all: bool) {
        self.holds_all = all;
    }

    /// Takes up another segment, of which there may be hosts of another kind. The last host must be lost. What is kept for
    /// its lanes is kept for those of the new one: messages of one sender to one actor lie in one lane of each.
    pub fn rehouse(&mut self, mut link: Link) -> Link {
        assert!(!self.has_host, "a device goes on in one segment at a time");
        let kept = self.kept.as_mut().expect("only a device that keeps can go on elsewhere");
        let shape = *link.segment().shape();
        let mut lanes: Vec<KeptLane> = (0..link.lanes()).map(|_| KeptLane::default()).collect();
        for lane in &mut kept.lanes {
            lane.log.rewind();
            if mistake::is_made(Mistake::LeavesBehind) && lane.log.peek().is_some() {
                lane.log.sent();
            }
            while let Some((header, payload)) = lane.log.peek() {
                let to =
                    link.lane_of(header.to().key).expect("an actor of this device has a lane in each of its segments");
                lanes[to].log.push(&header, payload);
                lane.log.sent();
            }
        }
        kept.lanes = lanes;
        self.waiting_max = shape.ingress_slots as usize * shape.workers as usize;
        if link.term() < self.link.term() {
            link.set_term(self.link.term());
        }
        std::mem::replace(&mut self.link, link)
    }

    /// Takes in that the host of the segment that was taken up, which has been started already, is the device's from now on.
    pub fn go_on(&mut self) {
        self.has_host = true;
        self.start_over();
    }

    /// Takes in that a host ended by its own fault with these messages in hand. Returns those that will not be run again:
    /// without checkpoints none is, in any case.
    pub fn strike(&mut self, hands: &[Suspect], at_us: u64, how: &str) -> Vec<Suspect> {
        let strike = Strike { at_us, term: self.link.term(), how: how.into() };
        self.kept.as_mut().map_or_else(Vec::new, |kept| kept.poison.strike(hands, &strike))
    }

    /// Adds to the letters from this one on what is known of them, where they were put aside. One that was put aside before is none.
    fn judge(&mut self, out: &mut Outcome, first: usize) {
        let Some(kept) = &mut self.kept else { return };
        for index in (first..out.letters.len()).rev() {
            let letter = &mut out.letters[index];
            if letter.reason != Reason::Poison {
                continue;
            }
            match kept.poison.put_aside(&letter.header, &letter.payload) {
                Some(history) => letter.history = history,
                None => {
                    out.letters.remove(index);
                    *self.desk.unhandled.entry(Reason::Poison).or_default() -= 1;
                }
            }
        }
    }

    /// The last checkpoint.
    pub fn epoch(&self) -> u64 {
        self.kept.as_ref().map_or(0, |kept| kept.keeping.epoch)
    }

    pub fn retained_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.bytes() + self.lanes.bytes())
    }

    /// Its lanes from clients.
    pub fn clients(&mut self) -> &mut ClientLanes {
        &mut self.desk.clients
    }

    /// What is known of an ask of a client.
    pub fn known(&self, client: u32, number: u64) -> Known {
        self.desk.known(client, number)
    }

    /// The session numbers that answers still to come are for.
    pub fn awaited(&self) -> impl Iterator<Item = u32> {
        self.desk.asks.iter().map(|key| (key >> 32) as u32)
    }

    /// A message of this client from which on some may be in no durable checkpoint; `None` if all are, or there are none to wait
    /// for.
    pub fn uncovered(&self, client: u32) -> Option<u64> {
        self.covers().then(|| self.desk.clients.uncovered(client)).flatten()
    }

    /// Grows with each message of a client that was taken, and with each adoption.
    pub fn moved(&self) -> u64 {
        self.desk.clients.moved() + self.adopted().0
    }

    /// Whether there will be checkpoints to wait for.
    fn covers(&self) -> bool {
        self.kept.is_some() && self.closed.is_none()
    }

    /// Up to which number nothing need be kept any more of what a device sent here.
    pub fn covered_from(&self, device: u16) -> u64 {
        if self.covers() { self.lanes.covered(device) } else { u64::MAX }
    }

    /// Lets go of what was sent to a device, up to this number.
    pub fn cover_away(&mut self, device: u16, number: u64) {
        self.lanes.cover(device, number);
    }

    /// The last number taken from a device; and the same said by that device of what was sent to it, before the first host.
    pub fn taken_from(&self, device: u16) -> u64 {
        self.lanes.taken(device)
    }

    pub fn skip_away(&mut self, device: u16, taken: u64) {
        self.lanes.skip(device, taken);
    }

    pub fn retained_bytes_max(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.keeping.retained_bytes_max)
    }

    /// Whether a checkpoint should not wait: outputs are held for it, or it keeps half of what it may.
    pub fn wants_checkpoint(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| {
            let held = kept.lanes.iter().any(|lane| !lane.held.is_empty()) || !kept.unnumbered.is_empty();
            held || kept.bytes() >= kept.keeping.retained_bytes_max / 2
        })
    }

    /// Takes up what a node kept of this door's part of a checkpoint. Before the first host.
    ///
    /// # Errors
    /// What of it is no record of this door.
    pub fn take_up(&mut self, record: &Record<'_>, out: &mut Outcome) -> Result<(), &'static str> {
        let Door { link, kept, desk, lanes, .. } = self;
        let kept = kept.as_mut().expect("only a door that keeps has a checkpoint");
        // Whatever belongs to an actor must have a lane here, or it would be left out in silence; unless its shard has moved since.
        let of = match record {
            Record::Actor { id, .. } => Some(id.key),
            Record::Queued { header, .. } => Some(header.to().key),
            _ => None,
        };
        if let Some(key) = of.filter(|key| link.lane_of(*key).is_none()) {
            kept.passed_over = true;
            return if kept.keeping.shards.has_moved(key) { Ok(()) } else { Err(ELSEWHERE) };
        }
        match record {
            Record::Queued { header, .. } if is_ask(header) => {
                desk.asks.insert(header.from().key.0);
            }
            // It will come out of the device.
            Record::Out { header, .. } if is_answer(header) => {
                desk.asks.insert(header.to().key.0);
            }
            _ => {}
        }
        let Record::Node { kind, body } = record else { return Ok(()) };
        let not_whole = |_| "a record of the node's lanes is not whole";
        match *kind {
            lanes::record::CLIENT | lanes::record::APART | lanes::record::ANSWER | lanes::record::FORGOTTEN => {
                return desk.clients.take_up(*kind, body).map_err(not_whole);
            }
            lanes::record::DEVICE | lanes::record::AWAY => {
                out.numbered.extend(lanes.take_up(*kind, body).map_err(not_whole)?);
                return Ok(());
            }
            _ => {}
        }
        let (header, payload, _) = split_first(body).ok_or("a record of the node is no message")?;
        match *kind {
            node_record::ADMITTED => {
                let Some(lane) = link.lane_of(header.to().key) else {
                    return if kept.keeping.shards.has_moved(header.to().key) { Ok(()) } else { Err(ELSEWHERE) };
                };
                if is_ask(&header) {
                    desk.asks.insert(header.from().key.0);
                }
                kept.lanes[lane].log.push(&header, payload);
                Ok(())
            }
            node_record::HELD if header.is(Kind::Tell) => {
                // Where its sender has moved since, it has gone with it.
                if link.lane_of(header.from().key).is_some() {
                    kept.unnumbered.push_back((header, payload.to_vec()));
                }
                Ok(())
            }
            node_record::HELD => {
                // Of these alone somebody waits for.
                if is_answer(&header) {
                    desk.asks.insert(header.to().key.0);
                }
                desk.hand_on(&header, payload, out);
                Ok(())
            }
            _ => Err("a record is of a kind that this build does not know"),
        }
    }

    /// Takes in that the device was cut, as its lanes' records say, and adds what the node has of that moment to `part`. What
    /// came out before the cut is collected.
    pub fn close_cut(&mut self, cuts: &[Cut], part: &mut Vec<u8>, out: &mut Outcome) {
        // All of it was in the rings when the lanes said where they stood.
        while cuts.iter().any(|cut| self.link.taken(cut.lane as usize) < cut.egress) {
            assert!(self.collect(out) > 0, "a lane had put its messages into its ring before it was cut");
        }
        let Door { kept, desk, lanes, transit, blocked, waiting, moving, .. } = self;
        let Some(kept) = kept else { return };
        // Whatever was admitted is with a worker that was cut, or is added below.
        desk.clients.close(|kind, body| checkpoint::push_node(part, kind, body));
        let mut body = Vec::new();
        let mut away = Vec::new();
        let mut record = |kind, header: &Header, payload: &[u8]| {
            body.clear();
            append(&mut body, header, payload);
            checkpoint::push_node(part, kind, &body);
        };
        let (mut marks, mut outputs, mut leaving) = (Vec::new(), Vec::new(), Vec::new());
        let shards = kept.keeping.shards.clone();
        let number =
            |(header, payload): (Header, Vec<u8>)| lanes.number(shards.number_of(header.to().key), header, payload);
        let again: Vec<Away> = kept.unnumbered.drain(..).map(number).collect();
        for cut in cuts {
            let number = cut.lane as usize;
            let lane = &mut kept.lanes[number];
            let mark = lane.number(cut.ingress);
            lane.log.for_each_from(mark, |header, payload| record(node_record::ADMITTED, header, payload));
            marks.push((number, mark));
            while let Some(held) = lane.held.pop_front_if(|held| held.in_ring < cut.egress) {
                let Held { in_ring, header, payload } = held;
                match goes_to(&shards, &header) {
                    Some(_) if moving.as_ref().is_some_and(|moving| moving.leaves_with(&header)) => {
                        record(node_record::HELD, &header, &payload);
                        leaving.push((number, Held { in_ring, header, payload }));
                    }
                    Some(device) => away.push((number, in_ring, lanes.number(device, header, payload))),
                    None => {
                        record(node_record::HELD, &header, &payload);
                        outputs.push((number, Held { in_ring, header, payload }));
                    }
                }
            }
        }
        for queue in [transit, blocked, waiting] {
            queue.for_each(|header, payload| record(node_record::ADMITTED, header, payload));
        }
        let numbered = again.iter().chain(away.iter().map(|(_, _, away)| away));
        lanes.close(numbered, |kind, body| checkpoint::push_node(part, kind, body));
        let epoch = cuts.first().map_or(0, |cut| cut.epoch);
        kept.closing = Some(Closing { epoch, marks, outputs, away, again, leaving, adopted: kept.adopted });
    }

    /// Takes in that the checkpoint of the cut that was closed is durable: what was held for it goes on, and what it covers is
    /// not kept. Its host may have ended since.
    pub fn commit(&mut self, out: &mut Outcome) {
        let first = out.letters.len();
        let Door { kept, desk, lanes, moving, .. } = self;
        let Some(kept) = kept else { return };
        let Some(closing) = kept.closing.take() else { return };
        let Closing { epoch, marks, outputs, away, again, leaving, adopted } = closing;
        kept.keeping.epoch = epoch;
        kept.adopted_durably = adopted;
        if let Some(moving) = moving {
            moving.outs.extend(leaving.into_iter().map(|(_, Held { header, payload, .. })| (header, payload)));
        }
        for (_, Held { header, payload, .. }) in outputs {
            desk.hand_on(&header, &payload, out);
        }
        desk.clients.commit();
        lanes.commit(again.iter().chain(away.iter().map(|(_, _, away)| away)));
        out.numbered.extend(again);
        out.numbered.extend(away.into_iter().map(|(_, _, away)| away));
        for (lane, mark) in marks {
            let log = &mut kept.lanes[lane].log;
            log.cover(match mark {
                mark if mistake::is_made(Mistake::CoversLess) => mark.saturating_sub(2),
                mark if mistake::is_made(Mistake::CoversMore) => log.next().min(mark + 2),
                mark => mark,
            });
        }
        self.judge(out, first);
    }

    /// Takes in that there is no such checkpoint: what was held for it waits for the next one, or is made again.
    pub fn give_back(&mut self) {
        let Some(kept) = &mut self.kept else { return };
        let Some(Closing { outputs, away, again, leaving, .. }) = kept.closing.take() else { return };
        self.desk.clients.give_back();
        self.lanes.give_back();
        // Before what has come since.
        let later = std::mem::take(&mut kept.unnumbered);
        kept.unnumbered =
            again.into_iter().map(|Away { header, payload, .. }| (header, payload)).chain(later).collect();
        if self.has_host {
            let away = away
                .into_iter()
                .map(|(lane, in_ring, Away { header, payload, .. })| (lane, Held { in_ring, header, payload }));
            let mut held: Vec<_> = outputs.into_iter().chain(away).chain(leaving).collect();
            held.sort_by_key(|(_, held)| std::cmp::Reverse(held.in_ring));
            held.into_iter().for_each(|(lane, held)| kept.lanes[lane].held.push_front(held));
        }
    }

    /// Whether the host of this term is not known to have ended.
    pub fn has_host(&self) -> bool {
        self.has_host
    }

    /// Messages between this door and its actors.
    pub fn queued(&self) -> u64 {
        // What still lies in the rings of a door that is closed waits for nobody.
        if self.closed.is_some() {
            return 0;
        }
        let inside: u64 = self.link.read().iter().map(|r| r.queued + r.ingress_waiting).sum();
        inside + (self.transit.len() + self.blocked.len() + self.waiting.len()) as u64
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
        &self.desk.unhandled
    }
}

impl KeptLane {
    /// The log's number of what has this number in the ingress ring.
    fn number(&self, in_ring: u64) -> u64 {
        self.log_base + (in_ring - self.ring_base)
    }
}

/// Pushes a message into its lane's ring, and keeps it there is a need to.
fn push(link: &mut Link, kept: &mut Option<Kept>, header: &Header, payload: &[u8]) -> Result<(), Refused> {
    let Some(kept) = kept else { return link.push(header, payload) };
    let lane = link.lane_of(header.to().key).ok_or(Refused::NotHere)?;
    let log = &mut kept.lanes[lane].log;
    if log.unsent() > 0 {
        return Err(Refused::Full);
    }
    link.push(header, payload)?;
    log.push_sent(header, payload);
    Ok(())
}

/// Whether somebody waits for the answer.
fn is_ask(header: &Header) -> bool {
    header.is(Kind::Ask) || header.is(Kind::Inspect)
}

fn is_answer(header: &Header) -> bool {
    matches!(header.kind(), Some(Kind::Reply | Kind::Error | Kind::Inspected))
}

/// The answer to an ask that has no other.
fn error_to(ask: &Header, reason: Reason, clock: Hlc) -> Header {
    Header::new(Kind::Error, ask.from(), ask.to(), 0, clock).with_reason(reason)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering::Relaxed;

    use ringhold_cluster::frame::client_id;
    use ringhold_kernels::bell::Bell;
    use ringhold_kernels::id::{ActorId, Key, TypeId};
    use ringhold_kernels::message::split_first;
    use ringhold_kernels::outbox::Owners;
    use ringhold_kernels::segment::{Segment, Shape};

    use super::*;
    use crate::device::host::NotifyBell;
    use crate::device::lanes::Client;

    const SLOTS: u32 = 4;

    /// A door to a device of one worker, of which there is no host.
    fn door(overflow: Overflow) -> (Arc<Segment>, Door) {
        let shape = Shape { ingress_slots: SLOTS, egress_slots: 64, ..Shape::default() };
        let segment = Segment::create(shape, 0, &Owners::all_here(1)).unwrap();
        let bell: Arc<dyn Bell> = Arc::new(NotifyBell::default());
        let link = Link::new(segment.clone(), Arc::new(vec![bell]));
        (segment, Door::new(link, overflow, None))
    }

    fn message(kind: Kind, ticket: u32) -> Header {
        Header::new(kind, ActorId::new(TypeId(1), Key(1)), client_id(3, ticket), 0, Hlc(0))
    }

    fn admit(door: &mut Door, header: Header) -> Vec<Letter> {
        let mut letters = Vec::new();
        assert_eq!(door.admit(&header, &[], None, Hlc(1), &mut letters), Admitted::Taken);
        letters
    }

    #[test]
    fn an_ask_lost_with_a_host_is_answered_though_tells_of_its_client_wait() {
        let (segment, mut door) = door(Overflow::Block);
        door.link().begin_term();
        admit(&mut door, message(Kind::Ask, 0));
        // A tell of the same number, which cannot be.
        admit(&mut door, message(Kind::Tell, 0));
        segment.worker(0).ingress.0.begun.store(1, Relaxed);
        let mut out = Outcome::default();
        assert_eq!(door.lose(&mut out).asks, 1);
        let (answer, ..) = split_first(&out.answers).unwrap();
        assert_eq!((answer.to(), answer.reason()), (client_id(3, 0), Some(Reason::StateLost)));
    }

    #[test]
    fn what_a_lost_host_did_is_counted_once_though_there_is_no_other_yet() {
        let (segment, mut door) = door(Overflow::Block);
        door.link().begin_term();
        let telemetry = &segment.worker(0).telemetry;
        telemetry.accepted.store(9, Relaxed);
        telemetry.finished.store(7, Relaxed);
        telemetry.finished_published.store(7, Relaxed);
        telemetry.timers.store(1, Relaxed);
        assert_eq!(door.totals().finished, 7);
        let loss = door.lose(&mut Outcome::default());
        assert_eq!((loss.in_hand, loss.timers, door.totals().finished), (2, 1, 7));
        // The node stops before there is another host.
        let loss = door.lose(&mut Outcome::default());
        assert_eq!((loss.in_hand, loss.timers, door.totals().finished), (0, 0, 7));
    }

    #[test]
    fn an_ask_dropped_as_the_oldest_is_not_waited_for_any_more() {
        let (_segment, mut door) = door(Overflow::DropOldest);
        (0..SLOTS).for_each(|_| assert!(admit(&mut door, message(Kind::Tell, 0)).is_empty()));
        assert!(admit(&mut door, message(Kind::Ask, 5)).is_empty());
        let dropped: Vec<Letter> = (0..SLOTS).flat_map(|_| admit(&mut door, message(Kind::Tell, 0))).collect();
        let [Letter { header, reason: Reason::DroppedOldest, .. }] = &dropped[..] else {
            panic!("one is one too many")
        };
        assert!(header.is(Kind::Ask) && door.desk.asks.is_empty());
    }

    #[test]
    fn what_comes_again_waits_for_room_whatever_the_policy() {
        for overflow in [Overflow::Block, Overflow::Reject, Overflow::DropNewest, Overflow::DropOldest] {
            let (_segment, mut door) = door(overflow);
            door.clients().detach(Client { number: 3, id: [3; 16], born: 1, seen_us: 0 }, 1);
            let mut admit = |kind, number: u64, again| {
                let sender = Sender { client: 3, connection: 1, number, again };
                let mut letters = Vec::new();
                let admitted = door.admit(&message(kind, number as u32), &[], Some(sender), Hlc(1), &mut letters);
                (admitted, letters.len())
            };
            let slots = u64::from(SLOTS);
            (1..=slots).for_each(|number| assert_eq!(admit(Kind::Tell, number, true), (Admitted::Taken, 0)));
            for kind in [Kind::Tell, Kind::Ask] {
                assert_eq!(admit(kind, slots + 1, true), (Admitted::Full, 0), "{overflow:?}");
            }
            assert_eq!(
                admit(Kind::Tell, slots + 1, false).0,
                match overflow {
                    Overflow::Block => Admitted::Full,
                    Overflow::Reject => Admitted::Refused(Reason::Rejected),
                    Overflow::DropNewest => Admitted::Refused(Reason::DroppedNewest),
                    Overflow::DropOldest => Admitted::Taken,
                },
                "what does not come again goes by the policy"
            );
        }
    }

    #[test]
    fn what_waits_in_the_node_asks_for_the_bell() {
        let (segment, mut door) = door(Overflow::Block);
        for _ in 0..SLOTS {
            door.pass_on(&message(Kind::Tell, 0), &[], &mut vec![]);
        }
        assert_eq!(segment.node().wants_room.load(Relaxed), 0);
        door.pass_on(&message(Kind::Tell, 0), &[], &mut vec![]);
        assert_eq!(segment.node().wants_room.load(Relaxed), 1);
    }

    #[test]
    fn what_no_host_will_take_is_given_up_with_a_reason() {
        let (_segment, mut door) = door(Overflow::Block);
        admit(&mut door, message(Kind::Ask, 7));
        (0..SLOTS).for_each(|_| door.pass_on(&message(Kind::Tell, 0), &[], &mut vec![]));
        let mut out = Outcome::default();
        door.give_up(Reason::Stopping, &mut out);
        assert_eq!(out.letters.len(), 1 + SLOTS as usize);
        assert!(out.letters.iter().all(|letter| letter.reason == Reason::Stopping) && door.desk.asks.is_empty());
    }

    #[test]
    fn a_door_without_a_device_lets_nothing_in_and_gives_each_message_up_once() {
        let (_segment, mut door) = door(Overflow::Block);
        admit(&mut door, message(Kind::Tell, 0));
        let mut out = Outcome::default();
        door.give_up(Reason::NoDevice, &mut out);
        assert_eq!(out.letters.len(), 1);
        let refused = door.admit(&message(Kind::Ask, 7), &[], None, Hlc(1), &mut vec![]);
        assert_eq!(refused, Admitted::Refused(Reason::NoDevice));
        door.pass_on(&message(Kind::Tell, 0), &[], &mut out.letters);
        // The node stops.
        door.give_up(Reason::Stopping, &mut out);
        assert!(out.letters.len() == 2 && out.letters.iter().all(|letter| letter.reason == Reason::NoDevice));
        assert_eq!((door.unhandled()[&Reason::NoDevice], door.queued(), door.is_quiet()), (3, 0, true));
    }
}
