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
        for item in state.items {}
        for item in state.items.iter() {}
        for i in (0..8).rev() {}
        for i in (0..8).step_by(2) {}
        for i in 0.. {}
        for i in 0.0..1.0 {}
        for i in 0u8..5u32 {}
        for (i, x) in 0..5 {}
    }
}

fn main() {}
