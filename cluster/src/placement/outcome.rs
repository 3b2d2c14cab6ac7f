//! What a plan says: moves, what cannot be done, and the devices before and after. `Display` is for people.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::near::Near;
use crate::control::state::{Command, DeviceNumber, NodeNumber, Ranges};

/// Which shards are best moved where, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// In the order in which they are best done. No shard is in two of them.
    pub moves: Vec<Move>,
    /// What was wanted and cannot be.
    pub obstacles: Vec<Obstacle>,
    /// What the loads in `before` and `after` are.
    pub measure: Measure,
    /// By device.
    pub before: BTreeMap<DeviceNumber, Share>,
    pub after: BTreeMap<DeviceNumber, Share>,
}

/// Shards that go from one device to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    pub shards: Vec<Range<u32>>,
    pub from: DeviceNumber,
    pub to: DeviceNumber,
    pub why: Why,
    /// How far they go.
    pub near: Near,
}

/// Why shards move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Why {
    /// Where they are is no place for them any more.
    Barred(Barred),
    /// They are of a group most of which is there.
    Together,
    /// The device that they go to is new.
    Joined,
    /// Their device has more shards than is its share.
    Even { has: u32, share: u32 },
    /// Their device's load is so much of the mean, devices' weights considered.
    Load { percent: u32 },
}

/// Why a device is given nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Barred {
    /// Its node does not answer.
    NodeGone(NodeNumber),
    /// It is given up, or is of a kind that cannot give or take shards.
    Failed,
    /// Its node is draining.
    Draining(NodeNumber),
    /// It is of a kind that `kinds` does not have.
    Kind,
    /// Its weight is 0.
    Weight,
    /// It stands in for a device of a node that was given up, and there are others.
    StandsIn,
}

/// What cannot be done, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Obstacle {
    NoSuchNode(NodeNumber),
    NoSuchDevice(DeviceNumber),
    /// A node that is to be drained does not answer.
    NodeGone(NodeNumber),
    /// A device that was added is given nothing.
    Barred {
        device: DeviceNumber,
        why: Barred,
    },
    /// Shards have to go, and there is no device for them; why not each of them.
    Nowhere {
        shards: Vec<Range<u32>>,
        from: DeviceNumber,
        barred: BTreeMap<DeviceNumber, Barred>,
    },
    /// Shards are too large for the memory that is left: of a device, or of all.
    Memory {
        shards: Vec<Range<u32>>,
        from: DeviceNumber,
        to: Option<DeviceNumber>,
    },
    /// Shards that no device of the cluster owns.
    NoOwner(Vec<Range<u32>>),
    /// Devices whose load is not known: nothing is moved for load.
    LoadUnknown(Vec<DeviceNumber>),
}

/// What loads are measured by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measure {
    /// Not for all devices is known anything that could be compared.
    Nothing,
    /// Messages in a second.
    PerSecond,
    /// For how much of the time workers are busy, of 1,000.
    BusyPermille,
}

/// What a device has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    pub shards: u32,
    /// By the plan's measure; expected, where it is of after the plan.
    pub load: Option<u64>,
}

impl Move {
    /// What makes it so.
    pub fn command(&self) -> Command {
        Command::Move { shards: self.shards.clone(), from: self.from, to: self.to }
    }

    /// How many shards it moves.
    pub fn count(&self) -> u32 {
        count(&self.shards)
    }
}

impl Plan {
    /// How many shards it moves.
    pub fn count(&self) -> u32 {
        self.moves.iter().map(Move::count).sum()
    }
}

fn count(shards: &[Range<u32>]) -> u32 {
    shards.iter().map(|range| range.end - range.start).sum()
}

fn shards_text(shards: &[Range<u32>]) -> String {
    match count(shards) {
        1 => format!("shard {}", Ranges(shards)),
        // Ranges of shards that were dealt out in turn fill pages.
        count if shards.len() > 8 => format!("{count} shards ({}, …)", Ranges(&shards[..4])),
        count => format!("{count} shards ({})", Ranges(shards)),
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Barred(barred) => barred.fmt(f),
            Why::Together => f.write_str("most of their group is there"),
            Why::Joined => f.write_str("the device is new"),
            Why::Even { has, share } => write!(f, "it has {has} shards and its share is {share}"),
            Why::Load { percent } => write!(f, "its load is {percent} % of the mean"),
        }
    }
}

impl fmt::Display for Barred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Barred::NodeGone(node) => write!(f, "node {node} does not answer"),
            Barred::Failed => f.write_str("it does not work, or cannot give or take shards"),
            Barred::Draining(node) => write!(f, "node {node} is draining"),
            Barred::Kind => f.write_str("it is not of a kind in `kinds`"),
            Barred::Weight => f.write_str("its weight is 0"),
            Barred::StandsIn => f.write_str("it stands in for a device of a node that was given up"),
        }
    }
}

impl fmt::Display for Move {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Move { shards, from, to, why, near } = self;
        write!(f, "{} from device {from} to device {to}, {}: {why}", shards_text(shards), near.words())
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::NoSuchNode(node) => write!(f, "there is no node {node}: `ringhold cluster nodes` lists them"),
            Obstacle::NoSuchDevice(device) => {
                write!(f, "there is no device {device}: `ringhold cluster devices` lists them")
            }
            Obstacle::NodeGone(node) => {
                write!(f, "node {node} does not answer, and only a node that does can be drained: start it again first")
            }
            Obstacle::Barred { device, why } => write!(f, "device {device} is given nothing: {why}"),
            Obstacle::Nowhere { shards, from, barred } => {
                write!(f, "{} of device {from} have nowhere to go", shards_text(shards))?;
                for (number, (device, why)) in barred.iter().filter(|(device, _)| *device != from).enumerate() {
                    match number {
                        0 => write!(f, ": device {device}, {why}")?,
                        1..8 => write!(f, "; device {device}, {why}")?,
                        _ => return f.write_str("; …"),
                    }
                }
                Ok(())
            }
            Obstacle::Memory { shards, from, to: Some(to) } => {
                write!(
                    f,
                    "{} of device {from} stay there: device {to} has no memory left for them",
                    shards_text(shards)
                )
            }
            Obstacle::Memory { shards, from, to: None } => {
                write!(f, "{} of device {from} stay there: no device has memory left for them", shards_text(shards))
            }
            Obstacle::NoOwner(shards) => write!(f, "{} belong to no device of the cluster", shards_text(shards)),
            Obstacle::LoadUnknown(devices) => {
                let devices: Vec<String> = devices.iter().map(DeviceNumber::to_string).collect();
                write!(f, "nothing is moved for load: that of device {} is not known", devices.join(", "))
            }
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.moves.len(), self.count()) {
            (0, _) => writeln!(f, "Nothing is moved.")?,
            (_, 1) => writeln!(f, "1 shard moves:")?,
            (_, count) => writeln!(f, "{count} shards move:")?,
        }
        for (number, each) in self.moves.iter().enumerate() {
            writeln!(f, "{:>3}. {each}", number + 1)?;
        }
        if !self.obstacles.is_empty() {
            writeln!(f, "What cannot be done:")?;
        }
        for obstacle in &self.obstacles {
            writeln!(f, "  - {obstacle}")?;
        }
        let load = |share: &Share| match (share.load, self.measure) {
            (Some(load), Measure::PerSecond) => format!(", {load} messages/s"),
            (Some(load), Measure::BusyPermille) => format!(", busy {}.{} %", load / 10, load % 10),
            _ => String::new(),
        };
        for (device, before) in &self.before {
            let after = self.after.get(device).copied().unwrap_or_default();
            write!(f, "device {device}: {} shards{}", before.shards, load(before))?;
            if after != *before {
                write!(f, "; then {}{}", after.shards, load(&after))?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
