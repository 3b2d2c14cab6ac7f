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

    const fn one() -> u32 {
        1
    }

    async fn two() {}

    unsafe fn three() {}

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
