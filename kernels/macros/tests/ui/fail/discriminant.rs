#[ringhold::actor]
pub mod probe {
    pub struct State {
        pub total: i64,
        pub items: [u32; 8],
    }

    pub enum Message {
        Add { value: i64 },
        Read,
    }

    pub enum Level {
        Low = 1,
        High = 2,
    }

    pub enum Never {}

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
