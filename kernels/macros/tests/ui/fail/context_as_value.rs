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

    fn log(ctx: &Context) {}

    fn stop(ctx: &mut Context) {
        ctx.stop();
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let c = ctx;
        stop(&mut ctx);
        stop(state.total);
        let d = ctx.sender;
    }
}

fn main() {}
