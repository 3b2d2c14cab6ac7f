//! Who leads, as far as a node can tell.

use std::sync::Arc;

use openraft::Instant as _;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftMetrics;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::changes::Changes;
use super::types::Types;
use super::{Timing, tasks};

/// Who leads, by what was heard of it.
pub(super) struct Leading {
    timing: Timing,
    /// When a leader was last heard of.
    heard: Mutex<Option<Instant>>,
}

impl Leading {
    pub fn new(timing: Timing) -> Leading {
        Leading { timing, heard: Mutex::new(None) }
    }

    /// There was a sign of life of the leader.
    pub fn heard(&self) {
        *self.heard.lock() = Some(Instant::now());
    }

    pub fn leader(&self, metrics: &RaftMetrics<Types>) -> Option<u64> {
        let leader = metrics.current_leader.filter(|_| metrics.running_state.is_ok())?;
        let counts = match leader == metrics.id {
            true => {
                let acked = metrics.last_quorum_acked.map(|acked| acked.elapsed());
                // Who votes alone is asked by nobody.
                let by_itself = metrics.membership_config.membership().voter_ids().eq([leader]);
                by_itself || acked.is_some_and(|acked| acked <= self.timing.election_max)
            }
            false => self.heard.lock().is_some_and(|heard| heard.elapsed() <= self.timing.election_max * 2),
        };
        counts.then_some(leader)
    }
}

/// Tells of new leaders and members, and of the end. Entries that are applied the state machine tells of.
pub(super) async fn watch(
    mut metrics: impl WatchReceiver<tasks::Watched, RaftMetrics<Types>>,
    leading: Arc<Leading>,
    changes: Arc<Changes>,
) {
    let about = |metrics: &RaftMetrics<Types>| {
        let members = *metrics.membership_config.log_id();
        (leading.leader(metrics), metrics.current_term, members, metrics.running_state.is_ok())
    };
    let mut last = None;
    // Silence is no change of the metrics, and one of the leader.
    while !matches!(timeout(leading.timing.election_min, metrics.changed()).await, Ok(Err(_))) {
        let now = Some(about(&metrics.borrow_and_update()));
        if now != last {
            last = now;
            changes.happened();
        }
    }
    changes.happened();
}
