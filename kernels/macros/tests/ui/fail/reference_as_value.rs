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

    fn twice(x: &i64) -> i64 {
        x * 2
    }

    impl Message {
        fn value(&self) -> i64 {
            match self {
                Message::Add { value } => 1,
                Message::Read => 0,
            }
        }
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
