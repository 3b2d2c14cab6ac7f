//! What the nodes of a cluster agree on: a pure state machine, the same on each of them.
//!
//! Raft gives every node the same commands in the same order, and [`State::apply`] makes the same of them everywhere: there is no
//! clock, no randomness and no I/O in it. A command that cannot be is [`Refused`], on every node alike, and changes nothing.
//!
//! It holds what must be agreed and changes rarely: members, devices, who owns which shard, actor types, settings. Never messages.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::placement::{self, settings};

mod anew;
mod refused;

pub use anew::Unreadable;
pub use refused::{Layout, Refused};

/// The version of [`State`] and [`Command`] that this build makes. A node that cannot read it is not let in.
pub const VERSION: u16 = 1;
/// The oldest version that this build can still go on from.
pub const VERSION_MIN: u16 = 1;

/// Nodes that a cluster has at most.
pub const NODES_MAX: usize = 4_096;
/// Devices of one node, at most.
pub const DEVICES_MAX: usize = 64;
/// Actor types that one node may have.
pub const TYPES_MAX: usize = 1_024;
/// Bytes of a name or an address.
pub const NAME_BYTES_MAX: usize = 255;
/// Copies of a device's checkpoints that there may be to be, beside its own: those that come before others have left among them.
pub const REPLICAS_MAX: usize = 8;
/// Copies that operators may ask for, a device's own among them.
pub const REPLICATION_FACTOR_MAX: u32 = 3;
/// Join tokens that are remembered as used, at most.
pub const TOKENS_MAX: usize = 65_536;

/// A node's number: given out once, from 1, and never to another.
pub type NodeNumber = u32;
/// A device's number: given out once, from 0, and never to another.
pub type DeviceNumber = u16;

/// What the cluster has agreed on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// `None` before the cluster is founded.
    pub cluster: Option<Cluster>,
    pub nodes: BTreeMap<NodeNumber, Member>,
    pub devices: BTreeMap<DeviceNumber, Device>,
    /// By its number.
    pub shards: Vec<Shard>,
    pub settings: Settings,
    /// Join tokens that were used, by serial number, and when they expire: seconds since the Unix epoch.
    pub tokens: BTreeMap<Vec<u8>, u64>,
    /// How often each node was given up, where it was.
    given_up: BTreeMap<NodeNumber, u64>,
    last_node: NodeNumber,
    next_device: DeviceNumber,
}

/// Which cluster it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Made once, of randomness.
    pub id: [u8; 16],
    /// For people.
    pub name: String,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Made once and kept in the node's data folder.
    pub id: [u8; 16],
    /// Made anew at each start of the node.
    pub incarnation: u64,
    /// For people; no two alike.
    pub name: String,
    /// Where others reach it: `host:port`.
    pub address: String,
    /// What fails together: a rack, a room. Empty where nobody said.
    pub zone: String,
    /// The version of the program it runs.
    pub release: String,
    /// The versions of the state that it can go on from.
    pub versions: (u16, u16),
    /// The layout hashes of its actor types, by name.
    pub types: BTreeMap<String, u64>,
    /// It is about to leave: nothing is given to it.
    pub draining: bool,
    /// For how long it may run its devices without hearing from the leader, in milliseconds: no two nodes differ in it.
    pub lease_ms: u32,
}

/// A device of a node, and who has copies of its checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The node that runs it.
    pub node: NodeNumber,
    pub about: AboutDevice,
    /// From 1; grows with each change of the node that runs the device. What comes from one of an older term counts no more.
    pub term: u64,
    /// The nodes that are to have copies of its checkpoints, beside the one that runs it.
    pub replicas: Vec<NodeNumber>,
    /// The nodes that have all of what is committed: the one that runs the device, and those of its replicas without which it
    /// commits nothing.
    pub in_sync: BTreeSet<NodeNumber>,
    /// Grows with each change of `replicas` and each decision on who is in sync. Who proposes one says how many there were, so that
    /// what was given up and comes late does nothing.
    pub changes: u64,
    /// It has begun on its node because another was given up: its node runs it, and does not come with it when it starts.
    pub adopted: bool,
}

impl Device {
    /// One that its node has just come with.
    pub fn new(node: NodeNumber, about: AboutDevice) -> Device {
        Device {
            node,
            about,
            term: 1,
            replicas: Vec::new(),
            in_sync: BTreeSet::from([node]),
            changes: 0,
            adopted: false,
        }
    }

    /// Where it is in the machine of the node that runs it. Of one that has begun on another node nothing is known: what it said of
    /// itself is of the machine that it came from.
    pub fn place(&self) -> Option<&placement::Place> {
        (!self.adopted).then_some(&self.about.place)
    }

    /// Nothing but what its own node has counts: its copies are of something else.
    fn begin_anew(&mut self) {
        self.term += 1;
        self.in_sync = BTreeSet::from([self.node]);
        self.changes += 1;
    }

    /// It begins on another node, which has everything of it.
    fn begin_on(&mut self, node: NodeNumber) {
        self.in_sync.remove(&self.node);
        self.replicas.retain(|replica| *replica != node);
        (self.node, self.adopted) = (node, true);
        self.term += 1;
        self.changes += 1;
    }

    /// These nodes are to have copies from now on.
    fn replicate(&mut self, replicas: Vec<NodeNumber>) {
        if self.replicas != replicas {
            self.in_sync.retain(|node| *node == self.node || replicas.contains(node));
            self.replicas = replicas;
            self.changes += 1;
        }
    }
}

/// What a node says of one of its devices.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AboutDevice {
    /// No other device has it with which the node comes.
    pub name: String,
    /// `cpu`, `cuda`, `emulated`.
    pub kind: String,
    pub workers: u32,
    /// What it has for actors; `None` where it has what the machine has.
    pub memory_bytes: Option<u64>,
    /// Where in its machine it is.
    pub place: placement::Place,
}

/// Who owns a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shard {
    /// `None` before the first device is there.
    pub owner: Option<DeviceNumber>,
    /// Grows by one with each change of owner.
    pub term: u64,
}

/// What the cluster's operators have set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Nodes that vote, at most: 1, 3, 5 or 7.
    pub voters_max: u32,
    /// How many nodes have a device's checkpoints, its own among them: 1 to [`REPLICATION_FACTOR_MAX`].
    pub replication_factor: u32,
    pub placement: settings::Settings,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { voters_max: 5, replication_factor: 2, placement: settings::Settings::default() }
    }
}

/// A setting: its name, what it is for, and what it may be.
pub struct Setting {
    pub name: &'static str,
    pub about: &'static str,
    pub rule: &'static str,
}

/// The settings there are.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "voters_max",
        about: "Nodes that vote on what the cluster agrees on, at most. More survive the loss of more; each makes a decision a \
                little slower.",
        rule: "1, 3, 5 or 7",
    },
    Setting {
        name: "replication_factor",
        about: "Nodes that have a device's checkpoints, its own among them, where the cluster has as many. What is committed survives \
                the loss of all but one of them; each more is one more to wait for.",
        rule: "1, 2 or 3",
    },
    settings::PLACEMENT,
    settings::AFFINITY,
    settings::WEIGHTS,
    settings::KINDS,
    settings::LOAD_BAND,
    settings::LOAD_REST,
];

impl Settings {
    /// The value of a setting as text; `None` if there is no such setting.
    pub fn get(&self, name: &str) -> Option<String> {
        match name {
            "voters_max" => Some(self.voters_max.to_string()),
            "replication_factor" => Some(self.replication_factor.to_string()),
            _ => self.placement.get(name),
        }
    }

    /// Whether a setting may have this value.
    pub fn check(name: &str, value: &str) -> Result<(), Refused> {
        Settings::default().set(name, value)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), Refused> {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == name) else {
            return Err(Refused::NoSuchSetting(name.into()));
        };
        let bad = || Refused::BadSetting { name: name.into(), value: value.into(), rule: setting.rule.into() };
        match name {
            "voters_max" => {
                self.voters_max = value.parse().ok().filter(|n| [1, 3, 5, 7].contains(n)).ok_or_else(bad)?;
            }
            "replication_factor" => {
                let factors = 1..=REPLICATION_FACTOR_MAX;
                self.replication_factor = value.parse().ok().filter(|n| factors.contains(n)).ok_or_else(bad)?;
            }
            _ => self.placement.set(name, value).ok_or_else(bad)?,
        }
        Ok(())
    }
}

/// A change of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first of all.
    Found { cluster: Cluster, shards: u32 },
    /// A node comes, for the first time or again.
    Admit(Admission),
    /// A node is to own nothing more, or may again.
    Drain { node: NodeNumber, draining: bool },
    /// A node that owns nothing is no member any more.
    Remove { node: NodeNumber },
    /// Shards of one device belong to another from now on.
    Move { shards: Vec<Range<u32>>, from: DeviceNumber, to: DeviceNumber },
    /// Sets a setting.
    Set { name: String, value: String },
    /// These nodes are to have copies of a device's checkpoints, beside its own. Who is not among them is in sync no more.
    Replicate { device: DeviceNumber, replicas: Vec<NodeNumber> },
    /// A replica of a device is in sync, or no more: proposed by the node that runs the device in this term, of the state that has
    /// seen so many `changes` of it. One comes in only once it has everything; without one that is in, nothing is committed.
    InSync { device: DeviceNumber, term: u64, changes: u64, node: NodeNumber, in_sync: bool },
    /// A node was silent for so long that it holds no lease, and was given up `times` times before: each of these devices of it begins
    /// on the other node.
    GiveUp { node: NodeNumber, times: u64, devices: BTreeMap<DeviceNumber, NodeNumber> },
    /// Uses up a join token. Those that have expired by `now_s` (seconds since the Unix epoch) are forgotten.
    UseToken { serial: Vec<u8>, expires_s: u64, now_s: u64 },
    /// As `Move`, between devices of two nodes, both of which still run as they did when it was begun: these are their
    /// incarnations. One that has started since knows nothing of it.
    MoveBetween { shards: Vec<Range<u32>>, from: DeviceNumber, to: DeviceNumber, runs: (u64, u64) },
    /// A device that went on elsewhere because its node was given up is not there any more, for it has nothing: proposed by the node
    /// that runs it in this term.
    Retire { device: DeviceNumber, term: u64 },
    /// The first of all, in place of `Found`, of a cluster that begins with what another had: see [`State::anew`].
    Restore(Box<State>),
    /// A node has ended in good order: as `GiveUp`, of the start of it with this incarnation, which holds no lease any more and asks for
    /// none. One that has started since knows nothing of it.
    Ended { node: NodeNumber, run: u64, times: u64, devices: BTreeMap<DeviceNumber, NodeNumber> },
}

/// Who comes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// The cluster that the node means.
    pub cluster: [u8; 16],
    /// Its number, where it has been a member before.
    pub number: Option<NodeNumber>,
    pub member: Member,
    pub devices: Vec<AboutDevice>,
    /// Its devices keep nothing from before: its shards may be dealt out anew among them.
    pub fresh: bool,
}

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    Done,
    /// The node's number, and its devices' in the order in which it named them.
    Admitted {
        node: NodeNumber,
        devices: Vec<DeviceNumber>,
    },
}

/// The id of a node or cluster as people see it: that of a UUID.
pub fn id_text(id: &[u8; 16]) -> String {
    let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Ranges of shards as people see them: `0-3,7`.
pub struct Ranges<'a>(pub &'a [Range<u32>]);

impl fmt::Display for Ranges<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, range) in self.0.iter().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            match range.end.saturating_sub(range.start) {
                1 => write!(f, "{comma}{}", range.start)?,
                _ => write!(f, "{comma}{}-{}", range.start, i64::from(range.end) - 1)?,
            }
        }
        Ok(())
    }
}

/// The ranges of these numbers, which grow.
pub fn ranges(numbers: impl IntoIterator<Item = u32>) -> Vec<Range<u32>> {
    let mut ranges: Vec<Range<u32>> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(last) if last.end == number => last.end += 1,
            _ => ranges.push(number..number + 1),
        }
    }
    ranges
}

impl State {
    /// Does what a command says, or says why not and changes nothing.
    pub fn apply(&mut self, command: Command) -> Result<Outcome, Refused> {
        match command {
            Command::Found { cluster, shards } => self.found(cluster, shards),
            Command::Admit(admission) => self.admit(admission),
            Command::Drain { node, draining } => {
                self.nodes.get_mut(&node).ok_or(Refused::NoSuchNode(node))?.draining = draining;
                Ok(Outcome::Done)
            }
            Command::Remove { node } => self.remove(node),
            Command::Move { shards, from, to } => self.move_shards(&shards, from, to),
            Command::MoveBetween { shards, from, to, runs } => {
                for (device, run) in [(from, runs.0), (to, runs.1)] {
                    let node = self.devices.get(&device).ok_or(Refused::NoSuchDevice(device))?.node;
                    if self.nodes[&node].incarnation != run {
                        return Err(Refused::StartedAgain(node));
                    }
                }
                self.move_shards(&shards, from, to)
            }
            Command::Set { name, value } => self.settings.set(&name, &value).map(|()| Outcome::Done),
            Command::Replicate { device, replicas } => self.replicate(device, replicas),
            Command::InSync { device, term, changes, node, in_sync } => {
                self.in_sync(device, (term, changes), node, in_sync)
            }
            Command::GiveUp { node, times, devices } => self.give_up(node, times, &devices),
            Command::Ended { node, run, times, devices } => {
                if self.nodes.get(&node).is_some_and(|member| member.incarnation != run) {
                    return Err(Refused::StartedAgain(node));
                }
                self.give_up(node, times, &devices)
            }
            Command::UseToken { serial, expires_s, now_s } => self.use_token(serial, expires_s, now_s),
            Command::Retire { device, term } => self.retire(device, term),
            Command::Restore(state) => self.restore(*state),
        }
    }

    /// Shards that a device owns.
    pub fn shards_of(&self, device: DeviceNumber) -> impl Iterator<Item = u32> {
        (0..).zip(&self.shards).filter(move |(_, shard)| shard.owner == Some(device)).map(|(number, _)| number)
    }

    /// Devices of a node, by number.
    pub fn devices_of(&self, node: NodeNumber) -> impl Iterator<Item = (DeviceNumber, &Device)> {
        self.devices.iter().filter(move |(_, device)| device.node == node).map(|(number, device)| (*number, device))
    }

    /// Devices that a node runs though it did not come with them, because another was given up, and the term of each.
    pub fn adopted_by(&self, node: NodeNumber) -> BTreeMap<DeviceNumber, u64> {
        let adopted = self.devices_of(node).filter(|(_, device)| device.adopted);
        adopted.map(|(number, device)| (number, device.term)).collect()
    }

    /// Shards that each device owns; none is left out.
    pub fn shard_counts(&self) -> BTreeMap<DeviceNumber, u32> {
        let mut counts: BTreeMap<_, _> = self.devices.keys().map(|device| (*device, 0)).collect();
        for owner in self.shards.iter().filter_map(|shard| shard.owner) {
            *counts.entry(owner).or_default() += 1;
        }
        counts
    }

    /// How often a node's devices were given to others because it was silent.
    pub fn times_given_up(&self, node: NodeNumber) -> u64 {
        self.given_up.get(&node).copied().unwrap_or(0)
    }

    /// Whether there was a node of this number, and is none any more.
    pub fn was_removed(&self, node: NodeNumber) -> bool {
        node > 0 && node <= self.last_node && !self.nodes.contains_key(&node)
    }

    /// The member with this id.
    pub fn by_id(&self, id: &[u8; 16]) -> Option<(NodeNumber, &Member)> {
        self.nodes.iter().find(|(_, member)| member.id == *id).map(|(number, member)| (*number, member))
    }

    /// The actor types of the cluster with their layout hashes, and the nodes that have them.
    pub fn types(&self) -> BTreeMap<&str, (u64, Vec<NodeNumber>)> {
        let mut types: BTreeMap<&str, (u64, Vec<NodeNumber>)> = BTreeMap::new();
        for (number, member) in &self.nodes {
            for (name, hash) in &member.types {
                types.entry(name).or_insert((*hash, Vec::new())).1.push(*number);
            }
        }
        types
    }

    fn found(&mut self, cluster: Cluster, shards: u32) -> Result<Outcome, Refused> {
        match &self.cluster {
            Some(founded) if founded.id != cluster.id => Err(Refused::Founded(founded.name.clone())),
            Some(_) => Ok(Outcome::Done),
            None => {
                self.cluster = Some(cluster);
                self.shards = vec![Shard::default(); shards as usize];
                Ok(Outcome::Done)
            }
        }
    }

    fn admit(&mut self, admission: Admission) -> Result<Outcome, Refused> {
        let Admission { cluster, number, member, devices, fresh } = admission;
        let known = self.by_id(&member.id).map(|(number, _)| number);
        self.check_admission(&cluster, &member, &devices, known)?;
        if let Some(number) = number.filter(|number| known != Some(*number) && self.was_removed(*number)) {
            return Err(Refused::Removed(number));
        }
        let number = known.unwrap_or(self.last_node + 1);
        let own_before = || self.devices_of(number).filter(|(_, device)| !device.adopted);
        let (mut gone, mut numbers) = (own_before().map(|(number, _)| number).collect::<BTreeSet<_>>(), Vec::new());
        let mut next = self.next_device;
        for about in &devices {
            let before = own_before().find(|(_, device)| device.about.name == about.name);
            let device = before.map(|(device, _)| device).unwrap_or_else(|| {
                next += 1;
                next - 1
            });
            gone.remove(&device);
            numbers.push(device);
        }
        let changed = !gone.is_empty() || next != self.next_device;
        let own: BTreeSet<DeviceNumber> = gone.iter().chain(&numbers).copied().collect();
        if !fresh
            && let Some((device, shards)) =
                gone.iter().map(|d| (d, self.shards_of(*d).count())).find(|(_, count)| *count > 0)
        {
            let name = self.devices[device].about.name.clone();
            return Err(Refused::DeviceGone { name, shards: shards as u32 });
        }
        // From here on nothing is refused any more. What is admitted twice has not lost anything in between.
        let restarted = self.nodes.get(&number).is_some_and(|before| before.incarnation != member.incarnation);
        self.last_node = self.last_node.max(number);
        self.next_device = next;
        for device in gone {
            self.devices.remove(&device);
        }
        for (device, about) in numbers.iter().zip(devices) {
            match self.devices.get_mut(device) {
                Some(known) => {
                    known.about = about;
                    if fresh && restarted {
                        known.begin_anew();
                    }
                }
                None => {
                    self.devices.insert(*device, Device::new(number, about));
                }
            }
        }
        let draining = self.nodes.get(&number).is_some_and(|before| before.draining);
        self.nodes.insert(number, Member { draining, ..member });
        if self.shards.iter().all(|shard| shard.owner.is_none()) {
            self.deal(&numbers, |_| true);
        } else if fresh && changed {
            self.deal(&numbers, |shard| shard.owner.is_some_and(|owner| own.contains(&owner)));
        }
        Ok(Outcome::Admitted { node: number, devices: numbers })
    }

    fn check_admission(
        &self,
        cluster: &[u8; 16],
        member: &Member,
        devices: &[AboutDevice],
        known: Option<NodeNumber>,
    ) -> Result<(), Refused> {
        let founded = self.cluster.as_ref().ok_or(Refused::NotFounded)?;
        if founded.id != *cluster {
            let (wanted, actual) = (id_text(cluster), id_text(&founded.id));
            return Err(Refused::OtherCluster { wanted, actual, name: founded.name.clone() });
        }
        if !(member.versions.0..=member.versions.1).contains(&VERSION) {
            return Err(Refused::Version { version: VERSION, versions: member.versions });
        }
        let mut others = self.nodes.iter().filter(|(number, _)| known != Some(**number));
        if let Some((other, its)) = others.find(|(_, other)| other.lease_ms != member.lease_ms) {
            return Err(Refused::OtherLease { leases: (member.lease_ms, its.lease_ms), other: *other });
        }
        let names = [("a node's name", &member.name), ("a node's address", &member.address)];
        let devices_named = devices.iter().map(|device| ("a device's name", &device.name));
        for (what, name) in names.into_iter().chain(devices_named) {
            if name.is_empty() || name.len() > NAME_BYTES_MAX {
                return Err(Refused::BadName { what: what.into(), bytes: name.len() as u64 });
            }
        }
        let nodes = self.nodes.len() + usize::from(known.is_none());
        let ever = usize::from(self.next_device) + devices.len();
        for (what, count, most) in [
            ("the nodes of a cluster", nodes, NODES_MAX),
            ("the devices of a node", devices.len(), DEVICES_MAX),
            ("the devices that a cluster ever had", ever, usize::from(DeviceNumber::MAX)),
            ("the actor types of a node", member.types.len(), TYPES_MAX),
        ] {
            if count > most {
                return Err(Refused::TooMany { what: what.into(), count: count as u64, most: most as u64 });
            }
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = devices.iter().find(|device| !seen.insert(&device.name)) {
            return Err(Refused::SameDevice(twice.name.clone()));
        }
        let mut different = Vec::new();
        for (other, there) in self.nodes.iter().filter(|(number, _)| Some(**number) != known) {
            if there.name == member.name {
                return Err(Refused::NameTaken { name: member.name.clone(), other: *other });
            }
            if there.address == member.address {
                return Err(Refused::AddressTaken { address: member.address.clone(), other: *other });
            }
            for (name, hash) in &member.types {
                if let Some(theirs) = there.types.get(name).filter(|theirs| *theirs != hash)
                    && !different.iter().any(|l: &Layout| l.name == *name)
                {
                    different.push(Layout { name: name.clone(), here: *hash, there: *theirs, node: *other });
                }
            }
        }
        if different.is_empty() { Ok(()) } else { Err(Refused::Layout(different)) }
    }

    /// Deals shards out to these devices in turn.
    fn deal(&mut self, devices: &[DeviceNumber], which: impl Fn(&Shard) -> bool) {
        if devices.is_empty() {
            return;
        }
        for (number, shard) in self.shards.iter_mut().enumerate().filter(|(_, shard)| which(shard)) {
            let owner = Some(devices[number % devices.len()]);
            if shard.owner != owner {
                *shard = Shard { owner, term: shard.term + 1 };
            }
        }
    }

    fn remove(&mut self, node: NodeNumber) -> Result<Outcome, Refused> {
        if !self.nodes.contains_key(&node) {
            return Err(Refused::NoSuchNode(node));
        }
        if self.nodes.len() == 1 {
            return Err(Refused::LastNode(node));
        }
        let devices: BTreeSet<DeviceNumber> = self.devices_of(node).map(|(device, _)| device).collect();
        let owned = |shard: &&Shard| shard.owner.is_some_and(|owner| devices.contains(&owner));
        let shards = self.shards.iter().filter(owned).count() as u32;
        if shards > 0 {
            return Err(Refused::StillOwns { node, shards });
        }
        self.nodes.remove(&node);
        self.given_up.remove(&node);
        self.devices.retain(|_, device| device.node != node);
        for device in self.devices.values_mut() {
            device.replicate(device.replicas.iter().copied().filter(|replica| *replica != node).collect());
        }
        Ok(Outcome::Done)
    }

    fn give_up(
        &mut self,
        node: NodeNumber,
        times: u64,
        devices: &BTreeMap<DeviceNumber, NodeNumber>,
    ) -> Result<Outcome, Refused> {
        if !self.nodes.contains_key(&node) {
            return Err(Refused::NoSuchNode(node));
        }
        let now = self.times_given_up(node);
        if now != times {
            return Err(Refused::GivenUp { node, times, now });
        }
        for (number, to) in devices {
            let device = self.devices.get(number).ok_or(Refused::NoSuchDevice(*number))?;
            let why = match () {
                () if device.node != node => format!("node {} runs it", device.node),
                () if *to == node => "that is the node that was given up".into(),
                () if !self.nodes.contains_key(to) => "there is no such node".into(),
                () if !device.in_sync.contains(to) => "that node has not everything of it".into(),
                () => continue,
            };
            return Err(Refused::CannotBegin { device: *number, node: *to, why });
        }
        for (number, to) in devices {
            if let Some(device) = self.devices.get_mut(number) {
                if !device.adopted {
                    // Where it goes there may be one of its name.
                    device.about.name = format!("{}@{number}", device.about.name);
                }
                device.begin_on(*to);
            }
            for shard in self.shards.iter_mut().filter(|shard| shard.owner == Some(*number)) {
                shard.term += 1;
            }
        }
        // Whether others' devices go on without its copies, their own nodes propose, and those of nodes that have died as well never do:
        // there it has everything still, and they can begin on it once it is back. What was proposed of that before comes too late.
        for device in self.devices.values_mut().filter(|device| device.node != node) {
            device.changes += u64::from(device.replicas.contains(&node));
        }
        self.given_up.insert(node, now + 1);
        Ok(Outcome::Done)
    }

    fn retire(&mut self, number: DeviceNumber, term: u64) -> Result<Outcome, Refused> {
        let device = self.devices.get(&number).ok_or(Refused::NoSuchDevice(number))?;
        if device.term != term {
            return Err(Refused::OtherTerm { device: number, term, now: device.term });
        }
        let shards = self.shards_of(number).count();
        let why = match (device.adopted, shards) {
            (false, _) => "its node comes with it".into(),
            (true, 1..) => format!("it owns {shards} shards"),
            (true, 0) => {
                self.devices.remove(&number);
                return Ok(Outcome::Done);
            }
        };
        Err(Refused::CannotRetire { device: number, why })
    }

    fn replicate(&mut self, number: DeviceNumber, replicas: Vec<NodeNumber>) -> Result<Outcome, Refused> {
        let device = self.devices.get_mut(&number).ok_or(Refused::NoSuchDevice(number))?;
        if let Some(stranger) = replicas.iter().find(|node| !self.nodes.contains_key(node)) {
            return Err(Refused::NoSuchNode(*stranger));
        }
        let each: BTreeSet<_> = replicas.iter().collect();
        let why = match () {
            () if replicas.contains(&device.node) => format!("node {} runs it", device.node),
            () if each.len() < replicas.len() => "one is named twice".into(),
            () if replicas.len() > REPLICAS_MAX => format!("they are at most {REPLICAS_MAX}"),
            () => {
                device.replicate(replicas);
                return Ok(Outcome::Done);
            }
        };
        Err(Refused::BadReplicas { device: number, replicas, why })
    }

    fn in_sync(
        &mut self,
        number: DeviceNumber,
        (term, changes): (u64, u64),
        node: NodeNumber,
        in_sync: bool,
    ) -> Result<Outcome, Refused> {
        let device = self.devices.get_mut(&number).ok_or(Refused::NoSuchDevice(number))?;
        if device.term != term {
            return Err(Refused::OtherTerm { device: number, term, now: device.term });
        }
        if device.changes != changes {
            return Err(Refused::Changed { device: number });
        }
        // The node that runs it is no replica, and is in sync for ever.
        if !device.replicas.contains(&node) {
            return Err(Refused::NotReplica { device: number, node });
        }
        if in_sync {
            device.in_sync.insert(node);
        } else {
            device.in_sync.remove(&node);
        }
        // Also where it was so: what was proposed of that state before, and is under way still, does nothing any more.
        device.changes += 1;
        Ok(Outcome::Done)
    }

    fn move_shards(&mut self, shards: &[Range<u32>], from: DeviceNumber, to: DeviceNumber) -> Result<Outcome, Refused> {
        let target = self.devices.get(&to).ok_or(Refused::NoSuchDevice(to))?;
        if !self.devices.contains_key(&from) {
            return Err(Refused::NoSuchDevice(from));
        }
        if self.nodes[&target.node].draining {
            return Err(Refused::ToDraining { to, node: target.node });
        }
        let count = self.shards.len() as u32;
        if shards.is_empty() || shards.iter().any(|range| range.is_empty() || range.end > count) {
            return Err(Refused::NoSuchShards { shards: Ranges(shards).to_string(), last: count.saturating_sub(1) });
        }
        let all = || shards.iter().flat_map(|range| range.clone());
        let not_owned = all().filter(|shard| self.shards[*shard as usize].owner != Some(from));
        let not_owned = ranges(not_owned);
        if !not_owned.is_empty() {
            return Err(Refused::NotOwner { shards: Ranges(&not_owned).to_string(), from });
        }
        for shard in all() {
            let shard = &mut self.shards[shard as usize];
            // Named twice, it has moved already.
            if shard.owner != Some(to) {
                *shard = Shard { owner: Some(to), term: shard.term + 1 };
            }
        }
        Ok(Outcome::Done)
    }

    fn use_token(&mut self, serial: Vec<u8>, expires_s: u64, now_s: u64) -> Result<Outcome, Refused> {
        if expires_s <= now_s {
            return Err(Refused::TokenExpired);
        }
        if self.tokens.contains_key(&serial) {
            return Err(Refused::TokenUsed);
        }
        self.tokens.retain(|_, expires| *expires > now_s);
        if self.tokens.len() >= TOKENS_MAX {
            let what = "join tokens that are used and have not expired".into();
            return Err(Refused::TooMany { what, count: TOKENS_MAX as u64 + 1, most: TOKENS_MAX as u64 });
        }
        self.tokens.insert(serial, expires_s);
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests;
