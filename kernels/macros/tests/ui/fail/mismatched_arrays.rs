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
        let a: [u32; 4] = [1, 2];
        let b = [1u8, 2u16];
        let c = state.total[0];
        let d = state.items[true];
        let e: [u8; 2] = [0; 3];
        let f = [];
    }
}

fn main() {}
