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

    const SELF: u32 = SELF + 1;
    const OVER: u8 = 200 + 100;
    const ZERO: u32 = 1 / 0;
    const CALL: u32 = one();
    const POINT: State = 5;
    const TEXT: &str = "x";
    const SHIFT: u32 = 1 << 32;
    const AT: u8 = [1, 2][2];

    fn one() -> u32 {
        1
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        OVER = 3;
    }
}

fn main() {}
