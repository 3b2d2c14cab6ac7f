//! Whole nodes in one thread, on simulated time: a run is a seed.
//!
//! The code that runs is the code that ships: node, router, server, client, QUIC with TLS, rings and workers. What is
//! simulated is what lies outside it: time, the network, randomness, and the processes that serve devices.
//!
//! There are four scenarios: [`scenario`] has a node and its clients in bad weather while devices crash; [`recovery`] has
//! a node go on from its checkpoints when devices crash and when its power fails; [`cluster`] has the control planes of several
//! nodes agree while these crash and lose each other; [`nodes`] has whole nodes go on with each other's devices.
//!
//! Read [`scenario::run`] first, which runs a seed and says what was not kept; then [`scenario::check`], which
//! decides that; then [`network::Net`], [`devices::SimDevices`] and [`disk::SimDisk`], the world it happens in.

pub mod cluster;
pub mod crypto;
pub mod devices;
pub mod disk;
pub mod network;
pub mod nodes;
pub mod observed;
pub mod random;
pub mod recovery;
pub mod scenario;
pub mod trace;
