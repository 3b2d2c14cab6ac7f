//! The node's end of a device: pushes messages in, takes answers out, reads the device's words.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

use crate::bell::{Bell, park, wake};
use crate::checkpoint::Record;
use crate::id::Key;
use crate::message::{Header, Kind};
use crate::outbox::{Owners, PARKED};
use crate::queue::parts;
use crate::ring::{Consumer, Producer};
use crate::segment::{Framing, Pulse, STOP_AT_ONCE, Segment, SegmentRing, Telemetry};
use crate::staging::{self, Reader, Writer};

/// See the module's documentation. One thread uses it at a time.
pub struct Link {
    segment: Arc<Segment>,
    owners: Owners,
    workers: Arc<Vec<Arc<dyn Bell>>>,
    ingress: Vec<Producer<SegmentRing>>,
    egress: Vec<Consumer<SegmentRing>>,
    /// Lanes that were pushed to since the last [`Link::ring`].
    pushed: Vec<bool>,
    /// For each lane, the way down to the device and the way up from it, by which checkpoints travel.
    staging: Vec<(Writer, Reader)>,
    /// How far each way up was written when [`Link::park`] last looked.
    staged: Vec<u64>,
    /// Where another carries the workers' counters: the pass in which they were last such that nothing was under way, and
    /// what they were.
    quiet: Option<(u64, Vec<Reading>)>,
}

/// Which lane of a device leads where.
pub struct Router {
    owners: Owners,
    lanes: usize,
}

#[inline]
fn lane_of(owners: &Owners, lanes: usize, key: Key) -> Option<usize> {
    let worker = owners.of(key);
    (worker < PARKED).then(|| worker as usize % lanes)
}

impl Router {
    /// The lane that a record of a checkpoint is to come down; `None` for those that do not, and those of other devices' actors.
    pub fn lane_of_record(&self, record: &Record<'_>) -> Option<usize> {
        let lane = |key| lane_of(&self.owners, self.lanes, key);
        match record {
            Record::Actor { id, .. } => lane(id.key),
            Record::Queued { header, .. } => lane(header.to().key),
            // By who sent it, whose worker had it: it goes where that goes.
            Record::Timer { header, .. } => lane(header.from().key),
            Record::Out { header, .. } if header.is(Kind::Tell) => lane(header.from().key),
            // An answer is this device's to give, wherever its actor is by now.
            Record::Out { header, .. } => Some(lane(header.from().key).unwrap_or(0)),
            Record::Removed { .. } | Record::Cut(_) | Record::Node { .. } => None,
        }
    }
}

/// Why a message was not pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The worker's ingress ring is full.
    Full,
    /// The payload is larger than a slot takes.
    TooLarge,
    /// The actor's shard is not on this device.
    NotHere,
}

/// A consistent-enough look at one worker; see [`Telemetry`] for the meanings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    pub pulse: Pulse,
    pub hand_type: u32,
    pub hand_key: u64,
    pub finished: u64,
    pub beat_us: u64,
    pub accepted: u64,
    pub sent: u64,
    pub faults: u64,
    pub dead: u64,
    pub replies: u64,
    pub replies_unasked: u64,
    pub actors: u64,
    pub created: u64,
    pub stopped: u64,
    pub queued: u64,
    pub spilled: u64,
    pub spilled_now: u64,
    pub timers: u64,
    pub table_bytes: u64,
    pub throttled: bool,
    pub finished_published: u64,
    pub away_waiting: u64,
    pub hand_hlc: u64,
    pub hand_hash: u64,
    pub moved: u64,
    /// Messages in the worker's ingress ring.
    pub ingress_waiting: u64,
}

impl Link {
    /// Takes up the node's end. `workers` are the bells of the device's workers.
    pub fn new(segment: Arc<Segment>, workers: Arc<Vec<Arc<dyn Bell>>>) -> Link {
        let count = segment.shape().workers as usize;
        assert_eq!(count, workers.len(), "each worker has one bell");
        let lanes = segment.shape().lanes();
        Link {
            owners: segment.owners(),
            ingress: (0..lanes).map(|lane| Producer::attach(segment.ingress(lane))).collect(),
            egress: (0..lanes).map(|lane| Consumer::attach(segment.egress(lane))).collect(),
            pushed: vec![false; count],
            staging: (0..lanes).map(|lane| staging::node(&segment, lane)).collect(),
            staged: vec![0; lanes],
            quiet: None,
            workers,
            segment,
        }
    }

    pub fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// Puts a message into the ingress ring of its actor's worker. Call [`Link::ring`] after the last of several.
    #[inline]
    pub fn push(&mut self, header: &Header, payload: &[u8]) -> Result<(), Refused> {
        if payload.len() > self.segment.shape().payload_bytes_max() {
            return Err(Refused::TooLarge);
        }
        let lane = self.lane_of(header.to().key).ok_or(Refused::NotHere)?;
        let ring = &mut self.ingress[lane];
        if !ring.push(header, payload) {
            return Err(Refused::Full);
        }
        self.pushed[lane] = true;
        self.quiet = None;
        Ok(())
    }

    /// The lane that leads to an actor, if its shard is on this device.
    #[inline]
    pub fn lane_of(&self, key: Key) -> Option<usize> {
        lane_of(&self.owners, self.ingress.len(), key)
    }

    pub fn lanes(&self) -> usize {
        self.ingress.len()
    }

    /// Which worker owns each shard: what the next host begins with.
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Has messages go by another table from now on, and the next host begin with it. The present one goes on with its own until
    /// it is asked to [switch](Link::ask_switch).
    pub fn set_owners(&mut self, owners: Owners) {
        self.owners = owners;
    }

    /// Messages of a lane's ingress ring that the device has done with, counted from the ring's beginning.
    pub fn done(&self, lane: usize) -> u64 {
        self.ingress[lane].consumed()
    }

    /// Messages ever pushed into a lane's ingress ring.
    pub fn pushed(&self, lane: usize) -> u64 {
        self.ingress[lane].pushed()
    }

    /// Messages ever taken from a lane's egress ring.
    pub fn taken(&self, lane: usize) -> u64 {
        self.egress[lane].taken()
    }

    /// Wakes the workers that were pushed to, where they sleep.
    pub fn ring(&mut self) {
        for (worker, pushed) in self.pushed.iter_mut().enumerate() {
            if std::mem::take(pushed) {
                wake(&self.segment.worker(worker).parked.0, &*self.workers[worker]);
            }
        }
    }

    /// Asks for the node's bell once a worker has made room. Try to push once more after this, then wait.
    pub fn want_room(&self) {
        self.segment.node().wants_room.store(1, Relaxed);
        fence(SeqCst);
    }

    /// Looks at the messages in the ingress rings that no worker has begun. The host must be dead.
    pub fn for_each_waiting(&self, mut f: impl FnMut(&Header, &[u8])) {
        for (worker, ring) in self.ingress.iter().enumerate() {
            let begun = self.segment.worker(worker).ingress.0.begun.load(Acquire);
            ring.for_each_from(begun, |at| {
                // SAFETY: it was pushed by us and stays until a host takes it; there is none.
                let (header, payload) = unsafe { parts(at) };
                f(header, payload)
            });
        }
    }

    /// Actors, messages handled and faults of each actor type, in the registry's order.
    pub fn type_counts(&self) -> Vec<(u64, u64, u64)> {
        let mut sums = vec![(0, 0, 0); self.segment.shape().types as usize];
        for worker in 0..self.workers.len() {
            for (sum, counts) in sums.iter_mut().zip(self.segment.type_counts(worker)) {
                sum.0 += counts.actors.load(Relaxed);
                sum.1 += counts.handled.load(Relaxed);
                sum.2 += counts.faults.load(Relaxed);
            }
        }
        sums
    }

    /// Takes what the device has sent, at most `most` messages a worker, and says how many there were.
    pub fn drain(&mut self, most: usize, mut f: impl FnMut(&Header, &[u8])) -> usize {
        self.drain_lanes(most, |_, _, header, payload| f(header, payload))
    }

    /// The same, with each message's lane and its number there, counted from the ring's beginning.
    pub fn drain_lanes(&mut self, most: usize, mut f: impl FnMut(usize, u64, &Header, &[u8])) -> usize {
        let mut drained = 0;
        for (lane, ring) in self.egress.iter_mut().enumerate() {
            let mut taken = 0;
            while taken < most
                && let number = ring.taken()
                && ring
                    .next(|at| {
                        // SAFETY: the slot is ours until `publish`.
                        let (header, payload) = unsafe { parts(at) };
                        f(lane, number, header, payload)
                    })
                    .is_some()
            {
                taken += 1;
            }
            if taken > 0 {
                ring.publish();
            }
            drained += taken;
        }
        drained
    }

    /// Says that the node is about to wait for its bell. False if something came in just now.
    pub fn park(&mut self) -> bool {
        let segment = self.segment.clone();
        let parked = &segment.node().parked;
        park(parked);
        let staged = self.has_staged();
        if !staged && self.egress.iter().all(Consumer::is_empty) {
            return true;
        }
        parked.store(0, Relaxed);
        false
    }

    /// Whether more of a cut has come up since this was last asked.
    fn has_staged(&mut self) -> bool {
        let mut more = false;
        for (lane, seen) in self.staged.iter_mut().enumerate() {
            let words = &self.segment.staging(lane).host.0;
            // The epoch too, which may follow the last byte.
            let written = words.written.load(Relaxed) + words.epoch.load(Relaxed);
            more |= written != *seen;
            *seen = written;
        }
        more
    }

    /// Whether the host of the newest term is up.
    pub fn is_running(&self) -> bool {
        let term = self.segment.node().term.load(Relaxed) as u32;
        term != 0 && self.segment.device().running_term.load(Acquire) == term
    }

    /// How many hosts there have been, the present one counted.
    pub fn term(&self) -> u64 {
        self.segment.node().term.load(Relaxed)
    }

    /// Has the next term be the one after this. There is no host yet.
    pub fn set_term(&mut self, term: u64) {
        self.segment.node().term.store(term, Relaxed);
    }

    /// Whether all workers have come so far that they wait for what they begin with, or further.
    pub fn is_there(&self) -> bool {
        self.read().iter().all(|worker| worker.pulse != Pulse::Starting)
    }

    pub fn pid(&self) -> u32 {
        self.segment.device().pid.load(Relaxed)
    }

    /// Begins the term of a new host. The last one must be dead: its counters are cleared here.
    pub fn begin_term(&mut self) -> u64 {
        self.segment.node().restores.store(0, Relaxed);
        self.begin()
    }

    /// The same for a host that begins with the actors of a checkpoint, of which the caller sends each lane its part with
    /// [`Link::send_down`], ended by a cut's record. What lies in the ingress rings is thrown away: it is the caller's to
    /// push again from where the checkpoint has it.
    pub fn begin_restored_term(&mut self, epoch: u64) -> u64 {
        let node = self.segment.node();
        node.restores.store(1, Relaxed);
        node.epoch.store(epoch, Relaxed);
        for (lane, ring) in self.ingress.iter().enumerate() {
            let words = &self.segment.worker(lane).ingress.0;
            words.consumed.store(ring.pushed(), Relaxed);
            words.begun.store(ring.pushed(), Relaxed);
        }
        self.begin()
    }

    fn begin(&mut self) -> u64 {
        self.segment.set_owners(&self.owners);
        self.segment.reset_telemetry();
        self.segment.reset_staging();
        self.quiet = None;
        self.staged.fill(0);
        self.segment.node().stop.store(0, Relaxed);
        // Release: a host that sees its term sees what it begins with.
        self.segment.node().term.fetch_add(1, Release) + 1
    }

    /// Asks for a cut. The last one must have been collected whole, and the term be one that checkpoints are made of.
    /// `whole`: it is to have all actors, and not only those changed since the last cut.
    pub fn ask_cut(&mut self, epoch: u64, whole: bool) {
        self.segment.node().whole.store(whole.into(), Relaxed);
        self.segment.node().epoch.store(epoch, Release);
        for (worker, bell) in self.workers.iter().enumerate() {
            wake(&self.segment.worker(worker).parked.0, &**bell);
        }
    }

    /// Asks for a cut at which the workers also go on with another shard table. Actors of shards that it gives to another device
    /// are all in the cut, and gone from this one after it. To each lane the caller then sends down, with [`Link::send_down`],
    /// the records of what arrives, ended by a cut's record; until a worker has them it runs on.
    ///
    /// A shard does not go from one worker of the device to another.
    pub fn ask_switch(&mut self, epoch: u64, whole: bool, owners: &Owners) {
        self.segment.set_owners(owners);
        self.segment.node().switch.store(epoch, Relaxed);
        self.ask_cut(epoch, whole);
    }

    /// Appends to `into` what has come up of a lane's part of a cut, at most `most` bytes. True once that is all of it.
    pub fn collect_cut(&mut self, lane: usize, epoch: u64, into: &mut Vec<u8>, most: usize) -> bool {
        let words = &self.segment.staging(lane).host.0;
        // Acquire: the end is that of this epoch, and all bytes before it are there.
        let whole = words.epoch.load(Acquire) == epoch;
        let reader = &mut self.staging[lane].1;
        reader.read(into, most);
        whole && reader.position() == words.end.load(Relaxed)
    }

    /// Which lane leads where.
    pub fn router(&self) -> Router {
        Router { owners: self.owners.clone(), lanes: self.lanes() }
    }

    /// How long the device stood still for its last cut, in nanoseconds.
    pub fn pause_ns(&self) -> u64 {
        let pause = |lane| self.segment.staging(lane).host.0.pause_ns.load(Relaxed);
        (0..self.lanes()).map(pause).max().unwrap_or(0)
    }

    /// Sends a lane's workers more of what they begin with, as far as there is room, and says how many bytes.
    pub fn send_down(&mut self, lane: usize, bytes: &[u8]) -> usize {
        self.staging[lane].0.write(bytes)
    }

    /// Asks the workers to finish what is queued and end.
    pub fn stop(&mut self) {
        self.segment.node().stop.store(1, Release);
        self.workers.iter().for_each(|bell| bell.ring());
    }

    /// Asks a ring kernel to end as soon as it can, whatever it has in hand: that is lost, as if its host were killed. A
    /// worker that does not come back from a handler keeps it from ending.
    pub fn stop_at_once(&mut self) {
        self.segment.node().stop.store(STOP_AT_ONCE, Release);
    }

    pub fn read(&self) -> Vec<Reading> {
        (0..self.workers.len()).map(|worker| self.read_worker(worker)).collect()
    }

    fn read_worker(&self, worker: usize) -> Reading {
        let t: &Telemetry = &self.segment.worker(worker).telemetry;
        // A lane's messages are those of its first worker, where it has several.
        let ring = self.ingress.get(worker);
        // The pulse first: with acquire, an idle pulse makes the counters stored before it visible.
        let pulse = Pulse::from_u32(t.pulse.load(Acquire));
        Reading {
            pulse,
            hand_type: t.hand_type.load(Relaxed),
            hand_key: t.hand_key.load(Relaxed),
            finished: t.finished.load(Relaxed),
            beat_us: t.beat_us.load(Relaxed),
            accepted: t.accepted.load(Relaxed),
            sent: t.sent.load(Relaxed),
            faults: t.faults.load(Relaxed),
            dead: t.dead.load(Relaxed),
            replies: t.replies.load(Relaxed),
            replies_unasked: t.replies_unasked.load(Relaxed),
            actors: t.actors.load(Relaxed),
            created: t.created.load(Relaxed),
            stopped: t.stopped.load(Relaxed),
            queued: t.queued.load(Relaxed),
            spilled: t.spilled.load(Relaxed),
            spilled_now: t.spilled_now.load(Relaxed),
            timers: t.timers.load(Relaxed),
            table_bytes: t.table_bytes.load(Relaxed),
            throttled: t.throttled.load(Relaxed) != 0,
            finished_published: t.finished_published.load(Relaxed),
            away_waiting: t.away_waiting.load(Relaxed),
            hand_hlc: t.hand_hlc.load(Relaxed),
            hand_hash: t.hand_hash.load(Relaxed),
            moved: t.moved.load(Relaxed),
            ingress_waiting: ring.map_or(0, |ring| ring.pushed() - ring.consumed()),
        }
    }

    /// Whether the device had nothing to do at one moment: no message in a ring, in a queue or in hand. Timers that
    /// wait for their time are not counted. Nobody may push meanwhile, which `&mut` sees to.
    pub fn is_quiet(&mut self) -> bool {
        let quiet = |readings: &[Reading]| {
            let idle = |r: &Reading| r.pulse == Pulse::Idle && r.queued == 0 && r.ingress_waiting == 0;
            let begun: u64 = readings.iter().map(|r| r.accepted + r.sent).sum();
            let finished: u64 = readings.iter().map(|r| r.finished + r.moved).sum();
            readings.iter().all(idle) && begun == finished
        };
        let counters = |readings: &[Reading]| -> Vec<_> {
            readings.iter().map(|r| (r.accepted, r.sent, r.finished, r.moved)).collect()
        };
        // Acquire pairs with the ring kernel's release: the counters are at least of this pass.
        let pass = self.segment.kernel().passes.load(Acquire);
        let first = self.read();
        let leaving = self.segment.kernel().leaving.load(Relaxed);
        if !quiet(&first) || leaving != 0 || !self.egress.iter().all(Consumer::is_empty) {
            self.quiet = None;
            return false;
        }
        // Two equal looks: a worker that woke for a sibling's message between them has moved a counter.
        if self.segment.shape().framing == Framing::Slots as u32 {
            let second = self.read();
            return quiet(&second) && counters(&first) == counters(&second);
        }
        // Counters that are carried here may be of different moments of one pass. Those of two passes with a whole one
        // between them, if equal, are those of one moment.
        match &self.quiet {
            // The first pass is not over.
            _ if pass == 0 => false,
            Some((before, then)) if counters(then) == counters(&first) => *before + 2 <= pass,
            _ => {
                // Acquire: it is not read before the rings. A message that has just left one is counted in the pass after the
                // next, for that begins later; by the number from before the look, it might not be.
                self.quiet = Some((self.segment.kernel().passes.load(Acquire), first));
                false
            }
        }
    }
}
