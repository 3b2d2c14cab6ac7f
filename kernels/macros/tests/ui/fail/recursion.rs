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

    fn factorial(n: u64) -> u64 {
        if n == 0 { 1 } else { n * factorial(n - 1) }
    }

    fn even(n: u64) -> bool {
        if n == 0 { true } else { odd(n - 1) }
    }

    fn odd(n: u64) -> bool {
        if n == 0 { false } else { even(n - 1) }
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
