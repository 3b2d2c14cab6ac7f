//! A server with doors that echo, and clients for it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use parking_lot::Mutex;
use quinn::{Connection, RecvStream, SendStream};
use ringhold::client::{Client, Options};
use ringhold::server::{self, About, Doors, Gone, Server, Session, Sessions};
use ringhold_cluster::counters::Counters;
use ringhold_cluster::frame::{FRAME_HEADER_BYTES, FrameHeader, client_id, session_and_number};
use ringhold_cluster::network::{BoxFuture, Network, RealNetwork};
use ringhold_cluster::peers::Peers;
use ringhold_cluster::tls::{Authority, Identity, NODE_NAME, Role};
use ringhold_cluster::transport;
use ringhold_cluster::wire::{
    self, Greeting, Hello, NodeName, Preamble, Request, Response, Settled, StreamKind, TypeLayout, Welcome,
};
use ringhold_kernels::actor::{Actor, Context, Handled, MessageOf};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key};
use ringhold_kernels::message::{self, Header, Kind, Reason};
use ringhold_kernels::outbox::shard_of;
use ringhold_kernels::plain::Plain;
use ringhold_kernels::schema::{Schema, Type};
use tokio::sync::Notify;

/// An actor type without the macro: a message is a number in 24 bytes.
pub struct Echo;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number(pub u64);

// SAFETY: 24 bytes, of which the first eight are the number; the rest is written as zeros.
unsafe impl Plain for Number {
    const SIZE: usize = 24;
    const ALIGN: usize = 8;

    fn describe() -> Type {
        Type::Array(Box::new(Type::U64), 3)
    }

    unsafe fn write(&self, to: *mut u8) {
        // SAFETY: the caller's: SIZE bytes.
        unsafe { [self.0, 0, 0].write(to) }
    }

    unsafe fn read(from: *const u8) -> Option<Number> {
        // SAFETY: the caller's: SIZE bytes.
        unsafe { Some(Number(u64::read(from)?)) }
    }
}

impl MessageOf for Number {
    type Actor = Echo;
}

impl Actor for Echo {
    type State = u64;
    type Message = Number;
    type Reply = Number;
    const NAME: &'static str = "test.echo";
    const MODULE: &'static str = "echo";
    const CAN_FAULT: bool = false;
    const THREADS_PER_ACTOR: u32 = 1;
    const CUDA_TYPES: &'static str = "";
    const CUDA_FUNCTIONS: &'static str = "";

    fn schema() -> Schema {
        Schema {
            name: Self::NAME.into(),
            about: String::new(),
            threads_per_actor: 1,
            state: u64::describe(),
            message: Number::describe(),
            reply: Number::describe(),
        }
    }

    fn handle(_: &mut u64, message: Number, ctx: &mut Context<'_>) -> Handled {
        ctx.reply(message);
        Ok(())
    }
}

pub const PAYLOAD_BYTES_MAX: u32 = 156;

/// An ask, and its payload.
type Asked = (Header, Vec<u8>);
/// One that is not answered yet.
type Held = (Arc<Session>, Header, Vec<u8>);

/// Doors behind which every ask is answered with its own payload, at once, unless told otherwise.
pub struct EchoDoors {
    pub types: Mutex<Vec<TypeLayout>>,
    /// The node's id.
    pub id: Mutex<String>,
    /// What was taken, in order: session, key, first number of the payload.
    pub taken: Mutex<Vec<(u32, u64, u64)>>,
    /// Whether `taken` is kept; otherwise only `count` is.
    pub record: AtomicBool,
    pub count: AtomicUsize,
    /// Messages that there is room for; `usize::MAX` for any number.
    pub slots: AtomicUsize,
    pub room: Notify,
    /// Asks are kept here instead of being answered.
    pub hold: AtomicBool,
    pub held: Mutex<Vec<Held>>,
    pub dead: Mutex<Vec<(u64, Reason)>>,
    /// Up to which message all is durable, and how often a client was in a hurry for more.
    pub durable: AtomicU64,
    pub hurried: AtomicUsize,
    /// Where the node belongs: what all nodes there share, and its number.
    pub home: Mutex<Option<(Arc<Shared>, u32)>>,
    /// What it knows of who has which shard.
    pub owners: Mutex<wire::Owners>,
    /// Up to which number each client's messages for a shard were taken, where it stands alone.
    pub marks: Mutex<BTreeMap<(u32, usize), u64>>,
}

/// What moves with shards from one node to another, all of it at once and whole.
#[derive(Default)]
pub struct Shared {
    pub marks: Mutex<BTreeMap<(u32, usize), u64>>,
    /// The asks that were taken, and their payloads.
    pub asks: Mutex<BTreeMap<(u32, u64), Asked>>,
    /// Of those, the ones that are not answered yet, and where they are to be.
    pub held: Mutex<BTreeMap<(u32, u64), Arc<Session>>>,
    /// What was taken by whichever node, in order: node, key, first number of the payload.
    pub taken: Mutex<Vec<(u32, u64, u64)>>,
}

impl Shared {
    pub fn answer_held(&self) {
        for (ask, session) in std::mem::take(&mut *self.held.lock()) {
            let (header, payload) = &self.asks.lock()[&ask];
            session.answer(reply_to(header), payload);
        }
    }
}

impl Default for EchoDoors {
    fn default() -> EchoDoors {
        EchoDoors {
            types: Mutex::new(vec![TypeLayout::of(&Echo::schema())]),
            id: Mutex::new("1".into()),
            taken: Mutex::default(),
            record: AtomicBool::new(true),
            count: AtomicUsize::new(0),
            slots: AtomicUsize::new(usize::MAX),
            room: Notify::new(),
            hold: AtomicBool::new(false),
            held: Mutex::default(),
            dead: Mutex::default(),
            durable: AtomicU64::new(u64::MAX),
            hurried: AtomicUsize::new(0),
            home: Mutex::default(),
            owners: Mutex::default(),
            marks: Mutex::default(),
        }
    }
}

fn number(payload: &[u8]) -> u64 {
    payload.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl EchoDoors {
    pub fn answer_held(&self) {
        for (session, ask, payload) in std::mem::take(&mut *self.held.lock()) {
            session.answer(reply_to(&ask), &payload);
        }
    }

    pub fn make_room(&self, slots: usize) {
        self.slots.store(slots, SeqCst);
        self.room.notify_waiters();
    }

    /// Takes a message as one node of several, if its actor is here.
    fn take(
        &self,
        shared: &Shared,
        node: u32,
        session: &Arc<Session>,
        number: u64,
        header: &Header,
        payload: &[u8],
    ) -> bool {
        // Held: no shard moves meanwhile.
        let owners = self.owners.lock();
        let shard = shard_of(header.to().key);
        if owners.of_shards().nth(shard) != Some(node) {
            return false;
        }
        let ask = (session.number(), number);
        let is_new = shared.marks.lock().get(&(session.number(), shard)).is_none_or(|mark| number > *mark);
        if is_new {
            shared.marks.lock().insert((session.number(), shard), number);
            shared.taken.lock().push((node, header.to().key.0, self::number(payload)));
            self.count.fetch_add(1, SeqCst);
            if header.kind() == Some(Kind::Ask) {
                shared.asks.lock().insert(ask, (*header, payload.to_vec()));
                if self.hold.load(SeqCst) {
                    shared.held.lock().insert(ask, session.clone());
                }
            }
        }
        if header.kind() == Some(Kind::Ask) {
            self.tell(shared, session, number);
        }
        true
    }

    /// Answers an ask that was taken, now or as soon as it is no longer held.
    fn tell(&self, shared: &Shared, session: &Arc<Session>, number: u64) {
        let ask = (session.number(), number);
        if let Some(waits) = shared.held.lock().get_mut(&ask) {
            *waits = session.clone();
            return;
        }
        match shared.asks.lock().get(&ask) {
            Some((header, payload)) => session.answer(reply_to(header), payload),
            None => session.answer(server::lost(session, number), &[]),
        }
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.taken.lock().iter().map(|(_, _, number)| *number).collect()
    }
}

fn reply_to(ask: &Header) -> Header {
    ask.with_to(ask.from()).with_from(ask.to()).with_kind(Kind::Reply)
}

impl Doors for EchoDoors {
    fn forget(&self, gone: Gone) {
        self.marks.lock().retain(|(client, _), _| *client != gone.number);
    }

    fn admit(&self, session: &Arc<Session>, batch: &[u8]) -> usize {
        let mut slots = self.slots.load(SeqCst);
        let mut rest = batch;
        while slots > 0 {
            let Some((header, payload, after)) = message::split_first(rest) else { break };
            let (client, low) = session_and_number(header.from());
            let place = session.whole_number(low);
            if let Some((shared, node)) = &*self.home.lock() {
                if !self.take(shared, *node, session, place, &header, payload) {
                    break;
                }
                rest = after;
                continue;
            }
            let lane = (client, shard_of(header.to().key));
            if self.marks.lock().get(&lane).is_some_and(|mark| place <= *mark) {
                // What came before is dropped, with its answer.
                if header.kind() == Some(Kind::Ask) {
                    session.answer(server::lost(session, place), &[]);
                }
                rest = after;
                continue;
            }
            self.marks.lock().insert(lane, place);
            slots -= usize::from(slots != usize::MAX);
            self.count.fetch_add(1, SeqCst);
            if self.record.load(SeqCst) {
                self.taken.lock().push((session.number(), header.to().key.0, number(payload)));
            }
            if header.kind() == Some(Kind::Ask) {
                if self.hold.load(SeqCst) {
                    self.held.lock().push((session.clone(), header, payload.to_vec()));
                } else {
                    session.answer(reply_to(&header), payload);
                }
            }
            rest = after;
        }
        self.slots.store(slots, SeqCst);
        batch.len() - rest.len()
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if self.slots.load(SeqCst) == 0 {
                self.room.notified().await;
            }
        })
    }

    fn dead_letters(&self, batch: &[u8], reason: Reason) {
        let mut rest = batch;
        while let Some((header, payload, after)) = message::split_first(rest) {
            if header.kind() == Some(Kind::Tell) {
                self.dead.lock().push((number(payload), reason));
            }
            rest = after;
        }
    }

    fn attach(&self, session: &Arc<Session>, _: u64, waiting: &mut dyn Iterator<Item = u64>) {
        for number in waiting {
            match &*self.home.lock() {
                Some((shared, _)) => self.tell(shared, session, number),
                None => session.answer(server::lost(session, number), &[]),
            }
        }
    }

    fn home(&self) -> server::Home {
        match &*self.home.lock() {
            Some((_, number)) => server::Home { id: "cluster".into(), number: *number },
            None => server::Home { id: self.id.lock().clone(), number: 0 },
        }
    }

    fn owners(&self) -> wire::Owners {
        self.owners.lock().clone()
    }

    fn is_elsewhere(&self, to: ActorId) -> bool {
        let Some((_, number)) = *self.home.lock() else { return false };
        self.owners.lock().of_shards().nth(shard_of(to.key)) != Some(number)
    }

    fn covered(&self, _: u32, taken: u64) -> u64 {
        taken.min(self.durable.load(SeqCst))
    }

    fn hurry(&self) {
        self.hurried.fetch_add(1, SeqCst);
    }

    fn request(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            match request {
                Request::Status => Response::Status(Box::default()),
                Request::Settle { .. } => Response::Settled(Settled { settled: true, queued: 0, waited_ms: 0 }),
                Request::Devices => std::future::pending().await,
                _ => Response::Failed(wire::Failed::text("echo doors have nothing of the kind")),
            }
        })
    }

    fn about(&self) -> About {
        About {
            node: NodeName {
                id: self.id.lock().clone(),
                name: "echo".into(),
                cluster: "tests".into(),
                version: "0".into(),
            },
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            types: self.types.lock().clone(),
        }
    }
}

/// A server with its authority.
pub struct Node {
    pub network: Arc<dyn Network>,
    pub authority: Arc<Authority>,
    pub doors: Arc<EchoDoors>,
    pub server: Server,
}

impl Node {
    pub fn start(network: Arc<dyn Network>) -> Node {
        let authority = Arc::new(Authority::in_memory(&*network).unwrap());
        Node::at(network, authority, None)
    }

    /// A node that belongs somewhere.
    pub fn at(network: Arc<dyn Network>, authority: Arc<Authority>, home: Option<(Arc<Shared>, u32)>) -> Node {
        let doors = Arc::new(EchoDoors { home: Mutex::new(home), ..EchoDoors::default() });
        let server = serve(&network, &authority, doors.clone(), "127.0.0.1:0".parse().unwrap());
        Node { network, authority, doors, server }
    }

    pub fn counters(&self) -> &Counters {
        self.server.counters()
    }

    pub fn options(&self) -> Options {
        self.options_as(self.authority.identity(Role::Client, &*self.network).unwrap())
    }

    pub fn options_as(&self, identity: Identity) -> Options {
        let mut options = Options::new(self.server.address().to_string(), identity).with::<Echo>();
        options.network = self.network.clone();
        options
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.options()).await.unwrap()
    }

    /// A connection with nothing on it.
    pub async fn raw(&self) -> Connection {
        let identity = self.authority.identity(Role::Client, &*self.network).unwrap();
        let endpoint = transport::client_endpoint(&self.network, self.server.address()).unwrap();
        let config = transport::client_config(&self.network, &identity).unwrap();
        endpoint.connect_with(config, self.server.address(), NODE_NAME).unwrap().await.unwrap()
    }

    /// A connection with its hello said and its lane open.
    pub async fn raw_lane(&self) -> RawLane {
        self.raw_lane_as(&hello()).await.0
    }

    /// The same with this hello, and what it was answered.
    pub async fn raw_lane_as(&self, hello: &Hello) -> (RawLane, Welcome) {
        let connection = self.raw().await;
        let (mut send, mut recv) = connection.open_bi().await.unwrap();
        send.write_all(&Preamble::new(StreamKind::Control).to_bytes()).await.unwrap();
        wire::send(&mut send, hello).await.unwrap();
        let greeting: Greeting = wire::receive(&mut recv, wire::RESPONSE_BYTES_MAX).await.unwrap();
        let Greeting::Welcome(welcome) = greeting else { panic!("{greeting:?}") };
        let (mut lane, answers) = connection.open_bi().await.unwrap();
        lane.write_all(&Preamble::new(StreamKind::Lane).to_bytes()).await.unwrap();
        (RawLane { connection, _control: (send, recv), lane, answers }, welcome)
    }
}

pub struct RawLane {
    pub connection: Connection,
    _control: (SendStream, RecvStream),
    pub lane: SendStream,
    pub answers: RecvStream,
}

impl RawLane {
    /// Why the node closed the connection: code and reason.
    pub async fn closed(&self) -> (u64, String) {
        closed(&self.connection).await
    }
}

pub async fn closed(connection: &Connection) -> (u64, String) {
    match connection.closed().await {
        quinn::ConnectionError::ApplicationClosed(close) => {
            (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
        }
        other => panic!("the connection ended otherwise: {other}"),
    }
}

pub fn hello() -> Hello {
    let mut lane = wire::Lane { first: 1, ..wire::Lane::default() };
    RealNetwork.random(&mut lane.client);
    let (version_min, version_max) = (wire::VERSION, wire::VERSION);
    Hello { version_min, version_max, client: "raw".into(), cluster: None, types: vec![], admin: false, lane }
}

pub fn serve(network: &Arc<dyn Network>, authority: &Authority, doors: Arc<EchoDoors>, listen: SocketAddr) -> Server {
    let identity = authority.identity(Role::Node, &**network).unwrap();
    serve_as(network, identity, doors, listen, None)
}

pub fn serve_as(
    network: &Arc<dyn Network>,
    identity: Identity,
    doors: Arc<EchoDoors>,
    listen: SocketAddr,
    peers: Option<Peers>,
) -> Server {
    let options = server::Options { listen, identity, network: network.clone(), sessions_max: 8, peers };
    Server::start(options, Arc::new(Sessions::default()), doors).unwrap()
}

/// The bytes of a frame with these messages, which are numbered from the mark on where they bear no number.
pub fn frame(mark: u64, messages: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (number, (header, payload)) in (mark as u32 + 1..).zip(messages) {
        let numbered = header.with_from(client_id(0, number));
        let header = if header.from() == client_id(0, 0) { numbered } else { *header };
        message::append(&mut body, &header, payload);
    }
    let header = FrameHeader { len: body.len() as u32, count: messages.len() as u32, mark, ..FrameHeader::default() };
    let mut bytes = header.to_bytes().to_vec();
    assert_eq!(bytes.len(), FRAME_HEADER_BYTES);
    bytes.extend(body);
    bytes
}

pub fn tell(value: u64) -> (Header, Vec<u8>) {
    let to = ActorId::new(Echo::TYPE, Key(1));
    (Header::new(Kind::Tell, to, client_id(0, 0), 24, Hlc(0)), Number(value).to_bytes())
}

/// Waits until something holds, without a fixed sleep; gives up after a while.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
