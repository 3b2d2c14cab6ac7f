//! Which nodes are connected, whoever of the two connected, so that one with a copied identity is noticed.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quinn::Connection;
use tokio::sync::Notify;

use super::hello::{PeerName, PeerRefused};
use crate::fault::is_heard;
use crate::wire::{Close, PEERS_MAX};

/// How long one that is connected has to show that it lives, when another comes with its identity.
///
/// A node that has restarted comes while its last connection has not fallen silent for long enough. Where the old one answers
/// nothing in this time, it makes way.
const PROOF_OF_LIFE: Duration = Duration::from_millis(500);

#[derive(Default)]
pub(super) struct Present(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    entries: Vec<Entry>,
    next: u64,
}

#[derive(Clone)]
struct Entry {
    number: u64,
    node: PeerName,
    connection: Connection,
    ping: Arc<Notify>,
}

/// A node is present for as long as this lives.
pub(super) struct Presence {
    present: Arc<Present>,
    number: u64,
    /// Somebody wants to know whether it still lives: it is to be told something.
    pub ping: Arc<Notify>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.present.0.lock().entries.retain(|entry| entry.number != self.number);
    }
}

impl Present {
    /// Takes in a node, unless another with its identity is connected and lives.
    pub(super) async fn arrive(
        self: &Arc<Present>,
        node: &PeerName,
        connection: &Connection,
    ) -> Result<Presence, PeerRefused> {
        loop {
            let other = {
                let mut inner = self.0.lock();
                let same = |entry: &&Entry| entry.node.id == node.id && entry.node.incarnation != node.incarnation;
                match inner.entries.iter().find(same) {
                    Some(other) => other.clone(),
                    None if inner.entries.len() >= 2 * PEERS_MAX => {
                        return Err(PeerRefused::TooMany { peers_max: PEERS_MAX as u32 });
                    }
                    None => return Ok(self.enter(&mut inner, node, connection)),
                }
            };
            other.ping.notify_one();
            if is_heard(&other.connection, PROOF_OF_LIFE).await {
                let (there, here) = (Box::new(node.clone()), Box::new(other.node));
                return Err(PeerRefused::SameIdentity { there, here });
            }
            other.connection.close(Close::TooMany.code(), b"the node has come back on another connection");
            self.0.lock().entries.retain(|entry| entry.number != other.number);
        }
    }

    fn enter(self: &Arc<Present>, inner: &mut Inner, node: &PeerName, connection: &Connection) -> Presence {
        let (number, ping) = (inner.next, Arc::new(Notify::new()));
        inner.next += 1;
        let (node, connection) = (node.clone(), connection.clone());
        inner.entries.push(Entry { number, node, connection, ping: ping.clone() });
        Presence { present: self.clone(), number, ping }
    }
}
