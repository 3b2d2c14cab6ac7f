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

pub use anew::Unreadable;

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

/// Why a command changed nothing, and what to do. `Display` is meant to be shown as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    #[error("the cluster is founded already, as `{0}`")]
    Founded(String),
    #[error("the cluster is not founded yet: start its first node, and try again")]
    NotFounded,
    #[error(
        "the node's data folder belongs to cluster {wanted}, and this is cluster `{name}` ({actual}): give it the addresses of its own \
         cluster, or start it with an empty data folder"
    )]
    OtherCluster { wanted: String, actual: String, name: String },
    #[error("there is no node {0}: `ringhold cluster nodes` lists them")]
    NoSuchNode(NodeNumber),
    #[error("there is no device {0}: `ringhold cluster devices` lists them")]
    NoSuchDevice(DeviceNumber),
    #[error("node {0} was removed from the cluster: to join again, start it with an empty data folder")]
    Removed(NodeNumber),
    #[error("node {other} has the name `{name}` already: give this one another (`node.name` in its configuration)")]
    NameTaken { name: String, other: NodeNumber },
    #[error(
        "node {other} is at {address} already: stop it, or give this one another address (`node.listen` or `node.advertise` in its \
         configuration)"
    )]
    AddressTaken { address: String, other: NodeNumber },
    #[error("{}", layouts(.0))]
    Layout(Vec<Layout>),
    #[error(
        "the node can go on from versions {} to {} of the cluster's state, and the cluster is at version {version}: use a release that is \
         at most one behind or ahead of the others", .versions.0, .versions.1
    )]
    Version { version: u16, versions: (u16, u16) },
    #[error(
        "device `{name}` owns {shards} shards and is not there any more: start the node with the devices as they were, move its shards \
         away (`ringhold cluster migrate`), and then leave it out"
    )]
    DeviceGone { name: String, shards: u32 },
    #[error("{what} are at most {most}, not {count}")]
    TooMany { what: String, count: u64, most: u64 },
    #[error("{what} must have 1 to {NAME_BYTES_MAX} bytes, not {bytes}")]
    BadName { what: String, bytes: u64 },
    #[error("two devices of the node are called `{0}`: each needs a name of its own")]
    SameDevice(String),
    #[error(
        "node {node} still owns {shards} shards: drain it (`ringhold node drain`), and have them moved away (`ringhold cluster rebalance`)"
    )]
    StillOwns { node: NodeNumber, shards: u32 },
    #[error("node {0} is the last one: a cluster has at least one")]
    LastNode(NodeNumber),
    #[error(
        "shards {shards} do not belong to device {from} any more: look at the plan again, it was made of an older state"
    )]
    NotOwner { shards: String, from: DeviceNumber },
    #[error("shards are numbered from 0 to {last}, and {shards} is not a range of these")]
    NoSuchShards { shards: String, last: u32 },
    #[error("device {to} belongs to node {node}, which is draining: nothing is moved there")]
    ToDraining { to: DeviceNumber, node: NodeNumber },
    #[error("device {device} cannot have its copies on nodes {}: {why}", numbers(replicas))]
    BadReplicas { device: DeviceNumber, replicas: Vec<NodeNumber>, why: String },
    #[error("device {device} is in term {now}, and this is of term {term}: another node may run it by now")]
    OtherTerm { device: DeviceNumber, term: u64, now: u64 },
    #[error("who has copies of device {device} has changed since: look again")]
    Changed { device: DeviceNumber },
    #[error("node {node} is no replica of device {device}")]
    NotReplica { device: DeviceNumber, node: NodeNumber },
    #[error("device {device} cannot begin on node {node}: {why}")]
    CannotBegin { device: DeviceNumber, node: NodeNumber, why: String },
    #[error("device {device} cannot go: {why}")]
    CannotRetire { device: DeviceNumber, why: String },
    #[error("node {node} was given up {now} times, and this is of when it had been {times} times")]
    GivenUp { node: NodeNumber, times: u64, now: u64 },
    #[error("there is no setting `{0}`: `ringhold cluster settings` lists them")]
    NoSuchSetting(String),
    #[error("setting `{name}` cannot be `{value}`: it must be {rule}")]
    BadSetting { name: String, value: String, rule: String },
    #[error(
        "the node's lease is {} ms, and node {other} has {} ms: give it the same (`node.lease` in its configuration)", .leases.0, .leases.1
    )]
    OtherLease { leases: (u32, u32), other: NodeNumber },
    #[error("the join token has been used already: make another (`ringhold cluster token`)")]
    TokenUsed,
    #[error("the join token has expired: make another (`ringhold cluster token`)")]
    TokenExpired,
    #[error("node {0} has started again meanwhile: try again")]
    StartedAgain(NodeNumber),
}

/// An actor type of which two nodes were built from different sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub name: String,
    pub here: u64,
    pub there: u64,
    /// The node that has it so.
    pub node: NodeNumber,
}

fn numbers(nodes: &[NodeNumber]) -> String {
    nodes.iter().map(NodeNumber::to_string).collect::<Vec<_>>().join(", ")
}

fn layouts(all: &[Layout]) -> String {
    let each: Vec<String> = all
        .iter()
        .map(|l| format!("`{}` has layout {:016x} here and {:016x} on node {}", l.name, l.here, l.there, l.node))
        .collect();
    format!(
        "the node was built with other actor types than the cluster has: {}. Build all nodes from the same actor modules (a change \
         to a state, a message or a reply changes the layout); an actor whose state is to look otherwise is a new type",
        each.join("; ")
    )
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
        // Nor does any device wait for its copies: once it is back and has everything, it is in sync again.
        for device in self.devices.values_mut().filter(|device| device.node != node) {
            device.changes += u64::from(device.in_sync.remove(&node));
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
mod tests {
    use super::*;

    const CLUSTER: [u8; 16] = [7; 16];

    fn founded() -> State {
        let mut state = State::default();
        state.apply(Command::Found { cluster: Cluster { id: CLUSTER, name: "test".into() }, shards: 16 }).unwrap();
        state
    }

    fn member(number: u8) -> Member {
        Member {
            id: [number; 16],
            incarnation: 1,
            name: format!("n{number}"),
            address: format!("10.0.0.{number}:7000"),
            zone: String::new(),
            release: "0.1.0".into(),
            versions: (1, 1),
            types: BTreeMap::from([("bank.account".into(), 5)]),
            draining: false,
            lease_ms: 400,
        }
    }

    fn device(name: &str) -> AboutDevice {
        AboutDevice {
            name: name.into(),
            kind: "cpu".into(),
            workers: 1,
            memory_bytes: None,
            place: placement::Place::default(),
        }
    }

    fn admission(number: u8, devices: &[&str]) -> Admission {
        let devices = devices.iter().map(|name| device(name)).collect();
        Admission { cluster: CLUSTER, number: None, member: member(number), devices, fresh: false }
    }

    fn admit(state: &mut State, number: u8, devices: &[&str]) -> Result<Outcome, Refused> {
        state.apply(Command::Admit(admission(number, devices)))
    }

    #[test]
    fn the_first_nodes_devices_own_everything_in_turn_and_later_ones_nothing() {
        let mut state = founded();
        assert_eq!(admit(&mut state, 1, &["a", "b"]), Ok(Outcome::Admitted { node: 1, devices: vec![0, 1] }));
        assert_eq!(admit(&mut state, 2, &["a"]), Ok(Outcome::Admitted { node: 2, devices: vec![2] }));
        assert_eq!(state.shard_counts(), BTreeMap::from([(0, 8), (1, 8), (2, 0)]));
        assert!(state.shards_of(1).eq((0..16).filter(|n| n % 2 == 1)));
        assert!(state.shards.iter().all(|shard| shard.term == 1));
    }

    #[test]
    fn a_node_that_comes_back_is_the_same_with_its_devices() {
        let mut state = founded();
        admit(&mut state, 1, &["a", "b"]).unwrap();
        let mut again = admission(1, &["b", "a", "c"]);
        again.member.address = "10.9.9.9:1".into();
        assert_eq!(state.apply(Command::Admit(again)), Ok(Outcome::Admitted { node: 1, devices: vec![1, 0, 2] }));
        assert_eq!(state.nodes[&1].address, "10.9.9.9:1");
        assert_eq!(state.shard_counts()[&2], 0, "what its devices keep stays with them");
        let error = admit(&mut state, 1, &["a", "c"]).unwrap_err();
        assert_eq!(error, Refused::DeviceGone { name: "b".into(), shards: 8 });
        assert_eq!(state.devices.len(), 3, "and nothing has changed");
        admit(&mut state, 1, &["a", "b"]).unwrap();
        assert_eq!(state.devices.len(), 2, "one that owned nothing may go");
        let fresh = Admission { fresh: true, ..admission(1, &["a", "d"]) };
        assert_eq!(state.apply(Command::Admit(fresh)), Ok(Outcome::Admitted { node: 1, devices: vec![0, 3] }));
        assert_eq!(state.shard_counts(), BTreeMap::from([(0, 8), (3, 8)]));
    }

    #[test]
    fn who_does_not_fit_is_refused_and_told_why() {
        let mut state = founded();
        admit(&mut state, 1, &["a"]).unwrap();
        let before = state.clone();
        let mut refuse = |change: &dyn Fn(&mut Admission)| {
            let mut admission = admission(2, &["a"]);
            change(&mut admission);
            state.apply(Command::Admit(admission)).unwrap_err()
        };
        assert!(matches!(refuse(&|a| a.cluster = [8; 16]), Refused::OtherCluster { .. }));
        assert_eq!(refuse(&|a| a.member.name = "n1".into()), Refused::NameTaken { name: "n1".into(), other: 1 });
        let same = refuse(&|a| a.member.address = "10.0.0.1:7000".into());
        assert!(matches!(same, Refused::AddressTaken { other: 1, .. }));
        assert!(matches!(refuse(&|a| a.member.versions = (2, 3)), Refused::Version { .. }));
        assert!(matches!(refuse(&|a| a.member.name = String::new()), Refused::BadName { .. }));
        assert!(matches!(refuse(&|a| a.devices = vec![device("x"); 2]), Refused::SameDevice(_)));
        assert!(matches!(refuse(&|a| a.devices = vec![device("x"); 65]), Refused::TooMany { .. }));
        let layout = refuse(&|a| *a.member.types.get_mut("bank.account").unwrap() = 6);
        assert!(layout.to_string().contains("0000000000000006 here and 0000000000000005 on node 1"), "{layout}");
        assert_eq!(state, before);
        assert_eq!(State::default().apply(Command::Admit(admission(1, &[]))), Err(Refused::NotFounded));
        // A cluster of one may redefine its types: there is nobody to disagree.
        let mut other = admission(1, &["a"]);
        *other.member.types.get_mut("bank.account").unwrap() = 6;
        state.apply(Command::Admit(other)).unwrap();
    }

    #[test]
    fn shards_move_only_from_their_owner_and_their_term_grows() {
        let mut state = founded();
        admit(&mut state, 1, &["a"]).unwrap();
        admit(&mut state, 2, &["a"]).unwrap();
        let to_second = |shards: Vec<Range<u32>>| Command::Move { shards, from: 0, to: 1 };
        state.apply(to_second(vec![0..2, 5..6])).unwrap();
        assert!(state.shards_of(1).eq([0, 1, 5]));
        assert_eq!((state.shards[0].term, state.shards[2].term), (2, 1));
        let before = state.clone();
        let refused = state.apply(to_second(vec![1..3, 5..6])).unwrap_err();
        assert_eq!(refused, Refused::NotOwner { shards: "1,5".into(), from: 0 });
        assert!(matches!(state.apply(to_second(ranges([15, 16]))), Err(Refused::NoSuchShards { .. })));
        let backwards = Range { start: 3, end: 2 };
        assert!(matches!(state.apply(to_second(vec![backwards])), Err(Refused::NoSuchShards { .. })));
        assert_eq!(state.apply(Command::Move { shards: ranges([3]), from: 0, to: 9 }), Err(Refused::NoSuchDevice(9)));
        assert_eq!(state, before);
        let between = |runs| Command::MoveBetween { shards: ranges([3]), from: 0, to: 1, runs };
        assert_eq!(state.apply(between((2, 1))), Err(Refused::StartedAgain(1)));
        assert_eq!(state.apply(between((1, 2))), Err(Refused::StartedAgain(2)));
        assert_eq!(state, before);
        state.apply(between((1, 1))).unwrap();
        assert!(state.shards_of(1).eq([0, 1, 3, 5]));
        state.apply(Command::Drain { node: 2, draining: true }).unwrap();
        assert_eq!(state.apply(to_second(ranges([4]))), Err(Refused::ToDraining { to: 1, node: 2 }));
    }

    #[test]
    fn only_a_node_that_owns_nothing_goes_and_numbers_are_not_given_again() {
        let mut state = founded();
        admit(&mut state, 1, &["a"]).unwrap();
        assert_eq!(state.apply(Command::Remove { node: 1 }), Err(Refused::LastNode(1)));
        admit(&mut state, 2, &["a"]).unwrap();
        assert_eq!(state.apply(Command::Remove { node: 1 }), Err(Refused::StillOwns { node: 1, shards: 16 }));
        state.apply(Command::Remove { node: 2 }).unwrap();
        assert_eq!(state.apply(Command::Remove { node: 2 }), Err(Refused::NoSuchNode(2)));
        let back = Admission { number: Some(2), ..admission(2, &["a"]) };
        assert_eq!(state.apply(Command::Admit(back)), Err(Refused::Removed(2)));
        assert_eq!(admit(&mut state, 2, &["a"]), Ok(Outcome::Admitted { node: 3, devices: vec![2] }));
    }

    /// A cluster of three nodes with a device each.
    fn three() -> State {
        let mut state = founded();
        (1..=3).for_each(|number| drop(admit(&mut state, number, &["a"]).unwrap()));
        state
    }

    fn in_sync(state: &State, device: DeviceNumber, node: NodeNumber, in_sync: bool) -> Command {
        let Device { term, changes, .. } = state.devices[&device];
        Command::InSync { device, term, changes, node, in_sync }
    }

    #[test]
    fn a_replica_is_in_sync_once_its_devices_node_has_said_so_in_its_present_term() {
        let mut state = three();
        assert_eq!((state.devices[&0].term, &state.devices[&0].in_sync), (1, &BTreeSet::from([1])));
        let early = in_sync(&state, 0, 2, true);
        assert_eq!(state.apply(early), Err(Refused::NotReplica { device: 0, node: 2 }));
        state.apply(Command::Replicate { device: 0, replicas: vec![2, 3] }).unwrap();
        let enters = in_sync(&state, 0, 2, true);
        state.apply(enters.clone()).unwrap();
        assert_eq!(state.devices[&0].in_sync, BTreeSet::from([1, 2]));
        let before = state.clone();
        assert_eq!(state.apply(enters), Err(Refused::Changed { device: 0 }), "what was given up and comes late");
        let own = in_sync(&state, 0, 1, false);
        assert_eq!(state.apply(own), Err(Refused::NotReplica { device: 0, node: 1 }));
        let Device { changes, .. } = state.devices[&0];
        let other = Command::InSync { device: 0, term: 2, changes, node: 3, in_sync: true };
        assert_eq!(state.apply(other), Err(Refused::OtherTerm { device: 0, term: 2, now: 1 }));
        assert_eq!(state, before);
        let leaves = in_sync(&state, 0, 2, false);
        state.apply(leaves).unwrap();
        assert_eq!(state.devices[&0].in_sync, BTreeSet::from([1]));
        assert_eq!(state.devices[&0].replicas, [2, 3], "it is to come back");
        // One that was to come in, and is not to any more.
        let (enters, leaves) = (in_sync(&state, 0, 2, true), in_sync(&state, 0, 2, false));
        state.apply(leaves).unwrap();
        assert_eq!(state.apply(enters), Err(Refused::Changed { device: 0 }));
        let unknown = in_sync(&state, 0, 2, true);
        let Command::InSync { term, changes, node, in_sync, .. } = unknown else { unreachable!() };
        let unknown = Command::InSync { device: 9, term, changes, node, in_sync };
        assert_eq!(state.apply(unknown), Err(Refused::NoSuchDevice(9)));
    }

    #[test]
    fn no_device_waits_for_copies_at_a_node_that_was_given_up() {
        let mut state = three();
        state.apply(Command::Replicate { device: 0, replicas: vec![2] }).unwrap();
        let enters = in_sync(&state, 0, 2, true);
        state.apply(enters).unwrap();
        let late = in_sync(&state, 0, 2, true);
        state.apply(Command::GiveUp { node: 2, times: 0, devices: BTreeMap::new() }).unwrap();
        let Device { in_sync, replicas, .. } = &state.devices[&0];
        assert_eq!((in_sync, &replicas[..]), (&BTreeSet::from([1]), &[2][..]), "it is to come back");
        assert_eq!(state.apply(late), Err(Refused::Changed { device: 0 }), "what was said of it before is old");
    }

    #[test]
    fn all_nodes_have_the_same_lease() {
        let mut state = three();
        let mut other = admission(4, &["a"]);
        other.member.lease_ms = 900;
        let refused = Refused::OtherLease { leases: (900, 400), other: 1 };
        assert_eq!(state.apply(Command::Admit(other)), Err(refused));
    }

    #[test]
    fn who_is_no_replica_any_more_is_not_in_sync_and_who_is_removed_is_neither() {
        let mut state = three();
        state.apply(Command::Replicate { device: 0, replicas: vec![2, 3] }).unwrap();
        for node in [2, 3] {
            let enters = in_sync(&state, 0, node, true);
            state.apply(enters).unwrap();
        }
        let late = in_sync(&state, 0, 3, false);
        state.apply(Command::Replicate { device: 0, replicas: vec![3] }).unwrap();
        assert_eq!(state.devices[&0].in_sync, BTreeSet::from([1, 3]));
        assert_eq!(state.apply(late), Err(Refused::Changed { device: 0 }));
        let before = state.clone();
        for (replicas, refused) in [
            (vec![9], Refused::NoSuchNode(9)),
            (vec![1], Refused::BadReplicas { device: 0, replicas: vec![1], why: "node 1 runs it".into() }),
            (vec![2, 2], Refused::BadReplicas { device: 0, replicas: vec![2, 2], why: "one is named twice".into() }),
        ] {
            assert_eq!(state.apply(Command::Replicate { device: 0, replicas }), Err(refused));
        }
        assert_eq!(state, before);
        state.apply(Command::Remove { node: 3 }).unwrap();
        assert_eq!((&state.devices[&0].replicas[..], &state.devices[&0].in_sync), (&[][..], &BTreeSet::from([1])));
    }

    #[test]
    fn a_node_that_comes_back_keeps_its_replicas_unless_it_has_lost_what_they_are_copies_of() {
        let mut state = three();
        state.apply(Command::Replicate { device: 0, replicas: vec![2] }).unwrap();
        let enters = in_sync(&state, 0, 2, true);
        state.apply(enters).unwrap();
        let before = state.devices[&0].clone();
        state.apply(Command::Admit(Admission { fresh: false, ..admission(1, &["a"]) })).unwrap();
        assert_eq!(state.devices[&0], before);
        let mut anew = Admission { fresh: true, ..admission(1, &["a"]) };
        state.apply(Command::Admit(anew.clone())).unwrap();
        assert_eq!(state.devices[&0], before, "it is the same start of it");
        anew.member.incarnation = 2;
        state.apply(Command::Admit(anew.clone())).unwrap();
        state.apply(Command::Admit(anew)).unwrap();
        let Device { term, replicas, in_sync, .. } = &state.devices[&0];
        assert_eq!((*term, &replicas[..], in_sync), (2, &[2][..], &BTreeSet::from([1])));
    }

    #[test]
    fn settings_are_checked() {
        let mut state = founded();
        let set = |name: &str, value: &str| Command::Set { name: name.into(), value: value.into() };
        for setting in SETTINGS {
            let value = state.settings.get(setting.name).expect("each has a value");
            state.apply(set(setting.name, &value)).unwrap();
        }
        state.apply(set("voters_max", "3")).unwrap();
        assert_eq!(state.settings.voters_max, 3);
        for wrong in ["2", "9", "", "three"] {
            assert!(matches!(state.apply(set("voters_max", wrong)), Err(Refused::BadSetting { .. })));
        }
        state.apply(set("replication_factor", "3")).unwrap();
        assert_eq!(state.settings.replication_factor, 3);
        for wrong in ["0", "4", "two"] {
            assert!(matches!(state.apply(set("replication_factor", wrong)), Err(Refused::BadSetting { .. })));
        }
        assert_eq!(state.apply(set("voters", "3")), Err(Refused::NoSuchSetting("voters".into())));
    }

    #[test]
    fn a_token_is_good_once_and_until_it_expires() {
        let mut state = founded();
        let token = |serial: u8, expires_s, now_s| Command::UseToken { serial: vec![serial], expires_s, now_s };
        state.apply(token(1, 100, 50)).unwrap();
        assert_eq!(state.apply(token(1, 100, 51)), Err(Refused::TokenUsed));
        assert_eq!(state.apply(token(2, 100, 100)), Err(Refused::TokenExpired));
        state.apply(token(3, 300, 200)).unwrap();
        assert_eq!(state.tokens.len(), 1, "what has expired needs no memory");
    }

    #[test]
    fn ids_and_ranges_read_well() {
        assert_eq!(id_text(&[0xab; 16]), "abababab-abab-abab-abab-abababababab");
        assert_eq!(Ranges(&ranges([0, 1, 2, 5, 7, 8])).to_string(), "0-2,5,7-8");
        assert_eq!(Ranges(&[]).to_string(), "");
    }

    #[test]
    fn the_devices_of_a_node_that_is_given_up_begin_where_everything_of_them_is() {
        let mut state = three();
        state.apply(Command::Replicate { device: 0, replicas: vec![2, 3] }).unwrap();
        state.apply(in_sync(&state, 0, 2, true)).unwrap();
        let give_up = |times, to| Command::GiveUp { node: 1, times, devices: BTreeMap::from([(0, to)]) };
        let before = state.clone();
        for (command, why) in [
            (give_up(0, 3), "that node has not everything of it"),
            (give_up(0, 1), "that is the node that was given up"),
            (give_up(0, 9), "there is no such node"),
            (give_up(1, 2), "was given up 0 times"),
            (Command::GiveUp { node: 1, times: 0, devices: BTreeMap::from([(1, 3)]) }, "node 2 runs it"),
            (Command::GiveUp { node: 8, times: 0, devices: BTreeMap::new() }, "there is no node 8"),
        ] {
            let refused = state.apply(command).unwrap_err().to_string();
            assert!(refused.contains(why), "{refused}");
        }
        assert_eq!(state, before);
        state.apply(give_up(0, 2)).unwrap();
        let device = &state.devices[&0];
        assert_eq!((device.node, device.term, &device.replicas[..]), (2, before.devices[&0].term + 1, &[3][..]));
        assert!(device.in_sync.iter().eq(&[2]), "what the silent node has is not all any more");
        assert_eq!(state.shards_of(0).count(), 16, "the device still has its shards");
        assert!(state.shards.iter().zip(&before.shards).all(|(now, before)| now.term == before.term + 1));
        assert_eq!((state.times_given_up(1), state.times_given_up(2)), (1, 0));
        assert!(matches!(state.apply(give_up(0, 2)), Err(Refused::GivenUp { .. })), "once");
        assert!(matches!(state.apply(in_sync(&before, 0, 3, true)), Err(Refused::OtherTerm { .. })), "its word is old");
    }

    #[test]
    fn a_node_that_was_given_up_comes_back_with_devices_that_are_new() {
        let mut state = three();
        state.apply(Command::Replicate { device: 0, replicas: vec![2] }).unwrap();
        state.apply(in_sync(&state, 0, 2, true)).unwrap();
        state.apply(Command::GiveUp { node: 1, times: 0, devices: BTreeMap::from([(0, 2)]) }).unwrap();
        assert_eq!(admit(&mut state, 2, &["a"]), Ok(Outcome::Admitted { node: 2, devices: vec![1] }), "it has its own");
        assert_eq!(state.devices_of(2).map(|(number, _)| number).collect::<Vec<_>>(), [0, 1], "and the other");
        assert_eq!(state.adopted_by(2), BTreeMap::from([(0, state.devices[&0].term)]));
        assert_eq!(admit(&mut state, 1, &["a"]), Ok(Outcome::Admitted { node: 1, devices: vec![3] }));
        assert_eq!((state.shards_of(0).count(), state.shards_of(3).count()), (16, 0));
        assert_eq!(admit(&mut state, 1, &["a"]), Ok(Outcome::Admitted { node: 1, devices: vec![3] }));
        // It goes once it has nothing, and what a node comes with does not.
        let (term, mut emptied) = (state.devices[&0].term, state.clone());
        let retire = |device, term| Command::Retire { device, term };
        assert!(matches!(emptied.apply(retire(0, term)), Err(Refused::CannotRetire { .. })), "it has shards");
        emptied.apply(Command::Move { shards: ranges(0..16), from: 0, to: 3 }).unwrap();
        assert!(matches!(emptied.apply(retire(0, term - 1)), Err(Refused::OtherTerm { .. })));
        assert!(matches!(emptied.apply(retire(1, 1)), Err(Refused::CannotRetire { .. })));
        assert_eq!(emptied.apply(retire(0, term)), Ok(Outcome::Done));
        assert_eq!(emptied.apply(retire(0, term)), Err(Refused::NoSuchDevice(0)));
        assert!(emptied.adopted_by(2).is_empty());
        // Back to where it came from it is not what that node comes with.
        state.apply(Command::Replicate { device: 0, replicas: vec![1] }).unwrap();
        state.apply(in_sync(&state, 0, 1, true)).unwrap();
        state.apply(Command::GiveUp { node: 2, times: 0, devices: BTreeMap::from([(0, 1)]) }).unwrap();
        assert_eq!(admit(&mut state, 1, &["a"]), Ok(Outcome::Admitted { node: 1, devices: vec![3] }));
        assert_eq!(state.devices_of(1).count(), 2);
    }
}
