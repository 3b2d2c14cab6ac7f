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

    fn sum(items: &[u32]) -> u32 {
        items[0]
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let part = state.items[1..3];
    }
}

fn main() {}
