//! Devices keep their promises: order, nothing lost, nothing in silence, no deadlock at full queues. The CPU device,
//! stepped by hand; and the ring kernel as the emulated device, with blocks of one thread, of one warp, of two warps.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

use ringhold_kernels::bell::Bell;
use ringhold_kernels::emulated::{self, Program};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key};
use ringhold_kernels::link::{Link, Refused};
use ringhold_kernels::message::{Header, Kind, Reason};
use ringhold_kernels::outbox::Owners;
use ringhold_kernels::plain::Plain;
use ringhold_kernels::registry::Registry;
use ringhold_kernels::ring_kernel::{self, Plan};
use ringhold_kernels::rt::Actor as _;
use ringhold_kernels::segment::{Framing, Pulse, Segment, Shape};
use ringhold_kernels::worker::{Bells, Worker, workers};

extern crate ringhold_kernels as ringhold;

mod actors;

use actors::{circle, listener, talker};

/// Does every wrong thing there is, and some right ones.
#[ringhold::actor]
pub mod odd {
    use super::listener;

    pub struct State {
        pub value: i64,
        pub ticks: u32,
    }

    pub enum Message {
        Set { value: i64 },
        Divide { by: i64 },
        Silent,
        ReplyTwice,
        Stop,
        Read,
        SendToWrongType,
        TickIn { us: u64 },
        TickAt { us: u64, key: u64 },
        Tick,
        SetIn { us: u64, value: i64 },
        Work { rounds: u32 },
    }

    pub enum Reply {
        Value { value: i64, ticks: u32 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Set { value } => state.value = value,
            Message::Divide { by } => {
                state.value += 1;
                ctx.send(listener::id(0), listener::Message::Read);
                ctx.send_after(1, id(1), Message::Tick);
                ctx.reply(Reply::Value { value: 0, ticks: 0 });
                state.value /= by;
                return;
            }
            Message::Silent => return,
            Message::ReplyTwice => ctx.reply(Reply::Value { value: 1, ticks: 1 }),
            Message::Stop => ctx.stop(),
            Message::Read => {}
            Message::SendToWrongType => ctx.send(listener::id(0), Message::Read),
            Message::TickIn { us } => ctx.send_after(us, ctx.id(), Message::Tick),
            Message::TickAt { us, key } => ctx.send_after(us, id(key), Message::Tick),
            Message::Tick => state.ticks += 1,
            Message::SetIn { us, value } => ctx.send_after(us, ctx.id(), Message::Set { value }),
            Message::Work { rounds } => {
                let mut x = state.ticks | 1;
                for _round in 0..rounds {
                    x ^= x << 13;
                    x ^= x >> 17;
                    x ^= x << 5;
                }
                state.ticks = x;
            }
        }
        ctx.reply(Reply::Value { value: state.value, ticks: state.ticks });
    }
}

/// A row of cells that a block mixes: more threads than some blocks have, and a loop that is no multiple of them.
#[ringhold::actor(threads_per_actor = 64)]
pub mod mixer {
    const CELLS: u32 = 200;

    pub struct State {
        pub cells: [u32; CELLS],
        pub next: [u32; CELLS],
    }

    pub enum Message {
        Fill {
            seed: u32,
        },
        Mix {
            rounds: u32,
        },
        /// Faults in the iterations that `at` is in the way of, after some of the cells were written.
        Spoil {
            at: u32,
        },
        Read,
    }

    pub enum Reply {
        Cells { sum: u64, least: u32, most: u32, odd: u32, mask: u32, any: bool },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Fill { seed } => {
                for i in ctx.threads(0..CELLS) {
                    state.cells[i] = (seed ^ i) * 0x9e37_79b9 + ctx.id().key() as u32;
                }
            }
            Message::Mix { rounds } => {
                for round in 0..rounds {
                    for i in ctx.threads(0..CELLS) {
                        state.next[i] = state.cells[(i + round + 1) % CELLS].rotate_left(5) + state.cells[i];
                    }
                    for i in ctx.threads(0..CELLS) {
                        state.cells[i] = state.next[i];
                    }
                }
            }
            Message::Spoil { at } => {
                let few = [0u32; 2];
                for i in ctx.threads(0..CELLS) {
                    state.cells[i] = 7;
                    state.next[i] = 100 / i.abs_diff(at);
                    if i > at {
                        state.next[i] = few[i + 2];
                    }
                }
            }
            Message::Read => {}
        }
        let mut sum = 0u64;
        let mut least = u32::MAX;
        let mut most = 0;
        let mut odd = 0;
        let mut mask = 0;
        let mut any = false;
        for i in ctx.threads(0..CELLS) {
            sum += state.cells[i] as u64 * i as u64;
            least = least.min(state.cells[i]);
            most = most.max(state.cells[i]);
            odd += state.cells[i] & 1;
            mask ^= state.cells[i] + i;
            any |= state.cells[i] == 7;
        }
        ctx.reply(Reply::Cells { sum, least, most, odd, mask, any });
    }
}

/// As wide as actors get: more bricks than a block can have threads, and no multiple of them.
#[ringhold::actor(threads_per_actor = 1024)]
pub mod wall {
    const BRICKS: u32 = 2500;

    pub struct State {
        pub bricks: [u32; BRICKS],
    }

    pub enum Message {
        Paint {
            seed: u32,
        },
        /// Faults in all iterations from `at` on.
        Crack {
            at: u32,
        },
        Read,
    }

    pub enum Reply {
        Wall { sum: u64, least: u32, most: u32 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Paint { seed } => {
                for i in ctx.threads(0..BRICKS) {
                    state.bricks[i] = (state.bricks[i] + seed ^ i) * 0x9e37_79b9;
                }
            }
            Message::Crack { at } => {
                let few = [0u32; 2];
                for i in ctx.threads(0..BRICKS) {
                    state.bricks[i] = if i < at {
                        1
                    } else if i == at {
                        1 / (i - at)
                    } else {
                        few[i]
                    };
                }
            }
            Message::Read => {}
        }
        let mut sum = 0u64;
        let mut least = u32::MAX;
        let mut most = 0;
        for i in ctx.threads(0..BRICKS) {
            sum += state.bricks[i] as u64 * i as u64;
            least = least.min(state.bricks[i]);
            most = most.max(state.bricks[i]);
        }
        ctx.reply(Reply::Wall { sum, least, most });
    }
}

struct NoBell;

impl Bell for NoBell {
    fn ring(&self) {}
}

/// What runs the device under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engine {
    /// Workers that are stepped by hand, in an order that a seed decides.
    Cpu,
    /// The ring kernel with so many threads a block.
    Emulated(u32),
}

const ENGINES: [Engine; 4] = [Engine::Cpu, Engine::Emulated(1), Engine::Emulated(32), Engine::Emulated(64)];

/// Options for the compiler where `RINGHOLD_SANITIZER` names one: `thread` or `address`, whose library must be preloaded.
fn sanitizer() -> Vec<&'static str> {
    match std::env::var("RINGHOLD_SANITIZER").as_deref() {
        Ok("thread") => vec!["-fsanitize=thread", "-g"],
        Ok("address") => vec!["-fsanitize=address", "-g"],
        Ok(other) => panic!("RINGHOLD_SANITIZER is `{other}`: it must be `thread` or `address`"),
        Err(_) => vec![],
    }
}

enum Running {
    Workers(Vec<Worker>),
    Kernel { program: Arc<Program>, host: Option<emulated::Host> },
}

/// A device and the node's end of it.
struct Bench {
    link: Link,
    running: Running,
    registry: Arc<Registry>,
    segment: Arc<Segment>,
    bells: Bells,
    now_us: u64,
    random: u64,
    answers: Vec<(Header, Vec<u8>)>,
}

impl Bench {
    fn new(engine: Engine, shape: Shape) -> Bench {
        let mut registry = Registry::new();
        registry.register::<talker::Actor>().unwrap();
        registry.register::<listener::Actor>().unwrap();
        registry.register::<circle::Actor>().unwrap();
        registry.register::<odd::Actor>().unwrap();
        registry.register::<mixer::Actor>().unwrap();
        registry.register::<wall::Actor>().unwrap();
        assert_eq!(ring_kernel::threads(&registry, 128), 1024, "as many as the widest of them asks for");
        let registry = Arc::new(registry);
        let count = shape.workers as usize;
        let mut shape = Shape { types: registry.types().len() as u32, slot_bytes: 256, ..shape };
        if engine != Engine::Cpu {
            shape = Shape { framing: Framing::Flits as u32, lanes: shape.workers.div_ceil(2), ..shape };
        }
        let segment = Segment::create(shape, registry.layout_hash(), &Owners::all_here(count)).unwrap();
        let bell: Arc<dyn Bell> = Arc::new(NoBell);
        let bells = Bells { workers: Arc::new(vec![bell.clone(); count]), node: bell };
        let mut link = Link::new(segment.clone(), bells.workers.clone());
        link.begin_term();
        let running = match engine {
            Engine::Cpu => Running::Workers(workers(&segment, &registry, &bells)),
            Engine::Emulated(threads) => {
                let plan = Plan::divide(64 << 20, threads, &registry, &shape);
                let source = ring_kernel::source(&registry, &shape, &plan).unwrap();
                let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
                let program = Program::compile(&source, &sanitizer(), folder).unwrap_or_else(|e| panic!("{e}"));
                let program = Arc::new(program);
                let host = Some(program.start(&segment, bells.node.clone()).unwrap());
                Running::Kernel { program, host }
            }
        };
        Bench { link, running, registry, segment, bells, now_us: 1_000_000, random: 42, answers: vec![] }
    }

    /// All workers die where they stand and new ones take over.
    fn crash(&mut self) {
        let Running::Workers(now) = &mut self.running else { panic!("a kernel ends in order, or with its process") };
        now.clear();
        while self.collect() > 0 {}
        self.link.begin_term();
        let Running::Workers(now) = &mut self.running else { unreachable!("it was just seen") };
        *now = workers(&self.segment, &self.registry, &self.bells);
    }

    /// The device ends in order, and another takes over.
    fn relaunch(&mut self) {
        self.link.stop();
        match &mut self.running {
            Running::Workers(workers) => {
                workers.iter_mut().for_each(|worker| while !worker.may_end(true) {});
            }
            Running::Kernel { host, .. } => {
                let host = host.take().unwrap();
                while !host.is_over() {
                    self.collect();
                    std::thread::sleep(Duration::from_micros(50));
                }
                host.join().unwrap();
            }
        }
        while self.collect() > 0 {}
        self.link.begin_term();
        match &mut self.running {
            Running::Workers(now) => *now = workers(&self.segment, &self.registry, &self.bells),
            Running::Kernel { program, host } => {
                *host = Some(program.start(&self.segment, self.bells.node.clone()).unwrap());
            }
        }
    }

    fn push<M: ringhold::rt::MessageOf>(&mut self, kind: Kind, to: ActorId, ticket: u64, message: M) {
        let from = ActorId::new(Default::default(), Key(ticket));
        self.push_as(Header::new(kind, to, from, M::SIZE, Hlc(0)), message);
    }

    fn push_as<M: ringhold::rt::MessageOf>(&mut self, header: Header, message: M) {
        while let Err(refused) = self.link.push(&header, &message.to_bytes()) {
            assert_eq!(refused, Refused::Full);
            self.step_one();
            self.collect();
        }
    }

    fn collect(&mut self) -> usize {
        let answers = &mut self.answers;
        self.link.drain(7, |header, payload| answers.push((*header, payload.to_vec())))
    }

    /// One step of a worker that the seed picks, or a moment for the kernel. Whether the device is idle, as far as is seen.
    fn step_one(&mut self) -> bool {
        let Running::Workers(workers) = &mut self.running else {
            std::thread::sleep(Duration::from_micros(50));
            return false;
        };
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let worker = (self.random >> 33) as usize % workers.len();
        self.now_us += 1;
        workers[worker].step(self.now_us).idle
    }

    fn run_until_quiet(&mut self) {
        let (kernel, began) = (matches!(self.running, Running::Kernel { .. }), Instant::now());
        for _ in 0..2_000_000 {
            self.step_one();
            if kernel || self.random >> 62 == 0 {
                self.collect();
            }
            if (kernel || self.random >> 58 == 0) && self.link.is_quiet() {
                return;
            }
            if began.elapsed() > Duration::from_secs(300) {
                break;
            }
        }
        panic!("the device does not come to rest: {:#?}", self.link.read());
    }

    /// The newest answer that was collected.
    fn last_answer(&mut self) -> (Header, Vec<u8>) {
        self.answers.last().unwrap_or_else(|| panic!("an ask has an answer: {:#?}", self.link.read())).clone()
    }

    fn clock(&self) -> Option<ringhold_kernels::clock_host::Known> {
        self.segment.clock().read()
    }

    fn worker(&mut self) -> &mut Worker {
        let Running::Workers(workers) = &mut self.running else { panic!("a test of the CPU device") };
        &mut workers[0]
    }

    fn ask<M: ringhold::rt::MessageOf>(
        &mut self,
        to: ActorId,
        message: M,
    ) -> Result<<M::Actor as ringhold::rt::Actor>::Reply, Reason> {
        self.answers.clear();
        self.push(Kind::Ask, to, 77, message);
        self.run_until_quiet();
        let (header, payload) = self.last_answer();
        self.answers.pop();
        assert!(self.answers.iter().all(|(h, _)| h.kind() == Some(Kind::DeadLetter)), "and only one");
        assert_eq!(header.to().key, Key(77));
        match header.kind() {
            Some(Kind::Reply) => Ok(Plain::from_bytes(&payload).unwrap()),
            _ => Err(header.reason().unwrap()),
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if let Running::Kernel { host, .. } = &mut self.running
            && let Some(host) = host.take()
        {
            self.link.stop();
            // A test that fails leaves the kernel to the end of the process.
            if !std::thread::panicking() {
                host.join().unwrap();
            }
        }
    }
}

fn small(workers: u32) -> Shape {
    Shape { workers, ingress_slots: 16, egress_slots: 16, inbox_slots: 16, batch: 5, ..Shape::default() }
}

#[test]
fn every_pair_keeps_its_order_across_spill_and_nothing_is_lost() {
    for (engine, workers) in ENGINES.into_iter().flat_map(|engine| [1, 2, 4].map(|workers| (engine, workers))) {
        let mut bench = Bench::new(engine, small(workers));
        let talks = if engine == Engine::Cpu { 5 } else { 1u64 };
        let (talkers, listeners, rounds) = (20u64, 9u32, 40u32);
        for _ in 0..talks {
            for talker in 0..talkers {
                bench.push(Kind::Tell, talker::id(talker), 0, talker::Message::Talk { rounds, listeners });
            }
        }
        bench.run_until_quiet();
        for listener in 0..listeners as u64 {
            let reply = bench.ask(listener::id(listener), listener::Message::Read).unwrap();
            let heard = talkers * talks * rounds as u64;
            assert_eq!(reply, listener::Reply::Heard { heard, out_of_order: 0 }, "{engine:?}, {workers} workers");
        }
        let spilled: u64 = bench.link.read().iter().map(|r| r.spilled).sum();
        assert!(workers == 1 || spilled > 500, "the test must spill to mean anything: {spilled}");
    }
}

#[test]
fn circles_of_messages_at_full_inboxes_neither_deadlock_nor_lose() {
    for (engine, workers) in ENGINES.into_iter().flat_map(|engine| [1, 3].map(|workers| (engine, workers))) {
        let mut bench = Bench::new(engine, small(workers));
        let tokens = if engine == Engine::Cpu { 50 } else { 5u64 };
        for start in 0..tokens {
            bench.push(Kind::Tell, circle::id(start), 0, circle::Message::Token { left: 40, double: 7, members: 97 });
        }
        bench.run_until_quiet();
        // Each token doubles 7 times and its 128 copies live 33 hops more: 2^8 - 1 + 128 × 33 runs.
        let runs: u64 = bench.link.read().iter().map(|r| r.finished).sum();
        assert_eq!(runs, tokens * (255 + 128 * 33), "{engine:?}");
        let sent: u64 = bench.link.read().iter().map(|r| r.sent).sum();
        assert_eq!(sent + tokens, runs);
    }
}

#[test]
fn a_fault_undoes_everything_the_handler_did() {
    for engine in ENGINES {
        let mut bench = Bench::new(engine, small(2));
        let id = odd::id(5u64);
        bench.ask(id, odd::Message::Set { value: 40 }).unwrap();
        assert_eq!(bench.ask(id, odd::Message::Divide { by: 0 }), Err(Reason::FaultDivisionByZero));
        assert_eq!(bench.ask(id, odd::Message::Read).unwrap(), odd::Reply::Value { value: 40, ticks: 0 });
        let readings = bench.link.read();
        assert_eq!(readings.iter().map(|r| r.sent).sum::<u64>(), 0, "the send is undone");
        assert_eq!(readings.iter().map(|r| r.timers).sum::<u64>(), 0, "the timer is undone");
        assert_eq!(readings.iter().map(|r| r.faults).sum::<u64>(), 1);
        // The same message without the fault: its reply counts, and so does what it sent.
        assert_eq!(bench.ask(id, odd::Message::Divide { by: 2 }).unwrap(), odd::Reply::Value { value: 0, ticks: 0 });
        assert_eq!(bench.link.read().iter().map(|r| r.sent).sum::<u64>(), 2);
    }
}

#[test]
fn a_wide_actor_does_the_same_with_any_number_of_threads() {
    let mut expected = None;
    for engine in ENGINES {
        let mut bench = Bench::new(engine, small(2));
        let mut replies = Vec::new();
        for key in 0..5u64 {
            let id = mixer::id(key);
            // A tell before each ask: two messages of one actor in a batch.
            bench.push(Kind::Tell, id, 0, mixer::Message::Fill { seed: key as u32 });
            replies.push(bench.ask(id, mixer::Message::Mix { rounds: 3 }));
            let whole = bench.ask(id, mixer::Message::Read);
            // The first iteration that faults is a division; those after it have an index out of bounds.
            let at = key as u32 * 49;
            assert_eq!(bench.ask(id, mixer::Message::Spoil { at }), Err(Reason::FaultDivisionByZero), "{engine:?}");
            assert_eq!(bench.ask(id, mixer::Message::Read), whole, "{engine:?}: what a fault began is undone");
            replies.push(whole);
        }
        assert_eq!(expected.get_or_insert(replies.clone()), &replies, "{engine:?}");
        assert!(replies.iter().all(|reply| matches!(reply, Ok(mixer::Reply::Cells { any: false, .. }))));
    }
}

#[test]
fn wide_actors_with_messages_at_the_same_time_do_not_meet() {
    let mut expected = None;
    for engine in ENGINES {
        let mut bench = Bench::new(engine, Shape { inbox_slots: 256, ingress_slots: 256, ..small(2) });
        for round in 0..3u32 {
            for key in 0..24u64 {
                bench.push(Kind::Tell, mixer::id(key), 0, mixer::Message::Fill { seed: key as u32 + round });
                bench.push(Kind::Tell, mixer::id(key), 0, mixer::Message::Mix { rounds: 2 });
            }
        }
        bench.run_until_quiet();
        let replies: Vec<_> = (0..24u64).map(|key| bench.ask(mixer::id(key), mixer::Message::Read).unwrap()).collect();
        assert_eq!(expected.get_or_insert(replies.clone()), &replies, "{engine:?}");
    }
}

#[test]
fn a_block_of_1024_threads_runs_what_fewer_run() {
    let mut expected = None;
    // To a sanitizer each is a thread of its own, with megabytes of shadow memory: fewer show it as much.
    let widest = if sanitizer().is_empty() { 1024 } else { 256 };
    for engine in [Engine::Cpu, Engine::Emulated(32), Engine::Emulated(widest)] {
        let slots = 2048;
        let shape = Shape { inbox_slots: slots, ingress_slots: slots, egress_slots: slots, ..small(1) };
        let mut bench = Bench::new(engine, shape);
        // Many at once, for a batch of the whole block: several of one actor in it, of narrow and of wide ones.
        for number in 0..900u64 {
            bench.push(Kind::Tell, odd::id(number % 300), 0, odd::Message::Set { value: number as i64 });
            if number % 100 == 0 {
                bench.push(Kind::Tell, wall::id(number % 200), 0, wall::Message::Paint { seed: number as u32 });
            }
        }
        for talker in 0..30 {
            bench.push(Kind::Tell, talker::id(talker), 0, talker::Message::Talk { rounds: 5, listeners: 9 });
        }
        bench.run_until_quiet();
        let mut walls = Vec::new();
        for key in [0, 100u64] {
            walls.push(bench.ask(wall::id(key), wall::Message::Read));
            for at in [0, 31, 32, 1023, 1024, 2499] {
                let cracked = bench.ask(wall::id(key), wall::Message::Crack { at });
                assert_eq!(cracked, Err(Reason::FaultDivisionByZero), "{engine:?}: the first to fault is {at}");
            }
            walls.push(bench.ask(wall::id(key), wall::Message::Read));
        }
        assert!(walls[0] == walls[1] && walls[2] == walls[3] && walls[0] != walls[2], "{engine:?}: {walls:?}");
        assert_eq!(expected.get_or_insert(walls.clone()), &walls, "{engine:?}");
        for number in [0, 1, 150, 299u64] {
            let value = number as i64 + 600;
            let reply = bench.ask(odd::id(number), odd::Message::Read).unwrap();
            assert_eq!(reply, odd::Reply::Value { value, ticks: 0 }, "{engine:?}: the last of three");
        }
        for listener in 0..9u64 {
            let reply = bench.ask(listener::id(listener), listener::Message::Read).unwrap();
            assert_eq!(reply, listener::Reply::Heard { heard: 150, out_of_order: 0 }, "{engine:?}");
        }
    }
}

#[test]
fn a_timer_for_an_actor_of_another_worker_fires_where_nothing_else_happens() {
    for engine in ENGINES.into_iter().filter(|engine| *engine != Engine::Cpu) {
        let mut bench = Bench::new(engine, small(4));
        for key in 0..8u64 {
            bench.ask(odd::id(key), odd::Message::TickAt { us: 50_000, key: key + 100 }).unwrap();
        }
        std::thread::sleep(Duration::from_millis(80));
        bench.run_until_quiet();
        for key in 0..8u64 {
            let reply = bench.ask(odd::id(key + 100), odd::Message::Read).unwrap();
            assert_eq!(reply, odd::Reply::Value { value: 0, ticks: 1 }, "{engine:?}");
        }
        let readings = bench.link.read();
        assert_eq!(readings.iter().map(|r| (r.sent, r.timers)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)), (8, 0));
    }
}

#[test]
fn what_is_not_handled_is_answered_or_becomes_a_dead_letter() {
    for engine in ENGINES {
        let mut bench = Bench::new(engine, small(2));
        let id = odd::id(5u64);
        assert_eq!(bench.ask(id, odd::Message::Silent), Err(Reason::NoReply));
        assert_eq!(bench.ask(id, odd::Message::ReplyTwice).unwrap(), odd::Reply::Value { value: 1, ticks: 1 });
        bench.answers.clear();
        // A message of another type's size, an unknown type, a tell that faults, a send to an id of another type.
        bench.push(
            Kind::Tell,
            ActorId::new(odd::Actor::TYPE, Key(5)),
            0,
            talker::Message::Talk { rounds: 0, listeners: 0 },
        );
        bench.push(Kind::Tell, ActorId::new(ringhold::id::TypeId::of("nobody"), Key(5)), 0, odd::Message::Read);
        bench.push(Kind::Tell, id, 0, odd::Message::Divide { by: 0 });
        bench.push(Kind::Tell, id, 0, odd::Message::SendToWrongType);
        bench.run_until_quiet();
        while bench.collect() > 0 {}
        let mut reasons: HashMap<Option<Reason>, u32> = HashMap::new();
        for (header, _) in &bench.answers {
            assert_eq!(header.kind(), Some(Kind::DeadLetter));
            *reasons.entry(header.reason()).or_default() += 1;
        }
        let expected = [Reason::Malformed, Reason::UnknownType, Reason::FaultDivisionByZero, Reason::WrongType];
        assert_eq!(reasons, expected.map(|r| (Some(r), 1)).into());
    }
}

#[test]
fn a_message_that_creates_nothing_is_for_an_actor_that_is_there() {
    for engine in ENGINES {
        let mut bench = Bench::new(engine, small(2));
        let value = |value| Ok(odd::Reply::Value { value, ticks: 0 });
        let asks = [
            (true, odd::Message::Read, Err(Reason::Overloaded)),
            (false, odd::Message::Set { value: 3 }, value(3)),
            (true, odd::Message::Read, value(3)),
            (true, odd::Message::Stop, value(3)),
            (true, odd::Message::Read, Err(Reason::Overloaded)),
        ];
        let keys = 100..130u64;
        for key in keys.clone() {
            for (ticket, (creates_nothing, message, _)) in asks.into_iter().enumerate() {
                let from = ActorId::new(Default::default(), Key(key * 10 + ticket as u64));
                let header = Header::new(Kind::Ask, odd::id(key), from, odd::Message::SIZE, Hlc(0));
                bench.push_as(if creates_nothing { header.creating_nothing() } else { header }, message);
            }
        }
        let (nobody, from) = (ActorId::default(), odd::id(1u64));
        let tell = Header::new(Kind::Tell, odd::id(5u64), nobody, odd::Message::SIZE, Hlc(0));
        bench.push_as(tell.creating_nothing(), odd::Message::Read);
        let wide = Header::new(Kind::Ask, mixer::id(5u64), from, mixer::Message::SIZE, Hlc(0));
        bench.push_as(wide.creating_nothing(), mixer::Message::Read);
        bench.run_until_quiet();
        while bench.collect() > 0 {}

        let mut letters = 0;
        let mut answered = HashMap::new();
        for (header, payload) in &bench.answers {
            match header.kind() {
                Some(Kind::DeadLetter) => {
                    assert_eq!((header.reason(), header.to()), (Some(Reason::Overloaded), odd::id(5u64)), "{engine:?}");
                    letters += 1;
                }
                Some(Kind::Reply) => {
                    answered.insert(header.to(), Ok(odd::Reply::from_bytes(payload).unwrap()));
                }
                kind => {
                    assert_eq!(kind, Some(Kind::Error), "{engine:?}");
                    answered.insert(header.to(), Err(header.reason().unwrap()));
                }
            }
        }
        assert_eq!(letters, 1, "{engine:?}");
        assert_eq!(answered.remove(&from), Some(Err(Reason::Overloaded)), "{engine:?}: of a wide actor");
        for key in keys {
            for (ticket, (_, message, answer)) in asks.into_iter().enumerate() {
                let asker = ActorId::new(Default::default(), Key(key * 10 + ticket as u64));
                assert_eq!(answered.remove(&asker), Some(answer), "{engine:?}: {key}, {ticket}: {message:?}");
            }
        }
        assert!(answered.is_empty(), "{engine:?}: {answered:?}");
        let readings = bench.link.read();
        assert_eq!(readings.iter().map(|r| r.actors).sum::<u64>(), 0, "{engine:?}");
        assert_eq!(readings.iter().map(|r| r.created).sum::<u64>(), 30, "{engine:?}");
    }
}

#[test]
fn a_stopped_actor_is_freed_and_made_anew() {
    for engine in ENGINES {
        let mut bench = Bench::new(engine, small(1));
        let id = odd::id(9u64);
        bench.ask(id, odd::Message::Set { value: 3 }).unwrap();
        assert_eq!(bench.link.read()[0].actors, 1);
        assert_eq!(bench.ask(id, odd::Message::Stop).unwrap(), odd::Reply::Value { value: 3, ticks: 0 });
        assert_eq!(bench.link.read()[0].actors, 0);
        assert_eq!(bench.ask(id, odd::Message::Read).unwrap(), odd::Reply::Value { value: 0, ticks: 0 });
    }
}

#[test]
fn a_timer_fires_not_before_its_time() {
    let mut bench = Bench::new(Engine::Cpu, small(1));
    let id = odd::id(9u64);
    bench.ask(id, odd::Message::TickIn { us: 50_000 }).unwrap();
    let due = bench.now_us + 50_000;
    assert!(
        {
            let now = bench.now_us;
            bench.worker().step(now)
        }
        .next_timer_us
        .is_some_and(|at| at <= due)
    );
    assert_eq!(bench.ask(id, odd::Message::Read).unwrap(), odd::Reply::Value { value: 0, ticks: 0 });
    bench.now_us = due;
    bench.run_until_quiet();
    assert_eq!(bench.ask(id, odd::Message::Read).unwrap(), odd::Reply::Value { value: 0, ticks: 1 });
}

#[test]
fn timers_that_wait_when_a_worker_ends_become_dead_letters() {
    let mut bench = Bench::new(Engine::Cpu, small(1));
    bench.ask(odd::id(9u64), odd::Message::TickIn { us: 50_000 }).unwrap();
    bench.answers.clear();
    bench.link.stop();
    assert!(!bench.worker().may_end(true), "it has letters to hand over first");
    let idle = bench.step_one();
    assert!(bench.worker().may_end(idle));
    bench.collect();
    let reasons: Vec<_> = bench.answers.iter().map(|(header, _)| (header.kind(), header.reason())).collect();
    assert_eq!(reasons, [(Some(Kind::DeadLetter), Some(Reason::Stopping))]);
}

#[test]
fn timers_of_an_idle_kernel_fire_in_their_order_and_not_before_their_time() {
    for threads in [1, 64] {
        let mut bench = Bench::new(Engine::Emulated(threads), small(2));
        let waiting = |bench: &mut Bench| bench.link.read().iter().map(|r| r.timers).sum::<u64>();
        let began = Instant::now();
        for key in 0..6u64 {
            // The later one first, so that what is left in the end tells the order.
            bench.ask(odd::id(key), odd::Message::SetIn { us: 2_000_000, value: 4 }).unwrap();
            bench.ask(odd::id(key), odd::Message::SetIn { us: 1_000_000, value: 2 }).unwrap();
        }
        // A machine that is so busy that the first have fired by now shows it later.
        wait_until(&mut bench, "not all wait", |bench| {
            waiting(bench) == 12 || began.elapsed() > Duration::from_millis(900)
        });
        for (left, after) in [(11, 1_000), (5, 2_000)] {
            wait_until(&mut bench, "no timer fires", |bench| waiting(bench) <= left);
            assert!(began.elapsed() >= Duration::from_millis(after), "{threads}: after {:?}", began.elapsed());
        }
        wait_until(&mut bench, "a timer does not fire", |bench| waiting(bench) == 0);
        bench.run_until_quiet();
        for key in 0..6u64 {
            let reply = bench.ask(odd::id(key), odd::Message::Read).unwrap();
            assert_eq!(reply, odd::Reply::Value { value: 4, ticks: 0 }, "{threads}");
        }
    }
}

#[test]
fn timers_that_wait_when_a_kernel_ends_become_dead_letters() {
    for threads in [1, 64] {
        let mut bench = Bench::new(Engine::Emulated(threads), small(2));
        let keys = 0..40u64;
        for key in keys.clone() {
            bench.ask(odd::id(key), odd::Message::TickAt { us: 60_000_000, key: key + 1_000 }).unwrap();
        }
        bench.answers.clear();
        // More than the rings hold: the kernel's end waits for the node.
        bench.relaunch();
        let mut given_up: Vec<_> = bench.answers.iter().map(|(h, _)| (h.kind(), h.reason(), h.to().key.0)).collect();
        given_up.sort_by_key(|(.., key)| *key);
        let expected = keys.map(|key| (Some(Kind::DeadLetter), Some(Reason::Stopping), key + 1_000));
        assert_eq!(given_up, expected.collect::<Vec<_>>(), "{threads}");
        assert_eq!(bench.link.read().iter().map(|r| r.timers).sum::<u64>(), 0);
    }
}

#[test]
fn what_lies_in_the_ingress_ring_outlives_the_host() {
    let mut bench = Bench::new(Engine::Cpu, small(2));
    for number in 0..10u64 {
        bench.push(Kind::Tell, odd::id(number), 0, odd::Message::Set { value: 7 });
    }
    bench.crash();
    bench.run_until_quiet();
    assert_eq!(bench.link.read().iter().map(|r| r.actors).sum::<u64>(), 10);
    bench.crash();
    // The state is gone, and says so by being zero.
    assert_eq!(bench.ask(odd::id(3u64), odd::Message::Read).unwrap(), odd::Reply::Value { value: 0, ticks: 0 });
}

#[test]
fn a_device_that_ended_in_order_is_followed_by_another_on_the_same_rings() {
    for engine in ENGINES {
        let mut bench = Bench::new(engine, small(2));
        for round in 0..3u64 {
            // More than the rings hold, so that the next device begins in the middle of a lap.
            for number in 0..50 {
                bench.ask(odd::id(number), odd::Message::Set { value: round as i64 + 1 }).unwrap();
            }
            assert_eq!(bench.link.read().iter().map(|r| r.actors).sum::<u64>(), 50, "{engine:?}");
            bench.relaunch();
            assert_eq!(bench.ask(odd::id(3u64), odd::Message::Read).unwrap(), odd::Reply::Value { value: 0, ticks: 0 });
        }
    }
}

#[test]
fn what_a_host_had_begun_is_not_begun_again() {
    let mut bench = Bench::new(Engine::Cpu, small(1));
    bench.push(Kind::Tell, odd::id(1u64), 0, odd::Message::Set { value: 7 });
    bench.push(Kind::Tell, odd::id(2u64), 0, odd::Message::Set { value: 7 });
    // As if the host had died while it ran the first message.
    bench.segment.worker(0).ingress.0.begun.store(1, Release);
    let mut waiting = vec![];
    bench.link.for_each_waiting(|header, _| waiting.push(header.to().key.0));
    assert_eq!(waiting, [2]);
    bench.crash();
    bench.run_until_quiet();
    assert_eq!(bench.ask(odd::id(1u64), odd::Message::Read).unwrap(), odd::Reply::Value { value: 0, ticks: 0 });
    assert_eq!(bench.ask(odd::id(2u64), odd::Message::Read).unwrap(), odd::Reply::Value { value: 7, ticks: 0 });
}

#[test]
fn a_worker_that_was_idle_is_not_while_a_handler_runs() {
    use ringhold_kernels::segment::Pulse;
    let mut bench = Bench::new(Engine::Emulated(1), small(1));
    bench.ask(odd::id(1u64), odd::Message::Read).unwrap();
    assert_eq!(bench.link.read()[0].pulse, Pulse::Idle);
    bench.push(Kind::Tell, odd::id(1u64), 0, odd::Message::Work { rounds: 100_000_000 });
    let (began, mut busy) = (Instant::now(), Vec::new());
    loop {
        let reading = bench.link.read()[0];
        if reading.pulse == Pulse::Busy && reading.hand_type == odd::Actor::TYPE.0 {
            busy.push(reading.beat_us);
        }
        if reading.finished == 2 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(120), "{reading:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
    // By this a supervisor tells a worker that hangs from one that has nothing to do.
    assert!(busy.len() > 10, "it was seen with the message in hand {} times", busy.len());
    assert_eq!(busy[busy.len() / 2], busy[busy.len() - 2], "nothing was finished, and no beat came");
}

#[test]
fn a_kernel_tells_its_hosts_time() {
    let mut bench = Bench::new(Engine::Emulated(1), small(1));
    let began = Instant::now();
    let known = loop {
        if let Some(known) = bench.segment.clock().read()
            && !known.paused
        {
            break known;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "no mapping: {:?}", bench.segment.clock().read());
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(known.samples > 0 && known.mapping.error_ns < 10_000_000, "{known:?}");
    let us = || std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
    let before = us();
    bench.push(Kind::Ask, odd::id(1u64), 1, odd::Message::Read);
    bench.run_until_quiet();
    let (header, _) = bench.answers.pop().unwrap();
    let (at, slack) = (Hlc(header.hlc).us(), 20_000);
    assert!(before - slack <= at && at <= us() + slack, "the reply was stamped {at}, asked for at {before}");
}

/// Waits until something holds, with the device given its moments.
fn wait_until(bench: &mut Bench, what: &str, mut holds: impl FnMut(&mut Bench) -> bool) {
    let began = Instant::now();
    while !holds(bench) {
        assert!(began.elapsed() < Duration::from_secs(240), "{what}: {:#?} {:?}", bench.link.read(), bench.clock());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_device_whose_clock_is_paused_stands_still_and_is_not_stalled() {
    for threads in [1, 64] {
        let mut bench = Bench::new(Engine::Emulated(threads), small(1));
        bench.push(Kind::Ask, odd::id(1u64), 0, odd::Message::Set { value: 7 });
        bench.run_until_quiet();
        let (before, _) = bench.last_answer();
        let pause = |bench: &mut Bench| {
            // As its host does when it finds that the clock is off.
            bench.segment.clock().paused.store(1, Release);
            let pass = bench.segment.kernel().passes.load(Acquire);
            wait_until(bench, "no pass", |bench| bench.segment.kernel().passes.load(Acquire) > pass + 10);
        };
        pause(&mut bench);
        // More than the inbox takes from outside, so that the ingress block waits too, and no more than the ring holds.
        let asked = 16;
        for ticket in 1..=asked {
            bench.push(Kind::Ask, odd::id(1u64), ticket, odd::Message::Read);
        }
        wait_until(&mut bench, "not busy", |bench| bench.link.read()[0].pulse == Pulse::Busy);
        let (began, mut last) = (Instant::now(), bench.link.read()[0]);
        // The supervisor's rule: a busy worker is well as long as something of this moves.
        while began.elapsed() < Duration::from_secs(1) {
            wait_until(&mut bench, "not well", |bench| bench.link.read()[0].beat_us > last.beat_us);
            let now = bench.link.read()[0];
            assert_eq!(now.pulse, Pulse::Busy, "{threads}: {now:?}");
            assert!(now.finished == 1 && bench.collect() == 0, "{threads}: something was handled: {now:?}");
            last = now;
        }
        // But not for ever: a host that has stopped to keep the clock is one that hangs.
        let mut still = Instant::now();
        wait_until(&mut bench, "still well", |bench| {
            let now = bench.link.read()[0].beat_us;
            if now != last.beat_us {
                (last.beat_us, still) = (now, Instant::now());
            }
            still.elapsed() > Duration::from_millis(500)
        });

        bench.answers.clear();
        // The host's next mapping is one by which the device goes on.
        bench.segment.clock().paused.store(0, Release);
        wait_until(&mut bench, "no answer", |bench| {
            bench.collect();
            bench.answers.len() as u64 == asked
        });
        let stamps = bench.answers.iter().map(|(header, _)| header.hlc);
        let stamps: Vec<u64> = [before.hlc].into_iter().chain(stamps).collect();
        assert!(stamps.is_sorted_by(|a, b| a < b), "{threads}: {stamps:?}");

        // One that is asked to stop does what it has, though nobody sets its clock right.
        pause(&mut bench);
        bench.answers.clear();
        bench.push(Kind::Ask, odd::id(1u64), 1, odd::Message::Read);
        bench.relaunch();
        assert_eq!(bench.answers.len(), 1);
        assert_eq!(bench.ask(odd::id(1u64), odd::Message::Read).unwrap(), odd::Reply::Value { value: 0, ticks: 0 });
    }
}

#[test]
fn a_clock_that_is_set_pauses_the_device_until_it_is_known_anew() {
    // A shape of its own, so that no other test's device has this clock.
    let mut bench = Bench::new(Engine::Emulated(32), Shape { inbox_slots: 32, ..small(1) });
    let Running::Kernel { program, .. } = &bench.running else { unreachable!("it is an emulated device") };
    let program = program.clone();
    let mut last = 0;
    let mut ask = |bench: &mut Bench| {
        bench.push(Kind::Ask, odd::id(1u64), 1, odd::Message::Read);
        wait_until(bench, "no answer", |bench| bench.collect() > 0);
        let (header, _) = bench.last_answer();
        assert!(header.hlc > last, "time ran back from {last} to {}", header.hlc);
        last = header.hlc;
        let wall_us = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64;
        Hlc(header.hlc).us().abs_diff(wall_us)
    };
    wait_until(&mut bench, "no mapping", |bench| bench.clock().is_some_and(|clock| !clock.paused));
    // More than once, where the machine was busy between the stamp and the look at the clock.
    let began = Instant::now();
    while ask(&mut bench) > 20_000 {
        assert!(began.elapsed() < Duration::from_secs(60), "{:?}", bench.clock());
    }
    for (pauses, ahead_ns) in [-5_000_000_000, 1_500_000_000, 0].into_iter().enumerate() {
        program.set_clock_ahead_ns(ahead_ns);
        let began = Instant::now();
        while bench.clock().is_some_and(|clock| clock.pauses as usize <= pauses || clock.paused) {
            ask(&mut bench);
            assert!(began.elapsed() < Duration::from_secs(60), "set by {ahead_ns} ns: {:?}", bench.clock());
        }
        // It may have told a time that is too late until it was paused; then it stands still until that has come.
        while ask(&mut bench) > 20_000 {
            assert!(began.elapsed() < Duration::from_secs(60), "set by {ahead_ns} ns: {:?}", bench.clock());
        }
    }
}

#[test]
fn a_kernel_that_is_to_end_at_once_leaves_what_it_has_in_hand() {
    for threads in [1, 64] {
        let mut bench = Bench::new(Engine::Emulated(threads), small(2));
        for start in 0..50u64 {
            let token = circle::Message::Token { left: u32::MAX, double: 0, members: 97 };
            bench.push(Kind::Tell, circle::id(start), 0, token);
        }
        bench.push(Kind::Tell, odd::id(1u64), 0, odd::Message::TickIn { us: 60_000_000 });
        wait_until(&mut bench, "not begun", |bench| {
            let readings = bench.link.read();
            let timers: u64 = readings.iter().map(|r| r.timers).sum();
            timers > 0 && readings.iter().all(|r| r.finished > 1000 && r.hand_type != 0)
        });
        bench.link.stop_at_once();
        let Running::Kernel { host, .. } = &mut bench.running else { unreachable!("it is an emulated device") };
        let host = host.take().unwrap();
        wait_until(&mut bench, "it does not end", |_| host.is_over());
        host.join().unwrap();
        // What the node makes of it is as if the host had been killed: who was at work, and what is not accounted for.
        let readings = bench.link.read();
        assert!(readings.iter().all(|r| r.pulse != Pulse::Stopped), "{readings:?}");
        assert!(
            readings.iter().any(|r| r.pulse == Pulse::Busy && r.hand_type == circle::Actor::TYPE.0),
            "{readings:?}"
        );
        let begun: u64 = readings.iter().map(|r| r.accepted + r.sent).sum();
        let finished: u64 = readings.iter().map(|r| r.finished_published).sum();
        assert!(begun > finished, "{begun} were begun, and {finished} finished");
        assert_eq!(readings.iter().map(|r| r.timers).sum::<u64>(), 1);
        // Another takes over, and has none of it.
        bench.link.begin_term();
        let Running::Kernel { program, host } = &mut bench.running else { unreachable!("it is an emulated device") };
        *host = Some(program.start(&bench.segment, bench.bells.node.clone()).unwrap());
        assert_eq!(bench.ask(odd::id(1u64), odd::Message::Read).unwrap(), odd::Reply::Value { value: 0, ticks: 0 });
    }
}

#[test]
fn stamps_follow_causality() {
    for engine in ENGINES {
        let mut bench = Bench::new(engine, small(2));
        let mut last = Hlc(0);
        for number in 0..100u64 {
            bench.ask(odd::id(number % 7), odd::Message::Set { value: 1 }).unwrap();
            bench.push(Kind::Ask, odd::id(number % 7), 1, odd::Message::Read);
            bench.run_until_quiet();
            while bench.collect() > 0 {}
            let (header, _) = bench.answers.pop().unwrap();
            if number % 7 == 0 {
                assert!(Hlc(header.hlc) > last);
                last = Hlc(header.hlc);
            }
        }
    }
}
