//! What a device is cut into is one moment of it: a host that begins with a checkpoint, and with what came after it once more,
//! ends where the first one would have ended. Whatever the moment, whatever the number of workers before and after, and
//! whatever runs them.

#![cfg(not(loom))]

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringhold_kernels::checkpoint::{self, Record};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key};
use ringhold_kernels::link::Refused;
use ringhold_kernels::message::{Header, Kind, Reason};
use ringhold_kernels::plain::Plain;
use ringhold_kernels::suspects::{self, Suspect};

extern crate ringhold_kernels as ringhold;

mod actors;
mod switch;
mod world;

use actors::{CELLS, LIFE, Model, WALKERS, listener, mayfly, walker, wide};
use world::{Device, Engine, Random, World};

/// Options for the compiler where `RINGHOLD_SANITIZER` names one: `thread` or `address`, whose library must be preloaded.
fn sanitizer() -> Vec<&'static str> {
    match std::env::var("RINGHOLD_SANITIZER").as_deref() {
        Ok("thread") => vec!["-fsanitize=thread", "-g"],
        Ok("address") => vec!["-fsanitize=address", "-g"],
        Ok(other) => panic!("RINGHOLD_SANITIZER is `{other}`: it must be `thread` or `address`"),
        Err(_) => vec![],
    }
}

/// Begins a walk now and then, until there were `most`.
fn walk(world: &mut World, model: &mut Model, made: &mut u64, most: u64) {
    if *made < most && world.random.below(20) == 0 {
        let (first, left, token) = (world.random.below(WALKERS), world.random.below(40) as u32, *made + 1);
        model.walk(first, left, token);
        world.tell(walker::Message::Walk { left, token }, first);
        *made += 1;
    }
}

/// Actors that are gone at a cut do not come back.
fn walk_and_rest(world: &mut World) {
    (100..105).for_each(|key| world.tell(walker::Message::Walk { left: 0, token: 0 }, key));
    (100..105).for_each(|key| world.tell(walker::Message::Rest, key));
    world.step();
    world.ask_cut();
}

/// Cuts a device that has done everything, and compares what there is to what there is to be.
fn compare(world: &mut World, mut model: Model, about: &str) {
    // Those of the walkers that rest.
    model.visits[0] += 5;
    let last = world.committed.epoch;
    while world.committed.epoch < last + 2 {
        world.ask_cut();
        world.step();
    }
    assert!(world.missing.is_empty() && world.committed.others.is_empty(), "{about}: all is done");
    compare_actors(&world.committed.actors, &model, 5, about);
}

/// Compares what there is of actors to what there is to be; beside the model's steps there were so many.
fn compare_actors(actors: &HashMap<ActorId, Vec<u8>>, model: &Model, more: u64, about: &str) {
    let mut steps = 0;
    let (mut visits, mut heard) = (model.visits, 0);
    for (id, bytes) in actors {
        let record = checkpoint::records(bytes).next().unwrap().unwrap();
        let Record::Actor { state, .. } = record else { panic!("an actor's record") };
        match (id.type_id, id.key.0) {
            (of, key) if of == walker::id(0).type_id => {
                let walker::State { steps: one, sum } = walker::State::from_bytes(state).unwrap();
                assert!(key < WALKERS, "{about}: {id:?} had stopped");
                assert_eq!((one, sum), model.walkers[&key], "{about}: {id:?}");
                steps += one;
            }
            (of, _) if of == listener::id(0).type_id => {
                let state = listener::State::from_bytes(state).unwrap();
                assert_eq!(state.out_of_order, 0, "{about}: {id:?}");
                heard += state.heard;
            }
            (of, key) if of == mayfly::id(0).type_id => {
                let read = mayfly::State::from_bytes(state).unwrap();
                assert_eq!(read.to_bytes(), state, "{about}: bytes that mean nothing are zero");
                let visits = &mut visits[key as usize];
                assert_eq!(u64::from(read.visits), *visits % LIFE, "{about}: {id:?}");
                *visits = 0;
            }
            (_, key) => {
                let state = wide::State::from_bytes(state).unwrap();
                let wanted: Vec<u64> = (1..=CELLS as u64).map(|cell| model.added[key as usize] * cell).collect();
                assert_eq!(state.cells.as_slice(), wanted, "{about}: {id:?}");
            }
        }
    }
    let expected: u64 = model.walkers.values().map(|(steps, _)| steps).sum();
    assert_eq!((steps, heard), (expected, expected + more), "{about}");
    assert!(
        visits.iter().all(|visits| visits % LIFE == 0),
        "{about}: those that are not there have stopped: {visits:?}"
    );
}

/// Steps until everything is done.
fn finish(world: &mut World, about: &str) {
    let began = Instant::now();
    while !world.is_done() {
        for _ in 0..20 {
            world.step();
        }
        let limit = Duration::from_secs(120);
        assert!(began.elapsed() < limit, "{about}: it does not come to rest: {:#?}", world.device.link.read());
    }
}

/// Walks whose every step is counted, whoever runs them and however often they are begun again.
#[test]
fn a_device_that_dies_goes_on_from_its_last_checkpoint_as_if_it_had_not() {
    let (mut crashes, mut commits, mut queued) = (0, 0, 0);
    for seed in 0..60 {
        let mut world = World::new(seed, false, |random| Engine::Cpu { workers: 1 + random.below(4) as u32 });
        let (mut model, mut made, about) = (Model::default(), 0, format!("seed {seed}"));
        for round in 0..6_000u64 {
            walk(&mut world, &mut model, &mut made, 150);
            let before = world.committed.epoch;
            world.step();
            commits += world.committed.epoch - before;
            queued += (world.committed.epoch - before) * world.committed.others.len() as u64;
            match world.random.below(400) {
                0 => {
                    world.crash();
                    crashes += 1;
                }
                1..=12 => world.ask_cut(),
                _ => {}
            }
            if round == 4_000 {
                walk_and_rest(&mut world);
            }
        }
        finish(&mut world, &about);
        compare(&mut world, model, &about);
    }
    assert!(crashes > 300 && commits > 2_000 && queued > 1_000, "{crashes} {commits} {queued}");
}

/// CPU devices and ring kernels, with blocks of one thread, of a warp, of two warps.
fn any_engine(random: &mut Random) -> Engine {
    match random.below(6) {
        0 | 1 => Engine::Cpu { workers: 1 + random.below(4) as u32 },
        2 => Engine::Emulated { workers: 1, lanes: 1, threads: 32 },
        3 => Engine::Emulated { workers: 3, lanes: 2, threads: 32 },
        4 => Engine::Emulated { workers: 2, lanes: 1, threads: 64 },
        _ => Engine::Emulated { workers: 4, lanes: 2, threads: 1 },
    }
}

#[test]
fn devices_of_any_kind_go_on_from_each_others_checkpoints() {
    let (mut kinds, mut commits, mut queued, mut pauses) = ([0; 4], 0, 0, 0);
    for seed in 0..if sanitizer().is_empty() { 12 } else { 4 } {
        let mut world = World::new(seed, true, any_engine);
        let (mut model, mut made, about) = (Model::default(), 0, format!("seed {seed}"));
        for round in 0..1_500u64 {
            walk(&mut world, &mut model, &mut made, 80);
            let before = world.committed.epoch;
            world.step();
            commits += world.committed.epoch - before;
            queued += (world.committed.epoch - before) * world.committed.others.len() as u64;
            match world.random.below(200) {
                0 => {
                    let is_kernel = |world: &World| matches!(world.device.engine, Engine::Emulated { .. });
                    let before = is_kernel(&world);
                    world.crash();
                    kinds[2 * usize::from(before) + usize::from(is_kernel(&world))] += 1;
                }
                1..=20 => world.ask_cut(),
                _ => {}
            }
            if round == 1_000 {
                walk_and_rest(&mut world);
            }
        }
        finish(&mut world, &about);
        compare(&mut world, model, &about);
        pauses += u64::from(world.pause_ns > 0);
    }
    // Under a sanitizer there are fewer seeds, and fewer cuts come to their end in as many rounds.
    let (few, cuts) = if sanitizer().is_empty() { (5, 100) } else { (1, 20) };
    assert!(kinds.iter().all(|count| *count >= few), "one kind to another, and to itself: {kinds:?}");
    assert!(commits > cuts && queued > 100 && pauses > 0, "{commits} {queued} {pauses}");
}

/// What the node says of a message that ended two hosts is heeded, by its stamp or by what it is; nobody else's is.
#[test]
fn a_condemned_message_is_put_aside_and_others_of_its_actor_are_run() {
    let engines = [Engine::Cpu { workers: 1 }, Engine::Emulated { workers: 1, lanes: 1, threads: 32 }];
    for engine in engines {
        let registry = world::registry();
        let mut device = Device::new(&registry, engine);
        let message = |token: u64, stamp| {
            let from = ActorId::new(Default::default(), Key(9));
            let payload = walker::Message::Walk { left: 2, token }.to_bytes();
            (Header::new(Kind::Tell, walker::id(1), from, payload.len(), Hlc(stamp)), payload)
        };
        let ask = |token, stamp| (message(token, stamp).0.with_kind(Kind::Ask), message(token, stamp).1);
        let again = |token, stamp| (message(token, stamp).0.sent_again(), message(token, stamp).1);
        let (by_hash, payload) = message(2, 0);
        let suspect = |hlc, hash, condemned| Suspect { actor: walker::id(1), hlc, hash, condemned };
        let of_token_2 = suspects::hash_of(&by_hash, &payload);
        suspects::write(
            &device.segment,
            &[suspect(101, 0, true), suspect(0, of_token_2, true), suspect(103, 0, false), suspect(105, 0, true)],
            true,
        );
        device.link.begin_term();
        device.start(&registry);
        // The last is one that was put aside, and that somebody has sent again.
        let messages = [message(1, 101), message(2, 102), message(3, 103), message(4, 104), ask(5, 105), again(2, 106)];
        for (header, payload) in messages {
            device.link.push(&header, &payload).unwrap();
        }
        let (mut letters, mut answers, mut random) = (Vec::new(), Vec::new(), Random::new(1));
        let began = Instant::now();
        let wall_us = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        while !device.link.is_quiet() || device.link.read().iter().any(|reading| reading.timers > 0) {
            device.step(&mut random, wall_us());
            device.link.drain(100, |header, payload| match header.kind() {
                Some(Kind::DeadLetter) => letters.push((header.reason().unwrap(), header.hlc, payload.to_vec())),
                kind => answers.push((kind, header.reason())),
            });
            assert!(began.elapsed() < Duration::from_secs(60), "{engine:?}: {:#?}", device.link.read());
        }
        let letter = |token, stamp| (Reason::Poison, stamp, message(token, stamp).1);
        assert_eq!(letters, [letter(1, 101), letter(2, 102), letter(5, 105)], "{engine:?}");
        assert_eq!(answers, [(Some(Kind::Error), Some(Reason::Poison))], "{engine:?}: who asked is told too");
        assert_eq!(device.link.read()[0].hand_hlc, 0, "{engine:?}: nothing is in hand between two steps");
        let listener = device.link.type_counts()[1];
        assert_eq!(listener.1, 3 * 3, "{engine:?}: notes of the three others' walks");
    }
}

/// A ring kernel that is up, with nothing, and what its node does by hand.
struct Cutting {
    device: Device,
    engine: Engine,
    /// What has come of the cut.
    part: Vec<u8>,
    letters: u32,
    began: Instant,
}

impl Cutting {
    fn new(engine: Engine) -> Cutting {
        let registry = world::registry();
        let mut device = Device::new(&registry, engine);
        device.link.begin_restored_term(0);
        let mut down = Vec::new();
        checkpoint::push_cut(&mut down, &checkpoint::Cut::default());
        assert_eq!(device.link.send_down(0, &down), down.len());
        device.start(&registry);
        let mut cutting = Cutting { device, engine, part: Vec::new(), letters: 0, began: Instant::now() };
        cutting.wait("is up", |cutting| cutting.device.link.is_running());
        cutting
    }

    fn wait(&mut self, what: &str, mut holds: impl FnMut(&mut Cutting) -> bool) {
        while !holds(self) {
            let (engine, readings) = (self.engine, self.device.link.read());
            assert!(self.began.elapsed() < Duration::from_secs(60), "{engine:?}, {what}: {readings:#?}");
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    fn drain(&mut self) {
        let letters = &mut self.letters;
        self.device.link.drain(100, |header, _| *letters += u32::from(header.kind() == Some(Kind::DeadLetter)));
    }

    fn push(&mut self, kind: Kind, message: walker::Message, key: u64) {
        let header = Header::new(kind, walker::id(key), ActorId::default(), walker::Message::SIZE, Hlc(1));
        let payload = message.to_bytes();
        self.wait("takes more", |cutting| match cutting.device.link.push(&header, &payload) {
            Err(Refused::Full) => false,
            pushed => pushed.is_ok() || panic!("{pushed:?}"),
        });
    }

    /// A timer for an hour from now, and so many large actors.
    fn fill(&mut self, listeners: u64) {
        self.push(Kind::Tell, walker::Message::Later, 1);
        self.wait("has a timer", |cutting| cutting.device.link.read().iter().any(|reading| reading.timers == 1));
        (0..listeners).for_each(|key| self.push(Kind::Tell, walker::Message::Walk { left: 0, token: 1 }, key));
        self.wait("is quiet", |cutting| cutting.device.link.is_quiet());
    }

    /// Lets the control block go round for a while.
    fn go_on(&mut self) {
        let passes = |cutting: &Cutting| cutting.device.segment.kernel().passes.load(Acquire);
        let then = passes(self) + 100;
        self.wait("goes on", |cutting| passes(cutting) > then || cutting.device.is_over());
    }

    fn collect(&mut self) -> bool {
        self.device.link.collect_cut(0, 1, &mut self.part, 100)
    }

    /// Takes the whole cut.
    fn take_cut(&mut self, about: &str) {
        self.wait("is cut", |cutting| {
            let over = cutting.device.is_over();
            let before = cutting.part.len();
            let whole = cutting.collect();
            let more = whole || !over || cutting.part.len() > before;
            assert!(more, "{:?}, {about}: the kernel has ended before its cut had left", cutting.engine);
            whole
        });
    }

    fn timers(&self) -> usize {
        checkpoint::records(&self.part).filter(|record| matches!(record, Ok(Record::Timer { .. }))).count()
    }
}

const CUT: [Engine; 2] =
    [Engine::Emulated { workers: 1, lanes: 1, threads: 32 }, Engine::Emulated { workers: 2, lanes: 1, threads: 64 }];

/// A stop that comes while a cut is under way waits until that has left; timers are in it, and are no dead letters.
#[test]
fn a_ring_kernel_that_is_cut_can_be_stopped_and_keeps_its_timers() {
    for engine in CUT {
        // From a cut that fits the ring by which it leaves, to one for which workers stand; between them are those of which all
        // workers are done, and the last of which is still to leave.
        for listeners in 0..8 {
            let mut cutting = Cutting::new(engine);
            cutting.fill(listeners);
            cutting.device.link.ask_cut(1, true);
            cutting.device.link.stop();
            cutting.go_on();
            cutting.take_cut(&format!("{listeners} listeners"));
            cutting.wait("ends", |cutting| {
                cutting.drain();
                cutting.device.is_over()
            });
            assert_eq!((cutting.timers(), cutting.letters), (1, 0), "{engine:?}, {listeners} listeners");
        }
    }
}

/// A device whose clock is found to be wrong while it is cut is cut to the end of it, and goes on once the clock is right. One whose
/// clock is wrong before is cut as soon as it goes on.
#[test]
fn a_ring_kernel_whose_clock_is_paused_is_cut() {
    for engine in CUT {
        for paused_before in [false, true] {
            let about = format!("{engine:?}, paused before: {paused_before}");
            let mut cutting = Cutting::new(engine);
            cutting.fill(7);
            let pause = |cutting: &mut Cutting| {
                // As its host does when it finds that the clock is off.
                cutting.device.segment.clock().paused.store(1, Release);
                cutting.go_on();
            };
            if paused_before {
                pause(&mut cutting);
            }
            cutting.device.link.ask_cut(1, true);
            cutting.go_on();
            if !paused_before {
                pause(&mut cutting);
                cutting.take_cut(&about);
            }
            cutting.push(Kind::Ask, walker::Message::Walk { left: 0, token: 3 }, 1);
            cutting.go_on();
            let mut replies = 0;
            cutting.device.link.drain(100, |_, _| replies += 1);
            assert_eq!(replies, 0, "{about}: something was handled by a clock that is wrong");
            assert!(!paused_before || !cutting.collect(), "{about}: a worker that stands still was cut");
            cutting.device.segment.clock().paused.store(0, Release);
            if paused_before {
                cutting.take_cut(&about);
            }
            cutting.wait("answers", |cutting| {
                cutting.device.link.drain(100, |header, _| replies += u32::from(header.kind() == Some(Kind::Reply)));
                replies > 0
            });
            assert_eq!((cutting.timers(), replies), (1, 1), "{about}");
        }
    }
}
