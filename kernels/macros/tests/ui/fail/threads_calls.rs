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
        let mut count = 0u32;
        for i in ctx.threads(0u32..8) {
            bump(&mut count);
            bump(&mut state.items[0]);
            bump(&mut state.items[i]);
        }
        let mut local = [1u32; 8];
        clear(&mut local, ctx);
        clear_all(&mut state.items, &mut local, ctx);
    }

    fn bump(value: &mut u32) {
        *value += 1;
    }

    fn clear(items: &mut [u32; 8], ctx: &mut Context) {
        for i in ctx.threads(0..8) {
            items[i] = 0;
        }
    }

    fn clear_all(items: &mut [u32; 8], others: &mut [u32; 8], ctx: &mut Context) {
        clear(items, ctx);
        clear(others, ctx);
    }

}

fn main() {}
