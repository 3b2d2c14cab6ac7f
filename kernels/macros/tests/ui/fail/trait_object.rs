#[ringhold::actor]
pub mod probe {
    pub struct State {
        pub total: i64,
        pub items: [u32; 8],
        pub any: dyn Clone,
    }

    pub enum Message {
        Add { value: i64 },
        Read,
    }

    fn show(x: impl Copy) {}

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
