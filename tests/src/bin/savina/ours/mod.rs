//! The cases on Ringhold's CPU device, as a program that embeds it runs it: a thread a worker, in this process.

pub mod actors;

use std::hint::spin_loop;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use ringhold_kernels::actor::{Actor, MessageOf};
use ringhold_kernels::bell::{Bell, EventBell};
use ringhold_kernels::clock::Clock;
use ringhold_kernels::cpu::{self, Host};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::link::Link;
use ringhold_kernels::message::{Header, Kind};
use ringhold_kernels::outbox::Owners;
use ringhold_kernels::plain::Plain;
use ringhold_kernels::registry::{Error, Registry};
use ringhold_kernels::segment::{Segment, Shape};

use crate::ask::{Asks, Latency, Mode, sample};
use crate::definitions::{BIG_ACTORS, Case, FORK_JOIN_ACTORS, RING_ACTORS, Runner, Shape as Sizes, seed};
use actors::{big, brief, counter, creator, driver, echo, idle, node, ping, pong, producer, sink, source, worker};

/// Ringhold on a device of so many workers.
#[derive(Clone, Copy, Debug)]
pub enum Ours {
    OneWorker,
    WorkerPerCore,
}

impl Ours {
    pub const BOTH: [Ours; 2] = [Ours::OneWorker, Ours::WorkerPerCore];

    fn workers(self) -> usize {
        match self {
            Ours::OneWorker => 1,
            Ours::WorkerPerCore => thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// The actor types of this program.
pub fn register(registry: &mut Registry) -> Result<(), Error> {
    registry.register::<ping::Actor>()?;
    registry.register::<pong::Actor>()?;
    registry.register::<producer::Actor>()?;
    registry.register::<counter::Actor>()?;
    registry.register::<node::Actor>()?;
    registry.register::<source::Actor>()?;
    registry.register::<worker::Actor>()?;
    registry.register::<big::Actor>()?;
    registry.register::<sink::Actor>()?;
    registry.register::<driver::Actor>()?;
    registry.register::<brief::Actor>()?;
    registry.register::<echo::Actor>()?;
    registry.register::<creator::Actor>()?;
    registry.register::<idle::Actor>()?;
    Ok(())
}

fn registry() -> &'static Arc<Registry> {
    static REGISTRY: OnceLock<Arc<Registry>> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let mut registry = Registry::new();
        register(&mut registry).expect("the modules of this program have names of their own");
        Arc::new(registry)
    })
}

impl Runner for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn flavour(&self) -> &'static str {
        match self {
            Ours::OneWorker => "CPU device, one worker",
            Ours::WorkerPerCore => "CPU device, one worker a core",
        }
    }

    fn run(&self, case: Case, sizes: &Sizes, n: u64) -> Duration {
        let mut device = Device::start(self.workers());
        match case {
            Case::PingPong => {
                let elapsed = device.timed(ping::id(0), &ping::Message::Start { pings: n });
                let ping::Reply::Pongs { count } = device.ask(Mode::Parked, ping::id(0), &ping::Message::Read);
                assert_eq!(count, n);
                elapsed
            }
            Case::Counting => {
                let start = producer::Message::Start { batch: sizes.counting_batch, batches: n };
                let elapsed = device.timed(producer::id(0), &start);
                let producer::Reply::Counted { count } =
                    device.ask(Mode::Parked, producer::id(0), &producer::Message::Read);
                assert_eq!(count, sizes.counting_batch * n);
                elapsed
            }
            Case::ThreadRing => {
                for i in 0..RING_ACTORS {
                    device.tell(node::id(i), &node::Message::Link { next: (i + 1) % RING_ACTORS });
                }
                let elapsed = device.timed(node::id(0), &node::Message::Token { hops_left: n });
                let seen = (0..RING_ACTORS).map(|i| {
                    let node::Reply::Seen { count } = device.ask(Mode::Parked, node::id(i), &node::Message::Read);
                    count
                });
                assert_eq!(seen.sum::<u64>(), n + 1);
                elapsed
            }
            Case::ForkJoinThroughput => {
                let messages = sizes.fork_join_messages;
                for i in 0..FORK_JOIN_ACTORS {
                    device.tell(worker::id(i), &worker::Message::Hello { messages });
                }
                let start = source::Message::Start { workers: FORK_JOIN_ACTORS, messages, rounds: n };
                let elapsed = device.timed(source::id(0), &start);
                let source::Reply::Complete { count } = device.ask(Mode::Parked, source::id(0), &source::Message::Read);
                assert_eq!(count, FORK_JOIN_ACTORS * n);
                elapsed
            }
            Case::Big => {
                for i in 0..BIG_ACTORS {
                    device.tell(big::id(i), &big::Message::Prepare { seed: seed(i), pings: n });
                }
                let elapsed = device.timed(sink::id(0), &sink::Message::Start { actors: BIG_ACTORS });
                let sink::Reply::Finished { count } = device.ask(Mode::Parked, sink::id(0), &sink::Message::Read);
                assert_eq!(count, BIG_ACTORS);
                elapsed
            }
            Case::ForkJoinCreate => {
                let start = driver::Message::Start { actors: sizes.create_actors, rounds: n };
                let elapsed = device.timed(driver::id(0), &start);
                let driver::Reply::Complete { count } = device.ask(Mode::Parked, driver::id(0), &driver::Message::Read);
                assert_eq!(count, sizes.create_actors * n);
                elapsed
            }
        }
    }
}

/// How often the thread that waits for the end of a case looks for it.
const LOOK_EVERY: Duration = Duration::from_micros(100);

/// A device in this process, and the node's end of it.
struct Device {
    link: Link,
    bell: Arc<EventBell>,
    host: Option<Host>,
    /// The number of the last ask, by which its answer is known.
    ticket: u64,
}

impl Device {
    fn start(workers: usize) -> Device {
        let registry = registry();
        let shape = Shape { workers: workers as u32, types: registry.types().len() as u32, ..Shape::default() };
        let segment = Segment::create(shape, registry.layout_hash(), &Owners::all_here(workers))
            .expect("the default shape is a good one, and there is memory for it");
        let bell = || Arc::new(EventBell::new().expect("the process may open another file"));
        let own: Vec<Arc<EventBell>> = (0..workers).map(|_| bell()).collect();
        let bell = bell();
        let bells = own.iter().map(|bell| bell.clone() as Arc<dyn Bell>).collect();
        let mut link = Link::new(segment.clone(), Arc::new(bells));
        link.begin_term();
        let clock: Arc<dyn Clock> = Arc::new(segment.host_clock());
        let host =
            cpu::start(&segment, registry, own, bell.clone(), &clock).expect("the process may start another thread");
        Device { link, bell, host: Some(host), ticket: 0 }
    }

    fn push<M: MessageOf>(&mut self, kind: Kind, to: ActorId, message: &M) {
        assert_eq!(to.type_id, M::Actor::TYPE, "a message for an actor of another type");
        let from = ActorId::new(TypeId(0), Key(self.ticket));
        let header = Header::new(kind, to, from, M::SIZE, Hlc(0));
        let payload = message.to_bytes();
        while self.link.push(&header, &payload).is_err() {
            self.link.ring();
            thread::yield_now();
        }
        self.link.ring();
    }

    /// Sends a message from outside.
    fn tell<M: MessageOf>(&mut self, to: ActorId, message: &M) {
        self.push(Kind::Tell, to, message);
    }

    /// Asks from outside and waits as the mode says.
    fn ask<M: MessageOf>(&mut self, mode: Mode, to: ActorId, message: &M) -> <M::Actor as Actor>::Reply {
        self.ticket += 1;
        self.push(Kind::Ask, to, message);
        let (ticket, mut answer) = (self.ticket, None);
        loop {
            self.link.drain(1, |header, payload| {
                let answers = header.kind() == Some(Kind::Reply) && header.to().key.0 == ticket;
                assert!(answers, "an answer to something else: {header:?}");
                answer = Plain::from_bytes(payload);
            });
            if let Some(answer) = answer {
                return answer;
            }
            match mode {
                Mode::Spinning => spin_loop(),
                Mode::Parked if self.link.park() => self.bell.wait(None),
                Mode::Parked => {}
            }
        }
    }

    /// Waits until the device has nothing left to do.
    fn settle(&mut self) {
        while !self.link.is_quiet() {
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Sends the message that starts a case, and times it to the case's end. What was told before is done first.
    fn timed<M: MessageOf>(&mut self, to: ActorId, message: &M) -> Duration {
        self.settle();
        let start = Instant::now();
        self.tell(to, message);
        self.settle();
        start.elapsed()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.link.stop();
        if let Some(host) = self.host.take() {
            host.join().expect("the device's workers do not panic");
        }
    }
}

/// Ask round trips from this thread to an actor.
pub fn asks(mode: Mode, asks: &Asks) -> Latency {
    let mut device = Device::start(1);
    sample(mode, asks, |value| {
        let message = echo::Message::Ask { value, padding: 0 };
        match device.ask(mode, echo::id(0), &message) {
            echo::Reply::Sum { sum } => sum,
            echo::Reply::Tells { .. } => panic!("the answer to another question"),
        }
    })
}

/// What idle actors take; see [`crate::memory`].
pub struct Idle {
    pub elapsed: Duration,
    /// What the device's tables hold for an actor, its state included.
    pub table_bytes: f64,
    /// Holds them until it is dropped.
    _device: Device,
}

/// Actors with 8 bytes of state, each of which has handled one message and waits for the next.
pub fn idle(actors: u64) -> Idle {
    let mut device = Device::start(1);
    let elapsed = device.timed(creator::id(0), &creator::Message::Start { actors });
    let readings = device.link.read();
    let held: u64 = readings.iter().map(|reading| reading.actors).sum();
    // The creator is one too.
    assert_eq!(held, actors + 1);
    let bytes: u64 = readings.iter().map(|reading| reading.table_bytes).sum();
    Idle { elapsed, table_bytes: bytes as f64 / actors as f64, _device: device }
}
