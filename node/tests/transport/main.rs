//! The transport end to end: the real server and the real client, with doors that echo behind the server.
//!
//! `real` uses the machine's loopback; `simulated` a network in memory and a paused clock, so that deadlines of seconds
//! pass at once, and `several` has nodes there among which actors are dealt out, and move. `peers` has nodes talk to each other, on both, and `enrol` lets
//! new ones in. `speed` compares with a bare quinn stream, and is run by name.

mod enrol;
mod harness;
mod memory;
mod peers;
mod real;
mod several;
mod simulated;
mod speed;
