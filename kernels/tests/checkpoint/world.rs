//! A node's part in checkpoints, in the least that does it: all in memory, over devices of any kind.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringhold_kernels::bell::Bell;
use ringhold_kernels::checkpoint::{self, Cut, Record};
use ringhold_kernels::emulated::{self, Program};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key};
use ringhold_kernels::link::{Link, Refused};
use ringhold_kernels::message::{Header, Kind};
use ringhold_kernels::outbox::Owners;
use ringhold_kernels::plain::Plain;
use ringhold_kernels::registry::Registry;
use ringhold_kernels::ring_kernel::{self, Plan};
use ringhold_kernels::segment::{Framing, Segment, Shape};
use ringhold_kernels::worker::{Bells, Worker, workers};

use super::actors::{listener, mayfly, walker, wide};

struct NoBell;

impl Bell for NoBell {
    fn ring(&self) {}
}

pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

/// What runs a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// So many workers that are stepped by hand, in an order that a seed decides.
    Cpu { workers: u32 },
    /// The ring kernel: so many workers and lanes, and threads of each block.
    Emulated { workers: u32, lanes: u32, threads: u32 },
}

impl Engine {
    pub fn workers(self) -> u32 {
        match self {
            Engine::Cpu { workers } | Engine::Emulated { workers, .. } => workers,
        }
    }
}

/// Who chooses what a world's next device is.
pub type Choose = fn(&mut Random) -> Engine;

/// A checkpoint that is durable, as far as this world goes.
#[derive(Default, Clone)]
pub struct Committed {
    pub epoch: u64,
    /// Records of actors, and all other records with their phases.
    pub actors: HashMap<ActorId, Vec<u8>>,
    pub others: Vec<(u8, Vec<u8>)>,
}

enum Running {
    Nobody,
    Workers(Vec<Worker>),
    Kernel(emulated::Host),
}

pub struct Device {
    pub engine: Engine,
    pub link: Link,
    pub segment: Arc<Segment>,
    running: Running,
}

pub fn registry() -> Arc<Registry> {
    let mut registry = Registry::new();
    registry.register::<walker::Actor>().unwrap();
    registry.register::<listener::Actor>().unwrap();
    registry.register::<mayfly::Actor>().unwrap();
    registry.register::<wide::Actor>().unwrap();
    Arc::new(registry)
}

pub fn bells(count: usize) -> Bells {
    let bell: Arc<dyn Bell> = Arc::new(NoBell);
    Bells { workers: Arc::new(vec![bell.clone(); count]), node: bell }
}

impl Device {
    /// Rings, queues and staging that are always full.
    pub fn new(registry: &Arc<Registry>, engine: Engine) -> Device {
        Device::with_owners(registry, engine, &Owners::all_here(engine.workers() as usize))
    }

    pub fn with_owners(registry: &Arc<Registry>, engine: Engine, owners: &Owners) -> Device {
        let count = engine.workers();
        let shape = Shape {
            workers: count,
            types: registry.types().len() as u32,
            ingress_slots: 16,
            egress_slots: 16,
            inbox_slots: if matches!(engine, Engine::Cpu { .. }) { 8 } else { 16 },
            staging_bytes: 4096,
            batch: 5,
            ..Shape::default()
        };
        let shape = match engine {
            Engine::Cpu { .. } => shape,
            Engine::Emulated { lanes, .. } => Shape { lanes, framing: Framing::Flits as u32, ..shape },
        };
        let segment = Segment::create(shape, registry.layout_hash(), owners).unwrap();
        let link = Link::new(segment.clone(), bells(count as usize).workers);
        Device { engine, link, segment, running: Running::Nobody }
    }

    /// A host for the term that has begun.
    pub fn start(&mut self, registry: &Arc<Registry>) {
        let bells = bells(self.engine.workers() as usize);
        self.running = match self.engine {
            Engine::Cpu { .. } => Running::Workers(workers(&self.segment, registry, &bells)),
            Engine::Emulated { threads, .. } => {
                let plan =
                    Plan { staging_bytes: 2048, ..Plan::divide(32 << 20, threads, registry, self.segment.shape()) };
                let source = ring_kernel::source(registry, self.segment.shape(), &plan).unwrap();
                let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
                let program = Program::compile(&source, &super::sanitizer(), folder).unwrap_or_else(|e| panic!("{e}"));
                Running::Kernel(Arc::new(program).start(&self.segment, bells.node).unwrap())
            }
        };
    }

    /// The host is gone, with all that it had.
    pub fn die(&mut self) {
        if let Running::Kernel(host) = std::mem::replace(&mut self.running, Running::Nobody) {
            self.link.stop_at_once();
            host.join().unwrap();
        }
        while self.link.drain(1000, |_, _| {}) > 0 {}
    }

    /// Whether a kernel has ended.
    pub fn is_over(&self) -> bool {
        matches!(&self.running, Running::Kernel(host) if host.is_over())
    }

    /// A step of this worker of a CPU device.
    pub fn step_worker(&mut self, worker: usize, now_us: u64) {
        let Running::Workers(workers) = &mut self.running else { panic!("no workers run the device") };
        workers[worker].step(now_us);
    }

    /// A step of one worker, or a moment for a kernel.
    pub fn step(&mut self, random: &mut Random, now_us: u64) {
        match &mut self.running {
            Running::Workers(workers) => {
                let worker = random.below(workers.len() as u64) as usize;
                workers[worker].step(now_us);
            }
            Running::Kernel(host) => {
                assert!(
                    !host.is_over(),
                    "the kernel has ended by itself: {}",
                    self.segment.kernel().failed.load(std::sync::atomic::Ordering::Acquire)
                );
                std::thread::sleep(Duration::from_micros(20));
            }
            Running::Nobody => panic!("nobody runs the device"),
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // A test that fails leaves the kernel to the end of the process.
        if !std::thread::panicking() {
            self.die();
        }
    }
}

pub struct World {
    registry: Arc<Registry>,
    pub random: Random,
    choose: Choose,
    /// The wall clock, where a kernel may look at it; else only steps move it.
    real_time: bool,
    now_us: u64,
    pub device: Device,
    /// Everything ever pushed.
    log: Vec<(Header, Vec<u8>)>,
    /// For each lane, the log's numbers of the messages that the present device was given, in order.
    given: Vec<Vec<u64>>,
    /// Log numbers that the committed checkpoint has not, of lanes of any number, and how many of them the present device was
    /// given.
    pub missing: Vec<u64>,
    next: u64,
    pub committed: Committed,
    cutting: Option<(u64, Vec<Vec<u8>>, Vec<bool>)>,
    /// What the present device is to begin with and has not been sent yet, for each lane.
    down: Vec<Vec<u8>>,
    ring_base: Vec<u64>,
    /// The epoch under way, if it is to have everything.
    whole: u64,
    /// The longest that a device said it stood still.
    pub pause_ns: u64,
}

impl World {
    pub fn new(seed: u64, real_time: bool, choose: Choose) -> World {
        let (registry, mut random) = (registry(), Random::new(seed));
        let device = Device::new(&registry, choose(&mut random));
        let mut world = World {
            registry,
            random,
            choose,
            real_time,
            now_us: 1_000_000,
            device,
            log: Vec::new(),
            given: Vec::new(),
            missing: Vec::new(),
            next: 0,
            committed: Committed::default(),
            cutting: None,
            down: Vec::new(),
            ring_base: Vec::new(),
            whole: 0,
            pause_ns: 0,
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
        self.device.start(&self.registry);
        // What the checkpoint has not is pushed once more, in order.
        self.cutting = None;
        self.next = 0;
    }

    pub fn crash(&mut self) {
        self.device.die();
        if self.random.below(2) == 0 {
            self.device = Device::new(&self.registry, (self.choose)(&mut self.random));
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

    pub fn tell(&mut self, message: walker::Message, key: u64) {
        let from = ActorId::new(Default::default(), Key(1));
        let header = Header::new(Kind::Tell, walker::id(key), from, walker::Message::SIZE, Hlc(self.log.len() as u64));
        self.missing.push(self.log.len() as u64);
        self.log.push((header, message.to_bytes()));
    }

    pub fn step(&mut self) {
        for lane in 0..self.down.len() {
            let most = self.down[lane].len().min(1 + self.random.below(20_000) as usize);
            let sent = self.device.link.send_down(lane, &self.down[lane][..most]);
            self.down[lane].drain(..sent);
        }
        self.push();
        self.now_us += 1 + self.random.below(3);
        if self.real_time {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
            self.now_us = self.now_us.max(since);
        }
        self.device.step(&mut self.random, self.now_us);
        self.device.link.drain(1000, |_, _| {});
        self.collect();
    }

    /// Whether everything is done: nothing on its way, and no timer.
    pub fn is_done(&mut self) -> bool {
        let given = self.next as usize == self.missing.len() && self.down.iter().all(Vec::is_empty);
        given
            && self.device.link.is_running()
            && self.device.link.is_quiet()
            && self.device.link.read().iter().all(|reading| reading.timers == 0)
    }

    fn collect(&mut self) {
        let Some((epoch, parts, whole)) = &mut self.cutting else { return };
        for (lane, part) in parts.iter_mut().enumerate() {
            whole[lane] = self.device.link.collect_cut(lane, *epoch, part, 1 + self.random.below(9_000) as usize);
        }
        if whole.iter().all(|whole| *whole) {
            let (epoch, parts, _) = self.cutting.take().unwrap();
            self.pause_ns = self.pause_ns.max(self.device.link.pause_ns());
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
    }

    pub fn ask_cut(&mut self) {
        if self.cutting.is_none() && self.device.link.is_running() {
            let lanes = self.device.link.lanes();
            let epoch = self.committed.epoch + 1;
            let whole = self.committed.epoch == 0 || self.random.below(10) == 0;
            self.whole = if whole { epoch } else { 0 };
            self.device.link.ask_cut(epoch, whole);
            self.cutting = Some((epoch, vec![Vec::new(); lanes], vec![false; lanes]));
        }
    }
}

pub fn encoded_len(bytes: &[u8]) -> usize {
    8 + (u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize).next_multiple_of(8)
}
