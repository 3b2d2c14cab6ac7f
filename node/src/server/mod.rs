//! The node's side of the transport: accepts clients, keeps their sessions, and hands what they send to the devices.
//!
//! What is behind it comes in through [`Doors`]; answers go back through [`Sessions`]. A session has one lane, on
//! which messages come and answers go in frames ([`ringhold_cluster::frame`]); admin requests have streams of their
//! own. What a client can do wrong ends its own connection, with a reason, and is counted.
//!
//! Pressure: when the doors take less than a frame, or too many of a session's asks or answers wait, its lane is not
//! read. QUIC's flow control then holds the client back, and only this one.

mod clients;
mod lane;
mod session;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use quinn::{Connection, ConnectionError, Endpoint, Incoming, RecvStream, SendStream};
use ringhold_cluster::control::Lease;
use ringhold_cluster::counters::{Counters, bump};
use ringhold_cluster::enrol::{self, EnrolRefused};
use ringhold_cluster::fault::{Fault, Served, control_fault, preamble, silence};
use ringhold_cluster::frame::client_id;
use ringhold_cluster::network::{BoxFuture, Network};
use ringhold_cluster::peers::{self, PeerRefused, Peers};
use ringhold_cluster::tls::{self, Identity, JOIN_NAME};
use ringhold_cluster::transport::{self, Lost};
use ringhold_cluster::wire::{
    self, Close, ControlError, Greeting, Hello, LayoutMismatch, NodeName, Owners, Refused, Request, Response, Resumed,
    StreamKind, TypeLayout, VERSION, VERSION_MIN, Welcome,
};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::ActorId;
use ringhold_kernels::message::{self, Header, Kind, Reason};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

pub use clients::{CLIENT_KEPT, CLIENTS_MAX, Client, Gone, Remembered};
pub use session::{Session, Sessions};

use crate::vital::{caught, panic_text};
use clients::{Arrival, Named, NumberTaken, Numbers};

/// What is behind the server: the devices and whoever runs them.
pub trait Doors: Send + Sync + 'static {
    /// Takes messages from the front of `batch` and returns how many bytes it took: whole messages, in order; the
    /// rest had no room, or is for an actor that [is elsewhere](Doors::is_elsewhere). Never blocks.
    ///
    /// The messages are checked: tells, asks and inspects with payloads within the limit, whose sender is
    /// [`client_id`] of the session and the message's number, and whose `hlc` is
    /// zero, to be stamped here. A message may have come before, on another connection of its client. Each ask or inspect taken is owed exactly one answer, through [`Sessions`] or
    /// [`Session::answer`], addressed to that sender.
    fn admit(&self, session: &Arc<Session>, batch: &[u8]) -> usize;

    /// The lease under which the node runs its devices, where it has one: without it nothing of clients is let in, and nothing goes out
    /// to them.
    fn lease(&self) -> Option<Lease> {
        None
    }

    /// Resolves when `admit` may take something again: at once if there is room now. It may be wrong, and the server
    /// also asks again by itself after a moment, so that a missed wake costs milliseconds.
    fn room(&self) -> BoxFuture<'_, ()>;

    /// Tells that were not admitted, for the dead-letter queue. `batch` may hold asks too: those are answered by
    /// the server and are none of the queue's business.
    fn dead_letters(&self, batch: &[u8], reason: Reason);

    /// Turns away what there is no time for any more: asks are answered with the reason, tells become dead letters. Returns how
    /// many messages that were.
    fn refuse(&self, session: &Arc<Session>, batch: &[u8], reason: Reason) -> u64 {
        let mut rest = batch;
        let mut refused = 0;
        while let Some((header, _, after)) = message::split_first(rest) {
            if !header.is(Kind::Tell) {
                session
                    .answer(Header::new(Kind::Error, header.from(), header.to(), 0, Hlc(0)).with_reason(reason), &[]);
            }
            refused += 1;
            rest = after;
        }
        self.dead_letters(batch, reason);
        refused
    }

    /// What is known of clients from before the node's start.
    fn remembered(&self) -> Remembered {
        Remembered::default()
    }

    /// Resolves once the node knows who has which shard as of this [`Owners::version`](wire::Owners::version): a client that comes
    /// because a device is here now is not to be told that nobody knows of its asks.
    fn knows(&self, _table: u64) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// Takes in that a client has another connection: what is still to come on an earlier one comes again on this one, and so
    /// do asks whose answers are not told by [`Doors::attach`].
    fn detach(&self, _client: Client, _connection: u64) {}

    /// Begins to send the client of a session its answers. These asks came on an earlier connection and wait for theirs: each is
    /// owed exactly one, as those that [`Doors::admit`] takes are. `first` is the first message that will come.
    fn attach(&self, session: &Arc<Session>, _first: u64, waiting: &mut dyn Iterator<Item = u64>) {
        for number in waiting {
            session.answer(lost(session, number), &[]);
        }
    }

    /// Takes in that a client needs no answers any more to asks up to this one.
    fn release(&self, _client: u32, _number: u64) {}

    /// Up to which message of a client, of which these were taken, all that they did is durable, or as safe as it ever will be.
    fn covered(&self, _client: u32, taken: u64) -> u64 {
        taken
    }

    /// A client waits for more of its messages to be durable.
    fn hurry(&self) {}

    /// Lets go of what is known of a client.
    fn forget(&self, _gone: Gone) {}

    /// Answers an admin request. In a [`wire::Status`] the server itself fills in sessions, transport and address.
    fn request(&self, request: Request) -> BoxFuture<'_, Response>;

    /// What a hello is compared with.
    fn about(&self) -> About;

    /// Where the node belongs.
    fn home(&self) -> Home {
        Home { id: self.about().node.id, number: 0 }
    }

    /// Which node has which shard, as far as this one knows.
    fn owners(&self) -> Owners {
        Owners::default()
    }

    /// Whether an actor is another node's. `admit` takes no message for one, and none behind it.
    fn is_elsewhere(&self, _to: ActorId) -> bool {
        false
    }

    /// Why no new session is let in now, if none is. Whoever asks does so for one that it refuses then.
    fn refuses_session(&self) -> Option<String> {
        None
    }
}

/// The answer to an ask of which there is no other any more.
pub fn lost(session: &Session, number: u64) -> Header {
    let to = client_id(session.number(), number as u32);
    Header::new(Kind::Error, to, ActorId::default(), 0, Hlc(0)).with_reason(Reason::ConnectionLost)
}

/// Where a node belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// Of its cluster; the node's own where it stands alone.
    pub id: String,
    /// Its number in its cluster; 0 where it stands alone.
    pub number: u32,
}

/// What a node says of itself to a client.
#[derive(Clone, Debug)]
pub struct About {
    pub node: NodeName,
    /// [`payload_bytes_max`](ringhold_kernels::message::payload_bytes_max) of the devices' slots.
    pub payload_bytes_max: u32,
    pub types: Vec<TypeLayout>,
}

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Options {
    pub listen: SocketAddr,
    pub identity: Identity,
    pub network: Arc<dyn Network>,
    /// At most [`wire::SESSIONS_MAX`] makes sense.
    pub sessions_max: usize,
    /// For other nodes that connect; without, none are let in.
    pub peers: Option<Peers>,
}

/// How often a session that is held back asks the doors again though nobody said that there is room.
const ROOM_RETRY: Duration = Duration::from_millis(20);
/// How long a client waits for a node that is not open yet.
const OPENING_LIMIT: Duration = Duration::from_secs(2);
/// How long a client waits at most until the node knows who has which shard as well as it does.
const TABLE_LIMIT: Duration = Duration::from_secs(1);
/// How long a drain waits for clients to finish their lanes before it refuses what still comes.
const DRAIN_GRACE: Duration = Duration::from_secs(2);
/// Admin requests of all sessions that wait for something at a time, and how long another waits for its turn.
const WAITING_REQUESTS_MAX: usize = 64;
const REQUEST_TURN_LIMIT: Duration = Duration::from_secs(2);
/// How long a client may take to read the answer to a request.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(60);

/// Why a connection ends as the node does.
const STOPPING: &[u8] = b"the node is stopping";

/// A running server. Clones are the same server.
#[derive(Clone)]
pub struct Server {
    endpoint: Endpoint,
    shared: Arc<Shared>,
}

struct Shared {
    /// Nothing before [`Server::open`].
    doors: OnceLock<Arc<dyn Doors>>,
    opened: Signal,
    /// What the node waits for before it opens, for people.
    waits_for: Mutex<String>,
    sessions: Arc<Sessions>,
    counters: Arc<Counters>,
    sessions_max: usize,
    peers: Option<Peers>,
    address: SocketAddr,
    network: Arc<dyn Network>,
    handshakes: AtomicUsize,
    /// For admin requests that may wait for something.
    waiting_requests: Semaphore,
    /// No new clients; those there are finish.
    draining: Signal,
    /// What still comes is refused.
    refusing: Signal,
    /// Sessions end, whatever is under way.
    closing: Signal,
    /// Something that a drain waits for has happened.
    progress: Notify,
}

/// What became of a drain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Whether every client finished and had all its answers.
    pub complete: bool,
    /// Asks whose answers did not come in time; their clients see a lost connection.
    pub unanswered: u64,
}

/// A flag that can be waited for; waiters wake in the order they came.
#[derive(Default)]
struct Signal {
    set: AtomicBool,
    notify: Notify,
}

impl Signal {
    fn set(&self) {
        self.set.store(true, SeqCst);
        self.notify.notify_waiters();
    }

    fn is_set(&self) -> bool {
        self.set.load(SeqCst)
    }

    async fn wait(&self) {
        let notified = self.notify.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !self.is_set() {
            notified.await;
        }
    }
}

impl Server {
    /// Listens, and serves until [`Server::drain`].
    pub fn start(options: Options, sessions: Arc<Sessions>, doors: Arc<dyn Doors>) -> Result<Server, transport::Error> {
        let server = Server::listen(options, sessions)?;
        server.open(doors);
        Ok(server)
    }

    /// Listens. Clients wait until [`Server::open`]; those that have waited for long are refused, and told what the node waits for.
    pub fn listen(options: Options, sessions: Arc<Sessions>) -> Result<Server, transport::Error> {
        let counters = sessions.counters().clone();
        let endpoint = transport::server_endpoint(&options.network, options.listen, &options.identity, &counters)?;
        let address =
            endpoint.local_addr().map_err(|source| transport::Error::Bind { address: options.listen, source })?;
        let shared = Arc::new(Shared {
            doors: OnceLock::new(),
            opened: Signal::default(),
            waits_for: Mutex::default(),
            sessions,
            counters,
            sessions_max: options.sessions_max,
            peers: options.peers,
            address,
            network: options.network,
            handshakes: AtomicUsize::new(0),
            waiting_requests: Semaphore::new(WAITING_REQUESTS_MAX),
            draining: Signal::default(),
            refusing: Signal::default(),
            closing: Signal::default(),
            progress: Notify::new(),
        });
        let accepting = (endpoint.clone(), shared.clone());
        tokio::spawn(async move {
            while let Err(why) = caught(accept(accepting.0.clone(), accepting.1.clone())).await {
                tracing::error!("accepting a client panicked ({why}); others are accepted. This is a bug of Ringhold");
            }
        });
        Ok(Server { endpoint, shared })
    }

    /// Lets clients in, to these doors. Once.
    pub fn open(&self, doors: Arc<dyn Doors>) {
        let shared = &self.shared;
        let mut random = [0; 4];
        shared.network.random(&mut random);
        let numbers = Numbers::new(doors.home().number, u32::from_le_bytes(random));
        shared.sessions.clients.lock().begin(doors.remembered(), numbers, shared.network.steady_us());
        assert!(shared.doors.set(doors).is_ok(), "a server is opened once");
        shared.opened.set();
    }

    /// What the node waits for before it opens, for clients that come meanwhile.
    pub fn waits_for(&self, what: String) {
        *self.shared.waits_for.lock() = what;
    }

    /// Where it listens; the port is the real one where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.shared.sessions
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.shared.counters
    }

    /// [Has clients finish](Server::finish), and [closes](Server::close).
    pub async fn drain(&self, limit: Duration) -> Drained {
        let drained = self.finish(limit).await;
        self.close().await;
        drained
    }

    /// Lets no new client in, and has those there are finish what they have begun; then their sessions end. Other nodes are served until
    /// [`Server::close`].
    ///
    /// Clients are told, stop writing, and keep what they have not written for their next connection. Whatever
    /// reached the node by then is admitted and answered. After two seconds, or half of `limit`, what has still
    /// not been admitted is refused: asks are answered with [`Reason::Stopping`], tells become dead letters. Without its lease the node
    /// refuses nothing, and clients keep it for whoever has the devices.
    pub async fn finish(&self, limit: Duration) -> Drained {
        let started = Instant::now();
        let shared = &self.shared;
        shared.draining.set();
        shared.sessions.wake_writers();
        let grace = started + DRAIN_GRACE.min(limit / 2);
        let mut complete = timeout_at(grace, shared.until(Sessions::all_finished)).await.is_ok();
        if !complete {
            shared.refusing.set();
            // Without it nobody is told anything, that the node stops neither.
            if shared.doors().lease().is_none_or(|lease| lease.holds()) {
                complete = timeout_at(started + limit, shared.until(Sessions::all_finished)).await.is_ok();
            }
        }
        let unanswered = shared.sessions.asks_waiting();
        shared.closing.set();
        let _ = timeout(wire::REFUSAL_DEADLINE, shared.until(Sessions::is_empty)).await;
        Drained { complete, unanswered }
    }

    /// Ends all connections there are.
    pub async fn close(&self) {
        self.endpoint.close(Close::Stopping.code(), STOPPING);
        // The close itself should reach the others; one that is gone is not waited for.
        let _ = timeout(wire::REFUSAL_DEADLINE, self.endpoint.wait_idle()).await;
    }
}

/// Frees its port, whether it was drained or not: the task that accepts connections would go on for ever.
impl Drop for Server {
    fn drop(&mut self) {
        self.endpoint.close(Close::Stopping.code(), b"the node is gone");
    }
}

impl Shared {
    /// # Panics
    /// Before the server is opened: no client is past its greeting then.
    fn doors(&self) -> &Arc<dyn Doors> {
        self.doors.get().expect("clients are let in once the server is open")
    }

    async fn until(&self, is_so: impl Fn(&Sessions) -> bool) {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            progress.as_mut().enable();
            if is_so(&self.sessions) {
                return;
            }
            progress.await;
        }
    }
}

async fn accept(endpoint: Endpoint, shared: Arc<Shared>) {
    while let Some(incoming) = endpoint.accept().await {
        bump(&shared.counters.handshakes);
        let under_way = shared.handshakes.load(Relaxed);
        let crowded = under_way >= wire::HANDSHAKES_MAX;
        if crowded && incoming.may_retry() {
            // Costs the node nothing to remember, and a forged address nothing to gain.
            let _ = incoming.retry();
            continue;
        }
        let peers_max = if shared.peers.is_some() { wire::PEERS_MAX } else { 0 };
        let connections_max = shared.sessions_max + peers_max + 2 * wire::HANDSHAKES_MAX;
        // Who it is that comes is known later, and other nodes are let in to the last.
        if shared.draining.is_set() && shared.peers.is_none()
            || under_way >= 2 * wire::HANDSHAKES_MAX
            || endpoint.open_connections() >= connections_max
        {
            bump(&shared.counters.refused_busy);
            incoming.refuse();
            continue;
        }
        shared.handshakes.fetch_add(1, Relaxed);
        tokio::spawn(connection(incoming, shared.clone()));
    }
}

async fn connection(incoming: Incoming, shared: Arc<Shared>) {
    let connected = match incoming.accept() {
        Ok(connecting) => timeout(wire::HANDSHAKE_DEADLINE, connecting).await,
        Err(e) => Ok(Err(e)),
    };
    shared.handshakes.fetch_sub(1, Relaxed);
    match connected {
        Err(_) => bump(&shared.counters.handshakes_lost),
        Ok(Err(e)) => count_refusal(&e, &shared.counters),
        Ok(Ok(connection)) => {
            greet(connection, &shared).await;
        }
    }
}

fn count_refusal(error: &ConnectionError, counters: &Counters) {
    bump(match Lost::of(error) {
        Lost::CertificateRequired => &counters.refused_no_certificate,
        Lost::PeerCertificate(_) | Lost::CertificateRefused(_) => &counters.refused_certificate,
        Lost::TimedOut | Lost::Reset | Lost::Closed { .. } | Lost::Here => &counters.handshakes_lost,
        Lost::Protocol | Lost::Other(_) => &counters.refused_handshake,
    });
}

/// Who has connected, by what its first stream says.
enum First {
    Client(SendStream, RecvStream, Hello),
    Peer(SendStream, RecvStream),
    /// A node that is to join.
    Newcomer(SendStream, RecvStream),
}

/// From the connection to its end.
async fn greet(connection: Connection, shared: &Arc<Shared>) {
    let counters = &shared.counters;
    let greeting = async {
        let (send, mut recv) = connection.accept_bi().await.map_err(|_| None)?;
        match preamble(&mut recv, counters).await?.kind {
            StreamKind::Control => {
                let hello = wire::receive(&mut recv, wire::HELLO_BYTES_MAX).await;
                Ok(First::Client(send, recv, hello.map_err(|e| control_fault(&e, counters))?))
            }
            StreamKind::Peer => Ok(First::Peer(send, recv)),
            StreamKind::Enrol => Ok(First::Newcomer(send, recv)),
            StreamKind::Request | StreamKind::Lane | StreamKind::PeerRequest | StreamKind::PeerLane => {
                bump(&counters.bad_preambles);
                Err(Some(Fault::new(Close::Preamble, "the first stream must be the control stream")))
            }
        }
    };
    let greeted = match timeout(wire::GREETING_DEADLINE, greeting).await {
        Ok(greeted) => greeted,
        Err(_) => {
            bump(&counters.too_slow);
            Err(Some(Fault::new(Close::TooSlow, "no hello came in time")))
        }
    };
    match greeted {
        Ok(First::Client(send, recv, hello)) => client(&connection, send, recv, hello, shared).await,
        Ok(First::Peer(send, recv)) => {
            let served = match &shared.peers {
                Some(peers) => peers.serve(&connection, send, recv, counters).await,
                None => {
                    bump(&counters.refused_peers);
                    peers::refuse(&connection, send, &PeerRefused::Alone).await;
                    Ok(())
                }
            };
            end(&connection, served.err().flatten());
        }
        Ok(First::Newcomer(send, recv)) => {
            let served = match &shared.peers {
                Some(_) if shared.draining.is_set() => {
                    bump(&counters.refused_enrolments);
                    enrol::refuse(&connection, send, EnrolRefused::Stopping).await;
                    Ok(())
                }
                Some(peers) => peers.enrol(&connection, send, recv, counters).await,
                None => {
                    bump(&counters.refused_enrolments);
                    enrol::refuse(&connection, send, EnrolRefused::Alone).await;
                    Ok(())
                }
            };
            end(&connection, served.err().flatten());
        }
        Err(fault) => end(&connection, fault),
    }
}

/// From a client's hello to the end of its connection.
async fn client(connection: &Connection, mut send: SendStream, recv: RecvStream, hello: Hello, shared: &Arc<Shared>) {
    let counters = &shared.counters;
    if tls::peer_bears(connection, JOIN_NAME) {
        bump(&counters.refused_hello);
        return refuse(connection, &mut send, Refused::Token).await;
    }
    let opened = timeout(OPENING_LIMIT, shared.opened.wait()).await.is_ok();
    if opened {
        // Of a table that will not come, as that of another cluster at this address, it is not waited for long.
        let _ = timeout(TABLE_LIMIT, shared.doors().knows(hello.lane.table)).await;
    }
    let admitted = match opened {
        true => admit_client(&hello, shared),
        false => Err(Refused::Starting(shared.waits_for.lock().clone())),
    };
    match admitted {
        Err(refused) => refuse(connection, &mut send, refused).await,
        Ok((welcome, arrival)) => {
            let session = begin_session(&welcome, arrival, &hello, connection, shared);
            bump(&counters.sessions);
            let served = serve(connection, welcome, send, recv, &session, shared).await;
            let unanswered = session.close();
            shared.sessions.remove(&session);
            let done = connection.close_reason().is_some_and(|reason| is_done(&reason));
            let gone = shared.sessions.clients.lock().leave(&arrival, done, shared.network.steady_us());
            gone.into_iter().for_each(|gone| shared.doors().forget(gone));
            shared.progress.notify_one();
            match &served {
                Err(Some(_)) => bump(&counters.sessions_broken),
                _ => match connection.close_reason().as_ref().map(Lost::of) {
                    Some(Lost::Closed { close: Some(Close::Done | Close::Again), .. }) => {
                        bump(&counters.sessions_closed)
                    }
                    Some(Lost::Here) => {}
                    _ => bump(&counters.sessions_lost),
                },
            }
            tracing::debug!(session = session.number(), unanswered, "session ended");
            end(connection, served.err().flatten());
        }
    }
}

/// Whether the client has closed in good order, and will not come back.
fn is_done(reason: &ConnectionError) -> bool {
    matches!(Lost::of(reason), Lost::Closed { close: Some(Close::Done), .. })
}

/// From here on the client's answers go to this connection; none is told twice, and none is left out.
fn begin_session(
    welcome: &Welcome,
    arrival: Arrival,
    hello: &Hello,
    connection: &Connection,
    shared: &Shared,
) -> Arc<Session> {
    let session = Session::new(welcome, arrival, hello, connection.remote_address(), shared.counters.clone());
    let session = Arc::new(session);
    shared.doors().detach(arrival.client, arrival.connection);
    if let Some(followed) = shared.sessions.insert(session.clone()) {
        followed.replace();
    }
    // Of a client that it has forgotten, the node has no answers; and that one knows.
    if arrival.resumed == Resumed::Known {
        session.expect_answers(hello.lane.waiting.len() as u32);
        shared.doors().attach(&session, hello.lane.first, &mut hello.lane.waiting());
    }
    session
}

fn end(connection: &Connection, fault: Option<Fault>) {
    if let Some(fault) = fault {
        fault.end(connection);
    }
}

async fn refuse(connection: &Connection, send: &mut SendStream, refused: Refused) {
    let text = refused.to_string();
    tracing::info!(address = %connection.remote_address(), "client refused: {text}");
    let tell = async {
        if wire::send(send, &Greeting::Refused(refused)).await.is_ok() {
            let _ = send.finish();
            // Resolves when the client has it all.
            let _ = send.stopped().await;
        }
    };
    let _ = timeout(wire::REFUSAL_DEADLINE, tell).await;
    connection.close(Close::Refused.code(), text.as_bytes());
}

/// Compares a hello with what this node is.
fn admit_client(hello: &Hello, shared: &Shared) -> Result<(Welcome, Arrival), Refused> {
    let counters = &shared.counters;
    if hello.version_max < VERSION_MIN || hello.version_min > VERSION {
        bump(&counters.refused_version);
        return Err(Refused::Version {
            client_min: hello.version_min,
            client_max: hello.version_max,
            node_min: VERSION_MIN,
            node_max: VERSION,
        });
    }
    let (about, home) = (shared.doors().about(), shared.doors().home());
    let node_hash = |name: &str| about.types.iter().find(|t| t.name == name).map(|t| t.layout_hash);
    let mut mismatches = Vec::new();
    let mut unknown_types = Vec::new();
    for t in &hello.types {
        match node_hash(&t.name) {
            None => unknown_types.push(t.name.clone()),
            Some(node) if node != t.layout_hash => {
                mismatches.push(LayoutMismatch { name: t.name.clone(), client: t.layout_hash, node });
            }
            Some(_) => {}
        }
    }
    if !mismatches.is_empty() {
        bump(&counters.refused_layout);
        return Err(Refused::Layout(mismatches));
    }
    let refused = if shared.draining.is_set() {
        Some(Refused::Stopping)
    } else if hello.types.len() > wire::TYPES_MAX {
        Some(Refused::Hello(format!("it names {} actor types; the limit is {}", hello.types.len(), wire::TYPES_MAX)))
    } else if hello.lane.waiting.len() > wire::ASKS_MAX as usize || hello.lane.first == 0 {
        let (asks, first) = (hello.lane.waiting.len(), hello.lane.first);
        Some(Refused::Hello(format!(
            "its lane begins with message {first} and {asks} asks wait; messages count from 1, and the limit is {}",
            wire::ASKS_MAX
        )))
    } else if let Some(wanted) = hello.cluster.as_ref().filter(|wanted| **wanted != about.node.cluster) {
        Some(Refused::Cluster { wanted: wanted.clone(), actual: about.node.cluster.clone() })
    } else if hello.admin && shared.sessions.admins() < wire::ADMIN_SESSIONS_MAX {
        None
    } else if shared.sessions.len() >= shared.sessions_max {
        Some(Refused::TooManySessions { sessions_max: shared.sessions_max as u32 })
    } else if hello.lane.node != 0 && hello.lane.node != home.number {
        Some(Refused::OtherNode { wanted: hello.lane.node, actual: home.number })
    } else {
        shared.doors().refuses_session().map(Refused::Overloaded)
    };
    if let Some(refused) = refused {
        bump(&counters.refused_hello);
        return Err(refused);
    }
    let before = hello.lane.before.as_ref().filter(|before| before.home == home.id);
    let named = before.map(|before| Named { number: before.session, born: before.born });
    let mut gone = Vec::new();
    let arrival = shared.sessions.clients.lock().arrive(&hello.lane, named, shared.network.steady_us(), &mut gone);
    gone.into_iter().for_each(|gone| shared.doors().forget(gone));
    let arrival = arrival.map_err(|NumberTaken| {
        bump(&counters.refused_hello);
        Refused::NumberTaken(named.map_or(0, |named| named.number))
    })?;
    let welcome = Welcome {
        version: VERSION.min(hello.version_max),
        node: about.node,
        home: home.id,
        number: home.number,
        owners: shared.doors().owners(),
        session: arrival.client.number,
        born: arrival.client.born,
        resumed: arrival.resumed,
        payload_bytes_max: about.payload_bytes_max,
        asks_max: wire::ASKS_MAX,
        unknown_types,
        types: about.types.into_iter().map(|t| t.name).collect(),
    };
    Ok((welcome, arrival))
}

/// A session from its welcome to its end.
async fn serve(
    connection: &Connection,
    welcome: Welcome,
    mut send: SendStream,
    // Kept open for as long as the session: its end would be the client's.
    _control: RecvStream,
    session: &Arc<Session>,
    shared: &Arc<Shared>,
) -> Served {
    wire::send(&mut send, &Greeting::Welcome(welcome.clone())).await.map_err(|_| None)?;
    // Dropped at the end, whatever the reason: the streams' tasks end with the session.
    let mut streams = JoinSet::new();
    let gone = silence(connection);
    tokio::pin!(gone);
    loop {
        tokio::select! {
            biased;
            () = &mut gone => {
                tracing::debug!(session = session.number(), "nothing came from the client any more");
                return Err(None);
            }
            () = shared.closing.wait() => {
                connection.close(Close::Stopping.code(), STOPPING);
                return Err(None);
            }
            () = session.replaced() => {
                return Err(Some(Fault::new(Close::TooMany, "the client has come back on another connection")));
            }
            Some(ended) = streams.join_next(), if !streams.is_empty() => match ended {
                Ok(served) => served?,
                Err(e) => {
                    // This session alone has seen what was half done.
                    let why = e.try_into_panic().map_or_else(|e| e.to_string(), |panic| panic_text(&*panic));
                    tracing::error!(session = session.number(), "serving a client panicked ({why}): a bug of Ringhold");
                    return Err(Some(Fault::new(Close::Internal, "the node failed at serving it: its log says how")));
                }
            },
            accepted = connection.accept_bi() => {
                let (send, recv) = accepted.map_err(|_| None)?;
                let stream = stream(send, recv, session.clone(), shared.clone(), welcome.payload_bytes_max);
                streams.spawn(stream);
            }
        }
    }
}

async fn stream(
    send: SendStream,
    mut recv: RecvStream,
    session: Arc<Session>,
    shared: Arc<Shared>,
    payload_bytes_max: u32,
) -> Served {
    let counters = &shared.counters;
    let kind = match timeout(wire::GREETING_DEADLINE, preamble(&mut recv, counters)).await {
        Ok(preamble) => preamble?.kind,
        Err(_) => {
            bump(&counters.too_slow);
            return Err(Some(Fault::new(Close::TooSlow, "a stream's preamble did not come in time")));
        }
    };
    match kind {
        StreamKind::Control => {
            bump(&counters.bad_preambles);
            Err(Some(Fault::new(Close::Preamble, "a second control stream")))
        }
        StreamKind::Peer | StreamKind::PeerRequest | StreamKind::PeerLane | StreamKind::Enrol => {
            bump(&counters.bad_preambles);
            Err(Some(Fault::new(Close::Preamble, "a stream that only nodes open")))
        }
        StreamKind::Request => request(send, recv, &session, &shared).await,
        StreamKind::Lane if !session.take_lane() => {
            bump(&counters.too_many_streams);
            Err(Some(Fault::new(Close::TooMany, "a second lane")))
        }
        StreamKind::Lane => lane::run(send, recv, &session, &shared, payload_bytes_max).await,
    }
}

async fn request(mut send: SendStream, mut recv: RecvStream, session: &Arc<Session>, shared: &Arc<Shared>) -> Served {
    let counters = &shared.counters;
    let request = match timeout(wire::GREETING_DEADLINE, wire::receive(&mut recv, wire::REQUEST_BYTES_MAX)).await {
        Ok(request) => request.map_err(|e| control_fault(&e, counters))?,
        Err(_) => {
            bump(&counters.too_slow);
            return Err(Some(Fault::new(Close::TooSlow, "a request did not come in time")));
        }
    };
    bump(&counters.requests);
    let _open = session.open_request(shared);
    let mut response = match request {
        // These wait for nothing, and tell what is wrong where others do not get their turn.
        Request::Status | Request::Devices | Request::Health | Request::ActorTypes => {
            shared.doors().request(request).await
        }
        Request::Owners => Response::Owners(shared.doors().owners()),
        request => match timeout(REQUEST_TURN_LIMIT, shared.waiting_requests.acquire()).await {
            Ok(_turn) => shared.doors().request(request).await,
            Err(_) => Response::Failed(wire::Failed::new(
                Reason::Overloaded,
                format!("the node has {WAITING_REQUESTS_MAX} admin requests under way already: try again"),
            )),
        },
    };
    if let Response::Status(status) = &mut response {
        status.address = shared.address.to_string();
        status.sessions = shared.sessions.status();
        status.transport = counters.snapshot();
    }
    let answering = async {
        match wire::send(&mut send, &response).await {
            Ok(()) => {
                let _ = send.finish();
                // So that a drain does not close over an answer on its way.
                let _ = send.stopped().await;
            }
            Err(ControlError::TooLarge { bytes, max }) => {
                let text = format!("the answer has {bytes} bytes, over the limit of {max}: ask for less");
                let _ = wire::send(&mut send, &Response::Failed(wire::Failed::text(text))).await;
                let _ = send.finish();
                let _ = send.stopped().await;
            }
            // The client has given up waiting.
            Err(_) => {}
        }
    };
    // One that does not read it holds up nobody but itself, and not for ever.
    let _ = timeout(RESPONSE_DEADLINE, answering).await;
    Ok(())
}
