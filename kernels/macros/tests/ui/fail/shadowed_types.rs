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

    pub struct Context {
        pub x: u32,
    }

    pub enum Option {
        Nothing,
    }

    pub struct u32 {
        pub x: u8,
    }

    fn id(key: u64) -> u64 {
        key
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
