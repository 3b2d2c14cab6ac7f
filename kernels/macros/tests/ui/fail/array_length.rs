#[ringhold::actor]
pub mod probe {
    pub struct State {
        pub total: i64,
        pub items: [u32; 8],
        pub none: [u8; 0],
        pub text: [u8; "4"],
        pub many: [u8; 5_000_000],
        pub wrong: [u8; 2 - 3],
    }

    pub enum Message {
        Add { value: i64 },
        Read,
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
