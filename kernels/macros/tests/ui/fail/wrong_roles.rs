#[ringhold::actor]
pub mod probe {
    pub enum State {
        One,
    }

    pub struct Message {
        pub x: u32,
    }

    pub struct Reply {
        pub x: u32,
    }

    pub fn handle(state: &State, message: Message) -> u32 {
        1
    }
}

fn main() {}
