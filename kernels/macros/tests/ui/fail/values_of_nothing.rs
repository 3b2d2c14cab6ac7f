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

    fn nothing() {}

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let a = nothing();
        let b = return;
        let c = if true {};
    }
}

fn main() {}
