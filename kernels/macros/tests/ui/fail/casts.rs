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

    pub enum Level {
        Low,
        High,
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let a = true as f64;
        let b = 1u32 as bool;
        let c = 1u8 as char;
        let d = message as u32;
        let e = 1 as Level;
        let f = state.items as u32;
        let g = Level::Low as f32;
        let h = 5 as usize;
        let i = Level::High as u8;
    }
}

fn main() {}
