//! The rings and the bell under every interleaving that loom can find.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release -p ringhold-kernels --test loom`
#![cfg(loom)]

use std::ptr::NonNull;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use loom::thread;
use ringhold_kernels::bell::{Bell, park, wake};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::message::{Header, Kind};
use ringhold_kernels::queue::{Queue, parts};
use ringhold_kernels::ring::{Consumer, Inbox, InboxEnd, Memory, Producer};

const CAPACITY: u64 = 2;

/// Slots that loom watches: two threads in one slot at once fail the test.
struct Watched(std::sync::Arc<(Vec<(AtomicU32, UnsafeCell<[u64; 8]>)>, AtomicU64)>);

// SAFETY: what the protocol under test promises; loom's cell checks it.
unsafe impl Send for Watched {}
unsafe impl Sync for Watched {}

impl Watched {
    fn new() -> Watched {
        let slot = || (AtomicU32::new(0), UnsafeCell::new([0; 8]));
        Watched(std::sync::Arc::new(((0..CAPACITY).map(|_| slot()).collect(), AtomicU64::new(0))))
    }

    fn share(&self) -> Watched {
        Watched(self.0.clone())
    }
}

impl Memory for Watched {
    fn capacity(&self) -> u64 {
        CAPACITY
    }

    fn lap(&self, slot: u64) -> &AtomicU32 {
        &self.0.0[slot as usize].0
    }

    fn consumed(&self) -> &AtomicU64 {
        &self.0.1
    }

    fn with<R>(&self, slot: u64, f: impl FnOnce(NonNull<Header>) -> R) -> R {
        self.0.0[slot as usize].1.with_mut(|at| f(NonNull::new(at.cast()).unwrap()))
    }
}

/// Every interleaving with at most two preemptions: what finds nearly every bug of this kind (Musuvathi and Qadeer,
/// "Iterative Context Bounding", 2007), in seconds instead of days.
fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 20_000;
    builder.check(f);
}

fn message(sender: u64, number: u64) -> Header {
    let id = |key| ActorId::new(TypeId(1), Key(key));
    Header::new(Kind::Tell, id(0), id(sender), 8, Hlc(number))
}

fn read(at: NonNull<Header>) -> (u64, u64) {
    // SAFETY: the reader's slot, with a message in it.
    let (header, payload) = unsafe { parts(at) };
    assert_eq!(payload, header.hlc.to_le_bytes(), "the payload is the one written with the header");
    (header.from().key.0, header.hlc)
}

#[test]
fn one_writer_and_one_reader_pass_every_message_in_order() {
    model(|| {
        let memory = Watched::new();
        let mut producer = Producer::attach(memory.share());
        let writer = thread::spawn(move || {
            for number in 1..=3u64 {
                while !producer.push(&message(9, number), &number.to_le_bytes()) {
                    thread::yield_now();
                }
            }
        });
        let mut consumer = Consumer::attach(memory);
        let mut seen = vec![];
        while seen.len() < 3 {
            match consumer.next(read) {
                Some((_, number)) => seen.push(number),
                None => thread::yield_now(),
            }
            consumer.publish();
        }
        writer.join().unwrap();
        assert_eq!(seen, [1, 2, 3]);
    });
}

#[test]
fn a_writer_that_takes_over_repeats_nothing_and_leaves_nothing_out() {
    model(|| {
        let memory = Watched::new();
        let mut first = Producer::attach(memory.share());
        assert!(first.push(&message(9, 1), &1u64.to_le_bytes()));
        drop(first);
        let second = memory.share();
        let writer = thread::spawn(move || {
            let mut producer = Producer::attach(second);
            while !producer.push(&message(9, 2), &2u64.to_le_bytes()) {
                thread::yield_now();
            }
        });
        let mut consumer = Consumer::attach(memory);
        let mut seen = vec![];
        while seen.len() < 2 {
            match consumer.next(read) {
                Some((_, number)) => seen.push(number),
                None => thread::yield_now(),
            }
            consumer.publish();
        }
        writer.join().unwrap();
        assert_eq!(seen, [1, 2]);
    });
}

/// Sends `count` messages and spins while there are no credits.
fn send(inbox: &Inbox<Watched>, sender: u64, count: u64) {
    let mut queue = Queue::default();
    for number in 1..=count {
        queue.push(&message(sender, number), &number.to_le_bytes());
    }
    while !queue.is_empty() {
        if inbox.send_from(&mut queue) == 0 {
            thread::yield_now();
        }
    }
}

/// Receives `count` messages, giving credits back after each.
fn receive(inbox: Arc<Inbox<Watched>>, count: usize) -> Vec<(u64, u64)> {
    let mut reader = InboxEnd::new(inbox);
    let mut seen = vec![];
    while seen.len() < count {
        match reader.next(read) {
            Some(one) => seen.push(one),
            None => thread::yield_now(),
        }
        reader.give_credits();
    }
    seen
}

#[test]
fn two_writers_share_an_inbox_and_lose_nothing() {
    model(|| {
        let inbox = Arc::new(Inbox::new(Watched::new()));
        let other = inbox.clone();
        let writer = thread::spawn(move || send(&other, 1, 1));
        send(&inbox, 2, 1);
        let mut seen = receive(inbox, 2);
        writer.join().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, [(1, 1), (2, 1)]);
    });
}

#[test]
fn a_writer_without_credits_waits_for_the_reader_and_keeps_its_order() {
    model(|| {
        let inbox = Arc::new(Inbox::new(Watched::new()));
        let other = inbox.clone();
        let writer = thread::spawn(move || send(&other, 1, 4));
        let seen = receive(inbox, 4);
        writer.join().unwrap();
        assert_eq!(seen, [(1, 1), (1, 2), (1, 3), (1, 4)]);
    });
}

/// Rings by setting a flag that the sleeper spins on: a lost wake-up leaves it spinning for ever, which loom reports.
struct Flag(AtomicBool);

impl Bell for Flag {
    fn ring(&self) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn a_message_published_while_its_reader_parks_is_never_slept_through() {
    model(|| {
        let memory = Watched::new();
        let parked = Arc::new(AtomicU32::new(0));
        let bell = Arc::new(Flag(AtomicBool::new(false)));
        let writer = {
            let (memory, parked, bell) = (memory.share(), parked.clone(), bell.clone());
            thread::spawn(move || {
                let mut producer = Producer::attach(memory);
                assert!(producer.push(&message(9, 1), &1u64.to_le_bytes()));
                wake(&parked, &*bell);
            })
        };
        let mut consumer = Consumer::attach(memory);
        park(&parked);
        if consumer.is_empty() {
            while !bell.0.load(Ordering::Acquire) {
                thread::yield_now();
            }
        }
        assert_eq!(consumer.next(read), Some((9, 1)), "whoever is woken finds the message");
        writer.join().unwrap();
    });
}
