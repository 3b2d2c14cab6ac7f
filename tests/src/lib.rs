//! What the tests and benches share.

pub mod differential;
