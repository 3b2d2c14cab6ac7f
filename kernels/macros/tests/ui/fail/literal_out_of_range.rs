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

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let a: u8 = 256;
        let b: i8 = -129;
        let c = 3_000_000_000;
        let d = 99999999999999999999999999999999999999999u64;
        let e = 1e400;
        let f: f32 = 1e40;
    }
}

fn main() {}
