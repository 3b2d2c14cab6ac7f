//! Which load a node sheds when memory or capacity is short: decisions only.
//!
//! An ordinary full queue is no shortage: with `queues.overflow = "block"` its clients wait, and no more. Short is what does not
//! get better by waiting a moment:
//!
//! | what | of which 100 % is |
//! |---|---|
//! | the node's memory, that of its device hosts included | `limits.memory_bytes`, where that is set |
//! | messages kept for a checkpoint, where none has been made for [`SHORT_AFTER`] since one failed | `checkpoints.retained_bytes` |
//! | messages that wait for a device which has had no host for [`SHORT_AFTER`] | its ingress rings |
//!
//! The fullest of them is the *pressure*, and by that load is shed in this order, each step with those before it:
//!
//! | from | until under | refused |
//! |---|---|---|
//! | 80 % | 70 % | new sessions |
//! | 85 % | 75 % | messages from outside to actors that do not exist |
//! | 90 % | 80 % | tells from outside |
//! | 95 % | 85 % | asks from outside |
//!
//! Messages between actors, replies, and what a client sends again, never.

use std::collections::BTreeMap;
use std::time::Duration;

/// What is refused: this, and all before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    #[default]
    Nothing = 0,
    Sessions = 1,
    Creation = 2,
    Tells = 3,
    Asks = 4,
}

impl Level {
    const ALL: [Level; 5] = [Level::Nothing, Level::Sessions, Level::Creation, Level::Tells, Level::Asks];

    pub fn from_u8(value: u8) -> Level {
        Level::ALL.get(usize::from(value)).copied().unwrap_or(Level::Asks)
    }

    /// The pressure from which on it is shed.
    const fn begins_at_percent(self) -> u64 {
        match self {
            Level::Nothing => 0,
            Level::Sessions => 80,
            Level::Creation => 85,
            Level::Tells => 90,
            Level::Asks => 95,
        }
    }
}

/// How far the pressure must fall under what began a step until that ends.
const HYSTERESIS_PERCENT: u64 = 10;
/// A device that has had no host for so long is short of capacity, and one whose checkpoints have failed for so long is short of
/// memory. Most are back in a moment.
pub const SHORT_AFTER: Duration = Duration::from_secs(2);

/// What the node knows of its shortages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signals {
    /// Bytes in use, and the limit, where there is one.
    pub memory: Option<(u64, u64)>,
    pub devices: Vec<DeviceSignals>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeviceSignals {
    pub name: String,
    pub running: bool,
    /// Messages that wait for it, and the room there is for them.
    pub waiting: u64,
    pub room: u64,
    /// Its last checkpoint failed.
    pub failing: bool,
    /// Bytes kept for the next one, and how many there may be.
    pub retained: u64,
    pub retained_max: u64,
}

/// How short it is, and of what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub percent: u64,
    /// For people; empty where nothing is in use.
    pub why: String,
}

/// Decides what is shed. See the module's documentation.
#[derive(Debug, Default)]
pub struct Shed {
    level: Level,
    /// Since when each device has had no host, and since when its checkpoints have failed.
    down: BTreeMap<String, Duration>,
    failing: BTreeMap<String, Duration>,
}

impl Shed {
    /// Takes in what there is to know, at a time since any fixed point. Returns what is shed from now on, and why.
    pub fn step(&mut self, now: Duration, signals: &Signals) -> (Level, Pressure) {
        let pressure = self.pressure(now, signals);
        let reached = |level: &Level| pressure.percent >= level.begins_at_percent();
        let kept =
            |level: &Level| pressure.percent + HYSTERESIS_PERCENT >= level.begins_at_percent() && *level <= self.level;
        let highest = Level::ALL.into_iter().filter(|level| reached(level) || kept(level)).max();
        self.level = highest.unwrap_or_default();
        (self.level, pressure)
    }

    fn pressure(&mut self, now: Duration, signals: &Signals) -> Pressure {
        lasts(&mut self.down, now, signals, |device| !device.running);
        lasts(&mut self.failing, now, signals, |device| device.failing);
        let short = |since: &BTreeMap<String, Duration>, name: &String| {
            since.get(name).is_some_and(|since| now >= *since + SHORT_AFTER)
        };
        let mut found = Vec::new();
        if let Some((bytes, max)) = signals.memory {
            let percent = percent(bytes, max);
            found.push(Pressure { percent, why: format!("{percent} % of limits.memory_bytes are in use") });
        }
        for device in &signals.devices {
            let name = &device.name;
            if short(&self.failing, name) {
                let percent = percent(device.retained, device.retained_max);
                let why =
                    format!("device `{name}` makes no checkpoints, and {percent} % of checkpoints.retained_bytes wait");
                found.push(Pressure { percent, why });
            }
            if short(&self.down, name) {
                let percent = percent(device.waiting, device.room);
                let why = format!("device `{name}` does not run, and what waits for it takes {percent} % of its room");
                found.push(Pressure { percent, why });
            }
        }
        // The first of those that are alike: a node must not change its mind about why.
        found.into_iter().rev().max_by_key(|pressure| pressure.percent).unwrap_or_default()
    }
}

/// Keeps since when something has been so of each device.
fn lasts(
    since: &mut BTreeMap<String, Duration>,
    now: Duration,
    signals: &Signals,
    is: impl Fn(&DeviceSignals) -> bool,
) {
    let so = || signals.devices.iter().filter(|device| is(device));
    since.retain(|name, _| so().any(|device| device.name == *name));
    for device in so() {
        since.entry(device.name.clone()).or_insert(now);
    }
}

fn percent(part: u64, whole: u64) -> u64 {
    part.saturating_mul(100).checked_div(whole).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(percent: u64) -> Signals {
        Signals { memory: Some((percent, 100)), ..Signals::default() }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn load_is_shed_in_order_and_taken_again_only_once_there_is_some_room() {
        let mut shed = Shed::default();
        let mut level = |percent| shed.step(at(0), &memory(percent)).0;
        let rising = [(79, Level::Nothing), (80, Level::Sessions), (84, Level::Sessions), (85, Level::Creation)];
        let more =
            [(89, Level::Creation), (90, Level::Tells), (94, Level::Tells), (95, Level::Asks), (300, Level::Asks)];
        let falling = [(85, Level::Asks), (84, Level::Tells), (80, Level::Tells), (79, Level::Creation)];
        let less = [(75, Level::Creation), (74, Level::Sessions), (70, Level::Sessions), (69, Level::Nothing)];
        let again = [(79, Level::Nothing), (100, Level::Asks), (0, Level::Nothing)];
        for (percent, expected) in [&rising[..], &more, &falling, &less, &again].concat() {
            assert_eq!(level(percent), expected, "at {percent} %");
        }
    }

    #[test]
    fn full_queues_of_a_device_that_runs_are_no_shortage() {
        let full = DeviceSignals {
            name: "cpu0".into(),
            running: true,
            waiting: 16_384,
            room: 16_384,
            retained: 100,
            retained_max: 100,
            ..DeviceSignals::default()
        };
        let signals = |device: &DeviceSignals| Signals { memory: None, devices: vec![device.clone()] };
        let mut shed = Shed::default();
        for second in 0..100 {
            assert_eq!(shed.step(at(second * 1_000), &signals(&full)), (Level::Nothing, Pressure::default()));
        }
        let failing = DeviceSignals { failing: true, retained: 90, ..full.clone() };
        assert_eq!(shed.step(at(0), &signals(&failing)).0, Level::Nothing, "the next one may be made in a moment");
        assert_eq!(shed.step(at(1_999), &signals(&failing)).0, Level::Nothing);
        let (level, pressure) = shed.step(at(2_000), &signals(&failing));
        assert_eq!((level, pressure.percent), (Level::Tells, 90));
        assert!(pressure.why.contains("`cpu0` makes no checkpoints, and 90 %"), "{}", pressure.why);
        assert_eq!(shed.step(at(2_100), &signals(&full)).0, Level::Nothing);
    }

    #[test]
    fn a_device_without_a_host_is_short_of_capacity_after_a_while() {
        let down = DeviceSignals { name: "cpu0".into(), waiting: 85, room: 100, ..DeviceSignals::default() };
        let up = DeviceSignals { running: true, ..down.clone() };
        let signals = |device: &DeviceSignals| Signals { memory: Some((10, 100)), devices: vec![device.clone()] };
        let mut shed = Shed::default();
        assert_eq!(shed.step(at(5_000), &signals(&down)).0, Level::Nothing);
        assert_eq!(shed.step(at(6_999), &signals(&down)).0, Level::Nothing);
        let (level, pressure) = shed.step(at(7_000), &signals(&down));
        assert_eq!(level, Level::Creation);
        assert!(pressure.why.contains("`cpu0` does not run") && pressure.why.contains("85 %"), "{}", pressure.why);
        assert_eq!(shed.step(at(7_100), &signals(&up)).0, Level::Nothing);
        // Another time is another while.
        assert_eq!(shed.step(at(9_000), &signals(&down)).0, Level::Nothing);
    }

    #[test]
    fn the_fullest_decides() {
        let failing = |name: &str, retained| DeviceSignals {
            name: name.into(),
            running: true,
            failing: true,
            retained,
            retained_max: 100,
            ..DeviceSignals::default()
        };
        let devices = vec![failing("a", 81), failing("b", 96), failing("c", 96)];
        let (mut shed, signals) = (Shed::default(), Signals { memory: Some((50, 100)), devices });
        shed.step(at(0), &signals);
        let (level, pressure) = shed.step(SHORT_AFTER, &signals);
        assert_eq!(level, Level::Asks);
        assert!(pressure.why.contains("`b`"), "{}", pressure.why);
    }
}
