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

    fn small(x: u8) -> u8 {
        match x {
            256 => 1,
            -1 => 2,
            0..=300 => 3,
            _ => 4,
        }
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
