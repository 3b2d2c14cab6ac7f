//! Where a handler's effects go before they leave the worker.
//!
//! Everything a handler does but changing its state lands here, so that a fault can undo it: the outbox
//! marks where its queues stood when the handler began, and cuts them back.

use std::sync::Arc;

use crate::actor::{Actor, MessageOf};
use crate::hlc::Hlc;
use crate::id::{ActorId, Key};
use crate::message::{HEADER_BYTES, Header, Kind, Reason};
use crate::plain::Plain;
use crate::queue::{Mark, Queue};

/// Shards a cluster has: slices of the key space, by the high bits of [`Key::mix`].
pub const SHARDS: usize = 4096;

/// Which shard an actor belongs to: by its key alone, so actors of different types with one key lie together.
#[inline(always)]
pub fn shard_of(key: Key) -> usize {
    (key.mix() >> (64 - SHARDS.trailing_zeros())) as usize
}

/// A worker of this device by its number, or [`AWAY`].
pub type Owner = u16;

/// The shard is on another device.
pub const AWAY: Owner = u16::MAX;

/// The shard is on its way from one device to another: what is sent to its actors waits in the sender's worker until a later
/// switch says where it goes.
pub const PARKED: Owner = u16::MAX - 1;

/// Which worker of this device owns each shard.
#[derive(Clone, PartialEq, Eq)]
pub struct Owners(Arc<[Owner; SHARDS]>);

impl Owners {
    /// Every shard on this device, dealt out to its workers in turn.
    pub fn all_here(workers: usize) -> Owners {
        Owners::from_fn(|shard| (shard % workers) as Owner)
    }

    pub fn from_fn(owner: impl FnMut(usize) -> Owner) -> Owners {
        let owners: Vec<Owner> = (0..SHARDS).map(owner).collect();
        Owners(Arc::new(owners.try_into().unwrap_or_else(|_| unreachable!("SHARDS entries were collected"))))
    }

    #[inline(always)]
    pub fn of(&self, key: Key) -> Owner {
        self.0[shard_of(key)]
    }

    /// The worker, [`AWAY`] or [`PARKED`].
    pub fn of_shard(&self, shard: usize) -> Owner {
        self.0[shard]
    }

    /// Whether a shard is one of this device's workers'.
    pub fn has(&self, shard: usize) -> bool {
        self.0[shard] < PARKED
    }

    pub fn iter(&self) -> impl Iterator<Item = Owner> + '_ {
        self.0.iter().copied()
    }
}

/// A message that waits for its time.
pub struct Timer {
    pub delay_us: u64,
    pub header: Header,
    pub payload: Box<[u8]>,
}

/// What the running handler was asked and has done: flags in one byte, which the worker sets and tests at once.
#[derive(Clone, Copy, Default)]
pub(crate) struct Done(u8);

impl Done {
    /// Somebody waits for a reply.
    pub(crate) const ASKED: Done = Done(1);
    pub(crate) const REPLIED: Done = Done(2);
    pub(crate) const STOPPED: Done = Done(4);
    /// The handler can fault, so what it does is on record.
    pub(crate) const UNDOABLE: Done = Done(8);

    #[inline(always)]
    pub(crate) fn any(self, of: Done) -> bool {
        self.0 & of.0 != 0
    }
}

impl std::ops::BitOr for Done {
    type Output = Done;
    #[inline(always)]
    fn bitor(self, other: Done) -> Done {
        Done(self.0 | other.0)
    }
}

/// What a worker's handlers sent, by where it goes next.
pub struct Outbox {
    worker: Owner,
    owners: Owners,
    /// Every shard is this worker's: there is no need to look.
    alone: bool,
    /// The worker's clock. Every send takes the next stamp.
    pub(crate) hlc: Hlc,
    /// To actors of this worker: its run queue.
    pub(crate) here: Queue,
    /// To actors of this device's other workers, by worker; what finds no credit waits here.
    pub(crate) others: Vec<Queue>,
    /// Answers, for the node.
    pub(crate) replies: Queue,
    /// To actors of other devices, and dead letters: for the node.
    pub(crate) away: Queue,
    /// To actors of shards that are on their way.
    pub(crate) parked: Queue,
    pub(crate) timers: Vec<Timer>,

    // Of the handler that is running:
    /// The stamp it began with.
    pub(crate) now: Hlc,
    pub(crate) done: Done,
    here_mark: Mark,
    reply_mark: Mark,
    away_mark: Mark,
    timers_mark: usize,
    /// `others[i]` was sent to in this run and stood at the mark before; of [`PARKED`], `parked`.
    touched: Vec<(Owner, Mark)>,

    /// Replies that went nowhere because nobody asked, or one was given before.
    pub(crate) replies_unasked: u64,
    pub(crate) dead: u64,
}

impl Outbox {
    pub(crate) fn new(worker: Owner, workers: usize, owners: Owners) -> Outbox {
        let empty = Queue::default().mark();
        Outbox {
            worker,
            alone: is_alone(worker, &owners),
            owners,
            hlc: Hlc(0),
            here: Queue::default(),
            others: (0..workers).map(|_| Queue::default()).collect(),
            replies: Queue::default(),
            away: Queue::default(),
            parked: Queue::default(),
            timers: Vec::new(),
            now: Hlc(0),
            done: Done::default(),
            here_mark: empty,
            reply_mark: empty,
            away_mark: empty,
            timers_mark: 0,
            touched: Vec::new(),
            replies_unasked: 0,
            dead: 0,
        }
    }

    /// Before a handler runs: nothing has been done yet. With [`Done::UNDOABLE`], remembers what to cut back to.
    #[inline(always)]
    pub(crate) fn begin(&mut self, flags: Done) {
        self.now = self.hlc;
        self.done = flags;
        if flags.any(Done::UNDOABLE) {
            self.here_mark = self.here.mark();
            self.reply_mark = self.replies.mark();
            self.away_mark = self.away.mark();
            self.timers_mark = self.timers.len();
            self.touched.clear();
        }
    }

    /// After a fault: as if the handler had not run. The clock alone keeps what it ticked.
    #[cold]
    pub(crate) fn undo(&mut self) {
        self.here.truncate(self.here_mark);
        self.replies.truncate(self.reply_mark);
        self.away.truncate(self.away_mark);
        self.timers.truncate(self.timers_mark);
        // Several marks of one queue may lie here; the first is the oldest, so it goes last.
        for (worker, mark) in self.touched.drain(..).rev() {
            match worker {
                PARKED => self.parked.truncate(mark),
                worker => self.others[worker as usize].truncate(mark),
            }
        }
        self.done = Done(self.done.0 & Done::ASKED.0);
    }

    #[inline(always)]
    pub(crate) fn send<M: MessageOf>(&mut self, from: ActorId, to: ActorId, message: &M) {
        if to.type_id != M::Actor::TYPE {
            return self.wrong_type(from, to, *message);
        }
        let stamp = self.next_stamp();
        if self.alone || self.owners.of(to.key) == self.worker {
            put(&mut self.here, Kind::Tell, to, from, stamp, message);
        } else {
            self.send_off(to, from, stamp, *message);
        }
    }

    #[inline(never)]
    fn send_off<M: Plain>(&mut self, to: ActorId, from: ActorId, stamp: Hlc, message: M) {
        put(self.road_to(to.key), Kind::Tell, to, from, stamp, &message);
    }

    /// Sends a message whose time has come, with a stamp of its own.
    pub(crate) fn forward(&mut self, header: &Header, payload: &[u8]) {
        let mut header = *header;
        header.hlc = self.next_stamp().0;
        self.road_to(header.to().key).push(&header, payload);
    }

    /// The queue that leads to an actor.
    pub(crate) fn road_to(&mut self, to: Key) -> &mut Queue {
        let (owner, queue) = match self.owners.of(to) {
            owner if owner == self.worker => return &mut self.here,
            AWAY => return &mut self.away,
            PARKED => (PARKED, &mut self.parked),
            owner => (owner, &mut self.others[owner as usize]),
        };
        if self.done.any(Done::UNDOABLE) {
            self.touched.push((owner, queue.mark()));
        }
        queue
    }

    pub(crate) fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Goes on with another table. Between two messages.
    pub(crate) fn set_owners(&mut self, owners: Owners) {
        self.done = Done::default();
        self.alone = is_alone(self.worker, &owners);
        self.owners = owners;
    }

    #[inline(never)]
    pub(crate) fn send_after<M: MessageOf>(&mut self, delay_us: u64, from: ActorId, to: ActorId, message: &M) {
        if to.type_id != M::Actor::TYPE {
            return self.wrong_type(from, to, *message);
        }
        let header = Header::new(Kind::Tell, to, from, M::SIZE, self.next_stamp());
        self.timers.push(Timer { delay_us, header, payload: message.to_bytes().into() });
    }

    /// Messages ever sent to workers of this device, for its account of what is under way.
    pub(crate) fn sent(&self) -> u64 {
        self.here.pushed() + self.others.iter().map(Queue::pushed).sum::<u64>()
    }

    #[cold]
    fn wrong_type<M: MessageOf>(&mut self, from: ActorId, to: ActorId, message: M) {
        let stamp = self.next_stamp();
        self.dead += 1;
        let header = Header::new(Kind::DeadLetter, to, from, M::SIZE, stamp).with_reason(Reason::WrongType);
        self.away.push(&header, &message.to_bytes());
    }

    #[inline(always)]
    pub(crate) fn reply<R: Plain>(&mut self, asked: &Header, reply: &R) {
        if !self.done.any(Done::ASKED) || self.done.any(Done::REPLIED) {
            self.replies_unasked += 1;
            return;
        }
        self.done = self.done | Done::REPLIED;
        let stamp = self.next_stamp();
        put(&mut self.replies, Kind::Reply, asked.from(), asked.to(), stamp, reply);
    }

    #[inline(always)]
    pub(crate) fn stop(&mut self) {
        self.done = self.done | Done::STOPPED;
    }

    #[inline(always)]
    fn next_stamp(&mut self) -> Hlc {
        self.hlc = Hlc(self.hlc.0 + 1);
        self.hlc
    }
}

fn is_alone(worker: Owner, owners: &Owners) -> bool {
    owners.iter().all(|owner| owner == worker)
}

/// Pushes a message whose payload is `value`. The header is made where it goes: made elsewhere and copied, its
/// fields would be stored one by one and loaded again in wider pieces, which stalls until the stores are in the cache.
#[inline(always)]
fn put<T: Plain>(queue: &mut Queue, kind: Kind, to: ActorId, from: ActorId, stamp: Hlc, value: &T) {
    match queue.reserve_here(T::SIZE) {
        // SAFETY: room for the message, as `fill` asks for.
        Some(at) => unsafe { fill(at, kind, to, from, stamp, value) },
        // By value: a reference would have every caller store its message twice.
        None => put_in_new_chunk(queue, kind, to, from, stamp, *value),
    }
}

#[cold]
#[inline(never)]
fn put_in_new_chunk<T: Plain>(queue: &mut Queue, kind: Kind, to: ActorId, from: ActorId, stamp: Hlc, value: T) {
    let at = queue.reserve(T::SIZE);
    // SAFETY: room for the message, as `fill` asks for.
    unsafe { fill(at, kind, to, from, stamp, &value) }
}

/// # Safety
/// `at` has room for the header and the payload padded to eight bytes; all of it is written.
#[inline(always)]
unsafe fn fill<T: Plain>(at: *mut u8, kind: Kind, to: ActorId, from: ActorId, stamp: Hlc, value: &T) {
    // SAFETY: the caller's.
    unsafe {
        at.cast::<Header>().write(Header::new(kind, to, from, T::SIZE, stamp));
        let body = at.add(HEADER_BYTES);
        body.write_bytes(0, (T::SIZE + 7) & !7);
        value.write(body);
    }
}
