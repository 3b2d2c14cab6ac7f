//! What travels between nodes and clients, and how: certificates, QUIC, and the bytes on the wire.
//!
//! This floor knows sockets and certificates but neither devices nor actors' handlers: it moves messages
//! (see [`ringhold_kernels::message`]) and never looks into their payloads. Everything that reaches the
//! outside world (UDP, wall time, randomness) comes in through [`network::Network`], chosen once in `main`, so that
//! the simulator runs the same code on a network of its own.
//!
//! Read [`wire`] first (what a connection carries), then [`frame`] (how messages are packed into it) and [`peers`] (how
//! nodes talk to each other).

pub mod control;
pub mod counters;
pub mod enrol;
pub mod fault;
pub mod frame;
pub mod network;
pub mod peers;
pub mod placement;
pub mod tls;
pub mod transport;
pub mod wire;
