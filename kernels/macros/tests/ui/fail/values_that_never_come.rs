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

    fn one(x: u32) -> u32 {
        one_of(return 5, 1)
    }

    fn one_of(a: u32, b: u32) -> u32 {
        a
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let y = loop {};
        let z: u32 = return;
        if (return) {}
    }
}

fn main() {}
