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

    use std::collections::HashMap;
    use super::*;
    use super::other as another;
    use super::{one, two};
    use super::Thing;

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {}
}

fn main() {}
