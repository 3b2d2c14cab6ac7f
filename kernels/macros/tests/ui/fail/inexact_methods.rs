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
        let x = 1.5f64.sin();
        let y = 1.5f32.powi(2);
        let z = 1.5f64.ln();
    }
}

fn main() {}
