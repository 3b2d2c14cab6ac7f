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
        let a = Message::Add;
        let b = Message::Add { amount: 1 };
        let c = Message::Remove;
        let d = Message::Read { value: 1 };
        let e = Message::Read();
    }
}

fn main() {}
