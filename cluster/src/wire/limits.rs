//! How much there may be at a time, and how long it may take.

use std::time::Duration;

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
