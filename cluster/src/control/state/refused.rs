//! Why a command changes nothing.

use serde::{Deserialize, Serialize};

use super::{DeviceNumber, NAME_BYTES_MAX, NodeNumber};

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
