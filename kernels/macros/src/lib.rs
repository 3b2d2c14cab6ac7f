//! `#[ringhold::actor]`.
#[allow(dead_code)]
mod ir;
