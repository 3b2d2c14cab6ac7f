//! Arguments that read what the receiver will change: two-phase borrows, as in plain Rust.

#[ringhold::actor]
pub mod borrows {
    pub struct State {
        pub total: i64,
        pub steps: [i64; 4],
    }

    pub enum Message {
        Go,
    }

    pub enum Reply {
        Total { total: i64 },
    }

    impl State {
        fn grow(&mut self, by: i64) -> i64 {
            self.total += by;
            self.total
        }
    }

    fn swap(a: &mut i64, b: &mut i64) {
        let held = *a;
        *a = *b;
        *b = held;
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Go => {
                state.grow(state.total);
                state.grow(state.steps[1] + 1);
                let last = state.grow(1);
                state.steps[0] = state.grow(last);
                swap(&mut state.total, &mut state.steps[0]);
                ctx.reply(Reply::Total { total: state.grow(2) });
            }
        }
    }
}

fn main() {}
