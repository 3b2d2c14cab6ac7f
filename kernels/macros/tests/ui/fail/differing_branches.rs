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
        let a = if state.total > 0 { 1u32 } else { 2u64 };
        let b = match message {
            Message::Read => true,
            Message::Add { value } => value,
        };
        let c = loop {
            if state.total > 0 {
                break 5u32;
            }
            break true;
        };
    }
}

fn main() {}
