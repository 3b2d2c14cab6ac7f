//! What operators may set about placement.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::control::state::{DeviceNumber, Ranges, Setting};

/// Bytes of a setting's text, at most.
const TEXT_BYTES_MAX: usize = 65_536;
/// What a device's weight may be, at most.
pub const WEIGHT_MAX: u32 = 1_000_000;

/// By what devices are chosen for shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// As many shards to each device as its weight says.
    #[default]
    RoundRobin,
    /// As much measured load to each device as its weight says, once that is off by more than a band.
    Load,
    /// As many shards to each device as its weight says, and those of a group together.
    Affinity,
    /// As many shards to each device as its weight says, and each as near as may be to where it was.
    Topology,
}

impl Strategy {
    const NAMES: [(&'static str, Strategy); 4] = [
        ("round-robin", Strategy::RoundRobin),
        ("load", Strategy::Load),
        ("affinity", Strategy::Affinity),
        ("topology", Strategy::Topology),
    ];
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, _) = Strategy::NAMES.iter().find(|(_, strategy)| strategy == self).expect("each has a name");
        f.write_str(name)
    }
}

/// Shards that stay together: `0-63;64-70,80`. No shard is of two groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Groups(pub Vec<Vec<Range<u32>>>);

impl FromStr for Groups {
    type Err = ();

    fn from_str(text: &str) -> Result<Groups, ()> {
        let groups = listed(text, ';').map(|group| group.split(',').map(range).collect()).collect::<Result<_, _>>()?;
        let groups: Vec<Vec<Range<u32>>> = groups;
        let mut all: Vec<&Range<u32>> = groups.iter().flatten().collect();
        all.sort_by_key(|range| range.start);
        if all.windows(2).any(|pair| pair[0].end > pair[1].start) { Err(()) } else { Ok(Groups(groups)) }
    }
}

impl fmt::Display for Groups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        joined(f, self.0.iter().map(|group| Ranges(group)), ";")
    }
}

fn range(text: &str) -> Result<Range<u32>, ()> {
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|n| *n < u32::MAX).ok_or(());
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = number(first)?..number(last)? + 1;
    if range.is_empty() { Err(()) } else { Ok(range) }
}

/// Weights of devices by number, where they are not their workers: `0=4;3=0`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Weights(pub BTreeMap<DeviceNumber, u32>);

impl FromStr for Weights {
    type Err = ();

    fn from_str(text: &str) -> Result<Weights, ()> {
        let mut weights = BTreeMap::new();
        for each in listed(text, ';') {
            let (device, weight) = each.split_once('=').ok_or(())?;
            let device = device.trim().parse().map_err(|_| ())?;
            let weight = weight.trim().parse().ok().filter(|weight| *weight <= WEIGHT_MAX).ok_or(())?;
            if weights.insert(device, weight).is_some() {
                return Err(());
            }
        }
        Ok(Weights(weights))
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        joined(f, self.0.iter().map(|(device, weight)| format!("{device}={weight}")), ";")
    }
}

/// Kinds of devices that shards are given to; none is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kinds(pub BTreeSet<String>);

impl Kinds {
    pub fn allow(&self, kind: &str) -> bool {
        self.0.is_empty() || self.0.contains(kind)
    }
}

impl FromStr for Kinds {
    type Err = ();

    fn from_str(text: &str) -> Result<Kinds, ()> {
        let named = listed(text, ',').map(|kind| match kind {
            "cpu" | "cuda" | "emulated" => Ok(kind.to_string()),
            _ => Err(()),
        });
        if text.trim() == "any" { Ok(Kinds::default()) } else { named.collect::<Result<_, _>>().map(Kinds) }
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("any") } else { joined(f, &self.0, ",") }
    }
}

/// The parts of a text that may be empty.
fn listed(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let parts = (!text.trim().is_empty()).then(|| text.split(separator));
    parts.into_iter().flatten().map(str::trim)
}

fn joined<T: fmt::Display>(
    f: &mut fmt::Formatter<'_>,
    parts: impl IntoIterator<Item = T>,
    separator: &str,
) -> fmt::Result {
    for (number, part) in parts.into_iter().enumerate() {
        let separator = if number == 0 { "" } else { separator };
        write!(f, "{separator}{part}")?;
    }
    Ok(())
}

/// What the cluster's operators have set about placement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub strategy: Strategy,
    pub affinity: Groups,
    pub weights: Weights,
    pub kinds: Kinds,
    /// How far over the mean a device's load must be before anything is moved for it.
    pub load_band_percent: u32,
    /// How long a shard that has moved stays where it is, however loaded its device.
    pub load_rest_s: u32,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            strategy: Strategy::default(),
            affinity: Groups::default(),
            weights: Weights::default(),
            kinds: Kinds::default(),
            load_band_percent: 20,
            load_rest_s: 300,
        }
    }
}

pub const PLACEMENT: Setting = Setting {
    name: "placement",
    about: "How a plan chooses devices for shards: by even counts, by measured load, by groups that stay together, or by \
            even counts and as near as may be to where the shards were.",
    rule: "`round-robin`, `load`, `affinity` or `topology`",
};
pub const AFFINITY: Setting = Setting {
    name: "affinity",
    about: "Groups of shards that stay together where `placement` is `affinity`.",
    rule: "groups with semicolons between them, each of shards and ranges with commas, no shard twice, as in `0-63;64-70,80`; or \
           empty",
};
pub const WEIGHTS: Setting = Setting {
    name: "weights",
    about: "Weights of devices by number: one of twice the weight gets twice as much. Others weigh what they have workers. A device \
            of weight 0 is given nothing.",
    rule: "`DEVICE=WEIGHT` with semicolons between them, no device twice, weights from 0 to 1000000, as in `0=4;3=0`; or empty",
};
pub const KINDS: Setting = Setting {
    name: "kinds",
    about: "Kinds of devices that shards are given to. Every shard may hold actors of every type: where one of the types needs a \
            GPU, all shards do.",
    rule: "`any`, or some of `cpu`, `cuda` and `emulated` with commas between them",
};
pub const LOAD_BAND: Setting = Setting {
    name: "load_band_percent",
    about: "How far over the mean a device's load must be before shards are moved for it, where `placement` is `load`.",
    rule: "1 to 1000",
};
pub const LOAD_REST: Setting = Setting {
    name: "load_rest_s",
    about: "How long a shard that has moved is not moved again for load, in seconds, where `placement` is `load`.",
    rule: "0 to 86400",
};

impl Settings {
    /// The value of a setting as text; `None` if it is not about placement.
    pub fn get(&self, name: &str) -> Option<String> {
        match name {
            "placement" => Some(self.strategy.to_string()),
            "affinity" => Some(self.affinity.to_string()),
            "weights" => Some(self.weights.to_string()),
            "kinds" => Some(self.kinds.to_string()),
            "load_band_percent" => Some(self.load_band_percent.to_string()),
            "load_rest_s" => Some(self.load_rest_s.to_string()),
            _ => None,
        }
    }

    /// Sets one that is about placement. `None` if the value is not by its rule.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Option<()> {
        if value.len() > TEXT_BYTES_MAX {
            return None;
        }
        match name {
            "placement" => {
                self.strategy =
                    Strategy::NAMES.iter().find(|(name, _)| *name == value).map(|(_, strategy)| *strategy)?;
            }
            "affinity" => self.affinity = value.parse().ok()?,
            "weights" => self.weights = value.parse().ok()?,
            "kinds" => self.kinds = value.parse().ok()?,
            "load_band_percent" => self.load_band_percent = value.parse().ok().filter(|n| (1..=1_000).contains(n))?,
            "load_rest_s" => self.load_rest_s = value.parse().ok().filter(|n| *n <= 86_400)?,
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_reads_back_and_what_breaks_a_rule_changes_nothing() {
        let mut settings = Settings::default();
        for (name, right, wrong) in [
            ("placement", &["load", "affinity", "topology", "round-robin"][..], &["", "loads", "Load"][..]),
            ("affinity", &["", "0-63;64-70,80", "5"], &["0-3;3-4", "5-4", "a", "1;;2", "4294967295", "1,,2", "0-9;4"]),
            ("weights", &["", "0=4;3=0"], &["0", "0=1;0=2", "70000=1", "0=-1", "0=1000001", "0=1;"]),
            ("kinds", &["any", "cpu", "cpu,cuda"], &["gpu", "cpu,", "any,cpu"]),
            ("load_band_percent", &["1", "1000"], &["0", "1001", ""]),
            ("load_rest_s", &["0", "86400"], &["86401", "-1"]),
        ] {
            for value in right {
                settings.set(name, value).unwrap_or_else(|| panic!("{name} may be {value}"));
                assert_eq!(settings.get(name).as_deref(), Some(*value));
            }
            let before = settings.clone();
            for value in wrong {
                assert_eq!(settings.set(name, value), None, "{name} = {value}");
            }
            assert_eq!(settings, before);
        }
        assert_eq!(settings.set("kinds", ""), Some(()));
        assert_eq!(settings.get("kinds").as_deref(), Some("any"));
        assert_eq!(settings.set("affinity", &"0;".repeat(TEXT_BYTES_MAX)), None);
    }
}
