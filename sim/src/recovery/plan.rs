//! What a seed stands for: the node, its disk, when its power fails, and what the clients do.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use ringhold::ActorId;
use ringhold::config::{self, Config};
use ringhold_kernels::id::TypeId;
use ringhold_kernels::plain::Plain;

use super::actors::{journal, sketch, what};
use crate::devices::{self, Mishap};
use crate::disk;
use crate::network::Weather;
use crate::random::{Random, Stream};
use crate::scenario::plan::{PORT, mishaps};

/// Everything that is decided before a run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    pub config: Config,
    /// How each start of the node ends, but for the last one. There are as many device plans as starts.
    pub failures: Vec<Failure>,
    pub devices: Vec<Vec<devices::Plan>>,
    pub disk: disk::Plan,
    /// When the wall clock of the node's machine is set, and by how many microseconds.
    pub clock_jumps: Vec<(Duration, i64)>,
    pub weather: Weather,
    pub clients: Vec<Client>,
    /// The client that comes each time that the node starts again.
    pub newcomer: Client,
    /// How shards move between the devices, where they do.
    pub moves: Option<Moves>,
}

/// Shards move all the time, with pauses between.
#[derive(Clone, Copy, Debug)]
pub struct Moves {
    pub pause_max: Duration,
    /// Out of a thousand shards of a device, so many move at a time.
    pub shards_per_mille: u64,
}

/// When the power of the node's machine fails.
#[derive(Clone, Copy, Debug)]
pub enum Failure {
    /// So long after it came.
    After(Duration),
    /// At a write of the disk.
    Write(u64),
}

#[derive(Clone, Debug)]
pub struct Client {
    pub operations: u32,
    /// Out of a thousand operations, so many are asks.
    pub asks_per_mille: u64,
    /// Out of a thousand operations, so many are followed by a pause of up to `pause_max`.
    pub pause_per_mille: u64,
    pub pause_max: Duration,
    pub asks_max: usize,
}

/// Actors of each type that all clients send to; beside them each client has one of each for itself, which it also ends.
pub const SHARED: u64 = 4;
/// The key of the first of those that have one client.
pub const OWN: u64 = 100;
/// Timers are set for so long at most.
pub const DELAY_MAX: Duration = Duration::from_millis(400);

impl Plan {
    pub fn new(seed: u64) -> Plan {
        let mut random = Random::new(seed, Stream::Plan, 1);
        let r = &mut random;
        let ms = Duration::from_millis;
        let mut devices = r.pick(&[1, 1, 2, 2]);
        let m = &mut Random::new(seed, Stream::Plan, 2);
        let moves = m.per_mille(500).then(|| {
            devices = m.pick(&[2, 2, 3]);
            Moves { pause_max: ms(m.pick(&[5, 50, 300])), shards_per_mille: m.pick(&[200, 500, 1_000]) }
        });
        // Those that stand still for it, as a ring kernel's do.
        let k = &mut Random::new(seed, Stream::Plan, 3);
        let stand: Vec<bool> = (0..devices).map(|_| moves.is_some() && k.per_mille(400)).collect();
        let interval = ms(r.pick(&[5, 10, 30, 80, 200]));
        let committed = if r.per_mille(800) { vec!["journal".to_owned()] } else { vec![] };
        let config = Config {
            node: config::Node {
                name: Some("simulated".into()),
                listen: ([10, 0, 0, 1], PORT).into(),
                ..config::Node::default()
            },
            devices: config::Devices(
                (0..devices)
                    .map(|_| config::Device { workers: Some(r.between(1, 3) as u32), ..config::Device::default() })
                    .collect(),
            ),
            queues: config::Queues {
                ingress_slots: r.pick(&[16, 32, 64]),
                egress_slots: r.pick(&[16, 32, 64]),
                inbox_slots: r.pick(&[16, 32, 64]),
                slot_bytes: 128,
                batch_messages: r.pick(&[1, 2, 7, 32]),
                ..config::Queues::default()
            },
            actors: config::Actors { committed, ..config::Actors::default() },
            checkpoints: config::Checkpoints {
                enabled: true,
                interval,
                committed_interval: interval,
                retained_bytes: r.pick(&[2 << 10, 8 << 10, 64 << 10, 1 << 20]),
                kept: r.between(1, 3) as u32,
            },
            dead_letters: config::DeadLetters { kept: 1 << 20 },
            supervision: config::Supervision {
                stalled_after: ms(r.between(200, 1500)),
                breaker_failures: r.between(1, 2) as u32,
                breaker_retry_min: ms(r.pick(&[20, 100, 700])),
                breaker_retry_max: ms(1_500),
                ..config::Supervision::default()
            },
            ..Config::default()
        };
        let failures: Vec<Failure> = (0..r.pick(&[0, 0, 1, 1, 1, 2, 3]))
            .map(|_| match r.below(2) {
                0 => Failure::After(ms(r.between(1, 1_500))),
                _ => Failure::Write(r.between(1, 300)),
            })
            .collect();
        let pause_per_mille = r.pick(&[0, 50, 300, 900]);
        let pause_max = ms(r.between(1, 20));
        // One start more: after the drain.
        let devices = (0..failures.len() + 2)
            .map(|_| {
                let unlucky = r.per_mille(500).then(|| r.below(devices));
                let mut of = |device| {
                    let unlucky = unlucky == Some(device);
                    let mut mishaps = || if unlucky { spare_the_first(mishaps(r)) } else { [].into() };
                    let (own, other) = (mishaps(), mishaps());
                    let fallback = r.per_mille(600).then(|| devices::Fallback {
                        workers: r.between(1, 3) as u32,
                        mishaps: if r.per_mille(300) { other } else { [].into() },
                        untrusted: r.per_mille(300),
                    });
                    devices::Plan { pause_per_mille, pause_max, mishaps: own, fallback, stands: stand[device as usize] }
                };
                (0..devices).map(&mut of).collect::<Vec<_>>()
            })
            .collect();
        let full = r.per_mille(250).then(|| {
            let from = ms(r.between(1, 1_500));
            from..from + ms(r.between(10, 1_500))
        });
        let disk = disk::Plan {
            full: full.into_iter().collect(),
            job_max: Duration::from_micros(r.pick(&[0, 500, 3_000, 20_000])),
            manifests_first: false,
            forgets: None,
            goes_back: false,
        };
        let clock_jumps = (0..r.pick(&[0, 0, 1, 2]))
            .map(|_| {
                let by_us = r.pick(&[1_000, 200_000, 5_000_000, 7_200_000_000]);
                (ms(r.between(1, 2_000)), if r.per_mille(500) { by_us } else { -by_us })
            })
            .collect();
        let delay_min = Duration::from_micros(r.pick(&[100, 1_000, 10_000]));
        let weather = Weather {
            delay_min,
            delay_max: delay_min + Duration::from_micros(r.pick(&[0, 1_000, 5_000])),
            loss_per_mille: r.pick(&[0, 1, 10]),
            duplicate_per_mille: r.pick(&[0, 1]),
            straggle_per_mille: 0,
            straggle: Duration::ZERO,
            datagram_bytes_max: 1_472,
        };
        let clients = (0..r.between(1, 3))
            .map(|_| Client {
                operations: r.between(20, 150) as u32,
                asks_per_mille: r.pick(&[100, 500, 900]),
                pause_per_mille: r.pick(&[20, 100, 400]),
                pause_max: ms(r.pick(&[2, 30, 200])),
                asks_max: r.between(1, 20) as usize,
            })
            .collect();
        let newcomer =
            Client { operations: 12, asks_per_mille: 900, pause_per_mille: 0, pause_max: Duration::ZERO, asks_max: 12 };
        Plan { config, failures, devices, disk, clock_jumps, weather, clients, newcomer, moves }
    }

    /// The types of which nothing goes out before it is durable.
    pub fn committed(&self) -> BTreeSet<TypeId> {
        self.config.actors.committed.iter().map(|name| TypeId::of(name)).collect()
    }
}

/// A host that hangs for ever before it is up is not the node's to cure within the time that it has to start.
pub fn spare_the_first(mut mishaps: VecDeque<Mishap>) -> VecDeque<Mishap> {
    for mishap in &mut mishaps {
        if let Mishap::Hang { step, .. } = mishap {
            *step += 60;
        }
    }
    mishaps
}

/// One thing a client does.
#[derive(Clone, Debug)]
pub struct Operation {
    pub what: u32,
    pub to: ActorId,
    pub does: Does,
    pub asks: bool,
}

/// What an operation comes to beside being put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    Put,
    /// An actor puts what follows: the same one after a while, or another at once.
    Follow(ActorId),
    Close,
}

/// The next operation of a client, and its message.
pub fn operation(r: &mut Random, source: u32, seq: u32, asks_per_mille: u64) -> (Operation, Vec<u8>) {
    let what = what(source, seq);
    let durable = r.per_mille(600);
    let own = r.per_mille(150);
    let key = if own { OWN + u64::from(source) } else { r.below(SHARED) };
    let (to, other) = match (durable, r.below(SHARED)) {
        (true, to) => (journal::id(key), sketch::id(to)),
        (false, to) => (sketch::id(key), journal::id(to)),
    };
    let delay_us = r.below(DELAY_MAX.as_micros() as u64) as u32;
    let (does, payload) = match (own, r.below(10), durable) {
        (true, 0..3, true) => (Does::Close, journal::Message::Close { what }.to_bytes()),
        (true, 0..3, false) => (Does::Close, sketch::Message::Close { what }.to_bytes()),
        (false, 0..2, true) => (Does::Follow(other), journal::Message::Forward { what, to: other.key.0 }.to_bytes()),
        (false, 0..2, false) => (Does::Follow(other), sketch::Message::Forward { what, to: other.key.0 }.to_bytes()),
        (false, 2, true) => (Does::Follow(to), journal::Message::Later { what, delay_us }.to_bytes()),
        (false, 2, false) => (Does::Follow(to), sketch::Message::Later { what, delay_us }.to_bytes()),
        (_, _, true) => (Does::Put, journal::Message::Put { what }.to_bytes()),
        (_, _, false) => (Does::Put, sketch::Message::Put { what }.to_bytes()),
    };
    (Operation { what, to, does, asks: r.per_mille(asks_per_mille) }, payload)
}
