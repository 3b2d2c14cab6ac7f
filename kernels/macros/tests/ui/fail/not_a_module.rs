#[ringhold::actor]
pub struct Probe {
    pub x: u32,
}

fn main() {}
