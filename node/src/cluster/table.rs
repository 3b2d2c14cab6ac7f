//! The shard table, as the cluster has agreed on it.

use std::sync::Arc;
use std::time::Duration;

use ringhold_cluster::control;
use ringhold_cluster::control::state::{Command, DeviceNumber, State, ranges};
use ringhold_cluster::network::BoxFuture;
use tokio::time::sleep;

use super::Cluster;
use crate::shards::{ELSEWHERE, NotMoved, Ownership, ShardSet, ShardTable};

/// How long the members have to agree until they are asked again.
const AGREE_LIMIT: Duration = Duration::from_secs(5);
/// How long a majority has to say that it is there.
const READY_LIMIT: Duration = Duration::from_secs(2);
/// Before it is looked again whether a change was made of which nobody knows.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// See the module's documentation.
pub struct AgreedTable {
    cluster: Arc<Cluster>,
}

impl AgreedTable {
    pub fn new(cluster: Arc<Cluster>) -> AgreedTable {
        AgreedTable { cluster }
    }
}

impl ShardTable for AgreedTable {
    fn owners(&self) -> Vec<Ownership> {
        let state = self.cluster.state();
        let owner = |shard: &control::state::Shard| Ownership {
            device: shard.owner.and_then(|owner| self.cluster.place_of(owner)).unwrap_or(ELSEWHERE),
            term: shard.term as u32,
        };
        state.shards.iter().map(owner).collect()
    }

    fn ready(&self) -> BoxFuture<'_, Result<(), NotMoved>> {
        Box::pin(async move {
            match self.cluster.control().read(READY_LIMIT).await {
                Ok(_) => Ok(()),
                Err(why) => Err(NotMoved(why.to_string())),
            }
        })
    }

    fn move_shards<'a>(&'a self, shards: &'a ShardSet, from: u16, to: u16) -> BoxFuture<'a, Result<(), NotMoved>> {
        Box::pin(async move {
            let own = self.cluster.own_devices();
            let (from, to) = (own[usize::from(from)], own[usize::from(to)]);
            let shards_moved = ranges(shards.iter().map(|shard| shard as u32));
            // It may have been given up meanwhile, and both go on elsewhere.
            let run = self.cluster.incarnation;
            let moved = Command::MoveBetween { shards: shards_moved, from, to, runs: (run, run) };
            self.cluster.agree_on_move(moved, shards, to).await
        })
    }
}

impl Cluster {
    /// Has the cluster agree that these shards are this device's from now on. Where it returns an error they are not, and will
    /// not be: where that cannot be known it goes on until it is.
    pub(crate) async fn agree_on_move(
        &self,
        moved: Command,
        shards: &ShardSet,
        to: DeviceNumber,
    ) -> Result<(), NotMoved> {
        let control = self.control();
        // A change of which nobody knows may still be made, so after one there is no way back.
        let mut may_be = false;
        loop {
            match control.propose(moved.clone(), AGREE_LIMIT).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(refused)) if !may_be => return Err(NotMoved(refused.to_string())),
                Err(control::Error::Unknown { why, .. }) => {
                    tracing::warn!(
                        "whether shards have moved is known once a majority of the cluster's voters is there: {why}"
                    );
                    may_be = true;
                }
                Err(why) if !may_be => return Err(NotMoved(why.to_string())),
                Err(control::Error::Stopped(_)) => std::future::pending().await,
                // What was proposed later has been refused, so the first has been made, or never will be.
                Ok(Err(refused)) => match control.read(AGREE_LIMIT).await {
                    Ok(state) if has(&state, shards, to) => return Ok(()),
                    Ok(_) => return Err(NotMoved(refused.to_string())),
                    Err(_) => {}
                },
                Err(_) => {}
            }
            match control.read(AGREE_LIMIT).await {
                Ok(state) if has(&state, shards, to) => return Ok(()),
                _ => sleep(LOOK_PAUSE).await,
            }
        }
    }
}

/// Whether all of these are a device's, in a state.
pub(crate) fn has(state: &State, shards: &ShardSet, device: DeviceNumber) -> bool {
    shards.iter().all(|shard| state.shards.get(shard).is_some_and(|shard| shard.owner == Some(device)))
}
