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

    pub struct Point {
        pub x: u32,
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let a = Point { x: 1 };
        let b = a == a;
        let c = state.items == state.items;
        let d = message == message;
        let e = 1.5 & 2.5;
        let f = 1.0 << 2;
        let g = 1 << 2.0;
        let h = true < false;
    }
}

fn main() {}
