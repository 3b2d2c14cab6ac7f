//! Rings of slots between threads and processes.
//!
//! A slot's first word is its *lap*: a slot with index `n` of a ring of `c` slots holds a message once its lap is
//! `n / c + 1`. The writer stores the lap last, with release; the reader loads it with acquire, so that seeing
//! the lap is seeing the message, and no other word need be read to know that one has come. Laps wrap after 2³² rounds of the
//! ring, which is harmless: every round stores every slot's lap, so a stale one is behind by 1 and not by 2³².
//!
//! Two shapes share these slots:
//! - [`Producer`] and [`Consumer`]: one writer, one reader (node to worker, worker to node). The reader publishes
//!   how far it got once a batch, and the writer looks at that only when the ring seems full.
//! - [`Inbox`]: many writers (the other workers of a device), one reader. A writer takes *credits* before it
//!   takes tickets, so a ticket always has a free slot behind it and no writer ever waits for another.
//!
//! The protocol is generic over [`Memory`], so that loom can run the very same code (see `tests/loom.rs`).

use std::ptr::NonNull;

#[cfg(loom)]
use loom::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use crate::message::{HEADER_BYTES, Header};
use crate::queue::{Queue, parts};

/// Slots of one ring, and the word by which its reader says how far it got.
pub trait Memory {
    /// Slots; a power of two.
    fn capacity(&self) -> u64;
    fn lap(&self, slot: u64) -> &AtomicU32;
    /// Messages the reader is done with, counted from the ring's beginning.
    fn consumed(&self) -> &AtomicU64;
    /// Runs `f` on the message in a slot that only the caller may touch now. It lies there no longer than `f` runs, where
    /// the memory has a framing of its own.
    fn with<R>(&self, slot: u64, f: impl FnOnce(NonNull<Header>) -> R) -> R;

    /// Writes a message into the slot of `index` and publishes it.
    #[inline(always)]
    fn publish(&self, index: u64, header: &Header, payload: &[u8])
    where
        Self: Sized,
    {
        publish(self, index, header, payload);
    }

    /// Whether message `index` has been published.
    #[inline(always)]
    fn present(&self, index: u64) -> bool
    where
        Self: Sized,
    {
        present(self, index)
    }
}

/// The lap that marks message `index` as present.
#[inline(always)]
pub(crate) fn lap_of(index: u64, capacity: u64) -> u32 {
    ((index >> capacity.trailing_zeros()) as u32).wrapping_add(1)
}

/// Writes a message into the slot of `index` and publishes it.
#[inline(always)]
pub(crate) fn publish(memory: &impl Memory, index: u64, header: &Header, payload: &[u8]) {
    let slot = index & (memory.capacity() - 1);
    memory.with(slot, |at| {
        // SAFETY: the slot is the caller's until its lap is stored; slots are larger than any message. The lap
        // word itself is left alone: it is written by the atomic store below.
        unsafe {
            let at = at.as_ptr().cast::<u8>();
            let from = std::ptr::from_ref(header).cast::<u8>();
            at.add(4).copy_from_nonoverlapping(from.add(4), HEADER_BYTES - 4);
            at.add(HEADER_BYTES).copy_from_nonoverlapping(payload.as_ptr(), payload.len());
        }
    });
    // Pairs with the acquire load in `present`: who sees the lap sees the message written above.
    memory.lap(slot).store(lap_of(index, memory.capacity()), Ordering::Release);
}

/// Whether message `index` has been published.
#[inline(always)]
pub(crate) fn present(memory: &impl Memory, index: u64) -> bool {
    let slot = index & (memory.capacity() - 1);
    // Pairs with the release store in `publish`.
    memory.lap(slot).load(Ordering::Acquire) == lap_of(index, memory.capacity())
}

/// The writing end of a ring with one writer.
pub struct Producer<M> {
    memory: M,
    tail: u64,
    /// `consumed` as last seen.
    consumed: u64,
}

impl<M: Memory> Producer<M> {
    /// Takes up the writing end, wherever the last writer left it: it may have died at any instruction.
    ///
    /// A slot that it wrote but did not publish is written again; one that it published is not.
    pub fn attach(memory: M) -> Producer<M> {
        let consumed = memory.consumed().load(Ordering::Acquire);
        let mut tail = consumed;
        while tail - consumed < memory.capacity() && memory.present(tail) {
            tail += 1;
        }
        Producer { memory, tail, consumed }
    }

    /// How many messages can be pushed now, if at most `wanted` are of interest.
    #[inline(always)]
    pub fn room(&mut self, wanted: u64) -> u64 {
        let free = self.memory.capacity() - (self.tail - self.consumed);
        if free >= wanted {
            return free;
        }
        // Pairs with the release store in `Consumer::publish`: its reads of the slots are done.
        self.consumed = self.memory.consumed().load(Ordering::Acquire);
        self.memory.capacity() - (self.tail - self.consumed)
    }

    /// Publishes a message, or returns false if there is no room.
    #[inline(always)]
    #[must_use]
    pub fn push(&mut self, header: &Header, payload: &[u8]) -> bool {
        if self.room(1) == 0 {
            return false;
        }
        self.memory.publish(self.tail, header, payload);
        self.tail += 1;
        true
    }

    /// Looks at the messages from `first` on, counted from the ring's beginning. The reader must be dead, or it may take
    /// them meanwhile, and must not have freed `first`.
    pub fn for_each_from(&self, first: u64, mut f: impl FnMut(NonNull<Header>)) {
        for index in first.max(self.consumed())..self.tail {
            self.memory.with(index & (self.memory.capacity() - 1), &mut f);
        }
    }

    /// Messages pushed since the ring's beginning.
    pub fn pushed(&self) -> u64 {
        self.tail
    }

    pub fn capacity(&self) -> u64 {
        self.memory.capacity()
    }

    /// Messages that the reader has taken, as published by it.
    pub fn consumed(&self) -> u64 {
        self.memory.consumed().load(Ordering::Acquire)
    }
}

/// The reading end of a ring with one writer.
pub struct Consumer<M> {
    memory: M,
    head: u64,
}

impl<M: Memory> Consumer<M> {
    /// Takes up the reading end where the last reader published that it was.
    pub fn attach(memory: M) -> Consumer<M> {
        let head = memory.consumed().load(Ordering::Acquire);
        Consumer { memory, head }
    }

    /// Leaves out what comes before message `first`, counted from the ring's beginning.
    pub fn skip_to(&mut self, first: u64) {
        self.head = self.head.max(first);
        self.publish();
    }

    /// Runs `f` on the next message in place, if one has come. Its slot is freed by the next [`Consumer::publish`].
    #[inline(always)]
    pub fn next<R>(&mut self, f: impl FnOnce(NonNull<Header>) -> R) -> Option<R> {
        if !self.memory.present(self.head) {
            return None;
        }
        let slot = self.head & (self.memory.capacity() - 1);
        self.head += 1;
        Some(self.memory.with(slot, f))
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        !self.memory.present(self.head)
    }

    /// Gives the slots of all messages taken back to the writer.
    #[inline(always)]
    pub fn publish(&mut self) {
        // Pairs with the acquire loads in `Producer`: our reads of the slots come before.
        self.memory.consumed().store(self.head, Ordering::Release);
    }

    /// Messages taken since the ring's beginning.
    pub fn taken(&self) -> u64 {
        self.head
    }
}

/// Keeps a word on a cache line (and a GPU's 128-byte sector pair) of its own.
#[repr(align(128))]
#[derive(Default)]
pub struct Line<T>(pub T);

/// A worker's inbox for the other workers of its device: many writers, one reader.
pub struct Inbox<M> {
    memory: M,
    /// Slots that nobody holds. A writer takes some before it takes tickets; the reader gives them back.
    credits: Line<AtomicI64>,
    /// The next ticket: the index of the next message.
    tail: Line<AtomicU64>,
}

impl<M: Memory> Inbox<M> {
    /// An empty inbox over fresh (zeroed) memory.
    pub fn new(memory: M) -> Inbox<M> {
        let credits = Line(AtomicI64::new(memory.capacity() as i64));
        Inbox { memory, credits, tail: Line(AtomicU64::new(0)) }
    }

    /// Moves messages from the front of `queue` into the inbox, as many as there are credits for, and says
    /// how many. What is left must go first next time, which is what keeps order.
    pub fn send_from(&self, queue: &mut Queue) -> usize {
        let taken = self.take_credits(queue.len() as i64);
        if taken == 0 {
            return 0;
        }
        // Relaxed: a ticket only names slots; the credits made sure that they are free.
        let first = self.tail.0.fetch_add(taken as u64, Ordering::Relaxed);
        for ticket in first..first + taken as u64 {
            let front = queue.front().expect("no more credits are taken than there are messages");
            // SAFETY: the message stays where it is until it is popped, below.
            let (header, payload) = unsafe { parts(front.message) };
            self.memory.publish(ticket, header, payload);
            queue.pop(front);
        }
        taken as usize
    }

    /// Messages ever sent here. All of them are there to be read while no writer runs.
    pub fn sent(&self) -> u64 {
        self.tail.0.load(Ordering::Acquire)
    }

    fn take_credits(&self, wanted: i64) -> i64 {
        // Acquire pairs with the release in `InboxEnd::give_credits`: the reader is done with the slots that these
        // credits stand for before we write to them.
        let before = self
            .credits
            .0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, |free| (free > 0).then(|| free - free.min(wanted)));
        before.map_or(0, |free| free.min(wanted))
    }
}

/// The reading end of an [`Inbox`].
pub struct InboxEnd<M, P: std::ops::Deref<Target = Inbox<M>>> {
    inbox: P,
    head: u64,
    /// Taken, and not yet given back as credits.
    owed: i64,
}

impl<M: Memory, P: std::ops::Deref<Target = Inbox<M>>> InboxEnd<M, P> {
    pub fn new(inbox: P) -> InboxEnd<M, P> {
        InboxEnd { inbox, head: 0, owed: 0 }
    }

    /// Runs `f` on the next message in place, if it has come.
    #[inline(always)]
    pub fn next<R>(&mut self, f: impl FnOnce(NonNull<Header>) -> R) -> Option<R> {
        if self.is_empty() {
            return None;
        }
        let memory = &self.inbox.memory;
        let slot = self.head & (memory.capacity() - 1);
        self.head += 1;
        self.owed += 1;
        Some(memory.with(slot, f))
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        !self.inbox.memory.present(self.head)
    }

    /// Looks at the messages that have not been taken, up to the `end`-th ever sent; all of them must be there.
    pub fn for_each_until(&self, end: u64, mut f: impl FnMut(NonNull<Header>)) {
        let memory = &self.inbox.memory;
        for index in self.head..end {
            debug_assert!(memory.present(index));
            memory.with(index & (memory.capacity() - 1), &mut f);
        }
    }

    /// Gives the credits of all messages taken back to the writers.
    #[inline(always)]
    pub fn give_credits(&mut self) {
        if self.owed > 0 {
            // Pairs with the acquire in `Inbox::take_credits`.
            self.inbox.credits.0.fetch_add(self.owed, Ordering::Release);
            self.owed = 0;
        }
    }
}
