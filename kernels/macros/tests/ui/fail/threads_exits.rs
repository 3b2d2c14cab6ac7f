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
        let mut found = 0;
        'outer: for row in 0..8u32 {
            for i in ctx.threads(0..8) {
                if state.items[i] == 0 {
                    break;
                }
                if state.items[i] == 1 {
                    break 'outer;
                }
                if state.items[i] == 2 {
                    continue 'outer;
                }
                if state.items[i] == 3 {
                    return;
                }
            }
        }
    }

}

fn main() {}
