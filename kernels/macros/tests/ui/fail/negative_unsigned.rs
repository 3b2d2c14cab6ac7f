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
        let a: u32 = -1;
        let b = -state.items[0];
        let c = -1 as u8;
        let d = 1;
        let e = -d;
        state.items[0] = e;
    }
}

fn main() {}
