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

    macro_rules! twice {
        ($x:expr) => {
            $x * 2
        };
    }

    twice! {}

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let x = twice!(5);
    }
}

fn main() {}
