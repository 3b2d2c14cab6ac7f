//! The actor that everything is measured on.

/// 256 bytes, all of which a touch changes.
#[ringhold::actor]
pub mod cell {
    pub struct State {
        pub words: [u64; 31],
        pub touched: u64,
    }

    pub enum Message {
        Touch,
        Read,
        /// Touches, and sends the rest on to the next of so many cells.
        Pass {
            left: u64,
            cells: u64,
        },
    }

    pub enum Reply {
        Touched { times: u64 },
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Touch => touch(state),
            Message::Read => ctx.reply(Reply::Touched { times: state.touched }),
            Message::Pass { left, cells } => {
                state.touched += 1;
                if left > 0 {
                    ctx.send(id((ctx.id().key() + 1) % cells), Message::Pass { left: left - 1, cells });
                }
            }
        }
    }

    fn touch(state: &mut State) {
        state.touched += 1;
        for i in 0..31 {
            state.words[i] = state.touched;
        }
    }
}
