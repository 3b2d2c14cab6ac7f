//! A worker's part in checkpoints: what a new host begins with, and the cut.
//!
//! The node asks for a cut by a number, its *epoch*. Each worker that sees it stops between two messages. When all stand, each
//! notes how far its inbox goes; when all have, each copies what has changed since the last cut, goes on at once, and streams
//! the copy through its lane's staging ring meanwhile. What a worker sends after it has gone on lies behind what the others
//! noted, so the copies are of one moment.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::switch::{HandedOver, Switch};
use super::{Due, Step, Worker};
use crate::bell::wake;
use crate::checkpoint::{self, Cut, Kind as RecordKind, Record, Splitter};
use crate::hlc::Hlc;
use crate::id::{ActorId, TypeId};
use crate::message::{Header, Kind};
use crate::queue::{Queue, parts};
use crate::segment::{Pulse, Segment};
use crate::staging::{self, Reader, Writer};
use crate::table::{Slot, prefetch_slot, state_of};

/// Bytes that a worker streams in one step, and takes in one step of a restore: a message may come meanwhile.
pub(super) const STREAM_BYTES: usize = 64 * 1024;
/// How many slots ahead of the one that is copied are being fetched.
const PREFETCHED: usize = 12;
/// Memory kept for the next cut's copy, where the last one took no more. Memory that the system must give first takes several
/// times as long to copy to, and the device stands still meanwhile.
const STAGED_BYTES_KEPT: usize = 4 << 20;

/// Where the workers of a device meet. Counters of all cuts since the host's start.
#[derive(Default)]
pub(super) struct Meeting {
    stand: AtomicU64,
    noted: AtomicU64,
    /// Of switches at which shards left: workers that have handed over what they had for others.
    pub(super) handed: AtomicU64,
    pub(super) handed_over: HandedOver,
    /// Workers that have loaded what they begin with.
    ready: AtomicU64,
}

impl Meeting {
    pub(super) fn of(workers: usize) -> Meeting {
        Meeting { handed_over: HandedOver::new((0..workers).map(|_| Vec::new()).collect()), ..Meeting::default() }
    }
}

/// What has changed since the last cut.
#[derive(Default)]
pub(super) struct Changes {
    /// Counts cuts from 1, which slots bear that were touched since; 0 where nobody asks for cuts, and so in every slot.
    pub generation: u32,
    touched: Vec<NonNull<Slot>>,
    removed: Vec<ActorId>,
}

pub(super) struct Cuts {
    pub(super) meeting: Arc<Meeting>,
    /// The newest cut that this worker took part in, and how many those are.
    epoch: u64,
    count: u64,
    /// How many of them were switches at which shards left the device.
    partings: u64,
    pub(super) switch: Option<Switch>,
    stage: Stage,
    staged: Vec<u8>,
    streamed: usize,
    up: Writer,
    pub(super) down: Reader,
    /// When it came to stand, until it is known how long.
    stood_us: Option<u64>,
    loading: Option<Loading>,
    /// Messages that it began with, or that came by a switch: of those ever pushed to its run queue, up to this one. Who sent
    /// them may be another worker's actor by now, so until they are run nothing else may come in.
    restored: u64,
    up_yet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    /// Between two messages, until all workers are.
    Standing,
    /// It has noted that its inbox goes to here, and waits until all have noted theirs.
    Noted {
        inbox_end: u64,
    },
    /// At a switch: it has captured and handed over, and waits until all workers have.
    HandedOver,
}

/// What came down so far of what a new host begins with.
#[derive(Default)]
struct Loading {
    splitter: Splitter,
    bytes: Vec<u8>,
}

impl Cuts {
    pub(super) fn new(meeting: Arc<Meeting>, segment: &Arc<Segment>, lane: usize) -> Cuts {
        let (up, down) = staging::host(segment, lane);
        let node = segment.node();
        Cuts {
            meeting,
            epoch: node.epoch.load(Acquire),
            count: 0,
            partings: 0,
            switch: None,
            stage: Stage::Running,
            staged: Vec::new(),
            streamed: 0,
            up,
            down,
            stood_us: None,
            loading: (node.restores.load(Acquire) != 0).then(Loading::default),
            restored: 0,
            up_yet: false,
        }
    }

    /// Has nothing else come in until what is in the run queue now has been run.
    pub(super) fn protect(&mut self, here: &Queue) {
        self.restored = here.pushed();
    }

    /// Whether messages that it began with are still in its run queue.
    #[inline(always)]
    pub(super) fn runs_restored(&self, here: &Queue) -> bool {
        here.popped() < self.restored
    }

    /// Whether a step has anything to do with checkpoints.
    #[inline(always)]
    pub(super) fn are_due(&self, segment: &Segment) -> bool {
        !self.up_yet || segment.node().epoch.load(Acquire) != self.epoch || !self.staged.is_empty()
    }
}

impl Changes {
    pub(super) fn new(segment: &Segment) -> Changes {
        Changes { generation: u32::from(segment.node().restores.load(Acquire) != 0), ..Changes::default() }
    }

    /// Notes that a slot differs from what the last cut has of it.
    #[cold]
    #[inline(never)]
    pub(super) fn touch(&mut self, mut slot: NonNull<Slot>) {
        // SAFETY: the caller has it from its table.
        unsafe { slot.as_mut() }.touched = self.generation;
        self.touched.push(slot);
    }

    pub(super) fn remove(&mut self, id: ActorId) {
        if self.generation != 0 {
            self.removed.push(id);
        }
    }
}

impl Worker {
    /// What is to be done for checkpoints before anything else. A step is returned where the worker stands still.
    #[cold]
    pub(super) fn step_for_cuts(&mut self, now_us: u64) -> Option<Step> {
        if self.cuts.loading.is_some() && !self.load() {
            return Some(self.stand_still());
        }
        if !self.cuts.up_yet {
            self.come_up();
        }
        self.stream(now_us);
        let wanted = self.segment.node().epoch.load(Acquire);
        if wanted == self.cuts.epoch {
            return None;
        }
        let switches = self.segment.node().switch.load(Relaxed) == wanted;
        if switches && self.cuts.stage == Stage::Running && !self.receive() {
            return None;
        }
        let workers = u64::from(self.segment.shape().workers);
        // All have met as often as this worker has cut, and once more.
        let all = (self.cuts.count + 1) * workers;
        if self.cuts.stage == Stage::Running {
            self.cuts.stage = Stage::Standing;
            self.cuts.stood_us = Some(now_us);
            // Release, and acquire below: who sees all workers stand sees what they have sent.
            self.cuts.meeting.stand.fetch_add(1, AcqRel);
        }
        if self.cuts.stage == Stage::Standing {
            if self.cuts.meeting.stand.load(Acquire) < all {
                return Some(self.stand_still());
            }
            self.cuts.stage = Stage::Noted { inbox_end: self.siblings[self.index].sent() };
            self.cuts.meeting.noted.fetch_add(1, AcqRel);
        }
        if let Stage::Noted { inbox_end } = self.cuts.stage {
            if self.cuts.meeting.noted.load(Acquire) < all {
                return Some(self.stand_still());
            }
            let leaving = if switches { self.prepare_to_leave() } else { Vec::new() };
            self.capture(wanted, inbox_end);
            if switches && self.leave(leaving) {
                self.cuts.partings += 1;
                self.cuts.stage = Stage::HandedOver;
                self.has_handed_over();
            }
        }
        if self.cuts.stage == Stage::HandedOver && !self.all_have_handed_over(self.cuts.partings) {
            return Some(self.stand_still());
        }
        if switches {
            self.enter();
        }
        self.cuts.stage = Stage::Running;
        self.cuts.count += 1;
        self.cuts.epoch = wanted;
        None
    }

    fn stand_still(&mut self) -> Step {
        self.telemetry().pulse.store(Pulse::Waiting as u32, Release);
        Step { ran: 0, idle: false, next_timer_us: None }
    }

    /// Says that this worker runs; the last one says it of the device.
    fn come_up(&mut self) {
        self.cuts.up_yet = true;
        let ready = self.cuts.meeting.ready.fetch_add(1, AcqRel) + 1;
        if ready == u64::from(self.segment.shape().workers) {
            let term = self.segment.node().term.load(Acquire);
            self.segment.device().running_term.store(term as u32, Release);
            self.bells.node.ring();
        }
    }

    /// Copies what the cut has of this worker.
    fn capture(&mut self, epoch: u64, inbox_end: u64) {
        let out = &mut self.cuts.staged;
        debug_assert!(out.is_empty(), "the node asks for no cut before it has the last one");
        let whole = self.segment.node().whole.load(Relaxed) != 0;
        if whole {
            self.changes.touched.clear();
            self.changes.removed.clear();
            self.changes.touched.extend(self.table.iter());
        }
        let touched = std::mem::take(&mut self.changes.touched);
        for (number, slot) in touched.iter().enumerate() {
            // Slots lie anywhere, and the processor would wait for each of them in turn.
            if let Some(ahead) = touched.get(number + PREFETCHED) {
                prefetch_slot(*ahead);
            }
            // SAFETY: slots are never given back to the system; a free one has the type of no actor.
            let held = unsafe { &mut *slot.as_ptr() };
            // Listed twice where it was freed and given to another actor since.
            if !whole && (held.type_id == TypeId::default() || held.touched != self.changes.generation) {
                continue;
            }
            held.touched = 0;
            let actor = &self.registry.types()[held.type_index as usize];
            let to = checkpoint::push_actor(out, held.id(), held.handled, held.faults, actor.state_bytes);
            // SAFETY: the state is this slot's, of this type, and the record has room for its bytes.
            unsafe { (actor.store)(state_of(*slot), to.as_mut_ptr()) };
        }
        self.changes.touched = touched;
        self.changes.touched.clear();
        for id in self.changes.removed.drain(..) {
            if self.table.find(id).is_none() {
                checkpoint::push_removed(out, id);
            }
        }
        self.changes.generation = self.changes.generation.checked_add(1).unwrap_or(1);

        let mut queued = |phase, header: &Header, payload: &[u8]| {
            checkpoint::push_message(out, RecordKind::Queued, phase, header, payload);
        };
        self.outbox.here.for_each(|header, payload| queued(0, header, payload));
        self.inbox.for_each_until(inbox_end, |at| {
            // SAFETY: a whole message lies there until its credit is given back.
            let (header, payload) = unsafe { parts(at) };
            queued(0, header, payload);
        });
        // Behind what has already reached the others' inboxes.
        for others in &self.outbox.others {
            others.for_each(|header, payload| queued(1, header, payload));
        }
        let mut timers: Vec<&Due> = self.timers.iter().collect();
        timers.sort_by_key(|due| (due.at_us, due.header.hlc));
        timers.iter().for_each(|due| checkpoint::push_timer(out, due.at_us, &due.header, &due.payload));
        for queue in [&self.outbox.replies, &self.outbox.away, &self.outbox.parked] {
            queue.for_each(|header, payload| checkpoint::push_message(out, RecordKind::Out, 0, header, payload));
        }
        let (ingress, egress, hlc) = (self.ingress.taken(), self.egress.pushed(), self.outbox.hlc.0);
        checkpoint::push_cut(out, &Cut { epoch, lane: self.index as u32, ingress, egress, hlc });
    }

    /// Streams what was captured, as far as the node has made room.
    fn stream(&mut self, now_us: u64) {
        let cuts = &mut self.cuts;
        if cuts.staged.is_empty() || cuts.stage != Stage::Running {
            return;
        }
        let words = &self.segment.staging(self.index).host.0;
        if let Some(since) = cuts.stood_us.take() {
            words.pause_ns.store(now_us.saturating_sub(since) * 1_000, Relaxed);
        }
        let end = cuts.staged.len().min(cuts.streamed + STREAM_BYTES);
        cuts.streamed += cuts.up.write(&cuts.staged[cuts.streamed..end]);
        if cuts.streamed == cuts.staged.len() {
            words.end.store(cuts.up.position(), Relaxed);
            // Release: who sees the epoch sees where it ends.
            words.epoch.store(cuts.epoch, Release);
            cuts.streamed = 0;
            let kept = cuts.staged.len().max(STAGED_BYTES_KEPT);
            cuts.staged.clear();
            cuts.staged.shrink_to(kept);
        }
        wake(&self.segment.node().parked, &*self.bells.node);
    }

    /// Takes in more of what the device begins with. True once that is all.
    fn load(&mut self) -> bool {
        let mut loading = self.cuts.loading.take().expect("the caller has looked");
        loading.bytes.clear();
        self.cuts.down.read(&mut loading.bytes, STREAM_BYTES);
        let mut whole = false;
        let bytes = std::mem::take(&mut loading.bytes);
        let taken = loading.splitter.feed::<checkpoint::Error>(&bytes, |record, _| {
            whole |= matches!(record, Record::Cut(_));
            self.take_in(record);
            Ok(())
        });
        // The node has checked what it sends.
        taken.expect("what comes down from the node is records");
        loading.bytes = bytes;
        if whole {
            return true;
        }
        self.cuts.loading = Some(loading);
        false
    }

    /// Takes in a record of what it begins with, or of what arrives. Returns the actor's slot, where it is one.
    pub(super) fn take_in(&mut self, record: Record<'_>) -> Option<NonNull<Slot>> {
        match record {
            Record::Actor { id, handled, faults, state } => {
                let type_index =
                    self.registry.index_of(id.type_id).expect("the node restores types that are registered");
                let actor = &self.registry.types()[type_index];
                let slot =
                    self.table.create(id, type_index).expect("there is memory for the actors that were there before");
                assert_eq!(state.len(), actor.state_bytes, "the node restores states of the registered layout");
                // SAFETY: the slot is fresh and its type's; the state has the type's size.
                let loaded = unsafe { (actor.load)(state.as_ptr(), state_of(slot)) };
                assert!(loaded, "a state of {} {} is no value of its type", actor.schema.name, id.key);
                // SAFETY: as above.
                let held = unsafe { &mut *slot.as_ptr() };
                (held.handled, held.faults) = (handled, faults);
                self.hot[type_index].actors += 1;
                return Some(slot);
            }
            Record::Queued { header, payload, .. } => {
                self.outbox.here.push(&header, payload);
                self.cuts.protect(&self.outbox.here);
            }
            Record::Timer { due_us, header, payload } => {
                self.timers.push(Due { at_us: due_us, header, payload: payload.into() });
            }
            Record::Out { header, payload } => match header.kind() {
                Some(Kind::Reply | Kind::Error | Kind::Inspected) => self.outbox.replies.push(&header, payload),
                // Its receiver may have come to this device since.
                Some(Kind::Tell) => self.outbox.road_to(header.to().key).push(&header, payload),
                _ => self.outbox.away.push(&header, payload),
            },
            Record::Cut(cut) => self.outbox.hlc = self.outbox.hlc.max(Hlc(cut.hlc)),
            // What a checkpoint's base had before, and what is the node's own: neither comes down.
            Record::Removed { .. } | Record::Node { .. } => {}
        }
        None
    }
}

// SAFETY: the slots belong to the worker that holds the list.
unsafe impl Send for Changes {}
