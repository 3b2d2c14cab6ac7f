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

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        ctx.spawn(5);
        ctx.reply(5);
        ctx.send(5, Message::Read);
        ctx.send(ctx.id());
        ctx.send(ctx.id(), 5);
        ctx.send_after(1i64, ctx.id(), Message::Read);
    }
}

fn main() {}
