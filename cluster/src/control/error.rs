//! What can go wrong with the control plane.

use std::io;
use std::time::Duration;

/// What can go wrong. `Display` is meant to be shown as it is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the log of what the cluster has agreed on cannot be used: {0}")]
    Log(io::Error),
    #[error(
        "the control data in this node's data folder is that of node {found}, and it was started as node {number}: give it its own \
         data folder, or an empty one to join as a new node"
    )]
    OtherNumber { number: u64, found: u64 },
    #[error("the timing of the control plane cannot be: {0}")]
    Timing(String),
    #[error("{}", no_leader(*within, silent))]
    NoLeader {
        within: Duration,
        /// Voters that could not be reached, or refused to answer, when last asked: number, address, why.
        silent: Vec<(u64, String, String)>,
    },
    #[error(
        "node {leader} leads the cluster and was asked, and it is not known whether it was done ({why}): look at what the cluster has \
         agreed on before you ask again"
    )]
    Unknown { leader: u64, why: String },
    #[error("a command of {bytes} bytes is larger than {most}")]
    TooLarge { bytes: usize, most: usize },
    #[error("the control plane of this node has stopped: {0}")]
    Stopped(String),
    #[error("{}", not_leader(*.0))]
    NotLeader(Option<u64>),
    #[error("this node leads the cluster, and there is no other that could take that over now")]
    NoOther,
    #[error("node {number} at {address} cannot be reached: {why}")]
    Unreachable { number: u64, address: String, why: String },
    #[error("at {address} is node {found}, and not node {number}: the address of one of the two is wrong")]
    OtherNode { number: u64, address: String, found: u64 },
    #[error(
        "node {number} at {address} has lost its control data, or has another data folder than before: what it had promised the \
         cluster is not known any more. Remove node {number}, and let it join anew with an empty data folder"
    )]
    OtherLog { number: u64, address: String },
    #[error(
        "node {0} votes: others have to take its place first, which happens by itself once it is draining and there are any"
    )]
    Votes(u64),
    #[error("the members of the cluster could not be changed: {0}")]
    Change(String),
}

fn no_leader(within: Duration, silent: &[(u64, String, String)]) -> String {
    let mut text = format!(
        "the cluster has had no leader for {} ms: a majority of its voters must reach each other",
        within.as_millis()
    );
    for (number, address, why) in silent {
        text += &format!("; from here node {number} at {address} cannot be reached ({why})");
    }
    text
}

fn not_leader(leader: Option<u64>) -> String {
    match leader {
        Some(leader) => format!("this node does not lead the cluster; node {leader} does"),
        None => "this node does not lead the cluster, and knows of nobody that does".into(),
    }
}
