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

    pub enum Shape {
        Dot,
        Line { length: u8, solid: bool },
    }

    fn area(shape: Shape) -> u32 {
        match shape {
            Shape::Dot => 0,
            Shape::Line { length: 0..=9, .. } => 1,
            Shape::Line { solid: true, length } => length as u32,
        }
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        match message {
            Message::Add { value } if value > 0 => {}
            Message::Read => {}
        }
        match state.items[0] {
            0 => {}
            2..=9 | 11.. => {}
        }
        match state.total > 0 {
            true => {}
        }
        match state.total {
            -5..=5 => {}
            i64::MIN..-5 => {}
        }
    }
}

fn main() {}
