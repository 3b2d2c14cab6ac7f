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
        pub x: u32,
    }

    pub enum Point {
        One,
        One,
    }

    const LIMIT: u32 = 1;
    const LIMIT: u32 = 2;

    impl State {
        fn grow(&mut self) {}
        fn grow(&mut self) {}
    }

    fn two(a: u32, a: u32) {}

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
