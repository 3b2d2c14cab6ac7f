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
        match 1.5f64 {
            1.5 => {}
            _ => {}
        }
        match state.total {
            0.0..=1.0 => {}
            1.5 => {}
            _ => {}
        }
    }
}

fn main() {}
