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
        break;
        continue;
        while true {
            break 5;
        }
        'outer: loop {
            break 'inner;
        }
        let x: u32 = loop {
            break;
        };
        'block: {
            break 'block;
        }
    }
}

fn main() {}
