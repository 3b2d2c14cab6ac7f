//! Shards go from one device to another and back while their actors are at work: nothing is lost, nothing comes twice, and
//! nobody overtakes.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use ringhold_kernels::checkpoint::{self, Cut, Kind as RecordKind, Record};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key};
use ringhold_kernels::message::{Header, Kind};
use ringhold_kernels::outbox::{AWAY, Owner, Owners, PARKED, SHARDS, shard_of};
use ringhold_kernels::plain::Plain;

use super::actors::{Model, WALKERS, listener, walker};
use super::compare_actors;
use super::world::{Device, Engine, Random, encoded_len, registry};

type Message = (Header, Vec<u8>);

/// One of the two devices, and what a node has of it.
struct Side {
    device: Device,
    /// What is for its actors and has found no room yet, or waits because its shard does not take any now.
    transit: VecDeque<Message>,
    epoch: u64,
    /// What its increments come to.
    actors: HashMap<ActorId, Vec<u8>>,
}

/// A node's part in migrations, in the least that does it.
struct Pair {
    random: Random,
    sides: [Side; 2],
    /// Which side has each shard, and which of them take nothing now.
    owner: Vec<usize>,
    closed: Vec<bool>,
    /// What actors of these shards send to the other device is held.
    holds: Vec<bool>,
    held: Vec<Message>,
    now_us: u64,
    /// What a client is still to send, with how many it has.
    told: u64,
    most: u64,
    model: Model,
    /// Messages that arrived with their actors; timers; messages that these had sent.
    arrived: [u64; 3],
}

impl Side {
    fn table(&self, mut owner: impl FnMut(usize, Owner) -> Owner) -> Owners {
        let now = self.device.segment.owners();
        Owners::from_fn(|shard| owner(shard, now.of_shard(shard)))
    }
}

impl Pair {
    fn new(seed: u64, most: u64) -> Pair {
        let (registry, mut random) = (registry(), Random::new(seed));
        let owner: Vec<usize> = (0..SHARDS).map(|shard| shard % 2).collect();
        let mut side = |index: usize| {
            let workers = 1 + random.below(4) as u32;
            let owners = Owners::from_fn(|shard| match shard % 2 == index {
                true => (shard / 2 % workers as usize) as Owner,
                false => AWAY,
            });
            let mut device = Device::with_owners(&registry, Engine::Cpu { workers }, &owners);
            device.link.begin_restored_term(0);
            device.start(&registry);
            for lane in 0..device.link.lanes() {
                let mut down = Vec::new();
                checkpoint::push_cut(&mut down, &Cut { lane: lane as u32, ..Cut::default() });
                assert_eq!(device.link.send_down(lane, &down), down.len());
            }
            Side { device, transit: VecDeque::new(), epoch: 0, actors: HashMap::new() }
        };
        let sides = [side(0), side(1)];
        let (closed, holds) = (vec![false; SHARDS], vec![false; SHARDS]);
        Pair {
            random,
            sides,
            owner,
            closed,
            holds,
            held: Vec::new(),
            now_us: 1_000_000,
            told: 0,
            most,
            model: Model::default(),
            arrived: [0; 3],
        }
    }

    fn owner_of(&self, key: Key) -> usize {
        self.owner[shard_of(key)]
    }

    fn step(&mut self) {
        if self.told < self.most && self.random.below(6) == 0 {
            let (first, left, token) = (self.random.below(WALKERS), self.random.below(40) as u32, self.told + 1);
            self.model.walk(first, left, token);
            let message = walker::Message::Walk { left, token };
            let from = ActorId::new(Default::default(), Key(1));
            let header = Header::new(Kind::Tell, walker::id(first), from, walker::Message::SIZE, Hlc(self.told));
            let to = self.owner_of(Key(first));
            self.sides[to].transit.push_back((header, message.to_bytes()));
            self.told += 1;
        }
        let index = self.random.below(2) as usize;
        self.now_us += 1 + self.random.below(3);
        let now_us = self.now_us;
        let Pair { random, sides, .. } = self;
        sides[index].device.step(random, now_us);
        // At times a device is left alone, so that its queues are full when it is cut.
        if self.random.below(3) > 0 {
            self.carry(index);
            self.push(index);
        }
    }

    /// Takes what a device has sent to the one where it goes.
    fn carry(&mut self, index: usize) {
        let mut sent: Vec<Message> = Vec::new();
        self.sides[index].device.link.drain(1000, |header, payload| {
            let mut header = *header;
            header.lap = 0;
            sent.push((header, payload.to_vec()));
        });
        for (header, payload) in sent {
            assert!(header.is(Kind::Tell), "{header:?}");
            if self.holds[shard_of(header.from().key)] && self.owner_of(header.from().key) == index {
                self.held.push((header, payload));
            } else {
                let to = self.owner_of(header.to().key);
                self.sides[to].transit.push_back((header, payload));
            }
        }
    }

    fn push(&mut self, index: usize) {
        let Pair { sides, closed, .. } = self;
        let Side { device, transit, .. } = &mut sides[index];
        let mut waiting = VecDeque::new();
        let mut full = false;
        for (header, payload) in transit.drain(..) {
            let waits = full || closed[shard_of(header.to().key)];
            if waits || device.link.push(&header, &payload).is_err() {
                full |= !waits;
                waiting.push_back((header, payload));
            }
        }
        *transit = waiting;
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Pair) -> bool) {
        let began = Instant::now();
        while !done(self) {
            self.step();
            let limit = Duration::from_secs(60);
            let readings =
                || self.sides.iter().map(|side| (side.transit.len(), side.device.link.read())).collect::<Vec<_>>();
            assert!(began.elapsed() < limit, "{what} in vain: {:#?}", readings());
        }
    }

    /// Waits until a device has taken all that it was given and all that waits for it.
    fn drained(&mut self, index: usize) {
        let closed = self.closed.clone();
        self.until("it takes what there is", |pair| {
            let Side { device, transit, .. } = &pair.sides[index];
            let lanes = 0..device.link.lanes();
            transit.iter().all(|(header, _)| closed[shard_of(header.to().key)])
                && lanes.into_iter().all(|lane| device.link.done(lane) == device.link.pushed(lane))
        });
    }

    /// Cuts a device, at which it goes on with another table and what arrives; returns the records of each lane.
    fn switch(&mut self, index: usize, owners: Option<&Owners>, arriving: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let lanes = self.sides[index].device.link.lanes();
        let whole = self.random.below(5) == 0;
        let side = &mut self.sides[index];
        side.epoch += 1;
        let epoch = side.epoch;
        let mut down: Vec<Vec<u8>> = vec![Vec::new(); lanes];
        match owners {
            None => side.device.link.ask_cut(epoch, whole),
            Some(owners) => {
                side.device.link.ask_switch(epoch, whole, owners);
                let router = side.device.link.router();
                for bytes in arriving {
                    let record = checkpoint::records(bytes).next().unwrap().unwrap();
                    down[router.lane_of_record(&record).unwrap()].extend(bytes);
                }
                for (lane, down) in down.iter_mut().enumerate() {
                    checkpoint::push_cut(down, &Cut { epoch, lane: lane as u32, ..Cut::default() });
                }
            }
        }
        let mut parts = vec![Vec::new(); lanes];
        self.until("a cut comes up", |pair| {
            let most = 1 + pair.random.below(9_000) as usize;
            let link = &mut pair.sides[index].device.link;
            let mut whole = true;
            for lane in 0..lanes {
                let sent = link.send_down(lane, &down[lane][..down[lane].len().min(most)]);
                down[lane].drain(..sent);
                whole &= link.collect_cut(lane, epoch, &mut parts[lane], most);
            }
            whole
        });
        if whole {
            self.sides[index].actors.clear();
        }
        for part in &parts {
            for (record, bytes) in split(part) {
                match record {
                    Record::Actor { id, .. } => drop(self.sides[index].actors.insert(id, bytes.to_vec())),
                    Record::Removed { id } => drop(self.sides[index].actors.remove(&id)),
                    Record::Cut(cut) => {
                        while self.sides[index].device.link.taken(cut.lane as usize) < cut.egress {
                            self.carry(index);
                        }
                    }
                    _ => {}
                }
            }
        }
        parts
    }

    fn migrate(&mut self, shards: &[usize], from: usize, to: usize) {
        let moves = |shard: usize| shards.binary_search(&shard).is_ok();
        shards.iter().for_each(|shard| self.holds[*shard] = true);
        self.carry(from);
        self.drained(to);
        let parked = self.sides[to].table(|shard, owner| if moves(shard) { PARKED } else { owner });
        self.switch(to, Some(&parked), &[]);
        shards.iter().for_each(|shard| self.closed[*shard] = true);
        self.drained(from);
        let parked = self.sides[from].table(|shard, owner| if moves(shard) { PARKED } else { owner });
        let parts = self.switch(from, Some(&parked), &[]);
        let carried = self.split_off(shards, from, &parts);
        shards.iter().for_each(|shard| {
            self.owner[*shard] = to;
            self.holds[*shard] = false;
        });
        let workers = self.sides[to].device.engine.workers() as usize;
        let arrived =
            self.sides[to].table(|shard, owner| if moves(shard) { (shard % workers) as Owner } else { owner });
        let left = self.sides[from].table(|shard, owner| if moves(shard) { AWAY } else { owner });
        self.sides[to].device.link.set_owners(arrived.clone());
        self.sides[from].device.link.set_owners(left.clone());
        self.switch(to, Some(&arrived), &carried);
        shards.iter().for_each(|shard| self.closed[*shard] = false);
        self.switch(from, Some(&left), &[]);
    }

    /// What a cut has of these shards, and what the node had of them, in the order in which it is to be taken in.
    fn split_off(&mut self, shards: &[usize], from: usize, parts: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let moves = |key: Key| shards.binary_search(&shard_of(key)).is_ok();
        let (mut first, mut then) = (Vec::new(), Vec::new());
        self.arrived[2] += self.held.len() as u64;
        for (header, payload) in std::mem::take(&mut self.held) {
            let mut record = Vec::new();
            checkpoint::push_message(&mut record, RecordKind::Out, 0, &header, &payload);
            first.push(record);
        }
        let mut actors = 0;
        for part in parts {
            for (record, bytes) in split(part) {
                match record {
                    Record::Actor { id, .. } if moves(id.key) => {
                        first.push(bytes.to_vec());
                        actors += 1;
                    }
                    Record::Timer { header, .. } if moves(header.from().key) => {
                        self.arrived[1] += 1;
                        first.push(bytes.to_vec());
                    }
                    Record::Out { header, .. } if header.is(Kind::Tell) && moves(header.from().key) => {
                        self.arrived[2] += 1;
                        first.push(bytes.to_vec());
                    }
                    Record::Queued { header, phase, .. } if moves(header.to().key) => {
                        self.arrived[0] += 1;
                        if phase == 0 { &mut first } else { &mut then }.push(bytes.to_vec());
                    }
                    _ => {}
                }
            }
        }
        let known = self.sides[from].actors.keys().filter(|id| moves(id.key)).count();
        assert_eq!(actors, known, "every actor that leaves is in the cut, whatever has changed");
        let transit = std::mem::take(&mut self.sides[from].transit);
        let (left, stay): (VecDeque<Message>, VecDeque<Message>) =
            transit.into_iter().partition(|(header, _)| moves(header.to().key));
        self.sides[from].transit = stay;
        for (header, payload) in left {
            let mut record = Vec::new();
            checkpoint::push_message(&mut record, RecordKind::Queued, 1, &header, &payload);
            then.push(record);
        }
        first.extend(then);
        first
    }

    fn is_done(&mut self) -> bool {
        let done = |side: &mut Side| {
            let link = &mut side.device.link;
            side.transit.is_empty() && link.is_quiet() && link.read().iter().all(|reading| reading.timers == 0)
        };
        self.told == self.most && self.sides.iter_mut().all(done)
    }
}

/// The records of a part, each with its bytes.
fn split(part: &[u8]) -> impl Iterator<Item = (Record<'_>, &[u8])> {
    let mut at = 0;
    checkpoint::records(part).map(move |record| {
        let bytes = &part[at..][..encoded_len(&part[at..])];
        at += bytes.len();
        (record.unwrap(), bytes)
    })
}

#[test]
fn shards_move_between_devices_at_work_as_if_they_had_always_been_there() {
    let (mut moves, mut arrived) = (0, [0; 3]);
    for seed in 0..300 {
        let about = format!("seed {seed}");
        let mut pair = Pair::new(seed, 120);
        pair.until("both come up", |pair| pair.sides.iter().all(|side| side.device.link.is_running()));
        for _ in 0..pair.random.below(14) {
            for _ in 0..pair.random.below(200) {
                pair.step();
            }
            let from = pair.random.below(2) as usize;
            if pair.random.below(3) == 0 {
                pair.switch(from, None, &[]);
                continue;
            }
            let few = pair.random.below(2) == 0;
            let shards: Vec<usize> = (0..SHARDS)
                .filter(|shard| pair.owner[*shard] == from && pair.random.below(if few { 20 } else { 2 }) == 0)
                .collect();
            pair.migrate(&shards, from, 1 - from);
            moves += 1;
        }
        pair.until("it comes to rest", Pair::is_done);
        let mut all = HashMap::new();
        for index in 0..2 {
            pair.switch(index, None, &[]);
            for (id, bytes) in &pair.sides[index].actors {
                assert_eq!(pair.owner_of(id.key), index, "{about}: {id:?} is where it does not belong");
                assert!(all.insert(*id, bytes.clone()).is_none(), "{about}: {id:?} is there twice");
            }
        }
        compare_actors(&all, &pair.model, 0, &about);
        (0..3).for_each(|kind| arrived[kind] += pair.arrived[kind]);
    }
    let enough = arrived.iter().zip([800, 200, 1_000]).all(|(count, least)| *count > least);
    assert!(moves > 1_000 && enough, "{moves} {arrived:?}");
}

/// An actor that leaves has told one that stays much that is still on its way between two workers. What it says from elsewhere
/// comes behind that.
#[test]
fn what_is_on_its_way_between_two_workers_is_run_before_what_comes_from_outside_after_the_switch() {
    // So many that the other worker's inbox is full, and no more wait than a worker still takes messages with.
    const NOTES: u64 = 15;
    let registry = registry();
    let owners = Owners::all_here(2);
    // Where the others are that a walker tells of its step, so that it sends the other worker its notes alone.
    let own = owners.of(Key(0));
    let stays = (1..7).find(|key| owners.of(Key(*key)) != own).unwrap();
    let leaves = (7..18).map(|n| n * 7 + stays).find(|key| owners.of(Key(*key)) == own).unwrap();
    let (own, other) = (usize::from(own), 1 - usize::from(own));
    let mut device = Device::with_owners(&registry, Engine::Cpu { workers: 2 }, &owners);
    device.link.begin_restored_term(0);
    device.start(&registry);
    let down = |device: &mut Device, epoch| {
        for lane in 0..2 {
            let mut down = Vec::new();
            checkpoint::push_cut(&mut down, &Cut { epoch, lane, ..Cut::default() });
            assert_eq!(device.link.send_down(lane as usize, &down), down.len());
        }
    };
    down(&mut device, 0);
    let mut now_us = 1;
    let mut step = |device: &mut Device, worker: usize| {
        now_us += 1;
        device.step_worker(worker, now_us);
        device.link.drain(1000, |_, _| {});
    };
    (0..8).for_each(|turn| step(&mut device, turn % 2));
    assert!(device.link.is_running());
    let from = ActorId::new(Default::default(), Key(1));
    for number in 0..NOTES {
        let walk = walker::Message::Walk { left: 0, token: 0 };
        let header = Header::new(Kind::Tell, walker::id(leaves), from, walker::Message::SIZE, Hlc(number));
        device.link.push(&header, &walk.to_bytes()).unwrap();
    }
    (0..20).for_each(|_| step(&mut device, own));
    let reading = device.link.read()[own];
    assert_eq!((reading.ingress_waiting, reading.spilled_now), (0, NOTES - 8));
    let without = Owners::from_fn(|shard| if shard == shard_of(Key(leaves)) { AWAY } else { owners.of_shard(shard) });
    device.link.ask_switch(1, false, &without);
    down(&mut device, 1);
    let mut parts = [Vec::new(), Vec::new()];
    let mut whole = |device: &mut Device| {
        (0..2).filter(|lane| device.link.collect_cut(*lane, 1, &mut parts[*lane], 9_000)).count() == 2
    };
    let note = listener::Message::Note { from: leaves as u32, number: NOTES };
    let header = Header::new(Kind::Tell, listener::id(stays), walker::id(leaves), listener::Message::SIZE, Hlc(99));
    device.link.push(&header, &note.to_bytes()).unwrap();
    // It comes as early as can be: both workers stand with their next step, and the first thing after the switch may be this.
    (0..3).for_each(|_| [own, other].into_iter().for_each(|worker| step(&mut device, worker)));
    (0..20).for_each(|_| step(&mut device, other));
    while !whole(&mut device) {
        (0..2).for_each(|worker| step(&mut device, worker));
    }
    device.link.set_owners(without);
    (0..200).for_each(|turn| step(&mut device, turn % 2));
    assert!(device.link.is_quiet());
    device.link.ask_cut(2, true);
    let (mut parts, mut listened) = ([Vec::new(), Vec::new()], None);
    while !(0..2).all(|lane| device.link.collect_cut(lane, 2, &mut parts[lane], 9_000)) {
        (0..2).for_each(|worker| step(&mut device, worker));
    }
    for (record, _) in parts.iter().flat_map(|part| split(part)) {
        if let Record::Actor { id, state, .. } = record
            && id == listener::id(stays)
        {
            listened = listener::State::from_bytes(state);
        }
    }
    let listened = listened.expect("it has heard something");
    assert_eq!((listened.heard, listened.out_of_order), (NOTES + 1, 0));
}
