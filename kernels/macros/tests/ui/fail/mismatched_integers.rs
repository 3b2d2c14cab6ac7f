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
        let a: i64 = 5u32;
        state.total = state.items[0];
        state.total += state.items[0];
        let b = state.total + state.items[0];
        let c = state.total == 5u8;
    }
}

fn main() {}
