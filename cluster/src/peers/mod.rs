//! How nodes talk to each other.
//!
//! A node has one port, for clients and for other nodes. To another it connects with its own certificate, says who it
//! is on the control stream, hears who the other is, and each judges the other: by its certificate, its cluster, its
//! versions and its identity, and by what the [`PeerService`] knows. Whoever refuses says why, on both sides.
//!
//! Then each request goes on a stream of its own, so that none waits behind another; what is small goes before what is
//! large, and the control stream before both. A connection is used by the side that made it: two nodes that ask each other
//! have two.
//!
//! What one node's actors send to another's goes on a stream that stays open, in batches: see [`lane`]. It is apart from requests, so
//! neither waits for the other.
//!
//! [`Peers`] is both sides of this: it keeps the connections that [`Peers::call`] needs, and serves those that come in
//! through the node's port ([`Peers::serve`]). What requests mean is the service's.

mod backoff;
mod control;
mod hello;
pub mod lane;
mod pool;
mod present;
mod request;
mod serve;

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quinn::{Connection, RecvStream, SendStream, WriteError};
use tokio::time::{Instant, timeout, timeout_at};

pub use hello::{PeerHello, PeerName, PeerRefused, id};
pub use pool::{PeerState, PeerStatus};
pub use serve::refuse;

use crate::counters::Counters;
use crate::enrol;
use crate::fault::{Fault, Served};
use crate::network::{BoxFuture, Network};
use crate::tls::Identity;
use crate::transport::Lost;
use crate::wire::{Close, ControlError, PEER_REQUEST_BYTES_MAX, Preamble, StreamKind};
use lane::LaneStream;
use pool::{Link, Pool};
use present::Present;

/// What a lane's stream is sent at: as what is large. See [`quinn::SendStream::set_priority`].
const LANE_PRIORITY: i32 = 0;

/// What is behind a node, as other nodes see it.
pub trait PeerService: Send + Sync + 'static {
    /// What this node says of itself, now.
    fn about(&self) -> PeerHello;

    /// What speaks against another node, beside what this crate finds: that it was removed from the cluster, say. `from` is
    /// where it connected from, or was reached at. Both sides ask.
    fn judge(&self, hello: &PeerHello, from: SocketAddr) -> Result<(), PeerRefused>;

    /// Answers a request of another node, or says why not.
    ///
    /// `from` is what that node said of itself when it connected: whether it has been admitted since is for the service to
    /// know, by its id. The future is dropped when the other node gives up, or is gone.
    fn answer(&self, from: PeerName, request: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, String>>;

    /// Takes off this stream what another node's actors send to this one's, for as long as it lasts: see [`lane`]. The future is
    /// dropped when the connection is gone.
    ///
    /// # Errors
    /// What the other node did wrong: its connection ends with that.
    fn take_lane(&self, _stream: LaneStream) -> BoxFuture<'_, Result<(), Fault>> {
        let text = "the node takes no messages of other nodes' actors";
        Box::pin(async move { Err(Fault::new(Close::Preamble, text)) })
    }

    /// Has the cluster agree that the join token with this serial number is used now, and was not before; or says why that
    /// cannot be. It expires at `expires_us`, in microseconds since the Unix epoch: what is known of it may be forgotten a
    /// good while after.
    fn use_token(&self, _serial: Vec<u8>, _expires_us: u64) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Err("the node is in no cluster that others could join".into()) })
    }
}

/// Why a request of this node to another was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("cannot reach the node at {address}: {why}")]
    Unreachable { address: String, why: String },
    #[error(
        "this node and the one at {address} have certificates of different authorities, or such as the other does not take: {why}. A node \
         joins with a token of the cluster (`ringhold cluster token`, `--token`), or with certificates of its authority"
    )]
    Stranger { address: String, why: String },
    #[error("this node and the one at {address} do not talk to each other: {refused}")]
    Refused { address: String, refused: PeerRefused },
    /// It may have done what was asked, or may do it yet.
    #[error("the node at {address} had not answered {} ms after it was asked", within.as_millis())]
    TimedOut { address: String, within: Duration },
    /// It may have done what was asked.
    #[error("the connection to the node at {address} was lost before it answered: {why}")]
    Lost { address: String, why: String },
    /// The service there says so.
    #[error("the node at {address} answers: {text}")]
    Answered { address: String, text: String },
    #[error("a request of {bytes} bytes is over the limit of {PEER_REQUEST_BYTES_MAX}: ask for less at a time")]
    TooLarge { bytes: usize },
    #[error("this node is stopping, and asks no others any more")]
    Stopped,
}

/// A node's connections with other nodes, both ways. Clones are the same; when the last is gone, so are the connections that
/// it made.
#[derive(Clone)]
pub struct Peers(Arc<Inner>);

struct Inner {
    network: Arc<dyn Network>,
    identity: Identity,
    service: Weak<dyn PeerService>,
    present: Arc<Present>,
    pool: Mutex<Pool>,
}

impl fmt::Debug for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Peers").field(&self.status()).finish()
    }
}

impl Peers {
    /// The identity must be a node's. Once the service is gone, nobody is let in and nobody is asked any more.
    pub fn new(network: Arc<dyn Network>, identity: Identity, service: Weak<dyn PeerService>) -> Peers {
        let (present, pool) = (Arc::default(), Mutex::default());
        Peers(Arc::new(Inner { network, identity, service, present, pool }))
    }

    /// Asks the node at this address, `host:port`, and waits for its answer, in all no longer than `within`. With `expect`,
    /// only the node with this id is asked, whoever else has the address by now.
    ///
    /// The connection is made when it is needed, and kept. Where it could not be made, calls fail at once for a moment, with
    /// what the last attempt failed of.
    pub async fn call(
        &self,
        address: &str,
        expect: Option<[u8; 16]>,
        request: Vec<u8>,
        within: Duration,
    ) -> Result<Vec<u8>, CallError> {
        if request.len() > PEER_REQUEST_BYTES_MAX {
            return Err(CallError::TooLarge { bytes: request.len() });
        }
        let deadline = Instant::now() + within;
        let late = |_| CallError::TimedOut { address: address.into(), within };
        let link = timeout_at(deadline, self.link(address, expect)).await.map_err(late)??;
        link.silent_for();
        let was_late = |passed| {
            link.was_late();
            late(passed)
        };
        let (mut send, mut recv) = timeout_at(deadline, open_stream(&link, address)).await.map_err(was_late)??;
        let lost = |e: ControlError| CallError::Lost { address: address.into(), why: why(&link, &e) };
        let asking = request::ask((&mut send, &mut recv), link.version, request);
        match timeout_at(deadline, asking).await {
            Ok(Ok(answer)) => answer.map_err(|text| CallError::Answered { address: address.into(), text }),
            Ok(Err(e)) => Err(lost(e)),
            Err(passed) => {
                // What is on its way is not worth sending any more.
                let _ = (send.reset(Close::TooSlow.code()), recv.stop(Close::TooSlow.code()));
                Err(was_late(passed))
            }
        }
    }

    /// Opens a stream to the node at this address, `host:port`, for what its actors are sent, no later than `within`; see [`lane`].
    /// Only the node with this id is taken, whoever else has the address by now.
    ///
    /// # Errors
    /// As of [`Peers::call`].
    pub async fn open_lane(&self, address: &str, expect: [u8; 16], within: Duration) -> Result<LaneStream, CallError> {
        let late = |_| CallError::TimedOut { address: address.into(), within };
        let opening = async {
            let link = self.link(address, Some(expect)).await?;
            let (mut send, recv) = open_stream(&link, address).await?;
            let preamble = Preamble { version: link.version, kind: StreamKind::PeerLane }.to_bytes();
            // What is small and asked goes before it.
            let _ = send.set_priority(LANE_PRIORITY);
            if let Err(e) = send.write_all(&preamble).await {
                let e = match e {
                    WriteError::ConnectionLost(e) => e.into(),
                    _ => ControlError::Reset,
                };
                return Err(CallError::Lost { address: address.into(), why: why(&link, &e) });
            }
            Ok(LaneStream::new(link.peer.node.clone(), send, recv))
        };
        timeout(within, opening).await.map_err(late)?
    }

    /// The connection to an address.
    async fn link(&self, address: &str, expect: Option<[u8; 16]>) -> Result<Arc<Link>, CallError> {
        let link = pool::link(&self.0, address).await?;
        if let Some(expected) = expect.filter(|id| *id != link.peer.node.id) {
            let found = Box::new(link.peer.node.clone());
            let refused = PeerRefused::AnotherNode { expected, found };
            return Err(CallError::Refused { address: address.into(), refused });
        }
        Ok(link)
    }

    /// Lets go of an address: of its connection, and of what is known of it.
    pub fn forget(&self, address: &str) {
        pool::forget(&self.0, address);
    }

    /// Ends all connections that this node has made, and makes no more.
    pub fn stop(&self) {
        pool::stop(&self.0);
    }

    /// Of each address that was called.
    pub fn status(&self) -> Vec<PeerStatus> {
        self.0.pool.lock().status()
    }

    /// Serves the connection of another node, of whose first stream the preamble has been read, until it ends.
    pub async fn serve(
        &self,
        connection: &Connection,
        send: SendStream,
        recv: RecvStream,
        counters: &Arc<Counters>,
    ) -> Served {
        serve::serve(&self.0, connection, send, recv, counters).await
    }

    /// Serves a connection that shows a join token, of whose first stream the preamble has been read: see [`crate::enrol`].
    pub async fn enrol(
        &self,
        connection: &Connection,
        send: SendStream,
        recv: RecvStream,
        counters: &Counters,
    ) -> Served {
        let Inner { network, identity, service, .. } = &*self.0;
        enrol::serve(network, identity, service, connection, (send, recv), counters).await
    }
}

async fn open_stream(link: &Link, address: &str) -> Result<(SendStream, RecvStream), CallError> {
    let opened = link.connection.open_bi().await;
    opened.map_err(|e| CallError::Lost { address: address.into(), why: why(link, &e.into()) })
}

/// Why nothing came back, as far as this side knows.
fn why(link: &Link, error: &ControlError) -> String {
    match (link.connection.close_reason(), error) {
        (Some(reason), _) => Lost::of(&reason).to_string(),
        (None, ControlError::Connection(e)) => Lost::of(e).to_string(),
        (None, e) => e.to_string(),
    }
}
