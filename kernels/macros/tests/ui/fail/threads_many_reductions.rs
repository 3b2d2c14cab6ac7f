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
        let mut sum1 = 0u64;
        let mut sum2 = 0u64;
        let mut sum3 = 0u64;
        let mut sum4 = 0u64;
        let mut sum5 = 0u64;
        let mut sum6 = 0u64;
        let mut sum7 = 0u64;
        let mut sum8 = 0u64;
        let mut sum9 = 0u64;
        for i in ctx.threads(0u64..8) {
            sum1 += i;
            sum2 += i;
            sum3 += i;
            sum4 += i;
            sum5 += i;
            sum6 += i;
            sum7 += i;
            sum8 += i;
            sum9 += i;
        }
    }

}

fn main() {}
