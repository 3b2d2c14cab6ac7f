//! The connections that a node has made to others: one for each address, made when it is needed, and made again after a loss.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::backoff::Backoff;
use super::hello::{self, PeerGreeting, PeerHello, PeerName, PeerRefused};
use super::present::Presence;
use super::{CallError, Inner, PeerService, control};
use crate::network::Network;
use crate::tls::NODE_NAME;
use crate::transport::{self, Lost};
use crate::wire::{self, Close, ControlError, PEER_HELLO_BYTES_MAX, Preamble, StreamKind, VERSION, VERSION_MIN};

/// From the first packet to the greeting. A node that is there answers sooner; one that is not is tried again.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// How long nothing may come from a node that owes an answer. What was sent to one that was out of reach is sent again ever more
/// seldom, so that another connection is there sooner than it goes on.
const SILENCE_MAX: Duration = Duration::from_secs(2);

/// A connection that another node has welcomed.
pub(super) struct Link {
    pub connection: Connection,
    pub peer: PeerHello,
    /// What is spoken on it.
    pub version: u16,
    /// How many datagrams had come when that was last looked at, and when one was first seen to have come.
    heard: Mutex<(u64, Instant)>,
}

impl Link {
    fn new(connection: Connection, peer: PeerHello, version: u16) -> Link {
        Link { connection, peer, version, heard: Mutex::new((0, Instant::now())) }
    }

    /// For how long nothing has come, as far as was looked.
    pub fn silent_for(&self) -> Duration {
        let came = self.connection.stats().udp_rx.datagrams;
        let mut heard = self.heard.lock();
        if heard.0 != came {
            *heard = (came, Instant::now());
        }
        heard.1.elapsed()
    }

    /// Takes in that an answer has not come in time: the connection is given up if nothing else has.
    pub fn was_late(&self) {
        if self.silent_for() >= SILENCE_MAX {
            self.connection.close(Close::TooSlow.code(), b"nothing came from the node that was asked");
        }
    }
}

/// A new one, with what keeps it.
struct Made {
    link: Link,
    control: (SendStream, RecvStream),
    presence: Presence,
}

#[derive(Default)]
pub(super) struct Pool {
    slots: BTreeMap<String, Arc<Slot>>,
    /// To connect from, by the family of addresses.
    v4: Option<Endpoint>,
    v6: Option<Endpoint>,
    stopped: bool,
}

/// One address.
struct Slot {
    address: String,
    known: Mutex<Known>,
    changed: Notify,
}

struct Known {
    state: State,
    since: Instant,
    /// Why there is no connection now, or was none before this one.
    error: Option<CallError>,
    backoff: Backoff,
}

enum State {
    /// Nobody has asked for a connection yet, or since the last one was lost.
    Idle,
    Connecting,
    Connected(Arc<Link>),
    /// The last attempt failed, and another is not made before then.
    Waiting {
        until: Instant,
    },
    /// Nobody is to use it any more.
    Ended(CallError),
}

/// What a node knows of an address that it has called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    pub address: String,
    pub state: PeerState,
    /// For how long it has been so.
    pub for_ms: u64,
    /// Who is there, where there is a connection.
    pub node: Option<PeerName>,
    pub release: String,
    /// Why there is no connection, or was none before this one.
    pub error: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// Not needed so far, or since it was lost.
    Idle,
    Connecting,
    Connected,
    /// The last attempt failed, and the next one waits.
    Waiting,
}

impl Pool {
    fn slot(&mut self, address: &str) -> Result<Arc<Slot>, CallError> {
        if self.stopped {
            return Err(CallError::Stopped);
        }
        if let Some(slot) = self.slots.get(address) {
            return Ok(slot.clone());
        }
        let known = Known { state: State::Idle, since: Instant::now(), error: None, backoff: Backoff::default() };
        let slot = Arc::new(Slot { address: address.into(), known: Mutex::new(known), changed: Notify::new() });
        self.slots.insert(address.into(), slot.clone());
        Ok(slot)
    }

    fn endpoint(&mut self, network: &Arc<dyn Network>, to: SocketAddr) -> Result<Endpoint, transport::Error> {
        let family = if to.is_ipv4() { &mut self.v4 } else { &mut self.v6 };
        if let Some(endpoint) = family {
            return Ok(endpoint.clone());
        }
        let endpoint = transport::client_endpoint(network, to)?;
        *family = Some(endpoint.clone());
        Ok(endpoint)
    }

    pub(super) fn status(&self) -> Vec<PeerStatus> {
        self.slots.values().map(|slot| slot.status()).collect()
    }

    fn close(&self, close: Close, why: &[u8]) {
        for endpoint in [&self.v4, &self.v6].into_iter().flatten() {
            endpoint.close(close.code(), why);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close(Close::Done, b"the node is gone");
    }
}

impl Known {
    fn change(&mut self, state: State) {
        (self.state, self.since) = (state, Instant::now());
    }
}

impl Slot {
    /// Has those who wait for it fail, and gives up its connection.
    fn end(&self, error: CallError) {
        let mut known = self.known.lock();
        if let State::Connected(link) = &known.state {
            link.connection.close(Close::Done.code(), b"the node has no more to ask");
        }
        known.change(State::Ended(error));
        self.changed.notify_waiters();
    }

    fn status(&self) -> PeerStatus {
        let known = self.known.lock();
        let (state, link) = match &known.state {
            State::Idle | State::Ended(_) => (PeerState::Idle, None),
            State::Connecting => (PeerState::Connecting, None),
            State::Connected(link) => (PeerState::Connected, Some(link)),
            State::Waiting { .. } => (PeerState::Waiting, None),
        };
        PeerStatus {
            address: self.address.clone(),
            state,
            for_ms: known.since.elapsed().as_millis() as u64,
            node: link.map(|link| link.peer.node.clone()),
            release: link.map_or_else(String::new, |link| link.peer.release.clone()),
            error: known.error.as_ref().map(ToString::to_string),
        }
    }
}

pub(super) fn forget(inner: &Inner, address: &str) {
    let slot = inner.pool.lock().slots.remove(address);
    if let Some(slot) = slot {
        let why = "it was let go of while it was asked".into();
        slot.end(CallError::Unreachable { address: address.into(), why });
    }
}

pub(super) fn stop(inner: &Inner) {
    let mut pool = inner.pool.lock();
    pool.stopped = true;
    std::mem::take(&mut pool.slots).into_values().for_each(|slot| slot.end(CallError::Stopped));
    pool.close(Close::Stopping, b"the node is stopping");
}

/// The connection to an address. All who wait for one wait for the same attempt, which goes on though they give up.
pub(super) async fn link(inner: &Arc<Inner>, address: &str) -> Result<Arc<Link>, CallError> {
    let slot = inner.pool.lock().slot(address)?;
    loop {
        let changed = slot.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        {
            let mut known = slot.known.lock();
            match &known.state {
                State::Connected(link) if link.connection.close_reason().is_none() => return Ok(link.clone()),
                State::Ended(error) => return Err(error.clone()),
                State::Waiting { until } if Instant::now() < *until => {
                    return Err(known.error.clone().expect("a wait follows a failure"));
                }
                State::Connecting => {}
                State::Idle | State::Connected(_) | State::Waiting { .. } => {
                    known.change(State::Connecting);
                    tokio::spawn(attempt(inner.clone(), slot.clone()));
                }
            }
        }
        changed.await;
    }
}

/// Makes a connection, or takes in why there is none; and keeps it.
async fn attempt(inner: Arc<Inner>, slot: Arc<Slot>) {
    let made = match timeout(CONNECT_DEADLINE, connect(&inner, &slot.address)).await {
        Ok(made) => made,
        Err(_) => {
            let why = format!("nothing answered within {} s", CONNECT_DEADLINE.as_secs());
            Err(CallError::Unreachable { address: slot.address.clone(), why })
        }
    };
    let mut chance = [0; 8];
    inner.network.random(&mut chance);
    drop(inner);
    let mut known = slot.known.lock();
    if let State::Ended(_) = known.state {
        return;
    }
    match made {
        Ok(Made { link, control, presence }) => {
            tracing::info!(address = slot.address, node = link.peer.node.name, "connected with another node");
            let link = Arc::new(link);
            known.backoff.succeeded();
            known.change(State::Connected(link.clone()));
            tokio::spawn(keep(slot.clone(), link, control, presence));
        }
        Err(error) => {
            // The first of a row: a node that is down is not told of ten times a second.
            if known.error.as_ref() != Some(&error) {
                tracing::warn!("{error}");
            }
            let until = Instant::now() + known.backoff.failed(u64::from_le_bytes(chance));
            known.error = Some(error);
            known.change(State::Waiting { until });
        }
    }
    slot.changed.notify_waiters();
}

/// From the welcome to the end.
async fn keep(slot: Arc<Slot>, link: Arc<Link>, (send, recv): (SendStream, RecvStream), presence: Presence) {
    let fault = control::watch(&link.connection, send, recv, &presence).await;
    let why = match (&fault, link.connection.close_reason()) {
        (Some(fault), _) => fault.text.clone(),
        (None, reason) => reason.map_or_else(String::new, |reason| Lost::of(&reason).to_string()),
    };
    if let Some(fault) = fault {
        fault.end(&link.connection);
    }
    tracing::info!(
        address = slot.address,
        node = link.peer.node.name,
        why,
        "the connection with another node has ended"
    );
    let mut known = slot.known.lock();
    if matches!(&known.state, State::Connected(now) if Arc::ptr_eq(now, &link)) {
        known.error = Some(CallError::Unreachable { address: slot.address.clone(), why });
        known.change(State::Idle);
    }
}

/// Tries all that a name stands for at once, and takes the first that will do.
async fn connect(inner: &Arc<Inner>, address: &str) -> Result<Made, CallError> {
    let unreachable = |why: String| CallError::Unreachable { address: address.into(), why };
    let sockets = inner.network.resolve(address).await;
    let sockets = sockets.map_err(|e| unreachable(format!("the address cannot be resolved ({e}). Check it")))?;
    let mut attempts = JoinSet::new();
    for to in sockets {
        attempts.spawn(connect_to(inner.clone(), address.to_owned(), to));
    }
    let mut failed = unreachable("the name stands for no address".into());
    while let Some(ended) = attempts.join_next().await {
        match ended {
            Ok(Ok(made)) => return Ok(made),
            // What a node said comes before a node that said nothing.
            Ok(Err(error)) if !matches!(failed, CallError::Refused { .. }) => failed = error,
            Ok(Err(_)) => {}
            Err(e) => failed = unreachable(format!("connecting panicked ({e}): a bug of Ringhold")),
        }
    }
    Err(failed)
}

async fn connect_to(inner: Arc<Inner>, address: String, to: SocketAddr) -> Result<Made, CallError> {
    let unreachable = |why: String| CallError::Unreachable { address: address.clone(), why };
    let service = inner.service.upgrade().ok_or(CallError::Stopped)?;
    let config = transport::client_config(&inner.network, &inner.identity).map_err(|e| unreachable(e.to_string()))?;
    let endpoint = inner.pool.lock().endpoint(&inner.network, to).map_err(|e| unreachable(e.to_string()))?;
    let connecting = endpoint.connect_with(config, to, NODE_NAME).map_err(|e| unreachable(e.to_string()))?;
    let lost = |lost: Lost| match lost {
        // Trying again, unchanged, helps neither side.
        Lost::CertificateRequired | Lost::CertificateRefused(_) | Lost::PeerCertificate(_) => {
            CallError::Stranger { address: address.clone(), why: lost.to_string() }
        }
        lost => unreachable(lost.to_string()),
    };
    let connection = connecting.await.map_err(|e| lost(Lost::of(&e)))?;
    transport::widen(&connection);
    let about = service.about();
    let said = say_hello(&connection, &about).await;
    let (control, greeting) = said.map_err(|e| match connection.close_reason() {
        Some(reason) => lost(Lost::of(&reason)),
        None => unreachable(e.to_string()),
    })?;
    let judged = match greeting {
        PeerGreeting::Refused(refused) => Err(refused),
        PeerGreeting::Welcome { version, hello } => judge(&inner, &*service, &about, &hello, version, &connection)
            .await
            .map(|presence| (version, hello, presence)),
    };
    match judged {
        Ok((version, peer, presence)) => Ok(Made { link: Link::new(connection, peer, version), control, presence }),
        Err(refused) => {
            connection.close(Close::Refused.code(), refused.to_string().as_bytes());
            Err(CallError::Refused { address, refused })
        }
    }
}

async fn say_hello(
    connection: &Connection,
    about: &PeerHello,
) -> Result<((SendStream, RecvStream), PeerGreeting), ControlError> {
    let (mut send, mut recv) = connection.open_bi().await?;
    let _ = send.set_priority(control::CONTROL_PRIORITY);
    let hello = [&Preamble::new(StreamKind::Peer).to_bytes()[..], &wire::encode(about)?].concat();
    send.write_all(&hello).await.map_err(|_| ControlError::Reset)?;
    let greeting = wire::receive(&mut recv, PEER_HELLO_BYTES_MAX).await?;
    Ok(((send, recv), greeting))
}

/// Judges the node that has welcomed this one.
async fn judge(
    inner: &Inner,
    service: &dyn PeerService,
    about: &PeerHello,
    hello: &PeerHello,
    version: u16,
    connection: &Connection,
) -> Result<Presence, PeerRefused> {
    if !(VERSION_MIN..=VERSION).contains(&version) {
        return Err(PeerRefused::Hello(format!("it welcomes with version {version}, which was not offered")));
    }
    hello::compare(about, hello)?;
    service.judge(hello, connection.remote_address())?;
    inner.present.arrive(&hello.node, connection).await
}
