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
        let a: f64 = 1;
        let b = 1.5 + 1;
        let c: u32 = 1.5;
        let d = 1.5f32 * 2.0f64;
    }
}

fn main() {}
