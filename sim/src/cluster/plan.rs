//! What a seed stands for: the nodes, their wires and disks, what happens to them, and what clients do.

use std::time::Duration;

use ringhold_cluster::control::Timing;
use ringhold_cluster::control::lease::DRIFT_PER_MILLE;

use super::wires::Weather;
use crate::random::{Random, Stream};

/// Nodes that stay members: theirs are the devices between which clients move shards.
pub const STAYS: u64 = 3;
/// Shards that clients move.
pub const SHARDS: u32 = 4;

/// Everything that is decided before a run begins.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Nodes that it begins with.
    pub nodes: u64,
    pub weather: Weather,
    pub timing: Timing,
    /// A disk's job takes up to so long.
    pub job_max: Duration,
    /// Out of a thousand starts of a node, so many end in a power failure at one of its disk's writes.
    pub failing_per_mille: u64,
    pub clients: u64,
    /// A client waits up to so long between two of its calls.
    pub think_max: Duration,
    /// Clients go on for so long.
    pub span: Duration,
    /// What happens, and how long after the one before.
    pub mishaps: Vec<(Duration, Mishap)>,
    /// Nodes that are paused, drawn as those are, and for how long: beside all that.
    pub pauses: Vec<(Duration, u64, Duration)>,
    /// Nodes that end in good order, drawn as those are, and for how long they are down: beside all that.
    pub ends: Vec<(Duration, u64, Duration)>,
}

/// What happens to nodes. A node is drawn from those that there are then, by a number.
#[derive(Clone, Copy, Debug)]
pub enum Mishap {
    /// Its power fails, and comes back after a while.
    Crash { node: u64, down: Duration },
    /// That of all of them, at once.
    CrashAll { down: Duration },
    /// It reaches nobody, or nobody reaches it, or both.
    CutOff { node: u64, deaf: bool, mute: bool, span: Duration },
    /// Half of them do not reach the others; from the node on, around.
    Split { node: u64, span: Duration },
    /// Two of them lose each other again and again.
    Flap { node: u64, other: u64, times: u32, span: Duration },
    /// Its messages take longer.
    Slow { node: u64, by: Duration, span: Duration },
    /// It comes back at another address.
    Move { node: u64, down: Duration },
    /// Its disk is lost, and it comes back under its old number with an empty one. Later it is removed, and another comes.
    Wipe { node: u64 },
    /// Somebody sets how many vote.
    Voters { most: u32 },
    /// A new node joins.
    Join,
    /// A node is drained, and removed when it does not vote any more.
    Leave { node: u64 },
}

impl Plan {
    pub fn new(seed: u64) -> Plan {
        let mut random = Random::new(seed, Stream::Plan, 2);
        let r = &mut random;
        let ms = Duration::from_millis;
        let nodes = r.pick(&[3, 3, 3, 5, 5, 20]);
        let delay_min = Duration::from_micros(r.pick(&[200, 1_000, 5_000, 20_000]));
        let weather = Weather {
            delay_min,
            delay_max: delay_min + Duration::from_micros(r.pick(&[0, 2_000, 10_000])),
            loss_per_mille: r.pick(&[0, 0, 5, 40]),
        };
        let timing = Timing { snapshot_entries: r.pick(&[10, 40, 200]), ..Plan::timing(seed, &weather) };
        let long = r.per_mille(300);
        let mut mishaps: Vec<(Duration, Mishap)> = (0..r.between(3, 14))
            .map(|_| {
                let node = r.below(1 << 20);
                let span = ms(if long { r.between(2_000, 45_000) } else { r.between(100, 6_000) });
                let down = span.min(ms(15_000));
                let mishap = match r.below(100) {
                    0..22 => Mishap::Crash { node, down },
                    22..27 => Mishap::CrashAll { down: down.min(ms(2_000)) },
                    27..37 => Mishap::CutOff { node, deaf: true, mute: true, span },
                    37..45 => Mishap::CutOff { node, deaf: true, mute: false, span },
                    45..53 => Mishap::CutOff { node, deaf: false, mute: true, span },
                    53..61 => Mishap::Split { node, span },
                    61..67 => Mishap::Flap {
                        node,
                        other: r.below(1 << 20),
                        times: r.between(2, 8) as u32,
                        span: ms(r.between(100, 900)),
                    },
                    67..73 => Mishap::Slow { node, by: ms(r.between(20, 300)), span },
                    73..78 => Mishap::Move { node, down },
                    78..82 => Mishap::Wipe { node },
                    82..88 => Mishap::Voters { most: r.pick(&[1, 3, 5, 7]) },
                    88..95 => Mishap::Join,
                    _ => Mishap::Leave { node },
                };
                (ms(r.between(0, 5_000)), mishap)
            })
            .collect();
        // Nodes that all come back at other addresses while they are cut off from each other never find each other again.
        let mut moves = 0;
        mishaps.retain(|(_, mishap)| {
            moves += u64::from(matches!(mishap, Mishap::Move { .. }));
            !matches!(mishap, Mishap::Move { .. }) || moves <= (nodes - 1) / 2
        });
        Plan {
            nodes,
            weather,
            timing,
            job_max: Duration::from_micros(r.pick(&[0, 1_000, 5_000, 30_000])),
            failing_per_mille: r.pick(&[0, 300, 700]),
            clients: r.between(2, 5),
            think_max: ms(r.pick(&[20, 100, 600])),
            span: ms(r.between(15_000, 60_000)),
            mishaps,
            pauses: Plan::pauses(seed),
            ends: Plan::ends(seed),
        }
    }

    /// In some of the seeds whose weather allows it leases are long and elections are quick, so that there are leases in force that
    /// leaders before have granted.
    fn timing(seed: u64, weather: &Weather) -> Timing {
        let ms = Duration::from_millis;
        let long = Random::new(seed, Stream::Plan, 4).per_mille(500);
        match long && weather.loss_per_mille == 0 && weather.delay_max <= ms(5) {
            true => Timing {
                heartbeat: ms(50),
                election_min: ms(150),
                election_max: ms(300),
                lease: ms(2_000),
                ..Timing::default()
            },
            false => Timing::default(),
        }
    }

    fn pauses(seed: u64) -> Vec<(Duration, u64, Duration)> {
        let mut random = Random::new(seed, Stream::Plan, 3);
        let ms = Duration::from_millis;
        let pause =
            |r: &mut Random| (ms(r.between(500, 8_000)), r.below(1 << 20), ms(r.pick(&[150, 350, 450, 700, 2_500])));
        (0..random.between(2, 8)).map(|_| pause(&mut random)).collect()
    }

    /// These came later: the other seeds go on standing for what they stood for.
    fn ends(seed: u64) -> Vec<(Duration, u64, Duration)> {
        if seed % 4 != 3 {
            return Vec::new();
        }
        let mut random = Random::new(seed, Stream::Plan, 5);
        let ms = Duration::from_millis;
        let end = |r: &mut Random| (ms(r.between(500, 12_000)), r.below(1 << 20), ms(r.pick(&[10, 300, 4_000])));
        (0..random.between(1, 6)).map(|_| end(&mut random)).collect()
    }

    /// By how much the clock of a node is fast, of a thousand parts.
    pub fn drift_of(&self, seed: u64, number: u64) -> i64 {
        let most = DRIFT_PER_MILLE;
        Random::new(seed, Stream::Chaos, 200 + number).below(2 * most + 1) as i64 - most as i64
    }

    /// The timing of one node: some are faster or slower than others by up to a tenth, but in what leases count on.
    pub fn timing_of(&self, seed: u64, number: u64) -> Timing {
        let rate = Random::new(seed, Stream::Chaos, 1 + number).between(900, 1_100) as f64 / 1_000.0;
        let Timing { heartbeat, election_min, .. } = self.timing;
        Timing { heartbeat: heartbeat.mul_f64(rate), election_min: election_min.mul_f64(rate), ..self.timing }
    }
}
