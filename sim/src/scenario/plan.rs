//! What a seed stands for: the node, its devices, the weather, the mishaps, and what the clients do.

use std::time::Duration;

use ringhold::ActorId;
use ringhold::config::{self, Config, Overflow};
use ringhold_kernels::actor::Actor;
use ringhold_kernels::id::{Key, TypeId};
use ringhold_kernels::plain::Plain;

use super::actors::{ledger, sequencer};
use super::model::{Id, Message};
use crate::devices::{self, Mishap, Point};
use crate::network::Weather;
use crate::random::{Random, Stream};

/// Everything that is decided before a run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    pub config: Config,
    pub devices: Vec<devices::Plan>,
    pub weather: Weather,
    /// How far the node's wall clock is ahead of the world's, in microseconds.
    pub skew_us: i64,
    pub clients: Vec<Client>,
    /// The node is drained while the clients still work.
    pub drain_early: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct Client {
    pub operations: u64,
    /// Out of a thousand operations, so many are followed by a pause of up to `pause_max`.
    pub pause_per_mille: u64,
    pub pause_max: Duration,
    pub asks_max: usize,
    /// The network between it and the node is cut at a time, for a while.
    pub cuts: Vec<(Duration, Duration)>,
    pub closes_first: bool,
}

pub const LEDGERS: u64 = 12;
pub const SEQUENCERS: u64 = 8;
/// Timers are set for so long at most.
pub const DELAY_MAX: Duration = Duration::from_secs(2);
/// The node's port.
pub const PORT: u16 = 7400;

impl Plan {
    pub fn new(seed: u64) -> Plan {
        let mut random = Random::new(seed, Stream::Plan, 0);
        let r = &mut random;
        let devices = r.between(1, 3);
        let calm = r.per_mille(500);
        let queues = config::Queues {
            ingress_slots: r.pick(&[16, 32, 64, 256]),
            egress_slots: r.pick(&[16, 32, 64, 256]),
            inbox_slots: r.pick(&[16, 16, 32, 64]),
            slot_bytes: r.pick(&[128, 256]),
            overflow: r.pick(&[
                Overflow::Block,
                Overflow::Block,
                Overflow::DropOldest,
                Overflow::DropNewest,
                Overflow::Reject,
            ]),
            high_water_percent: r.pick(&[50, 80]),
            low_water_percent: r.pick(&[20, 40]),
            batch_messages: r.pick(&[1, 2, 7, 32, 256]),
        };
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
            queues,
            // All are kept, so that each can be looked at.
            dead_letters: config::DeadLetters { kept: 1 << 20 },
            supervision: config::Supervision {
                stalled_after: Duration::from_millis(r.between(200, 1500)),
                ..config::Supervision::default()
            },
            ..Config::default()
        };
        let pause_per_mille = r.pick(&[0, 50, 300, 900]);
        let unlucky = r.below(devices);
        let devices = (0..devices)
            .map(|device| devices::Plan {
                pause_per_mille,
                pause_max: Duration::from_millis(r.between(1, 20)),
                fallback: None,
                stands: false,
                mishaps: if !calm && device == unlucky { mishaps(r) } else { [].into() },
            })
            .collect();
        let delay_min = Duration::from_micros(r.pick(&[100, 1_000, 10_000, 40_000]));
        let weather = Weather {
            delay_min,
            delay_max: delay_min + Duration::from_micros(r.pick(&[0, 1_000, 5_000, 30_000])),
            loss_per_mille: r.pick(&[0, 1, 10, 30]),
            duplicate_per_mille: r.pick(&[0, 1, 20]),
            straggle_per_mille: r.pick(&[0, 0, 5]),
            straggle: Duration::from_millis(r.between(50, 400)),
            datagram_bytes_max: r.pick(&[1_200, 1_472, 8_952]),
        };
        let clients = (0..r.between(1, 3)).map(|_| client(r)).collect();
        let drain_early = r.per_mille(120).then(|| Duration::from_millis(r.between(50, 3_000)));
        let skew_us = r.pick(&[0, -1_500_000, 3_000_000]);
        Plan { config, devices, weather, skew_us, clients, drain_early }
    }
}

pub fn mishaps(r: &mut Random) -> std::collections::VecDeque<Mishap> {
    let mut one = || match r.below(10) {
        0 | 1 => Mishap::Crash(Point::Step(r.between(1, 300))),
        2 | 3 => Mishap::Crash(Point::Message(r.between(1, 400))),
        4 | 5 => Mishap::Crash(Point::Ring(r.between(1, 150))),
        6 => Mishap::Hang { step: r.between(1, 200), pause: None },
        7 => Mishap::Hang { step: r.between(1, 200), pause: Some(Duration::from_millis(r.between(1, 3_000))) },
        8 => Mishap::FailsToStart,
        _ => Mishap::DiesStarting,
    };
    let mut all: std::collections::VecDeque<Mishap> = [one(), one(), one()].into();
    all.truncate(r.between(1, 3) as usize);
    all
}

fn client(r: &mut Random) -> Client {
    let cuts = match r.below(4) {
        0 => vec![(r.between(20, 3_000), r.pick(&[300, 3_000, 9_500, 11_000, 25_000]))],
        _ => vec![],
    };
    let ms = Duration::from_millis;
    Client {
        operations: r.between(20, 400),
        pause_per_mille: r.pick(&[20, 100, 400]),
        pause_max: ms(r.pick(&[2, 30, 200])),
        asks_max: r.between(1, 40) as usize,
        cuts: cuts.into_iter().map(|(at, lasts)| (ms(at), ms(lasts))).collect(),
        closes_first: r.per_mille(500),
    }
}

/// One thing a client does.
pub struct Operation {
    pub id: Id,
    pub to: ActorId,
    pub payload: Vec<u8>,
    /// `None` where the payload is no message of the actor's type.
    pub message: Option<Message>,
    pub wish: Wish,
}

/// What a client wants of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Tell,
    /// With its deadline.
    Ask(Duration),
    /// An ask that is given up after a while.
    AskAndLeave(Duration),
}

/// A type of which the node knows nothing.
pub const UNKNOWN: TypeId = TypeId::of("simulated.unknown");
/// How long an ask waits that is meant to be answered.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The next operation of a client.
pub fn operation(r: &mut Random, source: u32, seq: u32) -> Operation {
    use ledger::Message as L;
    use sequencer::Message as S;
    let wish = match r.below(100) {
        0..60 => Wish::Tell,
        60..94 => Wish::Ask(PATIENCE),
        94..97 => Wish::Ask(Duration::from_millis(r.between(1, 300))),
        _ => Wish::AskAndLeave(Duration::from_millis(r.below(100))),
    };
    let key = match r.per_mille(300) {
        true => r.below(2),
        false => r.below(LEDGERS),
    };
    let at_ledger = |message| (ledger::id(key), Message::Ledger(message));
    let at_sequencer = |r: &mut Random, message| (sequencer::id(r.below(SEQUENCERS)), Message::Sequencer(message));
    let amount = r.below(1_000) as i64 - 300;
    let (to, message) = match r.below(1000) {
        0..300 => at_ledger(L::Post { source, seq, amount }),
        300..480 => {
            // Twelve of sixteen fours of bits name a ledger that posts go to as well; the others too are actors.
            let (hops, route) = (r.between(1, 7) as u32, r.word());
            at_ledger(L::Transfer { source, seq, hop: 0, hops, amount, route })
        }
        480..530 => at_ledger(L::Burst { source, seq, count: r.between(1, 120) as u32, to: r.below(LEDGERS) }),
        530..580 => at_ledger(L::Divide { source, seq, by: r.below(3) as i64 }),
        580..620 => at_ledger(L::Mark { source, seq, at: r.below(10) as u32 }),
        620..650 => {
            let to = if r.per_mille(700) { sequencer::id(r.below(SEQUENCERS)) } else { ledger::id(key) };
            at_ledger(L::Note { source, seq, to })
        }
        650..670 => at_ledger(L::Silent { source, seq }),
        670..690 => at_ledger(L::Close { source, seq }),
        690..850 => at_sequencer(r, S::Note { source, seq, part: 0 }),
        850..930 => {
            let delay_us = r.below(DELAY_MAX.as_micros() as u64) as u32;
            at_sequencer(r, S::Later { source, seq, delay_us })
        }
        930..950 => at_sequencer(r, S::Stop { source, seq }),
        _ => {
            // No message at all, but its sender can still be read: source and seq are its last bytes.
            let to = ActorId::new(r.pick(&[UNKNOWN, ledger::Actor::TYPE]), Key(r.below(LEDGERS)));
            let bytes = r.pick(&[8, 24, ledger::Message::SIZE]);
            let mut payload = vec![0xff; bytes - 8];
            payload.extend([source, seq].into_iter().flat_map(u32::to_le_bytes));
            return Operation { id: Id::root(source, seq), to, payload, message: None, wish };
        }
    };
    Operation { id: Id::root(source, seq), to, payload: message.bytes(), message: Some(message), wish }
}
