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

    pub struct Point {
        pub x: i64,
        pub y: i64,
    }

    const LIMIT: i64 = 5;
    const TABLE: [u8; 2] = [1, 2];

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Read => {}
            Message::Add { ref value } => {}
            Message::Add { amount } => {}
            Message::Add => {}
            Message::Remove => {}
            &Message::Read => {}
            (a, b) => {}
            [a, b] => {}
            5 => {}
            Point { x, .. } => {}
            _ => {}
        }
        match state.total {
            5..=1 => {}
            300u8 => {}
            LIMITS => {}
            Point::X => {}
            TABLE => {}
            _ => {}
        }
        let Point { x } = Point { x: 1, y: 2 };
        let Message::Read = message;
        let LIMIT = 5;
        let Point { x: 5, y } = Point { x: 1, y: 2 };
    }
}

fn main() {}
