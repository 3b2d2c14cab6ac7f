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

    fn add(a: u32, b: u32) -> u32 {
        a + b
    }

    fn nothing() {}

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        add(1);
        add(1, 2, 3);
        add(1, true);
        add();
        let x = nothing();
        5u32.pow();
        ctx.stop(1);
    }
}

fn main() {}
