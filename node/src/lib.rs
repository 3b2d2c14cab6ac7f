//! Nothing yet.

pub mod client;
pub mod config;
pub mod server;
