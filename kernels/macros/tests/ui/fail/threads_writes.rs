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
        let mut last = 0;
        let mut local = [0u32; 8];
        let mut row = Row { x: 0 };
        for i in ctx.threads(0u32..8) {
            last = i;
            local[i] = i;
            row.x += 1;
            state.total += 1;
            state.items[0] = i;
            state.items[i + 1] = i;
            state.items[i as u8] = i;
            state.items = [i; 8];
            state.grid[0][1] += 1;
            state.rows[last].x = 1;
            i = 3;
        }
    }

}

fn main() {}
