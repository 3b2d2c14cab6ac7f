#[ringhold::actor]
pub mod probe {
    use super::other;

    pub struct State {
        pub last: other::State,
    }

    pub enum Message {
        Go,
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let to = other::id(5);
        ctx.send(to, other::Message::Set { value: 5, ratio: 1.5 });
        ctx.send(to, other::Message::Set { value: 5u32, ratio: 1.5f32 });
        ctx.send(to, other::Message::Tell(5));
        ctx.send(to, other::Reply::Set);
        let message = other::Message::Stop;
        other::compute(5);
        ctx.send(to, other::Message::Move { message });
    }
}

fn main() {}
