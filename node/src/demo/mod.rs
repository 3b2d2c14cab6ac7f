//! The demo: a year of flights through actors, and every actor's state checked against a plain computation.
//!
//! [`actors`] are aircraft, airports and carriers. [`flights`] reads the data set. `reference` computes what the
//! states ought to be, `states` compares, `report` prints. `nodes` are a cluster of processes on this machine. `drive` is the
//! client: it streams the flights to the nodes over QUIC and reads every state back. Meanwhile `failover` kills one of them; or, where
//! there is only one, `chaos` kills and hangs its device hosts. [`run()`] is all of it.

pub mod actors;
mod chaos;
mod drive;
mod failover;
mod feed;
pub mod flights;
mod names;
mod nodes;
mod reference;
mod report;
mod run;
mod states;
#[cfg(test)]
mod tests;

pub use run::{Error, Options, Report, run};
