//! One of the demo's nodes is killed while the flights stream, and how long that is felt.
//!
//! Beside the client whose flights stream there is another, which has asked an actor in each shard of the node that is to die. It asks
//! them all again the moment the node is killed: the last answer is the end of the failover. They are `counter`s, which are told to
//! stop and so leave nothing behind; they are of grade `committed` as the flights' actors are, so what answers is durable again.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ringhold_cluster::tls::Identity;
use ringhold_kernels::id::Key;
use ringhold_kernels::outbox::shard_of;
use tokio::time::Instant;

use super::nodes::{self, Node, Nodes};
use crate::client::{self, AskError, Client};
use crate::shipped::counter;

/// How long the shards may take until they answer.
const LIMIT: Duration = Duration::from_secs(60);

/// Why it is not known how long it took.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Nodes(#[from] nodes::Error),
    #[error("the client that asks the shards of the node that is killed did not connect: {0}")]
    Connect(Box<client::Error>),
    #[error("node `{name}` cannot be killed: {why}")]
    Kill { name: &'static str, why: io::Error },
    #[error("shard {shard} of node `{name}` did not answer {when}: {why}")]
    Silent { shard: usize, name: &'static str, when: &'static str, why: Box<AskError> },
}

/// A node that was killed, and what became of its shards.
#[derive(Clone, Debug)]
pub struct Failover {
    pub node: &'static str,
    /// Whether it led the cluster.
    pub led: bool,
    /// That it had.
    pub shards: usize,
    /// Flights that had been sent.
    pub after: u64,
    /// From SIGKILL until each of its shards had answered again.
    pub took: Duration,
}

impl fmt::Display for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failover { node, shards, took, .. } = self;
        let led = if self.led { ", which led" } else { "" };
        write!(f, "killed node `{node}`{led}: all its {shards} shards answered again after {} ms", took.as_millis())
    }
}

/// A node that is to be killed once so many flights have been sent.
pub struct Kill {
    after: u64,
    node: Arc<Node>,
    /// One that lives on, to ask who leads.
    other: Arc<Node>,
    /// One in each of its shards.
    keys: Vec<Key>,
    client: Client,
}

impl Kill {
    /// Has a node killed half-way.
    pub async fn new(nodes: &Nodes, identity: Identity, flights: u64) -> Result<Kill, Error> {
        let [other, .., node] = nodes.all() else { unreachable!("there are several") };
        let its = other.shards_of(node.number).await?;
        let mut options = client::Options::new(other.address.clone(), identity).with::<counter::Actor>();
        options.ask_deadline = LIMIT;
        let client = Client::connect(options).await.map_err(|why| Error::Connect(Box::new(why)))?;
        let kill = Kill {
            after: flights.div_ceil(2),
            node: node.clone(),
            other: other.clone(),
            keys: one_in_each(its.into_iter().map(|shard| shard as usize)),
            client,
        };
        kill.ask_all("before").await?;
        Ok(kill)
    }

    /// How many flights are to be sent before it.
    pub fn after(&self) -> u64 {
        self.after
    }

    /// Kills the node, and waits until each of its shards has answered.
    pub async fn strike(self) -> Result<Failover, Error> {
        let led = self.other.status().await?.leader == Some(self.node.number);
        let name = self.node.name;
        let killed = Instant::now();
        self.node.kill().map_err(|why| Error::Kill { name, why })?;
        self.ask_all("after its death").await?;
        let took = killed.elapsed();
        Ok(Failover { node: name, led, shards: self.keys.len(), after: self.after, took })
    }

    /// Asks an actor in each shard; none of them is there before or after that.
    async fn ask_all(&self, when: &'static str) -> Result<(), Error> {
        let messages = self.keys.iter().map(|key| (*key, counter::Message::Stop));
        let mut asks = self.client.asks(messages, self.keys.len());
        while let Some((key, answer)) = asks.next().await {
            answer.map_err(|why| {
                let (shard, name, why) = (shard_of(key), self.node.name, Box::new(why));
                Error::Silent { shard, name, when, why }
            })?;
        }
        Ok(())
    }
}

/// A key in each of these shards: the smallest number.
fn one_in_each(shards: impl IntoIterator<Item = usize>) -> Vec<Key> {
    let mut wanted: BTreeSet<usize> = shards.into_iter().collect();
    let count = wanted.len();
    (0..).map(Key).filter(|key| wanted.remove(&shard_of(*key))).take(count).collect()
}

#[cfg(test)]
mod tests {
    use ringhold_kernels::outbox::SHARDS;

    use super::*;

    #[test]
    fn each_shard_that_is_asked_has_a_key_of_its_own() {
        let keys = one_in_each(0..SHARDS);
        let shards: BTreeSet<usize> = keys.iter().map(|key| shard_of(*key)).collect();
        assert_eq!((keys.len(), shards.len()), (SHARDS, SHARDS));
        assert!(one_in_each([]).is_empty());
    }
}
