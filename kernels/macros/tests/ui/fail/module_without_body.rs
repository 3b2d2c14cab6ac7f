#[ringhold::actor]
pub mod probe;

fn main() {}
