#[ringhold::actor]
pub mod probe {
    struct State {
        x: u32,
    }

    pub(crate) enum Message {
        Go,
    }

    enum Reply {
        Done,
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
