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

    fn read(x: i64) -> i64 {
        *x
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let a = *state.total;
        let b = *state;
        let c = &state.total;
    }
}

fn main() {}
