#[ringhold::actor(threads_per_actor = 32)]
pub mod probe {
    pub struct Row {
        pub x: i32,
    }

    pub struct State {
        pub total: i64,
        pub items: [u32; 8],
        pub grid: [[u32; 8]; 8],
        pub rows: [Row; 8],
    }

    pub enum Message {
        Add { value: i64 },
        Read,
    }

    pub enum Reply {
        Total { total: i64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        for i in ctx.threads(0..8) {
            ctx.reply(Reply::Total { total: 0 });
            ctx.send(ctx.id(), Message::Read);
            ctx.send_after(5, ctx.sender(), Message::Read);
            ctx.stop();
            tell(ctx);
            for j in ctx.threads(0..8) {
                state.items[j] = 0;
            }
        }
    }

    fn tell(ctx: &mut Context) {
        ctx.stop();
    }

}

fn main() {}
