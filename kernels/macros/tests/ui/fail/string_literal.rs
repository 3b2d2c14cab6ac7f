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
        let name = "ringhold";
        let letter = 'r';
        let bytes = b"ring";
        let c = c"ring";
    }
}

fn main() {}
