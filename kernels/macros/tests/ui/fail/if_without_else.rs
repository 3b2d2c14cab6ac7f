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

    fn sign(x: i64) -> i64 {
        if x < 0 {
            -1
        }
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let a = if state.total > 0 { 1 };
        if state.total > 0 {
            5
        }
        state.total = if state.total > 0 { 1 };
    }
}

fn main() {}
