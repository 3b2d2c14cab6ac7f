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

    static mut COUNT: u32 = 0;

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        COUNT += 1;
    }
}

fn main() {}
