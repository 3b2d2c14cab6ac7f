//! Nothing yet.

pub mod cli;
pub mod client;
pub mod config;
pub mod logs;
pub mod server;
