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

    pub struct Wrapper<T> {
        pub value: T,
    }

    fn same<T>(x: T) -> T
    where
        T: Copy,
    {
        x
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
