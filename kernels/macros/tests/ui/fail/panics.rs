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
        if state.total < 0 {
            panic!("negative");
        }
        assert!(state.total > 0);
        assert_eq!(state.total, 1);
        match message {
            Message::Add { value } => unreachable!(),
            Message::Read => todo!(),
        }
    }
}

fn main() {}
