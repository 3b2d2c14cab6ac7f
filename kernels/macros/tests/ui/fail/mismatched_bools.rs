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
        if state.total {}
        let a: bool = 1;
        let b = !1.5;
        let c = true + false;
        let d = true && 1;
        let e: u32 = true;
    }
}

fn main() {}
