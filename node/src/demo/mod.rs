//! The demo: a year of flights through actors, and every actor's state checked against a plain computation.
//!
//! [`actors`] are aircraft, airports and carriers. [`flights`] reads the data set. `reference` computes what the
//! states ought to be, `states` compares, `report` prints. `drive` is the client: it streams the flights to a
//! node over QUIC and reads every state back. `chaos` kills and hangs the node's device hosts meanwhile. [`run()`] is all of it.

pub mod actors;
mod chaos;
mod drive;
mod feed;
pub mod flights;
mod names;
mod reference;
mod report;
mod run;
mod states;
#[cfg(test)]
mod tests;

pub use run::{Error, Options, Report, run};
