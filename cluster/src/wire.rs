//! What a connection carries: versions, limits, and the questions and answers of the control streams.
//!
//! Every QUIC stream is bidirectional, is opened by the side that connected, and starts with a [`Preamble`] that says
//! what it is. The first one of a connection says who is there. A client has:
//!
//! | stream | how many | then |
//! |---|---|---|
//! | [`StreamKind::Control`] | exactly one, first | [`Hello`] → [`Greeting`]; it stays open as long as the session |
//! | [`StreamKind::Request`] | [`REQUESTS_MAX`] at a time | one [`Request`] → one [`Response`], then its end |
//! | [`StreamKind::Lane`] | one, after the greeting | frames both ways, see [`crate::frame`] |
//!
//! Another node has, see [`crate::peers`]:
//!
//! | stream | how many | then |
//! |---|---|---|
//! | [`StreamKind::Peer`] | exactly one, first | hello → greeting; it stays open as long as the connection |
//! | [`StreamKind::PeerRequest`] | [`PEER_STREAMS_MAX`] at a time | one request → one answer, then its end |
//! | [`StreamKind::PeerLane`] | one that counts, the newest | batches one way, what was taken of them the other: see [`crate::peers::lane`] |
//!
//! And one that is to join, see [`crate::enrol`], has [`StreamKind::Enrol`], first and alone: one request → one answer.
//!
//! Control values are bincode behind a little-endian u32 length, with a limit on either side.
//!
//! # Versions
//!
//! A build speaks the versions from [`VERSION_MIN`] to [`VERSION`]: its own and the one before, so that the nodes of a
//! cluster, and its clients, can be replaced one by one by those of the next release. What the two versions share is not
//! changed; what only the newer one knows is not said to a side that speaks the older one. More than one version back
//! is refused, by both sides, with what each of them speaks.
//!
//! The first stream's preamble, and its hello, are written as the oldest version that the sender speaks has them, and
//! the hello says from which to which that is. The answer names the newest that both speak: it is what everything
//! after it on this connection is written in, the preambles of later streams among it. What never changes is the
//! preamble, that a node's hello begins with its two versions, and what a refusal says.

use std::time::Duration;

use quinn::{RecvStream, SendStream, VarInt};
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::message::Reason;
use ringhold_kernels::schema::Schema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::control::admin;

/// The TLS application protocol: peers that speak anything else are refused in the handshake.
pub const ALPN: &[u8] = b"ringhold/1";
/// The version of everything in this file and in [`crate::frame`]. A change that an older peer would misread
/// raises it.
pub const VERSION: u16 = 5;
/// The oldest version this build still speaks: the one before its own, from the first for which that was promised.
pub const VERSION_MIN: u16 = if VERSION > VERSION_FIRST_KEPT { VERSION - 1 } else { VERSION_FIRST_KEPT };
const VERSION_FIRST_KEPT: u16 = 5;
const _: () = assert!(VERSION >= VERSION_FIRST_KEPT);

/// Bytes of one request that a node reads: they are small.
pub const REQUEST_BYTES_MAX: usize = 64 << 10;
/// Bytes of a hello: it names actor types, and asks that wait.
pub const HELLO_BYTES_MAX: usize = 256 << 10;
/// Bytes of one control value a client reads: schemas and states of actors.
pub const RESPONSE_BYTES_MAX: usize = 16 << 20;
/// Streams a client may have open at a time, beside its lane and its control stream.
pub const REQUESTS_MAX: u32 = 16;
/// Actor types a client may name in its hello.
pub const TYPES_MAX: usize = 1_024;
/// Sessions a node serves at a time.
pub const SESSIONS_MAX: usize = 1_024;
/// Sessions beyond the node's limit, and while it sheds load, that look after it.
pub const ADMIN_SESSIONS_MAX: usize = 16;
/// Handshakes a node has under way at a time; beyond it, it makes clients prove their address first.
pub const HANDSHAKES_MAX: usize = 64;
/// Asks of one session that wait for their answers; at this the node stops reading from the session's lane.
pub const ASKS_MAX: u32 = 16_384;
/// Answers of one session that it has not read, in bytes; at this the node stops reading from its lane.
pub const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Bytes of a node's hello and of what it is answered.
pub const PEER_HELLO_BYTES_MAX: usize = 16 << 10;
/// Bytes of one request of a node to another, and of the answer.
pub const PEER_REQUEST_BYTES_MAX: usize = 32 << 20;
/// Streams that another node may have open at a time, beside its control stream.
pub const PEER_STREAMS_MAX: u32 = 256;
/// Connections of other nodes at a time, and those to other nodes.
pub const PEERS_MAX: usize = 1_024;

/// From a connection's first packet to the end of its TLS handshake.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// From a connection or stream to its preamble, its hello, its request.
pub const GREETING_DEADLINE: Duration = Duration::from_secs(5);
/// How long whoever is refused may take to read why.
pub const REFUSAL_DEADLINE: Duration = Duration::from_secs(1);
/// From the first byte of a node's request to its last, where it may be large and the way slow.
pub const PEER_REQUEST_DEADLINE: Duration = Duration::from_secs(60);
/// From a frame's first byte to its last, not counting the time in which the node itself does not read.
/// An idle lane may be silent for ever.
pub const FRAME_DEADLINE: Duration = Duration::from_secs(10);
/// A peer from which nothing at all comes for so long is gone.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// So that a live connection is never idle for [`IDLE_TIMEOUT`].
pub const KEEP_ALIVE: Duration = Duration::from_secs(3);

/// What a stream starts with: 8 bytes, so that garbage is recognised before anything is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preamble {
    pub version: u16,
    pub kind: StreamKind,
}

/// `RHLD`.
pub const MAGIC: [u8; 4] = *b"RHLD";
pub const PREAMBLE_BYTES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StreamKind {
    Control = 1,
    Request = 2,
    Lane = 3,
    /// The first of a node's connection to another.
    Peer = 4,
    PeerRequest = 5,
    /// The first, and only one, of a connection that shows a join token.
    Enrol = 6,
    /// What actors of one node send to those of another.
    PeerLane = 7,
}

impl StreamKind {
    /// Whether it is a connection's first, whose hello says which versions the sender speaks.
    pub const fn is_first(self) -> bool {
        matches!(self, StreamKind::Control | StreamKind::Peer | StreamKind::Enrol)
    }
}

impl Preamble {
    /// Of a stream that is written in the newest version there is; of a first one, in the oldest.
    pub const fn new(kind: StreamKind) -> Preamble {
        Preamble { version: if kind.is_first() { VERSION_MIN } else { VERSION }, kind }
    }

    pub fn to_bytes(self) -> [u8; PREAMBLE_BYTES] {
        let [m0, m1, m2, m3] = MAGIC;
        let [v0, v1] = self.version.to_le_bytes();
        [m0, m1, m2, m3, v0, v1, self.kind as u8, 0]
    }

    pub fn from_bytes(bytes: [u8; PREAMBLE_BYTES]) -> Result<Preamble, PreambleError> {
        let [m0, m1, m2, m3, v0, v1, kind, zero] = bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(PreambleError::Magic);
        }
        let version = u16::from_le_bytes([v0, v1]);
        let kind = match (kind, zero) {
            (1, 0) => Ok(StreamKind::Control),
            (2, 0) => Ok(StreamKind::Request),
            (3, 0) => Ok(StreamKind::Lane),
            (4, 0) => Ok(StreamKind::Peer),
            (5, 0) => Ok(StreamKind::PeerRequest),
            (6, 0) => Ok(StreamKind::Enrol),
            (7, 0) => Ok(StreamKind::PeerLane),
            _ => Err(PreambleError::Kind(kind)),
        };
        // A node's hello is read whatever its version: the beginning of it says more, and is answered.
        let says_more = matches!(kind, Ok(StreamKind::Peer | StreamKind::Enrol));
        if !says_more && !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(PreambleError::Version(version));
        }
        let kind = kind?;
        Ok(Preamble { version, kind })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PreambleError {
    #[error("a stream does not start with `RHLD`: the peer does not speak Ringhold's protocol")]
    Magic,
    #[error("a stream is of protocol version {0}; this node speaks {VERSION_MIN} to {VERSION}")]
    Version(u16),
    #[error("a stream is of kind {0}, which this version does not know")]
    Kind(u8),
}

/// Why a connection was closed: QUIC's application error code. The reason text beside it is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Close {
    /// The side that closed has nothing more to say.
    Done = 0,
    /// The node stops; what it admitted it has answered. A client reconnects, here or elsewhere.
    Stopping = 1,
    /// A stream did not start with a preamble that this node knows, or was of a kind not allowed there.
    Preamble = 2,
    /// The hello was refused; the greeting says why.
    Refused = 3,
    /// A frame broke the rules; the reason says which.
    Frame = 4,
    /// Something due did not come before its deadline.
    TooSlow = 5,
    /// A limit on sessions or streams; or the client has come back on another connection.
    TooMany = 6,
    /// A control value could not be decoded.
    Control = 7,
    /// The node failed at serving the client, by a bug of its own.
    Internal = 8,
    /// The client will connect again, here or elsewhere.
    Again = 9,
}

impl Close {
    pub const fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }

    pub fn from_code(code: VarInt) -> Option<Close> {
        use Close::*;
        let code = code.into_inner();
        [Done, Stopping, Preamble, Refused, Frame, TooSlow, TooMany, Control, Internal, Again]
            .into_iter()
            .find(|c| *c as u64 == code)
    }
}

/// The first value a client sends, on the control stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version_min: u16,
    pub version_max: u16,
    /// The program and its version, for people: `ringhold 0.1.0`.
    pub client: String,
    /// The cluster the client means to talk to; `None` takes any.
    pub cluster: Option<String>,
    /// The actor types the client was built with.
    pub types: Vec<TypeLayout>,
    /// It looks after the node, and is let in though that is full or sheds load: up to [`ADMIN_SESSIONS_MAX`] at a time are.
    pub admin: bool,
    pub lane: Lane,
}

/// A client's lane to one node: what it has sent, over all its connections, and what it has still to hear.
///
/// A client numbers its messages over all nodes of a cluster. The lane to a node carries those for that node's actors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Made once by the client, of randomness.
    pub client: [u8; 16],
    /// Which node it means, by its number in its cluster; 0 where any will do.
    pub node: u32,
    /// The first message that this connection may carry; those before it need not be sent again.
    pub first: u64,
    /// The last message that an earlier connection, to whichever node, may have carried: what comes up to it may have been answered.
    pub again: u64,
    /// The asks that do not come on this connection and whose answers have not come, in order, each as its distance from the one
    /// before it (the first one's from 0): at most [`ASKS_MAX`]. Their messages are for this node's actors.
    pub waiting: Vec<u64>,
    /// Who it is, if a node has told it before.
    pub before: Option<Before>,
    /// The [`Owners::version`] by which it comes to this node, which may not know as much yet.
    pub table: u64,
}

/// What a client was told when it first came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// [`Welcome::home`].
    pub home: String,
    /// [`Welcome::session`].
    pub session: u32,
    /// [`Welcome::born`].
    pub born: u64,
}

impl Lane {
    /// What to say of these asks, whose numbers grow.
    pub fn distances(numbers: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut last = 0;
        numbers.into_iter().map(|number| number - std::mem::replace(&mut last, number)).collect()
    }

    /// The numbers of the asks that wait.
    pub fn waiting(&self) -> impl Iterator<Item = u64> {
        self.waiting.iter().scan(0u64, |number, distance| {
            *number = number.saturating_add(*distance);
            Some(*number)
        })
    }
}

/// What a node knows of a client that says hello.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Resumed {
    /// It has sent nothing before.
    #[default]
    New,
    /// The node knows what of its messages it has, if any: the client sends again what it keeps, and nothing is done twice.
    Known,
    /// The node cannot know what of its messages was handled: the client must not send them again.
    Forgotten,
}

/// An actor type as somebody was built with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeLayout {
    pub name: String,
    /// [`Schema::layout_hash`].
    pub layout_hash: u64,
}

impl TypeLayout {
    pub fn of(schema: &Schema) -> TypeLayout {
        TypeLayout { name: schema.name.clone(), layout_hash: schema.layout_hash() }
    }
}

/// The answer to a hello.
// There is one of it for each connection, and not for long.
#[allow(clippy::large_enum_variant)]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Greeting {
    Welcome(Welcome),
    Refused(Refused),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub version: u16,
    pub node: NodeName,
    /// Where the client is known by its number: the id of the cluster, or of a node that stands alone.
    pub home: String,
    /// The node's number in its cluster; 0 where it stands alone.
    pub number: u32,
    /// The number by which all nodes of the cluster know this client, also after a restart; of no other as long as anything of it is
    /// left.
    pub session: u32,
    /// When the client first came, microseconds since the Unix epoch by the clock of the node that it came to: no two of one node
    /// are alike.
    pub born: u64,
    pub resumed: Resumed,
    pub owners: Owners,
    /// The largest payload of a message.
    pub payload_bytes_max: u32,
    /// Asks that may wait for their answers at a time.
    pub asks_max: u32,
    /// Those of the hello's types that the node does not have.
    pub unknown_types: Vec<String>,
    /// The types it has.
    pub types: Vec<String>,
}

/// Which node's actors are those of which shard, as a node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owners {
    /// Grows: of two, the one with the greater is newer, whichever nodes they are from. 0 from a node that stands alone.
    pub version: u64,
    /// The nodes of the cluster by number, and where each is reached (`host:port`). Empty from a node that stands alone, which has
    /// all shards.
    pub nodes: Vec<(u32, String)>,
    /// The owners of the shards, in their order from the first: so many next to each other have this node. Number 0: nobody has
    /// them.
    pub shards: Vec<(u32, u32)>,
}

impl Owners {
    /// What a list of each shard's node comes to.
    pub fn runs(nodes: impl IntoIterator<Item = u32>) -> Vec<(u32, u32)> {
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for node in nodes {
            match runs.last_mut() {
                Some((count, last)) if *last == node => *count += 1,
                _ => runs.push((1, node)),
            }
        }
        runs
    }

    /// The node of each shard, from the first.
    pub fn of_shards(&self) -> impl Iterator<Item = u32> {
        self.shards.iter().flat_map(|(count, node)| std::iter::repeat_n(*node, *count as usize))
    }
}

/// Who a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeName {
    /// Made once and kept in the node's data folder.
    pub id: String,
    /// From the configuration, for people.
    pub name: String,
    pub cluster: String,
    /// The version of the program it runs.
    pub version: String,
}

/// Why a client is not let in, and what to do. `Display` is meant to be shown as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refused {
    #[error(
        "the client speaks protocol versions {client_min} to {client_max} and the node {node_min} to {node_max}: \
         use a client and a node of the same release"
    )]
    Version { client_min: u16, client_max: u16, node_min: u16, node_max: u16 },
    #[error("{}", layouts(.0))]
    Layout(Vec<LayoutMismatch>),
    #[error("the client asked for cluster `{wanted}`, and this node belongs to `{actual}`: check the address")]
    Cluster { wanted: String, actual: String },
    #[error("the node already serves {sessions_max} sessions, its limit: try again, or use another node")]
    TooManySessions { sessions_max: u32 },
    #[error("the node is overloaded and takes no new sessions ({0}): try again later, or use another node")]
    Overloaded(String),
    #[error("the node is stopping: try again, or use another node")]
    Stopping,
    #[error("the client's hello is not valid: {0}")]
    Hello(String),
    #[error("the node is starting, and not open yet{}: try again", if .0.is_empty() { String::new() } else { format!(" ({})", .0) })]
    Starting(String),
    #[error("this is node {actual} of its cluster, and the client means node {wanted}")]
    OtherNode { wanted: u32, actual: u32 },
    #[error("the client's number {0} is another one's here: connect anew")]
    NumberTaken(u32),
    #[error(
        "the certificate is a join token's: it lets a node join and opens no client's session. Use a client's \
         (`client.pem` and `client.key`)"
    )]
    Token,
}

/// One actor type of which client and node were built from different sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutMismatch {
    pub name: String,
    pub client: u64,
    pub node: u64,
}

fn layouts(mismatches: &[LayoutMismatch]) -> String {
    let each: Vec<String> = mismatches
        .iter()
        .map(|m| format!("`{}` has layout {:016x} in the client and {:016x} on the node", m.name, m.client, m.node))
        .collect();
    format!(
        "the client was built with other actor types than the node: {}. Build both from the same actor modules \
         (a change to a state, a message or a reply changes the layout), then restart the older one",
        each.join("; ")
    )
}

/// What a client asks of a node, one to a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Status,
    Devices,
    /// How the node does.
    Health,
    /// Every actor type with its schema and figures.
    ActorTypes,
    /// The state of one actor.
    Inspect {
        type_id: TypeId,
        key: Key64,
    },
    /// Waits until nothing that was admitted before is still queued anywhere on the node.
    Settle {
        timeout_ms: u64,
    },
    /// The newest messages that nobody handled, of those that the filter takes.
    DeadLetters {
        filter: LetterFilter,
        limit: u32,
    },
    /// Somebody has seen to what was wrong with a device's backends: those that were left alone are tried again now.
    Retry {
        device: String,
    },
    /// Sends messages that nobody handled again, the oldest first, as tells. Each is kept until its device has taken it.
    RetryDeadLetters {
        filter: LetterFilter,
        /// How long to wait for room.
        timeout_ms: u64,
    },
    /// Forgets messages that nobody handled.
    DropDeadLetters {
        filter: LetterFilter,
    },
    /// Stops the node in good order, as SIGTERM does.
    Drain {
        timeout_ms: u64,
    },
    /// Which node has which shard.
    Owners,
    /// About the cluster, or a change to it.
    Cluster(admin::Request),
    /// Somebody wants to see to the backend that runs a device: the device goes on with another until it is to be tried again.
    LeaveBackend {
        device: String,
    },
}

/// A [`Key`] on a control stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key64(pub u64);

impl From<Key> for Key64 {
    fn from(key: Key) -> Key64 {
        Key64(key.0)
    }
}

impl From<Key64> for Key {
    fn from(key: Key64) -> Key {
        Key(key.0)
    }
}

/// The answer to a [`Request`], variant for variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Response {
    Status(Box<Status>),
    Devices(Vec<DeviceStatus>),
    Health(Health),
    ActorTypes(Vec<ActorType>),
    Inspected(ActorState),
    Settled(Settled),
    /// The names of the device's backends that had been left alone.
    Retrying(Vec<String>),
    DeadLetters(DeadLetters),
    /// To both retry and drop.
    DeadLettersDone(LettersDone),
    /// The drain has begun; the connection will close with [`Close::Stopping`].
    Draining,
    Failed(Failed),
    Owners(Owners),
    Cluster(admin::Response),
    /// The backend that the device is to go on with.
    LeavingBackend(String),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{text}")]
pub struct Failed {
    /// The [`Reason`] as a number, where there is one.
    pub reason: Option<u8>,
    /// What was asked, what went wrong and what to do.
    pub text: String,
}

impl Failed {
    pub fn new(reason: Reason, text: impl Into<String>) -> Failed {
        Failed { reason: Some(reason as u8), text: text.into() }
    }

    pub fn text(text: impl Into<String>) -> Failed {
        Failed { reason: None, text: text.into() }
    }

    pub fn reason(&self) -> Option<Reason> {
        self.reason.and_then(Reason::from_u8)
    }
}

/// A node at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub node: NodeName,
    pub state: NodeState,
    /// Where clients reach it.
    pub address: String,
    pub pid: u32,
    /// When this was taken, microseconds since the Unix epoch: two of these give rates.
    pub at_us: u64,
    pub uptime_ms: u64,
    pub slot_bytes: u32,
    pub payload_bytes_max: u32,
    pub actor_types: u32,
    pub devices: Vec<DeviceStatus>,
    pub sessions: Vec<SessionStatus>,
    /// Kept in the dead-letter queue now, and all since the node started.
    pub dead_letters_kept: u64,
    pub dead_letters: u64,
    /// Of those since the start, how many could not be kept; and why the disk takes none now, if it does not.
    pub dead_letters_lost: u64,
    pub dead_letters_failed: Option<String>,
    /// The transport's counters, by name.
    pub transport: Vec<Counter>,
    pub shedding: Shedding,
}

/// What a node refuses because it is short of memory or capacity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shedding {
    pub level: ShedLevel,
    /// How short it is: 100 is all there is.
    pub pressure_percent: u64,
    /// Of what, where something is refused.
    pub why: String,
    /// Refused since the node started.
    pub sessions: u64,
    pub creations: u64,
    pub tells: u64,
    pub asks: u64,
}

/// The last of the steps that are taken: each includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShedLevel {
    #[default]
    Nothing,
    /// New sessions are refused.
    Sessions,
    /// Messages from outside to actors that do not exist are refused.
    Creation,
    /// Tells from outside are refused.
    Tells,
    /// Asks from outside are refused.
    Asks,
}

/// How a node does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it should be left to run.
    pub live: Verdict,
    /// Whether it should be given work.
    pub ready: Verdict,
    pub devices: Vec<DeviceHealth>,
}

/// Yes or no, and why not, or with what reservations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    pub ok: bool,
    pub reasons: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceHealth {
    pub name: String,
    pub state: DeviceState,
    pub verdict: DeviceVerdict,
    /// Why it is not well.
    pub reason: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceVerdict {
    Well,
    /// It works, and not as it is meant to.
    Degraded,
    #[default]
    Down,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    #[default]
    Starting,
    Running,
    /// Running, and not every device is.
    Degraded,
    Draining,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    pub number: u32,
    pub address: String,
    /// What the client calls itself.
    pub client: String,
    pub uptime_ms: u64,
    pub messages_in: u64,
    pub answers_out: u64,
    pub asks_waiting: u32,
    /// Whether the node holds it back now, because the devices are full or it does not read its answers.
    pub held_back: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    pub name: String,
    pub value: u64,
}

/// A device at one moment. Counters run from the node's start and outlive restarts of the device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DeviceStatus {
    pub name: String,
    /// Of what runs it now.
    pub kind: DeviceKind,
    /// What runs it now: `cuda:0`, `cpu`.
    pub backend: String,
    /// What can run it, in the order in which that is preferred.
    pub backends: Vec<BackendStatus>,
    pub state: DeviceState,
    /// For people: since when, why.
    pub detail: String,
    /// Of the device host; `None` where the device runs inside the node.
    pub pid: Option<u32>,
    pub restarts: u32,
    pub uptime_ms: u64,
    /// When this was taken, microseconds since the Unix epoch: two of these give rates.
    pub at_us: u64,
    /// Of the oldest heartbeat among its workers that hold a message; zero if none does.
    pub heartbeat_age_ms: u64,
    pub workers: Vec<WorkerStatus>,
    pub actors: u64,
    pub actors_created: u64,
    pub memory_bytes: u64,
    pub handled: u64,
    /// Over about the last second.
    pub handled_per_s: u64,
    pub faults: u64,
    pub replies: u64,
    /// Messages its actors sent, to any actor.
    pub sent: u64,
    /// Timers that wait.
    pub timers: u64,
    /// Messages waiting in inboxes and rings, and for how many there is room.
    pub inbox_used: u64,
    pub inbox_slots: u64,
    /// Messages waiting on spill lists, and all that ever did.
    pub spilled_now: u64,
    pub spilled: u64,
    pub dead_letters: u64,
    /// Messages not handled, by [`Reason`] (as a number).
    pub unhandled: Vec<(u8, u64)>,
    /// `None` where the device runs by its host's clock, or nothing is known of its own yet.
    pub clock: Option<ClockStatus>,
    /// `None` where none are made.
    pub checkpoints: Option<CheckpointStatus>,
    /// Shards that it owns.
    pub shards: u32,
}

/// A device's checkpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointStatus {
    /// The last one's number; numbers grow for as long as the data folder lives.
    pub epoch: u64,
    /// Made since the node's start.
    pub count: u64,
    /// How long the last one has been durable; `None` before the first.
    pub age_ms: Option<u64>,
    pub bytes: u64,
    /// How long the device stood still for the last one, and how long it took until it was durable.
    pub pause_us: u64,
    pub took_us: u64,
    /// Why the last attempt failed, if it did.
    pub failed: Option<String>,
    /// Messages kept until a checkpoint covers them.
    pub retained_bytes: u64,
    /// Hosts that went on from a checkpoint, and how long that took, from the end of the last host: the last time, and at most.
    pub recoveries: u64,
    pub recovery_us: u64,
    pub recovery_max_us: u64,
    /// Of the recoveries, those that went on with another backend.
    pub moves: u64,
    pub last_recovery: Option<RecoveryStatus>,
}

/// How a device came to the host that it has: the last time that it had to. Times since it was noticed that the one before had
/// to go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecoveryStatus {
    pub why: String,
    /// What it ran on before, and what it went on with.
    pub from: String,
    pub to: String,
    /// Until the old host was gone, the new one was started, and the device ran with all that it had.
    pub gone_us: u64,
    pub launched_us: u64,
    pub running_us: u64,
}

/// Something that can run a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    pub name: String,
    pub breaker: BreakerState,
    /// Why its breaker opened; empty where it is closed.
    pub why: String,
    /// In how long it is tried again, where it is open; `None` where somebody has to see to it first.
    pub retry_ms: Option<u64>,
}

/// Whether a device may run there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerState {
    #[default]
    Closed,
    /// It has failed, and the device runs elsewhere.
    Open,
    /// A host of it is being started, while the device runs elsewhere.
    Trying,
}

/// A device's own clock, as its host maps it to its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockStatus {
    /// Host time less device time.
    pub offset_ns: i64,
    /// By how much the offset grows, in nanoseconds a second; positive where the device's clock is slow.
    pub drift_ppb: i64,
    /// How far the device's mapped time may be off now.
    pub error_ns: u64,
    /// Samples taken since its host started.
    pub samples: u64,
    /// How often the device was paused since then, because its time was wrong.
    pub pauses: u64,
    /// It is paused now.
    pub paused: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceKind {
    #[default]
    Cpu,
    Cuda,
    Emulated,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    #[default]
    Starting,
    Running,
    /// A worker holds a message past its deadline.
    Stalled,
    /// The device host is gone and another is on its way.
    Restarting,
    Stopping,
    Stopped,
    /// Given up: its last host ended in a way after which the device is not to be trusted.
    Failed,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    pub number: u32,
    pub state: WorkerState,
    pub heartbeat_age_ms: u64,
    /// How long it has held the message it runs; zero when idle.
    pub busy_ms: u64,
    pub handled: u64,
    pub actors: u64,
    pub inbox_used: u64,
    pub inbox_slots: u64,
    pub spilled_now: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    #[default]
    Idle,
    Busy,
    Stalled,
    Dead,
}

/// An actor type on a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ActorType {
    pub type_id: TypeId,
    pub layout_hash: u64,
    pub schema: Schema,
    pub actors: u64,
    pub handled: u64,
    pub faults: u64,
}

/// The state of one actor, whole and of one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActorState {
    pub type_id: TypeId,
    pub key: Key64,
    pub device: String,
    pub worker: u32,
    pub handled: u64,
    pub faults: u32,
    pub layout_hash: u64,
    /// In the layout of the type's schema.
    pub state: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settled {
    /// Whether everything admitted before had been handled by then; timers that wait do not count.
    pub settled: bool,
    /// What was still queued.
    pub queued: u64,
    pub waited_ms: u64,
}

/// Which dead letters are meant: those that all of it is true of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterFilter {
    pub numbers: Option<Vec<u64>>,
    /// Only up to this number.
    pub newest: Option<u64>,
    pub to_type: Option<TypeId>,
    /// [`Reason`] as a number.
    pub reason: Option<u8>,
}

/// Dead letters that a filter takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetters {
    /// All that it takes.
    pub matching: u64,
    /// The newest of them all; `None` where there is none.
    pub newest: Option<u64>,
    /// The newest of them, the newest first.
    pub letters: Vec<DeadLetter>,
}

/// What became of dead letters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LettersDone {
    /// All that the filter took.
    pub matching: u64,
    /// Sent again, or dropped.
    pub done: u64,
    /// Still kept, because they could not be sent: how many, for each [`Reason`] (as a number).
    pub left: Vec<(u8, u64)>,
}

/// Dead letters in one answer, at most.
pub const LETTERS_MAX: u32 = 1_000;

/// A message that nobody handled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub number: u64,
    /// When it was given up, microseconds since the Unix epoch.
    pub at_us: u64,
    /// The device that gave it up; empty if none had it.
    pub device: String,
    /// The device hosts that it ended.
    pub history: Vec<LetterStrike>,
    pub hlc: Hlc,
    /// [`Reason`] as a number.
    pub reason: u8,
    pub to_type: TypeId,
    pub to_key: Key64,
    pub from_type: TypeId,
    pub from_key: Key64,
    pub payload: Vec<u8>,
}

/// A device host that ended with a message in hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterStrike {
    pub at_us: u64,
    /// Which of its device's hosts since the node's start.
    pub term: u64,
    pub how: String,
}

impl DeadLetter {
    pub fn to(&self) -> ActorId {
        ActorId::new(self.to_type, self.to_key.into())
    }

    pub fn from(&self) -> ActorId {
        ActorId::new(self.from_type, self.from_key.into())
    }
}

/// Why a control value could not be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("a control value of {bytes} bytes is over the limit of {max}")]
    TooLarge { bytes: usize, max: usize },
    #[error("a control value could not be decoded: {0}")]
    Decode(String),
    #[error("a control value could not be encoded: {0}")]
    Encode(String),
    #[error("the stream ended inside a control value")]
    Truncated,
    #[error("the stream was given up by the peer")]
    Reset,
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
}

fn bincode_config() -> impl bincode::config::Config {
    bincode::config::standard().with_limit::<RESPONSE_BYTES_MAX>()
}

/// The bytes of a control value, its length first.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, ControlError> {
    let mut bytes = vec![0; 4];
    let len = bincode::serde::encode_into_std_write(value, &mut bytes, bincode_config())
        .map_err(|e| ControlError::Encode(e.to_string()))?;
    if len > RESPONSE_BYTES_MAX {
        return Err(ControlError::TooLarge { bytes: len, max: RESPONSE_BYTES_MAX });
    }
    bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
    Ok(bytes)
}

/// The value these bytes are, without their length, and nothing else.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ControlError> {
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, bincode_config()).map_err(|e| ControlError::Decode(e.to_string()))?;
    if used != bytes.len() {
        return Err(ControlError::Decode(format!("{} bytes are left over", bytes.len() - used)));
    }
    Ok(value)
}

/// Sends one control value.
pub async fn send<T: Serialize>(stream: &mut SendStream, value: &T) -> Result<(), ControlError> {
    stream.write_all(&encode(value)?).await.map_err(|e| match e {
        quinn::WriteError::ConnectionLost(e) => ControlError::Connection(e),
        _ => ControlError::Reset,
    })
}

/// The value with which these bytes begin.
pub(crate) fn decode_beginning<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ControlError> {
    let decoded = bincode::serde::decode_from_slice(bytes, bincode_config());
    decoded.map(|(value, _)| value).map_err(|e| ControlError::Decode(e.to_string()))
}

/// Reads one control value of at most `max` bytes. The caller sets the deadline.
pub async fn receive<T: DeserializeOwned>(stream: &mut RecvStream, max: usize) -> Result<T, ControlError> {
    decode(&receive_bytes(stream, max).await?)
}

/// Reads the bytes of one control value, without their length.
pub(crate) async fn receive_bytes(stream: &mut RecvStream, max: usize) -> Result<Vec<u8>, ControlError> {
    let mut len = [0; 4];
    read_exact(stream, &mut len).await?;
    let len = u32::from_le_bytes(len) as usize;
    if len > max {
        return Err(ControlError::TooLarge { bytes: len, max });
    }
    // Grown as bytes come: a length alone commits no memory.
    let mut bytes = Vec::new();
    while bytes.len() < len {
        let start = bytes.len();
        bytes.resize(len.min(start + READ_STEP_BYTES), 0);
        read_exact(stream, &mut bytes[start..]).await?;
    }
    Ok(bytes)
}

const READ_STEP_BYTES: usize = 64 << 10;

/// Fills `bytes` from a stream.
pub async fn read_exact(stream: &mut RecvStream, bytes: &mut [u8]) -> Result<(), ControlError> {
    stream.read_exact(bytes).await.map_err(|e| match e {
        quinn::ReadExactError::FinishedEarly(_) => ControlError::Truncated,
        quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(e)) => ControlError::Connection(e),
        quinn::ReadExactError::ReadError(_) => ControlError::Reset,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preamble_is_read_back_and_garbage_is_told_apart() {
        use StreamKind::*;
        for kind in [Control, Request, Lane, Peer, PeerRequest, Enrol, PeerLane] {
            let preamble = Preamble::new(kind);
            assert_eq!(Preamble::from_bytes(preamble.to_bytes()), Ok(preamble));
        }
        let good = Preamble::new(StreamKind::Lane).to_bytes();
        let with = |at: usize, value: u8| {
            let mut bytes = good;
            bytes[at] = value;
            Preamble::from_bytes(bytes)
        };
        assert_eq!(with(0, b'X'), Err(PreambleError::Magic));
        assert_eq!(with(4, 99), Err(PreambleError::Version(99)));
        assert_eq!(with(6, 9), Err(PreambleError::Kind(9)));
        assert!(with(7, 1).is_err());
        let peer = Preamble { version: 99, kind: StreamKind::Peer };
        assert_eq!(Preamble::from_bytes(peer.to_bytes()), Ok(peer));
    }

    #[test]
    fn control_values_come_back_whole_and_refuse_leftovers() {
        let hello = Hello {
            version_min: 1,
            version_max: 1,
            client: "test".into(),
            cluster: None,
            types: vec![TypeLayout { name: "bank.account".into(), layout_hash: 7 }],
            admin: false,
            lane: Lane {
                client: [3; 16],
                node: 2,
                first: 9,
                again: 12,
                waiting: Lane::distances([2, 5, 8]),
                before: None,
                table: 4,
            },
        };
        let bytes = encode(&hello).unwrap();
        assert_eq!(decode::<Hello>(&bytes[4..]).unwrap(), hello);
        assert!(hello.lane.waiting().eq([2, 5, 8]));
        let mut longer = bytes[4..].to_vec();
        longer.push(0);
        assert!(matches!(decode::<Hello>(&longer), Err(ControlError::Decode(_))));
        assert!(matches!(decode::<Hello>(&bytes[4..bytes.len() - 1]), Err(ControlError::Decode(_))));
    }

    #[test]
    fn owners_are_told_as_runs_and_come_back_one_by_one() {
        let nodes = [1, 1, 2, 0, 0, 0, 1];
        let owners = Owners { shards: Owners::runs(nodes), ..Owners::default() };
        assert_eq!(owners.shards, [(2, 1), (1, 2), (3, 0), (1, 1)]);
        assert!(owners.of_shards().eq(nodes));
    }

    #[test]
    fn a_length_that_lies_allocates_nothing_much() {
        // A vector that claims 2^60 elements: bincode's limit stops it before memory is asked for.
        let mut bytes = vec![1, 1, 0, 0];
        bytes.push(253);
        bytes.extend_from_slice(&(1u64 << 60).to_le_bytes());
        assert!(decode::<Hello>(&bytes).is_err());
    }

    #[test]
    fn a_layout_refusal_names_both_hashes_and_what_to_do() {
        let text = Refused::Layout(vec![LayoutMismatch { name: "a.b".into(), client: 0xabc, node: 0xdef }]).to_string();
        assert!(text.contains("0000000000000abc") && text.contains("0000000000000def") && text.contains("`a.b`"));
        assert!(text.contains("Build both"));
    }

    #[test]
    fn close_codes_are_read_back() {
        for close in [Close::Done, Close::Stopping, Close::Frame, Close::Control, Close::Internal] {
            assert_eq!(Close::from_code(close.code()), Some(close));
        }
        assert_eq!(Close::from_code(VarInt::from_u32(1000)), None);
    }
}
