//! Statements: loops, branches, patterns, ways out.

#[ringhold::actor]
mod control {
    /// What it holds.
    pub struct State {
        pub grid: [[u16; 4]; 3],
        pub shape: Shape,
        pub(crate) count: u32,
    }

    pub enum Shape {
        Dot,
        Line { from: Point, to: Point },
        Circle { center: Point, radius: u32 },
    }

    pub struct Point {
        pub x: i32,
        pub y: i32,
    }

    pub enum Message {
        Draw { shape: Shape },
        Sum { limit: u32 },
        Classify { value: i16 },
        Search { value: u16 },
    }

    pub enum Reply {
        Number { value: i64 },
        Found { row: u32, column: u32 },
        Nothing,
    }

    const SMALL: i16 = 10;

    fn classify(value: i16) -> i64 {
        match value {
            i16::MIN..=-1 => -1,
            0 => 0,
            n @ (1 | 2) => n as i64,
            SMALL => 10,
            3..SMALL => 5,
            _ if value % 2 == 0 => 2,
            big => {
                let halved = big / 2;
                halved as i64
            }
        }
    }

    fn sum(limit: u32) -> i64 {
        let mut total = 0;
        for i in 0..limit {
            if i % 3 == 0 {
                continue;
            }
            total += i as i64;
        }
        for _ in 1..=3u8 {
            total += 1;
        }
        let mut step = 1;
        while step < 100 {
            step *= 2;
        }
        let found = loop {
            step += 1;
            if step > 200 {
                break step;
            } else if step == 150 {
                break 0;
            }
        };
        let chosen;
        if found > 5 {
            chosen = 1;
        } else {
            chosen = 2;
        }
        total + found + chosen
    }

    fn search(state: &State, value: u16) -> Reply {
        let mut i = 0;
        'rows: loop {
            if i == 3 {
                break 'rows;
            }
            let row = state.grid[i];
            for column in 0..4 {
                if row[column] == value {
                    return Reply::Found { row: i, column };
                }
                if row[column] > value {
                    i += 1;
                    continue 'rows;
                }
            }
            i += 1;
        }
        Reply::Nothing
    }

    fn length(shape: Shape) -> i64 {
        match shape {
            Shape::Dot => 0,
            Shape::Line { from: Point { x, y: _ }, to } => {
                let Point { x: end, y } = to;
                (end - x) as i64 + y as i64
            }
            Shape::Circle { center: Point { x: 0, .. }, radius } | Shape::Circle { radius, center: _ } => {
                let twice = { radius * 2 };
                twice as i64
            }
        }
    }

    pub fn handle(state: &mut State, message: Message, ctx: &mut Context) {
        let _ = state.count;
        state.count += 1;
        if let Shape::Line { from, .. } = state.shape {
            state.grid[0][1] = from.x as u16;
        } else if state.count > 5 {
            state.grid[1][2] += 1;
        }
        let value = if let Message::Sum { limit } = message { sum(limit) } else { -1 };
        match message {
            Message::Draw { shape } => {
                state.shape = shape;
                ctx.reply(Reply::Number { value: length(state.shape) });
            }
            Message::Sum { .. } => ctx.reply(Reply::Number { value }),
            Message::Classify { value } => ctx.reply(Reply::Number { value: classify(value) }),
            Message::Search { value } => {
                let reply = search(state, value);
                return ctx.reply(reply);
            }
        };
    }
}

fn main() {}
