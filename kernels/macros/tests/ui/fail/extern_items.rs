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

    extern "C" {
        fn sin(x: f64) -> f64;
    }

    extern crate core;

    extern "C" fn call() {}

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
