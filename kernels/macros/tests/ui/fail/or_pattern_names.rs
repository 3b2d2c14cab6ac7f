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
        match state.total {
            x @ 1 | 2 => {}
            3 | y => {}
            x @ (x @ 5) => {}
            a @ 6 | a @ 7 => {}
            _ => {}
        }
    }
}

fn main() {}
