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
//! | idea | file |
//! |---|---|
//! | limits and deadlines | `limits.rs` |
//! | what a stream starts with, and why a connection ends | `preamble.rs`, `close.rs` |
//! | who a client is, and whether it is let in | `hello.rs` |
//! | what is asked and answered on requests | `request.rs`, `status.rs`, `letters.rs` |
//! | values on a stream | `control.rs` |
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

mod close;
mod control;
mod hello;
mod letters;
mod limits;
mod preamble;
mod request;
mod status;

pub use close::*;
pub use control::*;
pub use hello::*;
pub use letters::*;
pub use limits::*;
pub use preamble::*;
pub use request::*;
pub use status::*;

/// The TLS application protocol: peers that speak anything else are refused in the handshake.
pub const ALPN: &[u8] = b"ringhold/1";
/// The version of everything in this folder and in [`crate::frame`]. A change that an older peer would misread
/// raises it.
pub const VERSION: u16 = 5;
/// The oldest version this build still speaks: the one before its own, from the first for which that was promised.
pub const VERSION_MIN: u16 = if VERSION > VERSION_FIRST_KEPT { VERSION - 1 } else { VERSION_FIRST_KEPT };
const VERSION_FIRST_KEPT: u16 = 5;
const _: () = assert!(VERSION >= VERSION_FIRST_KEPT);
