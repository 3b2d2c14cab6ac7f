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
        for i in ctx.threads(0u32..8) {
            let right = state.items[i + 1];
            state.items[i] = right;
        }
        for i in ctx.threads(0u32..8) {
            state.items[i] = sum(&state.items);
        }
        for i in ctx.threads(0u32..8) {
            let mut before = *state;
            before.items[i] = 5;
            state.items[i] = before.items[i];
        }
        for i in ctx.threads(0u32..8) {
            state.grid[i][0] = 1;
            state.grid[0][i] = 2;
        }
        for i in ctx.threads(0u32..8) {
            state.grid[i][0] = state.rows[i + 1].x as u32;
            state.rows[i].x = 4;
        }
    }

    fn sum(items: &[u32; 8]) -> u32 {
        items[0] + items[7]
    }

}

fn main() {}
