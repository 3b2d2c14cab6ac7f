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
        let table = [1u64; 128];
        for i in ctx.threads(0u32..8) {
            state.items[i] = table[i * 3] as u32;
        }
    }

}

fn main() {}
