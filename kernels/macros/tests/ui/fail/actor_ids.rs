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
        let a = id(5u32);
        let b = id(1, 2);
        let c = a as u64;
        let d = a < b;
        let e = ActorId::new(1);
        let f = a.key;
    }
}

fn main() {}
