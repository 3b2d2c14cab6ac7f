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

    fn grow(x: &mut i64, by: &i64) {
        *x += *by;
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        grow(state.total, 5);
        grow(&state.total, &5);
        grow(&mut state.total, &state.total);
    }
}

fn main() {}
