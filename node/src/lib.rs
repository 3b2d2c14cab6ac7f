//! Nothing yet.

pub mod config;
pub mod server;
