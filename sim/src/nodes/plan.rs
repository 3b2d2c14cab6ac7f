//! What a seed stands for: the nodes, their disks, devices and network, what happens to them, and what the clients do.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::ValueEnum;
use ringhold::config::{self, Config};
use ringhold_cluster::control::lease::DRIFT_PER_MILLE;
use ringhold_kernels::id::TypeId;

use crate::devices;
use crate::network::Weather;
use crate::random::{Random, Stream};
use crate::recovery::plan::{Client, Moves, spare_the_first};
use crate::scenario::plan::{PORT, mishaps};

/// Everything that is decided before a run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: u8,
    /// Of each node.
    pub devices: u16,
    /// Of each node, but for its name, where it listens, and whom it joins.
    pub config: Config,
    /// A job of a disk takes up to so long.
    pub job_max: Duration,
    pub weather: Weather,
    /// By how much the wall clock of each node is ahead, and by how many thousandths its steady clock is fast.
    pub clocks: Vec<(i64, i64)>,
    pub clients: Vec<Client>,
    /// The client that comes with each mishap.
    pub newcomer: Client,
    /// How shards move between all devices, where they do.
    pub moves: Option<Moves>,
    /// They move only between the devices of a node: more than one where others have died.
    pub moves_within_nodes: bool,
    /// Out of a thousand starts of a node, so many have a device with mishaps of its own.
    pub unlucky_per_mille: u64,
    pub pause_per_mille: u64,
    pub pause_max: Duration,
    /// What happens, and how long after the one before.
    pub mishaps: Vec<(Duration, Mishap)>,
    /// Each mishap comes when nothing is left of the one before.
    pub one_by_one: bool,
    /// In the end a node dies for good of which others have everything.
    pub failover: Option<u64>,
}

/// What happens to nodes. Which one it is a number says, of those that there are then.
#[derive(Clone, Copy, Debug)]
pub enum Mishap {
    /// Its power fails, and comes back after a while; at a write of its disk, where that is said.
    Crash { node: u64, write: Option<u64>, down: Duration },
    /// It reaches none of the others, or none of them reaches it, or both; and so it is with clients, where that is said.
    CutOff { node: u64, deaf: bool, mute: bool, clients: bool, span: Duration },
    /// Two of them lose each other again and again.
    Flap { node: u64, other: u64, times: u32, span: Duration },
    /// It is stopped in good order, and started again.
    Stop { node: u64, down: Duration },
    /// Nothing more is given to it for a while, and what it has is moved away.
    Drain { node: u64, span: Duration },
    /// It stands still for a while, and then goes on as if nothing had been.
    Pause { node: u64, span: Duration },
    /// The power of all fails at once, and comes back to each after up to so long.
    Blackout { down: Duration },
}

/// What a run makes likely, where all troubles together would leave little of what one of them shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Bias {
    /// Nodes die one after the other, each for longer than its lease, while clients send all the time; nothing else goes wrong.
    Deaths,
    /// The same of nodes that are cut off.
    Cuts,
    /// Deaths, and shards move all the time between the devices of each node: what a dead node had, and what was there before.
    Moves,
}

impl Bias {
    fn apply(self, plan: &mut Plan, r: &mut Random) {
        let ms = Duration::from_millis;
        plan.moves = None;
        plan.unlucky_per_mille = 0;
        plan.failover = None;
        plan.one_by_one = true;
        plan.weather = Weather { loss_per_mille: 0, duplicate_per_mille: 0, straggle_per_mille: 0, ..plan.weather };
        plan.config.node.lease = ms(300);
        plan.config.actors.committed = vec!["journal".to_owned()];
        let streaming = |client: &Client| Client {
            operations: 150,
            pause_per_mille: 800,
            pause_max: ms(30),
            asks_max: 20,
            ..client.clone()
        };
        plan.clients.resize(3, plan.clients[0].clone());
        plan.clients.iter_mut().for_each(|client| *client = streaming(client));
        plan.newcomer.operations = 60;
        if self == Bias::Moves {
            (plan.nodes, plan.devices) = (3, 1);
            plan.clocks.resize(3, (0, 0));
            plan.config.devices.0.truncate(1);
            plan.moves = Some(Moves { pause_max: ms(r.pick(&[5, 30])), shards_per_mille: 300 });
            plan.moves_within_nodes = true;
            // Quick moves, and clients that hear late of them.
            (plan.weather.delay_min, plan.weather.delay_max) = (ms(5), ms(10));
            plan.job_max = Duration::ZERO;
            (plan.config.checkpoints.interval, plan.config.checkpoints.committed_interval) = (ms(10), ms(10));
        }
        let mut mishap = |_| {
            let (node, span) = (r.word(), ms(1_500));
            let mishap = match self {
                Bias::Deaths | Bias::Moves => Mishap::Crash { node, write: None, down: span },
                Bias::Cuts => Mishap::CutOff { node, deaf: true, mute: true, clients: false, span },
            };
            (ms(r.between(50, 300)), mishap)
        };
        plan.mishaps = (0..3).map(&mut mishap).collect();
    }
}

impl Plan {
    pub fn new(seed: u64, bias: Option<Bias>) -> Plan {
        let mut plan = Plan::of(seed);
        if let Some(bias) = bias {
            bias.apply(&mut plan, &mut Random::new(seed, Stream::Plan, 4));
        }
        plan
    }

    fn of(seed: u64) -> Plan {
        let mut random = Random::new(seed, Stream::Plan, 3);
        let r = &mut random;
        let ms = Duration::from_millis;
        let nodes = r.pick(&[2, 3, 3, 3, 3, 4]);
        let devices = r.pick(&[1, 1, 1, 2]);
        let interval = ms(r.pick(&[10, 30, 80, 200]));
        let committed = if r.per_mille(850) { vec!["journal".to_owned()] } else { vec![] };
        let delay_min = Duration::from_micros(r.pick(&[100, 1_000, 5_000]));
        let weather = Weather {
            delay_min,
            delay_max: delay_min + Duration::from_micros(r.pick(&[0, 1_000, 5_000])),
            loss_per_mille: r.pick(&[0, 0, 1, 10]),
            duplicate_per_mille: r.pick(&[0, 1]),
            straggle_per_mille: r.pick(&[0, 0, 1]),
            straggle: ms(100),
            datagram_bytes_max: 1_472,
        };
        let config = Config {
            node: config::Node {
                lease: ms(r.pick(&[300, 400, 1_000])),
                drain_timeout: Duration::from_secs(5),
                ..config::Node::default()
            },
            devices: config::Devices(
                (0..devices)
                    .map(|_| config::Device { workers: Some(r.between(1, 2) as u32), ..config::Device::default() })
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
                retained_bytes: r.pick(&[8 << 10, 64 << 10, 1 << 20]),
                kept: r.between(1, 3) as u32,
            },
            dead_letters: config::DeadLetters { kept: 1 << 20 },
            supervision: config::Supervision {
                stalled_after: ms(r.between(300, 1_500)),
                ..config::Supervision::default()
            },
            ..Config::default()
        };
        let clocks = (0..nodes)
            .map(|_| {
                let most = DRIFT_PER_MILLE;
                let skew_us = r.pick(&[0, 0, 20_000, -20_000, 2_000_000, -2_000_000]);
                (skew_us, r.below(2 * most + 1) as i64 - most as i64)
            })
            .collect();
        let moves = r
            .per_mille(500)
            .then(|| Moves { pause_max: ms(r.pick(&[50, 300, 1_000])), shards_per_mille: r.pick(&[50, 300, 1_000]) });
        let clients = (0..r.between(2, 3))
            .map(|_| Client {
                operations: r.between(30, 120) as u32,
                asks_per_mille: r.pick(&[100, 500, 900]),
                pause_per_mille: r.pick(&[100, 400, 800]),
                pause_max: ms(r.pick(&[30, 200])),
                asks_max: r.between(1, 20) as usize,
            })
            .collect();
        let newcomer =
            Client { operations: 12, asks_per_mille: 900, pause_per_mille: 0, pause_max: Duration::ZERO, asks_max: 12 };
        let mut mishaps: Vec<_> = (0..r.between(1, 4)).map(|_| (ms(r.between(0, 1_500)), mishap(r))).collect();
        // These came later: the other seeds go on standing for what they stood for.
        if seed % 5 == 1 {
            let later = &mut Random::new(seed, Stream::Plan, 5);
            for _ in 0..later.between(1, 2) {
                let at = later.below(mishaps.len() as u64 + 1) as usize;
                mishaps.insert(at, (ms(later.between(0, 1_500)), later_mishap(later)));
            }
        }
        Plan {
            nodes,
            devices,
            config,
            job_max: Duration::from_micros(r.pick(&[0, 500, 3_000, 20_000])),
            weather,
            clocks,
            clients,
            newcomer,
            moves,
            moves_within_nodes: false,
            unlucky_per_mille: r.pick(&[0, 0, 300]),
            pause_per_mille: r.pick(&[0, 50, 300]),
            pause_max: ms(r.between(1, 20)),
            mishaps,
            one_by_one: r.per_mille(600),
            failover: r.per_mille(500).then(|| r.word()),
        }
    }

    /// The types of which nothing goes out before it is durable.
    pub fn committed(&self) -> BTreeSet<TypeId> {
        self.config.actors.committed.iter().map(|name| TypeId::of(name)).collect()
    }

    /// The configuration of a node, by its number from 1 on.
    pub fn config_of(&self, number: u8) -> Config {
        let others = (1..=self.nodes).filter(|other| *other != number && number != 1);
        Config {
            node: config::Node {
                name: Some(name(number)),
                listen: ([10, 0, 0, number], PORT).into(),
                join: others.map(|other| format!("10.0.0.{other}:{PORT}")).collect(),
                ..self.config.node.clone()
            },
            ..self.config.clone()
        }
    }

    /// How the devices of one start of a node behave.
    pub fn devices_of(&self, seed: u64, number: u8, start: u64) -> Vec<devices::Plan> {
        let mut random = Random::new(seed, Stream::Plan, 1 << 16 | u64::from(number) << 8 | start);
        let r = &mut random;
        let unlucky = r.per_mille(self.unlucky_per_mille).then(|| r.below(u64::from(self.devices)));
        (0..u64::from(self.devices))
            .map(|device| {
                let mishaps = if unlucky == Some(device) { spare_the_first(mishaps(r)) } else { [].into() };
                devices::Plan { mishaps, ..self.later() }
            })
            .collect()
    }

    /// How a device behaves that a node is given while it runs.
    pub fn later(&self) -> devices::Plan {
        devices::Plan {
            pause_per_mille: self.pause_per_mille,
            pause_max: self.pause_max,
            mishaps: [].into(),
            fallback: None,
            stands: false,
        }
    }
}

/// What the node of a machine is called.
pub fn name(machine: u8) -> String {
    format!("n{machine}")
}

fn mishap(r: &mut Random) -> Mishap {
    let ms = Duration::from_millis;
    let node = r.word();
    match r.below(12) {
        0..4 => Mishap::Crash {
            node,
            write: r.per_mille(500).then(|| r.between(1, 100)),
            down: ms(r.pick(&[50, 500, 3_000])),
        },
        4..7 => {
            let (deaf, mute) = r.pick(&[(true, true), (true, true), (true, false), (false, true)]);
            Mishap::CutOff { node, deaf, mute, clients: r.per_mille(500), span: ms(r.pick(&[200, 600, 2_500, 10_000])) }
        }
        7 | 8 => Mishap::Flap { node, other: r.word(), times: r.between(2, 6) as u32, span: ms(r.pick(&[50, 300])) },
        9 | 10 => Mishap::Stop { node, down: ms(r.pick(&[50, 1_000])) },
        _ => Mishap::Drain { node, span: ms(r.between(100, 2_000)) },
    }
}

fn later_mishap(r: &mut Random) -> Mishap {
    let ms = Duration::from_millis;
    match r.below(2) {
        0 => Mishap::Pause { node: r.word(), span: ms(r.pick(&[100, 1_200, 4_000])) },
        _ => Mishap::Blackout { down: ms(r.pick(&[50, 500, 3_000])) },
    }
}
