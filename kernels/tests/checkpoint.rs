//! What a device is cut into is one moment of it: a host that begins with a checkpoint, and with what came after it once more,
//! ends where the first one would have ended. Whatever the moment, and whatever the number of workers before and after.

#![cfg(not(loom))]

use std::collections::HashMap;
use std::sync::Arc;

use ringhold_kernels::bell::Bell;
use ringhold_kernels::checkpoint::{self, Cut, Record};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key};
use ringhold_kernels::link::{Link, Refused};
use ringhold_kernels::message::{Header, Kind, Reason};
use ringhold_kernels::outbox::Owners;
use ringhold_kernels::plain::Plain;
use ringhold_kernels::registry::Registry;
use ringhold_kernels::segment::{Segment, Shape};
use ringhold_kernels::suspects::{self, Suspect};
use ringhold_kernels::worker::{Bells, Worker, workers};

extern crate ringhold_kernels as ringhold;

const WALKERS: u64 = 97;

/// Passes a token on, at once or after a while, and tells its listener how often it has.
#[ringhold::actor]
pub mod walker {
    use super::listener;

    pub struct State {
        pub steps: u64,
        pub sum: u64,
    }

    pub enum Message {
        Walk { left: u32, token: u64 },
        Rest,
    }

    pub enum Reply {
        Steps { steps: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Walk { left, token } => {
                let from = ctx.id().key();
                ctx.send(listener::id(from % 7), listener::Message::Note { from: from as u32, number: state.steps });
                state.steps += 1;
                state.sum += token;
                if left > 0 {
                    let next = (token * 31 + left as u64 * 7) % 97;
                    let onward = Message::Walk { left: left - 1, token };
                    if token % 11 == 3 {
                        ctx.send_after(20, id(next), onward);
                    } else {
                        ctx.send(id(next), onward);
                    }
                }
                ctx.reply(Reply::Steps { steps: state.steps });
            }
            Message::Rest => ctx.stop(),
        }
    }
}

/// Counts what it hears, and what it hears out of order.
#[ringhold::actor]
pub mod listener {
    pub struct State {
        pub next: [u64; 128],
        pub heard: u64,
        pub out_of_order: u64,
    }

    pub enum Message {
        Note { from: u32, number: u64 },
    }

    pub fn handle(state: &mut State, message: Message, _ctx: &mut Context) {
        match message {
            Message::Note { from, number } => {
                if state.next[from] != number {
                    state.out_of_order += 1;
                }
                state.next[from] = number + 1;
                state.heard += 1;
            }
        }
    }
}

struct NoBell;

impl Bell for NoBell {
    fn ring(&self) {}
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

/// What a node does with checkpoints, in the least that does it: all in memory.
#[derive(Default, Clone)]
struct Checkpoint {
    epoch: u64,
    /// Records of actors, by type and key, and all other records.
    actors: HashMap<ActorId, Vec<u8>>,
    others: Vec<(u8, Vec<u8>)>,
    /// Messages of the log that each lane had taken, and the node had pushed.
    taken: u64,
}

struct Device {
    link: Link,
    workers: Vec<Worker>,
    /// The ring's number of the log's first message, for the one lane that the log goes through.
    segment: Arc<Segment>,
}

struct World {
    registry: Arc<Registry>,
    random: Random,
    now_us: u64,
    device: Device,
    /// Everything ever pushed; `pushed` of it in this term, from `base` on.
    log: Vec<(Header, Vec<u8>)>,
    /// For each lane, the log's numbers of the messages that the present device was given, in order.
    given: Vec<Vec<u64>>,
    next: u64,
    committed: Checkpoint,
    cutting: Option<(u64, Vec<Vec<u8>>, Vec<bool>)>,
    /// What the present device is to begin with and has not been sent yet, for each lane.
    down: Vec<Vec<u8>>,
    ring_base: Vec<u64>,
    /// Log numbers that the committed checkpoint has not, of lanes of any number.
    missing: Vec<u64>,
    /// The epoch under way, if it is to have everything.
    whole: u64,
}

impl World {
    fn new(seed: u64) -> World {
        let mut registry = Registry::new();
        registry.register::<walker::Actor>().unwrap();
        registry.register::<listener::Actor>().unwrap();
        let registry = Arc::new(registry);
        let mut random = Random(seed);
        let device = device(&registry, 1 + random.below(4) as usize);
        let mut world = World {
            registry,
            random,
            now_us: 1_000_000,
            device,
            log: Vec::new(),
            given: Vec::new(),
            next: 0,
            committed: Checkpoint::default(),
            cutting: None,
            down: Vec::new(),
            ring_base: Vec::new(),
            missing: Vec::new(),
            whole: 0,
        };
        world.begin();
        world
    }

    /// The device starts from the committed checkpoint, on as many workers as there are now.
    fn begin(&mut self) {
        let link = &mut self.device.link;
        let lanes = link.lanes();
        link.begin_restored_term(self.committed.epoch);
        self.down = vec![Vec::new(); lanes];
        let phased = |phase| self.committed.others.iter().filter(move |(p, _)| *p == phase).map(|(_, bytes)| bytes);
        for bytes in self.committed.actors.values().chain(phased(0)).chain(phased(1)) {
            let record = checkpoint::records(bytes).next().unwrap().unwrap();
            let lane = link.router().lane_of_record(&record).unwrap();
            self.down[lane].extend_from_slice(bytes);
        }
        for (lane, down) in self.down.iter_mut().enumerate() {
            let cut = Cut { epoch: self.committed.epoch, lane: lane as u32, ingress: 0, egress: 0, hlc: 0 };
            checkpoint::push_cut(down, &cut);
        }
        self.ring_base = (0..lanes).map(|lane| link.pushed(lane)).collect();
        self.given = vec![Vec::new(); lanes];
        self.device.workers = start(&self.device.segment, &self.registry);
        // What the checkpoint has not is pushed once more, in order.
        self.cutting = None;
        self.next = 0;
    }

    fn crash(&mut self) {
        self.device.workers.clear();
        while self.device.link.drain(1000, |_, _| {}) > 0 {}
        if self.random.below(2) == 0 {
            let workers = 1 + self.random.below(4) as usize;
            self.device = device(&self.registry, workers);
        }
        self.begin();
    }

    /// Pushes what is still to be pushed, as far as there is room.
    fn push(&mut self) {
        while let Some(number) = self.missing.get(self.next as usize).copied() {
            let (header, payload) = &self.log[number as usize];
            match self.device.link.push(header, payload) {
                Ok(()) => {
                    let lane = self.device.link.lane_of(header.to().key).unwrap();
                    self.given[lane].push(number);
                    self.next += 1;
                }
                Err(Refused::Full) => return,
                Err(refused) => panic!("{refused:?}"),
            }
        }
    }

    fn tell(&mut self, message: walker::Message, key: u64) {
        let from = ActorId::new(Default::default(), Key(1));
        let header = Header::new(Kind::Tell, walker::id(key), from, walker::Message::SIZE, Hlc(self.log.len() as u64));
        self.missing.push(self.log.len() as u64);
        self.log.push((header, message.to_bytes()));
    }

    fn step(&mut self) {
        for lane in 0..self.down.len() {
            let most = self.down[lane].len().min(1 + self.random.below(20_000) as usize);
            let sent = self.device.link.send_down(lane, &self.down[lane][..most]);
            self.down[lane].drain(..sent);
        }
        self.push();
        let worker = self.random.below(self.device.workers.len() as u64) as usize;
        self.now_us += 1 + self.random.below(3);
        self.device.workers[worker].step(self.now_us);
        self.device.link.drain(1000, |_, _| {});
        self.collect();
    }

    fn collect(&mut self) {
        let Some((epoch, parts, whole)) = &mut self.cutting else { return };
        for (lane, part) in parts.iter_mut().enumerate() {
            whole[lane] = self.device.link.collect_cut(lane, *epoch, part, 1 + self.random.below(9_000) as usize);
        }
        if whole.iter().all(|whole| *whole) {
            let (epoch, parts, _) = self.cutting.take().unwrap();
            self.commit(epoch, &parts);
        }
    }

    fn commit(&mut self, epoch: u64, parts: &[Vec<u8>]) {
        if self.whole == epoch {
            self.committed.actors.clear();
        }
        self.committed.epoch = epoch;
        self.committed.others.clear();
        let mut covered = Vec::new();
        for (lane, part) in parts.iter().enumerate() {
            let mut at = 0;
            for record in checkpoint::records(part) {
                let record = record.unwrap();
                let bytes = encoded_len(&part[at..]);
                let (bytes, kept) = (part[at..at + bytes].to_vec(), at + bytes);
                at = kept;
                match record {
                    Record::Actor { id, .. } => drop(self.committed.actors.insert(id, bytes)),
                    Record::Removed { id } => drop(self.committed.actors.remove(&id)),
                    Record::Queued { phase, .. } => self.committed.others.push((phase, bytes)),
                    Record::Timer { .. } | Record::Out { .. } => self.committed.others.push((0, bytes)),
                    Record::Cut(cut) => {
                        assert_eq!((cut.epoch, cut.lane as usize), (epoch, lane));
                        let taken = (cut.ingress - self.ring_base[lane]) as usize;
                        covered.extend_from_slice(&self.given[lane][..taken]);
                    }
                    Record::Node { .. } => panic!("a device has no record of the node's"),
                }
            }
        }
        let before = self.next as usize;
        covered.sort_unstable();
        let gone = |number: &u64| covered.binary_search(number).is_ok();
        self.next = (before - self.missing[..before].iter().filter(|n| gone(n)).count()) as u64;
        self.missing.retain(|number| !gone(number));
        // What the device was given and has taken since is not at the front of `given` any more.
        for (lane, given) in self.given.iter_mut().enumerate() {
            let taken = given.iter().filter(|n| gone(n)).count();
            given.drain(..taken);
            self.ring_base[lane] += taken as u64;
        }
        self.committed.taken = covered.len() as u64;
    }

    fn ask_cut(&mut self) {
        if self.cutting.is_none() && self.down.iter().all(Vec::is_empty) {
            let lanes = self.device.link.lanes();
            let epoch = self.committed.epoch + 1;
            let whole = self.random.below(10) == 0;
            self.whole = if whole { epoch } else { 0 };
            self.device.link.ask_cut(epoch, whole);
            self.cutting = Some((epoch, vec![Vec::new(); lanes], vec![false; lanes]));
        }
    }
}

fn encoded_len(bytes: &[u8]) -> usize {
    8 + (u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize).next_multiple_of(8)
}

fn bells(count: usize) -> Bells {
    let bell: Arc<dyn Bell> = Arc::new(NoBell);
    Bells { workers: Arc::new(vec![bell.clone(); count]), node: bell }
}

fn device(registry: &Arc<Registry>, workers: usize) -> Device {
    let shape = Shape {
        workers: workers as u32,
        types: registry.types().len() as u32,
        ingress_slots: 16,
        egress_slots: 16,
        inbox_slots: 8,
        staging_bytes: 4096,
        batch: 5,
        ..Shape::default()
    };
    let segment = Segment::create(shape, registry.layout_hash(), &Owners::all_here(workers)).unwrap();
    let link = Link::new(segment.clone(), bells(workers).workers);
    Device { link, workers: Vec::new(), segment }
}

fn start(segment: &Arc<Segment>, registry: &Arc<Registry>) -> Vec<Worker> {
    workers(segment, registry, &bells(segment.shape().workers as usize))
}

/// Walks whose every step is counted, whoever runs them and however often they are begun again.
#[test]
fn a_device_that_dies_goes_on_from_its_last_checkpoint_as_if_it_had_not() {
    let (mut crashes, mut commits, mut queued) = (0, 0, 0);
    for seed in 0..60 {
        let mut world = World::new(seed);
        let mut expected: HashMap<u64, (u64, u64)> = HashMap::new();
        let mut made = 0;
        for round in 0..6_000u64 {
            if made < 150 && world.random.below(20) == 0 {
                let (first, left, token) = (world.random.below(WALKERS), world.random.below(40) as u32, made + 1);
                let mut at = first;
                for left in (0..=left).rev() {
                    let walker = expected.entry(at).or_default();
                    *walker = (walker.0 + 1, walker.1 + token);
                    at = (token * 31 + left as u64 * 7) % WALKERS;
                }
                world.tell(walker::Message::Walk { left, token }, first);
                made += 1;
            }
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
                // Actors that are gone at a cut do not come back.
                (100..105).for_each(|key| world.tell(walker::Message::Walk { left: 0, token: 0 }, key));
                (100..105).for_each(|key| world.tell(walker::Message::Rest, key));
                world.step();
                world.ask_cut();
            }
        }
        // Everything is done, and then cut once more.
        (0..8_000).for_each(|_| world.step());
        let last = world.committed.epoch;
        while world.committed.epoch < last + 2 {
            world.ask_cut();
            world.step();
        }
        assert!(world.missing.is_empty() && world.committed.others.is_empty(), "seed {seed}: all is done");
        let mut steps = 0;
        for (id, bytes) in &world.committed.actors {
            let record = checkpoint::records(bytes).next().unwrap().unwrap();
            let Record::Actor { state, .. } = record else { panic!("an actor's record") };
            if id.type_id == walker::id(0).type_id {
                let walker::State { steps: one, sum } = walker::State::from_bytes(state).unwrap();
                let wanted =
                    if id.key.0 < WALKERS { expected[&id.key.0] } else { panic!("seed {seed}: {id:?} had stopped") };
                assert_eq!((one, sum), wanted, "seed {seed}: {id:?}");
                steps += one;
            } else {
                let state = listener::State::from_bytes(state).unwrap();
                assert_eq!(state.out_of_order, 0, "seed {seed}: {id:?}");
            }
        }
        assert_eq!(steps, expected.values().map(|(steps, _)| steps).sum::<u64>(), "seed {seed}");
    }
    assert!(crashes > 300 && commits > 2_000 && queued > 1_000, "{crashes} {commits} {queued}");
}

/// What the node says of a message that ended two hosts is heeded, by its stamp or by what it is; nobody else's is.
#[test]
fn a_condemned_message_is_put_aside_and_others_of_its_actor_are_run() {
    let mut registry = Registry::new();
    registry.register::<walker::Actor>().unwrap();
    registry.register::<listener::Actor>().unwrap();
    let registry = Arc::new(registry);
    let mut device = device(&registry, 1);
    let message = |token: u64, stamp| {
        let from = ActorId::new(Default::default(), Key(9));
        let payload = walker::Message::Walk { left: 0, token }.to_bytes();
        (Header::new(Kind::Tell, walker::id(1), from, payload.len(), Hlc(stamp)), payload)
    };
    let (by_hash, payload) = message(2, 0);
    let suspect = |hlc, hash, condemned| Suspect { actor: walker::id(1), hlc, hash, condemned };
    let of_token_2 = suspects::hash_of(&by_hash, &payload);
    suspects::write(&device.segment, &[suspect(101, 0, true), suspect(0, of_token_2, true), suspect(103, 0, false)]);
    device.link.begin_term();
    let mut worker = start(&device.segment, &registry).pop().unwrap();
    for (token, stamp) in [(1, 101), (2, 102), (3, 103), (4, 104)] {
        let (header, payload) = message(token, stamp);
        device.link.push(&header, &payload).unwrap();
    }
    worker.step(1);
    worker.step(2);
    let mut letters = Vec::new();
    device.link.drain(100, |header, _| letters.push((header.reason(), header.hlc)));
    assert_eq!(letters, [(Some(Reason::Poison), 101), (Some(Reason::Poison), 102)]);
    let reading = device.link.read()[0];
    assert_eq!(reading.hand_hlc, 0, "nothing is in hand between two steps");
    assert_eq!(reading.finished, 4 + 2, "with the notes that the two others sent");
}
