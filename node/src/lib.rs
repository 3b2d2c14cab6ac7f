//! Nothing yet.

pub mod config;
