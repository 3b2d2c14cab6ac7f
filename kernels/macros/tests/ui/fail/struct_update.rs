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
        pub y: u32,
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let a = Point { x: 1, y: 2 };
        let b = Point { x: 3, ..a };
    }
}

fn main() {}
