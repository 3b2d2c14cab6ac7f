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

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        5 = state.total;
        (state.total, state.items) = (1, 2);
        _ = state.total;
        missing = 5;
        state.total() = 5;
    }
}

fn main() {}
