//! `#[ringhold::actor]`.
#[allow(dead_code)]
mod cuda;
#[allow(dead_code)]
mod faults;
#[allow(dead_code)]
mod ir;
#[allow(dead_code)]
mod layout;
#[allow(dead_code)]
mod native;
