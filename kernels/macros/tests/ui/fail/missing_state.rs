#[ringhold::actor]
pub mod probe {
    pub enum Message {
        Read,
    }
}

fn main() {}
