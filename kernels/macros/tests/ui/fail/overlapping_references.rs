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

    fn add(to: &mut i64, by: &i64) {
        *to += *by;
    }

    fn swap(a: &mut u32, b: &mut u32) {}

    impl State {
        fn grow(&mut self, by: &i64) {
            self.total += *by;
            add(&mut self.total, by);
        }
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        add(&mut state.total, &state.total);
        swap(&mut state.items[0], &mut state.items[1]);
        state.grow(&state.total);
        let total = state.total;
        state.grow(&total);
    }
}

fn main() {}
