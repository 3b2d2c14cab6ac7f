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
        let x: i64 = 5u32.into();
        let y = i64::from(5u32);
        let z = state.total.clone();
        let w = u32::default();
    }
}

fn main() {}
