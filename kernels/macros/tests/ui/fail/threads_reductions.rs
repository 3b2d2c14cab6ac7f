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
        let mut sum = 0;
        let mut product = 1u32;
        let mut mixed = 0u32;
        let mut least = 9u32;
        let mut running = 0u32;
        for i in ctx.threads(0u32..8) {
            sum -= i;
            product *= i + 1;
            mixed += i;
            mixed ^= i;
            least = i.min(least);
            running += i;
            state.items[i] = running;
        }
    }

}

fn main() {}
