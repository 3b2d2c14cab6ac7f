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

    impl State {
        fn grow(&mut self) {}
        fn make() -> u32 {
            1
        }
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        state.shrink();
        state.make();
        let x = state.total.cube();
        let y = 1.5f64.cube();
        let z = ctx.id().shard();
        let w = true.then(1);
    }
}

fn main() {}
