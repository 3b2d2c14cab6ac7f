//! What must survive a restart.
//!
//! [`folder::DataFolder`] is the node's folder: one process at a time, one format version, one node id.
//! [`dead_letters::DeadLetters`] keeps the messages that nobody handled, in sled or, for simulation, in memory.
//! [`checkpoints::Checkpoints`] keeps what devices recover from, over the narrow trait [`blocks::Blocks`]: sled, or memory;
//! [`export`] takes them to a file and back, and [`backup`] those of a running cluster.
//! [`raft_log::RaftLog`] keeps what nodes agree on, over the same trait.
//! [`kernels::Kernels`] keeps what the compiler of GPUs' code has made.
//!
//! This floor knows messages but not who sends them: no networks, no devices, no clocks. Time and randomness are
//! arguments.

pub mod backup;
pub mod blocks;
pub mod checkpoints;
pub mod dead_letters;
pub mod export;
pub mod folder;
pub mod kernels;
pub mod raft_log;
