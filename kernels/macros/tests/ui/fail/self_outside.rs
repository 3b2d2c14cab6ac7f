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

    fn total(&self) -> i64 {
        self.total
    }

    fn make() -> Self {
        Self { x: 1 }
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
