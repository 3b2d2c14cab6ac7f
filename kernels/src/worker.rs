//! A worker: the event loop that runs actors, one batch a step.
//!
//! It has no clock and no thread of its own. Whoever drives it calls [`Worker::step`] with the time, and parks
//! when told that there is nothing to do: a thread (see [`crate::cpu`]), or a task of the simulator.
//!
//! A step: take part in a cut, if one is wanted (see `cut.rs`); fire due timers; run what is queued here, at most a batch; run what other workers sent; run what came
//! from outside, unless the queue is past its high-water mark; then send on what the handlers sent.

mod cut;
mod switch;

use std::collections::BinaryHeap;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::actor::FaultKind;
use crate::bell::{Bell, park, wake};
use crate::hlc::Hlc;
use crate::message::{HEADER_BYTES, Header, Inspected, Kind, Reason};
use crate::outbox::{Done, Outbox, Owner, PARKED, Timer};
use crate::queue::{Queue, parts};
use crate::registry::{ActorType, Ran, Registry, Run};
use crate::ring::{Consumer, Inbox, InboxEnd, Producer};
use crate::segment::{LocalRing, Pulse, Segment, SegmentRing, Telemetry};
use crate::suspects::{self, Suspect};
use crate::table::{Slot, Table, state_of};
use cut::{Changes, Cuts, Meeting};

type Siblings = Arc<Vec<Inbox<LocalRing>>>;

/// One of a device's workers. See the module's documentation.
pub struct Worker {
    index: usize,
    segment: Arc<Segment>,
    telemetry: NonNull<Telemetry>,
    registry: Arc<Registry>,
    /// What each message needs of its type, by the type's index in the registry.
    hot: Box<[Hot]>,
    table: Table,
    outbox: Outbox,
    ingress: Consumer<SegmentRing>,
    egress: Producer<SegmentRing>,
    inbox: InboxEnd<LocalRing, OwnInbox>,
    siblings: Siblings,
    bells: Bells,
    timers: BinaryHeap<Due>,
    throttled: bool,
    /// Messages taken from the ingress ring since the node was last told of room.
    room_made: u64,
    changes: Changes,
    cuts: Cuts,
    suspects: Vec<Suspect>,
    counts: Counts,
}

// SAFETY: the telemetry is atomics in the segment, which is shared between threads and processes.
unsafe impl Send for Worker {}

struct Hot {
    run: Run,
    message_bytes: usize,
    /// What every run of it begins with.
    flags: Done,
    actors: u64,
    handled: u64,
    faults: u64,
}

/// The bells of a device: every worker's, and the node's.
#[derive(Clone)]
pub struct Bells {
    pub workers: Arc<Vec<Arc<dyn Bell>>>,
    pub node: Arc<dyn Bell>,
}

/// A worker's own inbox among those of its device.
struct OwnInbox(Siblings, usize);

impl std::ops::Deref for OwnInbox {
    type Target = Inbox<LocalRing>;
    #[inline(always)]
    fn deref(&self) -> &Inbox<LocalRing> {
        &self.0[self.1]
    }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Messages run.
    pub ran: usize,
    /// Nothing is queued and nothing waits to leave: the caller may park until the bell or the next timer.
    pub idle: bool,
    /// When the next timer is due, in microseconds since the Unix epoch.
    pub next_timer_us: Option<u64>,
}

#[derive(Default)]
struct Counts {
    accepted: u64,
    finished: u64,
    faults: u64,
    replies: u64,
    created: u64,
    stopped: u64,
    spilled: u64,
    /// Messages that were already counted as spilled and still wait.
    spill_waiting: usize,
    /// Messages that switches took out of queues.
    moved: u64,
}

/// A timer in the heap: the earliest first, and of two at once the one with the smaller stamp: so the older, where both are of
/// one sender.
struct Due {
    at_us: u64,
    header: Header,
    payload: Box<[u8]>,
}

impl PartialEq for Due {
    fn eq(&self, other: &Due) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Due) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Due) -> std::cmp::Ordering {
        (other.at_us, other.header.hlc).cmp(&(self.at_us, self.header.hlc))
    }
}

/// All workers of a device, over its segment. They start with no actors, or with those that the node has them load.
pub fn workers(segment: &Arc<Segment>, registry: &Arc<Registry>, bells: &Bells) -> Vec<Worker> {
    let shape = segment.shape();
    let count = shape.workers as usize;
    let inbox = || Inbox::new(LocalRing::new(shape.inbox_slots, shape.slot_bytes));
    let siblings: Siblings = Arc::new((0..count).map(|_| inbox()).collect());
    let owners = segment.owners();
    let meeting = Arc::new(Meeting::of(count));
    let hot = |t: &ActorType| Hot {
        run: t.run,
        message_bytes: t.message_bytes,
        flags: if t.can_fault { Done::UNDOABLE } else { Done::default() },
        actors: 0,
        handled: 0,
        faults: 0,
    };
    let worker = |index| Worker {
        index,
        segment: segment.clone(),
        telemetry: NonNull::from(&segment.worker(index).telemetry),
        registry: registry.clone(),
        hot: registry.types().iter().map(hot).collect(),
        table: Table::new(registry),
        outbox: Outbox::new(index as Owner, count, owners.clone()),
        ingress: resume(segment, index),
        egress: Producer::attach(segment.egress(index)),
        inbox: InboxEnd::new(OwnInbox(siblings.clone(), index)),
        siblings: siblings.clone(),
        bells: bells.clone(),
        timers: BinaryHeap::new(),
        throttled: false,
        room_made: 0,
        suspects: suspects::read(segment),
        changes: Changes::new(segment),
        cuts: Cuts::new(meeting.clone(), segment, index),
        counts: Counts::default(),
    };
    (0..count).map(worker).collect()
}

/// The reading end of a worker's ingress ring, behind whatever the last host had begun.
fn resume(segment: &Arc<Segment>, index: usize) -> Consumer<SegmentRing> {
    let mut ingress = Consumer::attach(segment.ingress(index));
    ingress.skip_to(segment.worker(index).ingress.0.begun.load(Acquire));
    ingress
}

impl Worker {
    /// Runs at most a few batches. `now_us` is the time in microseconds since the Unix epoch.
    pub fn step(&mut self, now_us: u64) -> Step {
        self.outbox.hlc = self.outbox.hlc.max(Hlc::at_us(now_us));
        let telemetry = self.telemetry();
        telemetry.pulse.store(Pulse::Busy as u32, Relaxed);
        telemetry.beat_us.store(now_us, Relaxed);

        if self.cuts.are_due(&self.segment)
            && let Some(still) = self.step_for_cuts(now_us)
        {
            return still;
        }
        self.fire_timers(now_us);
        let batch = self.segment.shape().batch as usize;
        let mut ran = self.run_queued(batch);
        let behind = self.cuts.runs_restored(&self.outbox.here);
        if !behind {
            ran += self.run_inbox(batch);
        }
        if !behind && self.admits() {
            ran += self.run_ingress(batch);
        }
        self.start_timers(now_us);
        self.flush();

        let idle = self.nothing_queued() && self.inbox.is_empty() && self.ingress.is_empty();
        self.report(idle);
        let idle = idle && !self.cuts.are_due(&self.segment);
        Step { ran, idle, next_timer_us: self.timers.peek().map(|due| due.at_us) }
    }

    /// Says that the caller is about to wait for this worker's bell. False if something came in just now: then it
    /// must step again instead.
    pub fn park(&mut self) -> bool {
        let parked = &self.segment.worker(self.index).parked.0;
        park(parked);
        if self.inbox.is_empty() && self.ingress.is_empty() && !self.cuts.are_due(&self.segment) {
            return true;
        }
        parked.store(0, Relaxed);
        false
    }

    /// Says that the caller waits no more, whoever or whatever woke it.
    pub fn unpark(&mut self) {
        self.segment.worker(self.index).parked.0.store(0, Relaxed);
    }

    /// Whether the node has asked for the end, and nothing is left to do before it. Timers are not waited for: they are in the
    /// last checkpoint, or where none are made, what they hold goes to the dead-letter queue, which takes another step.
    pub fn may_end(&mut self, idle: bool) -> bool {
        if !idle || self.segment.node().stop.load(Relaxed) == 0 {
            return false;
        }
        if self.changes.generation != 0 {
            return true;
        }
        let waited = !self.timers.is_empty();
        while let Some(due) = self.timers.pop() {
            self.dead_letter(&due.header, &due.payload, Reason::Stopping);
        }
        !waited
    }

    /// Says that this worker is done for good.
    pub fn end(&mut self) {
        self.telemetry().pulse.store(Pulse::Stopped as u32, Release);
        wake(&self.segment.node().parked, &*self.bells.node);
    }

    pub fn index(&self) -> usize {
        self.index
    }

    #[inline(always)]
    fn telemetry(&self) -> &Telemetry {
        // SAFETY: it lies in the segment, which this worker keeps mapped.
        unsafe { self.telemetry.as_ref() }
    }

    fn run_queued(&mut self, batch: usize) -> usize {
        let mut ran = 0;
        let mut ahead = None;
        while ran < batch {
            let Some(front) = self.outbox.here.front() else { break };
            // SAFETY: what the queue gives is a whole message, which stays where it is until it is popped.
            let id = unsafe { front.message.as_ref() }.to();
            let guess = ahead.unwrap_or_else(|| self.table.guess(id));
            // While this message runs, the next one's actor comes into the cache, and where a later one's is to be found.
            if let Some(later) = self.outbox.here.far_ahead(&front) {
                self.table.expect(later);
            }
            // SAFETY: as above.
            ahead = self.outbox.here.second(&front).map(|next| self.table.guess(unsafe { next.as_ref() }.to()));
            self.run_for(self.table.find_from(guess, id), front.message);
            ran += 1;
            self.telemetry().finished.store(self.counts.finished + ran as u64, Relaxed);
            self.outbox.here.pop(front);
        }
        self.counts.finished += ran as u64;
        ran
    }

    fn run_inbox(&mut self, batch: usize) -> usize {
        let mut ran = 0;
        // The slot stays ours until credits are given, so the message is run where it lies.
        while ran < batch
            && let Some(at) = self.inbox.next(|at| at)
        {
            self.run(at);
            ran += 1;
        }
        self.inbox.give_credits();
        ran
    }

    fn run_ingress(&mut self, batch: usize) -> usize {
        let mut ran = 0;
        while ran < batch
            && let Some(at) = self.ingress.next(|at| at)
        {
            let begun = &self.segment.worker(self.index).ingress.0.begun;
            // Release: whoever sees the count after our death finds the message begun and not waiting.
            begun.store(self.ingress.taken(), Release);
            self.counts.accepted += 1;
            self.telemetry().accepted.store(self.counts.accepted, Relaxed);
            self.run(at);
            ran += 1;
        }
        if ran > 0 {
            self.ingress.publish();
            self.room_made += ran as u64;
            // A quarter of a ring at a time: a bell for each batch would cost more than it saves.
            if self.room_made >= self.segment.shape().ingress_slots as u64 / 4 || self.ingress.is_empty() {
                self.room_made = 0;
                wake(&self.segment.node().wants_room, &*self.bells.node);
            }
        }
        ran
    }

    /// Whether messages from outside may come in: not while the queue is past its high-water mark, and then not
    /// again before it has fallen below its low-water mark.
    fn admits(&mut self) -> bool {
        let shape = self.segment.shape();
        let percent = if self.throttled { shape.low_water_percent } else { shape.high_water_percent };
        self.throttled = self.queued() > shape.inbox_slots as usize * percent as usize / 100;
        !self.throttled
    }

    fn queued(&self) -> usize {
        self.outbox.here.len() + self.waiting()
    }

    /// Messages in spill lists.
    fn waiting(&self) -> usize {
        let others: usize = self.outbox.others.iter().map(Queue::len).sum();
        others + self.outbox.replies.len() + self.outbox.away.len() + self.outbox.parked.len()
    }

    fn nothing_queued(&self) -> bool {
        self.queued() == 0
    }

    /// Runs one message where it lies.
    fn run(&mut self, at: NonNull<Header>) {
        // SAFETY: a whole message lies there, and its place stays as it is until the caller frees it.
        let header = unsafe { at.as_ref() };
        if header.is(Kind::Tell) || header.is(Kind::Ask) {
            self.run_for(self.table.find(header.to()), at);
        } else {
            self.run_other(at);
        }
        self.counts.finished += 1;
        self.telemetry().finished.store(self.counts.finished, Relaxed);
    }

    /// Runs a tell or an ask for the actor in `slot`; without one, for a new actor.
    #[inline(always)]
    fn run_for(&mut self, slot: Option<NonNull<Slot>>, at: NonNull<Header>) {
        // SAFETY: as for `run`.
        let header = unsafe { at.as_ref() };
        let id = header.to();
        let telemetry = self.telemetry();
        telemetry.hand_key.store(id.key.0, Relaxed);
        telemetry.hand_type.store(id.type_id.0, Relaxed);
        telemetry.hand_hlc.store(header.hlc, Relaxed);
        if !self.suspects.is_empty() && self.is_condemned(at) {
            return self.not_handled(at, Reason::Poison, None);
        }
        self.outbox.hlc = self.outbox.hlc.merge(Hlc(header.hlc));
        match slot {
            Some(slot) => self.run_on(slot, at),
            None => self.create_and_run(at),
        }
    }

    /// Whether the message ended two hosts. Where it is for an actor that a message of was suspected, says which it is.
    #[cold]
    fn is_condemned(&self, at: NonNull<Header>) -> bool {
        // SAFETY: as for `run`.
        let (header, payload) = unsafe { parts(at) };
        let mut found = Suspect { actor: header.to(), hlc: header.hlc, hash: 0, condemned: false };
        if self.suspects.iter().any(|suspect| suspect.actor == found.actor) {
            found.hash = suspects::hash_of(header, payload);
        }
        self.telemetry().hand_hash.store(found.hash, Relaxed);
        self.suspects.iter().any(|suspect| suspect.condemned && suspect.is(&found))
    }

    #[inline(always)]
    fn run_on(&mut self, mut slot: NonNull<Slot>, at: NonNull<Header>) {
        // SAFETY: the slot came from the table, which alone refers to it; it does not move while handlers run. The
        // message is as `run` says.
        let (held, state, header) = unsafe { (slot.as_mut(), state_of(slot), at.as_ref()) };
        // SAFETY: slots are made with their type's index into the registry, which `hot` follows.
        let actor = unsafe { self.hot.get_unchecked_mut(held.type_index as usize) };
        if held.touched != self.changes.generation {
            self.changes.touch(slot);
        }
        held.handled += 1;
        actor.handled += 1;
        if header.len as usize != actor.message_bytes {
            return self.not_handled(at, Reason::Malformed, None);
        }
        let asked = if header.is(Kind::Ask) { Done::ASKED } else { Done::default() };
        self.outbox.begin(actor.flags | asked);
        // SAFETY: the state is this slot's, of this type; the payload has the type's message size.
        let ran = unsafe { (actor.run)(state, at, &mut self.outbox) };
        if ran != Ran::DONE {
            return self.ran_badly(slot, at, ran);
        }
        if self.outbox.done.any(Done::ASKED | Done::STOPPED) {
            self.settle(slot, at);
        }
    }

    /// What is left to do for a handler that was asked, or that stopped its actor.
    #[inline(never)]
    fn settle(&mut self, slot: NonNull<Slot>, at: NonNull<Header>) {
        let done = self.outbox.done;
        if done.any(Done::ASKED) {
            self.counts.replies += 1;
            if !done.any(Done::REPLIED) {
                // SAFETY: as for `run`.
                self.answer_error(unsafe { at.as_ref() }, Reason::NoReply, &[]);
            }
        }
        if done.any(Done::STOPPED) {
            // SAFETY: the slot came from the table, which holds it until just below.
            self.hot[unsafe { slot.as_ref() }.type_index as usize].actors -= 1;
            self.counts.stopped += 1;
            // SAFETY: as above.
            self.changes.remove(unsafe { slot.as_ref() }.id());
            self.table.remove(slot);
        }
    }

    #[cold]
    fn ran_badly(&mut self, mut slot: NonNull<Slot>, at: NonNull<Header>, ran: Ran) {
        let Some(fault) = ran.as_fault() else {
            return self.not_handled(at, Reason::Malformed, None);
        };
        // SAFETY: the slot came from the table, which still holds it: a handler that faulted has not stopped.
        let held = unsafe { slot.as_mut() };
        held.faults += 1;
        self.hot[held.type_index as usize].faults += 1;
        self.counts.faults += 1;
        self.outbox.undo();
        let reason = match fault.kind {
            FaultKind::DivisionByZero => Reason::FaultDivisionByZero,
            FaultKind::IndexOutOfBounds => Reason::FaultIndexOutOfBounds,
            FaultKind::ClampBounds => Reason::FaultClampBounds,
        };
        self.not_handled(at, reason, Some(fault.line));
    }

    #[inline(never)]
    fn create_and_run(&mut self, at: NonNull<Header>) {
        // SAFETY: as for `run`.
        let id = unsafe { at.as_ref() }.to();
        let Some(type_index) = self.registry.index_of(id.type_id) else {
            return self.not_handled(at, Reason::UnknownType, None);
        };
        // SAFETY: as for `run`.
        if unsafe { at.as_ref() }.creates_nothing() {
            return self.not_handled(at, Reason::Overloaded, None);
        }
        match self.table.create(id, type_index) {
            Some(slot) => {
                self.counts.created += 1;
                self.hot[type_index].actors += 1;
                self.run_on(slot, at);
            }
            None => self.not_handled(at, Reason::OutOfMemory, None),
        }
    }

    #[cold]
    fn run_other(&mut self, at: NonNull<Header>) {
        // SAFETY: as for `run`.
        let (header, payload) = unsafe { parts(at) };
        match (header.kind(), payload.first_chunk::<4>()) {
            (Some(Kind::Inspect), Some(offset)) => self.inspect(header, u32::from_le_bytes(*offset)),
            _ => self.not_handled(at, Reason::Malformed, None),
        }
    }

    fn inspect(&mut self, header: &Header, offset: u32) {
        let Some(slot) = self.table.find(header.to()) else {
            return self.answer_error(header, Reason::NoActor, &[]);
        };
        // SAFETY: the slot came from the table just now.
        let (held, state) = unsafe { (slot.as_ref(), state_of(slot)) };
        let actor = &self.registry.types()[held.type_index as usize];
        let mut bytes = vec![0; actor.state_bytes];
        // SAFETY: the state is this slot's, of this type, and there is room for its bytes.
        unsafe { (actor.store)(state, bytes.as_mut_ptr()) };
        let about = Inspected {
            state_bytes: bytes.len() as u32,
            offset,
            handled: held.handled,
            faults: held.faults,
            worker: self.index as u32,
        };
        let from = bytes.len().min(offset as usize);
        // The smallest slots take less than what is said about a state.
        let Some(room) = self.segment.shape().payload_bytes_max().checked_sub(size_of::<Inspected>()) else {
            return self.answer_error(header, Reason::TooLarge, &[]);
        };
        let to = bytes.len().min(from + room);
        // SAFETY: `Inspected` is integers without padding.
        let about: [u8; size_of::<Inspected>()] = unsafe { std::mem::transmute(about) };
        let payload = [&about[..], &bytes[from..to]].concat();
        let header = self.answer(header, Kind::Inspected, payload.len());
        self.outbox.replies.push(&header, &payload);
        self.counts.replies += 1;
    }

    /// A message that no handler will answer: its asker gets an error, or it goes to the dead-letter queue. One that is put aside
    /// goes there in any case, for somebody to look at.
    #[cold]
    fn not_handled(&mut self, at: NonNull<Header>, reason: Reason, line: Option<u32>) {
        // SAFETY: as for `run`.
        let (header, payload) = unsafe { parts(at) };
        if matches!(header.kind(), Some(Kind::Ask | Kind::Inspect)) {
            self.counts.replies += 1;
            let text = line.map_or(String::new(), |line| format!("line {line} of the actor's source"));
            let text = &text.as_bytes()[..text.len().min(self.segment.shape().payload_bytes_max())];
            self.answer_error(header, reason, text);
            if reason != Reason::Poison {
                return;
            }
        }
        self.dead_letter(header, payload, reason);
    }

    fn dead_letter(&mut self, header: &Header, payload: &[u8], reason: Reason) {
        self.outbox.dead += 1;
        self.outbox.away.push(&header.with_kind(Kind::DeadLetter).with_reason(reason), payload);
    }

    #[cold]
    fn answer_error(&mut self, asked: &Header, reason: Reason, text: &[u8]) {
        let header = self.answer(asked, Kind::Error, text.len()).with_reason(reason);
        self.outbox.replies.push(&header, text);
    }

    fn answer(&mut self, asked: &Header, kind: Kind, len: usize) -> Header {
        self.outbox.hlc = Hlc(self.outbox.hlc.0 + 1);
        Header::new(kind, asked.from(), asked.to(), len, self.outbox.hlc)
    }

    /// Puts the timers that handlers set into the heap.
    fn start_timers(&mut self, now_us: u64) {
        for Timer { delay_us, header, payload } in self.outbox.timers.drain(..) {
            let at_us = now_us.saturating_add(delay_us);
            self.timers.push(Due { at_us, header, payload });
        }
    }

    fn fire_timers(&mut self, now_us: u64) {
        while self.timers.peek().is_some_and(|due| due.at_us <= now_us) {
            let due = self.timers.pop().expect("one was just seen");
            self.outbox.forward(&due.header, &due.payload);
        }
    }

    /// Sends on what handlers sent, as far as there are credits and room. What is left stays, in order.
    fn flush(&mut self) {
        for (worker, queue) in self.outbox.others.iter_mut().enumerate() {
            if !queue.is_empty() && self.siblings[worker].send_from(queue) > 0 {
                wake(&self.segment.worker(worker).parked.0, &*self.bells.workers[worker]);
            }
        }
        let before = self.egress.pushed();
        let egress = &mut self.egress;
        self.outbox.replies.drain(|header, payload| egress.push(header, payload));
        // Half of the ring is kept for replies: messages for elsewhere never hold one up.
        let reserve = egress.capacity() / 2;
        self.outbox.away.drain(|header, payload| egress.room(reserve + 1) > reserve && egress.push(header, payload));
        if self.egress.pushed() != before {
            wake(&self.segment.node().parked, &*self.bells.node);
        }
        let waiting = self.waiting();
        self.counts.spilled += waiting.saturating_sub(self.counts.spill_waiting) as u64;
        self.counts.spill_waiting = waiting;
    }

    /// Publishes the counters. `accepted` and `finished` are published message by message; the pulse last, so that whoever sees
    /// an idle worker sees counters that are up to date.
    fn report(&self, idle: bool) {
        let telemetry = self.telemetry();
        let counts = &self.counts;
        telemetry.hand_hlc.store(0, Relaxed);
        telemetry.hand_type.store(0, Relaxed);
        telemetry.sent.store(self.outbox.sent(), Relaxed);
        telemetry.faults.store(counts.faults, Relaxed);
        telemetry.dead.store(self.outbox.dead, Relaxed);
        telemetry.replies.store(counts.replies, Relaxed);
        telemetry.replies_unasked.store(self.outbox.replies_unasked, Relaxed);
        telemetry.actors.store(self.table.len() as u64, Relaxed);
        telemetry.created.store(counts.created, Relaxed);
        telemetry.stopped.store(counts.stopped, Relaxed);
        telemetry.queued.store(self.queued() as u64, Relaxed);
        telemetry.spilled.store(counts.spilled, Relaxed);
        telemetry.spilled_now.store(counts.spill_waiting as u64, Relaxed);
        telemetry.timers.store(self.timers.len() as u64, Relaxed);
        telemetry.table_bytes.store(self.table.memory_bytes() as u64, Relaxed);
        telemetry.throttled.store(self.throttled.into(), Relaxed);
        telemetry.finished_published.store(counts.finished, Relaxed);
        telemetry.away_waiting.store((self.outbox.away.len() + self.outbox.parked.len()) as u64, Relaxed);
        telemetry.moved.store(counts.moved, Relaxed);
        for (counts, hot) in self.segment.type_counts(self.index).iter().zip(&self.hot) {
            counts.actors.store(hot.actors, Relaxed);
            counts.handled.store(hot.handled, Relaxed);
            counts.faults.store(hot.faults, Relaxed);
        }
        let pulse = if idle { Pulse::Idle } else { Pulse::Busy };
        telemetry.pulse.store(pulse as u32, Release);
    }
}

const _: () = assert!(HEADER_BYTES >= size_of::<u64>() && PARKED as usize >= crate::segment::WORKERS_MAX);
