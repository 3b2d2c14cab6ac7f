#[ringhold::actor]
pub mod probe {
    pub struct State {
        pub total: i64,
        pub items: [u32; 8],
        pub last: Option<u32>,
    }

    pub enum Message {
        Add { value: i64 },
        Read,
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let x = Some(5u32);
        let y = None;
        match message {
            Some(x) => {}
            _ => {}
        }
    }
}

fn main() {}
