#[ringhold::actor(name = "9 lives", threads_per_actor = 32, size = 5)]
pub mod probe {
    pub struct State {
        pub total: i64,
        pub items: [u32; 8],
    }

    pub enum Message {
        Add { value: i64 },
        Read,
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
