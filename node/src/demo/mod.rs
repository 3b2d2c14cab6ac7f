//! The demo: 336,776 flights through actors, and every state checked against a plain computation.

pub mod actors;
mod feed;
pub mod flights;
mod names;
mod reference;
mod report;
mod states;

#[cfg(test)]
mod tests;
